"""The edges of the limits on slots and credits: lost creates, late turns, balances that the service does not report."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduBudget, ViduGenerateOperator
from airflow_provider_vidu.orders import lost_order
from airflow_provider_vidu.triggers import ViduGenerationTrigger, ViduSlotTrigger
from tests.integration.operators.test_generate import Task
from tests.integration.operators.test_generate_slots import deferred_by
from tests.integration.operators.test_generate_spending import PRICE, Spender, names, official

__all__ = ["official"]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables"),
    pytest.mark.vidu_sandbox(price=PRICE),
]


@pytest.fixture
def lost(official, monkeypatch):
    """Return a function that loses the answer of a task's create."""
    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 0.0, raising=False)

    def lose(task: Spender) -> None:
        official.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"lose_answer": True}})
        with pytest.raises(exceptions.ViduError, match="outcome is unknown"):
            task.start()

    return lose


@pytest.mark.fault(
    "orders",
    "budget: the answer to a create is lost, and a clear finds the job",
    outcome="survived",
    seen="counted once",
)
@pytest.mark.parametrize("prompt", ["a cat", "another"], ids=["resumed", "abandoned"])
def test_a_lost_create_that_a_clear_finds_is_counted(official, lost, variables, prompt):
    """It is paid for, whether the cleared task resumes it or submits another request."""
    task = Spender(budget=ViduBudget(credits=100))
    lost(task)
    task.kwargs["prompt"] = prompt
    task.clear()
    task.submit()
    assert len(names(variables)) == len(official.creates)


@pytest.mark.fault(
    "orders",
    "budget: the answer to a create is lost, and other tasks submit",
    outcome="clear error",
    says="may be spent",
)
def test_a_lost_create_counts_until_its_retry(official, lost, variables):
    """What it may have cost is not spent a second time; the retry finds it, and then it is counted as any other."""
    limits = {"budget": ViduBudget(credits=2 * PRICE)}
    Spender(1, **limits).submit()
    task = Spender(0, **limits)
    lost(task)
    with pytest.raises(exceptions.ViduError, match="may be spent: 10 of 20 credits") as caught:
        Spender(2, **limits).start()
    assert caught.value.retryable
    assert not isinstance(caught.value, exceptions.ViduBudgetError)
    task.submit()
    assert [name.rpartition("_")[2] for name in names(variables)] == [str(PRICE)] * 2
    with pytest.raises(exceptions.ViduBudgetError, match="20 of 20 credits"):
        Spender(2, **limits).start()
    assert len(official.creates) == 2


def test_a_create_that_never_arrived_counts_no_longer(official, variables, monkeypatch):
    """The retry proves that there is no generation, and submits one."""
    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 0.0)
    official.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"reset": "before"}})
    task = Spender(budget=ViduBudget(credits=100))
    with pytest.raises(exceptions.ViduError, match="outcome is unknown"):
        task.start()
    (entry,) = names(variables)
    assert entry.endswith("_lost")
    task.submit()
    assert [name.rpartition("_")[2] for name in names(variables)] == [str(PRICE)]


def test_a_timeout_in_the_middle_of_a_create_counts_as_possibly_spent(official, variables, monkeypatch):
    """Whatever ends a send without an answer: the create may have been carried out."""
    submit = SyncClient.submit

    def late(*args, **kwargs):
        submit(*args, **kwargs)
        raise AirflowTaskTimeout("execution_timeout")

    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 0.0)
    task = Spender(budget=ViduBudget(credits=100))
    with monkeypatch.context() as patched:
        patched.setattr(SyncClient, "submit", late)
        with pytest.raises(AirflowTaskTimeout):
            task.start()
    (entry,) = names(variables)
    assert entry.endswith("_lost")
    task.submit()
    assert [name.rpartition("_")[2] for name in names(variables)] == [str(PRICE)]
    assert len(official.creates) == 1


@pytest.mark.fault(
    "orders",
    "budget: the answer to a create is cut off between id and price",
    outcome="survived",
    seen="the price is queried, and the limits apply to it",
)
def test_a_price_that_was_cut_off_is_queried(official, variables):
    """The id is known, and what it costs matters at once: a job above the cap can be cancelled only now."""
    official.add_fault({"match": {"kind": "create"}, "times": 2, "action": {"reset": "body"}})
    limits = {"budget": ViduBudget(credits=100)}
    with pytest.raises(exceptions.ViduBudgetError, match=r"asks 10 credits .*nothing is spent"):
        Spender(0, max_credits=PRICE - 1, **limits).start()
    assert [create.charge for create in official.creates] == ["cancelled"]
    Spender(1, **limits).submit()
    assert [name.rpartition("_")[2] for name in names(variables)] == [str(PRICE)]
    assert len(official.requests("query")) == 2


