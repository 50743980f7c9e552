"""The sensor that waits for a generation, in all modes of an Airflow sensor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_vidu.defaults import DEFAULT_CONN_ID, check_length, checked_count, checked_flag, checked_seconds
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.links import ViduWatchLink, is_task_instance, publish, result_of
from airflow_provider_vidu.orders.upstream import check_source, continued, given_id, id_of
from airflow_provider_vidu.polling.intervals import POLL_SECONDS, check_interval
from airflow_provider_vidu.tasks.endings import log_end, without_known_causes
from airflow_provider_vidu.tasks.masking import SignedURLOperator, as_result

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.polling.watch import PollResult, Watch
    from airflow_provider_vidu.tasks.deferral import DeferredWait


class ViduGenerationSensor(SignedURLOperator, BaseSensorOperator):
    """Waits until a generation has succeeded and returns it as JSON (see ``models.Generation``).

    A failed generation fails the task at once, whatever ``retries`` says, with the service's reason. Failed polls are
    tolerated up to a budget, with backoff and the server's ``Retry-After``. After the first good poll, that budget
    includes refusals; a refused key or a missing connection pauses the wait until ``timeout``, and the error that ends
    it may be retried. A refusal of the very first poll is a mistake, and fails the task at once.

    Deferred, it polls once in the worker and then leaves it; the deadline is absolute and survives a restart of the
    triggerer. In ``mode="reschedule"`` each poke is a process of its own, so the budget for failed polls applies within
    one poke. All other parameters are those of Airflow's ``BaseSensorOperator``: ``timeout`` (seconds, 7 days by
    default), ``soft_fail``, ``never_fail``, ``silent_fail``, ``mode``, ``exponential_backoff``, ``max_wait``,
    ``retries`` and so on.

    :param generation_id: the id at Vidu (``task_id`` in its API). Templated; may be mapped.
    :param generation: the return value of a task (``generate.output``), instead of ``generation_id``; the result then
        also holds what only that task's order contains (prompt, model, parameters). Templated; may be mapped.
    :param vidu_conn_id: the Airflow connection. Templated.
    :param poke_interval: seconds (or timedelta) between polls. If omitted or None, a deferred wait follows the adaptive
        schedule (less often in a queue, more often near the end; see ``schedule``), and the modes that hold or restart
        a worker poll every 15 s.
    :param deferrable: wait in the triggerer instead of a worker; ``[operators] default_deferrable`` if omitted.
    :param max_failures: consecutive failed polls that are tolerated.
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
        poke_interval: timedelta | float | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_failures: int = 10,
        endpoint: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_length("timeout", kwargs.get("timeout"))
        super().__init__(poke_interval=POLL_SECONDS if poke_interval is None else poke_interval, **kwargs)
        check_interval(self.poke_interval)
        if self.max_wait is not None and self.max_wait.total_seconds() <= 0:
            raise ViduConfigError(f"max_wait must be more than 0 seconds, not {self.max_wait}.")
        check_source("ViduGenerationSensor", generation, generation_id=generation_id)
        self.generation_id = generation_id
        self.generation = generation
        self.vidu_conn_id = vidu_conn_id
        self.deferrable = deferrable
        self.max_failures = max_failures
        self.endpoint = endpoint
        self._adaptive = poke_interval is None and not self.exponential_backoff
        self._watch: Watch | None = None
        self._check_settings()

    def _check_settings(self) -> None:
        """Read the arguments that are not rendered, also those that a cluster policy or a subclass has set since."""
        self.poke_interval = checked_seconds("poke_interval", self.poke_interval)
        if self.timeout != 0:  # one poke
            self.timeout = checked_seconds("timeout", self.timeout)
        self.deferrable = checked_flag("deferrable", self.deferrable)
        checked_count("max_failures", self.max_failures)

    @without_known_causes
    def execute(self, context: Context) -> dict[str, Any]:
        """Wait; return the succeeded generation as JSON, or leave the worker by deferring."""
        from airflow_provider_vidu.orders.dry_run import skip_after_dry_run
        from airflow_provider_vidu.tasks.deferral import is_resumable

        context = {} if context is None else context  # in a user's unit test
        self._check_settings()
        self.deferrable = self.deferrable and is_resumable(context, "execute_complete")
        skip_after_dry_run(self._id())
        if self.reschedule and not is_task_instance(context.get("ti")):
            self.mode = "poke"  # in a user's unit test, nothing can be rescheduled
        more = {} if self.reschedule else self._wait_facts()
        publish(
            context,
            self._id(),
            conn_id=self.vidu_conn_id,
            role="wait",
            endpoint=self.endpoint,
            announce=not self.reschedule,  # that mode executes at every poke
            result=result_of(self),
            **more,
        )
        if self.deferrable:
            with self._softened():
                return self._execute_deferrable(context)
        try:
            result: dict[str, Any] = super().execute(context)
            return result
        except ViduError:
            raise
        except AirflowSensorTimeout as error:
            # Airflow's own message names neither the generation nor its state.
            raise self._watching(context).timeout_error(time.time()) from error
        except AirflowSkipException as skip:
            if skip.__cause__ is None:
                skip.__cause__ = self._watching(context).timeout_error(time.time())
            raise _explained(skip) from skip.__cause__

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll once; after a failed poll, repeat until one succeeds or the budget for failed polls is used up."""
        from airflow_provider_vidu.polling.watch import Done, Failed, Wait

        watch = self._watching(context)
        result = self._poll(watch)
        # A pause may last for hours: a rescheduled sensor leaves the worker meanwhile.
        while isinstance(result, Wait) and result.trouble and not (result.paused and self.reschedule):
            time.sleep(result.delay)
            result = self._poll(watch)
        if isinstance(result, Failed):
            raise result.error
        if isinstance(result, Done):
            times = {"queued": watch.queued}
            return PokeReturnValue(is_done=True, xcom_value=self._result(context, result.generation, times))
        return False

    @without_known_causes
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume after the trigger's event; re-fetch the generation, so that its URLs are fresh."""
        self._check_settings()
        return self._result(context, self._deferred_wait().resume(event), event)

    @without_known_causes
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; if Airflow gave up the wait because no triggerer ran it in time, poll once more."""
        from airflow_provider_vidu.tasks.deferral import was_given_up

        with self._softened():
            if not was_given_up(next_method, next_kwargs):
                return super().resume_execution(next_method, next_kwargs, context)
            return self._result(context, self._deferred_wait().give_up(next_kwargs, self.execution_timeout))

    def _wait_facts(self) -> dict[str, Any]:
        """Return what the clip's page shows of the wait; an interval that grows is not among it."""
        polls: dict[str, Any] = {}
        if self.deferrable and self._adaptive:
            polls = {"adaptive": True}
        elif not self.exponential_backoff:
            polls = {"poll_interval": self.poke_interval}
        return {"deadline": round(time.time() + self.timeout), **polls}

    def _id(self) -> str:
        """Return the id that the arguments name once their templates are rendered."""
        return given_id(self.generation_id) if self.generation is None else id_of(self.generation)

    def _result(
        self, context: Mapping[str, Any] | None, generation: Generation, times: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        generation, parameters = continued(generation, self.generation)
        log_end(self.log, generation, context, times)
        return as_result(generation, parameters)

    def _execute_deferrable(self, context: Context) -> dict[str, Any]:
        from airflow_provider_vidu.polling.watch import Done, Wait

        watch = self._watching(context)
        # Airflow loses an event that fires right after the deferral, so the worker polls first.
        result = self._poll(watch)
        if isinstance(result, Wait):
            logged = watch.last and watch.last.word
            self._deferred_wait().defer(watch.since, watch.deadline, known=watch.is_known, logged=logged)
        if isinstance(result, Done):
            return self._result(context, result.generation)
        raise result.error

    def _deferred_wait(self) -> DeferredWait:
        from airflow_provider_vidu.tasks.deferral import DeferredWait
        from airflow_provider_vidu.triggers import ViduGenerationTrigger

        return DeferredWait(
            operator=self,
            hook=self._hook(),
            trigger=partial(
                ViduGenerationTrigger,
                exponential_backoff=self.exponential_backoff,
                max_wait=self.max_wait.total_seconds() if self.max_wait else None,
            ),
            generation_id=self._id(),
            poll_interval=None if self._adaptive else self.poke_interval,
            timeout=self.timeout,
            max_failures=self.max_failures,
            endpoint=self.endpoint,
        )

    def _poll(self, watch: Watch) -> PollResult:
        hook, config = self._hook(), None
        try:
            config = hook.config
            generation = hook.get_generation(self._id(), endpoint=self.endpoint, retries=0)
        except ViduError as error:
            result = watch.missed(error, time.time(), has_connection=config is not None)
        else:
            result = watch.saw(generation, time.time())
        if result.note and not self._is_known_state(watch, result):
            self.log.info("Generation %s: %s", self._id(), result.note)
        return result

    def _is_known_state(self, watch: Watch, result: PollResult) -> bool:
        """Whether an earlier poke has probably logged the state.

        A rescheduled poke remembers nothing: Airflow clears the XComs before each. So the state of an unfinished
        generation is logged at the first poke, and again each time that the wait has doubled.
        """
        from airflow_provider_vidu.polling.watch import Wait

        if not self.reschedule or not isinstance(result, Wait) or result.trouble:
            return False
        pokes = round((time.time() - watch.since) / self.poke_interval)
        return pokes & (pokes - 1) != 0

    def _watching(self, context: Context) -> Watch:
        """Return the memory of this process: a rescheduled sensor starts a new one for each poke."""
        if self._watch is None:
            from airflow_provider_vidu.polling.watch import PollPolicy, Watch

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
        """Apply soft_fail and never_fail around the deferral, in the same way on every Airflow."""
        try:
            yield
        except AirflowSkipException as skip:
            raise _explained(skip) from skip.__cause__
        except (AirflowException, AirflowTaskTimeout) as error:
            if self.soft_fail or getattr(self, "never_fail", False):
                raise _skipped(error) from error
            raise


def _skipped(error: BaseException) -> AirflowSkipException:
    return AirflowSkipException(f"Skipped instead of failed: {error}")


def _explained(skip: AirflowSkipException) -> AirflowSkipException:
    """Return a skip that includes the reason: Airflow's own names only the option."""
    return skip if skip.__cause__ is None or str(skip.__cause__) in str(skip) else _skipped(skip.__cause__)


def _first_poke(context: Context | None) -> datetime | None:
    """Return when a rescheduled task was first poked since its last clear; None if it was not."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    ti: Any = None if context is None else context.get("ti")
    if not is_task_instance(ti):
        return None  # in a user's unit test
    if AIRFLOW_V_3_0_PLUS:
        get_date = getattr(ti, "get_first_reschedule_date", None)
        first: datetime | None = get_date(context) if get_date else None
        return first
    # Airflow 2 has only this private function, which its own sensors use.
    base: Any = import_module("airflow.sensors.base")
    first_try = (ti.max_tries or 0) - (ti.task.retries or 0) + 1
    begun: datetime | None = base._orig_start_date(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, first_try)
    return begun
