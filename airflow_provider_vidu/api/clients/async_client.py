"""The asynchronous client: one bounded pool of sockets per event loop and connection.

All triggers of a triggerer share it: a thousand waits on one connection cost one look-up of that connection and a
handful of sockets. Its last user closes it. The decisions are elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import aiohttp
from airflow.providers.common.compat.sdk import conf

from airflow_provider_vidu.api.calls import Call
from airflow_provider_vidu.api.clients.async_connection import Connector, Exchange
from airflow_provider_vidu.api.clients.request_template import RequestTemplate
from airflow_provider_vidu.api.dialects import Dialect
from airflow_provider_vidu.api.dialects.task_list import Listing
from airflow_provider_vidu.api.messages import (
    TOO_LARGE,
    ApiAnswer,
    ApiRequest,
    TransportFailure,
    outlives_its_body,
    unasked_switch,
    unreadable,
)
from airflow_provider_vidu.api.session import Session
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.api.settings.connection import aresolve
from airflow_provider_vidu.api.shared_polls import SharedPolls
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import (
    ViduConfigError,
    ViduConnectionNotFoundError,
    ViduError,
    ViduResponseError,
    forgetting_variables,
)
from airflow_provider_vidu.models import NO_CANCEL, Cancellation, Generation, Snapshot
from airflow_provider_vidu.network.bodies import BodyError, IncomingBody, is_kept_whole
from airflow_provider_vidu.network.framing import SWITCHING_PROTOCOLS
from airflow_provider_vidu.network.limits import TOTAL_TIMEOUTS
from airflow_provider_vidu.network.proxies import login_headers, proxy_for, without_login
from airflow_provider_vidu.network.tls import ssl_context

log = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT_MAX_CONNECTIONS: Final = 32
CONFIG_AGE_SECONDS: Final = 300.0
"""A changed connection (host, key, proxy) is picked up after this time even if no request fails."""
REFRESH_PAUSE_SECONDS: Final = 5.0
"""After a refused key, every trigger looks the connection up again: while it is unchanged, at most this often."""


class AsyncClient:
    """Sends requests of one connection; made by :func:`async_client`, shared by its users.

    :param max_connections: how many sockets may be open at a time.
    """

    def __init__(self, conn_id: str, max_connections: int) -> None:
        self.conn_id = conn_id
        self.users = 0
        self._max_connections = max_connections
        self._slots = asyncio.Semaphore(max_connections)
        self._reading = asyncio.Lock()
        self._unpacking = asyncio.Lock()
        self._lock = asyncio.Lock()
        self._config: ViduConfig | None = None
        self._resolved_at = 0.0
        self._next_look_up = 0.0
        self._missing: tuple[float, str] = (0.0, "")
        # The sockets depend only on the trust; key, host and proxy are those of each request's template.
        self._connector_for: dict[bool | str, Connector] = {}
        self._connectors: list[Connector] = []
        self._trust: ssl.SSLContext | None = None
        self._template: RequestTemplate | None = None
        self._template_of: ViduConfig | None = None
        self.shared_polls = SharedPolls(self)
        """One request for the states of many waits."""

    @property
    def known_config(self) -> ViduConfig | None:
        """The connection as it was last looked up; None before the first time."""
        return self._config

    async def close(self) -> None:
        """Close all sockets, including those of earlier settings."""
        self.shared_polls.close()
        self._connector_for.clear()
        while self._connectors:
            await self._connectors.pop().close()

    async def carry(
        self, make: Callable[[Dialect], Call[T]], generation_id: str | None = None, retries: int | None = 0
    ) -> T:
        """Send a call, retry it as its session decides (see :class:`.Session` for the arguments), return its result.

        :raises ViduError: naming the generation and the connection.
        """
        session = Session(make, retries, generation_id, self.conn_id)
        sent_at = 0.0
        while True:
            try:
                refused = session.refused
                config = await (self.config() if refused is None else self._after_refusal(refused, sent_at))
                call = session.call(config)
                sent_at = asyncio.get_running_loop().time()
                return await self._result(config, call.request, call.read)
            except ViduError as error:
                delay = session.after(error)
                if delay:
                    log.warning("Trying again in %.1f s: %s", delay, error)
            await asyncio.sleep(delay)

    async def get_generation(
        self, generation_id: str, endpoint: str | None = None, retries: int | None = 0
    ) -> Generation:
        """Return the state of a generation; the arguments are those of :meth:`.ViduHook.get_generation`.

        :raises ViduError: when the answer is an error, is unusable, or does not arrive.
        """
        return await self.carry(lambda dialect: dialect.query(generation_id, endpoint), generation_id, retries)

    async def poll(self, generation_id: str, endpoint: str | None = None) -> Generation | Snapshot:
        """Return the state of a generation, with the rest of the answer only if it has ended; sent once.

        :raises ViduError: when the answer is an error, is unusable, or does not arrive.
        """
        return await self.carry(lambda dialect: dialect.poll(generation_id, endpoint), generation_id)

    async def cancel_generation(self, generation_id: str, endpoint: str | None = None) -> Cancellation:
        """Cancel a generation, with one request; a refusal is returned, not raised.

        :param endpoint: where it was submitted, for products that cannot be cancelled.
        :raises ViduError: when the request failed.
        """
        if not (await self.config()).dialect.can_cancel(endpoint):
            return NO_CANCEL
        return await self.carry(lambda dialect: dialect.cancel(generation_id, endpoint), generation_id)

    async def list_generations(self, listing: Listing | None = None) -> list[Generation]:
        """Read the account's list of generations, page by page.

        :param listing: the filters and limits; if omitted, everything that the list shows.
        :raises ViduConfigError: when the connection's dialect has no list.
        :raises ViduError: when the list could not be read.
        """
        walk = listing or Listing()
        while (query := walk.query) is not None:
            try:
                # mypy infers no type for a lambda with a default.
                walk.take(await self.carry(lambda dialect, query=query: dialect.search(query)))  # type: ignore[misc]
            except ViduResponseError as error:
                if error.code != TOO_LARGE or not walk.shrink():
                    raise
        return walk.generations

    async def config(self) -> ViduConfig:
        """Return the connection, looked up once for all users and again after five minutes.

        :raises ViduError: when it cannot be looked up or is invalid.
        """
        now = asyncio.get_running_loop().time()
        if self._config is not None and now - self._resolved_at < CONFIG_AGE_SECONDS:
            return self._config
        async with self._lock:
            if self._config is None or self._resolved_at <= now - CONFIG_AGE_SECONDS:
                return await self._look_up()
            return self._config

    async def _after_refusal(self, refused: ViduConfig, sent_at: float) -> ViduConfig:
        """Return the connection as looked up after ``sent_at``, when the refused request was sent.

        An older look-up proves nothing: the key may have been rotated since. A look-up without a change delays the
        next one, so that a thousand waits with a revoked key do not flood Airflow.
        """
        async with self._lock:
            if self._config is None or (self._config == refused and self._resolved_at < sent_at):
                await asyncio.sleep(self._next_look_up - asyncio.get_running_loop().time())
                config = await self._look_up()
                if config == refused:
                    self._next_look_up = self._resolved_at + REFRESH_PAUSE_SECONDS
                return config
            return self._config

    async def _look_up(self) -> ViduConfig:
        now = asyncio.get_running_loop().time()
        until, reason = self._missing
        if now < until:  # a thousand waits that pause for a removed connection look it up once
            raise ViduConnectionNotFoundError(reason, conn_id=self.conn_id)
        try:
            config = await aresolve(self.conn_id)
            # Other calls run meanwhile, so the old settings stay until the new ones are complete. CA bundles are read
            # off the loop; a replaced bundle gives another context.
            trust = await asyncio.to_thread(ssl_context, config.verify)
        except ViduError as error:
            # A typo that is fixed a minute later must not end every wait: the known connection is used as long as the
            # service accepts it. The key of a removed connection is not used: the waits pause.
            if isinstance(error, ViduConnectionNotFoundError):
                self._missing = (now + REFRESH_PAUSE_SECONDS, error.reason)
                raise
            if self._config is None:
                raise
            log.warning("Keeping the known connection %r: %s", self.conn_id, error)
            self._resolved_at = now
            return self._config
        if trust is not self._trust or config.verify not in self._connector_for:
            self._open(config.verify, trust)
        self._config, self._resolved_at = config, now
        return config

    def _open(self, verify: bool | str, context: ssl.SSLContext) -> None:
        self._trust = context
        # Earlier ones stay for requests in progress or waiting for a slot; they are closed with the client.
        for earlier in self._connectors:
            earlier.retire()
        connector = self._connector_for[verify] = Connector(limit=self._max_connections, ssl=context, ttl_dns_cache=60)
        self._connectors.append(connector)

    async def _result(self, config: ViduConfig, request: ApiRequest, read: Callable[[ApiAnswer], T]) -> T:
        """Send one request, once, and return what ``read`` makes of its answer; redirects are not followed.

        A large answer is read in a thread, because every trigger shares the event loop: one at a time, because threads
        compete with the loop. It keeps its slot meanwhile, or answers would pile up in memory.
        """
        # The slot is acquired outside the timeout: waiting for it is not the server's silence.
        async with self._slots:
            with forgetting_variables():  # of a cancel
                outcome = await self._limited(config, request)
            if isinstance(outcome, ApiAnswer) and outcome.is_large:
                async with self._reading:
                    reader = _readers[len(outcome.body) > _HUGE_BYTES]
                    return await asyncio.get_running_loop().run_in_executor(reader, read, outcome)
        if isinstance(outcome, ViduError):
            # Raised outside of any handler: the library's errors hold the request with its headers, including the key.
            raise outcome
        return read(outcome)

    async def _limited(self, config: ViduConfig, request: ApiRequest) -> ApiAnswer | ViduError:
        connector = self._connector_for.get(config.verify)
        if connector is None:
            raise RuntimeError("The client was closed while it was in use.")
        exchange = None
        try:
            exchange = Exchange(connector, self._template_for(config), TOTAL_TIMEOUTS * config.timeout)
            return await self._exchanged(exchange, config, request)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            was_sent = exchange is not None and exchange.was_sent
            return config.no_answer(_loss(error, config, was_sent=was_sent), _reason(error))
        finally:
            if exchange is not None:
                exchange.close()

    async def _exchanged(self, exchange: Exchange, config: ViduConfig, request: ApiRequest) -> ApiAnswer | ViduError:
        chunk = await exchange.begin(request)
        head = exchange.head
        if head.status == SWITCHING_PROTOCOLS:
            return unasked_switch()
        bounds = request.bounds
        if exchange.has_ended and is_kept_whole(chunk):
            return config.answer(head.status, head.fields.items(), chunk, bounds.values)
        body = IncomingBody(head.fields.get("content-encoding", ""), bounds)
        lost: ViduError | None = None
        try:
            while chunk:
                for portion in body.portions(chunk):
                    if not body.is_packed:
                        body.feed(portion)
                        continue
                    async with self._unpacking:  # one portion among all answers per turn of the loop
                        body.feed(portion)
                        await asyncio.sleep(0)
                chunk = await exchange.read()
            body.end()
        except BodyError as error:
            lost = unreadable(error, head.status)
            if not outlives_its_body(head.status):
                return lost
        return config.answer(head.status, head.fields.items(), body.content, bounds.values, lost)

    def _template_for(self, config: ViduConfig) -> RequestTemplate:
        """Return where a connection's requests go, computed once."""
        if self._template is None or self._template_of is not config:
            proxy = proxy_for(config.base_url, config.proxy)
            login = login_headers(proxy) if proxy else {}
            is_tunnelled = config.origin[0] == "https"
            self._template = RequestTemplate(
                config.base_url,
                config.request_headers() | ({} if is_tunnelled else login),
                without_login(proxy) if proxy else None,
                login if is_tunnelled else {},
                config.timeout,
            )
            self._template_of = config
        return self._template


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AsyncClient]] = WeakKeyDictionary()


