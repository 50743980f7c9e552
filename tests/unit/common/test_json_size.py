"""Values of JSON are counted without being parsed."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.common import json_size
from tests.properties import properties


@properties(300)
@given(st.text('"\\\\,[{a', max_size=14), st.integers(2, 5))
def test_values_are_counted_in_pieces(text: str, size: int) -> None:
    """Wherever they begin, even between a backslash and what it escapes."""
    body = json.dumps([{text: [text, {}]}, text]).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_size, "PIECE_BYTES", size)
        assert json_size.value_count(body, 0) == 6
        assert json_size.without_texts(body) == b"[{: [, {}]}, ]"


def test_values_are_counted_in_little_memory() -> None:
    """As objects, the strings of a page of 16 MiB took 300."""
    body = b"[" + b'"aa",' * 400_000 + b"1]"
    tracemalloc.start()
    try:
        assert json_size.value_count(body, 0) == 400_001
        assert tracemalloc.get_traced_memory()[1] < len(body)
    finally:
        tracemalloc.stop()
