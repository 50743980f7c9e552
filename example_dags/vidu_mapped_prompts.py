"""Many prompts at once: one mapped chain of submit, wait and download for each prompt.

The waits are deferred, so a hundred of them need no worker. A prompt that is refused or fails does not delay the
others.

`max_active_tis_per_dag` limits how many tasks submit at the same moment; it does not limit the generations in flight,
because a submit ends before its generation does. For accounts with a limit use `ViduGenerateOperator`, which waits for
a free slot.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag, task, task_group

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
        "prompts": Param(
            ["A red kite above a calm sea", "A paper boat in the rain", "A lighthouse at night"],
            type="array",
            items={"type": "string"},
            minItems=1,
        ),
        "model": Param("vidu2.0", type="string"),
        "folder": Param("films", type="string", pattern=NAME, description="A folder's name beneath DESTINATION."),
    },
)
def vidu_mapped_prompts() -> None:
    """Map a task group, not three tasks: each prompt's chain continues as soon as its own wait ends."""

    @task
    def prompts(params: dict[str, list[str]]) -> list[str]:
        return params["prompts"]

    # A submit is billed, so the task has no retries. The hook repeats a create that certainly was not carried out.
    @task(retries=0, max_active_tis_per_dag=4)
    def submit(prompt: str, params: dict[str, str] | None = None) -> str:
        assert params is not None  # Airflow passes it from the context
        return ViduHook().create_generation(model=params["model"], prompt=prompt).id

    @task_group
    def film(prompt: str) -> None:
        generation_id = submit(prompt)
        wait = ViduGenerationSensor(
            task_id="wait",
            generation_id=generation_id,
            deferrable=True,
            poke_interval=5,
            timeout=timedelta(hours=1).total_seconds(),
        )
        # In a folder, the generation's id names the file, so no two collide.
        download = ViduDownloadOperator(
            task_id="download",
            generation_id=generation_id,
            destination=f"{DESTINATION}{{{{ params.folder }}}}/",
            retries=3,
            retry_delay=timedelta(seconds=30),
        )
        wait >> download

    film.expand(prompt=prompts())  # type: ignore[call-arg]


vidu_mapped_prompts()
