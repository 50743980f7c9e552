"""The synchronous client's connections: urllib3's, with one deadline per request and a record of what was sent.

A socket's timeout restarts with every byte, so a server or proxy that trickles its status line, headers, interim
answers, chunk sizes or trailers would block a worker for days.
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
from airflow_provider_vidu.network.framing import AnswerReader, FramingError

_SLICE_BYTES: Final = 64 * 1024


class Exchange:
    """One request in progress, with its deadline for everything from connecting to the last byte of its answer.

    :param timeout: seconds to connect, and seconds without a byte, before it fails.
    :param total: seconds for all of it.
    """

    def __init__(self, timeout: float, total: float) -> None:
        self.timeout = timeout
        self.until = time.monotonic() + total
        self.sent = False
        """Whether any byte of the request (not of a tunnel's) was written to the socket."""
        self.reached = False
        """Whether the service itself was reached: a failure before anything is sent is then the TLS handshake's."""
        self.is_spoiled = False
        """Whether the connection must not carry another answer."""

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self.until

    def limit(self) -> float:
        """Return how many seconds the next step may take at most; raises TooSlowError after the deadline."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TooSlowError("the request timed out")
        return min(left, self.timeout)


_current: ContextVar[Exchange] = ContextVar("vidu_exchange")


@contextlib.contextmanager
def running(exchange: Exchange) -> Iterator[Exchange]:
    """Make ``exchange`` the one whose deadline this thread's connections observe."""
    token = _current.set(exchange)
    try:
        yield exchange
    finally:
        _current.reset(token)


class _Answer(Response):
    """An answer that is read until the exchange's deadline, and parsed by the reader that both clients share."""

    def __init__(self, sock: socket.socket, *args: Any, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.deadline.renew(_current.get().until - time.monotonic())
        self._exchange = _current.get()
        self._reader = AnswerReader()
        self._ready = b""
        self._has_begun = False

    def begin(self) -> None:
        """Read the head of the answer, and any interim ones before it.

        :raises FramingError: when it is malformed.
        """
        if self._has_begun:
            return
        while (head := self._reader.head) is None:
            self._ready = self._next()
        self._has_begun = True
        self.status, self.code, self.reason, self.version = head.status, head.status, head.reason, 11
        # Without those of the framing, which urllib3 would act on.
        self.headers = self.msg = http.client.HTTPMessage()
        for name, value in head.fields.items():
            self.headers[name] = value
        self.chunked, self.chunk_left, self.length = False, None, None
        self.will_close = not head.keeps

    def read1(self, n: int = -1) -> bytes:
        """Return what has arrived of the body, waiting for at least one byte; empty at its end.

        :param n: ignored: at most one buffer is returned.
        :raises FramingError: when the answer is incomplete.
        """
        while not self._ready and not self._reader.ended:
            self._ready = self._next()
        body, self._ready = self._ready, b""
        if not body and self.fp is not None:
            self._exchange.is_spoiled |= not self._reader.keeps
            self._close_conn()  # type: ignore[attr-defined]  # not in typeshed
        return body

    def read(self, amt: int | None = None) -> bytes:
        """Return the rest of the body."""
        return b"".join(iter(self.read1, b""))

    def _next(self) -> bytes:
        if self._reader.failure is not None:
            raise FramingError(self._reader.failure)
        data = self.fp.read1(_SLICE_BYTES)
        if data:
            return self._reader.feed(data)
        try:
            self._reader.end()
        except FramingError:
            if self._reader.head is None or self._has_begun:
                raise
        return b""


def _address(self: Any) -> str:
    """Return what urllib3's errors begin with, and users read: otherwise a class of this module."""
    return f"{self.host}:{self.port}"


class _Deadlined(HTTPConnection):
    """A connection that observes the deadline of the running exchange."""

    debuglevel = 0  # overrides http.client's, which would print the headers and so the key
    response_class = _Answer
    __str__ = _address
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
            # A peer may also accept a large body byte by byte.
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
    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        encrypted = super()._connect_tls_proxy(hostname, sock)
        return limit_pieces(encrypted, lambda: _current.get().limit()) if self._tunnel_host else encrypted


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Deadlined
    __str__ = _address


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureDeadlined
    __str__ = _address


POOLS: Final[dict[str, type[HTTPConnectionPool]]] = {"http": _Pool, "https": _SecurePool}
"""The pools by scheme, for urllib3's pool managers."""
