"""The trigger's event: how it is written and how it is read, for our operators and anybody's."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import mapping
from airflow_provider_vidu.defaults import DEFER_MARGIN_SECONDS
from airflow_provider_vidu.exceptions import (
    ViduError,
    ViduGenerationFailedError,
    ViduMissingVideoError,
    ViduTimeoutError,
    from_details,
)

if TYPE_CHECKING:
    from airflow_provider_vidu.models import Generation, Snapshot
    from airflow_provider_vidu.polling.policy import Step

EVENT_VERSION: Final = 1

# What Airflow's scheduler writes into a deferred task that it gives up, up to 2.11 and since 3.0.
_FAIL: Final = "__fail__"
_GIVEN_UP: Final = ("Trigger/execution timeout", "Trigger timeout")


class Outcome(enum.StrEnum):
    """How a watch can end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMEOUT = "timeout"
    ERROR = "error"

    @classmethod
    def of(cls, step: Step) -> Outcome:
        """Return the outcome that a finished step stands for."""
        if step.error is None:
            return cls.SUCCEEDED
        if isinstance(step.error, ViduGenerationFailedError):
            return cls.FAILED
        return cls.TIMEOUT if isinstance(step.error, ViduTimeoutError) else cls.ERROR


def make_event(
    outcome: Outcome, generation_id: str, generation: Generation | Snapshot | None, error: ViduError | None
) -> dict[str, Any]:
    """Return the event as plain JSON: id, outcome and reason, and nothing that is secret or expires."""
    return {
        "version": EVENT_VERSION,
        "outcome": outcome.value,
        "generation_id": generation_id,
        "status": generation.status.value if generation else None,
        "provider_status": redacted(generation.provider_status) if generation else None,
        "error": error.details() if error else None,
    }


def id_in(event: object) -> str | None:
    """Return the id of the generation that an event speaks of, if it is one of ours.

    Airflow can deliver the event of a trigger that a clear has orphaned to the deferral after the clear
    (SQLite hands the row id of a deleted trigger out again), so a task compares before it believes.
    """
    found = event.get("generation_id") if isinstance(event, Mapping) else None
    return found if isinstance(found, str) else None


def was_never_taken_up(next_method: str, next_kwargs: Mapping[str, Any] | None) -> bool:
    """Whether Airflow resumes a task only to fail it, because no trigger has fired before the deferral's time-out.

    Each Airflow raises something else for it (2 only its general error), so a task looks before it is raised.
    """
    return next_method == _FAIL and (next_kwargs or {}).get("error") in _GIVEN_UP


def check_execution_timeout(
    next_kwargs: Mapping[str, Any] | None, execution_timeout: timedelta | None, timeout: float, generation: Generation
) -> None:
    """Raise Airflow's own error, which may be retried, when a wait was given up for the task's ``execution_timeout``.

    Airflow 2 counts the wait into it, and tells both in the same words.

    :param next_kwargs: what Airflow resumes the task with.
    :param execution_timeout: the task's.
    :param timeout: seconds that the wait may last.
    :param generation: what is waited for.
    :raises AirflowTaskTimeout: when it was that.
    """
    if (next_kwargs or {}).get("error") != _GIVEN_UP[0] or execution_timeout is None:
        return
    if execution_timeout.total_seconds() < timeout + DEFER_MARGIN_SECONDS:
        raise AirflowTaskTimeout(
            f"The execution_timeout of {execution_timeout.total_seconds():.0f} s, into which this Airflow counts the "
            f"deferred wait, is over; the last known state of generation {generation.id} is {generation.describe()}."
        )


def never_fired(generation_id: str, conn_id: str, timeout: float, state: str) -> ViduTimeoutError:
    """Return the error of a wait without an event: Airflow gave it up, long after its own deadline had passed."""
    return ViduTimeoutError(
        f"Gave up waiting {DEFER_MARGIN_SECONDS:.0f} s after the timeout of {timeout:.0f} s: no triggerer has "
        f"taken the wait up in time ([triggerer] capacity); the last known state is {state}. The generation may "
        "still finish: wait for it again by its id.",
        generation_id=generation_id,
        conn_id=conn_id,
    )


def not_resumed(error: ViduError, generation_id: str) -> ViduError:
    """Return the error of a wait that a connection or a refusal keeps from going on: a retry may succeed.

    The generation is paid for, so neither a connection that was deleted meanwhile nor a refused key fails the task
    for good.

    :param error: what is wrong.
    :param generation_id: what was submitted.
    """
    told = (
        f"The wait for a generation that was submitted already cannot go on: {error.reason.rstrip('.')}. A retry "
        "resumes it once that is fixed. Without retries left, wait for it by its id (ViduGenerationSensor)."
    )
    plain = {"type": ViduError.__name__, "message": told, "generation_id": generation_id}
    return from_details({**error.details(), **plain})


_OF_THE_GENERATION: Final = (ViduGenerationFailedError, ViduMissingVideoError, ViduTimeoutError)


@contextmanager
def resumable(generation_id: str) -> Iterator[None]:
    """Let no refusal of a query fail a task for good whose generation is paid for: a retry may resume the wait.

    :param generation_id: what was submitted.
    :raises ViduError: what was raised inside, if it may be retried or is the generation's own end; otherwise a plain
        error with the same details.
    """
    try:
        yield
    except _OF_THE_GENERATION:
        raise
    except ViduError as error:
        if error.retryable:
            raise
        raise not_resumed(error, generation_id) from error


def read_event(event: Mapping[str, Any] | None, generation_id: str) -> None:
    """Return when the event reports success for ``generation_id``; raise what it reports otherwise.

    :param event: what the trigger has fired; None where Airflow lost it.
    :param generation_id: the generation that is waited for.
    :raises ViduError: the error that ended the watch, as its own class; also for an event that is
        not one of :class:`~airflow_provider_vidu.triggers.ViduGenerationTrigger` or speaks of another
        generation.
    """
    outcome = event.get("outcome") if isinstance(event, Mapping) else None
    if event is None or not isinstance(outcome, str) or outcome not in set(Outcome):
        raise ViduError(
            f"The trigger's event is not understood: {redacted(event)}. Are provider versions mixed?",
            generation_id=generation_id,
        )
    if event.get("generation_id") != generation_id:
        raise ViduError(
            f"The trigger reports on another generation: {redacted(event.get('generation_id'))}.",
            generation_id=generation_id,
        )
    if outcome != Outcome.SUCCEEDED:
        raise from_details(mapping(event.get("error"))).with_context(generation_id=generation_id)
