"""The official dialect: recorded answers, odd ones, requests and the table of errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.calls import Upload
from airflow_provider_vidu.api.dialects import EntV2
from airflow_provider_vidu.api.messages import ApiAnswer, ApiRequest
from airflow_provider_vidu.exceptions import ViduAPIError, ViduConfigError, ViduError, ViduResponseError
from airflow_provider_vidu.models import Artifact, Generation, GenerationStatus
from airflow_provider_vidu.polling.retries import may_repeat, outcome_is_unknown
from tests.rows import each_row

FIXTURES = Path(__file__).parents[3] / "fixtures"
ENT = EntV2()


def recorded(name: str) -> dict[str, Any]:
    """Return a recorded answer."""
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_bytes())
    return found


def read(body: Any, generation_id: str = "asked") -> Generation:
    """Return what a query's answer with this body says."""
    return ENT.read_generation(generation_id, ApiAnswer(200, {}, json.dumps(body).encode()))


SUCCESS = recorded("ent_v2_success")
CREATION = SUCCESS["creations"][0]
CREATED = recorded("ent_v2_created")
FAILED = recorded("ent_v2_failed")


def test_the_recorded_success() -> None:
    """The recorded success becomes exactly this generation; the signed URL is verbatim."""
    url = (
        "https://example.com/infer/video.mp4?response-content-disposition=attachment;filename=video.mp4"
        "&Expires=1766950232&Signature=ab~cd-ef__&Key-Pair-Id=K1"
    )
    cover = "https://example.com/infer/cover.jpg"
    assert read(SUCCESS) == Generation(
        id="asked",
        status=GenerationStatus.SUCCEEDED,
        provider_status="success",
        video_url=url,
        cover_url=cover,
        progress=100,
        credits=4,
        artifacts=(
            Artifact(id="911088422699962369", url=url, cover_url=cover, duration=3.85, fps=16, width=688, height=384),
        ),
        raw=SUCCESS,
    )


def test_the_recorded_failure() -> None:
    """A failed generation carries only a code."""
    assert read(FAILED) == Generation(
        id="asked",
        status=GenerationStatus.FAILED,
        provider_status="failed",
        credits=0,
        error_code="CreationPolicyViolation",
        raw=FAILED,
    )


def test_the_recorded_create() -> None:
    """The id keeps all its digits, the time its microseconds."""
    created = ENT.read_created(ApiAnswer(200, {}, json.dumps(CREATED).encode()))
    assert created == Generation(
        id="911088422699962368",
        status=GenerationStatus.WAITING,
        provider_status="created",
        model="viduq1",
        prompt="a girl picking mushrooms",
        credits=80,
        created_at=datetime(2026, 1, 20, 6, 52, 2, 323137, tzinfo=UTC),
        raw=CREATED,
    )


def test_the_recorded_error() -> None:
    """The code is in reason; the error names message and trace id."""
    error = ENT.error(ApiAnswer(400, {}, (FIXTURES / "ent_v2_error.json").read_bytes()))
    assert type(error) is exceptions.ViduRequestError
    assert error.code == "BadRequest"
    assert error.trace_id == "04e5c2fe159ff7c574acd0424e78c35f"
    assert error.status_code == 400
    for part in ("task state is scheduled, can not cancel", "BadRequest", "04e5c2fe159ff7c574acd0424e78c35f", "400"):
        assert part in str(error)


def test_a_refused_cancel_is_one_clause() -> None:
    """The log ends the sentence; the advice on a refused create, "change what it names", is none on a cancel."""
    refused = ENT.read_cancel(ApiAnswer(400, {}, (FIXTURES / "ent_v2_error.json").read_bytes()))
    assert (refused.accepted, refused.reason) == (
        False, "the service refused the cancel: task state is scheduled, can not cancel"
    )  # fmt: skip
    assert ENT.read_cancel(ApiAnswer(404, {}, b"")).reason == "the service refused the cancel: it gave no reason"


