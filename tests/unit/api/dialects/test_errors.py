"""The table of error words: found in every shape, the same in both dialects, and never "unknown" for a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.dialects import Dialect, EntV2, ViduNative
from airflow_provider_vidu.api.dialects.errors import BEFORE_SENDING, ERRORS, OFFICIAL, is_success_code
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.polling.retries import outcome_is_unknown
from tests.documented_answers import REFUSALS, Refusal
from tests.rows import each_row

BOTH = pytest.mark.parametrize("dialect", [ViduNative(), EntV2()], ids=["vidu-native", "ent-v2"])


def answer(body: Any, status: int, headers: dict[str, str] | None = None) -> ApiAnswer:
    """Return an error answer."""
    return ApiAnswer(status, headers or {}, json.dumps(body).encode())


@each_row("row", REFUSALS, ids=str)
@BOTH
def test_documented_refusals(dialect: Dialect, row: Refusal) -> None:
    """Every documented refusal of a create: class, word, text, trace id, and whether the outcome is unknown."""
    with pytest.raises(ViduError) as caught:
        dialect.read_created(answer(row.body, row.status))
    error = caught.value
    assert type(error) is row.error
    assert error.code == row.code
    assert error.status_code == row.status
    assert error.trace_id == row.trace_id or row.trace_id is None
    assert [part for part in row.says if part not in str(error)] == []
    assert outcome_is_unknown(error) is row.unknown


@each_row("row", REFUSALS, ids=str)
@BOTH
def test_the_same_answers_to_a_query(dialect: Dialect, row: Refusal) -> None:
    """That a gateway has no channel says nothing of a generation that is being waited for."""
    with pytest.raises(ViduError) as caught:
        dialect.read_generation("a", answer(row.body, row.status))
    assert type(caught.value) is (row.query_error or row.error)


@each_row("status", [407, 521, 523, 525, 526])
@BOTH
def test_what_a_proxy_before_the_service_could_not_send(dialect: Dialect, status: int) -> None:
    """Nothing has reached the service, so nothing may have been billed; and the proxy is not taken for the service."""
    refused = ApiAnswer(status, {}, b"<html>Proxy</html>")
    with pytest.raises(ViduError) as caught:
        dialect.read_created(refused)
    assert not outcome_is_unknown(caught.value)
    assert ("proxy requires a user" in str(caught.value)) is (status == 407)
    with pytest.raises(ViduError) as caught:
        dialect.read_generation("a", refused)
    assert caught.value.retryable


SHAPES: dict[str, Any] = {
    "official": lambda word: {"code": 400, "reason": word, "message": "m", "metadata": {"trace_id": "t1"}},
    "openai": lambda word: {"error": {"code": word, "message": "m", "type": "t"}, "request_id": "t1"},
    "openai, type": lambda word: {"error": {"code": "", "message": "m (request id: t1)", "type": word}},
    "task": lambda word: {"code": word, "message": "m (request id: t1)", "data": None},
    "err_code": lambda word: {"err_code": word, "err_msg": "m", "trace_id": "t1"},
    "wrapped": lambda word: {"code": "fail_to_fetch_task", "message": json.dumps(SHAPES["official"](word))},
    "wrapped in words": lambda word: {"message": f"status_code=400, {json.dumps(SHAPES['official'](word))}"},
    "wrapped twice": lambda word: {"error": {"code": "x", "message": json.dumps(SHAPES["wrapped"](word))}},
    "in data": lambda word: {"code": "fail", "message": "m", "data": {"error": {"code": word, "request_id": "t1"}}},
    "in a list": lambda word: {"errors": "m", "error": [{"code": word, "message": "m", "request_id": "t1"}]},
}


@each_row("word", ["FieldInvalid", "CreditInsufficient", "video_queue_full", "insufficient_user_quota"])
@each_row("shape", SHAPES)
@BOTH
def test_every_shape(dialect: Dialect, shape: str, word: str) -> None:
    """A word means the same wherever it is, and so is the trace id found."""
    error = dialect.error(answer(SHAPES[shape](word), 400))
    assert type(error) is ERRORS[word.lower()]
    assert (error.code, error.trace_id) == (word, "t1")
    assert str(error).startswith("The service said: m")


# What the sources of new-api and its relatives name; written out, so that a word that is lost from our table shows.
NOTHING_SENT: dict[type[ViduError], str] = {
    exceptions.ViduRequestError: """
        model_not_found build_request_failed convert_request_failed count_token_failed gen_relay_info_failed
        read_request_body_failed get_task_request_failed invalid_api_platform invalid_api_type model_mapping_failed
        model_price_error not_implemented channel_not_found task_channel_disable channel:param_override_invalid
        channel:header_override_invalid channel:model_mapped_error""",
    exceptions.ViduUnavailableError: """
        get_channel_failed channel:no_available_key channel:invalid_key channel_no_available_key
        token_concurrency_unavailable system_cpu_overloaded system_memory_overloaded system_disk_overloaded""",
    exceptions.ViduRateLimitError: "video_queue_full token_concurrency_limit_reached",
    exceptions.ViduCreditError: """
        insufficient_user_quota insufficient_quota pre_consume_token_quota_failed entitlement_required
        entitlement_inactive entitlement_daily_limit_exceeded entitlement_total_limit_exceeded""",
    exceptions.ViduPolicyError: "sensitive_words_detected",
    exceptions.ViduAuthError: "invalid_api_key access_denied",
}


@each_row(("word", "kind"), [(word, kind) for kind, words in NOTHING_SENT.items() for word in words.split()])
@each_row("status", [200, 400, 429, 500, 503])
def test_what_comes_before_anything_was_sent_is_never_unknown(word: str, kind: type[ViduError], status: int) -> None:
    """A gateway that has sent nothing has billed nothing, whatever the status is."""
    error = ViduNative().error(answer({"code": word, "message": "m", "data": None}, status))
    assert not outcome_is_unknown(error)
    assert type(error) is kind


def test_no_other_word_says_that_nothing_was_sent() -> None:
    """A word that is added to the table is added here, with its source."""
    assert set(BEFORE_SENDING) == {word for words in NOTHING_SENT.values() for word in words.split()}


@each_row(
    ("word", "kind"),
    [
        ("VideoDownloadFailure", exceptions.ViduImageDownloadError), ("Unknown", exceptions.ViduServerError),
        ("FaceDetectFailure", exceptions.ViduImageError), ("FaceDetectNotPass", exceptions.ViduImageError),
        ("NoFaceDetected", exceptions.ViduImageError), ("MultiFaceDetected", exceptions.ViduImageError),
        ("VideoFormatInvalid", exceptions.ViduImageError), ("ImageSizeInvalid", exceptions.ViduImageError),
        ("PhotoAuditNotPass", exceptions.ViduPolicyError), ("AuditFailed", exceptions.ViduPolicyError),
    ],
)  # fmt: skip
def test_newer_reasons(word: str, kind: type[ViduError]) -> None:
    """The reasons that the pages of 2026 add are in the tree."""
    assert OFFICIAL[word.lower()] is kind


@each_row(
    ("body", "status"),
    [
        ({"code": 401, "message": "no such key", "data": None}, 401),
        ({"code": "404", "message": "m"}, 404),
        ({"code": 500, "msg": "m", "data": {}}, 500),
    ],
)
@BOTH
def test_a_status_inside_a_success(dialect: Dialect, body: Any, status: int) -> None:
    """An envelope that repeats the HTTP status in its code is read by that."""
    with pytest.raises(ViduError) as caught:
        dialect.read_generation("a", answer(body, 200))
    assert type(caught.value) is type(dialect.error(answer(body, status)))


def test_codes_that_say_success() -> None:
    """Numbers do so in many ways: 0, 1 and what HTTP calls success; of words there are four; no code is one, too."""
    for code in (None, "", 0, 1, "1", 200, "201", 299, "success", "OK", " Succeeded "):
        assert is_success_code(code), code
    for code in (2, 3, 100, 199, 300, 400, "404", -1, "error", "1e0", "9999999999"):
        assert not is_success_code(code), code


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_two_platforms(status: int) -> None:
    """A key of one of the two official platforms is refused by the other; gateways have nothing to do with it."""
    body = {"code": status, "reason": "Unauthorized", "message": "m"}
    told = str(EntV2().error(answer(body, status)))
    assert "api.vidu.com" in told
    assert "api.vidu.cn" in told
    assert "password and auth_scheme" in told
    assert "api.vidu" not in str(ViduNative().error(answer(body, status)))


def test_a_trace_id_in_the_headers() -> None:
    """new-api names the request in a header; what the body says is preferred."""
    headers = {"x-oneapi-request-id": "h1"}
    assert ViduNative().error(answer({"message": "m"}, 500, headers)).trace_id == "h1"
    assert ViduNative().error(answer({"message": "m", "trace_id": "b1"}, 500, headers)).trace_id == "b1"


@pytest.mark.parametrize(
    "body", [{"code": "invalid_api_key", "message": "m", "data": None}, {"error": {"code": "invalid_api_key"}}]
)
@BOTH
def test_a_probe_answered_with_an_error_inside_a_success(dialect: Dialect, body: Any) -> None:
    """A refused key is reported although the status says success."""
    assert type(dialect.probe_verdict(answer(body, 200))) is exceptions.ViduAuthError


@each_row("body", [{"tasks": []}, {"code": 0, "message": "ok"}, {}, [], [{"code": "x"}], {"data": [1]}])
def test_read_json_leaves_answers_alone(body: Any) -> None:
    """What is not an error comes back as it came."""
    assert EntV2().read_json(answer(body, 200)) == body


@each_row(
    ("word", "kind"),
    [
        ("prompt_blocked", exceptions.ViduPolicyError), ("queue_full", exceptions.ViduRateLimitError),
        ("concurrency_limit_reached", exceptions.ViduRateLimitError),
        ("rate_limit_exceeded", exceptions.ViduRateLimitError), ("rate_limit", exceptions.ViduRateLimitError),
        ("too_many_requests", exceptions.ViduRateLimitError),
    ],
)  # fmt: skip
@BOTH
def test_a_word_that_proves_nothing_needs_a_status_that_refuses(
    dialect: Dialect, word: str, kind: type[ViduError]
) -> None:
    """Of a create that is answered with success or 5xx, such a word leaves the outcome unknown."""
    for body in ({"code": word, "message": "m", "data": None}, {"error": {"code": word, "message": "m"}}):
        for status in (400, 403, 429):
            error = dialect.error(answer(body, status))
            assert type(error) is kind
            assert not outcome_is_unknown(error)
        for status in (200, 500, 503):
            error = dialect.error(answer(body, status))
            assert outcome_is_unknown(error)
            assert error.code == word
            asked = dialect.error(answer(body, status), of_create=False)
            assert type(asked) is kind


@pytest.mark.parametrize("word", ["json_marshal_failed", "bad_request_body"])
def test_words_that_new_api_says_before_and_after(word: str) -> None:
    """It marshals the service's answer, too, so its own 500 leaves the outcome unknown."""
    assert outcome_is_unknown(ViduNative().error(answer({"error": {"code": word, "message": "m"}}, 500)))


def test_an_id_beside_a_word_that_proves_nothing_is_kept() -> None:
    """It may have been billed."""
    body = {"code": "rate_limit", "message": "m", "data": {"task_id": "a"}}
    assert ViduNative().read_created(answer(body, 200)).id == "a"