class async_client:  # noqa: N801 - used as a function, a class because a generator per waiting trigger is heavier
    """Provide the client that all users of ``conn_id`` on this event loop share.

    :param max_connections: how many sockets may be open; if omitted, ``[vidu] max_connections`` (32). The first user's
        number applies.
    """

    __slots__ = ("_client", "_clients", "_conn_id", "_max_connections")

    def __init__(self, conn_id: str, max_connections: int | None = None) -> None:
        self._conn_id = conn_id
        self._max_connections = max_connections

    async def __aenter__(self) -> AsyncClient:
        self._clients = _clients.setdefault(asyncio.get_running_loop(), {})
        client = self._clients.get(self._conn_id)
        if client is None:
            limit = _configured_sockets() if self._max_connections is None else self._max_connections
            client = self._clients[self._conn_id] = AsyncClient(self._conn_id, limit)
        client.users += 1
        self._client = client
        return client

    async def __aexit__(self, *_: object) -> None:
        client = self._client
        client.users -= 1
        if client.users == 0:
            self._clients.pop(self._conn_id, None)
            # A cancelled trigger must not leave sockets open, so closing is not cancelled with it.
            await asyncio.shield(client.close())


_HUGE_BYTES: Final = 1024 * 1024
"""Ordinary pages of the account's list are smaller."""
_readers: Final = [ThreadPoolExecutor(1, thread_name_prefix="vidu-read") for _ in ("large", "huge")]
"""Not the loop's own threads, which resolve names for every trigger: a gateway that answers each poll with megabytes
would occupy them. Huge answers have a thread of their own: a page of another connection waited for 40 seconds."""


