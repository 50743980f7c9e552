"""Queries of live states: no connection waits for another's gateway, and nothing is queried without a reader."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConfigError,
    ViduError,
    ViduNotFoundError,
    ViduTransportError,
)
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.ui.clips import live
from airflow_provider_vidu.ui.clips.live import MAX_AT_ONCE, LiveStates
from airflow_provider_vidu.ui.playing.redirects import NO_TRUST, Trust


class Service:
    """What answers instead of a gateway; counts the questions."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.silent: set[str] = set()
        self.errors: dict[str, ViduError] = {}
        self.looked_up: list[str] = []
        self.under_way: set[str] = set()
        self.most_at_once = 0
        self.answer: Callable[[str], Generation] = lambda name: Generation(id=name, status=GenerationStatus.RUNNING)

    async def ask(self, key: tuple[str, str, str | None], before: Any) -> live.Live:
        """Answer, fail, or wait for ever."""
        conn_id, generation_id, _ = key
        self.asked[conn_id, generation_id] += 1
        if conn_id in self.silent:
            await asyncio.Event().wait()
        if conn_id in self.errors:
            raise self.errors[conn_id]
        return live.Live(live.slim(self.answer(generation_id)))

    async def check(self, conn_id: str) -> None:
        """Look a connection up: some do not exist, and take a while to be missed."""
        if conn_id.startswith("missing"):
            self.looked_up.append(conn_id)
            self.most_at_once = max(self.most_at_once, len(self.under_way) + 1)
            self.under_way.add(conn_id)
            await asyncio.sleep(0.01)
            self.under_way.discard(conn_id)
            raise ViduConfigError("no such connection")

    def count(self, conn_id: str) -> int:
        """Return how many questions there were on a connection."""
        return sum(number for (asked, _), number in self.asked.items() if asked == conn_id)


