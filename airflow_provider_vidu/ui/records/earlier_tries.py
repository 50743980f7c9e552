"""Generations and batches of tasks that wait for their next try, on Airflow 3.4 and later.

There, each try is a row of its own with XComs of its own: at a retry Airflow archives the row, and the new one has
published nothing. Before, the XComs of a try remain until the next one begins, so its clip needs no search.
"""

from __future__ import annotations

from typing import Any, Final

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from airflow_provider_vidu.links import ID_KEY
from airflow_provider_vidu.ui.clips.facts import BETWEEN_TRIES, UNBEGUN
from airflow_provider_vidu.ui.records.instances import HAS_REGIONS, of_run, same_task, task_in

_next = aliased(TaskInstance)
_NEXT_COLUMNS: Final = (
    _next.id.label("next_instance"),
    _next.state.label("next_state"),
    _next.try_number.label("next_try_number"),
    _next.max_tries.label("next_max_tries"),
)


def of_earlier_tries(query: Any, key: str = ID_KEY) -> Any:
    """Restrict a query of XComs and their task instances to tries whose next one no worker has begun.

    :param key: of the XCom that the next one has not published either.
    """
    same = (getattr(_next, name) == getattr(TaskInstance, name) for name in ("dag_id", "run_id", "task_id"))
    is_next = and_(
        *same,
        _next.region_id == TaskInstance.region_id,
        _next.region_index == TaskInstance.region_index,
        _next.try_number == TaskInstance.try_number + 1,
        _next.working_set.is_(True),
    )
    waits = or_(_next.state.is_(None), _next.state.in_(("up_for_retry", *UNBEGUN)))
    ids = aliased(XComModel)
    return (
        query.join(_next, is_next)
        .where(
            TaskInstance.working_set.is_(None),
            TaskInstance.archived_reason == "retry",
            waits,
            ~exists().where(ids.task_instance_id == _next.id, ids.key == key),
        )
        .execution_options(include_all_attempts=True)
    )


def with_next(query: Any) -> Any:
    """Add to such a query what :func:`earlier_task_in` reads."""
    return query.add_columns(*_NEXT_COLUMNS)


def earlier_task_in(row: Any) -> dict[str, Any]:
    """Return a row as the fields of a :class:`.TaskFacts`, as the task's only row has them on an earlier Airflow.

    There, a try is counted when Airflow schedules it.
    """
    found = task_in(row)
    state = None if row.next_state is None else str(getattr(row.next_state, "value", row.next_state))
    number = found["try_number"] if state in BETWEEN_TRIES else row.next_try_number
    return {**found, "state": state, "try_number": number, "max_tries": row.next_max_tries, "resumes": False}


def count_earlier(session: Session, dag_id: str, run_id: str) -> int:
    """Return how many generations of a run :func:`of_earlier_tries` finds."""
    if not HAS_REGIONS:
        return 0
    query = select(func.count()).select_from(XComModel).join(TaskInstance, same_task(XComModel, TaskInstance))
    found = of_earlier_tries(query).where(*of_run(XComModel, dag_id, run_id), XComModel.key == ID_KEY)
    return session.scalar(found) or 0
