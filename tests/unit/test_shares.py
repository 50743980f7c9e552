"""Every test file runs in exactly one of the processes that share them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from tests import shares
from tests.rows import each_row

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("count", [1, 3, 4, 6])
@pytest.mark.parametrize("with_processes", [True, False])
@pytest.mark.parametrize("parts", [shares.PARTS, shares.AIRFLOWS], ids=["files", "airflows"])
def test_each_file_is_in_one_share(count, with_processes, parts):
    """None is run twice, and none is forgotten."""
    made = shares.shares(count, with_processes=with_processes, parts=parts)
    files = [path for part in parts for path in (shares.TESTS / part).rglob("test_*.py")]
    every = [path.relative_to(shares.TESTS).as_posix() for path in files]
    beside = ["test_example_dags.py", "test_provider_info.py"] if parts == shares.PARTS else []
    assert len(made) == count
    assert sorted(name for names in made for name in names) == sorted(every + beside)


def test_what_is_asked_for_is_shared_out():
    """Files that do not run give nobody work; a folder stands for its files."""
    made = shares.shares(2, with_processes=False, asked=("unit/test_rows.py", "unit/stores", "integration/ui"))
    assert {name.rpartition("/")[0] for names in made for name in names} == {"unit", "unit/stores", "integration/ui"}
    assert min(sum(name.startswith("unit/") for name in names) for names in made) > 1


def test_each_folder_is_shared_out_or_runs_in_one_process():
    """A new folder of tests is in one of the lists."""
    alone = {"bare", "cluster", "crowd", "matrix", "soak", "stores"}
    folders = {path.parent.relative_to(shares.TESTS).parts[0] for path in shares.TESTS.glob("*/**/test_*.py")}
    assert folders == alone | set(shares.PARTS) | set(shares.AIRFLOWS)


def test_what_is_named_is_there():
    """A file that was renamed does not keep its seconds."""
    known = set(shares.units()) | set(shares.units(shares.AIRFLOWS))
    assert {*shares.SECONDS, *shares.WITH_PROCESSES, *shares.ALONE} <= known


@pytest.mark.parametrize("folder", shares.AIRFLOWS)
def test_no_airflow_is_started_twice(folder):
    """The files that take the folder's Airflow run in one process."""
    takers = {
        unit
        for unit, names in shares.units((folder,)).items()
        for name in names
        for node in ast.walk(ast.parse((shares.TESTS / name).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and "airflow" in [argument.arg for argument in node.args.args]
        if node.name.startswith("test_") or node.decorator_list
    }
    assert len(takers) == 1


@each_row(
    ("asked", "is_shared"),
    [
        ({}, True),
        ({"args_source": pytest.Config.ArgsSource.ARGS}, False),
        ({"markexpr": "e2e"}, False),  # each process would start an Airflow of its own
        ({"numprocesses": 0}, False),
        ({"usepdb": True}, False),
        ({"collectonly": True}, False),
    ],
)
def test_plain_pytest_shares_its_files_out(asked, is_shared):
    """Files, marks or a number of processes on the command line are taken as they are."""
    usual = {"markexpr": "not e2e", "numprocesses": None, "usepdb": False, "collectonly": False, "share_files": False}
    option = SimpleNamespace(**usual | asked)
    source = asked.get("args_source", pytest.Config.ArgsSource.TESTPATHS)
    ini = {"addopts": ["-ra", "-m=not e2e"]}
    kept = SimpleNamespace(
        option=option, args_source=source, ArgsSource=pytest.Config.ArgsSource, getini=ini.__getitem__
    )
    shares.pytest_cmdline_main(kept)
    assert option.share_files is is_shared
    assert (option.numprocesses == shares.PROCESSES) is is_shared


@each_row("is_shared", [True, False])
def test_a_process_starts_no_others_and_does_what_the_first_says(is_shared):
    """It reads the plain command line, too."""
    sources = pytest.Config.ArgsSource
    option = SimpleNamespace(markexpr="not e2e", numprocesses=None, usepdb=False, collectonly=False, share_files=False)
    node = SimpleNamespace(workerinput={}, config=SimpleNamespace(option=SimpleNamespace(share_files=is_shared)))
    shares.pytest_configure_node(node)
    kept = SimpleNamespace(
        option=option,
        args_source=sources.TESTPATHS,
        ArgsSource=sources,
        workerinput=node.workerinput,
        getini=lambda _: ["-m=not e2e"],
    )
    shares.pytest_cmdline_main(kept)
    assert (option.numprocesses, option.share_files) == (None, is_shared)


@pytest.mark.processes
def test_processes_run_each_test_once():
    """Of two processes that share two files, each runs one; a selection that leaves one of them nothing succeeds."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--max-worker-restart", "0"]
    command += ["--dist", "each", "--share-files", "tests/unit/test_rows.py", "tests/unit/test_models.py"]
    whole = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    alone = subprocess.run(
        [*command[:4], *command[-2:], "-pno:xdist"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert whole.returncode == alone.returncode == 0, whole.stdout + alone.stdout
    assert whole.stdout.splitlines()[-1].split()[:2] == alone.stdout.splitlines()[-1].split()[:2]


@pytest.mark.parametrize(("airflows", "left_out"), [(True, {"unit", "integration"}), (False, set())])
def test_a_run_on_airflows_collects_nothing_else(airflows, left_out):
    """Its command line names no folder, and still no process imports other tests."""
    config = MagicMock(workerinput=None)
    config.getoption.side_effect = {"share_airflows": airflows, "share_files": False}.get
    folders = ("browser", "e2e", "integration", "unit")
    found = {name for name in folders if shares.pytest_ignore_collect(shares.TESTS / name, config)}
    assert found == left_out


@pytest.mark.processes
def test_the_run_on_airflows_ends_with_pytests_own_line():
    """The process that starts the others imports nothing of theirs, so Airflow prints nothing after the last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--max-worker-restart", "0"]
    command += ["--dist", "each", "--share-airflows", "-m", "browser or e2e", "-k", "no_test_has_this_name"]
    command += ["-W", "ignore"]  # of some Airflow's own, which the closing line would count instead
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
    )
    assert "no tests ran" in done.stdout.splitlines()[-1]
