"""What answers mean, by their shape: every documented answer under both dialects, and odd ones."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.dialects import Dialect, EntV2, ViduNative
from airflow_provider_vidu.api.dialects.raw import MAX_RAW_CHARS
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.models import Generation, GenerationStatus, Snapshot
from tests.documented_answers import CREATES, FOLDER, QUERIES, REFUSALS, Row
from tests.rows import each_row

BOTH = each_row("dialect", [ViduNative(), EntV2()], ids=["vidu-native", "ent-v2"])
NATIVE = ViduNative()


def answer(body: Any, status: int = 200) -> ApiAnswer:
    """Return an answer with this body."""
    return ApiAnswer(status, {}, json.dumps(body).encode())


def read(body: Any) -> Generation:
    """Return what a query's answer with this body says; a poll says the same, or just the state of what goes on."""
    return both(NATIVE, answer(body))[0]


def both(dialect: Dialect, found: ApiAnswer) -> tuple[Generation, Generation | Snapshot]:
    """Return what an answer says to a query, and to a poll."""
    generation, polled = dialect.read_generation("asked", found), dialect.read_poll("asked", found)
    assert polled == (generation if isinstance(polled, Generation) else generation.sighting())
    assert isinstance(polled, Generation) or not generation.is_done
    return generation, polled


def check(row: Row, generation: Generation) -> None:
    """Assert that a generation is what the row says."""
    assert {name: getattr(generation, name) for name in row.means} == row.means
    if row.artifacts is not None:
        found = [
            {name: getattr(artifact, name) for name in expected}
            for artifact, expected in zip(generation.artifacts, row.artifacts, strict=True)
        ]
        assert found == row.artifacts
    json.dumps(generation.as_xcom(), allow_nan=False).encode()


def test_every_file_is_in_the_table() -> None:
    """No documented answer lies about unread."""
    named = {row.name for table in (CREATES, QUERIES, REFUSALS) for row in table}
    assert {path.stem for path in FOLDER.glob("*.json")} == named


@each_row("row", QUERIES, ids=str)
@BOTH
def test_documented_queries(dialect: Dialect, row: Row) -> None:
    """Every documented answer to a query means the same under both dialects, and keeps the id that was asked for."""
    generation, polled = both(dialect, answer(row.body))
    assert isinstance(polled, Generation) is generation.is_done
    check(row, generation)
    assert generation.id == "asked"
    assert generation.raw == row.body


@each_row("row", CREATES, ids=str)
@BOTH
def test_documented_creates(dialect: Dialect, row: Row) -> None:
    """Every documented answer to a create holds its id, under both dialects."""
    check(row, dialect.read_created(answer(row.body), synchronous=row.synchronous))


@each_row(("first", "second"), [("state", "status"), ("status", "state")])
@each_row(
    ("known", "unknown"), [("processing", "ok"), ("success", "200"), ("failed", "error_inside"), ("queueing", "")]
)
def test_a_known_word_wins(first: str, second: str, known: str, unknown: str) -> None:
    """Of two words for the state, the one that is a state counts."""
    assert read({"id": "a", first: unknown, second: known, "video_url": None}).provider_status == known


@each_row(
    "envelope",
    [
        {"code": "success"}, {"code": 0, "message": "ok"}, {"status": "success"}, {"status": 200, "message": "OK"},
        {"success": True}, {},
    ],
)  # fmt: skip
@each_row("name", ["data", "output", "result"])
def test_the_envelope_says_nothing_of_the_job(envelope: dict[str, Any], name: str) -> None:
    """What the outer level says of the request is not the state of the job."""
    assert read({**envelope, name: {"status": "processing", "progress": 7}}).describe() == "running (processing), 7 %"


@pytest.mark.parametrize("wrap", [lambda job: [job], json.dumps, lambda job: json.dumps([job])])
def test_a_job_in_a_list_or_in_a_text(wrap: Any) -> None:
    """A list of one and JSON inside a text are the object that they hold."""
    assert read({"code": "success", "data": wrap({"status": "SUCCESS", "result_url": "https://h/v.mp4"})}).video_url
    assert read([{"id": "asked", "status": "processing"}]).status is GenerationStatus.RUNNING


