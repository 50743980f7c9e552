"""Tasks that wait for a free slot of their account, as the clip pages show them: they have no generation yet.

Such a task has noted since when it waits (:func:`.links.publish_wait`), and has published no id. Its place in the
queue is read from Airflow's triggers: those of other DAGs are counted, and nothing of them is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased, lazyload

from airflow_provider_vidu.common.values import moment, number
from airflow_provider_vidu.links import ID_KEY, WATCH_KEY
from airflow_provider_vidu.polling.turns import turn
from airflow_provider_vidu.ui.clips.facts import TaskFacts
from airflow_provider_vidu.ui.clips.xcoms import note_in, parsed_small
from airflow_provider_vidu.ui.records import counts
from airflow_provider_vidu.ui.records.instances import (
    BY_TIME,
    TASK_COLUMNS,
    are,
    of_run,
    same_task,
    stands_at,
    task_in,
    with_trigger,
)
from airflow_provider_vidu.ui.records.json_fields import text_field
from airflow_provider_vidu.ui.records.references import Resolver
from airflow_provider_vidu.ui.records.stored_arguments import arguments_of

MAX_QUEUE: Final = 2_000
"""The most triggers that are read to find a task's place; of a longer queue only that it is longer is known."""
MAX_RESOLVED: Final = 2_000
"""The most notes of a run that are resolved where an XCom back end keeps them elsewhere."""
MAX_ARGUMENT_CHARS: Final = 8_000
"""The longest stored arguments of such a trigger that are read: the author of a DAG may have written any."""
_TRIGGER: Final = "triggers.ViduSlotTrigger"
_READ: Final = ("vidu_conn_id", "priority", "since", "deadline")
"""What is kept of them, from two thousand triggers at a time: lists as others write them took 300 MB."""
# A task that has its turn is scheduled again with the method to resume; one that was cleared has none.
_STILL_WAITS: Final = or_(
    TaskInstance.state.in_(("deferred", "running")),
    and_(TaskInstance.state.in_(("scheduled", "queued")), TaskInstance.next_method.is_not(None)),
)


def has_page() -> Any:
    """Return the condition that the task instance of a note has a page: it has an id, or waits for a slot."""
    return or_(_STILL_WAITS, _has_id())


