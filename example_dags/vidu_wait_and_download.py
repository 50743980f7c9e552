"""Wait for a generation that was submitted elsewhere, and store its video.

Trigger it with the id from the service, whose API calls it `task_id`. `overwrite="skip"` makes it safe to repeat: a
file that already exists is not fetched again.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_vidu.operators import ViduDownloadOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor

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
        # No default, so a run cannot start without an id.
        "generation_id": Param(type="string", minLength=1, description="The id of the generation at Vidu."),
        "folder": Param("films", type="string", pattern=NAME, description="A folder's name beneath DESTINATION."),
        "name": Param("film", type="string", pattern=NAME, description="The file's name, without .mp4."),
    },
)
def vidu_wait_and_download() -> None:
    """Wait for a known generation, then fetch it."""
    wait = ViduGenerationSensor(
        task_id="wait",
        generation_id="{{ params.generation_id }}",
        deferrable=True,
        poke_interval=5,
        timeout=timedelta(hours=6).total_seconds(),
    )
    download = ViduDownloadOperator(
        task_id="download",
        generation_id="{{ params.generation_id }}",
        destination=f"{DESTINATION}{{{{ params.folder }}}}/{{{{ params.name }}}}.mp4",
        overwrite="skip",
        retries=3,
        retry_delay=timedelta(seconds=30),
    )
    wait >> download


vidu_wait_and_download()
