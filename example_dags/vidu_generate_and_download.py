"""From a prompt to a file in two operators, each generation paid once.

Clear `download` as often as you like: it requests a fresh URL and costs nothing. A retry of `generate` resumes the
generation that an earlier attempt submitted. Clearing `generate` submits a new generation, which is billed.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator

# The folder for videos, with a slash at the end. The deployment sets it, because users who may trigger a DAG must not
# choose where a worker writes. A run names only a folder beneath it, of letters, digits, - and _.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")
NAME = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(?!\\n)$"


@dag(
    schedule=None,
    catchup=False,
    tags=["vidu", "example"],
    doc_md=__doc__,
    params={
        "prompt": Param("A red kite above a calm sea at dawn", type="string", minLength=1),
        "model": Param("vidu2.0", type="string", description="A model that your account offers."),
        "folder": Param("films", type="string", pattern=NAME, description="A folder's name beneath DESTINATION."),
    },
)
def vidu_generate_and_download() -> None:
    """Submit and wait in one task, store the file in the next."""
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
    # The id is an XCom of its own; using it also makes `download` depend on `generate`.
    ViduDownloadOperator(
        task_id="download",
        generation_id=generate.output["generation_id"],
        destination=f"{DESTINATION}{{{{ params.folder }}}}/",
        retries=3,
        retry_delay=timedelta(seconds=30),
    )


vidu_generate_and_download()
