"""What the end-to-end benchmark runs: clips by this provider, and as many empty waits as the yardstick."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator, Param, dag, task, task_group
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator

PARAMS = {"count": Param(1, type="integer"), "seconds": Param(60, type="number"), "folder": Param("", type="string")}
SETTINGS: dict[str, Any] = {
    "schedule": None,
    "catchup": False,
    "params": PARAMS,
    "render_template_as_native_obj": True,
    # No limit but the executor's.
    "max_active_tasks": 1000,
}


@task
def numbers(params: dict[str, Any]) -> list[str]:
    """Return a prompt for each."""
    return [f"clip {number}" for number in range(int(params["count"]))]


@dag(**SETTINGS)
def bench_clips() -> None:
    """Submit, wait and download, each clip on its own."""

    @task_group
    def clip(prompt: str) -> None:
        generate = ViduGenerateOperator(task_id="generate", prompt=prompt, deferrable=True)
        ViduDownloadOperator(
            task_id="download",
            generation_id="{{ ti.xcom_pull(task_ids='clip.generate', map_indexes=ti.map_index)['id'] }}",
            destination="{{ params.folder }}",
        ).set_upstream(generate)

    clip.expand(prompt=numbers())


class Nap(BaseOperator):
    """Waits in the triggerer and returns when it should have been woken; Airflow's own trigger, nothing else."""

    def __init__(self, *, number: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Any) -> NoReturn:
        """Leave the worker."""
        trigger = TimeDeltaTrigger(timedelta(seconds=float(context["params"]["seconds"])))
        self.defer(trigger=trigger, method_name="woken", kwargs={"due": trigger.moment.timestamp()})

    def woken(self, context: Any, due: float, event: Any = None) -> float:
        """Return when the trigger was due."""
        return due


@dag(**SETTINGS)
def bench_yardstick() -> None:
    """Wait and do nothing, in as many tasks."""

    @task
    def after() -> None:
        pass

    @task_group
    def nap(number: str) -> None:
        Nap(task_id="generate", number=number) >> after.override(task_id="download")()

    nap.expand(number=numbers())


bench_clips()
bench_yardstick()
