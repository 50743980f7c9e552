"""When things happened: what was reported is a fact, what was observed has bounds, and nothing else is claimed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduServerError
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.ui.clips.facts import Action
from airflow_provider_vidu.ui.clips.service import NOT_ASKED, Live
from airflow_provider_vidu.ui.clips.times import UNKNOWN, Moment, observed
from tests.unit.ui.clips.test_facts import NOW, made, task, view

FAILED = Generation.model_validate(made(status=GenerationStatus.FAILED, created_at=None, completed_at=None))
SUCCEEDED = Generation.model_validate(made(created_at=None, completed_at=None))


def at(seconds: float) -> datetime:
    """Return a moment after the submit."""
    return NOW + timedelta(seconds=seconds)


def steps(*tasks: Any, live: Live = NOT_ASKED) -> dict[str, dict[str, Any]]:
    """Return the steps of the timeline by their names."""
    return {step["name"]: step for step in view(*tasks, live=live)["timeline"]}


@pytest.mark.parametrize(
    ("by", "not_before", "expected"),
    [
        ([], [at(0)], UNKNOWN),
        ([at(9), None, at(5)], [None], Moment(at(5), is_exact=False)),
        ([at(9), at(5)], [at(1), at(3)], Moment(at(5), is_exact=False, since=at(3))),
        ([at(2), at(9)], [at(3)], Moment(at(9), is_exact=False, since=at(3))),
        ([at(3.8)], [at(3)], Moment(at(3.8))),
    ],
)
def test_what_observations_say(by, not_before, expected):
    """The earliest sighting after the last contradiction bounds a moment; bounds a second apart are a fact."""
    assert observed(by, not_before) == expected


def test_a_service_without_times_gives_bounds():
    """The failed task saw the end long before a page did; the page's last poll before it is the other bound."""
    film = task(state="failed", watch={"role": "generate"}, ended_at=at(65))
    seen = steps(film, live=Live(FAILED, done_since=at(780)))
    assert (seen["failed"]["at"], seen["failed"]["since"]) == (at(65).isoformat(), None)
    assert (seen["failed"]["is_exact"], seen["failed"]["seconds"]) == (False, None)
    seen = steps(film, live=Live(FAILED, busy_until=at(50), done_since=at(780)))
    assert (seen["failed"]["at"], seen["failed"]["since"]) == (at(65).isoformat(), at(50).isoformat())


@pytest.mark.parametrize(
    ("live", "more"),
    [
        (Live(SUCCEEDED, done_since=at(900)), {}),  # a task that failed proves no success
        (Live(FAILED, done_since=at(900), busy_until=at(80)), {}),  # it was seen alive afterwards
        (Live(FAILED, done_since=at(900)), {"watch": {"role": "generate", "deadline": at(60).timestamp()}}),
    ],
    ids=["clip is fine", "seen alive", "timed out"],
)
def test_a_task_that_ended_before_its_generation_dates_nothing(live, more):
    """Only the end of a task that ended because the generation did says when that was."""
    film = task(state="failed", ended_at=at(65), **{"watch": {"role": "generate"}, **more})
    step = steps(film, live=live)["done" if live.generation is SUCCEEDED else "failed"]
    assert step["at"] == at(900).isoformat()


def test_a_submit_only_result_dates_no_end():
    """The XCom of a task that did not wait was stored at the submit, not when the generation was done."""
    result = made(status=GenerationStatus.WAITING, completed_at=None, created_at=None)
    film = task(watch={"role": "submit"}, result=result, result_at=at(1), ended_at=at(1))
    assert steps(film, live=Live(SUCCEEDED, done_since=at(300)))["done"]["at"] == at(300).isoformat()


