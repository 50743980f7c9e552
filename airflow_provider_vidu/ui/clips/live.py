"""Polls the service for the state of a generation, once for all pages that show it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from weakref import WeakValueDictionary

from airflow_provider_vidu.api.settings.connection import aresolve, check_type, connection_type
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConfigError,
    ViduError,
    ViduRateLimitError,
    ViduTransportError,
)
from airflow_provider_vidu.ui.clips.service import NOT_ASKED, Live
from airflow_provider_vidu.ui.clips.xcoms import chars_of, slim
from airflow_provider_vidu.ui.playing.redirects import NO_TRUST, Trust

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 5.0
"""The same generation is queried no more often than this, however many pages show it."""
ERROR_SECONDS: Final = 15.0
"""After a failure the next query waits this long; the pause doubles with each further failure of a connection."""
MAX_ERROR_SECONDS: Final = 120.0
DONE_SECONDS: Final = 600.0
"""A finished generation is queried again after this time: its URLs are new then."""
PATIENCE_SECONDS: Final = 6.0
"""A page waits no longer for the service; its next refresh shows the answer."""
ANSWER_SECONDS: Final = 20.0
"""A query without an answer after this time has failed, even if the connection's timeout is longer."""
NO_ANSWER: Final = f"No answer within {ANSWER_SECONDS:.0f} s."
WANTED_SECONDS: Final = 15.0
"""A query whose turn comes later than this after a page last wanted its answer is dropped."""
MAX_AT_ONCE: Final = 4
"""Concurrent queries for one connection; other connections have their own."""
MAX_WAITING: Final = 500
"""Queries that wait for one connection; for more clips the pages show the last known state."""
MAX_STRANGERS: Final = 2
"""Look-ups under way for connections that have not been found yet: a DAG may name thousands of them, and
Airflow looks connections up in one thread. One at a time of a DAG: those of another did not wait for a hundred."""
TRUST_SECONDS: Final = 15.0
"""What a connection vouches for is looked up no more often than this."""
MAX_KEPT: Final = 2_000
MAX_KEPT_CHARS: Final = 16_000_000
MAX_LINES: Final = 500

# These stand for every generation of a connection; the others may be one generation's own.
_OF_CONNECTION: Final = (ViduTransportError, ViduAuthError, ViduConfigError, ViduRateLimitError)


_Key = tuple[str, str, str | None]
"""Connection, id and endpoint: a DAG that names the wrong endpoint breaks only its own view."""


