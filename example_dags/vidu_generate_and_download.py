"""From a prompt to a file in two operators, each generation paid once.

Clear `download` as often as you like: it asks for a fresh URL and costs nothing. A retry of `generate` goes
on with what an earlier try has submitted; clearing it is a new order, and is billed again.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator

# Where videos go, with a slash at the end. It comes from the deployment and never from a run: whoever may trigger
# a DAG must not choose where a worker writes. A run names a folder beneath it, by letters, digits, - and _ alone.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")
NAME = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(?!\\n)$"


@dag(
    schedule=None,
    catchup=False,
    tags=["vidu", "example"],
    doc_md=__doc__,
    params={
        "prompt": Param("A red kite above a calm sea at dawn", type="string", minLength=1),
        "model": Param("vidu2.0", type="string", description="Which models exist is your account's affair."),
        "folder": Param("films", type="string", pattern=NAME, description="A folder's name beneath DESTINATION."),
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
        destination=f"{DESTINATION}{{{{ params.folder }}}}/",
        retries=3,
        retry_delay=timedelta(seconds=30),
    )


vidu_generate_and_download()
