"""The synchronous shell: carries requests over ``requests``, decides nothing."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError

from airflow_provider_vidu.api.config import ViduConfig
from airflow_provider_vidu.api.messages import (
    ApiAnswer,
    ApiRequest,
    TransportFailure,
    no_answer,
    outlives_its_body,
    unasked_switch,
    unreadable,
)
from airflow_provider_vidu.api.sync_connection import POOLS, Exchange, running
from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.exceptions import ViduError, ViduResponseError, ViduTransportError
from airflow_provider_vidu.network.bodies import BodyError, IncomingBody
from airflow_provider_vidu.network.framing import SWITCHING_PROTOCOLS
from airflow_provider_vidu.network.limits import CHUNK_BYTES, TOTAL_TIMEOUTS
from airflow_provider_vidu.network.proxies import proxy_for
from airflow_provider_vidu.network.tls import ssl_context

# requests does not wrap everything that urllib3 and the sockets below it may raise.
_NETWORK_ERRORS = (requests.RequestException, HTTPError, http.client.HTTPException, OSError, ValueError)


class SyncClient:
    """Sends single requests of one connection; keeps connections open between them.

    :param config: the checked connection.
    """

    def __init__(self, config: ViduConfig) -> None:
        self.config = config
        self._session = _Session()
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

        All of it together takes at most ``TOTAL_TIMEOUTS`` time-outs, whatever trickles. Of a request that bills, an
        answer whose end never came is returned, too, as far as it came (see ``ApiAnswer.lost``).

        :raises ViduTransportError: when no answer came; ``sent`` tells whether it may have arrived.
        :raises ViduResponseError: when the answer is larger than ``request.bounds``, or cannot be unpacked.
        :raises ViduConfigError: when the proxy cannot be used; nothing was sent.
        """
        url = self.config.url(request)
        proxy = _proxy(url, self.config)
        if request.bills:
            # On an idle connection that was closed, or silently dropped on its way, the outcome would be unknown.
            self._session.close()  # only what is open: it connects anew
        exchange = Exchange(self.config.timeout, TOTAL_TIMEOUTS * self.config.timeout)
        with running(exchange):
            outcome = self._exchange(request, url, proxy, exchange)
        if exchange.is_spoiled:
            self._session.close()  # what may still come on its connection answers nothing that was asked
        if isinstance(outcome, ViduError):
            # Raised outside of any handler: the library's errors hold the request with its headers, the key among them.
            raise outcome
        return outcome

    def _exchange(
        self, request: ApiRequest, url: str, proxy: Secret | None, exchange: Exchange
    ) -> ApiAnswer | ViduError:
        through = {"http": proxy.reveal(), "https": proxy.reveal()} if proxy else None
        try:
            with self._session.request(
                request.method,
                url,
                headers=self.config.request_headers(),
                json=None if request.body is None else dict(request.body),
                timeout=self.config.timeout,
                allow_redirects=False,
                stream=True,
                proxies=through,
            ) as response:
                body = IncomingBody(response.headers.get("content-encoding", ""), request.bounds)
                lost = self._read(response, body, exchange)
                if response.status_code == SWITCHING_PROTOCOLS:
                    return unasked_switch(self.config.conn_id)
                if lost is not None and not _counts(lost, response.status_code, request, body):
                    return lost
                return self.config.answer(
                    response.status_code, response.headers.items(), body.content, request.bounds.values, lost
                )
        except _NETWORK_ERRORS as error:
            return self._transport_error(error, exchange)

    def _read(self, response: requests.Response, body: IncomingBody, exchange: Exchange) -> ViduError | None:
        """Read the body as it comes; return the error that ended it too early, if any.

        Unpacking, with its limit, is not left to the library.
        """
        try:
            for chunk in _arrivals(response):
                body.feed(chunk)
            body.end()
        except BodyError as error:
            return unreadable(error, response.status_code, self.config.conn_id)
        except _NETWORK_ERRORS as error:
            return self._transport_error(error, exchange)
        return None

    def _transport_error(self, error: Exception, exchange: Exchange) -> ViduTransportError:
        return no_answer(
            _loss(error, exchange, is_secure=self.config.origin[0] == "https"),
            self.config.redact(str(_root(error))),
            origin=self.config.origin,
            timeout=self.config.timeout,
            conn_id=self.config.conn_id,
        )


def _counts(lost: ViduError, status: int, request: ApiRequest, body: IncomingBody) -> bool:
    """Whether an answer counts although its body is not whole: an id has arrived with its bytes, a refusal before."""
    if request.bills and (body.received or status >= 400):
        return True
    return isinstance(lost, ViduResponseError) and outlives_its_body(status)


def _proxy(url: str, config: ViduConfig) -> Secret | None:
    """Return the proxy, out of sight of tracebacks that show local variables."""
    found = proxy_for(url, config.proxy)
    return Secret(found) if found else None


def _arrivals(response: requests.Response) -> Iterator[bytes]:
    """Yield what has arrived as soon as it has: iter_content would sit through a trickle until a chunk is full."""
    while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
        yield chunk


class _Session(requests.Session):
    """A session that reads nothing but what it is told to."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: to find out where a redirect leads, requests would read and unpack its whole body."""


class _TrustingAdapter(HTTPAdapter):
    """Verifies servers by the context that all parts of the provider share."""

    def __init__(self, config: ViduConfig) -> None:
        self._context = ssl_context(config.verify)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("https:"):  # the one kind that has a certificate of its own
            kwargs["proxy_ssl_context"] = self._context
        manager = super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)
        manager.pool_classes_by_scheme = POOLS
        return manager

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


def _loss(error: Exception, exchange: Exchange, *, is_secure: bool) -> TransportFailure:
    root = _root(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        return TransportFailure.UNTRUSTED
    is_late = isinstance(error, requests.Timeout) or isinstance(root, (ReadTimeoutError, TimeoutError))
    if not exchange.sent:
        if is_late or exchange.is_over:
            return TransportFailure.UNREACHED
        failed_handshake = is_secure and exchange.reached and isinstance(root, (ssl.SSLError, ConnectionError))
        return TransportFailure.NO_TLS if failed_handshake else TransportFailure.UNMADE
    if exchange.is_over:
        return TransportFailure.SLOW
    return TransportFailure.SILENT if is_late else TransportFailure.BROKEN
