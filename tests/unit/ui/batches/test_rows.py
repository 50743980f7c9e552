"""How far a batch is, as its page shows it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.ui.batches.records import Batch
from airflow_provider_vidu.ui.batches.rows import batch_view
from airflow_provider_vidu.ui.clips.facts import TaskFacts

LATEST, EARLIER = 2_000_000_000.0, 1_900_000_000.0


@pytest.mark.parametrize(
    ("run_id", "times", "deadline"),
    [
        ("r1", {"d/r1/films/-1": (1.0, EARLIER), "d/r2/films/-1": (2.0, LATEST)}, EARLIER),
        ("r2", {"d/r1/films/-1": (1.0, EARLIER), "d/r2/films/-1": (2.0, LATEST)}, LATEST),
        ("r3", {"d/r1/films/-1": (1.0, EARLIER)}, None),
        ("r1", {}, LATEST),
    ],
    ids=["an earlier run", "the latest run", "a run that is not recorded", "recorded by an earlier version"],
)
def test_each_run_of_a_named_batch_has_its_own_deadline(run_id, times, deadline):
    """The page of one showed the deadline of the latest."""
    task = TaskFacts("d", run_id, "films", -1, None, state="running")
    batch = Batch(task, "spring", "file:///films/", "file:///films/spring.manifest.jsonl", "vidu_default", 1)
    shown = batch_view(batch, BatchState(since=2.0, deadline=LATEST, times_of=times))["deadline"]
    assert shown == (None if deadline is None else datetime.fromtimestamp(deadline, UTC).isoformat())
