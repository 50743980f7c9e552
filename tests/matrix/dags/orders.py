"""Orders and waits that meet what a real Airflow does to them: a kill, another triggerer, a retry, a time-out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_vidu.operators import ViduGenerateOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor


def fail_once(context: Any, _result: Any) -> None:
    """Fail the first try when its generation has been paid for and has succeeded."""
    if context["ti"].try_number == 1:
        raise RuntimeError("what comes after execute has failed")


# Stays queued at the service: killed, or handed from one triggerer to the next.
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

with DAG("matrix_retried", schedule=None):
    ViduGenerateOperator(
        task_id="film",
        prompt="retried",
        model="m",
        deferrable=True,
        poll_interval=1,
        timeout=900,
        retries=1,
        retry_delay=timedelta(seconds=1),
        post_execute=fail_once,
    )

# Its create is carried out, and the answer lost: without retries only a clear leads on.
with DAG("matrix_lost", schedule=None):
    ViduGenerateOperator(
        task_id="film",
        prompt="lost",
        model="m",
        vidu_conn_id="vidu_ent",
        deferrable=True,
        poll_interval=1,
        timeout=900,
        retries=0,
    )

with DAG("matrix_rescheduled", schedule=None, params={"generation_id": Param(type="string")}):
    ViduGenerationSensor(
        task_id="wait",
        generation_id="{{ params.generation_id }}",
        vidu_conn_id="vidu_patient",
        mode="reschedule",
        # Airflow 3.0.6 takes the end of one poke for a failure of the next where they follow too closely.
        poke_interval=8,
        timeout=12,
    )
