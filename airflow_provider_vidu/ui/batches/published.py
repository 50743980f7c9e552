"""The batches of a DAG run, as their tasks have published them; reads the metadata database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import String, cast, func, literal, select

from airflow_provider_vidu.common.values import mapping, text, whole
from airflow_provider_vidu.links import BATCH_KEY, RESULT_KEY
from airflow_provider_vidu.ui.clips.facts import TaskFacts
from airflow_provider_vidu.ui.clips.xcoms import note_in, parsed
from airflow_provider_vidu.ui.records.absences import NoRunError, NoTaskError
from airflow_provider_vidu.ui.records.circumstances import next_tries
from airflow_provider_vidu.ui.records.earlier_tries import earlier_task_in, of_earlier_tries, with_next
from airflow_provider_vidu.ui.records.instances import (
    HAS_REGIONS,
    TASK_COLUMNS,
    is_there,
    of_run,
    same_task,
    stands_at,
    task_in,
    with_trigger,
)
from airflow_provider_vidu.ui.records.references import UNKNOWN, Resolver
from airflow_provider_vidu.ui.records.store import MAX_MAP_INDEX

MAX_BATCHES: Final = 20
"""The most batches of a run that its sheet lists."""
MAX_PLACE_CHARS: Final = 10_000
MAX_NAME_CHARS: Final = 300


class DryRunError(LookupError):
    """A task has no batch because it was a dry run."""


class UnreadableError(LookupError):
    """A task has a batch, and what names it is kept where it cannot be read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The batch of a task instance.

    :param task: the task instance, without a generation.
    :param name: the batch's name, a plain file name.
    :param folder: the URI of its files' folder, with a slash at its end.
    :param manifest: the URI of its manifest.
    :param conn_id: its connection.
    :param rows: how many rows it has.
    :param next_try: when its task may begin its next try, if it is up for retry and that is known.
    :param waits_for: what its last leg has left its next rows to wait for: ``prices``, ``slot``, or nothing.
    :param removed: how many rows it has begun that are no longer among those of its task.
    :param unwanted: the names of those for whose generations it does not wait.
    :param is_shared: whether other task instances have run it, too, so that rows may be theirs.
    """

    task: TaskFacts
    name: str
    folder: str
    manifest: str
    conn_id: str | None
    rows: int
    next_try: datetime | None = None
    waits_for: str | None = None
    removed: int = 0
    unwanted: frozenset[str] = frozenset()
    is_shared: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its task will do nothing more by itself."""
        return self.task.has_ended

    @property
    def is_unattended(self) -> bool:
        """Whether it has waited for a triggerer longer than one that runs would let it."""
        return self.task.is_unattended(datetime.now(UTC))

    @property
    def path(self) -> str:
        """The part of its page's address behind the task's."""
        return "/batch"


def read_batches(dag_id: str, run_id: str) -> Sequence[Batch]:
    """Return the batches of a run, the earliest first; runs in a thread."""
    return _batches(dag_id, run_id, literal(True))


def read_batch(dag_id: str, run_id: str, task_id: str, index: int, region_id: UUID | None) -> Batch | None:
    """Return the batch of a task instance; None if it has none. Runs in a thread.

    :param index: the map index (-1 if not mapped), or the index within the region.
    :param region_id: the region of a task instance in a loop.
    :raises DryRunError: when it has none because it was a dry run.
    :raises UnreadableError: when an XCom back end keeps what names it, and cannot be read.
    :raises NoTaskError: when the run has no such task instance; NoRunError when there is no such run.
    """
    # Some databases reject such values with an error.
    if not -1 <= index <= MAX_MAP_INDEX or "\0" in dag_id + run_id + task_id:
        return None
    where = stands_at(task_id, index, region_id)
    found = next(iter(_batches(dag_id, run_id, where)), None)
    if found is not None:
        return found
    if any(value is UNKNOWN for _, value in _read(dag_id, run_id, BATCH_KEY, where)):
        raise UnreadableError(task_id)
    if any(_is_dry_run(result) for _, result in _read(dag_id, run_id, RESULT_KEY, where)):
        raise DryRunError(task_id)
    with create_session() as session:
        if not is_there(session, dag_id, run_id, task_id, index, region_id):
            run = session.scalar(select(DagRun.state).where(*of_run(DagRun, dag_id, run_id)))
            raise NoRunError(run_id) if run is None else NoTaskError(task_id)
    return None


