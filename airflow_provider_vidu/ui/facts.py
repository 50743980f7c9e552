"""What the metadata database knows of a clip, read safely: XComs are written by whoever writes a DAG. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from airflow_provider_vidu.dialects import checked_id
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.text import shown
from airflow_provider_vidu.values import mapping, percent, text, whole

MAX_TEXT_CHARS: Final = 20_000
ENDED: Final = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_FETCHED: Final = ("video", "watermarked", None)


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One task instance that works with a generation.

    ``watch``, ``result`` and ``fields`` (rendered) are what the database holds: anything at all. ``result`` and
    ``fields`` are None where they were not read.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    generation_id: str
    announced_at: datetime | None = None
    state: str | None = None
    try_number: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    watch: Any = None
    result: Any = field(default=None, repr=False)
    result_at: datetime | None = None
    fields: Any = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, int]:
        """Task id and map index: its name within the run."""
        return self.task_id, self.map_index

    @property
    def role(self) -> str | None:
        """What the task does with the generation, as far as it told."""
        return _known(mapping(self.watch).get("role"), ("generate", "submit", "wait", "download"))

    @property
    def keeps_video(self) -> bool:
        """Whether the task stores the clip itself and not its cover."""
        return self.role == "download" and mapping(self.watch).get("artifact") in _FETCHED

    @property
    def conn_id(self) -> str | None:
        """The connection that knows the generation: told by the task, or else in its rendered fields."""
        told = text(mapping(self.watch).get("conn_id")) or text(mapping(self.fields).get("vidu_conn_id"))
        return told if told and len(told) <= 250 and told.isprintable() else None

    @property
    def has_ended(self) -> bool:
        """Whether the task instance will do nothing more by itself."""
        return self.state in ENDED

    def generation(self) -> Generation | None:
        """Return the result, when it is a generation of this very id."""
        value = decoded(self.result)
        if not isinstance(value, Mapping) or value.get("id") != self.generation_id:
            return None
        try:
            return _sane(Generation.model_validate(value))
        except (ValidationError, RecursionError):
            return None

    def record(self) -> Record | None:
        """Return the result, when it is the record of a stored file of this generation."""
        value = decoded(self.result)
        if not isinstance(value, Mapping) or value.get("generation_id") != self.generation_id:
            return None
        uri, size, sha256 = value.get("uri"), value.get("size"), value.get("sha256")
        if not isinstance(uri, str) or not uri or len(uri) > 4096 or not isinstance(size, int) or size < 0:
            return None
        return Record(
            uri=uri,
            size=size,
            sha256=sha256 if isinstance(sha256, str) and len(sha256) == 64 and sha256.isalnum() else None,
            content_type=shown(value.get("content_type") or "", 80) or None,
            stored_at=self.result_at,
        )


@dataclass(frozen=True, slots=True)
class Record:
    """A file that a download has stored, as it has told."""

    uri: str
    size: int
    sha256: str | None
    content_type: str | None
    stored_at: datetime | None

    @property
    def is_cover(self) -> bool:
        """Whether it is a picture (an animated result counts as a clip)."""
        kind = self.content_type or ""
        return kind.startswith("image/") and kind not in ("image/gif", "image/webp")


@dataclass(frozen=True, slots=True)
class Clip:
    """A generation and all task instances of one DAG run that work with it, the earliest first."""

    generation_id: str
    tasks: Sequence[TaskFacts]
    run_is_over: bool = False

    @property
    def main(self) -> TaskFacts:
        """The task instance that stands for the clip: the one that knew it first."""
        return self.tasks[0]

    @property
    def conn_id(self) -> str | None:
        """The connection that knows the generation."""
        return next((task.conn_id for task in self.tasks if task.conn_id), None)

    @property
    def result(self) -> tuple[Generation, datetime | None] | None:
        """The newest generation among the results, done ones before others, with the time it was stored."""
        found = [(made, task.result_at) for task in self.tasks if (made := task.generation())]
        found.sort(key=lambda pair: (pair[0].is_done, pair[1].timestamp() if pair[1] else 0.0))
        return found[-1] if found else None

    def records(self, *, cover: bool) -> list[Record]:
        """Return the stored files, the newest first: the pictures, or else the clips."""
        found = [record for task in self.tasks if (record := task.record()) and record.is_cover == cover]
        return sorted(found, key=lambda record: record.stored_at.timestamp() if record.stored_at else 0.0, reverse=True)

    @property
    def stage(self) -> str:
        """Return how far it is by the tasks' states alone: ``stored``, ``ready``, ``failed`` or ``working``."""
        if any(task.keeps_video and task.state == "success" for task in self.tasks):
            return "stored"
        made = [task for task in self.tasks if task.role in ("generate", "wait")]
        if any(task.state == "success" for task in made):
            return "ready"
        ended = [task for task in self.tasks if task.has_ended]
        if any(task.state == "failed" for task in ended) and len(ended) == len(self.tasks):
            return "failed"
        return "working"


def grouped(tasks: Iterable[TaskFacts], *, run_is_over: bool = False) -> list[Clip]:
    """Return the clips of a run: task instances of one generation together, mapped ones in their order."""
    groups: dict[str, list[TaskFacts]] = {}
    for task in tasks:
        groups.setdefault(task.generation_id, []).append(task)
    clips = [Clip(generation_id, sorted(group, key=_age), run_is_over) for generation_id, group in groups.items()]
    began: dict[str, float] = {}
    for clip in clips:
        name = clip.main.task_id
        began[name] = min(began.get(name, _age(clip.main)[0]), _age(clip.main)[0])
    return sorted(clips, key=lambda clip: (began[clip.main.task_id], clip.main.task_id, clip.main.map_index))


def _age(task: TaskFacts) -> tuple[float, str, int]:
    told = task.announced_at.timestamp() if task.announced_at else float("inf")
    return told, task.task_id, task.map_index


def usable_id(value: Any) -> str | None:
    """Return the id in an XCom, or None where it holds none that could be asked for."""
    try:
        return checked_id(decoded(value))
    except ViduConfigError:
        return None


def decoded(value: Any) -> Any:
    """Return an XCom's value; what some versions store is its JSON as text."""
    if isinstance(value, str) and value[:1] in ('"', "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def prompt_of(clip: Clip) -> str | None:
    """Return the prompt as the task that submitted it had it rendered, or as the service repeats it."""
    for task in clip.tasks:
        fields = mapping(task.fields)
        for holder in (fields, mapping(decoded(fields.get("body"))), mapping(decoded(fields.get("parameters")))):
            if found := text(holder.get("prompt")):
                return found
    result = clip.result
    return text(result[0].raw.get("prompt")) if result else None


def model_of(clip: Clip, generation: Generation | None) -> str | None:
    """Return the model: as the service names it, or as it was asked for."""
    if generation and generation.model:
        return generation.model
    asked = (
        mapping(holder).get("model")
        for task in clip.tasks
        for holder in (task.fields, decoded(mapping(task.fields).get("body")))
    )
    return next((found for value in asked if (found := text(value))), None)


def _sane(generation: Generation) -> Generation:
    """Return a generation whose numbers are finite and whose times can be compared."""
    times = {name: _aware(getattr(generation, name)) for name in ("created_at", "updated_at", "completed_at")}
    numbers = {"credits": whole(generation.credits), "progress": percent(generation.progress)}
    return generation.model_copy(update={**times, **numbers})


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _known(value: Any, words: tuple[str, ...]) -> str | None:
    return value if isinstance(value, str) and value in words else None
