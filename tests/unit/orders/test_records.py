"""Which order a try belongs to, and where its record lives."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from uuid import UUID

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.orders import records
from airflow_provider_vidu.orders.order import OrderRecord
from airflow_provider_vidu.orders.records import (
    ClearedStateStore,
    StateStore,
    VariableStore,
    order_of,
    store_for,
    submitted_id,
)
from airflow_provider_vidu.orders.tries import resumes_order

INTENT = OrderRecord(2, "airflow:m", 5.0, marked=True)
KNOWN = OrderRecord(2, "airflow:m", 5.0, marked=True, generation_id="g")


def ti(**fields: Any) -> SimpleNamespace:
    """Make as much of a task instance as an order needs."""
    base = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, "max_tries": 2}
    return SimpleNamespace(**{**base, "task": SimpleNamespace(retries=2), **fields})


class Accessor(dict[str, Any]):
    """Airflow's task state: JSON in, JSON out."""

    retention: Any = None
    """Of the last value."""

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Store a value as JSON."""
        self[key], self.retention = json.loads(json.dumps(value)), retention

    def delete(self, key: str) -> None:
        """Remove a key."""
        self.pop(key, None)


def test_the_counters_of_a_try():
    """The order of a try is read from the task instance, the run and the task; a stand-in counts nothing."""
    run = SimpleNamespace(clear_number=1, start_date=datetime.fromtimestamp(7, UTC))
    found = order_of({"ti": ti(try_number=2, max_tries=3), "dag_run": run})
    assert (found.number, found.clears, found.try_number, found.retries, found.run_started) == (3, 1, 2, 2, 7.0)
    bare = order_of({"ti": MagicMock(), "dag_run": MagicMock()})
    assert (bare.number, bare.clears, bare.try_number, bare.retries, bare.run_started) == (0, None, 1, None, None)
    assert order_of({"ti": SimpleNamespace()}).clears is None


@pytest.mark.parametrize(("version", "counts"), [((3, 1, 8), False), ((3, 2, 0), True), ((3, 4, 0), True)])
def test_which_airflow_counts_every_clear(monkeypatch, version, counts):
    """Since 3.2 every clear of a task counts; before, only those of a run that had ended."""
    name = "airflow.providers.common.compat.version_compat.get_base_airflow_version_tuple"
    monkeypatch.setattr(name, lambda: version)
    assert order_of({"ti": ti()}).counts_every_clear is counts


@pytest.mark.parametrize(("has_state", "is_34", "keeps", "kind"), [
    (False, False, False, VariableStore),
    (True, False, False, StateStore),
    (True, False, True, ClearedStateStore),
    (True, True, False, ClearedStateStore),
])  # fmt: skip
def test_the_best_store_is_chosen(monkeypatch, has_state, is_34, keeps, kind):
    """The task's state where there is one, beside a Variable where it may be discarded; else the Variable alone."""
    monkeypatch.setattr("airflow.providers.common.compat.version_compat.AIRFLOW_V_3_4_PLUS", is_34)
    context = {"ti": ti(), **({"task_state_store": Accessor()} if has_state else {})}
    assert type(store_for(context, keeps=keeps)) is kind


@pytest.mark.fault(
    "orders", "[state_store] default_retention_days shorter than a wait", outcome="survived", seen="the record is kept"
)
@pytest.mark.parametrize("kind", ["state", "cleared"])
def test_the_record_of_an_open_order_does_not_expire(variables, kind):
    """A retry after days must find it; once the result is returned, the deployment's retention applies."""
    accessor = Accessor()
    store = StateStore(accessor) if kind == "state" else cleared_store(accessor)
    for record in (INTENT, KNOWN):
        store.save(record)
        assert accessor.retention == timedelta.max
    store.returned()
    assert accessor.retention is None
    assert store.load() == dataclasses.replace(KNOWN, returned=True)


