"""What the pages show of a clip, as plain JSON: no URL of the service in it, every text cut and redacted. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_vidu.api.dialects.answers import MAX_TEXT_CHARS
from airflow_provider_vidu.common.text import redacted, redacted_lines
from airflow_provider_vidu.common.values import whole
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.ui.clips.cards import card_facts, model_of, prompt_of
from airflow_provider_vidu.ui.clips.facts import Clip, TaskFacts
from airflow_provider_vidu.ui.clips.failures import failure_view, line, notice, qualifier, support
from airflow_provider_vidu.ui.clips.outlook import begun_tries, next_try, outlook
from airflow_provider_vidu.ui.clips.pieces import FileRecord, Piece, pieces_of
from airflow_provider_vidu.ui.clips.service import Live, why_empty
from airflow_provider_vidu.ui.clips.times import iso, timeline
from airflow_provider_vidu.ui.playing.shelf import Lost

URL_LIFE: Final = timedelta(hours=24)
"""The service's URLs live at most this long."""
SURE_URL_LIFE: Final = timedelta(minutes=45)
"""They live at least this long: those of some products expire after an hour."""

DRY_RUN: Final = (
    "This was a dry run: nothing was submitted, so there is no generation. The task's log shows the request that would "
    "have been sent."
)
_WHY_LOST: Final[Mapping[Lost, str]] = {
    "missing": "The API server does not find the stored file.",
    "replaced": "Another file has replaced the stored one.",
    "kept": "A file that was there before is in the place of this clip.",
}
REFRESH_SECONDS: Final = 5
SLOW_REFRESH_SECONDS: Final = 15


@dataclass(frozen=True, slots=True)
class Source:
    """Where a video or cover can be played from: ``storage``, ``service``, or nowhere for a ``reason``."""

    kind: str | None
    reason: str | None = None


def must_ask(clip: Clip) -> bool:
    """Whether the service must be queried for the state: no result holds the end yet."""
    result = clip.result
    return may_ask(clip) and not (result and result[0].is_done)


def may_ask(clip: Clip) -> bool:
    """Whether the service can be queried: both the id and the connection are known, and are not a dry run's."""
    return clip.generation_id is not None and clip.conn_id is not None and not clip.is_dry_run


def url_of(generation: Generation | None, piece: Piece, *, cover: bool) -> str | None:
    """Return the service's URL of a piece or of its cover, whether still valid or not."""
    if generation is None or not generation.succeeded or piece.creation is None:
        return None
    return generation.url_of("cover" if cover else None, piece.creation)


def is_surely_fresh(url: str, since: datetime | None, now: datetime) -> bool:
    """Whether a URL of that age is certainly valid, and complete (its query holds the signature)."""
    return since is not None and now - since < SURE_URL_LIFE and "?" in url


def may_be_valid(since: datetime | None, now: datetime) -> bool:
    """Whether a URL of that age may still be valid."""
    return since is not None and now - since < URL_LIFE


def pieces(clip: Clip, live: Live) -> list[Piece]:
    """Return what there is to see and hear of a clip; at least one piece."""
    return pieces_of(clip.records, _generation(clip, live)) or [Piece(0)]


def source_of(
    clip: Clip, live: Live, piece: Piece, *, stored: Mapping[str, str | None], cover: bool, now: datetime
) -> Source:
    """Decide where a piece or its cover is played from.

    :param stored: the stored files beneath one of the deployment's preview roots, by URI.
    """
    if clip.is_dry_run:
        return Source(None, None if cover else DRY_RUN)
    if any(record.uri in stored and not record.lost for record in files_of(clip, piece, cover=cover)):
        return Source("storage")
    _, since = clip.result or (None, None)
    generation = _generation(clip, live)
    if generation is None or not generation.succeeded:
        return Source(None, None if cover or clip.stage != "stored" else _why_stored_only(piece))
    if url_of(generation, piece, cover=cover) is None:
        missing = _why_stored_only(piece) if clip.stage == "stored" else why_empty(clip.endpoint)
        return Source(None, None if cover else missing)
    if live.generation or may_ask(clip) or may_be_valid(since, now):
        return Source("service")
    return Source(None, expired(clip))


def files_of(clip: Clip, piece: Piece, *, cover: bool) -> Sequence[FileRecord]:
    """Return the stored files of a piece, or the stored covers where it is the first one."""
    if not cover:
        return piece.records
    return [record for record in clip.records if record.is_cover] if not piece.creation else []


