"""The decisions of a batch."""

from __future__ import annotations

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.arguments import checked_min_success
from tests.rows import each_row


@pytest.mark.parametrize(
    ("arguments", "room"),
    [
        ((20, 15, None, None), 5),
        ((20, 25, None, None), 0),
        ((20, 0, 8, None), 8),
        ((20, 2, 8, 7), 1),
        ((20, 2, 8, 0), 6),  # a report that is older than our creates
    ],
)
def test_room(arguments, room):
    """The batch's own limit and the connection's, of which other tasks use a part."""
    assert plan.room(*arguments) == room


@each_row(
    ("error", "blamed"),
    [
        (exceptions.ViduRateLimitError("x"), plan.Blame.FULL),
        (exceptions.ViduUnavailableError("x"), plan.Blame.FULL),
        (exceptions.ViduAuthError("x"), plan.Blame.ACCOUNT),
        (exceptions.ViduCreditError("x"), plan.Blame.ACCOUNT),
        (exceptions.ViduTransportError("x", sent=False), plan.Blame.ACCOUNT),
        (exceptions.ViduPolicyError("x"), plan.Blame.ROW),
        (exceptions.ViduRequestError("x"), plan.Blame.ROW),
        (exceptions.ViduNotFoundError("x"), plan.Blame.ROW),
    ],
)
def test_whom_a_refusal_blames(error, blamed):
    """A row's fault must not stop the others, and an account's fault must not be paid for by each row."""
    assert plan.blame(error) is blamed


def test_credits():
    """The first generation tells the price; open ones without a price count as the most expensive one."""
    assert plan.check_credits(100, 0, None, 0, 0)
    assert not plan.check_credits(100, 0, None, 1, 0)
    assert plan.check_credits(100, 50, 25, 1, 2)
    with pytest.raises(exceptions.ViduBudgetError, match="max_credits of 100 is reached"):
        plan.check_credits(100, 50, 25, 2, 2)
    with pytest.raises(exceptions.ViduConfigError, match="cannot be held"):
        plan.check_credits(100, 0, None, 0, 1)


def test_when_the_task_is_woken():
    """For a few at once, for one only after a while, at the deadline, and when it wants to."""
    assert plan.wake_at([], 20, 4, 999.0) == 999.0
    assert plan.wake_at([100.0], 20, 4, 999.0) == 100.0 + plan.HOLD_SECONDS
    assert plan.wake_at([100.0, 101.0, 102.0, 103.0], 20, 4, 999.0) == 103.0
    assert plan.wake_at([100.0], 1, 4, 999.0) == 100.0
    assert plan.wake_at([100.0], 20, 4, 999.0, resume_at=110.0) == 110.0


@pytest.mark.parametrize(
    ("arguments", "count"),
    [((20, 20, True), 4), ((1, 1, True), 1), ((1000, 1000, True), 16), ((20, 3, False), 1), ((500, 500, False), 16)],
)
def test_for_how_many_the_task_is_woken(arguments, count):
    """A share of its slots."""
    assert plan.wake_count(*arguments) == count


@pytest.mark.parametrize(
    ("ages", "usual", "expected"),
    [
        ([5.0] * 20, 10.0, True),  # pictures: deferring takes longer
        ([5.0] * 20, 300.0, False),
        ([290.0] * 4 + [5.0] * 16, 300.0, True),
        ([290.0] * 3 + [5.0] * 17, 300.0, False),
        ([900.0] * 20, 300.0, False),  # overdue: nothing is known of them
    ],
)
def test_when_a_leg_stays(ages, usual, expected):
    """As long as a few are about to end."""
    assert plan.stays(ages, usual, 4, idle=0.0, in_leg=0.0, is_first=True) is expected


def test_a_leg_does_not_stay_forever():
    """Without an end it leaves; before anything is known, only the first leg stays, for a moment."""
    assert not plan.stays([9.0] * 9, 10.0, 1, idle=plan.LONGEST_STAY_SECONDS + 1, in_leg=99.0, is_first=True)
    assert plan.stays([], None, 1, idle=0.0, in_leg=1.0, is_first=True)
    assert not plan.stays([], None, 1, idle=0.0, in_leg=plan.STAY_SECONDS, is_first=True)
    assert not plan.stays([], None, 1, idle=0.0, in_leg=1.0, is_first=False)


def test_when_a_few_are_expected_to_end():
    """The task is back a little before; not for what is overdue, or unknown."""
    submitted = [100.0, 101.0, 102.0, 103.0, 150.0]
    assert plan.expected_at(submitted, 300.0, 4, 160.0) == 403.0 - plan.START_SECONDS
    assert plan.expected_at(submitted, None, 4, 160.0) is None
    assert plan.expected_at(submitted, 300.0, 4, 395.0) is None
    assert plan.expected_at(submitted, 300.0, 6, 160.0) is None


def test_min_success():
    """A float is a share, a whole number counts rows."""
    assert [plan.least_stored(value, 10) for value in (1.0, 0.95, 0.0, 1, 50)] == [10, 10, 0, 1, 10]
    for wrong in (1.1, -1, True, "1"):
        with pytest.raises(exceptions.ViduConfigError, match="min_success"):
            checked_min_success(wrong)
