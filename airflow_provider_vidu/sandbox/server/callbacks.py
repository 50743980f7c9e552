"""Sends the callbacks that the core owes, to loopback and the allowed hosts only."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from airflow_provider_vidu.sandbox.core import Core
from airflow_provider_vidu.sandbox.world.callbacks import CallbackRecord, Due, headers_of

TICK_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 5.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class CallbackSender:
    """Looks for due callbacks in short steps, and delivers them.

    :param core: owes them.
    :param origin: the sandbox's own address, for URLs in the bodies.
    """

    def __init__(self, core: Core, origin: str) -> None:
        self._core = core
        self._origin = origin
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send until cancelled."""
        connector = aiohttp.TCPConnector(limit=200)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            try:
                while True:
                    began = time.monotonic()
                    for due, body in self._core.callbacks_due(self._origin):
                        task = asyncio.create_task(self._deliver(session, due, body))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
                    # With many generations, looking takes a while.
                    await asyncio.sleep(max(TICK_SECONDS, 4 * (time.monotonic() - began)))
            finally:
                for task in self._tasks:
                    task.cancel()

    async def _deliver(self, session: aiohttp.ClientSession, due: Due, body: Any) -> None:
        action = due.fault.action if due.fault is not None else None
        if action == "lost" or not self._is_allowed(due.url):
            self._record(due, 1, 0, action or "not a loopback address")
            return
        if action == "late" and due.fault is not None:
            await asyncio.sleep(due.fault.seconds)
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        headers = headers_of(due, time.time())
        for attempt in range(1, due.attempts + 1):
            status = await self._post(session, due.url, data, headers)
            self._record(due, attempt, status, action)
            if 200 <= status < 300:
                break
            await asyncio.sleep(RETRY_SECONDS)
            headers = headers_of(due, time.time())
        if action in ("doubled", "replayed"):
            again = headers if action == "replayed" else headers_of(due, time.time())
            self._record(due, due.attempts + 1, await self._post(session, due.url, data, again), action)

    @staticmethod
    async def _post(session: aiohttp.ClientSession, url: str, data: bytes, headers: dict[str, str]) -> int:
        try:
            async with session.post(url, data=data, headers=headers, allow_redirects=False) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0

    def _is_allowed(self, url: str) -> bool:
        host = urlsplit(url).hostname
        return host in _LOOPBACK or host in self._core.settings.allowed_hosts

    def _record(self, due: Due, attempt: int, status: int, fault: str | None) -> None:
        with self._core.lock:
            record = CallbackRecord(due.generation.id, due.url, due.word, attempt, status, time.time(), fault)
            self._core.callbacks.records.append(record)
