"""An account that is full, on a real Airflow: a queue, not a failure."""

from __future__ import annotations


def test_a_full_account_is_a_queue(airflow, full, runs):
    """Every clip is kept and paid once, without a retry; the refused tasks waited in the triggerer, and said so."""
    run = runs["full"]
    assert airflow.wait(run, timeout=240) == "success"
    tasks = [task for task in airflow.tasks(run) if task.record["task_id"] == "film"]
    assert [task.try_number for task in tasks] == [1, 1, 1]
    assert len(full.creates) == 3
    refused = len(full.requests("create")) - len(full.creates)
    assert 2 <= refused <= 9
    logs = [airflow.task_log(run, "film", map_index=index) for index in range(3)]
    assert sum("waiting in the triggerer for a free slot" in log for log in logs) == 2
