"""JSON is counted before it is parsed, lists take the fast path, and damage leaves what can be read."""

from __future__ import annotations

import json
import time
import tracemalloc
from codecs import getincrementaldecoder
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.common import parsing, values
from airflow_provider_vidu.common.parsing import TooManyValuesError, depth, documents, parse
from airflow_provider_vidu.common.values import MAX_DEPTH
from tests.properties import properties
from tests.rows import each_row

quiet = properties(100)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
ENTRY = {"id": "1", "prompt": "a [cat], {with} wings", "creations": [{"id": "2", "url": "https://h/v?a=1&b=2"}]}


def partly(body: bytes, wanted: Collection[str] = ()) -> Any:
    """Return the first object or list of a damaged text, or None."""
    return next((document.value for document in documents(body, wanted=wanted)), None)


@pytest.fixture
def no_slow_path(monkeypatch):
    """Fail where the walk through all values is taken."""

    def plain(*_: object) -> None:
        raise AssertionError("walked")

    monkeypatch.setattr(parsing, "plain", plain)


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("spelling", [str, lambda text: text.replace("&", "\\u0026"), lambda text: text + "\n"])
def test_lists_take_the_fast_path(spelling):
    """Depth counts, and not the number of brackets; an ampersand as Go writes it is harmless."""
    listed = {"tasks": [{**ENTRY, "n": n} for n in range(100)]}
    assert parse(spelling(json.dumps(listed)).encode()) == listed


@pytest.mark.parametrize("escape", ["\\u0000", "\\ud800", "\\uDC00"])
def test_odd_escapes_do_not(escape):
    """They stand for what no store takes."""
    assert parse(f'{{"a": "{escape}"}}'.encode()) == {"a": "\ufffd"}


@pytest.mark.parametrize("odd", ["\n", "\t", "\r\n"])
def test_line_ends_of_a_prompt_may_be_unescaped(odd):
    """Creates were read with them, and polls were not: the clip was paid for and never fetched."""
    assert parse(f'{{"id": 1, "prompt": "a{odd}b"}}'.encode()) == {"id": 1, "prompt": f"a{odd}b"}
    assert parse(f'{{"id": {10**20}, "prompt": "a{odd}b"}}'.encode())["prompt"] == f"a{odd}b"  # the slower path
    assert parse(b'{"prompt": "a\0b"}') == {"prompt": "a\ufffdb"}


def test_a_secret_behind_escapes_is_struck():
    """The fast path is for answers that hold no secret, in whatever spelling."""
    redact = lambda text: text.replace("\\u0073", "s").replace("secret", "***")  # noqa: E731
    assert parse(b'{"a": "\\u0073ecret"}', redact) == {"a": "***"}


@each_row(
    ("body", "expected"),
    [
        (b"1", 0), (b"[]", 1), (b"[[],{}]", 2), (b'{"a":[{"b":1}]}', 3), (b'["[[[[", "\\"[[["]', 1),
        (b"[" * 100 + b"]" * 100, 100), (b"[" * 101 + b"]" * 101, 101), (b"[" * 5000 + b"]" * 5000, 101),
        (b"]", 101), (b"[[[", 101),
    ],
    ids=range(10),
)  # fmt: skip
def test_depth(body, expected):
    """Brackets inside texts do not count; one more than the limit stands for all that is deeper or broken."""
    assert depth(body) == expected


@quiet
@given(ANY_JSON)
def test_depth_of_any_json(value: Any) -> None:
    """It is what a walk finds."""

    def walk(item: Any) -> int:
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else None
        return 0 if inner is None else 1 + max(map(walk, inner), default=0)

    assert depth(json.dumps(value).encode()) == walk(value)


@pytest.mark.parametrize(
    "entry", ['{"id":"9470000000000000001","n":[1]}', '{"id":"9","p":"say \\"hi\\" \\\\"}'], ids=range(2)
)
def test_a_page_of_a_hundred_entries_takes_the_fast_path(entry, monkeypatch):
    """Many brackets are not depth: a page of the list is parsed as quickly as an answer about one generation."""
    monkeypatch.setattr(parsing, "plain", None)
    assert parse(f'{{"tasks":[{",".join([entry] * 100)}]}}'.encode(), most_values=200_000)["tasks"][99]["id"][0] == "9"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("18446744073709551615", 18446744073709551615), ("-9223372036854775808", -9223372036854775808),
        ("18446744073709551616", "18446744073709551616"), ("-9223372036854775809", "-9223372036854775809"),
    ],
)  # fmt: skip
def test_an_integer_of_more_than_64_bits_becomes_text(number, expected):
    """No store holds it as a number."""
    assert parse(f'{{"a": {number}}}'.encode()) == {"a": expected}