class Clock:
    """A clock that is set by hand."""

    now = 1_000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def service(monkeypatch) -> Service:
    """Return what answers."""
    made = Service()
    monkeypatch.setattr(live, "_asked", made.ask)
    monkeypatch.setattr(live, "_check_type", made.check)
    return made


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Return the clock that the states go by."""
    made = Clock()
    monkeypatch.setattr(live, "time", made)
    return made


def run(what: Callable[[LiveStates], Awaitable[Any]]) -> Any:
    """Run on a loop of its own; whatever is still under way is cancelled at its end."""

    async def main() -> Any:
        return await what(LiveStates())

    return asyncio.run(main())


@pytest.mark.fault(
    "attacks",
    "a silent gateway holds every slot of its connection",
    outcome="survived",
    seen="the other connections' states, at once",
)
def test_a_silent_connection_blocks_no_other(service, clock):
    """While every slot of one connection waits, another one is asked and answers at once."""
    service.silent = {"silent"}

    async def look(states: LiveStates) -> live.Live:
        hung = [states.state("silent", f"g{number}", patience=0.01) for number in range(30)]
        await asyncio.gather(*hung)
        return await states.state("fine", "g", patience=5)

    found = run(look)
    assert found.generation is not None
    assert service.count("silent") == MAX_AT_ONCE


def test_the_log_has_no_password_of_an_address(service, clock, caplog):
    """The connection is what an XCom names; beside it, the error was without the password."""
    address = "https://viewer:hunter2pw@gateway.example"
    service.errors = {address: ViduConfigError("no such connection")}
    run(lambda states: states.state(address, "g"))
    assert "cannot query the service" in caplog.text
    assert "hunter2pw" not in caplog.text


@pytest.mark.fault(
    "attacks",
    "a gateway fails for every clip of a sheet",
    outcome="survived",
    side="pages",
    seen="its clips show one failure; one request each pause",
)
@pytest.mark.parametrize("kind", [ViduTransportError, ViduAuthError, ViduConfigError])
def test_one_failure_stands_for_its_siblings(service, clock, kind):
    """After a failure of the connection its other clips show it and are not asked for, until one tries again."""
    service.errors = {"broken": kind("no")}

    async def look(states: LiveStates) -> None:
        await states.state("broken", "first")
        shown = await asyncio.gather(*(states.state("broken", f"g{number}") for number in range(20)))
        assert {type(found.error) for found in shown} == {kind}
        assert service.count("broken") == 1
        clock.now += live.ERROR_SECONDS + 1
        await asyncio.gather(*(states.state("broken", f"h{number}") for number in range(20)))
        assert service.count("broken") == 2
        clock.now += live.ERROR_SECONDS + 1  # the second pause is longer
        await states.state("broken", "i")
        assert service.count("broken") == 2
        service.errors = {}
        clock.now += live.MAX_ERROR_SECONDS
        assert (await states.state("broken", "i")).generation is not None
        assert (await states.state("broken", "j")).generation is not None

    run(look)


def test_a_failure_of_one_generation_is_its_own(service, clock):
    """An id that the service does not know says nothing about the others."""
    service.errors = {"c": ViduNotFoundError("unknown")}

    async def look(states: LiveStates) -> None:
        for name in ("a", "b"):
            assert (await states.state("c", name)).error is not None

    run(look)
    assert service.count("c") == 2


@pytest.mark.fault(
    "attacks",
    "pages are closed before a silent gateway answers",
    outcome="survived",
    side="pages",
    seen="nothing is requested for them",
)
def test_what_nobody_waits_for_is_not_asked(service, clock):
    """A question whose turn comes long after its page was closed is dropped."""
    service.silent = {"c"}

    async def look(states: LiveStates) -> None:
        await asyncio.gather(*(states.state("c", f"g{number}", patience=0.01) for number in range(20)))
        clock.now += live.WANTED_SECONDS + 1
        for kept in list(states._kept.values())[:MAX_AT_ONCE]:
            assert kept.task is not None
            kept.task.cancel()
        await asyncio.sleep(0.01)
        assert all(kept.task is None for kept in states._kept.values())

    run(look)
    assert service.count("c") == MAX_AT_ONCE


@pytest.mark.fault(
    "attacks", "thousands of ids, and answers full of text", outcome="survived", seen="memory stays bounded"
)
def test_what_is_remembered_is_bounded(service, clock, monkeypatch):
    """Neither thousands of ids nor answers full of text make the memory grow without an end."""
    monkeypatch.setattr(live, "MAX_KEPT", 50)
    monkeypatch.setattr(live, "MAX_KEPT_CHARS", 100_000)
    long = {"prompt": "x" * 50_000, "raw": {"more": ["y" * 1000] * 1000}}
    service.answer = lambda name: Generation(id=name, status=GenerationStatus.SUCCEEDED, **long)

    async def look(states: LiveStates) -> None:
        for number in range(80):
            found = await states.state("c", f"g{number}")
            assert found.generation is not None
            assert found.generation.raw == {}
        await states.state("c", "last")
        assert len(states._kept) <= 7
        assert states._chars == sum(kept.chars for kept in states._kept.values())
        for number in range(600):
            await states.state(f"c{number}", "g")
        assert len(states._lines) <= live.MAX_LINES

    run(look)


def test_an_error_holds_on_to_nothing(service, clock):
    """The frames of an error's traceback may hold an answer of megabytes: they are let go."""

    class Answer:
        """Stands for what a frame holds."""

    async def fail(key: Any, before: Any) -> live.Live:
        answer = Answer()
        try:
            raise ValueError(answer)
        except ValueError as error:
            raise ViduTransportError("no") from error

    async def look(states: LiveStates) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(live, "_asked", fail)
            assert (await states.state("c", "g")).error is not None
        gc.collect()
        # Not isinstance: it would load what a lazy module stands for.
        assert not [found for found in gc.get_objects() if type(found) is Answer]

    run(look)


