"""The synchronous client: sends calls with ``requests`` and sleeps between attempts; the decisions are elsewhere."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError

from airflow_provider_vidu.api.calls import Call, unknown_outcome
from airflow_provider_vidu.api.clients.sync_connection import POOLS, Exchange, running
from airflow_provider_vidu.api.dialects import Dialect
from airflow_provider_vidu.api.dialects.errors import MODEL_NOT_FOUND
from airflow_provider_vidu.api.dialects.lost_create import Search
from airflow_provider_vidu.api.dialects.task_list import Listing
from airflow_provider_vidu.api.dry_run import skip_if_dry
from airflow_provider_vidu.api.input_uploads import put
from airflow_provider_vidu.api.messages import (
    TOO_LARGE,
    ApiAnswer,
    ApiRequest,
    TransportFailure,
    outlives_its_body,
    unasked_switch,
    unreadable,
)
from airflow_provider_vidu.api.session import Session
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.common.progress import request_lines
from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.common.text import redacted, without_query
from airflow_provider_vidu.exceptions import (
    ViduCreditError,
    ViduError,
    ViduRequestError,
    ViduResponseError,
    ViduTransportError,
    forgetting_variables,
)
from airflow_provider_vidu.models import Generation, SearchResult
from airflow_provider_vidu.network.bodies import BodyError, IncomingBody
from airflow_provider_vidu.network.framing import SWITCHING_PROTOCOLS
from airflow_provider_vidu.network.limits import CHUNK_BYTES, TOTAL_TIMEOUTS
from airflow_provider_vidu.network.proxies import login_headers, proxy_for
from airflow_provider_vidu.network.tls import ssl_context
from airflow_provider_vidu.polling.retries import outcome_is_unknown

T = TypeVar("T")
_NO_CLIENT_CERTIFICATE = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE"})
"""The reasons of ``ssl.SSLError`` for the alerts about a client's certificate, of which this provider sends none."""
# requests does not wrap everything that urllib3 and the sockets below it may raise.
_NETWORK_ERRORS = (requests.RequestException, HTTPError, http.client.HTTPException, OSError, ValueError)


