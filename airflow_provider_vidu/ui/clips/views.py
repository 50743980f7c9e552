"""What the pages show of a clip, as plain JSON: no URL of the service in it, every text cut and redacted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_vidu.api.dialects.errors import failure_advice
from airflow_provider_vidu.common.text import redacted, redacted_lines
from airflow_provider_vidu.common.values import whole
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.ui.clips.facts import MAKING, MAX_TEXT_CHARS, Clip, TaskFacts, model_of, prompt_of
from airflow_provider_vidu.ui.clips.pieces import Piece, Record, pieces_of

URL_LIFE: Final = timedelta(hours=24)
"""How long the service's URLs live at the most."""
SURE_URL_LIFE: Final = timedelta(minutes=45)
"""How long they live at the least: some products hand out an hour."""

REFRESH_SECONDS: Final = 5
SLOW_REFRESH_SECONDS: Final = 15


@dataclass(frozen=True, slots=True)
class Live:
    """What the service last said: a generation or an error, and when.

    ``running_since`` and ``done_since`` are when this server first saw it so: the service does not always say.
    """

    generation: Generation | None = None
    error: ViduError | None = None
    asked_at: datetime | None = None
    running_since: datetime | None = None
    done_since: datetime | None = None


NOT_ASKED: Final = Live()


@dataclass(frozen=True, slots=True)
class Source:
    """Where a video or cover can be played from: ``storage``, ``service``, or nowhere for a ``reason``."""

    kind: str | None
    reason: str | None = None


def must_ask(clip: Clip) -> bool:
    """Whether only the service knows how far the generation is: no result holds its end yet."""
    result = clip.result
    return may_ask(clip) and not (result and result[0].is_done)


def may_ask(clip: Clip) -> bool:
    """Whether the service can be queried: both the id and the connection are known."""
    return clip.generation_id is not None and clip.conn_id is not None


def url_of(generation: Generation | None, piece: Piece, *, cover: bool) -> str | None:
    """Return the service's URL of a piece or of its cover, whether still valid or not."""
    if generation is None or not generation.succeeded or piece.creation is None:
        return None
    return generation.url_of("cover" if cover else None, piece.creation)


def is_surely_fresh(url: str, since: datetime | None, now: datetime) -> bool:
    """Whether a URL of that age is valid beyond doubt, and whole (a signature stands in the query)."""
    return since is not None and now - since < SURE_URL_LIFE and "?" in url


def may_be_valid(since: datetime | None, now: datetime) -> bool:
    """Whether a URL of that age may still be valid."""
    return since is not None and now - since < URL_LIFE


def pieces(clip: Clip, live: Live) -> list[Piece]:
    """Return what there is to see and hear of a clip; one piece at the least."""
    return pieces_of(clip.records, _generation(clip, live)) or [Piece(0)]


def source_of(
    clip: Clip, live: Live, piece: Piece, *, stored: Mapping[str, str | None], cover: bool, now: datetime
) -> Source:
    """Decide where a piece or its cover is played from.

    :param stored: the stored files beneath one of the deployment's preview roots, by URI.
    """
    if any(record.uri in stored for record in files_of(clip, piece, cover=cover)):
        return Source("storage")
    _, since = clip.result or (None, None)
    generation = _generation(clip, live)
    if generation is None or not generation.succeeded:
        return Source(None)
    if url_of(generation, piece, cover=cover) is None:
        return Source(None, None if cover else "The service reports success, but it handed out no file.")
    if live.generation or may_ask(clip) or may_be_valid(since, now):
        return Source("service")
    return Source(None, expired(clip))


def files_of(clip: Clip, piece: Piece, *, cover: bool) -> Sequence[Record]:
    """Return the stored files of a piece, or the stored covers where it is the first one."""
    if not cover:
        return piece.records
    return [record for record in clip.records if record.is_cover] if not piece.creation else []


def _generation(clip: Clip, live: Live) -> Generation | None:
    return live.generation or (clip.result[0] if clip.result else None)


def expired(clip: Clip) -> str:
    """Say that the service's URL has expired and where the file is, in one or two sentences."""
    message = "The service's link to this clip has expired (links live for at most a day)."
    if records := [record for record in clip.records if not record.is_cover]:
        return f"{message} The file is kept at {redacted(records[0].uri, 400)}."
    return f"{message} No task of this run has stored the clip."


