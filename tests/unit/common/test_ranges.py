"""Which part of a file a Range header asks for, whatever stands in it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.common.ranges import decide
from tests.rows import each_row

SIZE = 1000


def part(header: str | None, if_range: str | None = None) -> tuple[int, int, int]:
    """Return status, start and end for a file with an ETag."""
    found = decide(header, if_range, size=SIZE, etag='"v1"', modified="")
    return found.status, found.start, found.stop


@each_row(
    ("header", "expected"),
    [
        (None, (200, 0, SIZE)),
        ("bytes=0-99", (206, 0, 100)),
        ("bytes=900-", (206, 900, SIZE)),
        ("bytes=-100", (206, 900, SIZE)),
        ("Bytes = 5 - 9 ", (206, 5, 10)),
        ("bytes=0-9999999999999999999", (206, 0, SIZE)),
        ("bytes=1000-", (416, 0, 0)),
        ("bytes=-0", (416, 0, 0)),
        ("bytes=9-5", (200, 0, SIZE)),
        ("bytes=0-1,5-9", (200, 0, SIZE)),
        ("bytes=-", (200, 0, SIZE)),
        ("bytes=\u0663-\u0669", (200, 0, SIZE)),
        ("bytes=0-99999999999999999999", (200, 0, SIZE)),
        ("bytes=" + "9" * 5000 + "-", (200, 0, SIZE)),
        ("bytes=0-" + " " * 200, (200, 0, SIZE)),
    ],
)
def test_ranges(header, expected):
    """What is not one understandable range of at most 19 digits a number is ignored."""
    assert part(header) == expected


@pytest.mark.fault(
    "attacks", "a reader sends 60 kB of blanks after bytes=", outcome="survived", seen="the whole file, at once"
)
def test_a_long_header_costs_no_time():
    """60 kB of blanks, with which one reader stopped an API server, are not even looked at."""
    started = time.thread_time()
    assert part("bytes=" + " " * 60_000 + "x") == (200, 0, SIZE)
    assert time.thread_time() - started < 0.1


@given(st.text(max_size=120).map(lambda text: f"bytes={text}"))
def test_no_header_breaks_it(header):
    """Every answer lies within the file."""
    status, start, stop = part(header)
    assert status in (200, 206, 416)
    assert 0 <= start <= stop <= SIZE
