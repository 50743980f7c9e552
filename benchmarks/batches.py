"""Many rows in one task, beside as many mapped tasks, on a private Airflow and one sandbox."""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from airflow_provider_vidu.sandbox import Sandbox
from benchmarks import harness
from benchmarks.harness import Bar, at_least, at_most, median, percentile, table

TITLE: Final = "Batches"
ROWS: Final = 200
MANY: Final = 500
"""Rows of a further batch, for the time from a clip that is ready to its file."""
IN_FLIGHT: Final = 20
SECONDS: Final = 10.0
"""How long a generation takes."""
BATCH: Final = "one batch"
MAPPED: Final = "mapped tasks"
LARGER: Final = "one larger batch"
DAGS: Final = {BATCH: "bench_batch", MAPPED: "bench_mapped", LARGER: "bench_batch"}
PATIENCE: Final = 1800.0


def measure(quick: bool) -> dict[str, Any]:
    """Run the batches and the mapped tasks, one after the other in one Airflow.

    BENCH_BATCHES names some of them, separated by commas: ``BENCH_BATCHES="one batch,one larger batch"``.
    """
    sys.path.insert(0, str(harness.ROOT / "scripts"))
    from private_airflow import PrivateAirflow

    count = 30 if quick else ROWS
    folder = harness.RESULTS / "batches"
    folder.mkdir(parents=True, exist_ok=True)
    names = os.environ.get("BENCH_BATCHES", ",".join(DAGS)).split(",")
    settings = {"CORE__MAX_MAP_LENGTH": "2000"}
    with tempfile.TemporaryDirectory(dir=folder) as work:
        dags = [harness.ROOT / "benchmarks" / "dags"]
        with PrivateAirflow(Path(work) / "airflow", dags, settings=settings) as airflow:
            airflow.wait_for_dags(sorted(set(DAGS.values())), timeout=300)
            counts = {LARGER: 50 if quick else MANY}
            runs = [_run(airflow, name, counts.get(name, count), Path(work) / name.replace(" ", "-")) for name in names]
    return {"runs": runs, "versions": harness.versions("apache-airflow", "airflow-provider-vidu")}


def _run(airflow: Any, name: str, count: int, folder: Path) -> dict[str, Any]:
    key = f"bench-{secrets.token_hex(8)}"
    with Sandbox(keys=[key], queue=0, duration=SECONDS, balance=10_000_000, concurrency=None, models="any") as sandbox:
        airflow.add_connection("vidu_default", {"conn_type": "vidu", "host": sandbox.url, "password": key})
        began = time.monotonic()
        run = airflow.trigger(DAGS[name], {"count": count, "folder": f"{folder}/"})
        state = _ended(airflow, run)
        seconds = time.monotonic() - began
        if state != "success" or len(sandbox.creates) != count:
            log = _first_failure(airflow, run)[-3000:]
            raise RuntimeError(f"{name} ended as {state} with {len(sandbox.creates)} of {count} creates. {log}")
        submits = sorted(create.wall_time for create in sandbox.creates)
        late = sorted(_late(folder, {create.id: create.wall_time + SECONDS for create in sandbox.creates}))
    # A mapped clip starts twice to generate and once to download; the first task lists the prompts.
    starts = 3 * count + 1 if name == MAPPED else airflow.task_log(run, "films").count("In this leg:") + 1
    result = {
        "name": name,
        "count": count,
        "seconds": seconds,
        "starts": starts,
        "in_flight": count * SECONDS / (submits[-1] + SECONDS - submits[0]),
        "late": {"median": median(late), "p95": percentile(late, 95)} if late else None,
    }
    print(f"  {result}", flush=True)
    return result


def _first_failure(airflow: Any, run: Any) -> str:
    for task in airflow.tasks(run):
        if task.state == "failed":
            return str(airflow.task_log(run, task.record["task_id"], map_index=task.record["map_index"]))
    return ""


def _ended(airflow: Any, run: Any) -> str:
    deadline = time.monotonic() + PATIENCE
    while (state := airflow.run_state(run)) not in ("success", "failed"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{run.dag_id} did not end within {PATIENCE:.0f} s")
        time.sleep(1)
    return str(state)


def _late(folder: Path, ready: dict[str, float]) -> list[float]:
    """Return the seconds from "ready at the API" to the file of each clip."""
    found = []
    for path in folder.glob("*.manifest.jsonl"):
        for line in map(json.loads, path.read_text("utf-8").splitlines()):
            file = Path(line["uri"].removeprefix("file://"))
            found.append(os.stat(file).st_ctime - ready[line["generation_id"]])  # noqa: PTH116 - the rename's time
    if not found:  # without a manifest, the id names the file
        files = [(file, ready.get(file.stem)) for file in folder.iterdir()]
        found = [os.stat(file).st_ctime - at for file, at in files if at is not None]  # noqa: PTH116
    return found


def _find(result: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((run for run in result["runs"] if run["name"] == name), None)


def bars(result: dict[str, Any]) -> list[Bar]:
    """Return what issue 21 asks of a batch."""
    ours, theirs, larger = _find(result, BATCH), _find(result, MAPPED), _find(result, LARGER)
    late = larger["late"]["median"] if larger is not None and larger["late"] else None
    both = ours is not None and theirs is not None
    return [
        at_most("wall time of mapped tasks", ours["seconds"] / theirs["seconds"] if both else None, 0.3, "{:.2f} ×"),
        at_most("task starts of mapped tasks", ours["starts"] / theirs["starts"] if both else None, 1 / 40, "{:.4f} ×"),
        at_most(f"ready to published at {MANY} clips, median", late, 15, "{:.1f} s"),
        at_least(f"in flight of {IN_FLIGHT}, mean", ours["in_flight"] if ours else None, 17, "{:.1f}"),
    ]


_METHOD: Final = """\
**Method.** A private Airflow (`scripts/private_airflow.py`: SQLite, LocalExecutor with four slots) and one sandbox on
this machine's cores. `one batch` is a `ViduBatchOperator` with `max_in_flight={in_flight}`; `mapped tasks` maps
`ViduGenerateOperator` with `max_active_tis_per_dag={in_flight}` and `ViduDownloadOperator`. Each generation takes
{seconds:.0f} s, so {count} rows take {ideal:.0f} s at best. *In flight* is the time of all generations divided by the
time from the first submit to the last end."""


def section(result: dict[str, Any]) -> str:
    """Return the table and the method."""
    count = next(run["count"] for run in result["runs"] if run["name"] != LARGER or len(result["runs"]) == 1)
    head = ("Run", "all in (s)", "task starts", "in flight, mean", "ready to published, median (s)", "95 %")
    rows = [
        (
            f"{run['count']} rows, {run['name']}",
            f"{run['seconds']:.0f}",
            run["starts"],
            f"{run['in_flight']:.1f}",
            *(f"{run['late'][name]:.1f}" if run["late"] else "–" for name in ("median", "p95")),
        )
        for run in result["runs"]
    ]
    ideal = count / IN_FLIGHT * SECONDS
    method = _METHOD.format(in_flight=IN_FLIGHT, seconds=SECONDS, count=count, ideal=ideal)
    return "\n\n".join((method, table(head, rows)))
