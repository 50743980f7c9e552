"""Airflow's own triggerer without a database: its supervisor, its runner process, its event loop.

``TriggerRunnerSupervisor`` (Airflow 3.3) may be subclassed for back ends other than the metadata database:
which triggers shall run, what an event does and where a connection comes from are methods. Here a
:class:`World` answers them. All the rest is Airflow's: the forked runner, its loop and watchdog, encrypted
arguments, cancellation with ``on_kill``, the socket between the two and the serialisation on it.
"""

from __future__ import annotations

import uuid
from typing import Any, Protocol

import attrs
from airflow.executors.workloads import RunTrigger
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time.comms import (
    ConnectionResult,
    ErrorResponse,
    GetConnection,
    GetTaskStates,
    GetXCom,
    TaskStatesResult,
    XComResult,
)
from airflow.triggers.base import BaseTrigger

DAG_ID = "soak"
RUN_ID = "soak__1"


class World(Protocol):
    """What a metadata database would know."""

    def wanted(self) -> set[int]:
        """Return the ids of all triggers that shall run now."""

    def trigger(self, trigger_id: int) -> tuple[str, BaseTrigger]:
        """Return the task that waits, and its trigger as the task deferred it."""

    def fired(self, trigger_id: int, event: Any) -> None:
        """Take an event's payload."""

    def broke(self, trigger_id: int, traceback: list[str] | None) -> None:
        """Take the end of a trigger that fired nothing."""

    def connection(self, conn_id: str) -> dict[str, Any] | None:
        """Return the fields of an Airflow connection."""

    def state(self, task_id: str) -> str:
        """Return the state of a task instance."""

    def published(self, task_id: str) -> str | None:
        """Return the XCom ``generation_id`` of a task instance."""


@attrs.define(kw_only=True)
class WorldlySupervisor(TriggerRunnerSupervisor):
    """The supervisor with a :class:`World` in place of the database."""

    world: World

    def load_triggers(self) -> None:
        """Tell the runner what to start and to cancel."""
        self.update_triggers(self.world.wanted())

    def build_trigger_workloads(self, new_trigger_ids: set[int]) -> list[RunTrigger]:
        """Return what is sent to the runner, arguments encrypted as they are in the database."""
        return [self._workload(trigger_id) for trigger_id in sorted(new_trigger_ids)]

    def _workload(self, trigger_id: int) -> RunTrigger:
        task_id, trigger = self.world.trigger(trigger_id)
        classpath, arguments = trigger.serialize()
        instance = TaskInstanceDTO(
            id=uuid.uuid4(),
            dag_version_id=uuid.uuid4(),
            task_id=task_id,
            dag_id=DAG_ID,
            run_id=RUN_ID,
            try_number=1,
            map_index=-1,
            pool_slots=1,
            queue="default",
            priority_weight=1,
        )
        return RunTrigger(
            id=trigger_id, classpath=classpath, encrypted_kwargs=Trigger.encrypt_kwargs(arguments), ti=instance
        )

    def on_trigger_event(self, trigger_id: int, event: Any) -> None:
        """Hand an event on."""
        self.world.fired(trigger_id, event.payload)

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:
        """Hand a failure on."""
        self.world.broke(trigger_id, exc)

    def clean_unused(self) -> None:
        """There are no rows to remove."""

    def heartbeat(self) -> None:
        """There is no row to touch."""

    def metric_tags(self) -> dict[str, str]:
        """Name the host, as the metrics demand."""
        return {"hostname": "localhost"}

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:
        if isinstance(msg, GetConnection):
            self.send_msg(self._connection(msg.conn_id), request_id=req_id, error=None, by_alias=True)
        elif isinstance(msg, GetTaskStates):
            states = {task_id: self.world.state(task_id) for task_id in msg.task_ids or ()}
            self.send_msg(TaskStatesResult(task_states={RUN_ID: states}), request_id=req_id)
        elif isinstance(msg, GetXCom):
            self.send_msg(XComResult(key=msg.key, value=self.world.published(msg.task_id)), request_id=req_id)
        else:
            super()._handle_request(msg, log, req_id)

    def _connection(self, conn_id: str) -> ConnectionResult | ErrorResponse:
        fields = self.world.connection(conn_id)
        if fields is None:
            return ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND)
        empty = {"schema": None, "login": None, "port": None}
        return ConnectionResult(conn_id=conn_id, **{**empty, **fields})
