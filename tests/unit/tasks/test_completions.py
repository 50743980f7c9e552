"""The memory of an event source: which generations have ended, each reported once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_vidu.api.dialects.task_list import Page
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConfigError,
    ViduNotFoundError,
    ViduRateLimitError,
    ViduRequestError,
    ViduServerError,
)
from airflow_provider_vidu.models import Generation, GenerationStatus, Snapshot
from airflow_provider_vidu.polling.watch import PollPolicy
from airflow_provider_vidu.tasks.completions import HOPELESS_PAUSE, KEPT, CompletionTracker, named
from tests.rows import each_row

NOW = 1_800_000_000.0
POLICY = PollPolicy.for_trigger(60.0)
URL = "https://cdn.example.com/v.mp4?sig=hush"


def seen(name: str, status: str = "succeeded", *, age: float | None = 0, url: str | None = URL) -> Generation:
    """Return a generation that was created ``age`` seconds ago."""
    created = None if age is None else datetime.fromtimestamp(NOW, UTC) - timedelta(seconds=age)
    return Generation(id=name, status=status, provider_status=status, video_url=url, created_at=created)


def tell(finished: CompletionTracker, *generations: Generation) -> list[str]:
    """Let the service answer every question of a round with these; return the ids that were reported."""
    by_id = {generation.id: generation for generation in generations}
    told = []
    for name in finished.to_poll(NOW):
        event, _ = finished.saw(by_id[name], NOW)
        told += [event["generation_id"]] if event else []
    return told


def test_named_generations_are_told_once():
    """Each is reported when it has ended, also when that was before the first look, and never again."""
    finished = CompletionTracker(POLICY, ["a", "b"])
    assert tell(finished, seen("a"), seen("b", "running")) == ["a"]
    assert finished.to_poll(NOW) == ["b"]
    assert tell(finished, seen("b", "failed")) == ["b"]
    assert finished.to_poll(NOW) == []


def test_an_event_is_that_of_the_other_trigger_and_holds_no_url():
    """A failure carries its reason; no URL is in any event."""
    finished = CompletionTracker(POLICY, ["a"])
    finished.to_poll(NOW)
    event, note = finished.saw(seen("a", "failed"), NOW)
    assert (event["outcome"], event["error"]["type"]) == ("failed", "ViduGenerationFailedError")
    assert "hush" not in json.dumps(event)
    assert "Generation a" in note


def test_success_without_a_url_is_no_end_yet():
    """The service is asked some more times before the event tells that there is no video."""
    finished = CompletionTracker(POLICY, ["a"])
    found = []
    for _ in range(POLICY.missing_url_polls + 1):
        finished.to_poll(NOW)
        found.append(finished.saw(seen("a", url=None), NOW)[0])
    assert found[:-1] == [None] * POLICY.missing_url_polls
    assert found[-1]["error"]["type"] == "ViduMissingVideoError"


def test_the_first_look_at_a_list_tells_nothing_old():
    """What had ended before the first look is not news; what ends after it is."""
    finished = CompletionTracker(POLICY)
    finished.listed([seen("new", "running"), seen("old")], NOW)
    assert finished.to_poll(NOW) == []
    finished.listed([seen("new"), seen("old")], NOW)
    assert tell(finished, seen("new")) == ["new"]
    finished.listed([seen("new"), seen("old")], NOW)
    assert finished.to_poll(NOW) == []


def test_since_draws_the_line_by_the_time_of_creation():
    """With ``since`` the first look tells what was created after it; the oldest comes first."""
    finished = CompletionTracker(POLICY, since=NOW - 100)
    finished.listed([seen("c", age=10), seen("b", age=50), seen("a", age=500), seen("undated", age=None)], NOW)
    assert finished.to_poll(NOW) == ["b", "c"]
    finished.listed([seen("a", age=500)], NOW)
    assert "a" not in finished.to_poll(NOW)


def test_what_the_list_shows_no_longer_is_asked_by_its_id():
    """A generation that newer ones have pushed off the list's page is not lost."""
    finished = CompletionTracker(POLICY)
    finished.listed([seen("a", "running")], NOW)
    finished.listed([seen("b", "running")], NOW)
    assert finished.to_poll(NOW) == ["a"]
    assert tell(finished, seen("a")) == ["a"]


def test_a_memory_goes_on_where_another_process_ended():
    """What ended in between is reported, once only, and what was at work is queried."""
    first = CompletionTracker(POLICY)
    first.listed([seen("open", "running"), seen("old")], NOW)
    memory = json.loads(json.dumps(first.memory()))
    second = CompletionTracker(POLICY)
    second.remember(memory, NOW)
    second.listed([seen("between"), seen("old")], NOW)
    assert tell(second, seen("open"), seen("between")) == ["open", "between"]


def test_a_memory_of_named_generations():
    """A named generation that was reported is not queried again."""
    first = CompletionTracker(POLICY, ["a", "b"])
    tell(first, seen("a"), seen("b", "running"))
    second = CompletionTracker(POLICY, ["a", "b"])
    second.remember(first.memory(), NOW)
    assert second.to_poll(NOW) == ["b"]


