"""Values of XComs and rendered fields, read safely: the author of a DAG writes them. Pure.

Of each, only what the pages show is kept, and that is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from airflow_provider_vidu.api.dialects.answers import MAX_TEXT_CHARS
from airflow_provider_vidu.api.ids import checked_id
from airflow_provider_vidu.common.json_size import marks
from airflow_provider_vidu.common.parsing import bounded_json
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import mapping, number, percent, text, whole
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.polling.failures import trace_of
from airflow_provider_vidu.ui.clips.pieces import MAX_PIECES, FileRecord

MAX_VALUES: Final = 30_000
"""The most JSON values of an XCom; a result has at most the 20,000 of an answer. To parse 256 KiB of empty lists takes
a tenth of a second, in which no other thread runs."""
MAX_SMALL_MARKS: Final = 500
"""The most signs of values in an id, a note or a batch's place: these hold about twenty. A look at the pages reads
thousands of notes, and each of 8,000 characters of empty lists took a millisecond."""
MAX_NOTE_CHARS: Final = 300
NOTED: Final = (
    *("conn_id", "role", "artifact", "endpoint", "created_at", "credits", "seed"),
    *("deadline", "poll_interval", "adaptive", "waiting_since", "for_prices", "stores", "callback", "shared"),
    *("result", "try_number", "max_tries", "by", "existed"),
)
"""What the pages read of a task's note."""
MAX_PROMPT_CHARS: Final = 2_000
MAX_PARAMETERS: Final = 12
MAX_PARAMETER_CHARS: Final = 60
_NOT_PARAMETERS: Final = frozenset({"prompt", "model", "payload", "callback_url", "images", "videos", "text"})
# What Airflow's [core] max_templated_field_length leaves of a longer prompt.
_CUT: Final = "Truncated. You can change this behaviour in [core]max_templated_field_length. "
_CUT_END: Final = "..."
BESIDE: Final = frozenset({"cover", "speech", "sound"})
"""Artifacts that stand beside a result: a download of one of them has not stored the clip."""
STORES: Final = "file"
"""What a task notes as ``stores`` that makes a clip and stores it, too."""
HOOK: Final = "hook"
"""What a note names as ``by`` that a task's own code has published."""
MAKING: Final = ("generate", "wait")
PAYING: Final = ("generate", "submit")
ROLES: Final = (*MAKING, "submit", "download")
_GENERATION: Final = f"{Generation.__module__}.{Generation.__qualname__}"
"""The class of what a ``@task`` returns that returns what the hook does."""
_REFERENCE = re.compile(r"[a-z][a-z0-9+.-]*://|/", re.IGNORECASE)


def usable_id(value: Any) -> str | None:
    """Return the id in an XCom, or None where it holds none that can be queried."""
    try:
        found = checked_id(decoded(value))
    except ViduConfigError:
        return None
    return None if is_reference(found) else found


def is_reference(value: Any) -> bool:
    """Whether an XCom's value looks like an address in an XCom back end; ids do not."""
    value = decoded(value)
    return isinstance(value, str) and _REFERENCE.match(value) is not None


def parsed(stored: str | None) -> Any:
    """Return the value of JSON text in the database; None if Python cannot parse it, or it holds too many values.

    One XCom nested a thousand times, or with a number of 5,000 digits, must not break the page of its siblings.
    """
    try:
        return None if stored is None else bounded_json(stored, MAX_VALUES)
    except (ValueError, RecursionError):
        return None


def parsed_small(stored: str | None) -> Any:
    """Return the value of JSON text that holds few values; None as :func:`parsed` does, or if it may hold many.

    Those within its texts count, too: some versions store JSON as text.
    """
    is_small = stored is None or marks(stored.encode("utf-8", "replace")) <= MAX_SMALL_MARKS
    return parsed(stored) if is_small else None


def decoded(value: Any) -> Any:
    """Return an XCom's value; some versions store its JSON as text, and a generation is stored with its class."""
    if isinstance(value, str) and value[:1] in ('"', "{"):
        try:
            value = bounded_json(value, MAX_VALUES)
        except (ValueError, RecursionError):
            return value
    is_object = isinstance(value, Mapping) and value.get("__classname__") == _GENERATION
    return value.get("__data__") if is_object else value


def note_in(value: Any) -> Mapping[str, Any]:
    """Return what the pages need of a task's note: read once, and no more of it than they look at."""
    known = mapping(decoded(value))
    noted = {name: known.get(name) for name in NOTED}
    return {
        name: found
        for name, found in noted.items()
        if isinstance(found, (int, float)) or (isinstance(found, str) and len(found) <= MAX_NOTE_CHARS)
    }


