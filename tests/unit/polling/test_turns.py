"""The order of a queue."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.polling.turns import HEAD_START_SECONDS, Waiter

PRIORITIES = st.integers(-(10**9), 10**9)


@given(PRIORITIES, PRIORITIES, st.floats(0, 1e9), st.floats(0, 1e6))
def test_a_priority_counts_but_nobody_starves(mine, other, since, later):
    """Of two that came together the higher goes first; one that came two hours later passes none, at any priority."""
    first, second = (Waiter("a", mine, since, ready_at=0.0), Waiter("b", other, since + later, ready_at=0.0))
    if later == 0 and mine != other:
        assert (first.turn < second.turn) == (mine > other)
    if later >= (2 if min(mine, other) < 0 else 1) * HEAD_START_SECONDS:
        assert first.turn < second.turn
    if mine >= other:
        assert first.turn < second.turn
