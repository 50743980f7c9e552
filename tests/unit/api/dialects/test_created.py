"""A paid id is never lost, in whatever form a create is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.dialects import Dialect, EntV2, ViduNative
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.exceptions import ViduError, ViduResponseError, ViduTransportError
from airflow_provider_vidu.models import GenerationStatus
from airflow_provider_vidu.polling.retries import outcome_is_unknown
from tests.properties import properties
from tests.rows import each_row

BOTH = pytest.mark.parametrize("dialect", [ViduNative(), EntV2()], ids=["vidu-native", "ent-v2"])
many = properties(60)


def answer(body: Any, status: int = 200) -> ApiAnswer:
    """Return an answer with this body."""
    return ApiAnswer(status, {}, json.dumps(body).encode())


FORMS: list[tuple[Any, str]] = [
    ({"id": "a"}, "a"),
    ({"task_id": "a"}, "a"),
    ({"id": 7, "task_id": "task_7"}, "task_7"),
    ({"id": "a", "task_id": "b", "status": "queued"}, "a"),
    ({"id": "a", "task_id": "b", "state": "created"}, "b"),
    ({"task_id": 911088422699962368}, "911088422699962368"),
    ({"task_id": 123456.0, "state": "created"}, "123456"),
    ([{"task_id": "a"}], "a"),
    ({"data": "task_a"}, "task_a"),
    ({"code": "success", "message": "", "data": "task_a"}, "task_a"),
    ({"code": 200, "data": 911088422699962368}, "911088422699962368"),
    ({"data": ["task_a"]}, "task_a"),
    ({"data": [{"task_id": "a"}]}, "a"),
    ({"data": {"id": 7, "task_id": "a"}}, "a"),
    ({"data": {"data": {"task_id": "a"}}}, "a"),
    ({"data": {"data": [{"id": "a"}]}}, "a"),
    ({"data": json.dumps({"task_id": "a"})}, "a"),
    ({"data": {"output": {"task_id": "a"}}}, "a"),
    ({"output": {"task_id": "a", "task_status": "PENDING"}, "request_id": "r"}, "a"),
    ({"result": {"id": "a"}}, "a"),
    ({"task": {"id": "a"}}, "a"),
    ({"response": {"task": {"task_id": "a"}}}, "a"),
    ({"ticket": {"id": "a"}, "user": {"id": "u"}}, "a"),
    ({"taskId": "a"}, "a"),
    ({"data": {"taskId": "a"}}, "a"),
    ({"generation_id": "a"}, "a"),
    ({"ad_one_click_task_id": "1", "sub_task_id": "2"}, "2"),
    ({"ad_one_click_task_id": "1", "compose_sub_task_id": "3", "state": "success"}, "3"),
    ({"ad_one_click_task_id": "1"}, "1"),
    ({"id": "a", "error": {"message": "a warning"}}, "a"),
    ({"code": "weird", "message": "m", "data": {"task_id": "a"}}, "a"),
    ({"id": "a", "code": "accepted", "message": "queued"}, "a"),
    # What fills the place of an id is none: the zero values of Go and of UUID, and the words for nothing.
    ({"task_id": 0, "id": "a", "state": "created"}, "a"),
    ({"task_id": -1, "id": "a", "state": "created"}, "a"),
    ({"task_id": "00000000-0000-0000-0000-000000000000", "id": "a", "status": "queued"}, "a"),
    ({"task_id": "None", "id": "a", "state": "created"}, "a"),
    ({"task_id": "undefined", "id": "a", "state": "created"}, "a"),
    ({"task_id": "<nil>", "id": "a", "state": "created"}, "a"),
    ({"code": 0, "data": {"id": 0, "taskId": "a", "status": "queued"}}, "a"),
    ({"statusCode": 200, "body": json.dumps({"task_id": "a", "state": "created"})}, "a"),
    ({"statusCode": 200, "headers": {}, "body": {"task_id": "a", "state": "created"}}, "a"),
    ("task_01kabc", "task_01kabc"),
    ("48038932-0ff5-4251-8b4b-7a76c09fd114", "48038932-0ff5-4251-8b4b-7a76c09fd114"),
    (911088422699962368, "911088422699962368"),
    (json.dumps({"task_id": "a"}), "a"),
]
JOB = "947000000000000001"
OTHER = "48038932-0ff5-4251-8b4b-7a76c09fd114"
OF_REQUESTS = ("request_id", "traceId", "reqId", "log_id", "spanId", "correlation-id", "x-request-id")
BESIDE_OTHERS: list[Any] = [
    {"uuid": OTHER, "content": {"task_id": JOB}},
    {"request": {"id": OTHER}, "content": {"task_id": JOB}},
    {"project": {"id": OTHER}, "info": {"task_id": JOB}},
    {"data": {"channel": {"id": 5}, "order": {"task_id": JOB}}},
    {"id": 7, "data": {"task_id": JOB}},
    {"id": 7, "data": {"id": JOB}},
    {"id": "7", "ticket": {"id": JOB}},
    {"id": "req-1", "request_id": "req-1", "data": {"task_id": JOB}},
    {"id": OTHER, "trace_id": OTHER, "data": {"id": JOB}},
    {"id": OTHER, "RequestId": OTHER, "data": JOB},
    *({"id": OTHER, name: OTHER, "data": {"id": JOB}} for name in OF_REQUESTS),
    {"id": OTHER, "data": {"task_id": JOB}},
    {"id": OTHER, "status": "success", "data": {"task_id": JOB}},
    {"id": OTHER, "code": 0, "data": {"id": JOB, "status": "pending"}},
    {"id": OTHER, "request_id": OTHER, "task_id": JOB},
    {"id": JOB, "status": "pending", "data": {"task_id": OTHER}},
    {"id": JOB, "status": "completed", "video_url": "https://h/v.mp4", "data": {"task_id": OTHER}},
    {"task_id": JOB, "payload": {"task_id": OTHER}, "meta_data": {"job_id": OTHER}, "customer": {"id": OTHER}},
    {"task_id": JOB, "uuid": OTHER, "video_id": OTHER},
    {"data": {"user": {"task_id": OTHER}, "inputs": {"job_id": OTHER}, "id": JOB}},
    {"id": JOB, "task": "text2video", "result": "accepted"},
    {"id": "chatcmpl-1", "choices": [{"message": {"content": json.dumps({"task_id": JOB})}}]},
    {"ID": JOB}, {"Id": JOB}, {"_id": JOB}, {"task-id": JOB}, {"taskID": JOB}, {"TaskId": JOB},
    {"taskNo": JOB}, {"jobNo": JOB}, {"task_uuid": JOB}, {"job_uuid": JOB}, {"job_ids": [JOB]},
    {"generation_ids": [JOB]}, {"prediction_id": JOB}, {"task": JOB}, {"job": JOB}, {"task_id": [JOB]},
    {"task_ids": [JOB]}, {"task_id": {"id": JOB}}, {"Response": {"JobId": JOB, "RequestId": OTHER}},
    {"Data": {"ID": JOB}}, [{"note": "x"}, {"task_id": JOB}],
]  # fmt: skip


@pytest.mark.fault(
    "orders",
    "an answer to a create holds other ids beside the generation's",
    outcome="survived",
    seen="the id that is named for the job, not that of a request, a row, an account or an echo",
)
@each_row("body", BESIDE_OTHERS, ids=lambda body: json.dumps(body)[:60])
@BOTH
def test_the_job_s_id_among_others(dialect: Dialect, body: Any) -> None:
    """What is named for the job wins on whatever level; a bare id only where nothing better is there."""
    assert dialect.read_created(answer(body)).id == JOB


@pytest.mark.fault(
    "orders",
    "an answer to a create holds two ids that are equally credible",
    outcome="clear error",
    says="it is unclear which is the generation's: 'a1', 'b2'",
)
@pytest.mark.parametrize(
    "body",
    [
        {"data": {"id": "a1"}, "result": {"id": "b2"}},
        {"order": {"task_id": "a1"}, "info": {"task_id": "b2"}},
        {"tasks": [{"task_id": "a1"}, {"task_id": "b2"}]},
        {"task_ids": ["a1", "b2"]},
        {"ticket": {"id": "a1"}, "slip": {"id": "b2"}},
        {"uuid": "a1", "ticket": {"id": "b2"}},
        [{"id": "a1"}, {"id": "b2"}],
    ],
    ids=json.dumps,
)
@BOTH
def test_two_ids_that_are_equally_credible(dialect: Dialect, body: Any) -> None:
    """None is taken: the error shows both, and the outcome of the create is unknown."""
    with pytest.raises(ViduResponseError, match="'a1', 'b2'") as caught:
        dialect.read_created(answer(body))
    assert outcome_is_unknown(caught.value)
    assert caught.value.generation_id is None


@pytest.mark.fault(
    "orders", "a refusal with status 200 echoes the request", outcome="clear error", says="reports an error: no"
)
@pytest.mark.parametrize("name", ["payload", "meta_data", "request", "input", "original"])
@pytest.mark.parametrize("inner", [{"task_id": "x"}, '{"task_id": "x"}', {"id": "x"}], ids=str)
@BOTH
def test_a_refusal_that_echoes_the_request(dialect: Dialect, name: str, inner: Any) -> None:
    """An id of the user's own is not a generation's."""
    with pytest.raises(ViduError, match="reports an error: no") as caught:
        dialect.read_created(answer({"code": "weird", "message": "no", "data": None, name: inner}))
    assert caught.value.generation_id is None


WRAPPED = {
    "byte order mark": b'\xef\xbb\xbf{"id": "a1"}',
    "a blank before the mark": b'\n\xef\xbb\xbf{"id": "a1"}',
    "hundreds of blanks": b" " * 300 + b'{"id": "a1"}',
    "a NUL at the end": b'{"id": "a1"}\0',
    "a text sequence": b'\x1e{"id": "a1"}\n',
    "a guard against script tags": b')]}\'\n{"id": "a1"}',
    "a loop before it": b'for (;;);{"id": "a1"}',
    "JSONP": b'/**/cb.done({"id": "a1"});',
    "an event": b'event: created\ndata: {"id": "a1"}\n\ndata: [DONE]\n\n',
    "an event of two lines": b'data: {"id":\r\ndata: "a1"}\r\n\r\n',
    "two events": b'data: {"id": "a1"}\n\ndata: {"id": "a1", "progress": 1}\n\n',
    "lines of JSON": b'{"status": "ok"}\n{"task_id": "a1"}\n',
    "the same twice": b'{"id": "a1"}{"id": "a1"}',
    "a request's id first": b'{"id": "b2"}\n{"task_id": "a1"}',
    "words before it": b'20:15 "OK" [notice] {"task_id": "a1"}',
    "a warning of PHP": b'<br />\n<b>Warning</b>: "x" in <b>/a.php</b><br />\n{"task_id": "a1"}',
    "a comment behind it": b'{"id": "a1"}<!-- 3 ms -->',
    "a list in a list": b'[[{"id": "a1"}]]',
}


@pytest.mark.fault(
    "orders",
    "an answer to a create with text, events or several documents around its JSON",
    outcome="survived",
    seen="the id",
)
@each_row("body", WRAPPED.values(), ids=list(WRAPPED))
@BOTH
def test_an_id_in_json_with_something_around_it(dialect: Dialect, body: bytes) -> None:
    """The id is paid for, so it is read."""
    assert dialect.read_created(ApiAnswer(200, {}, body)).id == "a1"


@each_row("body", [b"task_01k5abc", b" 947123456789012345\r\n"])
@BOTH
def test_an_answer_that_is_nothing_but_the_id(dialect: Dialect, body: bytes) -> None:
    """As text without quotation marks; one that was cut off may lack the id's end."""
    assert dialect.read_created(ApiAnswer(200, {}, body)).id == body.decode().strip()
    with pytest.raises(ViduTransportError, match="broke"):
        dialect.read_created(damaged(body))