def _is_dry_run(result: Any) -> bool:
    """Whether a result is what a dry run of a batch returns; that of a single generation names no batch."""
    return mapping(result).get("dry_run") is True and text(mapping(result).get("batch")) is not None


def _batches(dag_id: str, run_id: str, where: Any) -> list[Batch]:
    named = (batch_of(task, value) for task, value in _read(dag_id, run_id, BATCH_KEY, where))
    found = [batch for batch in named if batch is not None]
    if not any(batch.task.state == "up_for_retry" for batch in found):
        return found
    with create_session() as session:
        at = next_tries(session, [batch.task for batch in found])
    return [replace(batch, next_try=at.get(batch.task.key)) for batch in found]


def _read(dag_id: str, run_id: str, key: str, where: Any) -> list[tuple[TaskFacts, Any]]:
    """Return the task instances that have published a small value under a key, with it."""
    if "\0" in dag_id + run_id:  # some databases reject it with an error
        return []
    stored = cast(XComModel.value, String)
    query = (
        with_trigger(
            select(*TASK_COLUMNS, XComModel.timestamp, stored.label("text")).join(
                TaskInstance, same_task(XComModel, TaskInstance)
            )
        )
        .where(
            *of_run(XComModel, dag_id, run_id),
            XComModel.key == key,
            func.length(stored) <= MAX_PLACE_CHARS,
            where,
        )
        .order_by(TaskInstance.start_date, XComModel.task_id, TaskInstance.map_index)
        .limit(MAX_BATCHES)
    )
    resolver = Resolver(dag_id, run_id)
    with create_session() as session:
        rows = [(row, task_in(row)) for row in session.execute(query)]
        if HAS_REGIONS and len(rows) < MAX_BATCHES:
            waiting = session.execute(with_next(of_earlier_tries(query, key)).limit(MAX_BATCHES - len(rows)))
            # Of its row, only when the next try begins is read.
            rows += [(row, {**earlier_task_in(row), "instance": row.next_instance}) for row in waiting]
        return [
            (
                _task(TaskFacts(dag_id, run_id, generation_id=None, **facts)),
                resolver.value(parsed(row.text), row.timestamp),
            )
            for row, facts in rows
        ]


def _task(task: TaskFacts) -> TaskFacts:
    """Return a task instance without the end of its last leg, if it goes on."""
    return task if task.has_ended else replace(task, ended_at=None)


def batch_of(task: TaskFacts, value: Any) -> Batch | None:
    """Return the batch that a task's XCom names; None if it names none. The author of a DAG may write it."""
    known = mapping(value)
    name, folder, manifest = (text(known.get(part)) for part in ("batch", "folder", "manifest"))
    if not name or not folder or not manifest or "/" in name or len(name) > MAX_NAME_CHARS:
        return None
    conn_id, rows = text(known.get("conn_id")), whole(known.get("rows"))
    task = replace(task, watch=note_in(known))
    # A leg that runs decides again.
    waits_for = known.get("waits_for") if task.state == "deferred" else None
    unwanted = known.get("unwanted")
    return Batch(
        *(task, name, folder.rstrip("/") + "/", manifest, conn_id, max(int(rows or 0), 0)),
        waits_for=waits_for if waits_for in ("prices", "slot") else None,
        removed=max(int(whole(known.get("removed")) or 0), 0),
        unwanted=frozenset(name for name in (unwanted if isinstance(unwanted, list) else ()) if isinstance(name, str)),
    )
