"""``make matrix``: the same wheel on every supported Airflow and Python, each in an environment of its own.

For each cell: the wheel beside that Airflow at pinned versions, then unit and integration tests; once for each
Airflow also a run with scheduler and triggerer. Besides: the wheel beside a bare Airflow, each dependency at its
lowest version, and every extra. The tests see the installed package only: they run in a copy of this folder without it.
"""

from __future__ import annotations

import argparse
import functools
import glob
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build" / "matrix"
DATELESS: Final = ("apache-airflow-providers-common-compat", "asgiref", "adlfs", "azure-kusto-data")
"""What is resolved without regard to the date: the provider needs newer ones than there were with old Airflows.

(Azure's client of Kusto, which its Airflow provider asks for, wanted one single ``requests`` in 2025.)
"""

#: Airflow by Airflow, oldest first, with the Pythons that it allows (of those that this provider supports).
MATRIX: Final = {
    "2.11.2": ("3.11", "3.12"),
    "3.0.6": ("3.11", "3.12"),
    "3.1.8": ("3.11", "3.12", "3.13"),
    "3.2.2": ("3.11", "3.12", "3.13"),
    "3.3.2": ("3.11", "3.12", "3.13"),
    "3.4.0b2": ("3.11", "3.12", "3.13"),
}
SET_UP: Final = "3.3.2"
"""The Airflow of `make setup`."""
COPIED: Final = (
    "tests", "scripts", "example_dags", "docs", "benchmarks", "constraints", "pyproject.toml", "README.md", "Makefile",
    "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE",
)  # fmt: skip
TESTED: Final = ("tests/unit", "tests/integration", "tests/test_example_dags.py", "tests/test_provider_info.py")
OF_THE_HOUSE: Final = ("benchmarks", "faults_script", "forge", "matrix", "processes", "soak_judge")
"""Unit tests of this folder's own tools: no Airflow of a user runs them, and `make test` does."""


WITHOUT_AIRFLOW: Final = ("api/dialects", "common", "downloads", "network", "polling")
"""Unit tests of decisions: of Airflow they use the classes of its exceptions and its configuration, if that."""

