"""What is known of a wait that goes on, and that nothing else is claimed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduAuthError, ViduNotFoundError
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.ui.clips.facts import Clip
from airflow_provider_vidu.ui.clips.outlook import next_try, outlook
from airflow_provider_vidu.ui.clips.service import Live
from tests.unit.ui.clips.test_facts import NOW, task, view


def at(seconds: float) -> datetime:
    """Return a moment after the submit."""
    return NOW + timedelta(seconds=seconds)


def running(progress: int | None = None) -> Generation:
    """Return a generation that runs."""
    return Generation(id="g", status=GenerationStatus.RUNNING, progress=progress)


LOST = Live(error=ViduNotFoundError("no"))


def failed(*, is_transient: bool = False, was_cancelled: bool = False) -> Generation:
    """Return a generation that failed for good, for a while, or because it was cancelled."""
    code = "UserCancelled" if was_cancelled else "Broken"
    return Generation(id="g", status=GenerationStatus.FAILED, error_code=code, is_transient=is_transient)


def seen(now: datetime, live: Live, usual: tuple[float, int] | None = None, **more: Any) -> dict[str, Any]:
    """Return the outlook of a deferred task."""
    watch = {"role": "generate", **more.pop("watch", {"adaptive": True, "deadline": at(3600).timestamp()})}
    known = {"state": "deferred", "deferred_at": NOW, "attended_at": now, "started_at": NOW, **more}
    film = task(watch=watch, **known)
    return outlook(Clip("g", [film], usual=usual), live.generation, live, now)


def test_the_end_by_progress():
    """Twenty percent in ten seconds leave thirty seconds for the rest; one progress alone says nothing."""
    first = Live().answered(running(20), at(60))
    assert seen(at(60), first)["ends"] is None
    assert seen(at(71), first.answered(running(40), at(70)))["ends"] == {"at": at(100).isoformat(), "by": "progress"}


@pytest.mark.parametrize(("progress", "answered"), [(19, 70), (100, 70), (21, 86_400)])
def test_a_progress_that_predicts_nothing(progress, answered):
    """It went back, is complete, or is so slow that a guess would mislead."""
    live = Live().answered(running(20), at(60)).answered(running(progress), at(answered))
    assert seen(at(answered), live)["ends"] is None


def test_the_end_by_the_other_clips():
    """Without a progress the median of the task's other map indexes is the estimate, also when it has passed."""
    found = seen(at(90), Live(running()), usual=(65.0, 12))
    assert found["ends"] == {"at": at(65).isoformat(), "by": "others"}
    assert found["usual"] == {"seconds": 65.0, "count": 12}


def test_the_adaptive_interval_follows_state_and_age():
    """The interval shown is the schedule's own: rare in a queue, denser while it runs."""
    waiting = Live().answered(Generation(id="g", status=GenerationStatus.WAITING), at(4000))
    assert seen(at(4000), waiting)["interval"] == 100
    assert seen(at(4030), waiting.answered(running(), at(4030)))["interval"] == 20
    assert seen(at(5), Live())["interval"] is None


def test_a_wait_for_a_callback_polls_seldom():
    """The page names the longest pause: after half of the age, at least five minutes; a fixed interval is kept."""
    called = {"adaptive": True, "callback": True}
    found = [seen(at(age), Live(running()), watch=called) for age in (20, 4000)]
    assert [one["interval"] for one in found] == [300, 1800]
    assert [(one["has_callback"], one["next_poll"]) for one in found] == [(True, None)] * 2
    fixed = seen(at(20), Live(running()), watch={"poll_interval": 40.0, "callback": True})
    assert (fixed["has_callback"], fixed["interval"]) == (False, 40.0)


@pytest.mark.parametrize("interval", [-1, 0, "soon", 1e300, True])
def test_an_interval_that_is_none(interval):
    """A note is whatever a DAG has written."""
    found = seen(at(5), Live(running()), watch={"poll_interval": interval, "deadline": "never"})
    assert (found["interval"] or 1.0, found["deadline"]) == (1.0, None)


def test_a_note_of_an_earlier_version_claims_nothing():
    """It named neither deadline nor interval; the wait itself is still shown."""
    found = seen(at(5), Live(running()), watch={})
    assert [found[name] for name in ("waits", "interval", "next_poll", "deadline")] == ["triggerer", None, None, None]


@pytest.mark.parametrize(
    ("more", "place", "polls"),
    [
        ({"attended_at": None}, "unassigned", False),
        ({"attended_at": at(20)}, "unassigned", False),
        ({"state": "running", "deferred_at": None}, "worker", True),
        ({"state": "up_for_retry", "deferred_at": None}, None, False),
    ],
)
def test_where_the_wait_is(more, place, polls):
    """A trigger that no triggerer has taken up, or a dead one, polls nothing, nor does a task between two attempts."""
    found = seen(at(90), Live(running()), **more)
    assert (found["waits"], found["interval"] is not None) == (place, polls)


