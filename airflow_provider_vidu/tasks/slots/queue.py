"""The queue for the slots of an account, on a triggerer's event loop. The decisions are :mod:`..polling.admission`.

All triggers of a connection share one :class:`SlotQueue` per event loop: those that wait for a slot, and those that
watch a generation, because the end of one frees a slot. While something waits, one task serves the queue: it requests
the balance, once for all waiters, and wakes who may go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from airflow_provider_vidu.common.progress import duration
from airflow_provider_vidu.common.text import redacted, sentence
from airflow_provider_vidu.events import Predecessor
from airflow_provider_vidu.exceptions import ViduBudgetError, ViduError, ViduResponseError, ViduTimeoutError
from airflow_provider_vidu.polling.admission import DOUBTED_SECONDS, Gate
from airflow_provider_vidu.polling.turns import Waiter
from airflow_provider_vidu.polling.watch import earliest_event
from airflow_provider_vidu.tasks.clients import shared_client
from airflow_provider_vidu.tasks.handover import ENDED, state_and_generation

if TYPE_CHECKING:
    from airflow_provider_vidu.api.clients.async_client import AsyncClient
    from airflow_provider_vidu.api.settings.config import ViduConfig
    from airflow_provider_vidu.models import Credits

REPORT_SECONDS: Final = 3.0
"""Between two requests of the balance while tasks wait; the account runs a handful of generations at once."""
SOONEST_REPORT_SECONDS: Final = 1.0
"""Between two requests of the balance when a generation has ended."""
UNREPORTED_SECONDS: Final = 60.0
"""Before the balance is requested again after it could not be read."""
HURRIED_SECONDS: Final = 3.0
"""The longest interval of an adaptive watch while tasks wait for the slot of its generation."""
FIRST_LOG_SECONDS: Final = 2.0
LOG_SECONDS: Final = 60.0
"""Before the first log line about a place in the queue, and between two of them."""

log = logging.getLogger(__name__)


def slot_queue(conn_id: str) -> SlotQueue:
    """Return the queue of a connection on the running event loop."""
    queues = _queues.setdefault(asyncio.get_running_loop(), {})
    if (queue := queues.get(conn_id)) is None:
        queue = queues[conn_id] = SlotQueue(conn_id)
    return queue


_queues: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SlotQueue]]] = WeakKeyDictionary()


def task_key(ti: Any) -> str | None:
    """Return what names a task instance in the queue; None for a trigger without one."""
    if ti is None:
        return None
    return "\n".join(str(getattr(ti, name, "")) for name in ("dag_id", "run_id", "task_id", "map_index"))


class SlotQueue:
    """The waiting tasks and the watched generations of one connection on one event loop."""

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._gate = Gate(settled_at=earliest_event(time.time()))
        self._admissions: dict[str, asyncio.Future[Predecessor | None]] = {}
        self._alive: dict[str, _Alive] = {}
        self._endpoints: dict[str, str] = {}
        self._checking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._server: asyncio.Task[None] | None = None
        self._report_at = 0.0
        self._reported_at = 0.0
        self._is_below_floor: ViduBudgetError | None = None
        self._places: dict[str, int] = {}
        self.trouble: str | None = None
        """Why no task can be admitted at the moment; None while the queue works."""

    def hurried(self, generation_id: str, delay: float) -> float:
        """Return the seconds until the next poll of a generation: fewer while a task waits for its slot.

        :param delay: the seconds until the next poll if no task waits.
        """
        if not self._gate.waiting:
            return delay
        # About the expected end, so that it is seen when it is, and the next forecast is a good one.
        until_end = self._gate.expected_end(generation_id) - time.time() - HURRIED_SECONDS
        return min(delay, HURRIED_SECONDS if self._gate.is_hurried else max(until_end, HURRIED_SECONDS))

    @contextmanager
    def watching(
        self, generation_id: str, ti: Any, since: float | None = None, endpoint: str | None = None
    ) -> Iterator[_Watching]:
        """Count a generation as one that runs, until its watch ends.

        :param ti: the task instance whose trigger watches it.
        :param since: when it was submitted, in epoch seconds; None if unknown.
        """
        key = task_key(ti) if self._gate.expects else None
        self._gate.submitted(generation_id, key, time.time(), since)
        if endpoint is not None:
            self._endpoints[generation_id] = endpoint
        watching = _Watching()
        try:
            yield watching
        finally:
            self._gate.ended(generation_id, time.time(), is_over=watching.is_over, lasted=watching.lasted)
            if not self._gate.watches(generation_id):
                self._endpoints.pop(generation_id, None)
            if watching.is_over:  # a new report shows whether its slot is free
                self._report_at = min(self._report_at, self._reported_at + SOONEST_REPORT_SECONDS)
            self._changed.set()

    async def admission(self, waiter: Waiter, report: Callable[[int, int], None], ti: Any = None) -> Predecessor | None:
        """Return when the task may submit, or may start in order to submit after the end of a generation.

        :param ti: its task instance, by which the queue notices that it has ended without a create.
        :return: the generation that has to end first, if one has.
        :param report: called with its place and the length of the queue, at first and when the place has changed, at
            most once a minute. It runs in the caller's context, so that its log lines are the caller's.
        :raises ViduError: when nothing may be submitted with this connection at all.
        """
        admission: asyncio.Future[Predecessor | None] = asyncio.get_running_loop().create_future()
        self._admissions[waiter.key] = admission
        self._alive.pop(waiter.key, None)
        self._gate.join(waiter, time.time())
        self._changed.set()
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve())
        reported = 0
        try:
            while not (await asyncio.wait({admission}, timeout=LOG_SECONDS if reported else FIRST_LOG_SECONDS))[0]:
                place, length = self._places.get(waiter.key, reported), len(self._places)
                if place != reported:
                    report(place, length)
                    reported = place
            if ti is not None:
                self._alive[waiter.key] = _Alive(ti)
            return await admission
        finally:
            # After a clear, the task's next try may have joined under the same key already.
            if self._admissions.get(waiter.key) is admission:
                del self._admissions[waiter.key]
                self._gate.leave(waiter.key)
            self._changed.set()

    async def _serve(self) -> None:
        try:
            while self._admissions:  # again: one may have joined while the client was closed
                await self._serve_until_empty()
        except Exception as error:  # the boundary: those who wait must learn of it
            log.exception("The queue of connection %s broke.", self.conn_id)
            fault = error if isinstance(error, ViduError) else ViduError(f"The queue broke: {redacted(error)}")
            self._refuse(fault)

    async def _serve_until_empty(self) -> None:
        async with await shared_client(self.conn_id) as client:
            while self._admissions:
                try:
                    await self._learn(client)
                    self.trouble = None
                except ViduBudgetError as error:
                    self._refuse(error)
                    continue
                except Exception as error:  # noqa: BLE001 - the boundary: each waiter has a deadline of its own
                    self.trouble = redacted(error)
                    log.warning("The queue of connection %s could not be served: %s", self.conn_id, self.trouble)
                    await asyncio.sleep(UNREPORTED_SECONDS)
                    continue
                now = time.time()
                self._wake(now)
                self._places = self._gate.places()
                self._check_admitted(now)
                await self._pause(now)

    def _wake(self, now: float) -> None:
        """Wake the tasks that have a slot, or will have one by the time they run."""
        woken: list[tuple[Waiter, Predecessor | None]] = []
        for waiter, generation_id in self._gate.promise(now):
            woken.append((waiter, Predecessor(generation_id, self._endpoints.get(generation_id))))
        woken += [(waiter, None) for waiter in self._gate.admit(now)]
        for waiter, after in woken:
            if (admission := self._admissions.get(waiter.key)) is not None and not admission.done():
                admission.set_result(after)

    def _check_admitted(self, now: float) -> None:
        """Begin to check whether the admitted tasks of which nothing was seen are still alive."""
        if self._checking is not None and not self._checking.done():
            return
        doubted = [key for key in self._gate.doubted(now) if key in self._alive and self._alive[key].is_due(now)]
        if doubted:
            self._checking = asyncio.create_task(self._check(doubted))

    async def _check(self, keys: list[str]) -> None:
        """Find out what has become of admitted tasks; one by one, because each query has a cost."""
        for key in keys:
            if (alive := self._alive.get(key)) is None:
                continue
            state, published = await state_and_generation(alive.ti)
            # One that has published nothing may not have started yet, unless it is deferred still a while later.
            is_elsewhere = state == "deferred" and (published is not None or alive.state == state)
            alive.state, alive.checked_at = state, time.time()
            if self._alive.get(key) is not alive:  # it has joined again meanwhile
                continue
            if state in ENDED or state == "up_for_retry":
                log.info("Connection %s: a task that was to submit has ended (%s).", self.conn_id, state)
                self._gate.released(key, time.time())
                self._report_at = 0.0  # its create may have been carried out, which only a new report shows
            elif is_elsewhere:
                self._gate.moved(key, None if published is None else str(published), time.time())
            else:
                continue
            del self._alive[key]
            self._changed.set()

    async def _pause(self, now: float) -> None:
        self._changed.clear()
        report_at = self._report_at if self._report_at > now else now + 1
        seconds = min(self._gate.next_at(now), report_at, now + LOG_SECONDS) - now
        try:
            async with asyncio.timeout(max(seconds, 0.05)):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _learn(self, client: AsyncClient) -> None:
        """Read the connection, and what the service reports about its slots and its balance.

        :raises ViduBudgetError: when the balance is below the connection's floor.
        :raises ViduConfigError: when the connection cannot be used.
        """
        config = await client.config()
        self._gate.limit = config.max_in_flight
        now = time.time()
        if not self._gate.is_ready(now):
            return
        if 0 < self._report_at - now <= UNREPORTED_SECONDS:  # later, the clock was set back
            if self._is_below_floor is not None:
                raise self._is_below_floor
            return
        self._report_at, self._reported_at, self._is_below_floor = now + REPORT_SECONDS, now, None
        if not config.dialect.has_balance:
            self._report_at = now + UNREPORTED_SECONDS
            self._gate.unreported()
            return
        try:
            balance = await client.carry(lambda dialect: dialect.credits())
        except ViduError as error:
            self._report_at = now + UNREPORTED_SECONDS
            self._gate.unreported()
            if config.min_balance is not None:  # without it nothing may be submitted
                raise
            log.info("Connection %s: the free slots are unknown: %s", self.conn_id, error)
        else:
            self._check_floor(config, balance)
            if (limit := _limit(config, balance)) is None or balance.in_use is None:
                self._gate.unreported()
            else:
                self._gate.reported(limit, max(balance.in_use, 0), now)

    def _check_floor(self, config: ViduConfig, balance: Credits) -> None:
        try:
            check_balance(config, balance)
        except ViduBudgetError as error:
            self._is_below_floor = error
            raise

    def _refuse(self, error: ViduError) -> None:
        for key, admission in self._admissions.items():
            self._gate.leave(key)  # else it held a slot later, and what broke the queue would break it again
            if not admission.done():
                admission.set_exception(error)
        self._admissions.clear()


class _Watching:
    """What the watch of a generation has shown in the end."""

    is_over = False
    """Whether the generation has ended."""
    lasted: float | None = None
    """How many seconds it took to succeed; None if that is not known well."""


@dataclass(slots=True)
class _Alive:
    """An admitted task that has not shown its generation yet."""

    ti: Any
    state: str | None = None
    checked_at: float = 0.0

    def is_due(self, now: float) -> bool:
        """Whether its state may be queried again."""
        return now - self.checked_at >= DOUBTED_SECONDS


def _limit(config: ViduConfig, balance: Credits) -> int | None:
    """Return how many generations may run at once, by the account and by the user; None if neither is known."""
    # [?] A limit of 0 or less (some systems mean "none" with it) would keep every task waiting for ever.
    limits = (balance.concurrency_limit, config.max_in_flight)
    return min((limit for limit in limits if limit is not None and limit > 0), default=None)


def check_balance(config: ViduConfig, balance: Credits) -> None:
    """Refuse to submit below the connection's floor.

    :raises ViduBudgetError: when the balance is lower than ``min_balance``.
    :raises ViduResponseError: when the answer names no balance to compare with.
    """
    floor, remaining = config.min_balance, balance.remaining
    if floor is None:
        return
    if remaining is None:
        raise ViduResponseError(
            "The service's answer names no balance, so the connection's min_balance cannot be checked: nothing was "
            "submitted. Remove min_balance if this service reports none.",
            conn_id=config.conn_id,
        )
    if remaining < floor:
        raise ViduBudgetError(
            f"The balance of {remaining:g} credits is below the connection's min_balance of {floor:g}: nothing was "
            "submitted. Top up the account, or lower min_balance.",
            conn_id=config.conn_id,
        )


def no_slot(
    conn_id: str, seconds: float, trouble: str | None = None, *, is_for_prices: bool = False, had_turn: bool = False
) -> ViduTimeoutError:
    """Return the error of a task whose timeout expired before it could submit.

    :param seconds: how long it has waited.
    :param trouble: the error that kept the queue from looking for a slot, if there was one.
    :param is_for_prices: whether it waited for the prices of open generations, within its budget; else for a free slot.
    :param had_turn: whether it was its turn, and a worker began it too late.
    """
    what, advice = "No slot was free within", "Raise the timeout, or submit fewer generations at a time."
    if is_for_prices:
        what = "The budget may be spent by generations whose price was still not known after"
        advice = "Raise the timeout or the budget, or submit fewer generations at a time."
    if had_turn:
        what = "It was the task's turn, but a worker began it only after its timeout of"
        advice = "Raise the timeout, or see that workers begin tasks sooner."
    return ViduTimeoutError(
        f"{what} {duration(seconds)}: nothing was submitted. "
        + (f"The last attempt to find a slot failed: {sentence(trouble)}" if trouble else advice),
        conn_id=conn_id,
    )


def no_triggerer(conn_id: str) -> ViduTimeoutError:
    """Return the error of a wait before a create that Airflow gave up, because no triggerer ran it."""
    return ViduTimeoutError(
        "Gave up waiting before the create: no triggerer ran the trigger in time ([triggerer] capacity). Nothing was "
        "submitted.",
        conn_id=conn_id,
    )
