"""Threads of the clip pages' own: the API server answers everybody else from forty that it shares with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

T = TypeVar("T")

LOOKS: Final = 8
"""Threads that read the database."""
READS: Final = 16
"""Threads that read stored files: a store may be slow."""


class Threads:
    """Runs functions in at most so many threads. Lives on one event loop.

    :param most: how many run at once; the others wait for their turn.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limiter: CapacityLimiter | None = None

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Return what a function returns in a thread."""
        if self._limiter is None:  # it belongs to the loop on which it is made
            self._limiter = CapacityLimiter(self._most)
        return await run_sync(partial(function, *args), limiter=self._limiter)