def test_the_first_poll_of_a_trigger():
    """Until it has come, its bounds are shown: the schedule's own."""
    first = seen(at(20), Live(running()))["next_poll"]
    assert first == {"since": at(12.5).isoformat(), "at": at(37.5).isoformat()}
    assert seen(at(20), Live(running()), attended_at=None)["next_poll"] is None  # no triggerer runs it
    assert seen(at(40), Live(running()))["next_poll"] is None


def test_polls_that_fail_come_less_often():
    """A trigger whose key is refused, or whose service is silent, waits longer than its interval."""
    assert seen(at(60), Live(running()))["is_slower"] is False
    failing = Live(running(), error=ViduAuthError("no"))
    assert seen(at(60), failing)["is_slower"] is True
    assert seen(at(60), failing, state="failed")["is_slower"] is True  # the page polls on without a task that waits


@pytest.mark.parametrize(
    ("watch", "generation", "does"),
    [
        ({"role": "generate"}, running(), "resumes this generation and pays nothing more, unless"),
        ({"role": "submit"}, None, "resumes this generation and pays nothing more, unless"),
        ({"role": "generate"}, failed(is_transient=True), "submits a new generation and pays for it."),
        ({"role": "generate"}, failed(was_cancelled=True), "submits a new generation and pays for it."),
        ({"role": "generate"}, failed(), "fails again for the same reason and pays nothing more, unless"),
        ({"role": "wait"}, failed(is_transient=True), "waits for the same generation; nothing more is paid."),
        ({"role": "download"}, None, "downloads the clip again; nothing more is paid."),
        ({"role": "download", "artifact": "video"}, None, "downloads the clip again; nothing more is paid."),
        # The first words of the page, while the download of the clip itself has failed for good.
        ({"role": "download", "artifact": "cover"}, None, "downloads the cover again (not the clip); nothing more is"),
        ({"role": "download", "artifact": "cover"}, running(), "downloads the cover if the generation has ended"),
        (
            {"role": "download"},
            running(),
            "if the generation has ended by then, and fails if not; nothing more is paid.",
        ),
    ],
)
def test_what_the_next_try_does(watch, generation, does):
    """Airflow retries by itself: the page says when, and what that costs."""
    found = next_try(Clip("g", [task(state="up_for_retry", try_number=1, watch=watch)], next_try=at(60)), generation)
    assert (found["number"], found["at"]) == (2, at(60).isoformat())
    assert does in found["does"]


@pytest.mark.parametrize(
    ("more", "number", "was_cleared", "does"),
    [
        ({"state": "scheduled", "try_number": 2}, 2, False, "It resumes this generation and pays nothing more"),
        ({"state": "queued", "try_number": 2}, 2, False, "It resumes this generation and pays nothing more"),
        ({"state": "queued", "try_number": 2, "max_tries": 3}, 2, True, "It submits a new generation and pays"),
        ({"state": None, "max_tries": 3}, 2, True, "It submits a new generation and pays for it, unless the task has"),
        ({"state": None}, 2, False, "It resumes this generation"),  # its worker was lost before it had begun
        ({"state": None, "max_tries": None}, 2, None, ""),
        ({"state": "restarting"}, 2, True, "It submits a new generation and pays"),
        # Its worker reads the DAG, and then removes what the try before has published.
        ({"state": "running", "try_number": 2}, 2, False, "It resumes this generation"),
        ({"state": "running", "try_number": 2, "max_tries": 3}, 2, True, "It submits a new generation and pays"),
        # Its worker did not find the DAG: Airflow begins it again after a minute.
        ({"state": "up_for_reschedule", "try_number": 2}, 2, False, "It resumes this generation and pays nothing more"),
    ],
)
def test_a_try_that_is_about_to_begin(more, number, was_cleared, does):
    """After a retry's delay, or a clear, what is known is of the try before."""
    watch = {"role": "generate", "try_number": 1, "max_tries": 1}
    film = task(watch=watch, **{"try_number": 1, "max_tries": 1, **more})
    found = next_try(Clip("g", [film]), running())
    assert (found["number"], found["was_cleared"], found["at"]) == (number, was_cleared, None)
    assert found["does"].startswith(does)
    assert bool(found["does"]) is bool(does)


@pytest.mark.parametrize(
    "state", ["scheduled", "queued", "running", "up_for_reschedule", "deferred", "success", "failed"]
)
def test_what_goes_on_with_its_try_has_no_next_one(state):
    """An event resumes a try, a sensor is poked once more; a note of an earlier version names no try."""
    for try_number, noted in ((1, 1), (2, 2), (2, None)):
        film = task(state=state, try_number=try_number, watch={"role": "wait", "try_number": noted})
        assert next_try(Clip("g", [film]), running()) is None


