"""How far a batch is, as its page shows it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from airflow_provider_vidu.batches.jobs import Open, row_name
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.order import OrderRecord

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.batches.listing import Entry
from airflow_provider_vidu.ui.batches.published import Batch, batch_of
from airflow_provider_vidu.ui.batches.rows import batch_view, view_of, with_state
from airflow_provider_vidu.ui.clips.clears import LATER_ITERATIONS
from airflow_provider_vidu.ui.clips.facts import TaskFacts
from airflow_provider_vidu.ui.clips.service import NOT_ASKED, Live

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


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_rows_of_other_tasks_of_a_named_batch(is_shared):
    """The journal has the rows of all: counts of one task's rows, and what a clear does for one, were made of them."""
    task = TaskFacts("d", "r1", "films", -1, None, state="failed")
    known = Batch(task, "spring", "file:///films/", "file:///films/spring.manifest.jsonl", "vidu_default", 1)
    owners = ["d/r1/films/-1", "d/r2/films/-1"][: 1 + is_shared]
    state = BatchState(orders_of={owner: OrderRecord(0, "", 1.0) for owner in owners})
    line = {"key": "k", "index": 5, "status": "failed", "error": {"type": "ViduError", "message": "It failed."}}
    state.apply({"e": "line", "line": line})
    batch = with_state(known, state)
    shown = batch_view(batch, state)
    assert (shown["is_shared"], shown["left"]) == (is_shared, None if is_shared else 0)
    view = {"generation_id": None, "error": None}
    told = view_of(batch, Entry("k", 5, "failed", state.lines.ended["k"]), view, NOT_ASKED)["error"]
    assert told["cost"].startswith("Other tasks have run this batch, too" if is_shared else "Clearing the task orders")
    retried = batch_view(replace(batch, task=replace(task, state="up_for_retry")), state)["next_try"]
    assert ("The rows of other tasks" in retried["does"]) is is_shared


def test_a_removed_row_that_is_one_of_another_task_since():
    """Its page said that no try and no clear stores its file, while that task waited for it, or had stored it."""
    task = TaskFacts("d", "r1", "films", -1, None, state="success")
    note = {"batch": "spring", "folder": "file:///films/", "manifest": "file:///films/spring.manifest.jsonl", "rows": 1}
    known = batch_of(task, {**note, "removed": 1, "unwanted": [row_name("k")]})
    orders_of = {"d/r1/films/-1": OrderRecord(0, "", 1.0)}
    job = Open("g", 1.0)
    view = {"generation_id": "g", "error": None, "outlook": None, "task": {}, "qualifier": None}
    for others, unwanted in (({}, 1), ({"d/r2/films/-1": OrderRecord(0, "", 2.0)}, 0)):
        state = BatchState(orders_of=orders_of | others, open={"k": job})
        batch = with_state(known, state)
        shown = batch_view(batch, state)
        assert (shown["rows"], shown["unwanted"]) == (1 + unwanted, unwanted)
        told = view_of(batch, Entry("k", 0, "submitted", job), view, NOT_ASKED)["error"]
        assert (told is not None) == bool(unwanted)


@pytest.mark.parametrize(("state", "begun"), [("up_for_retry", 2), ("scheduled", 1), ("queued", 1), ("running", 2)])
def test_the_log_of_a_batch_between_two_tries(state, begun):
    """Airflow counts a try when it schedules it: the links to the log opened one that has not begun, and none there."""
    watch = {"try_number": begun, "max_tries": 2}
    task = TaskFacts("d", "r1", "films", -1, None, state=state, try_number=2, max_tries=2, watch=watch)
    batch = Batch(task, "spring", "file:///films/", "file:///films/spring.manifest.jsonl", "vidu_default", 1)
    assert batch_view(batch, None)["begun_tries"] == begun


@pytest.mark.parametrize("state", ["failed", "running"])
def test_a_row_of_a_batch_in_a_loop(state):
    """Airflow's dialog clears the later iterations with the task; a batch that goes on is not to be cleared."""
    task = TaskFacts("d", "r1", "films", -1, None, state=state, iteration=1, region_id="01a21b08")
    batch = Batch(task, "spring", "file:///films/", "file:///films/spring.manifest.jsonl", "vidu_default", 1)
    known = BatchState()
    error = {"type": "ViduError", "message": "It failed."}
    known.apply({"e": "line", "line": {"key": "k", "index": 0, "status": "failed", "error": error}})
    view = {"generation_id": None, "error": None}
    told = view_of(batch, Entry("k", 0, "failed", known.lines.ended["k"]), view, NOT_ASKED)["error"]
    assert told["cost"].endswith(LATER_ITERATIONS) is (state == "failed")
    assert batch_view(batch, known)["later"] == LATER_ITERATIONS
    assert batch_view(replace(batch, task=replace(task, region_id=None)), None)["later"] == ""


def test_a_row_of_a_batch_that_is_not_in_the_dag_any_more():
    """Airflow removes the task when it is cleared: no clear of it orders or stores anything."""
    task = TaskFacts("d", "r1", "films", -1, None, state="removed")
    batch = Batch(task, "spring", "file:///films/", "file:///films/spring.manifest.jsonl", "vidu_default", 2)
    known = BatchState()
    late = {"type": "ViduTimeoutError", "message": "The timeout expired."}
    for index, more in enumerate(({}, {"paid": True, "generation_id": "g"})):
        line = {"key": f"k{index}", "index": index, "status": "failed", "error": late, **more}
        known.apply({"e": "line", "line": line})
    view = {"generation_id": "g", "error": None}
    finished = Live(Generation(id="g", status="succeeded"))
    for index in range(2):
        entry = Entry(f"k{index}", index, "failed", known.lines.ended[f"k{index}"])
        told = view_of(batch, entry, view, finished)["error"]
        assert told["cost"] == "The task is not in the DAG any more, so clearing it orders and stores nothing."
        assert "Clear the task" not in told["advice"]
    assert batch_view(batch, known)["removed"] == told["cost"]
    assert batch_view(replace(batch, task=replace(task, state="failed")), known)["removed"] is None