WORDS = {
    "succeeded": "success",
    "failed": "failed canceled",
    "waiting": "created queueing scheduled preparation scheduling",
    "running": "processing",
    "unknown": "unknown warming done 完成 null",
}


@each_row(("word", "status"), [(word, status) for status in WORDS for word in WORDS[status].split()])
@each_row("spelling", [str.lower, str.upper, str.title], ids=["a", "A", "Aa"])
def test_states(word: str, status: str, spelling: Any) -> None:
    """Every word of the table, in capitals too; every other word is still running."""
    generation = read({"id": "1", "state": spelling(word), "creations": []})
    assert generation.status == status
    assert generation.provider_status == spelling(word)


@each_row("word", [None, "", 7, True, [], {}])
def test_a_state_that_is_no_word(word: Any) -> None:
    """A state of the wrong type is unknown, not an exception."""
    assert read({"state": word, "creations": []}).status is GenerationStatus.UNKNOWN


@each_row(
    ("field", "value", "attribute", "expected"),
    [
        ("progress", 90, "progress", 90),
        ("progress", "100%", "progress", 100),
        ("progress", None, "progress", None),
        ("credits", 80, "credits", 80),
        ("credits", "80", "credits", 80),
        ("credits", 0.5, "credits", 0.5),
        ("credits", None, "credits", None),
        ("created_at", "2026-01-20T06:52:02.323137590Z", "created_at",
         datetime(2026, 1, 20, 6, 52, 2, 323137, tzinfo=UTC)),
        ("created_at", "2026-01-20T06:52:02Z", "created_at", datetime(2026, 1, 20, 6, 52, 2, tzinfo=UTC)),
        ("created_at", 1768891922, "created_at", datetime(2026, 1, 20, 6, 52, 2, tzinfo=UTC)),
        ("created_at", 1768891922000, "created_at", datetime(2026, 1, 20, 6, 52, 2, tzinfo=UTC)),
        ("created_at", "", "created_at", None),
        ("id", "911088422699962369", "id", "asked"),
        ("id", 911088422699962369, "id", "asked"),
        ("model", "viduq3-pro", "model", "viduq3-pro"),
    ],
)  # fmt: skip
def test_single_fields(field: str, value: Any, attribute: str, expected: Any) -> None:
    """Each field in each spelling."""
    generation = read({"id": "1", "state": "processing", field: value})
    assert getattr(generation, attribute) == expected
    assert generation.raw[field] == value


def test_several_creations() -> None:
    """All creations are kept; the first with a URL gives the generation's."""
    generation = read(
        {
            "state": "success",
            "creations": [
                {"id": "1", "url": "", "cover_url": "https://h/1.jpg"},
                {
                    "id": 9007199254740993,
                    "url": "https://h/2.mp4",
                    "cover_url": "",
                    "watermarked_url": "https://h/w.mp4",
                },
                {"id": "3", "url": "https://h/3.mp4"},
            ],
        }
    )
    assert [artifact.id for artifact in generation.artifacts] == ["1", "9007199254740993", "3"]
    assert generation.video_url == "https://h/2.mp4"
    assert generation.cover_url is None
    assert generation.artifacts[1].watermarked_url == "https://h/w.mp4"
    assert generation.artifacts[0].url is None


@each_row(
    "creations",
    [
        None, [], {}, "x", [None], [7], [[]], [{}], [{"url": None}], [{"url": ""}], [{"url": 7}], [{"url": "null"}],
        [{"video": []}], [{"video": {"resolution": "688x384", "duration": "long"}}],
    ],
)  # fmt: skip
def test_success_without_a_url(creations: Any) -> None:
    """Creations of any shape are read; none of these has a URL."""
    generation = read({"state": "success", "creations": creations})
    assert generation.succeeded
    assert generation.video_url is None


def test_numbers_of_a_video_come_as_text_too() -> None:
    """Sizes and durations may be strings or fractions."""
    video = {"duration": "3.85", "fps": "16", "resolution": {"width": "688", "height": 384.0}}
    found = read({"state": "success", "creations": [{"url": "https://h/v", "video": video}]}).artifacts[0]
    assert (found.duration, found.fps, found.width, found.height) == (3.85, 16, 688, 384)


