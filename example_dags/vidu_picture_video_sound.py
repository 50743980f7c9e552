"""A picture, a video that begins with it, and a sound for it, each stored as a file.

Needs a connection with the dialect `ent-v2`. The three products are three endpoints of the API: `reference2image`,
`img2video` and `text2audio`. Each is submitted and paid once; each download can be cleared as often as you like.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator

# The folder for files. The deployment sets it, not the run, because files are written with the worker's permissions.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")

WAITS: dict[str, Any] = {
    "deferrable": True,
    "poll_interval": 5,
    "timeout": timedelta(hours=1),
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
}


@dag(
    schedule=None,
    catchup=False,
    tags=["vidu", "example"],
    doc_md=__doc__,
    params={
        "picture": Param("A lighthouse on a cliff at dusk, oil painting", type="string", minLength=1),
        "motion": Param("The lamp is lit and its beam sweeps over the sea", type="string", minLength=1),
        "sound": Param("Waves against rocks, wind, a distant fog horn", type="string", minLength=1),
        "picture_model": Param("viduq2", type="string"),
        "video_model": Param("viduq2-turbo", type="string"),
        "sound_model": Param("audio1.0", type="string"),
    },
)
def vidu_picture_video_sound() -> None:
    """Chain two generations, and run the third beside them."""
    # This endpoint takes the same fields as those that make a video, so it must be named.
    picture = ViduGenerateOperator(
        task_id="picture",
        endpoint="reference2image",
        prompt="{{ params.picture }}",
        model="{{ params.picture_model }}",
        **WAITS,
    )
    # One image: img2video. The service fetches the picture from its URL, which is valid for a day. The URL is a field
    # of the task's return value, so a template reads it: picture.output["video_url"] would be another XCom.
    video = ViduGenerateOperator(
        task_id="video",
        prompt="{{ params.motion }}",
        model="{{ params.video_model }}",
        images=["{{ ti.xcom_pull(task_ids='picture')['video_url'] }}"],
        **WAITS,
    )
    sound = ViduGenerateOperator(
        task_id="sound",
        endpoint="text2audio",
        prompt="{{ params.sound }}",
        model="{{ params.sound_model }}",
        parameters={"duration": 5},
        **WAITS,
    )
    picture >> video
    # In a folder, the generation names the file and the content decides the extension: .png, .mp4, .mp3.
    for made in (picture, video, sound):
        ViduDownloadOperator(
            task_id=f"keep_{made.task_id}",
            generation_id=made.output["generation_id"],
            destination=DESTINATION,
            retries=3,
            retry_delay=timedelta(seconds=30),
        )


vidu_picture_video_sound()
