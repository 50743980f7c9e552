"""Tasks that wait for a slot of their account: triggers on one loop, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu import triggers
from airflow_provider_vidu.events import Predecessor, read_slot_event
from airflow_provider_vidu.exceptions import ViduBudgetError, ViduError, ViduTimeoutError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.polling import admission
from airflow_provider_vidu.tasks.slots import queue as slots
from airflow_provider_vidu.tasks.slots.queue import slot_queue
from airflow_provider_vidu.triggers import ViduGenerationTrigger, ViduSlotTrigger

pytestmark = pytest.mark.integration


def slot_trigger(name: str, **changes: Any) -> ViduSlotTrigger:
    """Return the trigger of a task that was deferred a minute ago, through its serialised form."""
    now = time.time()
    arguments = {"vidu_conn_id": "vidu_default", "since": now - 60, "deadline": now + 60, "queued_at": now - 60}
    path, stored = ViduSlotTrigger(**{**arguments, **changes}).serialize()
    trigger = getattr(triggers, path.rpartition(".")[2])(**json.loads(json.dumps(stored)))
    trigger.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id=name, map_index=-1)
    return trigger


async def fired(trigger: ViduSlotTrigger) -> dict[str, Any]:
    """Return the payload of a trigger's only event."""
    [event] = [event async for event in trigger.run()]
    return json.loads(json.dumps(event.payload))


async def admitted(*waiting: ViduSlotTrigger, seconds: float = 0.5, at_least: int = 1) -> list[str]:
    """Return which of these tasks may submit, in their order: the first ones, and what follows within some seconds."""
    order: list[str] = []
    enough = asyncio.Event()
    if not at_least:
        enough.set()

    async def wait(trigger: ViduSlotTrigger) -> None:
        read_slot_event(await fired(trigger))
        order.append(trigger.task_instance.task_id)
        if len(order) >= at_least:
            enough.set()

    jobs = [asyncio.create_task(wait(trigger)) for trigger in waiting]
    async with asyncio.timeout(60):
        await enough.wait()
    await asyncio.wait(jobs, timeout=seconds)
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    return order


@pytest.mark.vidu_sandbox(concurrency=3, when_full="refuse")
async def test_the_reported_slots_are_given_away_by_priority_and_age(sandbox, connect):
    """Two of three slots are free: the urgent task gets one, the oldest of the others the second, and no more."""
    connect("ent-v2")
    sandbox.set_speed(0)
    await asyncio.to_thread(ViduHook().create_generation, prompt="a cat", model="viduq2")
    now = time.time()
    waiting = [
        slot_trigger("young", since=now - 10),
        slot_trigger("old", since=now - 99),
        slot_trigger("urgent", since=now - 5, priority=9),
    ]
    assert await admitted(*waiting, at_least=2) == ["urgent", "old"]
    assert len(sandbox.requests("credits")) <= 2  # one request serves all who wait


@pytest.mark.vidu_sandbox(gateway_concurrency=1)
async def test_the_end_of_a_generation_admits_the_next(sandbox, connect, quick_backoff, no_first_wait):
    """On a gateway that reports nothing, a watched generation that ends frees its slot at once."""
    connect("vidu-native")
    generation = await asyncio.to_thread(ViduHook().create_generation, prompt="a cat", model="m")
    watch = ViduGenerationTrigger(generation_id=generation.id, poll_interval=0.1)
    watching = asyncio.create_task(anext(watch.run()))
    order = await admitted(slot_trigger("next", refused_at=time.time()))
    assert order == ["next"]
    assert (await watching).payload["outcome"] == "succeeded"


@pytest.mark.fault(
    "orders",
    "gate: the balance falls below min_balance",
    outcome="refused",
    seen="ViduBudgetError for every waiting task, with both numbers",
)
@pytest.mark.vidu_sandbox(balance=50)
async def test_below_the_floor_nothing_is_submitted(sandbox, connect):
    """The balance is requested once, and ends the wait of every task with an error that names both numbers."""
    connect("ent-v2", min_balance=100)
    events = await asyncio.gather(*(fired(slot_trigger(name)) for name in "abcde"))
    for event in events:
        with pytest.raises(ViduBudgetError, match=r"balance of 50 .* min_balance of 100"):
            read_slot_event(event)
    assert len(sandbox.requests("credits")) == 1


@pytest.mark.fault(
    "orders",
    "gate: the timeout expires in the triggerer",
    outcome="clear error",
    seen="ViduTimeoutError; nothing was submitted",
)
@pytest.mark.vidu_sandbox(concurrency=1, when_full="refuse")
async def test_the_deadline_ends_the_wait(sandbox, connect):
    """A task that gets no slot in time fails with a clear error; nothing was submitted."""
    connect("ent-v2")
    sandbox.set_speed(0)
    await asyncio.to_thread(ViduHook().create_generation, prompt="a cat", model="viduq2")
    event = await fired(slot_trigger("late", deadline=time.time() + 0.3, refused_at=time.time()))
    with pytest.raises(ViduTimeoutError, match="No slot was free within 1 min 0 s: nothing was submitted"):
        read_slot_event(event)
    assert len(sandbox.requests("create")) == 1


