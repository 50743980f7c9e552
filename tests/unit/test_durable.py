"""Which order a try belongs to, and where its record lives."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu import durable
from airflow_provider_vidu.durable import ClearedStateStore, StateStore, VariableStore, order_of, store_for
from airflow_provider_vidu.submission import Record

INTENT = Record(2, "airflow:m", 5.0, marked=True)
KNOWN = Record(2, "airflow:m", 5.0, marked=True, generation_id="g")


def ti(**fields: Any) -> SimpleNamespace:
    """Make as much of a task instance as an order needs."""
    base = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, "max_tries": 2}
    return SimpleNamespace(**{**base, "task": SimpleNamespace(retries=2), **fields})


class Accessor(dict[str, Any]):
    """Airflow's task state: JSON in, JSON out."""

    def set(self, key: str, value: Any) -> None:
        """Store a value as JSON."""
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        """Remove a key."""
        self.pop(key, None)


@pytest.mark.parametrize(("try_number", "max_tries"), [(1, 2), (2, 2), (3, 2), (2, 3)])
def test_a_clear_makes_another_order(try_number, max_tries):
    """Retries belong to one order; a clear, which raises what may be tried, starts a new one."""
    assert order_of({"ti": ti(try_number=try_number, max_tries=max_tries)}) == max_tries


@pytest.mark.parametrize(("has_state", "is_34", "kind"), [
    (False, False, VariableStore),
    (True, False, StateStore),
    (True, True, ClearedStateStore),
])  # fmt: skip
def test_the_best_store_is_chosen(monkeypatch, has_state, is_34, kind):
    """The task's state where there is one, beside a Variable where a clear discards it; else the Variable alone."""
    monkeypatch.setattr("airflow.providers.common.compat.version_compat.AIRFLOW_V_3_4_PLUS", is_34)
    context = {"ti": ti(), **({"task_state_store": Accessor()} if has_state else {})}
    assert type(store_for(context)) is kind


@pytest.mark.parametrize("same", [{}, {"try_number": 3}, {"max_tries": 9}])
def test_a_variable_belongs_to_a_task_instance(variables, same):
    """Every try finds the Variable again; another task, run or map index has one of its own, and no name is told."""
    VariableStore(ti()).save(INTENT)
    assert VariableStore(ti(**same)).load() == INTENT
    for other in ({"map_index": 0}, {"task_id": "u"}, {"run_id": "s"}, {"dag_id": "e"}):
        assert VariableStore(ti(**other)).load() is None
    assert [len(key) for key in variables.kept] == [len(durable.VARIABLE_PREFIX) + 32]


def cleared_store(accessor: Accessor, try_number: int = 1) -> ClearedStateStore:
    """Return the store of a try, as Airflow 3.4 has it."""
    return ClearedStateStore(accessor, VariableStore(ti()), may_be_cleared=try_number > 1)


def test_a_first_try_asks_for_no_variable(variables):
    """Where nothing can have been cleared, nothing is asked that a secrets backend might charge for."""
    assert cleared_store(Accessor()).load() is None
    assert variables.asked == 0


def test_a_clear_that_discards_the_state_leaves_the_intent(variables):
    """Until the outcome of a create is known, the order after a clear must be able to look for it."""
    accessor = Accessor()
    cleared_store(accessor).save(INTENT)
    accessor.clear()
    after = cleared_store(accessor, 2)
    assert after.load() == INTENT
    after.save(KNOWN)
    assert after.load() == KNOWN
    assert variables.kept == {}


@pytest.mark.parametrize("end", ["id", "refused", "told"])
def test_a_known_outcome_leaves_no_variable(variables, end):
    """With the id, after a refusal and after the user was told, the Variable is gone, also in a later try."""
    accessor = Accessor()
    cleared_store(accessor).save(INTENT)
    assert variables.kept
    later = cleared_store(accessor, 2)
    assert later.load() == INTENT
    if end == "refused":
        later.clear()
        assert later.load() is None
    else:
        last = KNOWN if end == "id" else Record(3, "airflow:m", 5.0, marked=False)
        later.save(last)
        assert later.load() == last
    assert variables.kept == {}


def test_what_cannot_be_searched_for_is_not_doubled(variables):
    """A create without a marker could not be found after a clear either."""
    cleared_store(Accessor()).save(Record(2, "airflow:m", 5.0, marked=False))
    assert variables.kept == {}
