"""Twenty prompts from a CSV file in one task: files and a manifest, each row paid once.

One task submits all rows, at most five at a time, waits without a worker, and stores every file. A row that is refused
or fails is a line of the manifest, and does not stop the others. Clear the task to order the failed rows again: rows
with a file are not ordered again.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_vidu.operators import ViduBatchOperator

# The folder for videos, with a slash at the end. The deployment sets it, because users who may trigger a DAG must not
# choose where a worker writes. A run names only a folder beneath it, of letters, digits, - and _.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")
NAME = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(?!\\n)$"
ROWS = Path(__file__).parent / "data" / "vidu_batch.csv"


@dag(
    schedule=None,
    catchup=False,
    tags=["vidu", "example"],
    doc_md=__doc__,
    params={
        "model": Param("viduq1", type="string", description="A model that your account offers."),
        "folder": Param("batch", type="string", pattern=NAME, description="A folder's name beneath DESTINATION."),
    },
)
def vidu_batch() -> None:
    """Order all rows of the file beside this DAG."""
    ViduBatchOperator(
        task_id="films",
        rows=str(ROWS),
        destination=f"{DESTINATION}{{{{ params.folder }}}}/",
        model="{{ params.model }}",
        max_in_flight=5,
        min_success=0.9,
        deferrable=True,
        timeout=timedelta(hours=6),
        retries=2,
        retry_delay=timedelta(minutes=1),
    )


vidu_batch()
