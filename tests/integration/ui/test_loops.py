"""Task loops of Airflow 3.4: each iteration has a page, a state and neighbours of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from airflow_provider_vidu.ui.clips.clears import LATER_ITERATIONS
from private_airflow import wait_for
from tests.versions import AIRFLOW

pytestmark = pytest.mark.skipif(AIRFLOW < (3, 4), reason="Airflow has no task loops before 3.4")

MADE = {"conn_id": "none", "role": "generate"}
PLACE = ("task_id", "map_index", "iteration", "region_id", "region_index")
NO_ITERATION = (
    "This task is in a loop, so the address of a clip must name the iteration. The link “Watch” of the task instance "
    "does, and so do the clips of the run on its tab “Vidu clips”."
)
STAGES = ("success", "failed", "success")


@pytest.fixture(scope="module")
def loop(pages) -> UUID:
    """Run a loop three times: one clip by itself and two that are mapped, of which the second by itself failed."""
    region = pages.add_region("looped", "takes")
    began = datetime.now(UTC) - timedelta(hours=1)
    for iteration, state in enumerate(STAGES):
        at = began + timedelta(minutes=iteration)
        pages.add(
            "takes.film", f"film-{iteration}", dag="looped", index=iteration, region=region, state=state, at=at,
            watch=MADE, fields={"prompt": f"take {iteration}"},
        )  # fmt: skip
        mapped = pages.add_region("looped", "takes.reel", parent=(region, iteration))
        for index in range(2):
            name = f"reel-{iteration}-{index}"
            pages.add("takes.reel", name, dag="looped", index=index, region=mapped, at=at, watch=MADE)
    return region


def test_the_sheet_has_every_iteration_with_its_own_state(pages, loop):
    """A failed iteration does not count as ready because others are; clips stand in the order of the iterations."""
    path = pages.at("x", dag="looped").partition("/tasks")[0]
    sheet = pages.get(f"{path}/clips.json", user="admin").json()
    assert sheet["counts"] == {"working": 0, "submitted": 0, "ready": 8, "stored": 0, "failed": 1}
    found = [(clip["task_id"], clip["iteration"], clip["map_index"]) for clip in sheet["clips"]]
    films = [("takes.film", iteration, -1) for iteration in range(3)]
    assert found == [*films, *(("takes.reel", iteration, index) for iteration in range(3) for index in range(2))]
    (failed,) = pages.get(f"{path}/clips.json?stage=failed", user="admin").json()["clips"]
    assert (failed["generation_id"], failed["region_id"], failed["region_index"]) == ("film-1", str(loop), 1)
    assert failed["prompt"] == "take 1"


def test_each_iteration_has_a_page(pages, loop):
    """Its address leads to its own clip, before and after it stand the neighbours; without one there is no guess."""
    for iteration, state in enumerate(STAGES):
        shown = pages.clip("takes.film", user="admin", dag="looped", region=loop, index=iteration)
        assert (shown["generation_id"], shown["task"]["state"]) == (f"film-{iteration}", state)
        assert (shown["task"]["iteration"], shown["prompt"]) == (iteration, f"take {iteration}")
        assert [each["state"] for each in shown["tasks"]] == [state]
        assert shown["place"] == [iteration + 1, 9]
        assert f"Task: takes.film · iteration {iteration}, try 1" in shown["support"]
    assert (shown["before"]["iteration"], shown["after"]["task_id"]) == (1, "takes.reel")
    for task, index in (("takes.film", -1), ("takes.reel", 1)):
        answer = pages.get(pages.at(task, dag="looped", index=index, then="/clip.json"), user="admin")
        assert (answer.status_code, answer.json()["detail"]) == (404, NO_ITERATION)
        assert answer.headers["Vidu-Address"] == "ambiguous"
    page = pages.at("takes.film", dag="looped", region=loop, index=1)
    assert [pages.get(page, user=user).status_code for user in ("admin", "vera")] == [200, 403]


def test_an_iteration_may_publish_several_generations(pages):
    """Each has a page behind that of its iteration, and the pages lead from one to the next."""
    region = pages.add_region("several", "takes")
    for iteration in range(2):
        pages.add(
            "takes.film", f"one-{iteration}", dag="several", index=iteration, region=region, watch=MADE,
            label=f"take {iteration}", more=[(f"two-{iteration}", MADE)],
        )  # fmt: skip
    where = {"dag": "several", "region": region}
    first = pages.clip("takes.film", user="admin", index=0, **where)
    assert first["after"] == {**{name: first[name] for name in PLACE}, "number": 2}
    second = pages.at("takes.film", index=0, **where, then="/generations/2")
    assert pages.get(second, user="admin").status_code == 200
    shown = pages.get(f"{second}/clip.json", user="admin").json()
    assert (shown["generation_id"], shown["number"], shown["label"]) == ("two-0", 2, "take 0")
    assert (shown["place"], shown["after"]["iteration"], "number" in shown["after"]) == ([2, 4], 1, False)
    for number in (0, 3):
        missing = pages.at("takes.film", index=0, **where, then=f"/generations/{number}/clip.json")
        assert pages.get(missing, user="admin").status_code == 404


def test_a_user_ended_one_iteration(pages):
    """The audit log names the region and the index: no other iteration counts as marked."""
    region = pages.add_region("marked", "takes")
    now = datetime.now(UTC)
    for iteration in range(2):
        pages.add(
            "takes.film", f"marked-{iteration}", dag="marked", index=iteration, region=region, state="failed",
            watch=MADE, at=now,
        )  # fmt: skip
    extra = {"new_state": "failed", "region_id": str(region), "region_index": 0, "map_index": -1}
    pages.act("patch_task_instance", extra, dag="marked", task="takes.film", at=now)
    for iteration, why in enumerate(["A user marked the task {} as failed.", "The task {} failed; its log says why."]):
        error = pages.clip("takes.film", user="admin", dag="marked", region=region, index=iteration)["error"]
        assert why.format(f"takes.film · iteration {iteration}") in error["message"]


def test_a_running_iteration_is_compared_with_the_others(pages):
    """Its page says how long the other iterations took."""
    region = pages.add_region("running", "takes")
    began = datetime.now(UTC) - timedelta(minutes=9)
    for iteration, state in enumerate(["success", "success", "running"]):
        at = began + timedelta(minutes=4 * iteration)
        pages.add(
            "takes.film", f"running-{iteration}", dag="running", index=iteration, region=region, state=state,
            watch=MADE, at=at, ended=at + timedelta(seconds=60),
        )  # fmt: skip
    shown = pages.clip("takes.film", user="admin", dag="running", region=region, index=2)
    assert shown["outlook"]["usual"] == {"seconds": 60.0, "count": 2}


def test_one_walks_through_mapped_clips_of_all_iterations(pages, loop):
    """From the last of one iteration to the first of the next."""
    clip = pages.clip("takes.reel", user="admin", dag="looped", region=pages.regions["takes.reel", 0], index=0)
    seen = [clip["generation_id"]]
    while clip["after"]:
        place = clip["after"]
        clip = pages.clip(
            "takes.reel", user="admin", dag="looped", region=place["region_id"], index=place["region_index"]
        )
        seen.append(clip["generation_id"])
    assert seen == [f"reel-{iteration}-{index}" for iteration in range(3) for index in range(2)]
    assert (clip["before"]["iteration"], clip["before"]["map_index"]) == (2, 0)


def test_an_address_from_before_a_clear_leads_to_the_same_iteration(pages):
    """A clear archives the later iterations and begins them in a new region, forked from the old one."""
    old = pages.add_region("forked", "takes")
    old_reel = pages.add_region("forked", "takes.reel", parent=(old, 1))
    for iteration in range(2):
        pages.add(
            "takes.film",
            f"old-{iteration}",
            dag="forked",
            index=iteration,
            region=old,
            watch=MADE,
            archived=None if not iteration else "superseded",
        )
    pages.add("takes.reel", "old-reel", dag="forked", index=0, region=old_reel, watch=MADE, archived="superseded")
    address = pages.at("takes.film", dag="forked", region=old, index=1, then="/clip.json")
    assert pages.get(address, user="admin").status_code == 404

    new = pages.add_region("forked", "takes", forked_from=old, resumes_from=1)
    new_reel = pages.add_region("forked", "takes.reel", parent=(new, 1))
    pages.add("takes.film", "new-1", dag="forked", index=1, region=new, watch=MADE)
    pages.add("takes.reel", "new-reel", dag="forked", index=0, region=new_reel, watch=MADE)
    # An answer that took long is kept for a moment.
    assert wait_for(lambda: pages.get(address, user="admin").status_code == 200, 30, every=0.3)
    for region in (old, new):
        shown = pages.clip("takes.film", user="admin", dag="forked", region=region, index=1)
        assert (shown["generation_id"], shown["task"]["region_id"]) == ("new-1", str(new))
    assert shown["before"]["region_id"] == str(old)
    for region in (old_reel, new_reel):
        assert (
            pages.clip("takes.reel", user="admin", dag="forked", region=region, index=0)["generation_id"] == "new-reel"
        )
    sheet = pages.get(pages.at("x", dag="forked").partition("/tasks")[0] + "/clips.json", user="admin").json()
    assert [clip["generation_id"] for clip in sheet["clips"]] == ["old-0", "new-1", "new-reel"]


def test_a_mapped_task_outside_loops_keeps_its_address(pages):
    """It has a region on 3.4, too, but its map index says all."""
    region = pages.add_region("plain", "scene")
    pages.add("scene", "scene-3", dag="plain", index=3, region=region, watch=MADE)
    shown = pages.clip("scene", user="admin", dag="plain", index=3)
    assert (shown["generation_id"], shown["task"]["region_id"], shown["task"]["iteration"]) == ("scene-3", None, None)


@pytest.mark.parametrize("region", ["00000000-0000-0000-0000-00000000beef", "x", "' or 1=1"])
def test_an_unknown_region_is_refused(pages, loop, region):
    """Only an id that this run's loop has leads anywhere."""
    answer = pages.get(pages.at("takes.film", dag="looped", region=region, index=0, then="/clip.json"), user="admin")
    assert answer.status_code in (404, 422)


