"""The trigger, run on a loop against the sandbox as the triggerer would."""

from __future__ import annotations

import asyncio
import json
import os
import time
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu import triggers
from airflow_provider_vidu.api.clients import async_client
from airflow_provider_vidu.api.shared_polls import SharedPolls
from airflow_provider_vidu.events import read_event
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConnectionNotFoundError,
    ViduGenerationFailedError,
    ViduServerError,
    ViduTimeoutError,
)
from airflow_provider_vidu.polling import watch
from airflow_provider_vidu.polling.schedule import NET_SHORTEST
from airflow_provider_vidu.tasks import handover
from airflow_provider_vidu.tasks.callbacks import arrivals as callbacks
from airflow_provider_vidu.triggers import ViduGenerationTrigger

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]


async def fire(**kwargs: Any) -> dict[str, Any]:
    """Run a trigger, through its serialised form, and return its only event's payload."""
    path, stored = ViduGenerationTrigger(**{"poll_interval": 0.05, **kwargs}).serialize()
    trigger = getattr(triggers, path.rpartition(".")[2])(**json.loads(json.dumps(stored)))
    events = [event async for event in trigger.run()]
    assert len(events) == 1
    return json.loads(json.dumps(events[0].payload))


@pytest.mark.parametrize("broken", ["setting", "import"])
async def test_an_error_at_the_start_fires_no_event_too_early(connect, sandbox, monkeypatch, broken):
    """Airflow fails a task whose event fires within a few seconds of its deferral, and its generation is paid for."""
    connect("ent-v2")
    monkeypatch.setattr(watch, "FIRST_POLL_FLOOR", 0.4)
    if broken == "setting":
        monkeypatch.setenv("AIRFLOW__VIDU__MAX_CONNECTIONS", "")
    else:
        monkeypatch.setattr(triggers, "shared_client", lambda _conn_id: import_module("no_such_client"))
    begun = time.time()
    assert (await fire(generation_id="123"))["outcome"] == "error"
    assert time.time() - begun >= 0.4


async def test_it_fires_when_the_generation_is_done(dialect, sandbox):
    """The event reports the outcome and the times of the wait, and holds neither URL nor key."""
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0], ["success", 20]])
    event = await fire(generation_id="123", since=5.0, deadline=(end := time.time() + 60))
    assert read_event(event, "123") is None
    assert event["outcome"] == "succeeded"
    assert (event["since"], event["deadline"]) == (5.0, end)
    assert "http" not in json.dumps(event)
    assert sandbox.key not in json.dumps(event)


async def test_a_failure_carries_the_reason(dialect, sandbox):
    """A failed generation's event rebuilds the error with its code."""
    sandbox.add_generation("123", dialect=dialect, states=[["failed", 0]], error="CreationPolicyViolation")
    event = await fire(generation_id="123")
    with pytest.raises(ViduGenerationFailedError) as caught:
        read_event(event, "123")
    assert caught.value.code == "CreationPolicyViolation"
    assert caught.value.generation_id == "123"


async def test_the_deadline_is_absolute(dialect, sandbox):
    """A trigger that starts after the deadline asks once more and then reports the time-out."""
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0]])
    event = await fire(generation_id="123", deadline=time.time() - 1, since=time.time() - 100)
    with pytest.raises(ViduTimeoutError, match=r"1 min 40 s.*running"):
        read_event(event, "123")
    assert len(sandbox.requests("query")) == 1


async def test_errors_are_tolerated_up_to_the_budget(dialect, sandbox):
    """Five failing polls do not end a wait that tolerates five; a sixth one does."""
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    sandbox.add_fault({"match": {"kind": "query"}, "times": 5, "action": {"status": 503}})
    assert (await fire(generation_id="123", max_failures=5))["outcome"] == "succeeded"
    sandbox.add_fault({"match": {"kind": "query"}, "times": 6, "action": {"status": 503}})
    event = await fire(generation_id="123", max_failures=5)
    assert event["outcome"] == "error"
    assert "6 polls in a row failed" in event["error"]["message"]


async def test_a_refused_key_ends_the_wait_at_once(dialect, sandbox):
    """A refused key does not make it spin: one request, one error."""
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0]])
    sandbox.rotate_keys(["sk-another-1c44"])
    with pytest.raises(ViduAuthError):
        read_event(await fire(generation_id="123"), "123")
    assert len(sandbox.requests("query")) == 1


