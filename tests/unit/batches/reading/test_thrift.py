"""Thrift's compact protocol, as far as Parquet needs it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.batches.reading.thrift import INTEGERS, TEXTS, CompactReader
from tests.rows import each_row

LISTS = {1: {}, 2: INTEGERS, 3: TEXTS}


def read(content, most=1000):
    """Return the first struct."""
    return CompactReader(content, most).struct(LISTS)


@each_row(
    ("content", "fields"),
    [
        (b"\0", {}),
        (b"\x15\x02\x15\x03\0", {1: 1, 2: -2}),
        (b"\x11\x12\0", {1: True, 2: False}),
        (b"\x13\x07\x24\x80\x01\x06\xc8\x01\x02\0", {1: 7, 3: 64, 100: 1}),
        (b"\x18\x02ab\x17" + b"12345678" + b"\0", {1: b"ab", 2: b"12345678"}),
        (b"\x1c\x15\x02\0\x15\x04\0", {1: {1: 1}, 2: 2}),
        (b"\x19\x2c\0\x15\x02\0\x19\x15\x02\x19\x28\x01a\x00\0", {1: [{}, {1: 1}], 2: [1], 3: [b"a", b""]}),
        (b"\x49\x21\x01\x02\0", {4: [1, 2]}),
    ],
)
def test_a_struct(content, fields):
    """Its values are read, and the next struct begins behind it."""
    reader = CompactReader(content + b"\0", 100)
    assert reader.struct(LISTS) == fields
    assert reader.position == len(content)
    assert reader.struct() == {}


@each_row(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"\x15", "damaged"),
        (b"\x18\x05abc\0", "damaged"),
        (b"\x18\xff\xff\xff\xff\x0fabc\0", "damaged"),
        # Where another reader finds something else: it reads the last of two, and cuts numbers to 16 or 32 bits.
        (b"\x15\x02\x05\x02\x04\0", "damaged"),
        (b"\x15\x02\x05\x82\x80\x08\x04\0", "damaged"),
        (b"\x05\x01\x02\0", "damaged"),
        (b"\x15" + b"\x80" * 10 + b"\x01\0", "damaged"),
        # It takes the kind of a list that it knows for granted.
        (b"\x19\x15\x02\0", "damaged"),
        (b"\x29\x18\x01a\0", "damaged"),
        (b"\x39\x15\x02\0", "damaged"),
        # Maps and sets.
        (b"\x1b\0\0", "damaged"),
        (b"\x1a\x15\x02\0", "damaged"),
        (b"\x1c" * 50, "too deeply"),
        (b"\x19\x1c" * 50, "too deeply"),
        (b"\x49\x19" * 500, "damaged"),
        (b"\x19\xfc\x90\x4e" + b"\0" * 10_001, "too much metadata"),
    ],
)
def test_a_damaged_struct(content, words):
    """It is an error of its own."""
    with pytest.raises(ValueError, match=words):
        read(content)


def test_uncut_integers():
    """A size of more than 32 bits is not one of a few."""
    assert read(b"\x15\x8a\x80\x80\x80\x20\0") == {1: 2**32 + 5}


@given(st.binary(max_size=200))
def test_any_bytes(content):
    """They are a struct, or an error of its own."""
    with suppress(ValueError):
        assert isinstance(read(content), dict)
