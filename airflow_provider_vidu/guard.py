"""Telling a user's kill from a triggerer's hand-over, before a remote job is cancelled.

Airflow 3.3 calls ``on_kill`` also when it hands a trigger to another triggerer, and older versions
cancel the coroutine in both cases. The task instance itself tells them apart: as long as it is
deferred and its XCom names this generation, somebody else goes on waiting for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from airflow_provider_vidu.exceptions import ViduError

ID_KEY: Final = "generation_id"
"""The XCom under which an operator publishes the id of its generation."""

_ATTEMPTS: Final = 4
_PAUSE_SECONDS: Final = 2.0
log = logging.getLogger(__name__)


async def is_handed_over(ti: Any, generation_id: str) -> bool:
    """Whether the task instance still waits, deferred, for this very generation.

    :param ti: the task instance as the triggerer gave it to the trigger.
    :param generation_id: the generation that the trigger watches.
    :raises ViduError: when the task instance cannot be asked; then nothing may be cancelled.
    """
    from asgiref.sync import sync_to_async

    for attempt in range(_ATTEMPTS):
        try:
            return await sync_to_async(_is_waiting)(ti, generation_id)
        except Exception as error:  # the API server may be restarting; the answer decides over money
            if attempt == _ATTEMPTS - 1:
                raise ViduError(
                    f"The task's state could not be asked ({type(error).__name__}); nothing is cancelled.",
                    generation_id=generation_id,
                ) from error
        await asyncio.sleep(_PAUSE_SECONDS)
    raise AssertionError("unreachable")


def _is_waiting(ti: Any, generation_id: str) -> bool:
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if AIRFLOW_V_3_0_PLUS:
        return _state(ti) == "deferred" and _published_id(ti) == generation_id
    return _is_waiting_in_database(ti, generation_id)


def _state(ti: Any) -> str | None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    of_run = states.get(ti.run_id) or {}
    # A mapped task is listed by its id and index.
    names = (ti.task_id, f"{ti.task_id}_{ti.map_index}")
    state = next((of_run[name] for name in names if name in of_run), None)
    return None if state is None else str(getattr(state, "value", state))


def _published_id(ti: Any) -> Any:
    from airflow.providers.common.compat.sdk import XCom

    return XCom.get_one(key=ID_KEY, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)


def _is_waiting_in_database(ti: Any, generation_id: str) -> bool:
    """Ask the metadata database: in Airflow 2 the triggerer has one."""
    from airflow.models import TaskInstance, XCom
    from airflow.utils.session import create_session

    where = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
    with create_session() as session:
        found = session.query(TaskInstance).filter_by(**where).one_or_none()
        if found is None or str(found.state) != "deferred":
            return False
        published = XCom.get_one(key=ID_KEY, session=session, **where)
    return bool(published == generation_id)
