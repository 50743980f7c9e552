"""When a budget refuses a create, and how the entries that it counts are named."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduBudgetError, ViduConfigError, ViduError, ViduPricePendingError
from airflow_provider_vidu.operators import ViduBudget
from airflow_provider_vidu.orders.money.budget import amount, check_budget, checked_budget, checked_cap, price_refused
from airflow_provider_vidu.orders.money.entries import Scope
from tests.rows import each_row

RUN = Scope("run", "d", "r", datetime(2026, 1, 31, 23, 30, tzinfo=UTC))
DAY = dataclasses.replace(RUN, per="day")


@pytest.mark.parametrize("prices", [[], [40.0, 59.9]])
def test_below_the_limit_a_create_is_allowed(prices):
    """Its own price is unknown before it is sent, so only what is known counts."""
    check_budget(ViduBudget(credits=100), prices)


@pytest.mark.parametrize(
    ("per", "whose"), [("run", "this DAG run"), ("day", r"this DAG today \(UTC\)")], ids=["run", "day"]
)
def test_at_the_limit_a_create_is_refused(per, whose):
    """The error is final, and says what was spent, what the limit is and what was asked for."""
    with pytest.raises(ViduBudgetError, match=f"budget of {whose} is spent: 100 of 100 credits, in 2 gen") as caught:
        check_budget(ViduBudget(credits=100, per=per), [60, 40.0])
    assert "One more was asked for (until now, one has cost up to 60)" in caught.value.reason
    assert not caught.value.retryable


@each_row(
    ("prices", "lost", "left"),
    [([], 0, 100), ([], 2, 100), ([40, 2.5], 0, 57.5), ([40, 2.5], 1, 17.5), ([40, 50], 0, 10)],
)
def test_what_is_left_of_a_budget(prices, lost, left):
    """A create of unknown outcome counts with the highest price that is known."""
    assert check_budget(ViduBudget(credits=100), prices, lost) == left


@each_row(("prices", "lost"), [([40, 20], 1), ([90], 9), ([], 3)])
def test_what_lost_creates_may_have_spent_is_not_spent_again(prices, lost):
    """The error may be retried: their own retries find out. Without a price, a few of them are accepted."""
    with pytest.raises(ViduError, match=rf"may be spent: \d+ of 100 credits .*number: {lost}") as caught:
        check_budget(ViduBudget(credits=100), prices, lost)
    assert caught.value.retryable
    with pytest.raises(ViduBudgetError):
        check_budget(ViduBudget(credits=100), [*prices, 100], lost)


@pytest.mark.parametrize(
    "arguments", [{"credits": 0}, {"credits": True}, {"credits": "9"}, {"credits": float("nan")}, {"per": "week"}]
)
def test_a_wrong_budget_is_refused_at_parse_time(arguments):
    """A limit that cannot be held must not look like one."""
    with pytest.raises(ViduConfigError, match="ViduBudget: "):
        ViduBudget(**{"credits": 1, **arguments})


def test_only_a_budget_is_a_budget():
    """A bare number does not say whether it is for the run or for the day."""
    assert checked_budget(None) is None
    with pytest.raises(ViduConfigError, match="budget must be a ViduBudget"):
        checked_budget(100)


@pytest.mark.parametrize(("value", "cap"), [(4, 4.0), ("2.5", 2.5), (0, 0.0)])
def test_a_cap_is_a_number_once_it_is_rendered(value: Any, cap):
    """Templates render numbers as text."""
    assert checked_cap(value, True) == cap


@each_row("value", [None, "", "None", "many", -1, True])
def test_a_cap_that_renders_to_nothing_is_refused(value: Any):
    """A missing param must not remove the cap."""
    assert checked_cap(None, False) is None
    with pytest.raises(ViduConfigError, match="max_credits must be a number"):
        checked_cap(value, True)


def test_a_generation_is_counted_once():
    """Its name is always the same; names of other periods, and what is none, are left out."""
    name = RUN.entry("g1", 4)
    names = [name, name, RUN.entry("g2", 2.5), DAY.entry("g3", 8), RUN.prefix + "x_y", RUN.prefix, "vidu_spent_"]
    assert sorted(RUN.prices(names)) == [2.5, 4.0]
    assert len(name) < 100  # of 250 that a Variable's key may have


def test_generations_of_two_services_that_are_numbered_alike_are_two():
    """Of a DAG with two connections: only the dearer one was counted."""
    first, second = (dataclasses.replace(RUN, conn_id=name) for name in ("a", "b"))
    names = [first.entry("1", 4), second.entry("1", 4), first.open_entry("1"), second.open_entry("2")]
    assert (RUN.prices(names), RUN.without_amount(names)) == ([4.0, 4.0], (0, [second.open_entry("2")]))


def test_a_create_of_unknown_outcome_has_an_entry_without_a_price():
    """Counted once, in its own period, and a name that an earlier version leaves out."""
    names = [RUN.lost_entry("m1"), RUN.lost_entry("m1"), RUN.lost_entry("m2"), DAY.lost_entry("m1"), RUN.entry("g", 4)]
    assert (RUN.without_amount(names), DAY.without_amount(names)) == ((2, []), (1, []))
    assert RUN.prices(names) == [4.0]


def test_a_service_that_names_no_price_counts_nothing():
    """No limit applies to it, until one of its answers has named a price."""
    names = [RUN.unpriced_entry, RUN.lost_entry("m1"), RUN.open_entry("o")]
    assert (RUN.without_amount(names), RUN.prices(names)) == ((0, []), [])
    assert RUN.without_amount([*names, RUN.entry("g", 4)]) == (1, [RUN.open_entry("o")])


def test_an_open_generation_counts_until_its_price_is_known():
    """Its entry may have remained: the price is entered first."""
    names = [RUN.open_entry("g"), RUN.open_entry("o"), DAY.open_entry("d"), RUN.entry("g", 4)]
    assert RUN.without_amount(names) == (0, [RUN.open_entry("o")])
    assert RUN.prices(names) == [4.0]


@each_row(("prices", "lost", "unpriced"), [([40, 20], 0, 1), ([40], 1, 1), ([90], 0, 9), ([], 0, 3), ([], 2, 1)])
def test_what_open_generations_may_cost_is_not_spent_again(prices, lost, unpriced):
    """The error may be retried: their ends name the price. Without any price, a few of them are accepted."""
    with pytest.raises(
        ViduPricePendingError, match=rf"may be spent: \d+ of 100 .*number: {unpriced}\).*retried"
    ) as caught:
        check_budget(ViduBudget(credits=100), prices, lost, unpriced)
    assert caught.value.retryable
    with pytest.raises(ViduBudgetError):
        check_budget(ViduBudget(credits=100), [*prices, 100], lost, unpriced)


@pytest.mark.parametrize(
    ("scope", "other"),
    [
        (RUN, dataclasses.replace(RUN, run_id="q")),
        (RUN, dataclasses.replace(RUN, dag_id="e")),
        (DAY, dataclasses.replace(DAY, dag_id="e")),
        (DAY, dataclasses.replace(DAY, at=datetime(2026, 2, 1, tzinfo=UTC))),
        (DAY, RUN),
    ],
    ids=["run", "DAG of a run", "DAG of a day", "day", "kind"],
)
def test_periods_share_no_entry(scope, other):
    """Each run and each day counts its own."""
    assert not other.prices([scope.entry("g", 4)])


def test_a_day_is_one_of_utc_and_holds_all_runs():
    """Neither the run nor the zone of the time matters."""
    east = datetime(2026, 2, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert Scope("day", "d", "q", east).prefix == DAY.prefix


def test_old_entries_can_be_found():
    """Those of two months before, by their names alone."""
    old = dataclasses.replace(DAY, at=datetime(2025, 11, 3, tzinfo=UTC))
    assert old.entry("g", 4).startswith(RUN.expired_prefix or "-")
    assert not DAY.entry("g", 4).startswith(RUN.expired_prefix or "-")
    assert dataclasses.replace(RUN, at=None).expired_prefix is None


@pytest.mark.parametrize(
    ("cancelled", "says"),
    [(True, "accepted the cancel: nothing is spent"), (False, r"did not cancel it \(it runs\): 40 credits are spent")],
)
def test_a_refused_price_says_what_became_of_it(cancelled, says):
    """Asked, allowed, spent."""
    error = price_refused("g", 40, 30, cancelled, "it runs")
    assert error.generation_id == "g"
    with pytest.raises(ViduBudgetError, match=f"asks 40 credits for this generation, and max_credits is 30. .*{says}"):
        raise error


@each_row(
    ("price", "text"), [(4, "4"), (4.0, "4"), (2.5, "2.5"), (0.1 + 0.2, "0.3"), (1e6, "1000000"), (1e30, f"{1e30:.0f}")]
)
def test_an_amount_is_text_that_reads_back(price, text):
    """It stands in names and in messages."""
    assert amount(price) == text