@pytest.mark.parametrize("memory", [None, "x", [], {"told": 7, "open": [None]}])
def test_a_memory_that_is_none(memory):
    """Nonsense in the store is ignored."""
    finished = CompletionTracker(POLICY)
    finished.remember(memory, NOW)
    finished.listed([seen("a", "running")], NOW)
    assert finished.to_poll(NOW) == []


def test_the_memory_is_bounded():
    """An account with many generations does not fill the store; what had ended before the first look needs no id."""
    finished = CompletionTracker(POLICY)
    finished.listed([seen(str(number), age=number) for number in range(3 * KEPT)], NOW)
    memory = finished.memory()
    assert len(memory["told"]) == len(memory["times"]) <= KEPT
    assert len(json.dumps(memory)) < 65_536
    assert memory["told"][-1] == "0"


DAYS = 86_400


@each_row("age", [-3 * DAYS, -7000 * 365 * DAYS])
def test_a_time_that_has_not_come_hides_nothing(age):
    """One entry with such a time drew the line there: nothing was reported any more, nor after a restart."""
    finished = CompletionTracker(POLICY)
    finished.listed([seen("odd", age=age), seen("a", "running")], NOW)
    finished.listed([seen("b"), seen("odd", age=age), seen("a")], NOW)
    assert tell(finished, seen("a"), seen("b")) == ["a", "b"]
    restarted = CompletionTracker(POLICY)
    restarted.remember({**finished.memory(), "line": NOW - age}, NOW)
    restarted.listed([seen("c"), seen("odd", age=age), seen("b"), seen("a")], NOW)
    assert tell(restarted, seen("c")) == ["c"]


def page_of(*generations: Generation) -> Page:
    """Return the list's only page."""
    return Page(generations, len(generations), None, True)


def test_more_than_the_memory_holds_is_known_by_its_time():
    """Far more than the remembered ids: the line moves up to what was forgotten, and nothing is reported twice."""
    finished = CompletionTracker(POLICY)
    finished.listed([], NOW)
    many = [seen(str(number), age=number) for number in range(3 * KEPT)]
    finished.listed(many, NOW)
    assert len(tell(finished, *many)) == 3 * KEPT
    again = CompletionTracker(POLICY)
    again.remember(json.loads(json.dumps(finished.memory())), NOW)
    for known in (finished, again):
        known.listed(many, NOW)
        assert known.to_poll(NOW) == []


def test_a_memory_of_an_older_version():
    """It holds ids of one page alone: what is older than the newest of them was reported or had ended before."""
    finished = CompletionTracker(POLICY)
    finished.remember({"told": ["b"], "open": ["a"]}, NOW)
    finished.listed([seen("c", age=5), seen("b", age=10), seen("older", age=20), seen("a", age=30)], NOW)
    assert finished.to_poll(NOW) == ["a", "c"]


def test_the_walk_ends_where_everything_is_known():
    """The first look reads on; later ones end at a page without news, but not before many unfinished are seen."""
    finished = CompletionTracker(POLICY)
    full = [seen(str(number), "running", age=number) for number in range(150)]
    for is_first in (True, False):
        walk = finished.listing()
        walk.take(Page(tuple(full[:100]), 100, None, True))
        assert walk.query is not None
        walk.take(Page(tuple(full[100:]), 50, None, True))
        assert walk.ended
        if is_first:
            finished.listed(walk.generations, NOW)
    walk = finished.listing()
    walk.take(page_of(*full[:145]))
    assert walk.query is None
    assert not walk.ended


def test_the_list_is_bounded_by_time():
    """From the second round on the list begins a day before the oldest that is of interest."""
    finished = CompletionTracker(POLICY)
    assert "created_at.from" not in finished.listing().query
    finished.listed([seen("b", age=10), seen("a", "running", age=7200)], NOW)
    begin = datetime.fromtimestamp(NOW - 7200 - 86_400, UTC).strftime("%Y-%m-%dT%H%%3A%M%%3A%SZ")
    assert f"created_at.from={begin}" in finished.listing().query
    assert "created_at.from" in CompletionTracker(POLICY, since=NOW).listing().query


def test_a_filter_that_the_service_reads_otherwise_is_given_up():
    """An empty list although something known should be on it: from then on the whole list is read."""
    finished = CompletionTracker(POLICY)
    finished.listed([seen("a", "running", age=5)], NOW)
    walk = finished.listing()
    walk.take(page_of())
    assert finished.distrusts(walk)
    assert "created_at.from" not in finished.listing().query
    assert not finished.distrusts(walk)
    assert not finished.drop_filter()


def test_a_refused_filter_is_given_up():
    """A service that answers 400 to the filter is asked without it."""
    finished = CompletionTracker(POLICY, since=NOW)
    assert finished.drop_filter()
    assert "created_at.from" not in finished.listing().query


