"""A clip: the task instances that work with a generation, and what the metadata database holds of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_vidu.common.values import mapping, moment, number, strict_int, text, whole
from airflow_provider_vidu.defaults import LONGEST_SECONDS
from airflow_provider_vidu.links import DRY_RUN_PREFIX, RESULT_KEY
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.ui.clips.pieces import FileRecord, newest_first, with_known
from airflow_provider_vidu.ui.clips.xcoms import (
    BESIDE,
    MAKING,
    PAYING,
    ROLES,
    STORES,
    decoded,
    generation_in,
    parameters_in,
    record_in,
)
from airflow_provider_vidu.ui.playing.shelf import Known

ENDED: Final = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
BETWEEN_TRIES: Final = (None, "restarting", "up_for_retry")
"""The states of a task instance with an id between two tries; a clear leaves none."""
UNBEGUN: Final = ("scheduled", "queued", "up_for_reschedule")
UNATTENDED: Final = timedelta(minutes=1)
"""A triggerer that runs and has room takes a wait up sooner than this."""
_PRODUCT = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}(?:/[a-z0-9_-]{1,60})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One task instance that works with a generation.

    ``generation_id`` is None where the task has published an id that cannot be read here (:func:`usable_id`).
    ``watch`` and ``fields`` (rendered) are what the database holds: any JSON value. ``fields``, ``generation`` and
    ``record`` are None where they were not read; ``is_too_large`` says that the result was omitted for its size.
    ``deferred_at`` is when a deferred task left the worker, ``attended_at`` when the triggerer that has taken it up was
    last heard of; None if there is none.
    ``number`` says which generation of the task it is (:func:`.links.published_number`), ``label`` is Airflow's
    rendered map index; ``is_served`` says that the result is the file of an equal order. ``has_result`` says that it
    has returned one, ``resumes`` that Airflow would go on with its try: it clears what that takes at the end of a try.
    ``max_tries`` is Airflow's counter, which a clear raises. ``iteration`` (from 0) and
    ``region_id`` place a task instance in a loop of Airflow 3.4, and are None outside loops; ``instance`` is its id if
    Airflow identifies it by that.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    generation_id: str | None
    announced_at: datetime | None = None
    state: str | None = None
    try_number: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    watch: Any = None
    fields: Any = field(default=None, repr=False)
    generation: Generation | None = field(default=None, repr=False)
    record: FileRecord | None = None
    result_at: datetime | None = None
    is_too_large: bool = False
    is_served: bool = False
    has_result: bool = False
    resumes: bool = False
    max_tries: int | None = None
    number: int = 1
    label: str | None = None
    deferred_at: datetime | None = None
    attended_at: datetime | None = None
    iteration: int | None = None
    region_id: str | None = None
    instance: Hashable | None = None

    @property
    def key(self) -> Hashable:
        """Its name within the run: its id, or task id and map index."""
        return self.instance or (self.task_id, self.map_index)

    @property
    def place(self) -> dict[str, Any]:
        """Its place in its run, from which its name and the address of its clip are made."""
        index = self.map_index if self.map_index >= 0 or self.iteration is None else self.iteration
        return {
            "task_id": self.task_id,
            "map_index": self.map_index,
            "iteration": self.iteration,
            "region_id": self.region_id,
            "region_index": index,
            **({"number": self.number} if self.number > 1 else {}),
        }

    @property
    def note(self) -> Mapping[str, Any]:
        """What the task has noted beside the id."""
        return mapping(decoded(self.watch))

    @property
    def role(self) -> str | None:
        """What the task does with the generation, as far as it reported."""
        role = self.note.get("role")
        return role if isinstance(role, str) and role in ROLES else None

    @property
    def keeps_result(self) -> bool:
        """Whether the task stores the clip itself and nothing beside it."""
        stores = self.role == "download" or (self.role in MAKING and self.note.get("stores") == STORES)
        return stores and str(self.note.get("artifact")) not in BESIDE

    @property
    def conn_id(self) -> str | None:
        """The connection of the generation: as the task noted it, or else in its rendered fields."""
        conn_id = text(self.note.get("conn_id")) or text(mapping(self.fields).get("vidu_conn_id"))
        return conn_id if conn_id and len(conn_id) <= 250 and conn_id.isprintable() else None

    @property
    def is_reuse(self) -> bool:
        """Whether it has submitted nothing: an equal order's generation or file serves it (``reuse="identical"``)."""
        return self.is_served or self.note.get("shared") is True

    @property
    def has_ended(self) -> bool:
        """Whether the task instance will do nothing more by itself."""
        return self.state in ENDED

    @property
    def was_marked(self) -> bool:
        """Whether it is a success for Airflow that lacks its result, or left its try open: a user may mark any task so.

        A task that keeps no result and has not deferred cannot be distinguished from one that has ended.
        """
        is_open = self.resumes or self.note.get("result") == RESULT_KEY
        return self.state == "success" and is_open and not self.has_result  # dag.test() leaves tries open as well

    @property
    def has_succeeded(self) -> bool:
        """Whether it has come to its end, and well, as far as Airflow knows.

        A task that is not in the DAG any more becomes ``removed`` when it is cleared, and keeps its result.
        """
        if self.state == "removed":
            return self.has_result
        return self.state == "success" and not self.was_marked

    @property
    def has_failed(self) -> bool:
        """Whether it has failed, or Airflow has removed it without a result of what it has submitted."""
        return self.state == "failed" or (self.state == "removed" and not self.has_result and self.role in PAYING)

    @property
    def begins_anew(self) -> bool:
        """Whether another try of it is to come, so that what is known here is of an earlier one."""
        noted = strict_int(self.note.get("try_number"))
        # Else Airflow resumes it, or pokes once more. A running one removes what it finds once it has read the DAG; one
        # whose worker does not find the DAG is up for reschedule.
        is_next = noted is not None and self.try_number > noted
        return self.state in BETWEEN_TRIES or (self.state in (*UNBEGUN, "running") and is_next)

    @property
    def was_cleared(self) -> bool | None:
        """Whether a clear leads to the try that is to come; None if that is not known, as of an earlier version."""
        if self.state == "restarting":  # cleared while it ran
            return True
        noted = strict_int(self.note.get("max_tries"))
        if noted is None or self.max_tries is None:
            return None if self.state is None else False
        return self.begins_anew and self.max_tries > noted

    @property
    def deadline(self) -> datetime | None:
        """When its timeout expires, as the task noted it."""
        return moment(self.note.get("deadline"))

    @property
    def poll_interval(self) -> float | None:
        """The seconds between its polls, as the task noted them."""
        seconds = number(self.note.get("poll_interval"))
        return seconds if seconds is not None and 0 < seconds <= LONGEST_SECONDS else None

    @property
    def waiting_since(self) -> datetime | None:
        """Since when it waits before its create; None once it has submitted."""
        return moment(self.note.get("waiting_since")) if self.generation_id is None else None

    @property
    def waits_for_prices(self) -> bool:
        """Whether that wait is for the prices of open generations, within its budget; else it is for a free slot."""
        return self.waiting_since is not None and self.note.get("for_prices") is True

    def is_unattended(self, now: datetime) -> bool:
        """Whether it has waited for a triggerer, or its own was silent, longer than one that runs would let it."""
        if self.state != "deferred" or self.deferred_at is None:
            return False
        return now - max(self.deferred_at, self.attended_at or self.deferred_at) > UNATTENDED

    def has_triggerer(self, now: datetime) -> bool | None:
        """Whether a triggerer runs its wait; None if it is not deferred, or its trigger has just ended."""
        if self.state != "deferred" or self.deferred_at is None:
            return None
        return self.attended_at is not None and not self.is_unattended(now)

    @property
    def is_adaptive(self) -> bool:
        """Whether the adaptive schedule decides when it polls."""
        return self.note.get("adaptive") is True

    @property
    def has_callback(self) -> bool:
        """Whether the service reports the end to it, so that the adaptive schedule polls seldom."""
        return self.is_adaptive and self.note.get("callback") is True

    @property
    def timed_out(self) -> bool:
        """Whether it ended without success after its deadline; a user may have marked it since."""
        ended_at, deadline = self.ended_at, self.deadline
        is_late = bool(ended_at and deadline and ended_at >= deadline)
        return is_late and (self.state in ("failed", "skipped") or self.was_marked)