@pytest.mark.parametrize(
    "body",
    [
        {"status": "success", "prompt": "a cat"},
        {"status": "success", "data": {"prompt": "a cat"}},
        {"code": "success", "prompt": "a cat", "data": {"status": "SUCCESS"}},
        {"code": "success", "data": {"status": "SUCCESS", "properties": {"input": "a cat"}}},
    ],
)
def test_the_prompt_is_read_wherever_the_answer_repeats_it(body: dict[str, Any]) -> None:
    """Lineage and pages take it from the generation: beside the state, inside, or beside the envelope."""
    assert read({"id": "a", **body}).prompt == "a cat"


def test_the_gateways_state_wins_over_that_inside() -> None:
    """The gateway's word is the job's; a word that it does not know yet leaves the one inside."""
    inner = {"state": "success", "creations": [{"url": "https://h/v.mp4"}]}
    assert read({"data": {"status": "FAILURE", "data": inner}}).failed
    assert read({"data": {"status": "UNKNOWN", "data": inner}}).succeeded


@each_row(
    "name",
    ["video_url", "result_url", "file_url", "demo_audio", "signed_url", "url", "download_url", "output_url",
     "audio_url", "image_url"],
)  # fmt: skip
def test_names_of_a_result(name: str) -> None:
    """The result of a success is found under each name that was seen."""
    assert read({"id": "a", "status": "completed", name: "https://h/r"}).video_url == "https://h/r"


@each_row(
    "fields",
    [
        {"images": ["https://h/in.png"]}, {"input": {"url": "https://h/in.png"}}, {"properties": {"url": "https://h/p"}},
        {"thumbnail_url": "https://h/t.jpg"}, {"metadata": {"trace_id": "https://h/x"}}, {"fail_reason": "no url"},
        {"data": {"images": ["https://h/in.png"]}},
    ],
)  # fmt: skip
def test_what_was_sent_is_no_result(fields: dict[str, Any]) -> None:
    """A success stays one without a URL when only inputs and pictures beside the result are there."""
    generation = read({"id": "a", "status": "completed", **fields})
    assert generation.succeeded
    assert generation.video_url is None


def test_a_url_in_fail_reason_counts_only_for_a_success() -> None:
    """The reason of a failure may hold an address, too."""
    generation = read({"data": {"status": "FAILURE", "fail_reason": "https://h/refused.png"}})
    assert generation.video_url is None
    assert generation.error_message == "https://h/refused.png"


@pytest.mark.parametrize("status", ["processing", "created", "failed"])
def test_an_echoed_input_is_no_result(status: str) -> None:
    """Official creates repeat the video that they were given."""
    assert read({"task_id": "1", "state": status, "video_url": "https://h/in.mp4"}).video_url is None


def test_inline_media_is_cut_out_of_raw() -> None:
    """A note takes the place of a medium, wherever it is; everything else stays."""
    uri = "data:image/png;base64," + "iVBORw0KGgo" * 500
    body = {"id": "a", "status": "failed", "images": [uri], "input": json.dumps({"image": uri}), "b64": "QUJD" * 2000}
    raw = json.dumps(read({**body, "prompt": "data: a cat"}).raw)
    assert len(raw) < 600
    assert raw.count("cut out") == 3
    assert "data:image/png" in raw
    assert "data: a cat" in raw


def test_a_secret_in_json_inside_a_text_is_struck_out() -> None:
    """A key that JSON inside a message spells with escapes is found all the same."""
    key = "sk/abcdef+12345"
    inner = json.dumps({"message": f"bad key {key}"}).replace("/", "\\/")
    found = ApiAnswer(
        200, {}, json.dumps({"status": "failed", "error": inner}).encode(), redact=lambda text: text.replace(key, "***")
    )
    assert NATIVE.read_generation("a", found).error_message == "bad key ***"
    wrapped = ApiAnswer(400, {}, json.dumps({"code": "c", "message": inner}).encode(), redact=found.redact)
    assert "bad key ***" in str(NATIVE.error(wrapped))


