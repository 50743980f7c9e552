"""What is cleared, and what is not, while tasks run and retry; each try of a film has a prompt of its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

from airflow_provider_vidu.operators import ViduGenerateOperator


def fail_once(context: Any, _result: Any) -> None:
    """Fail the first try when its generation has been paid for and has succeeded."""
    if context["ti"].try_number == 1:
        raise RuntimeError("what comes after execute has failed")


with DAG("e2e_cleared", schedule=None):
    ViduGenerateOperator(
        task_id="running",
        prompt="running, take {{ ti.try_number }}",
        model="m",
        deferrable=False,
        poll_interval=1,
    )
    ViduGenerateOperator(
        task_id="retried",
        prompt="retried, take {{ ti.try_number }}",
        model="m",
        deferrable=False,
        poll_interval=1,
        retries=1,
        retry_delay=timedelta(seconds=10),
        post_execute=fail_once,
    )
    EmptyOperator(task_id="sibling")