def test_an_iteration_that_no_worker_has_begun(pages):
    """It has no log, though the same task has run in other iterations, and at other map indexes of its own."""
    region = pages.add_region("unrun", "takes")
    own, other = (pages.add_region("unrun", "takes.reel", parent=(region, iteration)) for iteration in range(2))
    for task, where, ran, unrun in (("takes.film", region, 0, 1), ("takes.reel", own, 1, 0)):
        pages.add(task, None, dag="unrun", region=where, index=ran, state="failed")
        pages.add(task, None, dag="unrun", region=where, index=unrun, state="upstream_failed", tried=0, worker="")
        for index in (ran, unrun):
            address = pages.at(task, dag="unrun", region=where, index=index, then="/clip.json")
            detail = pages.get(address, user="admin").json()["detail"]
            assert ("was never begun by a worker" in detail) is (index == unrun)
            assert ("log says" in detail) is (index == ran)
            assert detail.endswith(LATER_ITERATIONS) is (index == ran)
    # The neighbour of another iteration has the same map index.
    pages.add("takes.reel", None, dag="unrun", region=other, index=0, state="failed")
    address = pages.at("takes.reel", dag="unrun", region=own, index=0, then="/clip.json")
    assert "was never begun by a worker" in pages.get(address, user="admin").json()["detail"]


def test_an_iteration_that_has_run_before_a_clear(pages):
    """Its log is that of an archived try, in the region before: what that one submitted may be paid for."""
    old = pages.add_region("ran", "takes")
    new = pages.add_region("ran", "takes", forked_from=old, resumes_from=1)
    pages.add("takes.film", None, dag="ran", region=old, index=1, state="failed", archived="superseded")
    pages.add("takes.film", None, dag="ran", region=new, index=1, state="upstream_failed", worker="")
    address = pages.at("takes.film", dag="ran", region=new, index=1, then="/clip.json")
    detail = pages.get(address, user="admin").json()["detail"]
    assert "Its log says why, and whether it sent a request" in detail


def test_a_mapped_task_that_no_worker_has_begun(pages):
    """Another of its map indexes has run."""
    region = pages.add_region("unrun-mapped", "scene")
    for index, worker in enumerate(["worker", ""]):
        pages.add("scene", None, dag="unrun-mapped", index=index, region=region, state="upstream_failed", worker=worker)
    for index in range(2):
        address = pages.at("scene", dag="unrun-mapped", index=index, then="/clip.json")
        assert ("was never begun" in pages.get(address, user="admin").json()["detail"]) is (index == 1)
