"""The sensor that waits for a generation in any of Airflow's ways."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_vidu.defaults import (
    ADAPTIVE,
    DEFAULT_CONN_ID,
    DEFER_MARGIN_SECONDS,
    check_interval,
    check_length,
    checked_count,
    checked_flag,
    is_adaptive,
)
from airflow_provider_vidu.events import (
    check_execution_timeout,
    id_in,
    never_fired,
    not_resumed,
    read_event,
    resumable,
    was_never_taken_up,
)
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.links import ViduWatchLink, publish
from airflow_provider_vidu.orders.upstream import check_source, continued, id_of, stripped
from airflow_provider_vidu.tasks.masking import SignedURLOperator, as_result

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.polling.policy import Step, Watch


class ViduGenerationSensor(SignedURLOperator, BaseSensorOperator):
    """Waits until a generation has succeeded and returns it as JSON (see ``models.Generation``).

    A failed generation fails the task at once, whatever ``retries`` says, with the service's reason.
    Polls that fail are tolerated up to a budget, with backoff and the server's ``Retry-After``. After a good poll that
    includes refusals, a refused key or a missing connection pauses the wait until ``timeout``, and the error that ends
    it may be retried. A refusal of the very first poll is a mistake, and fails the task at once.

    Deferred, it polls once in the worker and then leaves it; the deadline is absolute and survives a
    restart of the triggerer. In ``mode="reschedule"`` each poke is a process of its own, so the
    budget for failed polls counts within one poke. Every other parameter is one of Airflow's
    ``BaseSensorOperator``: ``timeout`` (seconds, 7 days by default), ``soft_fail``, ``never_fail``,
    ``silent_fail``, ``mode``, ``exponential_backoff``, ``max_wait``, ``retries`` and so on.

    :param generation_id: the id at Vidu (what its API calls ``task_id``). Templated; may be mapped.
    :param generation: what a task returned (``generate.output``), instead of ``generation_id``; what only that task
        knows of the order (prompt, model, parameters) is in the result, too. May be mapped.
    :param vidu_conn_id: the Airflow connection. Templated.
    :param poke_interval: seconds (or timedelta) between polls, kept as set. Left out, a deferred wait asks when
        the adaptive schedule says so (more rarely in a queue, more often near the end; see ``schedule``), and the
        modes that hold or restart a worker ask every 15 s.
    :param deferrable: wait in the triggerer instead of a worker; ``[operators] default_deferrable``
        where left out.
    :param max_failures: failed polls in a row that are tolerated.
    :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        Templated.
    :raises ViduGenerationFailedError: when the service reports a failure.
    :raises ViduTimeoutError: after ``timeout`` seconds.
    :raises ViduConfigError: when an argument or the connection is wrong.
    """

    template_fields: Sequence[str] = ("generation", "generation_id", "vidu_conn_id", "endpoint")
    operator_extra_links = (ViduWatchLink(),)
    ui_color = "#e7defc"

    def __init__(
        self,
        *,
        generation_id: str | None = None,
        generation: Mapping[str, Any] | None = None,
        vidu_conn_id: str = DEFAULT_CONN_ID,
        poke_interval: timedelta | float | None = ADAPTIVE,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_failures: int = 10,
        endpoint: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_length("timeout", kwargs.get("timeout"))
        poke_interval = ADAPTIVE if poke_interval is None else poke_interval
        super().__init__(poke_interval=poke_interval, **kwargs)
        # An interval of nothing is refused when the DAG is parsed.
        check_interval(self.poke_interval)
        if self.max_wait is not None and self.max_wait.total_seconds() <= 0:
            raise ViduConfigError(f"max_wait must be more than 0 seconds, not {self.max_wait}.")
        check_source("ViduGenerationSensor", generation, generation_id=generation_id)
        self.generation_id = generation_id
        self.generation = generation
        self.vidu_conn_id = vidu_conn_id
        self.deferrable = checked_flag("deferrable", deferrable)
        self.max_failures = checked_count("max_failures", max_failures)
        self.endpoint = endpoint
        # Airflow keeps a plain number, so what was left out is noted here; exponential_backoff is a wish, too.
        self._adaptive = is_adaptive(poke_interval) and not self.exponential_backoff
        self._watch: Watch | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait; return the succeeded generation as JSON, or leave the worker by deferring."""
        context = {} if context is None else context  # in a unit test of a user
        publish(context, self._id(), conn_id=self.vidu_conn_id, role="wait", endpoint=self.endpoint)
        if self.deferrable:
            with self._softened():
                return self._execute_deferrable(context)
        if self.reschedule and context.get("ti") is None:
            self.mode = "poke"  # in a unit test of a user there is nothing that could be rescheduled
        try:
            found: dict[str, Any] = super().execute(context)
        except ViduError:
            raise
        except AirflowSensorTimeout as error:
            # Airflow's own message knows neither the generation nor its state.
            raise self._watching(context).timeout_error(time.time()) from error
        except AirflowSkipException as skip:
            if skip.__cause__ is None:
                skip.__cause__ = self._watching(context).timeout_error(time.time())
            raise _told(skip) from skip.__cause__
        return found

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll once; in trouble, stay until it is over or the budget for failed polls is used up."""
        step = self._poll(self._watching(context))
        # A pause may last for hours: a rescheduled sensor leaves the worker meanwhile.
        while step.trouble and step.delay is not None and not (step.paused and self.reschedule):
            time.sleep(step.delay)
            step = self._poll(self._watching(context))
        if step.error is not None:
            raise step.error
        if step.generation is None:
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._result(step.generation))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume after the trigger has fired: ask afresh, so that the returned URLs are new."""
        if id_in(event) not in (None, self._id()):
            self.log.warning("Woken for %s, which this task does not wait for: waiting on.", id_in(event))
            return self._execute_deferrable(context)
        try:
            read_event(event, self._id())
        except ViduConfigError as error:
            raise not_resumed(error, self._id()) from error
        return self._asked_afresh()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; where Airflow has given up a wait that no triggerer took up in time, look once more."""
        with self._softened():
            if not was_never_taken_up(next_method, next_kwargs):
                return super().resume_execution(next_method, next_kwargs, context)
            with resumable(self._id()):
                generation = self._hook().get_generation(self._id(), endpoint=self.endpoint)
            if generation.is_done:
                return self._asked_afresh()
            check_execution_timeout(next_kwargs, self.execution_timeout, self.timeout, generation)
            raise never_fired(self._id(), self.vidu_conn_id, self.timeout, generation.describe())

    def _id(self) -> str:
        """Return the id as it is now that templates are rendered."""
        from airflow_provider_vidu.api.dialects import checked_id

        return checked_id(stripped(self.generation_id) if self.generation is None else id_of(self.generation))

    def _asked_afresh(self) -> dict[str, Any]:
        hook = self._hook()
        with resumable(self._id()):  # the wait has begun in another process
            _ = hook.config  # a missing connection is for a retry, and not for a pause that holds a worker
            found = hook.ask_afresh(self._id(), max_failures=self.max_failures, endpoint=self.endpoint)
        return self._result(found)

    def _result(self, generation: Generation) -> dict[str, Any]:
        return as_result(*continued(generation, self.generation))

    def _execute_deferrable(self, context: Context) -> dict[str, Any]:
        watch = self._watching(context)
        # An event that fires right after the deferral is lost, so the worker looks first.
        step = self._poll(watch)
        if step.error is not None:
            raise step.error
        if step.generation is not None:
            return self._result(step.generation)
        return self._defer(watch)

    def _defer(self, watch: Watch) -> NoReturn:
        from airflow_provider_vidu.triggers import ViduGenerationTrigger

        assert watch.deadline is not None  # a sensor always has a timeout
        self.defer(
            trigger=ViduGenerationTrigger(
                generation_id=self._id(),
                vidu_conn_id=self.vidu_conn_id,
                poll_interval=self.poke_interval,
                deadline=watch.deadline,
                since=watch.since,
                max_failures=self.max_failures,
                exponential_backoff=self.exponential_backoff,
                max_wait=self.max_wait.total_seconds() if self.max_wait else None,
                adaptive=self._adaptive,
                endpoint=self.endpoint,
                known=watch.is_known,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(watch.deadline - time.time(), 0) + DEFER_MARGIN_SECONDS),
        )

    def _poll(self, watch: Watch) -> Step:
        step = self._asked(watch, self._hook())
        if step.note:
            self.log.info("Generation %s: %s", self._id(), step.note)
        return step

    def _asked(self, watch: Watch, hook: ViduHook) -> Step:
        try:
            _ = hook.config
        except ViduConfigError as slip:
            return watch.lacks_connection(slip, time.time())
        except ViduError as error:
            return watch.missed(error, time.time())
        try:
            generation = hook.get_generation(self._id(), endpoint=self.endpoint, retries=0)
        except ViduError as error:
            return watch.missed(error, time.time())
        return watch.saw(generation, time.time())

    def _watching(self, context: Context) -> Watch:
        """One memory per process: a rescheduled sensor starts a new one for each poke."""
        if self._watch is None:
            from airflow_provider_vidu.polling.policy import PollPolicy, Watch

            first = _first_poke(context) if self.reschedule else None
            since = first.timestamp() if first else time.time()
            self._watch = Watch(
                PollPolicy.for_worker(self.poke_interval, self.max_failures),
                generation_id=self._id(),
                since=since,
                deadline=since + self.timeout,
                conn_id=self.vidu_conn_id,
                known=first is not None,  # a poke is followed by another only if it has seen the generation
            )
        return self._watch

    def _hook(self) -> ViduHook:
        from airflow_provider_vidu.hooks import ViduHook

        if self.__dict__.get("_vidu_hook") is None:
            self._vidu_hook = ViduHook(self.vidu_conn_id)
        return self._vidu_hook

    @contextmanager
    def _softened(self) -> Iterator[None]:
        """Apply soft_fail and never_fail to the legs around the deferral, alike on every Airflow."""
        try:
            yield
        except AirflowSkipException as skip:
            raise _told(skip) from skip.__cause__
        except (AirflowException, AirflowTaskTimeout) as error:
            if self.soft_fail or getattr(self, "never_fail", False):
                raise _skipped(error) from error
            raise


def _skipped(error: BaseException) -> AirflowSkipException:
    return AirflowSkipException(f"Skipped instead of failed: {error}")


def _told(skip: AirflowSkipException) -> AirflowSkipException:
    """Return a skip that says why: Airflow's own names no more than the option."""
    return skip if skip.__cause__ is None or str(skip.__cause__) in str(skip) else _skipped(skip.__cause__)


def _first_poke(context: Context) -> datetime | None:
    """Return when a rescheduled task was first poked since its last clear, if it was."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    ti: Any = context["ti"]
    if AIRFLOW_V_3_0_PLUS:
        ask = getattr(ti, "get_first_reschedule_date", None)
        found: datetime | None = ask(context) if ask else None
        return found
    # Airflow 2 has no name for it but this one, which its own sensors ask.
    base: Any = import_module("airflow.sensors.base")
    first_try = (ti.max_tries or 0) - (ti.task.retries or 0) + 1
    begun: datetime | None = base._orig_start_date(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, first_try)
    return begun
