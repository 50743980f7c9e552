"""A deferred order, the callback route in front of it, and the trigger as its net."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID, uuid4

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.sandbox import Sandbox
from airflow_provider_vidu.ui.callbacks.airflow_tasks import WaitingTask
from airflow_provider_vidu.ui.callbacks.routes import CallbackRoute
from airflow_provider_vidu.ui.callbacks.waking import Waker
from airflow_provider_vidu.ui.threads import Threads
from tests.callback_requests import body, signed_headers
from tests.integration.operators.test_generate import Task

PATH = "/vidu/callbacks/"
BASE = "https://airflow.example.com"


class CalledTask(Task):
    """A task instance with an id, as Airflow 3 has it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"deferrable": True, "timeout": 3600, **kwargs})
        self.id = uuid4()

    def context(self) -> dict[str, Any]:
        """Return the context of the current try."""
        context = super().context()
        context["ti"].id = self.id
        return context


class CallbackWorld:
    """One order and its callbacks. Times are the world's own; nothing sleeps.

    :param sandbox: the service; its clock stands still.
    :param prompt: of the order.
    :param kwargs: further arguments of its task.
    """

    def __init__(self, sandbox: Sandbox, prompt: str = "a cat", **kwargs: Any) -> None:
        self.sandbox = sandbox
        sandbox.set_speed(0)
        self.now = 1_000_000.0
        self.key: str | None = sandbox.key
        self.broken: Exception | None = None
        self.task = CalledTask(prompt=prompt, **kwargs)
        self.instance: UUID = self.task.id
        self.deferred_at = self.now - 100
        self.deferred: TaskDeferred | None = None
        self.trigger_id = 0
        self._row = threading.Lock()
        """Held where Airflow's database has one statement: two threads find and resume the task."""
        self.result: Any = None
        self.error: Exception | None = None
        self.woken = 0
        self.answers: list[int] = []
        self._run(self.task.start)
        self.token = str(sandbox.creates[0].body["callback_url"]).rpartition("/")[2]
        self.restart()

    def restart(self, path: str | None = PATH) -> None:
        """Restart the API server: what it held is gone."""
        waker = Waker(self._find, self._resume, Threads(2), clock=lambda: self.now, sleep=self._sleep)
        self.waker, self.route = waker, CallbackRoute(path, waker, self)  # type: ignore[arg-type]

    # -- what the route sees of Airflow ----------------------------------------------------------

    async def get(self, conn_id: str) -> str | None:
        """Return the key of the connection."""
        return self.key

    def _find(self, instances: Collection[UUID]) -> dict[UUID, list[WaitingTask]]:
        if self.broken is not None:
            raise self.broken
        with self._row:
            if self.deferred is None or self.instance not in instances:
                return {}
            stored = json.loads(json.dumps(self.deferred.trigger.serialize()[1]))
            if stored.get("woken_at"):
                stored["woken_at"] = self.deferred_at  # in the world's time
            return {self.instance: [WaitingTask(self.instance, self.trigger_id, self.deferred_at, stored)]}

    def _resume(self, task: WaitingTask, event: Mapping[str, Any]) -> bool:
        with self._row:
            if self.deferred is None or task.trigger_id != self.trigger_id:
                return False
            deferred, self.deferred = self.deferred, None
            self.woken += 1
            self.deferred_at = self.now
        self._run(lambda: self.task.wake(deferred, json.loads(json.dumps(event))))
        return True

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def _run(self, leg: Any) -> None:
        """Run a leg of the task to its end or its deferral."""
        try:
            self.result = leg()
        except TaskDeferred as deferred:
            with self._row:
                self.deferred, self.trigger_id = deferred, self.trigger_id + 1
        except Exception as error:  # noqa: BLE001 - the task's own end
            self.error = error

    # -- what happens ----------------------------------------------------------------------------

    def end(self) -> None:
        """Let the generation end at the service."""
        self.sandbox.advance(100_000)

    def net(self) -> None:
        """Let the trigger look, as it does when no callback comes."""
        deferred, self.deferred = self.deferred, None
        if deferred is not None:
            self._run(lambda: self.task.resume(deferred))

    async def send(self, state: str = "success", **changes: Any) -> int:
        """Send a callback to the route; return the status of the answer.

        :param changes: ``token``, ``method``, ``headers``, ``chunks`` (of the body), ``key``, ``path``, ``at``,
            ``nonce`` instead of the right ones.
        """
        token = changes.get("token", self.token)
        path = changes.get("path", PATH + token)
        how = {name: changes[name] for name in ("at", "nonce") if name in changes}
        headers = changes.get("headers", signed_headers(changes.get("key", self.sandbox.key), path, **how))
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        chunks = list(changes.get("chunks", [json.dumps(body(state)).encode()]))
        scope = {"type": "http", "method": changes.get("method", "POST"), "headers": raw, "query_string": b""}
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if not chunks:
                await asyncio.sleep(3600)  # a body that never ends
            chunk = chunks.pop(0)
            return {"type": "http.request", "body": chunk or b"", "more_body": bool(chunks)}

        async def answer(message: Any) -> None:
            sent.append(message)

        await self.route({**scope, "path_params": {"token": token}}, receive, answer)
        self.answers.append(sent[0]["status"])
        return self.answers[-1]

    async def settle(self) -> None:
        """Wait for what is held."""
        while self.waker._held:
            await asyncio.gather(*self.waker._held.values())
            await asyncio.sleep(0)

    @property
    def polls(self) -> int:
        """How often the generation was queried."""
        return len(self.sandbox.requests("query"))
