"""Reads and checks the fields of an Airflow connection of type ``vidu``, one function each. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from airflow_provider_vidu.api.dialects import DEFAULT_DIALECT, DIALECTS, Dialect, EntV2
from airflow_provider_vidu.api.messages import check_template
from airflow_provider_vidu.common.origins import origin_of
from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.common.values import SWITCH, number
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.network.proxies import with_password

NO_SCHEME: Final = "none"
"""As ``auth_scheme``: the header is the key without a scheme (``Authorization: KEY``), as some gateways require."""
EXTRA_PREFIX: Final = "extra__vidu__"
"""The prefix that Airflow 2 put before the names of extras; a field is read with and without it."""

T = TypeVar("T")
_RESERVED_HEADERS: Final = frozenset({"authorization", "host", "content-length", "transfer-encoding"})
_OFFICIAL_HOST: Final = re.compile(r"(?i)(https?://)?api\.vidu\.(com|cn)([:/].*)?")
_PASTED_SCHEME: Final = re.compile(r"(?i)(bearer|token)\s")


class AirflowConnection(Protocol):
    """The fields of an Airflow connection that are read here."""

    host: str | None
    schema: str | None
    password: str | None
    port: int | None


def is_blank(value: object) -> bool:
    """Whether an extra is empty: the form stores an empty field as null or as empty text."""
    return value is None or (isinstance(value, str) and not value.strip())


@dataclass(frozen=True, slots=True)
class Fields:
    """The extras of a connection, read one by one; every error names the connection and the field.

    :param extra: its extras, already decoded.
    """

    conn_id: str
    extra: Mapping[str, Any]

    def error(self, name: str, problem: str) -> ViduConfigError:
        """Return the error of a field."""
        return ViduConfigError(f"Connection {self.conn_id!r}, field {name!r}: {problem}", conn_id=self.conn_id)

    def raw(self, name: str) -> Any:
        """Return an extra as it is stored; None if it is empty."""
        # Older Airflow stored the form's fields under prefixed names.
        values = (self.extra.get(spelling) for spelling in (name, EXTRA_PREFIX + name))
        return next((value for value in values if not is_blank(value)), None)

    def word(self, name: str) -> str | None:
        """Return an extra that is text, without the space around it."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value.isprintable():
            raise self.error(name, f"must be text without control characters (got {type(value).__name__}).")
        return value.strip()

    def number(self, name: str, default: float, *, above: float, most: float, whole: bool = False) -> float:
        """Return an extra that is a number above a bound and up to another."""
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
        """Return what ``check`` makes of a value; its error then names the field."""
        try:
            return None if value is None else check(value)
        except ViduConfigError as error:
            raise self.error(name, error.reason) from None


def dialect_of(read: Fields, conn: AirflowConnection) -> Dialect:
    """Return the dialect that is set; if none is, the one that the official hosts speak, or else the default."""
    default = EntV2.name if _OFFICIAL_HOST.fullmatch(_text(conn.host)) else DEFAULT_DIALECT
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


def max_in_flight_of(read: Fields) -> int | None:
    """Return how many generations may run at once; None leaves it to the service."""
    if read.raw("max_in_flight") is None:
        return None
    return int(read.number("max_in_flight", 1, above=0, most=100_000, whole=True))


def min_balance_of(read: Fields, dialect: Dialect) -> float | None:
    """Return the credits below which nothing is submitted; None for no floor."""
    if read.raw("min_balance") is None:
        return None
    if not dialect.has_balance:
        raise read.error("min_balance", f"the dialect {dialect.name} has no balance to compare with.")
    return read.number("min_balance", 0, above=-1, most=1e15)


def auth_scheme_of(read: Fields, dialect: Dialect) -> str:
    """Return the authorization scheme, as set or as the dialect needs it; empty to send the key without one."""
    scheme = read.word("auth_scheme")
    if scheme is None:
        return dialect.auth_scheme
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", scheme):
        raise read.error("auth_scheme", "must be one word such as Bearer or Token, or none.")
    return "" if scheme.lower() == NO_SCHEME else scheme