MEETS_AIRFLOW: Final[dict[str, tuple[str, ...]]] = {
    "api/clients/async_client": ("integration/api/clients/test_async_client.py",),
    "api/dry_run": ("integration/operators/test_dry_run.py",),
    "api/settings/connection": ("unit/api/settings/test_connection.py", "integration/test_no_key.py"),
    "batches/trigger": ("integration/test_stored.py",),
    "event_triggers": ("integration/test_event_triggers.py",),
    "exceptions": ("unit/test_exceptions.py",),
    "hooks": ("integration/test_hooks.py",),
    "links": ("unit/test_links.py", "integration/test_watch.py"),
    "network/secrets_backends": ("unit/network/test_secrets_backends.py",),
    "network/download_url": ("integration/api/test_input_uploads.py",),
    "operators/batch": ("integration/batches/test_reports.py",),
    "operators/generate": ("integration/operators/test_log.py",),
    "orders/dry_run": ("integration/operators/test_dry_run.py",),
    "orders/media/files": ("unit/orders/media/test_prepared.py",),
    "orders/money/ledger": ("unit/orders/money/test_ledger.py", "integration/operators/test_generate_spending.py"),
    "orders/records": ("unit/orders/test_records.py", "integration/orders/test_clears.py"),
    "retry_policy": ("unit/test_retry_policy.py",),
    "sensors": ("integration/test_sensors.py",),
    "stores/destination": ("integration/stores/test_storage_s3.py",),
    "stores/roots": ("unit/stores/test_roots.py", "unit/stores/test_connection_names.py"),
    "tasks/callbacks/arrivals": ("unit/tasks/callbacks/test_arrivals.py",),
    "tasks/deferral": ("unit/tasks/test_deferral.py",),
    "tasks/endings": ("unit/tasks/test_endings.py",),
    "tasks/handover": ("unit/tasks/test_handover.py",),
    "tasks/masking": ("unit/tasks/test_masking.py",),
    "tasks/outlets": ("unit/tasks/test_outlets.py", "integration/tasks/test_outlets.py"),
    "tasks/publishing": ("integration/test_watch.py",),
    "tasks/rendering": ("unit/tasks/test_rendering.py",),
    "triggers": ("integration/test_triggers.py",),
    "ui/batches/published": ("integration/ui/test_batches.py",),
    "ui/batches/routes": ("unit/ui/batches/test_journals.py", "integration/ui/test_clip_pages.py"),
    "ui/callbacks/airflow_assets": ("integration/ui/test_callback_assets.py", "integration/ui/test_callback_feed.py"),
    "ui/callbacks/airflow_tasks": ("integration/ui/test_callbacks.py", "integration/ui/test_callback_tasks.py"),
    "ui/playing/preview": ("unit/ui/test_limits.py",),
    "ui/plugin": ("unit/ui/test_plugin.py",),
    "ui/records/stored_arguments": ("unit/ui/records/test_stored_arguments.py",),
    "ui/records/circumstances": ("integration/ui/test_operators_questions.py",),
    "ui/records/counts": ("unit/ui/test_queries.py",),
    "ui/records/earlier_tries": ("integration/ui/test_earlier_tries.py",),
    "ui/records/instances": ("integration/ui/test_loops.py",),
    "ui/records/no_generation": ("integration/ui/test_sheet.py",),
    "ui/records/references": ("unit/ui/records/test_references.py", "integration/ui/test_references.py"),
    "ui/records/store": ("integration/ui/test_sheet.py",),
    "ui/records/values": ("unit/ui/test_limits.py",),
    "ui/records/slot_waits": ("unit/ui/clips/test_slots.py", "integration/ui/test_slot_waits.py"),
    "ui/refusals": ("integration/ui/test_callback_attacks.py",),
    "ui/sending": ("unit/ui/test_limits.py",),
    "ui/spending/sums": ("integration/ui/test_spending.py",),
    "ui/spending/routes": ("integration/ui/test_spending.py",),
}
"""Every module of the package that imports Airflow, and the tests that show what it gets there."""

ASKS_WHICH_AIRFLOW: Final = (
    "integration/operators/test_preflight.py", "integration/ui/test_lost_files.py", "integration/ui/test_media.py",
    "unit/operators/mapping/test_subclasses.py", "unit/orders/test_request.py",
    "unit/tasks/test_deserializing.py", "unit/tasks/test_lineage.py",
    "unit/test_architecture.py", "unit/test_private_airflow.py", "unit/test_public_api.py",
    "unit/test_which_airflow.py", "unit/ui/batches/test_rows.py", "unit/ui/playing/test_shelf.py",
    "unit/ui/spending/test_views.py",
)  # fmt: skip
"""Further tests that expect one thing of one Airflow, and another of the next."""

AT_THE_ENDS: Final = tuple(
    f"tests/{name}"
    for name in sorted({*ASKS_WHICH_AIRFLOW, *(name for names in MEETS_AIRFLOW.values() for name in names)})
)
"""What the two ends of the matrix run; the whole matrix runs the others as well, which use the same of Airflow."""


@dataclass(frozen=True)
class Cell:
    """One Airflow on one Python.

    :param airflow: its version.
    :param python: the Python's version.
    :param goes: what is run there, of :data:`GOES`.
    :param title: its name, where Airflow and Python are not enough.
    :param pins: the name of its constraints, where they are not the Airflow's own.
    :param extras: what of the wheel's extras is installed.
    :param runs: the files and folders of its tests.
    """

    airflow: str
    python: str
    goes: tuple[str, ...]
    title: str = ""
    pins: str = ""
    extras: str = "[test]"
    runs: tuple[str, ...] = TESTED

    @property
    def name(self) -> str:
        """How it is called in the table and in ``build/matrix``."""
        return f"{self.title or f'airflow-{self.airflow}'}-py{self.python}"

    @property
    def arguments(self) -> dict[str, tuple[str, ...]]:
        """What pytest is asked for, by what goes: decisions are tested with one Airflow on each Python."""
        decides = self.title or self.airflow == SET_UP
        skipped = () if decides else tuple(f"--ignore=tests/unit/{name}" for name in WITHOUT_AIRFLOW)
        return {name: (*GOES[name], *((*skipped, *self.runs) if name == "tests" else ())) for name in self.goes}

    @property
    def constraints(self) -> Path:
        """The versions that it installs."""
        return constraints_of(self.pins or self.airflow)