@pytest.mark.parametrize("body", [b"0" * 19 + b" ", b'\\"', b'"\\\\', b"-" + b"1" * 18 + b","], ids=range(4))
def test_a_body_that_repeats_what_is_searched_is_read_in_linear_time(body):
    """Megabytes of nearly long numbers, or of escaped quotation marks, cost no more than others."""
    began = time.process_time()
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own, or too many values
        parse(body * (8_000_000 // len(body)))
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" + b"{}," * 1_400_000 + b"{}]", b"[" * 4_000_000, b'{"a":' * 800_000, b"[" + b"0," * 2_000_000 + b"0]",
        b'{"x":"\\"' + b'","y":"' * 600_000 + b'"}',
    ],
    ids=range(5),
)  # fmt: skip
def test_bombs_are_counted_and_not_parsed(bomb, monkeypatch):
    """Four megabytes of nothing never reach the parser."""
    monkeypatch.setattr(parsing, "_DECODER", None)
    monkeypatch.setattr(parsing, "_PLAIN_DECODER", None)
    with pytest.raises(TooManyValuesError):
        parse(bomb)


@pytest.mark.parametrize("wrapper", ['event: "\ndata: ', ': "\n\ndata: '])
def test_bombs_in_a_wrapper_are_counted_without_it(wrapper):
    """Behind a quotation mark in an event's name the values passed for text, and 16 MiB took a gigabyte."""
    with pytest.raises(TooManyValuesError):
        parse((wrapper + '{"a":[' + "[]," * 50_000 + "[]]}\n\n").encode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be"])
def test_bombs_in_other_encodings_are_counted_too(encoding):
    """The second byte of a letter, or what escapes a quotation mark, does not shift where texts begin and end."""
    with pytest.raises(TooManyValuesError):
        parse(('["\\"",' + "{}," * 300_000 + '"x"]').encode(encoding))
    assert parse('{"task_id": "ģ\\"Ģ"}'.encode(encoding)) == {"task_id": 'ģ"Ģ'}


@each_row("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32"])
@each_row("shift", range(4))
def test_a_large_body_is_decoded_in_pieces(encoding, shift, monkeypatch):
    """Within one call no other thread runs: 15 MiB of lone surrogates in UTF-16 held the event loop for a second."""
    sizes = []

    def counted(name):
        decoder = getincrementaldecoder(name)("replace")
        decode = decoder.decode
        decoder.decode = lambda data, final=False: sizes.append(len(data)) or decode(data, final)
        return lambda _errors: decoder

    monkeypatch.setattr(values.codecs, "getincrementaldecoder", counted)
    text = "a" * shift + "\N{CLAPPER BOARD}\N{EURO SIGN}b" * 200_000
    assert parse(json.dumps({"a": text}, ensure_ascii=False).encode(encoding))["a"] == text
    bad = "\ud800".encode("utf-16-le", "surrogatepass") * 400_000
    assert documents(b"\xff\xfe" + bad) == []
    assert max(sizes) <= 256 * 1024


def test_a_text_without_its_end_is_counted_in_one_pass():
    """Four megabytes of escaped quotation marks took hours, and the event loop of everyone stood still meanwhile."""
    with pytest.raises(TooManyValuesError):
        parse(b"[" + b"1," * 20_001 + b'"' + b'\\"' * 2_000_000)


def test_commas_in_texts_are_no_values():
    """A payload of a megabyte may hold whatever it likes."""
    value = {"payload": '{"a": [1, 2]}, ' * 60_000, "quoted": '"'}
    assert parse(json.dumps(value).encode()) == value


@quiet
@given(ANY_JSON)
def test_whole_json_is_read_like_that(value: Any) -> None:
    """What is not damaged means the same either way."""
    body = json.dumps({"a": value}).encode()
    assert partly(body) == parse(body)


