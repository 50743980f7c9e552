"""Name look-ups of the asynchronous client, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any, cast

import aiohttp


def resolver() -> aiohttp.abc.AbstractResolver | None:
    """Return what looks names up on the running event loop; None if aiohttp's own needs no threads (aiodns)."""
    if aiohttp.DefaultResolver is not aiohttp.ThreadedResolver:
        return None
    return aiohttp.ThreadedResolver(cast("asyncio.AbstractEventLoop", _Loop(asyncio.get_running_loop())))


class _Loop:
    """The event loop as aiohttp's resolver uses it.

    An event loop has few threads for look-ups (six on two cores, four with uvloop), and a name whose servers are silent
    keeps one for a minute: some connections with such names stopped the look-ups of all others, also Airflow's. The
    connector looks a name up once at a time, so these threads are no more than the names.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        """Do the same as the loop's own."""
        found = self._loop.create_future()

        def tell(error: Exception | None, addresses: Any) -> None:
            if found.done():  # it was cancelled
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        def look_up() -> None:
            error, addresses = None, None
            try:
                addresses = socket.getaddrinfo(*args, **options)
            except Exception as caught:  # noqa: BLE001 - raised on the loop
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(tell, error, addresses)

        threading.Thread(target=look_up, name="vidu-names", daemon=True).start()
        return await found