def clip_view(
    clip: Clip, task: TaskFacts, live: Live, *, stored: Mapping[str, str | None], now: datetime
) -> dict[str, Any]:
    """Return all that the page of one clip shows.

    :param task: the task instance whose page it is.
    :param live: what the service said, where it was queried.
    :param stored: the stored files that may be shown, by URI, with their proven content type where it was read.
    """
    generation = _generation(clip, live)
    done = bool(generation and generation.is_done)
    prompts = (prompt_of(clip, generation), generation and generation.enhanced_prompt)
    prompt, enhanced = (redacted_lines(found or "", MAX_TEXT_CHARS) or None for found in prompts)
    return {
        **card_view(clip, live, stored=stored, now=now),
        "task": _task(task),
        "conn_id": _line(clip.conn_id),
        "provider_status": _line(generation.provider_status) if generation else None,
        "prompt": prompt,
        "enhanced_prompt": enhanced if enhanced != prompt else None,
        "pieces": [_piece(clip, live, piece, stored=stored, now=now) for piece in pieces(clip, live)],
        "files": [_file(record) for record in sorted(clip.records, key=lambda record: record.is_cover)],
        "timeline": _timeline(clip, generation, live),
        "tasks": [_task(each) for each in clip.tasks],
        "done": done,
        "asked_at": _iso(live.asked_at),
        "refresh": _refresh(clip, done=done),
    }


def card_view(clip: Clip, live: Live, *, stored: Mapping[str, str | None], now: datetime) -> dict[str, Any]:
    """Return what the contact sheet shows of a clip."""
    generation = _generation(clip, live)
    status = generation.status if generation else None
    main, first = clip.main, pieces(clip, live)[0]
    return {
        "generation_id": _line(clip.generation_id, 300),
        **main.place,
        "prompt": _line(prompt_of(clip, generation), 300),
        "model": _line(model_of(clip, generation)),
        "credits": generation.credits if generation else None,
        "state": _state(clip, status),
        "stage": clip.stage,
        "progress": generation.progress if generation and not generation.is_done else None,
        "error": _failure(generation, clip),
        "notice": _notice(clip, live),
        "medium": first.medium(stored),
        "can_play": source_of(clip, live, first, stored=stored, cover=False, now=now).kind is not None,
        "has_cover": source_of(clip, live, first, stored=stored, cover=True, now=now).kind is not None,
    }


def _piece(clip: Clip, live: Live, piece: Piece, *, stored: Mapping[str, str | None], now: datetime) -> dict[str, Any]:
    source = source_of(clip, live, piece, stored=stored, cover=False, now=now)
    made = piece.artifact
    return {
        "medium": piece.medium(stored),
        "from": source.kind,
        "reason": source.reason,
        "has_cover": source_of(clip, live, piece, stored=stored, cover=True, now=now).kind is not None,
        "name": _line(redacted(piece.records[0].uri, 4096).rpartition("/")[2], 120) if piece.records else None,
        **{name: whole(getattr(made, name)) if made else None for name in ("duration", "fps", "width", "height")},
    }


def _state(clip: Clip, status: GenerationStatus | None) -> str:
    """Return ``stored``, ``succeeded``, ``failed``, ``running``, ``waiting``, ``unknown``: one word for the badge."""
    if clip.stage == "stored":
        return "stored"
    if status is not None:
        return status.value
    return "failed" if clip.stage == "failed" else "unknown"


def _failure(generation: Generation | None, clip: Clip) -> dict[str, Any] | None:
    if generation is not None and generation.failed:
        code = _line(generation.error_code)
        return {
            "title": "The generation failed",
            "code": code,
            "message": _line(generation.error_message, 1000) or ("" if code else "The service gave no reason."),
            "advice": failure_advice(generation),
        }
    lost = [task for task in clip.tasks if task.state in ("failed", "upstream_failed") and task.role is not None]
    if not lost or clip.stage in ("stored", "working"):
        return None
    failed = lost[0]
    if failed.role == "download":
        return {
            "title": "The clip is not stored",
            "code": None,
            "message": f"The task {_line(failed.task_id)} failed; its log says why.",
            "advice": "Clear that task: the clip is paid for, and downloading it again costs nothing.",
        }
    return {
        "title": "The task failed",
        "code": None,
        "message": f"The task {_line(failed.task_id)} failed; its log says why. The generation itself may live on.",
        "advice": "",
    }


