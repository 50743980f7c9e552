"""What an answer says of a generation, read from its shape, under whatever dialect it came; pure.

The families, and where they are documented or were recorded:

* official: ``state``, ``creations`` (platform.vidu.com); one-click products add ``signed_url``, ``job_records`` and
  ``data_records``; synchronous ones answer with ``file_url`` or ``demo_audio``;
* flat gateway: ``status``, ``video_url`` (vidu-native and its siblings);
* wrapped: ``{"code": "success", "data": {status, result_url, progress, fail_reason, data: {official answer}}}``
  (``dto/task.go`` of new-api); before ``result_url`` existed, the URL of a success was in ``fail_reason``;
* OpenAI videos: ``object: "video"``, ``metadata.url`` or ``video_url``, ``error: {message, code}``.

They are not told apart by a switch: each field is looked for on the level that speaks of the job, then on the level
inside it. Where the sources disagree, both are accepted.
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
    job_and_inner,
    short,
    state_word,
    status_of,
)
from airflow_provider_vidu.common.values import (
    bounded,
    embedded,
    first_text,
    mapping,
    moment,
    objects,
    percent,
    reason,
    whole,
    without_media,
)
from airflow_provider_vidu.models import Generation, GenerationStatus

_JOB_FIELDS: Final = RESULT_FIELDS | {"status"}
MAX_TEXT_CHARS: Final = 20_000
"""The longest documented prompt has 5,000 characters."""


# Thousands of polls a second come through here: one pass over what is there, not a look-up of all there could be.
_READ: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "progress": ("progress", percent),
    "model": ("model", lambda value: short(value, MAX_WORD_CHARS)),
    "credits": ("credits", whole),
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
"""Names that count where those above are absent; ``properties`` is new-api's."""


def read(
    generation_id: str,
    payload: dict[str, Any],
    redact: Callable[[str], str] = str,
    *,
    may_hold_media: bool = True,
    may_be_long: bool = True,
    most_values: int | None = None,
) -> Generation:
    """Return what an answer says of a generation.

    :param generation_id: the id that was asked for, or that the create's answer holds.
    :param payload: the whole answer; it is not changed.
    :param redact: takes secrets out of what is decoded from JSON inside a text.
    :param may_hold_media: false where the body is known to hold no inline media, which saves a walk through it.
    :param may_be_long: false where the body is known to be short enough to be kept as it is.
    :param most_values: how many values of the answer are kept; if omitted, its length alone decides.
    """
    if may_hold_media:
        payload = without_media(payload)
    job, inner = job_and_inner(payload, redact)
    word = state_word(job)
    status = status_of(word)
    if status is GenerationStatus.UNKNOWN and inner and (inner_word := state_word(inner)):
        inner_status = status_of(inner_word)
        if word is None or inner_status is not GenerationStatus.UNKNOWN:
            word, status = inner_word, inner_status
    found: dict[str, Any] = {}
    for level in (job, inner) if inner else (job,):
        for table in (_READ, _READ_ELSE):
            for name in table.keys() & level.keys():
                field, convert = table[name]
                if field not in found and (value := convert(level[name])) is not None:
                    found[field] = value
    if "prompt" not in found and job is not payload and (prompt := short(payload.get("prompt"), MAX_TEXT_CHARS)):
        found["prompt"] = prompt  # beside the envelope
    if "model" not in found and "properties" in job:
        found["model"] = short(mapping(job["properties"]).get("origin_model_name"), MAX_WORD_CHARS)
    artifacts = artifacts_of(job, inner, succeeded=status is GenerationStatus.SUCCEEDED)
    if artifacts:
        first = next((artifact for artifact in artifacts if artifact.url), artifacts[0])
        found["artifacts"], found["video_url"] = artifacts, first.url
        found["cover_url"] = first.cover_url if first.url or len(artifacts) == 1 else None
    if status is GenerationStatus.FAILED:
        # Completed answers still carry texts of earlier internal retries: only the status word decides.
        code, message = _failure(payload, job, inner, redact)
        found |= {
            "error_code": short(code, MAX_WORD_CHARS),
            "error_message": short(message, MAX_TEXT_CHARS),
            "is_transient": is_transient(code),
        }
    return Generation(
        id=generation_id,
        status=status,
        provider_status=(word or "")[:MAX_WORD_CHARS],
        raw=bounded(payload, most_values) if may_be_long else payload,
        **found,
    )


def speaks_of_a_generation(payload: Level) -> bool:
    """Whether an answer to a query says anything of a generation (a create's may hold just an id)."""
    job, inner = job_and_inner(payload)
    return (
        state_word(job) is not None
        or state_word(inner) is not None
        or not _JOB_FIELDS.isdisjoint(job)
        or not _JOB_FIELDS.isdisjoint(inner)
        or metadata_url(job) is not None
    )


def _unfenced(prompt: str | None) -> str | None:
    """Veo fences its enhanced prompts by three backticks."""
    return prompt.strip().removeprefix("```").removesuffix("```").strip() if prompt else None


# -- failures -------------------------------------------------------------------------------------

_MESSAGE_FIELDS: Final = ("fail_reason", "error", "error_message", "err_msg", "detail", "message")


def _failure(payload: Level, job: Level, inner: Level, redact: Callable[[str], str]) -> tuple[str | None, str | None]:
    """Return code and reason of a failed generation from the places where one has been seen."""
    levels = (job, inner) if inner else (job,)
    code = next(filter(None, map(_failure_code, levels)), None)
    message = None
    for level in (*levels, payload):
        for name in _MESSAGE_FIELDS:
            value = level.get(name)
            # What explains inside an object may be named in any way.
            if value and (message := reason(value, redact, 1 if isinstance(value, Mapping) else 0)):
                nested = value if isinstance(value, Mapping) else embedded(value, redact)
                if isinstance(nested, Mapping) and (inner_code := error_text(nested, redact).code):
                    # What the service behind a gateway says counts more than the gateway's own word for it.
                    code = inner_code if code is None or is_known([inner_code], of_create=False) else code
                break
        if message:
            break
    if code is None and message is None:
        # The parts of a one-click film have an err_code and an err_msg of their own.
        for part in _failed_parts(job):
            return _failure({}, part, NOTHING, redact)
    if code is None and message and is_known([message.strip()], of_create=False):
        code = message.strip()  # new-api hands the official err_code on as the reason
    return code, message


def _failed_parts(level: Level) -> Iterator[Level]:
    records = mapping(level.get("data_records"))
    parts = [job for record in objects(level.get("job_records")) for job in objects(record.get("jobs"))]
    parts += [record for scene in objects(records.get("storyboards")) for record in objects(scene.get("records"))]
    for name in ("narration_records", "bgm_records", "completed_creation_records"):
        parts += objects(records.get(name))
    return (part for part in parts if status_of(state_word(part)) is GenerationStatus.FAILED)


def _failure_code(level: Level) -> str | None:
    found = first_text(level.get("err_code"), mapping(level.get("error")).get("code"), level.get("error_code"))
    # Some gateways write the word beside the state; a number there, or "success", is the envelope's.
    code = level.get("code")
    return found or (code if isinstance(code, str) and not is_success_code(code) and not code.isdigit() else None)
