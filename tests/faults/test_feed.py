"""Callbacks that no task waits for: whatever is wrong with them, each end is one event, and only latency changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

import pytest

pytest.importorskip("airflow.sdk", reason="event-driven scheduling came with Airflow 3.0")

from airflow_provider_vidu import event_triggers
from airflow_provider_vidu.orders.records import STATE_KEY
from airflow_provider_vidu.tasks.callbacks import arrivals, nudges
from airflow_provider_vidu.tasks.callbacks.tokens import new_address
from airflow_provider_vidu.ui.callbacks import nudging, routes
from fault_table import REFUSED, SURVIVED
from tests.faults.callback_world import BASE
from tests.faults.feed_world import LONG, SHORT, FeedWorld

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_backoff", "variables")]
REPEAT = 0.3


@pytest.fixture
def world(monkeypatch):
    """Make an order whose callbacks the test plays through."""
    from airflow_provider_vidu.sandbox import Sandbox

    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", BASE)
    monkeypatch.setattr(arrivals, "has_pages", lambda: True)
    monkeypatch.setattr(routes, "REFUSED_SECONDS", 0.0)
    monkeypatch.setattr(nudging, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(nudges, "READ_SECONDS", 0.02)
    monkeypatch.setattr(nudges, "SHARE_SECONDS", 0.02)
    monkeypatch.setattr(nudges, "REPEAT_SECONDS", REPEAT)
    monkeypatch.setattr(nudges, "_readers", type(nudges._readers)())
    monkeypatch.setattr(event_triggers, "SETTLE_SECONDS", 0.01)
    with Sandbox(models="any", list_payload=True) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", sandbox.connection_json("ent-v2", max_retries=0))
        yield FeedWorld(sandbox)


Play = Callable[[FeedWorld], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """A fault: what is played, how many nudges are written, what is answered last, and the trigger's interval."""

    play: Play
    writes: int | None = 1
    answer: int | None = 200
    interval: float = LONG
    rounds: int = 3
    outcome: str = SURVIVED


async def on_time(world: FeedWorld) -> None:
    """Send it when the generation has ended."""
    world.end()
    await world.send()


async def lost(world: FeedWorld) -> None:
    """Send nothing."""
    world.end()


async def before_the_id_is_stored(world: FeedWorld) -> None:
    """Send it while the create is not answered yet: the record has no id."""
    world.end()
    stored = world.task.store[STATE_KEY]
    world.task.store[STATE_KEY] = {**stored, "generation_id": None}
    await world.send()
    world.task.store[STATE_KEY] = stored


async def before_the_record_is_stored(world: FeedWorld) -> None:
    """Send it when nothing is known of the order; the service need not send it again."""
    world.end()
    stored = world.task.store.pop(STATE_KEY)
    await world.send()
    world.task.store[STATE_KEY] = stored


async def late(world: FeedWorld) -> None:
    """Let the interval be faster."""
    world.end()
    await world.until(lambda: world.events)
    await world.send()
    await world.until(lambda: world.rounds > 2)


async def twice(world: FeedWorld) -> None:
    """Send two of the same end, the second after its event."""
    await on_time(world)
    await world.until(lambda: world.events)
    await world.send()


async def twelve_at_once(world: FeedWorld) -> None:
    """Let one write hold them all, or two if one comes during the first."""
    world.end()
    await asyncio.gather(*(world.send() for _ in range(12)))
    assert world.writes <= 2


async def replayed(world: FeedWorld) -> None:
    """Send a recorded callback again."""
    world.end()
    await world.send(nonce="n1")
    await world.until(lambda: world.events)
    await world.send(nonce="n1")


async def success_before_processing(world: FeedWorld) -> None:
    """Report the end first."""
    world.end()
    await world.send("success")
    await world.send("processing")


async def not_true(world: FeedWorld) -> None:
    """Report an end that the service does not show yet; it does when the round is repeated."""
    await world.send()
    await world.until(lambda: world.rounds == 2)
    assert world.events == []
    world.end()


async def lie_after_lie(world: FeedWorld) -> None:
    """Send as many valid callbacks without an end as possible for a second."""
    began, before = time.monotonic(), world.rounds
    while time.monotonic() < began + 1:
        await world.send()
        await asyncio.sleep(0.005)
    took = time.monotonic() - began
    assert world.rounds - before <= 2 * (took / REPEAT) + 2
    world.end()
    await world.send()


async def dag_paused(world: FeedWorld) -> None:
    """Send it when Airflow has stopped the trigger and removed the watcher; then unpause."""
    await world.stop()
    world.is_watched = False
    await on_time(world)
    await world.watch(LONG)


async def triggerer_restarts(world: FeedWorld) -> None:
    """Stop the trigger between the nudge and the round that it would cause."""
    await world.stop()
    await on_time(world)
    await world.watch(LONG)


async def api_server_restarts(world: FeedWorld) -> None:
    """Forget nonces and everything else; send the same again."""
    world.end()
    await world.send(nonce="n1")
    await world.until(lambda: world.events)
    world.restart()
    await world.send(nonce="n1")