@quiet
@given(ANY_JSON, st.integers(0, 400))
def test_any_beginning_is_read(value: Any, at: int) -> None:
    """A cut never raises and never invents: what is read was sent."""
    whole = {"first": "1", "value": value}
    found = partly(json.dumps(whole).encode()[:at])
    assert found is None or isinstance(found, dict)
    if found and "first" in found:
        assert found["first"] == "1"


@quiet
@given(st.binary(max_size=200))
def test_arbitrary_bytes(body: bytes) -> None:
    """Whatever follows a bracket is read or dropped."""
    for start in (b"{", b"["):
        json.dumps(partly(start + body), allow_nan=False).encode()
        json.dumps([found.value for found in documents(body + start + body)], allow_nan=False).encode()


def test_documents_are_bounded() -> None:
    """So many are returned, and so many members of all together."""
    assert len(documents(b'{"a":1}\n' * 1000)) == 50
    wide = b"{" + b",".join(b'"%d":1' % n for n in range(4000)) + b"}"
    assert sum(len(found.value) for found in documents(wide * 3)) == 5000
    assert [found.is_clean for found in documents(b"data: {}\n\nid: 7\ndata: {}\n\nwords {} {}")] == [
        True, True, False, False,
    ]  # fmt: skip


@each_row(
    ("body", "expected"),
    [
        ('{"id": "ab', {}), ('{"id": "ab"', {"id": "ab"}), ('{"id": 12', {}),
        ('{"id": 12 ', {}), ('{"id": 12,', {"id": 12}),
        ('{"a": {"id": "x"', {"a": {"id": "x"}}), ('{"a": ["x", "y', {"a": ["x"]}), ('{"a": tr', {}),
        ('{"a": true, "b": nul', {"a": True}), ('{"a": 1} trailing {"b": 2}', {"a": 1}), ('{"a": 1]', {"a": 1}),
        ('{"a": oops, "b": 1}', {"a": None, "b": 1}), ('{"a" "b": 1}', {"a": "b"}), ("<html>{}", None), ("", None),
        ('\ufeff {"a": 1', {}), ('{"d": "{\\"id\\": \\"x\\", \\"img\\": \\"da', {"d": {"id": "x"}}),
        ('{"a": "\\ud800\\u0000"}', {"a": "\ufffd\ufffd"}), ('{"a": NaN, "b": 1e999}', {"a": None, "b": None}),
        ('{"a": [1}, "b": 2}', {"a": [1]}),
    ],
)  # fmt: skip
def test_what_is_left_of_damaged_json(body, expected):
    """Members whose end was seen."""
    assert partly(body.encode()) == expected


def test_a_damaged_answer_is_bounded():
    """Lists and objects end; a wanted name is kept however late it comes, and nothing is nested too deeply."""
    found = partly(b'{"l":[' + b"{}," * 200_000 + b"{}]," + b'"x":1,' * 10 + b'"id":"a"}', wanted={"id"})
    assert (len(found["l"]), found["id"]) == (100, "a")
    many = b"{" + b"".join(b'"%d":1,' % n for n in range(50_000)) + b'"id":"a"}'
    assert partly(many, wanted={"id"})["id"] == "a"
    assert "id" not in partly(many)
    deep: Any = partly(b'{"a":' * 5000 + b'1,"id":"x"')
    levels = 0
    while isinstance(deep, dict) and "a" in deep:
        deep, levels = deep["a"], levels + 1
    assert levels < MAX_DEPTH + 1


def test_line_ends_take_little_memory():
    """A stream of events that consists of line ends is not made a million lists of."""
    body = b"data:1" + b"\n" * 1_000_000 + b"data:2"
    tracemalloc.start()
    try:
        with pytest.raises(json.JSONDecodeError):
            parse(body)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(body)
    finally:
        tracemalloc.stop()


@each_row("name", ["__classname__", "__id__", "__type", "__var", "\\u005f_type", "_\\u005Fvar"])
@each_row("read", [parse, lambda body: documents(body)[0].value])
def test_no_name_means_a_class_to_airflow(read, name):
    """However it is spelt, and however the answer is read: an XCom would be refused, or become an object."""
    found = read(f'{{"a": [{{"{name}": 1, "__b": 2}}]}}'.encode())
    plain_name = name.replace("\\u005f", "_").replace("\\u005F", "_")
    assert found == {"a": [{f"x{plain_name}": 1, "__b": 2}]}
