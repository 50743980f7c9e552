"""Submit once, pay once: what to do before, around and after a create, over all tries of a task.

Nothing here knows Airflow: the record's store is handed in. The order of events is the whole point:

1. the *intent* is stored (with a marker that ``ent-v2`` echoes),
2. the create is sent, once,
3. the id is stored,
4. everything else.

A worker that dies between 1 and 3 leaves an intent without an id. The next try then searches for the
marker; where the dialect cannot, it fails with an error instead of paying a second time.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduError,
    ViduGenerationFailedError,
    ViduGenerationInterruptedError,
    ViduNotFoundError,
    ViduRequestError,
    ViduResponseError,
    ViduServerError,
    ViduSubmitUncertainError,
    ViduSubmitUnknownError,
)
from airflow_provider_vidu.models import Found, Generation
from airflow_provider_vidu.policy import failure

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook

SETTLE_SECONDS: Final = 20.0
"""How long ago a create must have ended before a search that finds nothing proves that nothing was created."""

GRACE_SECONDS: Final = 60.0
"""How old an intent must be before "no such generation" is believed of its id."""

GRACE_PAUSE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored about an order: the intent, and the id as soon as there is one.

    ``order`` is its number; ``marker`` names it at the service, and nothing else there; ``at`` is the intent's time
    in epoch seconds, or that of the create's end without an answer; ``marked`` tells whether the request carries the
    marker; ``handed_over`` that the task has ended without waiting, so that the job is no longer its own;
    ``request`` is a digest of what was sent.
    """

    order: int
    marker: str
    at: float
    marked: bool = False
    generation_id: str | None = None
    handed_over: bool = False
    request: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: object) -> Record | None:
        """Read a stored record; None when there is none or it is not one of ours."""
        if not isinstance(stored, Mapping) or "order" not in stored:
            return None
        known = {name: stored[name] for name in cls.__slots__ if name in stored}
        return cls(**{"marker": "", "at": 0.0, **known})


class RecordStore(Protocol):
    """Keeps one record per task instance across tries."""

    def load(self) -> Record | None:
        """Return the record, or None."""

    def save(self, record: Record) -> None:
        """Store the record durably before returning."""

    def clear(self) -> None:
        """Forget the record."""

    def finished(self) -> None:
        """Take note that Airflow knows of the task's success."""


