"""When a generation will have ended, and when the next task has to be woken for that."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime

import pytest

from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.polling.forecast import LONGEST_START_SECONDS, USUAL_START_SECONDS, Forecast, moment_of_end


def test_nothing_is_expected_before_a_generation_has_ended():
    """Without a duration there is no forecast."""
    forecast = Forecast()
    assert forecast.is_blank
    assert (forecast.duration, forecast.wake_after) == (math.inf, math.inf)


def test_the_usual_duration_less_the_usual_start():
    """One slow generation and one slow start change nothing."""
    forecast = Forecast()
    for seconds in (20.0, 300.0, 21.0):
        forecast.lasted(seconds)
    assert forecast.wake_after == 21 - USUAL_START_SECONDS
    for seconds in (5.0, 5.0, LONGEST_START_SECONDS * 9):
        forecast.started(seconds)
    assert forecast.wake_after == 21 - 4
    forecast.lasted(-1.0)  # a clock was set back
    assert forecast.duration == 21


def test_short_generations_are_taken_over_at_once():
    """If a task takes longer to start than a generation runs, it is woken at the submit, not before."""
    forecast = Forecast()
    forecast.lasted(1.0)
    assert forecast.wake_after == 0


def test_starts_that_wait_for_their_slot_shorten_the_lead():
    """Each start is measured up to the create, so a lead that is too long would confirm itself."""
    forecast = Forecast()
    forecast.lasted(60.0)
    forecast.started(15.0)
    for _ in range(300):  # starts take 3 s, and half a second to publish the id; the rest is waiting
        forecast.started(max(3.0, forecast.lead) + 0.5)
    assert 2.0 < forecast.lead <= 3.5


def test_about_one_wake_up_in_five_is_too_early():
    """However much the durations vary."""
    forecast, rng, early = Forecast(), random.Random(3), 0
    for _ in range(1000):
        duration = rng.uniform(20, 100)
        if forecast.duration < duration - 2:
            forecast.was_early()
            early += 1
        elif forecast.duration < duration + 5:
            forecast.was_in_time()
        forecast.lasted(duration)
    assert early < 250


def generation(completed_at: float | None) -> Generation:
    """Return a succeeded generation."""
    at = None if completed_at is None else datetime.fromtimestamp(completed_at, UTC)
    return Generation(id="g", status=GenerationStatus.SUCCEEDED, completed_at=at)


@pytest.mark.parametrize(
    ("reported", "polled_at", "expected"),
    [
        (112.0, 110.0, 112.0),
        (112.0, 50.0, 112.0),
        (9999.0, 110.0, 112.5),  # another clock
        (None, 110.0, 112.5),
        (None, 50.0, None),  # at some time within a minute
        (112.0, None, None),  # the first poll: it may have ended before the wait began
    ],
)
def test_the_moment_of_an_end(reported, polled_at, expected):
    """The service's own time if it fits the polls, or the middle between two close ones."""
    assert moment_of_end(generation(reported), polled_at, 115.0) == expected
