"""An order that stays queued at the service: killed, or handed from one triggerer to the next."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_vidu.operators import ViduGenerateOperator

with DAG("matrix_order", schedule=None, params={"prompt": Param(type="string")}):
    ViduGenerateOperator(
        task_id="film",
        prompt="{{ params.prompt }}",
        model="m",
        vidu_conn_id="vidu_patient",
        deferrable=True,
        poll_interval=1,
        timeout=900,
    )
