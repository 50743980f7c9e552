"""The asynchronous shell: one bounded ``aiohttp`` session per event loop and connection.

All triggers of a triggerer share it: a thousand waits on one connection cost one look-up of that
connection and a handful of sockets. The last user to leave closes it. It carries requests and
decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import aiohttp
from airflow.providers.common.compat.sdk import conf
from yarl import URL

from airflow_provider_vidu.config import ViduConfig
from airflow_provider_vidu.connection import aresolve
from airflow_provider_vidu.exceptions import ViduAuthError, ViduError, ViduResponseError, ViduTransportError
from airflow_provider_vidu.models import NO_CANCEL, Cancellation, Generation
from airflow_provider_vidu.proxies import proxy_for
from airflow_provider_vidu.tls import ssl_context
from airflow_provider_vidu.wire import CHUNK_BYTES, MAX_BODY_BYTES, TOTAL_TIMEOUTS, ApiAnswer, ApiRequest

log = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT_MAX_CONNECTIONS: Final = 32
KEEPALIVE_SECONDS: Final = 75.0
"""Idle connections outlive the usual poll interval, so that polls need no new handshakes."""
CONFIG_AGE_SECONDS: Final = 300.0
"""After this time a changed connection (host, key, proxy) is noticed even while all goes well."""
REFRESH_PAUSE_SECONDS: Final = 5.0
"""A refused key makes every trigger ask for the connection anew: one look-up answers them all."""


class AsyncClient:
    """Sends requests of one connection; made by :func:`async_client`, shared by its users.

    :param conn_id: the Airflow connection.
    :param max_connections: the most sockets open at a time.
    """

    def __init__(self, conn_id: str, max_connections: int) -> None:
        self.conn_id = conn_id
        self.users = 0
        self._max_connections = max_connections
        self._slots = asyncio.Semaphore(max_connections)
        self._lock = asyncio.Lock()
        self._config: ViduConfig | None = None
        self._resolved_at = 0.0
        self._session: aiohttp.ClientSession | None = None
        self._sessions: list[aiohttp.ClientSession] = []

    async def close(self) -> None:
        """Close the session and its sockets, and those of settings that no longer hold."""
        self._session = None
        while self._sessions:
            await self._sessions.pop().close()

    async def get_generation(self, generation_id: str) -> Generation:
        """Ask once for a generation.

        :raises ViduError: whatever the answer, or its absence, stands for.
        """

        async def ask(config: ViduConfig) -> Generation:
            answer = await self.send(config, config.dialect.query(generation_id))
            return config.dialect.read_generation(generation_id, answer)

        return await self._with_current_key(ask, generation_id)

    async def cancel_generation(self, generation_id: str) -> Cancellation:
        """Ask once to cancel a generation; a refusal is told, not raised.

        :raises ViduError: when the service could not be asked.
        """

        async def ask(config: ViduConfig) -> Cancellation:
            request = config.dialect.cancel(generation_id)
            if request is None:
                return NO_CANCEL
            return config.dialect.read_cancel(await self.send(config, request))

        return await self._with_current_key(ask, generation_id)

    async def _with_current_key(self, ask: Callable[[ViduConfig], Awaitable[T]], generation_id: str) -> T:
        """Try a refused request again when the connection has got another key meanwhile."""
        try:
            config = await self.config()
            try:
                return await ask(config)
            except ViduAuthError:
                renewed = await self._refresh(config)
                if renewed == config:
                    raise
                return await ask(renewed)
        except ViduError as error:
            raise error.located(generation_id=generation_id, conn_id=self.conn_id) from None

    async def config(self) -> ViduConfig:
        """Return the connection, looked up once for all users and again after five minutes.

        :raises ViduError: when it cannot be looked up or is wrong.
        """
        now = asyncio.get_running_loop().time()
        if self._config is not None and now - self._resolved_at < CONFIG_AGE_SECONDS:
            return self._config
        return await self._refresh(self._config)

    async def _refresh(self, seen: ViduConfig | None) -> ViduConfig:
        """Look the connection up anew unless another user has just done it."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            fresh = now - self._resolved_at < REFRESH_PAUSE_SECONDS
            if self._config is not None and (fresh or self._config != seen):
                return self._config
            try:
                found = await aresolve(self.conn_id)
            except ViduError as error:
                if self._config is None or not error.retryable:
                    raise
                log.warning("Keeping the known connection %r: %s", self.conn_id, error)
                found = self._config
            self._resolved_at = now
            await self._adopt(found)
            return found

    async def _adopt(self, config: ViduConfig) -> None:
        # Only the trust lives in the session; key, host and proxy are read for each request.
        if self._config is not None and self._config.verify != config.verify:
            self._session = None  # the old one is still in use; it is closed with the client
        if self._session is None:
            # Loading the CA bundles reads files: not on the loop.
            context = await asyncio.to_thread(ssl_context, config.verify)
            connector = aiohttp.TCPConnector(
                limit=self._max_connections, ssl=context, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=60
            )
            # No .netrc and no cookies: what is sent is decided by this package alone.
            self._session = aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
            self._sessions.append(self._session)
        self._config = config

    async def send(self, config: ViduConfig, request: ApiRequest) -> ApiAnswer:
        """Send one request, once, and return the whole answer; redirects are not followed.

        :raises ViduTransportError: when no answer came; ``sent`` tells whether it may have arrived.
        :raises ViduResponseError: when the answer is larger than 4 MiB.
        """
        # The slot is taken outside the time limit: waiting for one's turn is not the server's silence.
        async with self._slots:
            try:
                async with asyncio.timeout(TOTAL_TIMEOUTS * config.timeout):
                    return await self._exchange(config, request)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                raise _transport_error(config, error) from None

    async def _exchange(self, config: ViduConfig, request: ApiRequest) -> ApiAnswer:
        if self._session is None:
            raise RuntimeError("The client was closed while it was in use.")
        url = config.url(request)
        async with self._session.request(
            request.method,
            URL(url, encoded=True),
            headers=config.request_headers(),
            json=request.body,
            allow_redirects=False,
            proxy=proxy_for(url, config.proxy),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.timeout, sock_read=config.timeout),
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    response.close()
                    raise ViduResponseError(
                        f"The answer is larger than {MAX_BODY_BYTES} bytes.", status_code=response.status
                    )
            return config.answer(response.status, response.headers.items(), bytes(body))


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AsyncClient]] = WeakKeyDictionary()