@each_row(
    "body",
    [
        b"queued", b"2026-11-26 08:00:00", b"OK 947123456789012345", b"<p>task_01k5abc</p>",
        b'OK {"id": "a1"}', b'<!DOCTYPE html><script>x={"task_id": "a1"}</script>', b'<html>{"task_id": "a1"}',
        b'words {"task_id": "a1', b'say("a1")', b"data: a1\n\n", b'words {"payload": {"task_id": "a1"}}',
        b'{"id": "req", "data": {',
    ],
)  # fmt: skip
@BOTH
def test_no_id_in_what_is_around_json(dialect: Dialect, body: bytes) -> None:
    """A bare id between words, and a web page, prove nothing."""
    with pytest.raises(ViduResponseError, match="is not JSON"):
        dialect.read_created(ApiAnswer(200, {}, body))


@each_row(
    ("body", "is_damaged"),
    [(b'{"task_id": "a1", "credits": 4}', False), (b'{"task_id": "a1", "cred', True), (b'OK {"task_id": "a1"}', True)],
)
@BOTH
def test_a_damaged_answer_is_known_as_such(dialect: Dialect, body: bytes, is_damaged: bool) -> None:
    """It may have named more than what was read, such as the price."""
    assert dialect.read_created(ApiAnswer(200, {}, body))._is_damaged is is_damaged


