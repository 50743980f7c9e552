"""Decides which addresses a download may connect to: public ones and those the user allows.

A video URL comes from a server's answer. Without this check it could point a worker at the cloud's metadata service,
a database or the worker itself. Pure except for :func:`system_resolver`.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from airflow_provider_vidu.common.origins import is_loopback
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
"""Takes a host name and a port and returns the host's addresses; raises OSError when there are none."""

# Listed here because the tables of ipaddress differ between Python releases.
_REFUSED: Final[tuple[tuple[str, IPv4Network | IPv6Network], ...]] = tuple(
    (kind, IPv6Network(net) if ":" in net else IPv4Network(net))
    for kind, nets in (
        # These services hand out a machine's credentials: Alibaba, Oracle, Amazon (metadata and pod credentials),
        # Google, Scaleway and Akamai; then Azure's host agent.
        ("metadata service's", "100.100.100.200/32 fd00:100::100:200/128 192.0.0.192/32 fd00:c1::a9fe:a9fe/128"),
        ("metadata service's", "fd00:ec2::/64 fd20:ce::254/128 fd00:42::42/128 fd00:a9fe:a9fe::1/128"),
        ("cloud host agent's", "168.63.129.16/32"),
        ("unspecified", "0.0.0.0/8 ::/128"),
        ("loopback", "127.0.0.0/8 ::1/128"),
        ("private", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10 64:ff9b:1::/48"),
        ("link-local", "169.254.0.0/16 fe80::/10"),
        ("shared (carrier-grade NAT)", "100.64.0.0/10"),
        ("multicast", "224.0.0.0/4 ff00::/8"),
        ("reserved", "192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24"),
        ("reserved", "240.0.0.0/4 100::/64 2001::/23 2001:db8::/32 3fff::/20 5f00::/16"),
    )
    for net in nets.split()
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_COMPATIBLE: Final = IPv6Network("::/96")
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
"""Upper half of an interface identifier that ends in an IPv4 address (RFC 5214, 6.1)."""

_OWN: Final = frozenset({"private", "shared (carrier-grade NAT)", "reserved"})
"""Kinds of addresses that a gateway may also have. A gateway's name that resolves to this machine or to a metadata
service is a DNS rebinding attack."""


def why_refused(address: Address) -> str | None:
    """Return the kind of a non-public address, such as ``loopback``, or None for a public one.

    IPv6 addresses that embed an IPv4 address (mapped, compatible, translated, NAT64, 6to4, ISATAP) are checked as both.
    """
    inner = _embedded(address)
    if isinstance(address, IPv6Address) and address in _LOCAL_NAT64:  # private itself, whatever it leads to
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None and (kind := why_refused(inner)):
        return kind
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address in _NAT64):
        return None  # the IPv4 address is public; a DNS64 network returns this form for every IPv4 host
    kind = next((kind for kind, net in _REFUSED if address.version == net.version and address in net), None)
    if kind is None and (not address.is_global or address.is_multicast or address.is_reserved):
        return "reserved"
    return kind


def _embedded(address: Address) -> IPv4Address | None:
    if not isinstance(address, IPv6Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    number = int(address)
    if address in _SIX_TO_FOUR:
        return IPv4Address((number >> 80) & 0xFFFFFFFF)
    is_isatap = (number >> 32) & 0xFFFFFFFF in _ISATAP
    if is_isatap or address in _NAT64 or address in _TRANSLATED or (address in _COMPATIBLE and number > 1):
        return IPv4Address(number & 0xFFFFFFFF)
    return None


def canonical_host(host: str) -> str:
    """Return a host in the form used for comparison: lower-case, no brackets or trailing dot, one form per address."""
    host = host.strip().strip("[]").rstrip(".").lower()
    try:
        return str(ip_address(host))
    except ValueError:
        return host


def is_allowed_host(host: str, allowed: Iterable[str]) -> bool:
    """Whether ``host`` is listed as allowed despite a private address."""
    wanted = canonical_host(host)
    return any(canonical_host(item) == wanted for item in allowed)


def permitted_addresses(
    host: str, port: int, allowed: Iterable[str], resolve: Resolver | None = None, *, is_own: bool = False
) -> list[str]:
    """Resolve ``host`` and return the addresses that may be connected to, in the resolver's order.

    Connect only to these: a second resolution could return other addresses (DNS rebinding).

    :param host: a name or a literal address in any spelling; the check uses what it resolves to.
    :param allowed: hosts allowed at every address, and networks allowed for every host.
    :param is_own: whether this is the connection's own origin. It may have a private address, but a loopback or
        link-local one only if the connection names it as such (``localhost``, a literal address).
    :raises ViduDownloadRefusedError: when the host has addresses but none is permitted.
    :raises OSError: when the name cannot be resolved.
    """
    addresses = list(dict.fromkeys((resolve or system_resolver)(host, port)))
    allowed = tuple(allowed)
    if is_allowed_host(host, allowed) or (is_own and _names_its_address(host)):
        return addresses
    tolerated = _OWN if is_own else frozenset()
    judged = [(text, _objection(ip_address(text.partition("%")[0]), allowed, tolerated)) for text in addresses]
    permitted = [text for text, kind in judged if kind is None]
    if not permitted and judged:
        text, kind = judged[0]
        raise ViduDownloadRefusedError(
            f"Not fetched: the host {sanitized(host, 100)!r} has the {kind} address {text}. If the file really is "
            f"there, add {sanitized(host, 100)!r} or its network to allowed_hosts of the Vidu connection, or to "
            "[vidu] allowed_hosts in Airflow's configuration."
        )
    return permitted


def _objection(address: Address, allowed: Iterable[str], tolerated: frozenset[str]) -> str | None:
    kind = why_refused(address)
    if kind is None or kind in tolerated:
        return None
    networks = [ip_network(item, strict=False) for item in allowed if "/" in item]
    forms = [form for form in (address, _embedded(address)) if form is not None]
    return None if any(form in network for form in forms for network in networks) else kind


def _names_its_address(host: str) -> bool:
    """Whether the host itself shows its address: a literal address, or a name of this machine."""
    try:
        ip_address(canonical_host(host))
    except ValueError:
        return is_loopback(host)
    return True


def system_resolver(host: str, port: int) -> list[str]:
    """Return the addresses to which the operating system resolves ``host``; raises OSError when there are none."""
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(f"{sanitized(host, 80)!r} is not a host name") from None
    return [str(entry[4][0]) for entry in entries]


def few_of_each_family(found: Iterable[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Return the first of a resolver's entries, in their order.

    :param found: entries with the address family as ``family``.
    :param most: how many of a family.
    """
    met: Counter[int] = Counter()
    few = []
    for entry in found:
        met[entry["family"]] += 1
        if met[entry["family"]] <= most:
            few.append(entry)
    return few
