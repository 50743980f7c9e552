"""The levels of an answer: which one describes the job, and its state; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from airflow_provider_vidu.common.values import embedded, shortened, strict_int, text, whole
from airflow_provider_vidu.models import GenerationStatus

Level = Mapping[str, Any]
NOTHING: Final[Level] = {}


def status_words(**words: str) -> dict[str, GenerationStatus]:
    """Return the status by word, from ``waiting="pending queued", running="processing"`` and so on."""
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
"""The states of all families, lower-case; every other word means "still running"."""

_STATE_FIELDS: Final = ("state", "status", "task_status")
WRAPPERS: Final = ("data", "output", "result")
"""The fields of an envelope that may hold the job."""
_WRAPPERS: Final = frozenset(WRAPPERS)

RESULT_FIELDS: Final = frozenset({"video_url", "creations", "signed_url", "job_records", "data_records", "file_url"})
"""Fields that only a job has, besides its state."""
_OWN_FIELDS: Final = frozenset({"id", "task_id", "url", "progress"})

MAX_WORD_CHARS: Final = 500
"""The limit for words of an answer: they are stored in an XCom."""


def job_and_inner(payload: Level, redact: Callable[[str], str] = str) -> tuple[Level, Level]:
    """Return the level of an answer that describes the job, and the level inside it (often the official answer)."""
    if _WRAPPERS.isdisjoint(payload):
        return payload, NOTHING
    job = (_wrapped(payload, redact) or payload) if is_envelope(payload) else payload
    return job, _wrapped(job, redact)


def _wrapped(level: Level, redact: Callable[[str], str]) -> Level:
    return next((inner for inner in (as_object(level.get(name), redact) for name in WRAPPERS) if inner), NOTHING)


def is_envelope(payload: Level) -> bool:
    """Whether the job is on an inner level: this one has no state, or no other field of a job beside it."""
    if not RESULT_FIELDS.isdisjoint(payload):
        return False
    if state_word(payload) is None and "status" not in payload:
        return True
    if not _OWN_FIELDS.isdisjoint(payload):
        return False
    return any(state_word(as_object(payload.get(name))) is not None for name in WRAPPERS)


def as_object(value: Any, redact: Callable[[str], str] = str) -> Level:
    """Return a JSON object, unwrapped from a list of one or from JSON in a string; an empty one for other values."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = embedded(value, redact)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, Mapping) else NOTHING


def state_word(level: Level) -> str | None:
    """Return the state as written: ``state`` and ``status`` are synonyms; a known word wins."""
    unknown = None
    for name in _STATE_FIELDS:
        word = text(level.get(name))
        if word is None:
            continue
        if word.strip().lower() in STATUSES:
            return word
        unknown = unknown or word
    return unknown


def status_of(word: str | None) -> GenerationStatus:
    """Return the status that a state means."""
    return STATUSES.get((word or "").strip().lower(), GenerationStatus.UNKNOWN)


def first(job: Level, inner: Level, convert: Callable[[Any], Any], *names: str) -> Any:
    """Return the first of the fields that can be converted, on the job's level and then on the one inside."""
    for level in (job, inner) if inner else (job,):
        for name in names:
            if name in level and (converted := convert(level[name])) is not None:
                return converted
    return None


def seed_of(payload: Level) -> int | None:
    """Return the seed of the job that an answer describes, also inside an envelope; None if it has none."""
    seed: int | None = first(*job_and_inner(payload), _whole, "seed")
    return seed


def _whole(value: Any) -> int | None:
    return strict_int(whole(value))


def short(value: Any, chars: int) -> str | None:
    """Return a field as text of at most ``chars`` characters; None if it is not text."""
    content = text(value)
    return None if content is None else shortened(content, chars)