def test_a_gateways_lost_create_stays_counted_after_a_clear(connect, sandbox, variables):
    """No retry can find it, so it may have been billed; the new order is another generation."""
    connect("vidu-native", max_retries=0, timeout=2)
    sandbox.set_speed(0)
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"lose_answer": True}})
    task = Spender(budget=ViduBudget(credits=100))
    for _ in range(2):
        with pytest.raises(exceptions.ViduSubmitUnknownError):
            task.start()
    task.clear()
    task.submit()
    assert sorted(name.rpartition("_")[2] for name in names(variables)) == ["lost", "open"]
    assert len(sandbox.creates) == 2


@pytest.mark.fault(
    "orders",
    "gate: the worker starts after the task's timeout",
    outcome="clear error",
    says="a worker began it only after",
)
def test_a_turn_that_comes_after_the_timeout_submits_nothing(official, connect):
    """The slot came in time, and the worker started too late: a generation would be paid for and given up at once."""
    connect("ent-v2", max_in_flight=1)
    task = Task(deferrable=True, timeout=60)
    waiting = deferred_by(task)
    turn = {"kind": "slot", "outcome": "succeeded", "since": time.time() - 61, "deadline": time.time() - 1}
    with pytest.raises(
        exceptions.ViduTimeoutError, match="worker began it only after its timeout of 1 min 0 s: nothing"
    ):
        task.wake(waiting, turn)
    assert official.creates == []


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_balance_that_is_not_reported_is_below_every_floor(official, connect, deferrable):
    """Without a balance ``min_balance`` cannot be held, so nothing is submitted."""
    connect("ent-v2", min_balance=100)
    answer = {"remains": [{"concurrency_limit": 5, "current_concurrency": 0}]}
    official.add_fault({"match": {"kind": "credits"}, "times": 99, "action": {"status": 200, "body": answer}})
    task = Task(deferrable=deferrable, timeout=1)
    with pytest.raises(exceptions.ViduError, match="min_balance"):
        task.run()
    assert official.creates == []


def test_a_refusal_that_names_a_generation_does_not_queue(official):
    """The create may have been carried out: the intent stays, so that the retry looks for the job first."""
    body = {"task_id": "g1", "code": "QuotaExceeded"}
    official.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"status": 429, "body": body}})
    task = Task(deferrable=True)
    with pytest.raises(exceptions.ViduError, match="outcome is unknown"):
        task.start()
    assert task.store


def test_a_retry_whose_query_is_refused_does_not_queue(official):
    """The job is submitted and needs no slot; the next retry resumes it."""
    task = Task(deferrable=True)
    first = deferred_by(task)
    official.add_fault({"match": {"kind": "query"}, "times": 99, "action": {"status": 429}})
    with pytest.raises(exceptions.ViduRateLimitError) as caught:
        task.start()
    assert caught.value.retryable
    assert caught.value.generation_id == first.trigger.generation_id
    official.clear_faults()
    assert deferred_by(task).trigger.generation_id == first.trigger.generation_id
    assert len(official.creates) == 1


def test_a_synchronous_product_is_not_watched(official, connect):
    """Its result is in the create's answer: no watch will show the generation, so the slot is not kept for one."""
    connect("ent-v2", max_in_flight=1)
    speech = {"text": "hello", "voice_setting_voice_id": "v"}
    task = Task(deferrable=True, prompt=None, model=None, endpoint="audio-tts", parameters=speech)
    assert deferred_by(task).trigger.is_watched is False
    assert deferred_by(Task(deferrable=True)).trigger.is_watched is True


@pytest.mark.fault(
    "orders",
    "gate: the worker starts minutes after its turn",
    outcome="survived",
    seen="the account is checked before the create",
)
@pytest.mark.parametrize("late", [0, 200])
def test_a_late_turn_is_checked_against_the_account(official, connect, late):
    """The queue has given the slot of a worker that starts minutes later to another task: this one waits again."""
    connect("ent-v2", max_in_flight=1)
    ViduHook().create_generation(prompt="a dog", model="m")
    task = Task(deferrable=True, timeout=900)
    waiting = deferred_by(task)
    now = time.time()
    turn = {"kind": "slot", "outcome": "succeeded", "since": now - 300, "deadline": now + 600, "given_at": now - late}
    with pytest.raises(TaskDeferred) as next_wait:
        task.wake(waiting, turn)
    assert isinstance(next_wait.value.trigger, ViduSlotTrigger if late else ViduGenerationTrigger)
    assert len(official.creates) == (1 if late else 2)


def test_an_execution_timeout_while_waiting_for_a_slot_is_named(official, connect):
    """Airflow 2 reports it in the words of a trigger that never ran: the advice must not be about triggerers."""
    connect("ent-v2", max_in_flight=1)
    task = Task(deferrable=True, execution_timeout=timedelta(seconds=5))
    deferred_by(task)
    with pytest.raises(AirflowTaskTimeout, match=r"execution_timeout of 5 s expired.*nothing was submitted"):
        task.operator.resume_execution("__fail__", {"error": "Trigger/execution timeout"}, task.context())