@pytest.mark.parametrize("state", ["success", "processing", "created"])
def test_error_codes_count_only_for_failures(state: str) -> None:
    """The state alone decides."""
    generation = read(
        {"state": state, "err_code": "InternalServiceFailure", "message": "an earlier try", "creations": []}
    )
    assert generation.error_code is None
    assert generation.error_message is None


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"err_code": "AuditSubmitIllegal"}, "AuditSubmitIllegal", None),
        ({"err_code": ""}, None, None),
        ({}, None, None),
        ({"err_code": 7, "err_msg": "m"}, "7", "m"),
        ({"message": "m"}, None, "m"),
    ],
)
def test_failures(fields: dict[str, Any], code: str | None, message: str | None) -> None:
    """Whatever reason a failure carries is kept."""
    generation = read({"id": "1", "state": "failed", "creations": [], **fields})
    assert generation.failed
    assert generation.error_code == code
    assert generation.error_message == message


@pytest.mark.parametrize("body", [{}, {"hello": "world"}, {"id": "1"}, {"code": 0, "message": "ok"}, {"state": None}])
def test_objects_that_are_no_generation(body: Any) -> None:
    """A 200 without state and creations is not one of Vidu."""
    with pytest.raises(ViduResponseError, match="no state"):
        read(body)


@each_row(
    ("body", "expected"),
    [
        pytest.param({"task_id": "1", "id": "2", "state": "created"}, "1", id="task_id first"),
        pytest.param({"id": "2", "state": "created"}, "2", id="id"),
        pytest.param({"task_id": 911088422699962368, "state": "created"}, "911088422699962368", id="number"),
        pytest.param({"task_id": "", "id": "2", "state": "created"}, "2", id="empty"),
        pytest.param({"task_id": "1"}, "1", id="nothing but the id"),
        pytest.param({"task_id": "1", "state": None}, "1", id="null state"),
        pytest.param({"task_id": "1", "state": "failed"}, "1", id="failed at once"),
    ],
)
def test_ids_of_a_create(body: Any, expected: str) -> None:
    """A paid id is never lost, with or without a state."""
    assert ENT.read_created(ApiAnswer(200, {}, json.dumps(body).encode())).id == expected


def test_a_create_that_failed_at_once() -> None:
    """A 200 with state "failed" is possible."""
    body = {"task_id": "1", "state": "failed", "err_code": "AuditSubmitIllegal"}
    created = ENT.read_created(ApiAnswer(200, {}, json.dumps(body).encode()))
    assert created.failed
    assert created.error_code == "AuditSubmitIllegal"


def test_a_create_without_an_id() -> None:
    """Without an id the error is raised as it came."""
    with pytest.raises(ViduResponseError, match="has no id"):
        ENT.read_created(ApiAnswer(200, {}, b'{"state": "created"}'))


# -- requests -------------------------------------------------------------------------------------


@each_row(
    ("images", "endpoint"),
    [
        (None, "text2video"), ([], "text2video"), (["a"], "img2video"), (("a", "b"), "start-end2video"),
        (["a"] * 3, "reference2video"), (["a"] * 7, "reference2video"),
    ],
)  # fmt: skip
def test_the_endpoint_by_images(images: Any, endpoint: str) -> None:
    """The number of images suggests the endpoint."""
    body = {"prompt": "p"} | ({"images": images} if images is not None else {})
    assert ENT.create(body).request == ApiRequest("POST", f"/ent/v2/{endpoint}", body, bills=True)


@pytest.mark.parametrize("images", ["https://h/a.png", {"a": 1}, 7, b"\x89PNG"], ids=["text", "object", "int", "bytes"])
def test_images_must_be_a_list(images: Any) -> None:
    """A single URL instead of a list is the usual mistake."""
    with pytest.raises(ViduConfigError, match="images must be a list"):
        ENT.create({"images": images})


