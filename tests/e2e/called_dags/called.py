"""Waits that callbacks end: one order, and several mapped ones."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_vidu.operators import ViduGenerateOperator

with DAG("e2e_called", schedule=None, params={"prompt": Param("a boat", type="string")}):
    ViduGenerateOperator(
        task_id="film",
        prompt="{{ params.prompt }}",
        model="viduq3-turbo",
        vidu_conn_id="vidu_called",
        deferrable=True,
        timeout=600,
    )

with DAG("e2e_called_mapped", schedule=None):
    ViduGenerateOperator.partial(
        task_id="film", model="viduq3-turbo", vidu_conn_id="vidu_called", deferrable=True, timeout=600
    ).expand(prompt=[f"mapped {number}" for number in range(4)])
