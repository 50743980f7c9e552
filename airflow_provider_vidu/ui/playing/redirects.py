"""Where the player may be sent, and who may be sent at all. Pure.

The URL of a clip comes from an XCom or from a gateway, so from the author of a DAG; the browser that follows it is a
logged-in viewer's. Cookies know no ports, so a redirect to another port of Airflow's own host would hand over the
session, and one to Airflow's log-out address would end it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal
from urllib.parse import quote

from airflow_provider_vidu.common.url_parts import split_url
from airflow_provider_vidu.common.values import web_url
from airflow_provider_vidu.network.addresses import canonical_host, is_allowed_host, why_refused

# Only what every parser reads alike: browsers also decode %61, fold full-width letters, and take 0x7f.1 for 127.0.0.1.
_PLAIN_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# A name without a dot is one of this network, as are those that no public registry hands out.
_LOCAL_NAME = re.compile(r"[a-z0-9_-]+|(?:.*\.)?(?:localhost|local|localdomain|internal|intranet|lan|home\.arpa)")
MAX_NAMES_CHARS: Final = 1_000
"""Of a longer ``X-Forwarded-Host`` only the end is read, which the nearest proxy has written."""
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))
_PLAYERS: Final = frozenset({"video", "audio", "image"})

Asker = Literal["player", "script", "other"]


@dataclass(frozen=True, slots=True)
class Trust:
    """What a connection vouches for.

    :param cleartext: whether the service itself is reached over plain http.
    :param hosts: hosts that may be fetched from although their address is not public.
    """

    cleartext: bool = False
    hosts: tuple[str, ...] = ()


NO_TRUST: Final = Trust()


def asker(headers: Mapping[str, str]) -> Asker:
    """Return what requests a file: an element that plays or shows it, a script of the page, or anything else.

    Browsers say so (``Sec-Fetch-*``), but not to servers on plain http: there a navigation is known by its ``Accept``.

    :param headers: the request's headers, with lower-case names.
    """
    place, site = headers.get("sec-fetch-dest"), headers.get("sec-fetch-site", "same-origin")
    if headers.get("sec-fetch-mode") == "navigate" or site != "same-origin":
        return "other"
    if place is None:
        return "other" if "text/html" in headers.get("accept", "").lower() else "player"
    if place == "empty":
        return "script"
    return "player" if place in _PLAYERS else "other"


def own_hosts(headers: Mapping[str, str], base_url: str) -> frozenset[str]:
    """Return the names of this Airflow: those that the request was sent to, and the one of ``[api] base_url``."""
    forwarded = headers.get("x-forwarded-host", "")[-MAX_NAMES_CHARS:].split(",")
    names = (f"//{name.strip()}" for name in (headers.get("host", "")[:MAX_NAMES_CHARS], *forwarded))
    return frozenset(_host(address) for address in (*names, _in_ascii(base_url))) - {""}


def _in_ascii(url: str) -> str:
    """Return a URL with its host as browsers send it: a name with an umlaut begins with ``xn--`` there."""
    try:
        host = split_url(url).hostname or ""
        return url if host.isascii() else f"//{host.encode('idna').decode()}"
    except ValueError:
        return url


def location(url: str) -> str:
    """Return a URL as the value of ``Location``: verbatim but for what no header can hold.

    Quoting a signed URL again would break its signature.
    """
    return quote(url, safe=_ASCII)


def needs_trust(url: str) -> bool:
    """Whether a URL may be followed only where the connection vouches for it: plain http, or a private address."""
    return web_url(url) is None or split_url(url).scheme.lower() != "https" or _is_private(_host(url))


def why_not(url: object, own: Iterable[str], trust: Trust = NO_TRUST) -> str | None:
    """Return why a browser may not be sent to a URL, as the end of a sentence; None when it may.

    :param url: what an XCom or the service calls the address of a file.
    :param own: the names of this Airflow (:func:`own_hosts`).
    :param trust: what the connection of the clip vouches for.
    """
    checked = web_url(url)
    host = _host(checked) if checked else ""
    if not checked or not host:
        return "it is not a web address that every browser reads alike"
    if host in {canonical_host(name) for name in own}:
        return "it leads to the host of this Airflow, which would receive your session"
    if split_url(checked).scheme.lower() == "http" and not trust.cleartext:
        return "it is a plain http address, and the connection is not"
    if _is_private(host) and not is_allowed_host(host, trust.hosts):
        return "it leads to a private address; add the host to allowed_hosts of the connection"
    return None


def _host(url: str) -> str:
    """Return the host of a URL in the form in which hosts are compared; empty where parsers could disagree."""
    try:
        parts = split_url(url)
        host = (parts.hostname or "").lower()
        if "@" in parts.netloc or parts.port == 0:
            return ""
        if ":" in host:
            return "" if "%" in host else str(ip_address(host))
    except ValueError:
        return ""
    if not _PLAIN_HOST.fullmatch(host):
        return ""
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return str(ip_address(host.rstrip(".")))
        except ValueError:
            return ""
    return canonical_host(host)


def _is_private(host: str) -> bool:
    try:
        return why_refused(ip_address(host)) is not None
    except ValueError:
        return _LOCAL_NAME.fullmatch(host) is not None
