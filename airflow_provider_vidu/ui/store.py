"""Reading the metadata database for the pages; runs in the API server only, in its thread pool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import String, and_, cast, or_, select
from sqlalchemy.orm import Session

from airflow_provider_vidu.defaults import ID_KEY
from airflow_provider_vidu.links import WATCH_KEY
from airflow_provider_vidu.ui.facts import Clip, TaskFacts, grouped, usable_id

RETURN_KEY: Final = "return_value"
MAX_TASKS: Final = 10_000
"""The most task instances of a run that a contact sheet looks at."""
MAX_RELATIVES: Final = 50
"""The most task instances of one clip; more would be somebody's joke."""
_OVER: Final = frozenset({"success", "failed"})


@dataclass(frozen=True, slots=True)
class Page:
    """One task instance's clip, with the map indexes before and after it that have one too."""

    clip: Clip
    task: TaskFacts
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """All clips of a run, without results; ``is_cut`` when there are more tasks than are looked at."""

    clips: Sequence[Clip]
    is_cut: bool
    is_over: bool


def read_page(dag_id: str, run_id: str, task_id: str, map_index: int) -> Page | None:
    """Return the clip of a task instance; None when there is no such task instance or it has no id (yet)."""
    with create_session() as session:
        own = _announced(session, dag_id, run_id, [(task_id, map_index)])
        if not own:
            return None
        generation_id = own[0].generation_id
        spelt = {json.dumps(generation_id), json.dumps(generation_id, ensure_ascii=False)}
        # As text: how a database compares JSON with JSON differs from one to the next.
        relatives = _tasks(session, dag_id, run_id, cast(XComModel.value, String).in_(spelt), limit=MAX_RELATIVES)
        if all(task.key != own[0].key for task in relatives):
            relatives.append(own[0])
        full = _with_results(session, [task for task in relatives if task.generation_id == generation_id])
        (clip,) = grouped(full, run_is_over=_is_over(session, dag_id, run_id))
        task = next(task for task in full if task.key == own[0].key)
        before, after = _neighbours(session, task)
        return Page(clip, task, before, after)


def read_sheet(dag_id: str, run_id: str) -> Sheet | None:
    """Return the clips of a run by their tasks alone; None when there is no such run."""
    with create_session() as session:
        state = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if state is None:
            return None
        tasks = _tasks(session, dag_id, run_id, limit=MAX_TASKS + 1)
        is_over = str(state) in _OVER
        return Sheet(grouped(tasks[:MAX_TASKS], run_is_over=is_over), len(tasks) > MAX_TASKS, is_over)


def with_results(clips: Iterable[Clip]) -> list[Clip]:
    """Return the same clips with their results and rendered fields: for the few that are shown at a time."""
    with create_session() as session:
        return [replace(clip, tasks=_with_results(session, clip.tasks[:MAX_RELATIVES])) for clip in clips]


def _announced(session: Session, dag_id: str, run_id: str, keys: Iterable[tuple[str, int]]) -> list[TaskFacts]:
    return _tasks(session, dag_id, run_id, _are(XComModel, keys), limit=MAX_RELATIVES)


def _tasks(session: Session, dag_id: str, run_id: str, *where: Any, limit: int) -> list[TaskFacts]:
    """Return the task instances of a run that have published an id."""
    query = (
        select(
            XComModel.task_id,
            XComModel.map_index,
            XComModel.value,
            XComModel.timestamp,
            TaskInstance.state,
            TaskInstance.try_number,
            TaskInstance.start_date,
            TaskInstance.end_date,
        )
        .join(
            TaskInstance,
            and_(
                TaskInstance.dag_id == XComModel.dag_id,
                TaskInstance.run_id == XComModel.run_id,
                TaskInstance.task_id == XComModel.task_id,
                TaskInstance.map_index == XComModel.map_index,
            ),
        )
        .where(XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == ID_KEY, *where)
        .order_by(XComModel.timestamp, XComModel.task_id, XComModel.map_index)
        .limit(limit)
    )
    rows = session.execute(query).all()
    told = _watches(session, dag_id, run_id, [(row.task_id, row.map_index) for row in rows])
    return [
        TaskFacts(
            dag_id=dag_id,
            run_id=run_id,
            task_id=row.task_id,
            map_index=row.map_index,
            generation_id=generation_id,
            announced_at=row.timestamp,
            state=None if row.state is None else str(getattr(row.state, "value", row.state)),
            try_number=row.try_number or 0,
            started_at=row.start_date,
            ended_at=row.end_date,
            watch=told.get((row.task_id, row.map_index)),
        )
        for row in rows
        if (generation_id := usable_id(row.value)) is not None
    ]


