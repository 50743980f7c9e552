"""The asynchronous client's connections: aiohttp makes them; what is sent and read on them is decided here.

A session of aiohttp prepares each request again, and parses an answer that was parsed before: half a poll's CPU time.
"""

from __future__ import annotations

import asyncio
import functools
import select
from collections import deque
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from airflow_provider_vidu.api.clients.async_names import resolver
from airflow_provider_vidu.api.clients.async_tls import LoopWithTls
from airflow_provider_vidu.api.clients.canonical import canonically
from airflow_provider_vidu.api.clients.request_template import RequestTemplate
from airflow_provider_vidu.api.messages import ApiRequest
from airflow_provider_vidu.network.addresses import few_of_each_family
from airflow_provider_vidu.network.framing import AnswerReader, FramingError, Head
from airflow_provider_vidu.network.limits import CHUNK_BYTES

KEEPALIVE_SECONDS: Final = 75.0
"""Longer than the usual poll interval, so that polls need no new handshakes."""
_READ_BYTES: Final = 8 * 1024
_MOST_ADDRESSES: Final = 4
"""Of each family. While none answers, aiohttp tries another one every quarter of a second, each with a socket of its
own until the timeout, and a DNS answer holds thousands."""
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be sent again after a kept connection broke (RFC 9110, 9.2.2)."""
_NO_ANSWER: Final = "the server closed it without an answer"


class _Protocol(ResponseHandler):
    """A connection: its exchange, or a proxy's answer to CONNECT, which is passed to aiohttp in its simplest form.

    aiohttp's own parser refuses heads that curl accepts, loses a whole answer to one byte after its end, and reads any
    number of interim answers at once: a gateway that sent nothing else blocked the event loop.
    """

    received = 0
    """How many bytes have arrived; those of TLS may be little more."""
    was_used = False
    """Whether an exchange has got this connection before."""
    exchange: Exchange | None = None
    """The exchange that it carries; None while it is kept."""
    early = b""
    """What arrived before the first request, and is taken for its answer. The server may still send one, which the next
    request would get: there is none."""
    idle_since = 0.0
    """When its last exchange ended, in the time of the loop."""
    _tunnel: AnswerReader | None = None
    _alarm: asyncio.TimerHandle | None = None
    _alarm_at = 0.0
    """Noted here: uvloop's handle of what is due at once has no ``when``."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Limit reads: one of 256 KiB may be full of tiny chunks, and 32 connections read in one turn of the loop."""
        if hasattr(transport, "max_size"):  # a plain socket's; TLS has its own
            transport.max_size = _READ_BYTES
        self._unread = select.poll()
        self._unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        super().connection_made(transport)

    def is_quiet(self) -> bool:
        """Whether it may carry another request: what the loop has not read yet, bytes or an end, belongs to none."""
        return self.is_connected() and not self._unread.poll(0)

    def data_received(self, data: bytes) -> None:
        """Handle bytes of an answer."""
        self.received += len(data)
        if self.exchange is not None:
            self.exchange.take(data)
        elif self._tunnel is not None:
            self._pass_on(self._tunnel, data)
        elif not self.was_used:
            self.early += data
        else:
            self.close()  # these bytes belong to no request

    def close(self) -> None:
        """Close the connection at once.

        Over TLS, a transport that is closed in order waits half a minute for the peer to do so as well: a gateway that
        did not would cost a socket per poll.
        """
        if self.transport is not None:
            self.transport.abort()
        super().close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End an answer that only the end of its connection delimits."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self.exchange is not None:
            self.exchange.end(exc)
        elif self._tunnel is not None:
            self._pass_on(self._tunnel, b"")
        super().connection_lost(exc)

    # -- time --------------------------------------------------------------------------------------

    def wake_at(self, when: float) -> None:
        """Have the time checked at ``when``, in the time of the loop, or before.

        An exchange sets no timer of its own: the one of an earlier exchange serves it, too.
        """
        if self._alarm is None or self._alarm_at > when:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm, self._alarm_at = self._loop.call_at(when, self._check_time), when

    def _check_time(self) -> None:
        self._alarm = None
        now = self._loop.time()
        when = self.idle_since + KEEPALIVE_SECONDS if self.exchange is None else self.exchange.check_time(now)
        if when > now:
            self.wake_at(when)
        else:
            self.close()

    # -- a tunnel, used by aiohttp -----------------------------------------------------------------

    def set_response_params(self, **options: Any) -> None:
        """Prepare for a proxy's answer to CONNECT."""
        self._tunnel = AnswerReader()
        super().set_response_params(**options)
        if self.early:
            self._pass_on(self._tunnel, self.early)

    def _pass_on(self, reader: AnswerReader, data: bytes) -> None:
        try:
            for piece in canonically(reader, data):
                super().data_received(piece)
        except FramingError as error:
            self.set_exception(aiohttp.ClientPayloadError(str(error)))
            if self.transport is not None:
                self.transport.abort()


