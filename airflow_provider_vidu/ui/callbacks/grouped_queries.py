"""Many uses of the database in one: a flood of made-up tokens costs a query for each hundreds of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Generic, TypeVar

from airflow_provider_vidu.ui.threads import BusyError, Threads

K = TypeVar("K")
T = TypeVar("T")

GATHER_SECONDS: Final = 0.02
MAX_AT_ONCE: Final = 200
"""The most keys of one query."""
MAX_WAITING: Final = 2_000
"""The most keys that wait for a query."""
LOOK_UP_SECONDS: Final = 10.0
"""A database that takes longer is busy."""


class GroupedQueries(Generic[K, T]):
    """Gathers keys and looks them up together. Lives on one event loop.

    :param find: returns what is found, by key; runs in a thread.
    :param threads: where it runs.
    :param gather_seconds: how long keys are gathered.
    """

    def __init__(
        self,
        find: Callable[[Collection[K]], Mapping[K, Sequence[T]]],
        threads: Threads,
        *,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self._find = find
        self._threads = threads
        self._gather_seconds = gather_seconds
        self._waiting: dict[K, asyncio.Future[Sequence[T]]] = {}
        self._runner: asyncio.Task[None] | None = None

    async def get(self, key: K) -> Sequence[T]:
        """Return what is found for a key; nothing if there is none.

        :raises BusyError: when too many wait, or the database takes too long.
        """
        known = self._waiting.get(key)
        if known is None:
            if len(self._waiting) >= MAX_WAITING:
                raise BusyError("Too many callbacks at once.")
            known = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._runner is None or self._runner.done():
                self._runner = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                return await asyncio.shield(known)
        except TimeoutError:
            raise BusyError("The database does not answer in time.") from None

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._gather_seconds)
            keys = list(self._waiting)[:MAX_AT_ONCE]
            futures = {key: self._waiting.pop(key) for key in keys}
            try:
                found = await self._threads.run(self._find, keys)
            except Exception as error:  # noqa: BLE001 - the boundary: those who wait must learn of it
                for future in futures.values():
                    _fail(future, error)
            else:
                for key, future in futures.items():
                    if not future.done():
                        future.set_result(found.get(key, ()))


def _fail(future: asyncio.Future[Sequence[T]], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # all who waited may have left
