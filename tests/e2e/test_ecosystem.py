"""What the rest of Airflow makes of a generation: assets, event-driven scheduling, notifications."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import urlencode

from private_airflow import Run, wait_for

SIGNATURE = "e2e-signature"


def _run_of(airflow, dag_id) -> Run:
    """Return the first run of a DAG that was started by an event."""
    found: list[dict] = []

    def started() -> bool:
        found[:] = airflow.api("GET", f"/dags/{dag_id}/dagRuns?order_by=run_after")["dag_runs"]
        return bool(found)

    assert wait_for(started, 90), f"{dag_id} never ran"
    assert found[0]["run_type"] == "asset_triggered"
    return Run(dag_id, found[0]["dag_run_id"])


def _note(airflow, task_id) -> str:
    """Return what the notifier of a task has said."""
    return airflow.api("GET", f"/variables/e2e-note-{task_id}")["value"]


def test_a_download_tells_its_outlets(airflow, sandbox, runs, videos):
    """The asset's event carries the record of the file, and the alias has become the file itself."""
    run = runs["outlets"]
    assert airflow.wait(run) == "success", airflow.task_log(run, "download")[-3000:]
    record = airflow.xcom(run, "download")
    # Airflow 3.3.2 answers 500 while a run that an event has started is still queued.
    assert airflow.wait(_run_of(airflow, "e2e_on_films")) == "success"
    query = urlencode({"source_dag_id": run.dag_id, "source_run_id": run.run_id})
    events = airflow.api("GET", f"/assets/events?{query}")["asset_events"]
    extras = {event["uri"]: event["extra"] for event in events}

    assert extras.keys() == {"e2e-films", record["uri"]}
    for extra in extras.values():
        assert extra.items() >= {**record, "artifact": "video"}.items()
        assert extra["sha256"] == hashlib.sha256(sandbox.file_bytes("e2e-outlets")).hexdigest()
        assert "?" not in json.dumps(extra)


def test_a_dag_scheduled_on_the_asset_runs(airflow, runs):
    """A download starts the DAG that waits for its asset, which reads what was stored and where."""
    run = _run_of(airflow, "e2e_on_films")
    assert airflow.wait(run) == "success"
    assert airflow.xcom(run, "told")[0] == {**airflow.xcom(runs["outlets"], "download"), "artifact": "video"}


def test_a_finished_generation_starts_a_dag(airflow, watched):
    """A generation that was not submitted by Airflow finishes, and the DAG that watches for it runs, once."""
    assert wait_for(lambda: len(watched.requests("list")) > 1, 60), "nobody watches"
    watched.add_generation("7001", dialect="ent-v2", states=[["success", 0]])
    run = _run_of(airflow, "e2e_on_finished")

    assert airflow.wait(run) == "success"
    (payload,) = airflow.xcom(run, "told")
    assert (payload["generation_id"], payload["outcome"]) == ("7001", "succeeded")
    assert "http" not in json.dumps(payload)
    looks = len(watched.requests("list"))
    assert wait_for(lambda: len(watched.requests("list")) > looks + 1, 60)
    assert len(watched.requests("query", "7001")) == 1
    assert len(airflow.api("GET", "/dags/e2e_on_finished/dagRuns")["dag_runs"]) == 1


def test_a_notifier_hears_why(airflow, runs, keys):
    """A notifier gets our exception: kind, reason and generation, and neither key nor signature."""
    run = runs["notified"]
    assert airflow.wait(run) == "failed"
    assert wait_for(lambda: len(airflow.api("GET", "/variables?limit=100")["variables"]) >= 2, 30)
    waited, refused = _note(airflow, "note_wait"), _note(airflow, "note_download")

    assert waited.startswith("ViduGenerationFailedError: ")
    assert "no such model" in waited
    assert "generation e2e-notified" in waited
    assert refused.startswith("ViduDownloadRefusedError: ")
    assert "10.0.0.1" in refused
    for text in (waited, refused):
        assert SIGNATURE not in text
        assert keys.good not in text
