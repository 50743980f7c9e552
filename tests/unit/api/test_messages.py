"""Bodies become JSON that every store can hold, or a clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.messages import TOO_LARGE, ApiAnswer, ApiRequest, unwrapped
from airflow_provider_vidu.common.values import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER, plain
from airflow_provider_vidu.exceptions import ViduConfigError, ViduResponseError, ViduTransportError
from airflow_provider_vidu.network.bodies import CREATE, LIST, SINGLE
from tests.properties import properties
from tests.rows import each_row

quiet = properties(80)


def answer(body: bytes, status: int = 200, content_type: str = "application/json") -> ApiAnswer:
    """Return an answer with this body."""
    return ApiAnswer(status, {"content-type": content_type}, body)


def nested(depth: int) -> Any:
    """Return a list within a list within a list."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@each_row(
    ("status", "ok"), [(199, False), (200, True), (204, True), (299, True), (300, False), (404, False), (500, False)]
)
def test_ok(status: int, ok: bool) -> None:
    """Only 2xx is success."""
    assert answer(b"", status).ok is ok


@each_row(
    ("body", "expected"),
    [
        pytest.param(b'{"a": 1}', {"a": 1}, id="object"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', {"a": 1}, id="byte order mark"),
        pytest.param('{"a": "ü"}'.encode("utf-16"), {"a": "ü"}, id="UTF-16"),
        pytest.param(b'{"id": 911088422699962368}', {"id": 911088422699962368}, id="beyond 2^53"),
        pytest.param(b'{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1e999}', dict.fromkeys("abcd"), id="no number"),
        pytest.param(b'{"a": "x\\u0000y"}', {"a": "x\ufffdy"}, id="NUL"),
        pytest.param(b'{"a": "x\\ud800y"}', {"a": "x\ufffdy"}, id="lone surrogate"),
        pytest.param(b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}, id="surrogate pair"),
        pytest.param(b'{"a\\u0000": 1}', {"a\ufffd": 1}, id="NUL in a name"),
        pytest.param(b'{"a": "\\ufeffx"}', {"a": "\ufeffx"}, id="byte order mark in a text"),
        pytest.param(b"null", None, id="null"),
        pytest.param(b"[]", [], id="list"),
        pytest.param(b'{"a": 1, "a": 2}', {"a": 2}, id="the same name twice"),
        pytest.param(f'{{"a": {MAX_INTEGER}}}'.encode(), {"a": MAX_INTEGER}, id="largest integer"),
        pytest.param(f'{{"a": {MIN_INTEGER}}}'.encode(), {"a": MIN_INTEGER}, id="smallest integer"),
        pytest.param(f'{{"a": {MAX_INTEGER + 1}}}'.encode(), {"a": str(MAX_INTEGER + 1)}, id="65 bits"),
        pytest.param(f'{{"a": {MIN_INTEGER - 1}}}'.encode(), {"a": str(MIN_INTEGER - 1)}, id="65 bits and a sign"),
        pytest.param(f'{{"a": {10**301}}}'.encode(), {"a": str(10**301)}, id="absurd integer"),
        pytest.param(b'{"a": ' + b"1" * 5000 + b"}", {"a": "1" * 5000}, id="integer of 5,000 digits"),
        pytest.param(b'{"a": "\xb3\xc9"}', {"a": "\ufffd\ufffd"}, id="not UTF-8"),
    ],
)
def test_json(body: bytes, expected: Any) -> None:
    """JSON is read and made harmless."""
    assert answer(body).json() == expected


@each_row(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html><body>502 Bad Gateway</body></html>", id="HTML"),
        pytest.param(b'{"id": "a", "stat', id="truncated"),
        pytest.param(b"\xff\xfe\xfd", id="bytes"),
        pytest.param(b"[" * 200_000, id="deep and broken"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="deep"),
        pytest.param(json.dumps(nested(MAX_DEPTH + 2)).encode(), id="deeper than allowed"),
        pytest.param(b'{"id": "a"} trailing', id="trailing text"),
    ],
)
def test_no_json(body: bytes) -> None:
    """Everything else is a response error with the status, and nothing for the caller who may ask."""
    with pytest.raises(ViduResponseError) as caught:
        answer(body, 502).json()
    assert caught.value.status_code == 502
    assert caught.value.__cause__ is None
    assert answer(body).json_or_none() is None


def test_the_depth_limit_itself_is_allowed() -> None:
    """100 levels are read."""
    assert answer(json.dumps(nested(MAX_DEPTH)).encode()).json() == nested(MAX_DEPTH)


def test_the_error_shows_kind_and_beginning() -> None:
    """Who reads the log sees what came instead of JSON."""
    page = b"<html>\n<title>Bad\x00 Gateway</title> https://h/x?Signature=GEHEIM" + b"x" * 5000
    with pytest.raises(ViduResponseError, match=r"not JSON but text/html\. It begins: <html> <title>Bad") as caught:
        answer(page, 200, "text/html; charset=utf-8").json()
    assert "GEHEIM" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_too_many_values_are_called_so() -> None:
    """The error shows the beginning and has a code of its own."""
    with pytest.raises(ViduResponseError, match=r"more than 20,000 values\. It begins: \[0,0") as caught:
        answer(b"[" + b"0," * 30_000 + b"0]").json()
    assert caught.value.code == TOO_LARGE
    assert len(ApiAnswer(200, {}, b"[" + b"0," * 30_000 + b"0]", most_values=LIST.values).json()) == 30_001


