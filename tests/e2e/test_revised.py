"""A DAG is revised, with fewer retries, and its ended task cleared: ``max_tries`` comes out the same."""

from __future__ import annotations

import json

from private_airflow import wait_for


def test_a_clear_after_a_revision_is_a_new_order(airflow, sandbox, runs):
    """The cleared task submits the new prompt, and its log names what the earlier order was and what it cost."""
    run = runs["revised"]
    assert airflow.wait(run) == "success", airflow.task_log(run, "film")
    first = airflow.xcom(run, "film")["id"]

    (airflow.home / "revised.json").write_text(json.dumps({"prompt": "after the revision", "retries": 1}))
    file_token = airflow.api("GET", f"/dags/{run.dag_id}")["file_token"]
    airflow.api("PUT", f"/parseDagFile/{file_token}")  # as a user does who does not want to wait half a minute
    versions = f"/dags/{run.dag_id}/dagVersions"
    assert wait_for(lambda: len(airflow.api("GET", versions)["dag_versions"]) > 1, 150)
    body = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": ["film"], "only_failed": False}
    airflow.api("POST", f"/dags/{run.dag_id}/clearTaskInstances", {**body, "run_on_latest_version": True})
    assert wait_for(lambda: airflow.run_state(run) not in ("failed", "success"), 60)
    assert airflow.wait(run) == "success", airflow.task_log(run, "film")

    # The premise: by this number alone the new try is a retry.
    assert airflow.api("GET", f"{run.path}/taskInstances/film")["max_tries"] == 2
    (create,) = [create for create in sandbox.creates if create.body["prompt"] == "after the revision"]
    assert airflow.xcom(run, "film")["id"] == create.id != first
    assert f"Its earlier generation was {first}: succeeded" in airflow.task_log(run, "film")
