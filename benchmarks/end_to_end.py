"""From a prompt to a file through a real Airflow, beside as many empty deferrable tasks in the same Airflow."""

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
from benchmarks.harness import Bar, at_most, median, percentile, table

TITLE: Final = "End to end"
SIZES: Final = (50, 200, 500)
BUDGET: Final = 60 * 60.0
"""Seconds for all runs; a run that would not fit any more is left out, and the page says so."""
WAIT_PER_TASK: Final = 1.0
SHORTEST_WAIT: Final = 60.0
QUEUE: Final = 5.0
OURS: Final = "clips"
YARDSTICK: Final = "empty waits"
DAGS: Final = {OURS: "bench_clips", YARDSTICK: "bench_yardstick"}
PATIENCE: Final = 1800.0


def measure(quick: bool) -> dict[str, Any]:
    """Run clips and empty waits by turns, few first."""
    sys.path.insert(0, str(harness.ROOT / "scripts"))
    from airflow_cluster import CONCURRENCY, WORKERS, AirflowCluster

    sizes = (5,) if quick else SIZES
    runs: list[dict[str, Any]] = []
    skipped: list[str] = []
    folder = harness.RESULTS / "end_to_end"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"TRIGGERER__CAPACITY": "1000", "CORE__MAX_MAP_LENGTH": "2000", "DAG_PROCESSOR__PARSING_PROCESSES": "1"}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        dags = [harness.ROOT / "benchmarks" / "dags"]
        with AirflowCluster(Path(work) / "airflow", dags, settings=settings) as airflow:
            airflow.wait_for_dags(DAGS.values(), timeout=300)
            per_item = 2.0
            for size in sizes:
                for name in DAGS:
                    wait = max(SHORTEST_WAIT, size * WAIT_PER_TASK)
                    if not quick and time.monotonic() - began + size * per_item + SHORTEST_WAIT > BUDGET:
                        skipped.append(f"{size} {name}")
                        continue
                    run = _run(airflow, name, size, wait, Path(work) / f"{name.replace(' ', '-')}-{size}")
                    per_item = run["seconds"] / size
                    runs.append(run)
                    print(f"  {size} {name}: {_in_short(run)}", flush=True)
    return {
        "runs": runs,
        "skipped": skipped,
        "workers": len(WORKERS),
        "slots": len(WORKERS) * CONCURRENCY,
        "versions": harness.versions(
            "apache-airflow", "airflow-provider-vidu", "apache-airflow-providers-celery", "celery"
        ),
    }


def _run(airflow: Any, name: str, size: int, wait: float, folder: Path) -> dict[str, Any]:
    key = f"bench-{secrets.token_hex(8)}"
    with Sandbox(keys=[key], queue=QUEUE, duration=wait - QUEUE, balance=1_000_000) as sandbox:
        airflow.add_connection("vidu_default", {"conn_type": "vidu", "host": sandbox.url, "password": key})
        began = time.monotonic()
        run = airflow.trigger(DAGS[name], {"count": size, "seconds": wait, "folder": f"{folder}/"})
        samples = _watched(airflow, run, size)
        seconds = time.monotonic() - began
        late = _clips_late(airflow, run, sandbox, wait) if name == OURS else _naps_late(airflow, run)
    return {
        "name": name,
        "size": size,
        "wait": wait,
        "seconds": seconds,
        "all_waiting": [sample for sample in samples if sample["deferred"] == size],
        "most_deferred": max(sample["deferred"] for sample in samples),
        **late,
    }


def _watched(airflow: Any, run: Any, size: int) -> list[dict[str, int]]:
    """Wait for the end; note every second how many task instances wait, and how many hold a slot."""
    samples = []
    deadline = time.monotonic() + PATIENCE
    while True:
        rows = airflow.rows(
            "select state, count(*) from task_instance where run_id = %s and dag_id = %s group by state",
            run.run_id, run.dag_id,
        )  # fmt: skip
        counts = {str(state): int(count) for state, count in rows}
        samples.append({name: counts.get(name, 0) for name in ("deferred", "running", "queued")})
        if (state := airflow.run_state(run)) in ("success", "failed"):
            if state != "success":
                raise RuntimeError(f"{run.dag_id} with {size} ended as {state}: {counts}")
            return samples
        if time.monotonic() > deadline:
            raise RuntimeError(f"{run.dag_id} with {size} did not end within {PATIENCE:.0f} s: {counts}")
        time.sleep(1)


def _clips_late(airflow: Any, run: Any, sandbox: Sandbox, wait: float) -> dict[str, Any]:
    """Return seconds from "ready at the API" to the file, and to the poll that saw it, of every clip."""
    ready = {create.id: create.wall_time + wait for create in sandbox.creates}
    seen: dict[str, float] = {}
    for asked in sandbox.requests():
        if asked.id in ready and asked.method == "GET" and asked.wall_time >= ready[asked.id]:
            seen.setdefault(asked.id, asked.wall_time)
    published = {}
    for record in _xcoms(airflow, run, "clip.download"):
        # The rename is the last change of the file's entry.
        published[record["generation_id"]] = os.stat(record["uri"].removeprefix("file://")).st_ctime  # noqa: PTH116
    if published.keys() != ready.keys():
        raise RuntimeError(f"{len(ready)} clips were paid for and {len(published)} published.")
    return {
        "total": _figures([published[name] - ready[name] for name in ready]),
        "noticed": _figures([seen[name] - ready[name] for name in ready]),
        "after": _figures([published[name] - seen[name] for name in ready]),
    }


