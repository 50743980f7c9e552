"""Submit once, pay once: the steps before, around and after a create, over all tries of a task.

Nothing here depends on Airflow: the record's store is an argument. The order of the steps is essential:

1. the *intent* is stored (with a marker that ``ent-v2`` echoes),
2. the create is sent, once,
3. the id is stored,
4. everything else.

A worker that dies between 1 and 3 leaves an intent without an id. The next try then searches the account's list for the
marker or for a similar create (:mod:`.lost_order`); if the list is inconclusive, it fails instead of paying twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import (
    ViduConfigError,
    ViduError,
    ViduNotFoundError,
    ViduSubmitUnknownError,
)
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.orders.claims import NoClaim
from airflow_provider_vidu.orders.lost_order import Sends, find_lost, intent_of, named_id, queried, uncertain
from airflow_provider_vidu.orders.media.prepared import Prepared
from airflow_provider_vidu.orders.money.spending import NoSpending
from airflow_provider_vidu.orders.order import Order, OrderRecord
from airflow_provider_vidu.polling.failures import failure

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.orders.arguments import OnClear
    from airflow_provider_vidu.orders.records import RecordStore
    from airflow_provider_vidu.tasks.callbacks.tokens import CallbackAddress

RECORD_TRIES: Final = 3
RECORD_PAUSE_SECONDS: Final = 2.0
_ONE_ORDER: Final = (
    "This try of the task has ordered generation {} with another request, and a task instance keeps one order: nothing "
    "more was submitted. Use one ViduGenerateOperator for each request, mapped with expand() or expand_kwargs(), or a "
    "ViduBatchOperator."
)


class Submission:
    """Submits an order's generation, or recovers the one that an earlier try submitted.

    :param store: keeps the record; a ``NullStore`` if the user wants no memory (``durable=False``).
    :param order: which order this try belongs to: a new one after each clear, the same for all retries.
    :param cancel_abandoned: cancel a generation that the order before a clear has left running.
    :param on_clear: ``new`` submits a new generation after a clear; ``resume`` first picks up the generation of the
        order before the clear, if it was submitted with the same request and has not failed.
    :param before_order: called once before anything is uploaded, recorded or sent; raises if the result could not be
        stored.
    :param before_send: called right before each send of a create; raises if the create is no longer wanted.
    :param spending: the limits on credits, checked right before each send, and applied to the price in the answer.
    :param callback: where the service reports the end of a new generation; None without callbacks.
    :param claim: what the order shares with equal ones; nothing if omitted, and nothing after a clear.
    :param ordered_in_try: returns the generation that this very try has submitted or resumed, as when a ``@task``
        executes several operators: that is returned for no other request.
    """

    def __init__(
        self,
        hook: ViduHook,
        store: RecordStore,
        order: Order,
        log: Any,
        *,
        cancel_abandoned: bool = True,
        on_clear: OnClear = "new",
        before_order: Callable[[], None] = lambda: None,
        before_send: Callable[[], None] = lambda: None,
        spending: NoSpending | None = None,
        callback: CallbackAddress | None = None,
        claim: NoClaim | None = None,
        ordered_in_try: Callable[[], object] = lambda: None,
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
        self._spending = NoSpending() if spending is None else spending
        self._callback = callback
        self._claim = NoClaim() if claim is None else claim
        self._ordered_in_try = ordered_in_try
        self._sleep = sleep
        self._endpoint: str | None = None
        self._loaded: OrderRecord | None = None
        self._refused: OrderRecord | None = None
        self.ordered_at: float | None = None
        """When the order was recorded, in epoch seconds, once there is a generation."""
        self.callback: str | None = None
        """The digest of the callback token that the generation was submitted with, if there is one."""
        self.price: int | float | None = None
        """The price in the answer to an earlier try's create: later answers may omit it."""
        self.is_of_another_request = False
        """Whether the generation was submitted with another request than this try's."""
        self.unrecorded: OrderRecord | None = None
        """The record of a generation that is paid for, while the store holds only its intent."""
        self.failed: Generation | None = None
        """The earlier try's generation that failed permanently; its price counts, and a page can show it."""

    def generation(self, body: Prepared | Mapping[str, Any], endpoint: str | None) -> Generation:
        """Return the order's generation, submitted now or earlier.

        :param body: the whole request. Its files are read for its digest, and sent only with a new create.
        :param endpoint: of the create, as for :meth:`ViduHook.create_generation`.
        :raises ViduSubmitUnknownError: when an earlier create may have been carried out and the list does not show
            whether it was.
        :raises ViduGenerationFailedError: when the earlier try's generation failed permanently.
        :raises ViduError: when the create was refused.
        """
        self._endpoint = endpoint
        prepared = body if isinstance(body, Prepared) else Prepared(body)
        with closing(prepared):
            record = self._loaded = self._store.load()
            request = self._digest_of(prepared, endpoint, record)
            if record is not None and record.credits and not record.refunded:
                self._spending.count_paid(record)  # an earlier try may have ended before it could
            if record is None:
                earlier = None
            elif record.was_cleared(self._order, request):
                self._claim = NoClaim()
                earlier = self._after_clear(record, request)
            else:
                earlier = self._resumed(record, request)
            self.ordered_at = record.at if earlier is not None and record is not None else time.time()
            if earlier is not None and record is not None:
                self.callback, self.price = record.callback or None, record.credits
            return earlier or self._submit(prepared, endpoint, request)

    def check_price(self) -> None:
        """Cancel the order's generation if it costs more than the task allows; no try may use it then.

        :raises ViduBudgetError: with the price, the limit and the outcome of the cancel.
        """
        if (record := self._refused) is None:
            return
        error, is_refunded = self._spending.refuse(self._hook, record, self._endpoint)
        if is_refunded:
            self._store.save(replace(record, refunded=True))
        raise error

    def handed_over(self) -> None:
        """Record that the task ends without waiting: a later clear must not cancel the generation. Best effort."""
        try:
            if (record := self.unrecorded or self._store.load()) is not None:
                self._store.save(replace(record, handed_over=True))
        except Exception as error:  # noqa: BLE001 - it is paid for, and its id is the result
            self._log.warning("A clear may cancel the generation, because that is not recorded: %s", redacted(error))

    def _digest_of(self, prepared: Prepared, endpoint: str | None, record: OrderRecord | None) -> str:
        """Return the digest of the request; empty if its files are gone, but the order was already submitted."""
        try:
            return prepared.digest(endpoint, self._hook.config.dialect)
        except ViduError as error:
            if record is None or record.order != self._order.number or record.generation_id is None:
                raise
            self._log.warning("The inputs can no longer be read, so they are not compared: %s", error)
            return ""

    def _resumed(self, record: OrderRecord, request: str) -> Generation | None:
        """Return the generation that an earlier try submitted, or None if a new submit is right."""
        if record.refused and record.generation_id is not None:
            self._refused = record
            # What the record knows; it is not queried, because no try may use it.
            return Generation(id=record.generation_id, status=GenerationStatus.UNKNOWN, credits=record.credits)
        generation_id = record.generation_id or self._searched(record)
        if generation_id is None:
            self._log.info("An earlier try was interrupted before its create was carried out; submitting now.")
            return None
        self._claim.submitted(generation_id)
        # With this try's counters: the fewer clears may have happened since, the less is left to guess.
        self._store.save(replace(record.handled_by(self._order), generation_id=generation_id))
        generation = queried(self._hook, record, generation_id, self._endpoint, self._log, self._sleep)
        self._price_late(record.handled_by(self._order), generation)
        if not generation.failed:
            if record.differs(request) and self._ordered_in_try() == generation_id:
                raise ViduConfigError(_ONE_ORDER.format(generation_id))
            self._log.info("Resuming generation %s of an earlier try: %s", generation_id, generation.describe())
            if record.differs(request):
                self.is_of_another_request = True
                self._log.warning(
                    "Generation %s was submitted with another request than this try's. Clear the task to submit that.",
                    generation_id,
                )
            return generation
        if generation.is_transient or generation.was_cancelled:
            self._log.info("Generation %s of an earlier try failed; submitting it again.", generation_id)
            return None
        if record.differs(request) or record.counts_another_clear(self._order):
            # Airflow does not retry a permanent failure, so a user wants to try again.
            self._log.info("Generation %s of an earlier try failed permanently; submitting a new one.", generation_id)
            return None
        self.failed, self.ordered_at, self.price = generation, record.at, record.credits
        raise failure(generation).with_context(conn_id=self._hook.vidu_conn_id)

    def _searched(self, record: OrderRecord, *, is_cleared: bool = False) -> str | None:
        """Return the generation of a create of unknown outcome; None if there is certainly none."""
        try:
            generation_id = find_lost(self._hook, record, self._log, self._sleep, is_cleared=is_cleared)
        except ViduError:
            self._spending.count_lost(record)  # the try that sent it may have been killed before it could say so
            raise
        if generation_id is None:
            self._spending.settle(record)
        return generation_id

    def _price_late(self, record: OrderRecord, generation: Generation) -> OrderRecord:
        """Return the record with the price that the create's answer has not named, made visible to others."""
        if record.credits:
            return record
        if generation.credits:
            record = replace(record, generation_id=generation.id, credits=generation.credits)
            self._loaded = record  # what follows may submit again, and must not forget what was spent
            self._store.save(record)
            self._spending.count_paid(record)
        self._spending.observe(generation, record.began or record.at, self._endpoint)
        self._spending.settle(record)
        return record

    def _submit(self, prepared: Prepared, endpoint: str | None, request: str) -> Generation:
        self._claim.look(request)
        self._spending.checked_left()
        self._before_order()
        # Before the intent: an upload costs nothing, and one that fails leaves nothing to search for.
        body = prepared.resolve(self._hook, self._log)
        record, sent = self._intent(body, endpoint, request)
        record = self._claim.take(record)
        self._store.save(record)
        sends = Sends(
            *(self._before_send, self._spending.checked_left, self._claim.check),
            renew=lambda: self._store.save(replace(record, at=time.time())),
        )
        try:
            generation = self._hook._submit(sent, endpoint, sends, queues=True)
        except ViduSubmitUnknownError as error:
            self._spending.count_lost(record)
            known = named_id(record, error)
            if not self._store.is_durable or not (record.is_searchable or known):
                raise
            # The service may take as long again, so the time counts from here.
            self._store.save(replace(record, at=time.time(), generation_id=known))
            if known is not None:
                self._claim.submitted(known)
            raise uncertain(error) from error
        except BaseException as error:
            # Refused, or never sent. Any other end of a send (a timeout, a kill) leaves the intent.
            if isinstance(error, ViduError) or not sends.count:
                self._forget_intent()
                self._claim.release()
            else:
                self._spending.count_lost(record)
            raise
        paid = self._recorded(record, generation)
        self._claim.submitted(generation.id)
        if (price := self._price_of(generation, endpoint)) is not None:
            generation = generation.model_copy(update={"credits": price})
            paid = self._recorded(record, generation)
        self._spending.count_paid(paid, endpoint)
        if generation.is_done and not generation.credits:
            self._spending.observe(generation, record.began or record.at, endpoint)
        self._refused = paid if paid.refused else None
        self.callback = record.callback or None
        return generation

    def _recorded(self, record: OrderRecord, generation: Generation) -> OrderRecord:
        """Store the generation of an intent with its price; return the record."""
        is_refused = self._spending.exceeds(generation)
        paid = replace(record, generation_id=generation.id, credits=generation.credits, refused=is_refused)
        try:
            self._store.save(paid)
            self.unrecorded = None
        except Exception as error:  # noqa: BLE001 - it is paid for: without a list, this try alone knows the id
            self._log.error("Generation %s was submitted, not recorded (%s).", generation.id, redacted(error))
            self.unrecorded = paid
        return paid

    def record_again(self) -> None:
        """Store the record of a generation that could not be stored after its create: an outage may be over."""
        for _ in range(RECORD_TRIES if self.unrecorded is not None else 0):
            self._sleep(RECORD_PAUSE_SECONDS)
            with suppress(Exception):
                self._store.save(cast("OrderRecord", self.unrecorded))
                self.unrecorded = None
                return

    def _price_of(self, generation: Generation, endpoint: str | None) -> int | float | None:
        """Return the price of a new generation if a limit needs it, and a damaged answer has not named it."""
        if generation.credits is not None or not generation._is_damaged or not self._spending.needs_price:
            return None
        try:
            return self._hook.get_generation(generation.id, endpoint=endpoint).credits
        except ViduError as error:  # its end will name it
            self._log.info("The price of generation %s is not known yet: %s", generation.id, error)
            return None

    def _forget_intent(self) -> None:
        """Restore the record before an intent that came to nothing: a clear may still need it."""
        if self._loaded is not None and self._loaded.generation_id is not None:
            self._store.save(self._loaded)
        else:
            self._store.clear()

    def _intent(
        self, body: Mapping[str, Any], endpoint: str | None, request: str
    ) -> tuple[OrderRecord, Mapping[str, Any]]:
        """Return the record of a create that is about to be sent, and the body with its marker and its callback."""
        record, sent = intent_of(
            self._hook,
            body,
            endpoint,
            number=self._order.number,
            request=request,
            is_durable=self._store.is_durable,
        )
        spent = 0 if self._loaded is None else self._loaded.total
        record = replace(record.handled_by(self._order), spent=spent)
        if self._callback is None:
            return record, sent
        called = self._hook.config.dialect.with_callback(sent, self._callback.url, endpoint)
        if called is None:
            return record, sent
        return replace(record, callback=self._callback.digest, nudges=self._callback.nudges), called

    def _after_clear(self, record: OrderRecord, request: str) -> Generation | None:
        """Return the generation of the order before a clear if this order resumes it.

        The user gave up a known generation, unless the task has ``on_clear="resume"``. A generation whose create had an
        unknown outcome is still wanted: for a task without retries, the clear is the only way to continue.
        """
        generation_id, was_lost = record.generation_id, record.is_lost and not record.returned
        if generation_id is None and not (was_lost or record.returned):
            self._spending.count_lost(record)  # nothing can find it
        if was_lost:
            try:
                generation_id = self._searched(record, is_cleared=True)
            except ViduSubmitUnknownError:
                # Reported once; a further clear submits a new generation.
                self._store.save(replace(record.taken_by(self._order), marked=False, looks=None))
                raise
        if generation_id is None:
            return None
        is_wanted = was_lost or (self._on_clear == "resume" and not record.refused)
        wants_it = is_wanted and not record.differs(request)
        generation = self._before_the_clear(generation_id, record, wants_it)
        if generation is not None:
            record = self._price_late(replace(record, generation_id=generation_id), generation)
        if generation is not None and wants_it and not generation.failed:
            self._log.info("Resuming the wait for generation %s instead of submitting a new one.", generation_id)
            self._store.save(replace(record.taken_by(self._order), generation_id=generation_id))
            return generation
        is_over = generation is not None and generation.is_done
        if not is_over and not record.handed_over and self._cancel_abandoned:
            self._abandon(generation_id)
        return None

    def _before_the_clear(self, generation_id: str, record: OrderRecord, is_needed: bool) -> Generation | None:
        """Return the generation of the order before the clear, and log its state.

        :param is_needed: whether the order depends on it, so that an error of the service is raised.
        """
        try:
            if is_needed:
                generation = queried(self._hook, record, generation_id, self._endpoint, self._log, self._sleep)
            else:
                generation = self._hook.get_generation(generation_id, endpoint=self._endpoint)
        except ViduError as error:
            if is_needed and not isinstance(error, ViduNotFoundError):
                raise
            self._log.warning("The task was cleared. Its earlier generation was %s: %s", generation_id, error)
            return None
        spent = "" if generation.credits is None else f", {generation.credits} credits"
        state = f"{generation.describe()}{spent}"
        self._log.info("The task was cleared. Its earlier generation was %s: %s.", generation_id, state)
        return generation

    def _abandon(self, generation_id: str) -> None:
        """Cancel, best effort, the generation that the order before a clear left running."""
        try:
            verdict = self._hook.cancel_generation(generation_id, endpoint=self._endpoint)
            self._log.info("Generation %s of the order before the clear: %s.", generation_id, verdict.reason)
        except ViduError as error:  # the new order does not depend on it
            self._log.warning("Generation %s of the order before the clear: %s", generation_id, error)
