"""Single tasks under a budget at a service that names a price only at the end, or never."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.operators import ViduBudget
from airflow_provider_vidu.polling.retries import Backoff
from airflow_provider_vidu.triggers import ViduGenerationTrigger, ViduSlotTrigger
from tests.integration.operators.test_generate_spending import PRICE, Spender, logged, names, paid

__all__ = ["logged"]

FREE = {"kind": "slot", "outcome": "succeeded", "since": 1.0, "deadline": 4e9}
LATE = pytest.mark.vidu_sandbox(price=PRICE, concurrency=50, native_shape="official")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables"),
    pytest.mark.vidu_sandbox(price=PRICE, concurrency=50),
]


@pytest.fixture
def gateway(connect, sandbox) -> Any:
    """Return a gateway in which nothing moves; its creates name no price."""
    connect("vidu-native", max_retries=1, timeout=2)
    sandbox.set_speed(0)
    return sandbox


@pytest.fixture
def late(gateway, monkeypatch) -> Any:
    """Return a gateway that names the price of a generation once it has ended."""
    query = ViduHook.get_generation

    def queried(*args: Any, **kwargs: Any) -> Generation:
        generation = query(*args, **kwargs)
        return generation if generation.is_done else generation.model_copy(update={"credits": None})

    monkeypatch.setattr(ViduHook, "get_generation", queried)
    return gateway


def spender(index: int, most: float, **kwargs: Any) -> Spender:
    """Return a task with a budget."""
    return Spender(index, budget=ViduBudget(credits=most), **kwargs)


def deferred(task: Spender, waiting: TaskDeferred | None = None) -> TaskDeferred:
    """Begin a try, or wake it from its wait for a slot, until it defers."""
    with pytest.raises(TaskDeferred) as caught:
        task.start() if waiting is None else task.wake(waiting, FREE)
    return caught.value


def kinds(variables: Any) -> list[str]:
    """Return how the names of all entries end."""
    return sorted(name.rpartition("_")[2] for name in names(variables))


@LATE
@pytest.mark.fault(
    "orders",
    "budget: the service names a price at the end only",
    outcome="survived",
    seen="three without a price are open at most; the next task waits until one has ended",
)
def test_tasks_wait_for_the_prices_of_those_before_them(late, variables):
    """Of ten at once three submit; the others wait without a retry, and their budget ends with the prices."""
    tasks = [spender(index, 3 * PRICE) for index in range(10)]
    waits = [deferred(task) for task in tasks]
    assert [type(wait.trigger) for wait in waits] == [ViduGenerationTrigger] * 3 + [ViduSlotTrigger] * 7
    assert waits[3].trigger.serialize()[1]["refused_at"] is not None  # or it would be woken at once
    assert (len(late.creates), kinds(variables)) == (3, ["open"] * 3)
    assert tasks[3].xcoms["vidu_watch"]["for_prices"] is True  # its page says what it waits for
    assert waits[3].trigger.is_for_prices is waits[3].trigger.serialize()[1]["is_for_prices"] is True
    assert type(deferred(tasks[3], waits[3]).trigger) is ViduSlotTrigger
    late.set_speed(1e6)
    for task, wait in zip(tasks[:3], waits[:3], strict=True):
        assert task.resume(wait)["credits"] == PRICE
    assert kinds(variables) == [str(PRICE)] * 3
    with pytest.raises(exceptions.ViduBudgetError, match="30 of 30 credits, in 3 generations"):
        tasks[3].wake(waits[3], FREE)
    assert paid(late) == [PRICE] * 3


@LATE
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_wait_for_prices_is_not_called_one_for_a_slot(late, variables, logged, deferrable):
    """Neither in the log nor in the error of its timeout: more slots would not help."""
    for index in range(3):
        deferred(spender(index, 9 * PRICE))
    task = spender(3, 9 * PRICE, deferrable=deferrable, timeout=1)
    if deferrable:
        waiting = deferred(task)
        with pytest.raises(
            exceptions.ViduTimeoutError, match=r"budget may be spent by .* still not known after [0-9.]+ s"
        ):
            task.wake(waiting, task.event(waiting))
    else:
        with pytest.raises(
            exceptions.ViduTimeoutError, match=r"budget may be spent by .* still not known after [0-9.]+ s"
        ):
            task.start()
    assert "slot" not in logged()
    assert task.xcoms["vidu_watch"]["for_prices"] is True
    assert len(late.creates) == 3


@LATE
def test_an_open_generation_counts_as_the_most_expensive_one(late, variables):
    """Once a price is known, as many may be open as the rest of the budget covers."""
    late.set_speed(1e6)
    assert spender(0, 4 * PRICE, deferrable=False).run()["credits"] == PRICE
    late.set_speed(0)
    waits = [deferred(spender(index, 4 * PRICE)) for index in range(1, 5)]
    assert [type(wait.trigger) for wait in waits] == [ViduGenerationTrigger] * 3 + [ViduSlotTrigger]
    assert kinds(variables) == [str(PRICE), "open", "open", "open"]


@LATE
def test_prices_that_no_task_waits_for_are_learnt(late, variables):
    """Of tasks that end without waiting, or were killed: who is stopped by them queries them."""
    for index in range(3):
        spender(index, 9 * PRICE, wait_for_completion=False).start()
    last = spender(3, 9 * PRICE)
    waiting = deferred(last)
    assert type(waiting.trigger) is ViduSlotTrigger
    late.set_speed(1e6)
    assert type(deferred(last, waiting).trigger) is ViduGenerationTrigger
    assert kinds(variables) == [str(PRICE)] * 3 + ["open"]


@LATE
def test_a_generation_that_has_failed_counts_no_longer(late, variables):
    """It has cost nothing, and proves nothing about the others."""
    waits = [spender(index, 9 * PRICE, prompt="[fail:AuditSubmitIllegal] a cat") for index in range(3)]
    for task in waits:
        deferred(task)
    late.set_speed(1e6)
    assert type(deferred(spender(3, 9 * PRICE)).trigger) is ViduGenerationTrigger
    assert kinds(variables) == ["open"]


@LATE
def test_prices_that_cannot_be_learnt_stop_no_query(gateway, variables):
    """Of a connection that was removed, of an edited entry, of a generation that the service has forgotten."""
    for index in range(3):
        spender(index, 9 * PRICE, wait_for_completion=False).start()
    forgotten, gone, edited = (name for name in names(variables))
    variables.kept[gone] = variables.kept[gone].replace("vidu_default", "vidu_removed")
    variables.kept[edited] = "null"
    old = json.loads(variables.kept[forgotten])
    variables.kept[forgotten] = json.dumps({**old, "at": old["at"] - 3600})
    lost = {"match": {"kind": "query", "id": old["generation_id"]}, "times": None}
    gateway.add_fault({**lost, "action": {"status": 404, "body": json.dumps({"message": "task not found"})}})
    assert type(deferred(spender(3, 9 * PRICE)).trigger) is ViduGenerationTrigger
    assert kinds(variables) == ["open"] * 3
    with pytest.raises(TaskDeferred) as waiting:
        spender(4, 9 * PRICE).start()
    assert type(waiting.value.trigger) is ViduGenerationTrigger  # it has learnt the price of the last one


def test_a_generation_that_has_failed_at_once_is_not_open(gateway, variables, monkeypatch):
    """The answer to its create says so, and no task waits for it."""
    submit = SyncClient.submit
    failed = {"status": GenerationStatus.FAILED, "error_code": "AuditSubmitIllegal"}
    monkeypatch.setattr(SyncClient, "submit", lambda *given, **known: submit(*given, **known).model_copy(update=failed))
    with pytest.raises(exceptions.ViduGenerationFailedError):
        spender(0, PRICE).start()
    assert (len(gateway.creates), kinds(variables)) == (1, [])


@LATE
def test_a_retry_counts_what_a_killed_worker_has_not(late, variables):
    """Its entry was not written; the retry resumes the generation, and pays nothing."""
    task, write = spender(0, 9 * PRICE), variables.set
    variables.set = lambda key, value: 1 / 0 if key.startswith("vidu_spent") else write(key, value)
    deferred(task)
    variables.set = write
    assert kinds(variables) == []
    deferred(task)
    assert (kinds(variables), len(late.creates)) == (["open"], 1)


@pytest.mark.fault(
    "orders",
    "budget: the service never names a price",
    outcome="documented limit",
    seen="from the first result on, no limit applies; the log says so",
)
def test_a_service_that_never_names_a_price_is_not_held_back(gateway, variables, logged):
    """The first result shows that there are none; then all others go on."""
    tasks = [spender(index, PRICE) for index in range(8)]
    waits = [deferred(task) for task in tasks]
    assert type(waits[3].trigger) is ViduSlotTrigger
    gateway.set_speed(1e6)
    assert tasks[0].resume(waits[0])["credits"] is None
    assert logged().count("named no price") == 1
    gateway.set_speed(0)
    for task, wait in zip(tasks[3:], waits[3:], strict=True):
        assert type(deferred(task, wait).trigger) is ViduGenerationTrigger
    assert len(gateway.creates) == 8


@LATE
def test_a_price_that_a_query_of_an_open_generation_names_is_entered(gateway, variables):
    """Some services name it as soon as the generation runs: nothing waits then."""
    for index in range(4):
        assert type(deferred(spender(index, 9 * PRICE)).trigger) is ViduGenerationTrigger
    assert kinds(variables) == [str(PRICE)] * 3 + ["open"]


def test_a_task_that_waits_in_its_worker_waits_for_a_price(gateway, variables, monkeypatch):
    """With pauses, as for a full account; nothing is sent meanwhile."""
    for index in range(3):
        deferred(spender(index, PRICE))
    pauses: list[int] = []

    def pause(self: Any, failures: int, error: Any = None) -> float:
        pauses.append(len(gateway.creates))
        gateway.set_speed(1e6)
        return 0.01

    monkeypatch.setattr(Backoff, "delay", pause)
    assert spender(3, PRICE, deferrable=False).run()["status"] == "succeeded"
    assert pauses == [3]
