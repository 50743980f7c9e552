"""The synchronous client's connections: urllib3's, with one deadline per request and an account of what was sent.

A socket's time-out begins anew with every byte, so that a server (or a proxy) which trickles its status line, headers,
interim answers, chunk sizes or trailers would hold a worker for days.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from airflow_provider_vidu.network.addresses import system_resolver
from airflow_provider_vidu.network.connection import Response, TooSlowError, dial, limit_pieces
from airflow_provider_vidu.network.framing import AnswerReader, FramingError, Head

_SLICE_BYTES: Final = 64 * 1024


class Exchange:
    """One request on its way, and how long it may take from connecting to the last byte of its answer.

    :param timeout: seconds to connect, and seconds of silence that are tolerated.
    :param total: seconds for all of it.
    """

    def __init__(self, timeout: float, total: float) -> None:
        self.timeout = timeout
        self.until = time.monotonic() + total
        self.sent = False
        """Whether any of the request (not of what opens a tunnel) has been handed to the network."""
        self.reached = False
        """Whether the service itself was reached: what fails now, before anything is sent, is the TLS handshake."""
        self.is_spoiled = False
        """Whether the connection must not carry another answer."""

    @property
    def is_over(self) -> bool:
        """Whether the time has run out."""
        return time.monotonic() >= self.until

    def limit(self) -> float:
        """Return the most seconds that the next step may take.

        :raises TooSlowError: when the time has run out.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise TooSlowError("the time for the request is over")
        return min(left, self.timeout)


_current: ContextVar[Exchange] = ContextVar("vidu_exchange")


@contextlib.contextmanager
def running(exchange: Exchange) -> Iterator[Exchange]:
    """Let the connections of this thread keep to ``exchange`` meanwhile."""
    token = _current.set(exchange)
    try:
        yield exchange
    finally:
        _current.reset(token)


class _Answer(Response):
    """An answer that is read until the exchange's deadline, and understood by the reader that both clients share."""

    def __init__(self, sock: socket.socket, *args: Any, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.deadline.renew(_current.get().until - time.monotonic())
        self._exchange = _current.get()
        self._reader = AnswerReader()
        self._ready = b""
        self._has_begun = False

    def begin(self) -> None:
        """Read the head of the answer, and the interim ones before it.

        :raises FramingError: when it is none.
        """
        if self._has_begun:
            return
        head = self._head()
        self._has_begun = True
        self.status, self.code, self.reason, self.version = head.status, head.status, head.reason, 11
        # Nothing about the framing is among them: urllib3 would draw conclusions of its own.
        self.headers = self.msg = http.client.HTTPMessage()
        for name, value in head.fields.items():
            self.headers[name] = value
        self.chunked, self.chunk_left, self.length = False, None, None
        self.will_close = not head.keeps

    def _head(self) -> Head:
        while True:
            if (head := self._reader.head) is not None:
                return head
            self._ready = self._next()

    def read1(self, n: int = -1) -> bytes:
        """Return what has arrived of the body, waiting for at least a byte; nothing at its end.

        :param n: not followed: what has arrived is at most a buffer.
        :raises FramingError: when the answer is not complete.
        """
        while not self._ready and not self._reader.ended:
            self._ready = self._next()
        body, self._ready = self._ready, b""
        if not body and self.fp is not None:
            self._exchange.is_spoiled |= not self._reader.keeps
            self._close_conn()  # type: ignore[attr-defined]
        return body

    def read(self, amt: int | None = None) -> bytes:
        """Return the rest of the body."""
        return b"".join(iter(self.read1, b""))

    def _next(self) -> bytes:
        if (failure := self._reader.failure) is not None:
            raise failure
        data = self.fp.read1(_SLICE_BYTES)
        if data:
            return self._reader.feed(data)
        try:
            self._reader.end()
        except FramingError:
            if self._reader.head is None or self._has_begun:
                raise
        return b""


class _Deadlined(HTTPConnection):
    """Keeps to the exchange that is running, whatever the connection was made for."""

    debuglevel = 0  # whatever is set for all of http.client: it prints headers, and with them the key
    response_class = _Answer
    _is_connecting = False

    def connect(self) -> None:
        self._is_connecting = True
        try:
            super().connect()
        finally:
            self._is_connecting = False

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        exchange = _current.get()
        if not self._is_connecting:
            exchange.sent = True
        view = memoryview(data)
        for at in range(0, len(view), _SLICE_BYTES):
            # A peer that takes a large body byte by byte is no better than one that answers so.
            self.sock.settimeout(exchange.limit())
            super().send(view[at : at + _SLICE_BYTES])

    def _new_conn(self) -> socket.socket:
        try:
            sock = dial(system_resolver(self._dns_host, self.port), self.port, _current.get().limit)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error
        for option in self.socket_options or ():
            sock.setsockopt(*option)
        _current.get().reached = self.proxy is None
        return sock

    def _tunnel(self) -> None:
        super()._tunnel()
        exchange = _current.get()
        exchange.reached = True
        self.sock.settimeout(exchange.limit())  # for the handshake that follows


class _SecureDeadlined(_Deadlined, HTTPSConnection):
    """The same over TLS."""

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        encrypted = super()._connect_tls_proxy(hostname, sock)
        return limit_pieces(encrypted, lambda: _current.get().limit()) if self._tunnel_host else encrypted


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Deadlined


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureDeadlined


POOLS: Final[dict[str, type[HTTPConnectionPool]]] = {"http": _Pool, "https": _SecurePool}
"""The pools by scheme, for urllib3's pool managers."""
