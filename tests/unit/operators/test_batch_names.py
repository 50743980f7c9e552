"""Whether the instances of a mapped batch are told apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.operators import ViduBatchOperator
from airflow_provider_vidu.operators.batch_names import batch_name, may_share_files
from tests.rows import each_row

XCOM = object()


def in_instance(mapped: Any, partial: dict[str, Any] | None = None, **arguments: Any) -> tuple[ViduBatchOperator, Any]:
    """Return an instance of a mapped batch, and its context.

    :param mapped: what the task is mapped over.
    :param partial: its other arguments.
    """
    operator = ViduBatchOperator(**{"task_id": "b", "rows": [], "destination": "/clips/", **arguments})
    task = SimpleNamespace(expand_input=SimpleNamespace(value=mapped), partial_kwargs=partial or arguments)
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="b", map_index=1)
    return operator, {"ti": ti, "dag": SimpleNamespace(task_dict={"b": task})}


TWO = {"rows": [["x"], ["y"]]}


@each_row(
    ("mapped", "arguments", "is_refused"),
    [
        (TWO, {"batch": "spring"}, True),
        (TWO, {"batch": "{{ ds }}"}, True),
        (TWO, {"batch": "spring", "destination": "/clips/{{ ti.map_index }}/"}, False),
        (TWO, {"batch": "spring-{{ ti.map_index }}"}, False),
        (TWO, {}, False),
        ({**TWO, "batch": ["a", "b"]}, {"batch": "a"}, False),
        ({**TWO, "destination": ["/a/", "/b/"]}, {"batch": "a", "destination": "/a/"}, False),
        ([{"rows": ["x"], "batch": "a"}, {"rows": ["y"], "batch": "b"}], {"batch": "a"}, False),
        ([{"rows": ["x"]}, {"rows": ["y"]}], {"batch": "a"}, True),
        ({"rows": [["x"]]}, {"batch": "a"}, False),
        (XCOM, {"batch": "a", "destination": "/clips/"}, True),
    ],
)
def test_instances_with_one_name_are_refused(mapped, arguments, is_refused):
    """Each would take the batch over from the others, with other rows, before anything is ordered."""
    operator, context = in_instance(mapped, **arguments)
    if is_refused:
        with pytest.raises(ViduConfigError, match="All instances of this mapped task"):
            batch_name(operator, context)
    else:
        assert batch_name(operator, context)


def test_a_name_from_an_xcom_may_differ():
    """The DAG does not show it."""
    operator, context = in_instance(XCOM, {"rows": XCOM}, batch="a")
    assert batch_name(operator, context) == "a"


@each_row(
    ("arguments", "may_share"),
    [({}, True), ({"naming": "{generation_id}"}, False), ({"destination": "/clips/{{ ti.map_index }}/"}, False)],
)
def test_instances_with_one_destination_are_told(arguments, may_share):
    """Rows with equal keys replace each other's files."""
    assert may_share_files(*in_instance(TWO, **arguments)) is may_share
    operator, context = in_instance(TWO, **arguments)
    context["ti"].map_index = -1
    assert not may_share_files(operator, context)