@each_row(
    ("code", "transient"),
    [
        ("QuotaExceeded", True), ("toomanyrequests", True), ("OperationInProcess", True), ("SystemThrottling", True),
        ("InternalServiceFailure", True), ("ImageDownloadFailure", True), ("VideoDownloadFailure", True),
        ("internal_error", True), ("upstream_error", True), ("video_queue_full", True), ("get_channel_failed", True),
        ("CreationPolicyViolation", False), ("CreditInsufficient", False), ("ImageSizeInvalid", False),
        ("Unknown", False), ("unheard", False), ("", False),
    ],
)  # fmt: skip
@BOTH
def test_what_means_later(dialect: Dialect, code: str, transient: bool) -> None:
    """The reader says whether a new submit may succeed, and only of a failure."""
    for word in ("state", "status"):
        body = {"id": "a", word: "failed", "err_code": code, "creations": []}
        assert dialect.read_generation("a", answer(body)).is_transient is transient
        assert not dialect.read_generation("a", answer({**body, word: "processing"})).is_transient


def test_the_balance_under_both_names() -> None:
    """The page's table says remaining_credits, and its example remains."""
    kinds = [{"type": "a", "credit_remain": 7, "concurrency_limit": 5}, {"type": "b", "credit_remain": 0}]
    for name in ("remains", "remaining_credits"):
        found = EntV2().read_credits(answer({name: kinds, "packages": [{"credit_remain": 99}]}))
        assert (found.remaining, found.concurrency_limit) == (7, 5)
        assert EntV2().probe_verdict(answer({name: kinds})) is None
    assert EntV2().read_credits(answer({"remaining_credits": 12})).remaining == 12
    assert EntV2().read_credits(answer({"remains": [{"credit_remain": 0}]})).remaining == 0
    with pytest.raises(exceptions.ViduAuthError):
        EntV2().read_credits(answer({"code": "invalid_api_key", "message": "m", "data": None}))


@each_row("name", ["prompt", "enhanced_prompt", "model", "status", "fail_reason", "error_code"])
def test_what_is_kept_of_a_text_is_bounded(name: str) -> None:
    """Whatever a gateway writes a megabyte into: the XCom stays small."""
    generation = read({"status": "failed", "error": {"code": "c"}, name: "a b " * 250_000})
    assert len(json.dumps(generation.as_xcom())) < 200_000


@pytest.mark.parametrize("name", ["prompt", "enhanced_prompt", "fail_reason", "message", "model"])
def test_no_picture_is_kept_anywhere(name: str) -> None:
    """Nor in any text that is read out of the answer."""
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 400
    generation = read({"status": "failed", name: picture, "data": {"x": [f"see {picture}"]}})
    assert "iVBORw0KGgo" not in json.dumps(generation.as_xcom())


def test_few_creations_are_kept() -> None:
    """A hundred, and fewer where their URLs are long."""
    for url, most in (("https://h/v.mp4", 100), ("https://h/" + "v" * 10_000, 26)):
        body = {"state": "success", "creations": [{"id": str(n), "url": f"{url}{n}"} for n in range(3000)]}
        generation = NATIVE.read_generation("a", ApiAnswer(200, {}, json.dumps(body).encode(), most_values=10**6))
        assert len(generation.artifacts) == most
        assert generation.video_url == f"{url}0"
        assert len(json.dumps(generation.raw)) <= MAX_RAW_CHARS


def test_the_ids_of_creations_are_bounded() -> None:
    """They become an XCom; no one asks for a creation by an id of a megabyte."""
    body = {"state": "success", "creations": [{"id": "i" * 1_000_000, "url": "https://h/v.mp4"}] * 3}
    assert len(json.dumps(read(body).as_xcom())) < MAX_RAW_CHARS


