"""The settings of an Airflow connection of type ``vidu``, and what a request may use of them. No I/O.

Only :meth:`ViduConfig.from_connection` reads a connection's fields (:mod:`.fields`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_vidu.api.dialects import Dialect
from airflow_provider_vidu.api.messages import PLAIN_HTTP, ApiAnswer, ApiRequest, RedactedHeaders, TransportFailure
from airflow_provider_vidu.api.settings.fields import (
    AirflowConnection,
    Fields,
    api_key_of,
    auth_scheme_of,
    base_url_of,
    dialect_of,
    headers_of,
    max_in_flight_of,
    min_balance_of,
    proxy_of,
    verify_of,
)
from airflow_provider_vidu.common.origins import Origin, is_loopback, origin_of
from airflow_provider_vidu.common.redaction import Redactor, Secret, is_secret_header
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import ViduError, ViduTransportError
from airflow_provider_vidu.network.allowed_hosts import parse_allowed
from airflow_provider_vidu.network.bodies import SINGLE
from airflow_provider_vidu.network.download_url import DownloadAccess, deployment_hosts
from airflow_provider_vidu.network.limits import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT, TOTAL_TIMEOUTS, USER_AGENT
from airflow_provider_vidu.network.proxies import environment_secrets, secrets_of

_MIN_REDACTED_CHARS: Final = 8
"""Shorter secrets are redacted in error answers only."""


@dataclass(frozen=True, slots=True)
class ViduConfig:
    """A checked connection.

    :param base_url: scheme, host, port and path prefix, without a trailing slash.
    :param auth_scheme: the authorization scheme before the key, such as ``Bearer``; empty for none.
    :param api_key: the key; travels to :attr:`origin` only.
    :param timeout: seconds to connect, and seconds without a byte, before a request fails.
    :param max_retries: how often a failed request is retried.
    :param verify: true, false, or the path of a CA bundle.
    :param proxy: URL of an HTTP proxy; may hold a password.
    :param headers: further headers of every API request; may hold tokens.
    :param allowed_hosts: hosts and networks that downloads may come from although their addresses are private.
    :param max_in_flight: how many generations may run at once; None leaves it to the service.
    :param min_balance: credits below which nothing is submitted; None for no floor.
    """

    conn_id: str
    base_url: str
    dialect: Dialect
    auth_scheme: str
    api_key: Secret
    timeout: float = DEFAULT_TIMEOUT
    max_retries: int = DEFAULT_MAX_RETRIES
    verify: bool | str = True
    proxy: Secret | None = None
    headers: tuple[tuple[str, Secret], ...] = ()
    allowed_hosts: frozenset[str] = frozenset()
    max_in_flight: int | None = None
    min_balance: float | None = None
    # Computed once: both are needed several times per poll.
    _secrets: tuple[Secret, ...] = field(init=False, compare=False, repr=False)
    _redactor: Redactor = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        secrets = self._find_secrets()
        object.__setattr__(self, "_secrets", tuple(map(Secret, secrets)))
        object.__setattr__(self, "_redactor", Redactor(secrets))

    @classmethod
    def from_connection(cls, conn_id: str, conn: AirflowConnection, extra: Mapping[str, Any]) -> ViduConfig:
        """Read and check a connection.

        :param extra: its extras, already decoded.
        :raises ViduConfigError: naming the connection and the field that is wrong.
        """
        read = Fields(conn_id, extra)
        dialect = dialect_of(read, conn)
        auth_scheme = auth_scheme_of(read, dialect)
        return cls(
            conn_id=conn_id,
            base_url=base_url_of(read, conn, dialect),
            dialect=dialect,
            auth_scheme=auth_scheme,
            api_key=Secret(api_key_of(read, conn, auth_scheme)),
            timeout=read.number("timeout", DEFAULT_TIMEOUT, above=0, most=3600),
            max_retries=int(read.number("max_retries", DEFAULT_MAX_RETRIES, above=-1, most=100, whole=True)),
            verify=verify_of(read),
            proxy=proxy_of(read),
            headers=headers_of(read),
            allowed_hosts=read.checked("allowed_hosts", parse_allowed, read.raw("allowed_hosts")) or frozenset(),
            max_in_flight=max_in_flight_of(read),
            min_balance=min_balance_of(read, dialect),
        )

    def access(self) -> DownloadAccess:
        """Return what a download or an upload may use of this connection."""
        own = ("accept", "accept-encoding", "content-type", "user-agent")
        headers = ((name, value) for name, value in self.request_headers().items() if name.lower() not in own)
        return DownloadAccess(
            origin=self.origin,
            headers=tuple((name, Secret(value)) for name, value in headers),
            allowed_hosts=self.allowed_hosts | deployment_hosts(),
            timeout=self.timeout,
            max_retries=self.max_retries,
            verify=self.verify,
            proxy=self.proxy,
            secrets=self._secrets,
        )

    @property
    def origin(self) -> Origin:
        """The only origin that the key is ever sent to."""
        origin = origin_of(self.base_url)
        assert origin is not None  # base_url was checked when it was built
        return origin

    @property
    def is_cleartext(self) -> bool:
        """Whether the key would travel unencrypted to another machine."""
        scheme, host, _ = self.origin
        return scheme == "http" and not is_loopback(host)

    def url(self, request: ApiRequest) -> str:
        """Return the absolute URL of ``request``, to be sent verbatim."""
        return self.base_url + request.path

    def request_headers(self) -> dict[str, str]:
        """Return the headers of an API request, including the key."""
        key = self.api_key.reveal()
        ours = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            # Documented as required, even for a GET (gateway's API page).
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "Authorization": f"{self.auth_scheme} {key}" if self.auth_scheme else key,
        }
        # Names are compared case-insensitively, or a header would be sent twice.
        theirs = {name.lower(): (name, value.reveal()) for name, value in self.headers}
        return {name: value for name, value in ours.items() if name.lower() not in theirs} | dict(theirs.values())

    def secrets(self) -> list[str]:
        """Return every string that must be masked in logs."""
        return [secret.reveal() for secret in self._secrets]

    def _find_secrets(self) -> list[str]:
        secrets = {self.api_key.reveal()}
        secrets |= environment_secrets() | (secrets_of(self.proxy) if self.proxy else set())
        secrets |= {value.reveal() for name, value in self.headers if is_secret_header(name, value.reveal())}
        # Longest first: a short one may be the beginning of a long one.
        return sorted(filter(None, secrets), key=lambda secret: (-len(secret), secret))

    def answer(
        self,
        status: int,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        most_values: int = SINGLE.values,
        lost: ViduError | None = None,
    ) -> ApiAnswer:
        """Return an answer that redacts every secret when it is read: some gateways quote the key in their refusal.

        In a good answer short secrets stay: redacting them would damage ids and URLs.

        :param body: with its ``Content-Encoding`` removed.
        :param most_values: how many values are parsed at most.
        :param lost: the error that ended the body too early.
        """
        lowered = RedactedHeaders({name.lower(): value for name, value in headers}, self.redact)
        shortest = 0 if status >= 400 else _MIN_REDACTED_CHARS
        return ApiAnswer(status, lowered, body, lambda text: self.redact(text, shortest), most_values, lost)

    def no_answer(self, loss: TransportFailure, reason: str) -> ViduTransportError:
        """Return the error of an exchange without an answer, worded the same for both clients.

        :param loss: how it ended.
        """
        what, advice, sent = loss.value
        limits = {
            TransportFailure.UNREACHED: self.timeout,
            TransportFailure.SILENT: self.timeout,
            TransportFailure.SLOW: TOTAL_TIMEOUTS * self.timeout,
        }
        limit = f" ({limits[loss]:g} s)" if loss in limits else ""
        scheme, host, port = self.origin
        if loss is TransportFailure.UNREACHED and scheme == "https" and port != 443:
            # Some servers of plain HTTP take a TLS handshake for a line, and wait for its end.
            advice += f" {PLAIN_HTTP}"
        host = f"[{host}]" if ":" in host else host
        reason = redacted(self.redact(reason)).rstrip(".")
        return ViduTransportError(
            f"The connection to {scheme}://{host}:{port} {what}{limit}: {reason}. {advice}",
            conn_id=self.conn_id,
            sent=sent,
        )

    def redact(self, text: str, shortest: int = 0) -> str:
        """Return ``text`` with every secret of at least ``shortest`` characters replaced by three stars.

        This includes its percent-encoded, HTML, JSON and base64 spellings.
        """
        return self._redactor.redact(text, shortest)
