"""The private Airflow of demo and tests stands a slow disk."""

from __future__ import annotations

import json
import subprocess

import pytest

from private_airflow import PrivateAirflow
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
def test_a_busy_database_is_waited_for(tmp_path):
    """Each of Airflow's connections waits a minute for another's commit, and a commit does not wait for the disk."""
    airflow = PrivateAirflow(tmp_path / "airflow", [])
    airflow.prepare()
    done = subprocess.run(
        [airflow.python, "-c", _ASK],
        env=airflow.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = [60_000, 1, "wal"]
    assert json.loads(done.stdout.splitlines()[-1]) == [told, told if AIRFLOW >= (3, 0) else None]
