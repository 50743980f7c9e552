"""Many look-ups in one query: a flood of made-up tokens costs a query for each hundreds of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Generic, TypeVar
from uuid import UUID

from airflow_provider_vidu.ui.threads import BusyError, Threads

T = TypeVar("T")

GATHER_SECONDS: Final = 0.02
MAX_AT_ONCE: Final = 200
"""The most ids of one query."""
MAX_WAITING: Final = 2_000
"""The most ids that wait for a query."""
LOOK_UP_SECONDS: Final = 10.0
"""A database that takes longer is busy."""


class Lookups(Generic[T]):
    """Gathers ids and looks them up together. Lives on one event loop.

    :param find: returns what is found, by id; runs in a thread.
    :param threads: where it runs.
    """

    def __init__(self, find: Callable[[Collection[UUID]], Mapping[UUID, Sequence[T]]], threads: Threads) -> None:
        self._find = find
        self._threads = threads
        self._waiting: dict[UUID, asyncio.Future[Sequence[T]]] = {}
        self._runner: asyncio.Task[None] | None = None

    async def get(self, key: UUID) -> Sequence[T]:
        """Return what is found for an id; nothing if there is none.

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
            await asyncio.sleep(GATHER_SECONDS)
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
