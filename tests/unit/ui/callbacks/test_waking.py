"""When a callback resumes its task: now, later, or not at all. Without a database and without a clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest

from airflow_provider_vidu.events import callback_in, id_in, is_callback_event
from airflow_provider_vidu.ui.callbacks import waking
from airflow_provider_vidu.ui.callbacks.airflow_tasks import WaitingTask
from airflow_provider_vidu.ui.callbacks.waking import Waker, due_at
from airflow_provider_vidu.ui.threads import BusyError, Threads

INSTANCE = uuid4()
DIGEST = "d" * 40


class Airflow:
    """Deferred tasks, and a clock that moves only when it is slept on."""

    def __init__(self, **arguments: Any) -> None:
        self.now = 1000.0
        self.arguments = {"generation_id": "911", "callback": DIGEST, "since": 900.0, "deadline": 2000.0, **arguments}
        self.deferred_at = 900.0
        self.is_deferred = True
        self.events: list[Mapping[str, Any]] = []
        self.looks = 0
        self.waker = Waker(self.find, self.resume, Threads(2), clock=lambda: self.now, sleep=self.sleep)

    @property
    def task(self) -> WaitingTask:
        """The task as it waits now."""
        return WaitingTask(INSTANCE, 7, self.deferred_at, self.arguments)

    def find(self, instances: Collection[UUID]) -> dict[UUID, list[WaitingTask]]:
        """Return the task if it is asked for and waits."""
        self.looks += 1
        return {INSTANCE: [self.task]} if self.is_deferred and INSTANCE in instances else {}

    def resume(self, task: WaitingTask, event: Mapping[str, Any]) -> bool:
        """Resume the task once."""
        was_deferred, self.is_deferred = self.is_deferred, False
        if was_deferred:
            self.events.append(event)
        return was_deferred

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.now += seconds
        await asyncio.sleep(0)

    async def settled(self) -> None:
        """Wait until nothing is held."""
        async with asyncio.timeout(10):
            await asyncio.gather(*self.waker._held.values())
        await asyncio.sleep(0)  # the callbacks of the tasks


async def test_the_token_must_be_the_orders():
    """A task is found by its instance and its digest; another digest, and another instance, find nothing."""
    airflow = Airflow()
    assert await airflow.waker.find(INSTANCE, DIGEST) == airflow.task
    assert await airflow.waker.find(INSTANCE, "e" * 40) is None
    assert await airflow.waker.find(uuid4(), DIGEST) is None


@pytest.mark.parametrize("arguments", [{"callback": None}, {"callback": 5}, {"callback": "é"}, {"generation_id": None}])
async def test_a_trigger_without_a_digest_or_id_is_never_found(arguments):
    """Arguments of another version, or that someone else has written, match no token."""
    assert await Airflow(**arguments).waker.find(INSTANCE, DIGEST) is None


async def test_simultaneous_look_ups_share_a_query():
    """A flood of tokens costs a query for each hundreds of them."""
    airflow = Airflow()
    found = await asyncio.gather(*(airflow.waker.find(uuid4(), DIGEST) for _ in range(300)))
    assert set(found) == {None}
    assert airflow.looks == 2


async def test_too_many_look_ups_are_refused(monkeypatch):
    """The queue of look-ups has an end."""
    monkeypatch.setattr("airflow_provider_vidu.ui.callbacks.grouped_queries.MAX_WAITING", 3)
    waker = Airflow().waker
    looks = [waker.find(uuid4(), DIGEST) for _ in range(5)]
    ends = await asyncio.gather(*looks, return_exceptions=True)
    assert [isinstance(end, BusyError) for end in ends] == [False] * 3 + [True] * 2


async def test_a_broken_database_breaks_the_look_up_and_not_the_next():
    """The error reaches those who wait; later look-ups work."""
    airflow = Airflow()
    find, airflow.waker._queries._find = airflow.find, lambda keys: 1 / 0
    with pytest.raises(ZeroDivisionError):
        await airflow.waker.find(INSTANCE, DIGEST)
    airflow.waker._queries._find = find
    assert await airflow.waker.find(INSTANCE, DIGEST) == airflow.task


async def test_a_database_that_does_not_answer_is_busy(monkeypatch):
    """A look-up ends after a while, and the answer that comes later is not an error."""
    monkeypatch.setattr("airflow_provider_vidu.ui.callbacks.grouped_queries.LOOK_UP_SECONDS", 0.05)
    airflow = Airflow()
    airflow.waker._queries._find = lambda keys: time.sleep(0.3) or {}
    with pytest.raises(BusyError):
        await airflow.waker.find(INSTANCE, DIGEST)
    await asyncio.sleep(0.4)


def test_when_a_task_may_be_resumed():
    """Ten seconds after its deferral, half a minute after a callback, and never later than in a minute."""
    airflow = Airflow()
    assert due_at(airflow.task, 1000.0) == 910.0
    airflow.arguments["woken_at"] = 985.0
    assert due_at(airflow.task, 1000.0) == 1015.0
    airflow.arguments["woken_at"] = 9_999_999.0
    assert due_at(airflow.task, 1000.0) == 1060.0


async def test_it_resumes_at_once_what_is_old_enough():
    """The event names generation and times, carries the digest on, and says nothing about the outcome."""
    airflow = Airflow()
    await airflow.waker.called(airflow.task, INSTANCE, DIGEST)
    (event,) = airflow.events
    assert is_callback_event(event)
    assert (id_in(event), callback_in(event)) == ("911", DIGEST)
    assert (event["since"], event["deadline"]) == (900.0, 2000.0)
    assert not {"outcome", "status"} & event.keys()


async def test_an_early_callback_is_held_once_until_it_is_due():
    """Repetitions of a held callback add nothing; at its time, the task is read again and resumed."""
    airflow = Airflow()
    airflow.deferred_at = 999.0
    for _ in range(3):
        await airflow.waker.called(airflow.task, INSTANCE, DIGEST)
    assert (airflow.waker.held, airflow.events) == (1, [])
    await airflow.settled()
    assert (airflow.now, len(airflow.events)) == (1009.0, 1)


async def test_a_held_callback_waits_again_if_the_task_deferred_again():
    """What has deferred again meanwhile is younger than before."""
    airflow = Airflow()
    airflow.deferred_at = 999.0
    await airflow.waker.called(airflow.task, INSTANCE, DIGEST)
    airflow.deferred_at = 1005.0
    await airflow.settled()
    assert (airflow.now, len(airflow.events)) == (1015.0, 1)


async def test_a_held_callback_is_dropped_if_the_task_no_longer_waits():
    """The trigger was faster, or a user has acted."""
    airflow = Airflow()
    airflow.deferred_at = 999.0
    await airflow.waker.called(airflow.task, INSTANCE, DIGEST)
    airflow.is_deferred = False
    await airflow.settled()
    assert airflow.events == []


async def test_the_held_ones_are_bounded(monkeypatch):
    """Beyond the limit, the service is asked to send again."""
    monkeypatch.setattr(waking, "MAX_HELD", 1)
    airflow = Airflow()
    airflow.deferred_at = 999.0
    await airflow.waker.called(airflow.task, INSTANCE, DIGEST)
    with pytest.raises(BusyError):
        await airflow.waker.called(airflow.task, uuid4(), DIGEST)
    await airflow.settled()


async def test_a_held_callback_survives_a_database_that_fails(caplog):
    """What cannot be read when it is due is left to the trigger, with a line in the log."""
    airflow = Airflow()
    airflow.deferred_at = 999.0
    await airflow.waker.called(airflow.task, INSTANCE, DIGEST)
    airflow.waker._queries._find = lambda keys: 1 / 0
    await airflow.settled()
    assert airflow.events == []
    assert "ZeroDivisionError" in caplog.text


async def test_the_id_of_a_trigger_forges_no_log_line(caplog):
    """The author of a DAG may make a trigger with any text, and the log is the API server's."""
    airflow = Airflow(generation_id="911\n[2026-01-01] ERROR forged\x1b[2J")
    with caplog.at_level("INFO"):
        await airflow.waker.called(airflow.task, INSTANCE, DIGEST)
    (told,) = [record.getMessage() for record in caplog.records if "has resumed" in record.getMessage()]
    assert "\n" not in told
    assert "\x1b" not in told
