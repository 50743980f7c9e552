"""The adaptive schedule: bounds, growth, progress, spread, and what counts as "left out"."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.polling import schedule
from airflow_provider_vidu.polling.schedule import (
    BEGINNING,
    LONGEST,
    SHORTEST,
    PollHistory,
    adaptive_interval,
    net_interval,
    spread,
)
from airflow_provider_vidu.polling.watch import PollPolicy, Wait, Watch

WAITING, RUNNING, UNKNOWN = GenerationStatus.WAITING, GenerationStatus.RUNNING, GenerationStatus.UNKNOWN
answers = st.lists(
    st.tuples(
        st.sampled_from([WAITING, RUNNING, UNKNOWN]),
        st.none() | st.integers(0, 100),
        st.floats(0, 200_000, allow_nan=False),
    ),
    min_size=1,
    max_size=20,
)


def course(*told: tuple[GenerationStatus, int | None, float]) -> PollHistory:
    """Return the course after these answers: state, progress, age."""
    found = PollHistory()
    for status, progress, age in told:
        found = found.after(status, progress, age)
    return found


@given(answers)
def test_every_interval_is_within_its_bounds(told):
    """Whatever the answers say, and in whatever order of time, the next poll is 5 s to 5 min away."""
    assert SHORTEST <= adaptive_interval(course(*told)) <= LONGEST


@given(st.floats(300, 200_000), st.floats(300, 200_000), st.sampled_from([WAITING, RUNNING, UNKNOWN]))
def test_a_longer_wait_is_asked_no_more_often(one, other, status):
    """Beyond the minutes in which most clips end, the interval never falls as the age grows."""
    younger, older = sorted((one, other))
    assert adaptive_interval(course((status, None, younger))) <= adaptive_interval(course((status, None, older)))


@given(st.floats(300, 6000))
def test_late_by_a_small_part_of_the_age(age):
    """If the service reports only "running", a result is late by less than a twentieth of the time it took."""
    assert adaptive_interval(course((RUNNING, None, age))) * 1.1 <= age / 20


def test_a_queue_left_is_asked_as_a_fresh_clip():
    """After an hour in a queue the minutes of running count, and not the hour."""
    after = course((WAITING, None, 3600.0), (RUNNING, None, 3680.0), (RUNNING, None, 3780.0))
    assert adaptive_interval(after) <= 12
    assert adaptive_interval(course((WAITING, None, 3600.0))) >= 60


def test_a_progress_that_moves_is_followed():
    """At a steady pace the next poll comes before the end that it points to, and close to the end more often."""
    slow = course((RUNNING, 10, 100.0), (RUNNING, 12, 120.0))
    near = course((RUNNING, 80, 100.0), (RUNNING, 96, 120.0))
    assert adaptive_interval(slow) > adaptive_interval(course((RUNNING, None, 100.0), (RUNNING, None, 120.0)))
    assert adaptive_interval(near) == SHORTEST


def test_a_progress_that_creeps_stretches_the_interval_threefold():
    """An end that seems hours away may come at once: no more than three of the usual intervals are skipped."""
    creeping = course((RUNNING, 10, 100.0), (RUNNING, 11, 200.0))
    assert adaptive_interval(creeping) == 3 * adaptive_interval(course((RUNNING, None, 200.0)))


def test_a_clip_begins_between_two_answers():
    """It began to run halfway between the last "waiting" and the next answer; back in the queue, it has not begun."""
    assert adaptive_interval(course((WAITING, None, 100.0), (RUNNING, None, 200.0))) == adaptive_interval(
        course((RUNNING, None, 50.0))
    )
    assert adaptive_interval(course((RUNNING, None, 100.0), (WAITING, None, 200.0))) == adaptive_interval(
        course((WAITING, None, 200.0))
    )


def test_a_progress_that_stands_is_no_promise():
    """Fifty percent for ever is what a gateway says that does not know: the usual intervals."""
    stuck = course((RUNNING, 50, 100.0), (RUNNING, 50, 120.0), (RUNNING, 50, 140.0))
    assert adaptive_interval(stuck) == adaptive_interval(course((RUNNING, None, 140.0)))


def test_a_progress_that_has_passed_its_end_is_forgotten():
    """When the extrapolated end is over and nothing has moved since, the usual intervals count again."""
    over = course((RUNNING, 50, 100.0), (RUNNING, 90, 110.0), (RUNNING, 90, 200.0))
    assert adaptive_interval(over) == adaptive_interval(course((RUNNING, None, 200.0)))


def test_a_thousand_waits_spread():
    """Started together, waits fall out of step: no tenth of the span of first polls holds a fifth of them."""
    rng = random.Random(5)
    first = [PollPolicy.for_trigger(None).first_delay(None, rng.random) for _ in range(1000)]
    low, high = min(first), max(first)
    tenths = [int(10 * (delay - low) / (high - low + 1e-9)) for delay in first]
    assert max(tenths.count(tenth) for tenth in range(10)) < 200
    assert high - low > 10
    assert [spread(100, lambda: 0.0), spread(100, lambda: 1.0)] == pytest.approx([90, 110])


@given(st.floats(0.001, 2000) | st.just(0.0), st.sampled_from([WAITING, RUNNING]))
def test_the_deadline_is_not_overslept(left, status):
    """The last poll comes at the deadline, however long the interval is by then."""
    generation = Generation(id="1", status=status)
    watch = Watch(PollPolicy.for_trigger(None), generation_id="1", since=0.0, deadline=50_000.0 + left)
    step = watch.saw(generation, 50_000.0)
    assert 0 < step.delay <= left + 1e-6 if isinstance(step, Wait) else left == 0


@pytest.mark.parametrize("given_", [15, 15.0, 20])
def test_a_set_interval_is_kept(given_):
    """An interval that is set is kept, also if it is the number of the default."""
    generation = Generation(id="1", status=RUNNING)
    watch = Watch(PollPolicy.for_trigger(given_), generation_id="1", since=0.0, rng=lambda: 0.5)
    assert {watch.saw(generation, now).delay for now in (10.0, 1000.0, 90_000.0)} == {float(given_)}


def test_failures_back_off_as_before():
    """The schedule decides while all goes well; failed polls follow the documented backoff from 15 s."""
    assert PollPolicy.for_trigger(None).backoff == PollPolicy.for_trigger(15).backoff
    assert schedule.first_interval() >= SHORTEST


@pytest.mark.parametrize(("age", "seconds"), [(0, 300), (600, 300), (1200, 600), (86_400, 1800)])
def test_the_net_beside_callbacks_is_sparse(age, seconds):
    """Half of the age, from five minutes to half an hour."""
    assert net_interval(age) == seconds


def test_a_sparse_policy_never_polls_more_often_than_the_adaptive_one():
    """The net only lengthens the adaptive interval, and leaves an interval that was given alone."""
    history = BEGINNING.after(GenerationStatus.RUNNING, 50, 100.0)
    dense, sparse = PollPolicy.for_trigger(None), PollPolicy.for_trigger(None, sparse=True)
    assert dense.delay(1, lambda: 0.5, history) < 60
    assert sparse.delay(1, lambda: 0.5, history) == 300
    given = PollPolicy.for_trigger(7.0, sparse=True)
    assert given.delay(1, lambda: 0.5, history) == 7.0
    assert sparse.first_delay(None, lambda: 0.5) == dense.first_delay(None, lambda: 0.5)