@pytest.mark.parametrize(("role", "does"), [("wait", "It waits for"), ("download", "It downloads the clip of")])
def test_the_next_try_after_a_clear_beside_another_task(role, does):
    """The task that submits may have been cleared too: then what is given next is not this generation."""
    watch = {"role": role, "try_number": 1, "max_tries": 0}
    cleared = task("then", state=None, try_number=1, max_tries=1, watch=watch)
    alone = next_try(Clip("g", [cleared]), running())["does"]
    assert alone.startswith(f"{does} the generation that it is given then: this one, unless the task that submits was")
    submits = task(watch={"role": "submit", "try_number": 1, "max_tries": 0}, max_tries=0)
    assert next_try(Clip("g", [submits, cleared]), running())["does"].endswith("nothing more is paid.")


def test_what_is_not_known_of_the_next_try():
    """An equal order's generation may be submitted again or not; a task that has ended has no next try."""
    reused = task(state="up_for_retry", watch={"role": "wait", "shared": True})
    found = next_try(Clip("g", [reused]), running())
    assert (found["does"], found["at"]) == ("", None)
    assert next_try(Clip("g", [task(state="failed")]), failed()) is None
    lost = next_try(Clip("g", [task(state="up_for_retry", watch={"role": "generate"})]), None, LOST)
    assert lost["does"].startswith("It fails if the service does not find this generation then, unless")
    by_hook = task(state="up_for_retry", watch={"role": "submit", "by": "hook"})
    assert next_try(Clip("g", [by_hook]), running())["does"] == "What it submits and pays for, its own code decides."


def test_a_try_that_is_to_come_has_a_timeout_of_its_own():
    """The deadline of the earlier one is over with it; its log is the one that there is."""
    watch = {"role": "generate", "deadline": at(3600).timestamp(), "try_number": 1}
    put_off = ("up_for_reschedule", 2, 2)
    begun_tries = (("up_for_retry", 1, 1), ("queued", 2, 1), ("running", 2, 2), put_off, ("deferred", 1, 1))
    for state, try_number, begun in begun_tries:
        known = {"state": state, "try_number": try_number, "deferred_at": at(0) if state == "deferred" else None}
        shown = view(task(watch=watch, **known), live=Live(running()), over=False)
        assert (shown["outlook"]["deadline"] is None) is (state != "deferred")
        assert shown["task"]["begun_tries"] == begun


@pytest.mark.parametrize(
    ("state", "try_number", "times"),
    [
        ("queued", 2, (False, False)), (None, 1, (False, False)), ("scheduled", 1, (True, False)),
        ("up_for_retry", 1, (True, True)), ("running", 1, (True, False)), ("running", 2, (True, False)),
        ("failed", 1, (True, True)),
    ],
)  # fmt: skip
def test_the_times_of_an_earlier_try_are_not_those_of_the_next(state, try_number, times):
    """Airflow keeps them in the task instance until the next try begins: "queued, ended at …" would be neither."""
    watch = {"role": "generate", "try_number": 1, "max_tries": 1}
    film = task(state=state, try_number=try_number, watch=watch, started_at=at(0), ended_at=at(60))
    shown = view(film, live=Live(running()), over=False)["task"]
    assert tuple(shown[name] is not None for name in ("started_at", "ended_at")) == times


def test_what_no_task_waits_for_has_no_elapsed_time():
    """If the service does not show it, it may have ended long ago; one that is shown goes on."""
    film = task(state="failed", watch={"conn_id": "c", "role": "wait"})
    assert view(film, live=Live(error=ViduNotFoundError("no")))["outlook"]["since"]["at"] is None
    assert view(film, live=Live(running()))["outlook"]["since"]["at"] is not None


def test_a_finished_clip_has_no_outlook():
    """It is shown while something is still to come, and only then."""
    assert view(task(state="deferred", watch={"role": "generate"}), over=False)["outlook"]["waits"] == "triggerer"
    done = Live(Generation(id="g", status=GenerationStatus.FAILED))
    assert view(task(state="failed"), live=done)["outlook"] is None


def test_the_retry_of_the_clip_is_named_before_that_of_its_cover():
    """Else the page would say that a retry does not download the clip, while another one does."""
    keeps = {"role": "download"}
    cover = task("cover", state="up_for_retry", try_number=1, watch={**keeps, "artifact": "cover"})
    video = task("video", state="up_for_retry", try_number=1, watch={**keeps, "artifact": "video"})
    assert next_try(Clip("g", [cover, video], next_try=at(60)), None)["task"] == "video"