async def test_a_fresh_id_may_be_unknown_for_a_moment(dialect, sandbox):
    """An answer of "no such generation" within the grace is not final."""

    async def appear() -> None:
        while not sandbox.requests("query"):  # noqa: ASYNC110 - the sandbox announces no requests
            await asyncio.sleep(0.01)
        sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])

    event, _ = await asyncio.gather(fire(generation_id="123"), appear())
    assert event["outcome"] == "succeeded"
    assert len(sandbox.requests("query")) > 1


async def test_an_unknown_id_is_an_error_after_the_grace(dialect, sandbox):
    """An id that the service never knew ends the wait when the grace is over."""
    event = await fire(generation_id="123", since=time.time() - 3600)
    assert event["error"]["type"] == "ViduNotFoundError"


async def test_a_connection_that_there_never_was_is_told(monkeypatch):
    """A wrong name in the DAG ends the wait at once, and is reported."""
    event = await fire(generation_id="123", vidu_conn_id="vidu_gone")
    assert event["error"]["type"] == "ViduConnectionNotFoundError"
    assert "vidu_gone" in event["error"]["message"]


@pytest.mark.fault(
    "polling",
    "the connection is deleted during a wait, then restored",
    outcome="survived",
    side="async",
    seen="one line when the wait pauses, one when it goes on",
)
async def test_a_deleted_connection_pauses_the_wait(connect, sandbox, monkeypatch, capsys):
    """Nothing is asked while the connection is missing; once it is back the wait goes on, with one line for each."""
    monkeypatch.setattr(async_client, "REFRESH_PAUSE_SECONDS", 0.0)
    connect("ent-v2")
    stored = os.environ["AIRFLOW_CONN_VIDU_DEFAULT"]
    sandbox.add_generation("123", dialect="ent-v2", states=[["processing", 0]])

    async def delete_and_restore() -> None:
        while not sandbox.requests("query"):  # noqa: ASYNC110 - the sandbox announces no requests
            await asyncio.sleep(0.01)
        monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT")
        monkeypatch.setattr(async_client, "CONFIG_AGE_SECONDS", 0.0)
        await asyncio.sleep(0.3)
        asked = len(sandbox.requests("query"))
        await asyncio.sleep(0.3)
        assert len(sandbox.requests("query")) == asked
        sandbox.add_generation("123", dialect="ent-v2", states=[["success", 0]])
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", stored)

    event, _ = await asyncio.gather(fire(generation_id="123"), delete_and_restore())
    assert event["outcome"] == "succeeded"
    out = capsys.readouterr().out
    assert out.count("paused until the connection is back") == 1
    assert out.count("the connection is back.") == 1


@pytest.mark.fault(
    "polling",
    "the connection is deleted during a wait, for good",
    outcome="clear error",
    side="async",
    says="vidu_gone",
)
@pytest.mark.parametrize("deadline", [None, 0.2], ids=["no deadline", "deadline"])
async def test_a_pause_is_not_for_ever(connect, monkeypatch, deadline):
    """It lasts as long as the wait may, or an hour; the end names the connection."""
    monkeypatch.setattr(watch, "LONGEST_PAUSE_SECONDS", 0.1)
    until = None if deadline is None else time.time() + deadline
    event = await fire(generation_id="123", vidu_conn_id="vidu_gone", since=time.time() - 100, deadline=until)
    assert event["outcome"] == ("error" if deadline is None else "timeout")
    assert "vidu_gone" in event["error"]["message"]


async def test_a_thousand_paused_waits_look_once(monkeypatch):
    """While the connection is missing, those who share the client ask Airflow for it one time in five seconds."""
    looks = []

    async def nothing(conn_id: str) -> None:
        looks.append(conn_id)
        raise ViduConnectionNotFoundError("there is none", conn_id=conn_id)

    monkeypatch.setattr(async_client, "aresolve", nothing)
    async with async_client.async_client("vidu_gone") as client:
        for _ in range(100):
            with pytest.raises(ViduConnectionNotFoundError, match="there is none"):
                await client.config()
    assert looks == ["vidu_gone"]


