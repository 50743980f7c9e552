"""One order that a callback ends; the benchmark starts it again and again on an idle Airflow."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vidu.operators import ViduGenerateOperator

with DAG("bench_callbacks", schedule=None):
    ViduGenerateOperator(
        task_id="generate", prompt="a boat", model="viduq3-turbo", vidu_conn_id="vidu_callbacks", deferrable=True
    )