@BOTH
def test_a_text_with_quotation_marks_in_it(dialect: Dialect) -> None:
    """A gateway that puts its JSON together by hand repeats the prompt as it is; the id behind it counts."""
    body = b'{"prompt": "a sign that says "open", and a cat", "task_id": "task_a1", "state": "created"}'
    assert dialect.read_created(ApiAnswer(200, {}, body)).id == "task_a1"


def test_documents_that_name_different_ids() -> None:
    """Lines of JSON for two jobs: both are shown."""
    with pytest.raises(ViduResponseError, match="'a1', 'b2'"):
        EntV2().read_created(ApiAnswer(200, {}, b'{"task_id": "a1"}\n{"task_id": "b2"}\n'))


def test_a_refusal_in_an_event_is_that_refusal() -> None:
    """Nothing was created, whatever it is wrapped in."""
    body = b'data: {"code": "video_queue_full", "message": "full", "data": null}\n\n'
    with pytest.raises(exceptions.ViduRateLimitError):
        ViduNative().read_created(ApiAnswer(200, {}, body))


@pytest.mark.fault("orders", "a create is answered with its address alone", outcome="survived", seen="the id")
@pytest.mark.parametrize(
    ("status", "location", "expected"),
    [
        (201, f"/ent/v2/tasks/{JOB}/creations", JOB),
        (202, "https://h/v1/videos/task_01kabc?x=1", "task_01kabc"),
        (303, f"https://h/prefix/ent/v2/tasks/{JOB}", JOB),
        (303, "/vidu-native/video/generations/grok%3A1234", "grok:1234"),
    ],
)
def test_an_id_in_the_location_of_the_new_resource(status: int, location: str, expected: str) -> None:
    """The header of RFC 9110, 10.2.2, names what was created."""
    dialect: Dialect = ViduNative() if "vidu-native" in location else EntV2()
    for body in (b"", b"{}", b"<p>See there</p>"):
        assert dialect.read_created(ApiAnswer(status, {"location": location}, body)).id == expected
        for name in ("operation-location", "content-location"):
            if status != 303:
                assert dialect.read_created(ApiAnswer(status, {name: location}, body)).id == expected
    own = ApiAnswer(201, {"location": location}, b'{"task_id": "a1"}')
    assert dialect.read_created(own).id == "a1"