def test_the_balance_is_bounded() -> None:
    """What is kept of it goes the same ways."""
    body = {"remains": [{"credit_remain": 5}], "note": "a b " * 100_000}
    found = EntV2().read_credits(answer(body))
    assert found.remaining == 5
    assert len(json.dumps(found.raw)) <= MAX_RAW_CHARS


def test_a_request_of_ones_own_shows_no_picture() -> None:
    """Parsed as it came, but for inline media."""
    found = EntV2().read_json(answer({"images": ["data:image/png;base64,iVBORw0KGgo="], "id": "a"}))
    assert found == {"images": ["data:image/png;base64,… (12 characters cut out)"], "id": "a"}


@each_row("dialect", [ViduNative(), EntV2()], ids=["vidu-native", "ent-v2"])
@each_row(
    "body",
    [
        {"status": "completed", "payload": '{"video_url": "https://x.example/input.mp4"}'},
        {"state": "success", "meta_data": {"url": "https://x.example/input.mp4"}},
        {"status": "completed", "original_request": {"video_url": "https://x.example/input.mp4"}},
        {"status": "completed", "input_video": {"url": "https://x.example/input.mp4"}},
        {"code": "success", "data": {"status": "SUCCESS", "prompt": '{"video_url": "https://x.example/input.mp4"}'}},
    ],
    ids=range(5),
)
def test_an_echo_of_what_was_sent_is_no_result(dialect, body):
    """A success without an address stays one: what the user had sent in is not the clip that was paid for."""
    found = dialect.read_generation("1", ApiAnswer(200, {}, json.dumps(body).encode()))
    assert (found.succeeded, found.video_url) == (True, None)


@each_row("dialect", [ViduNative(), EntV2()], ids=["vidu-native", "ent-v2"])
@each_row(
    "body",
    [
        {"status": "completed", "video_url": " https://x.example/v.mp4?a=~;b\r\n"},
        {"status": "completed", "video_url": "\ufeffhttps://x.example/v.mp4?a=~;b\u200b"},
        {"state": "success", "creations": [{"url": "\thttps://x.example/v.mp4?a=~;b"}]},
        {"object": "video", "status": "completed", "metadata": {"url": "https://x.example/v.mp4?a=~;b "}},
    ],
    ids=range(4),
)
def test_blanks_around_an_address_are_dropped(dialect, body):
    """A gateway's line end around the address does not make a paid clip unreachable; the rest stays verbatim."""
    found = dialect.read_generation("1", ApiAnswer(200, {}, json.dumps(body).encode()))
    assert found.video_url == "https://x.example/v.mp4?a=~;b"


@BOTH
@pytest.mark.parametrize("form", ["text", "base64", "object"])
def test_the_envelope_of_a_function_is_opened(dialect: Dialect, form: str) -> None:
    """A gateway passes on what a function behind it has returned: for polls, creates and errors."""

    def wrapped(inner: Any, status: int = 200) -> ApiAnswer:
        text = json.dumps(inner)
        body = {"text": text, "base64": base64.b64encode(text.encode()).decode(), "object": inner}[form]
        return answer({"statusCode": status, "headers": {}, "body": body, "isBase64Encoded": form == "base64"})

    job = {"id": "94712", "task_id": "94712", "state": "success", "creations": [{"url": "https://x.example/a.mp4"}]}
    assert dialect.read_generation("94712", wrapped(job)).video_url == "https://x.example/a.mp4"
    assert dialect.read_created(wrapped({"task_id": "947123456789012345", "state": "created"})).id[:3] == "947"
    with pytest.raises(exceptions.ViduNotFoundError):
        dialect.read_generation("94712", wrapped({"code": 404, "reason": "TaskNotFound"}, 404))


def test_an_id_beside_the_body_is_not_lost() -> None:
    """Only the documented envelope is opened."""
    body = {"statusCode": 200, "body": "e30=", "isBase64Encoded": True, "task_id": "task_01"}
    assert NATIVE.read_created(answer(body)).id == "task_01"