@dataclass(slots=True)
class _Kept:
    live: Live = NOT_ASKED
    good_until: float = 0.0
    wanted_at: float = 0.0
    chars: int = 0
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Line:
    """What is known of one connection: its free slots, and whether it answers at all."""

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_AT_ONCE))
    users: int = 0
    is_found: bool = False
    trust: asyncio.Task[Trust] | None = None
    trusted_until: float = 0.0
    error: ViduError | None = None
    failures: int = 0
    silent_until: float = 0.0
    is_tried: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether its last failure also answers the next query; one query at a time retries."""
        return self.error is not None and (self.is_tried or time.monotonic() < self.silent_until)

    def answered(self) -> None:
        """Note that the service answers."""
        self.error, self.failures = None, 0

    def failed(self, error: ViduError, conn_id: str) -> None:
        """Note a failure that applies to all generations of the connection for a while."""
        if self.error is None or self.error.reason != error.reason:
            shown = redacted(conn_id, 80)  # an XCom names it: perhaps by an address with a password
            log.warning("The clip pages cannot query the service of connection %r: %s", shown, error)
        pause = min(ERROR_SECONDS * 2 ** min(self.failures, 10), MAX_ERROR_SECONDS)
        pause = max(pause, min(error.retry_after or 0.0, DONE_SECONDS))
        self.error, self.failures, self.silent_until = error, self.failures + 1, time.monotonic() + pause


_Step = Callable[[_Kept, _Line, _Key], Awaitable[None]]


class LiveStates:
    """What the service said last about each generation, queried again when that is too old.

    Lives on one event loop. A thousand viewers of a clip cost one request every five seconds. A connection that is
    slow or silent delays its own clips alone, and after one failure its other clips are not queried, either.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._chars = 0
        self._strangers = asyncio.Semaphore(MAX_STRANGERS)
        self._shares = WeakValueDictionary[str, asyncio.Semaphore]()

    async def state(
        self,
        conn_id: str,
        generation_id: str,
        endpoint: str | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        of_dag: str = "",
    ) -> Live:
        """Return the generation or the error that the service has for it now, or seconds ago.

        :param conn_id: an Airflow connection; anything but one of type ``vidu`` is refused.
        :param generation_id: the id at Vidu.
        :param endpoint: where it was submitted, for products with a query of their own.
        :param patience: seconds after which the last known state is returned instead.
        :param of_dag: the DAG that names the connection.
        """
        key = (conn_id, generation_id, endpoint)
        kept = self._entry(key)
        kept.wanted_at = time.monotonic()
        if kept.wanted_at >= kept.good_until:
            line = self._line(conn_id)
            if kept.task is None and line.users < MAX_WAITING:
                line.users += 1  # here: the task begins later
                kept.task = asyncio.create_task(self._ask(kept, line, key, of_dag))
            if kept.task is not None:
                await asyncio.wait({kept.task}, timeout=patience)
        return kept.live

    async def trust(self, conn_id: str | None, *, patience: float = PATIENCE_SECONDS, of_dag: str = "") -> Trust:
        """Return what a connection vouches for; nothing where there is none, or none of type ``vidu``.

        :param patience: seconds after which nothing is returned instead.
        :param of_dag: the DAG that names it.
        """
        if conn_id is None:
            return NO_TRUST
        line = self._line(conn_id)
        if line.trust is None or (line.trust.done() and time.monotonic() >= line.trusted_until):
            line.users += 1
            line.trust = asyncio.create_task(self._look_up(line, conn_id, of_dag))
        done, _ = await asyncio.wait({line.trust}, timeout=patience)
        return line.trust.result() if done else NO_TRUST

    async def _look_up(self, line: _Line, conn_id: str, of_dag: str) -> Trust:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if not line.is_found:
                    async with self._share_of(of_dag), self._strangers:
                        await _check_type(conn_id)
                    line.is_found = True
                return await _trust_of(conn_id)
        except (ViduError, TimeoutError):
            log.debug("The connection could not be looked up.", exc_info=True)
            return NO_TRUST
        finally:
            line.users -= 1
            line.trusted_until = time.monotonic() + TRUST_SECONDS

    def seen(self, conn_id: str, generation_id: str, endpoint: str | None = None) -> Live:
        """Return when the generation was seen in its states, for a result that does not say; nothing is requested."""
        return self.known(conn_id, generation_id, endpoint).seen()

    def known(self, conn_id: str, generation_id: str, endpoint: str | None = None) -> Live:
        """Return what the service said last, however long ago; nothing is requested."""
        kept = self._kept.get((conn_id, generation_id, endpoint))
        return kept.live if kept else NOT_ASKED

    def _share_of(self, dag_id: str) -> asyncio.Semaphore:
        return self._shares.setdefault(dag_id, asyncio.Semaphore(1))

    def _entry(self, key: _Key) -> _Kept:
        kept = self._kept.setdefault(key, _Kept())
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT or (self._chars > MAX_KEPT_CHARS and len(self._kept) > 1):
            _, dropped = self._kept.popitem(last=False)
            self._chars -= dropped.chars
            dropped.chars = 0
        return kept

    def _line(self, conn_id: str) -> _Line:
        line = self._lines.setdefault(conn_id, _Line())
        self._lines.move_to_end(conn_id)
        if len(self._lines) > MAX_LINES:
            idle = [name for name, at in self._lines.items() if not at.users and at is not line]
            # Names that are not connections go first: there may be any number of them.
            idle.sort(key=lambda name: self._lines[name].is_found)
            for name in idle[: len(self._lines) - MAX_LINES]:
                del self._lines[name]
        return line

    async def _ask(self, kept: _Kept, line: _Line, key: _Key, of_dag: str) -> None:
        try:
            if not line.is_found:  # outside of the slots: those of another DAG may take the turn
                async with self._share_of(of_dag), self._strangers:
                    if not line.is_found:
                        await self._attempt(kept, line, key, _find)
            if line.is_found:
                async with line.slots:
                    await self._attempt(kept, line, key, _ask_service)
        finally:
            line.users -= 1
            kept.task = None
            if self._kept.get(key) is kept:
                self._chars += (chars := chars_of(kept.live.generation)) - kept.chars
                kept.chars = chars

    async def _attempt(self, kept: _Kept, line: _Line, key: _Key, step: _Step) -> None:
        """Take a step towards an answer, unless no page waits for it or the connection's last failure answers it."""
        if time.monotonic() - kept.wanted_at > WANTED_SECONDS:
            return
        if line.is_closed:
            kept.live = replace(kept.live, error=line.error)
            kept.good_until = max(line.silent_until, time.monotonic() + POLL_SECONDS)
            return
        line.is_tried = line.error is not None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await step(kept, line, key)
        except TimeoutError:
            self._failed(kept, line, key, ViduTransportError(NO_ANSWER, conn_id=key[0]))
        except Exception as error:  # the boundary: a page reports what went wrong and does not break
            log.debug("The service could not be queried.", exc_info=True)
            known = error if isinstance(error, ViduError) else ViduError(f"The page broke: {type(error).__name__}.")
            self._failed(kept, line, key, known.without_frames())
        finally:
            line.is_tried = False

    @staticmethod
    def _failed(kept: _Kept, line: _Line, key: _Key, error: ViduError) -> None:
        if isinstance(error, _OF_CONNECTION):
            line.failed(error, key[0])
        else:
            line.answered()
        kept.live = kept.live.failed(error, datetime.now(UTC))
        kept.good_until = time.monotonic() + _lifetime(kept.live)


async def _find(kept: _Kept, line: _Line, key: _Key) -> None:
    await _check_type(key[0])
    line.is_found = True


async def _ask_service(kept: _Kept, line: _Line, key: _Key) -> None:
    kept.live = await _asked(key, kept.live)
    line.answered()
    kept.good_until = time.monotonic() + _lifetime(kept.live)


async def _trust_of(conn_id: str) -> Trust:
    await _check_type(conn_id)
    config = await aresolve(conn_id)
    scheme, host, _ = config.origin
    return Trust(scheme == "http", (host, *config.allowed_hosts))


def _lifetime(live: Live) -> float:
    if live.error is not None:
        return max(ERROR_SECONDS, min(live.error.retry_after or 0.0, DONE_SECONDS))
    return DONE_SECONDS if live.generation and live.generation.is_done else POLL_SECONDS


async def _asked(key: _Key, before: Live) -> Live:
    from airflow_provider_vidu.api.clients.async_client import async_client
    from airflow_provider_vidu.api.ids import checked_id

    conn_id, generation_id, endpoint = key
    await _check_type(conn_id)
    async with async_client(conn_id) as client:
        generation = await client.get_generation(checked_id(generation_id), endpoint, retries=0)
    return before.answered(slim(generation), datetime.now(UTC))


async def _check_type(conn_id: str) -> None:
    """Refuse other connections: a DAG could name one whose password must not reach Vidu."""
    check_type(conn_id, await connection_type(conn_id))
