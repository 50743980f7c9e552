"""Submit once, pay once: what to do before, around and after a create, over all tries of a task.

Nothing here knows Airflow: the record's store is handed in. The order of events is the whole point:

1. the *intent* is stored (with a marker that ``ent-v2`` echoes),
2. the create is sent, once,
3. the id is stored,
4. everything else.

A worker that dies between 1 and 3 leaves an intent without an id. The next try then searches the account's list, by
the marker or by what the create looks like; if the list does not decide it, it fails with an error instead of paying
a second time.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_vidu.api.dialects.lost_create import CLOCK_SKEW_SECONDS, Likeness
from airflow_provider_vidu.events import not_resumed
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduCreditError,
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
from airflow_provider_vidu.models import Generation, SearchResult
from airflow_provider_vidu.network.limits import TOTAL_TIMEOUTS
from airflow_provider_vidu.orders.media import Prepared
from airflow_provider_vidu.orders.order import Order, Record, RecordStore
from airflow_provider_vidu.polling.policy import failure, is_doubtful

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook

SETTLE_SECONDS: Final = 20.0
"""How long ago a create must have ended before a search that finds nothing proves that nothing was created."""

GRACE_SECONDS: Final = 60.0
"""How old an intent must be before "no such generation" is believed of its id."""

GRACE_PAUSE_SECONDS: Final = 5.0

NAMED_CANDIDATES: Final = 20

OnClear = Literal["new", "resume"]


class Submission:
    """Brings an order to a generation: by submitting it, or by finding what an earlier try submitted.

    :param hook: speaks to the service.
    :param store: keeps the record; None when the user wants no memory (``durable=False``).
    :param order: which order this try belongs to: another one after each clear, the same for all retries.
    :param log: gets one line for each decision.
    :param cancel_abandoned: cancel what an earlier order (before a clear) has left running.
    :param on_clear: ``new`` submits a new generation after a clear; ``resume`` first picks up the generation of the
        order before the clear, if it was submitted with the same request and has not failed.
    :param before_order: called once before anything is uploaded, recorded or sent; it raises where the result could
        not be kept.
    :param before_send: called right before a create is sent; it raises where that is no longer wanted.
    """

    def __init__(
        self,
        hook: ViduHook,
        store: RecordStore | None,
        order: Order,
        log: Any,
        *,
        cancel_abandoned: bool = True,
        on_clear: OnClear = "new",
        before_order: Callable[[], None] | None = None,
        before_send: Callable[[], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._hook = hook
        self._store = store
        self._order = order
        self._log = log
        self._cancel_abandoned = cancel_abandoned
        self._on_clear = on_clear
        self._before_order = before_order
        self._before_send = before_send
        self._sleep = sleep
        self._endpoint: str | None = None
        self._loaded: Record | None = None
        self.ordered_at: float | None = None
        """When the order was recorded, in epoch seconds, once there is a generation."""
        self.is_of_another_request = False
        """Whether the generation was submitted with another request than this try's, once there is one."""

    def generation(self, body: Prepared | Mapping[str, Any], endpoint: str | None) -> Generation:
        """Return the order's generation, submitted now or earlier.

        :param body: the whole request. Files that it names are read for its digest, and sent only if it is submitted:
            an order that has been submitted already uploads nothing again.
        :param endpoint: which create, as :meth:`ViduHook.create_generation` takes it.
        :raises ViduSubmitUnknownError: when an earlier create may have been carried out and the list does not show
            whether it was.
        :raises ViduGenerationFailedError: when the earlier try's generation has failed for good.
        :raises ViduError: when the create was refused.
        """
        self._endpoint = endpoint
        prepared = body if isinstance(body, Prepared) else Prepared(body)
        try:
            record = self._loaded = self._store.load() if self._store else None
            request = self._digest_of(prepared, endpoint, record)
            if record is None:
                earlier = None
            elif record.was_cleared(self._order, request):
                earlier = self._after_clear(record, request)
            else:
                earlier = self._earlier(record, request)
            self.ordered_at = record.at if earlier is not None and record is not None else time.time()
            return earlier or self._submit(prepared, endpoint, request)
        finally:
            prepared.close()

    def handed_over(self) -> None:
        """Note that the task ends without waiting: a later clear must not cancel the generation."""
        record = self._store.load() if self._store else None
        if record is not None:
            self._save(replace(record, handed_over=True))

    def _save(self, record: Record) -> None:
        if self._store is not None:
            self._store.save(record)

    def _digest_of(self, prepared: Prepared, endpoint: str | None, record: Record | None) -> str:
        """Return the digest of the request; empty if its files are gone, but the order has been submitted."""
        try:
            return _digest(prepared.identity(), endpoint)
        except ViduError as error:
            if record is None or record.order != self._order.number or record.generation_id is None:
                raise
            self._log.warning("The inputs can no longer be read, so they are not compared: %s", error)
            return ""

    def _earlier(self, record: Record, request: str) -> Generation | None:
        """Return what an earlier try has submitted, or None when a new submit is right."""
        generation_id = record.generation_id or self._lost(record)
        if generation_id is None:
            self._log.info("An earlier try was interrupted before its create was carried out: submitting now.")
            return None
        # With the counters of this try: the fewer clears may have come since, the less is left to a guess.
        self._save(replace(self._with_counters(record), generation_id=generation_id))
        generation = self._known(generation_id, record)
        if not generation.failed:
            self._log.info("Going on with generation %s of an earlier try: %s", generation_id, generation.describe())
            if record.differs(request):
                self.is_of_another_request = True
                self._log.warning(
                    "Generation %s was submitted with another request than this try's. Clear the task to order that.",
                    generation_id,
                )
            return generation
        if generation.is_transient or self._hook.config.dialect.was_cancelled(generation):
            self._log.info("Generation %s of an earlier try failed: submitting anew.", generation_id)
            return None
        if record.differs(request) or record.counts_another_clear(self._order):
            # Airflow does not retry what has failed for good: somebody wants to try again.
            self._log.info("Generation %s of an earlier try failed for good: submitting a new one.", generation_id)
            return None
        raise failure(generation).with_context(conn_id=self._hook.vidu_conn_id)

    def _known(self, generation_id: str, record: Record) -> Generation:
        """Ask for a generation; right after its create the service may not know it yet."""
        for left in reversed(range(round(GRACE_SECONDS / GRACE_PAUSE_SECONDS) + 1)):
            try:
                generation = self._hook.get_generation(generation_id, endpoint=self._endpoint)
            except (ViduAuthError, ViduCreditError, ViduRequestError) as error:
                # It is paid for: what is wrong with the key may be right at the next try.
                raise not_resumed(error, generation_id) from error
            except ViduNotFoundError:
                if not left or time.time() - record.at >= GRACE_SECONDS:
                    raise
            else:
                if is_doubtful(generation):  # a new submit would pay for it again
                    raise ViduResponseError(
                        "An earlier try submitted a generation. The service reports a failure that names no "
                        f"generation, so nothing is resubmitted: {failure(generation).reason}",
                        generation_id=generation_id,
                        conn_id=self._hook.vidu_conn_id,
                    )
                return generation
            self._log.info("Generation %s is not known yet: asking again.", generation_id)
            self._sleep(GRACE_PAUSE_SECONDS)
        raise AssertionError("not reached")

    def _lost(self, record: Record, *, is_cleared: bool = False) -> str | None:
        """Search for the generation of an intent without an id; None when the list proves that there is none.

        :param is_cleared: whether this is the search after a clear, so that the next clear orders anew.
        """
        if not record.is_searchable:
            raise _unknown(self._hook.vidu_conn_id)
        age = max(time.time() - record.at, 0.0)  # another worker's clock may be ahead
        if age < SETTLE_SECONDS:
            self._sleep(SETTLE_SECONDS - age)
        found = self._search(record)
        if found.generation_id is not None:
            self._log.info("The list shows generation %s, whose create had no known outcome.", found.generation_id)
        elif not found.complete:
            raise _unknown(self._hook.vidu_conn_id, found.candidates, looks_again=not is_cleared)
        return found.generation_id

    def _search(self, record: Record) -> SearchResult:
        longest = TOTAL_TIMEOUTS * self._hook.config.timeout + SETTLE_SECONDS + CLOCK_SKEW_SECONDS
        # A record of an older version knows no more than one of the two times.
        began = record.began or record.at - longest
        try:
            return self._hook.find_generation(
                record.marker if record.marked else None,
                created_from=began - CLOCK_SKEW_SECONDS,
                created_to=record.at + longest,
                like=Likeness.from_json(record.looks),
            )
        except ViduError as error:
            if not _has_no_list(error):
                raise
            self._log.warning("The service cannot be searched for an earlier try's generation: %s", error)
            return SearchResult()

    def _submit(self, prepared: Prepared, endpoint: str | None, request: str) -> Generation:
        if self._before_order is not None:
            self._before_order()
        # Before the intent is stored: an upload costs nothing, and one that fails leaves nothing to look for.
        body = prepared.resolve(self._hook, self._log)
        record, sent = self._intent(body, endpoint, request)
        self._save(record)
        sends = _Sends(record, self._save, self._before_send)
        try:
            generation = self._hook._submit(sent, endpoint, sends.next)
        except ViduSubmitUnknownError as error:
            if self._store is None or not (record.is_searchable or error.generation_id):
                raise
            # The service may take as long again: what it settles counts from here. Where there is a list it decides,
            # because the id in an error may be another's; elsewhere that id is all there is.
            known = None if record.is_searchable else error.generation_id
            self._save(replace(record, at=time.time(), generation_id=known))
            raise _uncertain(error) from error
        except BaseException as error:
            # Refused, or never sent. What else ends a send that has begun (a time-out, a kill) leaves the intent.
            if isinstance(error, ViduError) or not sends.count:
                self._forget_intent()
            raise
        self._save(replace(record, generation_id=generation.id))
        return generation

    def _forget_intent(self) -> None:
        """Put back what was recorded before an intent that came to nothing: a clear may still need it."""
        if self._loaded is not None and self._loaded.generation_id is not None:
            self._save(self._loaded)
        elif self._store is not None:
            self._store.clear()

    def _intent(self, body: Mapping[str, Any], endpoint: str | None, request: str) -> tuple[Record, Mapping[str, Any]]:
        """Return the record of a create that is about to be sent, and the body with its marker."""
        # Made up for this order: names would be the same in another Airflow, or in a run that is made anew.
        marker = f"airflow:{uuid.uuid4().hex}"
        dialect = self._hook.config.dialect
        marked = dialect.marked(body, marker, endpoint) if self._store else None
        looks = None
        if self._store is not None and dialect.has_list:
            path, is_listed = dialect.create(body, endpoint).request.path, dialect.is_listed(body, endpoint)
            looks = Likeness.of(body, path, is_listed=is_listed).to_json()
        now = time.time()
        record = Record(
            self._order.number,
            marker,
            now,
            marked is not None,
            request=request,
            began=now,
            looks=looks,
            clears=self._order.clears,
            try_number=self._order.try_number,
        )
        return record, marked or body

    def _after_clear(self, record: Record, request: str) -> Generation | None:
        """Return the generation of the order before a clear if this order goes on with it.

        A known one was the user's to give up, unless the task says ``on_clear="resume"``. One whose create had no
        known outcome is what the user still waits for: the clear is the only way on for a task without retries.
        """
        generation_id, was_lost = record.generation_id, record.is_lost
        if was_lost:
            try:
                generation_id = self._lost(record, is_cleared=True)
            except ViduSubmitUnknownError:
                # The user is told once, and a further clear orders anew.
                self._save(replace(self._taken(record), marked=False, looks=None))
                raise
        if generation_id is None:
            return None
        wants_it = (was_lost or self._on_clear == "resume") and not record.differs(request)
        generation = self._before_the_clear(generation_id, record, wants_it)
        if generation is not None and wants_it and not generation.failed:
            self._log.info("Resuming the wait for generation %s instead of submitting a new one.", generation_id)
            self._save(replace(self._taken(record), generation_id=generation_id))
            return generation
        is_over = generation is not None and generation.is_done
        if not is_over and not record.handed_over and self._cancel_abandoned:
            self._abandon(generation_id)
        return None

    def _taken(self, record: Record) -> Record:
        """Return a record that belongs to this try's order from now on."""
        return replace(self._with_counters(record), order=self._order.number, returned=False)

    def _with_counters(self, record: Record) -> Record:
        return replace(record, clears=self._order.clears, try_number=self._order.try_number)

    def _before_the_clear(self, generation_id: str, record: Record, is_needed: bool) -> Generation | None:
        """Return the generation of the order before the clear, and log what became of it.

        :param is_needed: whether the order depends on it, so that trouble of the service is raised.
        """
        try:
            if is_needed:
                generation = self._known(generation_id, record)
            else:
                generation = self._hook.get_generation(generation_id, endpoint=self._endpoint)
        except ViduError as error:
            if is_needed and not isinstance(error, ViduNotFoundError):
                raise
            self._log.warning("The task was cleared. Its earlier generation was %s: %s", generation_id, error)
            return None
        spent = "" if generation.credits is None else f", {generation.credits} credits"
        self._log.info(
            "The task was cleared. Its earlier generation was %s: %s%s.", generation_id, generation.describe(), spent
        )
        return generation

    def _abandon(self, generation_id: str) -> None:
        """Cancel, best effort, what the order before a clear has left running."""
        try:
            verdict = self._hook.cancel_generation(generation_id, endpoint=self._endpoint)
            self._log.info("Generation %s of the order before the clear: %s.", generation_id, verdict.reason)
        except ViduError as error:  # the new order does not depend on it
            self._log.warning("Generation %s of the order before the clear: %s", generation_id, error)


