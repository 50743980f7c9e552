"""When a callback may resume its task, and the callbacks that come too early for that."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.common.values import number
from airflow_provider_vidu.events import make_callback_event
from airflow_provider_vidu.polling.watch import earliest_event
from airflow_provider_vidu.ui.callbacks.airflow_assets import UnawaitedOrder
from airflow_provider_vidu.ui.callbacks.airflow_tasks import WaitingTask
from airflow_provider_vidu.ui.callbacks.grouped_queries import GroupedQueries
from airflow_provider_vidu.ui.threads import BusyError, Threads

log = logging.getLogger(__name__)

WOKEN_PAUSE_SECONDS: Final = 30.0
"""Between two callbacks that resume the same task: each costs a start of the task and a poll."""
LONGEST_HOLD_SECONDS: Final = 60.0
"""However far clocks are apart, no callback is held for longer."""
MAX_HELD: Final = 10_000
MAX_RESUMING: Final = 500
"""Callbacks that wait for their write; with more, the service is asked to send again."""
MAX_HOLDS: Final = 3
_NO_DIGEST: Final = "0" * 40

Resume = Callable[[WaitingTask, Mapping[str, Any]], bool]
Called = WaitingTask | UnawaitedOrder
"""What a token may belong to."""
Find = Callable[[Collection[UUID]], Mapping[UUID, Sequence[Called]]]


def due_at(task: WaitingTask, now: float) -> float:
    """Return the epoch seconds from which on a callback may resume a task.

    Airflow fails a task that is resumed within seconds of its deferral, because its scheduler learns of the deferral
    late.

    :param now: epoch seconds.
    """
    due = earliest_event(task.deferred_at)
    if (woken_at := number(task.arguments.get("woken_at"))) is not None:
        due = max(due, woken_at + WOKEN_PAUSE_SECONDS)
    return min(due, now + LONGEST_HOLD_SECONDS)


class Waker:
    """Finds the task of a token and resumes it, now or as soon as that is safe. Lives on one event loop.

    :param find: reads deferred tasks, and orders that no task waits for.
    :param resume: resumes one.
    :param threads: where both run.
    """

    def __init__(
        self,
        find: Find,
        resume: Resume,
        threads: Threads,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._queries = GroupedQueries(find, threads)
        self._resume = resume
        self._threads = threads
        self._clock = clock
        self._sleep = sleep
        self._held: dict[tuple[UUID, str], asyncio.Task[None]] = {}
        self._resuming = 0

    @property
    def held(self) -> int:
        """How many callbacks are held."""
        return len(self._held)

    async def find(self, instance: UUID, digest: str) -> Called | None:
        """Return the deferred task that waits for the generation of a token, or its order if no task does, or None.

        :param instance: the id of the task instance in the token.
        :param digest: the token's.
        :raises BusyError: when too many look-ups wait.
        """
        known = await self._queries.get(instance)
        # Each comparison takes the same time, and there is one even if nothing is known.
        digests = [each.callback for each in known] or [_NO_DIGEST]
        are_same = [hmac.compare_digest(own.encode(), digest.encode()) for own in digests]
        return next((each for each, is_same in zip(known, are_same, strict=False) if is_same), None)

    async def called(self, task: WaitingTask, instance: UUID, digest: str) -> None:
        """Resume a task because of a callback, or hold the callback until the task may be resumed.

        :param task: as :meth:`find` has returned it.
        :raises BusyError: when too many callbacks wait.
        """
        now = self._clock()
        if (due := due_at(task, now)) <= now:
            await self._wake(task, digest)
            return
        key = (instance, digest)
        if key in self._held:
            return
        if len(self._held) >= MAX_HELD:
            raise BusyError("Too many callbacks are held.")
        held = self._held[key] = asyncio.create_task(self._hold(instance, digest, due))
        held.add_done_callback(lambda _: self._held.pop(key, None))

    async def _hold(self, instance: UUID, digest: str, due: float) -> None:
        """Resume the task of a token when it is due. If this process ends before, the trigger polls."""
        try:
            for _ in range(MAX_HOLDS):
                await self._sleep(max(due - self._clock(), 0.0))
                if not isinstance(task := await self.find(instance, digest), WaitingTask):
                    return
                now = self._clock()
                if (due := due_at(task, now)) <= now:
                    await self._wake(task, digest)
                    return
        except Exception as error:  # noqa: BLE001 - the boundary of a task that nothing awaits; the trigger polls
            log.warning("A callback that was held has not resumed its task (%s).", type(error).__name__)

    async def _wake(self, task: WaitingTask, digest: str) -> None:
        if self._resuming >= MAX_RESUMING:
            raise BusyError("Too many tasks are being resumed.")
        self._resuming += 1
        try:
            arguments = task.arguments
            since, deadline = number(arguments.get("since")), number(arguments.get("deadline"))
            event = make_callback_event(arguments["generation_id"], since=since, deadline=deadline, callback=digest)
            if await self._threads.run(self._resume, task, event):
                # By the author of a DAG: a trigger may have been made with any text.
                shown = sanitized(arguments["generation_id"])
                log.info("A callback has resumed the wait for generation %s.", shown)
        finally:
            self._resuming -= 1