async def test_progress_is_logged_when_it_changes(connect, sandbox, capsys):
    """Twenty polls that bring nothing new leave one line."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0], ["completed", 50]])
    sandbox.add_fault(
        {
            "match": {"kind": "query"},
            "times": 10,
            "action": {"status": 200, "body": {"id": "g", "status": "processing"}},
        }
    )
    await fire(generation_id="g", poll_interval=0.02)
    lines = [line for line in capsys.readouterr().out.splitlines() if "running (processing)" in line]
    assert len([line for line in lines if "%" not in line]) == 1


async def test_cancellation_leaves_nothing_open(connect, sandbox):
    """A trigger that the triggerer cancels fires nothing and closes its session."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    running = asyncio.create_task(fire(generation_id="g"))
    await asyncio.sleep(0.3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    from airflow_provider_vidu.api.clients.async_client import _clients

    assert not _clients.get(asyncio.get_running_loop())


@pytest.mark.parametrize(("word", "cancels"), [("created", 1), ("success", 0)])
async def test_a_kill_cancels_what_is_not_done(sandbox, monkeypatch, word, cancels):
    """The trigger of an ended task cancels its generation; a late triggerer, whose generation is done, does not."""
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", sandbox.connection_json("ent-v2"))
    monkeypatch.setattr(handover, "_look", lambda _ti, _key: ("failed", "123"))
    sandbox.add_generation("123", dialect="ent-v2", states=[[word, 0]])
    trigger = ViduGenerationTrigger(generation_id="123", cancel_on_kill=True)
    trigger.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)
    await trigger.on_kill()
    assert len(sandbox.requests("cancel", "123")) == cancels


async def test_a_cancel_that_is_refused_for_the_moment_is_repeated(sandbox, monkeypatch):
    """What is not cancelled costs money, and no other process cancels it: a busy service is asked again."""
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", sandbox.connection_json("ent-v2"))
    monkeypatch.setattr(handover, "_look", lambda _ti, _key: ("failed", "123"))
    sandbox.add_generation("123", dialect="ent-v2", states=[["created", 0]])
    sandbox.add_fault({"match": {"kind": "cancel"}, "times": 1, "action": {"status": 503, "body": {}}})
    trigger = ViduGenerationTrigger(generation_id="123", cancel_on_kill=True)
    trigger.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)
    await trigger.on_kill()
    assert len(sandbox.requests("cancel", "123")) == 2


@pytest.mark.parametrize(
    ("asked", "stored"),
    [({}, (15.0, True)), ({"poll_interval": 15}, (15.0, False)), ({"poll_interval": 7.5}, (7.5, False))],
    ids=["left out", "set to the default's number", "set"],
)
def test_a_set_interval_is_stored_as_set(asked, stored):
    """The stored row says whether the interval was left out, and a trigger made from it does the same."""
    _, kwargs = ViduGenerationTrigger(generation_id="1", **asked).serialize()
    again = ViduGenerationTrigger(**json.loads(json.dumps(kwargs)))
    assert (kwargs["poll_interval"], kwargs["adaptive"]) == (again.poll_interval, again.adaptive) == stored


def test_a_row_of_an_older_version_keeps_its_interval():
    """A trigger stored before the schedule existed goes on at its fixed interval."""
    _, kwargs = ViduGenerationTrigger(generation_id="1").serialize()
    del kwargs["adaptive"]
    assert not ViduGenerationTrigger(**json.loads(json.dumps(kwargs))).adaptive


CALLED = {"callback": "d" * 40, "poll_interval": None}


@pytest.fixture
def arrivals(monkeypatch):
    """Forget what earlier tests have shown about callbacks, and return what this one shows."""
    monkeypatch.setattr(callbacks, "_arrivals", {})
    return callbacks.arrivals("vidu_default")


async def test_the_event_of_a_wait_with_callbacks_carries_the_digest(dialect, sandbox, arrivals):
    """A task that defers again because of it still expects callbacks; the row survives its serialised form."""
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    event = await fire(generation_id="123", callback="d" * 40, woken_at=5.0)
    assert event["callback"] == "d" * 40
    stored = ViduGenerationTrigger(generation_id="1", callback="d" * 40, woken_at=5.0).serialize()[1]
    assert (stored["callback"], stored["woken_at"]) == ("d" * 40, 5.0)


