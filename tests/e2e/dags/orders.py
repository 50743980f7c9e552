"""Orders whose worker dies, really, at a chosen moment: one DAG for each dialect and way of waiting."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_vidu import hooks
from airflow_provider_vidu.operators import ViduGenerateOperator


class MortalOperator(ViduGenerateOperator):
    """A generate operator whose process is killed, once, where the run's ``die_at`` says."""

    def execute(self, context: Any) -> Any:
        """Submit and wait, dying on the way."""
        self._die("start", context)
        create, wait = hooks.ViduHook._submit, hooks.ViduHook.wait

        def mortal_create(hook: Any, *args: Any, **kwargs: Any) -> Any:
            self._die("before_post", context)
            if self._is_due("during_answer", context):
                threading.Timer(3, _die).start()
            generation = create(hook, *args, **kwargs)
            self._die("after_answer", context)
            return generation

        def mortal_wait(hook: Any, *args: Any, **kwargs: Any) -> Any:
            self._die("waiting", context)
            return wait(hook, *args, **kwargs)

        # This process runs this one task and nothing else.
        hooks.ViduHook._submit = mortal_create  # type: ignore[method-assign]
        hooks.ViduHook.wait = mortal_wait  # type: ignore[method-assign]
        return super().execute(context)

    def execute_complete(self, context: Any, event: Any = None) -> Any:
        """Resume, dying right away."""
        self._die("resumed", context)
        return super().execute_complete(context, event)

    def _is_due(self, moment: str, context: Any) -> bool:
        params = context["params"]
        if params["die_at"] != moment:
            return False
        flag = Path(params["deaths"]) / f"{context['ti'].dag_id}-{moment}"
        if flag.exists():
            return False
        flag.touch()
        return True

    def _die(self, moment: str, context: Any) -> None:
        if self._is_due(moment, context):
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def order_dag(dialect: str, way: str) -> DAG:
    """Return the DAG ``e2e_order_<dialect>_<way>`` with a single mortal order."""
    with DAG(
        f"e2e_order_{dialect}_{way}",
        schedule=None,
        max_active_runs=20,
        params={
            "prompt": Param(type="string"),
            "die_at": Param("", type="string"),
            "deaths": Param("", type="string"),
            "conn_id": Param(f"vidu_orders_{dialect}", type="string"),
        },
    ) as made:
        MortalOperator(
            task_id="film",
            prompt="{{ params.prompt }}",
            model="m",
            vidu_conn_id="{{ params.conn_id }}",
            deferrable=way == "deferred",
            poll_interval=1,
            timeout=600,
            retries=2,
            retry_delay=timedelta(seconds=1),
        )
    return made


for _dialect in ("native", "ent"):
    for _way in ("deferred", "worker"):
        globals()[f"order_{_dialect}_{_way}"] = order_dag(_dialect, _way)
