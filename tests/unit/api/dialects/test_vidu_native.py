"""The gateways' dialect: recorded answers, odd ones, requests and errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.dialects import ViduNative
from airflow_provider_vidu.api.messages import ApiAnswer, ApiRequest
from airflow_provider_vidu.exceptions import ViduAPIError, ViduConfigError, ViduError, ViduResponseError
from airflow_provider_vidu.models import Artifact, Generation, GenerationStatus
from tests.rows import each_row

FIXTURES = Path(__file__).parents[3] / "fixtures"
NATIVE = ViduNative()


def recorded(name: str) -> dict[str, Any]:
    """Return a recorded answer."""
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_bytes())
    return found


def read(body: Any, generation_id: str = "asked") -> Generation:
    """Return what a query's answer with this body says."""
    return NATIVE.read_generation(generation_id, ApiAnswer(200, {}, json.dumps(body).encode()))


def error(status: int, body: Any, headers: dict[str, str] | None = None) -> ViduAPIError | ViduResponseError:
    """Return what an error answer stands for."""
    return NATIVE.error(ApiAnswer(status, headers or {}, b"" if body is None else json.dumps(body).encode()))


def at(seconds: float) -> datetime:
    """Return an aware UTC time."""
    return datetime.fromtimestamp(seconds, UTC)


COMPLETED = recorded("vidu_native_completed")
PENDING = recorded("vidu_native_pending")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "vidu_native_completed",
            {
                "status": GenerationStatus.SUCCEEDED,
                "provider_status": "completed",
                "video_url": COMPLETED["video_url"],
                "cover_url": COMPLETED["thumbnail_url"],
                "progress": 100,
                "model": "grok-3",
                "prompt": "cat fish --mode=custom",
                "updated_at": at(1764522552),
                "completed_at": at(1764522552),
                "artifacts": (Artifact(url=COMPLETED["video_url"], cover_url=COMPLETED["thumbnail_url"]),),
            },
        ),
        (
            "vidu_native_completed_minimal",
            {
                "status": GenerationStatus.SUCCEEDED,
                "provider_status": "completed",
                "video_url": "https://example.com/video/aigcVideoGenFile.mp4",
                "updated_at": at(1774494622),
                "artifacts": (Artifact(url="https://example.com/video/aigcVideoGenFile.mp4"),),
            },
        ),
        (
            "vidu_native_pending",
            {
                "status": GenerationStatus.WAITING,
                "provider_status": "pending",
                "enhanced_prompt": PENDING["enhanced_prompt"].removeprefix("```\n").removesuffix("\n```"),
                "updated_at": datetime(2025, 6, 19, 8, 52, 47, 3000, tzinfo=UTC),
            },
        ),
        (
            "vidu_native_processing_minimal",
            {
                "status": GenerationStatus.RUNNING,
                "provider_status": "processing",
                "updated_at": at(1764756435),
            },
        ),
    ],
)
def test_recorded_answers(name: str, expected: dict[str, Any]) -> None:
    """Every recorded answer becomes exactly this generation."""
    body = recorded(name)
    assert read(body) == Generation(id="asked", raw=body, **expected)


WORDS = {
    "succeeded": "completed success succeeded",
    "failed": "failed failure error video_generation_failed video_upsampling_failed cancelled canceled expired",
    "waiting": "pending queued not_start submitted created queueing",
    "running": "processing in_progress running image_downloading video_generating video_generation_completed "
    "video_upsampling video_upsampling_completed",
    "unknown": "unknown warming_up complete done fail 完成 null",
}


@each_row(("word", "status"), [(word, status) for status in WORDS for word in WORDS[status].split()])
@each_row("spelling", [str.lower, str.upper, str.title, "  {} ".format], ids=["a", "A", "Aa", "blanks"])
def test_status_words(word: str, status: str, spelling: Any) -> None:
    """Every word of the table, in capitals too; every other word is still running."""
    generation = read({"id": "a", "status": spelling(word)})
    assert generation.status == status
    assert generation.provider_status == spelling(word)
    assert generation.is_done is (status in ("succeeded", "failed"))


