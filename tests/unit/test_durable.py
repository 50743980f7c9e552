"""Which order a try belongs to, and where its record lives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu.durable import StateStore, VariableStore, order_of, store_for


def ti(**fields: Any) -> SimpleNamespace:
    """Make as much of a task instance as an order needs."""
    base = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, "max_tries": 2}
    return SimpleNamespace(**{**base, "task": SimpleNamespace(retries=2), **fields})


@pytest.mark.parametrize(
    ("try_number", "max_tries", "is_retry"),
    [(1, 2, False), (2, 2, True), (3, 2, True), (2, 3, False), (3, 3, True), (4, 5, False), (1, 0, False)],
)
def test_retry_or_first_try(try_number, max_tries, is_retry):
    """A try is a retry when an earlier one belongs to the same order; a clear starts a new one."""
    order = order_of({"ti": ti(try_number=try_number, max_tries=max_tries)})
    assert order.is_retry is is_retry


def test_the_marker_names_the_order_and_nothing_else():
    """Retries share the marker; a clear, another map index or another task has its own; no name is in it."""
    marker = order_of({"ti": ti()}).marker
    assert order_of({"ti": ti(try_number=3)}).marker == marker
    others = [ti(max_tries=3), ti(map_index=0), ti(task_id="u"), ti(run_id="s"), ti(dag_id="e")]
    assert len({marker, *(order_of({"ti": other}).marker for other in others)}) == 6
    assert marker.startswith("airflow:")
    assert len(marker) == 40


def test_the_best_store_is_chosen():
    """The task state store where there is one, a Variable otherwise."""
    assert isinstance(store_for({"ti": ti(), "task_state_store": object()}), StateStore)
    assert isinstance(store_for({"ti": ti()}), VariableStore)
