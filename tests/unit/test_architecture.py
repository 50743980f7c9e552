"""The shape of the package: imports point downwards, decisions do no I/O, and DAG files parse fast."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import requires
from pathlib import Path

import pytest

import airflow_provider_vidu
from tests.versions import AIRFLOW

NAME = "airflow_provider_vidu"
PACKAGE = Path(airflow_provider_vidu.__file__).parent

LAYERS: dict[str, tuple[str, ...]] = {
    "ground": (
        "api",
        "common",
        "downloads",
        "network",
        "orders",
        "polling",
        "stores",
        "tasks",
        "__init__",
        "common.text",
        "common.values",
        "exceptions",
        "defaults",
        "models",
        "api.messages",
        "common.ranges",
        "network.bodies",
        "common.parsing",
        "network.framing",
        "network.codings",
        "api.json_values",
    ),
    "decisions": (
        "polling.schedule",
        "polling.policy",
        "api.dialects",
        "api.dialects.base",
        "api.dialects.vidu_native",
        "api.dialects.ent_v2",
        "api.dialects.errors",
        "api.dialects.answers",
        "api.dialects.created",
        "api.dialects.task_list",
        "api.dialects.lost_create",
        "api.dialects.endpoints",
        "api.dialects.identity",
        "api.config",
        "network.proxies",
        "api.connection_form",
        "events",
        "stores.artifacts",
        "common.media_types",
        "stores.schemes",
        "stores.naming",
        "downloads.content",
        "downloads.unpacking",
        "common.urls",
        "operators.shared_names",
        "orders.media_fields",
        "stores.places",
        "downloads.decisions",
        "retry_policy",
        "tasks.lineage",
        "tasks.completions",
        "orders.order",
        "common.progress",
        "orders.request",
        "orders.upstream",
        "common.redaction",
        "network.allowed_hosts",
    ),
    "shells": (
        "network.tls",
        "network.addresses",
        "api.connection",
        "api.sync_client",
        "api.sync_connection",
        "api.async_client",
        "api.async_connection",
        "network.target",
        "network.connection",
        "network.stream",
        "stores.base",
        "stores.local",
        "stores.remote",
        "stores.destination",
        "stores.roots",
        "orders.media_files",
        "orders.media",
        "network.uploads",
        "downloads.incoming_file",
        "downloads.transfer",
        "tasks.handover",
        "tasks.outlets",
    ),
    "hooks": ("hooks",),
    "submission": ("orders.submission", "orders.records", "links", "tasks.masking", "tasks.rendering"),
    "surface": (
        "triggers",
        "sensors",
        "operators",
        "operators.generate",
        "operators.download",
        "get_provider_info",
        "event_triggers",
        "operators.preflight",
    ),
    "ui": (
        "ui.clips",
        "ui.records",
        "ui.playing",
        "ui",
        "ui.clips.facts",
        "ui.clips.views",
        "ui.records.store",
        "ui.clips.live",
        "ui.playing.preview",
        "ui.playing.media",
        "ui.pages",
        "ui.app",
        "ui.plugin",
        "ui.clips.pieces",
        "ui.playing.redirects",
        "ui.records.references",
        "ui.records.counts",
        "ui.shared",
        "ui.threads",
    ),
}
"""From the bottom to the top: a module imports from its own layer, without cycles, and lower ones."""

HEIGHT = {module: height for height, modules in enumerate(LAYERS.values()) for module in modules}
CLIENTS = ("requests", "aiohttp", "urllib3", "httpx")
IO = frozenset(
    {*CLIENTS, "socket", "ssl", "asyncio", "subprocess", "tempfile", "shutil", "threading", "fsspec", "http"}
)


def dotted(path: Path) -> str:
    """Return the module's name below the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py")) if "sandbox" not in path.parts[-3:-1]}
SANDBOX = {dotted(path): path for path in sorted((PACKAGE / "sandbox").rglob("*.py"))}
ALL = {**FILES, **SANDBOX}


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield module and name of every import at run time, lazy ones too; not those for type checkers alone."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
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


def ours(path: Path) -> set[str]:
    """Return the modules of this package that a file imports."""
    found: set[str] = set()
    for module, name in imports(path):
        if module != NAME and not module.startswith(f"{NAME}."):
            continue
        below = module.removeprefix(NAME).removeprefix(".")
        inner = f"{below}.{name}".removeprefix(".")
        found.add(inner if inner in ALL else below or "__init__")
    return found


EACH = pytest.mark.parametrize("module", FILES)


def test_every_module_has_a_place() -> None:
    """A new module is entered into LAYERS; a removed one leaves it."""
    assert set(FILES) == set(HEIGHT)


