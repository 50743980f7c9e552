"""Which periods a task writes its entries for: those of every budget in its DAG, however it is given."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskGroup

from airflow_provider_vidu.operators import ViduBudget, ViduGenerateOperator
from airflow_provider_vidu.orders.money.spending import Spending

BUDGET = ViduBudget(credits=9, per="day")


def of_task(**arguments: Any) -> Any:
    """Return the task that has the budget."""
    return ViduGenerateOperator(task_id="limited", prompt="p", model="m", **arguments)


def of_mapped(**arguments: Any) -> Any:
    """Return the same, to be expanded."""
    return ViduGenerateOperator.partial(task_id="limited", model="m", **arguments)


def periods_of(task: Any, dag: Any) -> list[str]:
    """Return the periods for which a task writes what it spends."""
    ti = type("TI", (), {"dag_id": "d", "run_id": "r", "task_id": "other", "map_index": -1, "try_number": 1})()
    ti.xcom_push = ti.xcom_pull = lambda **_: None
    return Spending({"ti": ti, "dag": dag}, task, None, None, None)._periods


class Film(ViduGenerateOperator):
    """Has a budget of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"budget": BUDGET, **kwargs})


def of_group() -> Any:
    """Return a mapped task in a group whose default is the budget."""
    with TaskGroup("g", default_args={"budget": BUDGET}):
        return of_mapped().expand(prompt=["x", "y"])


@pytest.mark.parametrize(
    ("limited", "default_args"),
    [
        (lambda: of_task(budget=BUDGET), {}),
        (lambda: of_mapped(budget=BUDGET).expand(prompt=["x", "y"]), {}),
        (lambda: of_mapped(prompt="p").expand(budget=[BUDGET]), {}),
        (lambda: of_mapped().expand_kwargs([{"prompt": "x"}, {"prompt": "y", "budget": BUDGET}]), {}),
        (lambda: of_mapped().expand(prompt=["x", "y"]), {"budget": BUDGET}),
        (of_group, {}),
    ],
    ids=["task", "partial", "expand", "expand_kwargs", "default_args", "default_args of a group"],
)
def test_a_task_without_a_budget_is_counted_by_those_of_its_dag(limited, default_args):
    """The budget's task sees only what the others have written, so all must find it."""
    with DAG("d", schedule=None, default_args=default_args) as dag:
        limited()
        other = ViduGenerateOperator(task_id="other", prompt="p", model="m", budget=None)
    assert periods_of(other, dag) == ["day"]


def test_a_task_is_counted_by_the_budget_that_a_subclass_fills_in():
    """Which one it is shows only in its instances."""
    with DAG("d", schedule=None) as dag:
        Film.partial(task_id="limited", model="m").expand(prompt=["x", "y"])
        other = ViduGenerateOperator(task_id="other", prompt="p", model="m")
    assert periods_of(other, dag) == ["day", "run"]
