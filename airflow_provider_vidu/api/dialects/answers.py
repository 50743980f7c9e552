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

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_vidu.api.dialects.errors import error_text, is_known, is_success_code, is_transient
from airflow_provider_vidu.common.values import (
    bounded,
    embedded,
    first_text,
    mapping,
    moment,
    number,
    objects,
    percent,
    reason,
    shortened,
    text,
    web_url,
    whole,
    without_media,
)
from airflow_provider_vidu.models import Artifact, Generation, GenerationStatus

Level = Mapping[str, Any]
NOTHING: Final[Level] = {}


def status_words(**words: str) -> dict[str, GenerationStatus]:
    """Return a look-up table from ``waiting="pending queued", running="processing"`` and so on."""
    return {word: GenerationStatus(status) for status, listed in words.items() for word in listed.split()}


# video_generation_completed and video_upsampling_completed are steps, not the end. scheduled, preparation and
# scheduling are undocumented but were recorded, and so is succeed, beside task_status.
STATUSES: Final[Mapping[str, GenerationStatus]] = status_words(
    succeeded="completed success succeeded succeed",
    failed="failed failure error video_generation_failed video_upsampling_failed cancelled canceled expired",
    waiting="pending queued not_start submitted created queueing scheduled preparation scheduling",
    running="processing in_progress running image_downloading video_generating video_generation_completed "
    "video_upsampling video_upsampling_completed",
)
"""The words of all families, lower-case; every other word means "still running"."""

_STATE_FIELDS: Final = ("state", "status", "task_status")
WRAPPERS: Final = ("data", "output", "result")
"""Where an answer may hold the job inside an envelope."""
_WRAPPERS: Final = frozenset(WRAPPERS)

RESULT_FIELDS: Final = frozenset({"video_url", "creations", "signed_url", "job_records", "data_records", "file_url"})
"""What only a job has, beside its state."""
_JOB_FIELDS: Final = RESULT_FIELDS | {"status"}
_OWN_FIELDS: Final = frozenset({"id", "task_id", "url", "progress"})

_URL_FIELDS: Final = ("video_url", "result_url", "signed_url", "file_url", "demo_audio")
_LOOSE_URL_FIELDS: Final = ("url", "download_url", "output_url", "audio_url", "image_url")
_COVER_FIELDS: Final = ("cover_url", "thumbnail_url")
_CREATION_FIELDS: Final = ("url", "video_url", "uri")
"""Where a creation names its file; the first version of the official API, which some gateways pass on, says ``uri``."""
_MEDIA_FIELDS: Final = frozenset(
    {*_URL_FIELDS, *_COVER_FIELDS, "watermarked_url", "metadata", "job_records", "data_records"}
)
_BARE_URL_FIELDS: Final = (
    "urls", "video_urls", "result_urls", "resultUrls", "output", "outputs", "result", "results", "video", "videos",
    "data",
)  # fmt: skip
"""What may hold the result's address alone, or a list of addresses."""
# Never searched for a result: what was sent and may be echoed, and pictures beside it.
_NOT_RESULTS: Final = frozenset(
    {
        "input", "inputs", "request", "params", "parameters", "properties", "images", "subjects", "videos_input",
        "error", "payload", "meta_data", "prompt", "enhanced_prompt", "body", "source", "original_request", "extra",
        "user_data", "input_video", "input_image", "arguments", "options", "callback",
    }
)  # fmt: skip
_SEARCH_DEPTH: Final = 4
_NO_SCHEME: Final = re.compile(r"//[^/?#@\s]+\.[^/?#@\s]+/")

# What is kept of an answer becomes an XCom. The longest documented prompt has 5,000 characters.
MAX_TEXT_CHARS: Final = 20_000
MAX_WORD_CHARS: Final = 500
MAX_ARTIFACTS: Final = 100
_MOST_PIXELS: Final = 1_000_000_000
MAX_URLS_CHARS: Final = 256 * 1024
"""How long the URLs of all artifacts together may be."""


