"""The private Airflow of demo and tests stands a slow disk."""

from __future__ import annotations

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

import preloaded_airflow
from private_airflow import COMPONENTS, PrivateAirflow
from tests.versions import AIRFLOW

_ASK = """
import asyncio, json
from sqlalchemy import text
from airflow import settings

PRAGMAS = ("busy_timeout", "synchronous", "journal_mode")

def told(connection):
    return [connection.execute(text(f"PRAGMA {name}")).scalar() for name in PRAGMAS]

async def asynchronously():
    if not hasattr(settings, "async_engine"):  # Airflow 2
        return None
    async with settings.async_engine.connect() as connection:
        found = await connection.run_sync(told)
    await settings.async_engine.dispose()
    return found

with settings.engine.connect() as connection:
    print(json.dumps([told(connection), asyncio.run(asynchronously())]))
"""


@pytest.mark.processes
@pytest.mark.parametrize(("command", "timeout"), [("scheduler", 60_000), ("api-server", 5_000)])
def test_a_busy_database_is_waited_for(tmp_path, command, timeout):
    """Each of Airflow's connections waits for another's commit, and a commit does not wait for the disk."""
    airflow = PrivateAirflow(tmp_path / "airflow", [])
    airflow.prepare()
    done = subprocess.run(
        [airflow.python, "-c", _ASK, command],
        env=airflow.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = [timeout, 1, "wal"]
    assert json.loads(done.stdout.splitlines()[-1]) == [told, told if AIRFLOW >= (3, 0) else None]


_SAY = f"""
MODULES = {preloaded_airflow.modules()}

@atexit.register
def say():
    print(f"HERE {{processes.HERE}}, missing {{[name for name in MODULES if name not in sys.modules]}}")
    print(f"collects {{gc.isenabled()}}, leaves alone {{gc.get_freeze_count() > 100_000}}")
"""


def test_all_start_by_the_launcher(tmp_path):
    """Only where that is wanted; for those that fork it names nothing that this Airflow lacks."""
    airflow = PrivateAirflow(tmp_path / "airflow", [], preload=True)
    started_by = {Path(airflow._command(name)[1]).name for name in (*COMPONENTS, "db")}
    assert started_by == {"preloaded_airflow.py"}
    assert "preloaded" not in str(PrivateAirflow(tmp_path / "airflow", [])._command("scheduler"))
    assert [name for name in preloaded_airflow.modules() if find_spec(name) is None] == []


@pytest.mark.processes
def test_a_preloaded_airflow_runs_its_commands(tmp_path):
    """The launcher carries commands out, in the folder that it was started in, with the modules imported before."""
    airflow = PrivateAirflow(tmp_path / "airflow", [], preload=True)
    airflow.prepare()
    (airflow.home / "processes.py").write_text("HERE = True")  # a name of this repository's scripts
    local = airflow.home / "config" / "airflow_local_settings.py"
    local.write_text(f"import atexit, gc, sys\nimport processes\n{_SAY}\n")
    done = subprocess.run(
        [*airflow._command("scheduler"), "--help"],
        env=airflow.environment(), cwd=airflow.home, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "airflow scheduler [-h]" in done.stdout
    assert "HERE True, missing []" in done.stdout
    assert "collects True, leaves alone True" in done.stdout
