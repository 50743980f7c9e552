"""The soak of waits, in Airflow's own trigger runner under bad weather.

``PYTHONPATH=scripts python -m tests.soak.waits --report FILE`` runs it by hand.

An hour of the service's time passes in ``--seconds`` of the wall clock's. Waits arrive all along; they finish,
fail, time out, are killed and handed over. The report holds what was noticed and what was measured in the
runner's process; :mod:`tests.soak.judge` says whether that is good.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from airflow_provider_vidu.sandbox import Sandbox
from processes import free_port
from tests.soak import crowd
from tests.soak.probe import ProbeTrigger
from tests.soak.rig import WorldlySupervisor
from tests.soak.weather import POLL_ACTIONS, Weather

HOUR = 3600.0
WARM_UP_WAITS = 40
QUIET_SECONDS = 110.0
"""Longer than a wait pauses after five failed polls in a row."""
log = structlog.get_logger(logger_name="soak")


class Town:
    """The world of the soak: tasks that wait, and the service they wait for.

    :param sandbox: the service.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.key = sandbox.key
        self.samples: dict[str, dict[str, Any]] = {}
        self.waits: list[crowd.Wait] = []
        self.broken: list[str] = []
        self.most_at_once = 0
        self.restarting = lambda: False
        self._wanted: set[int] = set()
        self._by_trigger: dict[int, crowd.Wait] = {}
        self._by_task: dict[str, crowd.Wait] = {}
        self._probes: dict[int, ProbeTrigger] = {}
        self._acting: list[crowd.Wait] = []
        self._returning: list[crowd.Wait] = []
        self._last_id = 0

    # -- what the supervisor asks ------------------------------------------------------------------

    def wanted(self) -> set[int]:
        """Return the triggers that shall run now."""
        return self._wanted

    def trigger(self, trigger_id: int) -> tuple[str, Any]:
        """Return the task and its trigger."""
        if probe := self._probes.get(trigger_id):
            return "probe", probe
        wait = self._by_trigger[trigger_id]
        return wait.task_id, wait.deferred()

    def fired(self, trigger_id: int, event: Any) -> None:
        """Note an event; Airflow removes the trigger then."""
        self._wanted.discard(trigger_id)
        if self._probes.pop(trigger_id, None) is not None:
            self.samples[event["label"]] = event
            return
        wait = self._by_trigger[trigger_id]
        wait.outcomes.append((event["outcome"], event["error"] and event["error"]["type"]))
        wait.ended = time.monotonic()

    def broke(self, trigger_id: int, traceback: list[str] | None) -> None:
        """Note a trigger that ended without an event: none may."""
        self._wanted.discard(trigger_id)
        self.broken.append("".join(traceback or ["it returned without an event"]))

    def connection(self, conn_id: str) -> dict[str, Any] | None:
        """Return the connection with the key of the moment."""
        for dialect, known in crowd.CONNECTIONS.items():
            if known == conn_id:
                extra = json.dumps({"dialect": dialect, "timeout": 2})
                return {"conn_type": "vidu", "host": self.sandbox.url, "password": self.key, "extra": extra}
        return None

    def state(self, task_id: str) -> str:
        """Return the state of a task: a user has killed it, or it waits (here or elsewhere)."""
        wait = self._by_task[task_id]
        return "failed" if wait.kind == "killed" and wait.acted else "deferred"

    def published(self, task_id: str) -> str | None:
        """Return the id that a task has published."""
        return self._by_task[task_id].generation_id

    # -- what happens ------------------------------------------------------------------------------

    def arrive(self, wait: crowd.Wait) -> None:
        """Let a task submit and defer."""
        wait.put_into(self.sandbox)
        wait.started = time.monotonic()
        self.waits.append(wait)
        self._by_task[wait.task_id] = wait
        self._defer(wait)
        if wait.kind in ("killed", "handed_over"):
            self._acting.append(wait)

    def _defer(self, wait: crowd.Wait) -> None:
        self._last_id += 1
        wait.trigger_ids.append(self._last_id)
        self._by_trigger[self._last_id] = wait
        self._wanted.add(self._last_id)

    def probe(self, label: str, *, trace: bool = False) -> None:
        """Look around in the runner."""
        self._last_id += 1
        self._probes[self._last_id] = ProbeTrigger(label=label, trace=trace)
        self._wanted.add(self._last_id)

    def act(self, running: set[int]) -> None:
        """Kill and hand over what is due; take up again what has stopped elsewhere."""
        self.most_at_once = max(self.most_at_once, len(running))
        now = time.monotonic()
        due = [
            wait for wait in self._acting if now - wait.started >= wait.acts_after and wait.trigger_ids[0] in running
        ]
        for wait in due:
            if wait.kind == "killed" and self.restarting():
                continue  # a cancel is repeated a few times and best effort: not into a service that is down
            self._acting.remove(wait)
            wait.acted = True
            wait.ended = now
            self._wanted.discard(wait.trigger_ids[0])
            if wait.kind == "handed_over":
                self._returning.append(wait)
        for wait in [wait for wait in self._returning if wait.trigger_ids[0] not in running]:
            self._returning.remove(wait)
            if not wait.outcomes:
                self._defer(wait)

    @property
    def busy(self) -> int:
        """How many waits are not over."""
        return len(self._wanted) + len(self._acting) + len(self._returning)

    def uncancelled(self) -> list[crowd.Wait]:
        """Return the killed waits whose generation the service could cancel and has not."""
        killed = [wait for wait in self.waits if wait.kind == "killed" and wait.acted and wait.dialect == crowd.ENT]
        if not killed:
            return []
        cancelled = {record.id for record in self.sandbox.requests("cancel") if record.status == 200}
        return [wait for wait in killed if wait.generation_id not in cancelled]

    def overzealous(self) -> list[str]:
        """Return the tasks whose generation was cancelled although they were not killed."""
        killed = {wait.generation_id for wait in self.waits if wait.kind == "killed"}
        return sorted({str(record.id) for record in self.sandbox.requests("cancel")} - killed)


