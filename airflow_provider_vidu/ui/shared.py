"""One database query for all pages that need the same answer, fewer queries the longer they take, and few at once.

The API server has forty threads for all requests. These queries have threads of their own, and each DAG may use a few
of them: a reader who requests a hundred expensive pages delays the pages of that DAG, and nothing else. The queries of
DAGs that are known to take long have a share of the threads together.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from airflow_provider_vidu.ui.threads import TOO_MANY, BusyError, Threads

T = TypeVar("T")

CHEAP_SECONDS: Final = 0.1
"""A query that takes no longer is repeated at every request."""
KEPT_FOR: Final = 5.0
"""A more expensive answer is kept for this many times as long as it took."""
MAX_KEPT: Final = 64
MAX_KEPT_CHARS: Final = 16_000_000
"""At most this much text of answers is kept: one sheet may hold as much as a query may read."""
MAX_AT_ONCE: Final = 2
"""Concurrent queries for one DAG; other DAGs have their own."""
WANTED_SECONDS: Final = 10.0
"""A query whose turn comes later than this after the last request for it is dropped."""
MIN_PAUSE: Final = 5
MAX_PAUSE: Final = 120
PAUSE_FOR: Final = 20.0
"""A page refreshes after this many times as long as its answer took: one viewer costs a twentieth of a core."""

_Key = tuple[Any, ...]


@dataclass(slots=True)
class _Answer(Generic[T]):
    task: asyncio.Task[tuple[T, float]] | None = None
    good_until: float = math.inf
    chars: int = 0
    wanted_at: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        return self.task is not None and self.task.done()


@dataclass(slots=True)
class _Lane:
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_AT_ONCE))
    users: int = 0


class Shared(Generic[T]):
    """Answers of a slow function, shared by all simultaneous requests for the same key. Lives on one event loop.

    :param threads: where the function runs.
    :param weigh: returns how many characters an answer holds, about.
    """

    def __init__(self, threads: Threads, weigh: Callable[[T], int] = lambda _: 0) -> None:
        self._threads = threads
        self._weigh = weigh
        self._answers: OrderedDict[_Key, _Answer[T]] = OrderedDict()
        self._lanes: dict[Any, _Lane] = {}

    async def get(self, key: _Key, read: Callable[[], T]) -> tuple[T, float]:
        """Return what ``read`` returns for ``key`` now, or returned a moment ago, and the seconds that it took.

        :param key: what is read; it begins with the id of the DAG.
        :param read: runs in a thread; what it raises is raised to all who wait for it.
        :raises BusyError: when the read had to wait too long for its turn.
        """
        known = self._answers.get(key)
        if known is None or time.monotonic() >= known.good_until:
            known = self._answers[key] = _Answer()
            known.task = asyncio.create_task(self._read(key, known, read))
            self._answers.move_to_end(key)
        known.wanted_at = time.monotonic()
        assert known.task is not None
        # A viewer who leaves does not take the answer away from the others.
        return await asyncio.shield(known.task)

    async def _read(self, key: _Key, own: _Answer[T], read: Callable[[], T]) -> tuple[T, float]:
        lasts = 0.0
        lane = self._lanes.setdefault(key[0], _Lane())
        lane.users += 1
        try:
            async with AsyncExitStack() as turns:
                for slots in (lane.slots, self._threads.share_of(key[0])):
                    if slots is not None:
                        await _turn(slots, own)
                        turns.callback(slots.release)
                began = time.monotonic()
                found = await self._threads.run(self._timed, key[0], read)
            cost = time.monotonic() - began
            lasts = cost * KEPT_FOR if cost > CHEAP_SECONDS else 0.0
            own.chars = self._weigh(found) if lasts else 0
            return found, cost
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[key[0]]
            own.good_until = time.monotonic() + lasts
            if not lasts and self._answers.get(key) is own:
                del self._answers[key]
            self._forget()

    def _timed(self, dag_id: Hashable, read: Callable[[], T]) -> T:
        """Run in a thread, and note how long that took, without the wait for the thread."""
        began = time.monotonic()
        try:
            return read()
        finally:
            self._threads.took(dag_id, time.monotonic() - began)

    def _forget(self) -> None:
        """Forget what is too old, and the oldest of what is too much; a read that is under way stays: it is shared."""
        now = time.monotonic()
        for key in [key for key, answer in self._answers.items() if answer.is_over and now >= answer.good_until]:
            del self._answers[key]
        over = [(key, answer.chars) for key, answer in self._answers.items() if answer.is_over]
        chars = sum(held for _, held in over)
        for key, held in over:
            if len(self._answers) <= MAX_KEPT and chars <= MAX_KEPT_CHARS:
                break
            del self._answers[key]
            chars -= held


async def _turn(slots: asyncio.Semaphore, own: _Answer[Any]) -> None:
    """Wait for a slot, as long as a request waits for the answer.

    :raises BusyError: when no request has waited for it for a while.
    """
    while True:
        left = own.wanted_at + WANTED_SECONDS - time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(left, 0.0)):
                await slots.acquire()
            if time.monotonic() - own.wanted_at <= WANTED_SECONDS:
                return
            slots.release()
        if time.monotonic() - own.wanted_at >= WANTED_SECONDS:
            raise BusyError(TOO_MANY)


def pause_after(cost: float) -> int:
    """Return the seconds until a page may refresh, at the earliest.

    :param cost: the seconds that the database took to answer.
    """
    return min(max(math.ceil(cost * PAUSE_FOR), MIN_PAUSE), MAX_PAUSE)
