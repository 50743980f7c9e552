"""More mapped prompts than the account has slots, on a private Airflow with SQLite."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from airflow_provider_vidu.sandbox import Sandbox
from benchmarks import harness
from benchmarks.harness import Bar, at_least, at_most, table

TITLE: Final = "A full account"
CLIPS: Final = 24
SLOTS: Final = 4
SECONDS: Final = 20.0
"""How long the account makes a clip."""
WORKERS: Final = 8
ACCOUNTS: Final = {
    "gateway": ("vidu-native", {"gateway_concurrency": SLOTS, "models": "any"}),
    "official": ("ent-v2", {"concurrency": SLOTS, "when_full": "refuse"}),
}
TIMEOUT: Final = 900.0


def measure(quick: bool) -> dict[str, Any]:
    """Run the prompts on each kind of account."""
    sys.path.insert(0, str(harness.ROOT / "scripts"))
    from private_airflow import PrivateAirflow

    clips = 8 if quick else CLIPS
    folder = harness.RESULTS / "slots"
    folder.mkdir(parents=True, exist_ok=True)
    runs = {}
    with tempfile.TemporaryDirectory(dir=folder) as work:
        settings = {"CORE__PARALLELISM": str(WORKERS), "DAG_PROCESSOR__PARSING_PROCESSES": "1"}
        dags = [harness.ROOT / "benchmarks" / "dags"]
        with PrivateAirflow(Path(work) / "airflow", dags, settings=settings) as airflow:
            airflow.wait_for_dags(["bench_slots"], timeout=300)
            for name, (dialect, account) in ACCOUNTS.items():
                runs[name] = _run(airflow, name, dialect, account, clips)
                print(f"  {name}: {runs[name]}", flush=True)
    return {"runs": runs, "clips": clips, "versions": harness.versions("apache-airflow", "airflow-provider-vidu")}


def _run(airflow: Any, name: str, dialect: str, account: dict[str, Any], clips: int) -> dict[str, Any]:
    with Sandbox(queue=0, duration=SECONDS, balance=1_000_000, **account) as sandbox:
        fields = {"conn_type": "vidu", "host": sandbox.url, "password": sandbox.key, "extra": {"dialect": dialect}}
        airflow.add_connection(f"vidu_{name}", fields)
        run = airflow.trigger("bench_slots", {"count": clips, "conn_id": f"vidu_{name}"})
        held = _held(airflow, run)
        if airflow.run_state(run) != "success":
            raise RuntimeError(f"{name}: the run ended as {airflow.run_state(run)}: {airflow.states(run)}")
        starts = sorted(create.wall_time for create in sandbox.creates)
        sent = len(sandbox.requests("create"))
        balances = len(sandbox.requests("credits"))
    took = starts[-1] + SECONDS - starts[0]
    return {
        "kept": sum(state == "success" for task, state in airflow.states(run).items() if task.startswith("generate")),
        "paid": len(starts),
        "balances": balances,
        "refused": (sent - clips) / clips,
        "worker_seconds": held / clips,
        "seconds": took,
        "ideal": clips * SECONDS / SLOTS,
        "busy": clips * SECONDS / (SLOTS * took),
    }


def _held(airflow: Any, run: Any) -> float:
    """Wait for the end of a run; return the seconds for which its generating tasks held worker slots."""
    query = (
        "select count(*) from task_instance where dag_id = ? and run_id = ? and task_id = 'generate' "
        "and state = 'running'"
    )
    held, at = 0.0, time.monotonic()
    deadline, checked_at = at + TIMEOUT, 0.0
    with closing(sqlite3.connect(f"file:{airflow.home / 'airflow.db'}?mode=ro", uri=True, timeout=60)) as database:
        while True:
            time.sleep(0.2)
            now = time.monotonic()
            [(running,)] = database.execute(query, (run.dag_id, run.run_id)).fetchall()
            held, at = held + running * (now - at), now
            if now - checked_at > 2:
                checked_at = now
                if airflow.run_state(run) in ("success", "failed"):
                    return held
            if now > deadline:
                raise RuntimeError(f"{run.dag_id} did not end within {TIMEOUT:.0f} s: {airflow.states(run)}")


# -- reading ----------------------------------------------------------------------------------------


def bars(result: dict[str, Any]) -> list[Bar]:
    """Return what issue 20 asks of a full account."""
    clips, found = result["clips"], []
    for name, run in result["runs"].items():
        found += [
            at_least(f"{name}: clips kept: all", run["kept"], clips, "{:.0f}"),
            at_most(f"{name}: creates paid: {clips}", run["paid"], clips, "{:.0f}"),
            at_most(f"{name}: refused creates per clip: 3", run["refused"], 3, "{:.2f}"),
            at_most(f"{name}: worker-seconds per clip: 6", run["worker_seconds"], 6, "{:.1f}"),
            at_most(f"{name}: the account's own time: × 2", run["seconds"] / run["ideal"], 2, "× {:.2f}"),
            at_least(f"{name}: the account is busy: 80 %", run["busy"] * 100, 80, "{:.0f} %"),
        ]
    return found


_METHOD: Final = """\
**Method.** A private Airflow as `make demo` starts it (SQLite, LocalExecutor with {workers} slots), {clips} mapped
`ViduGenerateOperator(deferrable=True)` at their defaults, and a sandbox that makes {slots} clips at a time,
{seconds:.0f} s each, and refuses every further create (the gateway with `video_queue_full`, the official API with
`QuotaExceeded`). *Refused* counts refused creates; *worker-seconds* is the time for which generating tasks held a
worker slot (sampled five times a second); *busy* is the share of the slots that made clips from the first create to
the last clip's end. No other Airflow provider waits for a free slot, so there is no peer; the yardstick is the
account's own time."""


def section(result: dict[str, Any]) -> str:
    """Return the table and the method."""
    head = ("Account", "kept", "paid", "refused per clip", "worker-seconds per clip", "seconds", "ideal", "busy")
    rows = [
        (
            name, run["kept"], run["paid"], f"{run['refused']:.2f}", f"{run['worker_seconds']:.1f}",
            f"{run['seconds']:.0f}", f"{run['ideal']:.0f}", f"{run['busy']:.0%}",
        )
        for name, run in result["runs"].items()
    ]  # fmt: skip
    method = _METHOD.format(workers=WORKERS, clips=result["clips"], slots=SLOTS, seconds=SECONDS)
    return f"{method}\n\n{table(head, rows)}"
