"""Single fields of values that are stored as JSON, read by the database itself: alike in all that Airflow runs on."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import JSON, Boolean, Numeric, String, and_, case, cast, func, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

MAX_SMALL_CHARS: Final = 8_000
"""The longest id or note that is read: 1,024 characters of an id may be spelt with six each."""
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
    return case((and_(func.length(whole) <= within, whole.like("{%")), case((is_json(whole, column), found))))


def as_number(text: Any) -> Any:
    """Return the number in a text as a number; NULL where it is none below a billion."""
    return case((text.regexp_match(_NUMBER), cast(text, Numeric(15, 6, asdecimal=False))))


class is_json(GenericFunction[bool]):  # noqa: N801 - the name of a function in SQL
    """Whether a text is JSON that the database can parse: what Python writes (``NaN``) may not be.

    It is called with the text and the column that it is the text of.
    """

    type = Boolean()
    inherit_cache = True


# Without half a surrogate pair and without a NUL. Escapes are read from the first one on: after a backslash that stands
# for itself, "ud83d" is no half of a pair, and what follows it has none.
_IN_TEXT: Final = (
    r"^[^\\]*(?:(?:\\[^u]|\\u(?!0000|[dD][89a-fA-F])[0-9a-fA-F]{4}"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})[^\\]*)*$"
)


@compiles(is_json)
def _readable_json(element: Any, compiler: Any, **more: Any) -> str:
    # PostgreSQL's types hold nothing else. But its type json, of rendered fields, also holds escapes that no text can
    # hold, and then each look into the value ends the whole query with an error. Its type jsonb, of XComs, cannot, and
    # to search 50,000 notes of 7 kB for them takes ten seconds for each field.
    text, column = (compiler.process(each, **more) for each in element.clauses)
    return rf"(pg_typeof({column}) = 'jsonb'::regtype OR strpos({text}, '\u') = 0 OR {text} ~ '{_IN_TEXT}')"


@compiles(is_json, "sqlite")
def _decodable_json(element: Any, compiler: Any, **more: Any) -> str:
    # SQLite makes bytes of half a pair that Python cannot decode. Its REGEXP is Python's.
    text = compiler.process(next(iter(element.clauses)), **more)
    return rf"(json_valid({text}) = 1 AND (instr({text}, '\u') = 0 OR {text} REGEXP '{_IN_TEXT}'))"


@compiles(is_json, "mysql")
@compiles(is_json, "mariadb")
def _json_valid(element: Any, compiler: Any, **more: Any) -> str:
    return f"json_valid({compiler.process(next(iter(element.clauses)), **more)}) = 1"
