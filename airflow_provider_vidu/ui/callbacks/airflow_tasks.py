"""All that touches Airflow's internals to resume a deferred task from the API server. Runs in threads.

Airflow has no public interface for it. Its own Human-in-the-loop route calls the same function
(``handle_event_submit``; seen in 3.1.8, 3.2.2, 3.3.2 and 3.4.0b2). If a name is missing, :func:`missing` says so,
nothing is resumed, and triggers poll.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import String, and_, case, cast, func, select, update
from sqlalchemy.orm import aliased, lazyload, load_only

_TRIGGER: Final = "airflow_provider_vidu.triggers.ViduGenerationTrigger"
MAX_SUCCESSORS: Final = 100
"""The most current task instances that are compared with the token of an earlier try."""
MAX_ALL_SUCCESSORS: Final = 1_000
"""The same for all tokens that are looked up together: the author of a DAG may map a task in a hundred iterations, and
retry it a hundred times. A hundred made-up callbacks took 750 MB then."""
MAX_ARGUMENT_CHARS: Final = 16 * 1024
"""The longest stored arguments that are read of a wait, and of the method that its task resumes with. The author of a
DAG may have written any; ours take two thousand."""
_SAME_DEFERRAL: Final = timedelta(seconds=1)
"""A task that is resumed and defers again takes longer."""
_missing: str | None = None

try:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger, handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session

    from airflow_provider_vidu.ui.records.stored_arguments import arguments_of, names_classes

    HAS_REGIONS: Final = hasattr(TaskInstance, "region_index")
    """Since 3.4, earlier tries are archived in the table of the current ones."""
    if not HAS_REGIONS:
        from airflow.models.taskinstancehistory import TaskInstanceHistory
except ImportError as error:
    _missing = str(error)


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """A task instance that is deferred, with the arguments of its trigger.

    :param instance: the id of the task instance.
    :param trigger_id: the id of its trigger.
    :param deferred_at: when the trigger was made, in epoch seconds.
    :param arguments: the trigger's.
    """

    instance: UUID
    trigger_id: int
    deferred_at: float
    arguments: Mapping[str, Any]

    @property
    def conn_id(self) -> str:
        """The connection that the task waits with."""
        return str(self.arguments.get("vidu_conn_id"))

    @property
    def callback(self) -> str:
        """The digest of the order's token; empty if no callback can resume the task."""
        return str(self.arguments.get("callback")) if isinstance(self.arguments.get("generation_id"), str) else ""


def missing() -> str | None:
    """Return what this Airflow lacks to resume tasks from the API server; None if nothing."""
    return _missing


