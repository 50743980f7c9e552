"""The deferred wait of a task: how the operator and the sensor defer, resume, or end when Airflow gives up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_vidu.common.text import sentence
from airflow_provider_vidu.common.values import number
from airflow_provider_vidu.events import id_in, is_callback_event, is_slot_event, read_event
from airflow_provider_vidu.exceptions import (
    MAY_FINISH,
    ViduAuthError,
    ViduConfigError,
    ViduError,
    ViduGenerationFailedError,
    ViduMissingVideoError,
    ViduTimeoutError,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation

DEFER_MARGIN_SECONDS: Final = 300.0
"""Seconds that a deferral may outlast the deadline: the trigger reports the timeout, and Airflow's is a fallback."""

REFETCH_SECONDS: Final = 5.0
"""Between two polls for a generation that an event reported as finished, unless the user's own interval is shorter."""

PAUSED_POLL_SECONDS: Final = 60.0
"""The shortest interval of a trigger that waits for a connection: the triggerer may have one that a worker lacks."""

# What Airflow's scheduler writes into a deferred task that it gives up: up to 2.11, and from 3.0 on.
_FAIL: Final = "__fail__"
_GIVEN_UP: Final = ("Trigger/execution timeout", "Trigger timeout")


def is_resumable(context: Mapping[str, Any], method: str) -> bool:
    """Whether Airflow would resume the operator that has deferred; it resumes the task's own one.

    An operator that a ``@task``, or an operator of the user's, executes waits in the worker instead. So does one under
    ``airflow tasks test`` of Airflow 2, which resumes what the DAG holds: its templates unrendered, or the mapped one.

    :param method: the method with which it would be resumed.
    """
    task = context.get("task")
    is_test = getattr(context.get("ti"), "test_mode", False) is True
    return not is_test and (task is None or hasattr(task, method))


def was_given_up(next_method: str, next_kwargs: Mapping[str, Any] | None) -> bool:
    """Whether Airflow resumes a task only to fail it, because no trigger fired before the deferral's timeout.

    Airflow's error for it differs between versions (2 raises only its general one), so a task checks before.
    """
    return next_method == _FAIL and (next_kwargs or {}).get("error") in _GIVEN_UP


def check_execution_timeout(
    next_kwargs: Mapping[str, Any] | None, execution_timeout: timedelta | None, timeout: float, state: str
) -> None:
    """Raise if Airflow gave a wait up because the task's ``execution_timeout`` expired.

    Airflow 2 includes the deferred wait in it, and reports both in the same words.

    :param timeout: seconds that the wait itself may last.
    :param state: a sentence about what is left behind.
    :raises AirflowTaskTimeout: Airflow's own error, which may be retried.
    """
    seconds = execution_timeout.total_seconds() if execution_timeout else None
    is_airflow_2 = (next_kwargs or {}).get("error") == _GIVEN_UP[0]
    if is_airflow_2 and seconds is not None and seconds < timeout + DEFER_MARGIN_SECONDS:
        raise AirflowTaskTimeout(
            f"The execution_timeout of {seconds:.0f} s expired, which in this Airflow includes the deferred wait. "
            f"{state}"
        )


def deferral_timeout(deadline: float, now: float) -> timedelta:
    """Return Airflow's own timeout of a deferral, for the case that no trigger reports the end at the deadline."""
    return timedelta(seconds=max(deadline - now, 0) + DEFER_MARGIN_SECONDS)