def _generation(clip: Clip, live: Live) -> Generation | None:
    if live.generation is not None or clip.result is None:
        return live.generation
    found, _ = clip.result
    if found.is_done:
        return found
    # A task that only submits has returned the state at its submit: what has become of it since is not known.
    return found.model_copy(update={"status": GenerationStatus.UNKNOWN, "provider_status": "", "progress": None})


def expired(clip: Clip, lost: Collection[FileRecord] = (), *, is_shown: bool = False) -> str:
    """Say that the service's URL has expired and where the file is, as far as that is known, in two sentences.

    :param lost: files that are known to be lost by now, beside those that the clip knows of.
    :param is_shown: whether the API server may read the files.
    """
    message = "The service's link to this clip has expired (links live for at most a day)."
    if all(record.is_cover for record in clip.records):
        return f"{message} No task of this run has stored the clip."
    return f"{message} {where_stored(clip, lost, is_shown=is_shown)}".strip()


def where_stored(clip: Clip, lost: Collection[FileRecord] = (), *, is_shown: bool = False) -> str:
    """Say in a sentence where the file is, as far as that is known; empty where no task has stored one that is left.

    :param lost: files that are known to be lost by now, beside those that the clip knows of.
    :param is_shown: whether the API server may read the files.
    """
    records = (record for record in clip.records if not record.is_cover and not record.lost and record not in lost)
    kept = next(records, None)
    return "" if kept is None else _stored_at(kept, is_shown=is_shown)


def _stored_at(record: FileRecord, *, is_shown: bool = False) -> str:
    why = "" if is_shown else ", which is not beneath [vidu] preview_roots, so this page cannot play it"
    return f"A task stored the file at {redacted(record.uri, 400)}{why}."


def _why_stored_only(piece: Piece) -> str:
    """Say why a stored piece cannot be played of which the service says nothing."""
    if piece.lost is not None:
        return _WHY_LOST[piece.lost.lost or "missing"]
    kept = next((record for record in piece.records if not record.lost), None)
    if kept is None:
        return "A task has stored the file. Where it is cannot be read here; the task's log says it."
    return _stored_at(kept)


def clip_view(
    clip: Clip, task: TaskFacts, live: Live, *, stored: Mapping[str, str | None], now: datetime
) -> dict[str, Any]:
    """Return all that the page of one clip shows.

    :param task: the task instance whose page it is.
    :param live: what the service said, where it was queried.
    :param stored: the stored files that may be shown, by URI, with their proven content type where it was read.
    """
    generation = _generation(clip, live)
    is_reported = clip.is_dry_run or bool(generation and generation.is_done)
    done = is_reported or clip.stage == "stored"
    prompts = (prompt_of(clip, generation), generation and generation.enhanced_prompt)
    prompt, enhanced = (redacted_lines(found or "", MAX_TEXT_CHARS) or None for found in prompts)
    return {
        **card_view(clip, live, stored=stored, now=now),
        "task": _task(task),
        "conn_id": line(clip.conn_id),
        "provider_status": line(generation.provider_status) if generation else None,
        "prompt": prompt,
        "enhanced_prompt": enhanced if enhanced != prompt else None,
        "pieces": [_piece(clip, live, piece, stored=stored, now=now) for piece in pieces(clip, live)],
        "files": _files(clip.records, stored),
        "timeline": [] if clip.is_dry_run else timeline(clip, generation, live),
        "tasks": [_task(each) for each in clip.tasks],
        "done": done,
        "now": iso(now),
        # When a generation without a known id is polled next is not known here.
        "outlook": None if done or clip.generation_id is None else outlook(clip, generation, live, now),
        "next_try": next_try(clip, generation, live),
        "support": "" if clip.is_dry_run else support(clip, task, generation, live),
        "refresh": _refresh(clip, done=is_reported or (done and not (live.error and live.error.retryable))),
        "reused_from": line(clip.generation_id, 300) if task.is_reuse else None,
    }


def card_view(clip: Clip, live: Live, *, stored: Mapping[str, str | None], now: datetime) -> dict[str, Any]:
    """Return what the contact sheet shows of a clip."""
    generation = _generation(clip, live)
    status = generation.status if generation else None
    found = pieces(clip, live)
    main, first = clip.main, found[0]
    lost = next((piece.lost for piece in found if piece.lost), None)
    source = source_of(clip, live, first, stored=stored, cover=False, now=now)
    return {
        **main.place,
        **card_facts(clip, generation),
        "generation_id": line(clip.generation_id, 300),
        "model": line(model_of(clip, generation)),
        "state": _state(clip, status),
        "stage": clip.stage,
        "progress": generation.progress if generation and not generation.is_done else None,
        "qualifier": qualifier(clip, generation, lost),
        "error": failure_view(clip, generation, live, lost),
        "notice": notice(clip, live),
        "is_unattended": clip.is_unattended(now),
        "reused_from": line(clip.generation_id, 300) if clip.reusing and clip.paying is None else None,
        "medium": first.medium(stored),
        "can_play": source.kind is not None,
        "can_download": source.kind == "storage",
        "has_cover": source_of(clip, live, first, stored=stored, cover=True, now=now).kind is not None,
    }


