"""Where the answer to a create holds the id of what it has started: a paid id is never lost. Pure.

Per shape:

* official (``state``): ``task_id``, then ``id``; the edit and compose steps of one-click products answer
  ``sub_task_id`` or ``compose_sub_task_id`` beside the id of the film that they belong to;
* flat gateway and OpenAI videos: ``id``, then ``task_id``; a number in ``id`` beside a text in ``task_id`` is the row
  of a gateway's database (``dto/task.go`` of new-api), so the text wins;
* wrapped: the same inside ``data``, ``output`` or ``result``, which may be an object, a list of one, JSON in a text,
  or the id itself.
"""

from __future__ import annotations

import re
from typing import Any, Final

from airflow_provider_vidu.dialects.answers import STATUSES, Level, as_object
from airflow_provider_vidu.dialects.errors import is_error
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.values import embedded, first_text, mapping, text, web_url

_HOLDERS: Final = ("data", "output", "result", "response", "task", "generation", "job", "video")
_SPELLINGS: Final = (
    "taskId", "generation_id", "generationId", "job_id", "jobId", "video_id", "videoId", "uuid", "taskNo", "task_no",
)  # fmt: skip
_OTHER_NAMES: Final = tuple(dict.fromkeys(name.replace("_", "").lower() for name in _SPELLINGS))
"""In lower case, without underscores."""
ID_FIELDS: Final = frozenset(
    {"id", "task_id", "sub_task_id", "compose_sub_task_id", "ad_one_click_task_id", "voice_id", *_SPELLINGS}
)
"""Every name that an id has been seen under."""
_ID_DIGITS: Final = 13
"""The service's own ids have 18 digits; the row of a database has fewer."""
_NOT_JOBS: Final = frozenset(
    {"creations", "images", "subjects", "error", "user", "account", "owner", "key", "model", "metadata", "usage"}
)
_DEPTH: Final = 4
_NO_SPACES: Final = re.compile(r"\S{1,1024}")
# A whole answer that is one word must look like an id: "success" is none.
_LIKE_AN_ID: Final = re.compile(r"(?=.*\d)[\w.:^~/-]{6,1024}")


def created_object(value: Any) -> dict[str, Any] | None:
    """Return a create's parsed answer as an object, or None where it cannot be one.

    A list of one is its only entry; a text or a number that looks like an id becomes ``{"id": …}``.
    """
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, str):
        inner = embedded(value)
        if isinstance(inner, dict):
            return inner
    if isinstance(value, dict):
        return value
    word = text(value)
    return {"id": word} if word and _LIKE_AN_ID.fullmatch(word.strip()) else None


def created_id(payload: Level, *, synchronous: bool = False) -> str | None:
    """Return the id in a create's answer.

    :param payload: the answer.
    :param synchronous: whether the answer is the result already; then ``voice_id`` names it, too.
    """
    found = _id_in(payload) or _other_id(payload)
    if found is None and synchronous:
        found = first_text(payload.get("voice_id"), as_object(payload.get("data")).get("voice_id"))
    return found


def trusted(payload: Level) -> bool:
    """Whether the id in an answer that is not whole is sure to be the job's.

    A small number in ``id`` may be the row of a gateway's database, and an id in a place that no page documents that of
    something else: the job's own may be in the part that is missing.
    """
    found = _id_in(payload) or first_text(*(payload.get(name) for name in (*_SPELLINGS, "voice_id")))
    if found is None:
        return False
    is_row = found.isdecimal() and len(found) < _ID_DIGITS and found == text(payload.get("id"))
    return not is_row


def strict_id(payload: Level) -> str | None:
    """Return the id in an error answer to a create; a bare ``id`` may be that of the request there.

    A gateway that cannot parse the answer of the service behind it quotes that answer in its message
    (``unmarshal_response_failed`` of new-api): the generation is created and paid.
    """
    messages = (payload.get("message"), mapping(payload.get("error")).get("message"))
    quoted = (mapping(embedded(told)) for told in messages)
    for level in (payload, *(as_object(payload.get(name)) for name in _HOLDERS), *quoted):
        if found := first_text(level.get("compose_sub_task_id"), level.get("sub_task_id"), level.get("task_id")):
            return found
    return None


def _id_in(level: Level, depth: int = 0) -> str | None:
    if found := _own_id(level):
        return found
    if depth >= _DEPTH:
        return None
    for name in _HOLDERS:
        if name not in level:
            continue
        value = level[name]
        inner = as_object(value)
        found = _id_in(inner, depth + 1) if inner else None
        if found is None and name in ("data", "output", "result"):
            found = _bare_id(value, level)
        if found:
            return found
    return None


def _own_id(level: Level) -> str | None:
    own, task = text(level.get("id")), text(level.get("task_id"))
    if own and task:
        is_official = "state" in level and "status" not in level
        return task if is_official or (isinstance(level["id"], int) and isinstance(level["task_id"], str)) else own
    # Of the two ids in the answer of a one-click step, the new job is the one that was ordered.
    return own or task or first_text(level.get("compose_sub_task_id"), level.get("sub_task_id"))


def _bare_id(value: Any, level: Level) -> str | None:
    """Return an id that stands alone where an object is usual: ``{"code": "success", "data": "task_…"}``."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    word = (text(value) or "").strip()
    if not _NO_SPACES.fullmatch(word) or word.lower() in STATUSES or web_url(word) or is_error(level):
        return None
    return word if isinstance(value, int) or len(word) > 2 else None


def _other_id(level: Level, depth: int = 0) -> str | None:
    """Return an id under a name that no page documents, from the outermost level that has one."""
    named = {name.replace("_", "").lower(): value for name, value in level.items()}
    if found := first_text(*(named.get(name) for name in _OTHER_NAMES)):
        return found
    # The film's own id is better than none.
    if found := text(level.get("ad_one_click_task_id")):
        return found
    if depth >= _DEPTH:
        return None
    for name, value in level.items():
        if name in _NOT_JOBS:
            continue
        inner = as_object(value)
        if inner and (found := _own_id(inner) or _other_id(inner, depth + 1)):
            return found
    return None


def accepted(generation: Generation, *, synchronous: bool) -> Generation:
    """Return a create's generation with the status that its answer means.

    A synchronous answer without a state is the result. Of any other create, a success without a result means that the
    *create* succeeded (the steps of one-click products answer so): the job itself is still to be waited for.
    """
    if synchronous:
        if generation.status is GenerationStatus.UNKNOWN and not generation.provider_status:
            return generation.model_copy(update={"status": GenerationStatus.SUCCEEDED})
        return generation
    if generation.succeeded and generation.video_url is None:
        return generation.model_copy(update={"status": GenerationStatus.WAITING})
    return generation
