"""What a batch reports to Airflow: asset events and lineage, with the manifest as its one data set."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset, AssetAlias

from tests.integration.batches.batch_task import BatchTask
from tests.integration.outlet_events import Events

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff"),
    pytest.mark.vidu_sandbox(concurrency=50),
]


class ReportingTask(BatchTask):
    """A task with outlets."""

    events: Events

    def context(self) -> dict[str, Any]:
        """Return the context of the current try."""
        return {**super().context(), "outlet_events": self.events}


def rows_file(folder: Path) -> Path:
    """Return a file of three rows, of which one is refused."""
    rows = [{"prompt": "a cat"}, {"prompt": "a dog"}, {"prompt": "x", "images": ["/no/such.png"]}]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_manifest_is_the_asset(connect, sandbox, tmp_path):
    """An asset's event has the summary, an alias resolves to the manifest; no event holds a row."""
    connect("ent-v2")
    asset, alias = Asset("s3://bucket/clips"), AssetAlias("clips")
    task = ReportingTask(tmp_path / "out", str(rows_file(tmp_path)), outlets=[asset, alias], min_success=1)
    task.events = Events()
    summary = task.run()
    assert task.events[asset].extra == summary
    assert task.events[alias].added == [(summary["manifest"], summary)]
    assert "a cat" not in json.dumps(summary)


def test_lineage_leads_from_the_rows_to_the_manifest(connect, sandbox, tmp_path):
    """With the digest of the manifest as its version, and the counts and bytes of the files."""
    connect("ent-v2")
    path = rows_file(tmp_path)
    task = BatchTask(tmp_path / "out", str(path), min_success=1)
    assert task.operator.get_openlineage_facets_on_complete(None).outputs == []
    summary = task.run()
    lineage = task.operator.get_openlineage_facets_on_complete(None)
    manifest = Path(summary["manifest"].removeprefix("file://"))
    assert [(one.namespace, one.name) for one in lineage.inputs] == [("file", str(path))]
    (output,) = lineage.outputs
    assert (output.namespace, output.name) == ("file", str(manifest))
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert output.facets["version"].datasetVersion == f"sha256:{digest}"
    statistics = output.outputFacets["outputStatistics"]
    assert (statistics.rowCount, statistics.fileCount, statistics.size) == (3, 2, summary["bytes"])
    listed = BatchTask(tmp_path / "other", [{"prompt": "a cat"}])
    listed.run()
    assert listed.operator.get_openlineage_facets_on_complete(None).inputs == []


def test_the_seed_is_that_of_the_order(dialect, sandbox, tmp_path):
    """A service that repeats no seed does not hide the one that a row has; 0 lets the service choose."""
    rows = [{"prompt": "a", "seed": 7}, {"prompt": "b", "parameters": {"seed": "8"}}, {"prompt": "c", "seed": 0}]
    task = BatchTask(tmp_path, rows)
    task.run()
    assert [line["seed"] for line in task.lines][:2] == [7, 8]
    assert task.lines[2]["seed"] != 0
