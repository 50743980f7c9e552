"""The generate operator on an account that is full: it waits for a slot, in the triggerer or in its worker."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.polling import admission, retries
from airflow_provider_vidu.tasks.slots import slot_wait
from airflow_provider_vidu.triggers import ViduGenerationTrigger, ViduSlotTrigger
from tests.integration.operators.test_generate import Task

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables")]

NO_BALANCE = '{"reason": "NotFound"}'
TURN = {"kind": "slot", "outcome": "succeeded"}
REFUSALS = ("video_queue_full", "token_concurrency_limit_reached")


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch) -> None:
    """Let a gateway that reports nothing be probed at once."""
    monkeypatch.setattr(admission, "PROBE_SECONDS", 0.1)


def deferred_by(task: Task) -> TaskDeferred:
    """Start a try that defers; return the deferral."""
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    return deferred.value


@pytest.mark.fault(
    "orders",
    "gate: the account is full (429, QuotaExceeded, a gateway's full queue)",
    outcome="survived",
    seen="waits in the triggerer without a retry, and is created once it has a slot",
)
@pytest.mark.vidu_sandbox(concurrency=1, when_full="refuse", gateway_concurrency=1)
def test_a_full_account_is_waited_for(dialect, sandbox):
    """The refused create is not repeated in the worker; one wait later it is accepted, with the same deadline."""
    sandbox.set_speed(0)
    first = ViduHook().create_generation(prompt="a dog", model="m")
    task = Task(deferrable=True)
    waiting = deferred_by(task)
    assert isinstance(waiting.trigger, ViduSlotTrigger)
    assert len(sandbox.requests("create")) == 2
    assert task.store == {}  # nothing was created, so there is nothing to look for
    assert "generation_id" not in task.xcoms
    assert task.xcoms["vidu_watch"]["waiting_since"] == waiting.trigger.since

    sandbox.set_speed(50)
    ViduHook().wait(first.id, poll_interval=0.05)
    event = task.event(waiting)
    with pytest.raises(TaskDeferred) as submitted:
        task.wake(waiting, event)
    assert isinstance(submitted.value.trigger, ViduGenerationTrigger)
    assert submitted.value.trigger.deadline == waiting.trigger.deadline
    assert task.resume(submitted.value)["status"] == "succeeded"
    assert len(sandbox.creates) == 2


@pytest.mark.fault(
    "orders",
    "gate: a task that has its turn is refused once more",
    outcome="survived",
    seen="queues again with its age and its deadline",
)
@pytest.mark.vidu_sandbox(gateway_concurrency=1)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_task_that_is_refused_again_keeps_its_age(connect, sandbox, refusal):
    """Whatever words a gateway finds for it."""
    connect("vidu-native")
    sandbox.set_speed(0)
    ViduHook().create_generation(prompt="a dog", model="m")
    task = Task(deferrable=True)
    waiting = deferred_by(task)
    turn = {**TURN, "since": waiting.trigger.since - 50, "deadline": time.time() + 99}
    with pytest.raises(TaskDeferred) as again:
        task.wake(waiting, turn)
    assert (again.value.trigger.since, again.value.trigger.deadline) == (turn["since"], turn["deadline"])
    assert again.value.trigger.refused_at > waiting.trigger.refused_at


@pytest.mark.fault(
    "orders",
    "gate: a task is woken before its slot is free",
    outcome="survived",
    seen="submits after the clip's end, or goes back without a create",
)
@pytest.mark.vidu_sandbox(concurrency=1, when_full="refuse", gateway_concurrency=1)
@pytest.mark.parametrize("ends", ["within moments", "later", "unknown"])
def test_a_task_that_was_woken_early_submits_after_the_end(dialect, sandbox, monkeypatch, ends):
    """It checks the clip whose slot it takes. If that does not end within moments, it goes back without a create."""
    sandbox.set_speed(0)
    first = ViduHook().create_generation(prompt="a dog", model="m")
    task = Task(deferrable=True)
    waiting = deferred_by(task)
    assert len(sandbox.requests("create")) == 2
    after = {"generation_id": "no-such-generation" if ends == "unknown" else first.id, "endpoint": None}
    turn = {**TURN, "since": waiting.trigger.since - 50, "deadline": time.time() + 99, "after": after}
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if ends == "within moments":
            sandbox.set_speed(1000)

    monkeypatch.setitem(slot_wait.SlotWait.__init__.__kwdefaults__, "sleep", sleep)
    monkeypatch.setattr(slot_wait, "PREDECESSOR_SECONDS", 60)
    if ends == "later":  # each pause takes a minute: on a busy machine, a poll alone took longer than a short patience
        clock = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + 60 * len(pauses))
        monkeypatch.setattr(slot_wait, "time", clock)
    with pytest.raises(TaskDeferred) as deferred:
        task.wake(waiting, turn)
    trigger = deferred.value.trigger
    if ends == "within moments":
        assert isinstance(trigger, ViduGenerationTrigger)
        assert len(sandbox.creates) == 2
    else:
        assert len(sandbox.requests("create")) == 2
        assert (trigger.since, trigger.deadline, trigger.refused_at) == (turn["since"], turn["deadline"], None)
    assert bool(pauses) == (ends != "unknown")


@pytest.mark.vidu_sandbox(concurrency=1, when_full="refuse", gateway_concurrency=1)
def test_a_worker_waits_within_the_same_rules(dialect, sandbox):
    """With ``deferrable=False`` the task waits beyond ``max_retries`` of the connection, until a slot is free."""
    first = ViduHook().create_generation(prompt="a dog", model="m")
    found = Task(deferrable=False).run()
    assert found["status"] == "succeeded"
    assert {create.id for create in sandbox.creates} == {first.id, found["id"]}


@pytest.mark.fault(
    "orders",
    "gate: no slot becomes free before the timeout",
    outcome="clear error",
    says="No slot was free",
)
@pytest.mark.vidu_sandbox(concurrency=1, when_full="refuse", gateway_concurrency=1)
def test_the_timeout_ends_the_wait_of_a_worker(dialect, sandbox, monkeypatch):
    """Nothing was submitted, and the error says so."""
    monkeypatch.setattr(retries.Backoff, "delay", lambda *_, **__: 0.1)
    sandbox.set_speed(0)
    ViduHook().create_generation(prompt="a dog", model="m")
    with pytest.raises(exceptions.ViduTimeoutError, match=r"No slot was free within .*: nothing"):
        (task := Task(deferrable=False, timeout=0.5)).run()
    assert len(sandbox.creates) == 1
    assert task.xcoms["vidu_watch"]["waiting_since"] > 0  # its page said so meanwhile
    assert "generation_id" not in task.xcoms


def test_a_limit_of_the_users_own_is_held_before_anything_is_sent(dialect, sandbox, connect):
    """With ``max_in_flight`` even the first create waits for its turn; once it has that, it is sent."""
    connect(dialect, max_in_flight=1)
    task = Task(deferrable=True)
    waiting = deferred_by(task)
    assert isinstance(waiting.trigger, ViduSlotTrigger)
    assert waiting.trigger.refused_at is None
    assert sandbox.requests("create") == []
    with pytest.raises(TaskDeferred) as submitted:
        task.wake(waiting, task.event(waiting))
    assert len(sandbox.creates) == 1
    assert task.resume(submitted.value)["status"] == "succeeded"


@pytest.mark.fault(
    "orders",
    "gate: a worker dies after its create, and the account is full at the retry",
    outcome="survived",
    seen="resumes its generation without a slot",
)
def test_a_retry_needs_no_slot_for_what_is_submitted_already(dialect, sandbox, connect):
    """Only a create waits: a job that an earlier try has submitted is resumed at once."""
    connect(dialect, max_in_flight=1)
    sandbox.set_speed(0)
    task = Task(deferrable=True)
    waiting = deferred_by(task)
    with pytest.raises(TaskDeferred):
        task.wake(waiting, task.event(waiting))
    again = deferred_by(task)
    assert isinstance(again.trigger, ViduGenerationTrigger)
    assert len(sandbox.creates) == 1


def test_a_worker_cannot_hold_a_limit_it_cannot_count(dialect, connect, sandbox):
    """A gateway, or a reseller, reports no balance: the error says what to do, and nothing is sent."""
    connect(dialect, max_in_flight=1)
    sandbox.add_fault({"match": {"kind": "credits"}, "times": None, "action": {"status": 404, "body": NO_BALANCE}})
    with pytest.raises(exceptions.ViduConfigError, match="Set deferrable=True"):
        Task(deferrable=False).run()
    assert sandbox.requests("create") == []


@pytest.mark.vidu_sandbox(balance=50)
def test_a_worker_holds_the_floor(connect, sandbox):
    """Below ``min_balance`` a task that does not defer submits nothing either."""
    connect("ent-v2", min_balance=100)
    with pytest.raises(exceptions.ViduBudgetError, match="min_balance"):
        Task(deferrable=False).run()
    assert sandbox.requests("create") == []


@pytest.mark.fault(
    "orders",
    "gate: no triggerer runs the wait for a slot",
    outcome="clear error",
    says="no triggerer ran the trigger",
)
def test_a_wait_that_no_triggerer_took_up(dialect, sandbox, connect):
    """Airflow gives the wait up: the error says that nothing was submitted."""
    connect(dialect, max_in_flight=1)
    task = Task(deferrable=True)
    deferred_by(task)
    with pytest.raises(exceptions.ViduTimeoutError, match="Nothing was submitted"):
        task.operator.resume_execution("__fail__", {"error": "Trigger timeout"}, task.context())
    assert sandbox.requests("create") == []


def test_an_event_of_the_wait_for_a_slot_does_not_end_the_wait_for_a_clip(dialect, sandbox):
    """An old trigger's event, delivered late: the task keeps waiting for its own generation."""
    sandbox.set_speed(0)
    task = Task(deferrable=True)
    submitted = deferred_by(task)
    with pytest.raises(TaskDeferred) as again:
        task.wake(submitted, {"kind": "slot", "outcome": "succeeded", "since": 1.0, "deadline": 2.0})
    assert isinstance(again.value.trigger, ViduGenerationTrigger)
