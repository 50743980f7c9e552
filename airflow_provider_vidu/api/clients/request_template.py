"""Where the requests of an asynchronous connection go, and how they are written."""

from __future__ import annotations

import asyncio
import json
from typing import Final, cast

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from airflow_provider_vidu.api.messages import ApiRequest

_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class RequestTemplate:
    """Where a connection's requests go, and the lines that all of them share: made once, not for every poll.

    :param base_url: scheme, host, port and path prefix.
    :param proxy: the address of an HTTP proxy, without its login.
    :param timeout: seconds to connect, and seconds without a byte, before a request fails.
    """

    __slots__ = ("_head", "_prefix", "key", "limits", "request", "timeout")

    def __init__(
        self,
        base_url: str,
        headers: dict[str, str],
        proxy: str | None,
        proxy_headers: dict[str, str],
        timeout: float,
    ) -> None:
        url = URL(base_url, encoded=True)
        self.request = aiohttp.ClientRequest(
            "GET",
            url,
            headers=CIMultiDict(headers),
            loop=asyncio.get_running_loop(),
            proxy=URL(proxy) if proxy else None,
            proxy_headers=CIMultiDict(proxy_headers) if proxy else None,
        )
        if proxy:
            # aiohttp adds it when it connects, and tells connections apart by these headers.
            cast("CIMultiDict[str]", self.request.proxy_headers)["Host"] = self.request.headers["Host"]
        self.key = self.request.connection_key
        """What tells connections apart."""
        self._head = "".join(f"{name}: {value}\r\n" for name, value in self.request.headers.items())
        # A proxy that forwards requests in cleartext needs the whole address.
        is_forwarded = proxy is not None and url.scheme == "http"
        self._prefix = base_url if is_forwarded else base_url[len(f"{url.scheme}://{url.raw_authority}") :]
        self.limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
        self.timeout = timeout

    def written(self, request: ApiRequest) -> bytes:
        """Return a request as it is sent."""
        body, length = b"", ""
        if request.body is not None:
            body = json.dumps(dict(request.body)).encode()
        if body or request.method not in _WITHOUT_BODY:
            length = f"Content-Length: {len(body)}\r\n"
        head = f"{request.method} {self._prefix}{request.path} HTTP/1.1\r\n{self._head}{length}\r\n"
        return head.encode() + body