GOES: Final = {
    "tests": (
        "-n",
        "2",
        "--dist",
        "each",
        "--share-files",
        "--max-worker-restart",
        "0",
        # The default without `processes`: the pages' API server belongs to the Airflow that is tested.
        "-m",
        "not (e2e or browser or cluster or soak or matrix or stores or nightly)",
        *(f"--ignore=tests/unit/test_{name}.py" for name in OF_THE_HOUSE),
    ),
    "run": ("-m", "matrix and not nightly", "tests/matrix"),
    "nightly": ("-m", "matrix and nightly", "tests/matrix"),
    "stores": ("-m", "stores", "tests/stores"),
    "bare": ("-m", "matrix", "tests/bare"),
}
"""What pytest is asked for, by name: units and integration, a whole Airflow, what takes minutes there (the budget's
ledger on 2.11, task loops on 3.4), other stores than S3, the bare wheel."""
WHOLE: Final = ("run", "nightly")
"""Those on a whole Airflow, which mostly waits: they run beside the cell's other tests."""
EVERY_EXTRA: Final = "[s3,gcs,azure,openlineage,test]"
LOWEST: Final = Cell("2.11.0", "3.11", ("tests", "run", "stores"), title="lowest", pins="lowest", extras=EVERY_EXTRA)
"""Each dependency at the lowest version that pyproject.toml allows, those of the extras as well."""
EXTRAS: Final = Cell("3.3.2", "3.11", ("stores",), title="extras", pins="extras", extras=EVERY_EXTRA)
"""Every extra at today's version."""
BARE: Final = Cell("3.3.2", "3.11", ("bare",), title="bare", extras="")
"""Airflow and the wheel, and none of what tests need: they look at it from outside."""


def constraints_of(name: str) -> Path:
    """Return the file with the constraints of an Airflow, or of a cell that has its own."""
    return ROOT / "constraints" / (f"airflow-{name}.txt" if name in MATRIX else f"{name}.txt")


def cells() -> list[Cell]:
    """Return every cell; the first Python of each Airflow has the whole run."""
    of_versions = [
        Cell(airflow, python, _goes(airflow) if python == pythons[0] else ("tests",))
        for airflow, pythons in MATRIX.items()
        for python in pythons
    ]
    return [BARE, LOWEST, EXTRAS, *of_versions]


def _goes(airflow: str) -> tuple[str, ...]:
    return ("tests", "run", "nightly") if airflow.startswith(("2.11", "3.4")) else ("tests", "run")


def ends(found: list[Cell]) -> list[Cell]:
    """Return what every change is tested on: the oldest Airflow and Python, and the newest of both that run here."""
    plain = [cell for cell in found if not cell.title]
    newest = [cell for cell in plain if cell.airflow == plain[-1].airflow]
    last = next((cell for cell in reversed(newest) if find_python(cell.python)), newest[0])
    runs = (*AT_THE_ENDS, "tests/test_example_dags.py", "tests/test_provider_info.py")
    return [replace(cell, goes=("tests", "run"), runs=runs) for cell in (plain[0], last)]


@functools.cache
def find_python(version: str) -> str | None:
    """Return a Python of this version that runs, or None."""
    folder = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    names = [f"python{version}", *sorted(glob.glob(f"{folder}/versions/{version}.*/bin/python"), reverse=True)]  # noqa: PTH207
    for name in [sys.executable, *names]:
        probe = "import sys, sqlite3, ssl; print('%d.%d' % sys.version_info[:2]); print(sys._base_executable)"
        try:
            done = subprocess.run([name, "-c", probe], capture_output=True, text=True, check=False, timeout=30)
        except OSError:
            continue
        told = done.stdout.split("\n")
        if done.returncode == 0 and told[0] == version:
            return told[1]
    return None


