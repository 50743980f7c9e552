"""Parses the hosts and networks from which downloads are allowed despite private addresses."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError


def parse_allowed(value: Any) -> frozenset[str]:
    """Return the normalized entries of ``allowed_hosts``: host names, addresses, and networks with a prefix length.

    :param value: a list, or text with entries separated by commas or spaces; None for no entries.
    :raises ViduConfigError: when an entry is neither a host nor a network.
    """
    if isinstance(value, str) and value.strip().startswith("["):
        with suppress(ValueError, RecursionError):  # an IPv6 address in brackets is not JSON
            value = json.loads(value)
    listed = value.replace(",", " ").split() if isinstance(value, str) else value
    if listed is None:
        return frozenset()
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise ViduConfigError("must be host names or networks, separated by commas.")
    return frozenset(_entry(entry) for entry in listed if entry.strip())


def _entry(entry: str) -> str:
    bare = entry.strip().lower()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    if re.fullmatch(r"[0-9a-f.:]+/[0-9]+", bare):
        try:
            return str(ip_network(bare, strict=False))
        except ValueError:
            raise ViduConfigError(f"{sanitized(entry, 60)!r} is not a network such as 198.18.0.0/15.") from None
    is_ipv6 = bare.count(":") > 1
    if "*" in bare:
        raise ViduConfigError(f"{sanitized(entry, 60)!r}: wildcards are not supported; name every host in full.")
    if not bare.isprintable() or re.search(r"""[/\\@?#\[\] '";]""", bare) or (":" in bare and not is_ipv6):
        raise ViduConfigError(
            f"{sanitized(entry, 60)!r} is neither a host name nor a network: no scheme, port or path."
        )
    return bare.rstrip(".")
