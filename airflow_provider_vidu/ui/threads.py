"""Threads for the clip pages alone: the API server shares forty threads among all other requests."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

T = TypeVar("T")

QUERIES: Final = 8
"""Threads that read the database."""
VIEWS: Final = 4
"""Threads that build answers from what was read: a hundred clips with all their texts take a while."""
READS_EACH: Final = 8
"""Threads that read the files of one place: a store may be slow, or never answer."""
READS_OF_DAG: Final = 2
"""How many of them the journals of one DAG's batches have: twenty of the largest take half a minute to parse."""
TURN_SECONDS: Final = 10.0
"""Work that waits longer than this for its turn is dropped."""
SLOW_SECONDS: Final = 2.0
"""A DAG with a query that took longer is slow."""
SLOW_FOR: Final = 3600.0
"""How many seconds a DAG is slow after such a query: another kind of page may be quick."""
MAX_PACES: Final = 10_000
"""Of how many DAGs it is known that they are slow, and of how many that they are quick: those looked at last."""


TOO_MANY: Final = "Too many requests for the clips of this DAG at once; try again in a moment."


class BusyError(Exception):
    """Too much work waits for its turn; the message says where, and may be shown on the page."""


class Threads:
    """Runs functions in at most so many threads. Lives on one event loop.

    :param most: how many run at once; the others wait for their turn.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._limiter: CapacityLimiter | None = None

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Return what a function returns in a thread."""
        if self._limiter is None:  # it belongs to the loop on which it is made
            self._limiter = CapacityLimiter(self._most)
        return await run_sync(partial(function, *args), limiter=self._limiter)

    def share_of(self, dag_id: Hashable) -> asyncio.Semaphore | None:
        """Return the slots of the share that a DAG's work runs in; None if it may have all threads."""
        return None

    def took(self, dag_id: Hashable, seconds: float) -> None:
        """Note how long work of a DAG took; called in the thread."""


class ViewThreads(Threads):
    """Threads of which each DAG has a half: a hundred rows of a batch may hold 15 MB, which their author decides.

    :param most: how many run at once.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._each = max(most // 2, 1)
        self._shares = WeakValueDictionary[str, asyncio.Semaphore]()

    async def run_of(self, dag_id: str, function: Callable[..., T], *args: Any) -> T:
        """Return what a function returns in a thread of a DAG's share.

        :raises BusyError: when its turn does not come.
        """
        share = self._shares.setdefault(dag_id, asyncio.Semaphore(self._each))
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await held.enter_async_context(share)
            except TimeoutError:
                raise BusyError(TOO_MANY) from None
            return await self.run(function, *args)


class QueryThreads(Threads):
    """Threads of which the slow DAGs have a half, and those whose pace is not known a quarter.

    A query of the database cannot be broken off, and the author of four DAGs can make each look at them take half a
    minute: with a few looks at a time, they held all threads, and the pages of every other DAG with them.

    :param most: how many run at once.
    """

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._slow, self._new = asyncio.Semaphore(most // 2), asyncio.Semaphore(max(most // 4, 1))
        # Apart: looks at any names of DAGs, also of none, do not have it forgotten which are slow.
        self._slow_until: OrderedDict[Hashable, float] = OrderedDict()
        self._quick: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()

    def share_of(self, dag_id: Hashable) -> asyncio.Semaphore | None:
        """Return the slots of the share that a DAG's queries run in; None if they may have all threads."""
        if time.monotonic() < self._slow_until.get(dag_id, 0.0):
            return self._slow
        return None if dag_id in self._quick or dag_id in self._slow_until else self._new

    def took(self, dag_id: Hashable, seconds: float) -> None:
        """Note how long a query of a DAG took."""
        with self._lock:
            if seconds > SLOW_SECONDS:
                self._slow_until[dag_id] = time.monotonic() + SLOW_FOR
            known: OrderedDict[Hashable, Any] = self._slow_until if dag_id in self._slow_until else self._quick
            known.setdefault(dag_id)
            known.move_to_end(dag_id)
            if len(known) > MAX_PACES:
                known.popitem(last=False)


class Reads:
    """Runs what reads stored files, each place in threads of its own. Lives on one event loop.

    A client library waits minutes for a store that is silent: that store's own files wait with it, no others.

    :param most: how many threads each place has.
    """

    def __init__(self, most: int = READS_EACH) -> None:
        self._most = most
        self._slots: dict[Hashable, asyncio.Semaphore] = {}
        self._shares = WeakValueDictionary[Hashable, asyncio.Semaphore]()
        self._threads = Threads(math.inf)
        self._late: set[asyncio.Task[Any]] = set()

    async def run(
        self,
        place: Hashable,
        function: Callable[..., T],
        *args: Any,
        turn: float = TURN_SECONDS,
        of_dag: str | None = None,
    ) -> T:
        """Return what a function returns in a thread.

        :param place: where it reads; one of a few that the deployment has chosen.
        :param turn: how many seconds it waits for its turn, at most.
        :param of_dag: the DAG whose share of the place's threads it runs in; None for all of them.
        :raises BusyError: when its turn does not come.
        """
        slots = self._slots.setdefault(place, asyncio.Semaphore(self._most))
        share = None if of_dag is None else self._shares.setdefault((place, of_dag), asyncio.Semaphore(READS_OF_DAG))
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(turn):
                    for each in (share, slots):
                        if each is not None:
                            await held.enter_async_context(each)
            except TimeoutError:
                raise BusyError("The store of this clip does not answer in time; try again in a moment.") from None
            return await self._threads.run(function, *args)

    async def soon(
        self,
        place: Hashable,
        function: Callable[..., T],
        *args: Any,
        patience: float,
        otherwise: T,
        of_dag: str | None = None,
    ) -> T:
        """Return what a function returns in a thread, or something else where that takes too long; it goes on then.

        :param place: where it reads; one of a few that the deployment has chosen.
        :param patience: seconds to wait.
        :param otherwise: what is returned instead.
        :param of_dag: as for :meth:`run`.
        """
        task = asyncio.create_task(self._run_or(otherwise, place, function, *args, of_dag=of_dag))
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        done, _ = await asyncio.wait({task}, timeout=patience)
        return task.result() if done else otherwise

    async def _run_or(
        self, otherwise: T, place: Hashable, function: Callable[..., T], *args: Any, of_dag: str | None
    ) -> T:
        try:
            return await self.run(place, function, *args, of_dag=of_dag)
        except BusyError:
            return otherwise
