"""The budget's ledger in Airflow 2's own database, under fifty creates at once and a kill at every step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.matrix.ledger_crowd import BUDGET, CHILDREN, PRICE, STEPS
from tests.versions import AIRFLOW

ROOT = Path(__file__).parents[2]


@pytest.mark.nightly  # fifty processes that import Airflow
@pytest.mark.skipif(AIRFLOW >= (3, 0), reason="from 3.0 on only a running task reaches Variables")
def test_no_entry_is_lost_and_nothing_is_submitted_above_the_limit(tmp_path):
    """What was paid in the first wave is known after the retries, and then no task of the second wave submits."""
    paid = tmp_path / "paid"
    paid.mkdir()
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        # Fifty writers of one file.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "tests.matrix.ledger_patience.CONNECT_ARGS",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    environment.pop("AIRFLOW__CORE__UNIT_TEST_MODE", None)

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], env=environment, cwd=tmp_path, check=False,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    run("airflow", "db", "migrate")
    seen = json.loads(run("tests.matrix.ledger_crowd", str(paid)).splitlines()[-1])
    # At once, so the limit is exceeded by what is being created; those that die before their create have paid nothing.
    assert BUDGET.credits <= seen["paid"] * PRICE == seen["known"]
    assert 0 <= seen["paid"] - seen["entered"] <= CHILDREN // 5 // len(STEPS) + 1
    assert seen["second"] == 0