@pytest.mark.parametrize(
    ("arguments", "missed", "is_sparse"),
    [
        (CALLED, 0, True),
        (CALLED, callbacks.MAX_MISSED, False),
        ({**CALLED, "poll_interval": 20.0}, 0, False),
        ({"poll_interval": None}, 0, False),
    ],
    ids=["callbacks", "none arrives", "own interval", "no callbacks"],
)
def test_the_schedule_is_sparse_only_while_callbacks_arrive(arrivals, arguments, missed, is_sparse):
    """An interval that is given is kept, and callbacks that do not arrive are not waited for."""
    arrivals.missed = missed
    assert ViduGenerationTrigger(generation_id="1", **arguments)._policy().sparse is is_sparse


def test_the_first_look_is_later_once_callbacks_have_arrived(arrivals):
    """Proven callbacks save the first poll of short generations; a woken task looks as soon as without them."""

    def first(**more: Any) -> float:
        trigger = ViduGenerationTrigger(generation_id="1", **CALLED, **more)
        return trigger._first_delay(trigger._policy())

    assert first() < NET_SHORTEST
    arrivals.came()
    assert first() >= NET_SHORTEST
    assert first(woken_at=time.time()) < NET_SHORTEST
    assert first(deadline=time.time() + 60) <= 61


async def test_ends_that_only_the_net_finds_are_counted(dialect, sandbox, arrivals, monkeypatch):
    """A first poll proves nothing; a later one that finds the end does."""
    sandbox.set_speed(0)
    monkeypatch.setattr(watch.PollPolicy, "first_delay", lambda *args, **kwargs: 0.0)
    monkeypatch.setattr(watch.PollPolicy, "delay", lambda *args, **kwargs: sandbox.advance(100) or 0.0)
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0], ["success", 20]])
    await fire(generation_id="123", **CALLED)
    assert arrivals.missed == 1
    sandbox.add_generation("124", dialect=dialect, states=[["success", 0]])
    await fire(generation_id="124", **CALLED)
    assert arrivals.missed == 1


async def test_a_late_first_poll_that_finds_the_end_counts(dialect, sandbox, arrivals, monkeypatch):
    """Short generations show that callbacks have stopped, too: their only poll is late."""
    arrivals.came()
    monkeypatch.setattr(ViduGenerationTrigger, "_first_delay", lambda *args: 0.0)
    for number in range(1, callbacks.MAX_MISSED + 1):
        sandbox.add_generation(f"12{number}", dialect=dialect, states=[["success", 0]])
        await fire(generation_id=f"12{number}", **CALLED)
        assert arrivals.missed == number
    assert not arrivals.are_trusted


async def test_a_wait_that_a_callback_ended_asks_airflow_nothing(dialect, sandbox, arrivals, monkeypatch):
    """The service's answer comes first: Airflow's supervisor serves all triggers, one query at a time."""

    async def asked(*args: Any, **kwargs: Any) -> bool:
        raise AssertionError("Airflow was asked")

    monkeypatch.setattr(triggers, "is_handed_over", asked)
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    trigger = ViduGenerationTrigger(generation_id="123", cancel_on_kill=True, **CALLED)
    await trigger.on_kill()
    assert arrivals.is_proven
    assert sandbox.requests("cancel") == []


@pytest.mark.parametrize("fault", [None, ViduServerError("down"), RuntimeError("a bug of ours")])
async def test_a_kill_of_a_wait_with_callbacks_still_cancels(fault, dialect, sandbox, arrivals, monkeypatch):
    """If the generation goes on and the task has ended, it is cancelled as without callbacks, whatever breaks."""

    async def ended(*args: Any, **kwargs: Any) -> bool:
        return False

    async def broken(*args: Any, **kwargs: Any) -> bool:
        raise fault

    if fault is not None:
        monkeypatch.setattr(SharedPolls, "is_over", broken)
    monkeypatch.setattr(triggers, "is_handed_over", ended)
    sandbox.add_generation("123", dialect=dialect, states=[["queueing", 0]])
    trigger = ViduGenerationTrigger(generation_id="123", cancel_on_kill=True, **CALLED)
    await trigger.on_kill()
    assert not arrivals.is_proven
    assert len(sandbox.requests("cancel")) == (dialect == "ent-v2")  # the other one has no cancel