@pytest.mark.parametrize("uri", ["ssupload:?id=1\n2", "u" * 20_000, "ssupload:\x1b[31m"])
def test_an_upload_whose_address_is_none(uri: str) -> None:
    """The documented form with its id takes its place."""
    answer = ApiAnswer(200, {}, json.dumps({"uri": uri}).encode())
    assert ENT.read_uploaded(answer, Upload("7", "https://h/p")) == "ssupload:?id=7"


@each_row(
    "body",
    [
        {"code": 0, "data": {"id": 7, "put_url": "https://h/p?a=b"}},
        {"code": 0, "data": '{"id": "7", "put_url": "https://h/p?a=b"}'},
        {"id": "7", "put_url": "\ufeff https://h/p?a=b\n"},
    ],
)
def test_an_upload_that_a_gateway_has_wrapped(body):
    """It is read as a create, a list and a balance are; blanks around the address mean nothing."""
    upload = ENT.read_upload(ApiAnswer(200, {}, json.dumps(body).encode()))
    assert (upload.id, upload.put_url) == ("7", "https://h/p?a=b")
    wrapped = {"code": 0, "data": {"uri": "ssupload:?id=8"}}
    assert ENT.read_uploaded(ApiAnswer(200, {}, json.dumps(wrapped).encode()), upload) == "ssupload:?id=8"


@pytest.mark.parametrize("upload_id", ["a\nb", "x" * 2000, "..", "\u202ea"])
def test_the_id_of_an_upload_is_checked(upload_id: str) -> None:
    """Like that of a generation."""
    body = {"id": upload_id, "put_url": "https://h/p"}
    with pytest.raises(ViduResponseError):
        ENT.read_upload(ApiAnswer(200, {}, json.dumps(body).encode()))


def test_a_page_token_of_megabytes() -> None:
    """It would be the URL of the next request; and to drop it would make the list end here."""
    body = {"tasks": [{"id": "1", "state": "success"}], "next_page_token": "t" * 5000}
    with pytest.raises(ViduResponseError, match="next_page_token"):
        ENT.read_page(ApiAnswer(200, {}, json.dumps(body).encode()))


@each_row("endpoint", [12, True, [1], {"a": 1}, b"x", "/x\r\nA: b{id}", "/../{id}"])
def test_an_endpoint_that_a_template_has_spoilt(endpoint: Any) -> None:
    """Native rendering makes anything of it; it is an error of ours, and nothing is sent."""
    with pytest.raises(ViduConfigError):
        ENT.query("1", endpoint)


def test_an_endpoint_with_half_a_character() -> None:
    """What UTF-8 cannot hold raises nothing of Python's own."""
    assert ENT.create({"prompt": "p"}, "\ud800").request.path == "/ent/v2/%3F"


@pytest.mark.parametrize("endpoint", ["text2video", "multiframe", "extend", "template", "img2video"])
def test_a_named_endpoint_wins(endpoint: str) -> None:
    """What the user names is used, whatever the number of images."""
    assert ENT.create({"images": ["a"] * 3}, endpoint).request.path == f"/ent/v2/{endpoint}"


def test_the_target_of_files_that_are_not_read_yet() -> None:
    """Where a create goes is known before its files are read."""
    assert ENT.target({"images": [Path("a.png")]}) == "/ent/v2/img2video"


def test_requests() -> None:
    """Each method and path of the table."""
    assert ENT.query("911").request == ApiRequest("GET", "/ent/v2/tasks/911/creations")
    assert ENT.cancel("9/1").request == ApiRequest("POST", "/ent/v2/tasks/9%2F1/cancel", {"id": "9/1"})
    assert ENT.credits().request == ApiRequest("GET", "/ent/v2/credits")
    assert ENT.probe().request == ApiRequest("GET", "/ent/v2/credits")
    assert ENT.create({}, "/vidu/other").request.path == "/vidu/other"


