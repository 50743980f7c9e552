"""What goes wrong late: after the generation has succeeded, and after many pokes, on whatever Airflow."""

from __future__ import annotations

import hashlib
import re

from private_airflow import wait_for


def test_a_try_that_fails_after_execute_pays_once(airflow, begun, sandbox) -> None:
    """The retry goes on with the paid generation; where a Variable has kept its record, that goes with the success."""
    run = begun["retried"]
    assert airflow.wait(run, timeout=240) == "success", airflow.task_log(run, "film")
    (task,) = airflow.tasks(run)
    assert task.try_number == 2
    (create,) = [create for create in sandbox.creates if create.body["prompt"] == "retried"]
    assert airflow.xcom(run, "film")["id"] == create.id

    assert "what comes after execute has failed" in airflow.task_log(run, "film")

    identity = "\n".join((run.dag_id, run.run_id, "film", "-1"))
    name = "vidu_generation_" + hashlib.sha256(identity.encode()).hexdigest()[:32]
    assert wait_for(lambda: name not in airflow.variables(), 30), airflow.variables()


def test_a_rescheduled_wait_tells_how_long_it_was(airflow, begun) -> None:
    """Every poke is a process of its own; the time-out counts from the first of them."""
    run = begun["rescheduled"]
    assert airflow.wait(run, timeout=240) == "failed", airflow.states(run)
    told = re.search(r"Gave up waiting after (?:(\d+) min )?(\d+) s", airflow.task_log(run, "wait"))
    assert told, airflow.task_log(run, "wait")
    assert 60 * int(told[1] or 0) + int(told[2]) >= 12
