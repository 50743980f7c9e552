"""Five thousand rows in one task: the worker is killed five times and the triggerer twice, and memory stays flat."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from airflow_provider_vidu.sandbox import Sandbox
from fault_table import SURVIVED
from private_airflow import PrivateAirflow, wait_for
from tests.e2e.batch_runs import BatchRun, memory

COUNT = int(os.environ.get("BATCH_ROWS", "5000"))
LIMIT = 50
MOST_GROWTH = 64 * 2**20
WORKER_KILLS = 5
TRIGGERER_KILLS = 2
DAGS = Path(__file__).parent.parent / "e2e" / "dags"


def test_five_thousand_rows(tmp_path, fault_row):
    """As many creates, whole files and lines as rows; worker and triggerer grow by 64 MiB at most."""
    key = f"soak-batch-{secrets.token_hex(8)}"
    settings = {"TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10"}
    service = Sandbox(
        keys=[key], queue=1, duration=3, models="any", list_payload=True, concurrency=None, balance=100_000_000
    )
    with service as sandbox, PrivateAirflow(tmp_path / "airflow", [DAGS], settings=settings) as airflow:
        fields = {"conn_type": "vidu", "host": sandbox.url, "password": key, "extra": {"dialect": "ent-v2"}}
        airflow.add_connection("vidu_batch", fields)
        airflow.wait_for_dags([f"e2e_batch_{LIMIT}"])
        batch = BatchRun(airflow, sandbox, tmp_path, COUNT)
        batch.start(f"e2e_batch_{LIMIT}", "vidu_batch")
        with memory(batch) as grown:
            for kill in range(WORKER_KILLS):
                least = COUNT * (kill + 1) // (WORKER_KILLS + 2)
                assert wait_for(lambda least=least: batch.creates() >= least, 1200), airflow.states(batch.run)
                batch.kill_worker(3.0)
                if kill < TRIGGERER_KILLS:
                    batch.kill_triggerer()
            assert airflow.wait(batch.run, timeout=2400) == "success", airflow.states(batch.run)
        batch.check()
        legs = len(batch.legs())
    told = ", ".join(f"{kind} +{size // 2**20} MiB" for kind, size in grown.items())
    fault_row(
        "soak",
        f"{WORKER_KILLS} workers and {TRIGGERER_KILLS} triggerers killed in a batch of {COUNT:,} rows",
        side="batch",
        seen=f"{COUNT:,} creates, files and lines; {legs} legs; {told}",
        requests=f"{len(sandbox.requests()):,}",
        outcome=SURVIVED,
    )
    assert max(grown.values()) <= MOST_GROWTH, told
