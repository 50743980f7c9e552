"""Single values are read out of anything, without an exception."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.common import values
from tests.properties import properties
from tests.rows import each_row

quiet = properties(80)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@each_row(
    ("value", "expected"),
    [
        (0, 0.0), (7, 7.0), (-1.5, -1.5), ("12", 12.0), (" 12.5 ", 12.5), ("100%", 100.0), ("1e3", 1000.0),
        (True, None), (False, None), (None, None), ("", None), ("%", None), ("abc", None), ("nan", None),
        ("inf", None), (float("nan"), None), (float("inf"), None), (10**400, None), ([1], None), ({}, None),
    ],
)  # fmt: skip
def test_number(value: Any, expected: float | None) -> None:
    """A finite number or nothing."""
    assert values.number(value) == expected


def test_every_invisible_character_around_a_text_is_dropped() -> None:
    """An address that was copied from a page or a chat: "it lacks https://" misleads, because it is there to see."""
    signs = [chr(code) for code in range(0x10000) if unicodedata.category(chr(code)) in ("Cf", "Zs", "Zl", "Zp")]
    shown = [sign for sign in signs if values.trimmed(f"{sign}x {sign}") != "x"]
    assert {unicodedata.name(sign).split()[0] for sign in shown} == {"ARABIC", "SYRIAC"}


@each_row(
    ("value", "expected"),
    [(80, 80), ("80", 80), (4.0, 4), (4.5, 4.5), ("x", None), (True, None), (None, None), (2**53, 2**53)],
)
def test_whole(value: Any, expected: float | None) -> None:
    """Whole numbers are ints, so that XComs show 80 and not 80.0."""
    found = values.whole(value)
    assert found == expected
    assert type(found) is type(expected)


@each_row(
    ("value", "expected"),
    [
        (0, 0), ("0", 0), (50, 50), ("100%", 100), (100.0, 100), (150, 100), (-3, 0), (99.9, 99), ("", None),
        (None, None), (True, None), ("half", None), (1e300, 100), ([50], None),
    ],
)  # fmt: skip
def test_percent(value: Any, expected: int | None) -> None:
    """A progress is an int between 0 and 100."""
    assert values.percent(value) == expected


WHEN = datetime(2025, 6, 19, 8, 52, 47, tzinfo=UTC)


@each_row(
    ("value", "expected"),
    [
        pytest.param(1750323167, WHEN, id="seconds"),
        pytest.param("1750323167", WHEN, id="seconds as text"),
        pytest.param(1750323167003, WHEN.replace(microsecond=3000), id="milliseconds"),
        pytest.param("1750323167003", WHEN.replace(microsecond=3000), id="milliseconds as text"),
        pytest.param(1750323167.5, WHEN.replace(microsecond=500000), id="fraction"),
        pytest.param("2025-06-19T08:52:47Z", WHEN, id="ISO"),
        pytest.param("2025-06-19T08:52:47.323137590Z", WHEN.replace(microsecond=323137), id="nine digits"),
        pytest.param("2025-06-19T10:52:47+02:00", WHEN, id="offset"),
        pytest.param("2025-06-19T08:52:47", WHEN, id="no offset is UTC"),
        pytest.param(" 2025-06-19 08:52:47 ", WHEN, id="blanks"),
        pytest.param(0, None, id="zero"),
        pytest.param(-5, None, id="negative"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="word"),
        pytest.param(None, None, id="none"),
        pytest.param(True, None, id="true"),
        pytest.param(1e30, None, id="beyond the calendar"),
        pytest.param(1750323167003000000, None, id="nanoseconds"),
        pytest.param("0001-01-01T00:00:00+23:00", None, id="before the calendar"),
        pytest.param("9999-12-31T23:59:59-23:00", None, id="after the calendar"),
        pytest.param("0001-01-01T00:00:00Z", None, id="the zero time of Go"),
        pytest.param({}, None, id="object"),
    ],
)
def test_moment(value: Any, expected: datetime | None) -> None:
    """Times come in seconds, milliseconds and ISO 8601 and leave as aware UTC."""
    found = values.moment(value)
    assert found == expected
    assert found is None or found.utcoffset() == UTC.utcoffset(None)


@each_row(
    ("value", "expected"),
    [("a", "a"), (" a ", " a "), ("", None), ("  ", None), (None, None), (2**63, str(2**63)), (0, "0"),
     (True, None), (1.5, None), ([], None), ({}, None)],
)  # fmt: skip
def test_text(value: Any, expected: str | None) -> None:
    """A non-empty string, or the digits of an int."""
    assert values.text(value) == expected


def test_first_text() -> None:
    """The first non-empty string wins."""
    assert values.first_text(None, "", {}, " ", "x", "y") == "x"
    assert values.first_text() is None


def test_mapping() -> None:
    """Anything but an object is an empty object."""
    assert values.mapping({"a": 1}) == {"a": 1}
    assert [dict(values.mapping(other)) for other in (None, [], "a", 3)] == [{}, {}, {}, {}]


SIGNED = "https://h/v.mp4?response-content-disposition=attachment;filename=v.mp4&Signature=ab~cd%2F-__&x='y'"


@each_row(
    "url",
    [
        SIGNED, "http://h/v.mp4", "HTTPS://H/v", "https://h:8443", "https://[::1]:1/x", "https://h/ü",
        "https://u:p@h/x",
    ],
)  # fmt: skip
def test_web_url_is_returned_verbatim(url: str) -> None:
    """A usable URL is not changed by a single character."""
    assert values.web_url(url) is url


@each_row(
    "value",
    [
        None, "", " ", 7, True, [], {}, "null", "v.mp4", "/v.mp4", "//h/v.mp4", "ftp://h/v", "file:///etc/passwd",
        "s3://b/k", "data:video/mp4;base64,AA", "https://", "https:///v.mp4", "https://:443/v", "http://[::1",
        "https://h/a b", "https://h/a\nb", " https://h/v", "https://h/\x00", "https://h/\ud800", "https://h/\x7f",
        "javascript:alert(1)", pytest.param("https://h/" + "a" * 20_000, id="too long"),
        # Parsers disagree on where this host ends.
        pytest.param("http://127.0.0.1\\@public.example.com/v.mp4", id="backslash"),
    ],
)  # fmt: skip
def test_web_url_refuses(value: Any) -> None:
    """Empty strings, other schemes and unfit characters are not URLs."""
    assert values.web_url(value) is None


@quiet
@given(ANYTHING)
def test_no_reader_raises(value: Any) -> None:
    """Whatever JSON may hold, a reader returns its type or None."""
    assert isinstance(values.number(value), float | None)
    assert isinstance(values.whole(value), int | float | None)
    found = values.percent(value)
    assert found is None or 0 <= found <= 100
    when = values.moment(value)
    assert when is None or when.tzinfo is UTC
    assert isinstance(values.text(value), str | None)
    assert isinstance(values.web_url(value), str | None)
    assert values.first_text(value) == values.text(value)
    values.mapping(value)


@quiet
@given(st.text(st.characters(), max_size=40))
def test_no_text_makes_the_time_reader_raise(value: str) -> None:
    """Texts that begin like a time are read or refused quietly."""
    for prefix in ("", "2025-", "2025-06-19T", "2025-06-19T08:52:47"):
        values.moment(prefix + value)


@quiet
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_makes_the_time_reader_raise(value: float) -> None:
    """Absurd numbers are not times."""
    values.moment(value)


@each_row(
    ("value", "expected"),
    [
        ("no luck", "no luck"), ("", None), (None, None), (True, None), (7, "7"), (7.5, None), ([], None), ({}, None),
        (["a", "b"], "a; b"), (["a", "a"], "a"), ([{"message": "a"}, "b"], "a; b"),
        ({"message": "m"}, "m"), ({"err_msg": "m"}, "m"), ({"error": {"message": "m"}}, "m"),
        ({"message": "Bad Request", "error": {"message": "m"}}, "m"), ({"error": "Bad", "message": "m"}, "m"),
        ({"error": {"why": {"deep": "m"}}}, "m"), ({"unheard": "of"}, None), ({"error": {"code": "E1"}}, None),
        ('{"message": "m"}', "m"), ('["a", "b"]', "a; b"), ('said: {"reason": "R", "message": "m"}', "m"),
        ('{"why": "m"}', "m"), ('the field {"prompt": "x"} is wrong', 'the field {"prompt": "x"} is wrong'),
        ("[1] try again", "[1] try again"), ("{not json", "{not json"), ("a {b} c", "a {b} c"),
        ('a {b} {"message": "m"}', "m"), ('{"message": "{\\"message\\": \\"m\\"}"}', "m"), ("{}", "{}"),
        ('{"message": "\\ud800a"}', "\ufffda"),
    ],
)  # fmt: skip
def test_reason(value: Any, expected: str | None) -> None:
    """The text that explains an error is found in lists, objects and JSON inside a text; prose stays as it is."""
    assert values.reason(value) == expected


@each_row(
    ("payload", "expected"),
    [
        ({"metadata": {"trace_id": "t"}}, "t"), ({"trace_id": "t"}, "t"), ({"request_id": "t"}, "t"),
        ({"error": {"request_id": "t"}}, "t"), ({"error": {"metadata": {"trace_id": "t"}}}, "t"),
        ({"message": "m (request id: 2026x)"}, "2026x"), ({"error": {"message": "m (Request ID: 2026x)"}}, "2026x"),
        ({"error": "m (trace_id: t)"}, "t"), ({"fail_reason": "m (request id: t)"}, "t"),
        ({"message": "request id: t"}, None), ({"metadata": [], "error": 7, "trace_id": {}}, None), ({}, None),
    ],
)  # fmt: skip
def test_trace_id(payload: dict[str, Any], expected: str | None) -> None:
    """The trace id is found in the shape of the official API and in those of the gateways."""
    assert values.trace_id(payload) == expected


@pytest.mark.parametrize(
    "media",
    [
        "data:image/png;base64,iVBORw0KGgo=", "data:audio/mpeg;codecs=x;base64,AAAA", "A" * 5000,
        "-_" * 3000 + "==", 'x "data:video/mp4;base64,AAAA\\/BBBB" y', ("A" * 60 + "\n") * 70 + "AAA=\n",
        ("A" * 76 + "\r\n") * 60 + "A",
    ],
    ids=range(7),
)  # fmt: skip
def test_without_media(media: str) -> None:
    """Inline media becomes a note, at any depth; what is given is not changed."""
    value = {"a": [media, {"b": media}], "c": "data: base64, of course", "d": 7, "e": "a" * 4000 + " words"}
    found = values.without_media(value)
    assert "cut out)" in found["a"][0]
    assert found["a"][1]["b"] == found["a"][0]
    assert (found["c"], found["d"], found["e"]) == (value["c"], 7, value["e"])
    assert value["a"][0] == media


@quiet
@given(ANYTHING)
def test_the_readers_of_errors_never_raise(value: Any) -> None:
    """Whatever an error holds, the readers return a text or nothing."""
    for found in (values.reason(value), values.trace_id(value) if isinstance(value, dict) else None):
        assert found is None or found.strip()
    values.without_media(value)
    values.embedded(value)


@pytest.mark.parametrize(
    "bomb", ["[" * 200_000, '{"a":' * 200_000, "{" * 200_000, '{"message":"' * 50_000], ids=range(4)
)
def test_json_bombs_inside_a_text(bomb: str) -> None:
    """A text that nests without end is prose."""
    assert values.embedded(bomb) is None
    assert values.reason(bomb) == bomb


def test_a_bomb_inside_a_text_is_prose() -> None:
    """Values in a text are counted before they are parsed, those of a long payload inside it are not."""
    assert values.embedded('{"a": [' + "{}," * 50_000 + "{}]}") is None
    assert values.embedded(json.dumps({"task_id": "x", "payload": "a, " * 100_000}))["task_id"] == "x"


@pytest.mark.parametrize("before", ['" ', 'status "400: ', '{" '])
def test_a_bomb_inside_a_text_is_counted_from_where_a_parser_begins(before: str) -> None:
    """Behind a quotation mark its values passed for text: a megabyte of them held a poll for seconds."""
    assert values.embedded(before + '{"a": [' + "[]," * 50_000 + "[]]}") is None


def test_integers_of_absurd_length_inside_a_text() -> None:
    """Python refuses to convert them, so they stay texts."""
    assert values.embedded('{"task_id": "x", "seed": ' + "1" * 5000 + "}") == {"task_id": "x", "seed": "1" * 5000}
