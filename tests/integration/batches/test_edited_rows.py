"""Rows that are edited while their batch is at the service."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.batches.jobs import row_name
from airflow_provider_vidu.links import BATCH_KEY
from tests.integration.batches.batch_task import BatchTask, deferred_by
from tests.integration.orders.test_clears import Accessor, is_33  # noqa: F401 - a fixture

RED, GREY = {"key": "a", "prompt": "a red kite"}, {"key": "b", "prompt": "a grey kite"}

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("short_stay", "no_first_wait", "quick_backoff")]


def at_the_service(connect, sandbox, tmp_path, *rows) -> tuple[BatchTask, TaskDeferred]:
    """Let a batch defer while its rows are at the service."""
    connect("ent-v2")
    task = BatchTask(tmp_path, list(rows), min_success=1)
    return task, deferred_by(task, sandbox)


def test_a_line_has_the_prompt_that_was_ordered(connect, sandbox, tmp_path):
    """The manifest and the pages showed the row's new prompt beside the clip, or the failure, of the old one."""
    refused = GREY | {"prompt": "[fail:SystemThrottling] a grey kite"}
    task, deferred = at_the_service(connect, sandbox, tmp_path, RED, refused)
    task.kwargs["rows"] = [row | {"prompt": "a blue kite"} for row in (RED, refused)]
    assert task.run(deferred)["failed"] == 1
    assert [line["prompt"] for line in task.lines] == ["a red kite", "[fail:SystemThrottling] a grey kite"]


def test_the_pages_are_told_of_rows_that_were_removed(connect, sandbox, tmp_path):
    """The batch does not wait for them; once they are there again, a clear resumes them."""
    task, deferred = at_the_service(connect, sandbox, tmp_path, RED, GREY)
    assert "removed" not in task.xcoms[BATCH_KEY]
    task.kwargs["rows"] = [RED]
    assert task.run(deferred)["stored"] == 1
    told = task.xcoms[BATCH_KEY]
    assert (told["rows"], told["removed"], told["unwanted"]) == (1, 1, [row_name("b")])
    task.clear()
    task.kwargs["rows"] = [RED, GREY]
    assert task.run()["stored"] == len(sandbox.creates) == 2
    assert "removed" not in task.xcoms[BATCH_KEY]


@pytest.mark.usefixtures("variables", "is_33")
def test_a_file_of_rows_that_is_gone_in_a_retry(connect, sandbox, tmp_path):
    """The retry failed for good, and its log named nothing that was paid for, though the first try's had."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a", "prompt": "a red kite"}\n', "utf-8")
    connect("ent-v2")
    task = BatchTask(tmp_path / "out", str(path))
    task.further["task_state_store"] = Accessor()
    deferred_by(task, sandbox)
    path.rename(tmp_path / "aside")
    with pytest.raises(exceptions.ViduError, match=r"does not exist.*paid for: once that is fixed, a retry") as caught:
        task.start()
    assert caught.value.retryable
    (tmp_path / "aside").rename(path)
    assert task.run()["stored"] == len(sandbox.creates) == 1
