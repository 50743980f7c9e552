"""What goes wrong late: after the generation has succeeded, and after many pokes, on whatever Airflow."""

from __future__ import annotations

import hashlib
import re

from private_airflow import Run, wait_for


def variable_of(run: Run) -> str:
    """Return the name of the Variable that the record of a run's film stands in, where it does."""
    identity = "\n".join((run.dag_id, run.run_id, "film", "-1"))
    return "vidu_generation_" + hashlib.sha256(identity.encode()).hexdigest()[:32]


def test_a_try_that_fails_after_execute_pays_once(airflow, begun, sandbox) -> None:
    """The retry goes on with the paid generation; where a Variable has kept its record, that goes with the success."""
    run = begun["retried"]
    assert airflow.wait(run, timeout=240) == "success", airflow.task_log(run, "film")
    (task,) = airflow.tasks(run)
    assert task.try_number == 2
    (create,) = [create for create in sandbox.creates if create.body["prompt"] == "retried"]
    assert airflow.xcom(run, "film")["id"] == create.id

    assert "what comes after execute has failed" in airflow.task_log(run, "film")

    name = variable_of(run)
    assert wait_for(lambda: name not in airflow.variables(), 30), airflow.variables()


def test_a_clear_looks_for_a_create_whose_answer_was_lost(airflow, begun, sandbox) -> None:
    """A task without retries is cleared, which on 3.4 discards its state: it goes on with what is paid for."""
    run = begun["lost"]
    assert airflow.wait(run, timeout=240) == "failed", airflow.task_log(run, "film")
    assert "searches for the generation before it submits anything" in airflow.task_log(run, "film")
    airflow.clear_task(run, "film")
    assert wait_for(lambda: airflow.run_state(run) not in ("failed", "success"), 60)
    assert airflow.wait(run, timeout=240) == "success", airflow.task_log(run, "film")
    (create,) = [create for create in sandbox.creates if create.body["prompt"] == "lost"]
    assert airflow.xcom(run, "film")["id"] == create.id
    name = variable_of(run)
    assert wait_for(lambda: name not in airflow.variables(), 30), airflow.variables()


def test_a_rescheduled_wait_tells_how_long_it_was(airflow, begun) -> None:
    """Every poke is a process of its own; the time-out counts from the first of them."""
    run = begun["rescheduled"]
    assert airflow.wait(run, timeout=240) == "failed", airflow.states(run)
    told = re.search(r"Gave up waiting after (?:(\d+) min )?(\d+) s", airflow.task_log(run, "wait"))
    assert told, airflow.task_log(run, "wait")
    assert 60 * int(told[1] or 0) + int(told[2]) >= 12
