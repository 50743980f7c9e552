"""A connection to a checked address, or through a proxy, read with a deadline.

Built on ``http.client`` for three reasons: the request target is sent byte for byte as it was signed; the address is
checked and connected to in one step, so no second DNS answer can slip in between; and bodies are read into one reused
buffer.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.network.addresses import permitted_addresses
from airflow_provider_vidu.network.download_url import DownloadAccess, DownloadURL
from airflow_provider_vidu.network.framing import MOST_INTERIM, SWITCHING_PROTOCOLS
from airflow_provider_vidu.network.limits import DEFAULT_TIMEOUT, SLOW_TIMEOUTS
from airflow_provider_vidu.network.proxies import login_headers, proxy_for
from airflow_provider_vidu.network.tls import ssl_context

MOST_HEADERS: Final = 100
_MOST_LINE: Final = 64 * 1024
"""The limits of ``http.client``."""
_LAST_LOOK_SECONDS: Final = 1.0
_MOST_REASON_CHARS: Final = 80
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header (RFC 9110, 5.1)."""


class TooSlowError(TimeoutError):
    """Bytes arrive, but too slowly."""


class DeadlineReader(io.RawIOBase):
    """The reading end of a socket, with a deadline.

    A socket's own timeout restarts with every byte: a server that trickles its headers could hold a worker for days.
    """

    def __init__(self, raw: Any, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._silence: float = sock.gettimeout() or DEFAULT_TIMEOUT
        self._until: float
        self.renew(SLOW_TIMEOUTS * self._silence)

    def renew(self, seconds: float) -> None:
        """Set the deadline for all following reads to ``seconds`` from now."""
        self._until = time.monotonic() + seconds
        self._waits = True
        self._heard = False

    def end(self) -> None:
        """Stop waiting: return only what has already arrived. TLS messages without data may arrive without end."""
        self.renew(_LAST_LOOK_SECONDS)
        self._waits = False

    def limit(self) -> float:
        """Return the seconds that the next read may wait; raises TooSlowError after the deadline."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TooSlowError
        return min(left, self._silence) if self._waits else 0.0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read the next bytes; raises TimeoutError after silence or after the deadline."""
        self._sock.settimeout(self.limit())
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            raise (TooSlowError if self._heard else TimeoutError) from None
        self._heard = True
        return count

    def close(self) -> None:
        """Release the socket."""
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """An answer read with a :class:`DeadlineReader`, more tolerant of odd heads than ``http.client``.

    ``http.client`` would miss a 200 after an interim answer, or the end of a body: a paid result would be lost, or a
    truncated file accepted.
    """

    def __init__(self, sock: socket.socket, *args: Any, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.deadline = DeadlineReader(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self.deadline)

    def _read_status(self) -> tuple[str, int, str]:
        # http.client skips only 100, but any interim answer may arrive unrequested (RFC 9110, 15.2).
        for _ in range(MOST_INTERIM + 1):
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # not in typeshed
            if line[1] == SWITCHING_PROTOCOLS or line[1] >= 200:
                # Some proxies write the version of the connection behind them ("HTTP/2 200"), as both API clients read.
                is_later = re.fullmatch(r"HTTP/[2-9](?:\.[0-9])?", line[0]) is not None
                return ("HTTP/1.1", *line[1:]) if is_later else line
            _read_headers(self.fp)
        raise http.client.HTTPException(f"more than {MOST_INTERIM} interim answers (1xx) arrived, but no final one")

    def begin(self) -> None:
        """Read the head of the answer; raises ``http.client.HTTPException`` when it is not HTTP."""
        version, self.status, reason = self._read_status()
        if not version.startswith("HTTP/1.") and version != "HTTP/0.9":
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version in ("HTTP/0.9", "HTTP/1.0") else 11
        self.code, self.reason = self.status, reason.strip()
        self.headers = self.msg = _read_headers(self.fp)
        self.chunked, self.chunk_left = self.headers.get("transfer-encoding", "").lower() == "chunked", None
        lengths = {part.strip() for value in self.headers.get_all("content-length", ()) for part in value.split(",")}
        is_clear = len(lengths) == 1 and re.fullmatch("[0-9]{1,19}", next(iter(lengths))) is not None
        self.length = int(lengths.pop()) if is_clear and not self.chunked else None
        if self.status in (SWITCHING_PROTOCOLS, 204, 304):
            self.length = 0
        is_delimited = self.chunked or self.length is not None
        self.will_close = not is_delimited or self._check_close()  # type: ignore[attr-defined]  # not in typeshed

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]  # not in typeshed
        if size < 0:
            # http.client would read everything that comes into memory at -1, and raise a bare error at other sizes.
            raise ValueError  # the answer ends here, as with any other line that is no size
        return size


def _read_headers(lines: io.BufferedIOBase) -> http.client.HTTPMessage:
    """Read the headers up to the empty line after them, without lines that are none.

    ``http.client`` reads them as those of an e-mail, which no deadline interrupts. It ends a line at each carriage
    return, and looks for the boundary of a multipart in quadratic time: a head of 120 kB took ten seconds, one of a
    hundred such lines hours, and some boundaries were a bare ``ValueError``.
    """
    headers = http.client.HTTPMessage()
    name, value = "", ""
    for _ in range(MOST_HEADERS):
        line = lines.readline(_MOST_LINE + 1)
        if len(line) > _MOST_LINE:
            raise http.client.LineTooLong("header line")
        text = line.decode("latin-1").rstrip("\r\n").replace("\r", " ")  # RFC 9112, 2.2
        if text.startswith((" ", "\t")):
            value += text
            continue
        if _NAME.fullmatch(name):
            headers[name] = value.strip(" \t")  # not the last byte of an "à" in UTF-8, which Latin-1 calls a blank
        if line in (b"\r\n", b"\n", b""):
            return headers
        name, colon, value = text.partition(":")
        name = name.strip() if colon else ""
    raise http.client.HTTPException(f"got more than {MOST_HEADERS} headers")


def dial(addresses: Iterable[str], port: int, limit: Callable[[], float]) -> socket.socket:
    """Connect to the first address that accepts.

    :param addresses: literal addresses, in the order to try.
    :param limit: returns the seconds that the next attempt may take.
    :raises OSError: the last failure, when every address failed.
    """
    failure: OSError = OSError("the host has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), limit())
        except TooSlowError:
            raise
        except OSError as error:
            failure = error
    raise failure


def limit_pieces(sock: ssl.SSLSocket, limit: Callable[[], float]) -> ssl.SSLSocket:
    """Limit the wait for each piece read from ``sock``, and return ``sock``.

    TLS within TLS assembles a record from many reads, each with the socket's full timeout.
    """
    receive = sock.recv

    def recv(*args: Any) -> bytes:
        sock.settimeout(limit())
        return receive(*args)

    sock.recv = recv  # type: ignore[method-assign, assignment]  # one argument fewer
    return sock


class Connection(http.client.HTTPConnection):
    """Connects to a checked address, or through a proxy.

    :param opened: called with every socket opened, so that the caller can always close it.
    """

    debuglevel = 0  # overrides a value set on http.client's class: debug output prints headers, including the key

    def __init__(self, target: DownloadURL, access: DownloadAccess, opened: Callable[[socket.socket], None]) -> None:
        super().__init__(target.host, target.port, timeout=access.timeout)
        self._target = target
        self._access = access
        self._opened = opened
        self._until = time.monotonic() + SLOW_TIMEOUTS * access.timeout
        self._deadline: DeadlineReader | None = None
        self.response_class: Any = self._respond
        proxy = proxy_for(target.url, access.proxy)
        self._proxy = _Proxy.parse(proxy) if proxy else None
        relayed = self._proxy is not None and target.scheme == "http"
        self.request_target = f"http://{target.authority}{target.path}" if relayed else target.path
        self.relay = f"{self._proxy.host}:{self._proxy.port}" if self._proxy and relayed else None
        """The proxy that relays the request; None for a direct connection or a tunnel."""
        self.proxy_headers = self._proxy.headers() if self._proxy and relayed else {}

    def answer(self) -> Response:
        """Read the head of the answer."""
        response = self.getresponse()
        assert isinstance(response, Response)
        return response

    def connect(self) -> None:
        """Resolve, check and connect in one step, then start TLS if the scheme is https."""
        target, access = self._target, self._access
        proxy = self._proxy
        sock: Any = self._through_proxy(proxy) if proxy else dial(self._permitted(), target.port, self._limit)
        self._opened(sock)
        if target.scheme == "https":
            sock = self._encrypted(sock, target.host)
        sock.settimeout(access.timeout)
        self.sock = sock

    def _permitted(self) -> list[str]:
        target, access = self._target, self._access
        is_own = access.origin is not None and target.origin == access.origin
        return permitted_addresses(target.host, target.port, access.allowed_hosts, access.resolve, is_own=is_own)

    def _through_proxy(self, proxy: _Proxy) -> socket.socket:
        with contextlib.suppress(OSError):  # the proxy resolves the name; check here too if it resolves here
            self._permitted()
        sock = socket.create_connection((proxy.host, proxy.port), self._limit())
        self._opened(sock)
        if proxy.is_encrypted:
            sock = self._encrypted(sock, proxy.host)
        if self._target.scheme == "https":
            proxy.tunnel(sock, self._target)
        return sock

    def _encrypted(self, sock: socket.socket, host: str) -> Any:
        context = ssl_context(self._access.verify)
        sock.settimeout(self._limit())
        if isinstance(sock, ssl.SSLSocket):  # a tunnel through an https proxy
            from urllib3.util.ssltransport import SSLTransport

            return SSLTransport(limit_pieces(sock, self._limit), context, server_hostname=host)
        encrypted = context.wrap_socket(sock, server_hostname=host)
        self._opened(encrypted)
        return encrypted

    def _limit(self) -> float:
        """Return the seconds that the next step may take: of the connect, later of the current read."""
        if self._deadline is not None:
            return self._deadline.limit()
        left = self._until - time.monotonic()
        if left <= 0:
            raise TooSlowError
        return min(left, self._access.timeout)

    def _respond(self, sock: socket.socket, *args: Any, **settings: Any) -> Response:
        response = Response(sock, *args, **settings)
        self._deadline = response.deadline
        return response


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    login: tuple[tuple[str, Secret], ...] = ()
    is_encrypted: bool = False

    @classmethod
    def parse(cls, url: str) -> _Proxy:
        parts = urlsplit(url)
        assert parts.hostname is not None  # checked by proxy_for
        is_encrypted = parts.scheme == "https"
        login = tuple((name, Secret(value)) for name, value in login_headers(url).items())
        return cls(parts.hostname, parts.port or (443 if is_encrypted else 80), login, is_encrypted)

    def headers(self) -> dict[str, str]:
        return {name: value.reveal() for name, value in self.login}

    def tunnel(self, sock: socket.socket, target: DownloadURL) -> None:
        """Open a tunnel; raises OSError when the proxy refuses, or its answer does not end in time."""
        host = f"[{target.host}]" if ":" in target.host else target.host
        lines = [f"CONNECT {host}:{target.port} HTTP/1.1", f"Host: {host}:{target.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers().items()]
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
        response = Response(sock, method="CONNECT")
        response.begin()
        if response.status != 200:
            sock.close()
            # A long one is omitted: the proxy's password, which is searched for later, could be cut off in it.
            reason = sanitized(response.reason) if len(response.reason) <= _MOST_REASON_CHARS else ""
            raise OSError(f"the proxy refused the tunnel: HTTP {response.status} {reason}".rstrip())
