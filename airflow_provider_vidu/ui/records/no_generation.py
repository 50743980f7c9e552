"""Tasks of a run that have failed before they had a generation: a limit on credits, a refused create, a lost answer.

They have no clip, so a sheet that showed the clips alone would show a run in which all is well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from airflow_provider_vidu.links import BATCH_KEY, ID_KEY
from airflow_provider_vidu.ui.clips.facts import TaskFacts
from airflow_provider_vidu.ui.records.instances import IN_RUN, PLACE, of_run, place_in, placed, same_task

ORDERING: Final = ("ViduGenerateOperator", "ViduBatchOperator")
"""The names of the operators that submit; a subclass of another name is not looked for."""
MAX_NAMED: Final = 3
"""The most tasks that are named."""


@dataclass(frozen=True, slots=True)
class NoGeneration:
    """The tasks of a run that have failed without a generation.

    :param count: how many there are.
    :param tasks: the first ones of them.
    """

    count: int = 0
    tasks: tuple[TaskFacts, ...] = ()


NONE_FAILED: Final = NoGeneration()


def without_generation(session: Session, dag_id: str, run_id: str) -> NoGeneration:
    """Return the tasks of a run that have failed without a generation; a batch that has begun counts as one."""
    has_published = exists().where(same_task(XComModel, TaskInstance), XComModel.key.in_((ID_KEY, BATCH_KEY)))
    columns: tuple[Any, ...] = (TaskInstance.task_id, *PLACE, TaskInstance.try_number)
    query = (
        placed(select(*columns, func.count().over().label("tasks")).select_from(TaskInstance))
        .where(
            *of_run(TaskInstance, dag_id, run_id),
            TaskInstance.state == "failed",
            TaskInstance.operator.in_(ORDERING),
            ~has_published,
        )
        .order_by(*IN_RUN)
        .limit(MAX_NAMED)
    )
    rows = list(session.execute(query))
    tasks = (
        TaskFacts(
            dag_id, run_id, **place_in(row), generation_id=None, label=row.label, state="failed",
            try_number=row.try_number or 0,
        )
        for row in rows
    )  # fmt: skip
    return NoGeneration(rows[0].tasks if rows else 0, tuple(tasks))
