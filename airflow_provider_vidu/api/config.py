"""What an Airflow connection of type ``vidu`` says, checked and without I/O.

``ViduConfig.from_connection`` is the only place that reads a connection's fields; its errors name
the connection and the field. The API key lives in a :class:`Secret`, which shows itself to nobody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, urlsplit

from airflow_provider_vidu.api.dialects import DEFAULT_DIALECT, DIALECTS, Dialect
from airflow_provider_vidu.api.messages import ApiAnswer, ApiRequest, check_template
from airflow_provider_vidu.common.redaction import Redactor, Secret, is_secret_header
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.common.values import number
from airflow_provider_vidu.defaults import SWITCH
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.network.allowed_hosts import parse_allowed
from airflow_provider_vidu.network.bodies import SINGLE
from airflow_provider_vidu.network.limits import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT, USER_AGENT
from airflow_provider_vidu.network.origins import Origin, is_loopback, origin_of
from airflow_provider_vidu.network.proxies import environment_secrets, secrets_of
from airflow_provider_vidu.network.target import DownloadAccess, deployment_hosts

NO_SCHEME: Final = "none"
"""As ``auth_scheme``: the key is sent alone (``Authorization: KEY``), as some gateways want it."""
EXTRA_PREFIX: Final = "extra__vidu__"
"""What Airflow 2 put before the names of extras; a field is read with and without it."""
SHORTEST_STRUCK: Final = 8
"""Secrets shorter than this are struck out of error answers only."""

_RESERVED_HEADERS: Final = frozenset({"authorization", "host", "content-length", "transfer-encoding"})
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

    :param conn_id: the connection it came from; errors name it.
    :param base_url: scheme, host, port and path prefix, without a trailing slash.
    :param auth_scheme: the authorization scheme before the key, such as ``Bearer``; empty where the key stands alone.
    :param api_key: the key; travels to :attr:`origin` only.
    :param timeout: seconds to connect, and seconds of silence that are tolerated.
    :param max_retries: how often a failed request is repeated.
    :param verify: true, false, or the path of a CA bundle.
    :param proxy: URL of an HTTP proxy, hidden because it may hold a password.
    :param headers: further headers of every API request, hidden because they may hold tokens.
    :param allowed_hosts: hosts and networks a download may come from although their address is private.
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
    # Worked out once, for both are needed several times per poll.
    _secrets: tuple[Secret, ...] = field(init=False, compare=False, repr=False)
    _redactor: Redactor = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        found = self._find_secrets()
        object.__setattr__(self, "_secrets", tuple(map(Secret, found)))
        object.__setattr__(self, "_redactor", Redactor(found))

    @classmethod
    def from_connection(cls, conn_id: str, conn: AirflowConnection, extra: Mapping[str, Any]) -> ViduConfig:
        """Read and check a connection.

        :param conn_id: its id, for the errors.
        :param conn: the connection; host, schema, port and password are read.
        :param extra: its extras, already decoded.
        :raises ViduConfigError: naming the connection and the field that is wrong.
        """
        read = _Fields(conn_id, extra)
        dialect = _dialect(read)
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
            allowed_hosts=_allowed_hosts(read),
        )

    def access(self) -> DownloadAccess:
        """Return what this connection grants to a download or an upload."""
        own = ("accept", "accept-encoding", "content-type", "user-agent")
        carried = {name: Secret(value) for name, value in self.request_headers().items() if name.lower() not in own}
        return DownloadAccess(
            origin=self.origin,
            headers=tuple(carried.items()),
            allowed_hosts=self.allowed_hosts | deployment_hosts(),
            timeout=self.timeout,
            max_retries=self.max_retries,
            verify=self.verify,
            proxy=self.proxy,
            secrets=tuple(map(Secret, self.secrets())),
        )

    @property
    def origin(self) -> Origin:
        """The only origin that ever sees the key."""
        found = origin_of(self.base_url)
        assert found is not None  # base_url was checked when it was built
        return found

    @property
    def is_cleartext(self) -> bool:
        """Whether the key would travel unencrypted to another machine."""
        scheme, host, _ = self.origin
        return scheme == "http" and not is_loopback(host)

    def url(self, request: ApiRequest) -> str:
        """Return the absolute URL of ``request``, to be sent verbatim."""
        return self.base_url + request.path

    def request_headers(self) -> dict[str, str]:
        """Return the headers of an API request, the key among them."""
        key = self.api_key.reveal()
        ours = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            # Both headers are marked as required, even on the GET (gateway's API page).
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "Authorization": f"{self.auth_scheme} {key}" if self.auth_scheme else key,
        }
        # Names are compared without their case, or a header would go out twice.
        theirs = {name.lower(): (name, value.reveal()) for name, value in self.headers}
        return {name: value for name, value in ours.items() if name.lower() not in theirs} | dict(theirs.values())

    def secrets(self) -> list[str]:
        """Return every string that must be masked in logs."""
        return [secret.reveal() for secret in self._secrets]

    def _find_secrets(self) -> list[str]:
        found = {self.api_key.reveal()}
        found |= environment_secrets() | (secrets_of(self.proxy) if self.proxy else set())
        found |= {value.reveal() for name, value in self.headers if is_secret_header(name, value.reveal())}
        # The longest first: a short one may be the beginning of a long one.
        return sorted(filter(None, found), key=lambda secret: (-len(secret), secret))

    def answer(
        self,
        status: int,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        most_values: int = SINGLE.values,
        lost: ViduError | None = None,
    ) -> ApiAnswer:
        """Return an answer out of which every secret is struck when it is read.

        Some gateways quote the key in their refusal; from here on no message can hold it. In a good
        answer a short secret is left alone: it would make holes into ids and URLs.

        :param body: as it was before its ``Content-Encoding``.
        :param most_values: the most values that are parsed.
        :param lost: the error that ended the body too early.
        """
        lowered = {name.lower(): value for name, value in headers}
        told = "\n".join(lowered.values())
        if self.redact(told) != told:
            lowered = {name: self.redact(value) for name, value in lowered.items()}
        shortest = 0 if status >= 400 else SHORTEST_STRUCK
        return ApiAnswer(status, lowered, body, lambda text: self.redact(text, shortest), most_values, lost)

    def redact(self, text: str, shortest: int = 0) -> str:
        """Return ``text`` with every secret of at least ``shortest`` characters replaced by three stars.

        Percent-encoded, HTML, JSON and base64 spellings are found as well.
        """
        return self._redactor.redact(text, shortest)


def is_blank(value: object) -> bool:
    """Whether an extra holds nothing: the form stores an empty field as null or as empty text."""
    return value is None or (isinstance(value, str) and not value.strip())


class _Fields:
    """Reads single extras; every complaint names the connection and the field."""

    def __init__(self, conn_id: str, extra: Mapping[str, Any]) -> None:
        self.conn_id = conn_id
        self.extra = extra

    def error(self, name: str, problem: str) -> ViduConfigError:
        return ViduConfigError(f"Connection {self.conn_id!r}, field {name!r}: {problem}", conn_id=self.conn_id)

    def raw(self, name: str) -> Any:
        # Older Airflow stored the form's fields under prefixed names.
        found = (self.extra.get(spelling) for spelling in (name, EXTRA_PREFIX + name))
        return next((value for value in found if not is_blank(value)), None)

    def word(self, name: str) -> str | None:
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value.isprintable():
            raise self.error(name, f"must be text, not {type(value).__name__} or control characters.")
        return value.strip()

    def number(self, name: str, default: float, *, above: float, most: float, whole: bool = False) -> float:
        value = self.raw(name)
        if value is None:
            return default
        found = None if isinstance(value, str) and "%" in value else number(value)
        kind = "a whole number" if whole else "a number"
        if found is None or not above < found <= most or (whole and not found.is_integer()):
            raise self.error(
                name, f"must be {kind} above {above:g} and at most {most:g}, not {sanitized(value, 40)!r}."
            )
        return found

    def checked(self, name: str, check: Callable[[str], str]) -> str | None:
        value = self.word(name)
        if value is None:
            return None
        try:
            return check(value)
        except ViduConfigError as error:
            raise self.error(name, error.reason) from None


def _dialect(read: _Fields) -> Dialect:
    name = (read.word("dialect") or DEFAULT_DIALECT).lower()
    if name not in DIALECTS:
        raise read.error("dialect", f"{sanitized(name, 40)!r} is none of: {', '.join(DIALECTS)}.")
    return DIALECTS[name](
        read.checked("query_path", lambda path: check_template("query_path", path, required=("id",))),
        read.checked("create_path", lambda path: _create_path(path, DIALECTS[name])),
    )


def _create_path(path: str, dialect: type[Dialect]) -> str:
    if "{endpoint}" in path and "{endpoint}" not in dialect.default_create_path:
        raise ViduConfigError(f"the dialect {dialect.name} has a single endpoint: {{endpoint}} has no place in it.")
    return check_template("create_path", path)


def _auth_scheme(read: _Fields, dialect: Dialect) -> str:
    scheme = read.word("auth_scheme")
    if scheme is None:
        return dialect.auth_scheme
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", scheme):
        raise read.error("auth_scheme", "must be one word of plain letters, such as Bearer or Token, or none.")
    return "" if scheme.lower() == NO_SCHEME else scheme


def _api_key(read: _Fields, conn: AirflowConnection, auth_scheme: str) -> str:
    key = (conn.password or "").strip()
    if not key:
        where = " The login, which is not used, holds something." if getattr(conn, "login", None) else ""
        raise read.error("password", f"the API key is missing. Put it into the connection's password (API key).{where}")
    if not key.isascii() or not key.isprintable():
        raise read.error("password", "the API key holds characters that no HTTP header can carry.")
    if auth_scheme and _PASTED_SCHEME.match(key):
        raise read.error(
            "password", "begins with an authorization scheme (Bearer, Token): give the key alone, the scheme is added."
        )
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
        # The host is not quoted: somebody may have put the key into it.
        raise read.error("host", "is not a URL. Example: https://gateway.example.com/prefix") from None
    _check_host(read, parts, host)
    if port and conn.port and port != conn.port:
        raise read.error("port", f"is {conn.port}, but the host says {port}. Leave one of them out.")
    # 0 means "not set": the UI's Test button sends it for a port that is empty.
    if conn.port is not None and not 0 <= conn.port < 65536:
        raise read.error("port", f"{conn.port} is no port: give a number between 1 and 65535.")
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
        raise read.error("host", "holds no host name. Example: https://gateway.example.com/prefix")
    if "@" in parts.netloc:
        raise read.error("host", "must not hold a user or key; the API key belongs into the password.")
    if parts.query or parts.fragment:
        raise read.error("host", "must not have a query or fragment.")
    if not host.isprintable() or not host.isascii() or " " in host or "\\" in host or "%" in parts.netloc:
        raise read.error("host", "holds characters that a URL cannot have.")


def _verify(read: _Fields) -> bool | str:
    value = read.raw("verify")
    if value is None or isinstance(value, bool):
        return True if value is None else value
    word = str(value).strip() if isinstance(value, (str, int)) else ""
    if word.lower() in SWITCH:
        return SWITCH[word.lower()]
    if isinstance(value, str):
        return word
    raise read.error("verify", "must be true, false or the path of a CA bundle.")


def _proxy(read: _Fields) -> Secret | None:
    value = read.word("proxy")
    if value is None:
        return None
    if origin_of(value) is None:
        socks = " (SOCKS is not supported)" if value.lower().startswith("socks") else ""
        raise read.error("proxy", f"must be the URL of an HTTP proxy{socks}, such as http://proxy.example.com:3128")
    return Secret(value)


def _headers(read: _Fields) -> tuple[tuple[str, Secret], ...]:
    value = read.raw("headers")
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):  # nothing is raised from it: json's error holds the whole text
            value = json.loads(value)
        if isinstance(value, str):
            raise read.error("headers", 'is no JSON. Example: {"X-Team": "media"}')
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise read.error("headers", 'must be a JSON object. Example: {"X-Team": "media"}')
    return tuple(_header(read, str(name), item) for name, item in value.items())


def _header(read: _Fields, name: str, value: Any) -> tuple[str, Secret]:
    # The masker replaces values inside the extra; a header name or value may not smuggle a line break.
    token = name.replace("-", "").replace("_", "")
    if not token.isascii() or not token.isalnum():
        raise read.error("headers", f"{sanitized(name, 40)!r} is no header name.")
    if name.lower() in _RESERVED_HEADERS:
        raise read.error("headers", f"{name} is set by the provider; use password and auth_scheme for the key.")
    if not isinstance(value, (str, int, float)) or not str(value).isprintable() or not str(value).isascii():
        raise read.error("headers", f"the value of {name} must be printable ASCII text.")
    return name, Secret(str(value).strip())


def _allowed_hosts(read: _Fields) -> frozenset[str]:
    try:
        return parse_allowed(read.raw("allowed_hosts"))
    except ViduConfigError as error:
        raise read.error("allowed_hosts", error.reason) from None
