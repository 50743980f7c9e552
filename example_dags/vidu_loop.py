"""Take after take until one is good enough, at most three: a task loop of Airflow 3.4.

Each iteration submits and stores a generation of its own, which is billed, and has a page of its own. A retry inside an
iteration resumes that iteration's generation. Clearing an iteration submits again for it and for the later ones.

`is_good_enough` judges by the size of the file. Replace it with what your films need, such as a model's opinion.

Needs Airflow 3.4 or later. On an earlier one its only task is skipped, and its log says why.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException, Param, dag, task, task_group

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator

# The folder for videos, with a slash at the end. The deployment sets it, because users who may trigger a DAG must not
# choose where a worker writes. A run names only a folder beneath it, of letters, digits, - and _.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")
NAME = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(?!\\n)$"
HAS_LOOPS = hasattr(task_group(lambda: None), "loop")


def is_good_enough(loop: Any, params: dict[str, Any]) -> bool:
    """Decide after each iteration whether the loop ends; ``loop.result`` is what its last task returned."""
    return bool(loop.result["size"] >= params["enough_bytes"])


@dag(
    schedule=None,
    catchup=False,
    tags=["vidu", "example"],
    doc_md=__doc__,
    params={
        "prompt": Param("A red kite above a calm sea at dawn", type="string", minLength=1),
        "model": Param("vidu2.0", type="string", description="A model that your account offers."),
        "folder": Param("takes", type="string", pattern=NAME, description="A folder's name beneath DESTINATION."),
        "enough_bytes": Param(1_000, type="integer", minimum=1, description="The size of a film that is good enough."),
    },
)
def vidu_loop() -> None:
    """Make one take in each iteration."""

    @task_group
    def take() -> None:
        generate = ViduGenerateOperator(
            task_id="generate",
            prompt="{{ params.prompt }}, take {{ loop.index + 1 }}",
            model="{{ params.model }}",
            deferrable=True,
            poll_interval=5,
            timeout=timedelta(hours=1),
            retries=2,
            retry_delay=timedelta(seconds=30),
        )
        # The folder holds every take: each file's name comes from its generation.
        ViduDownloadOperator(
            task_id="download",
            generation_id=generate.output["generation_id"],
            destination=f"{DESTINATION}{{{{ params.folder }}}}/",
            retries=3,
            retry_delay=timedelta(seconds=30),
        )

    @task
    def needs_airflow_3_4() -> None:
        raise AirflowSkipException("This example needs the task loops of Airflow 3.4. Nothing was submitted.")

    if HAS_LOOPS:
        take.loop(max_iterations=3, until=is_good_enough)  # type: ignore[attr-defined]
    else:
        needs_airflow_3_4()


vidu_loop()
