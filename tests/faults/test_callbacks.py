"""Callbacks that are lost, early, late, doubled, forged, replayed, reordered or wrong change nothing but the latency.

In each row the order is paid once and ends as the service says; at most one poll per callback and half a minute is
added, and what was not noticed by a callback is noticed by the trigger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

import pytest

from airflow_provider_vidu.polling import watch
from airflow_provider_vidu.tasks.callbacks import arrivals as callbacks
from airflow_provider_vidu.tasks.callbacks.tokens import new_address
from airflow_provider_vidu.ui.callbacks import airflow_tasks, routes
from fault_table import CLEAR_ERROR, REFUSED, SURVIVED
from tests.faults.callback_world import BASE, CallbackWorld

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_backoff", "variables")]
NOT_FOUND = "404 without a word"


@pytest.fixture
def world(monkeypatch):
    """Make an order whose callbacks the test plays through."""
    from airflow_provider_vidu.sandbox import Sandbox

    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", BASE)
    monkeypatch.setattr(callbacks, "has_pages", lambda: True)
    monkeypatch.setattr(callbacks, "_arrivals", {})
    monkeypatch.setattr(watch.PollPolicy, "first_delay", lambda *_args, **_kwargs: 0.0)
    monkeypatch.setattr(routes, "REFUSED_SECONDS", 0.0)
    monkeypatch.setattr(routes, "BODY_SECONDS", 0.2)
    with Sandbox(models="any", list_payload=True) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", sandbox.connection_json("ent-v2", max_retries=0))
        yield CallbackWorld(sandbox)


Play = Callable[[CallbackWorld], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """A fault: what is played, how often the task is woken and the service polled, and what is answered last."""

    play: Play
    woken: int | None = 0
    polls: int = 1
    answer: int | None = None
    outcome: str = SURVIVED


async def lost(world: CallbackWorld) -> None:
    """Send nothing."""
    world.end()


async def before_the_deferral(world: CallbackWorld) -> None:
    """Send it while the task is still in its worker."""
    world.end()
    deferred, world.deferred = world.deferred, None
    await world.send()
    world.deferred = deferred


async def right_after_the_deferral(world: CallbackWorld) -> None:
    """Send it when Airflow would fail a task that is resumed."""
    world.end()
    world.deferred_at = world.now - 1
    await world.send()
    assert world.woken == 0
    await world.settle()


async def held_by_a_server_that_restarts(world: CallbackWorld) -> None:
    """Lose what was held."""
    world.end()
    world.deferred_at = world.now - 1
    await world.send()
    for task in world.waker._held.values():
        task.cancel()
    world.restart()


async def late(world: CallbackWorld) -> None:
    """Let the trigger be faster."""
    world.end()
    await asyncio.to_thread(world.net)
    await world.send()


async def after_a_clear(world: CallbackWorld) -> None:
    """Send the callback of the order before the clear."""
    old = world.token
    world.token = new_address(BASE, world.instance).url.rpartition("/")[2]
    await world.send(token=old[:-4] + "AAAA")
    world.token = old
    world.end()


async def twice(world: CallbackWorld) -> None:
    """Send one that finds the task, and one that does not."""
    world.end()
    await world.send()
    await world.send()


async def twelve_at_once(world: CallbackWorld) -> None:
    """Let one statement decide."""
    world.end()
    await asyncio.gather(*(world.send() for _ in range(12)))


async def replayed(world: CallbackWorld) -> None:
    """Send a recorded callback again after the task has gone back to sleep."""
    await world.send(nonce="n1")
    world.now += 60
    await world.send(nonce="n1")
    world.end()


async def success_before_processing(world: CallbackWorld) -> None:
    """Report the end first."""
    world.end()
    await world.send("success")
    await world.send("processing")


async def processing_after_success_was_lost(world: CallbackWorld) -> None:
    """Send what says that the generation goes on."""
    world.end()
    await world.send("processing")


async def lie_every_second(world: CallbackWorld) -> None:
    """Send forty lies in a row, and then the truth."""
    began = world.now
    for _ in range(40):
        world.now += 1
        await world.send()
    await world.settle()
    assert world.woken <= 1 + (world.now - began) / 30
    world.end()
    world.now += 60
    await world.send()


def sends(state: str = "success", *, ends: bool = True, **changes: object) -> Play:
    """Send one callback, after the end or before it."""

    async def play(world: CallbackWorld) -> None:
        if ends:
            world.end()
        made = {name: value(world) if callable(value) else value for name, value in changes.items()}
        await world.send(state, **made)
        world.end()

    return play


async def database_fails(world: CallbackWorld) -> None:
    """Ask the service to send again, which it does not."""
    world.end()
    world.broken = RuntimeError("the database is locked")
    await world.send()
    world.broken = None


async def key_rotated(world: CallbackWorld) -> None:
    """Sign with the key of the create, when the connection has another."""
    world.end()
    world.key = "a-new-key"
    await world.send()


async def connection_unknown_to_the_server(world: CallbackWorld) -> None:
    """Let the token decide: only workers have the connection in their environment."""
    world.end()
    world.key = None
    await world.send(key="whatever")


async def check_fails(world: CallbackWorld) -> None:
    """Let the one poll of the woken task meet a busy service."""
    world.end()
    world.sandbox.add_fault({"match": {"kind": "query"}, "times": 1, "action": {"status": 503, "body": {}}})
    await world.send()


async def option_is_missing(world: CallbackWorld) -> None:
    """Take from the API server the option that the workers have."""
    world.end()
    world.restart(path=None)
    await world.send()


ROWS: dict[str, Row] = {
    "a lost callback": Row(lost),
    "a callback before the task has deferred": Row(before_the_deferral, answer=404),
    "a callback a second after the deferral": Row(right_after_the_deferral, woken=1, answer=200),
    "an API server that restarts while it holds a callback": Row(held_by_a_server_that_restarts, answer=200),
    "a callback after the trigger's event": Row(late, polls=2, answer=404),
    "the callback of the order before a clear": Row(after_a_clear, answer=404, outcome=REFUSED),
    "a doubled callback": Row(twice, woken=1, answer=404),
    "twelve callbacks at once": Row(twelve_at_once, woken=1),
    "a replayed callback": Row(replayed, woken=1, polls=2, answer=200),
    "success before processing": Row(success_before_processing, woken=1, answer=404),
    "processing after a lost success": Row(processing_after_success_was_lost, answer=200),
    "a success that is not true": Row(sends(ends=False), woken=1, polls=2, answer=200),
    "a failure that is not true": Row(sends("failed", ends=False), woken=1, polls=2, answer=200),
    "forty lies in forty seconds": Row(lie_every_second, woken=None, answer=200),
    "an unknown token": Row(
        sends(token=lambda _: new_address(BASE, uuid4()).url.rpartition("/")[2]), answer=404, outcome=REFUSED
    ),
    "the secret of another order": Row(
        sends(token=lambda w: new_address(BASE, w.instance).url.rpartition("/")[2]), answer=404, outcome=REFUSED
    ),
    "a token in another spelling": Row(sends(token=lambda w: w.token + "="), answer=404, outcome=REFUSED),
    "a callback without a signature": Row(sends(headers={}), answer=404, outcome=REFUSED),
    "a signature with another key": Row(sends(key="another"), answer=404, outcome=REFUSED),
    "a signature of another path": Row(sends(path="/vidu/callbacks/other"), answer=404, outcome=REFUSED),
    "a signature of yesterday": Row(sends(at=time.time() - 86_400), answer=404, outcome=REFUSED),
    "a signature of tomorrow": Row(sends(at=time.time() + 86_400), answer=404, outcome=REFUSED),
    "a GET instead of a POST": Row(sends(method="GET"), answer=404, outcome=REFUSED),
    "a callback that is not JSON": Row(sends(chunks=[b"<html>"]), woken=1, answer=200),
    "a callback without a body": Row(sends(chunks=[b""]), woken=1, answer=200),
    "a callback of 3 MB": Row(sends(chunks=[b"x" * 100_000] * 30), woken=1, answer=200),
    "a callback of 9 MB": Row(sends(chunks=[b"x" * 1_000_000] * 9), answer=413),
    "a body that never ends": Row(sends(chunks=[b"{", b""]), woken=1, answer=200),
    "an unknown state": Row(sends("marinating"), woken=1, answer=200),
    "a body with another generation's id": Row(
        sends(chunks=[b'{"id":"999","state":"success"}']), woken=1, answer=200
    ),
    "a database that fails": Row(database_fails, answer=503),
    "a key that was rotated since the create": Row(key_rotated, answer=404),
    "a connection that only workers have": Row(connection_unknown_to_the_server, woken=1, answer=200),
    "a busy service when the woken task checks": Row(check_fails, woken=1, polls=3, answer=200),
    "an API server without the option": Row(option_is_missing, answer=404),
}  # fmt: skip


@pytest.mark.parametrize("fault", ROWS)
async def test_a_faulty_callback_costs_latency_alone(world, fault, fault_row):
    """The order is paid once and succeeds; the task is woken, and the service polled, as often as the row says."""
    row = ROWS[fault]
    await row.play(world)
    woken = world.woken
    noticed = "the callback" if world.result is not None else "the trigger"
    if world.deferred is not None:
        await asyncio.to_thread(world.net)
    assert world.error is None
    assert world.result["status"] == "succeeded"
    assert [create.charge for create in world.sandbox.creates] == ["charged"]
    assert row.woken in (None, woken)
    if row.answer is not None:
        assert world.answers[-1] == row.answer
    expected = row.polls + (1 if noticed == "the trigger" and fault != "a lost callback" else 0)
    assert world.polls <= max(expected, 2) + 2 * woken
    seen = f"answered {world.answers[-1] if world.answers else 'nothing'}; noticed by {noticed}"
    fault_row("attacks" if row.outcome == REFUSED else "polling", fault, side="callbacks", seen=seen,
              requests=world.polls, outcome=row.outcome)  # fmt: skip


async def test_a_failure_is_the_services_own(world, monkeypatch, fault_row):
    """A callback that reports success for a failed generation: the task fails with the service's reason."""
    failing = CallbackWorld(world.sandbox, "[fail:CreationPolicyViolation] a cat")
    failing.token = str(world.sandbox.creates[-1].body["callback_url"]).rpartition("/")[2]
    failing.end()
    assert await failing.send("success") == 200
    assert "CreationPolicyViolation" in str(failing.error)
    fault_row("polling", "a success that is a failure", side="callbacks", seen=str(failing.error),
              requests=failing.polls, outcome=CLEAR_ERROR)  # fmt: skip


def test_an_airflow_that_has_changed_polls(monkeypatch, caplog, fault_row):
    """If a name of Airflow is missing, no callback is taken, and one line says so."""
    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", BASE)
    monkeypatch.setattr(airflow_tasks, "_missing", "cannot import name 'handle_event_submit'")
    routes.route()
    assert caplog.text.count("No callbacks are taken") == 1
    fault_row("from Airflow", "an Airflow whose internals have changed", side="callbacks", requests=0,
              seen=caplog.messages[-1], outcome=SURVIVED)  # fmt: skip
