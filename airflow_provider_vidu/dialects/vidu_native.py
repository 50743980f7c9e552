"""``vidu-native``: the dialect of the gateways (new-api/one-api derivatives).

Facts come from the gateways' API page and from recorded answers; where the two disagree, the union
is accepted. Words are compared case-insensitively.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.dialects.base import GATEWAY_ERRORS, Dialect, ErrorClass, ErrorText, status_words
from airflow_provider_vidu.exceptions import ViduNotFoundError, ViduRequestError
from airflow_provider_vidu.models import Artifact, Generation, GenerationStatus
from airflow_provider_vidu.values import first_text, mapping, moment, percent, text, web_url, whole
from airflow_provider_vidu.wire import ApiAnswer, ApiRequest

PROBE_ID: Final = "airflow-connection-test"

# [guess] What gateways of this family call a trouble of their own or of the model behind them.
PASSING_FAILURES: Final = frozenset(
    {"internal_error", "internal_server_error", "server_error", "service_unavailable", "upstream_error", "timeout"}
)


class ViduNative(Dialect):
    """``GET /vidu-native/video/generations/{task_id}`` with ``Authorization: Bearer KEY``."""

    name: ClassVar[str] = "vidu-native"
    auth_scheme: ClassVar[str] = "Bearer"
    root: ClassVar[str] = "/vidu-native"
    default_query_path: ClassVar[str] = "/vidu-native/video/generations/{id}"
    default_create_path: ClassVar[str] = "/vidu-native/video/generations"

    # video_generation_completed and video_upsampling_completed are steps, not the end.
    statuses: ClassVar[Mapping[str, GenerationStatus]] = status_words(
        succeeded="completed success succeeded",
        failed="failed failure error video_generation_failed video_upsampling_failed cancelled canceled expired",
        waiting="pending queued not_start submitted created queueing",
        running="processing in_progress running image_downloading video_generating "
        "video_generation_completed video_upsampling video_upsampling_completed",
    )
    errors: ClassVar[Mapping[str, ErrorClass]] = {}

    def create(self, body: Mapping[str, Any], endpoint: str | None = None) -> ApiRequest:
        """Return the create request; the gateways have one endpoint, so another one must be a path.

        :raises ViduConfigError: when ``endpoint`` is no path.
        """
        if endpoint is not None and not endpoint.startswith("/"):
            raise exceptions.ViduConfigError(
                "The vidu-native dialect has a single create endpoint; give a path such as "
                f"/vidu-native/video/generations or leave endpoint out (got {endpoint!r})."
            )
        return ApiRequest("POST", endpoint or self.create_path, body, bills=True)

    def probe(self) -> ApiRequest:
        """Ask for an id that no gateway has: only a gateway that accepts the key says "not there"."""
        return self.query(PROBE_ID)

    def _is_expected(self, answer: ApiAnswer, payload: Mapping[str, Any]) -> bool:
        """Expect "no such task" (400 or 404): it means that host and key are right."""
        if answer.ok:
            return bool({"id", "status", "data"} & payload.keys())
        error = self.error(answer)
        if isinstance(error, ViduNotFoundError) and (error.code or "").lower() in GATEWAY_ERRORS:
            return True
        # Task endpoints answer {"code": "<string>", "message": …}; a wrong path is answered otherwise.
        told = isinstance(payload.get("code"), str) and isinstance(payload.get("message"), str)
        return told and isinstance(error, (ViduNotFoundError, ViduRequestError))

    def may_pass(self, generation: Generation) -> bool:
        """Judge by the code alone; the gateways' texts are free prose in many languages."""
        return (generation.error_code or "").lower() in PASSING_FAILURES

    def _speaks_of_a_generation(self, payload: Mapping[str, Any]) -> bool:
        return not {"status", "id", "video_url"}.isdisjoint(_unwrapped(payload))

    def _generation(self, generation_id: str, payload: dict[str, Any]) -> Generation:
        fields = _unwrapped(payload)
        word = text(fields.get("status"))
        status = self._status(word)
        video_url = web_url(fields.get("video_url")) or web_url(fields.get("result_url"))
        cover_url = web_url(fields.get("thumbnail_url")) or web_url(fields.get("cover_url"))
        failed = status is GenerationStatus.FAILED
        return Generation(
            id=generation_id,
            status=status,
            provider_status=word or "",
            video_url=video_url,
            cover_url=cover_url,
            enhanced_prompt=_unfenced(text(fields.get("enhanced_prompt"))),
            progress=percent(fields.get("progress")),
            model=text(fields.get("model")),
            credits=whole(fields.get("credits")),
            # Completed answers still carry texts of earlier internal retries: judge by the word alone.
            error_code=_failure_code(fields) if failed else None,
            error_message=_failure_reason(fields, payload) if failed else None,
            created_at=moment(fields.get("created_at")),
            updated_at=moment(fields.get("status_update_time")),
            completed_at=moment(fields.get("completed_at")),
            artifacts=(Artifact(url=video_url, cover_url=cover_url),) if video_url or cover_url else (),
            raw=payload,
        )

    def _created_id(self, payload: Mapping[str, Any]) -> str | None:
        data = mapping(payload.get("data"))
        return first_text(payload.get("id"), payload.get("task_id"), data.get("id"), data.get("task_id"))

    def _error_text(self, payload: Mapping[str, Any]) -> ErrorText:
        error, detail = mapping(payload.get("error")), mapping(payload.get("detail"))
        return ErrorText(
            code=first_text(error.get("code"), payload.get("code"), error.get("type")),
            others=tuple(filter(None, (text(payload.get("code")), text(error.get("type"))))),
            message=first_text(
                error.get("message"),
                payload.get("message"),
                payload.get("error"),
                payload.get("detail"),
                detail.get("error"),
                detail.get("error_message"),
            ),
            trace_id=first_text(payload.get("trace_id"), payload.get("request_id"), error.get("request_id")),
        )


def _unwrapped(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is inside ``{"code": "success", "data": {status, result_url, …}}``, which some hosts answer."""
    data = payload.get("data")
    return data if isinstance(data, dict) and "status" not in payload else payload


def _unfenced(prompt: str | None) -> str | None:
    """Veo fences its enhanced prompts by three backticks."""
    return prompt.strip().removeprefix("```").removesuffix("```").strip() if prompt else None


def _failure_code(fields: Mapping[str, Any]) -> str | None:
    return first_text(mapping(fields.get("error")).get("code"), fields.get("error_code"))


def _failure_reason(fields: Mapping[str, Any], payload: Mapping[str, Any]) -> str | None:
    """Return the reason of a failure from the places where one has been seen."""
    error, detail = mapping(fields.get("error")), mapping(fields.get("detail"))
    return first_text(
        fields.get("fail_reason"),
        error.get("message"),
        fields.get("error"),
        fields.get("error_message"),
        detail.get("error_message"),
        detail.get("error"),
        fields.get("detail"),
        fields.get("message"),
        payload.get("message"),
    )