@asynccontextmanager
async def async_client(conn_id: str, max_connections: int | None = None) -> AsyncIterator[AsyncClient]:
    """Lend the client that all users of ``conn_id`` on this event loop share.

    :param conn_id: the Airflow connection.
    :param max_connections: the most sockets; ``[vidu] max_connections`` (32) where left out. The first
        user's number counts.
    """
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    client = clients.get(conn_id)
    if client is None:
        limit = max_connections or conf.getint("vidu", "max_connections", fallback=DEFAULT_MAX_CONNECTIONS)
        client = clients[conn_id] = AsyncClient(conn_id, limit)
    client.users += 1
    try:
        yield client
    finally:
        client.users -= 1
        if client.users == 0:
            clients.pop(conn_id, None)
            # A cancelled trigger must not leave sockets behind, so the closing is not cancelled with it.
            await asyncio.shield(client.close())


def _transport_error(config: ViduConfig, error: Exception) -> ViduError:
    scheme, host, port = config.origin
    sent = not isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL))
    what = "broke" if sent else "could not be made"
    if isinstance(error, TimeoutError):
        what = f"{'was silent' if sent else 'could not be made'} for {config.timeout:g} s"
    reason = config.scrub(_reason(error))
    return ViduTransportError(
        f"The connection to {scheme}://{host}:{port} {what}: {reason}", conn_id=config.conn_id, sent=sent
    )


def _reason(error: Any) -> str:
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    return str(inner) or type(inner).__name__
