"""A batch on a private Airflow whose worker and triggerer are killed, and what it must have left in the end."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import PrivateAirflow, Run, wait_for

PATIENCE = 180.0
IMPORT_SECONDS = 45.0
"""Before the memory of a triggerer counts."""


@dataclass
class BatchRun:
    """A run of a DAG of ``dags/batches.py``.

    :param airflow: where it runs.
    :param sandbox: the service, which only this batch uses.
    :param folder: for the rows, the files and the processes of its legs.
    :param count: how many rows it has.
    """

    airflow: PrivateAirflow
    sandbox: Sandbox
    folder: Path
    count: int
    run: Run = field(init=False)

    def start(self, dag_id: str, conn_id: str) -> None:
        """Write the rows, and trigger the DAG."""
        rows = self.folder / "rows.jsonl"
        rows.write_text("\n".join(json.dumps({"key": f"row{n}", "prompt": f"a cat {n}"}) for n in range(self.count)))
        (self.folder / "legs").touch()
        conf = {
            "rows": str(rows),
            "folder": f"{self.folder}/out/",
            "legs": str(self.folder / "legs"),
            "conn_id": conn_id,
        }
        self.run = self.airflow.trigger(dag_id, conf)

    def legs(self) -> list[tuple[int, int]]:
        """Return process id and first memory (bytes) of each leg so far."""
        return [(int(pid), int(rss)) for pid, rss in map(str.split, (self.folder / "legs").read_text().splitlines())]

    def creates(self) -> int:
        """Return how many creates the service has carried out."""
        return len(self.sandbox.creates)

    def kill_worker(self, most_delay: float) -> None:
        """Kill the process of a leg (SIGKILL), at a random moment after it was found alive."""
        found: list[int] = []

        def is_alive() -> bool:
            found[:] = [pid for pid, _ in self.legs()[-1:] if psutil.pid_exists(pid)]
            return bool(found)

        assert wait_for(is_alive, PATIENCE, every=0.1), self.airflow.states(self.run)
        time.sleep(random.uniform(0, most_delay))
        with suppress(ProcessLookupError):  # the leg may have ended: then nothing is killed, and the next one may be
            os.kill(found[0], signal.SIGKILL)

    def kill_triggerer(self) -> None:
        """Kill the triggerer (SIGKILL) and start another one."""
        self.airflow.kill_component("triggerer")
        self.airflow.start_component("triggerer")

    def mark_failed(self) -> None:
        """Mark the task failed, as a user does."""
        self.airflow.api("PATCH", f"{self.run.path}/taskInstances/films", {"new_state": "failed"})

    def clear(self) -> None:
        """Clear the task, as a user does."""
        body = {"dry_run": False, "dag_run_id": self.run.run_id, "task_ids": ["films"], "only_failed": False}
        self.airflow.api("POST", f"/dags/{self.run.dag_id}/clearTaskInstances", body)

    def check(self) -> list[dict[str, Any]]:
        """Check that each row was paid once, and has one whole file and one line; return the lines.

        Generations that a kill by a user has cancelled cost nothing.
        """
        charged = {create.id for create in self.sandbox.creates if create.charge == "charged"}
        (path,) = (self.folder / "out").glob("*.manifest.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["status"] for line in lines] == ["stored"] * self.count
        assert {line["key"] for line in lines} == {f"row{n}" for n in range(self.count)}
        assert {line["generation_id"] for line in lines} == charged
        assert len(charged) == self.count
        files = {str(file) for file in (self.folder / "out").iterdir() if file.suffix == ".mp4"}
        assert files == {line["uri"].removeprefix("file://") for line in lines}
        for line in lines:
            content = Path(line["uri"].removeprefix("file://")).read_bytes()
            assert hashlib.sha256(content).hexdigest() == line["sha256"]
        return lines


@contextmanager
def memory(batch: BatchRun) -> Iterator[dict[str, int]]:
    """Measure how much the memory of the legs and of the triggerer grows, in bytes: the most of each."""
    grown = {"worker": 0, "triggerer": 0}
    first: dict[tuple[str, int], int] = {}
    began: dict[tuple[str, int], float] = {}
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.5):
            seen = [("worker", pid) for pid, _ in batch.legs()[-1:]]
            with suppress(KeyError):
                seen.append(("triggerer", batch.airflow.components["triggerer"].process.pid))
            for kind, pid in seen:
                with suppress(psutil.Error):
                    rss = _rss(pid, with_children=kind == "triggerer")
                    since = began.setdefault((kind, pid), time.monotonic())
                    if kind == "triggerer" and time.monotonic() - since < IMPORT_SECONDS:
                        continue  # it and its child process are importing
                    grown[kind] = max(grown[kind], rss - first.setdefault((kind, pid), rss))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield grown
    finally:
        is_over.set()
        watcher.join()


def _rss(pid: int, *, with_children: bool) -> int:
    process = psutil.Process(pid)
    processes = [process, *(process.children(recursive=True) if with_children else ())]
    return sum(one.memory_info().rss for one in processes)
