"""What all dialects share: ids, path templates, and the meaning of statuses."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.dialects import DEFAULT_DIALECT, DIALECTS, EntV2, ViduNative
from airflow_provider_vidu.api.dialects.base import Dialect
from airflow_provider_vidu.api.dialects.levels import status_words
from airflow_provider_vidu.api.ids import checked_id
from airflow_provider_vidu.api.messages import ApiAnswer, check_template, fill
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.models import GenerationStatus
from tests.properties import properties
from tests.rows import each_row

quiet = properties(60)
BOTH = pytest.mark.parametrize("dialect", [ViduNative(), EntV2()], ids=["vidu-native", "ent-v2"])

GOOD_IDS = [
    "48038932-0ff5-4251-8b4b-7a76c09fd114",
    "grok:299604b7-c5ea-47b5-bc64-c06f300f0d27",
    "veo3.1-fast:1770350082-trii1OXZc3",
    "sora-2:task_01k",
    "830674162707124224^^vidu-2.0^^0",
    "911088422699962368",
    "a/b",
    "../../admin",
    "..a",
    "a b",
    "100%",
    "%2F",
    "ä→视频😀",
    "{id}",
    "{task_id}",
    "a?b=c#d",
    "a&b=c",
    "x" * 1024,
    "none",
    "0",
    " padded ",
    "~-._",
]
BAD_IDS = [
    pytest.param("", id="empty"),
    pytest.param("  ", id="blank"),
    pytest.param("None", id="the word None"),
    pytest.param(None, id="none"),
    pytest.param(7.0, id="float"),
    pytest.param(True, id="bool"),
    pytest.param(-7, id="negative"),
    pytest.param(10**5000, id="too many digits"),
    pytest.param(["a"], id="list"),
    pytest.param(b"a", id="bytes"),
    pytest.param("x" * 1025, id="too long"),
    pytest.param("a\nb", id="line break"),
    pytest.param("a\x00", id="NUL"),
    pytest.param("a\x7f", id="DEL"),
    pytest.param(".", id="dot"),
    pytest.param("..", id="dots"),
    pytest.param("...", id="three dots"),
    pytest.param("a\ud800", id="lone surrogate"),
    pytest.param("a\u2028b", id="line separator"),
    pytest.param("a\x85b", id="next line"),
    pytest.param("a\u202eb", id="bidirectional override"),
    pytest.param("a\u200bb", id="invisible"),
    pytest.param("https://h.example/v.mp4?X-Amz-Signature=5ec7e7", id="signed address"),
    pytest.param("s3://u:a-word@h.example/v.mp4", id="address with a password"),
]


def test_the_dialects_by_name() -> None:
    """Two dialects, the gateways' being the default."""
    assert dict(DIALECTS) == {"vidu-native": ViduNative, "ent-v2": EntV2}
    assert DEFAULT_DIALECT == "vidu-native"


@each_row("good", GOOD_IDS, ids=range(len(GOOD_IDS)))
@BOTH
def test_ids_travel_percent_encoded(dialect: Dialect, good: str) -> None:
    """An id is one path segment, encoded by quote(safe="")."""
    assert checked_id(good) is good
    path = dialect.query(good).request.path
    assert path == dialect.query_path.replace("{id}", quote(good, safe=""))
    assert path.count("/") == dialect.query_path.count("/")
    assert path.isascii()
    assert not set("?# ") & set(path)


@each_row("bad", BAD_IDS)
@BOTH
def test_bad_ids_are_refused_before_anything_is_sent(dialect: Dialect, bad: Any) -> None:
    """A bad id is an argument's error; the message can be logged."""
    for use in (checked_id, dialect.query):
        with pytest.raises(ViduConfigError, match="generation_id") as caught:
            use(bad)
        str(caught.value).encode()
        assert len(str(caught.value)) < 300


@BOTH
@each_row("bad", [True, 1.5, b"text2video", ["text2video"], {}])
def test_an_endpoint_that_is_no_text_is_refused(dialect: Dialect, bad: Any) -> None:
    """A value that a @task passes on may be of any type."""
    with pytest.raises(ViduConfigError, match="endpoint must be text"):
        dialect.create({"prompt": "x"}, bad)


