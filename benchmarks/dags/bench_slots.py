"""What the benchmark of full accounts runs: one mapped clip for each prompt, everything at its default."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_vidu.operators import ViduGenerateOperator


@task
def prompts(params: dict[str, Any]) -> list[str]:
    """Return a prompt for each clip."""
    return [f"clip {number:03}" for number in range(int(params["count"]))]


@dag(
    schedule=None,
    catchup=False,
    params={"count": Param(1, type="integer"), "conn_id": Param("vidu_default", type="string")},
    max_active_tasks=1000,
)
def bench_slots() -> None:
    """Submit more than the account takes at once."""
    ViduGenerateOperator.partial(
        task_id="generate", model="viduq2", vidu_conn_id="{{ params.conn_id }}", deferrable=True
    ).expand(prompt=prompts())


bench_slots()
