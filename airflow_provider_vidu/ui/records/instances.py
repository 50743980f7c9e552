"""How the database identifies a task instance, and where the instance is in its run.

Before Airflow 3.4, task id and map index do both. Since then, each iteration of a task loop has the same two: what
belongs to a task instance is stored under its id, and its place is an index within a *region*, which is one execution
of a loop, or of the mapping of one task (``airflow.models.dynamic_region``). Loops do not nest in 3.4.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Final
from uuid import UUID

from airflow.jobs.job import Job
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from sqlalchemy import Integer, String, and_, case, cast, exists, func, literal, null, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from airflow_provider_vidu.links import RESULT_KEY

HAS_REGIONS: Final = hasattr(TaskInstance, "region_id")
"""Whether this Airflow may have task loops (3.4)."""

Key = Hashable
"""The name of a task instance within the results of one query; see :func:`key_of`."""


def key_columns(model: Any) -> tuple[Any, ...]:
    """Return the columns that identify the task instance of a row."""
    return (_id(model).label("instance"),) if HAS_REGIONS else (model.task_id, model.map_index)


def key_of(row: Any) -> Key:
    """Return the key of a row that was selected with :func:`key_columns`."""
    return row.instance if HAS_REGIONS else (row.task_id, row.map_index)


def are(keys: Iterable[Key], model: Any = XComModel) -> Any:
    """Return the condition that a row belongs to one of these task instances of a run.

    As a list: of a chain of a thousand alternatives some databases make no query.
    """
    column = _id(model) if HAS_REGIONS else tuple_(model.task_id, model.map_index)
    return column.in_(list(keys))


def of_run(model: Any, dag_id: str, run_id: str) -> tuple[Any, Any]:
    """Return the conditions that a row belongs to a DAG run."""
    return model.dag_id == dag_id, model.run_id == run_id


def same_task(model: Any, other: Any) -> Any:
    """Return the condition that two rows belong to one task instance."""
    if HAS_REGIONS:
        return _id(model) == _id(other)
    names = ("dag_id", "run_id", "task_id", "map_index")
    return and_(*(getattr(model, name) == getattr(other, name) for name in names))


def _id(model: Any) -> Any:
    return model.id if model is TaskInstance else model.task_instance_id


if HAS_REGIONS:
    from airflow.models.dynamic_region import DynamicRegion  # type: ignore[import-not-found]  # since 3.4

    _IS_MAPPED: Final[Any] = DynamicRegion.node_id == TaskInstance.task_id
    iteration_column: Any = case(
        (DynamicRegion.id.is_(None), -1),
        (_IS_MAPPED, func.coalesce(DynamicRegion.parent_region_index, -1)),
        else_=TaskInstance.region_index,
    )
    map_index_column: Any = case(
        (or_(DynamicRegion.id.is_(None), _IS_MAPPED), TaskInstance.region_index),
        else_=-1,
    )
    region_id_column: Any = case((iteration_column >= 0, TaskInstance.region_id), else_=null())
else:
    # Casts: a bare constant in ORDER BY is a position to some databases.
    iteration_column, map_index_column = cast(literal(-1), Integer), TaskInstance.map_index
    region_id_column = cast(null(), String)

PLACE: Final = (
    map_index_column.label("map_index"),
    iteration_column.label("iteration"),
    region_id_column.label("region_id"),
    TaskInstance.__table__.c.rendered_map_index.label("label"),
)
"""Map index (-1 if not mapped), iteration (-1 outside loops), region (None outside loops), for :func:`placed`, and
Airflow's rendered map index, if the task has a template for it."""

IN_RUN: Final = (TaskInstance.task_id, iteration_column, map_index_column)
"""The order of the task instances of a run, for :func:`placed`."""

BY_TIME: Final = (XComModel.timestamp, *IN_RUN, XComModel.key)
"""The order of XComs: as they were published, and of those of one moment as their task instances are in the run."""


def placed(query: Any) -> Any:
    """Add to a query of task instances what :data:`PLACE` reads."""
    return query.outerjoin(DynamicRegion, DynamicRegion.id == TaskInstance.region_id) if HAS_REGIONS else query


def place_in(row: Any) -> dict[str, Any]:
    """Return the task id and the :data:`PLACE` of a row as the fields of a :class:`.TaskFacts`."""
    iteration = row.iteration if row.iteration >= 0 else None
    region_id = None if row.region_id is None else str(row.region_id)
    return {"task_id": row.task_id, "map_index": row.map_index, "iteration": iteration, "region_id": region_id}


def has_run(dag_id: str, run_id: str, task_id: str, index: int, region_id: UUID | None) -> Any:
    """Return the condition that a worker has ever begun the task instance at an address (:func:`stands_at`).

    A clear leaves the host of the try before, or, since Airflow 3.4, archives its row and makes another one, perhaps
    in another region.
    """
    row, same = _tries_at(dag_id, run_id, task_id, index, region_id)
    return exists().where(*same, or_(row.hostname != "", row.pid.is_not(None)))


def has_published(
    session: Session, dag_id: str, run_id: str, task_id: str, index: int, region_id: UUID | None, key: str
) -> bool:
    """Whether any try of the task instance at an address has published an XCom that is still there."""
    row, same = _tries_at(dag_id, run_id, task_id, index, region_id)
    names = ("dag_id", "run_id", "task_id", "map_index")
    own = [XComModel.task_instance_id == row.id] if HAS_REGIONS else [getattr(XComModel, n) == row[n] for n in names]
    query = select(literal(1)).where(*same, *own, XComModel.key == key).limit(1)
    return session.execute(query.execution_options(include_all_attempts=True)).first() is not None


