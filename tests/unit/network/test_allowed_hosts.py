"""Hosts and networks that downloads may come from."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.network.allowed_hosts import parse_allowed
from tests.rows import each_row


@each_row(
    ("value", "entries"),
    [
        (None, set()), ("", set()), (" A.local, b.local.\n10.0.0.5 ", {"a.local", "b.local", "10.0.0.5"}),
        ("198.18.0.0/15", {"198.18.0.0/15"}), ("198.18.7.9/15", {"198.18.0.0/15"}),
        (["FD00::/8", "[fd00::1]"], {"fd00::/8", "fd00::1"}), ('["10.0.0.0/8"]', {"10.0.0.0/8"}),
    ],
)  # fmt: skip
def test_entries(value: Any, entries: set[str]) -> None:
    """Names, addresses and networks, in one spelling."""
    assert parse_allowed(value) == entries


@each_row(
    "value",
    [
        "198.18.0.0/33",
        "10.0.0/8x",
        "1.2.3/8",
        "::/129",
        "a.local/24",
        "/8",
        "http://h",
        "*",
        "['a.local']",
        "a.local;b.local",
    ],
)
def test_what_is_neither(value: str) -> None:
    """A network that does not exist is refused, like a URL, and quoted."""
    with pytest.raises(ViduConfigError, match=r"is not a network|neither a host|wildcards are not supported") as caught:
        parse_allowed(value)
    assert repr(value) in str(caught.value)