@pytest.mark.parametrize("bomb", ["[]", "1"])
def test_texts_hold_no_more_values_together_than_an_answer(bomb: str) -> None:
    """Each is parsed where it may explain an error: six hundred in a megabyte held a poll for ten seconds."""
    small = {
        "message": '{"task_id": "x"}',
        "payload": "[a cat], a dog",
        "data": json.dumps({"payload": "[{}] " * 30_000}),
    }
    text = '" {"a":[' + f"{bomb}," * 3_000 + f"{bomb}]}}"
    answer = ApiAnswer(200, {}, json.dumps({**small, **{f"layer {number}": text for number in range(100)}}).encode())
    value = answer.json()
    assert value.items() >= small.items()
    assert 1 < list(value.values()).count(text) <= SINGLE.values / 3_000
    assert value["layer 99"] == f"… ({len(text)} characters cut out)"
    assert answer.json(is_whole=True)["layer 99"] == text


def test_the_envelope_of_a_function_stays_whole() -> None:
    """Its body is parsed by itself, and counted then."""
    inner = json.dumps({"id": "x", "values": [[]] * 15_000, "payload": "[] " * 15_000})
    assert unwrapped(ApiAnswer(200, {}, json.dumps({"statusCode": 200, "body": inner}).encode())).body == inner.encode()


def test_inline_media_is_not_quoted() -> None:
    """What an error shows of an answer holds no picture."""
    told = answer(b'{"images": ["Data:image/png;base64,' + b"iVBORw0KGgo" * 100 + b'"], "id": "a"').snippet()
    assert told == '{"images": ["data:image/png;base64,… (1100 characters cut out)"], "id": "a"'


def test_an_answer_without_its_end_is_no_json() -> None:
    """The error that ended it is raised; what came of it can be read in part."""
    lost = ViduTransportError("broke")
    cut = ApiAnswer(200, {}, b'{"task_id": "a", "x', lost=lost)
    with pytest.raises(ViduTransportError, match="broke"):
        cut.json()
    assert cut.json_or_none() is None
    assert [found.value for found in cut.documents()] == [{"task_id": "a"}]


@each_row(
    "path",
    [
        "/a\r\nX: b",
        "/a b",
        "/a\0",
        "/ü",
        "/\u202e",
        "/a#b",
        "/\\evil",
        "evil",
        "",
        "/v1/../admin",
        "/..",
        "/%2e%2E/x",
        "/./x",
    ],
)
def test_a_path_that_a_template_has_spoilt_is_not_sent(path: str) -> None:
    """An endpoint from a template can neither break the request line nor leave the connection's path prefix."""
    with pytest.raises(ViduConfigError, match="path"):
        ApiRequest("POST", path, {})


@pytest.mark.parametrize("path", ["/v1/videos/a..b%2F..%2Fc", "/v1/...", "/q?id=../x", "/a/{b}|c"])
def test_odd_paths_are_sent(path: str) -> None:
    """Dots inside a segment or a query mean nothing."""
    assert ApiRequest("GET", path).path == path


def test_the_bounds_of_a_request() -> None:
    """More is read of what was paid, and of lists."""
    assert ApiRequest("POST", "/x", bills=True).bounds is CREATE
    assert ApiRequest("GET", "/x", lists=True).bounds is LIST
    assert ApiRequest("GET", "/x").bounds is SINGLE


def test_an_empty_body_is_called_empty() -> None:
    """An empty body is named, not shown as nothing."""
    with pytest.raises(ViduResponseError, match=r"\(empty\)"):
        answer(b"").json()


def test_the_body_is_not_in_the_repr() -> None:
    """A log line with an answer in it shows no body."""
    assert "GEHEIM" not in repr(answer(b"GEHEIM"))


def test_a_request_bills_only_when_told() -> None:
    """Queries may be repeated."""
    assert ApiRequest("GET", "/x").bills is False
    assert ApiRequest("GET", "/x").body is None


@quiet
@given(st.binary(max_size=300))
def test_arbitrary_bytes(body: bytes) -> None:
    """Bytes are JSON or a response error, and can always be shown."""
    try:
        json.dumps(answer(body).json(), allow_nan=False).encode()
    except ViduResponseError as error:
        str(error).encode()
    answer(body).snippet().encode()


@quiet
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
        max_leaves=12,
    )
)
def test_plain_is_always_storable(value: Any) -> None:
    """The result survives UTF-8, PostgreSQL and strict parsers, and a second pass changes nothing."""
    found = plain(value)
    told = json.dumps(found, allow_nan=False, ensure_ascii=False)
    told.encode()
    assert "\\u0000" not in told
    assert plain(found) == found