class Exchange:
    """One request and its answer.

    :param total: seconds for all of it, including the way to a connection.
    """

    __slots__ = (
        "_awaited", "_connection", "_connector", "_error", "_heard_at", "_held", "_is_held", "_loop", "_patience",
        "_pieces", "_reader", "_template", "_transport", "_until", "was_sent",
    )  # fmt: skip

    def __init__(self, connector: Connector, template: RequestTemplate, total: float) -> None:
        self._connector = connector
        self._template = template
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + total
        self._connection: Connection | None = None
        self._awaited: asyncio.Future[None] | None = None
        self.was_sent = False
        """Whether its request was written, so that it may have arrived."""

    async def begin(self, request: ApiRequest) -> bytes:
        """Send a request and return the first bytes of its answer's body; they are empty if it has none.

        If the server has closed a kept connection, it is sent once more; a new connection that breaks is a failed
        request, which only the retry policy may repeat.

        :raises aiohttp.ClientError: when no answer came.
        :raises TimeoutError: when it took too long.
        """
        data = self._template.written(request)
        protocol = await self._connect()
        may_repeat = protocol.was_used and request.method in _REPEATABLE
        try:
            return await self._sent(protocol, data)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            if not may_repeat:
                raise
        self.close()
        return await self._sent(await self._connect(), data)

    async def _connect(self) -> _Protocol:
        template = self._template
        self._connection = self._connector.kept(template)
        if self._connection is None:
            try:
                async with asyncio.timeout_at(self._until):
                    self._connection = await self._connector.connect(template.request, [], template.limits)
            except TimeoutError as error:
                raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {template.request.url}") from error
        return cast("_Protocol", self._connection.protocol)

    async def _sent(self, protocol: _Protocol, data: bytes) -> bytes:
        self._reader = AnswerReader()
        if not protocol.is_connected():
            raise aiohttp.ServerDisconnectedError(_NO_ANSWER)
        self._transport = cast("asyncio.Transport", protocol.transport)
        self._pieces: deque[bytes] = deque()
        self._held, self._is_held = 0, False
        self._error: Exception | None = None
        self._patience, self._heard_at = self._template.timeout, self._loop.time()
        protocol.wake_at(min(self._heard_at + self._patience, self._until))
        protocol.exchange, protocol.was_used = self, True
        self._transport.write(data)
        self.was_sent = True
        if protocol.early:
            self.take(protocol.early)
        return await self.read()

    @property
    def head(self) -> Head:
        """The head of the answer, once :meth:`begin` has returned."""
        assert self._reader.head is not None
        return self._reader.head

    @property
    def has_ended(self) -> bool:
        """Whether all of the answer has been returned."""
        return self._reader.ended and not self._pieces and self._error is None

    async def read(self) -> bytes:
        """Return what has arrived of the body, waiting for at least one byte; empty at its end.

        :raises aiohttp.ClientError: when the answer is incomplete; what came before it is returned first.
        :raises TimeoutError: when it took too long.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._reader.ended:
                return b""
            self._awaited = self._loop.create_future()
            await self._awaited
        piece = self._pieces.popleft()
        self._held -= len(piece)
        if self._is_held and not self._pieces:
            self._is_held, self._heard_at = False, self._loop.time()
            if not self._transport.is_closing():  # asyncio's TLS raises a bare AttributeError then
                self._transport.resume_reading()
        return piece

    def close(self) -> None:
        """Give the connection back, to be kept if it may carry another exchange."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        protocol = cast("_Protocol", connection.protocol)
        protocol.exchange, protocol.idle_since = None, self._loop.time()
        if self._reader.keeps and not self._is_held and self._error is None and not protocol.early:
            protocol.wake_at(protocol.idle_since + KEEPALIVE_SECONDS)
            self._connector.keep(connection, self._template)
        else:
            connection.close()
        self._error = None  # its traceback holds this exchange, and the frames with what has arrived of the answer

    # -- called by the connection ------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Take the next bytes of the answer."""
        self._heard_at = self._loop.time()
        reader = self._reader
        try:
            body, failure = reader.feed(data), reader.failure
        except FramingError as error:
            body, failure = b"", str(error)
        if body:
            self._pieces.append(body)
            self._held += len(body)
            if self._held > CHUNK_BYTES and not self._is_held:
                self._is_held = True
                self._transport.pause_reading()
        if failure is not None:
            self._fail(aiohttp.ClientPayloadError(failure))
        elif body or reader.ended:
            self._wake()

    def end(self, exc: BaseException | None) -> None:
        """Take the end of the connection, which completes an answer that nothing else delimits."""
        if self._reader.ended:
            return
        try:
            self._reader.end()
        except FramingError as error:
            if isinstance(exc, OSError):
                self._fail(aiohttp.ClientOSError(*exc.args))
            elif self._reader.head is None:
                self._fail(aiohttp.ServerDisconnectedError(_NO_ANSWER))
            else:
                self._fail(aiohttp.ClientPayloadError(str(error)))
        else:
            self._wake()

    def check_time(self, now: float) -> float:
        """Fail if nothing has arrived for too long, or all of it has taken too long; return when to check again."""
        if self._reader.ended or self._error is not None:
            return now + self._patience
        silent_at = (now if self._is_held else self._heard_at) + self._patience
        if now >= self._until:
            self._fail(TimeoutError())
        elif now >= silent_at:
            self._fail(aiohttp.ServerTimeoutError("Timeout on reading data from socket"))
        return min(silent_at, self._until)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)


