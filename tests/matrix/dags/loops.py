"""A task loop of Airflow 3.4: in each iteration one generation by itself and two that are mapped."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, task, task_group

from airflow_provider_vidu.operators import ViduGenerateOperator

with DAG("matrix_loop", schedule=None):

    @task_group
    def takes() -> None:
        """Make the films of one iteration."""
        waiting = {"model": "m", "deferrable": True, "poll_interval": 1, "timeout": 900}
        # What waits at this one stays queued, where it can be cancelled.
        conn_id = "{{ 'vidu_patient' if loop.index == 1 else 'vidu_default' }}"
        film = ViduGenerateOperator(task_id="film", prompt="loop {{ loop.index }}", vidu_conn_id=conn_id, **waiting)
        reels = ViduGenerateOperator.partial(task_id="reel", **waiting).expand(
            prompt=[f"loop {{{{ loop.index }}}} reel {index}" for index in range(2)]
        )

        # A film that a user has cancelled does not end the loop.
        @task(trigger_rule="all_done")
        def seen() -> str:
            return "seen"

        [film, reels] >> seen()

    if hasattr(takes, "loop"):
        takes.loop(max_iterations=3)