@pytest.mark.fault(
    "attacks",
    "XComs name a hundred connections that do not exist",
    outcome="survived",
    side="pages",
    seen="two are looked up at a time; connections that are known are asked at once",
)
def test_connections_that_do_not_exist_block_no_other(service, clock):
    """Airflow looks connections up in one thread: it is not filled with names that do not exist."""

    async def look(states: LiveStates) -> None:
        await states.state("fine", "g")
        flood = [asyncio.create_task(states.state(f"missing{number}", "g", patience=0.05)) for number in range(100)]
        flood += [asyncio.create_task(states.trust(f"missing-too{number}", patience=0.05)) for number in range(100)]
        await asyncio.sleep(0)
        clock.now += live.POLL_SECONDS
        assert (await states.state("fine", "g", patience=5)).generation is not None
        assert service.count("fine") == 2
        assert await states.trust("missing-last", patience=0.01) == NO_TRUST
        await asyncio.gather(*flood)
        assert len(service.looked_up) < 100
        clock.now += live.WANTED_SECONDS + 1
        await asyncio.sleep(0.1)

    run(look)
    assert service.most_at_once <= live.MAX_STRANGERS


@pytest.mark.fault(
    "attacks",
    "XComs of one DAG name a hundred connections that do not exist, and looking one up takes a while",
    outcome="survived",
    side="pages",
    seen="those of another DAG that were not looked up before wait for one of them",
)
def test_connections_of_one_dag_take_one_turn_at_a_time(service):
    """The state of another DAG's clip was missing until all of them had been looked up: a minute and more."""

    async def look(states: LiveStates) -> None:
        own: dict[str, Any] = {"patience": 0.01, "of_dag": "hostile"}
        flood = [asyncio.create_task(states.state(f"missing{number}", "g", **own)) for number in range(100)]
        # It also names the other DAG's connection, as often as that is asked at once.
        flood += [asyncio.create_task(states.state("fine", f"h{number}", **own)) for number in range(MAX_AT_ONCE)]
        flood += [asyncio.create_task(states.trust(f"missing-too{number}", **own)) for number in range(100)]
        await asyncio.sleep(0)
        assert (await states.state("fine", "g", patience=5, of_dag="film")).generation is not None
        assert len(service.looked_up) < 5
        await states.trust("other", patience=5, of_dag="film")
        assert len(service.looked_up) < 10
        await asyncio.gather(*flood)

    run(look)


def test_trust_is_looked_up_once_for_all(service, clock, monkeypatch):
    """However many players ask where they may be sent, the connection is looked up every fifteen seconds."""
    looked_up = []

    async def vouch(conn_id: str) -> Trust:
        looked_up.append(conn_id)
        await asyncio.sleep(0)
        return Trust(True, ("cdn.example",))

    monkeypatch.setattr(live, "_trust_of", vouch)

    async def look(states: LiveStates) -> None:
        for _ in range(2):
            found = await asyncio.gather(*(states.trust("c") for _ in range(50)))
            assert set(found) == {Trust(True, ("cdn.example",))}
        assert looked_up == ["c"]
        clock.now += live.TRUST_SECONDS
        await states.trust("c")
        assert looked_up == ["c", "c"]
        assert await states.trust(None) == NO_TRUST

    run(look)


@pytest.mark.fault(
    "attacks",
    "a gateway answers slowly, and its DAG has thousands of clips",
    outcome="survived",
    side="pages",
    seen="500 questions wait; other clips show what is known",
)
def test_the_questions_that_wait_are_bounded(service, clock, monkeypatch):
    """For more clips than can be asked for soon no question is even queued."""
    monkeypatch.setattr(live, "MAX_WAITING", 10)
    service.silent = {"slow"}

    async def look(states: LiveStates) -> None:
        await asyncio.gather(*(states.state("slow", f"g{number}", patience=0.01) for number in range(50)))
        assert states._lines["slow"].users == 10
        assert await asyncio.wait_for(states.state("slow", "more", patience=60), 5) == live.NOT_ASKED

    run(look)


def test_names_that_nobody_has_found_are_forgotten_first(service, clock, monkeypatch):
    """Thousands of names that lead nowhere do not push a connection that works out of memory."""
    monkeypatch.setattr(live, "MAX_LINES", 5)

    async def look(states: LiveStates) -> None:
        await states.state("fine", "g")
        for number in range(20):
            await states.state(f"missing{number}", "g")
        assert len(states._lines) <= 6
        assert states._lines["fine"].is_found

    run(look)
