"""Waits that callbacks end: one order, and several mapped ones; and an order without a wait that starts a DAG."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, Param, dag, task
from airflow.sdk import AssetWatcher

from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger
from airflow_provider_vidu.operators import ViduGenerateOperator

FED = Asset(
    "e2e-fed",
    watchers=[
        AssetWatcher(name="vidu", trigger=ViduGenerationFinishedTrigger(vidu_conn_id="vidu_fed", poll_interval=600))
    ],
)

with DAG("e2e_called", schedule=None, params={"prompt": Param("a boat", type="string")}):
    ViduGenerateOperator(
        task_id="film",
        prompt="{{ params.prompt }}",
        model="viduq3-turbo",
        vidu_conn_id="vidu_called",
        deferrable=True,
        timeout=600,
    )

with DAG("e2e_called_mapped", schedule=None):
    ViduGenerateOperator.partial(
        task_id="film", model="viduq3-turbo", vidu_conn_id="vidu_called", deferrable=True, timeout=600
    ).expand(prompt=[f"mapped {number}" for number in range(4)])

with DAG("e2e_called_fed", schedule=None):
    ViduGenerateOperator(
        task_id="film", prompt="fed", model="viduq3-turbo", vidu_conn_id="vidu_fed", wait_for_completion=False
    )


@dag(schedule=[FED])
def e2e_on_fed() -> None:
    """Run when a generation of the second account finishes."""

    @task
    def told(triggering_asset_events: Any = None) -> list[Any]:
        return [event.extra["payload"] for event in triggering_asset_events[FED]]

    told()


e2e_on_fed()
