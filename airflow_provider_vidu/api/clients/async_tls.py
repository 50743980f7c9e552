"""TLS of the asynchronous client, the same on every event loop: read in small pieces, and few without data."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from asyncio.sslproto import SSLProtocol, SSLProtocolState, _SSLProtocolTransport
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

P = TypeVar("P", bound=asyncio.BaseProtocol)

_READ_BYTES: Final = 8 * 1024
_MOST_WITHOUT_DATA: Final = 128 * 1024
"""Bytes beyond those for data, per connection; OpenSSL takes certificates of 100 KiB."""
_BYTES_PER_BYTE: Final = 4
"""Bytes that one of data may take on top: in records of eight bytes, it takes four."""
_MOST_REPLIES: Final = 16 * 1024
"""Bytes that OpenSSL may write to answer what is read: an honest server asks for a new key now and then."""

_HANDSHAKE_SECONDS: Final = 0.02
"""How long the handshakes of all connections may compute between two turns of the loop, but for the last step."""


class _App(Protocol):
    received: int


class _Steps:
    """The steps of handshakes within a turn of an event loop.

    The server chooses what they cost: with ffdhe8192 (TLS 1.3) a seventh of a second, and those of a whole pool that
    became ready together held the loop for seconds.
    """

    _spent = 0.0

    def take(self, loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> bool:
        """Take a step, unless this turn's time is used up."""
        if self._spent > _HANDSHAKE_SECONDS:
            return False
        if not self._spent:
            loop.call_soon(self._begin_anew)
        began = time.perf_counter()
        step()
        self._spent += time.perf_counter() - began
        return True

    def _begin_anew(self) -> None:
        self._spent = 0.0


_steps: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Steps]] = WeakKeyDictionary()


class _Transport(_SSLProtocolTransport):
    """A connection as its user sees it."""

    def close(self) -> None:
        """Close it in order, once: asyncio's own forgets its TLS the second time, and any later call raises then."""
        if not self.is_closing():
            super().close()


class _Tls(SSLProtocol):
    """A connection's TLS.

    A gateway may send session tickets without end, and OpenSSL takes ten microseconds for one of 18 bytes: each of
    asyncio's reads of 256 KiB held the event loop for a tenth of a second and more, those of uvloop for seconds.
    """

    max_size = _READ_BYTES
    received = 0
    """How many bytes have arrived; over a proxy with TLS of its own, they are data of the TLS below."""
    _replies = 0
    _written = 0

    def buffer_updated(self, nbytes: int) -> None:
        """Take the next bytes, unless too many brought no data."""
        self.received += nbytes
        app = cast("_App", self._app_protocol)
        if self.received > _MOST_WITHOUT_DATA + _BYTES_PER_BYTE * app.received:
            self._transport.abort()  # type: ignore[union-attr]
            return
        super().buffer_updated(nbytes)
        if nbytes == _READ_BYTES:
            self._let_others_run()

    def _do_read__copied(self) -> None:
        self._with_few_replies(super()._do_read__copied)  # type: ignore[misc]  # not in typeshed

    def _do_read__buffered(self) -> None:  # what it reads is TLS again: this is the TLS of a proxy
        self._with_few_replies(super()._do_read__buffered)  # type: ignore[misc]  # not in typeshed

    def _with_few_replies(self, read: Callable[[], None]) -> None:
        """Read data, unless the server has too much to be answered.

        OpenSSL answers the four bytes of a HelloRequest with 31. A server that sent data with them, and read
        nothing, grew the queue of a connection by 15 MB a second.
        """
        before = self._written + self._outgoing.pending  # type: ignore[attr-defined]  # not in typeshed
        read()
        self._replies += self._written + self._outgoing.pending - before  # type: ignore[attr-defined]
        if self._replies > _MOST_REPLIES:
            self._transport.abort()  # type: ignore[union-attr]

    def _process_outgoing(self) -> None:
        if self._transport.is_closing():  # type: ignore[union-attr]
            if self._state is SSLProtocolState.DO_HANDSHAKE:  # type: ignore[attr-defined]  # not in typeshed
                self._on_handshake_complete(ConnectionResetError())
            return  # uvloop's transports raise a bare RuntimeError
        before = self._outgoing.pending  # type: ignore[attr-defined]  # not in typeshed
        super()._process_outgoing()  # type: ignore[misc]  # not in typeshed
        self._written += before - self._outgoing.pending  # type: ignore[attr-defined]

    def _get_app_transport(self) -> Any:
        if not self._app_transport_created:  # type: ignore[has-type]  # not in typeshed
            self._app_transport, self._app_transport_created = _Transport(self._loop, self), True
        return super()._get_app_transport()  # type: ignore[misc]

    def _do_flush(self) -> None:
        """Shut down after the server's end, unless its last bytes have ended the connection: asyncio raises then."""
        self._do_read()  # type: ignore[attr-defined]  # not in typeshed
        if self._state is not SSLProtocolState.UNWRAPPED:  # type: ignore[attr-defined]
            super()._do_flush()  # type: ignore[misc]

    def _abort(self, exc: BaseException | None = None) -> None:
        """Close the connection, also when the TLS within this one fails.

        Python 3.11 passes on that error and does not take it: each was a bare TypeError of the event loop, and a failed
        handshake behind a proxy with TLS was reported as one that is not supported.
        """
        self._set_state(SSLProtocolState.UNWRAPPED)  # type: ignore[attr-defined]  # not in typeshed
        if self._transport is not None:
            self._transport._force_close(exc)  # type: ignore[attr-defined]

    def _do_handshake(self) -> None:
        raw = cast("asyncio.Transport", self._transport)
        steps = _steps.setdefault(self._loop, _Steps())
        if not steps.take(self._loop, super()._do_handshake):  # type: ignore[misc]  # not in typeshed
            raw.pause_reading()  # also the end of the connection is read after what came before it
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        raw = cast("asyncio.Transport", self._transport)
        state: SSLProtocolState = self._state  # type: ignore[attr-defined]  # not in typeshed
        if raw is not None and state is SSLProtocolState.DO_HANDSHAKE and self._resumes(raw):
            self._do_handshake()

    def _resumes(self, raw: asyncio.Transport) -> bool:
        """Read again, unless the connection has ended.

        uvloop closes the connection of a cancelled call at once, which only this error tells.
        """
        if raw.is_closing():
            return False
        try:
            raw.resume_reading()
        except RuntimeError:
            self._abort()
            return False
        return True

    def _let_others_run(self) -> None:
        """Read on only after the other work of the loop: uvloop reads a socket up to 32 times before it does that."""
        raw = cast("asyncio.Transport", self._transport)
        if raw is None or raw.is_closing():
            return

        def read_on() -> None:
            is_held: bool = self._ssl_reading_paused  # type: ignore[attr-defined]  # not in typeshed
            if not is_held:
                self._resumes(raw)

        raw.pause_reading()
        self._loop.call_soon(read_on)


