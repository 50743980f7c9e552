"""Which addresses a download may connect to: public ones, and hosts that the user has named.

A video URL comes from a foreign answer. Without this check it could point a worker at the cloud's
metadata service, at a database or at the machine itself. Pure except for :func:`system_resolver`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.text import one_line

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
"""Takes a host name and a port, returns the addresses it stands for; raises OSError when there are none."""

# Named here rather than taken from ipaddress alone, whose tables differ between Python's releases.
_REFUSED: Final[tuple[tuple[str, IPv4Network | IPv6Network], ...]] = tuple(
    (kind, IPv6Network(net) if ":" in net else IPv4Network(net))
    for kind, nets in (
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


def why_refused(address: Address) -> str | None:
    """Return what kind of non-public address this is, such as ``loopback``, or None for a public one.

    IPv6 forms that carry an IPv4 address (mapped, compatible, NAT64, 6to4) are judged by both.
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
    if address in _NAT64 or (address in _COMPATIBLE and number > 1):
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


def permitted_addresses(host: str, port: int, allowed: Iterable[str], resolve: Resolver | None = None) -> list[str]:
    """Resolve ``host`` and return the addresses that may be connected to, in the resolver's order.

    Connect to one of these and to nothing else: resolving the name a second time could give another
    answer (DNS rebinding).

    :param host: a name or a literal address, in whatever spelling; it is judged by what it resolves to.
    :param port: the port, for the resolver.
    :param allowed: hosts for which every address is fine.
    :param resolve: replaces the system's resolver.
    :raises ViduDownloadRefusedError: when there are addresses, but none is permitted.
    :raises OSError: when the name cannot be resolved.
    """
    found = list(dict.fromkeys((resolve or system_resolver)(host, port)))
    if is_allowed_host(host, allowed):
        return found
    judged = [(text, why_refused(ip_address(text.partition("%")[0]))) for text in found]
    permitted = [text for text, kind in judged if kind is None]
    if not permitted and judged:
        text, kind = judged[0]
        raise ViduDownloadRefusedError(
            f"Not fetched: the host {one_line(host, 100)!r} has the {kind} address {text}. If the file really "
            f"lies there, add {one_line(host, 100)!r} to allowed_hosts of the Vidu connection."
        )
    return permitted


def system_resolver(host: str, port: int) -> list[str]:
    """Return the addresses of ``host`` as the operating system resolves it.

    :raises OSError: when it does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(f"{one_line(host, 80)!r} is no host name") from None
    return [str(entry[4][0]) for entry in found]