class MovedAccessor(Accessor):
    """A state whose back end no longer reads what it has written."""

    def get(self, key: str, default: Any = None) -> Any:
        """Read a reference that is of another place as JSON, as Airflow's back end does."""
        return json.loads("s3://elsewhere/vidu_generation")


@pytest.mark.fault(
    "orders", "[workers] state_store_backend: the object of a record is missing, or on another worker's disk",
    outcome="refused", says="cannot be read",
)  # fmt: skip
@pytest.mark.parametrize(
    ("accessor", "why"),
    [
        (Accessor({records.STATE_KEY: None}), "its content is missing"),
        (Accessor({records.STATE_KEY: {"__ref__": "s3://state/vidu_generation"}}), "not the record of an order"),
        (MovedAccessor(), "JSONDecodeError"),
    ],
    ids=["missing", "no-backend", "moved"],
)
@pytest.mark.parametrize("kind", ["state", "cleared"])
def test_a_record_that_a_backend_has_lost(variables, kind, accessor, why):
    """It is there, so something may be paid for: the try fails, and the next one may read it."""
    store = StateStore(accessor) if kind == "state" else cleared_store(accessor, try_number=2)
    with pytest.raises(ViduError, match=why) as caught:
        store.load()
    assert caught.value.retryable
    assert "Nothing was submitted" in caught.value.reason


@pytest.mark.parametrize("same", [{}, {"try_number": 3}, {"max_tries": 9}])
def test_a_variable_belongs_to_a_task_instance(variables, same):
    """Every try finds the Variable again; another task, run or map index has one of its own, and no name is shown."""
    VariableStore(ti()).save(INTENT)
    assert VariableStore(ti(**same)).load() == INTENT
    for other in ({"map_index": 0}, {"task_id": "u"}, {"run_id": "s"}, {"dag_id": "e"}):
        assert VariableStore(ti(**other)).load() is None
    assert [len(key) for key in variables.kept] == [len(records.VARIABLE_PREFIX) + 32]


REGIONS = tuple(UUID(int=number) for number in (1, 2))


def in_loop(index: int, region: UUID = REGIONS[0], **fields: Any) -> dict[str, Any]:
    """Return the context of a try in a loop (Airflow 3.4)."""
    own = ti(region_id=region, region_index=index, **fields)
    return {"ti": own, "task_state_store": Accessor(), "loop": SimpleNamespace(index=index)}


def test_a_variable_belongs_to_an_iteration(variables, monkeypatch):
    """Iterations share all names, so each has a Variable of its own; outside loops, the name is the earlier one."""
    monkeypatch.setattr("airflow.providers.common.compat.version_compat.AIRFLOW_V_3_4_PLUS", True)
    store_for(in_loop(1)).save(INTENT)
    assert store_for(in_loop(1, try_number=2)).load() == INTENT
    assert store_for(in_loop(2)).load() is None
    assert store_for({"ti": ti(try_number=2), "task_state_store": Accessor()}).load() is None
    store_for({"ti": ti()}).save(INTENT)
    earlier = hashlib.sha256(b"d\nr\nt\n-1").hexdigest()[:32]
    assert records.VARIABLE_PREFIX + earlier in variables.kept


def test_an_iteration_that_a_clear_begins_again_finds_what_was_lost(variables, monkeypatch):
    """A clear of an earlier iteration archives the later ones: their first try in a new region follows a clear."""
    monkeypatch.setattr("airflow.providers.common.compat.version_compat.AIRFLOW_V_3_4_PLUS", True)
    first, again = in_loop(2), in_loop(2, REGIONS[1])
    lost = dataclasses.replace(INTENT, region=order_of(first).region)
    store_for(first).save(lost)
    assert store_for(again).load() == lost
    assert lost.was_cleared(order_of(again), "")
    assert not lost.was_cleared(order_of(in_loop(2, try_number=2)), "")
    store_for(first).save(dataclasses.replace(lost, generation_id="g"))
    assert submitted_id(again, MagicMock(), is_durable=True) is None