def find_waiting(instances: Collection[UUID]) -> dict[UUID, list[WaitingTask]]:
    """Return the deferred waits of task instances, by the ids that were asked for.

    A retry has a new id, and may wait for the generation of an earlier try. An earlier id therefore leads to the
    current task instances at its place: one, or some in the iterations of a loop (Airflow 3.4).

    :param instances: ids of task instances, current or of earlier tries.
    """
    found: dict[UUID, list[WaitingTask]] = {}
    if not instances:
        return found
    with create_session() as session:
        current = _waits().add_columns(TaskInstance.id.label("asked")).where(ids_in(TaskInstance.id, instances))
        rows = list(session.execute(current))
        if others := set(instances) - {as_uuid(row.asked) for row in rows}:
            most = max(min(MAX_SUCCESSORS, MAX_ALL_SUCCESSORS // len(others)), 1)
            rows += session.execute(_successors(others, most))
        for row in rows:
            if (task := _task(row)) is not None:
                found.setdefault(as_uuid(row.asked), []).append(task)
    return found


def resume(task: WaitingTask, event: Mapping[str, Any]) -> bool:
    """Resume a task with an event, unless it no longer waits with the same trigger; return whether it was resumed.

    One guarded statement decides: of several callers, and of a trigger that fires meanwhile, one resumes the task.

    :param event: plain JSON, which Airflow logs and stores.
    """
    with create_session() as session:
        claim = (
            update(TaskInstance)
            .where(
                TaskInstance.id == _spelt(task.instance),
                TaskInstance.state == "deferred",
                TaskInstance.trigger_id.in_(_trigger_of(task)),
            )
            .values(scheduled_dttm=None)
            .execution_options(synchronize_session=False)
        )
        if session.execute(claim).rowcount != 1:  # type: ignore[attr-defined]  # of a CursorResult
            return False
        # Nothing else of the task instance, nor the conf of its run: others decide how large these are.
        own = select(TaskInstance).options(lazyload("*"), load_only(TaskInstance.next_kwargs))
        row = session.scalars(own.where(TaskInstance.id == _spelt(task.instance))).one()
        handle_event_submit(TriggerEvent(dict(event)), task_instance=row, session=session)
        return True


def _trigger_of(task: WaitingTask) -> Any:
    """Select the trigger that a task was found with. Its id is not enough: SQLite gives that of a deleted row again."""
    at = datetime.fromtimestamp(task.deferred_at, UTC)
    is_same = Trigger.created_date.between(at - _SAME_DEFERRAL, at + _SAME_DEFERRAL)
    return select(Trigger.id).where(Trigger.id == task.trigger_id, is_same)


def _waits() -> Any:
    resumes_with = cast(TaskInstance.next_kwargs, String)
    return (
        select(TaskInstance.id.label("instance"), Trigger, resumes_with.label("resumes_with"))
        .options(lazyload("*"))  # a trigger brings its task instance, and that its DAG run
        .join(Trigger, Trigger.id == TaskInstance.trigger_id)
        .where(TaskInstance.state == "deferred", Trigger.classpath == _TRIGGER, is_short(MAX_ARGUMENT_CHARS))
        # What the task resumes with, which is read when it does.
        .where(func.coalesce(func.length(resumes_with), 0) <= MAX_ARGUMENT_CHARS)
    )


def is_short(most: int) -> Any:
    """Return the condition that the stored arguments of a trigger have at most so many characters."""
    return func.length(Trigger.encrypted_kwargs) <= most


def _successors(instances: Collection[UUID], most: int) -> Any:
    """Select the waits of the current task instances at the places of earlier ones.

    :param most: how many for each of the earlier ones, the one in its own region first.
    """
    if HAS_REGIONS:
        earlier: Any = aliased(TaskInstance)
        own, names = earlier.id, ("dag_id", "run_id", "task_id", "region_index")
        order = [case((earlier.region_id == TaskInstance.region_id, 0), else_=1), TaskInstance.id.desc()]
    else:
        earlier = TaskInstanceHistory
        own, names = earlier.task_instance_id, ("dag_id", "run_id", "task_id", "map_index")
        order = [TaskInstance.id.desc()]
    is_same = and_(*(getattr(earlier, name) == getattr(TaskInstance, name) for name in names))
    nth = func.row_number().over(partition_by=own, order_by=order)
    found = (
        select(own.label("asked"), TaskInstance.id.label("current"), nth.label("nth"))
        .join(earlier, is_same)
        .where(ids_in(own, instances), TaskInstance.state == "deferred")
    ).subquery()
    is_found = and_(found.c.current == TaskInstance.id, found.c.nth <= most)
    return _waits().add_columns(found.c.asked).join(found, is_found)


def ids_in(column: Any, instances: Collection[UUID]) -> Any:
    """Return the condition that a column holds one of these ids of task instances."""
    return column.in_([_spelt(instance, column) for instance in instances])


def _spelt(instance: UUID, column: Any = None) -> Any:
    """Return an id as the column takes it: Airflow has kept them as text before it made UUIDs of them."""
    column = TaskInstance.id if column is None else column
    return instance if getattr(column.type, "as_uuid", False) else str(instance)


def as_uuid(value: Any) -> UUID:
    """Return the id in a column of task instances."""
    return value if isinstance(value, UUID) else UUID(str(value))


def _task(row: Any) -> WaitingTask | None:
    # Ours resume with plain JSON. Airflow's function, which resumes a task, makes objects of anything else.
    if names_classes(row.resumes_with) or (arguments := arguments_of(row.Trigger)) is None:
        return None
    return WaitingTask(as_uuid(row.instance), row.Trigger.id, row.Trigger.created_date.timestamp(), arguments)