@dataclass(frozen=True, kw_only=True)
class DeferredWait:
    """The wait for a submitted generation outside of the worker, even while its connection is unusable.

    :param trigger: the trigger's class, with the arguments that only this kind of task has.
    :param timeout: seconds that the whole wait may last.
    :param is_own: whether this task submitted the generation. Then a failure is re-fetched, because only the service's
        whole answer shows whether a new submit may succeed, and no refusal is final.
    :param on_timeout: called before a timeout is raised; returns whether it has cancelled the generation.
    :param callback: the digest of the order's callback token; None if the service reports no end.
    """

    operator: BaseOperator
    hook: ViduHook
    trigger: Callable[..., BaseTrigger]
    generation_id: str
    poll_interval: float | None
    timeout: float
    max_failures: int
    endpoint: str | None
    is_own: bool = False
    on_timeout: Callable[[], bool] = lambda: False
    callback: str | None = None

    def defer(self, since: float | None = None, deadline: float | None = None, **arguments: Any) -> NoReturn:
        """Leave the worker until the trigger's event.

        :param since: epoch seconds at which the wait began; now if omitted.
        :param deadline: epoch seconds at which it ends; limited to, and by default, the whole timeout from now.
        :param arguments: further arguments of the trigger.
        """
        now = time.time()
        since = now if since is None else since
        own = {"callback": self.callback} if self.callback else {}  # only an own order may have one
        deadline = min(now + self.timeout, math.inf if deadline is None else deadline)
        trigger = self.trigger(
            generation_id=self.generation_id,
            vidu_conn_id=self.hook.vidu_conn_id,
            deadline=deadline,
            since=since,
            max_failures=self.max_failures,
            endpoint=self.endpoint,
            **{"poll_interval": self.poll_interval, "known": True, **own, **arguments},
        )
        self.operator.defer(trigger=trigger, method_name="execute_complete", timeout=deferral_timeout(deadline, now))

    def resume(self, event: Mapping[str, Any] | None) -> Generation:
        """Return the generation that the trigger reported, re-fetched, so that its URLs are fresh; or defer again.

        A callback is a hint, not a report: the task polls once, and defers again if the generation has not ended.

        :raises ViduError: the error that ended the wait; it may be retried, unless the generation itself has ended.
        """
        if (other := id_in(event)) not in (None, self.generation_id) or is_slot_event(event):
            self.operator.log.warning("Resumed by an event for %s, not this task's generation; still waiting.", other)
            return self._continue({}, has_ended=False)
        if is_callback_event(event):
            self.operator.log.info("Generation %s: the service has sent a callback; checking.", self.generation_id)
            return self._continue(event or {}, has_ended=False)
        try:
            read_event(event, self.generation_id)
        except ViduTimeoutError as error:
            with resumable(self.generation_id):
                _ = self.hook.config
            raise (error.after_cancel() if self.on_timeout() else error) from None
        except ViduConfigError:
            return self._continue(event or {}, has_ended=False)
        except ViduError as error:
            if not self.is_own:
                raise
            if not isinstance(error, ViduGenerationFailedError):
                with resumable(self.generation_id):
                    raise
        return self._continue(event or {}, has_ended=True)

    def give_up(self, next_kwargs: Mapping[str, Any] | None, execution_timeout: timedelta | None) -> Generation:
        """Return the generation if it is done; otherwise raise the error of a wait that Airflow gave up.

        :param next_kwargs: the arguments with which Airflow resumes the task.
        :raises AirflowTaskTimeout: Airflow's own error, which may be retried, when that timeout expired.
        :raises ViduTimeoutError: when no triggerer ran the trigger in time.
        """
        with resumable(self.generation_id):
            generation = self.hook.get_generation(self.generation_id, endpoint=self.endpoint)
        if generation.is_done:
            return self._refetch()
        is_cancelled = self.on_timeout()
        check_execution_timeout(
            *(next_kwargs, execution_timeout, self.timeout),
            f"The last known state of generation {generation.id} is {generation.describe()}.",
        )
        error = ViduTimeoutError(
            f"Gave up waiting {DEFER_MARGIN_SECONDS:.0f} s after the timeout of {self.timeout:.0f} s: no triggerer "
            f"ran the trigger in time ([triggerer] capacity); the last known state is {generation.describe()}. "
            f"{MAY_FINISH}.",
            generation_id=self.generation_id,
            conn_id=self.hook.vidu_conn_id,
        )
        raise error.after_cancel() if is_cancelled else error

    def _continue(self, event: Mapping[str, Any], *, has_ended: bool) -> Generation:
        """Poll once; return the generation, re-fetched, if it has ended or the event says so; else defer again."""
        generation, config = None, None
        try:
            config = self.hook.config
            generation = self.hook.get_generation(self.generation_id, endpoint=self.endpoint, retries=0)
        except ViduError as error:
            if config is None or isinstance(error, ViduAuthError):
                self._pause(error, event)
            if isinstance(error, ViduConfigError):  # the connection itself is usable: waiting does not help
                raise not_resumed(error, self.generation_id) from error
            self.operator.log.info("Generation %s: poll failed: %s", self.generation_id, error)
        if generation is not None and generation.succeeded and generation.video_url:
            if not has_ended:  # otherwise the trigger has logged it
                self.operator.log.info("Generation %s: %s", self.generation_id, generation.describe())
            return generation
        if not has_ended and (generation is None or not generation.is_done):
            self.defer(*_times(event), **_woken(event))
        return self._refetch()

    def _pause(self, error: ViduError, event: Mapping[str, Any]) -> NoReturn:
        """Defer again until the connection is usable, so that the paid generation is not lost.

        :raises ViduError: when the deadline has passed; a retry may resume the wait.
        """
        since, deadline = _times(event)
        error.with_context(generation_id=self.generation_id, conn_id=self.hook.vidu_conn_id)
        if deadline is not None and deadline <= time.time():
            with resumable(self.generation_id):
                raise error
        self.operator.log.warning("Paused until the connection is usable: %s", error)
        pause = max(self.poll_interval or 0.0, PAUSED_POLL_SECONDS)
        self.defer(since, deadline, poll_interval=pause, **_woken(event))

    def _refetch(self) -> Generation:
        with resumable(self.generation_id):
            return self.hook.refetch(
                self.generation_id,
                poll_interval=min(self.poll_interval or REFETCH_SECONDS, REFETCH_SECONDS),
                max_failures=self.max_failures,
                endpoint=self.endpoint,
            )