def _notice(clip: Clip, live: Live) -> dict[str, str] | None:
    """Say in plain words why the state is not known, and nothing of the connection that its readers may not see."""
    if live.error is not None:
        # The class's words, not the error's own: host, port and type of a connection are not for every reader.
        return {"message": live.error.advice, "advice": "The page retries." if live.error.retryable else ""}
    if clip.generation_id is None:
        return {
            "message": "The id of the generation is kept by this deployment's XCom back end and cannot be read here.",
            "advice": "The API server needs the settings of the back end, its packages and access to its store.",
        }
    if any(task.is_too_large for task in clip.tasks) and live.generation is None and not clip.result:
        return {"message": "The result of the task is too large, or kept where it cannot be read here.", "advice": ""}
    if clip.conn_id or clip.result:
        return None
    return {"message": "The state is not known: no task has named the connection to ask.", "advice": ""}


def _timeline(clip: Clip, generation: Generation | None, live: Live) -> list[dict[str, Any]]:
    """Return the steps of a clip with their times, and whether these are facts or only when a page saw it."""
    records = [record for record in clip.records if not record.is_cover]
    status = generation.status if generation else None
    done = bool(generation and generation.is_done)
    queued = _queued_at(clip, generation)
    running = _Time(live.running_since, is_exact=False)
    if running.at is not None and queued.at is not None and running.at < queued.at:
        running = _NO_TIME
    ended = _ended_at(clip, generation, live) if generation and done else _NO_TIME
    failed = status is GenerationStatus.FAILED
    reached = {
        "queued": True,
        # The service does not say when it began: a row without a time says nothing once it is over.
        **({"running": done or status is GenerationStatus.RUNNING} if running.at or not done else {}),
        "failed" if failed else "done": done,
        **({} if failed else {"stored": bool(records)}),
    }
    stored = _Time(records[0].stored_at) if records else _NO_TIME
    times = {"queued": queued, "running": running, "done": ended, "failed": ended, "stored": stored}
    return _with_durations([(name, times[name], is_reached) for name, is_reached in reached.items()])


@dataclass(frozen=True, slots=True)
class _Time:
    """A moment; one that is not exact is when it was seen, and it happened before."""

    at: datetime | None
    is_exact: bool = True


_NO_TIME: Final = _Time(None)


def _with_durations(steps: list[tuple[str, _Time, bool]]) -> list[dict[str, Any]]:
    shown_steps: list[dict[str, Any]] = []
    before: datetime | None = None
    current = max((index for index, (_, _, reached) in enumerate(steps) if reached), default=0)
    for index, (name, time, reached) in enumerate(steps):
        exact = time.at if time.is_exact else None
        seconds = (exact - before).total_seconds() if exact and before else None
        shown_steps.append(
            {
                "name": name,
                "at": _iso(time.at),
                "is_exact": time.is_exact,
                "seconds": max(round(seconds, 1), 0) if seconds is not None else None,
                "reached": reached,
                "current": index == current,
            }
        )
        before = exact or before
    return shown_steps


def _queued_at(clip: Clip, generation: Generation | None) -> _Time:
    created_at = (generation.created_at if generation else None) or clip.created_at
    return _Time(created_at) if created_at else _Time(clip.main.announced_at, is_exact=False)


def _ended_at(clip: Clip, generation: Generation, live: Live) -> _Time:
    """Return when the generation ended: as the service says, or the earliest time by which it had ended."""
    if ended_at := generation.completed_at or generation.updated_at:
        return _Time(ended_at)
    waited = [task.ended_at for task in clip.tasks if task.role in MAKING and task.has_ended]
    known = [clip.result[1] if clip.result else None, live.done_since, *waited]
    return _Time(min((at for at in known if at), default=None), is_exact=False)


def _refresh(clip: Clip, *, done: bool) -> int | None:
    """Return after how many seconds the page should ask again; None when nothing will change by itself."""
    busy = any(not task.has_ended for task in clip.tasks)
    if clip.run_is_over and (done or not may_ask(clip)):
        return None
    # While the run goes on, a download may be about to start: it has announced nothing yet.
    return REFRESH_SECONDS if busy or not done else SLOW_REFRESH_SECONDS


def _task(task: TaskFacts) -> dict[str, Any]:
    return {**task.place, **{name: getattr(task, name) for name in ("state", "try_number", "role")}}


def _file(record: Record) -> dict[str, Any]:
    return {
        "uri": _line(record.uri, 2000),
        **{name: getattr(record, name) for name in ("size", "sha256", "content_type")},
        "stored_at": _iso(record.stored_at),
    }


def _line(value: Any, limit: int = 200) -> str | None:
    return redacted(value, limit) or None if value is not None else None


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
