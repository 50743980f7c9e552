"""Which addresses a download may connect to: public ones, and hosts that the user has named.

A video URL comes from a foreign answer. Without this check it could point a worker at the cloud's
metadata service, at a database or at the machine itself. Pure except for :func:`system_resolver`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.network.origins import is_loopback

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
"""Takes a host name and a port, returns the addresses it stands for; raises OSError when there are none."""

# Named here rather than taken from ipaddress alone, whose tables differ between Python's releases.
_REFUSED: Final[tuple[tuple[str, IPv4Network | IPv6Network], ...]] = tuple(
    (kind, IPv6Network(net) if ":" in net else IPv4Network(net))
    for kind, nets in (
        # They hand out a machine's keys, from addresses that are private, shared or public otherwise: Alibaba, Oracle,
        # Amazon (its metadata, and the credentials of pods) and Google; Azure's agent on the host of a machine.
        ("metadata service's", "100.100.100.200/32 192.0.0.192/32 fd00:ec2::/64 fd20:ce::254/128"),
        ("cloud host agent's", "168.63.129.16/32"),
        ("unspecified", "0.0.0.0/8 ::/128"),
        ("loopback", "127.0.0.0/8 ::1/128"),
        ("private", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10 64:ff9b:1::/48"),
        ("link-local", "169.254.0.0/16 fe80::/10"),
        ("shared (carrier-grade NAT)", "100.64.0.0/10"),
        ("multicast", "224.0.0.0/4 ff00::/8"),
        (
            "reserved",
            (
                "192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 "
                "240.0.0.0/4 100::/64 2001::/23 2001:db8::/32 3fff::/20 5f00::/16"
            ),
        ),
    )
    for net in nets.split()
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_COMPATIBLE: Final = IPv6Network("::/96")
_TRANSLATED: Final = IPv6Network("::ffff:0:0:0/96")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
"""The upper half of an interface identifier that ends in an IPv4 address (RFC 5214, 6.1)."""

_OWN: Final = frozenset({"private", "shared (carrier-grade NAT)", "reserved"})
"""Where a gateway may be, beside the public addresses. That its name leads to this machine or to a metadata service
is an attack, not an installation (DNS rebinding)."""


def why_refused(address: Address) -> str | None:
    """Return what kind of non-public address this is, such as ``loopback``, or None for a public one.

    IPv6 forms that carry an IPv4 address (mapped, compatible, translated, NAT64, 6to4, ISATAP) are judged by both.
    """
    inner = _embedded(address)
    if inner is not None and (kind := why_refused(inner)):
        return kind
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address in _NAT64):
        return None  # public inside, and what a DNS64 network answers for every IPv4 host
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
    """Return a host as it is compared: lower-case, without brackets and trailing dot, addresses in one form."""
    host = host.strip().strip("[]").rstrip(".").lower()
    try:
        return str(ip_address(host))
    except ValueError:
        return host


def is_allowed_host(host: str, allowed: Iterable[str]) -> bool:
    """Whether ``host`` is among the hosts that may be fetched from although their address is private."""
    wanted = canonical_host(host)
    return any(canonical_host(item) == wanted for item in allowed)


def is_allowed_address(address: Address, allowed: Iterable[str]) -> bool:
    """Whether an address, or the IPv4 address that it carries, is in an allowed network (``198.18.0.0/15``)."""
    networks = [ip_network(item, strict=False) for item in allowed if "/" in item]
    forms = [form for form in (address, _embedded(address)) if form is not None]
    return any(form in network for form in forms for network in networks)


def permitted_addresses(
    host: str, port: int, allowed: Iterable[str], resolve: Resolver | None = None, *, is_own: bool = False
) -> list[str]:
    """Resolve ``host`` and return the addresses that may be connected to, in the resolver's order.

    Connect to one of these and to nothing else: resolving the name a second time could give another
    answer (DNS rebinding).

    :param host: a name or a literal address, in whatever spelling; it is judged by what it resolves to.
    :param port: the port, for the resolver.
    :param allowed: hosts for which every address is fine, and networks whose addresses are fine for every host.
    :param resolve: replaces the system's resolver.
    :param is_own: whether this is the connection's own origin. That may have a private address; loopback, link-local
        and the like are fine only where the connection names them as such (``localhost``, a literal address).
    :raises ViduDownloadRefusedError: when there are addresses, but none is permitted.
    :raises OSError: when the name cannot be resolved.
    """
    found = list(dict.fromkeys((resolve or system_resolver)(host, port)))
    allowed = tuple(allowed)
    if is_allowed_host(host, allowed) or (is_own and _names_its_address(host)):
        return found
    tolerated = _OWN if is_own else frozenset()
    judged = [(text, _objection(ip_address(text.partition("%")[0]), allowed, tolerated)) for text in found]
    permitted = [text for text, kind in judged if kind is None]
    if not permitted and judged:
        text, kind = judged[0]
        raise ViduDownloadRefusedError(
            f"Not fetched: the host {sanitized(host, 100)!r} has the {kind} address {text}. If the file really "
            f"lies there, add {sanitized(host, 100)!r} or its network to allowed_hosts of the Vidu connection, or to "
            "[vidu] allowed_hosts in Airflow's configuration."
        )
    return permitted


def _objection(address: Address, allowed: Iterable[str], tolerated: frozenset[str]) -> str | None:
    kind = why_refused(address)
    return None if kind is None or kind in tolerated or is_allowed_address(address, allowed) else kind


def _names_its_address(host: str) -> bool:
    """Whether a host can lead nowhere else than it says: a literal address, or this machine by its name."""
    try:
        ip_address(canonical_host(host))
    except ValueError:
        return is_loopback(host)
    return True


def system_resolver(host: str, port: int) -> list[str]:
    """Return the addresses of ``host`` as the operating system resolves it.

    :raises OSError: when it does not resolve.
    """
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(f"{sanitized(host, 80)!r} is not a host name") from None
    return [str(entry[4][0]) for entry in entries]
