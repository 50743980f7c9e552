"""Chooses a request's proxy, the connection's or the environment's, for both API clients and downloads.

``urllib.request`` is not used for this: it ignores networks and bare IPv6 addresses in ``NO_PROXY`` and returns SOCKS
proxies, which no client here supports.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from airflow_provider_vidu.common.origins import PORTS, is_loopback
from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError

_SHORTEST: Final = 5
"""Shorter passwords of the environment are not redacted: they would leave holes in every message."""
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://")
_OCTETS = re.compile(r"(?:[0-9]{1,3}\.){0,3}\*(?:\.\*)*")
"""``10.1.*`` and ``10.1.2.*``: octets missing at the end match anything."""
_WITH_PORT = re.compile(r"(\[[^\]]+\]|[^:\[\]]+):([0-9]{1,5})")


def proxy_for(url: str, proxy: Secret | None, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the URL of the proxy to use for ``url``, or None to connect directly.

    The connection's own proxy wins. Otherwise ``HTTPS_PROXY`` or ``HTTP_PROXY`` (by the scheme of ``url``), then
    ``ALL_PROXY`` apply, each in lower case first, unless ``NO_PROXY`` exempts the host. The environment's proxies never
    apply to loopback.

    :param environ: the environment to read; the process's own if omitted.
    :return: an http or https URL with a host.
    :raises ViduConfigError: when the proxy is not an HTTP proxy (SOCKS); the message names the variable.
    """
    source = "the connection's proxy"
    if proxy is None:
        source, proxy = _of_environment(url, os.environ if environ is None else environ)
    if proxy is None:
        return None
    # A report of this error may show the frame's variables, so none may hold a password.
    if wrong := _why_unusable(proxy, source):
        raise ViduConfigError(wrong)
    return _with_scheme(proxy.reveal())


def basic_credentials(url: str) -> str | None:
    """Return user and password of a proxy's URL as ``Proxy-Authorization`` sends them (Base64), or None without a user.

    :raises ValueError: when it is not a URL.
    """
    parts = urlsplit(url)
    if not parts.username:
        return None
    return base64.b64encode(f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()).decode("ascii")


def login_headers(url: str) -> dict[str, str]:
    """Return the header with user and password of a proxy's URL, the same for every client; none without a user.

    The HTTP libraries differ: requests sends no user without a password, and none of them sends UTF-8.
    """
    sent = basic_credentials(url)
    return {"Proxy-Authorization": f"Basic {sent}"} if sent else {}


def secrets_of(proxy: Secret) -> set[str]:
    """Return the secrets of a proxy: its password as it is written, as it is decoded and as it is sent.

    A token may be the user name without a password.
    """
    try:
        parts, sent = urlsplit(_with_scheme(proxy.reveal())), basic_credentials(_with_scheme(proxy.reveal()))
    except ValueError:
        return set()
    secret = parts.password or parts.username
    return {secret, unquote(secret), *([sent] if sent else [])} if secret else set()


def environment_secrets(environ: Mapping[str, str] | None = None) -> set[str]:
    """Return the secrets of the proxies in the environment: a proxy that refuses a password may quote it.

    :param environ: the environment to read; the process's own if omitted.
    """
    environ = os.environ if environ is None else environ
    kinds = ("http_proxy", "https_proxy", "all_proxy")
    values = {environ.get(name, "").strip() for kind in kinds for name in (kind, kind.upper())}
    found = {secret for value in values if "@" in value for secret in secrets_of(Secret(value))}
    return {secret for secret in found if len(secret) >= _SHORTEST}


def with_password(proxy: Secret, password: Secret) -> Secret:
    """Return a proxy's URL with the password of its user.

    :param proxy: a URL that names a user.
    :param password: as the user writes it, not percent-encoded.
    :raises ViduConfigError: when the URL names no user, or already holds a password.
    """
    parts = urlsplit(proxy.reveal())
    if parts.password:
        raise ViduConfigError("is set, but the URL in proxy holds a password too. Remove one of them.")
    if not parts.username:
        raise ViduConfigError("is set, but proxy names no user. Example: http://user@proxy.example.com:3128")
    user, _, place = parts.netloc.rpartition("@")
    login = f"{user.removesuffix(':')}:{quote(password.reveal(), safe='')}"
    return Secret(parts._replace(netloc=f"{login}@{place}").geturl())


