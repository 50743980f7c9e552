"""One look at the database for all who want the same, and fewer looks the longer they take."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")

CHEAP_SECONDS: Final = 0.1
"""What takes no longer is looked at whenever somebody asks."""
KEPT_FOR: Final = 5.0
"""A dearer answer is good for this many times as long as it took."""
MAX_KEPT: Final = 64
MIN_PAUSE: Final = 5
MAX_PAUSE: Final = 120
PAUSE_FOR: Final = 20.0
"""A page asks again after this many times as long as its answer took: one viewer costs a twentieth of a core."""


@dataclass(slots=True)
class _Look(Generic[T]):
    task: asyncio.Task[tuple[T, float]]
    good_until: float = math.inf


class Shared(Generic[T]):
    """Answers of a slow function, shared by all who ask for the same at the same time. Lives on one event loop."""

    def __init__(self) -> None:
        self._looks: OrderedDict[Hashable, _Look[T]] = OrderedDict()

    async def get(self, key: Hashable, look: Callable[[], T]) -> tuple[T, float]:
        """Return what ``look`` returns for ``key`` now, or returned a moment ago, and the seconds that it took.

        :param look: runs in the thread pool; what it raises is raised to all who wait for it.
        """
        known = self._looks.get(key)
        if known is None or time.monotonic() >= known.good_until:
            known = self._looks[key] = _Look(asyncio.create_task(self._look(key, look)))
            self._looks.move_to_end(key)
        # A viewer who leaves does not take the answer away from the others.
        return await asyncio.shield(known.task)

    async def _look(self, key: Hashable, look: Callable[[], T]) -> tuple[T, float]:
        began = time.monotonic()
        lasts = 0.0
        try:
            found = await run_in_threadpool(look)
            cost = time.monotonic() - began
            lasts = cost * KEPT_FOR if cost > CHEAP_SECONDS else 0.0
            return found, cost
        finally:
            own = self._looks.get(key)
            if own is not None and own.task is asyncio.current_task():
                own.good_until = time.monotonic() + lasts
                if not lasts:
                    del self._looks[key]
            while len(self._looks) > MAX_KEPT:
                self._looks.popitem(last=False)


def pause_after(cost: float) -> int:
    """Return the seconds after which a page should ask again, at the earliest.

    :param cost: the seconds that the database took to answer.
    """
    return min(max(math.ceil(cost * PAUSE_FOR), MIN_PAUSE), MAX_PAUSE)