@each_row(
    ("status", "location"),
    [
        (303, "/login/12345678"), (302, f"/ent/v2/tasks/{JOB}"), (307, f"/ent/v2/tasks/{JOB}"),
        (201, "/ent/v2/tasks"), (201, "http://["), (201, ""),
    ],
)  # fmt: skip
def test_a_location_that_names_no_generation(status: int, location: str) -> None:
    """Another redirect carried nothing out, and a page for people is not a generation."""
    with pytest.raises(ViduResponseError):
        EntV2().read_created(ApiAnswer(status, {"location": location}, b""))


def test_a_location_with_the_id_in_its_query() -> None:
    """The unified route of gateways has the id in the query string."""
    dialect = ViduNative("/v1/video/query?id={id}")
    assert dialect.read_created(ApiAnswer(303, {"location": "/v1/video/query?id=a1"}, b"")).id == "a1"
    with pytest.raises(ViduResponseError, match="redirects"):
        dialect.read_created(ApiAnswer(303, {"location": "/login?id=a1"}, b""))


@pytest.mark.fault(
    "orders",
    "an answer to a create in an unexpected form",
    outcome="survived",
    seen="the id, wherever the answer holds it",
)
@each_row(("body", "expected"), FORMS, ids=[json.dumps(body)[:60] for body, _ in FORMS])
@BOTH
def test_forms(dialect: Dialect, body: Any, expected: str) -> None:
    """The id is found in each form, and means the same under both dialects."""
    assert dialect.read_created(answer(body)).id == expected


@many
@given(
    st.lists(st.sampled_from(["data", "output", "result", "response", "task", "list", "text"]), max_size=4),
    st.sampled_from(["id", "task_id", "taskId"]),
    st.dictionaries(st.sampled_from(["code", "message", "request_id", "model"]), st.just("success"), max_size=3),
)
def test_any_nesting(path: list[str], name: str, beside: dict[str, str]) -> None:
    """However the wrappers are put together, the id comes out."""
    body: Any = {name: "task_a1", **beside}
    for step in path:
        if step == "list":
            body = {"data": [body]}
        elif step == "text":
            body = {"data": json.dumps(body)}
        else:
            body = {step: body, **beside}
    assert ViduNative().read_created(answer(body)).id == "task_a1"