@each_row("word", [None, "", 7, True, 1.5, [], {}, ["completed"]])
def test_a_status_that_is_no_word(word: Any) -> None:
    """A status of the wrong type is unknown, not an exception."""
    assert read({"id": "a", "status": word, "video_url": None}).status is GenerationStatus.UNKNOWN


@each_row(
    ("field", "value", "attribute", "expected"),
    [
        ("status_update_time", 1750323167003, "updated_at", at(1750323167.003)),
        ("status_update_time", 1750323167, "updated_at", at(1750323167)),
        ("status_update_time", "1750323167003", "updated_at", at(1750323167.003)),
        ("status_update_time", "2026-01-20T06:52:02.323137590Z", "updated_at",
         datetime(2026, 1, 20, 6, 52, 2, 323137, tzinfo=UTC)),
        ("status_update_time", 0, "updated_at", None),
        ("status_update_time", None, "updated_at", None),
        ("status_update_time", {}, "updated_at", None),
        ("created_at", 1764522552, "created_at", at(1764522552)),
        ("completed_at", 1764522552, "completed_at", at(1764522552)),
        ("progress", "100%", "progress", 100),
        ("progress", "0", "progress", 0),
        ("progress", 50, "progress", 50),
        ("progress", "", "progress", None),
        ("progress", None, "progress", None),
        ("progress", 101, "progress", 100),
        ("video_url", "", "video_url", None),
        ("video_url", None, "video_url", None),
        ("video_url", "null", "video_url", None),
        ("video_url", {"url": "https://h/v"}, "video_url", None),
        ("video_url", "http://h/v.mp4", "video_url", "http://h/v.mp4"),
        ("video_url", "https://h/v.mp4?a=;b~c&Signature=%2f+x", "video_url", "https://h/v.mp4?a=;b~c&Signature=%2f+x"),
        ("result_url", "https://h/r.mp4", "video_url", "https://h/r.mp4"),
        ("thumbnail_url", "https://h/t.jpg", "cover_url", "https://h/t.jpg"),
        ("thumbnail_url", "", "cover_url", None),
        ("enhanced_prompt", "```\na cow\n```", "enhanced_prompt", "a cow"),
        ("enhanced_prompt", "a cow", "enhanced_prompt", "a cow"),
        ("enhanced_prompt", "", "enhanced_prompt", None),
        ("enhanced_prompt", 7, "enhanced_prompt", "7"),
        ("model", "grok-3", "model", "grok-3"),
        ("credits", "80", "credits", 80),
        ("id", "other-spelling", "id", "asked"),
        ("id", 911088422699962368, "id", "asked"),
        ("id", None, "id", "asked"),
    ],
)  # fmt: skip
def test_single_fields(field: str, value: Any, attribute: str, expected: Any) -> None:
    """Each field in each spelling that was seen."""
    generation = read({"id": "a", "status": "completed", field: value})
    assert getattr(generation, attribute) == expected
    assert generation.raw[field] == value


@each_row("value", [9.5, [1, {"x": None}], "text", {"deep": {"er": []}}, 911088422699962368, None])
def test_unknown_fields_survive(value: Any) -> None:
    """Nothing that the gateway said is lost."""
    assert read({"id": "a", "status": "pending", "brand_new": value}).raw["brand_new"] == value


WRAPPED = {
    "code": "success",
    "message": "",
    "data": {
        "task_id": "t",
        "status": "SUCCESS",
        "result_url": "https://h/r.mp4",
        "progress": "100%",
        "fail_reason": "",
    },
}


def test_wrapped_answers() -> None:
    """Some hosts wrap the answer; the whole of it stays in raw."""
    generation = read(WRAPPED)
    assert generation.status is GenerationStatus.SUCCEEDED
    assert generation.video_url == "https://h/r.mp4"
    assert generation.progress == 100
    assert generation.raw == WRAPPED
    assert generation.error_code is None


