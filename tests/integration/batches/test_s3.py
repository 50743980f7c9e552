"""A batch in object storage: files, manifest, journal and rows in S3."""

from __future__ import annotations

import hashlib
import json

import pytest

from airflow_provider_vidu.batches import journal
from airflow_provider_vidu.batches.leg import collecting
from tests.faults.transfer_s3 import body_of, keys, s3_bucket, s3_client, s3_endpoint  # noqa: F401 - fixtures
from tests.integration.batches.batch_task import BatchTask

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]


def test_a_batch_in_s3(connect, sandbox, s3, bucket, tmp_path, monkeypatch):
    """A retry after a death in the middle reads the journal from the store, and pays for nothing twice."""
    connect("ent-v2")
    monkeypatch.setattr(journal, "SNAPSHOT_EVENTS", 4)
    rows = [{"key": f"clip{n}", "prompt": f"a cat {n}"} for n in range(4)]
    text = "\n".join(map(json.dumps, rows))
    s3.put_object(Bucket=bucket, Key="in/rows.jsonl", Body=text.encode())
    task = BatchTask(tmp_path, f"s3://{bucket}/in/rows.jsonl", destination=f"s3://{bucket}/out/", max_in_flight=2)

    def die(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        original = collecting.Collector.watch
        patch.setattr(
            collecting.Collector,
            "watch",
            lambda *known, **more: die() if len(sandbox.creates) == 3 else original(*known, **more),
        )
        with pytest.raises(KeyboardInterrupt):
            task.run()
    found = task.run()
    assert found["stored"] == len(sandbox.creates) == 4
    manifest = body_of(s3, bucket, found["manifest"].removeprefix(f"s3://{bucket}/")).decode()
    for line in map(json.loads, manifest.splitlines()):
        content = body_of(s3, bucket, line["uri"].removeprefix(f"s3://{bucket}/"))
        assert hashlib.sha256(content).hexdigest() == line["sha256"]
    stored, unfinished = keys(s3, bucket)
    assert unfinished == 0
    journals = sorted(name.rpartition("/")[2] for name in stored if "/.vidu/" in name)
    assert journals[-1] == "state-000001.json.gz"
    task.clear()
    assert task.run() == found
    assert len(sandbox.creates) == 4