@pytest.mark.parametrize(
    ("query", "create", "expected"),
    [
        pytest.param(
            "/vidu/ent/v2/task/{id}/creations", "/vidu/ent/v2/{endpoint}",
            ("/vidu/ent/v2/task/1/creations", "/vidu/ent/v2/task/1/cancel", "/vidu/ent/v2/text2video",
             "/vidu/ent/v2/credits"), id="singular, other prefix"),
        pytest.param(
            "/q/{task_id}", "/c", ("/q/1", "/q/1/cancel", "/c", "/credits"), id="one endpoint"),
        pytest.param(
            None, "/x/{endpoint}",
            ("/ent/v2/tasks/1/creations", "/ent/v2/tasks/1/cancel", "/x/text2video", "/x/credits"),
            id="only the create"),
    ],
)  # fmt: skip
def test_resellers_paths(query: str | None, create: str, expected: tuple[str, ...]) -> None:
    """Resellers keep the shape under other paths; cancel and credits follow."""
    ent = EntV2(query, create)
    cancel, balance = ent.cancel("1").request, ent.credits().request
    assert cancel
    assert balance
    assert (ent.query("1").request.path, cancel.path, ent.create({}).request.path, balance.path) == expected


def test_only_creates_bill() -> None:
    """A cancel and a look at the balance may be repeated."""
    calls = (ENT.query("1"), ENT.cancel("1"), ENT.credits(), ENT.create({}))
    assert [call.request.bills for call in calls] == [False, False, False, True]


# -- the table of errors --------------------------------------------------------------------------

E = exceptions
TABLE: list[tuple[int, str, type[ViduError], bool]] = [
    *((400, reason, E.ViduRequestError, False) for reason in (
        "BadRequest", "FieldLacking", "FieldUnwanted", "FieldItemCountOutOfRange", "FieldInvalid", "PageSizeOutOfRange",
        "ModelUnavailable", "UserCancelled")),
    (400, "ImageDownloadFailure", E.ViduImageDownloadError, True),
    *((400, reason, E.ViduImageError, False) for reason in (
        "ImageFormatInvalid", "ImageCheckBodyJointsFailed", "ImageCheckFaceFailed", "ImageObjectsUndetected")),
    (400, "OperationInProcess", E.ViduBusyError, True),
    *((400, reason, E.ViduPolicyError, False) for reason in (
        "TaskPromptPolicyViolation", "AuditSubmitIllegal", "CreationPolicyViolation")),
    (400, "CreditInsufficient", E.ViduCreditError, False),
    *((status, reason, E.ViduAuthError, False) for status in (401, 403) for reason in ("Unauthorized", "Forbidden")),
    *((404, reason, E.ViduNotFoundError, False) for reason in ("TaskNotFound", "CreationNotFound", "NotFound")),
    (409, "Conflict", E.ViduConflictError, False),
    *((429, reason, E.ViduRateLimitError, True) for reason in ("QuotaExceeded", "TooManyRequests", "SystemThrottling")),
    (500, "InternalServiceFailure", E.ViduServerError, True),
]  # fmt: skip


@each_row(("status", "reason", "kind", "retryable"), TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE])
@each_row("spelling", [str, str.lower, str.upper], ids=["as is", "lower", "upper"])
def test_the_table_of_errors(status: int, reason: str, kind: type[ViduError], retryable: bool, spelling: Any) -> None:
    """Every row: class, repeatable or not, code, trace id and the wait the server asks for."""
    body = {"code": status, "reason": spelling(reason), "message": "told so", "metadata": {"trace_id": "04e5"}}
    answer = ApiAnswer(status, {"retry-after": "9"}, json.dumps(body).encode())
    with pytest.raises(ViduAPIError) as caught:
        ENT.read_generation("1", answer)
    error = caught.value
    assert type(error) is kind
    assert error.retryable is retryable
    assert isinstance(error, AirflowFailException) is not retryable
    assert (error.code, error.trace_id, error.status_code, error.retry_after) == (spelling(reason), "04e5", status, 9.0)
    assert "told so" in str(error)


