"""A video with subjects of your own: each has a name, up to three pictures, and appears where the prompt says `@name`.

Needs a connection of dialect `ent-v2`. The field `subjects` exists at one endpoint alone, `reference2video`, so no
endpoint is named. Subjects and `images` exclude each other: the pictures belong to the subjects.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator

# Where videos go: set here, not by the run, because the files are written with the worker's rights.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")


# Web addresses only: a path would be read with the worker's rights and sent to the service.
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
        "model": Param("viduq2", type="string", description="Which models exist is your account's affair."),
    },
)
def vidu_reference_by_subjects() -> None:
    """Submit and wait in one task, keep the file in the next."""
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
