"""Whether a try is a retry or follows a clear, from Airflow's counters and what the record holds."""

from __future__ import annotations

import dataclasses

import pytest

from airflow_provider_vidu.orders.order import Order, OrderRecord
from tests.rows import each_row

# Submitted by the first try of a task with two retries, in a run of which nothing was cleared so far.
RECORD = OrderRecord(2, "m", 5.0, generation_id="g", request="cat", clears=0, try_number=1)
RETURNED = dataclasses.replace(RECORD, returned=True)
# The same after a clear at the first try: its number is 1 + 2.
SECOND = dataclasses.replace(RECORD, order=3, clears=1, try_number=2)


def order(number: int, clears: int | None, try_number: int, retries: int = 2, every: bool = True) -> Order:
    """Return the counters of a try."""
    return Order(number, clears, every, try_number, retries)


@each_row(
    ("record", "found", "request_"),
    [
        pytest.param(RECORD, order(2, 0, 2), "cat", id="an ordinary retry"),
        pytest.param(RECORD, order(2, 0, 3), "dog", id="the prompt differs with every try"),
        pytest.param(RECORD, order(2, 1, 2), "dog", id="... and a sibling, or another instance, was cleared"),
        pytest.param(RECORD, order(2, 3, 3), "dog", id="... and more than one of them"),
        pytest.param(SECOND, order(3, 2, 3), "dog", id="... and the task itself before that"),
        pytest.param(RECORD, order(2, 1, 2, retries=3), "dog", id="... and retries were raised meanwhile"),
        pytest.param(RECORD, order(2, 0, 2, retries=1), "dog", id="retries were lowered meanwhile"),
        pytest.param(RECORD, order(2, 1, 2, retries=1), "cat", id="... and a sibling was cleared"),
        pytest.param(RECORD, order(2, 1, 2, retries=0), "dog", id="... too far for a clear of this task"),
        pytest.param(RETURNED, order(2, 1, 2), "dog", id="failed after the result, a sibling was cleared"),
        pytest.param(RETURNED, order(2, 0, 2, retries=1), "dog", id="failed after the result, nothing was cleared"),
        pytest.param(RECORD, order(2, 0, 2, every=False), "dog", id="before 3.2: the prompt differs with every try"),
        pytest.param(RECORD, order(2, 0, 2, retries=1, every=False), "dog", id="before 3.2: and fewer retries"),
        pytest.param(RETURNED, order(2, 0, 2, every=False), "dog", id="before 3.2: failed after the result"),
        pytest.param(RETURNED, order(2, None, 2), "cat", id="no counter of clears"),
        pytest.param(RETURNED, Order(2, 1, True, 2, None), "dog", id="retries that are unknown"),
        pytest.param(dataclasses.replace(RECORD, clears=None), order(2, 4, 2), "dog", id="row of 0.1"),
        pytest.param(RECORD, dataclasses.replace(order(2, 0, 2), run_started=4.0), "dog", id="the run began before"),
        pytest.param(
            RECORD, dataclasses.replace(order(2, 0, 2), run_started=6.0), "dog", id="the run was queued again"
        ),
    ],
)
def test_a_retry_pays_nothing(record, found, request_):
    """Every way in which a mere retry may look: none of them is taken for a clear, which would pay twice.

    A retry leaves ``max_tries`` alone. It equals C + R, where the last clear of the task came at its try C (0 without
    one) and R were its ``retries`` then; the order's first try came later than C. A clear at a later try T would have
    left T + R', with the R' of that moment. So while R' = R the two never meet, and no clear of anything else, however
    often ``clear_number`` grows, makes a retry a clear. Only fewer retries leave it open; then a request that stayed
    the same decides for the retry, as does a run of which nothing was cleared.
    """
    assert not record.was_cleared(found, request_)


@each_row(
    ("record", "found", "request_"),
    [
        pytest.param(RECORD, order(3, 1, 2), "cat", id="cleared after its first try"),
        pytest.param(RECORD, order(5, 1, 4), "cat", id="cleared after its last try"),
        pytest.param(RECORD, order(1, 1, 2, retries=0), "cat", id="retries were lowered by two"),
        pytest.param(RETURNED, order(2, 1, 2, retries=1), "dog", id="lowered by one, another prompt"),
        pytest.param(RETURNED, order(2, 1, 2, retries=1), "cat", id="lowered by one, the same prompt"),
        pytest.param(RECORD, order(2, 1, 2, retries=1), "dog", id="lowered by one, before there was a result"),
        pytest.param(RECORD, order(2, 1, 3, retries=0), "dog", id="lowered by two, after the second try"),
        pytest.param(RECORD, order(2, 1, 2, retries=1, every=False), "cat", id="before 3.2: the run had ended"),
        pytest.param(RETURNED, order(2, 0, 2, retries=1, every=False), "cat", id="before 3.2: the run went on"),
        pytest.param(RECORD, dataclasses.replace(order(2, 0, 1), run_started=6.0), "cat", id="the run was made again"),
    ],
)
def test_a_clear_is_a_new_order(record, found, request_):
    """Every way in which a clear may look: another ``max_tries``, or the same one that fewer retries explain."""
    assert record.was_cleared(found, request_)


def test_records_of_other_versions_are_read():
    """A record without the fields of today, or with those of tomorrow, is understood."""
    old = {"order": 3, "marker": "m", "at": 5.0, "marked": True, "generation_id": "g", "handed_over": False}
    assert OrderRecord.from_json({**old, "new": 1}) == OrderRecord(3, "m", 5.0, True, "g")
    assert OrderRecord.from_json("nonsense") is None
    assert OrderRecord.from_json(RETURNED.to_json()) == RETURNED


@pytest.mark.parametrize(
    ("fields", "is_lost"),
    [({"marked": True}, True), ({"looks": {}}, True), ({}, False), ({"marked": True, "generation_id": "g"}, False)],
)
def test_what_can_be_looked_for(fields, is_lost):
    """A create of unknown outcome is lost while it can be found: by its marker or by what it looks like."""
    assert OrderRecord(0, "m", 5.0, **fields).is_lost is is_lost