class Soak:
    """One run.

    :param count: how many waits.
    :param seconds: wall seconds in which they arrive; one hour of the service's time.
    """

    def __init__(self, count: int, seconds: float, seed: int) -> None:
        self.count, self.seconds, self.seed = count, seconds, seed
        self.rng = random.Random(seed)
        self.town: Town
        self.supervisor: WorldlySupervisor

    def run(self) -> dict[str, Any]:
        """Return the report."""
        sandbox = Sandbox(speed=HOUR / self.seconds, seed=self.seed, port=free_port())
        self.town = Town(sandbox)
        # Forked first, while this process has no other thread.
        self.supervisor = WorldlySupervisor.start(job=None, capacity=10_000, logger=log, world=self.town)
        try:
            with sandbox:
                return self._run(sandbox)
        finally:
            self.supervisor.kill(escalation_delay=10, force=True)

    def _run(self, sandbox: Sandbox) -> dict[str, Any]:
        began = time.monotonic()
        self._warm_up()
        queries, opened = len(sandbox.requests("query")), sandbox.core.clock.now()
        weather = Weather(
            sandbox,
            self.seed,
            actions={"query": POLL_ACTIONS},
            restarts=[self.seconds * share for share in (0.2, 0.45, 0.7)],
            rotations=[self.seconds * share for share in (0.1, 0.33, 0.58, 0.83)],
            on_key=lambda key: setattr(self.town, "key", key),
            calm=lambda: not self.town.uncancelled(),
        )
        self.town.restarting = weather.restarting.is_set
        weather.start()
        self._soak()
        weather.stop()
        self._until_quiet()
        self._measure("end")
        polls = sandbox.requests("query")[queries:]
        waits = self.town.waits
        return {
            "seed": self.seed,
            "waits": len(waits),
            "census": crowd.census(waits),
            "sandbox_seconds": round(sandbox.core.clock.now() - opened),
            "most_at_once": self.town.most_at_once,
            "polls": len(polls),
            "polls_allowed": round(self._allowance()),
            "faults": sum(record.fault for record in polls),
            "refused_polls": sum(record.status == 401 for record in polls),
            "restarts": weather.restarts,
            "rotations": weather.rotations,
            "handed_over": sum(wait.kind == "handed_over" and wait.acted for wait in waits),
            "wrong": [problem for wait in waits if (problem := wait.problem())],
            "broken": self.town.broken,
            "uncancelled": [wait.task_id for wait in self.town.uncancelled()],
            "overzealous": self.town.overzealous(),
            "samples": self.town.samples,
            "seconds": round(time.monotonic() - began, 1),
        }

    def _warm_up(self) -> None:
        """Let everything be imported, started and cached that is once."""
        for wait in crowd.gather(WARM_UP_WAITS, random.Random(0)):
            wait.seconds = 60.0
            self.town.arrive(wait)
        self._until_quiet()
        self._measure("baseline", trace=True)
        self.town.most_at_once = 0

    def _soak(self) -> None:
        start, quarter = time.monotonic(), 1
        waiting = iter(crowd.gather(self.count, self.rng, first=WARM_UP_WAITS))
        times = sorted(self.rng.uniform(0, self.seconds) for _ in range(self.count))
        for due in self._passing(start, times):
            for _ in range(due):
                self.town.arrive(next(waiting))
            if quarter < 4 and time.monotonic() - start >= self.seconds * quarter / 4:
                self.town.probe(f"quarter {quarter}")
                quarter += 1
        self._measure("quarter 4")

    def _passing(self, start: float, times: list[float]) -> Iterator[int]:
        """Run the supervisor, and say at each turn how many more have arrived."""
        arrived = 0
        while arrived < len(times):
            self._turn()
            passed = time.monotonic() - start
            due = sum(1 for at in times[arrived : arrived + 200] if at <= passed)
            arrived += due
            yield due

    def _turn(self) -> None:
        if not self.supervisor.is_alive():
            raise RuntimeError("the trigger runner has died; its log says why")
        self.town.act(self.supervisor.running_triggers)
        self.supervisor.run_once()

    def _measure(self, label: str, *, trace: bool = False) -> None:
        self.town.probe(label, trace=trace)
        self._turns_until(lambda: label in self.town.samples, 30)

    def _until_quiet(self) -> None:
        self._turns_until(lambda: not self.town.busy and not self.supervisor.running_triggers, QUIET_SECONDS)
        # Cancels are detached from their triggers, and closed sockets need a turn of the loop.
        self._turns_until(lambda: not self.town.uncancelled(), 30)
        self._turns_until(lambda: False, 3)

    def _turns_until(self, done: Any, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not done():
            self._turn()

    def _allowance(self) -> float:
        """Return how many polls the documented schedule allows at most.

        One each shortest interval of each wait's life, its first and its last, and one more for each wait that
        met a rotated key.
        """
        lives = sum((wait.ended or time.monotonic()) - wait.started for wait in self.town.waits)
        refused = sum(record.status == 401 for record in self.town.sandbox.requests("query"))
        return lives / (0.95 * crowd.POLL_INTERVAL) + 2 * len(self.town.waits) + refused


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--waits", type=int, default=3200)
    parser.add_argument("--seconds", type=float, default=160.0)
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    report = Soak(options.waits, options.seconds, options.seed).run()
    options.report.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
