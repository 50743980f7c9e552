"""A budget under every fault of a create: what is paid is counted once, and what may be paid is never forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.exceptions import (
    ViduBudgetError,
    ViduError,
    ViduSubmitUncertainError,
    ViduSubmitUnknownError,
)
from airflow_provider_vidu.operators import ViduBudget
from airflow_provider_vidu.orders import lost_order
from airflow_provider_vidu.triggers import ViduSlotTrigger
from fault_table import CLEAR_ERROR, SURVIVED
from tests.faults.creates_table import each_create
from tests.faults.creates_triggerer import MOST_TRIES, is_final
from tests.faults.creates_world import PRICE, CreateWorld
from tests.faults.polling_world import NATIVE
from tests.integration.operators.test_generate_spending import Spender

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]

BUDGET = ViduBudget(credits=2.5 * PRICE)
UNKNOWN = (ViduSubmitUnknownError, ViduSubmitUncertainError)
FREE = {"kind": "slot", "outcome": "succeeded", "since": 1.0, "deadline": 4e9}


@pytest.fixture
def creates(monkeypatch, certificates, variables) -> Iterator[CreateWorld]:
    """Yield an account in which nothing moves, ready for a fault of its creates."""
    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(lost_order, "GRACE_SECONDS", 0.02)
    monkeypatch.setattr(lost_order, "GRACE_PAUSE_SECONDS", 0.01)
    made = CreateWorld(monkeypatch, certificates, variables)
    yield made
    made.close()


def tried(task: Spender, creates: CreateWorld) -> list[BaseException]:
    """Let Airflow retry a task until it has submitted or has failed; the first failure lifts the fault."""
    errors: list[BaseException] = []
    while len(errors) < MOST_TRIES:
        try:
            leave(task, creates)
        except (ViduError, KeyboardInterrupt) as error:
            errors.append(error)
            if isinstance(error, ViduError):  # whoever was killed says nothing before its retry
                assert creates.doubts == any(isinstance(each, UNKNOWN) for each in errors)
                assert creates.counted + creates.doubts * PRICE >= creates.billed
                assert creates.counted <= creates.billed
            creates.lift()
            if is_final(error):
                return errors
        else:
            return errors
    return errors


def leave(task: Spender, creates: CreateWorld) -> None:
    """Run a try until it defers with a generation; a wait for a slot lifts the fault."""
    with pytest.raises(TaskDeferred) as waiting:
        task.start()
    while isinstance(waiting.value.trigger, ViduSlotTrigger):
        assert (creates.entered, creates.billed) == ([], 0)
        creates.lift()
        with pytest.raises(TaskDeferred) as woken:
            task.wake(waiting.value, FREE)
        waiting = woken


@each_create
def test_a_create_is_counted_once(fault, dialect, creates, fault_row):
    """Paid and counted once, over all tries; the run spends the budget and one create more at most."""
    creates.prepare(fault, dialect)
    victim = creates.task(0, budget=BUDGET)
    errors = tried(victim, creates)
    is_given_up = len(errors) == MOST_TRIES or (bool(errors) and is_final(errors[-1]))
    if not is_given_up:
        assert (creates.counted, creates.doubts, creates.billed) == (PRICE, 0, PRICE)
    submitted = [] if is_given_up else [victim]
    for index in range(1, 9):
        task = creates.task(index, budget=BUDGET)
        refused = None
        try:
            leave(task, creates)
        except ViduError as error:
            refused = error
            break
        submitted.append(task)
    # Final if it is known to be spent; a create that cannot be found only may have spent the rest.
    assert isinstance(refused, ViduBudgetError) or (creates.doubts and refused and "may be spent" in refused.reason)
    assert BUDGET.credits <= creates.counted + creates.doubts * PRICE
    assert creates.billed <= BUDGET.credits + PRICE
    before = sorted(creates.entered), creates.billed
    for task in submitted:
        leave(task, creates)
    assert (sorted(creates.entered), creates.billed) == before
    seen = next((str(error) for error in errors if isinstance(error, ViduError)), "counted once")
    fault_row(
        "orders", f"budget: {fault.name}", side=dialect, seen=seen, requests=creates.sent,
        outcome=CLEAR_ERROR if is_given_up else SURVIVED,
    )  # fmt: skip


@pytest.mark.parametrize("dialect", [NATIVE])
@pytest.mark.parametrize("is_priced", [True, False], ids=["a price is known", "no price is known"])
def test_answers_that_are_all_lost_end_the_run(dialect, is_priced, creates, fault_row):
    """A gateway that carries creates out and loses each answer is not paid without end: the budget stops the run."""
    creates.settle(dialect)
    tasks = [creates.task(index, budget=BUDGET) for index in range(9)]
    if is_priced:
        leave(tasks.pop(), creates)
    creates.fault(lose_answer=True)
    errors = []
    for task in tasks:
        with pytest.raises(ViduError) as caught:
            leave(task, creates)
        errors.append(caught.value)
    lost = [error for error in errors if isinstance(error, ViduSubmitUnknownError)]
    assert 0 < len(lost) == creates.doubts < len(errors)
    assert creates.billed <= BUDGET.credits + PRICE
    assert errors[-1].retryable
    assert "may be spent" in errors[-1].reason
    fault_row(
        "orders", f"budget: every answer is lost, {'a' if is_priced else 'no'} price is known", side=dialect,
        seen=str(errors[-1]), requests=creates.sent, outcome=CLEAR_ERROR,
    )  # fmt: skip