def test_an_id_that_native_rendering_made_a_number() -> None:
    """All digits of an id arrive; one that has become a fraction is refused with what to do."""
    assert checked_id(911088422699962368) == "911088422699962368"
    assert EntV2().query(7).request.path == "/ent/v2/tasks/7/creations"  # type: ignore[arg-type]
    with pytest.raises(ViduConfigError, match="Native template rendering turned it into a number"):
        checked_id(9.1e17)


def test_a_rendered_none_is_explained() -> None:
    """A Jinja template that found no XCom is the usual cause."""
    with pytest.raises(ViduConfigError, match="the word None: the upstream task returned no id"):
        checked_id("None")


@quiet
@given(st.text(st.characters(), max_size=60))
def test_any_id_is_refused_or_comes_back(generation_id: str) -> None:
    """Whatever passes the check arrives unchanged at the server."""
    try:
        path = ViduNative().query(generation_id).request.path
    except ViduConfigError:
        return
    assert unquote(path.removeprefix("/vidu-native/video/generations/")) == generation_id


@each_row(
    ("template", "values", "expected"),
    [
        ("/v/{id}/c", {"id": "a"}, "/v/a/c"),
        ("/v/{task_id}", {"id": "a"}, "/v/a"),
        ("/v/{generation_id}", {"id": "a"}, "/v/a"),
        ("/v/{id}/{id}", {"id": "a"}, "/v/a/a"),
        ("/v/{id}", {"id": "{task_id}"}, "/v/%7Btask_id%7D"),
        ("/e/{endpoint}", {"endpoint": "img2video"}, "/e/img2video"),
        ("/e/{endpoint}", {"endpoint": "a/b?c"}, "/e/a%2Fb%3Fc"),
        ("/e/{endpoint}/{id}", {"endpoint": "x"}, "/e/x/{id}"),
        ("/e/{id.__class__}", {"id": "a"}, "/e/{id.__class__}"),
    ],
)
def test_fill(template: str, values: dict[str, str], expected: str) -> None:
    """Placeholders are replaced as text; nothing is evaluated."""
    assert fill(template, **values) == expected


@each_row(
    ("template", "required"),
    [
        ("/v/{id}", ("id",)),
        ("/v/{task_id}/creations", ("id",)),
        ("/v/{generation_id}", ("id",)),
        ("/v1/video/query?v=1&id={id}", ("id",)),
        ("/v/create", ()),
        ("/v/{endpoint}", ()),
    ],
)
def test_good_templates(template: str, required: tuple[str, ...]) -> None:
    """A good template comes back as it is."""
    assert check_template("f", template, required=required) == template


@each_row(
    ("template", "required", "told"),
    [
        pytest.param("v/{id}", ("id",), "must be a path", id="no slash"),
        pytest.param("https://h/{id}", ("id",), "must be a path", id="URL"),
        pytest.param("", (), "must be a path", id="empty"),
        pytest.param("/v?id={id}?x", ("id",), "one query string", id="two queries"),
        pytest.param("/v?x=1", (), "no query string", id="query of a create"),
        pytest.param("/v/{id}#x", ("id",), "fragment", id="fragment"),
        pytest.param("/v /{id}", ("id",), "spaces", id="space"),
        pytest.param("/v\r\nX: y/{id}", ("id",), "spaces", id="line break"),
        pytest.param("/v/\x00{id}", ("id",), "must be a path", id="NUL"),
        pytest.param("/v/", ("id",), "lacks the placeholder {id}", id="no id"),
        pytest.param("/v/{id", ("id",), "placeholder", id="unclosed"),
        pytest.param("/v/{id}/{x}", ("id",), "unknown placeholder {x}", id="unknown"),
        pytest.param("/v/{id}/{}", ("id",), "unknown placeholder {}", id="empty placeholder"),
        pytest.param("/v/{id.__class__}/{id}", ("id",), "unknown placeholder", id="attribute"),
        pytest.param("/v/{id}", (), "unknown placeholder {id}", id="id in a create"),
        pytest.param("/v/{id}/{endpoint}", ("id",), "unknown placeholder {endpoint}", id="endpoint in a query"),
        pytest.param("/v/{id}}", ("id",), "f ", id="stray brace"),
        pytest.param("/视频/{id}", ("id",), "f ", id="not ASCII: the path is sent verbatim"),
    ],
)
def test_bad_templates(template: str, required: tuple[str, ...], told: str) -> None:
    """A bad template is refused, with its field and what is wrong."""
    with pytest.raises(ViduConfigError) as caught:
        check_template("f", template, required=required)
    assert told in str(caught.value)
    assert str(caught.value).startswith("f ")


