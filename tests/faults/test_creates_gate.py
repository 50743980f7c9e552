"""The queue for slots under every fault of a create: no slot is used twice or lost, and the next task gets it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from airflow_provider_vidu.exceptions import ViduError, ViduSubmitUnknownError
from airflow_provider_vidu.orders import lost_order
from airflow_provider_vidu.polling import admission
from airflow_provider_vidu.tasks.slots import queue as slots
from fault_table import CLEAR_ERROR, LIMIT, SURVIVED
from tests.faults.creates_table import each_create
from tests.faults.creates_triggerer import MOST_TRIES, Play, Triggerer, is_final
from tests.faults.creates_world import DURATION, QUEUE, CreateWorld
from tests.faults.polling_world import NATIVE

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]

DOUBTED = 0.2
"""Seconds after which the queue checks on a task that it has admitted; 15 otherwise."""


@pytest.fixture
def creates(monkeypatch, certificates, variables) -> Iterator[CreateWorld]:
    """Yield an account at which a generation takes a sixth of a second, ready for a fault of its creates."""
    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(lost_order, "GRACE_SECONDS", 0.02)
    monkeypatch.setattr(lost_order, "GRACE_PAUSE_SECONDS", 0.01)
    for module in (admission, slots):
        monkeypatch.setattr(module, "DOUBTED_SECONDS", DOUBTED)
    monkeypatch.setattr(admission, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(slots, "REPORT_SECONDS", DOUBTED / 5)
    monkeypatch.setattr(slots, "SOONEST_REPORT_SECONDS", DOUBTED / 15)
    monkeypatch.setattr(slots, "UNREPORTED_SECONDS", 1.0)
    made = CreateWorld(monkeypatch, certificates, variables, speed=250)
    yield made
    made.close()


@pytest.fixture
def triggerer() -> Iterator[Triggerer]:
    """Yield a triggerer."""
    made = Triggerer()
    yield made
    made.close()


@each_create
def test_the_next_task_gets_the_slot(fault, dialect, creates, triggerer, monkeypatch, fault_row):
    """With one slot, the task that meets the fault and the next one both end; their clips never run side by side.

    A gateway reports nothing, so a generation whose answer was lost there uses a slot that nothing can count.
    """
    creates.extra["max_in_flight"] = 1
    creates.prepare(fault, dialect)
    play = Play(creates, triggerer, retry_seconds=2 * DOUBTED)
    monkeypatch.setattr(slots, "state_and_generation", play.state_and_generation)
    play.run(creates.task(0), creates.task(1))
    errors = play.errors[0]
    assert (play.states[1], play.errors[1]) == ("success", [])
    assert (play.states[0] == "failed") == (len(errors) == MOST_TRIES or (bool(errors) and is_final(errors[-1])))
    paid = [create.body["prompt"] for create in creates.creates]
    is_lost = bool(errors) and isinstance(errors[-1], ViduSubmitUnknownError)
    assert paid.count("film 1") == 1
    assert paid.count("film 0") == (1 if play.states[0] == "success" else paid.count("film 0") if is_lost else 0)
    assert paid.count("film 0") <= 1
    is_unseen = is_lost and dialect == NATIVE and "film 0" in paid
    starts = sorted(create.time for create in creates.creates)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert is_unseen or all(gap >= QUEUE + DURATION for gap in gaps)
    seen = next((str(error) for error in errors if isinstance(error, ViduError)), "each has had its turn")
    outcome = SURVIVED if play.states[0] == "success" else LIMIT if is_unseen else CLEAR_ERROR
    fault_row("orders", f"gate: {fault.name}", side=dialect, seen=seen, requests=creates.sent, outcome=outcome)
