"""Answers that the service and its gateways are documented or recorded to give, and what each must mean.

The bodies are the files of ``tests/fixtures/answers``, one an answer. The table is read twice: by the unit tests, which
read every answer under both dialects, and by the integration tests, which serve every answer to both clients.

Sources, by mark: V the vendor's pages (platform.vidu.com, its Chinese documentation of 2025-12 and 2026-08); G the
source of new-api (``relay/relay_task.go``, ``relay/channel/task/vidu/adaptor.go``, ``dto/task.go``, ``types/error.go``,
``middleware/distributor.go``); R recorded by integrators.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_vidu import exceptions as E  # noqa: N812
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import GenerationStatus as S

FOLDER = Path(__file__).parent / "fixtures" / "answers"
DIALECTS = ("vidu-native", "ent-v2")


@dataclass(frozen=True)
class Row:
    """An answer and its meaning.

    :param name: the file's, without ``.json``.
    :param means: attributes of the generation.
    :param synchronous: whether the endpoint answers with the result itself.
    :param artifacts: attributes of each artifact, in order; None where nothing is said of them.
    """

    name: str
    means: dict[str, Any]
    synchronous: bool = False
    artifacts: list[dict[str, Any]] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def body(self) -> dict[str, Any]:
        """The answer."""
        return body(self.name)


@dataclass(frozen=True)
class Refusal:
    """An error answer to a create.

    :param status: the HTTP status that it comes with.
    :param error: the class of the error.
    :param code: the word that decides.
    :param says: what the message must hold.
    :param unknown: whether the create may have been carried out all the same.
    :param query_error: the class of the same answer to a query, where it differs.
    """

    name: str
    status: int
    error: type[ViduError]
    code: str | None
    says: tuple[str, ...] = ()
    unknown: bool = False
    trace_id: str | None = None
    query_error: type[ViduError] | None = None

    def __str__(self) -> str:
        return f"{self.status} {self.name}"

    @property
    def body(self) -> dict[str, Any]:
        """The answer."""
        return body(self.name)


def body(name: str) -> dict[str, Any]:
    """Return the answer in a file."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_bytes())
    return found


