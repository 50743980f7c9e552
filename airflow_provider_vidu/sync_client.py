"""The synchronous shell: carries requests over ``requests``, decides nothing."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from airflow_provider_vidu.config import ViduConfig
from airflow_provider_vidu.exceptions import ViduResponseError, ViduTransportError
from airflow_provider_vidu.proxies import proxy_for
from airflow_provider_vidu.tls import ssl_context
from airflow_provider_vidu.wire import CHUNK_BYTES, MAX_BODY_BYTES, TOTAL_TIMEOUTS, ApiAnswer, ApiRequest

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
        self._session.mount("https://", _TrustingAdapter(config))
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
        headers = self.config.request_headers()
        if request.bills:
            # An idle connection that the server has just closed would make the outcome unknown.
            headers["Connection"] = "close"
        started = time.monotonic()
        try:
            with self._session.request(
                request.method,
                url,
                headers=headers,
                json=None if request.body is None else dict(request.body),
                timeout=self.config.timeout,
                allow_redirects=False,
                stream=True,
                proxies={"http": proxy, "https": proxy} if proxy else None,
            ) as response:
                body = self._body(response, started)
                return self.config.answer(response.status_code, response.headers.items(), body)
        except requests.RequestException as error:
            raise self._transport_error(error) from None

    def _body(self, response: requests.Response, started: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise ViduResponseError(
                    f"The answer is larger than {MAX_BODY_BYTES} bytes.",
                    status_code=response.status_code,
                    conn_id=self.config.conn_id,
                )
            if time.monotonic() - started > TOTAL_TIMEOUTS * self.config.timeout:
                raise requests.ReadTimeout("the answer trickles")
        return bytes(body)

    def _transport_error(self, error: requests.RequestException) -> ViduTransportError:
        scheme, host, port = self.config.origin
        sent = not _never_connected(error)
        what = "broke" if sent else "could not be made"
        if isinstance(error, requests.Timeout):
            what = f"{'was silent' if sent else 'could not be made'} for {self.config.timeout:g} s"
        reason = self.config.scrub(str(_root(error)))
        return ViduTransportError(
            f"The connection to {scheme}://{host}:{port} {what}: {reason}",
            conn_id=self.config.conn_id,
            sent=sent,
        )


class _TrustingAdapter(HTTPAdapter):
    """Verifies servers by the context that all parts of the provider share."""

    def __init__(self, config: ViduConfig) -> None:
        self._context = ssl_context(config.verify)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)


def _root(error: BaseException) -> BaseException:
    """Return the innermost reason: the outer layers repeat it with addresses of objects."""
    reason = getattr(error, "reason", None)
    inner = (
        reason
        if isinstance(reason, BaseException)
        else next((arg for arg in error.args if isinstance(arg, BaseException)), None)
    )
    return error if inner is None else _root(inner)


def _never_connected(error: requests.RequestException) -> bool:
    """Whether the request certainly never left: nothing was connected, or no TLS session came about."""
    if isinstance(error, (requests.ConnectTimeout, requests.exceptions.ProxyError)):
        return True
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader)):
        return True
    # Another SSLError may come from a session that broke after the request was sent.
    return isinstance(_root(error), _BEFORE_SENDING)
