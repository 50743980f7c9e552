"""From a prompt to a file in two operators, each generation paid once.

Clear `download` as often as you like: it asks for a fresh URL and costs nothing. A retry of `generate` goes
on with what an earlier try has submitted; clearing it is a new order, and is billed again.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator

# Where videos go unless the run says otherwise. Replace it by a folder of your own.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")


@dag(
    schedule=None,
    catchup=False,
    tags=["vidu", "example"],
    doc_md=__doc__,
    params={
        "prompt": Param("A red kite above a calm sea at dawn", type="string", minLength=1),
        "model": Param("vidu2.0", type="string", description="Which models exist is your account's affair."),
        "destination": Param(DESTINATION, type="string", description="A folder (with a slash at the end) or a file."),
    },
)
def vidu_generate_and_download() -> None:
    """Submit and wait in one task, keep the file in the next."""
    generate = ViduGenerateOperator(
        task_id="generate",
        prompt="{{ params.prompt }}",
        model="{{ params.model }}",
        deferrable=True,
        poll_interval=5,
        timeout=timedelta(hours=1),
        retries=2,
        retry_delay=timedelta(seconds=30),
    )
    # The id is an XCom of its own; taking it also puts the tasks in order.
    ViduDownloadOperator(
        task_id="download",
        generation_id=generate.output["generation_id"],
        destination="{{ params.destination }}",
        retries=3,
        retry_delay=timedelta(seconds=30),
    )


vidu_generate_and_download()