async def cleared(world: FeedWorld) -> None:
    """Discard the record, as a clear does."""
    world.end()
    world.task.store.pop(STATE_KEY)
    await world.send()


async def cleared_and_ordered_again(world: FeedWorld) -> None:
    """Send the callback of the order before a clear: the record has another digest."""
    world.end()
    stored = world.task.store[STATE_KEY]
    _, world.task.store[STATE_KEY] = stored, {**stored, "callback": "0" * 40}
    await world.send()


async def database_fails(world: FeedWorld) -> None:
    """Ask the service to send again, which it does not."""
    world.end()
    world.broken = RuntimeError("the database is locked")
    await world.send()


async def store_cannot_be_read(world: FeedWorld) -> None:
    """Write the nudge where the trigger cannot read it."""
    world.is_readable = False
    await on_time(world)


async def service_is_busy(world: FeedWorld) -> None:
    """Let the round that the callback causes meet a busy service."""
    world.end()
    world.sandbox.add_fault({"match": {"kind": "list"}, "times": 1, "action": {"status": 503, "body": {}}})
    await world.send()


async def option_is_missing(world: FeedWorld) -> None:
    """Take from the API server the option that the workers have."""
    world.restart(path=None)
    await on_time(world)


async def connection_unknown_to_the_server(world: FeedWorld) -> None:
    """Let the token decide: only workers have the connection in their environment."""
    world.end()
    world.key = None
    await world.send(key="whatever")


def forged(**changes: object) -> Row:
    """Return the row of a callback that is refused."""

    async def play(world: FeedWorld) -> None:
        world.end()
        await world.send(**{name: value(world) if callable(value) else value for name, value in changes.items()})

    return Row(play, writes=0, answer=404, interval=SHORT, outcome=REFUSED)


ROWS: dict[str, Row] = {
    "a callback on time": Row(on_time),
    "a lost callback": Row(lost, writes=0, answer=None, interval=SHORT),
    "a callback before the create is answered": Row(before_the_id_is_stored),
    "a callback before the record": Row(before_the_record_is_stored, writes=0, answer=404, interval=SHORT),
    "a callback after the interval's round": Row(late, interval=SHORT, rounds=9),
    "a doubled callback": Row(twice, writes=2),
    "twelve callbacks at once": Row(twelve_at_once, writes=None),
    "a replayed callback": Row(replayed),
    "success before processing": Row(success_before_processing),
    "a success that is not true yet": Row(not_true, rounds=4),
    "lies for a second": Row(lie_after_lie, writes=None, rounds=14),
    "a DAG that is paused meanwhile": Row(dag_paused, writes=0, rounds=4),
    "a triggerer that restarts after the nudge": Row(triggerer_restarts, rounds=4),
    "an API server that restarts": Row(api_server_restarts, writes=2, rounds=4),
    "a record that was cleared": Row(cleared, writes=0, answer=404, interval=SHORT, outcome=REFUSED),
    "the callback of the order before a clear": Row(
        cleared_and_ordered_again, writes=0, answer=404, interval=SHORT, outcome=REFUSED
    ),
    "an unknown token": forged(token=lambda _: new_address(BASE, uuid4()).token),
    "the secret of another order": forged(token=lambda w: new_address(BASE, w.instance).token),
    "a callback without a signature": forged(headers={}),
    "a signature with another key": forged(key="another"),
    "a signature of yesterday": forged(at=time.time() - 86_400),
    "a database that fails": Row(database_fails, writes=0, answer=503, interval=SHORT),
    "an asset's state that cannot be read": Row(store_cannot_be_read, interval=SHORT),
    "a busy service when the trigger checks": Row(service_is_busy, rounds=4),
    "an API server without the option": Row(option_is_missing, writes=0, answer=404, interval=SHORT),
    "a connection that only workers have": Row(connection_unknown_to_the_server),
}


@pytest.mark.parametrize("fault", ROWS)
async def test_a_faulty_callback_costs_latency_alone(world, fault, fault_row):
    """The end is one event, the order is paid once, and the service is asked as often as the row says."""
    row = ROWS[fault]
    await world.watch(row.interval)
    try:
        await row.play(world)
        await world.until(lambda: world.events)
        await asyncio.sleep(0.1)
        rounds = world.rounds
    finally:
        await world.stop()
    generation_id = world.sandbox.creates[0].id
    assert [(event["generation_id"], event["outcome"]) for event in world.events] == [(generation_id, "succeeded")]
    assert [create.charge for create in world.sandbox.creates] == ["charged"]
    assert row.writes in (None, world.writes)
    assert row.answer is None or world.answers[-1] == row.answer
    assert row.interval == SHORT or rounds <= row.rounds
    assert world.polls == 1
    noticed = "the callback" if row.interval == LONG else "the interval"
    seen = f"answered {world.answers[-1] if world.answers else 'nothing'}; noticed by {noticed}; one event"
    fault_row("attacks" if row.outcome == REFUSED else "polling", f"{fault}, and no task waits", side="callbacks",
              seen=seen, requests=rounds + world.polls, outcome=row.outcome)  # fmt: skip