# Thousands of polls a second come through here: one pass over what is there, not a look-up of all there could be.
_READ: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "progress": ("progress", percent),
    "model": ("model", lambda value: _short(value, MAX_WORD_CHARS)),
    "credits": ("credits", whole),
    "prompt": ("prompt", lambda value: _short(value, MAX_TEXT_CHARS)),
    "enhanced_prompt": ("enhanced_prompt", lambda value: _unfenced(_short(value, MAX_TEXT_CHARS))),
    "created_at": ("created_at", moment),
    "status_update_time": ("updated_at", moment),
    "completed_at": ("completed_at", moment),
}
_READ_ELSE: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "submit_time": ("created_at", moment),
    "updated_at": ("updated_at", moment),
    "finish_time": ("completed_at", moment),
    "properties": ("prompt", lambda value: _short(mapping(value).get("input"), MAX_TEXT_CHARS)),
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
    status = _status(word)
    if status is GenerationStatus.UNKNOWN and inner and (inner_word := state_word(inner)):
        inner_status = _status(inner_word)
        if word is None or inner_status is not GenerationStatus.UNKNOWN:
            word, status = inner_word, inner_status
    found: dict[str, Any] = {}
    for level in (job, inner) if inner else (job,):
        for table in (_READ, _READ_ELSE):
            for name in table.keys() & level.keys():
                field, convert = table[name]
                if field not in found and (value := convert(level[name])) is not None:
                    found[field] = value
    if "prompt" not in found and job is not payload and (prompt := _short(payload.get("prompt"), MAX_TEXT_CHARS)):
        found["prompt"] = prompt  # beside the envelope
    if "model" not in found and "properties" in job:
        found["model"] = _short(mapping(job["properties"]).get("origin_model_name"), MAX_WORD_CHARS)
    artifacts = _few(_artifacts_of(job, inner, succeeded=status is GenerationStatus.SUCCEEDED))
    if artifacts:
        first = next((artifact for artifact in artifacts if artifact.url), artifacts[0])
        found["artifacts"], found["video_url"] = artifacts, first.url
        found["cover_url"] = first.cover_url if first.url or len(artifacts) == 1 else None
    if status is GenerationStatus.FAILED:
        # Completed answers still carry texts of earlier internal retries: only the status word decides.
        code, message = _failure(payload, job, inner, redact)
        found |= {
            "error_code": _short(code, MAX_WORD_CHARS),
            "error_message": _short(message, MAX_TEXT_CHARS),
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
        or _metadata_url(job) is not None
    )


def job_and_inner(payload: Level, redact: Callable[[str], str] = str) -> tuple[Level, Level]:
    """Return the level of an answer that speaks of the job, and the level inside it (often the official answer)."""
    if _WRAPPERS.isdisjoint(payload):
        return payload, NOTHING
    job = (_wrapped(payload, redact) or payload) if is_envelope(payload) else payload
    return job, _wrapped(job, redact)


def _wrapped(level: Level, redact: Callable[[str], str]) -> Level:
    return next((inner for inner in (as_object(level.get(name), redact) for name in WRAPPERS) if inner), NOTHING)


def is_envelope(payload: Level) -> bool:
    """Whether the job is not on this level: it has no state, or one beside no other fact of a job."""
    if not RESULT_FIELDS.isdisjoint(payload):
        return False
    if state_word(payload) is None and "status" not in payload:
        return True
    if not _OWN_FIELDS.isdisjoint(payload):
        return False
    return any(state_word(as_object(payload.get(name))) is not None for name in WRAPPERS)


def as_object(value: Any, redact: Callable[[str], str] = str) -> Level:
    """Return a JSON object, also out of a list of one and out of JSON inside a text; else an empty one."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = embedded(value, redact)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, Mapping) else NOTHING


def state_word(level: Level) -> str | None:
    """Return the word for the state: ``state`` and ``status`` are synonyms; a known word wins over another."""
    found = None
    for name in _STATE_FIELDS:
        word = text(level.get(name))
        if word is None:
            continue
        if word.strip().lower() in STATUSES:
            return word
        found = found or word
    return found


def _status(word: str | None) -> GenerationStatus:
    return STATUSES.get((word or "").strip().lower(), GenerationStatus.UNKNOWN)


def _first(job: Level, inner: Level, convert: Callable[[Any], Any], *names: str) -> Any:
    """Return the first of the fields that can be converted, on the job's level and then on the one inside."""
    for level in (job, inner) if inner else (job,):
        for name in names:
            if name in level and (found := convert(level[name])) is not None:
                return found
    return None