@pytest.mark.fault(
    "orders",
    "gate: a task is cleared while it waits for a slot",
    outcome="survived",
    seen="the next try keeps its place",
)
@pytest.mark.vidu_sandbox(concurrency=1, when_full="refuse")
async def test_the_trigger_of_a_cleared_try_leaves_the_next_one_in_the_queue(sandbox, connect):
    """Both have the same key; the old one is cancelled after the new one has joined."""
    connect("ent-v2")
    first = await asyncio.to_thread(ViduHook().create_generation, prompt="a cat", model="viduq2")
    old = asyncio.create_task(fired(slot_trigger("film", refused_at=time.time())))
    await asyncio.sleep(0.2)
    new = asyncio.create_task(fired(slot_trigger("film", refused_at=time.time())))
    await asyncio.sleep(0.2)
    old.cancel()
    sandbox.advance(100)
    await asyncio.to_thread(ViduHook().wait, first.id, poll_interval=0.05)
    assert read_slot_event(await asyncio.wait_for(new, 20)) is not None


@pytest.mark.fault(
    "orders",
    "gate: the queue itself breaks",
    outcome="clear error",
    seen="each wait ends at once and says why",
)
async def test_a_queue_that_breaks_ends_the_waits(sandbox, connect, monkeypatch):
    """A fault of the queue itself is reported at once, not at the deadline of each task."""
    connect("ent-v2")
    monkeypatch.setenv("AIRFLOW__VIDU__MAX_CONNECTIONS", "many")
    event = await asyncio.wait_for(fired(slot_trigger("film")), 20)
    with pytest.raises(ViduError, match="max_connections"):
        read_slot_event(event)


@pytest.mark.vidu_sandbox(gateway_concurrency=1)
async def test_the_next_task_starts_before_the_clip_ends(sandbox, connect, monkeypatch, no_first_wait):
    """Once it is known how long clips take, the event comes early, and names the clip that has to end first."""
    connect("vidu-native")
    queue = slot_queue("vidu_default")
    for name, lasted in (("old", 30.0), ("odd", 31.0)):
        with queue.watching(name, None, time.time() - lasted) as watching:
            watching.is_over, watching.lasted = True, lasted
    sandbox.set_speed(0)
    running = await asyncio.to_thread(ViduHook().create_generation, prompt="a cat", model="m")
    watch = ViduGenerationTrigger(
        generation_id=running.id, since=time.time() - 28, endpoint="/v1/video/create", poll_interval=60
    )
    watching = asyncio.create_task(anext(watch.run()))
    event = await asyncio.wait_for(fired(slot_trigger("next", refused_at=time.time())), 30)
    watching.cancel()
    assert read_slot_event(event).after == Predecessor(running.id, "/v1/video/create")


@pytest.mark.fault(
    "orders",
    "gate: a task fails or is killed between its turn and its create",
    outcome="survived",
    seen="its slot is the next one's within half a minute",
)
@pytest.mark.vidu_sandbox(gateway_concurrency=1)
async def test_a_task_that_was_killed_before_its_create_gives_its_slot_back(sandbox, connect, monkeypatch):
    """Airflow says that it has ended, so the next task need not wait for two minutes."""
    connect("vidu-native")
    states = {"killed": "failed", "slow": "running"}

    async def state_and_generation(ti: Any) -> tuple[str | None, Any]:
        return states[ti.task_id], None

    monkeypatch.setattr(slots, "state_and_generation", state_and_generation)
    monkeypatch.setattr(admission, "DOUBTED_SECONDS", 0.3)
    monkeypatch.setattr(admission, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(slots, "DOUBTED_SECONDS", 0.1)
    long_ago = time.time() - 60
    order = await admitted(
        slot_trigger("killed", refused_at=long_ago, since=long_ago - 3),
        slot_trigger("slow", refused_at=long_ago, since=long_ago - 2),
        slot_trigger("next", refused_at=long_ago, since=long_ago - 1),
        at_least=2,
        seconds=2,
    )
    assert order == ["killed", "slow"]  # which is alive, and keeps its slot


@pytest.mark.vidu_sandbox(gateway_concurrency=1)
async def test_a_generation_that_another_triggerer_watches_frees_its_slot(sandbox, connect, monkeypatch, no_first_wait):
    """Airflow gives the watch of an admitted task to any triggerer; its slot is in use for as long as clips take."""
    connect("vidu-native", max_in_flight=1)

    async def state_and_generation(ti: Any) -> tuple[str | None, Any]:
        return "deferred", "elsewhere"

    monkeypatch.setattr(slots, "state_and_generation", state_and_generation)
    monkeypatch.setattr(admission, "DOUBTED_SECONDS", 0.3)
    queue = slot_queue("vidu_default")
    with queue.watching("old", None, time.time() - 2) as watching:
        watching.is_over, watching.lasted = True, 1.0
    long_ago = time.time() - 60
    began = time.monotonic()
    order = await admitted(
        slot_trigger("first", refused_at=long_ago, since=long_ago - 2),
        slot_trigger("next", refused_at=long_ago, since=long_ago - 1),
        at_least=2,
        seconds=0.1,
    )
    assert order == ["first", "next"]
    assert time.monotonic() - began >= 1.3  # until the end is probable


async def test_a_missing_connection_waits_for_it(connect):
    """A connection that comes back is used; until then the task keeps waiting, within its deadline."""
    event = await fired(slot_trigger("lost", deadline=time.time() + 0.3))
    with pytest.raises(ViduTimeoutError):
        read_slot_event(event)
