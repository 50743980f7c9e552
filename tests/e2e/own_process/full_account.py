"""A generate task on an account that is full at first, run by ``dag.test()`` or ``airflow tasks test``.

As a program it prints one JSON object: the state of the task, and the id of its generation.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vidu.operators import ViduGenerateOperator

with DAG("full_account", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
    ViduGenerateOperator(
        task_id="film", prompt="after the others", model="viduq2", vidu_conn_id="vidu_full_account", deferrable=True
    )

if __name__ == "__main__":
    [film] = dag.test().get_task_instances()
    print(json.dumps({"state": str(film.state), "id": film.xcom_pull(task_ids="film", key="generation_id")}))