def build_wheel() -> Path:
    """Build the wheel once, from a clean folder; return it."""
    folder = BUILD / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], "wheel.log")
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(cell: Cell, python: str, wheel: Path) -> Path:
    """Make the cell's environment again from scratch; return its Python."""
    venv = BUILD / cell.name / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    log = f"{cell.name}/install.log"
    _run(_uv("venv", "--python", python, str(venv)), log)
    wanted = [f"airflow-provider-vidu{cell.extras} @ {wheel.as_uri()}", f"apache-airflow=={cell.airflow}"]
    install_into = _uv("pip", "install", "--python", str(venv / "bin" / "python"))
    _run([*install_into, "--constraint", str(cell.constraints), *wanted], log)
    return venv / "bin" / "python"


def test(cell: Cell, python: Path) -> list[str]:
    """Run the cell's tests; return what failed, in a word each."""
    work = BUILD / cell.name / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, work / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, work / name)
    if "stores" in cell.goes:
        (work / "build").mkdir()
        (work / "build" / "azurite").symlink_to(ROOT / "build" / "azurite")
    chains = [[name for name in cell.goes if (name in WHOLE) == is_whole] for is_whole in (True, False)]
    with ThreadPoolExecutor(len(chains)) as beside:
        found = beside.map(lambda chain: [name for name in chain if not _is_green(cell, name, python)], chains)
        return [name for names in found for name in names]


def _is_green(cell: Cell, name: str, python: Path) -> bool:
    """Run a part of a cell's tests, print how it ended, and return whether all are green."""
    # A bare environment has no pytest: this one's looks at it.
    runner = sys.executable if name == "bare" else str(python)
    command = [runner, "-m", "pytest", "-q", "-p", "no:cacheprovider", *cell.arguments[name]]
    log, work = f"{cell.name}/{name}.log", BUILD / cell.name / "work"
    is_green = _run(command, log, cwd=work, path=python.parent, check=False, BARE_PYTHON=str(python))
    print(f"  {cell.name} {name}: {_last_line(BUILD / log)}", flush=True)
    return is_green


def whole(cell: Cell, wheel: Path) -> str:
    """Install and test a cell; return how that went."""
    began = time.monotonic()
    shutil.rmtree(BUILD / cell.name, ignore_errors=True)
    python = find_python(cell.python)
    if python is None:
        return f"not run: there is no Python {cell.python} here"
    try:
        venv = install(cell, python, wheel)
    except SystemExit as failure:  # the other cells go on
        print(failure, flush=True)
        return f"FAILED to install, see build/matrix/{cell.name}/install.log"
    failed = test(cell, venv)
    for name in failed:
        print(_end(BUILD / cell.name / f"{name}.log"), flush=True)
    logs = ", ".join(f"build/matrix/{cell.name}/{name}.log" for name in failed)
    return f"FAILED, see {logs}" if failed else f"green in {time.monotonic() - began:.0f} s"


