"""A task loop on a real Airflow 3.4: one job for each iteration, each with a page and a state of its own."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from private_airflow import PrivateAirflow, Run, wait_for
from tests.versions import AIRFLOW

pytestmark = [
    pytest.mark.skipif(AIRFLOW < (3, 4), reason="Airflow has no task loops before 3.4"),
    pytest.mark.nightly,  # minutes: a part of `make matrix` of its own
]


def instance(airflow: PrivateAirflow, run: Run, task_id: str, iteration: int, map_index: int = -1) -> Any:
    """Return what Airflow says of a task instance in the loop, or None before there is one."""
    found = [
        one for one in airflow.api("GET", f"{run.path}/taskInstances?limit=100")["task_instances"]
        if (one["task_id"], one["map_index"]) == (task_id, map_index)
        and (one.get("loop_iteration") or {}).get("iteration") == iteration
    ]  # fmt: skip
    return found[0] if found else None


def watch_link(airflow: PrivateAirflow, run: Run, one: Any) -> str:
    """Return the Watch link that Airflow's UI shows for a task instance."""
    index = f"&map_index={one['map_index']}" if one["map_index"] >= 0 else ""
    where = f"region_id={one['region_id']}&region_index={one['region_index']}{index}"
    return airflow.api("GET", f"{run.path}/taskInstances/{one['task_id']}/links?{where}")["extra_links"]["Watch"]


def charge(service: Any, generation_id: str) -> str:
    """Return what the service's ledger says of a job."""
    return next(create.charge for create in service.creates if create.id == generation_id)


def test_each_iteration_has_a_job_a_page_and_a_state_of_its_own(airflow, begun, sandbox, patient):
    """A user cancels the second film: its job alone, and neither its page nor the sheet takes it for another."""
    run = begun["loop"]
    assert wait_for(lambda: (instance(airflow, run, "takes.film", 1) or {}).get("state") == "deferred", 240)
    (create,) = [create for create in patient.creates if create.body["prompt"] == "loop 1"]
    # The first poll is the worker's: a kill before the triggerer has taken up the wait tells nobody.
    assert wait_for(lambda: len(patient.requests("query", create.id)) > 1, 90)
    film = instance(airflow, run, "takes.film", 1)
    where = f"region_id={film['region_id']}&region_index=1"
    airflow.api("PATCH", f"{run.path}/taskInstances/takes.film?{where}", {"new_state": "failed"})
    assert wait_for(lambda: charge(patient, create.id) == "cancelled", 90)
    assert airflow.wait(run, timeout=300) == "success", airflow.states(run)

    made = {create.body["prompt"]: create for create in [*sandbox.creates, *patient.creates]}
    wanted = {f"loop {index}": ("takes.film", index, -1) for index in range(3)}
    wanted |= {f"loop {index} reel {reel}": ("takes.reel", index, reel) for index in range(3) for reel in range(2)}
    for prompt, (task_id, iteration, map_index) in wanted.items():
        one = instance(airflow, run, task_id, iteration, map_index)
        shown = airflow.ask("GET", f"{watch_link(airflow, run, one)}/clip.json")
        assert shown["generation_id"] == made[prompt].id
        assert (shown["task"]["iteration"], shown["task"]["state"]) == (iteration, one["state"])
        assert made[prompt].charge == ("cancelled" if prompt == "loop 1" else "charged")
    sheet = airflow.ask("GET", f"/vidu/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}/clips.json")
    assert sheet["counts"] == {"working": 0, "submitted": 0, "ready": 8, "stored": 0, "failed": 1}


def test_the_example_stops_at_the_first_take_that_is_good_enough(airflow, begun, sandbox, videos):
    """One generation, one file, and no second iteration."""
    run = begun["example_loop"]
    assert airflow.wait(run, timeout=240) == "success", airflow.states(run)
    (create,) = [create for create in sandbox.creates if create.body["prompt"].startswith("a heron")]
    (file,) = (videos / "loop").iterdir()
    assert create.body["prompt"] == "a heron, take 1"
    assert file.read_bytes() == sandbox.file_bytes(create.id)
