"""A batch on a real Airflow: workers and a triggerer are killed, a user marks it failed and clears it."""

from __future__ import annotations

import random

import pytest

from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import wait_for
from tests.e2e.batch_runs import BatchRun

COUNT = 60


@pytest.fixture(scope="module")
def batch(airflow, keys, tmp_path_factory):
    """Start a batch of 60 rows against a service of its own."""
    service = Sandbox(
        keys=[keys.good], queue=2, duration=8, models="any", list_payload=True, concurrency=None, balance=1_000_000
    )
    with service as sandbox:
        fields = {"conn_type": "vidu", "host": sandbox.url, "password": keys.good, "extra": {"dialect": "ent-v2"}}
        airflow.add_connection("vidu_batch", fields)
        airflow.wait_for_dags(["e2e_batch_12"])
        made = BatchRun(airflow, sandbox, tmp_path_factory.mktemp("batch"), COUNT)
        made.start("e2e_batch_12", "vidu_batch")
        yield made


@pytest.mark.nightly  # minutes; the example with a batch runs each time
def test_each_row_is_paid_once(batch):
    """Creates, files and lines of the manifest are as many as rows, whatever dies and whatever users do."""
    random.seed(4711)
    assert wait_for(lambda: batch.creates() > 3, 180), batch.airflow.states(batch.run)
    for least in (8, 20):
        assert wait_for(lambda least=least: batch.creates() >= least, 180), batch.airflow.states(batch.run)
        batch.kill_worker(2.0)
    assert wait_for(lambda: batch.creates() >= 28, 180), batch.airflow.states(batch.run)
    batch.kill_triggerer()
    assert wait_for(lambda: batch.creates() >= 36, 240), batch.airflow.states(batch.run)
    batch.mark_failed()
    assert wait_for(lambda: batch.airflow.run_state(batch.run) == "failed", 60)
    before = batch.creates()
    assert not wait_for(lambda: batch.creates() > before + 1, 15), "the batch orders on after it was marked failed"
    batch.clear()
    assert batch.airflow.wait(batch.run, timeout=400) == "success", batch.airflow.states(batch.run)
    batch.check()
    log = batch.airflow.task_log(batch.run, "films")
    assert f"{COUNT} of {COUNT} rows stored, 0 to order" in log
    summary = batch.airflow.xcom(batch.run, "films")
    assert (summary["stored"], summary["left"], summary["failed"]) == (COUNT, 0, 0)