def renew(name: str, date: str) -> None:
    """Write the constraints of an Airflow or a cell: what there was on a date, such as the day after a release.

    :param name: an Airflow of the matrix, ``lowest`` or ``extras``.
    :param date: year, month and day with dashes between them.
    """
    wanted = BUILD / f"{name}.in"
    wheel = build_wheel()
    cell = next((cell for cell in cells() if cell.pins == name), Cell(name, "", ()))
    fixed = lowest_versions() if cell == LOWEST else [f"apache-airflow=={cell.airflow}"]
    wanted.write_text("\n".join([*fixed, f"airflow-provider-vidu{cell.extras} @ {wheel.as_uri()}"]) + "\n", "utf-8")
    newest = [f"--exclude-newer-package={package}={time.strftime('%Y-%m-%d')}" for package in DATELESS]
    resolved = BUILD / f"{name}.txt"
    resolved.unlink(missing_ok=True)  # uv would keep to what it says
    command = _uv("pip", "compile", "--universal", "--python-version", "3.11")
    options = ["--no-annotate", "--no-header", "--exclude-newer", date, *newest]
    _run([*command, *options, str(wanted), "--output-file", str(resolved)], "renew.log")
    pins = [line for line in resolved.read_text("utf-8").splitlines() if not line.startswith("airflow-provider-vidu")]
    what = "beside Airflow " + cell.airflow if not cell.title else f"in the cell {cell.title!r}"
    head = [
        f"# Versions that `make matrix` installs {what}: what there was on {date} (and the newest common-compat).",
        *(
            ["# Each dependency and extra of pyproject.toml stands here at its lowest version."]
            if cell == LOWEST
            else []
        ),
        f"# To renew: .venv/bin/python scripts/matrix.py --renew {name} {date}",
    ]
    constraints_of(name).write_text("\n".join([*head, *pins]) + "\n", "utf-8")


def lowest_versions() -> list[str]:
    """Return every dependency of the package and of its users' extras at the lowest version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    extras = [wanted for name in EVERY_EXTRA.strip("[]").split(",") if name != "test" for wanted in optional[name]]
    return [wanted.partition(",")[0].replace(">=", "==") for wanted in (*project["dependencies"], *extras)]


def _uv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "uv", "--quiet", *arguments]


def _run(
    command: list[str], log: str, *, cwd: Path = ROOT, path: Path | None = None, check: bool = True, **variables: str
) -> bool:
    """Run a command with its output in ``build/matrix``; return whether it succeeded."""
    target = BUILD / log
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = BUILD / "tmp"
    scratch.mkdir(exist_ok=True)
    env = os.environ | {
        "TMPDIR": str(scratch),
        "UV_CACHE_DIR": str(ROOT / "build" / "uv-cache"),
        "UV_PYTHON_DOWNLOADS": "never",
        "PATH": os.pathsep.join([*([str(path)] if path else []), os.environ.get("PATH", os.defpath)]),
        **variables,
    }
    env.pop("VIRTUAL_ENV", None)
    with target.open("ab") as out:
        out.write(f"$ {' '.join(command)}\n".encode())
        out.flush()
        code = subprocess.run(command, cwd=cwd, env=env, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    if code and check:
        raise SystemExit(f"This failed (status {code}), see {target.relative_to(ROOT)}:\n{_end(target)}")
    return code == 0


def _end(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-25:])


def _last_line(log: Path) -> str:
    """Return pytest's closing line, or the last line if there is none: Airflow prints warnings when it ends."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    closing = (
        line for line in reversed(lines) if re.search(r"^(=+ )?(\d+ [a-z]+|no tests ran)\b.* in \d+\.\d+s", line)
    )
    return next(closing, lines[-1] if lines else "no output")


def main() -> int:
    """Run the matrix; the exit status tells whether every cell is green."""
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.add_argument("--ends", action="store_true", help="only the oldest Airflow and the newest")
    parser.add_argument("--only", default="", help="only cells whose name contains this")
    parser.add_argument("--lanes", type=int, default=2, help="how many cells at a time")
    parser.add_argument(
        "--renew",
        nargs=2,
        metavar=("AIRFLOW", "DATE"),
        help="resolve the constraints of one Airflow, `lowest` or `extras`, as of a date",
    )
    options = parser.parse_args()
    if options.renew:
        renew(*options.renew)
        return 0
    wanted = ends(cells()) if options.ends else [cell for cell in cells() if options.only in cell.name]
    wheel = build_wheel()
    if any("stores" in cell.goes for cell in wanted):
        _run([sys.executable, "scripts/azurite.py"], "azurite.log")
    with ThreadPoolExecutor(options.lanes) as lanes:
        told = dict(zip(wanted, lanes.map(lambda cell: whole(cell, wheel), wanted), strict=True))
    print(f"\n{wheel.name}:")
    for cell, text in told.items():
        print(f"  {cell.name:<28} {text}")
    return 0 if all(text.startswith("green") for text in told.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