def without_login(proxy: str) -> str:
    """Return a proxy's URL without user and password, for messages."""
    parts = urlsplit(proxy)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _of_environment(url: str, environ: Mapping[str, str]) -> tuple[str, Secret | None]:
    """Return the environment's proxy for a URL, preceded by its source for messages."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), parts.hostname or ""
    exempt = _read("no_proxy", environ)[1]
    if is_loopback(host) or is_exempt(host, parts.port or PORTS.get(scheme, 0), exempt):
        return "", None
    for kind in (f"{scheme}_proxy", "all_proxy"):
        name, value = _read(kind, environ)
        if value:
            return f"the environment variable {name}", Secret(value)
    return "", None


def is_exempt(host: str, port: int, listed: str) -> bool:
    """Whether ``NO_PROXY`` exempts a host.

    An entry is a domain (which covers its subdomains, with or without a leading dot), an address, a network such as
    ``10.0.0.0/8``, ``[fd00::]/8`` or ``10.1.2.*``, a domain or address with a port, or ``*``. A leading scheme and a
    trailing slash are ignored; a domain may be in Unicode or Punycode. Names are not resolved: a network matches only
    literal addresses.

    :param host: a host name or a literal address, without brackets.
    :param listed: the variable's value, entries separated by commas or spaces.
    """
    name = _ascii(host.lower().rstrip("."))
    # Quotation marks stay in the value where a container's env file holds them, and no entry has any.
    listed = re.sub("[\"']", "", listed)
    address = _address(name)
    return any(_covers(entry, name, address, port) for entry in re.split(r"[,\s]+", listed.lower()) if entry)


def _covers(entry: str, name: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
    entry = _SCHEME.sub("", entry).rstrip("/")
    if entry == "*":
        return True
    if match := _WITH_PORT.fullmatch(entry):
        entry = match[1]
        if int(match[2]) != port:
            return False
    if address is not None:
        if _OCTETS.fullmatch(entry):
            return address.version == 4 and all(
                want in ("*", has) for want, has in zip(entry.split("."), str(address).split("."), strict=False)
            )
        try:
            return address in ip_network(re.sub(r"[\[\]]|%[^/]*", "", entry), strict=False)
        except ValueError:
            return False
    domain = _ascii(entry.lstrip("*").strip("."))
    return bool(domain) and (name == domain or name.endswith(f".{domain}"))


def _ascii(host: str) -> str:
    """Return a host name in Punycode, or unchanged if it cannot be encoded."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _read(kind: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return a variable's name and value; the lower-case spelling wins even if it is empty."""
    # A CGI server puts a request's Proxy header into HTTP_PROXY (CVE-2016-5385).
    upper = "" if kind == "http_proxy" and "REQUEST_METHOD" in environ else kind.upper()
    name = next((name for name in (kind, upper) if name in environ), kind)
    return name, environ.get(name, "").strip()


def _with_scheme(value: str) -> str:
    scheme, mark, rest = value.strip().partition("://")
    return f"{scheme.lower()}://{rest}" if mark else f"http://{scheme}"


def _why_unusable(proxy: Secret, source: str) -> str | None:
    """Return what is wrong with a proxy, without quoting a password, or None."""
    url = _with_scheme(proxy.reveal())
    scheme = url.partition("://")[0]
    subject = f"{source[0].upper()}{source[1:]}"
    if scheme.startswith("socks"):
        return (
            f"{subject} names a SOCKS proxy ({sanitized(scheme, 20)}://), which is not supported. "
            "Nothing was sent. Set an http:// or https:// proxy (HTTPS_PROXY and HTTP_PROXY override ALL_PROXY, the "
            "connection's proxy overrides all three), or exempt the host with NO_PROXY."
        )
    try:
        if scheme in PORTS and urlsplit(url).hostname and urlsplit(url).port != 0:
            return None
    except ValueError:  # a port that is not a number
        pass
    return f"{subject} is not the URL of an HTTP proxy. Nothing was sent. Example: http://proxy.example.com:3128"
