"""Which addresses may be connected to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.network.addresses import (
    canonical_host,
    is_allowed_host,
    permitted_addresses,
    system_resolver,
    why_refused,
)
from tests.rows import each_row

REFUSED = [
    "0.0.0.0",  # noqa: S104 - nothing is bound to it
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "3fff::1",
    "5f00::1",
    "64:ff9b:1::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::1",
    "2002:a00:1::1",
    "::127.0.0.1",
    "::10.0.0.1",
    "2001:0:7f00:1::1",
    "168.63.129.16",
    "::ffff:168.63.129.16",
    "::ffff:0:10.0.0.1",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:127.0.0.1",
    "fe80::5efe:8.8.8.8",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "52.216.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
    "2606:4700::5efe:8.8.8.8",
    "168.63.129.17",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.fault(
    "attacks",
    "Azure's host agent, ISATAP and other private addresses",
    outcome="refused",
    seen="Not fetched: the host … has the … address",
)
@each_row("text", REFUSED)
def test_non_public_addresses_are_refused(text):
    """Private, loopback, link-local, multicast, reserved, and every IPv6 dress of them."""
    assert why_refused(ip_address(text)) is not None


@each_row("text", PUBLIC)
def test_public_addresses_pass(text):
    """What lies right beside the private ranges, and public addresses in IPv6 dress, are fine."""
    assert why_refused(ip_address(text)) is None


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_passes_that_is_not_global(address: IPv4Address):
    """Python's own tables agree with every address that passes."""
    if why_refused(address) is None:
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4), st.sampled_from(["mapped", "nat64", "6to4"]))
def test_an_embedded_address_is_judged_like_itself(address: IPv4Address, dress: str):
    """No IPv6 form is a way around the IPv4 rules."""
    number = int(address)
    forms = {
        "mapped": (0xFFFF << 32) | number,
        "nat64": (0x64FF9B << 96) | number,
        "6to4": (0x2002 << 112) | (number << 80),
    }
    if why_refused(address) is not None:
        assert why_refused(IPv6Address(forms[dress])) is not None


@pytest.mark.parametrize(
    "spelling", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "localhost", "LOCALHOST."]
)
def test_odd_spellings_are_judged_by_what_they_resolve_to(spelling):
    """Decimal, octal, hexadecimal and short forms are the loopback they mean."""
    try:
        system_resolver(spelling, 80)
    except OSError:
        pytest.skip("this system does not resolve it, so nothing can be fetched from it")
    with pytest.raises(ViduDownloadRefusedError, match="allowed_hosts"):
        permitted_addresses(spelling, 80, ())


def test_only_the_permitted_addresses_of_a_name_are_returned():
    """A name with a private and a public address is reached at the public one."""
    found = permitted_addresses("cdn.example.com", 443, (), lambda *_: ["10.0.0.1", "8.8.8.8", "::1", "8.8.8.8"])
    assert found == ["8.8.8.8"]


def test_the_refusal_names_host_address_and_remedy():
    """The message can be acted upon without the source."""
    with pytest.raises(
        ViduDownloadRefusedError, match=r"'db\.example\.com' has the private address 10\.0\.0\.7.*allowed_hosts"
    ):
        permitted_addresses("db.example.com", 443, (), lambda *_: ["10.0.0.7"])


@pytest.mark.parametrize("listed", ["db.example.com", "DB.Example.com.", "other", "db.example.com "])
def test_allowed_hosts_are_compared_without_case_and_dot(listed):
    """A listed host may have any address; another one may not."""
    assert is_allowed_host("Db.example.COM", [listed]) == (listed != "other")


@pytest.mark.parametrize(
    ("host", "listed"), [("[::1]", "0:0:0:0:0:0:0:1"), ("::1", "[::1]"), ("127.0.0.1", "127.0.0.1")]
)
def test_addresses_are_compared_in_one_form(host, listed):
    """Brackets and long forms of IPv6 do not matter."""
    assert permitted_addresses(host, 80, [listed], lambda *_: ["127.0.0.1"]) == ["127.0.0.1"]
    assert canonical_host(host) == canonical_host(listed)


