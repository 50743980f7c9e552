"""Pipelines that pass signed URLs on, good and failing: once with the default setting, once without signatures."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor

VIDEO = "{{ ti.xcom_pull('%s')['video_url'] }}"
COVER = "{{ ti.xcom_pull('%s')['cover_url'] }}"


def _without_signatures(context: Any) -> None:
    # This process runs this one task and nothing else.
    os.environ["AIRFLOW__VIDU__SIGNED_URLS_IN_XCOM"] = "False"


def _sensor(name: str, **options: Any) -> ViduGenerationSensor:
    return ViduGenerationSensor(
        task_id=name, generation_id=f"{{{{ params.prefix }}}}-{name}", poke_interval=1, timeout=300, **options
    )


def _download(name: str, **source: str) -> ViduDownloadOperator:
    return ViduDownloadOperator(task_id=name, destination=f"{{{{ params.folder }}}}/{name}.mp4", **source)


def signed_dag(name: str, **options: Any) -> DAG:
    """Return a DAG of waits and downloads; ``options`` are every task's."""
    with DAG(name, schedule=None, default_args=options, params={n: Param(type="string") for n in ("prefix", "folder")}):
        good, failed = _sensor("good", deferrable=True), _sensor("failed", mode="poke")
        assert failed.dag is good.dag
        made = ViduGenerateOperator(
            task_id="made", prompt="like this", model="m", images=[COVER % "good"], wait_for_completion=False
        )
        good >> [
            _download("by_id", generation_id="{{ params.prefix }}-good"),
            _download("by_url", video_url=VIDEO % "good"),
        ]
        good >> made
        if not options:
            for ending in ("expired", "redirected"):
                _sensor(f"{ending}_one", mode="poke") >> _download(ending, video_url=VIDEO % f"{ending}_one")
    return good.dag


e2e_signed = signed_dag("e2e_signed")
e2e_unsigned = signed_dag("e2e_unsigned", pre_execute=_without_signatures)
