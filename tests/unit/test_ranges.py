"""Ranges come from the client: parsing one takes bounded time, and no header raises."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu import ranges

WHOLE = ranges.Part(200, 0, 10)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=" + " " * 60_000 + "x",
        "bytes" + " " * 60_000,
        "bytes=" + "1" * 60_000,
        "bytes=0-" + "9" * 5_000,
        "bytes=-" + "9" * 20,
        "bytes=\u0661-\u0662",
        "bytes=" + "0-1," * 10_000,
    ],
    ids=lambda header: f"{header[:8]}…{len(header)}",
)
def test_a_hostile_header_is_ignored_at_once(header):
    """60 kB of blanks or digits, or digits that are not ASCII, cost no time and get the whole file."""
    began = time.perf_counter()
    assert ranges.decide(header, None, size=10, etag="", modified="") == WHOLE
    # Quadratic matching of 60 kB takes 31 s; this takes microseconds.
    assert time.perf_counter() - began < 1


def test_the_largest_range():
    """Positions of 19 digits are read, and cut to the file's size."""
    part = ranges.decide(f"bytes=3-{'9' * 19}", None, size=10, etag="", modified="")
    assert (part.status, part.start, part.stop) == (206, 3, 10)


@given(st.text(alphabet="bytes=-,0123456789 \t", max_size=120))
def test_no_header_raises(header):
    """Whatever is asked for: everything, nothing, or a part within the file."""
    part = ranges.decide(header, None, size=10, etag="", modified="")
    assert part.status in (200, 206, 416)
    assert 0 <= part.start <= part.stop <= 10
