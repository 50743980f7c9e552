"""Whether the answer to a query describes the requested generation; pure.

Gateways may answer with a different spelling: without a prefix, as a number, or with the id at the service behind them.
A gateway that answers a query with a list must not end a wait with the result of another generation.
"""

from __future__ import annotations

import string
from decimal import Decimal
from typing import Any, Final

from airflow_provider_vidu.api.dialects.levels import WRAPPERS, Level, is_envelope, state_word
from airflow_provider_vidu.common.values import number, objects, text

ID_NAMES: Final = ("id", "task_id")
"""The names of a job's id. Other names that end in "id" may confirm an id, but not disprove it."""
_WORD_CHARS: Final = frozenset(string.digits + string.ascii_lowercase)


def chosen(generation_id: str, payload: Any) -> dict[str, Any] | None:
    """Return the part of an answer to a query that describes a generation; None if only others are described.

    Of a list, that is the entry with the id, or the only entry if it has no id. A single object counts with any id: the
    request names one generation, and a gateway may answer with the id at the service behind it [?].
    """
    if isinstance(payload, list):
        return _entry(generation_id, payload)
    if not isinstance(payload, dict):
        return None
    name = next((name for name in WRAPPERS if isinstance(payload.get(name), list)), None)
    if name is not None and _lists_jobs(payload, payload[name]):
        entry = _entry(generation_id, payload[name])
        return None if entry is None else {**payload, name: entry}
    return payload


def _entry(generation_id: str, listed: list[Any]) -> dict[str, Any] | None:
    entries = [entry for entry in listed if isinstance(entry, dict)]
    named = next((entry for entry in entries if _names(entry, generation_id)), None)
    if named is not None or len(listed) != 1 or not entries:
        return named
    return None if any(text(entries[0].get(name)) for name in ID_NAMES) else entries[0]


def _lists_jobs(payload: Level, listed: list[Any]) -> bool:
    """Whether a list inside an answer is of jobs, and not of the results of a single one."""
    return is_envelope({**payload, **dict.fromkeys(WRAPPERS)}) and any(map(state_word, objects(listed)))


def _names(level: Level, generation_id: str) -> bool:
    """Whether a level has the id in any spelling: without a prefix, or as a rounded number."""
    requested = generation_id.strip().lower()
    return any(name.lower().endswith("id") and _is_spelling(value, requested) for name, value in level.items())


def _is_spelling(value: Any, requested: str) -> bool:
    shown = (text(value) or "").strip().lower()
    if shown == requested:
        return True
    if not isinstance(value, str):
        # JavaScript's numbers are exact up to 2^53: a gateway written in it rounds the official ids.
        exact = number(requested) if requested.isdecimal() else None
        return exact is not None and value == int(Decimal(repr(exact)))
    longer, shorter = (requested, shown) if len(requested) >= len(shown) else (shown, requested)
    return bool(shorter) and _is_part(shorter, longer)


def _is_part(name: str, text: str) -> bool:
    """Whether a name is in a text, and no letter or digit is beside it.

    Not by a pattern: to compile one for each of a thousand names takes the event loop half a second.
    """
    at = text.find(name)
    while at >= 0:
        if not {text[max(at - 1, 0) : at], text[at + len(name) : at + len(name) + 1]} & _WORD_CHARS:
            return True
        at = text.find(name, at + 1)
    return False
