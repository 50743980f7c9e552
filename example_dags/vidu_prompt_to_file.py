"""From a prompt to a file: submit one generation, wait for it without a worker, store the video.

Needs a connection of type *Vidu* called `vidu_default`. Trigger it with a prompt, a model that your account offers,
and the name of a folder. The deployment sets the folder's location in `VIDU_EXAMPLES_DESTINATION`: any storage that
Airflow supports, such as `s3://bucket/films/`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_vidu.hooks import ViduHook
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
        "prompt": Param("A red kite above a calm sea at dawn", type="string", minLength=1),
        "model": Param("vidu2.0", type="string", description="A model that your account offers."),
        "folder": Param("films", type="string", pattern=NAME, description="A folder's name beneath DESTINATION."),
    },
)
def vidu_prompt_to_file() -> None:
    """Chain three steps: each can be cleared without paying again for the ones before it."""

    # A submit is billed, so a retry of the task could pay twice. The hook itself repeats a request that certainly was
    # not carried out.
    @task(retries=0)
    def submit(params: dict[str, str]) -> str:
        generation = ViduHook().create_generation(model=params["model"], prompt=params["prompt"])
        return generation.id

    generation_id = submit()  # type: ignore[call-arg]  # Airflow passes params from the context

    # Deferred, the wait is one of thousands on the triggerer's event loop and holds no worker.
    wait = ViduGenerationSensor(
        task_id="wait",
        generation_id=generation_id,
        deferrable=True,
        poke_interval=5,
        timeout=timedelta(hours=1).total_seconds(),
        retries=2,
    )

    # With the id, it requests a fresh URL whenever it runs: clearing it next week works while the service keeps the
    # video.
    download = ViduDownloadOperator(
        task_id="download",
        generation_id=generation_id,
        destination=f"{DESTINATION}{{{{ params.folder }}}}/",
        retries=3,
        retry_delay=timedelta(seconds=30),
    )

    wait >> download


vidu_prompt_to_file()
