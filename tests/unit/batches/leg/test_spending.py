"""What a batch spends: how often the ledger is read, and what counts in between."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict

import pytest

from airflow_provider_vidu.batches.jobs import Open
from airflow_provider_vidu.batches.leg.spending import READ_SECONDS, BatchSpending
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.exceptions import ViduBudgetError, ViduPricePendingError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.order import OrderRecord


class Ledger:
    """A task's spending under a budget of 100 credits."""

    is_counted = True

    def __init__(self) -> None:
        self.spent = 0.0
        self.reads = 0
        self.late: list[str] = []
        self.is_pending = False

    def checked_left(self, *, queries) -> float:
        """Return what is left."""
        self.reads += 1
        if self.is_pending:
            raise ViduPricePendingError("may be spent")
        if self.spent >= 100:
            raise ViduBudgetError("spent")
        return 100 - self.spent

    def count_paid(self, record, endpoint) -> None:
        """Enter a generation."""
        if record.credits is None:
            self.late.append("open")
        else:
            self.spent += record.credits

    def count_lost(self, record) -> None:
        """Count a create of unknown outcome."""
        self.spent += 40

    def settle(self, record) -> None:
        """Count it no longer."""
        self.spent -= 40

    def observe(self, generation, at, endpoint) -> None:
        """Enter a generation whose price only its end names."""
        self.late.append(generation.id)


def job(price=40):
    """Return a generation that was submitted."""
    return Open("g", 1.0, credits=price)


def test_the_ledger_is_read_now_and_then():
    """At first, when time has passed, and when this batch alone has spent a twentieth of the rest."""
    now, ledger = [0.0], Ledger()
    spending = BatchSpending(ledger, lambda: now[0])
    for _ in range(2):
        spending.check()
        spending.count_paid(job(2), BatchState())
    assert ledger.reads == 1
    spending.check()
    spending.count_paid(job(96), BatchState())
    with pytest.raises(ViduBudgetError):
        spending.check()
    assert ledger.reads == 2
    other = BatchSpending(Ledger(), lambda: now[0])
    other.check()
    now[0] = READ_SECONDS
    other.check()
    assert other._spending.reads == 2


@pytest.mark.parametrize("price", [0.5, 4, 30])
def test_batches_that_begin_together_do_not_spend_the_budget_once_each(price):
    """Above the limit is at most what each of them was submitting when it was reached."""
    ledger, batches = Ledger(), 8
    all_of_them = [BatchSpending(ledger, lambda: 0.0) for _ in range(batches)]
    while all_of_them:
        allowed = []
        for spending in all_of_them:  # each decides before the others have submitted
            with suppress(ViduBudgetError):
                spending.check()
                allowed.append(spending)
        for spending in all_of_them:
            if spending in allowed:
                spending.count_paid(job(price), BatchState())
        all_of_them = allowed
    assert ledger.spent <= 100 + batches * price
    assert ledger.reads <= batches * (20 + 20 * 3)


def test_a_generation_without_a_price_is_counted_until_a_file_shows_that_there_are_none():
    """Not each of thousands of rows at a service that names no price."""
    ledger, state = Ledger(), BatchState()
    spending = BatchSpending(ledger)
    spending.count_paid(job(None), state)
    assert ledger.late == ["open"]
    state.apply({"e": "line", "line": {"key": "a", "status": "stored"}})
    spending.count_paid(job(None), state)
    assert ledger.late == ["open"]


def test_what_depends_on_open_prices_is_read_now_and_then():
    """Not at each look while rows wait, but at once after an end, and after a create whose price is not known."""
    now, ledger = [0.0], Ledger()
    spending = BatchSpending(ledger, lambda: now[0])
    spending.check()
    ledger.is_pending = True
    spending.count_paid(job(None), BatchState())
    for _ in range(3):
        with pytest.raises(ViduPricePendingError):
            spending.check()
    assert ledger.reads == 2
    ledger.is_pending = False
    spending.ended(job(None), Generation(id="g", status="succeeded", credits=40, raw={}))
    spending.check()
    assert ledger.reads == 3


def test_a_create_of_unknown_outcome_is_read_at_once():
    """Whatever was left before: it may have spent the rest, until it is settled."""
    ledger = Ledger()
    spending, record = BatchSpending(ledger, lambda: 0.0), OrderRecord(0, "airflow:m", 1.0)
    spending.check()
    for _ in range(3):
        spending.count_lost(record)
    with pytest.raises(ViduBudgetError):
        spending.check()
    spending.settle(record)
    spending.check()
    assert ledger.reads == 3
    BatchSpending(None).count_lost(record)
    BatchSpending(None).settle(record)


def test_a_price_counts_once():
    """At the create, or else at the end if only that names it."""
    ledger = Ledger()
    spending = BatchSpending(ledger)
    ended = Generation(id="g", status="succeeded", credits=40, raw={})
    spending.ended(job(), ended)
    assert ledger.late == []
    spending.ended(job(None), ended)
    assert ledger.late == ["g"]


def test_a_lost_create_whose_id_is_known_counts_until_it_ends():
    """At the error, at the next try, and after polls that were given up: only an end, or a price, settles it."""
    ledger, lost = Ledger(), Open.from_json(asdict(Open("g", 1.0, marker="airflow:m")))
    spending = BatchSpending(ledger)
    spending.count_paid(lost, BatchState())
    spending.ended(lost, None)
    spending.ended(lost, Generation(id="g", status="running", raw={}))
    assert (ledger.spent, ledger.late) == (40, [])
    spending.ended(lost, Generation(id="g", status="failed", raw={}))
    assert (ledger.spent, ledger.late) == (0, ["g"])
