"""Reads a generation from an answer by its shape, in any dialect; pure.

The families, and where they are documented or were recorded:

* official: ``state``, ``creations`` (platform.vidu.com); one-click products add ``signed_url``, ``job_records`` and
  ``data_records``; synchronous ones answer with ``file_url`` or ``demo_audio``;
* flat gateway: ``status``, ``video_url`` (vidu-native and its siblings);
* wrapped: ``{"code": "success", "data": {status, result_url, progress, fail_reason, data: {official answer}}}``
  (``dto/task.go`` of new-api); before ``result_url`` existed, the URL of a success was in ``fail_reason``;
* OpenAI videos: ``object: "video"``, ``metadata.url`` or ``video_url``, ``error: {message, code}``.

No switch distinguishes them: each field is read from the level that describes the job, then from the level inside it.
If the sources disagree, both forms are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_vidu.api.dialects.artifacts import artifacts_of, metadata_url
from airflow_provider_vidu.api.dialects.errors import error_text, is_known, is_success_code, is_transient
from airflow_provider_vidu.api.dialects.levels import (
    MAX_WORD_CHARS,
    NOTHING,
    RESULT_FIELDS,
    Level,
    first,
    job_and_inner,
    short,
    state_word,
    status_of,
)
from airflow_provider_vidu.api.dialects.raw import bounded
from airflow_provider_vidu.common.values import (
    embedded,
    first_text,
    mapping,
    moment,
    objects,
    percent,
    price,
    reason,
    without_media,
)
from airflow_provider_vidu.models import Generation, GenerationStatus, Snapshot

_JOB_FIELDS: Final = RESULT_FIELDS | {"status"}
MAX_TEXT_CHARS: Final = 20_000
"""The longest documented prompt has 5,000 characters."""

# Thousands of polls a second are read: one pass over the present fields, not a look-up of all possible ones.
_READ: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "progress": ("progress", percent),
    "model": ("model", lambda value: short(value, MAX_WORD_CHARS)),
    "credits": ("credits", price),
    "prompt": ("prompt", lambda value: short(value, MAX_TEXT_CHARS)),
    "enhanced_prompt": ("enhanced_prompt", lambda value: _unfenced(short(value, MAX_TEXT_CHARS))),
    "created_at": ("created_at", moment),
    "status_update_time": ("updated_at", moment),
    "completed_at": ("completed_at", moment),
}
_READ_ELSE: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "submit_time": ("created_at", moment),
    "updated_at": ("updated_at", moment),
    "finish_time": ("completed_at", moment),
    "properties": ("prompt", lambda value: short(mapping(value).get("input"), MAX_TEXT_CHARS)),
}
"""Fields that count if those above are absent; ``properties`` is new-api's."""


def read(
    generation_id: str,
    payload: dict[str, Any],
    redact: Callable[[str], str] = str,
    *,
    may_hold_media: bool = True,
    may_be_long: bool = True,
    most_values: int | None = None,
) -> Generation:
    """Return the generation that an answer describes.

    :param generation_id: the requested id, or the one in the create's answer.
    :param payload: the whole answer; it is not changed.
    :param redact: removes secrets from text that is decoded from JSON inside a string.
    :param may_hold_media: false if the body certainly holds no inline media, which saves a walk through it.
    :param may_be_long: false if the body is short enough to be kept unchanged.
    :param most_values: how many values of the answer are kept; if omitted, only its length is limited.
    """
    if may_hold_media:
        payload = without_media(payload)
    job, inner = job_and_inner(payload, redact)
    word, status = _state(job, inner)
    fields: dict[str, Any] = {}
    for level in (job, inner) if inner else (job,):
        for table in (_READ, _READ_ELSE):
            for name in table.keys() & level.keys():
                field, convert = table[name]
                if field not in fields and (value := convert(level[name])) is not None:
                    fields[field] = value
    if "prompt" not in fields and job is not payload and (prompt := short(payload.get("prompt"), MAX_TEXT_CHARS)):
        fields["prompt"] = prompt  # beside the envelope
    if "model" not in fields and "properties" in job:
        fields["model"] = short(mapping(job["properties"]).get("origin_model_name"), MAX_WORD_CHARS)
    artifacts = artifacts_of(job, inner, succeeded=status is GenerationStatus.SUCCEEDED)
    if artifacts:
        result = next((artifact for artifact in artifacts if artifact.url), artifacts[0])
        fields["artifacts"], fields["video_url"] = artifacts, result.url
        fields["cover_url"] = result.cover_url if result.url or len(artifacts) == 1 else None
    if status is GenerationStatus.FAILED:
        # Completed answers still contain texts of earlier internal retries: only the status word decides.
        code, message = _failure(payload, job, inner, redact)
        fields |= {
            "error_code": short(code, MAX_WORD_CHARS),
            "error_message": short(message, MAX_TEXT_CHARS),
            "is_transient": is_transient(code),
        }
    return Generation(
        id=generation_id,
        status=status,
        provider_status=(word or "")[:MAX_WORD_CHARS],
        raw=bounded(payload, most_values) if may_be_long else payload,
        **fields,
    )