@each_row(
    "body",
    [
        {}, {"code": "success"}, {"data": "success"}, {"data": ""}, {"data": None}, {"data": []}, {"data": "not an id"},
        {"data": "https://h/v.mp4"}, {"data": True}, {"request_id": "r"}, {"creations": [{"id": "c"}]},
        {"user": {"id": "u"}}, {"code": "weird", "message": "m", "data": "sorry"}, [], [{"id": "a"}, {"id": "b"}], "ok",
        "success", 1, None, True, {"images": [{"id": "i"}]}, {"task_id": 0, "state": "created"}, {"task_id": "null"},
        {"data": 0}, {"body": {"task_id": "a"}}, {"task_id": 9.4712345678901e17}, {"task_id": 1.5},
    ],
    ids=json.dumps,
)  # fmt: skip
@BOTH
def test_what_holds_no_id(dialect: Dialect, body: Any) -> None:
    """Nothing else is taken for an id; the outcome of the create is unknown then."""
    with pytest.raises(ViduResponseError) as caught:
        dialect.read_created(answer(body))
    assert caught.value.status_code == 200


@pytest.mark.fault("orders", "an error answer to a create names an id", outcome="clear error", says="generation a")
@pytest.mark.parametrize("status", [400, 500, 503])
def test_an_error_keeps_the_id_that_it_names(status: int) -> None:
    """What an error answer names may have been billed, so the error names it; a bare id may be the request's."""
    for body in ({"code": "x", "message": "m", "data": {"task_id": "a"}}, {"task_id": "a", "error": "m"}):
        with pytest.raises(ViduError) as caught:
            ViduNative().read_created(answer(body, status))
        assert caught.value.generation_id == "a"
    with pytest.raises(ViduError) as caught:
        ViduNative().read_created(answer({"id": "request-1", "error": {"code": "x"}}, status))
    assert caught.value.generation_id is None


def test_a_refusal_with_an_id_is_a_refusal() -> None:
    """A known refusal with status 200 created nothing, whatever else it holds."""
    body = {"task_id": "a", "code": "video_queue_full", "message": "full", "data": None}
    with pytest.raises(exceptions.ViduRateLimitError) as caught:
        ViduNative().read_created(answer(body))
    assert caught.value.generation_id == "a"


@each_row(
    ("body", "synchronous", "status"),
    [
        ({"id": "a", "name": "cat"}, True, "succeeded"),
        ({"id": "a", "name": "cat"}, False, "unknown"),
        ({"voice_id": "v"}, True, "succeeded"),
        ({"task_id": "a", "state": "success"}, True, "succeeded"),
        ({"task_id": "a", "state": "success"}, False, "waiting"),
        ({"task_id": "a", "state": "success", "file_url": "https://h/s.mp3"}, False, "succeeded"),
        ({"task_id": "a", "state": "processing"}, True, "running"),
        ({"task_id": "a", "state": "failed"}, True, "failed"),
        ({"task_id": "a", "status": "brand_new"}, True, "unknown"),
    ],
)
@BOTH
def test_when_a_create_is_the_end(dialect: Dialect, body: Any, synchronous: bool, status: str) -> None:
    """A synchronous answer without a state is the result; another create's success without one is still awaited."""
    assert dialect.read_created(answer(body), synchronous=synchronous).status == GenerationStatus(status)


def test_a_synchronous_answer_without_any_id() -> None:
    """Not even a synchronous create may lose what it was billed for."""
    with pytest.raises(ViduResponseError, match="has no id"):
        EntV2().read_created(answer({"prompts": ["a"]}), synchronous=True)


def damaged(body: bytes) -> ApiAnswer:
    """Return an answer whose end never came."""
    return ApiAnswer(200, {}, body, lost=ViduTransportError("broke"))