def test_wrapped_failures() -> None:
    """The wrapper's "success" says nothing about the generation."""
    generation = read({"code": "success", "data": {"status": "FAILURE", "fail_reason": "no luck", "progress": "100%"}})
    assert generation.failed
    assert generation.error_message == "no luck"
    assert generation.error_code is None


@each_row(
    ("fields", "message", "code"),
    [
        pytest.param({"error": "no luck"}, "no luck", None, id="error text"),
        pytest.param({"error": {"code": "E1", "message": "no luck"}}, "no luck", "E1", id="error object"),
        pytest.param({"error": {"code": 17, "message": "no luck"}}, "no luck", "17", id="error number"),
        pytest.param({"fail_reason": "no luck"}, "no luck", None, id="fail_reason"),
        pytest.param({"message": "no luck"}, "no luck", None, id="message"),
        pytest.param({"detail": {"error": "no luck"}}, "no luck", None, id="detail.error"),
        pytest.param({"detail": {"error_message": "no luck"}}, "no luck", None, id="detail.error_message"),
        pytest.param({"error": "", "fail_reason": "", "message": "no luck"}, "no luck", None, id="empty ones"),
        pytest.param({"error": None, "detail": {"error": "no luck"}}, "no luck", None, id="null"),
        pytest.param({"error": []}, None, None, id="a list"),
        pytest.param({}, None, None, id="no reason"),
    ],
)
def test_where_a_reason_was_seen(fields: dict[str, Any], message: str | None, code: str | None) -> None:
    """The reason of a failure is found in each place where one was seen."""
    generation = read({"id": "a", "status": "failed", **fields})
    assert generation.error_message == message
    assert generation.error_code == code


@each_row(
    "fields",
    [
        {"error": "an earlier retry failed"},
        {"error": {"code": "E1", "message": "an earlier retry failed"}},
        {"fail_reason": "x", "message": "y", "detail": {"error": "z"}, "error_code": "E"},
    ],
)
@each_row("word", ["completed", "processing", "pending"])
def test_texts_of_earlier_retries_are_ignored(fields: dict[str, Any], word: str) -> None:
    """The status word alone decides."""
    generation = read({"id": "a", "status": word, "video_url": "https://h/v.mp4", **fields})
    assert not generation.failed
    assert generation.error_message is None
    assert generation.error_code is None


@pytest.mark.parametrize("url", [None, "", "null", "v.mp4", 7])
def test_success_without_a_url(url: Any) -> None:
    """The word is kept; the wait decides what to do about the missing URL."""
    generation = read({"id": "a", "status": "completed", "video_url": url})
    assert generation.succeeded
    assert generation.video_url is None
    assert generation.artifacts == ()


@each_row(
    "body",
    [
        {}, {"error": "x"}, {"hello": "world"}, {"code": "success", "data": None}, {"code": "success", "data": {}},
        {"data": [1]}, {"code": "unheard_of", "message": "m", "data": None},
    ],
)  # fmt: skip
def test_objects_that_are_no_generation(body: Any) -> None:
    """A 200 that says nothing about a generation is not one of Vidu."""
    with pytest.raises(ViduResponseError, match="no status"):
        read(body)


@each_row(
    ("body", "expected"),
    [
        pytest.param({"id": "a", "task_id": "b", "data": {"id": "c", "task_id": "d"}}, "a", id="id"),
        pytest.param({"task_id": "b", "status": "pending", "data": {"id": "c"}}, "b", id="task_id"),
        pytest.param({"status": "pending", "data": {"id": "c", "task_id": "d"}}, "c", id="data.id"),
        pytest.param({"status": "pending", "data": {"task_id": "d"}}, "d", id="data.task_id"),
        pytest.param({"id": "", "task_id": "b", "status": "pending"}, "b", id="empty id"),
        pytest.param({"id": None, "task_id": "b"}, "b", id="null id"),
        pytest.param({"id": 911088422699962368, "status": "pending"}, "911088422699962368", id="number"),
        pytest.param({"task_id": "b"}, "b", id="nothing but a task_id"),
        pytest.param({"data": {"task_id": "d"}}, "d", id="nothing but data.task_id"),
        pytest.param({"data": {"id": "c"}}, "c", id="nothing but data.id"),
        pytest.param({"code": "success", "message": "", "data": {"task_id": "d"}}, "d", id="wrapped"),
        pytest.param({"code": "success", "data": {"task_id": "d", "status": "NOT_START"}}, "d", id="wrapped, status"),
    ],
)
def test_ids_of_a_create(body: Any, expected: str) -> None:
    """A paid id is never lost: it is found in each place, in the documented order, with or without a status."""
    created = NATIVE.read_created(ApiAnswer(200, {}, json.dumps(body).encode()))
    assert created.id == expected
    assert created.raw == body


