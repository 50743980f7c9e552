"""Waits that callbacks end: how many requests a generation costs, and how soon its end is noticed.

Two parts: a crowd of waits in one event loop, with the real route, the real triggers and a stand-in for Airflow's
database; and single orders on a real, idle Airflow.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from airflow_provider_vidu.sandbox import Sandbox
from benchmarks import harness
from benchmarks.harness import Bar, at_least, at_most, table

TITLE: Final = "Callbacks"
WAITS: Final = 10_000
QUEUE, DURATION = 20.0, 160.0
"""Seconds that a generation of the crowd waits and runs."""
ORDERS: Final = 12
ORDER_SECONDS: Final = 25.0
AT_ONCE: Final = 50
"""Creates in flight."""


def measure(quick: bool) -> dict[str, Any]:
    """Run the crowd, then the single orders."""
    crowd = asyncio.run(_crowd(200 if quick else WAITS, 0.2 if quick else 1.0))
    print(f"  crowd: {crowd}", flush=True)
    single = _single(3 if quick else ORDERS)
    print(f"  single: {single}", flush=True)
    return {"crowd": crowd, "single": single, "versions": harness.versions("apache-airflow", "airflow-provider-vidu")}


# -- the crowd ---------------------------------------------------------------------------------------


@dataclass
class Wait:
    """A deferred task of the crowd."""

    instance: UUID
    trigger: Any
    deferred_at: float
    task: asyncio.Task[None] | None = None
    called_at: float | None = None
    ended_at: float | None = None


@dataclass
class Crowd:
    """Plays Airflow's database, worker and triggerer for many waits."""

    loop: asyncio.AbstractEventLoop
    hook: Any
    waits: dict[UUID, Wait] = field(default_factory=dict)
    kills: list[asyncio.Task[None]] = field(default_factory=list)
    polled: int = 0

    def find(self, instances: Collection[UUID]) -> dict[UUID, list[Any]]:
        """Return what the database would."""
        from airflow_provider_vidu.ui.callbacks.airflow_tasks import WaitingTask

        waits = (self.waits[instance] for instance in instances if instance in self.waits)
        return {
            wait.instance: [WaitingTask(wait.instance, 1, wait.deferred_at, wait.trigger.serialize()[1])]
            for wait in waits
            if wait.called_at is None and wait.ended_at is None
        }

    def resume(self, task: Any, event: Mapping[str, Any]) -> bool:
        """Resume a task: its trigger is cancelled with that reason, and a worker polls once."""
        wait = self.waits[task.instance]
        if wait.called_at is not None or wait.ended_at is not None:
            return False
        wait.called_at = time.time()
        self.loop.call_soon_threadsafe(self._woken, wait)
        return True

    def _woken(self, wait: Wait) -> None:
        if wait.task is not None:
            wait.task.cancel()
        self.kills += [asyncio.create_task(wait.trigger.on_kill()), asyncio.create_task(self._poll(wait))]

    async def _poll(self, wait: Wait) -> None:
        generation = await self.hook.aget_generation(wait.trigger.generation_id)
        assert generation.is_done
        wait.ended_at = time.time()

    async def watch(self, wait: Wait) -> None:
        """Run the trigger, as a triggerer does."""
        async for _ in wait.trigger.run():
            wait.ended_at = time.time()
            self.polled += 1


async def _crowd(waits: int, share: float) -> dict[str, Any]:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Route

    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.ui.callbacks.keys import Keys
    from airflow_provider_vidu.ui.callbacks.routes import CallbackRoute
    from airflow_provider_vidu.ui.callbacks.waking import Waker
    from airflow_provider_vidu.ui.threads import Threads

    with (
        Sandbox(queue=QUEUE * share, duration=DURATION * share, concurrency=None, balance=10**9) as sandbox,
        socket.create_server(("127.0.0.1", 0), backlog=4096) as listener,
    ):
        os.environ["AIRFLOW_CONN_VIDU_DEFAULT"] = sandbox.connection_json("ent-v2")
        hook = ViduHook()
        crowd = Crowd(asyncio.get_running_loop(), hook)
        path = "/vidu/callbacks/"
        route = CallbackRoute(path, Waker(crowd.find, crowd.resume, Threads(2)), Keys())
        app = Starlette(routes=[Route(path + "{token:path}", route)])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        slots = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(_order(crowd, hook, base, slots) for _ in range(waits)))
        deadline = time.monotonic() + 1200
        while any(wait.ended_at is None for wait in crowd.waits.values()) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        await asyncio.gather(*crowd.kills, return_exceptions=True)
        asked = [request for request in sandbox.requests() if request.kind in ("query", "list")]
        reported = {
            record.id: record.wall_time
            for record in sandbox.callbacks
            if record.word != "processing" and record.status == 200
        }
        ids = {wait.trigger.generation_id: wait for wait in crowd.waits.values()}
        delays = [wait.ended_at - reported[key] for key, wait in ids.items() if wait.called_at and wait.ended_at]
        server.should_exit = True
        await serving
    return {
        "waits": waits,
        "ended": sum(wait.ended_at is not None for wait in crowd.waits.values()),
        "called": len(delays),
        "requests": len(asked) / waits,
        "lists": sum(request.kind == "list" for request in asked),
        "median": statistics.median(delays) if delays else None,
        "worst": max(delays, default=None),
    }


