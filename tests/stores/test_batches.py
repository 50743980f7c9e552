"""A batch in Google Cloud Storage and in Azure: journal, files and manifest, over a death in the middle."""

from __future__ import annotations

import hashlib
import json

import pytest

from airflow_provider_vidu.batches.leg import collecting
from airflow_provider_vidu.sandbox import Sandbox
from tests.integration.batches.batch_task import BatchTask


@pytest.fixture
def service(monkeypatch):
    """Run the service, with the connection to it."""
    with Sandbox(keys=["k"], speed=100, queue=5, duration=15, models="any", list_payload=True) as running:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", running.connection_json("ent-v2"))
        yield running


def test_a_batch_in_a_store(store, service, tmp_path, monkeypatch):
    """The retry reads the journal from the store: each row is paid once, and each file is whole."""
    rows = [{"key": f"clip{n}", "prompt": f"a cat {n}"} for n in range(4)]
    known = {"destination": store.uri("out/"), "storage_conn_id": store.conn_id, "reuse": "identical"}
    task = BatchTask(tmp_path, rows, max_in_flight=2, **known)
    original = collecting.Collector.watch

    def mortal(*arguments, **more):
        if len(service.creates) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **more)

    with monkeypatch.context() as dying:
        dying.setattr(collecting.Collector, "watch", mortal)
        with pytest.raises(KeyboardInterrupt):
            task.run()
    found = task.run()
    assert found["stored"] == len(service.creates) == 4
    names = store.keys()
    manifest = next(name for name in names if name.endswith(".manifest.jsonl"))
    lines = [json.loads(line) for line in store.content(manifest).decode().splitlines()]
    for line in lines:
        content = store.content(line["uri"].partition(f"{store.bucket}/")[2])
        assert hashlib.sha256(content).hexdigest() == line["sha256"]
    assert store.unfinished() == 0
    other = BatchTask(tmp_path, [{"key": "again", "prompt": "a cat 0"}], batch="other", **known)
    assert other.run()["reused"] == 1
    names = store.keys()
    assert not [name for name in names if "/claims/" in name]