def is_there(session: Session, dag_id: str, run_id: str, task_id: str, index: int, region_id: UUID | None) -> bool:
    """Whether the run has a task instance at an address; of one in a loop whose region is not named, in any."""
    row, same = _tries_at(dag_id, run_id, task_id, index, region_id)
    return session.execute(select(row.task_id).where(*same).limit(1)).first() is not None


def _tries_at(dag_id: str, run_id: str, task_id: str, index: int, region_id: UUID | None) -> tuple[Any, list[Any]]:
    """Return the columns of the tries at an address, and the conditions: the ORM would leave archived ones out."""
    row = TaskInstance.__table__.alias("earlier").c
    same = [row.dag_id == dag_id, row.run_id == run_id, row.task_id == task_id]
    same += [row.region_index == index] if HAS_REGIONS else [row.map_index == index]
    if HAS_REGIONS and region_id is not None:
        same.append(row.region_id.in_(_successors(task_id, region_id)))
    return row, same


_result = aliased(XComModel)
HAS_RESULT: Final = exists().where(same_task(_result, TaskInstance), _result.key == RESULT_KEY)
"""Whether a task instance has returned a result."""

TASK_COLUMNS: Final = (
    XComModel.task_id,
    *key_columns(TaskInstance),
    *PLACE,
    TaskInstance.state,
    TaskInstance.try_number,
    TaskInstance.max_tries,
    TaskInstance.next_method.is_not(None).label("resumes"),
    HAS_RESULT.label("has_result"),
    TaskInstance.start_date,
    TaskInstance.end_date,
    Trigger.created_date.label("deferred_at"),
    Job.latest_heartbeat.label("attended_at"),
)
"""What is read of a task instance beside its XComs, for :func:`with_trigger` and :func:`task_in`."""


def with_trigger(query: Any) -> Any:
    """Add to a query of XComs and their task instances what :data:`TASK_COLUMNS` reads."""
    is_own = and_(Trigger.id == TaskInstance.trigger_id, TaskInstance.state == "deferred")
    # A trigger keeps the id of a dead triggerer until another one takes it up.
    runs_it = and_(Job.id == Trigger.triggerer_id, Job.job_type == "TriggererJob", Job.end_date.is_(None))
    return placed(query.outerjoin(Trigger, is_own).outerjoin(Job, runs_it))


def task_in(row: Any) -> dict[str, Any]:
    """Return the :data:`TASK_COLUMNS` of a row as the fields of a :class:`.TaskFacts`."""
    return {
        **place_in(row),
        "instance": key_of(row),
        "state": None if row.state is None else str(getattr(row.state, "value", row.state)),
        "try_number": row.try_number or 0,
        "max_tries": row.max_tries,
        "resumes": bool(row.resumes),
        "has_result": bool(row.has_result),
        "started_at": row.start_date,
        "ended_at": row.end_date,
        "label": row.label,
        "deferred_at": row.deferred_at,
        "attended_at": row.attended_at,
    }


def stands_at(task_id: str, index: int, region_id: UUID | None) -> Any:
    """Return the condition that a task instance, :func:`placed`, is at an address.

    :param index: the map index, or the index within the region.
    :param region_id: the region of a task instance in a loop; None outside loops.
    """
    if not HAS_REGIONS:
        is_there = and_(TaskInstance.task_id == task_id, TaskInstance.map_index == index)
        return is_there if region_id is None else literal(False)
    own = (TaskInstance.task_id == task_id, TaskInstance.region_index == index)
    if region_id is None:
        return and_(*own, iteration_column < 0)
    return and_(*own, TaskInstance.region_id.in_(_successors(task_id, region_id)))


def is_in_loop(session: Session, dag_id: str, run_id: str, task_id: str) -> bool:
    """Whether a task of a run is in a loop, so that an address must name the iteration."""
    if not HAS_REGIONS:
        return False
    query = placed(select(literal(1)).select_from(TaskInstance)).where(
        *of_run(TaskInstance, dag_id, run_id), TaskInstance.task_id == task_id, iteration_column >= 0
    )
    return session.execute(query.limit(1)).first() is not None


def _successors(task_id: str, region_id: UUID) -> Any:
    """Select the regions that hold what this region held: a clear lets later iterations begin in a new one.

    The regions of one loop are a family; the mapping of a task has a region of its own in each iteration.
    """
    given, other = DynamicRegion.__table__.alias("given"), DynamicRegion.__table__.alias("other")
    parent, cousin = DynamicRegion.__table__.alias("parent"), DynamicRegion.__table__.alias("cousin")
    of_loop = select(other.c.id).join(given, given.c.family_root_id == other.c.family_root_id)
    of_mapping = (
        select(other.c.id)
        .join(cousin, cousin.c.id == other.c.parent_region_id)
        .join(parent, parent.c.family_root_id == cousin.c.family_root_id)
        .join(
            given,
            and_(
                given.c.parent_region_id == parent.c.id,
                given.c.parent_region_index == other.c.parent_region_index,
                given.c.node_id == other.c.node_id,
            ),
        )
        .where(other.c.node_id == task_id)
    )
    return of_loop.where(given.c.id == region_id).union(of_mapping.where(given.c.id == region_id))
