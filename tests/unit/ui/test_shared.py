"""Looks at the database are shared, and rarer the longer they take."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the pages need the API server of Airflow 3")

from airflow_provider_vidu.ui import shared, threads
from airflow_provider_vidu.ui.shared import Shared, pause_after
from airflow_provider_vidu.ui.threads import BusyError, QueryThreads, Threads


def run(what: Callable[[Shared[Any]], Awaitable[None]]) -> None:
    """Run on a loop of its own."""

    async def main() -> None:
        await what(Shared(Threads(8)))

    asyncio.run(main())


def test_all_who_ask_at_once_share_a_look():
    """Fifty viewers of one sheet cost one look; another sheet has its own."""
    gate, looks = threading.Event(), []

    def look() -> int:
        looks.append(1)
        gate.wait(10)
        return len(looks)

    async def ask(answers: Shared[Any]) -> None:
        asked = [asyncio.create_task(answers.get(("a",), look)) for _ in range(50)]
        asked.append(asyncio.create_task(answers.get(("b",), look)))
        await asyncio.sleep(0)
        asked[0].cancel()  # the first viewer leaves: the others still get their answer
        gate.set()
        await asyncio.gather(*asked, return_exceptions=True)
        assert len(looks) == 2
        assert asked[1].done()
        assert not asked[1].exception()

    run(ask)


def test_a_dear_answer_is_good_for_a_while(monkeypatch):
    """What took long is not looked at again at once; what was cheap is."""
    looks = []
    monkeypatch.setattr(shared, "CHEAP_SECONDS", 60.0)  # also on a busy machine

    async def ask(answers: Shared[Any]) -> None:
        for _ in range(3):
            await answers.get(("a",), lambda: looks.append(1))
        assert len(looks) == 3
        monkeypatch.setattr(shared, "CHEAP_SECONDS", 0.0)
        monkeypatch.setattr(shared, "KEPT_FOR", 1e9)
        for _ in range(3):
            await answers.get(("a",), lambda: (time.sleep(0.001), looks.append(1)))
        assert len(looks) == 4

    run(ask)


def test_a_failure_is_everybodys_and_is_not_kept():
    """What a look raises reaches who asked, and the next one looks again."""

    def fail() -> None:
        raise OSError("the database is gone")

    async def ask(answers: Shared[Any]) -> None:
        with pytest.raises(OSError, match="gone"):
            await answers.get(("a",), fail)
        assert (await answers.get(("a",), lambda: 5))[0] == 5

    run(ask)


@pytest.mark.fault(
    "attacks",
    "a reader asks for a hundred pages of a vast run and leaves",
    outcome="survived",
    seen="503 for the surplus; other DAGs are looked at at once",
)
def test_one_dag_delays_no_other(monkeypatch):
    """Looks of one DAG run a few at a time, those without a waiting reader are dropped, others go ahead."""
    gate, looks = threading.Event(), []

    def slow() -> None:
        looks.append(1)
        gate.wait(10)

    async def ask(answers: Shared[Any]) -> None:
        asked = [asyncio.create_task(answers.get(("vast", page), slow)) for page in range(100)]
        assert (await asyncio.wait_for(answers.get(("other",), lambda: 5), 5))[0] == 5
        assert len(looks) <= shared.MAX_AT_ONCE
        monkeypatch.setattr(shared, "WANTED_SECONDS", -1.0)
        gate.set()
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(end, BusyError) for end in ends) == 100 - shared.MAX_AT_ONCE
        assert not answers._lanes
        assert len(looks) == shared.MAX_AT_ONCE

    run(ask)


@pytest.mark.fault(
    "attacks",
    "a reader looks at dozens of sheets whose texts fill the limit of a look",
    outcome="survived",
    side="pages",
    seen="16 million characters are kept of them, the newest",
)
def test_what_is_kept_is_bounded_by_its_text(monkeypatch):
    """Dear answers are kept by how much they hold, and not a moment longer than they are good for."""
    monkeypatch.setattr(shared, "CHEAP_SECONDS", 0.0)
    monkeypatch.setattr(shared, "KEPT_FOR", 1e9)

    async def ask(_: Shared[Any]) -> None:
        answers = Shared[str](Threads(2), len)
        for number in range(20):
            await answers.get(("d", number), lambda: (time.sleep(0.001), "x" * 4_000_000)[1])
        kept = list(answers._answers)
        assert kept[-1] == ("d", 19)
        assert len(kept) <= shared.MAX_KEPT_CHARS // 4_000_000 + 1
        monkeypatch.setattr(shared, "KEPT_FOR", -1.0)
        for look in answers._answers.values():
            look.good_until = 0.0
        await answers.get(("d", "new"), str)
        assert list(answers._answers) == [("d", "new")]

    run(ask)


@pytest.mark.fault(
    "attacks",
    "two looks at a DAG never end",
    outcome="survived",
    side="pages",
    seen="503 for the DAG's other pages after ten seconds",
)
def test_nobody_waits_for_ever_for_a_turn(monkeypatch):
    """While the looks of a DAG hang, others of it are refused after a while, and not only when these end."""
    gate, begun = threading.Event(), threading.Semaphore(0)

    def hangs() -> bool:
        begun.release()
        return gate.wait(30)

    async def ask(answers: Shared[Any]) -> None:
        hung = [asyncio.create_task(answers.get(("d", page), hangs)) for page in range(2)]
        for _ in hung:  # on a busy machine, a short wait would refuse these two
            assert await asyncio.to_thread(begun.acquire, timeout=30)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(shared, "WANTED_SECONDS", 0.05)
                with pytest.raises(BusyError):
                    await asyncio.wait_for(answers.get(("d", "third"), lambda: 5), 10)
        finally:
            gate.set()
        assert (await asyncio.gather(*hung))[0][0] is True
        assert (await answers.get(("d", "third"), lambda: 5))[0] == 5

    run(ask)


@pytest.mark.fault(
    "attacks",
    "readers keep sheets of thousands of tasks open",
    outcome="survived",
    side="pages",
    seen="each page waits twenty times what its answer has cost",
)
@pytest.mark.parametrize(("cost", "pause"), [(0.0, 5), (0.2, 5), (1.0, 20), (60.0, 120)])
def test_pages_back_off(cost, pause):
    """A page asks again after twenty times what its answer has cost."""
    assert pause_after(cost) == pause


@pytest.mark.parametrize("is_known", [True, False])
def test_slow_dags_do_not_hold_all_threads(monkeypatch, is_known):
    """However many DAGs have slow queries, the page of a DAG whose queries are quick is answered at once."""
    gate = threading.Event()
    monkeypatch.setattr(threads, "SLOW_SECONDS", 0.0 if is_known else 60.0)

    async def main() -> None:
        pool = QueryThreads(8)
        sheets, pages = Shared[Any](pool), Shared[Any](pool)
        if is_known:
            for number in range(8):
                await sheets.get((f"slow{number}",), lambda: time.sleep(0.001))
            monkeypatch.setattr(threads, "SLOW_SECONDS", 60.0)
        assert await sheets.get(("film",), lambda: 5)
        floods = [
            asyncio.create_task(each.get((f"slow{number}", run), lambda: gate.wait(20)))
            for each in (sheets, pages)
            for number in range(8)
            for run in range(4)
        ]
        try:
            async with asyncio.timeout(5):
                assert (await sheets.get(("film", 1), lambda: 6))[0] == 6
                assert (await pages.get(("film", 1), lambda: 7))[0] == 7
        finally:
            gate.set()
            await asyncio.gather(*floods)

    asyncio.run(main())


def test_looks_at_no_dag_forget_no_slow_one(monkeypatch):
    """A user who may read all DAGs may also look at names of none, which made the server forget which DAGs are slow."""
    monkeypatch.setattr(threads, "MAX_PACES", 10)

    async def main() -> None:
        pool = QueryThreads(8)
        pool.took("slow", 60.0)
        slow, new = pool.share_of("slow"), pool.share_of("nobody")
        for number in range(20):
            await Shared[Any](pool).get((f"none{number}",), lambda: None)
        assert pool.share_of("slow") is slow is not None
        assert pool.share_of("none0") is new is not slow
        assert pool.share_of("none19") is None
        pool.took("slow", 0.1)
        assert pool.share_of("slow") is slow
        monkeypatch.setattr(threads, "SLOW_SECONDS", -1.0)
        for number in range(10):
            pool.took(f"other{number}", 0.0)
        assert pool.share_of("slow") is new

    asyncio.run(main())