def test_a_recorded_create() -> None:
    """The answer of a sibling's create."""
    body = {"id": "veo3.1-components:1762241017-xTL0P9HvGF", "status": "pending", "status_update_time": 1762241017286}
    created = NATIVE.read_created(ApiAnswer(200, {}, json.dumps(body).encode()))
    assert created.id == body["id"]
    assert created.status is GenerationStatus.WAITING


@pytest.mark.parametrize("body", [{}, {"status": "pending"}, {"id": ""}, {"id": {}, "data": []}, {"data": {"id": " "}}])
def test_a_create_without_an_id(body: Any) -> None:
    """Without an id the error is raised as it came."""
    with pytest.raises(ViduResponseError, match="has no id") as caught:
        NATIVE.read_created(ApiAnswer(200, {}, json.dumps(body).encode()))
    assert caught.value.status_code == 200


def test_a_failing_create() -> None:
    """An error answer to a create is the error it stands for."""
    with pytest.raises(exceptions.ViduCreditError):
        NATIVE.read_created(ApiAnswer(403, {}, b'{"error": {"code": "insufficient_user_quota", "message": "m"}}'))


# -- requests -------------------------------------------------------------------------------------


def test_the_query() -> None:
    """A query has no body and may be repeated."""
    assert NATIVE.query("grok:1").request == ApiRequest(
        "GET", "/vidu-native/video/generations/grok%3A1", None, bills=False
    )


def test_the_create() -> None:
    """The body goes through unchanged, and the request bills."""
    body = {"model": "TC-Vidu", "settings": {"settings": {"duration": 4}}}
    request = NATIVE.create(body).request
    assert request == ApiRequest("POST", "/vidu-native/video/generations", body, bills=True)
    assert NATIVE.create(body, "/other/path").request == ApiRequest("POST", "/other/path", body, bills=True)


def test_a_create_endpoint_must_be_a_path() -> None:
    """The gateways have one endpoint."""
    with pytest.raises(ViduConfigError, match="single create endpoint"):
        NATIVE.create({}, "text2video")


def test_custom_paths() -> None:
    """Resellers put the same dialect under other paths."""
    custom = ViduNative("/v/{task_id}", "/v")
    assert custom.query("a:b").request.path == "/v/a%3Ab"
    assert custom.create({}).request.path == "/v"


def test_what_the_dialect_cannot() -> None:
    """The gateways document no cancel, no balance, no list and no uploads: each call says so."""
    assert (NATIVE.can_cancel(), NATIVE.has_list, NATIVE.has_uploads) == (False, False, False)
    calls = (lambda: NATIVE.cancel("a"), NATIVE.credits, NATIVE.search, NATIVE.upload)
    for call, what in zip(calls, ("cancel", "balance", "list of generations", "upload service"), strict=True):
        with pytest.raises(exceptions.ViduConfigError, match=f"The dialect vidu-native has no {what}"):
            call()


# -- errors ---------------------------------------------------------------------------------------


