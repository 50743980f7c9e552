"""Which rows of a batch the try of a task orders again: a retry, a clear, another run of a batch with a name."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airflow_provider_vidu.batches.leg.beginning import begun
from airflow_provider_vidu.batches.snapshot import packed, unpacked
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.exceptions import (
    ViduConfigError,
    ViduGenerationInterruptedError,
    ViduPolicyError,
    ViduSubmitUnknownError,
)
from airflow_provider_vidu.orders.order import Order
from tests.rows import each_row

FIRST = Order(0, 1, True, 1, 0, 900.0, "r1")
"""The first try of a task instance in the region of a loop, whose run began at 900."""


def failed(key: str, kind: type[Exception]) -> dict[str, Any]:
    """Return the line of a row that has failed."""
    error = {"type": kind.__name__, "message": "x", "retryable": kind is ViduGenerationInterruptedError}
    return {"key": key, "status": "failed", "error": error}


def state_after(order: Order = FIRST, owner: str = "a") -> BatchState:
    """Return the state of a batch whose task instance has one file and three rows that failed."""
    state = BatchState()
    for event in begun(state, order, 1000.0, 60, is_new=True, owner=owner)[0]:
        state.apply(event)
    kinds = {"busy": ViduGenerationInterruptedError, "bad": ViduPolicyError, "lost": ViduSubmitUnknownError}
    for line in ({"key": "good", "status": "stored"}, *(failed(key, kind) for key, kind in kinds.items())):
        state.apply({"e": "line", "line": line})
    return reread(state)


def reread(state: BatchState) -> BatchState:
    """Return a state as another process reads it."""
    return unpacked(packed(1, state))[1]


NEXT_RUN = Order(0, 0, True, 1, 0, 2000.0)


@each_row(
    ("case", "order", "owner", "is_new", "pending"),
    [
        ("a retry", Order(0, 1, True, 2, 0, 900.0, "r1"), "a", True, {"busy"}),
        ("a clear", Order(2, 2, True, 2, 0, 2000.0, "r1"), "a", False, {"busy", "bad", "lost"}),
        ("a clear of everything", Order(2, 2, True, 2, 0, 2000.0, "r1"), "a", True, {"busy", "bad", "lost", "good"}),
        ("an earlier iteration was cleared", Order(0, 2, True, 1, 0, 900.0, "r2"), "a", True,
         {"busy", "bad", "lost", "good"}),
        ("a run that was deleted and made again", NEXT_RUN, "a", True, {"busy", "bad", "lost", "good"}),
        ("another run", NEXT_RUN, "b", True, {"busy", "bad"}),
        ("another run without the rows", NEXT_RUN, "c", True, set()),
    ],
)  # fmt: skip
def test_what_a_try_orders_again(case, order, owner, is_new, pending):
    """The next run of a batch is no clear: it pays for nothing that has a file, or may have been paid for."""
    state = state_after()
    keys = ["other"] if owner == "c" else ["good", "busy", "bad", "lost"]
    events, gives_up = begun(state, order, 3000.0, 60, is_new=is_new, owner=owner, keys=keys)
    for event in events:
        state.apply(event)
    assert {"good", "busy", "bad", "lost"} - {key for key in state.lines if state.knows(key)} == pending
    assert gives_up is ("good" in pending)


def test_a_clear_is_noticed_after_another_run():
    """Each task instance is compared with its own latest try, not with that of another one."""
    state = state_after()
    for event in begun(state, NEXT_RUN, 3000.0, 60, is_new=True, owner="b")[0]:
        state.apply(event)
    state = reread(state)
    assert begun(state, Order(0, 1, True, 2, 0, 900.0, "r1"), 4000.0, 60, is_new=True, owner="a")[1] is False
    assert begun(state, Order(2, 2, True, 2, 0, 900.0, "r1"), 4000.0, 60, is_new=True, owner="a")[1] is True


def test_a_clear_that_orders_anew_leaves_the_rows_of_other_runs():
    """No user has cleared those: their next leg, retry or run would pay for them again."""
    state = state_after()
    for event in begun(state, NEXT_RUN, 3000.0, 60, is_new=True, owner="b", keys=["theirs"])[0]:
        state.apply(event)
    state.apply({"e": "id", "key": "theirs", "id": "g1", "at": 3000.0})
    again = Order(2, 2, True, 2, 0, 900.0, "r1")
    events, gives_up = begun(state, again, 4000.0, 60, is_new=True, owner="a", keys=["good", "busy", "new"])
    for event in events:
        state.apply(event)
    assert (gives_up, state.is_again, state.orders) == (True, True, 2)
    assert (set(state.lines), set(state.open)) == ({"bad", "lost"}, {"theirs"})


def test_each_task_instance_has_its_own_timeout():
    """Of two that run one batch, the later one does not move the deadline of the earlier one."""
    state = state_after()
    for event in begun(state, NEXT_RUN, 3000.0, 500, is_new=False, owner="b")[0]:
        state.apply(event)
    for seen in (state, reread(state)):
        assert [(seen.since_of(owner), seen.deadline_of(owner)) for owner in "ab"] == [(1000, 1060), (3000, 3500)]
    state.apply({"e": "returned", "order": state.order.to_json(), "owner": "a"})
    assert state.deadline_of("a") == 1060


def test_a_state_of_an_earlier_version():
    """It names no task instance: its one order is compared, as before."""
    stored = state_after(owner="").to_json()
    del stored["owners"]
    state = BatchState.from_json(stored)
    assert (state.since_of("a"), state.deadline_of("a")) == (1000, 1060)
    assert begun(state, Order(0, 1, True, 2, 0, 900.0, "r1"), 4000.0, 60, is_new=True, owner="a")[1] is False
    assert begun(state, Order(2, 2, True, 2, 0, 900.0, "r1"), 4000.0, 60, is_new=True, owner="a")[1] is True


def test_the_number_of_task_instances_is_bounded(monkeypatch):
    """A batch with a name goes on for years; the latest ones are kept."""
    monkeypatch.setattr("airflow_provider_vidu.batches.state.MOST_OWNERS", 3)
    state = BatchState()
    for number in range(5):
        for event in begun(state, FIRST, 1000.0, 60, is_new=False, owner=f"run {number}")[0]:
            state.apply(event)
    assert list(state.orders_of) == list(state.times_of) == ["run 2", "run 3", "run 4"]


def charged(state: BatchState, key: str, price: int) -> None:
    """Let a row order a generation that fails and is charged, and become pending again."""
    line = {**failed(key, ViduPolicyError), "generation_id": f"g{price}", "credits": price}
    state.apply({"e": "line", "line": line})
    state.apply({"e": "back", "keys": [key]})


def test_what_rows_have_cost_before_is_kept():
    """A limit counts it, until a clear orders these rows as if they were new."""
    state = state_after()
    charged(state, "bad", 7)
    charged(state, "bad", 5)
    charged(state, "busy", 3)
    state.apply({"e": "back", "keys": ["lost", "unknown"]})
    for seen in (state, reread(state)):
        assert (seen.credits, seen.price, seen.ordered, seen.uncertain) == (15, 7, (3, 3), 1)
    for event in begun(state, NEXT_RUN, 3000.0, 60, is_new=True, owner="b", keys=["theirs"])[0]:
        state.apply(event)
    again = begun(state, Order(2, 2, True, 2, 0, 900.0, "r1"), 4000.0, 60, is_new=True, owner="a", keys=["bad"])[0]
    stored = reread(state).to_json()
    for event in again:
        state.apply({**event, "keys": ["bad"]})
    assert (state.credits, state.ordered, state.uncertain) == (3, (1, 1), 1)
    whole = BatchState.from_json(stored)
    whole.apply({**again[0], "keys": None})
    assert (whole.credits, whole.ordered, whole.uncertain) == (0, (0, 0), 0)


def test_a_forged_state_of_earlier_costs_lowers_no_sum():
    """Others may write to the destination: anything that is not a number counts as 0."""
    stored = state_after().to_json()
    forged = {"key": "a", "generations": -5, "priced": "many", "credits": -1e9, "uncertain": True}
    state = BatchState.from_json({**stored, "earlier": [forged], "dearest": -4})
    assert (state.credits, state.price, state.ordered, state.uncertain) == (0, None, (0, 0), 0)


def test_the_highest_price_is_that_of_a_create_until_a_file_is_stored():
    """A service that returns the credits of a failure has not become free; one whose files cost nothing is."""
    state = state_after()
    state.apply({"e": "id", "key": "a", "id": "g1", "at": 1.0, "credits": 0})
    assert (state.price, state.unpriced) == (None, 1)
    state.apply({"e": "line", "line": {**failed("a", ViduPolicyError), "generation_id": "g1", "credits": 0}})
    assert (state.price, state.unpriced) == (None, 0)
    state.apply({"e": "line", "line": {"key": "b", "status": "stored", "credits": 0}})
    assert state.price == 0
    state.apply({"e": "id", "key": "c", "id": "g2", "at": 1.0, "credits": 9})
    state.apply({"e": "line", "line": {**failed("c", ViduPolicyError), "generation_id": "g2", "credits": 0}})
    assert (state.price, reread(state).price, state.credits) == (9, 9, 0)


@each_row(
    ("case", "order", "keys", "is_refused"),
    [
        ("a retry with other rows", Order(0, 1, True, 2, 0, 900.0, "r1"), ["new"], True),
        ("a retry with some of the rows", Order(0, 1, True, 2, 0, 900.0, "r1"), ["good", "new"], False),
        ("a clear with other rows", Order(2, 2, True, 2, 0, 2000.0, "r1"), ["new"], False),
    ],
)
def test_a_retry_whose_rows_are_all_others_pays_for_nothing(case, order, keys, is_refused):
    """Their content changes with each rendering: each retry would order all of them again."""
    state = reread(state_after())
    if is_refused:
        with pytest.raises(ViduConfigError, match="None of the rows"):
            begun(state, order, 3000.0, 60, is_new=False, owner="a", keys=keys)
        assert begun(state, order, 3000.0, 60, is_new=False, owner="a", keys=keys, shares=True)[0]
        state = BatchState()  # what has paid for nothing is ordered
        for event in begun(state, FIRST, 1000.0, 60, is_new=False, owner="a", keys=["bad"])[0]:
            state.apply(event)
        state.apply({"e": "line", "line": failed("bad", ViduPolicyError)})
    assert begun(state, order, 3000.0, 60, is_new=False, owner="a", keys=keys)[0]
    of_others = state_after(owner="b")
    for event in begun(of_others, FIRST, 1000.0, 60, is_new=False, owner="a", keys=["bad"])[0]:
        of_others.apply(event)
    assert begun(of_others, order, 3000.0, 60, is_new=False, owner="a", keys=keys)[0]


@pytest.mark.fault(
    "attacks",
    "a journal with a text of megabytes in place of its rows' names",
    outcome="refused",
    side="worker and pages",
    seen="the journal counts as damaged",
)
@each_row("event", [{"e": "back"}, {"e": "order", "anew": True, "order": {"order": 1}, "since": 1, "deadline": 2}])
def test_a_text_is_no_list_of_rows(event):
    """It is one JSON value, so no limit of these holds, and 16 MB took eight seconds, character by character."""
    began = time.process_time()
    with pytest.raises(TypeError):
        BatchState().apply({**event, "keys": "ab" * 8_000_000})
    assert time.process_time() - began < 1
