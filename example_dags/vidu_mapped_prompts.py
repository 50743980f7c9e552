"""Many prompts at once: one mapped chain of submit, wait and download for each prompt.

The waits are deferred, so a hundred of them need no worker. A prompt that is refused or fails does not
hold up the others. How many are submitted at the same time is limited by `max_active_tis_per_dag`, because
accounts have a limit on concurrent generations.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag, task, task_group

from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduDownloadOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor

# Where videos go unless the run says otherwise. Replace it by a folder of your own.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")


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
        "destination": Param(DESTINATION, type="string", description="A folder, with a slash at the end."),
    },
)
def vidu_mapped_prompts() -> None:
    """Map a task group, not three tasks: each prompt's chain goes on as soon as its own wait is over."""

    @task
    def prompts(params: dict[str, list[str]]) -> list[str]:
        return params["prompts"]

    # Submitting is billed: no retries here, the hook repeats what surely was not carried out.
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
        # In a folder destination the file's name comes from the generation's id, so no two collide.
        download = ViduDownloadOperator(
            task_id="download",
            generation_id=generation_id,
            destination="{{ params.destination }}",
            retries=3,
            retry_delay=timedelta(seconds=30),
        )
        wait >> download

    film.expand(prompt=prompts())  # type: ignore[call-arg]


vidu_mapped_prompts()
