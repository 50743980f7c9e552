"""What Airflow has recorded around a clip: what users did to its task, and how long its siblings took.

Each is one small query, and only for a clip that needs it.
"""

from __future__ import annotations

import logging
import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow.jobs.job import Job
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import String, cast, func, or_, select
from sqlalchemy.orm import Session, lazyload, load_only
from sqlalchemy.orm.attributes import set_committed_value

from airflow_provider_vidu.common.values import mapping, objects
from airflow_provider_vidu.links import ID_KEY
from airflow_provider_vidu.ui.clips.facts import Action, Clip, TaskFacts
from airflow_provider_vidu.ui.clips.xcoms import MAKING, parsed
from airflow_provider_vidu.ui.records.instances import Key, are, key_columns, key_of, of_run, same_task

log = logging.getLogger(__name__)

MAX_ACTIONS: Final = 50
"""The most lines of the audit log that are read for a clip."""
MAX_SIBLINGS: Final = 50
MAX_EXTRA_CHARS: Final = 16_000
MAX_DAG_CHARS: Final = 1_000_000
"""The largest serialized DAG that is read for the time of a retry: that of 1,500 tasks, which takes 0.2 seconds."""
SILENT: Final = timedelta(minutes=2)
"""A scheduler that runs is heard of more often, even under load."""
PROMPT_WITHIN: Final = timedelta(seconds=60)
"""A task ends so soon after it was marked. Airflow also logs what it then refuses, so the times are compared."""
EARLIER_BY: Final = timedelta(seconds=5)
"""A task does not end before it was marked, but for clocks that differ."""

# The names of Airflow's routes (core_api/routes/public), under which it logs who changed a state.
_OF_RUN: Final = "patch_dag_run"
_EVENTS: Final = (_OF_RUN, "patch_task_instance", "patch_task_group_instances", "bulk_task_instances")


def actions_on(session: Session, clip: Clip) -> list[Action]:
    """Return how users ended a clip's task, the newest first; nothing is read where all tasks have come to their ends.

    Airflow's audit log also names the user. Not everyone who may see a clip may see that, so it is not read.
    """
    task = clip.paying or clip.main
    if not task.has_ended or all(each.has_succeeded and each.has_result for each in clip.tasks):
        return []
    query = (
        select(Log.event, Log.dttm, Log.task_id, Log.extra)
        .where(
            *of_run(Log, task.dag_id, task.run_id),
            or_(Log.task_id == task.task_id, Log.task_id.is_(None)),
            Log.event.in_(_EVENTS),
            func.length(Log.extra) <= MAX_EXTRA_CHARS,
        )
        .order_by(Log.dttm.desc())
        .limit(MAX_ACTIONS)
    )
    marks = ((row, _new_state(row, task)) for row in session.execute(query))
    return _ending(task, [Action(state, row.dttm, of_run=row.event == _OF_RUN) for row, state in marks if state])


def _ending(task: TaskFacts, actions: Sequence[Action]) -> list[Action]:
    """Return the actions that a task instance's state and end are of.

    A mark of a task that has ended leaves the time of its end: then another action has ended it, right before that.
    """
    at = task.ended_at
    ends = [action for action in actions if at and action.at and -EARLIER_BY <= at - action.at <= PROMPT_WITHIN]
    if own := [action for action in ends if action.state == task.state]:
        return own
    since = [action for action in actions if at and action.at and action.at > at and action.state == task.state]
    return [since[0], *ends] if since and ends else []


def _new_state(row: Any, task: TaskFacts) -> str | None:
    """Return the state that a line of the audit log gives to a task instance, or None."""
    extra = mapping(parsed(row.extra))
    state: Any = None
    if row.event == _OF_RUN:
        state = extra.get("state")
    elif row.task_id == task.task_id:
        state = extra.get("new_state") if _is_of(extra, task) else None
    elif isinstance(group := extra.get("group_id"), str):
        state = extra.get("new_state") if task.task_id.startswith(f"{group}.") else None
    else:
        entities = (each for action in objects(extra.get("actions")) for each in objects(action.get("entities")))
        named = (each for each in entities if each.get("task_id") == task.task_id and _is_of(each, task))
        state = next((each.get("new_state") for each in named), None)
    return state if state in ("failed", "success", "skipped") else None


def _is_of(entity: Mapping[str, Any], task: TaskFacts) -> bool:
    """Whether a change of a task is one of this instance; without an index it is one of all.

    Airflow 3.4 names a region as well; only that distinguishes the iterations of a loop.
    """
    region_id = entity.get("region_id")
    if task.region_id is not None and region_id is not None:
        return (str(region_id), str(entity.get("region_index"))) == (task.region_id, str(task.place["region_index"]))
    index = entity.get("map_index")
    return index is None or str(index) in (str(task.map_index), "-1")


