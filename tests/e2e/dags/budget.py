"""Mapped generations within a budget; workers die where the run says."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_vidu import hooks
from airflow_provider_vidu.operators import ViduBudget, ViduGenerateOperator


class MortalOperator(ViduGenerateOperator):
    """A generate operator whose first try is killed at the moment that ``deaths`` names for its map index."""

    def execute(self, context: Any) -> Any:
        """Submit, unless it dies first."""
        ti, create = context["ti"], hooks.ViduHook._submit
        dies_at = context["params"]["deaths"].get(str(ti.map_index)) if ti.try_number == 1 else None

        def mortal_create(hook: Any, *args: Any, **kwargs: Any) -> Any:
            if dies_at == "before_post":
                _die()
            generation = create(hook, *args, **kwargs)
            if dies_at == "after_answer":
                _die()
            return generation

        if dies_at == "start":
            _die()
        # This process runs this one task and nothing else.
        hooks.ViduHook._submit = mortal_create  # type: ignore[method-assign]
        found = super().execute(context)
        if dies_at == "end":
            _die()
        return found


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def budget_dag(dag_id: str, count: int, limit: float, at_once: int) -> DAG:
    """Return a DAG that would like to submit more than it may spend.

    :param count: of the prompts; each generation costs 10 credits.
    :param limit: the budget of a run.
    :param at_once: how many tasks submit at a time.
    """
    with DAG(dag_id, schedule=None, params={"deaths": Param({}, type="object")}) as made:
        MortalOperator.partial(
            task_id="film",
            model="m",
            vidu_conn_id="vidu_billed",
            budget=ViduBudget(credits=limit),
            wait_for_completion=False,
            max_active_tis_per_dagrun=at_once,
            retries=2,
            retry_delay=timedelta(seconds=1),
        ).expand(prompt=[f"{dag_id} {number}" for number in range(count)])
    return made


day = budget_dag("e2e_budget", count=10, limit=40, at_once=2)
