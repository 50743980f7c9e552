"""What other parts of Airflow make of a generation: assets, watchers, notifications."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias, BaseNotifier, Param, dag, task
from airflow.sdk import AssetWatcher, Variable

from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger
from airflow_provider_vidu.operators import ViduDownloadOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor

FILMS = Asset("e2e-films")
CLIPS = AssetAlias("e2e-clips")
FINISHED = Asset(
    "e2e-finished",
    watchers=[
        AssetWatcher(
            name="vidu",
            trigger=ViduGenerationFinishedTrigger(vidu_conn_id="vidu_watched", poll_interval=2),
        )
    ],
)


class Note(BaseNotifier):
    """A notifier of some other provider: it says what has happened, wherever messages go."""

    def notify(self, context: Any) -> None:
        """Keep what a message would say."""
        error = context["exception"]
        Variable.set(f"e2e-note-{context['ti'].task_id}", f"{type(error).__name__}: {error}")


with DAG(
    "e2e_outlets",
    schedule=None,
    params={"generation_id": Param(type="string"), "destination": Param(type="string")},
):
    ViduDownloadOperator(
        task_id="download",
        generation_id="{{ params.generation_id }}",
        destination="{{ params.destination }}",
        outlets=[FILMS, CLIPS],
    )


@dag(schedule=[FILMS])
def e2e_on_films() -> None:
    """Read what a download has reported."""

    @task
    def told(triggering_asset_events: Any = None) -> list[Any]:
        return [event.extra for event in triggering_asset_events[FILMS]]

    told()


@dag(schedule=[FINISHED])
def e2e_on_finished() -> None:
    """Run when a generation finishes that no DAG has submitted."""

    @task
    def told(triggering_asset_events: Any = None) -> list[Any]:
        return [event.extra["payload"] for event in triggering_asset_events[FINISHED]]

    told()


@dag(schedule=None, params={"generation_id": Param(type="string")})
def e2e_notified() -> None:
    """Fail in a worker, in a resumed wait and in a download, each with a notifier."""
    generation_id = "{{ params.generation_id }}"
    ViduGenerationSensor(
        task_id="note_wait", generation_id=generation_id, poke_interval=1, deferrable=True, on_failure_callback=Note()
    )
    ViduDownloadOperator(
        task_id="note_download",
        generation_id="unheard-of",
        video_url="http://10.0.0.1/v.mp4?sig=e2e-signature",
        destination="/nowhere/",
        on_failure_callback=Note(),
    )


e2e_on_films()
e2e_on_finished()
e2e_notified()
