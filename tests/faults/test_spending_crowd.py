"""The budget under many worker processes at once, of which some are killed at each step of a create."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_vidu.sandbox import Sandbox
from fault_table import SURVIVED
from tests.faults.spending_crowd import BUDGET, PRICE

ROOT = Path(__file__).parents[2]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("children", "rounds"), [(8, 4), pytest.param(50, 3, marks=pytest.mark.nightly)], ids=["8 workers", "50 workers"]
)
def test_no_worker_submits_once_the_budget_is_known_to_be_spent(tmp_path, children, rounds, fault_row):
    """The limit and what was being created then is spent; retries count what the killed had paid, and pay nothing."""
    with Sandbox(price=PRICE, speed=0, models="any", list_payload=True, concurrency=None) as service:
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.spending_crowd", str(tmp_path), str(children), str(rounds)],
            env={**os.environ, "AIRFLOW_CONN_VIDU_DEFAULT": service.connection_json("ent-v2")},
            cwd=ROOT, check=False, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        created = {create.body["prompt"] for create in service.creates}
        assert len(created) == len(service.creates)
    seen = json.loads(done.stdout.splitlines()[-1])
    entered = [note["at"] for note in seen["first"] if note["what"] == "entered"]
    spent_at = sorted(entered)[int(BUDGET.credits) // PRICE - 1]
    last_checks = {note["task"]: note["at"] for note in seen["first"] if note["what"] == "checks"}
    submitted = {task: at for task, at in last_checks.items() if f"film {task}" in created}
    assert len(submitted) == len(created)
    assert max(submitted.values()) < spent_at  # the jobs that were being created then, and no other
    in_creation = len(created) - BUDGET.credits // PRICE
    assert 0 <= in_creation <= children
    assert seen["killed"] >= children // 4
    assert [note for note in seen["first"] if note["what"] == "refused"] != []
    # A retry may find that its create was never sent, and that the budget is spent.
    assert {note["what"] for note in seen["retried"]} <= {"checks", "submitted", "entered", "refused"}
    assert {note["what"] for note in seen["second"]} == {"checks", "refused"}
    assert [name.rpartition("_")[2] for name in seen["entries"]] == [str(PRICE)] * len(created)
    fault_row(
        "orders", f"budget: {children} worker processes at once, every third try is killed, at every step",
        side="ent-v2", seen=f"{len(created) * PRICE} of {BUDGET.credits:g} credits; {seen['killed']} workers killed",
        requests=len(created), outcome=SURVIVED,
    )  # fmt: skip