def unfinished(payload: dict[str, Any], redact: Callable[[str], str] = str) -> Snapshot | None:
    """Return the state that :func:`read` returns, of a job that has not ended; None for any other answer.

    That is all that a wait needs of nearly every poll, for a third of the work.

    :param payload: an answer without inline media.
    """
    job, inner = job_and_inner(payload, redact)
    word, status = _state(job, inner)
    if word is None or status.is_terminal:
        return None
    return Snapshot(status, word[:MAX_WORD_CHARS], first(job, inner, percent, "progress"))


def _state(job: Level, inner: Level) -> tuple[str | None, GenerationStatus]:
    """Return the state as written, and what it means; a known word wins."""
    word = state_word(job)
    status = status_of(word)
    if status is GenerationStatus.UNKNOWN and inner and (inner_word := state_word(inner)):
        inner_status = status_of(inner_word)
        if word is None or inner_status is not GenerationStatus.UNKNOWN:
            return inner_word, inner_status
    return word, status


def describes_generation(payload: Level) -> bool:
    """Whether an answer to a query describes a generation (a create's may contain just an id)."""
    job, inner = job_and_inner(payload)
    is_described = any(state_word(level) is not None or not _JOB_FIELDS.isdisjoint(level) for level in (job, inner))
    return is_described or metadata_url(job) is not None


def accepted(generation: Generation, *, synchronous: bool) -> Generation:
    """Return a create's generation with the status that its answer means.

    A synchronous answer without a state is the result. For any other create, a success without a result means that the
    *create* succeeded (as for the steps of one-click products): the job itself is still waiting.
    """
    status = generation.status
    if synchronous:
        if status is GenerationStatus.UNKNOWN and not generation.provider_status:
            status = GenerationStatus.SUCCEEDED
    elif generation.succeeded and generation.video_url is None:
        status = GenerationStatus.WAITING
    return generation if status is generation.status else generation.model_copy(update={"status": status})


def _unfenced(prompt: str | None) -> str | None:
    """Return an enhanced prompt without the three backticks that Veo puts around it."""
    return prompt.strip().removeprefix("```").removesuffix("```").strip() if prompt else None


# -- failures -------------------------------------------------------------------------------------

_MESSAGE_FIELDS: Final = ("fail_reason", "error", "error_message", "err_msg", "detail", "message")


def _failure(payload: Level, job: Level, inner: Level, redact: Callable[[str], str]) -> tuple[str | None, str | None]:
    """Return code and reason of a failed generation from any of their recorded places."""
    levels = (job, inner) if inner else (job,)
    code = next(filter(None, map(_failure_code, levels)), None)
    message = None
    for level in (*levels, payload):
        for name in _MESSAGE_FIELDS:
            value = level.get(name)
            # Inside an object, the explanation may have any name.
            if value and (message := reason(value, redact, 1 if isinstance(value, Mapping) else 0)):
                nested = value if isinstance(value, Mapping) else embedded(value, redact)
                if isinstance(nested, Mapping) and (inner_code := error_text(nested, redact).code):
                    # The code of the service behind a gateway counts more than the gateway's own.
                    code = inner_code if code is None or is_known([inner_code], of_create=False) else code
                break
        if message:
            break
    if code is None and message is None:
        # The parts of a one-click film have an err_code and an err_msg of their own.
        for part in _failed_parts(job):
            return _failure({}, part, NOTHING, redact)
    if code is None and message and is_known([message.strip()], of_create=False):
        code = message.strip()  # new-api passes the official err_code on as the reason
    return code, message


def _failed_parts(level: Level) -> Iterator[Level]:
    records = mapping(level.get("data_records"))
    parts = [job for record in objects(level.get("job_records")) for job in objects(record.get("jobs"))]
    parts += [record for scene in objects(records.get("storyboards")) for record in objects(scene.get("records"))]
    for name in ("narration_records", "bgm_records", "completed_creation_records"):
        parts += objects(records.get(name))
    return (part for part in parts if status_of(state_word(part)) is GenerationStatus.FAILED)


def _failure_code(level: Level) -> str | None:
    named = first_text(level.get("err_code"), mapping(level.get("error")).get("code"), level.get("error_code"))
    # Some gateways put the code beside the state; a number there, or "success", is the envelope's.
    code = level.get("code")
    return named or (code if isinstance(code, str) and not is_success_code(code) and not code.isdigit() else None)
