"""Plays Airflow around tasks that wait for slots: workers, one after the other, and a triggerer on its own loop."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.exceptions import ViduError
from tests.faults.creates_world import CreateWorld
from tests.integration.operators.test_generate_spending import Spender

MOST_TRIES: Final = 4
MOST_SECONDS: Final = 60.0


def is_final(error: BaseException) -> bool:
    """Whether Airflow retries no task that has ended with this; a killed one it does."""
    return isinstance(error, ViduError) and not error.retryable


class Triggerer:
    """Runs triggers from their stored rows, all on one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, task: Spender, deferred: TaskDeferred) -> Future[dict[str, Any]]:
        """Run the trigger of a deferred task; the result is its event as it is stored."""
        stored = json.loads(json.dumps(deferred.trigger.serialize()[1]))
        trigger = type(deferred.trigger)(**stored)
        trigger.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="film", map_index=task.map_index)

        async def first_event() -> dict[str, Any]:
            async for event in trigger.run():
                found: dict[str, Any] = json.loads(json.dumps(event.payload))
                return found
            raise AssertionError("the trigger fired nothing")

        return asyncio.run_coroutine_threadsafe(first_event(), self._loop)

    def close(self) -> None:
        """End what still runs, and the loop."""

        async def end() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Play:
    """The tasks of a run, from their starts to their ends.

    :param world: of the creates; the first failure, or the second wait for a slot, lifts its fault.
    :param triggerer: runs their triggers.
    :param retry_seconds: how long a task that has failed waits for its next try.
    """

    def __init__(self, world: CreateWorld, triggerer: Triggerer, retry_seconds: float) -> None:
        self._world = world
        self._triggerer = triggerer
        self._retry_seconds = retry_seconds
        self._deferred: dict[Future[dict[str, Any]], tuple[Spender, TaskDeferred]] = {}
        self._retries: list[tuple[float, Spender]] = []
        self.errors: dict[int, list[BaseException]] = {}
        self.states: dict[int, str] = {}
        """The state of each task instance, as Airflow shows it, by its map index."""

    async def state_and_generation(self, ti: Any) -> tuple[str | None, None]:
        """Return the state of a task instance, as a trigger sees it; what it has published is not needed here."""
        return self.states[ti.map_index], None

    def run(self, *tasks: Spender) -> None:
        """Run tasks until all have ended."""
        for task in tasks:
            self._leg(task, task.start)
        until = time.monotonic() + MOST_SECONDS
        while self._deferred or self._retries:
            assert time.monotonic() < until, (self.states, self.errors)
            due_at = min((at for at, _ in self._retries), default=until)
            done, _ = wait(self._deferred, max(due_at - time.monotonic(), 0), FIRST_COMPLETED)
            for future in done:
                task, deferred = self._deferred.pop(future)
                self._leg(task, partial(task.wake, deferred, future.result()))
            now = time.monotonic()
            due = [task for at, task in self._retries if at <= now]
            self._retries = [(at, task) for at, task in self._retries if at > now]
            for task in due:
                self._leg(task, task.start)

    def _leg(self, task: Spender, work: Callable[[], Any]) -> None:
        index, sent = task.map_index, self._world.sent
        errors = self.errors.setdefault(index, [])
        self.states[index] = "running"
        try:
            work()
        except TaskDeferred as deferred:
            if self._world.sent > sent and hasattr(deferred.trigger, "refused_at"):
                self._world.lift()  # the account was full, and is not any more
            self.states[index] = "deferred"
            self._deferred[self._triggerer.run(task, deferred)] = (task, deferred)
        except (ViduError, KeyboardInterrupt) as error:
            errors.append(error)
            self._world.lift()
            if is_final(error) or len(errors) == MOST_TRIES:
                self.states[index] = "failed"
            else:
                self.states[index] = "up_for_retry"
                self._retries.append((time.monotonic() + self._retry_seconds, task))
        else:
            self.states[index] = "success"
