"""More prompts than the account takes at once."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vidu.operators import ViduGenerateOperator

with DAG("e2e_full", schedule=None, catchup=False):
    ViduGenerateOperator.partial(
        task_id="film", model="m", vidu_conn_id="vidu_full", deferrable=True, retries=0
    ).expand(prompt=["one", "two", "three"])