async def _order(crowd: Crowd, hook: Any, base: str, slots: asyncio.Semaphore) -> None:
    """Submit a generation with a callback and begin its wait, as the operator does."""
    from airflow_provider_vidu.tasks.callbacks.tokens import new_address
    from airflow_provider_vidu.triggers import ViduGenerationTrigger

    address = new_address(base, instance := uuid4())
    async with slots:
        generation = await asyncio.to_thread(
            hook.create_generation, model="viduq3-turbo", prompt="a boat", callback_url=address.url
        )
    now = time.time()
    trigger = ViduGenerationTrigger(
        generation_id=generation.id, deadline=now + 3600, since=now, known=True, cancel_on_kill=True,
        callback=address.digest,
    )  # fmt: skip
    wait = crowd.waits[instance] = Wait(instance, trigger, now)
    wait.task = asyncio.create_task(crowd.watch(wait))


# -- single orders -----------------------------------------------------------------------------------


def _single(orders: int) -> dict[str, Any]:
    sys.path.insert(0, str(harness.ROOT / "scripts"))
    from private_airflow import PrivateAirflow
    from processes import free_port

    folder = harness.RESULTS / "callbacks"
    folder.mkdir(parents=True, exist_ok=True)
    port, delays, polls = free_port(), [], []
    settings = {"VIDU__CALLBACK_BASE_URL": f"http://127.0.0.1:{port}", "DAG_PROCESSOR__PARSING_PROCESSES": "1"}
    with (
        tempfile.TemporaryDirectory(dir=folder) as work,
        Sandbox(queue=2, duration=ORDER_SECONDS, balance=10**9) as sandbox,
        PrivateAirflow(
            Path(work) / "airflow", [harness.ROOT / "benchmarks" / "dags"], port=port, settings=settings
        ) as airflow,
    ):
        fields = {"conn_type": "vidu", "host": sandbox.url, "password": sandbox.key, "extra": {"dialect": "ent-v2"}}
        airflow.add_connection("vidu_callbacks", fields)
        airflow.wait_for_dags(["bench_callbacks"], timeout=300)
        for _ in range(orders):
            state = airflow.wait(airflow.trigger("bench_callbacks"), timeout=300)
            if state != "success":
                raise RuntimeError(f"An order ended as {state}.")
            time.sleep(5)  # what the trigger asks after its end
            created = sandbox.creates[-1].id
            reported = next(
                record.wall_time
                for record in sandbox.callbacks
                if record.id == created and record.word == "success" and record.status == 200
            )
            asked = [request.wall_time for request in sandbox.requests("query", created)]
            polls.append(len(asked))
            delays.append(min((at for at in asked if at > reported - 1), default=float("inf")) - reported)
    return {"orders": orders, "median": statistics.median(delays), "worst": max(delays), "polls": sum(polls) / orders}


# -- reading -----------------------------------------------------------------------------------------


def bars(result: dict[str, Any]) -> list[Bar]:
    """Return what issue 22 asks of callbacks."""
    crowd, single = result["crowd"], result["single"]
    return [
        at_least("waits that ended: all", crowd["ended"], crowd["waits"], "{:.0f}"),
        at_most("requests per generation, crowd: 2", crowd["requests"], 2, "{:.2f}"),
        at_most("requests per generation, single orders: 2", single["polls"], 2, "{:.2f}"),
        at_most("noticed after a callback (median): 1.5 s", single["median"], 1.5, "{:.2f} s"),
    ]


_METHOD: Final = """\
**Method.** *Crowd*: {waits} waits in one event loop, {seconds:.0f} s each, with the real triggers, the real route
(uvicorn) and signed callbacks of the sandbox; Airflow's database is a dictionary. Counted are all queries and lists:
those of triggers, of woken tasks, and of triggers that were left behind. *Single orders*: {orders} orders, one after
the other, on a private Airflow (SQLite, LocalExecutor); the time from the answer to the callback until the woken
task's query arrives at the service."""


def section(result: dict[str, Any]) -> str:
    """Return the table and the method."""
    crowd, single = result["crowd"], result["single"]
    rows = [
        ("crowd", crowd["waits"], f"{crowd['requests']:.2f}", _seconds(crowd["median"]), _seconds(crowd["worst"])),
        ("single orders", single["orders"], f"{single['polls']:.2f}", _seconds(single["median"]),
         _seconds(single["worst"])),
    ]  # fmt: skip
    head = ("", "generations", "requests per generation", "noticed after (median)", "worst")
    method = _METHOD.format(waits=crowd["waits"], seconds=QUEUE + DURATION, orders=single["orders"])
    return f"{method}\n\n{table(head, rows)}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