@pytest.mark.parametrize("region", [None, "", MagicMock()])
def test_outside_loops_there_is_no_region(region):
    """A mapped task has a region on 3.4, too; its orders are those of earlier versions."""
    assert order_of({"ti": ti(region_id=region)}).region == ""
    assert order_of({"ti": ti(region_id=REGIONS[0], map_index=3)}).region == ""


def cleared_store(accessor: Accessor, try_number: int = 1) -> ClearedStateStore:
    """Return the store of a try, as Airflow 3.4 has it."""
    return ClearedStateStore(accessor, VariableStore(ti()), may_be_cleared=try_number > 1)


def test_a_first_try_asks_for_no_variable(variables):
    """Where nothing can have been cleared, nothing is asked that a secrets backend might charge for."""
    assert cleared_store(Accessor()).load() is None
    assert variables.asked == 0


@pytest.mark.parametrize("record", [INTENT, KNOWN], ids=["intent", "paid"])
def test_a_clear_that_discards_the_state_leaves_the_record(variables, record):
    """The order after a clear must be able to look for a lost create, and to name what was paid for."""
    accessor = Accessor()
    cleared_store(accessor).save(record)
    accessor.clear()
    assert cleared_store(accessor, 2).load() == record


@pytest.mark.parametrize("end", ["returned", "refused", "told"])
def test_a_known_outcome_leaves_no_variable(variables, end):
    """With the result returned, after a refusal and after the user was warned, the Variable is gone."""
    accessor = Accessor()
    cleared_store(accessor).save(INTENT)
    assert variables.kept
    later = cleared_store(accessor, 2)
    assert later.load() == INTENT
    if end == "refused":
        later.clear()
        assert later.load() is None
    elif end == "told":
        last = OrderRecord(3, "airflow:m", 5.0, marked=False)
        later.save(last)
        assert later.load() == last
    else:
        later.save(KNOWN)
        later.returned()
        assert later.load() == dataclasses.replace(KNOWN, returned=True)
    assert variables.kept == {}


@pytest.mark.parametrize("is_34", [False, True])
def test_a_record_that_is_to_be_kept_outlives_the_success(variables, is_34):
    """With ``on_clear="resume"`` the Variable stays, and tells that the result was returned."""
    variable = VariableStore(ti(), keeps=True)
    store = ClearedStateStore(Accessor(), variable, may_be_cleared=False) if is_34 else variable
    store.save(KNOWN)
    store.returned()
    store.finished()
    assert VariableStore(ti()).load() == dataclasses.replace(KNOWN, returned=True)


def test_a_variable_goes_with_the_success(variables):
    """Before 3.3 the result alone removes nothing: what fails after it leads to a retry."""
    store = VariableStore(ti())
    store.save(KNOWN)
    store.returned()
    assert store.load() == KNOWN
    store.finished()
    assert variables.kept == {}


def test_what_cannot_be_searched_for_is_not_doubled(variables):
    """A create that can neither be marked nor listed could not be found after a clear either."""
    cleared_store(Accessor()).save(OrderRecord(2, "airflow:m", 5.0, marked=False))
    assert variables.kept == {}


def test_an_order_that_cannot_be_looked_up_does_not_end_for_good(monkeypatch):
    """A mistake in the settings ends a task without a retry, unless it has paid: which only the record shows."""
    store = MagicMock()
    store.load.side_effect = ConnectionError("the API server does not answer")
    monkeypatch.setattr(records, "store_for", lambda context: store)
    for is_durable, kind in ((True, ViduError), (False, ViduConfigError)):
        with pytest.raises(ViduError) as caught, resumes_order(in_loop(0), MagicMock(), is_durable=is_durable):
            raise ViduConfigError("The key is missing")
        assert type(caught.value) is kind
        assert "The key is missing" in caught.value.reason
    store.load.side_effect = ViduConfigError("the order's record names no generation")
    with (
        pytest.raises(ViduConfigError, match="The key is missing"),
        resumes_order(in_loop(0), MagicMock(), is_durable=True),
    ):
        raise ViduConfigError("The key is missing")
