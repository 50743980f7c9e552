"""The settings of an Airflow connection of type ``vidu``, checked without I/O.

Only ``ViduConfig.from_connection`` reads a connection's fields; its errors name the connection and the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from airflow_provider_vidu.api.dialects import DEFAULT_DIALECT, DIALECTS, Dialect, EntV2
from airflow_provider_vidu.api.messages import PLAIN_HTTP, ApiAnswer, ApiRequest, TransportFailure, check_template
from airflow_provider_vidu.common.redaction import Redactor, Secret, is_secret_header
from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.common.values import number
from airflow_provider_vidu.defaults import SWITCH
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduTransportError
from airflow_provider_vidu.network.allowed_hosts import parse_allowed
from airflow_provider_vidu.network.bodies import SINGLE
from airflow_provider_vidu.network.limits import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT, TOTAL_TIMEOUTS, USER_AGENT
from airflow_provider_vidu.network.origins import Origin, is_loopback, origin_of
from airflow_provider_vidu.network.proxies import environment_secrets, secrets_of, with_password
from airflow_provider_vidu.network.target import DownloadAccess, deployment_hosts

NO_SCHEME: Final = "none"
"""As ``auth_scheme``: the header is the key without a scheme (``Authorization: KEY``), as some gateways require."""
EXTRA_PREFIX: Final = "extra__vidu__"
"""The prefix that Airflow 2 put before the names of extras; a field is read with and without it."""

T = TypeVar("T")
_MIN_REDACTED_CHARS: Final = 8
"""Shorter secrets are redacted in error answers only."""
_RESERVED_HEADERS: Final = frozenset({"authorization", "host", "content-length", "transfer-encoding"})
_OFFICIAL_HOST: Final = re.compile(r"(?i)(https?://)?api\.vidu\.(com|cn)([:/].*)?")
_PASTED_SCHEME: Final = re.compile(r"(?i)(bearer|token)\s")


class AirflowConnection(Protocol):
    """The fields of an Airflow connection that are read here."""

    host: str | None
    schema: str | None
    password: str | None
    port: int | None


@dataclass(frozen=True, slots=True)
class ViduConfig:
    """A checked connection.

    :param conn_id: its id; errors name it.
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
        read = _Fields(conn_id, extra)
        dialect = _dialect(read, conn)
        auth_scheme = _auth_scheme(read, dialect)
        return cls(
            conn_id=conn_id,
            base_url=_base_url(read, conn, dialect),
            dialect=dialect,
            auth_scheme=auth_scheme,
            api_key=Secret(_api_key(read, conn, auth_scheme)),
            timeout=read.number("timeout", DEFAULT_TIMEOUT, above=0, most=3600),
            max_retries=int(read.number("max_retries", DEFAULT_MAX_RETRIES, above=-1, most=100, whole=True)),
            verify=_verify(read),
            proxy=_proxy(read),
            headers=_headers(read),
            allowed_hosts=read.checked("allowed_hosts", parse_allowed, read.raw("allowed_hosts")) or frozenset(),
            max_in_flight=None
            if read.raw("max_in_flight") is None
            else int(read.number("max_in_flight", 1, above=0, most=100_000, whole=True)),
            min_balance=_min_balance(read, dialect),
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
        lowered = {name.lower(): value for name, value in headers}
        values = "\n".join(lowered.values())
        if self.redact(values) != values:
            lowered = {name: self.redact(value) for name, value in lowered.items()}
        shortest = 0 if status >= 400 else _MIN_REDACTED_CHARS
        return ApiAnswer(status, lowered, body, lambda text: self.redact(text, shortest), most_values, lost)

    def no_answer(self, loss: TransportFailure, reason: str) -> ViduTransportError:
        """Return the error of an exchange without an answer, worded the same for both clients.

        :param loss: how it ended.
        :param reason: the HTTP client's error.
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


def is_blank(value: object) -> bool:
    """Whether an extra is empty: the form stores an empty field as null or as empty text."""
    return value is None or (isinstance(value, str) and not value.strip())


@dataclass(frozen=True, slots=True)
class _Fields:
    """Reads single extras; every error names the connection and the field."""

    conn_id: str
    extra: Mapping[str, Any]

    def error(self, name: str, problem: str) -> ViduConfigError:
        return ViduConfigError(f"Connection {self.conn_id!r}, field {name!r}: {problem}", conn_id=self.conn_id)

    def raw(self, name: str) -> Any:
        # Older Airflow stored the form's fields under prefixed names.
        values = (self.extra.get(spelling) for spelling in (name, EXTRA_PREFIX + name))
        return next((value for value in values if not is_blank(value)), None)

    def word(self, name: str) -> str | None:
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value.isprintable():
            raise self.error(name, f"must be text without control characters (got {type(value).__name__}).")
        return value.strip()

    def number(self, name: str, default: float, *, above: float, most: float, whole: bool = False) -> float:
        value = self.raw(name)
        if value is None:
            return default
        parsed = None if isinstance(value, str) and "%" in value else number(value)
        kind = "a whole number" if whole else "a number"
        if parsed is None or not above < parsed <= most or (whole and not parsed.is_integer()):
            raise self.error(
                name, f"must be {kind} above {above:g} and at most {most:g}, not {sanitized(value, 40)!r}."
            )
        return parsed

    def checked(self, name: str, check: Callable[[Any], T], value: Any) -> T | None:
        try:
            return None if value is None else check(value)
        except ViduConfigError as error:
            raise self.error(name, error.reason) from None


def _dialect(read: _Fields, conn: AirflowConnection) -> Dialect:
    """Return the dialect that is set; if none is, the one that the official hosts speak, or else the default."""
    default = EntV2.name if _OFFICIAL_HOST.fullmatch((conn.host or "").strip()) else DEFAULT_DIALECT
    name = (read.word("dialect") or default).lower()
    if name not in DIALECTS:
        raise read.error("dialect", f"must be one of {', '.join(DIALECTS)}, not {sanitized(name, 40)!r}.")
    kind, create_path = DIALECTS[name], read.word("create_path")
    if create_path and "{endpoint}" in create_path and "{endpoint}" not in kind.default_create_path:
        raise read.error("create_path", f"the dialect {name} has a single endpoint: remove {{endpoint}}.")
    return kind(
        read.checked(
            "query_path", lambda path: check_template("query_path", path, required=("id",)), read.word("query_path")
        ),
        read.checked("create_path", lambda path: check_template("create_path", path), create_path),
    )


def _min_balance(read: _Fields, dialect: Dialect) -> float | None:
    if read.raw("min_balance") is None:
        return None
    if not dialect.has_balance:
        raise read.error("min_balance", f"the dialect {dialect.name} has no balance to compare with.")
    return read.number("min_balance", 0, above=-1, most=1e15)


def _auth_scheme(read: _Fields, dialect: Dialect) -> str:
    scheme = read.word("auth_scheme")
    if scheme is None:
        return dialect.auth_scheme
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", scheme):
        raise read.error("auth_scheme", "must be one word such as Bearer or Token, or none.")
    return "" if scheme.lower() == NO_SCHEME else scheme


def _api_key(read: _Fields, conn: AirflowConnection, auth_scheme: str) -> str:
    key = (conn.password or "").strip()
    if not key:
        hint = " The login, which is not used, is set." if getattr(conn, "login", None) else ""
        raise read.error("password", f"the API key is missing. Set the connection's password (API key) to it.{hint}")
    if not key.isascii() or not key.isprintable():
        raise read.error("password", "the API key contains characters that an HTTP header cannot carry.")
    if auth_scheme and _PASTED_SCHEME.match(key):
        raise read.error("password", "starts with an authorization scheme (Bearer, Token). Enter the key without it.")
    return key


def _base_url(read: _Fields, conn: AirflowConnection, dialect: Dialect) -> str:
    host = (conn.host or "").strip() or dialect.default_host
    if not host:
        raise read.error("host", "the base URL is missing. Example: https://gateway.example.com/prefix")
    if "://" not in host:
        host = f"{(conn.schema or '').strip() or 'https'}://{host}"
    try:
        parts, port = urlsplit(host), urlsplit(host).port
    except ValueError:
        # The host is not quoted: it may contain the key by mistake.
        raise read.error("host", "is not a URL. Example: https://gateway.example.com/prefix") from None
    _check_host(read, parts, host)
    if port and conn.port and port != conn.port:
        raise read.error("port", f"is {conn.port}, but the host says {port}. Remove one of them.")
    # 0 means "not set": the UI's Test button sends it for an empty port.
    if conn.port is not None and not 0 <= conn.port < 65536:
        raise read.error("port", f"must be between 1 and 65535, not {conn.port}.")
    port = port or conn.port
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    prefix = parts.path.rstrip("/")
    if all(path.startswith(dialect.root) for path in (dialect.query_path, dialect.create_path)):
        prefix = prefix.removesuffix(dialect.root).rstrip("/")
    return f"{parts.scheme.lower()}://{name}{f':{port}' if port else ''}{prefix}"


def _check_host(read: _Fields, parts: SplitResult, host: str) -> None:
    if parts.scheme.lower() not in ("http", "https"):
        raise read.error("host", f"the scheme must be https (or http), not {sanitized(parts.scheme, 20)!r}.")
    if not parts.hostname:
        raise read.error("host", "contains no host name. Example: https://gateway.example.com/prefix")
    if "@" in parts.netloc:
        raise read.error("host", "must not contain a user or key; the API key belongs in the password.")
    if parts.query or parts.fragment:
        raise read.error("host", "must not have a query or fragment.")
    if not host.isprintable() or not host.isascii() or " " in host or "\\" in host or "%" in parts.netloc:
        raise read.error("host", "contains characters that are not allowed in a URL.")


def _verify(read: _Fields) -> bool | str:
    value = read.raw("verify")
    if value is None:
        return True
    word = str(value).strip() if isinstance(value, (str, int)) else ""
    if word.lower() in SWITCH:
        return SWITCH[word.lower()]
    if isinstance(value, str):
        return word
    raise read.error("verify", "must be true, false or the path of a CA bundle.")


def _proxy(read: _Fields) -> Secret | None:
    name, value = next(((name, value) for name in ("via", "proxy") if (value := read.word(name))), ("via", None))
    password = read.word("proxy_password")
    if value is None:
        if password is not None:
            raise read.error("proxy_password", "is set, but via is empty. Set the proxy, or remove its password.")
        return None
    if origin_of(value) is None:
        socks = " (SOCKS is not supported)" if value.lower().startswith("socks") else ""
        raise read.error(name, f"must be the URL of an HTTP proxy{socks}, such as http://proxy.example.com:3128")
    if name == "via" and urlsplit(value).password is not None:  # the form shows this field
        raise read.error(name, "must not hold a password, because Airflow shows this field: set proxy_password.")
    proxy = Secret(value)
    if password is None:
        return proxy
    return read.checked("proxy_password", partial(with_password, proxy), Secret(password))


def _headers(read: _Fields) -> tuple[tuple[str, Secret], ...]:
    value = read.raw("headers")
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):  # json's error contains the whole text
            value = json.loads(value)
        if isinstance(value, str):
            raise read.error("headers", 'is not JSON. Example: {"X-Team": "media"}')
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise read.error("headers", 'must be a JSON object. Example: {"X-Team": "media"}')
    return tuple(_header(read, str(name), item) for name, item in value.items())


def _header(read: _Fields, name: str, value: Any) -> tuple[str, Secret]:
    # The masker replaces values inside the extra; a header name or value may not smuggle a line break.
    token = name.replace("-", "").replace("_", "")
    if not token.isascii() or not token.isalnum():
        raise read.error("headers", f"{sanitized(name, 40)!r} is not a header name.")
    if name.lower() in _RESERVED_HEADERS:
        raise read.error("headers", f"the provider sets {name}; use password and auth_scheme for the key.")
    if not isinstance(value, (str, int, float)) or not str(value).isprintable() or not str(value).isascii():
        raise read.error("headers", f"the value of {name} must be printable ASCII text.")
    return name, Secret(str(value).strip())
