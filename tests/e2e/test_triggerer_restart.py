"""A triggerer dies in the middle of a wait."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from private_airflow import wait_for


def test_a_killed_triggerer_costs_nothing(airflow, sandbox, runs, keys, finish):
    """After SIGKILL another triggerer goes on: same deadline, one create, one success, one try."""
    run = airflow.trigger("vidu_prompt_to_file", {"prompt": "[slow] a clock", "folder": "restart"})
    waiting = airflow.wait_for_task(run, "wait", "deferred")
    generation_id = airflow.xcom(run, "submit")
    stored = _trigger_kwargs(airflow, waiting)

    airflow.kill_component("triggerer")
    queries = len(sandbox.requests(kind="query", id=generation_id))
    airflow.start_component("triggerer")
    _wait_until_asked_again(sandbox, generation_id, queries)
    resumed = airflow.wait_for_task(run, "wait", "deferred")
    stored_after = _trigger_kwargs(airflow, resumed)
    finish(generation_id)

    assert airflow.wait(run) == "success", airflow.states(run)
    assert stored["deadline"] > 0
    assert stored_after == stored
    assert keys.good not in str(stored)
    assert [create.body["prompt"] for create in sandbox.creates].count("[slow] a clock") == 1
    assert {task.name: task.try_number for task in airflow.tasks(run)} == {"submit": 1, "wait": 1, "download": 1}
    assert _events_fired(airflow, run) == 1


def _trigger_kwargs(airflow, task) -> dict[str, object]:
    """Return the arguments of a task's trigger as they stand in the database: in plain text."""
    with closing(sqlite3.connect(airflow.home / "airflow.db", timeout=30)) as database:
        query = "select kwargs from trigger where id = ?"
        (stored,) = database.execute(query, (task.record["trigger"]["id"],)).fetchone()
    return json.loads(stored)


def _wait_until_asked_again(sandbox, generation_id, queries) -> None:
    taken_over = wait_for(lambda: len(sandbox.requests(kind="query", id=generation_id)) > queries, 90)
    assert taken_over, "the new triggerer never took the wait over"


def _events_fired(airflow, run) -> int:
    lines = [line for line in airflow.task_log(run, "wait").splitlines() if line.startswith("{")]
    return sum("fired event" in str(json.loads(line).get("event")).lower() for line in lines)