class Connector(aiohttp.TCPConnector):
    """Makes connections of our own kind, and keeps them for the next exchange.

    aiohttp counts a kept one as lent; it would look for it by its whole key, and set a timeout before.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(resolver=resolver(), **options)
        self._loop = cast("asyncio.AbstractEventLoop", LoopWithTls(self._loop))
        self._factory = functools.partial(_Protocol, loop=asyncio.get_running_loop())  # type: ignore[assignment]  # a subclass
        self._kept: list[Connection] = []
        self._kept_key: object = None
        self._keeps = True

    async def _resolve_host(self, *args: Any, **options: Any) -> Any:
        return few_of_each_family(await super()._resolve_host(*args, **options), _MOST_ADDRESSES)

    def kept(self, template: RequestTemplate) -> Connection | None:
        """Return a connection to the same server, or None if a new one is to be made."""
        if template.key != self._kept_key:
            self._close_kept()
            self._kept_key = template.key
        while self._kept:
            connection = self._kept.pop()
            if cast("_Protocol", connection.protocol).is_quiet():
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection, template: RequestTemplate) -> None:
        """Keep a connection for another exchange."""
        if self._keeps and template.key == self._kept_key:
            self._kept.append(connection)
        else:
            connection.close()

    def retire(self) -> None:
        """Keep no connection any longer; those in use are closed after their exchange."""
        self._keeps = False
        self._close_kept()

    def close(self, **options: Any) -> Any:
        """Close all connections."""
        self._keeps = False
        while self._kept:
            self._kept.pop().release()  # to aiohttp, which waits for what it closes
        # In a task, which Python 3.12 and later begin at once: on our loop, each close would be a bare RuntimeError.
        self._loop = asyncio.get_running_loop()
        return super().close(**options)

    def _close_kept(self) -> None:
        while self._kept:
            self._kept.pop().close()
