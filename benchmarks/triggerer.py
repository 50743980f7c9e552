"""Airflow's own trigger runner, fed and watched: the ground on which all triggers are measured.

``python -m benchmarks.triggerer SPEC.json`` is a triggerer without a database: Airflow's
``TriggerRunnerSupervisor`` with the methods overridden that would ask the metadata database (what runs, what
fired, which connection), and the real ``TriggerRunner`` in the process that it forks: the same message over
the same socket brings the triggers, encrypted arguments and all, and the same requests go back for
connections, which are counted here. A meter of the loop's lag is the only thing added to that process.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from airflow.executors import workloads
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerRunner, TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.sdk.api.datamodels._generated import ConnectionResponse
from airflow.triggers.base import BaseTrigger, TriggerEvent

from benchmarks import harness

LAG_FILE = "BENCH_LAG_FILE"


class IdleTrigger(BaseTrigger):
    """Waits and sends nothing: what Airflow itself needs for a trigger.

    :param interval: seconds between waking up.
    """

    def __init__(self, interval: float, job: int = 0) -> None:
        super().__init__()
        self.interval = interval
        self.job = job

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.triggerer.IdleTrigger", {"interval": self.interval, "job": self.job}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while True:
            await asyncio.sleep(self.interval)
        yield TriggerEvent(None)


class MeasuredRunner(TriggerRunner):
    """The runner, with a meter on its loop."""

    async def init_comms(self) -> None:
        await super().init_comms()
        self._meter = asyncio.create_task(harness.LagMeter(Path(os.environ[LAG_FILE])).run())
        if seconds := float(os.environ.get("BENCH_PROFILE", "0")):
            self._profiling = asyncio.create_task(_profile(seconds, Path(os.environ[LAG_FILE]).with_suffix(".prof")))


async def _profile(after: float, path: Path) -> None:
    """Write a profile of ten seconds of this process: ``BENCH_PROFILE=40`` starts it after 40 s (for development)."""
    await asyncio.sleep(after)
    profile = cProfile.Profile()
    profile.enable()
    await asyncio.sleep(10)
    profile.disable()
    profile.dump_stats(path)


class Connections:
    """The part of the API client that is asked for connections; it counts."""

    def __init__(self, known: dict[str, dict[str, Any]]) -> None:
        self.asked = 0
        self._known = known

    def get(self, conn_id: str) -> ConnectionResponse:
        self.asked += 1
        empty = dict.fromkeys(("host", "schema", "login", "password", "port", "extra"))
        return ConnectionResponse.model_validate({**empty, **self._known[conn_id], "conn_id": conn_id})


class Client:
    """The API client, as far as a trigger that waits needs it."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections


class BenchSupervisor(TriggerRunnerSupervisor):
    """The supervisor without a metadata database."""

    connections: Connections
    fired: int = 0
    failed: int = 0
    lines: int = 0

    @classmethod
    def run_in_process(cls) -> None:
        MeasuredRunner().run()

    def make_client(self) -> Any:
        return Client(self.connections)

    def _process_log_messages_from_subprocess(self) -> Generator[None, bytes | bytearray, None]:
        """Read the runner's log lines and drop them: whose triggers log at each poll shall not wait for a pen."""
        while True:
            line = yield
            self.lines += 1
            if b'"error"' in line or b'"critical"' in line:
                print(bytes(line).decode("utf-8", "replace"), file=sys.stderr)

    def load_triggers(self) -> None:
        """Feed nothing by itself; :func:`main` puts the triggers into the queue."""

    def heartbeat(self) -> None:
        """There is no job to be kept alive."""

    def clean_unused(self) -> None:
        """There is no table to be cleaned."""

    def emit_metrics(self) -> None:
        """Report nothing."""

    def on_trigger_event(self, trigger_id: int, event: TriggerEvent) -> None:
        self.fired += 1

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:
        self.failed += 1
        print("".join(exc or ["no reason"]), file=sys.stderr)


def workload(number: int, classpath: str, arguments: dict[str, Any]) -> workloads.RunTrigger:
    """Return the message that starts one trigger, as for a mapped task instance that has deferred."""
    task = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        task_id="wait",
        dag_id="generations",
        run_id="manual__2026-01-01T00:00:00+00:00",
        try_number=1,
        map_index=number,
        pool_slots=1,
        priority_weight=1,
    )
    return workloads.RunTrigger(
        id=number + 1, classpath=classpath, encrypted_kwargs=Trigger.encrypt_kwargs(arguments), ti=task
    )


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Run ``spec["jobs"]`` triggers of one kind through ramp-up and steady state; return the figures."""
    lag_file = Path(spec["lag_file"])
    os.environ[LAG_FILE] = str(lag_file)
    stats = harness.Stats(spec["server"])
    supervisor = BenchSupervisor.start(job=None, capacity=spec["jobs"])
    supervisor.connections = Connections(spec["connections"])
    try:
        _serve(supervisor, spec["settle"])
        empty = harness.usage(supervisor.pid)
        _serve(supervisor, 2.0)
        idle = harness.usage(supervisor.pid).since(empty)
        started = time.monotonic()
        supervisor.creating_triggers.extend(
            workload(number, spec["classpath"], _filled(spec["arguments"], number)) for number in range(spec["jobs"])
        )
        stats.take(reset=True)
        _serve(supervisor, spec["ramp"])
        ramp_stats = stats.take(reset=True)
        before, steady = harness.usage(supervisor.pid), time.monotonic()
        asked, lines = supervisor.connections.asked, supervisor.lines
        _serve(supervisor, spec["window"])
        after, seen = harness.usage(supervisor.pid), stats.take()
        return {
            "jobs": spec["jobs"],
            "idle": idle,
            "empty": asdict(empty),
            "window": after.since(before),
            "memory": {"rss": after.rss, "uss": after.uss},
            "memory_per_job": {
                "rss": (after.rss - empty.rss) / spec["jobs"],
                "uss": (after.uss - empty.uss) / spec["jobs"],
            },
            "ramp": {**ramp_stats, "bins": ramp_stats["bins"]},
            "steady": seen,
            "server_share": (seen["cpu"] - ramp_stats["cpu"]) / (seen["now"] - ramp_stats["now"]),
            "lookups": {"ramp": asked, "window": supervisor.connections.asked - asked},
            "running": len(supervisor.running_triggers),
            "fired": supervisor.fired,
            "failed": supervisor.failed,
            "log_lines": supervisor.lines - lines,
            "lag_ramp": harness.lags(lag_file, started, steady),
            "lag": harness.lags(lag_file, steady, time.monotonic()),
        }
    finally:
        supervisor.kill(signal.SIGKILL)


def _serve(supervisor: BenchSupervisor, seconds: float) -> None:
    """Do a supervisor's work for a while."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not supervisor.is_alive():
            raise RuntimeError("The trigger runner has died.")
        supervisor._service_subprocess(min(left, 1.0))
        supervisor.handle_events()
        supervisor.handle_failed_triggers()


def _filled(arguments: dict[str, Any], number: int) -> dict[str, Any]:
    return {name: _numbered(value, number) for name, value in arguments.items()}


def _numbered(value: Any, number: int) -> Any:
    return (
        number if value == "{number}" else value.replace("{number}", str(number)) if isinstance(value, str) else value
    )


if __name__ == "__main__":
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Airflow logs goes to the log, the last line of output is the result
    result = main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    print(json.dumps(result), file=told, flush=True)