def _has_id() -> Any:
    ids = aliased(XComModel)
    return exists().where(same_task(XComModel, ids), ids.key == ID_KEY)


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a task stands among those that wait for the same connection.

    :param deadline: when the task's timeout expires.
    :param place: its place, from 1 on; None if the queue is too long to be counted.
    :param length: how many wait; at least so many if ``place`` is None.
    """

    deadline: datetime | None
    place: int | None
    length: int


class Waiters:
    """The tasks of one DAG run that wait for a free slot.

    :param session: of the metadata database.
    :param dag_id: the DAG.
    :param run_id: the DAG run.
    :param resolver: resolves the notes that an XCom back end keeps elsewhere; None if the database holds them all.
    """

    def __init__(self, session: Session, dag_id: str, run_id: str, resolver: Resolver | None) -> None:
        self._session = session
        self._run = (dag_id, run_id)
        self._resolver = resolver
        self._resolved: list[TaskFacts] | None = None

    def count(self) -> int:
        """Return how many tasks wait."""
        if self._resolver is not None:
            return len(self._all())
        inner = self._select(XComModel.task_id).subquery()
        return self._session.scalar(select(func.count()).select_from(inner)) or 0

    def page(self, offset: int, limit: int) -> list[TaskFacts]:
        """Return some of them, those first that began to wait first."""
        if limit <= 0:
            return []
        if self._resolver is not None:
            return self._all()[offset : offset + limit]
        return self._read(offset=offset, limit=limit)

    def one(self, task_id: str, index: int, region_id: UUID | None = None) -> TaskFacts | None:
        """Return one task instance, if it waits.

        :param index: the map index, or the index within the region.
        :param region_id: the region of a task instance in a loop.
        """
        return next(iter(self._read(stands_at(task_id, index, region_id), limit=1)), None)

    def _all(self) -> list[TaskFacts]:
        if self._resolved is None:
            self._resolved = self._read(limit=MAX_RESOLVED)
        return self._resolved

    def _select(self, *columns: Any) -> Any:
        query = (
            select(*columns)
            .select_from(XComModel)
            .join(TaskInstance, same_task(XComModel, TaskInstance))
            .where(
                *of_run(XComModel, *self._run),
                XComModel.key == WATCH_KEY,
                counts.IS_SMALL,
                _STILL_WAITS,
                ~_has_id(),
            )
        )
        if self._resolver is None:
            query = query.where(text_field(XComModel.value, "waiting_since").is_not(None))
        return query

    def _read(self, *where: Any, limit: int, offset: int = 0) -> list[TaskFacts]:
        query = (
            with_trigger(self._select(*TASK_COLUMNS, counts.ID_TEXT.label("text"), XComModel.timestamp))
            .where(*where)
            .order_by(*BY_TIME)
            .offset(offset)
            .limit(limit)
        )
        found = (self._facts(row) for row in self._session.execute(query))
        return [task for task in found if task.waiting_since is not None]

    def _facts(self, row: Any) -> TaskFacts:
        value = parsed_small(row.text)
        note = note_in(value if self._resolver is None else self._resolver.value(value, row.timestamp))
        return TaskFacts(*self._run, **task_in(row), generation_id=None, watch=note)


def queue_place(session: Session, task: TaskFacts) -> QueuePlace | None:
    """Return a task's place in the queue of its connection; None once it has its turn.

    All triggers are counted together; where several triggerers run, each serves those that it has.
    """
    own_id = session.scalar(
        select(TaskInstance.trigger_id).where(
            *of_run(TaskInstance, task.dag_id, task.run_id),
            are([task.key], TaskInstance),
            TaskInstance.state == "deferred",
        )
    )
    own = None if own_id is None else next(iter(_arguments(session, Trigger.id == own_id, limit=1).values()), None)
    if own is None:
        return None
    deadline = moment(own.get("deadline"))
    found = _arguments(session, limit=MAX_QUEUE + 1)
    if len(found) > MAX_QUEUE:
        return QueuePlace(deadline, None, MAX_QUEUE)
    conn_id = own.get("vidu_conn_id")
    queue = sorted((_turn(each), key) for key, each in found.items() if each.get("vidu_conn_id") == conn_id)
    place = next((at for at, (_, key) in enumerate(queue, 1) if key == own_id), None)
    return None if place is None else QueuePlace(deadline, place, len(queue))


def _turn(arguments: Mapping[str, Any]) -> tuple[float, ...]:
    """Return what the queue is ordered by."""
    return turn(int(number(arguments.get("priority")) or 0), number(arguments.get("since")) or 0.0)


def _arguments(session: Session, *where: Any, limit: int) -> dict[int, Mapping[str, Any]]:
    """Return the arguments of the triggers with which tasks wait for a slot, by the triggers' ids."""
    query = (
        select(Trigger)
        .options(lazyload("*"))  # a trigger brings its task instance, and that its DAG run
        .join(TaskInstance, and_(TaskInstance.trigger_id == Trigger.id, TaskInstance.state == "deferred"))
        .where(Trigger.classpath.endswith(_TRIGGER, autoescape=True))
        .where(func.length(Trigger.encrypted_kwargs) <= MAX_ARGUMENT_CHARS, *where)
        .order_by(Trigger.id)
        .limit(limit)
    )
    return {trigger.id: _kept(arguments_of(trigger) or {}) for trigger in session.scalars(query)}


def _kept(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    read = {name: arguments.get(name) for name in _READ}
    return {name: value for name, value in read.items() if isinstance(value, (int, float, str))}