def test_the_submit_as_the_order_recorded_it():
    """The order's time is a fact; without one the moment of the XCom is when it was seen."""
    assert steps(task(watch={"role": "generate", "created_at": "2026-01-02T11:59:00+00:00"}))["queued"] == {
        "name": "queued", "at": "2026-01-02T11:59:00+00:00", "is_exact": True, "since": None, "seconds": None,
        "reached": True, "current": True,
    }  # fmt: skip
    assert steps(task(watch={"role": "generate"}))["queued"]["is_exact"] is False


def test_a_start_lies_between_two_polls():
    """The service does not say when it began: the polls of this server do, and a result keeps them."""
    live = Live(waiting_until=at(-25), running_since=at(-20))
    film = task(result=made(), result_at=NOW, watch={"role": "generate"})
    seen = view(film, live=live)["timeline"]
    assert [(step["name"], step["since"], step["at"], step["seconds"]) for step in seen][:3] == [
        ("queued", None, at(-30).isoformat(), None),
        ("running", at(-25).isoformat(), at(-20).isoformat(), None),
        ("done", None, at(0).isoformat(), 30),
    ]


def test_what_polls_leave_behind():
    """Each answer moves the bounds; an error moves none, and keeps the last known state."""
    word = {name: Generation(id="g", status=GenerationStatus(name)) for name in ("waiting", "running", "failed")}
    live = NOT_ASKED.answered(word["waiting"], at(5)).answered(word["waiting"], at(10))
    live = live.answered(word["running"].model_copy(update={"progress": 20}), at(15)).answered(word["running"], at(20))
    live = live.failed(ViduServerError("x"), at(25))
    assert (live.asked_at, live.answered_at, live.generation) == (at(25), at(20), word["running"])
    live = live.answered(word["failed"], at(30)).answered(word["failed"], at(630))
    assert (live.waiting_until, live.running_since, live.busy_until, live.done_since) == (
        at(10),
        at(15),
        at(20),
        at(30),
    )
    assert live.first_progress == (20, at(15))
    assert live.error is None
    assert live.seen() == Live(waiting_until=at(10), running_since=at(15), busy_until=at(20))


def test_a_kill_dates_no_end():
    """A task that a user has marked as failed ended before its generation did, or may have."""
    from airflow_provider_vidu.ui.clips.facts import Clip
    from airflow_provider_vidu.ui.clips.times import ended

    film = task(state="failed", watch={"role": "generate"}, ended_at=at(65))
    live = Live(FAILED, done_since=at(900))
    assert ended(Clip("g", [film]), FAILED, live).at == at(65)
    assert ended(Clip("g", [film], actions=[Action("failed", at(64))]), FAILED, live).at == at(900)


def test_a_stored_file_dates_the_end():
    """Where the task that made it was cleared since, only the file and a later look show that it has ended."""
    record = {"uri": "file:///data/g.mp4", "size": 1, "generation_id": "g"}
    kept = task("keep", watch={"role": "download"}, result=record, result_at=at(60), ended_at=at(61))
    seen = steps(kept, live=Live(SUCCEEDED, done_since=at(300), busy_until=at(20)))["done"]
    assert (seen["since"], seen["at"]) == (at(20).isoformat(), at(60).isoformat())


def test_a_reused_file_was_stored_by_then():
    """Another task has stored it, maybe days before: only that it was there is known."""
    record = {"uri": "file:///data/g.mp4", "size": 1, "generation_id": "g"}
    result = {**made(created_at=None, completed_at=None), "file": record, "reused_from": "g"}
    film = task(watch={"role": "wait", "stores": "file"}, result=result, result_at=at(5))
    seen = steps(film)["stored"]
    assert (seen["reached"], seen["at"], seen["is_exact"]) == (True, at(5).isoformat(), False)


def test_a_run_that_is_over_stores_nothing_more():
    """The step "Stored" is to come while the run goes on, and there only if it has happened once the run is over."""
    film = task(watch={"role": "generate"}, result=made(), result_at=NOW)
    names = {over: [step["name"] for step in view(film, over=over)["timeline"]] for over in (False, True)}
    assert names == {False: ["queued", "done", "stored"], True: ["queued", "done"]}