class Submission:
    """Brings an order to a generation: by submitting it, or by finding what an earlier try submitted.

    :param hook: speaks to the service.
    :param store: keeps the record; None when the user wants no memory (``durable=False``).
    :param order: the number of what was ordered: another one after each clear, the same for all retries.
    :param log: gets one line for each decision.
    :param cancel_abandoned: cancel what an earlier order (before a clear) has left running.
    :param before_send: called right before a create is sent; it raises where that is no longer wanted.
    """

    def __init__(
        self,
        hook: ViduHook,
        store: RecordStore | None,
        order: int,
        log: Any,
        *,
        cancel_abandoned: bool = True,
        before_send: Callable[[], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._hook = hook
        self._store = store
        self._order = order
        self._log = log
        self._cancel_abandoned = cancel_abandoned
        self._before_send = before_send
        self._sleep = sleep
        self._endpoint: str | None = None
        self.ordered_at: float | None = None
        """When the order was recorded, in epoch seconds, once there is a generation."""

    def generation(self, body: Mapping[str, Any], endpoint: str | None) -> Generation:
        """Return the order's generation, submitting it when no earlier try has.

        :raises ViduSubmitUnknownError: when a create may have been carried out and cannot be found.
        :raises ViduSubmitUncertainError: the same, when the next try, or a clear, can look for it.
        :raises ViduGenerationFailedError: when the earlier try's generation has failed for good.
        :raises ViduError: when the create was refused.
        """
        self._endpoint = endpoint
        record = self._store.load() if self._store else None
        request = _digest(body, endpoint)
        if record is None:
            earlier = None
        elif record.order == self._order:
            earlier = self._earlier(record, request)
        else:
            earlier = self._after_clear(record, request)
        self.ordered_at = record.at if earlier is not None and record is not None else time.time()
        return earlier or self._submit(body, endpoint, request)

    def handed_over(self) -> None:
        """Note that the task ends without waiting: a later clear must not cancel the generation."""
        record = self._store.load() if self._store else None
        if self._store is not None and record is not None:
            self._store.save(replace(record, handed_over=True))

    def _earlier(self, record: Record, request: str) -> Generation | None:
        """Return what an earlier try has submitted, or None when a new submit is right."""
        generation_id = record.generation_id or self._lost(record)
        if generation_id is None:
            self._log.info("An earlier try was interrupted before its create was carried out: submitting now.")
            return None
        if record.generation_id is None and self._store is not None:
            self._store.save(replace(record, generation_id=generation_id))
        generation = self._known(generation_id, record)
        if not generation.failed:
            self._log.info("Going on with generation %s of an earlier try: %s", generation_id, generation.describe())
            if record.request not in ("", request):
                self._log.warning(
                    "Generation %s was submitted with another request than this try's. Clear the task to order that.",
                    generation_id,
                )
            return generation
        dialect = self._hook.config.dialect
        if dialect.may_pass(generation) or dialect.was_cancelled(generation):
            self._log.info("Generation %s of an earlier try failed: submitting anew.", generation_id)
            return None
        raise failure(generation).located(conn_id=self._hook.vidu_conn_id)

    def _known(self, generation_id: str, record: Record) -> Generation:
        """Ask for a generation; right after its create the service may not know it yet."""
        for left in reversed(range(round(GRACE_SECONDS / GRACE_PAUSE_SECONDS) + 1)):
            try:
                return self._hook.get_generation(generation_id, endpoint=self._endpoint)
            except ViduNotFoundError:
                if not left or time.time() - record.at >= GRACE_SECONDS:
                    raise
            self._log.info("Generation %s is not known yet: asking again.", generation_id)
            self._sleep(GRACE_PAUSE_SECONDS)
        raise AssertionError("not reached")

    def _lost(self, record: Record) -> str | None:
        """Search for the generation of an intent without an id."""
        if not record.marked:
            raise _unknown(self._hook.vidu_conn_id)
        age = max(time.time() - record.at, 0.0)  # another worker's clock may be ahead
        if age < SETTLE_SECONDS:
            self._sleep(SETTLE_SECONDS - age)
        found = self._search(record.marker)
        if found.generation_id is None and not found.complete:
            raise _unknown(self._hook.vidu_conn_id)
        return found.generation_id

    def _search(self, marker: str) -> Found:
        try:
            return self._hook.find_generation(marker)
        except ViduError as error:
            if not _has_no_list(error):
                raise
            self._log.warning("The service cannot be searched for an earlier try's generation: %s", error)
            return Found()

    def _submit(self, body: Mapping[str, Any], endpoint: str | None, request: str) -> Generation:
        # Made up for this order: names would be the same in another Airflow, or in a run that is made anew.
        marker = f"airflow:{uuid.uuid4().hex}"
        marked = self._hook.config.dialect.marked(body, marker, endpoint) if self._store else None
        record = Record(self._order, marker, time.time(), marked is not None, request=request)
        if self._store is not None:
            self._store.save(record)
        try:
            generation = self._hook.create_generation(
                body=marked or body, endpoint=endpoint, before_send=self._before_send
            )
        except ViduSubmitUnknownError as error:
            if marked is None:
                raise
            if self._store is not None:
                # The service may take as long again: what it settles counts from here.
                self._store.save(replace(record, at=time.time()))
            raise _uncertain(error) from error
        except ViduError:
            # Refused, or never sent: nothing was created, so there is nothing to remember.
            if self._store is not None:
                self._store.clear()
            raise
        if self._store is not None:
            self._store.save(replace(record, generation_id=generation.id))
        return generation

    def _after_clear(self, record: Record, request: str) -> Generation | None:
        """Return the generation of the order before a clear where this one is to go on with it.

        A known one was the user's to give up. One whose create had no known outcome is what the user still
        waits for: the clear is the only way on for a task without retries.
        """
        generation_id = record.generation_id
        if generation_id is None and record.marked:
            try:
                generation_id = self._lost(record)
            except ViduSubmitUnknownError:
                # The user is told once, and a further clear orders anew.
                if self._store is not None:
                    self._store.save(replace(record, order=self._order, marked=False))
                raise
            if generation_id is not None and record.request == request:
                generation = self._known(generation_id, record)
                if not generation.failed:
                    self._log.info("Going on with generation %s, whose create had no known outcome.", generation_id)
                    if self._store is not None:
                        found = replace(record, order=self._order, generation_id=generation_id)
                        self._store.save(found)
                    return generation
        if generation_id is not None and not record.handed_over and self._cancel_abandoned:
            self._abandon(generation_id)
        return None

    def _abandon(self, generation_id: str) -> None:
        """Cancel, best effort, what the order before a clear has left running."""
        try:
            if self._hook.get_generation(generation_id, endpoint=self._endpoint).is_done:
                return
            verdict = self._hook.cancel_generation(generation_id, endpoint=self._endpoint)
            self._log.info("Generation %s of the order before the clear: %s.", generation_id, verdict.reason)
        except ViduError as error:  # the new order does not depend on it
            self._log.warning("Generation %s of the order before the clear: %s", generation_id, error)


def failed(hook: ViduHook, generation: Generation) -> ViduError:
    """Return the error of a failed generation: retryable when a new submit may succeed."""
    error: ViduGenerationFailedError = failure(generation)
    error.located(conn_id=hook.vidu_conn_id)
    if not hook.config.dialect.may_pass(generation):
        return error
    return ViduGenerationInterruptedError(
        f"{error.reason}. A retry submits it anew.",
        generation_id=error.generation_id,
        conn_id=error.conn_id,
        code=error.code,
        trace_id=error.trace_id,
    )


def _has_no_list(error: ViduError) -> bool:
    """Whether a search failed because there is nothing to search, rather than for trouble that may pass."""
    if isinstance(error, (ViduNotFoundError, ViduRequestError, ViduResponseError)):
        return True  # a gateway that has no such path may well answer with a page of its own
    status = 501 if isinstance(error, ViduServerError) else 403 if isinstance(error, ViduAuthError) else None
    return status is not None and error.status_code == status


def _digest(body: Mapping[str, Any], endpoint: str | None) -> str:
    """Return a short name of a request; the same for the same request."""
    # Read back first: names of several types cannot be sorted. What is no JSON at all, the create refuses.
    plain = json.loads(json.dumps([endpoint, body], default=str, skipkeys=True))
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _unknown(conn_id: str) -> ViduSubmitUnknownError:
    return ViduSubmitUnknownError(
        "An earlier try of this task was interrupted while it submitted a generation, which may have been "
        "created and billed; its id was never learnt and the service cannot be searched for it. Nothing is "
        "submitted a second time. Look into the account's list of generations: if it is there, wait for it "
        "with ViduGenerationSensor(generation_id=…); if not, clear this task to order it anew.",
        conn_id=conn_id,
    )


def _uncertain(error: ViduError) -> ViduSubmitUncertainError:
    return ViduSubmitUncertainError(
        f"The create was sent, but its outcome is unknown: {error.__cause__ or error.reason}. A retry, or "
        "clearing the task, looks for the generation before it submits anything.",
        conn_id=error.conn_id,
        status_code=error.status_code,
        code=error.code,
        trace_id=error.trace_id,
    )
