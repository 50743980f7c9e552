"""What a clear does to a task that runs, and to one that retries beside it."""

from __future__ import annotations

import pytest

from private_airflow import wait_for


@pytest.fixture(scope="module")
def run(airflow, sandbox, request):
    """Start both films; clear the one that runs, and the sibling of the one that waits for its retry."""
    airflow.wait_for_dags(["e2e_cleared"])
    run = airflow.trigger("e2e_cleared")
    assert wait_for(lambda: any(create.body["prompt"] == "running, take 1" for create in sandbox.creates), 90)
    _clear(airflow, run, "running")
    airflow.wait_for_task(run, "retried", "up_for_retry")
    _clear(airflow, run, "sibling")
    request.getfixturevalue("runs")  # those of other tests, while the films take their seconds
    assert airflow.wait(run) == "success", airflow.task_log(run, "running") + airflow.task_log(run, "retried")
    return run


def _clear(airflow, run, task_id: str) -> None:
    body = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": [task_id], "only_failed": False}
    airflow.api("POST", f"/dags/{run.dag_id}/clearTaskInstances", body)


def test_a_task_that_is_cleared_while_it_runs_orders_anew(airflow, sandbox, run):
    """Airflow changes its number when the worker has obeyed; the new prompt's video is the result."""
    (create,) = [create for create in sandbox.creates if create.body["prompt"] == "running, take 2"]
    assert airflow.xcom(run, "running")["id"] == create.id


def test_a_retry_pays_once_while_its_sibling_is_cleared(airflow, sandbox, run):
    """The run's number of clears has grown and the prompt is another one: the paid generation is the result."""
    assert airflow.api("GET", f"{run.path}/taskInstances/retried")["try_number"] == 2
    (create,) = [create for create in sandbox.creates if create.body["prompt"].startswith("retried")]
    assert airflow.xcom(run, "retried")["id"] == create.id