def why_halted(dag_id: str, run_id: str) -> str | None:
    """Return why Airflow begins and resumes no task of a run: ``paused``, ``missing`` or ``silent``; None if it does.

    A DAG is missing that the DAG processor does not find any more, such as after an import error. A scheduler is silent
    whose heartbeat has stopped, and all others with it. Workers and triggerers go on with what they have begun.
    """
    if "\0" in dag_id + run_id:  # some databases reject it with an error
        return None
    query = (
        select(DagModel.is_paused, DagModel.is_stale)
        .join(DagRun, DagRun.dag_id == DagModel.dag_id)
        .where(DagRun.dag_id == dag_id, DagRun.run_id == run_id, DagRun.state.not_in(("success", "failed")))
    )
    with create_session() as session:
        row = session.execute(query).first()
        heard = session.scalar(select(func.max(Job.latest_heartbeat)).where(Job.job_type == "SchedulerJob"))
    if row is None:
        return None
    if row.is_stale or row.is_paused:
        return "missing" if row.is_stale else "paused"
    return "silent" if heard is not None and datetime.now(UTC) - heard > SILENT else None


def usual_seconds(session: Session, clip: Clip) -> tuple[float, int] | None:
    """Return the median of the seconds that a running clip's task took elsewhere, and how often that was.

    That is at other map indexes, or in other iterations of its loop, since each had its generation: a task may have
    waited for hours before its create.
    """
    task = clip.main
    index = task.place["region_index"]  # the stored one: of a task in a loop, the iteration or the map index
    if task.has_ended or index < 0 or task.role not in MAKING:
        return None
    times = select(XComModel.timestamp, TaskInstance.end_date).select_from(XComModel)
    query = times.join(TaskInstance, same_task(XComModel, TaskInstance)).where(
        XComModel.key == ID_KEY,
        *of_run(TaskInstance, task.dag_id, task.run_id),
        TaskInstance.task_id == task.task_id,
        TaskInstance.map_index != index,
        TaskInstance.state == "success",
        TaskInstance.next_method.is_(None),  # else a user has marked it
    )
    rows = session.execute(query.order_by(TaskInstance.end_date.desc()).limit(MAX_SIBLINGS))
    took = [(row.end_date - row.timestamp).total_seconds() for row in rows if row.end_date]
    return (statistics.median(took), len(took)) if took else None


def next_tries(session: Session, tasks: Iterable[TaskFacts]) -> dict[Key, datetime]:
    """Return when tasks of one DAG run that are up for retry may begin their next try, by their keys.

    Airflow keeps that moment nowhere: it follows from the retry delay, which the serialized DAG has. Nothing is
    returned for a DAG that is too large: its author decides how large it is.
    """
    waiting = {task.key: task for task in tasks if task.state == "up_for_retry"}
    found: dict[Key, datetime] = {}
    if not waiting:
        return found
    first = next(iter(waiting.values()))
    query = (
        select(TaskInstance, *key_columns(TaskInstance))
        .options(lazyload("*"), load_only(TaskInstance.end_date, TaskInstance.try_number))
        .where(*of_run(TaskInstance, first.dag_id, first.run_id), are(waiting, TaskInstance))
        .where(TaskInstance.state == "up_for_retry")
    )
    try:
        # In a savepoint: after a query that fails, PostgreSQL refuses all others of the page.
        with session.begin_nested():
            # Without its conf, which a user who triggers it chooses: thirty megabytes took a gigabyte.
            run = session.scalars(
                select(DagRun)
                .options(lazyload("*"), load_only(DagRun.dag_id, DagRun.run_id, DagRun.logical_date))
                .where(*of_run(DagRun, first.dag_id, first.run_id))
            ).one()
            if (dag := _dag_of(session, run)) is None:
                return found
            for row in session.execute(query):
                instance: Any = row[0]
                set_committed_value(instance, "dag_run", run)
                instance.task = dag.get_task(instance.task_id)
                found[key_of(row)] = instance.next_retry_datetime()
    except Exception:  # the DAG is gone, or was written by another version
        log.debug("When the next try begins could not be found.", exc_info=True)
    return found


def _dag_of(session: Session, run: Any) -> Any:
    """Return the DAG of a run; None if there is none, or it is too large."""
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagbag import DBDagBag  # missing from some versions: then the moment is not known
    from airflow.models.serialized_dag import SerializedDagModel as Stored

    newest = DagVersion.get_latest_version(run.dag_id, session=session)
    versions = {run.created_dag_version_id, newest.id if newest is not None else None} - {None}
    if not _are_small(session, Stored, Stored.dag_version_id.in_(versions)):
        return None
    # With links of operators: whether they are read is one switch for all threads of the process.
    return DBDagBag().get_dag_for_run(run, session)


def _are_small(session: Session, stored: Any, where: Any) -> bool:
    """Whether serialized DAGs are small enough to be read; Airflow may keep them compressed."""
    sizes = select(func.length(cast(stored._data, String)), func.length(stored._data_compressed)).where(where)
    if any((size or packed or 0) > MAX_DAG_CHARS for size, packed in session.execute(sizes)):
        return False
    packed = session.scalars(select(stored._data_compressed).where(where, stored._data_compressed.is_not(None)))
    return all(len(zlib.decompressobj().decompress(each, MAX_DAG_CHARS + 1)) <= MAX_DAG_CHARS for each in packed)