def _times(event: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return begin and deadline of an event's wait; None each if another version wrote the event."""
    return number(event.get("since")), number(event.get("deadline"))


def _woken(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trigger's arguments that a task needs that was resumed and defers again."""
    called_at = number(event.get("called_at")) if is_callback_event(event) else None
    return {} if called_at is None else {"woken_at": called_at}


def not_resumed(error: ViduError, generation_id: str) -> ViduError:
    """Return the retryable error of a wait that an unusable connection or a refusal stopped.

    The generation is paid for, so neither a deleted connection nor a refused key fails the task permanently.
    """
    message = (
        f"{sentence(error.reason)} The wait for a generation that is already submitted has stopped. A retry resumes it "
        "once that is fixed. Without retries left, wait for it by its id (ViduGenerationSensor)."
    )
    restated = error.restated(ViduError, message)
    restated.generation_id = generation_id
    return restated


def batch_resumable(error: ViduConfigError) -> ViduError:
    """Return the retryable error of a batch that cannot continue as it is set up: its generations are paid for."""
    message = "Generations of the batch are paid for: once that is fixed, a retry or a clear resumes them."
    return error.restated(ViduError, f"{sentence(error.reason)} {message}")


@contextmanager
def retryable_after_wait(*, was_resumed: bool) -> Iterator[None]:
    """Make an error in the arguments of a batch retryable once it has waited: its generations are paid for.

    :param was_resumed: whether the batch has waited.
    :raises ViduConfigError: if it has not.
    :raises ViduError: otherwise.
    """
    try:
        yield
    except ViduConfigError as error:
        if not was_resumed:
            raise
        raise batch_resumable(error) from error


_OF_THE_GENERATION: Final = (ViduGenerationFailedError, ViduMissingVideoError, ViduTimeoutError)


@contextmanager
def resumable(generation_id: str) -> Iterator[None]:
    """Make a refused query retryable, because the generation is paid for: a retry may resume the wait.

    :raises ViduError: the error raised inside, if it may be retried or the generation itself has ended; otherwise a
        plain error with the same details.
    """
    try:
        yield
    except ViduError as error:
        if error.retryable or isinstance(error, _OF_THE_GENERATION):
            raise
        raise not_resumed(error, generation_id) from error
