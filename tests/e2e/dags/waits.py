"""One DAG for each way of waiting; each takes the id of a generation as its param."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, dag, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

from airflow_provider_vidu.retry_policy import vidu_retry_policy
from airflow_provider_vidu.sensors import ViduGenerationSensor

LONG = 900
RETRIES: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=1)}
WAYS: dict[str, dict[str, Any]] = {
    "deferred": {"deferrable": True, **RETRIES},
    # Not shorter: Airflow 3.3 fails a task whose next poke begins before the scheduler has noted the end of
    # the last one, which takes some seconds when much is started at once.
    "reschedule": {"mode": "reschedule", "poke_interval": 12},
    "poke": {"mode": "poke"},
    "failed": {"deferrable": True, **RETRIES},
    "wrong_key": {"deferrable": True, "vidu_conn_id": "vidu_wrong_key", **RETRIES},
    "key_revoked": {"deferrable": True, "vidu_conn_id": "vidu_revoked", **RETRIES},
    "timed_out": {"deferrable": True, "timeout": 8, **RETRIES},
    "soft_fail": {"deferrable": True, "timeout": 8, "soft_fail": True, **RETRIES},
}


if AIRFLOW_V_3_3_PLUS:
    # One failed poll fails the try; the policy then takes the delay that the service asked for.
    WAYS["policy"] = {
        "max_failures": 0,
        "retries": 1,
        "retry_policy": vidu_retry_policy(),
        "retry_delay": timedelta(hours=1),
    }


def wait_dag(way: str, options: dict[str, Any]) -> DAG:
    """Return the DAG ``e2e_<way>`` with a single sensor."""
    with DAG(f"e2e_{way}", schedule=None, params={"generation_id": Param(type="string")}) as made:
        ViduGenerationSensor(
            task_id="wait",
            generation_id="{{ params.generation_id }}",
            **{"poke_interval": 1, "timeout": LONG, **options},
        )
    return made


for _way, _options in WAYS.items():
    globals()[f"e2e_{_way}"] = wait_dag(_way, _options)


@dag(schedule=None, params={"generation_ids": Param(type="array")})
def e2e_mapped() -> None:
    """Map one deferred wait over a list of ids."""

    @task
    def ids(params: dict[str, list[str]]) -> list[str]:
        return params["generation_ids"]

    ViduGenerationSensor.partial(task_id="wait", deferrable=True, poke_interval=1, timeout=LONG).expand(
        generation_id=ids()
    )


e2e_mapped()