def _short(value: Any, chars: int) -> str | None:
    found = text(value)
    return None if found is None else shortened(found, chars)


def _unfenced(prompt: str | None) -> str | None:
    """Veo fences its enhanced prompts by three backticks."""
    return prompt.strip().removeprefix("```").removesuffix("```").strip() if prompt else None


# -- results --------------------------------------------------------------------------------------


def _artifacts_of(job: Level, inner: Level, *, succeeded: bool) -> tuple[Artifact, ...]:
    """Return every creation; the first one with a URL is the result."""
    if not succeeded and not inner and not job.get("creations") and _MEDIA_FIELDS.isdisjoint(job):
        return ()
    own = tuple(_creations(job))
    if own:
        if not succeeded or any(found.url for found in own):
            return own
        return _with_url(own, _direct_url(job, succeeded=True) or _searched_url(job))
    inside = tuple(_creations(inner)) if inner else ()
    direct = _direct_url(job, succeeded=succeeded)
    if direct is None and not any(found.url for found in inside):
        direct = (_direct_url(inner, succeeded=succeeded) if inner else None) or (
            _searched_url(job) if succeeded and "creations" not in job else None
        )
    return _with_url(inside, direct, _flat(job, direct, inner))


def _few(artifacts: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
    """Return the first artifacts, up to a number and up to a length of all their URLs."""
    left = MAX_URLS_CHARS
    for place, artifact in enumerate(artifacts):
        urls = (artifact.url, artifact.cover_url, artifact.watermarked_url, artifact.speech_url, artifact.sound_url)
        left -= sum(len(url) for url in urls if url)
        if place >= MAX_ARTIFACTS or left < 0:
            return artifacts[: max(place, 1)]
    return artifacts


def _with_url(listed: tuple[Artifact, ...], url: str | None, flat: Artifact | None = None) -> tuple[Artifact, ...]:
    """Give the first creation the URL that the gateway names for the result."""
    if not listed:
        if flat is None and url is None:
            return ()
        return (flat or Artifact(url=url),)
    if url is None or any(found.url == url for found in listed):
        return listed
    at = next((place for place, found in enumerate(listed) if found.url), 0)
    return (listed[at].model_copy(update={"url": url}), *listed[:at], *listed[at + 1 :])


def _flat(job: Level, url: str | None, inner: Level) -> Artifact | None:
    cover = _first(job, inner, _address, *_COVER_FIELDS)
    watermarked = _first(job, inner, _address, "watermarked_url")
    if url is None and cover is None and watermarked is None:
        return None
    speech, sound = (_first(job, inner, _address, name) for name in ("speech_url", "sound_url"))
    return Artifact(url=url, cover_url=cover, watermarked_url=watermarked, speech_url=speech, sound_url=sound)


def _creations(level: Level) -> Iterator[Artifact]:
    return itertools.islice(_all_creations(level), MAX_ARTIFACTS)


def _all_creations(level: Level) -> Iterator[Artifact]:
    listed = level.get("creations")
    if listed:
        entries = listed if isinstance(listed, list) else [listed]
        yield from map(_artifact, objects([{"url": one} if isinstance(one, str) else one for one in entries]))
    if "job_records" in level:
        yield from _one_click(level)
    if "data_records" in level:
        yield from _ad_one_click(level)


def _artifact(creation: Level) -> Artifact:
    video = mapping(creation.get("video"))
    size = mapping(video.get("resolution"))
    width, height = (_pixels(size.get(name)) for name in ("width", "height"))
    speech, sound = _address(creation.get("speech_url")), _address(creation.get("sound_url"))
    return Artifact(
        id=_short(creation.get("id"), MAX_WORD_CHARS),
        # [L] moderation_url holds what was checked, not what was ordered; it stays in raw.
        url=_first(creation, NOTHING, _address, *_CREATION_FIELDS) or sound or speech,
        cover_url=_first(creation, NOTHING, _address, "cover_url", "cover_uri"),
        watermarked_url=_address(creation.get("watermarked_url")),
        speech_url=speech,
        sound_url=sound,
        duration=number(video.get("duration")),
        fps=number(video.get("fps")),
        width=width,
        height=height,
    )


def _pixels(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and abs(found) <= _MOST_PIXELS else None


def _one_click(level: Level) -> Iterator[Artifact]:
    """Read a one-click answer: the whole film first, then the newest composition, then the parts."""
    film = _address(level.get("signed_url"))
    if film:
        yield Artifact(
            id=_short(level.get("id"), MAX_WORD_CHARS),
            url=film,
            cover_url=_first(level, NOTHING, _address, *_COVER_FIELDS),
        )
    records = list(objects(level.get("job_records")))
    records.sort(key=lambda record: record.get("type") != "compose")  # stable: the parts keep their order
    for record in records:
        for job in reversed(list(objects(record.get("jobs")))):
            url = _address(job.get("signed_url"))
            if url and url != film:
                yield Artifact(id=_short(job.get("id"), MAX_WORD_CHARS), url=url)


def _ad_one_click(level: Level) -> Iterator[Artifact]:
    """Read the list of an ad's sub-tasks: the newest film, then the scenes, the narration and the music."""
    records = mapping(level.get("data_records"))
    scenes = [record for scene in objects(records.get("storyboards")) for record in objects(scene.get("records"))]
    films = reversed(list(objects(records.get("completed_creation_records"))))
    others = (*objects(records.get("narration_records")), *objects(records.get("bgm_records")))
    for record in (*films, *scenes, *others):
        if url := _address(record.get("creation_url")):
            yield Artifact(id=_short(record.get("id"), MAX_WORD_CHARS), url=url)


def _direct_url(level: Level, *, succeeded: bool) -> str | None:
    """Return the URL that this level names for the result.

    Official answers to creates repeat what was sent (``video_url`` of an extend, ``audio_url`` of a lip-sync), so a
    level with ``state`` counts only when it reports success.
    """
    if "state" in level and not succeeded:
        return None
    for name in _URL_FIELDS:
        if name in level and (found := _address(level[name])):
            return found
    if not succeeded:
        return _metadata_url(level)
    # Older new-api keeps the URL of a success where the reason of a failure goes.
    found = _address(level.get("fail_reason")) or _metadata_url(level)
    # An official answer repeats what was sent (task_id beside state), or lists its results (creations, be it none).
    if found is None and "creations" not in level and not ("state" in level and "task_id" in level):
        found = next(filter(None, (_address(level.get(name)) for name in _LOOSE_URL_FIELDS)), None)
    return found


def _address(value: Any) -> str | None:
    """Return a web address verbatim, without the blanks and line ends that gateways leave around it.

    ``//cdn.example.com/v.mp4`` means https; other incomplete addresses may mean several things (:mod:`.unusable_urls`).
    """
    if not isinstance(value, str):
        return None
    text = value.strip()
    return web_url(f"https:{text}" if _NO_SCHEME.match(text) else text)


def _metadata_url(level: Level) -> str | None:
    metadata = level.get("metadata")
    if not isinstance(metadata, Mapping):
        return None
    return next(filter(None, (_address(metadata.get(name)) for name in ("url", *_URL_FIELDS))), None)


def _searched_url(level: Level, depth: int = 0) -> str | None:
    """Look for the result of a success in every other place that has been seen; only rare answers come here."""
    if depth:
        for name in ("url", *_URL_FIELDS):
            if found := _address(level.get(name)):
                return found
    for name in _BARE_URL_FIELDS:
        value = level.get(name)
        if found := next(filter(None, map(_address, value if isinstance(value, list) else [value])), None):
            return found
    if depth >= _SEARCH_DEPTH:
        return None
    for name, value in level.items():
        if name in _NOT_RESULTS or name.endswith("_url"):
            continue
        for inner in objects(value) if isinstance(value, list) else filter(None, [as_object(value)]):
            if found := _searched_url(inner, depth + 1):
                return found
    return None


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
    return (part for part in parts if _status(state_word(part)) is GenerationStatus.FAILED)


def _failure_code(level: Level) -> str | None:
    found = first_text(level.get("err_code"), mapping(level.get("error")).get("code"), level.get("error_code"))
    # Some gateways write the word beside the state; a number there, or "success", is the envelope's.
    code = level.get("code")
    return found or (code if isinstance(code, str) and not is_success_code(code) and not code.isdigit() else None)
