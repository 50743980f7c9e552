"""What runs on the cluster: waits by the hundred, orders, and downloads; each DAG takes its ids as a param."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor

MAPPED: dict[str, Any] = {"max_active_runs": 20, "schedule": None}
RETRIES: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=1)}


@task
def listed(name: str, params: dict[str, list[Any]]) -> list[Any]:
    """Return a param, to be mapped over."""
    return params[name]


@dag(**MAPPED, params={"ids": Param(type="array")})
def cluster_waits() -> None:
    """Wait for generations; what survives does so without a retry."""
    ViduGenerationSensor.partial(task_id="wait", deferrable=True, poke_interval=10, timeout=3600).expand(
        generation_id=listed("ids")
    )


@dag(**MAPPED, params={"ids": Param(type="array")})
def cluster_late() -> None:
    """Wait for generations that take too long. Their waits come first as soon as a triggerer has room."""
    ViduGenerationSensor.partial(
        task_id="wait", deferrable=True, poke_interval=10, timeout=30, priority_weight=100
    ).expand(generation_id=listed("ids"))


@dag(**MAPPED, params={"prompts": Param(type="array"), "conn_id": Param(type="string")})
def cluster_orders() -> None:
    """Submit and wait in the triggerer; the generations stay queued, where they can be cancelled."""
    ViduGenerateOperator.partial(
        task_id="film",
        model="m",
        vidu_conn_id="{{ params.conn_id }}",
        deferrable=True,
        poll_interval=10,
        timeout=3600,
        **RETRIES,
    ).expand(prompt=listed("prompts"))


@dag(**MAPPED, params={"ids": Param(type="array"), "folder": Param(type="string")})
def cluster_downloads() -> None:
    """Download the videos of known generations."""
    ViduDownloadOperator.partial(task_id="download", destination="{{ params.folder }}", **RETRIES).expand(
        generation_id=listed("ids")
    )


cluster_waits()
cluster_late()
cluster_orders()
cluster_downloads()
