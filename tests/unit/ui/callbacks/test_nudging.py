"""Callbacks that no task waits for: many make one write. Without a database."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection

import pytest

pytest.importorskip("starlette", reason="the route needs the API server of Airflow 3")

from airflow_provider_vidu.ui.callbacks import nudging
from airflow_provider_vidu.ui.callbacks.airflow_assets import UnawaitedOrder
from airflow_provider_vidu.ui.callbacks.nudging import Nudger
from airflow_provider_vidu.ui.threads import BusyError, Threads


class Assets:
    """Counts writes."""

    def __init__(self, watched: int = 1) -> None:
        self.writes: list[set[tuple[str, str | None]]] = []
        self.watched = watched
        self.broken: Exception | None = None
        self.may_write = threading.Event()
        self.may_write.set()
        self.nudger = Nudger(self.nudge, Threads(2))

    def nudge(self, ended: Collection[tuple[str, str | None]]) -> int:
        """Write."""
        assert self.may_write.wait(10)
        if self.broken is not None:
            raise self.broken
        self.writes.append(set(ended))
        return self.watched


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Gather for a moment only."""
    monkeypatch.setattr(nudging, "GATHER_SECONDS", 0.02)


def order(generation_id: str | None = "911", conn_id: str = "c") -> UnawaitedOrder:
    """Return an order without a wait."""
    return UnawaitedOrder(conn_id, "d" * 40, generation_id)


async def test_many_callbacks_are_one_write(caplog):
    """A batch that ends at once writes once, and logs one line without any id."""
    caplog.set_level(logging.INFO)
    assets = Assets()
    await asyncio.gather(*(assets.nudger.called(order(str(number))) for number in range(100)))
    assert assets.writes == [{("c", str(number)) for number in range(100)}]
    assert caplog.text.count("Callbacks for 100 generations") == 1


async def test_a_callback_during_a_write_is_written_too():
    """What comes while the database writes is not taken for what is being written."""
    assets = Assets()
    assets.may_write.clear()
    first = asyncio.create_task(assets.nudger.called(order()))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(assets.nudger.called(order()))
    await asyncio.sleep(0)
    assets.may_write.set()
    await asyncio.gather(first, second)
    assert assets.writes == [{("c", "911")}] * 2


async def test_what_nothing_watches_is_not_logged(caplog):
    """Orders without an event trigger are answered, and leave no trace."""
    caplog.set_level(logging.INFO)
    await Assets(watched=0).nudger.called(order(None))
    assert caplog.text == ""


async def test_a_write_that_fails_reaches_the_sender_and_not_the_next():
    """The service is asked to send again, which works then."""
    assets = Assets()
    assets.broken = RuntimeError("the database is locked")
    with pytest.raises(RuntimeError):
        await assets.nudger.called(order())
    assets.broken = None
    await assets.nudger.called(order())
    assert len(assets.writes) == 1


async def test_too_many_callbacks_are_to_be_sent_again(monkeypatch):
    """The queue of writes has an end."""
    monkeypatch.setattr("airflow_provider_vidu.ui.callbacks.grouped_queries.MAX_WAITING", 3)
    assets = Assets()
    ends = await asyncio.gather(
        *(assets.nudger.called(order(str(number))) for number in range(5)), return_exceptions=True
    )
    assert [isinstance(end, BusyError) for end in ends] == [False] * 3 + [True] * 2