def _naps_late(airflow: Any, run: Any) -> dict[str, Any]:
    """Return seconds from the moment that an empty wait was due to the end of the empty task behind it."""
    due = dict(
        airflow.rows(
            "select map_index, value from xcom where run_id = %s and dag_id = %s and task_id = 'nap.generate'"
            " and key = 'return_value'",
            run.run_id, run.dag_id,
        )
    )  # fmt: skip
    ended = dict(
        airflow.rows(
            "select map_index, extract(epoch from end_date) from task_instance where run_id = %s and dag_id = %s"
            " and task_id = 'nap.download'",
            run.run_id, run.dag_id,
        )
    )  # fmt: skip
    late = _figures([float(ended[index]) - float(_decoded(value)) for index, value in due.items()])
    return {"total": late, "after": late}


def _xcoms(airflow: Any, run: Any, task_id: str) -> list[dict[str, Any]]:
    rows = airflow.rows(
        "select value from xcom where run_id = %s and dag_id = %s and task_id = %s and key = 'return_value'",
        run.run_id, run.dag_id, task_id,
    )  # fmt: skip
    return [_decoded(value) for (value,) in rows]


def _decoded(value: Any) -> Any:
    """Return an XCom's value: the column may hold JSON, or JSON in a JSON string."""
    while isinstance(value, str):
        value = json.loads(value)
    return value


def _figures(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "p95": percentile(values, 95), "worst": max(values)}


# -- reading ----------------------------------------------------------------------------------------


def _find(result: dict[str, Any], name: str, size: int) -> dict[str, Any] | None:
    return next((run for run in result["runs"] if run["name"] == name and run["size"] == size), None)


def _in_short(run: dict[str, Any]) -> str:
    total = run["total"]
    return (
        f"{total['median']:.1f} s late (95 %: {total['p95']:.1f}), all in {run['seconds']:.0f} s, slots {_slots(run)}"
    )


def _slots(run: dict[str, Any]) -> int | None:
    """Return the slots held while every wait was deferred (the least seen: legs end a moment later)."""
    return min((sample["running"] for sample in run["all_waiting"]), default=None)


def bars(result: dict[str, Any]) -> list[Bar]:
    """Return what issue 5 asks from end to end."""
    ours = [run for run in result["runs"] if run["name"] == OURS]
    held = [slots for run in ours if (slots := _slots(run)) is not None]
    most = max((run["size"] for run in ours), default=0)
    found = [at_most("worker slots held while all wait: 0", max(held, default=None), 0, "{:.0f}")]
    yard = _find(result, YARDSTICK, most)
    mine = _find(result, OURS, most)
    ratio = mine["after"]["median"] / yard["after"]["median"] if mine and yard else None
    told = "not measured" if mine is None else f"{mine['total']['median']:.0f} s, 95 %: {mine['total']['p95']:.0f} s"
    told += "" if ratio is None else f"; from the poll that saw it {ratio:.2f} × an empty wait's"
    return [*found, Bar(f"{most} clips: ready to published", told, None)]


_METHOD: Final = """\
**Method.** A private Airflow as users scale it out (`scripts/airflow_cluster.py`): PostgreSQL, {workers} Celery
workers with {slots} slots in all, two triggerers, everything on this machine's cores, the sandbox too. `clips` maps a
group of `ViduGenerateOperator(deferrable=True)` and `ViduDownloadOperator`, everything else at its default; each
generation takes the same time after its submit, long enough for most to be submitted before the first is ready.
*Ready* is the sandbox's record of the submit plus that time; *noticed* its record of the first poll after it;
*published* the rename of the file. `empty waits` is the yardstick: as many tasks that defer with Airflow's own
`TimeDeltaTrigger` and return, each followed by an empty task: the same number of starts, from the moment that the
trigger was due to the end of the second task. Compare it with the clips' time from *noticed* on. Slots are
the running task instances in the moments (one sample a second) in which every wait was deferred."""


def section(result: dict[str, Any]) -> str:
    """Return the table and the method."""
    head = (
        "Run", "ready to published, median (s)", "95 %", "worst", "of it: ready to noticed, median", "95 %",
        "noticed to published, median", "95 %", "slots while all wait", "most waiting", "all in (s)", "per second",
    )  # fmt: skip
    rows = []
    for run in result["runs"]:
        noticed = run.get("noticed")
        slots = _slots(run)
        rows.append(
            (
                f"{run['size']} {run['name']}",
                *(f"{run['total'][name]:.1f}" for name in ("median", "p95", "worst")),
                *(f"{noticed[name]:.1f}" if noticed else "–" for name in ("median", "p95")),
                *(f"{run['after'][name]:.1f}" for name in ("median", "p95")),
                "–" if slots is None else slots,
                run["most_deferred"],
                f"{run['seconds']:.0f}",
                f"{run['size'] / run['seconds']:.2f}",
            )
        )
    parts = [_METHOD.format(workers=result["workers"], slots=result["slots"]), table(head, rows)]
    if result["skipped"]:
        parts.append(f"Left out, because they would not have fitted into {BUDGET / 60:.0f} minutes: "
                     f"{', '.join(result['skipped'])}.")  # fmt: skip
    return "\n\n".join(parts)