@EACH
def test_imports_point_downwards(module: str) -> None:
    """No module knows anything of a layer above its own."""
    height = HEIGHT.get(module, 0)
    assert not {other for other in ours(FILES[module]) if HEIGHT.get(other, 99) > height}


def test_no_cycles() -> None:
    """No two modules need each other, not even lazily."""
    graph = {module: ours(path) - {module} for module, path in ALL.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    "module",
    [
        *LAYERS["ground"],
        *LAYERS["decisions"],
        "ui.clips.facts",
        "ui.clips.pieces",
        "ui.clips.views",
        "ui.pages",
        "ui.playing.redirects",
    ],
)
def test_decisions_do_no_io(module: str) -> None:
    """What decides opens no socket, no file and no thread."""
    if module in FILES:
        assert not {name.partition(".")[0] for name, _ in imports(FILES[module])} & IO


@pytest.mark.parametrize("module", SANDBOX)
def test_the_sandbox_stands_alone(module: str) -> None:
    """The sandbox shares nothing with what it tests, except the version and what only servers of files need."""
    for name, what in imports(SANDBOX[module]):
        if name == NAME:
            assert what == "__version__" or f"sandbox.{what}" in SANDBOX or what == "sandbox"
        elif name.startswith(f"{NAME}."):
            assert name.startswith(f"{NAME}.sandbox") or (name, what) == (f"{NAME}.common", "ranges")


@EACH
def test_nobody_needs_the_sandbox(module: str) -> None:
    """The product runs without its rehearsal stage."""
    assert not {other for other in ours(FILES[module]) if other.startswith("sandbox")}


@EACH
def test_no_client_serves_ranges(module: str) -> None:
    """Ranges are served by the sandbox and the clip pages alone: what a download expects is decided on its own."""
    assert module.startswith("ui.") or "common.ranges" not in ours(FILES[module])


@EACH
def test_nobody_needs_the_pages(module: str) -> None:
    """Without its plugin the provider does all that it promises."""
    assert module.startswith("ui") or not {other for other in ours(FILES[module]) if other.startswith("ui")}


COMES_WITH_AIRFLOW = frozenset(
    {"airflow", "anyio", "asgiref", "fastapi", "fsspec", "jinja2", "sqlalchemy", "starlette"}
)
OPTIONAL = frozenset({"azure", "flask_appbuilder", "flask_babel", "openlineage", "pytest"})
"""Asked for where they are there: Azure's client, the forms of Airflow 2, lineage, the fixture of users' tests."""


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


def compat_names() -> list[str]:
    """Return the names that the package takes from Airflow's compatibility module."""
    found = {
        name
        for path in FILES.values()
        for module, name in imports(path)
        if module == "airflow.providers.common.compat.sdk" and name
    }
    return sorted(found)


def loaded(code: str, home: Path) -> set[str]:
    """Run code in a fresh interpreter; return the modules that it has loaded (since ``before``, where it sets that)."""
    script = f"before = set()\n{code}\nimport json, sys\nprint('\\n' + json.dumps(sorted(set(sys.modules) - before)))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env |= {"AIRFLOW_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *sys.path[1:]])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=home, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.strip().splitlines()[-1]))


def test_dag_files_load_no_http_client(tmp_path: Path) -> None:
    """The DAG processor parses every DAG again and again: clients are loaded where they are used."""
    # What every DAG file loads anyway.
    dag_api = "airflow.sdk" if AIRFLOW >= (3, 0) else "airflow.models.dag, airflow.sensors.base"
    used = "\n".join(f"getattr(sdk, {name!r}, None)" for name in compat_names())
    finished = f", {NAME}.event_triggers" if AIRFLOW >= (3, 0) else ""
    code = (
        f"import {dag_api}, airflow.triggers.base, sys\nfrom airflow.providers.common.compat import sdk\n"
        f"{used}\nbefore = set(sys.modules)\n"
        f"import {NAME}.sensors, {NAME}.operators, {NAME}.triggers{finished}"
    )
    more = loaded(code, tmp_path)
    assert {f"{NAME}.sensors", f"{NAME}.operators", f"{NAME}.triggers"} <= more
    assert not {name for name in more if name.partition(".")[0] in CLIENTS}


def test_importing_the_package_loads_nothing(tmp_path: Path) -> None:
    """The package's own name costs nothing, and Airflow's discovery asks for the metadata only."""
    more = loaded(f"import {NAME}, {NAME}.get_provider_info", tmp_path)
    assert not {name for name in more if name == "airflow" or name.startswith("airflow.") or name in CLIENTS}
