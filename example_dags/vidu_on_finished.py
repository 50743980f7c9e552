"""Event-driven: store the video of every generation of the account that finishes, wherever it was submitted.

Needs Airflow 3.0 or newer and a connection with the dialect `ent-v2`. The other dialect has no list of generations:
name those to watch in `generation_ids`. The DAG starts paused. Once unpaused, it checks the account every minute.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import Asset, dag, task
from airflow.sdk import AssetWatcher

from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger
from airflow_provider_vidu.operators import ViduDownloadOperator

# The folder for videos, with a slash at the end. The deployment sets it.
DESTINATION = os.environ.get("VIDU_EXAMPLES_DESTINATION", "file:///tmp/vidu/")

FINISHED = Asset(
    "vidu-finished",
    watchers=[AssetWatcher(name="vidu", trigger=ViduGenerationFinishedTrigger(poll_interval=60))],
)


@dag(
    schedule=[FINISHED],
    catchup=False,
    is_paused_upon_creation=True,
    tags=["vidu", "example"],
    doc_md=__doc__,
)
def vidu_on_finished() -> None:
    """Run when generations finish."""

    # One run receives all events since the last one, so there may be several.
    @task
    def succeeded(triggering_asset_events: Any = None) -> list[str]:
        payloads = [event.extra["payload"] for event in triggering_asset_events[FINISHED]]
        return [payload["generation_id"] for payload in payloads if payload["outcome"] == "succeeded"]

    ViduDownloadOperator.partial(
        task_id="download",
        destination=DESTINATION,
        overwrite="skip",
        retries=3,
        retry_delay=timedelta(seconds=30),
    ).expand(generation_id=succeeded())


vidu_on_finished()
