"""Every test file runs in exactly one of the processes that share them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import shares

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("count", [1, 3, 4, 6])
@pytest.mark.parametrize("with_processes", [True, False])
def test_each_file_is_in_one_share(count, with_processes):
    """None is run twice, and none is forgotten."""
    made = shares.shares(count, with_processes=with_processes)
    every = sorted(name for names in shares.units().values() for name in names)
    assert len(made) == count
    assert sorted(name for names in made for name in names) == every
    assert {Path(__file__).relative_to(shares.TESTS).as_posix(), "test_provider_info.py"} <= set(every)


def test_each_folder_is_shared_out_or_runs_in_one_process():
    """A new folder of tests is in one of the two lists."""
    alone = {"bare", "browser", "cluster", "crowd", "e2e", "matrix", "soak", "stores"}
    folders = {path.parent.relative_to(shares.TESTS).parts[0] for path in shares.TESTS.glob("*/**/test_*.py")}
    assert folders == alone | set(shares.PARTS)


def test_what_is_named_is_there():
    """A file that was renamed does not keep its seconds."""
    assert set(shares.SECONDS) | set(shares.WITH_PROCESSES) <= set(shares.units())


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
