"""Waits that callbacks end: one order, mapped ones, and a crowd; and orders without a wait, which start a DAG."""

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


@task
def listed(params: dict[str, list[str]]) -> list[str]:
    """Return the prompts of a crowd, to be mapped over."""
    return params["prompts"]


CROWD: dict[str, Any] = {
    "conn_id": Param("vidu_called", type="string"),
    "prompts": Param([], type="array"),
}

with DAG("e2e_called_crowd", schedule=None, params=CROWD):
    ViduGenerateOperator.partial(
        task_id="film", model="viduq3-turbo", vidu_conn_id="{{ params.conn_id }}", deferrable=True, timeout=3600
    ).expand(prompt=listed())

with DAG("e2e_fed_crowd", schedule=None, params=CROWD):
    ViduGenerateOperator.partial(
        task_id="film", model="viduq3-turbo", vidu_conn_id="{{ params.conn_id }}", wait_for_completion=False
    ).expand(prompt=listed())

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
