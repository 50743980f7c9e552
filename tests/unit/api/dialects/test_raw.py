"""What is kept of an answer fits into an XCom."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_vidu.api.dialects.raw import MAX_RAW_CHARS, bounded
from airflow_provider_vidu.common import values
from tests.rows import each_row

LARGE = [
    {"prompt": "x y " * 50_000},
    {"list": [{"a": "b" * 30}] * 10_000},
    {"map": {str(n): "b c " * 10 for n in range(10_000)}},
    {str(n): "b c " * 10 for n in range(10_000)},
    {"deep": [[[["b c " * 20] * 30] * 30] * 30]},
    {"中" * 100_000: 1, "a": "中" * 40_000},
]


@each_row("value", LARGE, ids=range(len(LARGE)))
def test_bounded(value: dict[str, Any]) -> None:
    """Whatever makes it large, its JSON fits; what is given is not changed, and a second pass changes nothing."""
    before = json.dumps(value)
    found = bounded({"id": "a", **value, "state": "created"})
    assert len(json.dumps(found)) <= MAX_RAW_CHARS
    assert found["id"] == "a"
    assert "cut out)" in json.dumps(found) or "too large to keep" in json.dumps(found)
    assert bounded(found) == found
    assert json.dumps(value) == before


def test_what_is_small_is_kept_whole() -> None:
    """The same object, and nothing in it counts as cut."""
    value = {"prompt": "a cat" * 1000}
    assert bounded(value) is value
    assert not values.is_cut(value["prompt"])
    assert values.is_cut(bounded({"prompt": "a cat " * 20_000})["prompt"])
