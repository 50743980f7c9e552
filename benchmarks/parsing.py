"""What operators and sensors cost a DAG file, on top of Airflow itself, beside two providers: imports and tasks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from textwrap import indent
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
_SINGLE: Final = f"""
made = {OURS}.operators.generate.ViduGenerateOperator(task_id="made", prompt="p", parameters={{"duration": 4}})
done = {OURS}.sensors.ViduGenerationSensor(task_id="done", generation=made.output)
{OURS}.operators.download.ViduDownloadOperator(task_id="kept", generation=done.output, destination="s3://clips/")
"""
_MANY: Final = f"""
{OURS}.operators.batch.ViduBatchOperator(task_id="many", rows=[{{"prompt": "p"}}], destination="s3://clips/")
"""
TASKS: Final = {
    OURS: _SINGLE,
    BATCHES: _SINGLE + _MANY,
    "http provider": """
airflow.providers.http.operators.http.HttpOperator(task_id="made", endpoint="clips", data={"prompt": "p"})
airflow.providers.http.sensors.http.HttpSensor(task_id="done", endpoint="clips/1")
""",
    "openai provider": """
airflow.providers.openai.operators.openai.OpenAIEmbeddingOperator(task_id="made", conn_id="c", input_text="p")
""",
}
"""Each contestant's tasks in the DAG file."""
CLIENTS: Final = ("requests", "aiohttp", "httpx", "urllib3", "http.client", "botocore", "fsspec", "openai")
BASE: Final = "import airflow.sdk; from airflow.sdk import DAG, BaseOperator, BaseSensorOperator"
SHOWN: Final = 8

_CHILD: Final = """
import sys, time
{base}
with DAG("other", schedule=None):
    BaseOperator(task_id="any").output
before = set(sys.modules)
wall, cpu = time.perf_counter(), time.process_time()
import {modules}
imported = time.perf_counter() - wall
with DAG("clips", schedule=None):
{tasks}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
found = set(sys.modules) - before
import json
print(json.dumps([imported, wall, cpu, len(found), [name for name in {clients!r} if name in found]]))
"""
_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


def measure(quick: bool) -> dict[str, Any]:
    """Import in fresh interpreters, the contestants in turn."""
    rounds = 5 if quick else ROUNDS
    runs: dict[str, list[Any]] = {name: [] for name in CONTESTANTS}
    for name in CONTESTANTS:
        _parse(name)  # bytecode is written, files are in the page cache
    for _ in range(rounds):
        for name in CONTESTANTS:
            runs[name].append(_parse(name))
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


def _parse(name: str) -> Any:
    modules, tasks = ", ".join(CONTESTANTS[name]), indent(TASKS[name], "    ")
    code = _CHILD.format(base=BASE, modules=modules, tasks=tasks, clients=CLIENTS)
    log = harness.RESULTS / "parsing" / "import.log"
    return harness.run_code(code, environment=_environment(), log=log)


def _environment() -> dict[str, str]:
    return {
        "PYTHONDONTWRITEBYTECODE": "",  # otherwise, each child compiles what was edited last
        "AIRFLOW_HOME": str(harness.RESULTS / "parsing" / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def _figures(found: list[Any]) -> dict[str, Any]:
    imported, wall, cpu, modules, clients = zip(*found, strict=True)
    return {
        "import_ms": 1000 * median(imported),
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
        at_most("operators and sensors on top of airflow.sdk: at most 30 ms", ours["import_ms"], LIMIT_MS, "{:.1f} ms"),
        at_most("the same and their tasks", ours["wall_ms"], LIMIT_MS, "{:.1f} ms"),
        at_most("with batches as well", result["runs"][BATCHES]["wall_ms"], LIMIT_MS, "{:.1f} ms"),
        Bar("no HTTP client is imported", clients or "none", not clients),
    ]


_METHOD: Final = """\
**Method.** A fresh interpreter for each DAG file, the contestants in turn, {rounds} rounds, medians. Each imports
`airflow.sdk` with `DAG`, `BaseOperator` and `BaseSensorOperator` first, as every DAG file does, and builds a DAG of one
task. Then the clock starts, the contestant's operators and sensors are imported (byte code and page cache warm), and a
task of each is built in a second DAG: whatever their constructors load or check belongs to the whole. Only modules
that were not loaded before are counted. The cost of each is from another run with `-X importtime`, which slows imports
down."""


def section(result: dict[str, Any]) -> str:
    """Return the table, the heaviest modules and the method."""
    ours = result["runs"][OURS]["wall_ms"]
    head = (
        "Contestant",
        "import, ms",
        "with tasks, ms",
        "ours / theirs",
        "fastest",
        "CPU ms",
        "modules",
        "clients among them",
    )
    rows = [
        (
            f"{name}: `{'`, `'.join(CONTESTANTS[name])}`",
            f"{run['import_ms']:.1f}",
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
