"""The trigger that watches a generation on the triggerer's event loop."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_vidu.batches.trigger import ViduBatchTrigger
from airflow_provider_vidu.defaults import DEFAULT_CONN_ID, seconds_of
from airflow_provider_vidu.events import Outcome, Predecessor, make_event, make_slot_event
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.polling.forecast import moment_of_end
from airflow_provider_vidu.polling.intervals import POLL_SECONDS
from airflow_provider_vidu.polling.schedule import NET_SHORTEST
from airflow_provider_vidu.polling.turns import Waiter, check_plain, is_plain
from airflow_provider_vidu.polling.watch import (
    Done,
    Failed,
    PollPolicy,
    Wait,
    Watch,
    earliest_event,
)
from airflow_provider_vidu.tasks.callbacks.arrivals import arrivals
from airflow_provider_vidu.tasks.clients import shared_client
from airflow_provider_vidu.tasks.handover import STILL_WAITED_FOR, detached, is_handed_over, persistently
from airflow_provider_vidu.tasks.slots.queue import no_slot, slot_queue, task_key

if TYPE_CHECKING:
    from airflow_provider_vidu.api.clients.async_client import AsyncClient

__all__ = ["ViduBatchTrigger", "ViduGenerationTrigger", "ViduSlotTrigger"]


class ViduGenerationTrigger(BaseTrigger):
    """Polls a generation until it is done, the deadline has passed, or polling cannot succeed; fires once.

    Any operator may use it. The event is plain JSON without secrets or URLs::

        {"version": 1, "outcome": "succeeded" | "failed" | "timeout" | "error",
         "generation_id": "…", "status": "succeeded", "provider_status": "completed",
         "error": None | {"type": "ViduAuthError", "message": "…", …}, "since": 1774494600.5, "deadline": None | …}

    A success also holds ``seen_at``, the epoch seconds of the poll that saw it, and ``queued``, about how many seconds
    the generation waited in a queue (None if unknown).

    Read it with :func:`airflow_provider_vidu.events.read_event`. Airflow stores all arguments as plain text in the
    metadata database, so they contain neither keys nor URLs.

    :param generation_id: the id at Vidu (``task_id`` in its API).
    :param vidu_conn_id: the Airflow connection.
    :param poll_interval: seconds (or timedelta) between polls; if omitted or None, the adaptive schedule decides.
    :param deadline: epoch seconds after which a ``timeout`` event fires; None waits without end. It is absolute, so it
        does not move when another triggerer takes over.
    :param since: epoch seconds at which the wait began (for messages, and for the grace period in which the service may
        not find the id yet); now if omitted.
    :param max_failures: consecutive failed polls that are tolerated.
    :param exponential_backoff: double the interval after every poll.
    :param max_wait: the most seconds of a growing interval.
    :param cancel_on_kill: cancel the generation at the service when a user kills or clears the task; the operator must
        have published the id as XCom ``generation_id`` before it deferred.
    :param adaptive: whether the adaptive schedule decides; if omitted, it does unless there is a ``poll_interval``.
        (Rows store a number in any case. A row of an older version has no ``adaptive`` and keeps its interval.)
    :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
    :param known: whether this connection has submitted or seen the generation before. Then no refusal ends the wait at
        once: a refused key pauses it until the deadline, or for an hour if there is none, and other refusals count as
        failed polls. If omitted, that applies after the first good poll.
    :param logged: the service's word for the state that the worker has already logged; it is not logged again.
    :param callback: the digest of the order's callback token. The service reports the end, so the adaptive schedule
        polls seldom, and :mod:`.ui.callbacks` may resume the task first.
    :param woken_at: epoch seconds at which a callback last resumed the task, which then deferred again.
    """

    def __init__(
        self,
        *,
        generation_id: str,
        vidu_conn_id: str = DEFAULT_CONN_ID,
        poll_interval: timedelta | float | None = None,
        deadline: float | None = None,
        since: float | None = None,
        max_failures: int = 10,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        cancel_on_kill: bool = False,
        adaptive: bool | None = None,
        endpoint: str | None = None,
        known: bool = False,
        logged: str | None = None,
        callback: str | None = None,
        woken_at: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.generation_id = generation_id
        self.vidu_conn_id = vidu_conn_id
        self.poll_interval = POLL_SECONDS if poll_interval is None else float(seconds_of(poll_interval))
        self.adaptive = poll_interval is None if adaptive is None else adaptive
        self.deadline = deadline
        self.since = time.time() if since is None else since
        self.max_failures = max_failures
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.cancel_on_kill = cancel_on_kill
        self.endpoint = endpoint
        self.known = known
        self.logged = logged
        self.callback = callback
        self.woken_at = woken_at

    @property
    def log(self) -> Any:
        """One logger shared by all triggers, because there may be thousands."""
        return _log()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, for the metadata database."""
        names = (
            "generation_id", "vidu_conn_id", "poll_interval", "deadline", "since", "max_failures",
            "exponential_backoff", "max_wait", "cancel_on_kill", "adaptive",
        )  # fmt: skip
        # Omitted in most rows, so that an earlier version can read them.
        seldom = {name: getattr(self, name) for name in ("endpoint", "known", "logged", "callback", "woken_at")}
        arguments = {name: getattr(self, name) for name in names}
        arguments |= {name: value for name, value in seldom.items() if value}
        return "airflow_provider_vidu.triggers.ViduGenerationTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the watch ends; yield one event."""
        try:
            event = await self._event()
        except asyncio.CancelledError:
            if not hasattr(BaseTrigger, "on_kill"):
                await self.on_kill()  # before Airflow 3.3 nothing else reports a kill
            raise
        event |= {"since": self.since, "deadline": self.deadline}  # a task that defers again needs them
        if self.callback:
            event["callback"] = self.callback
        yield TriggerEvent(event)

    async def _event(self) -> dict[str, Any]:
        """Poll until the watch ends; return the event, also of an error that ends the trigger."""
        begun = time.time()
        try:
            check_plain(self.since, self.max_failures, optional=(self.deadline, self.max_wait))
            queue = slot_queue(self.vidu_conn_id)
            with queue.watching(self.generation_id, self.task_instance, self.since, self.endpoint) as watching:
                async with await shared_client(self.vidu_conn_id) as client:
                    event, watching.lasted = await self._watch(client)
                watching.is_over = event["outcome"] in (Outcome.SUCCEEDED, Outcome.FAILED)
            return event
        except ViduError as error:
            error.with_context(generation_id=self.generation_id, conn_id=self.vidu_conn_id)
            event = make_event(self.generation_id, None, error)
        except Exception as error:  # the boundary: an unknown error must reach the task as an event
            self.log.exception("The trigger of generation %s failed.", self.generation_id)
            fault = ViduError(
                f"The trigger failed: {type(error).__name__}: {error}",
                generation_id=self.generation_id,
                conn_id=self.vidu_conn_id,
            )
            event = make_event(self.generation_id, None, fault)
        # Airflow marks a task failed whose event fires within a few seconds of its deferral.
        await asyncio.sleep(max(earliest_event(begun) - time.time(), 0))
        return event

    async def on_kill(self) -> None:
        """Cancel the generation if a user acted on the task, but not if a triggerer hands it over.

        Airflow also calls it if a callback has resumed the task.
        """
        if self.cancel_on_kill:
            await detached(self._cancel_unless_handed_over())
        elif self.callback:
            arrivals(self.vidu_conn_id).came()

    async def _cancel_unless_handed_over(self) -> None:
        try:
            # Before Airflow is asked: its supervisor answers one query at a time, and serves all triggers.
            if self.callback and await self._is_over():
                arrivals(self.vidu_conn_id).came()
                return
            if await is_handed_over(self.task_instance, self.generation_id):
                self.log.info(STILL_WAITED_FOR, f"Generation {self.generation_id}")
                return
            reason = await persistently(self._end)
            self.log.info("Generation %s, because the task was killed: %s.", self.generation_id, reason)
        except ViduError as error:  # best effort: no task is left to raise it in
            self.log.warning("Generation %s was not cancelled: %s", self.generation_id, error)

    async def _is_over(self) -> bool:
        """Whether the service says that the generation has ended, so that there is nothing to cancel.

        Callbacks end many waits at once, which share the request.
        """
        try:
            async with await shared_client(self.vidu_conn_id) as client:
                return await client.shared_polls.is_over(self.generation_id, self.endpoint)
        except ViduError as error:
            self.log.debug("The state of generation %s is not known: %s", self.generation_id, error)
        except Exception:  # the boundary: whatever breaks here, a killed task's generation is to be cancelled
            self.log.warning("The state of generation %s is not known.", self.generation_id, exc_info=True)
        return False

    async def _end(self) -> str:
        """Cancel the generation with one request, unless it is known to be done; return the reason."""
        async with await shared_client(self.vidu_conn_id) as client:
            with suppress(ViduError):  # a triggerer that wakes up late can mistake an ended task for a killed one
                if (await client.get_generation(self.generation_id, self.endpoint)).is_done:
                    return "it is already done"
            return (await client.cancel_generation(self.generation_id, self.endpoint)).reason

    def _policy(self) -> PollPolicy:
        """Return when to poll: seldom while callbacks report the end, unless the user has set an interval."""
        return PollPolicy.for_trigger(
            self.poll_interval,
            self.max_failures,
            exponential=self.exponential_backoff,
            adaptive=self.adaptive,
            max_wait=self.max_wait,
            sparse=self._is_sparse,
        )

    @property
    def _is_sparse(self) -> bool:
        return bool(self.callback) and self.adaptive and arrivals(self.vidu_conn_id).are_trusted

    @property
    def _begins_sparsely(self) -> bool:
        """Whether the first poll is late, too: callbacks have arrived, and none has resumed this task.

        A callback whose check failed or saw no end may have been true, so the next poll follows soon.
        """
        return self._is_sparse and not self.woken_at and arrivals(self.vidu_conn_id).is_proven

    def _first_delay(self, policy: PollPolicy) -> float:
        left = None if self.deadline is None else self.deadline - time.time()
        delay = policy.first_delay(left)
        if not self._begins_sparsely:
            return delay
        later = delay + NET_SHORTEST
        return later if left is None else max(min(later, left), delay)

    async def _watch(self, client: AsyncClient) -> tuple[dict[str, Any], float | None]:
        """Return the event, and how many seconds the generation took to succeed, if known well."""
        watch = Watch(
            self._policy(),
            generation_id=self.generation_id,
            since=self.since,
            deadline=self.deadline,
            conn_id=self.vidu_conn_id,
            known=self.known,
            logged=self.logged,
            replan=self._policy,
        )
        delay, begins_sparsely = self._first_delay(watch.policy), self._begins_sparsely
        floor = min(delay, earliest_event(0.0))
        await asyncio.sleep(floor)
        delay = self._hurried(delay - floor)
        polls = client.shared_polls.polls(watch, self.endpoint, self._hurried)
        while True:
            result = await polls.after(delay)
            if result.note:
                self.log.info("Generation %s: %s", self.generation_id, result.note)
            if not isinstance(result, Wait):
                error = result.error if isinstance(result, Failed) else None
                event = make_event(self.generation_id, watch.last, error)
                is_late = watch.has_waited_sparsely or (begins_sparsely and watch.policy.sparse)
                if is_late and event["outcome"] in (Outcome.SUCCEEDED, Outcome.FAILED):
                    arrivals(self.vidu_conn_id).was_missed()
                if not isinstance(result, Done):
                    return event, None
                seen_at = time.time()
                ended_at = moment_of_end(result.generation, watch.polled_at, seen_at)
                lasted = None if ended_at is None else ended_at - self.since
                return {**event, "seen_at": seen_at, "queued": watch.queued}, lasted
            delay = self._hurried(result.delay)
            del result  # thousands of triggers sleep here

    def _hurried(self, delay: float) -> float:
        """Return a shorter delay of the adaptive schedule while a task waits for the slot of this generation."""
        return slot_queue(self.vidu_conn_id).hurried(self.generation_id, delay) if self.adaptive else delay