def _watches(session: Session, dag_id: str, run_id: str, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Any]:
    query = select(XComModel.task_id, XComModel.map_index, XComModel.value).where(
        XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == WATCH_KEY
    )
    if len(keys) <= MAX_RELATIVES:
        query = query.where(_are(XComModel, keys))
    return {(row.task_id, row.map_index): row.value for row in session.execute(query)}


def _with_results(session: Session, tasks: Sequence[TaskFacts]) -> list[TaskFacts]:
    if not tasks:
        return []
    dag_id, run_id, keys = tasks[0].dag_id, tasks[0].run_id, [task.key for task in tasks]
    results = {
        (row.task_id, row.map_index): (row.value, row.timestamp)
        for row in session.execute(
            select(XComModel.task_id, XComModel.map_index, XComModel.value, XComModel.timestamp).where(
                XComModel.dag_id == dag_id,
                XComModel.run_id == run_id,
                XComModel.key == RETURN_KEY,
                _are(XComModel, keys),
            )
        )
    }
    rendered = _rendered(session, dag_id, run_id, keys)
    return [
        replace(
            task,
            result=results.get(task.key, (None, None))[0],
            result_at=results.get(task.key, (None, None))[1],
            fields=rendered.get(task.key),
        )
        for task in tasks
    ]


def _rendered(
    session: Session, dag_id: str, run_id: str, keys: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], Any]:
    if hasattr(RenderedTaskInstanceFields, "get_for_attempt"):
        # Since Airflow 3.4 they belong to one try, and only Airflow's own method knows where those from before lie.
        tries = session.execute(
            select(TaskInstance.id, TaskInstance.task_id, TaskInstance.map_index).where(
                TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, _are(TaskInstance, keys)
            )
        )
        found = {
            (row.task_id, row.map_index): RenderedTaskInstanceFields.get_for_attempt(row.id, session=session)
            for row in tries.all()
        }
        return {key: fields.rendered_fields for key, fields in found.items() if fields is not None}
    model = RenderedTaskInstanceFields
    rows = session.execute(
        select(model.task_id, model.map_index, model.rendered_fields).where(
            model.dag_id == dag_id, model.run_id == run_id, _are(model, keys)
        )
    )
    return {(row.task_id, row.map_index): row.rendered_fields for row in rows}


def _neighbours(session: Session, task: TaskFacts) -> tuple[int | None, int | None]:
    if task.map_index < 0:
        return None, None
    column = XComModel.map_index
    query = select(column).where(
        XComModel.dag_id == task.dag_id,
        XComModel.run_id == task.run_id,
        XComModel.task_id == task.task_id,
        XComModel.key == ID_KEY,
    )
    before = session.scalar(query.where(column < task.map_index).order_by(column.desc()).limit(1))
    after = session.scalar(query.where(column > task.map_index).order_by(column).limit(1))
    return before, after


def _is_over(session: Session, dag_id: str, run_id: str) -> bool:
    state = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    return str(state) in _OVER


def _are(model: Any, keys: Iterable[tuple[str, int]]) -> Any:
    """Return the condition that a row belongs to one of these task instances of a run."""
    by_task: dict[str, set[int]] = {}
    for task_id, map_index in keys:
        by_task.setdefault(task_id, set()).add(map_index)
    return or_(*(and_(model.task_id == task_id, model.map_index.in_(found)) for task_id, found in by_task.items()))