def slot_view(task: TaskFacts, place: Any, now: datetime) -> dict[str, Any]:
    """Return what the page of a task that waits before its create shows instead of a clip; nothing for other tasks.

    :param task: the task instance.
    :param place: its :class:`.QueuePlace`; None once it has its turn.
    """
    if task.waiting_since is None:
        return {}
    known = {
        "since": iso(task.waiting_since),
        "for_prices": task.waits_for_prices,
        "has_triggerer": task.has_triggerer(now),
        "is_queued": place is not None,
        "in_worker": task.state == "running",
        "place": place and place.place,
        "length": place and place.length,
        "deadline": iso(place.deadline) if place else None,
    }
    # Nothing was submitted: there is no step to show, nothing to poll, and nothing to ask support about.
    return {"slot": known, "timeline": [], "outlook": None, "support": ""}


def no_generation_view(count: int, tasks: Sequence[TaskFacts]) -> dict[str, Any]:
    """Return what a sheet shows of the tasks that have failed without a generation.

    :param count: how many there are.
    :param tasks: the first ones of them.
    """
    named = [{**_task(task), "label": redacted(task.label, 250) if task.label else None} for task in tasks]
    return {"count": count, "tasks": named}


def _piece(clip: Clip, live: Live, piece: Piece, *, stored: Mapping[str, str | None], now: datetime) -> dict[str, Any]:
    source = source_of(clip, live, piece, stored=stored, cover=False, now=now)
    made = piece.artifact
    return {
        "medium": piece.medium(stored),
        "from": source.kind,
        "reason": source.reason,
        "has_cover": source_of(clip, live, piece, stored=stored, cover=True, now=now).kind is not None,
        "name": line(redacted(piece.records[0].uri, 4096).rpartition("/")[2], 120) if piece.records else None,
        **{name: whole(getattr(made, name)) if made else None for name in ("duration", "fps", "width", "height")},
    }


def _state(clip: Clip, status: GenerationStatus | None) -> str:
    """Return the state for the badge: ``stored``, ``slot``, ``prices``, ``dry``, or a generation's status."""
    if clip.is_dry_run:
        return "dry"
    if clip.stage == "stored":
        return "stored"
    if status is not None:
        return status.value
    if clip.main.waiting_since is not None:
        return "prices" if clip.main.waits_for_prices else "slot"
    return "failed" if clip.stage == "failed" and clip.dropped is None else "unknown"


def _refresh(clip: Clip, *, done: bool) -> int | None:
    """Return the seconds until the page should refresh; None when nothing will change by itself."""
    busy = any(not task.has_ended for task in clip.tasks)
    if clip.run_is_over and (done or not may_ask(clip)):
        return None
    # While the run goes on, a download may be about to start: it has announced nothing yet.
    return REFRESH_SECONDS if busy or not done else SLOW_REFRESH_SECONDS


def _task(task: TaskFacts) -> dict[str, Any]:
    # Until it begins, the row has the times of the try before.
    is_current = not task.begins_anew or task.state in ("up_for_retry", "running")
    has_end = task.has_ended or task.state == "up_for_retry"
    return {
        **task.place,
        **{name: getattr(task, name) for name in ("state", "try_number", "role")},
        "begun_tries": begun_tries(task),
        "started_at": iso(task.started_at) if is_current else None,
        "deferred_at": iso(task.deferred_at),
        "ended_at": iso(task.ended_at) if has_end else None,
    }


def _files(records: Sequence[FileRecord], stored: Collection[str]) -> list[dict[str, Any]]:
    """Return the stored files, covers last; one that several tasks have stored, or found there, stands once."""
    once = {(record.uri, record.sha256): record for record in records}
    found = sorted(once.values(), key=lambda record: record.is_cover)
    return [{**_file(record), "is_shown": record.uri in stored} for record in found]


def _file(record: FileRecord) -> dict[str, Any]:
    return {
        "uri": line(record.uri, 2000),
        "lost": record.lost,
        **{name: getattr(record, name) for name in ("size", "sha256", "content_type")},
        "stored_at": iso(record.stored_at),
    }
