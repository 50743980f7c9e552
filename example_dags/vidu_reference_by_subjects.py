"""A video with your own subjects: each has a name and up to three pictures, and appears where the prompt says `@name`.

Needs a connection with the dialect `ent-v2`. Only the endpoint `reference2video` has the field `subjects`, so no
endpoint is named. A request has either `subjects` or `images`, not both.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator

# The folder for videos. The deployment sets it, not the run, because files are written with the worker's permissions.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")


# Web addresses only: a path would be read with the worker's permissions and sent to the service.
def picture(title: str) -> Param:
    """Return a parameter that holds the address of a picture."""
    return Param(type="string", format="uri", pattern="^https://", title=title)


@dag(
    schedule=None,
    catchup=False,
    tags=["vidu", "example"],
    doc_md=__doc__,
    params={
        "hero": picture("Picture of the hero"),
        "place": picture("Picture of the place"),
        "prompt": Param("@hero walks through @place at dawn, seen from behind", type="string", minLength=1),
        "model": Param("viduq2", type="string", description="A model that your account offers."),
    },
)
def vidu_reference_by_subjects() -> None:
    """Submit and wait in one task, store the file in the next."""
    generate = ViduGenerateOperator(
        task_id="generate",
        prompt="{{ params.prompt }}",
        model="{{ params.model }}",
        parameters={
            "subjects": [
                {"name": "hero", "images": ["{{ params.hero }}"]},
                {"name": "place", "images": ["{{ params.place }}"]},
            ],
            "duration": 5,
            "aspect_ratio": "16:9",
        },
        deferrable=True,
        poll_interval=5,
        timeout=timedelta(hours=1),
        retries=2,
        retry_delay=timedelta(seconds=30),
    )
    ViduDownloadOperator(
        task_id="download",
        generation_id=generate.output["generation_id"],
        destination=DESTINATION,
        retries=3,
        retry_delay=timedelta(seconds=30),
    )


vidu_reference_by_subjects()