def api_key_of(read: Fields, conn: AirflowConnection, auth_scheme: str) -> str:
    """Return the API key."""
    key = _text(conn.password)
    if not key:
        hint = " The login, which is not used, is set." if getattr(conn, "login", None) else ""
        raise read.error("password", f"the API key is missing. Set the connection's password (API key) to it.{hint}")
    if not key.isascii() or not key.isprintable():
        raise read.error("password", "the API key contains characters that an HTTP header cannot carry.")
    if auth_scheme and _PASTED_SCHEME.match(key):
        raise read.error("password", "starts with an authorization scheme (Bearer, Token). Enter the key without it.")
    return key


def base_url_of(read: Fields, conn: AirflowConnection, dialect: Dialect) -> str:
    """Return scheme, host, port and path prefix, without a trailing slash."""
    host = _text(conn.host) or dialect.default_host
    if not host:
        raise read.error("host", "the base URL is missing. Example: https://gateway.example.com/prefix")
    if "://" not in host:
        host = f"{_text(conn.schema) or 'https'}://{host}"
    try:
        parts, port = urlsplit(host), urlsplit(host).port
    except ValueError:
        # The host is not quoted: it may contain the key by mistake.
        raise read.error("host", "is not a URL. Example: https://gateway.example.com/prefix") from None
    _check_host(read, parts, host)
    own = _port_of(read, conn)
    if port and own and port != own:
        raise read.error("port", f"is {own}, but the host says {port}. Remove one of them.")
    port = port or own
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    prefix = parts.path.rstrip("/")
    if all(path.startswith(dialect.root) for path in (dialect.query_path, dialect.create_path)):
        prefix = prefix.removesuffix(dialect.root).rstrip("/")
    return f"{parts.scheme.lower()}://{name}{f':{port}' if port else ''}{prefix}"


def _text(value: object) -> str:
    """Return a field of the connection without the space around it: of a secrets backend it may be a number."""
    is_text = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    return str(value).strip() if is_text else ""


def _port_of(read: Fields, conn: AirflowConnection) -> int | None:
    """Return the port; None if there is none. Of a secrets backend it may be text."""
    value: object = conn.port
    # 0 means "not set": the UI's Test button sends it for an empty port.
    if is_blank(value):
        return None
    parsed = number(value)
    if parsed is None or not parsed.is_integer() or not 0 <= parsed < 65536:
        raise read.error("port", f"must be between 1 and 65535, not {sanitized(value, 40)}.")
    return int(parsed)


def _check_host(read: Fields, parts: SplitResult, host: str) -> None:
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


def verify_of(read: Fields) -> bool | str:
    """Return true, false, or the path of a CA bundle."""
    value = read.raw("verify")
    if value is None:
        return True
    word = str(value).strip() if isinstance(value, (str, int)) else ""
    if word.lower() in SWITCH:
        return SWITCH[word.lower()]
    if isinstance(value, str):
        return word
    raise read.error("verify", "must be true, false or the path of a CA bundle.")


def proxy_of(read: Fields) -> Secret | None:
    """Return the URL of an HTTP proxy, with its password."""
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


def headers_of(read: Fields) -> tuple[tuple[str, Secret], ...]:
    """Return the further headers of every API request."""
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


def _header(read: Fields, name: str, value: Any) -> tuple[str, Secret]:
    # The masker replaces values inside the extra; a header name or value may not smuggle a line break.
    token = name.replace("-", "").replace("_", "")
    if not token.isascii() or not token.isalnum():
        raise read.error("headers", f"{sanitized(name, 40)!r} is not a header name.")
    if name.lower() in _RESERVED_HEADERS:
        raise read.error("headers", f"the provider sets {name}; use password and auth_scheme for the key.")
    if not isinstance(value, (str, int, float)) or not str(value).isprintable() or not str(value).isascii():
        raise read.error("headers", f"the value of {name} must be printable ASCII text.")
    return name, Secret(str(value).strip())
