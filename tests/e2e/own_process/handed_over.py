"""What Airflow hands from task to task, in a DAG that is run by ``dag.test()``: the connection is in its database.

Prints one JSON object: the state of every task instance, the result of each download, and what a ``@task`` has
published through the hook.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, task

from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor

HOME = Path(os.environ["AIRFLOW_HOME"])
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgAAACAAAB4iG8MwAAAABJRU5ErkJggg=="
DATABASE: dict[str, Any] = {"vidu_conn_id": "in_the_database", "deferrable": True}

with DAG("handed_over", schedule=None, render_template_as_native_obj=True) as dag:

    @task
    def prompts() -> list[str]:
        """Two texts that native rendering reads as something else."""
        return ["3.10", "'in quotation marks'"]

    @task
    def picture(number: int) -> ObjectStoragePath:
        """Store a picture and hand its path over."""
        path = ObjectStoragePath(f"file://{HOME}/{number}.png")
        path.write_bytes(base64.b64decode(PIXEL))
        return path

    generate = ViduGenerateOperator.partial(
        task_id="generate",
        model="viduq2",
        images=picture.expand(number=[1, 2]),
        parameters={"duration": "{{ 2 + 2 }}", "meta_data": "{{ '007' }}"},
        poll_interval=1,
        **DATABASE,
    ).expand(prompt=prompts())
    wait = ViduGenerationSensor.partial(task_id="wait", **DATABASE).expand(generation=generate.output)
    keep = ViduDownloadOperator.partial(
        task_id="keep", destination=ObjectStoragePath(f"file://{HOME}/clips/"), vidu_conn_id="in_the_database"
    ).expand(generation=wait.output)

    @task
    def results(clips: Any, generations: Any) -> dict[str, Any]:
        """Return what the mapped tasks have returned."""
        return {"clips": list(clips), "generations": list(generations)}

    results(keep.output, wait.output)

    @task
    def published() -> str:
        """Submit two generations with the hook, and wait for the second: both have a page of this task's."""
        hook = ViduHook("in_the_database")
        for prompt in ("a cat with wings", "a dog with wings"):
            generation = hook.create_generation(model="viduq2", prompt=prompt, duration=4)
            hook.publish(generation)
        hook.publish(hook.wait(generation.id, timeout=120, poll_interval=0.5))
        return generation.id

    published()

    @task
    def equal() -> list[str]:
        """One prompt for two instances, which name their files after it."""
        return ["one name for two"] * 2

    ViduGenerateOperator.partial(
        task_id="twice", model="viduq2", destination=f"{HOME}/twice/{{{{ task.prompt }}}}.mp4", **DATABASE
    ).expand(prompt=equal())

    refused = ViduGenerateOperator(task_id="refused", prompt="refused", model="viduq2", **DATABASE)
    refused >> ViduDownloadOperator(task_id="nowhere", destination="nowhere://clips/", generation_id="1")

if __name__ == "__main__":
    run = dag.test()
    instances = run.get_task_instances()
    told = next(instance for instance in instances if instance.task_id == "results")
    states = {f"{instance.task_id}[{instance.map_index}]": str(instance.state) for instance in instances}
    keys = ("generation_id", "generation_id.02", "generation_id.03", "vidu_watch", "vidu_watch.02", "return_value")
    pages = {key: told.xcom_pull(task_ids="published", key=key) for key in keys}
    print(json.dumps({"states": states, "results": told.xcom_pull(task_ids="results"), "published": pages}))