def at(*parts: int) -> datetime:
    """Return an aware UTC time."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


WEB = "https://files.example.com"

CREATES = [
    # R: vidu_api_full.md §7.
    Row("create_epoch", {
        "id": "947000000000000001", "status": S.WAITING, "credits": 100, "created_at": at(2026, 4, 30, 12, 13, 43),
        "model": "viduq3-pro", "video_url": None}),
    # V: audio-tts and audio-clone: the create's answer is the end.
    Row("tts", {"id": "920000000000000001", "status": S.SUCCEEDED, "video_url": f"{WEB}/speech.mp3?sign=a~b;c",
                "credits": 10}, synchronous=True, artifacts=[{"url": f"{WEB}/speech.mp3?sign=a~b;c"}]),
    Row("clone", {"id": "920000000000000002", "status": S.SUCCEEDED, "video_url": f"{WEB}/demo.mp3"}, synchronous=True),
    Row("clone_failed", {"id": "920000000000000003", "status": S.FAILED, "error_code": "AuditSubmitIllegal",
                         "is_transient": False, "video_url": None}, synchronous=True),
    # V: subjects and prompt recommendations have no state.
    Row("subject", {"id": "3028400000000000", "status": S.SUCCEEDED, "provider_status": "", "video_url": None},
        synchronous=True),
    Row("prompts", {"id": "920000000000000004", "status": S.SUCCEEDED}, synchronous=True),
    # V: the ad's edit and compose steps; "success" speaks of the create.
    Row("ad_edit", {"id": "2", "status": S.WAITING, "provider_status": "success", "credits": 400}),
    Row("ad_compose", {"id": "3", "status": S.WAITING, "credits": 400}),
    # V: one-click/mv and general_one_click.
    Row("mv_create", {"id": "901243326567555072", "status": S.UNKNOWN}),
    # V: an extend repeats the video that it was given, which is not the result.
    Row("extend_create", {"id": "920000000000000005", "status": S.WAITING, "video_url": None, "artifacts": ()}),
    # V: creates repeat inline images.
    Row("create_inline", {"id": "920000000000000006", "status": S.WAITING, "prompt": "a cat"}),
    # G: new-api today, and before it had public ids.
    Row("openai_create", {"id": "task_gyEhAQEsRwbbc7HJ", "status": S.WAITING, "progress": 0, "model": "viduq2",
                          "created_at": at(2026, 4, 30, 12, 33, 43)}),
    Row("newapi_create_old", {"id": "920000000000000007", "status": S.UNKNOWN}),
    Row("newapi_create_data", {"id": "task_abc", "status": S.UNKNOWN}),
    Row("newapi_create_wrapped", {"id": "task_abc", "status": S.WAITING}),
    # R: resellers that wrap once more.
    Row("output_create", {"id": "task-7f3", "status": S.WAITING}),
]  # fmt: skip

QUERIES = [
    # V: queries of videos, pictures and sound.
    Row("official_queueing", {"status": S.WAITING, "provider_status": "queueing", "credits": 80}),
    Row("official_tracks", {"status": S.SUCCEEDED, "video_url": f"{WEB}/v.mp4", "cover_url": f"{WEB}/c.jpg"},
        artifacts=[{"url": f"{WEB}/v.mp4", "speech_url": f"{WEB}/speech.wav", "sound_url": f"{WEB}/sound.wav"}]),
    Row("official_sound_only", {"status": S.SUCCEEDED, "video_url": f"{WEB}/sound.wav"}),
    Row("official_no_url", {"status": S.SUCCEEDED, "video_url": None}),
    Row("official_later", {"status": S.FAILED, "error_code": "SystemThrottling", "is_transient": True}),
    Row("official_video_fetch", {"status": S.FAILED, "error_code": "VideoDownloadFailure", "is_transient": True}),
    # V: callbacks say status, and the singular route of a reseller says status and video_url.
    Row("official_status", {"status": S.SUCCEEDED, "provider_status": "success", "video_url": f"{WEB}/v.mp4"}),
    Row("flat_state", {"status": S.SUCCEEDED, "video_url": f"{WEB}/v.mp4", "progress": 100}),
    Row("singular", {"status": S.SUCCEEDED, "video_url": f"{WEB}/v.mp4"}),
    # V: one-click.
    Row("mv_success", {"status": S.SUCCEEDED, "video_url": f"{WEB}/film.mp4",
                       "created_at": at(2025, 12, 24, 2, 51, 34, 70650)},
        artifacts=[{"id": "901243326567555072", "url": f"{WEB}/film.mp4"},
                   {"id": "901245503243554816", "url": f"{WEB}/compose.mp4"},
                   {"id": "901245331704909999", "url": f"{WEB}/scene0-edited.mp4"},
                   {"id": "901245331704909824", "url": f"{WEB}/scene0.mp4"},
                   {"id": "901245331704909825", "url": f"{WEB}/scene1.mp4"}]),
    Row("mv_parts_only", {"status": S.SUCCEEDED, "video_url": f"{WEB}/scene0.mp4"}),
    Row("mv_failed", {"status": S.FAILED, "error_code": "AuditFailed", "error_message": "the lyrics were refused",
                      "is_transient": False}),
    Row("ad_records", {"status": S.SUCCEEDED, "video_url": f"{WEB}/ad-v2.mp4"},
        artifacts=[{"url": f"{WEB}/ad-v2.mp4"}, {"url": f"{WEB}/ad-v1.mp4"}, {"url": f"{WEB}/scene.mp4"},
                   {"url": f"{WEB}/voice.mp3"}, {"url": f"{WEB}/music.mp3"}]),
    # G: OpenAI videos.
    Row("openai_success", {"status": S.SUCCEEDED, "progress": 100,
                           "video_url": "https://gateway.example.com/v1/videos/task_a/content",
                           "completed_at": at(2026, 4, 30, 12, 36, 40)}),
    Row("openai_video_url", {"status": S.SUCCEEDED, "video_url": f"{WEB}/v.mp4"}),
    Row("openai_failed", {"status": S.FAILED, "error_code": "InternalServiceFailure",
                          "error_message": "InternalServiceFailure", "is_transient": True}),
    Row("openai_running", {"status": S.RUNNING, "provider_status": "in_progress", "progress": 50, "video_url": None}),
    # G: new-api's own form, now and before it had result_url.
    Row("newapi_success", {"status": S.SUCCEEDED, "provider_status": "SUCCESS", "progress": 100, "credits": 80,
                           "video_url": f"{WEB}/v.mp4?sign=a~b;c", "cover_url": f"{WEB}/c.jpg", "model": "viduq2",
                           "prompt": "a cat", "completed_at": at(2026, 4, 30, 12, 36, 40)},
        artifacts=[{"id": "1", "url": f"{WEB}/v.mp4?sign=a~b;c", "cover_url": f"{WEB}/c.jpg"}]),
    Row("newapi_success_old", {"status": S.SUCCEEDED, "credits": 80, "progress": 100,
                               "video_url": f"{WEB}/old.mp4", "cover_url": f"{WEB}/c.jpg", "error_message": None}),
    Row("newapi_success_text", {"status": S.SUCCEEDED, "credits": 80, "video_url": f"{WEB}/v.mp4"}),
    Row("newapi_running", {"status": S.RUNNING, "provider_status": "IN_PROGRESS", "progress": 30, "video_url": None}),
    Row("newapi_failed", {"status": S.FAILED, "error_code": "CreationPolicyViolation",
                          "error_message": "CreationPolicyViolation", "is_transient": False}),
    Row("newapi_failed_reason_only", {"status": S.FAILED, "error_code": "QuotaExceeded", "is_transient": True}),
    # R: reasons of failures.
    Row("reason_list", {"status": S.FAILED, "error_message": "the face is too small; the image is blurred"}),
    Row("reason_nested", {"status": S.FAILED, "error_message": "no credits left"}),
    Row("reason_json", {"status": S.FAILED, "error_code": "CreditInsufficient", "error_message": "no credits left",
                        "is_transient": False}),
    # R: where else the result of a success was seen.
    Row("output_success", {"status": S.SUCCEEDED, "provider_status": "Success", "video_url": f"{WEB}/v.mp4"}),
    Row("content_success", {"status": S.SUCCEEDED, "video_url": f"{WEB}/v.mp4"}),
]  # fmt: skip

REFUSALS = [
    Refusal("model_not_found", 503, E.ViduRequestError, "model_not_found",
            ("viduq9-turbo", "name is wrong", "switched off", "Nothing was created or charged"),
            trace_id="202605200714345261721308268d9d6SjTLSqD4", query_error=E.ViduServerError),
    Refusal("no_channel_old", 503, E.ViduRequestError, "model_not_found", ("无可用渠道",),
            query_error=E.ViduServerError),
    Refusal("convert_request_failed", 500, E.ViduRequestError, "convert_request_failed", ("duration",),
            query_error=E.ViduServerError),
    Refusal("build_request_failed", 500, E.ViduRequestError, "build_request_failed", ("images",),
            query_error=E.ViduServerError),
    Refusal("get_channel_failed", 500, E.ViduUnavailableError, "get_channel_failed", ("Nothing was created",),
            query_error=E.ViduServerError),
    Refusal("video_queue_full", 200, E.ViduRateLimitError, "video_queue_full", ("the queue is full",)),
    Refusal("video_queue_full", 503, E.ViduRateLimitError, "video_queue_full"),
    Refusal("token_concurrency", 429, E.ViduRateLimitError, "token_concurrency_limit_reached"),
    Refusal("official_quota", 429, E.ViduRateLimitError, "QuotaExceeded", ("concurrency limit exceeded",),
            trace_id="04e5c2fe159ff7c574acd0424e78c35f"),
    Refusal("official_quota", 200, E.ViduRateLimitError, "QuotaExceeded"),
    Refusal("official_credits", 400, E.ViduCreditError, "CreditInsufficient"),
    Refusal("wrapped_credits", 400, E.ViduCreditError, "CreditInsufficient", ("insufficient credits",),
            trace_id="af80f3aa9ff1d74e9a0d6aa2af923ffe"),
    Refusal("wrapped_twice", 400, E.ViduRequestError, "FieldInvalid", ("duration must be 4 or 8",), trace_id="04e5"),
    Refusal("wrapped_throttling", 500, E.ViduRateLimitError, "SystemThrottling"),
    Refusal("wrapped_internal", 500, E.ViduServerError, "InternalServiceFailure", unknown=True),
    Refusal("do_request_failed", 500, E.ViduServerError, "do_request_failed", unknown=True),
    Refusal("field_unwanted", 400, E.ViduRequestError, "FieldUnwanted", ("payload",)),
    Refusal("sensitive_words", 400, E.ViduPolicyError, "sensitive_words_detected"),
    Refusal("bad_key", 401, E.ViduAuthError, "invalid_api_key", trace_id="req-1"),
    Refusal("sync_refused", 200, E.ViduRequestError, "FieldLacking", ("voice_setting_voice_id",)),
    Refusal("unheard_of", 200, E.ViduResponseError, "weird_thing", ("something happened",), unknown=True),
]  # fmt: skip
