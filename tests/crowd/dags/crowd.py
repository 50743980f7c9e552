"""Far more clips than the account takes at once, in three groups of different priority."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_vidu.operators import ViduGenerateOperator

PRIORITIES = {"low": 1, "middle": 10, "high": 100}


@task
def prompts(group: str, params: dict[str, Any]) -> list[str]:
    """Return a prompt for each clip of a group."""
    return [f"{group} {number:03}" for number in range(int(params["count"]))]


@dag(
    schedule=None,
    catchup=False,
    params={"count": Param(1, type="integer"), "conn_id": Param("vidu_default", type="string")},
    max_active_tasks=1000,
)
def crowd() -> None:
    """Submit them all."""
    for group, weight in PRIORITIES.items():
        ViduGenerateOperator.partial(
            task_id=f"film_{group}",
            model="viduq2",
            vidu_conn_id="{{ params.conn_id }}",
            deferrable=True,
            priority_weight=weight,
            weight_rule="absolute",
            retries=2,
        ).expand(prompt=prompts.override(task_id=f"prompts_{group}")(group))


crowd()