def test_a_link_local_address_with_a_zone_is_refused():
    """The zone behind the percent sign hides nothing."""
    with pytest.raises(ViduDownloadRefusedError, match="link-local"):
        permitted_addresses("x", 80, (), lambda *_: ["fe80::1%eth0"])


def test_a_name_that_is_none_is_an_oserror():
    """Names that cannot be encoded fail like names that do not exist."""
    with pytest.raises(OSError, match=r"host name|not known|Name"):
        system_resolver("a" * 300 + ".example.com", 80)


@pytest.mark.fault(
    "stores and files",
    "a local DNS proxy answers with 198.18.0.0/15",
    outcome="survived",
    seen="the file, once allowed_hosts holds the network",
)
@pytest.mark.parametrize(
    ("allowed", "address", "permitted"),
    [
        ("198.18.0.0/15", "198.18.3.4", True), ("198.18.0.0/15", "8.8.8.8", True), ("198.18.0.0/15", "10.0.0.1", False),
        ("198.18.0.0/15", "::ffff:198.19.0.1", True), ("fd00::/8", "fd00::1", True), ("fd00::/8", "10.0.0.1", False),
        ("127.0.0.0/8", "127.0.0.1", True), ("10.0.0.0/8", "169.254.169.254", False),
    ],
)  # fmt: skip
def test_allowed_networks(allowed, address, permitted):
    """A network covers every host that resolves into it, and no other address."""
    if permitted:
        assert permitted_addresses("cdn.example.com", 443, [allowed], lambda *_: [address]) == [address]
    else:
        with pytest.raises(ViduDownloadRefusedError, match="allowed_hosts"):
            permitted_addresses("cdn.example.com", 443, [allowed], lambda *_: [address])


@each_row(
    ("host", "address", "permitted"),
    [
        ("gw.internal", "10.0.0.1", True), ("gw.internal", "198.18.0.1", True), ("gw.internal", "100.64.0.1", True),
        ("gw.internal", "fd00::1", True), ("gw.internal", "127.0.0.1", False), ("gw.internal", "::1", False),
        ("gw.internal", "169.254.169.254", False), ("gw.internal", "168.63.129.16", False),
        ("gw.internal", "100.100.100.200", False), ("gw.internal", "::ffff:100.100.100.200", False),
        ("gw.internal", "192.0.0.192", False), ("gw.internal", "fd00:ec2::254", False),
        ("gw.internal", "fd00:ec2::23", False), ("gw.internal", "fd20:ce::254", False),
        ("gw.internal", "fd00:c1::a9fe:a9fe", False), ("gw.internal", "fd00:42::42", False),
        ("gw.internal", "fd00:a9fe:a9fe::1", False), ("gw.internal", "fd00:100::100:200", False),
        ("gw.internal", "64:ff9b:1::a9fe:a9fe", False), ("gw.internal", "64:ff9b:1::7f00:1", False),
        ("gw.internal", "64:ff9b:1::a00:1", True),
        ("gw.internal", "0.0.0.0", False),  # noqa: S104 - nothing is bound to it
        ("localhost", "127.0.0.1", True), ("127.0.0.1", "127.0.0.1", True),
        ("[::1]", "::1", True), ("169.254.10.20", "169.254.10.20", True),
    ],
)  # fmt: skip
def test_the_connections_own_origin(host, address, permitted):
    """It may be in a private network; its name may not be rebound to this machine or to a metadata service."""
    if permitted:
        assert permitted_addresses(host, 443, (), lambda *_: [address], is_own=True) == [address]
    else:
        with pytest.raises(ViduDownloadRefusedError, match="allowed_hosts"):
            permitted_addresses(host, 443, (), lambda *_: [address], is_own=True)
