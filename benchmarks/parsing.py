"""What importing operators and sensors costs a DAG file, on top of Airflow itself, beside two providers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any, Final

from benchmarks import harness
from benchmarks.harness import Bar, at_most, median, table

TITLE: Final = "DAG parsing"
ROUNDS: Final = 21
LIMIT_MS: Final = 30.0
OURS: Final = "airflow_provider_vidu"
BATCHES: Final = "airflow_provider_vidu, batches as well"
CONTESTANTS: Final[dict[str, tuple[str, ...]]] = {
    OURS: (f"{OURS}.operators.generate", f"{OURS}.operators.download", f"{OURS}.sensors"),
    BATCHES: (f"{OURS}.operators.generate", f"{OURS}.operators.download", f"{OURS}.sensors", f"{OURS}.operators.batch"),
    "http provider": ("airflow.providers.http.operators.http", "airflow.providers.http.sensors.http"),
    "openai provider": ("airflow.providers.openai.operators.openai",),
}
CLIENTS: Final = ("requests", "aiohttp", "httpx", "urllib3", "http.client", "botocore", "fsspec", "openai")
BASE: Final = "import airflow.sdk; from airflow.sdk import DAG, BaseOperator, BaseSensorOperator"
SHOWN: Final = 8

_CHILD: Final = """
import sys, time
{base}
before = set(sys.modules)
wall, cpu = time.perf_counter(), time.process_time()
import {modules}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
found = set(sys.modules) - before
import json
print(json.dumps([wall, cpu, len(found), [name for name in {clients!r} if name in found]]))
"""
_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


def measure(quick: bool) -> dict[str, Any]:
    """Import in fresh interpreters, the contestants in turn."""
    rounds = 5 if quick else ROUNDS
    runs: dict[str, list[Any]] = {name: [] for name in CONTESTANTS}
    for modules in CONTESTANTS.values():
        _import(modules)  # bytecode is written, files are in the page cache
    for _ in range(rounds):
        for name, modules in CONTESTANTS.items():
            runs[name].append(_import(modules))
    return {
        "rounds": rounds,
        "runs": {name: _figures(found) for name, found in runs.items()},
        "heaviest": {name: heaviest(_importtime(modules)) for name, modules in CONTESTANTS.items()},
        "versions": harness.versions(
            "apache-airflow",
            "airflow-provider-vidu",
            "apache-airflow-providers-http",
            "apache-airflow-providers-openai",
        ),
    }


def _import(modules: tuple[str, ...]) -> Any:
    code = _CHILD.format(base=BASE, modules=", ".join(modules), clients=CLIENTS)
    log = harness.RESULTS / "parsing" / "import.log"
    return harness.run_code(code, environment=_environment(), log=log)


def _environment() -> dict[str, str]:
    return {"AIRFLOW_HOME": str(harness.RESULTS / "parsing" / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}


def _figures(found: list[Any]) -> dict[str, Any]:
    wall, cpu, modules, clients = zip(*found, strict=True)
    return {
        "wall_ms": 1000 * median(wall),
        "cpu_ms": 1000 * median(cpu),
        "best_ms": 1000 * min(wall),
        "modules": int(median(modules)),
        "clients": sorted({name for names in clients for name in names}),
    }


def _importtime(modules: tuple[str, ...]) -> str:
    code = f"import sys; {BASE}; print('BEGIN', file=sys.stderr); import {', '.join(modules)}"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=harness.ROOT,
        env={**os.environ, **_environment()},
    )
    return done.stderr.partition("BEGIN\n")[2]


def heaviest(report: str) -> list[tuple[str, float]]:
    """Return the modules that cost most by themselves, in milliseconds, from ``-X importtime``'s report."""
    costs = [(found[4], int(found[1]) / 1000) for line in report.splitlines() if (found := _LINE.match(line))]
    return sorted(costs, key=lambda cost: -cost[1])[:SHOWN]


def bars(result: dict[str, Any]) -> list[Bar]:
    """Return what issue 5 asks of parsing."""
    ours = result["runs"][OURS]
    clients = ", ".join(ours["clients"])
    return [
        at_most("operators and sensors on top of airflow.sdk: at most 30 ms", ours["wall_ms"], LIMIT_MS, "{:.1f} ms"),
        at_most("with batches as well", result["runs"][BATCHES]["wall_ms"], LIMIT_MS, "{:.1f} ms"),
        Bar("no HTTP client is imported", clients or "none", not clients),
    ]


_METHOD: Final = """\
**Method.** A fresh interpreter for each import, the contestants in turn, {rounds} rounds, medians. Each imports
`airflow.sdk` with `DAG`, `BaseOperator` and `BaseSensorOperator` first, as every DAG file does, then the clock starts
and the contestant's operators and sensors are imported (byte code and page cache warm). Only modules that were
not loaded before are counted. The cost of each is from another run with `-X importtime`, which slows imports down."""


def section(result: dict[str, Any]) -> str:
    """Return the table, the heaviest modules and the method."""
    ours = result["runs"][OURS]["wall_ms"]
    head = ("Contestant", "ms, median", "ours / theirs", "fastest", "CPU ms", "modules", "clients among them")
    rows = [
        (
            f"{name}: `{'`, `'.join(CONTESTANTS[name])}`",
            f"{run['wall_ms']:.1f}",
            harness.ratio(ours, run["wall_ms"]),
            f"{run['best_ms']:.1f}",
            f"{run['cpu_ms']:.1f}",
            run["modules"],
            ", ".join(run["clients"]) or "none",
        )
        for name, run in result["runs"].items()
    ]
    heavy = [
        (name, ", ".join(f"`{module}` {cost:.1f}" for module, cost in costs))
        for name, costs in result["heaviest"].items()
    ]
    listed = "\n".join(f"* {name}: {costs}" for name, costs in heavy)
    return "\n\n".join(
        [_METHOD.format(rounds=result["rounds"]), table(head, rows), "Heaviest by themselves, in ms:\n\n" + listed]
    )