def test_an_unknown_id_is_given_up_after_the_grace():
    """A generation may be unknown for a moment; after that it is no longer watched, and that is said."""
    finished = CompletionTracker(POLICY, ["a"])
    finished.to_poll(NOW)
    assert finished.missed("a", ViduNotFoundError("no such task"), NOW + 1) is None
    assert "no longer watched" in finished.missed("a", ViduNotFoundError("no such task"), NOW + POLICY.grace)
    assert finished.to_poll(NOW) == []


def test_trouble_is_told_when_it_changes():
    """Rounds with the same failure are silent and farther apart; its end is logged."""
    finished = CompletionTracker(POLICY)
    delays, notes = zip(*(finished.pause([ViduServerError("HTTP 503")]) for _ in range(4)), strict=True)
    assert [bool(note) for note in notes] == [True, False, False, False]
    assert delays[0] >= 60
    assert delays[-1] >= 300
    assert "4 rounds" in finished.pause([])[1]
    assert finished.pause([])[1] is None


def test_the_services_own_delay_counts():
    """Retry-After is a lower bound."""
    assert CompletionTracker(POLICY).pause([ViduRateLimitError("HTTP 429", retry_after=400)])[0] >= 400


def test_what_only_a_user_can_mend_is_not_asked_in_a_hurry():
    """A refused key is asked about every five minutes at the most."""
    delay, note = CompletionTracker(PollPolicy.for_trigger(1.0)).pause(
        [ViduAuthError("refused"), ViduServerError("503")]
    )
    assert delay >= HOPELESS_PAUSE
    assert "refused" in note


def test_a_generation_that_is_refused_does_not_slow_the_rounds_of_others():
    """It is polled every five minutes; that is said once."""
    finished = CompletionTracker(PollPolicy.for_trigger(1.0), ["a", "b", "c"])
    for number in range(3):
        now = NOW + number * (HOPELESS_PAUSE + 1)
        assert finished.to_poll(now) == ["a", "b", "c"]
        refused, unknown = ViduRequestError("no such form of an id"), ViduNotFoundError("not yet")
        assert finished.missed("a", refused, now) is None
        errors = [refused]
        if not number:  # right after its create
            assert finished.missed("c", unknown, now) is None
            errors.append(unknown)
        finished.saw(Generation(id="b", status="running", raw={}), now)
        delay, note = finished.pause(errors)
        assert delay < 2
        assert not finished.is_failing
        assert ("no such form of an id" in (note or "")) == (not number)
        assert finished.to_poll(now + 1) == ["b", "c"]
    finished.to_poll(now + HOPELESS_PAUSE + 1)
    finished.saw(Generation(id="a", status="running", raw={}), now)  # it is not refused any more
    assert finished.to_poll(now + 1) == ["a", "b", "c"]


def test_a_refusal_of_all_generations_is_one_of_the_key():
    """The service answers for none of them."""
    finished = CompletionTracker(PollPolicy.for_trigger(1.0), ["a", "b"])
    errors = [ViduAuthError("refused"), ViduAuthError("refused")]
    for name, error in zip(finished.to_poll(NOW), errors, strict=True):
        finished.missed(name, error, NOW)
    assert finished.pause(errors)[0] >= HOPELESS_PAUSE
    assert finished.to_poll(NOW + 1) == ["a", "b"]


def test_a_connection_that_comes_later_is_found_soon():
    """A missing connection causes no request, so it is looked up again after the interval, then ever later."""
    finished = CompletionTracker(PollPolicy.for_trigger(2.0))
    delays = [finished.pause([ViduConfigError("no connection")])[0] for _ in range(12)]
    assert delays[0] < 3
    assert delays[-1] >= 300


@pytest.mark.parametrize(("given", "found"), [(None, None), ("a", ["a"]), (("b", "a", "b"), ["b", "a"]), (7, ["7"])])
def test_one_id_or_several(given, found):
    """Ids keep their order, each once."""
    assert named(given) == found


@each_row("given", ["", ["a", ""], [7.5], True, ["None"], []])
def test_what_cannot_be_an_id(given):
    """An id that cannot be one is refused when the DAG is read."""
    with pytest.raises(ViduConfigError):
        named(given)


@pytest.mark.parametrize("line", [1e308, -1e308, "nan", [], -1])
def test_a_memory_whose_line_is_no_time(line):
    """No matter who wrote it: a trigger that raises is started again at once, for ever."""
    finished = CompletionTracker(PollPolicy.for_trigger(60.0))
    finished.remember({"told": [], "times": [], "line": line, "open": []}, 1e9)
    assert "created_at.from" not in (finished.listing().query or "")


def test_a_state_in_a_list_is_news_once():
    """An unfinished generation stays watched; its line is logged when the state changes."""
    tracker = CompletionTracker(POLICY, ["a", "b"])
    assert tracker.to_poll(NOW) == ["a", "b"]
    running = Snapshot(GenerationStatus.RUNNING, "processing")
    assert tracker.glimpsed("a", running, NOW) == "Generation a: running (processing)"
    assert tracker.glimpsed("a", running, NOW) is None
    assert tell(tracker, seen("a"), seen("b")) == ["a", "b"]