def test_status_words() -> None:
    """The table of words is written as sentences."""
    assert status_words(waiting="a b", failed="c") == {
        "a": GenerationStatus.WAITING, "b": GenerationStatus.WAITING, "c": GenerationStatus.FAILED,
    }  # fmt: skip


BY_STATUS = [
    (400, exceptions.ViduRequestError),
    (401, exceptions.ViduAuthError),
    (402, exceptions.ViduCreditError),
    (403, exceptions.ViduAuthError),
    (404, exceptions.ViduNotFoundError),
    (405, exceptions.ViduRequestError),
    (408, exceptions.ViduServerError),
    (409, exceptions.ViduConflictError),
    (413, exceptions.ViduRequestError),
    (422, exceptions.ViduRequestError),
    (425, exceptions.ViduBusyError),
    (429, exceptions.ViduRateLimitError),
    (500, exceptions.ViduServerError),
    (502, exceptions.ViduServerError),
    (503, exceptions.ViduServerError),
    (504, exceptions.ViduServerError),
    (524, exceptions.ViduServerError),
    (599, exceptions.ViduServerError),
]


@each_row(("status", "kind"), BY_STATUS)
@each_row("body", [b"", b"{}", b'{"message": "m"}'], ids=["empty", "{}", "message"])
@BOTH
def test_a_status_without_a_code(dialect: Dialect, status: int, kind: type[ViduError], body: bytes) -> None:
    """Where no code says it better, the status decides."""
    error = dialect.error(ApiAnswer(status, {}, body))
    assert type(error) is kind
    assert error.status_code == status
    assert error.code is None


HTML = b"<!DOCTYPE html>\n<html><head><title>Attention Required!</title></head><body>" + b"x" * 3000


@each_row(("status", "kind"), [*BY_STATUS, (200, exceptions.ViduResponseError)])
@BOTH
def test_html_at_any_status(dialect: Dialect, status: int, kind: type[ViduError]) -> None:
    """An error page is shown by its beginning, in one line; a refusal in HTML is a proxy's, not the service's."""
    expected = exceptions.ViduResponseError if status in (403, 404) else kind
    with pytest.raises(ViduError) as caught:
        dialect.read_generation("a", ApiAnswer(status, {"content-type": "text/html"}, HTML))
    assert type(caught.value) is expected
    assert "<!DOCTYPE html> <html><head><title>Attention" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert caught.value.status_code == status


@each_row("status", [301, 302, 303, 307, 308])
@BOTH
def test_redirects(dialect: Dialect, status: int) -> None:
    """A redirect is not an answer: the message shows where it went, without the query."""
    answer = ApiAnswer(status, {"location": "https://other.example.com/login?Signature=GEHEIM"}, b"")
    with pytest.raises(exceptions.ViduResponseError, match=r"https://other\.example\.com/login") as caught:
        dialect.read_generation("a", answer)
    assert "GEHEIM" not in str(caught.value)
    assert caught.value.status_code == status


@BOTH
def test_retry_after_is_kept(dialect: Dialect) -> None:
    """A server that says when to come back is quoted, on any error."""
    for status in (429, 503, 500, 400):
        assert dialect.error(ApiAnswer(status, {"retry-after": "7"}, b"")).retry_after == 7
        assert dialect.error(ApiAnswer(status, {}, b"")).retry_after is None


@BOTH
def test_the_empty_429_of_the_rate_limiter(dialect: Dialect) -> None:
    """The gateways' rate limiter answers with nothing at all."""
    error = dialect.error(ApiAnswer(429, {}, b""))
    assert type(error) is exceptions.ViduRateLimitError
    assert error.retryable
    assert "It gave no reason" in str(error)


@pytest.mark.fault("polling", "an answer that a function behind a gateway has encoded twice", outcome="survived",
                   seen="read like the answer in it, as of a create")  # fmt: skip
