"""A storyboard: one generation for each scene; the video and the cover of each scene are stored.

The scenes are mapped, so there may be any number of them, and the waits hold no worker. If the account is full, further
scenes wait in the triggerer for a free slot; the connection's `max_in_flight` sets a limit of your own.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task, task_group

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
        "scenes": Param(
            ["A lighthouse at dusk", "The keeper climbs the stairs", "The lamp is lit"],
            type="array",
            items={"type": "string"},
            minItems=1,
        ),
        "style": Param("hand-drawn, soft light", type="string", description="Added to each scene's prompt."),
        "model": Param("vidu2.0", type="string"),
        "folder": Param("films", type="string", pattern=NAME, description="A folder's name beneath DESTINATION."),
    },
)
def vidu_storyboard() -> None:
    """Map one chain per scene: each continues as soon as its own generation ends."""

    @task
    def prompts(params: dict[str, Any]) -> list[str]:
        return [f"{scene}, {params['style']}" for scene in params["scenes"]]

    @task_group
    def scene(prompt: str) -> None:
        generate = ViduGenerateOperator(
            task_id="generate",
            prompt=prompt,
            model="{{ params.model }}",
            deferrable=True,
            poll_interval=5,
            timeout=timedelta(hours=1),
            retries=2,
        )
        # Both downloads use the id, so both can be repeated later, and the two file names match.
        for artifact in ("video", "cover"):
            ViduDownloadOperator(
                task_id=artifact,
                generation_id=generate.output["generation_id"],
                destination=f"{DESTINATION}{{{{ params.folder }}}}/",
                artifact=artifact,
                retries=3,
                retry_delay=timedelta(seconds=30),
            )

    scene.expand(prompt=prompts())  # type: ignore[call-arg]


vidu_storyboard()
