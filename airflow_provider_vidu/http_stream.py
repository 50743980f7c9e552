"""One request for a file, over a connection whose address was checked.

Built on ``http.client`` for three reasons: the request target travels byte for byte as it was signed;
the check of the address and the connect are one step, so that no second DNS answer can slip in between;
and bodies are read into one buffer that is used again and again.
"""

from __future__ import annotations

import base64
import contextlib
import html
import http.client
import io
import json
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from airflow_provider_vidu.addresses import Resolver, permitted_addresses
from airflow_provider_vidu.config import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_TIMEOUT,
    HIDDEN,
    USER_AGENT,
    Origin,
    Secret,
    ViduConfig,
    origin_of,
)
from airflow_provider_vidu.exceptions import ViduConfigError, ViduDownloadRefusedError
from airflow_provider_vidu.proxies import proxy_for
from airflow_provider_vidu.text import one_line, without_query
from airflow_provider_vidu.tls import ssl_context
from airflow_provider_vidu.transfer_policy import SLOW_TIMEOUTS, Answer
from airflow_provider_vidu.values import web_url

ERROR_BODY_BYTES: Final = 2048
NETWORK_ERRORS: Final = (OSError, http.client.HTTPException)
"""What a broken connection raises here; ``ssl.SSLError`` and time-outs are OSErrors."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a download may do, and with what: the part of a connection that concerns it.

    :param origin: the connection's own origin, the only one that ever gets ``headers``.
    :param headers: the key and the connection's further headers.
    :param allowed_hosts: hosts that may be fetched from although private, the connection's own among them.
    :param timeout: seconds to connect, and seconds of silence that are tolerated.
    :param max_retries: how often a broken transfer is taken up again.
    :param verify: as in :func:`airflow_provider_vidu.tls.ssl_context`.
    :param proxy: the proxy for everything; the environment's where None.
    :param resolve: replaces the system's resolver.
    :param secrets: what no message may hold, should a server quote it.
    """

    origin: Origin | None = None
    headers: tuple[tuple[str, Secret], ...] = ()
    allowed_hosts: frozenset[str] = frozenset()
    timeout: float = DEFAULT_TIMEOUT
    max_retries: int = DEFAULT_MAX_RETRIES
    verify: bool | str = True
    proxy: Secret | None = None
    resolve: Resolver | None = field(default=None, repr=False)
    secrets: tuple[Secret, ...] = ()

    def scrub(self, data: bytes) -> bytes:
        """Return ``data`` with every secret replaced by three stars: some gateways quote the key they refuse."""
        for secret in self.secrets:
            value = secret.reveal()
            for spelling in {value, json.dumps(value)[1:-1], html.escape(value), quote(value, safe="")}:
                data = data.replace(spelling.encode(), HIDDEN.encode())
        return data

    @classmethod
    def of(cls, config: ViduConfig) -> Access:
        """Return what a connection grants."""
        carried = {
            name: Secret(value)
            for name, value in config.request_headers().items()
            if name.lower() not in ("accept", "accept-encoding", "content-type", "user-agent")
        }
        return cls(
            origin=config.origin,
            headers=tuple(carried.items()),
            allowed_hosts=config.allowed_hosts | {config.origin[1]},
            timeout=config.timeout,
            max_retries=config.max_retries,
            verify=config.verify,
            proxy=config.proxy,
            secrets=tuple(map(Secret, config.secrets())),
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart without changing it."""

    url: str = field(repr=False)
    scheme: str
    host: str
    port: int
    path: str = field(repr=False)

    @property
    def authority(self) -> str:
        """The Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> Origin | None:
        """Scheme, host and port."""
        return origin_of(self.url)

    @classmethod
    def parse(cls, url: str) -> Target:
        """Take ``url`` apart; path and query stay byte for byte, only non-ASCII letters are encoded.

        :raises ViduDownloadRefusedError: when it is no http(s) URL with a host, or holds a user.
        """
        ascii_url = "".join(char if char.isascii() else quote(char, errors="replace") for char in url)
        parts = urlsplit(url) if web_url(url) and web_url(ascii_url) else None
        try:
            port = parts.port if parts else None
        except ValueError:
            parts = None
        if parts is None or not parts.hostname or "\\" in parts.netloc:
            raise ViduDownloadRefusedError(f"Not fetched: {_url_shown(url)} is no http(s) URL.")
        if "@" in parts.netloc:
            raise ViduDownloadRefusedError("Not fetched: the URL holds a user or a password.")
        scheme = parts.scheme.lower()
        rest = ascii_url.partition("://")[2].partition("#")[0]
        cut = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
        path = rest[cut:] if rest[cut:].startswith("/") else "/" + rest[cut:]
        return cls(url, scheme, _ascii_host(parts.hostname), port or {"http": 80, "https": 443}[scheme], path)

    def redirected(self, location: str) -> str:
        """Return the URL that a ``Location`` header of this target's answer means, without re-quoting it."""
        # http.client reads headers as Latin-1; a raw UTF-8 path would come out garbled.
        location = location.encode("latin-1", "replace").decode("utf-8", "replace").strip().replace(" ", "%20")
        if location.startswith("//"):
            return f"{self.scheme}:{location}"
        if location.startswith("/"):
            return f"{self.scheme}://{self.authority}{location}"
        return location if urlsplit(location).scheme else urljoin(self.url, location)


def _ascii_host(host: str) -> str:
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ViduDownloadRefusedError(f"Not fetched: {one_line(host, 80)!r} is no host name.") from None


def _url_shown(url: str) -> str:
    shown_url = without_query(url) if "://" in url else url.partition("?")[0]
    return repr(one_line(shown_url, 120))


class TooSlowError(TimeoutError):
    """Bytes come, but too few of them."""


class UnclearLengthError(http.client.HTTPException):
    """The headers do not tell where the body ends."""


class Stream:
    """An answer whose body is still on the wire. Use as a context manager.

    :raises OSError, http.client.HTTPException: when the connection fails (:data:`NETWORK_ERRORS`).
    :raises ViduDownloadRefusedError: when the address is not permitted.
    """

    def __init__(self, target: Target, access: Access, headers: dict[str, str], *, own: bool) -> None:
        self.target = target
        self._access = access
        self._socket: socket.socket | None = None
        self._response: _Response
        self._connection = _Connection(target, access, self)
        try:
            self._send({**headers, **({name: value.reveal() for name, value in access.headers} if own else {})})
            self._response = self._connection.answer()
            self.headers = _lowered(self._response)
            self.status = self._response.status
            self.length = self._announced()
        except BaseException:  # also for what a signal handler raises: the socket may not stay open
            self.close()
            raise
        self._left = self.length

    def _announced(self) -> int | None:
        """Return the length of the body, or None where it ends by itself.

        :raises UnclearLengthError: when the end of the body cannot be told. ``http.client`` would read on
            until the connection ends, and take a cut file, or one with chunk sizes in it, for the video.
        """
        coding = self.headers.get("transfer-encoding", "identity").strip().lower()
        lengths = {part.strip() for part in self.headers.get("content-length", "0").split(",")}
        if coding not in ("identity", "chunked") or len(lengths) > 1 or not re.fullmatch("[0-9]+", lengths.pop()):
            raise UnclearLengthError
        return None if self._response.chunked else self._response.length

    def answer(self) -> Answer:
        """Return status and headers, and of an error the beginning of its body."""
        body = b""
        if self.status >= 400:
            self._response.patience.renew(self._access.timeout)
            try:
                body = self._access.scrub(self._response.read(ERROR_BODY_BYTES))
            except NETWORK_ERRORS:
                body = b""
        return Answer(self.status, self.headers, self.length, body)

    def readinto(self, buffer: memoryview) -> int:
        """Read what has arrived, waiting for at least a byte; return its length, 0 at the end.

        :raises OSError, http.client.HTTPException: when the connection broke.
        """
        self._response.patience.renew(self._access.timeout)
        if self._response.chunked or self._response.fp is None:
            data = self._response.read1(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
        if wanted == 0:
            return 0
        count = self._response.fp.readinto1(buffer[:wanted])
        if self._left is not None:
            self._left -= count
        return count

    @property
    def shows_its_end(self) -> bool:
        """Whether a body that is cut can be told from one that has ended."""
        return self.length is not None or self._response.chunked

    def has_surplus(self) -> bool:
        """Whether bytes beyond the announced length have arrived already (does not wait for any)."""
        if self._socket is None or self._response.chunked or self._response.fp is None or self.length is None:
            return False
        try:
            self._response.patience.end()
            return bool(self._response.fp.peek(1))
        except OSError:
            return False

    def abort(self) -> None:
        """Break the connection off, so that a read which waits comes back at once."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it may be closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def opened(self, sock: socket.socket) -> None:
        """Remember the socket: http.client lets go of it when the server announces to close."""
        self._socket = sock

    def close(self) -> None:
        """Close the connection."""
        if hasattr(self, "_response"):
            self._response.close()
        self._connection.close()
        if self._socket is not None:
            self._socket.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, headers: dict[str, str]) -> None:
        connection = self._connection
        connection.putrequest("GET", connection.request_target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", self.target.authority)
        for name, value in {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}.items():
            connection.putheader(name, value)
        for name, value in connection.proxy_headers.items():
            connection.putheader(name, value)
        connection.endheaders()


class _Patience(io.RawIOBase):
    """The reading end of a socket, with an end to all waiting.

    A socket's own time-out begins anew with every byte: a server that sends its headers byte by byte
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

    def readable(self) -> bool:
        """Return True: nothing else is done with it."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what comes next.

        :raises TimeoutError: when the wait has come to its end.
        """
        left = 0.0 if self._until is None else self._until - time.monotonic()
        if left <= 0 and self._until is not None:
            raise TooSlowError
        self._sock.settimeout(min(left, self._silence))
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


class _Response(http.client.HTTPResponse):
    """An answer that is read with :class:`_Patience`."""

    def __init__(self, sock: socket.socket, *args: Any, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.patience = _Patience(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self.patience)


def _lowered(response: http.client.HTTPResponse) -> dict[str, str]:
    lowered: dict[str, str] = {}
    for name, value in response.getheaders():
        lowered[name.lower()] = f"{lowered[name.lower()]}, {value}" if name.lower() in lowered else value
    return lowered


class _Connection(http.client.HTTPConnection):
    """Connects to an address that was checked, or through a proxy."""

    response_class = _Response

    def __init__(self, target: Target, access: Access, stream: Stream) -> None:
        super().__init__(target.host, target.port, timeout=access.timeout)
        self._target = target
        self._access = access
        self._stream = stream
        found = proxy_for(target.url, access.proxy)
        self._proxy = _Proxy.parse(found) if found else None
        relayed = self._proxy is not None and target.scheme == "http"
        self.request_target = f"http://{target.authority}{target.path}" if relayed else target.path
        self.proxy_headers = self._proxy.headers() if self._proxy and relayed else {}

    def answer(self) -> _Response:
        """Read the head of the answer."""
        response = self.getresponse()
        assert isinstance(response, _Response)
        return response

    def connect(self) -> None:
        """Resolve, check and connect in one step; then TLS where the scheme wants it."""
        target, access = self._target, self._access
        if self._proxy is not None:
            sock = self._through_proxy(self._proxy)
        else:
            sock = _dial(
                permitted_addresses(target.host, target.port, access.allowed_hosts, access.resolve),
                target.port,
                access.timeout,
            )
        self._stream.opened(sock)
        if target.scheme == "https":
            sock = ssl_context(access.verify).wrap_socket(sock, server_hostname=target.host)
            self._stream.opened(sock)
        self.sock = sock

    def _through_proxy(self, proxy: _Proxy) -> socket.socket:
        # The proxy resolves the name; what can be known here is checked all the same.
        with contextlib.suppress(OSError):
            permitted_addresses(self._target.host, self._target.port, self._access.allowed_hosts, self._access.resolve)
        sock = socket.create_connection((proxy.host, proxy.port), self._access.timeout)
        self._stream.opened(sock)
        if self._target.scheme == "https":
            proxy.tunnel(sock, self._target)
        return sock


def _dial(addresses: list[str], port: int, timeout: float) -> socket.socket:
    failure: OSError = OSError("the host has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout)
        except OSError as error:
            failure = error
    raise failure


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    credentials: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> _Proxy:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme.lower() != "http" or not parts.hostname:
            raise ViduConfigError(
                f"Downloads can only go through a proxy of the form http://host:port, not {one_line(parts.scheme, 20)}://."
            )
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else None
        return cls(parts.hostname, parts.port or 80, user)

    def headers(self) -> dict[str, str]:
        if self.credentials is None:
            return {}
        return {"Proxy-Authorization": "Basic " + base64.b64encode(self.credentials.encode()).decode("ascii")}

    def tunnel(self, sock: socket.socket, target: Target) -> None:
        host = f"[{target.host}]" if ":" in target.host else target.host
        lines = [f"CONNECT {host}:{target.port} HTTP/1.1", f"Host: {host}:{target.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers().items()]
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
        response = http.client.HTTPResponse(sock, method="CONNECT")
        response.begin()
        if response.status != 200:
            sock.close()
            raise OSError(f"the proxy refused the tunnel: HTTP {response.status} {one_line(response.reason, 80)}")


def failure_text(error: BaseException) -> str:
    """Return in a few words what a network error means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate cannot be verified ({one_line(error.verify_message, 100)})"
    if isinstance(error, TooSlowError):
        return "the transfer became too slow"
    if isinstance(error, TimeoutError):
        return "the server fell silent"
    if isinstance(error, UnclearLengthError):
        return "the answer's headers do not tell where its body ends"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended before the body did"
    if isinstance(error, OSError):
        return one_line(error.strerror or str(error) or type(error).__name__, 120)
    return f"the answer is not HTTP ({type(error).__name__})"
