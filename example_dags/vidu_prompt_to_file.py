"""From a prompt to a file: submit one generation, wait for it without a worker, keep the video.

Needs a connection of type *Vidu* called `vidu_default`. Trigger it with a prompt, a model that your
account offers, and the name of a folder. Where that folder is, the deployment says in
`VIDU_EXAMPLES_DESTINATION`: any storage that Airflow knows, such as `s3://bucket/films/`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduDownloadOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor

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
def vidu_prompt_to_file() -> None:
    """Chain the three steps: each can be cleared and repeated without paying for the ones before it."""

    # Submitting is billed, so a retry could pay twice: the hook repeats a request that surely was not
    # carried out, and Airflow is told not to repeat the task.
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

    # Given the id, it asks for a fresh URL whenever it runs: clearing it next week still works as long
    # as the service keeps the video.
    download = ViduDownloadOperator(
        task_id="download",
        generation_id=generation_id,
        destination=f"{DESTINATION}{{{{ params.folder }}}}/",
        retries=3,
        retry_delay=timedelta(seconds=30),
    )

    wait >> download


vidu_prompt_to_file()