@each_row(("status", "reason", "kind", "retryable"), TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE])
def test_what_the_table_means_for_a_create(status: int, reason: str, kind: type[ViduError], retryable: bool) -> None:
    """After "too many" nothing was created; after a failure of the service the outcome is unknown."""
    body = {"code": status, "reason": reason, "message": "m"}
    error = ENT.error(ApiAnswer(status, {}, json.dumps(body).encode()))
    assert may_repeat(error, bills=True) is (status == 429)
    assert outcome_is_unknown(error) is (status == 500)


@each_row("reason", ["CreditInsufficient", "QuotaExceeded", "TaskNotFound", "FieldInvalid"])
@each_row("status", [400, 403, 429, 500])
def test_the_reason_beats_the_status(reason: str, status: int) -> None:
    """A reseller may answer with another status; the reason says what it is."""
    expected = next(kind for _, other, kind, _ in TABLE if other == reason)
    assert type(ENT.error(ApiAnswer(status, {}, json.dumps({"reason": reason}).encode()))) is expected


def test_a_non_numeric_id() -> None:
    """The CODEC complaint about an id comes before the key is checked: the request is wrong."""
    body = b'{"code": 400, "reason": "CODEC", "message": "CODEC body unmarshal: parse field id", "metadata": {}}'
    error = ENT.error(ApiAnswer(400, {}, body))
    assert type(error) is exceptions.ViduRequestError
    assert "parse field id" in str(error)


@pytest.mark.parametrize("metadata", [None, [], "x", {"trace_id": {}}, {"trace_id": ""}])
def test_odd_metadata(metadata: Any) -> None:
    """Metadata of any kind does not hide the error."""
    body = {"code": 400, "reason": "FieldInvalid", "message": "m", "metadata": metadata}
    error = ENT.error(ApiAnswer(400, {}, json.dumps(body).encode()))
    assert error.trace_id is None
    assert error.code == "FieldInvalid"


# -- connection test ------------------------------------------------------------------------------


@each_row(
    ("status", "body", "kind"),
    [
        (200, b'{"remains": [], "concurrency_limit": 5, "current_concurrency": 0, "queue_count": 0}', None),
        (401, b'{"code": 401, "reason": "Unauthorized", "message": "m"}', exceptions.ViduAuthError),
        (403, b'{"code": 403, "reason": "Forbidden", "message": "m"}', exceptions.ViduAuthError),
        (401, b"", exceptions.ViduAuthError),
        (429, b"", exceptions.ViduRateLimitError),
        (404, b"<html>404</html>", ViduResponseError),
        (200, b"<html>welcome</html>", ViduResponseError),
        (200, b'{"hello": "world"}', ViduResponseError),
        (500, b'{"code": 500, "reason": "InternalServiceFailure"}', exceptions.ViduServerError),
    ],
)
def test_probe(status: int, body: bytes, kind: type[ViduError] | None) -> None:
    """Fine, key refused, not Vidu, or in trouble."""
    found = ENT.probe_verdict(ApiAnswer(status, {}, body))
    assert (type(found) if found else None) is kind


@pytest.mark.parametrize("name", ["u" * 1025, "a\nb", "a\x1b[31m"], ids=range(3))
def test_an_upload_id_that_is_not_used(name):
    """It would go into a URL and into messages: too long, or with characters that cannot be printed."""
    opened = {"id": name, "put_url": "https://store.example.com/put"}
    with pytest.raises(ViduResponseError, match="an id that is not used") as caught:
        ENT.read_upload(ApiAnswer(200, {}, json.dumps(opened).encode()))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_an_address_of_an_upload_is_bounded():
    """It becomes a part of the request that is paid for."""
    upload = ENT.read_upload(ApiAnswer(200, {}, b'{"id": "u1", "put_url": "https://store.example.com/put"}'))
    assert ENT.read_uploaded(ApiAnswer(200, {}, b'{"uri": "ssupload:?id=u1"}'), upload) == "ssupload:?id=u1"
