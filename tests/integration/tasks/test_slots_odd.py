"""The queue for slots under odd answers, closing clients and limits that several triggerers share."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from airflow_provider_vidu.api.clients import async_client
from airflow_provider_vidu.events import read_slot_event
from airflow_provider_vidu.exceptions import ViduBudgetError, ViduConfigError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.polling import admission
from airflow_provider_vidu.polling.turns import Waiter
from airflow_provider_vidu.tasks.slots import queue as slots
from airflow_provider_vidu.triggers import ViduGenerationTrigger
from tests.integration.tasks.test_slots import admitted, fired, slot_trigger

pytestmark = pytest.mark.integration


@pytest.mark.vidu_sandbox(concurrency=9, when_full="refuse")
async def test_a_limit_of_the_users_own_counts_what_others_run(sandbox, connect):
    """Another triggerer runs two of three: the account has free slots, and this queue gives away one."""
    connect("ent-v2", max_in_flight=3)
    sandbox.set_speed(0)
    for _ in range(2):
        await asyncio.to_thread(ViduHook().create_generation, prompt="a cat", model="viduq2")
    assert await admitted(*(slot_trigger(name) for name in "abcd")) == ["a"]


@pytest.mark.parametrize("limit", [0, -1, "none", None])
async def test_an_account_without_a_usable_limit_is_probed(sandbox, connect, limit):
    """A task must not wait for ever for a free one of no slots."""
    connect("ent-v2")
    answer = {"remains": [{"credit_remain": 500, "concurrency_limit": limit, "current_concurrency": 0}]}
    sandbox.add_fault({"match": {"kind": "credits"}, "times": 99, "action": {"status": 200, "body": answer}})
    assert await admitted(slot_trigger("film")) == ["film"]


@pytest.mark.vidu_sandbox(concurrency=2, when_full="refuse")
async def test_a_task_that_joins_while_the_queue_closes_is_served(sandbox, connect, monkeypatch):
    """The last waiter has gone, and its client is being closed: the next one is not forgotten."""
    connect("ent-v2")
    closing, close = asyncio.Event(), async_client.AsyncClient.close

    async def slowly(client: async_client.AsyncClient) -> None:
        closing.set()
        await asyncio.sleep(0.3)
        await close(client)

    monkeypatch.setattr(async_client.AsyncClient, "close", slowly)
    await fired(slot_trigger("first"))
    await asyncio.wait_for(closing.wait(), 5)
    assert await admitted(slot_trigger("second", since=time.time())) == ["second"]


@pytest.mark.vidu_sandbox(concurrency=1, when_full="refuse")
async def test_the_slot_of_a_task_that_has_ended_may_be_in_use(sandbox, connect, monkeypatch):
    """The answer to its create was lost: only a report from after that shows the generation, and nobody is admitted."""
    connect("ent-v2")
    sandbox.set_speed(0)

    async def state_and_generation(ti: Any) -> tuple[str, None]:
        if not sandbox.creates:
            await asyncio.to_thread(ViduHook().create_generation, prompt="a cat", model="viduq2")
        return "failed", None

    monkeypatch.setattr(slots, "state_and_generation", state_and_generation)
    monkeypatch.setattr(slots, "REPORT_SECONDS", 60.0)
    for module in (admission, slots):
        monkeypatch.setattr(module, "DOUBTED_SECONDS", 0.2)
    now = time.time()
    waiting = slot_trigger("lost", since=now - 9, refused_at=now - 60), slot_trigger("next", since=now - 8)
    assert await admitted(*waiting, seconds=1.5) == ["lost"]
    assert len(sandbox.creates) == 1


@pytest.mark.vidu_sandbox(balance=50)
async def test_a_floor_holds_for_those_who_join_right_after(sandbox, connect):
    """After a restart the waiting tasks join one by one: the balance is not asked again, and still refuses them."""
    connect("ent-v2", min_balance=100)
    for name in ("first", "second", "third"):
        with pytest.raises(ViduBudgetError, match="min_balance"):
            read_slot_event(await fired(slot_trigger(name)))
    assert len(sandbox.requests("credits")) == 1


@pytest.mark.fault(
    "orders",
    "gate: a triggerer restarts, with max_in_flight",
    outcome="survived",
    seen="nobody is admitted before what runs is counted",
)
async def test_a_restart_admits_nobody_before_the_running_generations_are_counted(sandbox, connect):
    """On a gateway, with all rows loaded at once and the waiting tasks first, ``max_in_flight`` holds."""
    connect("vidu-native", max_in_flight=1)
    sandbox.set_speed(0)
    generation = await asyncio.to_thread(ViduHook().create_generation, prompt="a cat", model="m")
    watch = ViduGenerationTrigger(generation_id=generation.id)

    async def watching() -> None:
        await asyncio.sleep(0.5)  # the triggerer makes its triggers one after the other
        await anext(watch.run())

    job = asyncio.create_task(watching())
    assert await admitted(slot_trigger("a"), slot_trigger("b"), seconds=1.5, at_least=0) == []
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)


ODD = {
    "priority": [10**400, "9"],
    "since": ["x", None, float("nan"), -1e300],
    "refused_at": ["x", 10**400],
    "retry_after": ["x"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ODD.items() for value in values], ids=str
)
async def test_a_wait_that_an_author_made_with_odd_arguments_ends_alone(sandbox, connect, name, value):
    """All waits of a connection are sorted together: those of other DAGs ended, too, and all later ones."""
    connect("ent-v2")
    odd = slot_trigger("odd", **{"refused_at": time.time(), name: value})
    odd, good = await asyncio.gather(fired(odd), fired(slot_trigger("good")))
    with pytest.raises(ViduConfigError, match="not an ordinary number"):
        read_slot_event(odd)
    for event in (good, await fired(slot_trigger("later"))):
        assert read_slot_event(event) is not None


@pytest.mark.vidu_sandbox(balance=50)
async def test_a_wait_that_was_refused_leaves_the_queue(sandbox, connect):
    """It was given a slot later, and held it for as long as a task takes to begin."""
    connect("ent-v2", min_balance=100)
    await asyncio.gather(*(fired(slot_trigger(name)) for name in "abcde"))
    assert slots.slot_queue("vidu_default")._gate.waiting == 0


async def test_the_watch_of_a_generation_since_an_odd_time_breaks_no_queue(sandbox, connect):
    """The author of a DAG may have made its trigger with any; a forecast adds to that time."""
    gate = admission.Gate()
    gate.submitted("a", None, 1.0, "x")
    gate.submitted("b", None, 1.0, 1.0)
    gate.ended("b", 9.0, is_over=True, lasted=8.0)
    gate.join(Waiter("key", 1, 1.0, 1.0), 9.0)
    assert gate.next_at(9.0) > 9.0
