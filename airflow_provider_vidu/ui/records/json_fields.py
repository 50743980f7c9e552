"""Single fields of values that are stored as JSON, read by the database itself: alike in all that Airflow runs on."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import JSON, Numeric, String, and_, case, cast, func, type_coerce

from airflow_provider_vidu.ui.records.counts import MAX_SMALL_CHARS, is_json

MAX_FIELD_CHARS: Final = 250
_NUMBER: Final = r"^[0-9]{1,9}([.][0-9]{1,6})?$"


def text_field(column: Any, name: str, length: int = MAX_FIELD_CHARS, *, within: int = MAX_SMALL_CHARS) -> Any:
    """Return the text, or the number as text, that a JSON object has under a name; NULL where it has none.

    Nested in a case: no database looks for a name in what is not JSON (Python writes ``NaN``).

    :param column: a column of JSON values.
    :param name: the name.
    :param length: the most characters that are read of it.
    :param within: in values with more characters than this, nothing is looked for.
    """
    whole = cast(column, String)
    found = cast(type_coerce(column, JSON)[name].as_string(), String(length))
    return case((and_(func.length(whole) <= within, whole.like("{%")), case((is_json(whole), found))))


def as_number(text: Any) -> Any:
    """Return the number in a text as a number; NULL where it is none below a billion."""
    return case((text.regexp_match(_NUMBER), cast(text, Numeric(15, 6, asdecimal=False))))
