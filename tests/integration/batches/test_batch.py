"""The batch operator against the sandbox: rows in, files and a manifest out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.integration.batches.batch_task import BatchTask

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_from_rows_to_files(dialect, sandbox, tmp_path, deferrable):
    """Each row is ordered once, its file is stored under its key, and its line describes the file."""
    rows = [{"key": f"clip{n}", "prompt": f"a cat {n}"} for n in range(5)]
    task = BatchTask(tmp_path, rows, deferrable=deferrable, max_in_flight=2)
    found = task.run()
    assert (found["rows"], found["stored"], found["failed"], found["left"]) == (5, 5, 0, 0)
    assert len(sandbox.creates) == 5
    assert [line["key"] for line in task.lines] == [row["key"] for row in rows]
    for line in task.lines:
        content = Path(line["uri"].removeprefix("file://")).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (line["size"], line["sha256"])
        assert Path(line["uri"]).name == f"{line['key']}.mp4"
    assert {line["generation_id"] for line in task.lines} == {create.id for create in sandbox.creates}