def fields_in(value: Any) -> Mapping[str, Any]:
    """Return what the pages need of rendered fields: connection, model, prompt, parameters and ``max_credits``."""
    fields = mapping(value)
    body, parameters = (mapping(decoded(fields.get(name))) for name in ("body", "parameters"))
    wanted = {
        "vidu_conn_id": text(fields.get("vidu_conn_id")),
        "model": text(fields.get("model")) or text(body.get("model")),
        "prompt": next((found for holder in (fields, body, parameters) if (found := text(holder.get("prompt")))), None),
    }
    kept: dict[str, Any] = {name: found[: MAX_TEXT_CHARS * 2] for name, found in wanted.items() if found}
    if "prompt" in kept:
        kept["prompt"] = rendered_prompt(kept["prompt"])
    if (cap := number(fields.get("max_credits"))) is not None:
        kept["max_credits"] = cap
    plain = parameters_in(parameters, body)
    return {**kept, "parameters": plain} if plain else kept


def rendered_prompt(prompt: str) -> str:
    """Return a prompt as Airflow rendered it; where it kept only the beginning, that beginning and an ellipsis.

    Airflow puts the beginning of a long field into a sentence about its setting: the sentence is not the prompt.
    """
    if not prompt.startswith(_CUT):
        return prompt
    return prompt.removeprefix(_CUT).removesuffix(_CUT_END).strip("'\"") + "…"


def prompt_start(prompt: str | None) -> str | None:
    """Return a prompt as one redacted line; if it is not the whole prompt, it ends with an ellipsis."""
    return redacted(prompt, MAX_PROMPT_CHARS) or None if prompt else None


def parameters_in(*holders: Any) -> dict[str, Any]:
    """Return the plain parameters of a request: short values, without media, markers and addresses.

    :param holders: JSON objects that may hold them; the first one that has a name decides.
    """
    found: dict[str, Any] = {}
    for holder in holders:
        for name, value in mapping(holder).items():
            if len(found) >= MAX_PARAMETERS:
                return found
            if name not in found and _is_parameter(name, value):
                found[name] = value
    return found


def _is_parameter(name: str, value: Any) -> bool:
    if name in _NOT_PARAMETERS or len(name) > MAX_PARAMETER_CHARS:
        return False
    if isinstance(value, str):
        return 0 < len(value) <= MAX_PARAMETER_CHARS and "://" not in value and not value.startswith("data:")
    return isinstance(value, bool) or (isinstance(value, int | float) and whole(value) is not None)


def generation_in(value: Mapping[str, Any]) -> Generation | None:
    """Return the generation in a return value; None if it holds none."""
    # Cut before it is validated: to make models of eighty thousand creations holds the interpreter for a third of a
    # second, and one look reads dozens of such values.
    artifacts = value.get("artifacts")
    few = {"artifacts": artifacts[:MAX_PIECES]} if isinstance(artifacts, list) else {}
    try:
        return slim(Generation.model_validate({**value, **few}))
    except (ValidationError, RecursionError):
        return None


def record_in(
    value: Mapping[str, Any], artifact: Any, at: datetime | None, *, is_kept: bool = False
) -> FileRecord | None:
    """Return the record of a stored file in a return value; None if it holds none.

    :param is_kept: whether the file was there before, and may be another clip's.
    """
    uri, size, sha256, source = (value.get(name) for name in ("uri", "size", "sha256", "source"))
    if not isinstance(uri, str) or not uri or len(uri) > 4096 or not isinstance(size, int) or size < 0:
        return None
    return FileRecord(
        uri=uri,
        size=size,
        sha256=sha256 if isinstance(sha256, str) and len(sha256) == 64 and sha256.isalnum() else None,
        content_type=redacted(value.get("content_type") or "", 80) or None,
        stored_at=None if is_kept else at,
        artifact=redacted(artifact, 40) if isinstance(artifact, str) else None,
        source=source if isinstance(source, str) and len(source) <= 4096 else None,
        lost="kept" if is_kept else None,
    )


def slim(generation: Generation) -> Generation:
    """Return what the pages show of a generation: bounded, with finite numbers and times that can be compared.

    The rest of the answer is forgotten, but for the trace id of a failure: it may be megabytes, and thousands of
    generations are remembered.
    """
    times = {name: _aware(getattr(generation, name)) for name in ("created_at", "updated_at", "completed_at")}
    numbers = {"credits": whole(generation.credits), "progress": percent(generation.progress)}
    texts = {
        name: value[:MAX_TEXT_CHARS]
        for name in ("prompt", "enhanced_prompt", "provider_status", "model", "error_code", "error_message")
        if (value := getattr(generation, name)) is not None
    }
    trace = trace_of(generation) if generation.failed else None
    more: dict[str, Any] = {
        "artifacts": generation.artifacts[:MAX_PIECES],
        "raw": {"trace_id": trace[:MAX_NOTE_CHARS]} if trace else {},
    }
    return generation.model_copy(update={**times, **numbers, **texts, **more})


def chars_of(generation: Generation | None) -> int:
    """Return about how many characters are remembered with a generation."""
    if generation is None:
        return 0
    made = (vars(artifact).values() for artifact in generation.artifacts)
    return text_chars(vars(generation).values()) + sum(map(text_chars, made))


def text_chars(values: Iterable[Any]) -> int:
    """Return how many characters the texts among some values have."""
    return sum(len(value) for value in values if isinstance(value, str))


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
