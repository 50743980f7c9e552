"""What the pages show of a batch and of its rows."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("needs an Airflow with pages", allow_module_level=True)

from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.ui.batches import rows
from airflow_provider_vidu.ui.batches.records import Batch
from airflow_provider_vidu.ui.clips.facts import TaskFacts


@pytest.mark.parametrize(("state", "is_shown"), [("deferred", True), ("up_for_retry", False)])
def test_the_timeout_of_a_try_that_is_over_is_not_shown(state, is_shown):
    """The next try begins with one of its own, so the earlier one never fires."""
    task = TaskFacts("d", "r", "films", -1, None, state=state)
    shown = rows.batch_view(Batch(task, "b", "file:///a/", "file:///a/b.jsonl", None, 1), BatchState(deadline=60.0))
    assert (shown["deadline"] == "1970-01-01T00:01:00+00:00") is is_shown
