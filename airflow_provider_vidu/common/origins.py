"""The origin of a URL, to which its key is bound, and whether a host is this machine."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from airflow_provider_vidu.common.url_parts import split_url

Origin = tuple[str, str, int]
"""Scheme, host (lower-case) and port; an API key is sent to its own origin only."""

PORTS: Final = {"http": 80, "https": 443}
"""The default port of each scheme."""


def origin_of(url: str) -> Origin | None:
    """Return the origin of an http(s) URL, or None for any other text."""
    try:
        parts = split_url(url)
        port = parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in PORTS or not parts.hostname:
        return None
    return scheme, parts.hostname.lower().rstrip("."), port or PORTS[scheme]


def is_loopback(host: str) -> bool:
    """Whether ``host`` is a loopback name or literal loopback address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")