class LoopWithTls:
    """The event loop as aiohttp's connector uses it, with TLS of our own.

    uvloop, on which Airflow's API server runs, has one that cannot be limited.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self,
        factory: Callable[[], asyncio.Protocol],
        *args: Any,
        ssl: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        **options: Any,
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        """Connect a socket to a protocol, as asyncio does it."""
        if ssl is None:
            return await self._connected(factory, *args, **options)
        protocol, ready = factory(), self._loop.create_future()
        tls = _Tls(self._loop, protocol, ssl, ready, False, server_hostname)
        raw, _ = await self._connected(lambda: tls, *args, sock=options["sock"])
        return await _shaken(tls, raw, ready), protocol

    async def _connected(
        self, factory: Callable[[], P], *args: Any, sock: socket.socket, **options: Any
    ) -> tuple[asyncio.Transport, P]:
        try:
            return await self._loop.create_connection(factory, *args, sock=sock, **options)
        except (Exception, asyncio.CancelledError):
            # uvloop up to 0.22 has closed the descriptor (seen with 0.22.1): its number may be another file's by now,
            # so the socket must not close it again. Later ones have detached the socket.
            if type(self._loop).__module__.startswith("uvloop"):
                sock.detach()
            raise

    async def start_tls(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        server_hostname: str,
        **_: Any,
    ) -> asyncio.BaseTransport:
        """Begin TLS on a connection through a proxy, as asyncio does it."""
        ready = self._loop.create_future()
        tls = _Tls(self._loop, protocol, context, ready, False, server_hostname, call_connection_made=False)
        transport.pause_reading()  # nothing may arrive before the TLS knows its connection
        transport.set_protocol(tls)
        self._loop.call_soon(tls.connection_made, transport)
        self._loop.call_soon(transport.resume_reading)
        return await _shaken(tls, transport, ready)


async def _shaken(tls: _Tls, raw: asyncio.BaseTransport, ready: asyncio.Future[None]) -> asyncio.BaseTransport:
    """Return the transport after the handshake; raises OSError when the connection ends instead."""
    try:
        await ready
    except BaseException:  # also a cancel: a connection that was not handed over has no other owner
        cast("asyncio.Transport", raw).abort()
        raise
    transport: asyncio.BaseTransport | None = tls._app_transport
    if transport is None:
        raise ConnectionResetError("the server closed the connection during the TLS handshake")
    return transport
