"""What is kept of an answer as a generation's ``raw``: it becomes an XCom, so its size is limited; pure."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.values import shortened

MAX_RAW_CHARS: Final = 64 * 1024
"""The longest JSON of an answer that is kept, because it becomes an XCom, a row of Airflow's database."""
# (characters per string, items per list or object): each pass cuts more.
_TRIMS: Final = ((4096, 1000), (1024, 100), (256, 30), (64, 8))


def bounded(value: dict[str, Any], most_values: int | None = None) -> dict[str, Any]:
    """Return an answer cut to ``MAX_RAW_CHARS`` characters of JSON, with notes in place of the omitted parts.

    :param value: plain JSON; it is not changed.
    :param most_values: the maximum number of values; None for no such limit.
    """
    for chars, items in _TRIMS:
        if _fits(value, most_values):
            return value
        value = _trimmed(value, chars, items)
    if _fits(value, most_values):
        return value
    kept = {name: item for name, item in value.items() if not isinstance(item, (dict, list))}
    return {**kept, "…": f"({len(value) - len(kept)} more fields, too large to keep)"}


def _fits(value: dict[str, Any], most_values: int | None) -> bool:
    dumped = json.dumps(value)
    if len(dumped) > MAX_RAW_CHARS:
        return False
    return most_values is None or value_count(dumped.encode("ascii"), most_values) <= most_values


def _trimmed(value: Any, chars: int, items: int) -> Any:
    if isinstance(value, str):
        return shortened(value, chars)
    if isinstance(value, list):
        more = [f"({len(value) - items} more items cut out)"] if len(value) > items else []
        return [_trimmed(item, chars, items) for item in value[:items]] + more
    if isinstance(value, dict):
        few = itertools.islice(value.items(), items)
        kept = {shortened(name, chars): _trimmed(item, chars, items) for name, item in few}
        return {**kept, "…": f"({len(value) - items} more fields cut out)"} if len(value) > items else kept
    return value
