"""The soak of downloads, many in one process.

``PYTHONPATH=scripts python -m tests.soak.downloads --report FILE --folder DIR`` runs it by hand.

Each is what a task does: an operator, executed; after an error that may be retried, executed again, as Airflow
would. Files and memory are looked at in this same process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import sys
import threading
import time
import tracemalloc
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.operators.download import ViduDownloadOperator
from airflow_provider_vidu.sandbox import Sandbox
from processes import free_port
from tests.soak.probe import measure_process
from tests.soak.weather import FILE_ACTIONS, POLL_ACTIONS, Weather, scatter

CONN_ID = "soak_files"
THREADS = 8
TRIES = 6
WARM_UP = 24
CLIPS = 24


class Worker:
    """The process that downloads: nothing else lives in it, so that its figures are the package's.

    :param folder: where the files go.
    :param digests: what each generation's file must be.
    """

    def __init__(self, folder: Path, digests: dict[str, str]) -> None:
        self.folder, self.digests = folder, digests
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def fetch(self, numbers: range) -> dict[str, Any]:
        """Download, in some threads at a time; return what went wrong and the figures at the end."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._task, numbers))
        return {"errors": dict(self.errors), "wrong": self.wrong, **measure_process()}

    def _task(self, number: int) -> None:
        """Run one task, with its retries."""
        target = self.folder / f"{number}.mp4"
        for _ in range(TRIES):
            try:
                record = self._try(number, target)
            except ViduError as error:
                with self._lock:
                    self.errors[type(error).__name__] += 1
                if target.exists():
                    self.wrong.append(f"{target.name}: there is a file after {error}")
                continue
            found = hashlib.sha256(target.read_bytes()).hexdigest()
            if not found == record["sha256"] == self.digests[record["generation_id"]]:
                self.wrong.append(f"{target.name}: not the file that was sent")
            return
        self.wrong.append(f"{target.name}: not there after {TRIES} tries")

    def _try(self, number: int, target: Path) -> dict[str, Any]:
        name = list(self.digests)[number % len(self.digests)]
        return ViduDownloadOperator(
            task_id=f"download_{number}", generation_id=name, vidu_conn_id=CONN_ID, destination=str(target)
        ).execute({})


_worker: Worker


def warm_up(folder: Path, digests: dict[str, str], connection: str) -> dict[str, Any]:
    """Begin, in the worker's process: everything that is imported and cached once."""
    global _worker
    os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = connection
    _worker = Worker(folder, digests)
    figures = _worker.fetch(range(WARM_UP))
    tracemalloc.start()
    return figures


def soak(count: int) -> dict[str, Any]:
    """Do the rest, in the same process."""
    return _worker.fetch(range(WARM_UP, WARM_UP + count))


def run(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return the report."""
    rng = random.Random(seed)
    with (
        Sandbox(speed=20, seed=seed, port=free_port()) as sandbox,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process,
    ):
        names = [f"clip-{number}" for number in range(CLIPS)]
        for name in names:
            sandbox.add_generation(name, states=[["completed", 0]], size=rng.randint(150_000, 2_000_000))
        digests = {name: hashlib.sha256(sandbox.file_bytes(name)).hexdigest() for name in names}
        connection = sandbox.connection_json(timeout=2, max_retries=4)
        baseline = process.submit(warm_up, folder, digests, connection).result()
        seen, began = len(sandbox.requests()), time.monotonic()
        scatter(sandbox, rng, "file", FILE_ACTIONS, count=count // 3, over=count)
        scatter(sandbox, rng, "query", POLL_ACTIONS, count=count // 8, over=count)
        weather = Weather(sandbox, seed, actions={}, restarts=[4.0])
        weather.start()
        end = process.submit(soak, count).result()
        weather.stop()
        requests = sandbox.requests()[seen:]
    known = {f"{number}.mp4" for number in range(WARM_UP + count)}
    return {
        "seed": seed,
        "downloads": count,
        "requests": len(requests),
        "resumed": sum(record.status == 206 for record in requests),
        "faults": sum(record.fault for record in requests),
        "restarts": weather.restarts,
        "errors": end["errors"],
        "wrong": end["wrong"],
        "leftovers": sorted({path.name for path in folder.iterdir()} - known),
        "baseline": baseline,
        "end": end,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--downloads", type=int, default=320)
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    options.report.write_text(json.dumps(run(options.downloads, options.seed, options.folder), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