@pytest.mark.parametrize("flag", ["maybe", "True"])
def test_a_dry_run_that_is_switched_on_meanwhile_loses_no_result(official, monkeypatch, flag):
    """The generation was paid for: its order is recorded as returned, whatever the setting says by now."""
    task = Task(deferrable=True)
    waiting = deferred_by(task)
    official.set_speed(50)
    found = task.resume(waiting)
    monkeypatch.setenv("AIRFLOW__VIDU__DRY_RUN", flag)
    task.operator.post_execute(task.context(), found)
    assert [record["returned"] for record in task.store.values()] == [True]


@pytest.mark.fault(
    "orders",
    "gate: the search for a lost create is refused (429)",
    outcome="clear error",
    seen="the next try searches again; nothing is submitted",
)
@pytest.mark.parametrize("is_cleared", [False, True], ids=["retry", "clear"])
def test_a_refused_search_for_a_lost_create_does_not_queue(official, lost, is_cleared):
    """A queue would say in the end that nothing was submitted; the next retry searches again, and finds the job."""
    task = Task(deferrable=True)
    lost(task)
    official.add_fault({"match": {"kind": "list"}, "times": 99, "action": {"status": 429}})
    if is_cleared:
        task.clear()
    with pytest.raises(exceptions.ViduSubmitUncertainError, match="could not be read") as caught:
        task.start()
    assert caught.value.retryable
    official.clear_faults()
    assert deferred_by(task).trigger.generation_id == official.creates[0].id
    assert len(official.creates) == 1


def test_a_second_request_in_one_try(official):
    """As when a ``@task`` executes several operators: it returned the first one's clip, as success."""
    task = Task(deferrable=False, wait_for_completion=False)
    first = task.start()
    second = ViduGenerateOperator(**{**task.kwargs, "prompt": "a dog"})
    with pytest.raises(exceptions.ViduConfigError, match=f"has ordered generation {first['id']} with another request"):
        second.execute(task.context())
    assert ViduGenerateOperator(**task.kwargs).execute(task.context())["id"] == first["id"]
    task.kwargs["prompt"] = "a dog"
    assert task.start()["id"] == first["id"]  # a retry, whose DAG has changed
    assert len(official.creates) == 1


def test_a_deferrable_operator_within_another_task(official):
    """Airflow would resume the ``@task`` that executes it, which cannot be: the generation was paid for and lost."""
    task = Task(deferrable=True, timeout=1, poll_interval=0.2)
    with pytest.raises(exceptions.ViduTimeoutError):
        ViduGenerateOperator(**task.kwargs).execute({**task.context(), "task": object()})
    operator = ViduGenerateOperator(**task.kwargs)
    with pytest.raises(TaskDeferred):
        operator.execute({**task.context(), "task": operator})


def test_a_deferrable_operator_under_tasks_test_of_airflow_2(official):
    """It resumes what the DAG holds, with unrendered templates or the mapped operator: what was paid for failed."""
    task = Task(deferrable=True, timeout=1, poll_interval=0.2)
    operator, context = ViduGenerateOperator(**task.kwargs), task.context()
    context["ti"].test_mode = True
    with pytest.raises(exceptions.ViduTimeoutError):
        operator.execute({**context, "task": operator})


@pytest.mark.parametrize("deferrable", [False, True])
def test_durations_that_are_set_after_the_operator_was_made(official, deferrable):
    """As a cluster policy does for a whole deployment: they are read as if they were written in the DAG."""
    task = Task(deferrable=deferrable)
    operator = ViduGenerateOperator(**task.kwargs)
    operator.timeout, operator.poll_interval = timedelta(seconds=1), timedelta(seconds=0.2)
    with pytest.raises(TaskDeferred if deferrable else exceptions.ViduTimeoutError):
        operator.execute(task.context())
    assert len(official.creates) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_bytes", "20 MB"), ("timeout", "3600"), ("poll_interval", "15"), ("max_failures", "3"), ("reuse", "all"),
     ("artifact", "film"), ("deferrable", "perhaps"),
     ("wait_for_completion", False), ("budget", 20), ("on_clear", "again")],
)  # fmt: skip
def test_a_setting_that_nothing_can_read_costs_nothing(official, tmp_path, name, value):
    """Set after the operator was made, it was a TypeError, for max_bytes after the order."""
    task = Task(deferrable=False, destination=f"{tmp_path}/")
    operator = ViduGenerateOperator(**task.kwargs)
    setattr(operator, name, value)
    with pytest.raises(exceptions.ViduConfigError, match=name):
        operator.execute(task.context())
    assert not official.creates


def test_a_cap_that_is_set_after_the_operator_was_made(official):
    """By a cluster policy, or a subclass: it was ignored in silence."""
    task = Task(deferrable=False)
    operator = ViduGenerateOperator(**task.kwargs)
    operator.max_credits = PRICE - 1
    with pytest.raises(exceptions.ViduBudgetError, match=f"max_credits is {PRICE - 1}"):
        operator.execute(task.context())