@dataclass(frozen=True, slots=True)
class Action:
    """How a user ended a task: marked as ``failed``, ``success`` or ``skipped``, and whether that was of the run."""

    state: str
    at: datetime
    of_run: bool = False


@dataclass(frozen=True, slots=True)
class Clip:
    """A generation and all task instances of one DAG run that work with it, the earliest first.

    ``actions`` are how users ended its task (None: not looked up); ``usual`` is how many seconds other map
    indexes of its task took (the median), and how many these are; ``next_try`` is when :attr:`upcoming` may begin its
    next try, if that is known.
    """

    generation_id: str | None
    tasks: Sequence[TaskFacts]
    run_is_over: bool = False
    actions: Sequence[Action] | None = None
    usual: tuple[float, int] | None = None
    next_try: datetime | None = None

    @property
    def upcoming(self) -> TaskFacts | None:
        """The first task instance that Airflow begins once more by itself, or after a clear; rather not of a cover."""
        again = (task for task in self.tasks if task.begins_anew)
        return min(again, key=lambda task: task.role == "download" and not task.keeps_result, default=None)

    @property
    def marked(self) -> TaskFacts | None:
        """The first task instance that is a success for Airflow and has not come to its end."""
        return next((task for task in self.tasks if task.was_marked and task.role is not None), None)

    @property
    def dropped(self) -> TaskFacts | None:
        """The task instance that submitted the generation, if Airflow skipped or removed it before it had a result."""
        task = self.paying
        is_dropped = task is not None and task.state in ("skipped", "removed") and not task.has_result
        return task if is_dropped and not self.is_dry_run else None

    @property
    def main(self) -> TaskFacts:
        """The task instance that represents the clip: the first one that published its id."""
        return self.tasks[0]

    @property
    def is_dry_run(self) -> bool:
        """Whether nothing was submitted: the id stands for none that a service has."""
        return self.generation_id is not None and self.generation_id.startswith(DRY_RUN_PREFIX)

    @property
    def kills(self) -> Sequence[Action]:
        """How users ended the task since the generation was submitted, the newest first."""
        since = self.main.announced_at
        return [action for action in self.actions or () if since is None or action.at >= since]

    @property
    def paying(self) -> TaskFacts | None:
        """The task instance that submitted the generation; None where it is in another run."""
        return next((task for task in self.tasks if task.role in PAYING), None)

    @property
    def reusing(self) -> TaskFacts | None:
        """The first task instance that reuses the generation of an equal order; None if there is none."""
        return next((task for task in self.tasks if task.is_reuse), None)

    @property
    def credits(self) -> int | float | None:
        """What the answer to the create named as its price."""
        noted = (whole(task.note.get("credits")) for task in self.tasks)
        return max((found for found in noted if found is not None and 0 <= found < 10**9), default=None)

    @property
    def conn_id(self) -> str | None:
        """The connection of the generation."""
        return next((task.conn_id for task in self.tasks if task.conn_id), None)

    @property
    def created_at(self) -> datetime | None:
        """When it was submitted, by the answer to the create, or by the order."""
        noted = (moment(task.note.get("created_at")) for task in self.tasks)
        return next((at for at in noted if at), None)

    @property
    def endpoint(self) -> str | None:
        """Where it was submitted, by the name of a product: some have a query of their own.

        Not a path: it comes from an XCom, and the API server's query carries the connection's key.
        """
        noted = (task.note.get("endpoint") for task in self.tasks)
        return next((name for name in noted if isinstance(name, str) and _PRODUCT.fullmatch(name)), None)

    @property
    def result(self) -> tuple[Generation, datetime | None] | None:
        """The newest generation among the results, done ones before others, with the time it was stored."""
        found = [(task.generation, task.result_at) for task in self.tasks if task.generation is not None]
        found.sort(key=lambda pair: (pair[0].is_done, pair[1].timestamp() if pair[1] else 0.0))
        return found[-1] if found else None

    @property
    def records(self) -> list[FileRecord]:
        """The files that downloads have stored of it, the newest first; covers among them."""
        return newest_first(task.record for task in self.tasks if task.record is not None)

    def with_known(self, known: Mapping[str, Known]) -> Clip:
        """Return the clip with what looks at its files have shown, by their URIs."""
        tasks = [
            task if task.record is None else replace(task, record=with_known(task.record, known)) for task in self.tasks
        ]
        return replace(self, tasks=tasks)

    def is_unattended(self, now: datetime) -> bool:
        """Whether one of its tasks waits in vain for a triggerer."""
        return any(task.is_unattended(now) for task in self.tasks)

    @property
    def stage(self) -> str:
        """How far it is by the tasks' states alone, as the sheet's filter has it: once all have ended, none goes on."""
        if any(task.keeps_result and task.has_succeeded for task in self.tasks):
            return "stored"
        if any((task.role in MAKING or self.is_dry_run) and task.has_succeeded for task in self.tasks):
            return "ready"
        if not all(task.has_ended for task in self.tasks):
            return "working"
        return "failed" if any(task.has_failed for task in self.tasks) else "submitted"


