"""A connection to an address that was checked, through a proxy where there is one, and read with patience.

Built on ``http.client`` for three reasons: the request target travels byte for byte as it was signed;
the check of the address and the connect are one step, so that no second DNS answer can slip in between;
and bodies are read into one buffer that is used again and again.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_provider_vidu.addresses import permitted_addresses
from airflow_provider_vidu.config import DEFAULT_TIMEOUT
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.http_target import Access, Target
from airflow_provider_vidu.proxies import proxy_for
from airflow_provider_vidu.text import one_line
from airflow_provider_vidu.tls import ssl_context
from airflow_provider_vidu.transfer_policy import SLOW_TIMEOUTS


class TooSlowError(TimeoutError):
    """Bytes come, but too few of them."""


class Patience(io.RawIOBase):
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


class Response(http.client.HTTPResponse):
    """An answer that is read with :class:`Patience`."""

    def __init__(self, sock: socket.socket, *args: Any, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.patience = Patience(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self.patience)


class Connection(http.client.HTTPConnection):
    """Connects to an address that was checked, or through a proxy.

    :param target: what will be asked for.
    :param access: what may be connected to.
    :param opened: told every socket that is opened, so that the caller can close it whatever happens.
    """

    response_class = Response

    def __init__(self, target: Target, access: Access, opened: Callable[[socket.socket], None]) -> None:
        super().__init__(target.host, target.port, timeout=access.timeout)
        self._target = target
        self._access = access
        self._opened = opened
        found = proxy_for(target.url, access.proxy)
        self._proxy = _Proxy.parse(found) if found else None
        relayed = self._proxy is not None and target.scheme == "http"
        self.request_target = f"http://{target.authority}{target.path}" if relayed else target.path
        self.proxy_headers = self._proxy.headers() if self._proxy and relayed else {}

    def answer(self) -> Response:
        """Read the head of the answer."""
        response = self.getresponse()
        assert isinstance(response, Response)
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
        self._opened(sock)
        if target.scheme == "https":
            sock = ssl_context(access.verify).wrap_socket(sock, server_hostname=target.host)
            self._opened(sock)
        self.sock = sock

    def _through_proxy(self, proxy: _Proxy) -> socket.socket:
        # The proxy resolves the name; what can be known here is checked all the same.
        with contextlib.suppress(OSError):
            permitted_addresses(self._target.host, self._target.port, self._access.allowed_hosts, self._access.resolve)
        sock = socket.create_connection((proxy.host, proxy.port), self._access.timeout)
        self._opened(sock)
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
