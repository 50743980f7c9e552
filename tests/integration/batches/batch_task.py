"""A task with a batch operator, whose legs, tries and clears a test plays through."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.operators import ViduBatchOperator
from airflow_provider_vidu.sandbox.runner import Sandbox


class BatchTask:
    """A task instance; each leg is a fresh operator, as on a worker."""

    def __init__(self, folder: Path, rows: Any, **kwargs: Any) -> None:
        self.folder = folder
        self.kwargs = {
            "task_id": "films",
            "rows": rows,
            "destination": f"{folder}/",
            "model": "m",
            "timeout": 60,
            "poll_interval": 0.05,
            "deferrable": True,
            **kwargs,
        }
        self.xcoms: dict[str, Any] = {}
        self.earlier: dict[str, Any] = {}
        self.run_id = "r"
        self.further: dict[str, Any] = {}
        self.try_number = 0
        self.retries = self.max_tries = 2
        self.legs = 0
        self.deferrals: list[TaskDeferred] = []
        self.operator = ViduBatchOperator(**self.kwargs)

    def context(self) -> dict[str, Any]:
        """Return the context of the current try."""
        ti = SimpleNamespace(
            dag_id="d", run_id=self.run_id, task_id="films", map_index=-1,
            try_number=self.try_number, max_tries=self.max_tries, task=SimpleNamespace(retries=self.retries),
            xcom_push=self.push, xcom_pull=self.pull,
        )  # fmt: skip
        return {"ti": ti, "task_instance": ti, **self.further}

    def push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.xcoms[key] = json.loads(json.dumps(value))

    def pull(self, task_ids: str, key: str, map_indexes: int, include_prior_dates: bool = False) -> Any:
        """Return an XCom of this try, or a result of an earlier run."""
        return self.earlier.get(key) if include_prior_dates else self.xcoms.get(key)

    def start(self) -> Any:
        """Run the first leg of a try."""
        self.try_number += 1
        self.xcoms.clear()
        return self._leg("execute", self.context())

    def wake(self, deferred: TaskDeferred, event: Any) -> Any:
        """Run a further leg of a try with an event."""
        return self._leg(deferred.method_name, self.context(), event)

    def _leg(self, method: str, *arguments: Any) -> Any:
        self.legs += 1
        self.operator = ViduBatchOperator(**self.kwargs)
        return getattr(self.operator, method)(*arguments)

    def run(self, deferred: TaskDeferred | None = None) -> dict[str, Any]:
        """Run a try to its end, through all of its deferrals; from a deferral on, if one is given."""
        leg: Any = self.start
        arguments: tuple[Any, ...] = ()
        if deferred is not None:
            self.deferrals.append(deferred)
            leg, arguments = self.wake, (deferred, self.event(deferred))
        while True:
            try:
                found: dict[str, Any] = leg(*arguments)
                return found
            except TaskDeferred as deferred:
                self.deferrals.append(deferred)
                leg, arguments = self.wake, (deferred, self.event(deferred))

    def event(self, deferred: TaskDeferred) -> dict[str, Any]:
        """Run the trigger as the triggerer does, from its row; return its event as it is stored."""
        path, stored = deferred.trigger.serialize()
        assert path == "airflow_provider_vidu.triggers.ViduBatchTrigger"
        trigger = type(deferred.trigger)(**json.loads(json.dumps(stored)))

        async def first_event() -> Any:
            async for event in trigger.run():
                return json.loads(json.dumps(event.payload))
            raise AssertionError("the trigger fired nothing")

        found: dict[str, Any] = asyncio.run(first_event())
        return found

    def clear(self) -> None:
        """Do what a clear does to the counters."""
        self.max_tries = self.try_number + 2

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The manifest."""
        (path,) = self.folder.glob("*.manifest.jsonl")
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def deferred_by(task: Any, sandbox: Sandbox) -> TaskDeferred:
    """Start a try that defers; return the deferral.

    Meanwhile the sandbox's clock stands still: nothing ends in the first leg, however busy the machine is.
    """
    speed = sandbox.core.clock.speed
    sandbox.set_speed(0)
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    sandbox.set_speed(speed)
    return deferred.value
