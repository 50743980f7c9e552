"""The sensor on a real Airflow: every mode, and every way in which a wait can end."""

from __future__ import annotations

from contextlib import suppress

import psutil

from private_airflow import wait_for


def _ended(airflow, run, *, state):
    """Return the single sensor's task after its run has ended in ``state``."""
    assert airflow.wait(run) == state, airflow.task_log(run, "wait")[-3000:]
    (task,) = airflow.tasks(run)
    return task


def _titles(airflow) -> list[str]:
    """Return the command lines of its processes, but for those that have just ended."""
    found = []
    for process in airflow.members():
        with suppress(psutil.NoSuchProcess):
            found.append(" ".join(process.cmdline()))
    return found


def test_a_deferred_wait_is_visible_and_holds_no_worker(airflow, sandbox, runs, finish):
    """While it waits the task is *deferred*, with a trigger, outside the pool and without a process."""
    run = runs["deferred"]
    task = airflow.wait_for_task(run, "wait", "deferred")
    pool = airflow.api("GET", "/pools/default_pool")

    def busy() -> list[str]:
        return [title for title in _titles(airflow) if task.record["id"] in title]

    assert task.record["trigger"]["classpath"] == "airflow_provider_vidu.triggers.ViduGenerationTrigger"
    # The process ends right after it has reported the deferral.
    assert wait_for(lambda: not busy(), 30), busy()
    assert pool["deferred_slots"] >= 1
    assert not pool["include_deferred"]

    finish("e2e-deferred")
    task = _ended(airflow, run, state="success")
    result = airflow.xcom(run, "wait")
    assert task.try_number == 1
    assert (result["id"], result["status"]) == ("e2e-deferred", "succeeded")
    assert result["video_url"].startswith(sandbox.url)


def test_a_poking_wait_holds_its_worker(airflow, runs, finish):
    """In poke mode the task runs in a process of its own until the generation is done."""
    run = runs["poke"]
    task = airflow.wait_for_task(run, "wait", "running")
    assert any(task.record["id"] in title for title in _titles(airflow))

    finish("e2e-poke")
    _ended(airflow, run, state="success")
    assert airflow.xcom(run, "wait")["status"] == "succeeded"


def test_a_rescheduled_wait_comes_back(airflow, runs, finish):
    """In reschedule mode the task leaves the worker between pokes and returns the generation in the end."""
    run = runs["reschedule"]
    airflow.wait_for_task(run, "wait", "up_for_reschedule")

    finish("e2e-reschedule")
    task = _ended(airflow, run, state="success")
    assert task.try_number == 1
    assert airflow.xcom(run, "wait")["id"] == "e2e-reschedule"


def test_the_retry_policy_takes_the_services_delay(airflow, sandbox, runs):
    """A try that failed with Retry-After: 3 is repeated after 3 seconds, though retry_delay is an hour."""
    task = _ended(airflow, runs["policy"], state="success")
    assert task.try_number == 2
    first, second = (request.wall_time for request in sandbox.requests("query", "e2e-policy")[:2])
    assert 3 <= second - first < 60


def test_mapped_waits_end_one_by_one(airflow, runs, mapped_ids, finish):
    """Ten waits of one task are deferred together, and each returns its own generation."""
    run = runs["mapped"]
    for index in range(len(mapped_ids)):
        airflow.wait_for_task(run, f"wait[{index}]", "deferred")
    for generation_id in mapped_ids:
        finish(generation_id)

    assert airflow.wait(run) == "success"
    assert [airflow.xcom(run, "wait", map_index=index)["id"] for index in range(len(mapped_ids))] == mapped_ids


def test_a_failed_generation_fails_at_once(airflow, sandbox, runs):
    """A failure of the service ends the task in its first try although two retries are left."""
    run = runs["failed"]
    airflow.wait_for_task(run, "wait", "deferred")
    error = {"code": "ModelGone", "message": "no such model"}
    sandbox.add_generation("e2e-failed", states=[["failed", 0]], error=error)

    task = _ended(airflow, run, state="failed")
    log = airflow.task_log(run, "wait")
    assert task.try_number == 1
    assert "no such model" in log
    assert "e2e-failed" in log


def test_a_wrong_key_fails_at_once(airflow, runs):
    """A key that is refused from the start is not tried again, and the log says what is wrong."""
    task = _ended(airflow, runs["wrong_key"], state="failed")
    assert task.try_number == 1
    assert "ViduAuthError" in airflow.task_log(runs["wrong_key"], "wait")


def test_a_key_refused_while_waiting_pauses_without_a_storm(airflow, sandbox, runs, keys, finish):
    """A key that is refused in the middle of a wait pauses it, with a handful of requests, until it is accepted."""
    run = runs["key_revoked"]
    airflow.wait_for_task(run, "wait", "deferred")

    def refused() -> int:
        return len([r for r in sandbox.requests(kind="query", id="e2e-key_revoked") if r.status == 401])

    assert wait_for(lambda: sandbox.requests(kind="query", id="e2e-key_revoked"), 60)
    sandbox.rotate_keys([keys.good])
    assert wait_for(lambda: refused() >= 2, 60)
    (task,) = airflow.tasks(run)
    assert (task.state, task.try_number) == ("deferred", 1)

    finish("e2e-key_revoked")
    sandbox.rotate_keys([keys.good, keys.revoked])
    assert _ended(airflow, run, state="success").try_number == 1
    assert refused() <= 10


def test_a_time_out_says_how_long_and_which_generation(airflow, runs):
    """A wait that takes too long fails once, and its message holds the time, the state and the id."""
    task = _ended(airflow, runs["timed_out"], state="failed")
    log = airflow.task_log(runs["timed_out"], "wait")
    assert task.try_number == 1
    assert "ViduTimeoutError" in log
    assert "e2e-timed_out" in log


def test_a_soft_time_out_skips(airflow, runs):
    """With soft_fail a time-out marks the task as skipped, and the run succeeds."""
    task = _ended(airflow, runs["soft_fail"], state="success")
    assert task.state == "skipped"
