"""What an event source keeps is bounded, whatever the account's list holds."""

from __future__ import annotations

import json
import time

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError, ViduRequestError
from airflow_provider_vidu.tasks.completions import (
    KEPT,
    KEPT_CHARS,
    KEPT_OPEN,
    MOST_NAMED,
    MOST_WATCHED,
    CompletionTracker,
    named,
)
from fault_table import SURVIVED
from tests.unit.tasks.test_completions import NOW, POLICY, seen, tell


@pytest.mark.fault("attacks", "a gateway lists 5,000 new unfinished generations a round", outcome=SURVIVED,
                   seen="5,000 are watched, one line says that more are not")  # fmt: skip
def test_watches_are_bounded():
    """Neither watches nor questions grow from round to round; what is dropped is logged once."""
    finished = CompletionTracker(POLICY)
    notes = [
        finished.listed([seen(f"{turn}-{n}", "running") for n in range(MOST_WATCHED)], NOW + turn) for turn in range(3)
    ]
    assert len(finished.to_poll(NOW)) == MOST_WATCHED
    assert notes[0] is None
    assert "5,000 more are not" in notes[1]
    assert notes[2] is None


def test_a_full_watch_reports_what_ends():
    """What the list shows as ended is reported, however many unfinished ones it has shown."""
    finished = CompletionTracker(POLICY)
    finished.listed([seen(f"open-{n}", "running", age=9) for n in range(MOST_WATCHED)], NOW)
    finished.listed([seen("late", "running")], NOW)
    finished.listed([seen("late")], NOW)
    assert "late" in finished.to_poll(NOW)


def test_ended_ones_are_bounded_as_well():
    """A service that lists new ended generations and answers no question is given up on at some number."""
    finished = CompletionTracker(POLICY)
    finished.listed([], NOW)
    for turn in range(4):
        finished.listed([seen(f"{turn}-{n}") for n in range(MOST_WATCHED)], NOW)
    assert len(finished.to_poll(NOW)) == 2 * MOST_WATCHED


def test_refusals_take_time_in_proportion():
    """The error of each was compared with those of all others: 20,000 named generations held the triggerer for 4 s."""
    finished = CompletionTracker(POLICY, [f"g{number}" for number in range(20_000)])
    first, *others = finished.to_poll(NOW)
    finished.saw(seen(first, "running"), NOW)
    errors = [ViduRequestError(f"no {name}") for name in others]
    for name, error in zip(others, errors, strict=True):
        finished.missed(name, error, NOW)
    began = time.thread_time()
    _, note = finished.pause(errors)
    assert time.thread_time() - began < 1
    assert note is not None
    assert "19998 others" in note


@pytest.mark.parametrize("status", ["running", "succeeded"])
def test_the_memory_is_bounded_in_characters(status):
    """An id may have a thousand characters: what Airflow stores stays small."""
    finished = CompletionTracker(POLICY, since=NOW - 10_000)
    listed = [seen(f"{n}-" + "x" * 900, status, age=1000 - n) for n in range(500)]
    finished.listed(listed, NOW)
    if status == "succeeded":
        assert len(tell(finished, *listed)) == 500
    assert 0.8 * KEPT_CHARS < len(json.dumps(finished.memory())) < 2 * KEPT_CHARS


def test_what_the_memory_lacks_is_remembered_by_its_time():
    """A restart reports nothing twice, although the memory holds a few of the ids alone."""
    finished = CompletionTracker(POLICY, since=NOW - 10_000)
    listed = [seen(f"{n}-" + "x" * 900, age=1000 - n) for n in range(500)]
    finished.listed(listed, NOW)
    tell(finished, *listed)
    memory = json.loads(json.dumps(finished.memory()))
    assert len(memory["told"]) < 100
    again = CompletionTracker(POLICY, since=NOW - 10_000)
    again.remember(memory, NOW)
    again.listed([*listed, seen("new", age=-5)], NOW)
    assert again.to_poll(NOW) == ["new"]


def test_ids_of_a_usual_length_are_all_kept():
    """A thousand UUIDs fit."""
    finished = CompletionTracker(POLICY, since=NOW - 10_000)
    listed = [seen(f"{n:036d}", age=1) for n in range(KEPT)]
    finished.listed(listed, NOW)
    tell(finished, *listed)
    assert len(finished.memory()["told"]) == KEPT


@pytest.mark.parametrize("odd", ["g\n2026 ERROR forged", "g\u202e", "g" * 1_025, "..", "", 7, None, ["g"]])
def test_a_memory_that_another_has_written_holds_an_id_that_is_none(odd):
    """Users who may edit the asset can write it: each round failed at the id, and callbacks were no longer heeded."""
    finished = CompletionTracker(POLICY)
    finished.remember({"told": [odd, "a"], "times": [1, 2], "line": None, "open": [odd, "b"]}, NOW)
    assert finished.to_poll(NOW) == ["b"]
    memory = finished.memory()
    assert (memory["told"], memory["times"]) == (["a"], [2])


def test_a_memory_that_another_has_written_is_bounded():
    """Each id is a request in the first round; as many as this package stores are kept, the newest."""
    ids = [str(number) for number in range(20_000)]
    finished = CompletionTracker(POLICY)
    finished.remember({"told": ids, "times": [1] * len(ids), "line": None, "open": ids}, NOW)
    assert finished.to_poll(NOW) == ids[-KEPT_OPEN:]
    assert len(finished.memory()["told"]) <= KEPT


@pytest.mark.parametrize("odd", [1e300, "1e300", NOW + 2 * 86_400, -1, 0, "x", None, [1]])
def test_a_memory_that_another_has_written_holds_a_time_that_is_none(odd):
    """Forgotten, its id drew the line there: nothing was reported any more, nor after a restart."""
    told = [f"t{number}" for number in range(KEPT)]
    finished = CompletionTracker(POLICY)
    finished.remember({"told": told, "times": [odd] * KEPT, "line": NOW - 60, "open": ["a"]}, NOW)
    for name in ("a", "b"):
        finished.listed([seen(name)], NOW)
        assert finished.to_poll(NOW) == [name]
        assert finished.saw(seen(name), NOW)[0] is not None
    assert finished.memory()["line"] <= NOW


@pytest.mark.parametrize("odd", ["g\u200b", "g\u2028h", "https://h.example/v.mp4?Signature=s"])
def test_no_id_is_named_that_could_not_be_logged(odd):
    """The memory names ids by the same rule, so a named one is remembered."""
    with pytest.raises(ViduConfigError, match="an address, or contains control or invisible characters"):
        named([odd])


def test_a_trigger_is_given_so_many_names():
    """A round begins a poll of each: 100,000 held the loop of all triggers for five seconds."""
    names = [f"g-{number}" for number in range(MOST_NAMED + 1)]
    assert named(names[1:]) == names[1:]
    with pytest.raises(ViduConfigError, match="more than 20,000 generations: use several"):
        named(names)
