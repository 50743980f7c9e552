"""The shape of the package beside its import contracts: decisions do no I/O, and DAG files parse fast."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import requires
from pathlib import Path
from textwrap import indent
from typing import Final

import pytest

import airflow_provider_vidu
from tests.versions import AIRFLOW

NAME = "airflow_provider_vidu"
PACKAGE = Path(airflow_provider_vidu.__file__).parent
LONGEST_FUNCTION = 60

CLIENTS = ("requests", "aiohttp", "urllib3", "httpx")
IO = frozenset(
    {*CLIENTS, "socket", "ssl", "asyncio", "subprocess", "tempfile", "shutil", "threading", "fsspec", "http"}
)


SHELLS = {
    "batches.trigger",
    "api.clients.async_client", "api.clients.async_connection", "api.clients.request_template", "api.clients.async_tls",
    "api.clients.async_names",
    "api.clients.sync_client", "api.clients.sync_connection", "api.shared_polls", "api.polls",
    "downloads.transfer",
    "event_triggers", "triggers",
    "network.addresses", "network.connection", "network.stream", "network.tls", "api.input_uploads",
    "orders.media.files",
    "stores.destination", "stores.remote", "stores.uploads",
    "tasks.callbacks.nudges", "tasks.clients", "tasks.handover", "tasks.slots.queue",
    "ui.app", "ui.batches.journals", "ui.batches.routes",
    "ui.callbacks.keys", "ui.callbacks.grouped_queries", "ui.callbacks.routes", "ui.callbacks.waking",
    "ui.clips.live", "ui.page_queries", "ui.playing.shelf", "ui.plugin", "ui.records.references",
    "ui.shared", "ui.threads",
}  # fmt: skip
"""The modules that import a name of ``IO`` at run time: those do I/O, start threads or wait; the others decide."""


def dotted(path: Path) -> str:
    """Return the module's name below the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py")) if "sandbox" not in path.parts[-3:-1]}
SANDBOX = {dotted(path): path for path in sorted((PACKAGE / "sandbox").rglob("*.py"))}
ALL = {**FILES, **SANDBOX}


@cache
def imports(path: Path) -> list[tuple[str, str | None]]:
    """Return module and name of every import at run time, lazy ones too; not those for type checkers alone."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, str | None]]:
    tree = ast.parse(path.read_text("utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for part in node.body
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide where they point"
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_decisions_do_no_io() -> None:
    """Only the modules that are there for it open sockets, files and threads: everything else decides."""
    found = {module for module, path in FILES.items() if {name.partition(".")[0] for name, _ in imports(path)} & IO}
    assert found == SHELLS


COMES_WITH_AIRFLOW = frozenset(
    {"airflow", "anyio", "asgiref", "fastapi", "fsspec", "jinja2", "sqlalchemy", "starlette"}
)
OPTIONAL = frozenset({"azure", "flask_appbuilder", "flask_babel", "openlineage", "pyarrow", "pytest"})
"""Asked for where they are there: Azure's client, the forms of Airflow 2, lineage, the fixture of users' tests."""


def test_no_function_is_longer_than_a_screen() -> None:
    """Sixty lines with its docstring."""
    functions = (
        (node.end_lineno - node.lineno + 1, f"{dotted(path)}.{node.name}")
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert [found for found in functions if found[0] > LONGEST_FUNCTION] == []


def test_every_library_is_declared() -> None:
    """What is imported, pip installs: a dependency of a dependency may go at any time."""
    declared = {
        re.match(r"[\w-]+", wanted)[0]
        for wanted in requires("airflow-provider-vidu") or []
        if "extra ==" not in wanted
    }  # fmt: skip
    imported = {name.partition(".")[0] for path in ALL.values() for name, _ in imports(path)}
    foreign = imported - set(sys.stdlib_module_names) - {NAME} - COMES_WITH_AIRFLOW - OPTIONAL
    assert foreign == {name for name in declared if not name.startswith("apache-airflow")}


def test_what_airflow_2_does_not_have_is_imported_in_one_place() -> None:
    """Everything else works without event-driven scheduling, so nothing imports the module that needs it."""
    found = {module for module, path in FILES.items() if "BaseEventTrigger" in {name for _, name in imports(path)}}
    assert found == {"event_triggers"}
    wanted = {(f"{NAME}.event_triggers", None), (NAME, "event_triggers")}
    users = {module for module, path in FILES.items() for found in imports(path)
             if found in wanted or found[0] == f"{NAME}.event_triggers"}  # fmt: skip
    assert users == set()


def compat_names() -> list[str]:
    """Return the names that the package takes from Airflow's compatibility module."""
    found = {
        name
        for path in FILES.values()
        for module, name in imports(path)
        if module == "airflow.providers.common.compat.sdk" and name
    }
    return sorted(found)


