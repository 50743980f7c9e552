"""Whether a try is a retry or follows a clear, from Airflow's counters and what the record holds."""

from __future__ import annotations

import dataclasses

import pytest

from airflow_provider_vidu.orders import Order, Record

# Submitted by the first try of a task with two retries, in a run of which nothing was cleared so far.
RECORD = Record(2, "m", 5.0, generation_id="g", request="cat", clears=0, try_number=1)
RETURNED = dataclasses.replace(RECORD, returned=True)


def order(number: int, clears: int | None, try_number: int, retries: int = 2, every: bool = True) -> Order:
    """Return the counters of a try."""
    return Order(number, clears, every, try_number, retries)


@pytest.mark.parametrize(
    ("record", "found", "request_", "is_new"),
    [
        pytest.param(RECORD, order(2, 0, 2), "cat", False, id="retry"),
        pytest.param(RECORD, order(2, 0, 3), "dog", False, id="retry with another request"),
        pytest.param(RECORD, order(2, 0, 2, retries=1), "dog", False, id="retry after retries were lowered"),
        pytest.param(RECORD, order(3, 1, 2), "cat", True, id="clear"),
        pytest.param(RETURNED, order(2, 1, 2, retries=1), "dog", True, id="clear with fewer retries, another request"),
        pytest.param(RETURNED, order(2, 1, 2, retries=1), "cat", True, id="clear with fewer retries, same request"),
        pytest.param(RECORD, order(2, 1, 2), "dog", True, id="cleared while it ran, another request"),
        pytest.param(RECORD, order(2, 1, 2), "cat", False, id="retry while another task was cleared"),
        pytest.param(RECORD, order(2, 1, 2, retries=1), "cat", False, id="the same after retries were lowered"),
        pytest.param(RETURNED, order(2, 1, 2), "cat", False, id="failed after the result, another task was cleared"),
        pytest.param(RETURNED, order(2, 0, 2, retries=1), "dog", False, id="failed after the result, nothing cleared"),
        pytest.param(RECORD, order(2, 0, 2, every=False), "dog", False, id="before 3.2: retry"),
        pytest.param(RECORD, order(2, 1, 2, retries=1, every=False), "cat", True, id="before 3.2: the run had ended"),
        pytest.param(RETURNED, order(2, 0, 2, retries=1, every=False), "cat", True, id="before 3.2: the run went on"),
        pytest.param(RETURNED, order(2, None, 2), "cat", False, id="no counter of clears: retry"),
        pytest.param(dataclasses.replace(RECORD, clears=None), order(2, 4, 2), "dog", False, id="row of 0.1"),
    ],
)
def test_a_retry_is_told_from_a_clear(record, found, request_, is_new):
    """``max_tries`` alone cannot tell them apart; what else is known decides, and a mere retry never pays again."""
    assert record.was_cleared(found, request_) is is_new


def test_records_of_other_versions_are_read():
    """A record without the fields of today, or with those of tomorrow, is understood."""
    old = {"order": 3, "marker": "m", "at": 5.0, "marked": True, "generation_id": "g", "handed_over": False}
    assert Record.from_json({**old, "new": 1}) == Record(3, "m", 5.0, True, "g")
    assert Record.from_json("nonsense") is None
    assert Record.from_json(RETURNED.to_json()) == RETURNED


@pytest.mark.parametrize(
    ("fields", "is_lost"),
    [({"marked": True}, True), ({"looks": {}}, True), ({}, False), ({"marked": True, "generation_id": "g"}, False)],
)
def test_what_can_be_looked_for(fields, is_lost):
    """A create of unknown outcome is lost while it can be found: by its marker or by what it looks like."""
    assert Record(0, "m", 5.0, **fields).is_lost is is_lost