@each_row(
    ("body", "code", "message", "trace_id"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c"}}, "c", "m", None),
        ({"error": {"message": "m", "type": "t", "code": ""}}, "t", "m", None),
        ({"error": {"message": "m", "type": "t"}}, "t", "m", None),
        ({"code": "c", "message": "m", "data": None}, "c", "m", None),
        ({"code": "c", "message": "m", "trace_id": "4cc3"}, "c", "m", "4cc3"),
        ({"code": "c", "message": "m", "request_id": "r1"}, "c", "m", "r1"),
        ({"error": "m"}, None, "m", None),
        ({"detail": "m"}, None, "m", None),
        ({"detail": {"error": "m"}}, None, "m", None),
        ({"message": "m"}, None, "m", None),
        ({"unheard": "of"}, None, '{"unheard": "of"}', None),
        ({}, None, "{}", None),
    ],
)
def test_error_texts(body: Any, code: str | None, message: str, trace_id: str | None) -> None:
    """Code, message and trace id are found, or the body is shown."""
    found = error(400, body)
    assert type(found) is exceptions.ViduRequestError
    assert found.code == code
    assert found.trace_id == trace_id
    assert message in str(found)


@pytest.mark.parametrize("code", ["TASK_NOT_EXIST", "Task_Not_Exist", "task_not_exist"])
def test_codes_in_capitals(code: str) -> None:
    """Error codes are compared case-insensitively and quoted as they came."""
    found = error(400, {"code": code, "message": "m"})
    assert type(found) is exceptions.ViduNotFoundError
    assert found.code == code


def test_signed_urls_in_errors() -> None:
    """A message of the service that quotes a signed URL loses the signature."""
    found = error(400, {"code": "c", "message": "cannot fetch https://h/a.png?Signature=GEHEIM"})
    assert "GEHEIM" not in str(found)
    assert "https://h/a.png" in str(found)


# -- connection test ------------------------------------------------------------------------------


def verdict(status: int, body: bytes) -> ViduError | None:
    """Return the verdict on the probe's answer."""
    return NATIVE.probe_verdict(ApiAnswer(status, {}, body))


def test_the_probe_is_a_query() -> None:
    """The probe costs nothing."""
    assert NATIVE.probe().request.method == "GET"
    assert not NATIVE.probe().request.bills


@each_row(
    ("status", "body"),
    [
        (400, b'{"code": "task_not_exist", "message": "task_not_exist", "data": null}'),
        (404, b'{"code": "task_not_exist", "message": "task_not_exist", "data": null}'),
        (400, b'{"error": {"code": "task_not_exist", "message": "m", "type": "t"}}'),
        (400, b'{"code": "invalid_id", "message": "no such task"}'),
        (200, b'{"id": "airflow-connection-test", "status": "unknown"}'),
        (200, b'{"code": "success", "data": {"status": "unknown"}}'),
    ],
)
def test_probe_fine(status: int, body: bytes) -> None:
    """No such task: host and key are right."""
    assert verdict(status, body) is None


@each_row(
    ("status", "body", "kind"),
    [
        (
            401,
            b'{"error": {"message": "Invalid token", "type": "new_api_error", "code": ""}}',
            exceptions.ViduAuthError,
        ),
        (401, b'{"code": "x", "message": "bad key"}', exceptions.ViduAuthError),
        (401, b"", exceptions.ViduAuthError),
        (403, b'{"error": {"message": "m", "code": "insufficient_user_quota"}}', exceptions.ViduCreditError),
        (429, b"", exceptions.ViduRateLimitError),
        (503, b'{"error": {"message": "m", "code": "no_channel"}}', exceptions.ViduServerError),
        (404, b'{"error": {"message": "Invalid URL", "type": "invalid_request_error", "code": ""}}', ViduResponseError),
        (404, b'{"detail": "Not Found"}', ViduResponseError),
        (404, b"<html>404</html>", ViduResponseError),
        (200, b"<html>welcome</html>", ViduResponseError),
        (200, b'{"hello": "world"}', ViduResponseError),
        (200, b"[]", ViduResponseError),
        (403, b"<html>forbidden</html>", ViduResponseError),
    ],
)
def test_probe_wrong(status: int, body: bytes, kind: type[ViduError]) -> None:
    """Key refused, not a gateway, or in trouble: each has its class."""
    found = verdict(status, body)
    assert type(found) is kind
    assert str(found)