def grouped(tasks: Iterable[TaskFacts], *, run_is_over: bool = False) -> list[Clip]:
    """Return the clips of a run: task instances of one generation together, mapped ones in their order.

    Task instances whose id is not known are clips of their own.
    """
    groups: dict[object, list[TaskFacts]] = {}
    for task in tasks:
        groups.setdefault(task.generation_id or (task.key, task.number), []).append(task)
    clips = [Clip(group[0].generation_id, sorted(group, key=_age), run_is_over) for group in groups.values()]
    began: dict[str, float] = {}
    for clip in clips:
        name = clip.main.task_id
        began[name] = min(began.get(name, _age(clip.main)[0]), _age(clip.main)[0])
    return sorted(clips, key=lambda clip: (began[clip.main.task_id], *_age(clip.main)[1:]))


def _age(task: TaskFacts) -> tuple[float, str, int, int, int]:
    since = task.announced_at.timestamp() if task.announced_at else float("inf")
    iteration = -1 if task.iteration is None else task.iteration
    return since, task.task_id, iteration, task.map_index, task.number


def with_result(task: TaskFacts, value: Any, at: datetime | None) -> TaskFacts:
    """Return the task with what its return value says of its generation, and no more of it than the pages show.

    :param value: the return value as stored in the database: any JSON value.
    :param at: when it was stored.
    """
    value = decoded(value)
    if task.generation_id is None or not isinstance(value, Mapping):
        return replace(task, result_at=at)
    generation, record = None, None
    if value.get("id") == task.generation_id:
        generation = generation_in(value)
        if parameters := parameters_in(value.get("parameters")):
            task = replace(task, fields={**mapping(task.fields), "parameters": parameters})
    # A download returns the record of its file; a generate task with a destination has it in its result.
    for holder in (mapping(value.get("file")), value):
        if holder.get("generation_id") == task.generation_id:
            record = record_in(holder, task.note.get("artifact"), at, is_kept=task.note.get("existed") is True)
    if (is_served := text(value.get("reused_from")) is not None) and record is not None:
        record = replace(record, stored_at=None)  # an equal order may have stored it long before
    return replace(task, generation=generation, record=record, result_at=at, is_served=is_served)