def _configured_sockets() -> int:
    value = conf.get("vidu", "max_connections", fallback=str(DEFAULT_MAX_CONNECTIONS)) or ""
    if not re.fullmatch(r"\s*[0-9]{1,6}\s*", value) or not int(value):
        raise ViduConfigError(
            f"[vidu] max_connections in Airflow's configuration must be a whole number above 0, not "
            f"{redacted(value, 40)}."
        )
    return int(value)


def _reason(error: Any) -> str:
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    return str(inner) or type(inner).__name__


def _loss(error: Exception, config: ViduConfig, *, was_sent: bool) -> TransportFailure:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return TransportFailure.UNTRUSTED
    if not was_sent or isinstance(error, aiohttp.InvalidURL):
        if isinstance(error, TimeoutError):
            return TransportFailure.UNREACHED
        failed_handshake = config.origin[0] == "https" and _is_handshake_failure(error)
        return TransportFailure.NO_TLS if failed_handshake else TransportFailure.UNMADE
    if isinstance(error, aiohttp.ServerTimeoutError):
        return TransportFailure.SILENT
    return TransportFailure.SLOW if isinstance(error, TimeoutError) else TransportFailure.BROKEN


def _is_handshake_failure(error: Exception) -> bool:
    """Whether the peer was reached, but the TLS handshake failed."""
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return False
    cause = getattr(error, "os_error", error)
    return isinstance(cause, (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError))