DAG_API: Final = "airflow.sdk" if AIRFLOW >= (3, 0) else "airflow.models.dag, airflow.sensors.base"
FORKED: Final = """
import json, os, sys
base, *groups = json.loads(sys.argv[1])
for number, group in enumerate(groups):
    if number:
        exec(base)
        assert "airflow_provider_vidu.operators" not in sys.modules
    for name, code in group.items():
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            scope = {"before": set()}
            exec(code, scope)
            print(json.dumps([name, sorted(set(sys.modules) - scope["before"])]), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, code
"""
"""Runs each code in a process of its own, forked from one that has imported what every DAG file loads: Airflow takes
two seconds of a core."""
TASKS: Final = """
made = ViduGenerateOperator(task_id="made", prompt="p", parameters={"duration": 4}, images=["/a.png"],
                            destination="s3://bucket/clips/", budget=ViduBudget(9), reuse="identical")
done = ViduGenerationSensor(task_id="done", generation=made.output)
ViduDownloadOperator(task_id="kept", destination="/data/clips/", generation=done.output)
"""
BATCH: Final = """
ViduBatchOperator(task_id="many", rows=[{"prompt": "p"}], parameters={"duration": 4}, destination="/data/clips/")
"""


def dag_file(names: str, tasks: str) -> str:
    """Return the code of a DAG file."""
    dag = "airflow.sdk" if AIRFLOW >= (3, 0) else "airflow"
    head = f"from {dag} import DAG\nfrom {NAME}.operators import {names}\n"
    sensor = f"from {NAME}.sensors import ViduGenerationSensor\n"
    return f"{head}{sensor}with DAG('clips', schedule=None):\n{indent(tasks, '    ')}"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the modules that each code loads in a fresh interpreter (since ``before``, where it sets that)."""
    used = "\n".join(f"getattr(sdk, {name!r}, None)" for name in compat_names())
    finished = f", {NAME}.event_triggers" if AIRFLOW >= (3, 0) else ""
    without_airflow = {"the package": f"import {NAME}, {NAME}.get_provider_info"}
    with_airflow = {
        "everything": (
            f"import sys\nfrom airflow.providers.common.compat import sdk\n{used}\nbefore = set(sys.modules)\n"
            f"from {NAME}.operators import *\nimport {NAME}.sensors, {NAME}.triggers{finished}"
        ),
        "single tasks": dag_file("ViduBudget, ViduDownloadOperator, ViduGenerateOperator", TASKS),
        "batch": dag_file("ViduBatchOperator", BATCH),
        "preload": f"import {NAME}.operators.preload, {NAME}.sensors",
    }
    home = tmp_path_factory.mktemp("fresh")
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env |= {"AIRFLOW_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *sys.path[1:]])}
    done = subprocess.run(
        [sys.executable, "-c", FORKED, json.dumps([f"import {DAG_API}, airflow.triggers.base", without_airflow,
                                                   with_airflow])],
        env=env, cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert found.keys() == {*without_airflow, *with_airflow}
    return {name: set(modules) for name, modules in found.items()}


def test_dag_files_load_no_http_client(loaded: dict[str, set[str]]) -> None:
    """The DAG processor parses every DAG again and again: clients and stores are loaded where they are used."""
    more = loaded["everything"]
    operators = {f"{NAME}.operators.{name}" for name in ("batch", "download", "generate")}
    assert {f"{NAME}.sensors", *operators, f"{NAME}.triggers"} <= more
    assert not {name for name in more if name.partition(".")[0] in {*CLIENTS, "s3fs", "botocore"}}
    assert f"{NAME}.downloads.transfer" not in more


@pytest.mark.parametrize(
    ("tasks", "unused"),
    [
        ("single tasks", {"batches"}),
        ("batch", {"batches.leg", "batches.plan", "batches.rows"}),
    ],
)
def test_dag_files_load_what_they_name(tasks: str, unused: set[str], loaded: dict[str, set[str]]) -> None:
    """A DAG file, whose tasks check their arguments, loads no code that only a running task needs.

    Neither batches without a batch, nor dialects, models and requests: that was most of the time.
    """
    running = {
        "api.dialects", "downloads", "events", "hooks", "models", "network", "orders.dry_run", "orders.media",
        "orders.order", "orders.records", "orders.request", "polling.watch", "stores.base", "stores.naming",
        "stores.places", "tasks.deferral", "triggers",
    }  # fmt: skip
    assert f"{NAME}.sensors" in loaded[tasks]
    assert not {name for name in loaded[tasks] if name.removeprefix(f"{NAME}.") in running | unused}


def test_a_worker_that_has_preloaded_forks_warm(loaded: dict[str, set[str]]) -> None:
    """What submits, polls, waits and downloads is there; `operators` alone, which it was before, loads nothing."""
    running = {
        "api.clients.sync_client", "api.dialects", "downloads.transfer", "hooks", "operators.download",
        "operators.generate", "operators.generate_leg", "operators.task_request", "orders.submission", "polling.watch",
        "sensors", "stores.destination", "tasks.deferral", "triggers",
    }  # fmt: skip
    assert {f"{NAME}.{module}" for module in running} <= loaded["preload"]


def test_importing_the_package_loads_nothing(loaded: dict[str, set[str]]) -> None:
    """The package's own name costs nothing, and Airflow's discovery asks for the metadata only."""
    more = loaded["the package"]
    assert f"{NAME}.get_provider_info" in more
    assert not {name for name in more if name == "airflow" or name.startswith("airflow.") or name in CLIENTS}
