"""Generation ids: which are valid, and whether the answer to a query describes the requested one; pure.

Gateways may answer with a different spelling: without a prefix, as a number, or with the id at the service behind them.
A gateway that answers a query with a list must not end a wait with the result of another generation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from airflow_provider_vidu.api.dialects.levels import WRAPPERS, Level, is_envelope, state_word
from airflow_provider_vidu.common.text import UNPRINTABLE, sanitized
from airflow_provider_vidu.common.values import number, objects, text
from airflow_provider_vidu.exceptions import ViduConfigError

MAX_ID_CHARS: Final = 1024
_MAX_ID_NUMBER: Final = 10**40
"""Far above any id of digits; Python refuses to write very long numbers."""
_UNFIT_ID: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
ID_NAMES: Final = ("id", "task_id")
"""The names of a job's id. Other names that end in "id" may confirm an id, but not disprove it."""


def checked_id(generation_id: object) -> str:
    """Return ``generation_id`` as text if it is valid.

    An id of digits becomes a whole number in a DAG with ``render_template_as_native_obj``.

    :raises ViduConfigError: when it is neither text nor a whole number, empty, longer than 1,024 characters, a
        rendered ``None``, or contains control characters.
    """
    if isinstance(generation_id, int) and not isinstance(generation_id, bool) and 0 <= generation_id < _MAX_ID_NUMBER:
        generation_id = str(generation_id)
    if not isinstance(generation_id, str):
        raise ViduConfigError(
            f"generation_id must be a string, not {type(generation_id).__name__}.{_hint_for_id(generation_id)}"
        )
    if not generation_id.strip() or generation_id == "None":
        raise ViduConfigError(
            f"generation_id is {'empty' if not generation_id.strip() else 'the word None'}: "
            "the upstream task returned no id. Check its XCom."
        )
    # A path segment of dots would be normalized away, encoded or not.
    if not _is_usable(generation_id):
        raise ViduConfigError(
            f"generation_id {sanitized(generation_id, 60)!r} is too long, all dots, or contains control characters "
            "or others that cannot be encoded."
        )
    return generation_id


def _is_usable(generation_id: str) -> bool:
    is_blank = not generation_id.strip(" .")
    return len(generation_id) <= MAX_ID_CHARS and not is_blank and not _UNFIT_ID.search(generation_id)


def is_safe_id(generation_id: str) -> bool:
    """Whether an id in an answer can be queried and logged: no line end, no invisible or bidirectional control.

    U+FFFD stands for characters that stores refuse, so it would name something else.
    """
    return _is_usable(generation_id) and not UNPRINTABLE.search(generation_id) and "\ufffd" not in generation_id


def _hint_for_id(value: object) -> str:
    if isinstance(value, Mapping):
        return ' Pass generation=generate.output, or just the id: generate.output["generation_id"].'
    if isinstance(value, float):
        return " Native template rendering turned it into a number: take the id from an XCom, without a template."
    return " The upstream task returned no id: check its XCom." if value is None else ""


def chosen(generation_id: str, payload: Any) -> dict[str, Any] | None:
    """Return the part of an answer to a query that describes a generation; None if only others are described.

    Of a list, that is the entry with the id, or the only entry if it has no id. A single object counts with any id: the
    request names one generation, and a gateway may answer with the id at the service behind it [?].

    :param generation_id: the requested id.
    :param payload: the parsed answer.
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
    return bool(shorter) and re.search(rf"(?<![0-9a-z]){re.escape(shorter)}(?![0-9a-z])", longer) is not None
