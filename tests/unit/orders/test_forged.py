"""Records and return values that others have edited: a clear error, and none of Python's own."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.dry_run import skip_after_dry_run
from airflow_provider_vidu.orders.order import Order, OrderRecord
from airflow_provider_vidu.orders.records import VariableStore
from airflow_provider_vidu.orders.upstream import handed_over, id_of
from fault_table import REFUSED, SURVIVED

RECORD = {"order": 0, "marker": "m", "generation_id": "g7", "at": 5.0, "began": 4.0}


@pytest.mark.fault("attacks", "the Variable of an order is edited: times that are no numbers", outcome=SURVIVED,
                   seen="the id is kept, the times count as unknown")  # fmt: skip
@pytest.mark.parametrize("value", ["x", None, [1], {}, float("nan"), float("inf"), 1e308, -1, True])
def test_times_of_a_record(value):
    """What is added to a clock is a number."""
    record = OrderRecord.from_json({**RECORD, "at": value, "began": value})
    assert (record.generation_id, record.at, record.began) == ("g7", 0.0, 0.0)
    assert (OrderRecord.from_json(RECORD).at, OrderRecord.from_json(RECORD).began) == (5.0, 4.0)


@pytest.mark.parametrize("fields", [
    {"try_number": "x", "clears": "a", "order": 0}, {"order": 10**30, "try_number": None}, {"region": 7},
    {"looks": [1], "callback": {}, "order": "0"},
])  # fmt: skip
def test_types_of_a_record(fields):
    """What an edited record compares and logs has its type."""
    record = OrderRecord.from_json({**RECORD, **fields})
    record.was_cleared(Order(0, 2, True, 3, 1, 9.0, "r"), "digest")
    assert isinstance(record.region + record.callback, str)
    assert (record.looks, record.generation_id) == (None, "g7")


@pytest.mark.fault("attacks", "the Variable of an order is edited: no JSON, or an id that forges a log line",
                   outcome=REFUSED, says="cannot be read")  # fmt: skip
@pytest.mark.parametrize("stored", [
    "{", "nan", "[" * 100_000, "5", "{}", "null", f'{{"order": 1, "looks": [{"[]," * 2_000_000}[]]}}',
    *(json.dumps({**RECORD, "generation_id": wrong}) for wrong in ("g7\nINFO paid", "", [], "\u202e", 1.5)),
    *(json.dumps({**RECORD, name: wrong}) for name in ("marker", "request") for wrong in (5, ["x"])),
], ids=str.__len__)  # fmt: skip
def test_a_variable_that_is_no_record(variables, stored):
    """A clear error that names it, without its content, and no second order; once the task succeeded, it goes."""
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)
    store = VariableStore(ti)
    store.save(OrderRecord.from_json(RECORD))
    assert store.load().generation_id == "g7"
    (name,) = variables.kept
    variables.kept[name] = stored
    with pytest.raises(ViduConfigError, match=f"{name}.*cannot be read") as caught:
        store.load()
    assert caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    store.finished()
    assert not variables.kept


DEEP = {"objects": '{"a":' * 100_000 + "1", "lists": '{"id":"g7","raw":' + "[" * 90_000 + "]" * 90_000 + "}"}


@pytest.mark.fault("attacks", "generation is rendered from dag_run.conf: JSON of 100,000 levels", outcome=REFUSED,
                   says="not JSON")  # fmt: skip
@pytest.mark.parametrize("text", DEEP.values(), ids=list(DEEP))
def test_deep_json_of_an_upstream_task(text):
    """No RecursionError."""
    with pytest.raises(ViduConfigError, match="not JSON"):
        id_of(text)
    assert handed_over(text) is None


@pytest.mark.parametrize("reference", ["http://[", "//[", "https://[::1/v", "http://" + "\u0316\u0300" * 50_000])
def test_a_reference_that_is_no_address(reference):
    """Whether it is of a dry run is asked before it is checked: no bare ValueError, and no normal form of a host."""
    began = time.thread_time()
    skip_after_dry_run(reference)
    assert time.thread_time() - began < 1
