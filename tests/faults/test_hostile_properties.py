"""What holds for any input: names, events, connections and addresses (the dialects' are in tests/unit/api/dialects)."""

from __future__ import annotations

import json
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.common.artifacts import ARTIFACTS
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.events import read_event
from airflow_provider_vidu.exceptions import ViduConfigError, ViduDownloadRefusedError, ViduError
from airflow_provider_vidu.network.addresses import permitted_addresses
from airflow_provider_vidu.stores.naming import file_name, stem_of
from tests.faults.hostile_texts import FORGED, REFUSED_IDS, VERBATIM_IDS, is_one_clean_line
from tests.properties import properties
from tests.rows import each_row

# The same examples at every run: a fault test is no lottery.
fixed_examples = properties(80, derandomize=True)
TEXTS = [text for text in (*VERBATIM_IDS.values(), *REFUSED_IDS.values()) if isinstance(text, str) and len(text) < 1000]
HOSTILE = st.sampled_from([*TEXTS, FORGED]) | st.text(st.characters(), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | HOSTILE | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=6,
)
KEY = "sk-GEHEIM-0123456789abcdef"
EXTRAS = (
    "dialect", "auth_scheme", "timeout", "max_retries", "verify", "proxy", "headers", "query_path", "create_path",
    "allowed_hosts",
)  # fmt: skip
DEVICES = (
    "con", "PRN", "aux.txt", "NUL.", *(f"com{n}" for n in range(10)), *(f"LPT{n}.mp4" for n in range(10)), "com\u00b9",
    "conin$", "CONOUT$", "clock$",
)  # fmt: skip


@fixed_examples
@given(st.dictionaries(st.sampled_from(EXTRAS), VALUES, max_size=4))
def test_any_extra_is_read_or_refused_by_name(extra: dict[str, Any]) -> None:
    """A connection is checked or refused, naming itself and the field, and never its key."""
    conn = SimpleNamespace(host="https://gw.example.com", schema=None, password=KEY, port=None)
    try:
        found = ViduConfig.from_connection("my_vidu", conn, extra)
    except ViduConfigError as error:
        told = str(error)
        assert "'my_vidu'" in told
        assert any(f"'{name}'" in told for name in extra)
        assert is_one_clean_line(told)
        assert KEY not in told
    else:
        assert KEY not in repr(found)
        for name, value in found.request_headers().items():
            assert f"{name}{value}".isprintable()
            assert f"{name}{value}".isascii()


@fixed_examples
@given(st.dictionaries(st.sampled_from(["outcome", "generation_id", "error", "version"]), VALUES | st.just("g")))
def test_any_event_is_a_success_or_a_clean_error(event: dict[str, Any]) -> None:
    """An event from anywhere is believed only when it is ours; the error about it is one clean line."""
    try:
        read_event(event, "g")
    except ViduError as error:
        told, generation_id = str(error), error.generation_id
        assert is_one_clean_line(told)
        assert generation_id
    else:
        assert (event["outcome"], event["generation_id"]) == ("succeeded", "g")


@fixed_examples
@given(VALUES, st.integers(2, 300))
def test_anything_is_shown_as_one_clean_line(value: Any, limit: int) -> None:
    """Whatever is quoted fits into one bounded line that any file can hold."""
    told = redacted(value, limit)
    assert is_one_clean_line(told)
    assert len(told) <= limit
    told.encode()


@each_row("device", DEVICES)
@each_row("artifact", ARTIFACTS)
def test_no_name_is_a_device(device: str, artifact: Any) -> None:
    """What Windows takes for a device is the name of no file, and two spellings are two files."""
    reserved = {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"}
    reserved |= {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
    name = file_name(stem_of(device, None), artifact, "video/mp4")
    assert name.partition(".")[0].lower() not in reserved
    assert not name.endswith((".", " "))
    assert name.isascii()
    assert stem_of(device, None).lower() != stem_of(device.swapcase(), None).lower()


def _spellings(address: str) -> list[str]:
    number = int(ip_address(address))
    parts = address.split(".")
    return [
        f"::ffff:{address}",
        f"::{address}",
        f"64:ff9b::{address}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
        f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}",
        address,
        str(number),
        hex(number),
        ".".join(f"0{int(part):o}" for part in parts),
        ".".join(hex(int(part)) for part in parts),
        f"{address}.",
    ]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "192.168.1.1", "169.254.169.254", "0.0.0.0"])  # noqa: S104
def test_no_spelling_of_a_private_address_passes(address, fault_row):
    """Decimal, octal, hex, mapped, NAT64 and 6to4 forms are refused, or resolve to nothing at all."""
    refused = []
    for spelling in _spellings(address):
        try:
            found = permitted_addresses(spelling, 80, ())
        except ViduDownloadRefusedError as error:
            refused.append(error)
        except OSError:
            continue  # this system does not take it for an address
        else:
            pytest.fail(f"{spelling} may be fetched from: {found}")
    assert len(refused) >= 5
    seen = str(refused[0])
    fault_row(
        "hostile input", f"{len(_spellings(address))} spellings of {address}", seen=seen, requests=0, outcome="refused"
    )


@pytest.mark.parametrize("zone", ["fe80::1%eth0", "fe80::1%25lo", "::1%1"])
def test_a_zone_hides_nothing(zone):
    """A zone behind an address that stays at home changes nothing."""
    with pytest.raises(ViduDownloadRefusedError):
        permitted_addresses("x.example", 80, (), lambda *_: [zone])


@pytest.mark.parametrize("host", ["ⓛocalhost", "localhost", "localhoſt", "①②⑦.⓪.⓪.①", "127。0。0。1"])  # noqa: RUF001
def test_a_look_alike_of_localhost_is_refused_or_unknown(host):
    """What the resolver folds into localhost is judged as localhost."""
    with pytest.raises((ViduDownloadRefusedError, OSError)):
        permitted_addresses(host, 80, ())


@fixed_examples
@given(HOSTILE.filter(bool))
def test_any_id_is_one_component_of_a_path(text: str) -> None:
    """Joined to a folder, no id's name leaves it, and JSON holds it."""
    name = file_name(stem_of(text, None), "video", "video/mp4")
    assert name not in (".", "..")
    assert not set(name) & set('/\\:*?"<>|\0')
    assert len(name.encode()) <= 255
    json.dumps(name)
