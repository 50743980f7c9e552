"""The state of a batch, by events that another writer of the destination may have made."""

from __future__ import annotations

import time

import pytest

from airflow_provider_vidu.batches import state as state_module
from airflow_provider_vidu.batches.jobs import Open
from airflow_provider_vidu.batches.leg.beginning import begun
from airflow_provider_vidu.batches.manifest import MOST_ERRORS, summary
from airflow_provider_vidu.batches.plan import check_credits
from airflow_provider_vidu.batches.snapshot import packed, unpacked
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.order import Order
from tests.rows import each_row

ORDER = {"e": "order", "since": 1, "deadline": 2}


def after(*events: dict) -> BatchState:
    """Return the state after these events."""
    state = BatchState()
    for event in events:
        state.apply(event)
    return state


@pytest.mark.parametrize("kind", [str, int, lambda number: [number]])
def test_dags_are_added_in_proportion(kind):
    """To look up each of 40,000 among the others took half a minute, in which the API server hardly ran."""
    state, began = BatchState(), time.thread_time()
    for number in range(40_000):
        state.apply({**ORDER, "dag": kind(number)})
    assert time.thread_time() - began < 2
    assert len(state.dags) == (40_000 if kind is str else 0)
    assert BatchState.from_json(state.to_json()).dags == state.dags


def test_rows_that_were_ordered_earlier_are_kept_in_proportion():
    """An order of no rows copied what all rows had cost: a journal of 290 kB took the API server 24 seconds."""
    earlier = [{"key": str(number)} for number in range(20_000)]
    state = BatchState.from_json({**BatchState().to_json(), "earlier": earlier})
    began = time.thread_time()
    for _ in range(10_000):
        state.apply({**ORDER, "anew": True, "keys": []})
    assert time.thread_time() - began < 2
    assert len(state.earlier) == 20_000
    state.apply({**ORDER, "anew": True, "keys": ["7", "x", "7"]})
    assert (len(state.earlier), "7" in state.earlier) == (19_999, False)


def test_the_price_of_another_order_is_none_of_the_batch():
    """Neither that of a shared generation, which is 0 here, nor that of a reused file, which others may forge."""
    shared = {"e": "id", "key": "a", "id": "g1", "at": 1.0, "credits": 0, "is_shared": True}
    reused = {"e": "line", "line": {"key": "b", "status": "stored", "credits": 1e18, "reused_from": "g2"}}
    paid = {"e": "id", "key": "c", "id": "g3", "at": 1.0}
    state = after(shared, reused, paid)
    assert (state.price, state.credits, state.unpriced) == (None, 0, 1)
    assert not check_credits(10, state.credits, state.price, state.unpriced, ended=1)  # the first price is awaited
    state.apply({**paid, "credits": 4})
    assert state.price == 4


def test_a_state_of_more_rows_than_any_batch_has_is_refused(monkeypatch):
    """A whole state is one file, and is refused as its events are."""
    state = after(*({"e": "line", "line": {"key": str(number), "status": "stored"}} for number in range(11)))
    monkeypatch.setattr(state_module, "MOST_KEPT", 10)
    with pytest.raises(ValueError, match="more than 10 rows"):
        unpacked(packed(1, state))


def test_a_create_is_not_slower_the_more_rows_have_ended():
    """Each create of a batch with a limit added all of them up five times: half a second with two million."""
    line = {"status": "stored", "generation_id": "g", "credits": 4}
    state = after(*({"e": "line", "line": {"key": str(number), **line}} for number in range(50_000)))
    began = time.thread_time()
    for number in range(500):
        state.apply({"e": "id", "key": f"new{number % 5}", "id": "g", "at": 1.0, "credits": 5})
        known = (state.price, state.credits, state.stored, state.uncertain, state.ordered)
    assert time.thread_time() - began < 2
    assert known == (5, 50_000 * 4 + 25, 50_000, 0, (50_005, 50_005))
    state.apply({"e": "back", "keys": ["7"]})
    assert (state.stored, state.credits, state.ordered) == (49_999, 50_000 * 4 + 25, (50_005, 50_005))


def test_a_create_is_not_slower_the_more_rows_have_ended_or_were_ordered_before():
    """Between two creates a row ends, and each create added all up again: an hour for a batch of 100,000 rows."""
    line = {"key": "0", "status": "stored", "generation_id": "g", "credits": 4}
    earlier = [{"key": str(number), "generations": 1, "priced": 1, "credits": 4} for number in range(50_000)]
    state = BatchState.from_json({**BatchState().to_json(), "earlier": earlier})
    for number in range(50_000):
        state.apply({"e": "line", "line": {**line, "key": str(number)}})
    began = time.thread_time()
    for number in range(500):
        state.apply({"e": "line", "line": {**line, "key": f"new{number}", "credits": 5 + (number == 7)}})
        known = (state.price, state.credits, state.stored, state.uncertain, state.ordered)
    assert time.thread_time() - began < 2
    assert known == (6, 100_000 * 4 + 2501, 50_500, 0, (100_500, 100_500))
    state.apply({"e": "line", "line": {**line, "key": "new7"}})
    assert (state.price, state.credits, state.stored) == (5, 100_000 * 4 + 2499, 50_500)
    state.apply({"e": "back", "keys": ["1"]})
    assert (state.stored, state.credits, state.ordered) == (50_499, 100_000 * 4 + 2499, (100_500, 100_500))


