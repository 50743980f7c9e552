"""What the benchmark of batches runs: rows in one task, and as many mapped tasks."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task, task_group

from airflow_provider_vidu.operators import ViduBatchOperator, ViduDownloadOperator, ViduGenerateOperator

IN_FLIGHT = 20
SETTINGS: dict[str, Any] = {
    "schedule": None,
    "catchup": False,
    "params": {"count": Param(1, type="integer"), "folder": Param("", type="string")},
    "render_template_as_native_obj": True,
    "max_active_tasks": 1000,
}


@task
def numbers(params: dict[str, Any]) -> list[str]:
    """Return a prompt for each."""
    return [f"clip {number}" for number in range(int(params["count"]))]


@dag(**SETTINGS)
def bench_batch() -> None:
    """All rows in one task."""
    ViduBatchOperator(
        task_id="films",
        rows=numbers(),
        destination="{{ params.folder }}",
        max_in_flight=IN_FLIGHT,
        deferrable=True,
    )


@dag(**SETTINGS)
def bench_mapped() -> None:
    """Each row in tasks of its own, as many at once."""

    @task_group
    def clip(prompt: str) -> None:
        generate = ViduGenerateOperator(
            task_id="generate", prompt=prompt, deferrable=True, max_active_tis_per_dag=IN_FLIGHT
        )
        ViduDownloadOperator(
            task_id="download",
            generation_id="{{ ti.xcom_pull(task_ids='clip.generate', map_indexes=ti.map_index)['id'] }}",
            destination="{{ params.folder }}",
        ).set_upstream(generate)

    clip.expand(prompt=numbers())


bench_batch()
bench_mapped()
