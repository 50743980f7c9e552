"""Which generation ids are valid; pure. Not among the dialects: operators need it while DAG files are parsed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from airflow_provider_vidu.common.text import UNPRINTABLE, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError

MAX_ID_CHARS: Final = 1024
_MAX_ID_NUMBER: Final = 10**40
"""Far above any id of digits; Python refuses to write very long numbers."""
_UNFIT_ID: Final = re.compile(r"[\ufffd\ud800-\udfff]|://")


def checked_id(generation_id: object) -> str:
    """Return ``generation_id`` as text if it is valid.

    An id of digits becomes a whole number in a DAG with ``render_template_as_native_obj``.

    :raises ViduConfigError: when it is neither text nor a whole number, empty, longer than 1,024 characters, a
        rendered ``None``, an address, or contains control or invisible characters.
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
    if not is_safe_id(generation_id):
        raise ViduConfigError(
            f"generation_id {sanitized(generation_id, 60)!r} is too long, all dots, an address, or contains control or "
            "invisible characters or others that cannot be encoded."
        )
    return generation_id


def is_safe_id(generation_id: str) -> bool:
    """Whether an id can be queried and logged: no line end, no invisible or bidirectional control, no address.

    An address may be signed, and triggers mask no signatures. U+FFFD stands for characters that stores refuse, so it
    would name something else.
    """
    # A path segment of dots would be normalized away, encoded or not.
    is_blank = not generation_id.strip(" .")
    is_unfit = UNPRINTABLE.search(generation_id) or _UNFIT_ID.search(generation_id)
    return len(generation_id) <= MAX_ID_CHARS and not is_blank and not is_unfit


def _hint_for_id(value: object) -> str:
    if isinstance(value, Mapping):
        # Airflow maps over return values only, and a @task has the value itself.
        return (
            ' Pass generation=generate.output, or just the id: generate.output["generation_id"] if the task is not '
            'mapped, and generation["id"] in a @task.'
        )
    if isinstance(value, float):
        return " Native template rendering turned it into a number: take the id from an XCom, without a template."
    return " The upstream task returned no id: check its XCom." if value is None else ""