@BOTH
def test_an_answer_that_is_encoded_twice(dialect: Dialect) -> None:
    """What was created at such a gateway, whose create is read, is found there, too; an error in it is one."""
    done = {"id": "a", "state": "success", "creations": [{"url": "https://cdn.example/v.mp4?sig=1"}]}
    found = dialect.read_generation("a", ApiAnswer(200, {}, json.dumps(json.dumps(done)).encode()))
    assert (found.succeeded, found.video_url) == (True, "https://cdn.example/v.mp4?sig=1")
    refusal = json.dumps(json.dumps({"code": "insufficient_user_quota", "message": "no quota", "data": None}))
    with pytest.raises(exceptions.ViduCreditError):
        dialect.read_generation("a", ApiAnswer(403, {}, refusal.encode()))
    with pytest.raises(exceptions.ViduResponseError, match="not JSON"):
        dialect.read_generation("a", ApiAnswer(200, {}, b'"{not JSON"'))


@each_row("body", [b"[]", b"null", b'"x"', b"1", b"true"])
@BOTH
def test_json_that_is_no_object(dialect: Dialect, body: bytes) -> None:
    """JSON of another kind is not an answer of Vidu."""
    for read in (lambda answer: dialect.read_generation("a", answer), dialect.read_created):
        with pytest.raises(exceptions.ViduResponseError, match="not an object"):
            read(ApiAnswer(200, {}, body))


GATEWAY_ERRORS = [
    pytest.param(
        403, {"error": {"message": "no quota", "type": "new_api_error", "code": "insufficient_user_quota"}},
        exceptions.ViduCreditError, id="quota, by code at 403"),
    pytest.param(
        429, {"error": {"message": "no quota", "type": "insufficient_quota", "code": "insufficient_quota"}},
        exceptions.ViduCreditError, id="quota, by code at 429"),
    pytest.param(
        429, {"error": {"message": "no quota", "type": "insufficient_quota", "code": None}},
        exceptions.ViduCreditError, id="quota, by type"),
    pytest.param(
        429, {"error": {"message": "no quota", "type": "insufficient_quota", "code": ""}},
        exceptions.ViduCreditError, id="quota, by type with an empty code"),
    pytest.param(
        429, {"error": {"message": "no quota", "type": "insufficient_quota", "code": 429}},
        exceptions.ViduCreditError, id="quota, by type with a number as code"),
    pytest.param(
        403, {"error": {"message": "no quota", "type": "insufficient_user_quota", "code": "upstream_error"}},
        exceptions.ViduCreditError, id="quota, by type beside another code"),
    pytest.param(
        403, {"code": "insufficient_user_quota", "message": "no quota", "data": None},
        exceptions.ViduCreditError, id="quota, task endpoint"),
    pytest.param(
        400, {"code": "task_not_exist", "message": "task_not_exist", "data": None},
        exceptions.ViduNotFoundError, id="unknown id at 400"),
    pytest.param(
        404, {"code": "task_not_exist", "message": "task_not_exist", "data": None},
        exceptions.ViduNotFoundError, id="unknown id at 404"),
    pytest.param(
        401, {"error": {"message": "Invalid token", "type": "new_api_error", "code": ""}},
        exceptions.ViduAuthError, id="bad key"),
    pytest.param(
        403, {"error": {"message": "no permission", "type": "new_api_error", "code": "access_denied"}},
        exceptions.ViduAuthError, id="no permission"),
    pytest.param(
        503, {"error": {"message": "no channel", "type": "new_api_error", "code": "model_not_found"}},
        exceptions.ViduRequestError, id="no channel"),
    pytest.param(
        429, {"error": {"message": "slow down", "type": "new_api_error", "code": "rate_limit"}},
        exceptions.ViduRateLimitError, id="too many"),
    pytest.param(
        400, {"code": "invalid_request", "message": "prompt is required", "data": None},
        exceptions.ViduRequestError, id="wrong request"),
    pytest.param(
        500, {"code": "do_request_failed", "message": "upstream broke", "data": None},
        exceptions.ViduServerError, id="upstream"),
]  # fmt: skip


@each_row(("status", "body", "kind"), GATEWAY_ERRORS)
@BOTH
def test_the_gateways_error_shapes(dialect: Dialect, status: int, body: dict[str, Any], kind: type[ViduError]) -> None:
    """Both error shapes of the gateways are read, and by the resellers' ent-v2 too: they run the same software."""
    error = dialect.error(ApiAnswer(status, {}, json.dumps(body).encode()))
    assert type(error) is kind
    told = body.get("error") or body
    assert told["message"] in str(error)
    code = told["code"]
    if isinstance(code, str) and code not in ("", "upstream_error"):
        assert error.code == code