def test_an_open_generation_is_the_dearest_in_a_state_that_does_not_say_so():
    """Earlier versions have noted no price of open generations: a limit would allow one row more."""
    jobs = [{"key": "a", "id": "g1", "at": 1.0, "credits": 7}, {"key": "b", "id": "g2", "at": 1.0, "is_shared": True}]
    state = BatchState.from_json({**BatchState().to_json(), "open": jobs})
    assert (state.price, state.unpriced) == (7, 0)


@pytest.mark.parametrize("price", [2**64, 1e13, -1e13, "1e300", float("nan")])
def test_a_price_beyond_all_prices_is_none(price):
    """Airflow refuses the XCom with the sum of two."""
    state = after({"e": "id", "key": "a", "id": "g1", "at": 1, "credits": price})
    state.apply({"e": "line", "line": {"key": "b", "status": "stored", "credits": price, "generation_id": "g"}})
    assert (state.credits, state.ordered) == (0, (2, 0))


@each_row(
    "event",
    [
        {"e": "id", "key": 1, "id": "g"},
        {"e": "id", "key": "a", "id": "g\u202e"},
        {"e": "id", "key": "a", "id": "g\u2028"},
        {"e": "intent", "key": "a", "record": {"order": 0, "marker": "m", "request": ["x"]}},
        {"e": "intent", "key": "a", "record": {"order": 0, "marker": 1}},
        {"e": "intent", "key": None, "record": {"order": 0, "marker": "m"}},
        {**ORDER, "deadline": float("nan")},
        {**ORDER, "since": 1e308},
        {"e": "line", "line": {"key": "a", "status": "failed", "error": {"message": "m"}}},
        {"e": "line", "line": {"key": "a", "status": "failed", "error": {"type": ["x"], "message": "m"}}},
        {"e": "line", "line": {"key": "a", "status": "failed", "error": {"type": "x" * 101, "message": "m"}}},
        {"e": "line", "line": {"key": "a", "status": "stored", "size": "1"}},
        {"e": "line", "line": {"key": "a", "status": "stored", "size": 2**64 - 1}},
        {"e": "line", "line": {"key": "a", "status": "stored", "request": ["x"]}},
        {"e": "line", "line": {"key": "a", "status": ["stored"]}},
        {"e": "line", "line": {"key": "a", "status": "stored", "generation_id": 1.5}},
        {"e": "line", "line": {"key": "a", "status": "stored", "generation_id": "g\x1b[2J"}},
    ],
)
def test_an_event_that_no_batch_writes(event):
    """It is refused where it is read, so that the error names the object, and not when the batch ends."""
    with pytest.raises((ValueError, TypeError, ViduConfigError)):
        after(event)


def test_an_open_generation_of_wrong_types():
    """Times and numbers that no clock and no service names count as unknown; the id is kept."""
    odd = {"id": "g", "at": 1e300, "seed": "x", "endpoint": ["x"], "index": "1", "request": {}, "prompt": 1.5}
    assert Open.from_json({**odd, "credits": [1], "is_shared": "no", "more": 1}) == Open("g", 0.0)


def test_an_endpoint_that_no_service_has():
    """Those of a thousand open generations are arguments of the trigger: megabytes of Airflow's database each."""
    assert Open.from_json({"id": "g", "at": 1, "endpoint": "/" + "x" * 999}).endpoint is not None
    assert Open.from_json({"id": "g", "at": 1, "endpoint": "/" + "x" * 1000}).endpoint is None
    record = {"order": 0, "marker": "m"}
    state = after({"e": "intent", "key": "a", "record": record, "endpoint": "/" + "x" * 1000})
    assert state.intents["a"].endpoint is None


@pytest.mark.parametrize("orders", ["9" * 4300, "1", -1, 2**31, 1e300, 1.5, True, None])
def test_a_number_of_orders_that_is_none(orders):
    """It is a part of an XCom's value: one digit more, and Python refuses to write it."""
    stored = {**BatchState().to_json(), "orders": orders}
    with pytest.raises(ValueError, match="number of orders"):
        BatchState.from_json(stored)


@pytest.mark.parametrize("submitted", [None, 1, "yesterday", ["x"], "0001-01-01T00:00:00+00:00"])
def test_a_paid_row_without_a_time_is_continued(submitted):
    """No KeyError of a journal that others may write."""
    error = {"type": "ViduTimeoutError", "message": "m", "retryable": True}
    line = {"key": "a", "status": "failed", "error": error, "paid": True, "generation_id": "g"}
    state = after({**ORDER, "order": {"order": 0}}, {"e": "line", "line": {**line, "submitted_at": submitted}})
    events, _ = begun(state, Order(0, try_number=2), 5.0, 60.0, is_new=False)
    assert after(*events).open["a"].id == "g"


def test_the_summary_of_a_line_without_a_size():
    """It is read: the batch may be of another version."""
    state = after({"e": "line", "line": {"key": "a", "status": "stored"}})
    from airflow_provider_vidu.batches.rows import Row

    assert summary(state, [Row("a", 0)], "b", "u", "d")["bytes"] == 0


def test_the_summary_names_few_kinds_of_errors():
    """It is an XCom, and another writer of the journal decides what the errors of its rows are called."""
    from airflow_provider_vidu.batches.rows import Row

    errors = [{"type": f"kind {number}", "message": "m"} for number in range(200)]
    lines = [{"key": str(n), "status": "failed", "error": error} for n, error in enumerate(errors)]
    state = after(*({"e": "line", "line": line} for line in lines))
    assert len(summary(state, [Row(str(n), n) for n in range(200)], "b", "u", "d")["errors"]) == MOST_ERRORS
