"""A DAG that is revised between a run and the clear of its task: what it says stands in a file of Airflow's home."""

from __future__ import annotations

import json
import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vidu.operators import ViduGenerateOperator

SAYS = Path(os.environ["AIRFLOW_HOME"]) / "revised.json"
FIELDS = json.loads(SAYS.read_text()) if SAYS.exists() else {"prompt": "before the revision", "retries": 2}

with DAG("e2e_revised", schedule=None):
    ViduGenerateOperator(task_id="film", model="m", vidu_conn_id="vidu_ent", deferrable=True, poll_interval=1, **FIELDS)