class SyncClient:
    """Sends the calls of one connection, in the calling thread.

    :param look_up: returns the checked connection; a fresh one if called with true.
    :param deadline: returns when the caller gives up, in epoch seconds; None for never. No wait goes beyond it.
    """

    def __init__(
        self,
        conn_id: str,
        look_up: Callable[[bool], ViduConfig],
        log: Any,
        deadline: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._conn_id = conn_id
        self._look_up = look_up
        self._log = log
        self._deadline = deadline
        self._transport: _Transport | None = None

    def close(self) -> None:
        """Close the open connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def carry(
        self,
        make: Callable[[Dialect], Call[T]],
        generation_id: str | None = None,
        retries: int | None = None,
        *,
        queues: bool = False,
        patience: float | None = None,
        before_send: Callable[[], None] = lambda: None,
    ) -> T:
        """Send a call, retry it as its session decides (see :class:`.Session` for the arguments), return its result.

        :param before_send: called right before each send; for a create, its error is final.
        :raises ViduError: naming the generation and the connection.
        """
        if patience is None and (deadline := self._deadline()) is not None:
            patience = max(deadline - time.time(), 0.0)
        session = Session(make, retries, generation_id, self._conn_id, queues, patience)
        until = None if patience is None else time.monotonic() + patience
        while True:
            try:
                config = self._look_up(session.refused is not None)
                call = session.call(config)
                before_send()
                answer = self._sent(config, call.request)
                result = call.read(answer)
            except ViduError as error:
                session.patience = until and until - time.monotonic()  # an answer that trickles takes its time, too
                if delay := session.after(error):
                    self._log.warning("Trying again in %.1f s: %s", delay, error)
            else:
                if answer.lost is not None:
                    self._log.warning("The answer to the create was cut off after its id: %s", answer.lost.reason)
                return result
            time.sleep(delay)

    def submit(
        self, body: Mapping[str, Any], endpoint: str | None, before_send: Callable[[], None], *, queues: bool
    ) -> Generation:
        """Submit a generation, with its request in the log.

        :param endpoint: where it is submitted; None if the fields decide.
        :raises ViduSubmitUnknownError: when the outcome is unknown.
        :raises ViduError: when it was refused, with what helps: the credits left, or the model.
        """
        try:
            config = self._look_up(False)
            url = config.url(config.dialect.create(body, endpoint).request)
            # A group, which Airflow's log view collapses.
            self._log.info("::group::Request to %s", without_query(url))
            for line in request_lines(body):
                self._log.info("%s", config.redact(line))
            self._log.info("::endgroup::")
            skip_if_dry("The request above")
            generation = self.carry(
                lambda dialect: dialect.create(body, endpoint), queues=queues, before_send=before_send
            )
        except ViduError as error:
            if outcome_is_unknown(error):
                raise unknown_outcome(error, self._conn_id) from error
            error.reason += self._hint(error, body)
            raise error.with_context(conn_id=self._conn_id) from error.__cause__
        self._log.info("Submitted generation %s: %s", generation.id, generation.describe())
        return generation

    def request(self, request: ApiRequest) -> Any:
        """Send a request that has no method here, and return its parsed answer; None if it has no body.

        :raises ViduSubmitUnknownError: when it bills, was sent, and its outcome is unknown.
        :raises ViduError: for any other error answer, or none.
        """
        if request.bills:
            skip_if_dry(f"{request.method} {request.path.partition('?')[0]}")
        try:
            return self.carry(lambda dialect: Call(request, dialect.read_json))
        except ViduError as error:
            if request.bills and outcome_is_unknown(error):
                what = f"{request.method} {request.path.partition('?')[0]}"
                raise unknown_outcome(error, self._conn_id, what) from error
            raise

    def _hint(self, refusal: ViduError, body: Mapping[str, Any]) -> str:
        """Return what a refusal of a create does not say itself."""
        if isinstance(refusal, ViduCreditError):
            with suppress(ViduError):  # the refusal must not be hidden by the query's error
                if (left := self.carry(lambda dialect: dialect.credits()).remaining) is not None:
                    return f" Credits left: {left}."
        elif refusal.code == MODEL_NOT_FOUND and isinstance(model := body.get("model"), str):
            return "" if model in refusal.reason else f" (model {redacted(model, 100)})"
        return ""

    def _sent(self, config: ViduConfig, request: ApiRequest) -> ApiAnswer:
        if self._transport is None or self._transport.config != config:
            self.close()
            self._transport = _Transport(config)
        return self._transport.send(request)

    def listed(self, listing: Listing) -> list[Generation]:
        """Return the generations of the account's list, read page by page.

        :raises ViduConfigError: when the connection's dialect has no list.
        :raises ViduError: when the list could not be read.
        """
        self._walk(listing)
        return listing.generations

    def searched(self, search: Search) -> SearchResult:
        """Return what a search for a create finds in the account's list and in queries of undecided entries.

        :raises ViduError: when the list could not be read.
        """
        self._walk(search)
        while (name := search.undecided) is not None:
            self._check_time()
            entry: Generation | None = None
            try:
                # mypy infers no type for a lambda with a default.
                entry = self.carry(lambda dialect, name=name: dialect.query(name), name)  # type: ignore[misc]
            except ViduError as error:
                self._log.warning("Generation %s is on the list, but its query failed: %s", name, error)
            search.take_payload(name, entry)
        return search.result()

    def _walk(self, walk: Listing | Search) -> None:
        while (query := walk.query) is not None:
            self._check_time()
            try:
                # mypy infers no type for a lambda with a default.
                page = self.carry(lambda dialect, query=query: dialect.search(query))  # type: ignore[misc]
            except ViduResponseError as error:
                if error.code != TOO_LARGE or not walk.shrink():
                    raise
            except ViduRequestError:
                if not isinstance(walk, Search) or not walk.drop_filter():
                    raise
            else:
                walk.take(page)

    def _check_time(self) -> None:
        """Raise once the caller has given up: a hundred answers, each of which trickles, would take hours."""
        if (deadline := self._deadline()) is not None and deadline <= time.time():
            raise ViduError("The timeout expired while the list of generations was read. A retry reads it again.")

    def upload(self, content: BinaryIO, size: int, content_type: str) -> str:
        """Upload a file and return its address for requests; a failed upload is retried as a new one.

        :param content: the file, seekable; it is read from its beginning.
        :raises ViduConfigError: when the connection's dialect has no upload service.
        :raises ViduError: when the upload failed.
        """

        def upload(dialect: Dialect) -> Call[str]:
            opening = dialect.upload()

            def store(answer: ApiAnswer) -> str:
                opened = opening.read(answer)
                config = self._look_up(False)
                end = dialect.finish_upload(opened, put(opened.put_url, content, size, content_type, config.access()))
                return end.read(self._sent(config, end.request))

            return Call(opening.request, store)

        return self.carry(upload)


class _Transport:
    """Sends single requests of one connection; keeps sockets open between them."""

    def __init__(self, config: ViduConfig) -> None:
        self.config = config
        self._session = _Session()
        # No .netrc, no environment: only this package decides on proxies and trust.
        self._session.trust_env = False
        self._session.verify = config.verify is not False
        adapter = _TrustingAdapter(config)
        for scheme in ("https://", "http://"):  # cleartext may go through a proxy that speaks TLS
            self._session.mount(scheme, adapter)
        self._session.headers.clear()

    def close(self) -> None:
        self._session.close()

    def send(self, request: ApiRequest) -> ApiAnswer:
        """Send one request, once, and return the whole answer; redirects are not followed.

        The exchange takes at most ``TOTAL_TIMEOUTS`` timeouts, even if the answer trickles. For a request that bills, a
        truncated answer is returned as far as it came (see ``ApiAnswer.lost``).

        :raises ViduTransportError: when no answer came; ``sent`` says whether the request may have arrived.
        :raises ViduResponseError: when the answer exceeds ``request.bounds``, or cannot be unpacked.
        :raises ViduConfigError: when the proxy cannot be used; nothing was sent.
        """
        url = self.config.url(request)
        proxy = Secret(proxy_for(url, self.config.proxy) or "")  # hidden from tracebacks that show local variables
        if request.bills:
            # On an idle connection that was closed, or silently dropped in between, the outcome would be unknown.
            self._session.close()  # closes only the open sockets: it reconnects
        exchange = Exchange(self.config.timeout, TOTAL_TIMEOUTS * self.config.timeout)
        with running(exchange), forgetting_variables():
            outcome = self._exchange(request, url, proxy, exchange)
        if exchange.is_spoiled:
            self._session.close()  # further bytes on its connection belong to no request
        if isinstance(outcome, ViduError):
            # Raised outside of any handler: the library's errors hold the request with its headers, including the key.
            raise outcome
        return outcome

    def _exchange(self, request: ApiRequest, url: str, proxy: Secret, exchange: Exchange) -> ApiAnswer | ViduError:
        try:
            with self._session.request(
                request.method,
                url,
                headers=self.config.request_headers(),
                json=None if request.body is None else dict(request.body),
                timeout=self.config.timeout,
                allow_redirects=False,
                stream=True,
                proxies=dict.fromkeys(("http", "https"), proxy.reveal()) if proxy.reveal() else None,
            ) as response:
                body = IncomingBody(response.headers.get("content-encoding", ""), request.bounds)
                lost = self._read(response, body, exchange)
                if response.status_code == SWITCHING_PROTOCOLS:
                    return unasked_switch()
                if lost is not None and not _counts(lost, response.status_code, request, body):
                    return lost
                return self.config.answer(
                    response.status_code, response.headers.items(), body.content, request.bounds.values, lost
                )
        except _NETWORK_ERRORS as error:
            return self._transport_error(error, exchange)

    def _read(self, response: requests.Response, body: IncomingBody, exchange: Exchange) -> ViduError | None:
        """Read the body; return the error that ended it too early, if any. It is unpacked here, within limits."""
        try:
            # read1 returns bytes as they arrive: iter_content would wait through a trickle until a chunk is full.
            while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
                body.feed(chunk)
            body.end()
        except BodyError as error:
            return unreadable(error, response.status_code)
        except _NETWORK_ERRORS as error:
            return self._transport_error(error, exchange, has_answer=True)
        return None

    def _transport_error(self, error: Exception, exchange: Exchange, *, has_answer: bool = False) -> ViduTransportError:
        loss = _loss(error, exchange, is_secure=self.config.origin[0] == "https", has_answer=has_answer)
        return self.config.no_answer(loss, str(_root(error)))


def _counts(lost: ViduError, status: int, request: ApiRequest, body: IncomingBody) -> bool:
    """Whether an incomplete answer counts: for a create, any body may hold the id, and a status may refuse it."""
    if request.bills and (body.received or status >= 400):
        return True
    return isinstance(lost, ViduResponseError) and outlives_its_body(status)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: to resolve a redirect, requests would read and unpack its whole body."""


class _TrustingAdapter(HTTPAdapter):
    """Verifies servers with the TLS context that the whole provider shares."""

    def __init__(self, config: ViduConfig) -> None:
        self._context = ssl_context(config.verify)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("https:"):  # the only kind with a certificate of its own
            kwargs["proxy_ssl_context"] = self._context
        manager = super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        return login_headers(proxy)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        # requests would set certifi's bundle here, and urllib3 would load it into the shared context.
        conn.cert_reqs = "CERT_REQUIRED" if verify else "CERT_NONE"
        conn.ca_certs = conn.ca_cert_dir = None


def _root(error: BaseException) -> BaseException:
    """Return the innermost reason: the outer layers repeat it with addresses of objects."""
    reasons = (getattr(error, "reason", None), *error.args)
    inner = next((reason for reason in reasons if isinstance(reason, BaseException)), None)
    return error if inner is None else _root(inner)


def _loss(error: Exception, exchange: Exchange, *, is_secure: bool, has_answer: bool) -> TransportFailure:
    root = _root(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        return TransportFailure.UNTRUSTED
    # With TLS 1.3 the server refuses the handshake after the client has ended it and sent its request, which no
    # service gets then.
    if not has_answer and getattr(root, "reason", None) in _NO_CLIENT_CERTIFICATE:
        return TransportFailure.NO_CERTIFICATE
    is_late = isinstance(error, requests.Timeout) or isinstance(root, (ReadTimeoutError, TimeoutError))
    if not exchange.sent:
        if is_late or exchange.is_over:
            return TransportFailure.UNREACHED
        failed_handshake = is_secure and exchange.reached and isinstance(root, (ssl.SSLError, ConnectionError))
        return TransportFailure.NO_TLS if failed_handshake else TransportFailure.UNMADE
    if exchange.is_over:
        return TransportFailure.SLOW
    return TransportFailure.SILENT if is_late else TransportFailure.BROKEN
