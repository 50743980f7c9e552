"""Name look-ups of the asynchronous client, each name in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from copy import copy
from typing import Any, cast
from weakref import WeakKeyDictionary

import aiohttp


def resolver() -> aiohttp.abc.AbstractResolver | None:
    """Return what looks names up on the running event loop; None if aiohttp's own needs no threads (aiodns)."""
    if aiohttp.DefaultResolver is not aiohttp.ThreadedResolver:
        return None
    return aiohttp.ThreadedResolver(cast("asyncio.AbstractEventLoop", _Loop(asyncio.get_running_loop())))


_Found = asyncio.Future[tuple[Exception | None, Any]]
_running: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, _Found]] = WeakKeyDictionary()
"""The look-ups under way: clients come and go, and each left a thread behind that a silent name keeps for a minute."""


class _Loop:
    """The event loop as aiohttp's resolver uses it.

    An event loop has few threads for look-ups (six on two cores, four with uvloop), and a name whose servers are silent
    keeps one for a minute: some connections with such names stopped the look-ups of all others, also Airflow's. A name
    is looked up once at a time, so these threads are no more than the names.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        """Do the same as the loop's own."""
        running = _running.setdefault(self._loop, {})
        key = (args, frozenset(options.items()))
        if (found := running.get(key)) is None:
            found = running[key] = self._begin(args, options, lambda: running.pop(key, None))
        error, addresses = await asyncio.shield(found)
        if error is not None:
            raise copy(error)  # each who waits has its own
        return addresses

    def _begin(self, args: Any, options: Any, forget: Callable[[], object]) -> _Found:
        found: _Found = self._loop.create_future()

        def tell(error: Exception | None, addresses: Any) -> None:
            forget()
            if not found.done():  # it may have been cancelled
                found.set_result((error, addresses))

        def look_up() -> None:
            error, addresses = None, None
            try:
                addresses = socket.getaddrinfo(*args, **options)
            except Exception as caught:  # noqa: BLE001 - raised on the loop
                error = caught
            try:
                self._loop.call_soon_threadsafe(tell, error, addresses)
            except RuntimeError:  # the loop is closed
                forget()

        threading.Thread(target=look_up, name="vidu-names", daemon=True).start()
        return found
