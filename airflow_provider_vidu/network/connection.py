"""A connection to an address that was checked, through a proxy where there is one, and read with patience.

Built on ``http.client`` for three reasons: the request target travels byte for byte as it was signed;
the check of the address and the connect are one step, so that no second DNS answer can slip in between;
and bodies are read into one buffer that is used again and again.
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
from airflow_provider_vidu.network.framing import MOST_INTERIM
from airflow_provider_vidu.network.limits import DEFAULT_TIMEOUT, SLOW_TIMEOUTS
from airflow_provider_vidu.network.proxies import basic_credentials, proxy_for
from airflow_provider_vidu.network.target import DownloadAccess, Target
from airflow_provider_vidu.network.tls import ssl_context

MOST_HEADERS: Final = 100
"""As many lines as ``http.client`` takes."""


class TooSlowError(TimeoutError):
    """Bytes come, but too few of them."""


class Patience(io.RawIOBase):
    """The reading end of a socket, with an end to all waiting.

    A socket's own timeout restarts with every byte: a server that sends its headers byte by byte
    would hold a worker for days.
    """

    def __init__(self, raw: Any, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._silence: float = sock.gettimeout() or DEFAULT_TIMEOUT
        self._until: float | None
        self.renew(SLOW_TIMEOUTS * self._silence)

    def renew(self, seconds: float) -> None:
        """Wait so long, from now on, for all that will be read."""
        self._until = time.monotonic() + seconds
        self._heard = False

    def end(self) -> None:
        """Wait no longer: take only what has arrived."""
        self._until = None

    def limit(self) -> float:
        """Return the most seconds that the next read may wait."""
        left = 0.0 if self._until is None else self._until - time.monotonic()
        if left <= 0 and self._until is not None:
            raise TooSlowError
        return min(left, self._silence)

    def readable(self) -> bool:
        """Return True: nothing else is done with it."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what comes next.

        :raises TimeoutError: when the wait has come to its end.
        """
        self._sock.settimeout(self.limit())
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            raise (TooSlowError if self._heard else TimeoutError) from None
        self._heard = True
        return count

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """An answer that is read with :class:`Patience`, and whose head is understood where ``http.client`` gives up.

    Without that, an answer of 200 behind an interim one is never seen, and the end of a body is not known: what was
    paid for would be lost, or a file that is cut taken for whole.
    """

    def __init__(self, sock: socket.socket, *args: Any, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.patience = Patience(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self.patience)

    def _read_status(self) -> tuple[str, int, str]:
        # http.client skips 100 alone, but any interim answer may come unasked (RFC 9110, 15.2).
        for _ in range(MOST_INTERIM + 1):
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 102 <= line[1] < 200:
                return line
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {MOST_INTERIM} interim answers (1xx) came, and none that counts")

    def begin(self) -> None:
        """Read the head of the answer.

        :raises http.client.HTTPException: when it is none.
        """
        super().begin()
        if self.headers.defects:
            _recover(self.headers)
        if self.chunked or self.length is not None:
            return
        lengths = {part.strip() for value in self.headers.get_all("content-length", ()) for part in value.split(",")}
        if self.headers.get("transfer-encoding", "").strip().lower() == "chunked":
            self.chunked, self.chunk_left = True, None
        elif len(lengths) == 1 and re.fullmatch("[0-9]{1,19}", length := lengths.pop()):
            self.length = int(length)
        else:
            return
        self.will_close = self._check_close()  # type: ignore[attr-defined]


def _recover(headers: http.client.HTTPMessage) -> None:
    """Add the headers behind a line that is none, at which Python's parser stops.

    That parser takes more for the end of a line than HTTP does, and would make a million headers of a hundred lines.
    """
    for line in re.split(r"\r?\n", str(headers.get_payload()))[:MOST_HEADERS]:
        name, colon, value = line.partition(":")
        if colon and name.strip():
            headers[name.strip()] = value.strip()
    headers.set_payload("")
    headers.defects.clear()


def dial(addresses: Iterable[str], port: int, limit: Callable[[], float]) -> socket.socket:
    """Connect to the first address that answers.

    :param addresses: literal addresses, in the order in which they are tried.
    :param port: the port.
    :param limit: returns the most seconds that the next address may take.
    :raises OSError: the last address's failure, when none answers.
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
    """Limit the wait for each piece that comes out of ``sock``, and return it.

    TLS within TLS collects a whole record with as many reads as it takes, each with the socket's timeout.
    """
    receive = sock.recv

    def recv(*args: Any) -> bytes:
        sock.settimeout(limit())
        return receive(*args)

    sock.recv = recv  # type: ignore[method-assign, assignment]
    return sock