@each_row(
    ("body", "expected"),
    [
        (b'{"task_id": "94700", "state', "94700"), (b'{"task_id": 947000000000000001, "x', "947000000000000001"),
        (b'{"code": "success", "data": {"task_id": "a"', "a"), (b'{"id": 7, "task_id": "task_7", "x', "task_7"),
        (b'{"code": "success", "data": "{\\"task_id\\": \\"a\\", \\"images\\": [\\"da', "a"),
        (b'[{"id": "a"}', "a"), (b'{"taskId": "a"', "a"), (b'{"id": "grok:1", "status": "pend', "grok:1"),
    ],
    ids=range(8),
)  # fmt: skip
@BOTH
def test_an_id_in_what_has_arrived(dialect: Dialect, body: bytes, expected: str) -> None:
    """The beginning of an answer is enough where it holds the whole id."""
    assert dialect.read_created(damaged(body)).id == expected


@each_row(
    "body",
    [
        b'{"task_id": "947', b'{"id": 7, "sta', b'{"id": "7", "sta',
        b'{"ticket": {"id": "a"}, "x', b'{"subjects": [{"id": "a"',
        b'{"state": "created", ', b"", b"{", b'<p id="a">{"id": "a"}', b'"task_01kabc',
    ],
    ids=range(10),
)  # fmt: skip
@BOTH
def test_no_id_in_what_has_arrived(dialect: Dialect, body: bytes) -> None:
    """What may be the id of something else, or half of one, proves nothing: the error is that of the connection."""
    with pytest.raises(ViduTransportError, match="broke") as caught:
        dialect.read_created(damaged(body))
    assert caught.value.sent


@pytest.mark.parametrize("status", [400, 500])
def test_an_error_that_is_cut_off_keeps_its_id_and_status(status: int) -> None:
    """The status has arrived, and so has the id."""
    body = b'{"code": "x", "data": {"task_id": "a"}, "message": "m'
    with pytest.raises(exceptions.ViduAPIError) as caught:
        ViduNative().read_created(ApiAnswer(status, {}, body, lost=ViduTransportError("broke")))
    assert (caught.value.generation_id, caught.value.status_code) == ("a", status)


@each_row("name", ["a\nb", "a\x00b", "a\x1b[2J", "a\u2028b", "x" * 1025, "..", "\u202e1"], ids=range(7))
@BOTH
def test_an_id_that_cannot_be_asked_for(dialect: Dialect, name: str) -> None:
    """It is shown escaped; the id of an error answer is dropped for the same reason."""
    for field in ("id", "task_id"):
        with pytest.raises(ViduResponseError, match="an id that is not used") as caught:
            dialect.read_created(answer({field: name, "status": "pending"}))
        assert str(caught.value).isprintable()
        assert caught.value.status_code == 200
    with pytest.raises(ViduError) as refused:
        dialect.read_created(answer({"task_id": name, "error": "m"}, 500))
    assert refused.value.generation_id is None


@pytest.mark.fault(
    "orders", "a refusal with success: false and an id of its own", outcome="clear error", says="reports an error: no"
)
@pytest.mark.parametrize("name", ["success", "ok"])
@BOTH
def test_a_refusal_without_a_code(dialect: Dialect, name: str) -> None:
    """Its bare id is the request's; one that is named for the job is kept, for it may have been billed."""
    with pytest.raises(ViduError, match="reports an error: no") as caught:
        dialect.read_created(answer({name: False, "id": OTHER, "message": "no"}))
    assert caught.value.generation_id is None
    with pytest.raises(ViduError, match="reports an error: no") as caught:
        dialect.read_created(answer({name: False, "task_id": JOB, "message": "no"}))
    assert caught.value.generation_id == JOB
    assert outcome_is_unknown(caught.value)
    assert dialect.read_created(answer({name: True, "id": JOB, "message": "yes"})).id == JOB


@each_row(
    ("body", "expected"),
    [
        (b'Warning: x\n{"task_id": "a1", "error": "m"}', "a1"), (b'data: {"taskId": "a1", "error": "m"}\n\n', "a1"),
        (b'{"task_id": "a1"}\n{"task_id": "b2"}', None), (b'{"error": {"message": "m", "job_id": "a1"}}', "a1"),
        (b'{"error": "m", "payload": {"task_id": "a1"}}', None), (b'{"error": "m", "other": {"task_id": "a1"}}', None),
    ],
)  # fmt: skip
def test_an_error_in_any_form_keeps_the_id_that_it_names(body: bytes, expected: str | None) -> None:
    """With text around it, in an event, or as an object: but not what it repeats."""
    with pytest.raises(exceptions.ViduServerError) as caught:
        ViduNative().read_created(ApiAnswer(500, {}, body))
    assert caught.value.generation_id == expected
