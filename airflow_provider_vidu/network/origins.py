"""Where a URL leads: the origin that a key may travel to, and whether it is this machine."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

Origin = tuple[str, str, int]
"""Scheme, host (lower-case) and port: what an API key may travel to."""

_PORTS: Final = {"http": 80, "https": 443}


def origin_of(url: str) -> Origin | None:
    """Return the origin of an http(s) URL, or None where it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname:
        return None
    return scheme, parts.hostname.lower().rstrip("."), port or _PORTS[scheme]


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its name or literal address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")