class Connection(http.client.HTTPConnection):
    """Connects to an address that was checked, or through a proxy.

    :param target: what will be asked for.
    :param access: what may be connected to.
    :param opened: called with every socket that is opened, so that the caller can close it in any case.
    """

    debuglevel = 0  # also where it is set for all of http.client: it prints headers, and with them the key

    def __init__(self, target: Target, access: DownloadAccess, opened: Callable[[socket.socket], None]) -> None:
        super().__init__(target.host, target.port, timeout=access.timeout)
        self._target = target
        self._access = access
        self._opened = opened
        self._until = time.monotonic() + SLOW_TIMEOUTS * access.timeout
        self._patience: Patience | None = None
        self.response_class: Any = self._respond
        proxy = proxy_for(target.url, access.proxy)
        self._proxy = _Proxy.parse(proxy) if proxy else None
        relayed = self._proxy is not None and target.scheme == "http"
        self.request_target = f"http://{target.authority}{target.path}" if relayed else target.path
        self.relay = f"{self._proxy.host}:{self._proxy.port}" if self._proxy and relayed else None
        """The proxy that answers in the server's place; None for a direct connection or a tunnel."""
        self.proxy_headers = self._proxy.headers() if self._proxy and relayed else {}

    def answer(self) -> Response:
        """Read the head of the answer."""
        response = self.getresponse()
        assert isinstance(response, Response)
        return response

    def connect(self) -> None:
        """Resolve, check and connect in one step; then TLS where the scheme wants it."""
        target, access = self._target, self._access
        sock: Any
        if self._proxy is not None:
            sock = self._through_proxy(self._proxy)
        else:
            sock = dial(self._permitted(), target.port, self._limit)
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
        # The proxy resolves the name; what can be known here is checked all the same.
        with contextlib.suppress(OSError):
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
        if isinstance(sock, ssl.SSLSocket):  # a tunnel through a proxy that speaks TLS itself
            from urllib3.util.ssltransport import SSLTransport

            return SSLTransport(limit_pieces(sock, self._limit), context, server_hostname=host)
        encrypted = context.wrap_socket(sock, server_hostname=host)
        self._opened(encrypted)
        return encrypted

    def _limit(self) -> float:
        """Return the most seconds that the next step may take: of the connect, then of the read in progress."""
        if self._patience is not None:
            return self._patience.limit()
        left = self._until - time.monotonic()
        if left <= 0:
            raise TooSlowError
        return min(left, self._access.timeout)

    def _respond(self, sock: socket.socket, *args: Any, **settings: Any) -> Response:
        response = Response(sock, *args, **settings)
        self._patience = response.patience
        return response


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    credentials: Secret | None = None
    is_encrypted: bool = False

    @classmethod
    def parse(cls, url: str) -> _Proxy:
        parts = urlsplit(url)
        assert parts.hostname is not None  # checked by proxy_for
        is_encrypted = parts.scheme == "https"
        sent = basic_credentials(url)
        user = Secret(sent) if sent else None
        return cls(parts.hostname, parts.port or (443 if is_encrypted else 80), user, is_encrypted)

    def headers(self) -> dict[str, str]:
        if self.credentials is None:
            return {}
        return {"Proxy-Authorization": f"Basic {self.credentials.reveal()}"}

    def tunnel(self, sock: socket.socket, target: Target) -> None:
        """Ask for a tunnel; the answer is read with patience, like every other one.

        :raises OSError: when the proxy refuses, or its answer does not come to an end.
        """
        host = f"[{target.host}]" if ":" in target.host else target.host
        lines = [f"CONNECT {host}:{target.port} HTTP/1.1", f"Host: {host}:{target.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers().items()]
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
        response = Response(sock, method="CONNECT")
        response.begin()
        if response.status != 200:
            sock.close()
            raise OSError(f"the proxy refused the tunnel: HTTP {response.status} {sanitized(response.reason, 80)}")