class ViduSlotTrigger(BaseTrigger):
    """Waits until a task may submit: the account is full, or its connection limits how many generations run at once.

    Fires once, with an event of :func:`airflow_provider_vidu.events.make_slot_event`. Nothing is submitted here, so a
    kill has nothing to cancel.

    :param vidu_conn_id: the Airflow connection, whose triggers share one queue in each triggerer.
    :param since: epoch seconds at which the task began to wait. It keeps its age when it is refused again.
    :param deadline: epoch seconds after which a ``timeout`` event fires.
    :param queued_at: epoch seconds of this deferral.
    :param priority: higher goes first.
    :param refused_at: epoch seconds at which the service refused the create; None if none was sent.
    :param retry_after: seconds that the refusal asked to wait.
    :param is_watched: whether a :class:`ViduGenerationTrigger` watches the generation once it is submitted.
    :param is_for_prices: whether the task's budget waits for the prices of open generations: their end names them, and
        frees a slot.
    """

    def __init__(
        self,
        *,
        vidu_conn_id: str,
        since: float,
        deadline: float,
        queued_at: float,
        priority: int = 1,
        refused_at: float | None = None,
        retry_after: float | None = None,
        is_watched: bool = True,
        is_for_prices: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.vidu_conn_id = vidu_conn_id
        self.since = since
        self.deadline = deadline
        self.queued_at = queued_at
        self.priority = priority
        self.refused_at = refused_at
        self.retry_after = retry_after
        self.is_watched = is_watched
        self.is_for_prices = is_for_prices

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, to be stored in the metadata database."""
        names = (
            "vidu_conn_id", "since", "deadline", "queued_at", "priority", "refused_at", "retry_after", "is_watched"
        )  # fmt: skip
        kwargs = {name: getattr(self, name) for name in names}
        if self.is_for_prices:  # triggerers of earlier versions do not know it
            kwargs["is_for_prices"] = True
        return "airflow_provider_vidu.triggers.ViduSlotTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for a slot; yield one event."""
        ready_at = earliest_event(self.queued_at if is_plain(self.queued_at) else time.time())
        what = "the prices of open generations, in the queue of" if self.is_for_prices else "a free slot on"
        line = f"Waiting for {what} connection %s: place %d of %d."
        log_place = functools.partial(self.log.info, line, self.vidu_conn_id)
        error: ViduError | None = None
        after: Predecessor | None = None
        try:
            check_plain(self.queued_at, self.deadline)
            waiter = Waiter(
                key=task_key(self.task_instance) or f"trigger {id(self)}",
                priority=self.priority,
                since=self.since,
                ready_at=ready_at,
                refused_at=self.refused_at,
                retry_after=self.retry_after,
                is_watched=self.is_watched,
            )
            async with asyncio.timeout(max(self.deadline - time.time(), 0)):
                after = await slot_queue(self.vidu_conn_id).admission(waiter, log_place, self.task_instance)
        except TimeoutError:
            trouble = slot_queue(self.vidu_conn_id).trouble
            seconds = self.deadline - self.since
            error = no_slot(self.vidu_conn_id, seconds, trouble, is_for_prices=self.is_for_prices)
        except ViduError as refusal:
            error = refusal.with_context(conn_id=self.vidu_conn_id)
        # Airflow marks a task failed whose event fires within a few seconds of its deferral.
        await asyncio.sleep(max(ready_at - time.time(), 0))
        yield TriggerEvent(make_slot_event(error, self.since, self.deadline, after))


@functools.cache
def _log() -> Any:
    return super(ViduGenerationTrigger, ViduGenerationTrigger(generation_id="any")).log
