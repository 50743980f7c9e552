"""The synchronous shell: carries requests over ``requests``, decides nothing."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, ReadTimeoutError

from airflow_provider_vidu.config import ViduConfig
from airflow_provider_vidu.exceptions import ViduTransportError
from airflow_provider_vidu.proxies import proxy_for
from airflow_provider_vidu.tls import ssl_context
from airflow_provider_vidu.wire import (
    CHUNK_BYTES,
    MAX_BODY_BYTES,
    TOTAL_TIMEOUTS,
    ApiAnswer,
    ApiRequest,
    Loss,
    no_answer,
    too_large,
)

_BEFORE_SENDING = (
    NewConnectionError,
    NameResolutionError,
    ConnectTimeoutError,
    ConnectionRefusedError,
    socket.gaierror,
    ssl.SSLCertVerificationError,
)


class SyncClient:
    """Sends single requests of one connection; keeps connections open between them.

    :param config: the checked connection.
    """

    def __init__(self, config: ViduConfig) -> None:
        self.config = config
        self._session = requests.Session()
        # No .netrc, no environment: proxies and trust are decided by this package alone.
        self._session.trust_env = False
        self._session.verify = config.verify is not False
        adapter = _TrustingAdapter(config)
        for scheme in ("https://", "http://"):  # cleartext may go through a proxy that speaks TLS
            self._session.mount(scheme, adapter)
        self._session.headers.clear()

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()

    def send(self, request: ApiRequest) -> ApiAnswer:
        """Send one request, once, and return the whole answer; redirects are not followed.

        :raises ViduTransportError: when no answer came; ``sent`` tells whether it may have arrived.
        :raises ViduResponseError: when the answer is larger than 4 MiB.
        """
        url = self.config.url(request)
        proxy = proxy_for(url, self.config.proxy)
        if request.bills:
            # On an idle connection that was closed, or silently dropped on its way, the outcome would be unknown.
            self._session.close()  # only what is open: it connects anew
        started = time.monotonic()
        try:
            with self._session.request(
                request.method,
                url,
                headers=self.config.request_headers(),
                json=None if request.body is None else dict(request.body),
                timeout=self.config.timeout,
                allow_redirects=False,
                stream=True,
                proxies={"http": proxy, "https": proxy} if proxy else None,
            ) as response:
                body = self._body(response, started)
                return self.config.answer(response.status_code, response.headers.items(), body)
        # requests does not wrap everything that urllib3 and the sockets below it may raise.
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            raise self._transport_error(error) from None

    def _body(self, response: requests.Response, started: float) -> bytes:
        # Read as it comes: unpacking, with its limit, is not left to the library.
        body = bytearray()
        for chunk in _arrivals(response):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise too_large(response.status_code).located(conn_id=self.config.conn_id)
            if time.monotonic() - started > TOTAL_TIMEOUTS * self.config.timeout:
                raise _SlowAnswerError("the answer trickles")
        return bytes(body)

    def _transport_error(self, error: Exception) -> ViduTransportError:
        return no_answer(
            _loss(error),
            self.config.scrub(str(_root(error))),
            origin=self.config.origin,
            timeout=self.config.timeout,
            conn_id=self.config.conn_id,
        )


class _SlowAnswerError(requests.Timeout):
    """Bytes keep coming, but too slowly."""


def _arrivals(response: requests.Response) -> Iterator[bytes]:
    """Yield what has arrived as soon as it has: iter_content would sit through a trickle until a chunk is full."""
    while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
        yield chunk


class _TrustingAdapter(HTTPAdapter):
    """Verifies servers by the context that all parts of the provider share."""

    def __init__(self, config: ViduConfig) -> None:
        self._context = ssl_context(config.verify)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("https:"):  # the one kind that has a certificate of its own
            kwargs["proxy_ssl_context"] = self._context
        return super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        # requests would name certifi's bundle here, and urllib3 load it into the context, for all who share it.
        conn.cert_reqs = "CERT_REQUIRED" if verify else "CERT_NONE"
        conn.ca_certs = conn.ca_cert_dir = None


def _root(error: BaseException) -> BaseException:
    """Return the innermost reason: the outer layers repeat it with addresses of objects."""
    reason = getattr(error, "reason", None)
    inner = (
        reason
        if isinstance(reason, BaseException)
        else next((arg for arg in error.args if isinstance(arg, BaseException)), None)
    )
    return error if inner is None else _root(inner)


def _loss(error: Exception) -> Loss:
    root = _root(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        return Loss.UNTRUSTED
    if _never_connected(error):
        return Loss.UNREACHED if isinstance(error, requests.Timeout) else Loss.UNMADE
    if isinstance(error, _SlowAnswerError):
        return Loss.SLOW
    silent = isinstance(error, requests.Timeout) or isinstance(root, (ReadTimeoutError, TimeoutError))
    return Loss.SILENT if silent else Loss.BROKEN


def _never_connected(error: Exception) -> bool:
    """Whether the request certainly never left: nothing was connected, or no TLS session came about."""
    root = _root(error)
    if isinstance(root, ConnectionError) and not isinstance(root, ConnectionRefusedError):
        # Behind a proxy urllib3 calls a connection that broke after the request was sent a proxy's error, too.
        return False
    if isinstance(error, (requests.ConnectTimeout, requests.exceptions.ProxyError)):
        return True
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader)):
        return True
    # Another SSLError may come from a session that broke after the request was sent.
    return isinstance(root, _BEFORE_SENDING)
