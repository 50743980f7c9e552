"""A budget on a real Airflow: mapped tasks, retries, a clear, dead workers and a lost answer spend it, and no more."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import PrivateAirflow, Run, wait_for
from tests.versions import AIRFLOW

PRICE = 10


def paid(service: Sandbox, run: Run) -> int:
    """Return what the service has billed for a run."""
    own = [create for create in service.creates if create.body["prompt"].startswith(f"{run.dag_id} ")]
    assert len({create.body["prompt"] for create in own}) == len(own)  # each once
    return sum(create.credits for create in own if create.charge == "charged")


def counted(airflow: PrivateAirflow, run: Run) -> float:
    """Return the sum of a run's entries; none may be left in doubt."""
    found: list[dict[str, Any]] = []
    while True:
        page = airflow.api("GET", f"/variables?limit=100&offset={len(found)}&variable_key_pattern=vidu_spent_%25")
        found += page["variables"]
        if len(found) >= page["total_entries"]:
            break
    facts = [json.loads(one["value"]) for one in found]
    own = [each for each in facts if each["dag_id"] == run.dag_id]
    assert [each for each in own if "credits" not in each] == []
    return sum(each["credits"] for each in own)


def shown(airflow: PrivateAirflow, run: Run) -> dict[str, Any]:
    """Return what the page *Vidu* says of a DAG; it reads the database every few seconds."""
    summary = airflow.ask("GET", "/vidu/spending.json?days=7")
    return next(each for each in summary["dags"] if each["name"] == run.dag_id)


def is_shown(airflow: PrivateAirflow, run: Run, spent: float) -> bool:
    """Whether the page shows this sum, at the latest when it reads the database again."""
    return wait_for(lambda: shown(airflow, run)["credits"] == spent, 60)


def check(airflow: PrivateAirflow, billed: Sandbox, run: Run, cap: int, in_creation: int) -> int:
    """Compare service, entries, tasks and page once a run has ended; return what was spent."""
    assert airflow.wait(run, timeout=600) == "failed"
    spent = paid(billed, run)
    assert cap <= spent <= cap + in_creation * PRICE
    tasks = airflow.tasks(run)
    logs = {task.name: airflow.task_log(run, "film", map_index=task.record["map_index"]) for task in tasks}
    refused = [name for name, log in logs.items() if "The budget of this DAG run" in log]
    states = {task.name: task.state for task in tasks}
    assert sum(state == "success" for state in states.values()) * PRICE == spent == counted(airflow, run)
    assert {name for name, state in states.items() if state == "failed"} <= set(refused)
    assert is_shown(airflow, run, spent), shown(airflow, run)
    return spent


def test_a_run_spends_its_budget_on_a_real_airflow(airflow, billed, runs):
    """An answer is lost and a worker dies: the sums of service, budget and page are the same; a clear adds nothing."""
    run = runs["budget"]
    spent = check(airflow, billed, run, cap=40, in_creation=3)
    assert airflow.api("GET", f"{run.path}/taskInstances/film/2")["try_number"] >= 2
    done = next(task for task in airflow.tasks(run) if task.state == "success")
    sent = len(billed.requests("create"))
    body = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": [["film", done.record["map_index"]]],
            "only_failed": False}  # fmt: skip
    airflow.api("POST", f"/dags/{run.dag_id}/clearTaskInstances", body)
    assert wait_for(lambda: airflow.run_state(run) not in ("failed", "success"), 60)
    assert airflow.wait(run, timeout=120) == "failed"
    assert airflow.states(run)[done.name] == "failed"
    assert (paid(billed, run), counted(airflow, run), len(billed.requests("create"))) == (spent, spent, sent)
    # From 3.4 on, a clear discards what the task knew.
    known = spent if AIRFLOW < (3, 4) else spent - PRICE
    assert is_shown(airflow, run, known), shown(airflow, run)