class _Sends:
    """Counts the sends of a create, and notes the time of each: a repetition may come minutes after the intent."""

    def __init__(self, record: Record, save: Callable[[Record], None], check: Callable[[], None] | None) -> None:
        self._record = record
        self._save = save
        self._check = check
        self.count = 0

    def next(self) -> None:
        """Take note of a send that is about to begin, unless it is no longer wanted."""
        if self._check is not None:
            self._check()
        self.count += 1
        if self.count > 1:
            self._save(replace(self._record, at=time.time()))


def failed(hook: ViduHook, generation: Generation) -> ViduError:
    """Return the error of a failed generation: retryable when a new submit may succeed."""
    error: ViduGenerationFailedError = failure(generation)
    error.with_context(conn_id=hook.vidu_conn_id)
    if not generation.is_transient:
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


def _unknown(conn_id: str, candidates: Sequence[str] = (), *, looks_again: bool = False) -> ViduSubmitUnknownError:
    clear = "clear this task to order it anew"
    if looks_again:
        clear = (
            "clear this task: it looks once more; if that is inconclusive too, a second clear submits a new generation"
        )
    if candidates:
        named = ", ".join(candidates[:NAMED_CANDIDATES])
        more = len(candidates) - NAMED_CANDIDATES
        what = (
            "and the account's list does not show which generation is this task's. It may be one of these: "
            f"{named}{f' and {more} more' if more > 0 else ''}. Nothing is submitted a second time. Compare them at "
            "the service"
        )
    else:
        what = (
            "its id was never received, and the service cannot be searched for it or does not list such generations. "
            "Nothing is submitted a second time. Check the account's generations at the service"
        )
    return ViduSubmitUnknownError(
        "An earlier try of this task was interrupted while it submitted a generation, which may have been created "
        f"and billed; {what}: if it is there, wait for it with ViduGenerationSensor(generation_id=…); if not, "
        f"{clear}.",
        conn_id=conn_id,
    )


def _uncertain(error: ViduError) -> ViduSubmitUncertainError:
    cause = error.__cause__ if isinstance(error.__cause__, ViduError) else error
    follows = (
        "A retry asks for the generation that the answer names, or looks for it, before it submits anything."
        if error.generation_id
        else "A retry, or clearing the task, looks for the generation before it submits anything."
    )
    return ViduSubmitUncertainError(
        f"The create was sent, but its outcome is unknown: {cause.reason.rstrip('.')}. {follows}",
        generation_id=error.generation_id,
        conn_id=error.conn_id,
        status_code=error.status_code,
        code=error.code,
        trace_id=error.trace_id,
    )
