"""The event of :class:`~airflow_provider_vidu.triggers.ViduGenerationTrigger`: how to build and how to read one."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import mapping, number
from airflow_provider_vidu.exceptions import ViduError, ViduGenerationFailedError, ViduTimeoutError, from_details

if TYPE_CHECKING:
    from airflow_provider_vidu.models import Generation, Snapshot

EVENT_VERSION: Final = 1
SLOT_KIND: Final = "slot"
CALLBACK_KIND: Final = "callback"


class Outcome(enum.StrEnum):
    """How a watch can end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMEOUT = "timeout"
    ERROR = "error"

    @classmethod
    def of(cls, error: ViduError | None) -> Outcome:
        """Return the outcome of a watch that ended with ``error``; None is a success."""
        if error is None:
            return cls.SUCCEEDED
        if isinstance(error, ViduGenerationFailedError):
            return cls.FAILED
        return cls.TIMEOUT if isinstance(error, ViduTimeoutError) else cls.ERROR


def make_event(generation_id: str, generation: Generation | Snapshot | None, error: ViduError | None) -> dict[str, Any]:
    """Return the event as plain JSON: id, outcome and reason, without secrets or anything that expires.

    :param generation_id: the watched generation.
    :param generation: its last known state.
    :param error: the error that ended the watch; None is a success.
    """
    return {
        "version": EVENT_VERSION,
        "outcome": Outcome.of(error).value,
        "generation_id": generation_id,
        "status": generation.status.value if generation else None,
        "provider_status": redacted(generation.provider_status) if generation else None,
        "error": error.details() if error else None,
    }


@dataclass(frozen=True, slots=True)
class Turn:
    """What a task keeps of its wait for a free slot.

    :param since: when the wait began, in epoch seconds.
    :param deadline: when the task's timeout expires, in epoch seconds.
    :param given_at: when the turn was given, in epoch seconds; None if another version gave it.
    :param after: the generation that has to end first; None if the slot is free already.
    """

    since: float
    deadline: float
    given_at: float | None = None
    after: Predecessor | None = None


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A running generation whose slot a waiting task takes.

    :param generation_id: the generation.
    :param endpoint: where it was submitted; only products with a query of their own need it.
    """

    generation_id: str
    endpoint: str | None = None


def make_slot_event(
    error: ViduError | None, since: float, deadline: float, after: Predecessor | None = None
) -> dict[str, Any]:
    """Return the event of a wait for a free slot as plain JSON.

    :param error: what ended the wait; None if the task may submit.
    :param since: when the wait began, in epoch seconds.
    :param deadline: when the task's timeout expires, in epoch seconds.
    :param after: the generation that has to end before the task submits.
    """
    return {
        "version": EVENT_VERSION,
        "kind": SLOT_KIND,
        "outcome": Outcome.of(error).value,
        "since": since,
        "deadline": deadline,
        "given_at": time.time(),
        **({} if after is None else {"after": asdict(after)}),
        "error": error.details() if error else None,
    }


def is_slot_event(event: object) -> bool:
    """Whether an event is of a wait for a free slot."""
    return isinstance(event, Mapping) and event.get("kind") == SLOT_KIND


def read_slot_event(event: Mapping[str, Any] | None) -> Turn | None:
    """Return the turn that an event gives to a task; None for an event of another kind, which means no more than "now".

    :raises ViduError: the error that ended the wait.
    """
    if event is None or not is_slot_event(event):
        return None
    if event.get("outcome") != Outcome.SUCCEEDED:
        raise from_details(mapping(event.get("error")))
    since, deadline = number(event.get("since")), number(event.get("deadline"))
    if since is None or deadline is None:
        return None
    return Turn(since, deadline, number(event.get("given_at")), _predecessor(mapping(event.get("after"))))


def _predecessor(named: Mapping[str, Any]) -> Predecessor | None:
    generation_id, endpoint = named.get("generation_id"), named.get("endpoint")
    if not isinstance(generation_id, str) or not generation_id:
        return None
    return Predecessor(generation_id, endpoint if isinstance(endpoint, str) else None)


def make_callback_event(
    generation_id: str, *, since: float | None, deadline: float | None, callback: str
) -> dict[str, Any]:
    """Return the event that resumes a task because of a callback, as plain JSON.

    It holds nothing that the callback says, because the service does not sign that: the task polls once.

    :param generation_id: the generation that the task waits for.
    :param since: when the wait began, in epoch seconds.
    :param deadline: when it ends, in epoch seconds.
    :param callback: the digest of the order's callback token, for a task that defers again.
    """
    return {
        "version": EVENT_VERSION,
        "kind": CALLBACK_KIND,
        "generation_id": generation_id,
        "since": since,
        "deadline": deadline,
        "callback": callback,
        "called_at": time.time(),
    }


def is_callback_event(event: object) -> bool:
    """Whether an event resumes a task because of a callback."""
    return isinstance(event, Mapping) and event.get("kind") == CALLBACK_KIND


def callback_in(event: object) -> str | None:
    """Return the digest of the callback token in an event, which a task that defers again passes on; or None."""
    digest = event.get("callback") if isinstance(event, Mapping) else None
    return digest if isinstance(digest, str) else None


def id_in(event: object) -> str | None:
    """Return the id of the generation that an event reports on; None if it is not an event of this provider.

    After a clear, Airflow can deliver the old trigger's event to the new deferral (SQLite reuses the row id of a
    deleted trigger), so a task compares the ids first.
    """
    generation_id = event.get("generation_id") if isinstance(event, Mapping) else None
    return generation_id if isinstance(generation_id, str) else None


def read_event(event: Mapping[str, Any] | None, generation_id: str) -> None:
    """Return if the event reports success for ``generation_id``; otherwise raise the error that it reports.

    :param event: the trigger's event; None if Airflow lost it.
    :param generation_id: the generation that the task waits for.
    :raises ViduError: the error that ended the watch, in its own class; also for an event of another generation or of
        something other than :class:`~airflow_provider_vidu.triggers.ViduGenerationTrigger`.
    """
    outcome = event.get("outcome") if isinstance(event, Mapping) else None
    if event is None or not isinstance(outcome, str) or outcome not in set(Outcome):
        raise ViduError(
            f"Cannot read the trigger's event: {redacted(event)}. Are provider versions mixed?",
            generation_id=generation_id,
        )
    if event.get("generation_id") != generation_id:
        raise ViduError(
            f"The trigger reports on another generation: {redacted(event.get('generation_id'))}.",
            generation_id=generation_id,
        )
    if outcome != Outcome.SUCCEEDED:
        raise from_details(mapping(event.get("error"))).with_context(generation_id=generation_id)
