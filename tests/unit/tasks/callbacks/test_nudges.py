"""When an event trigger polls because of a callback: reads, bounds and what cannot be read. No clock, no Airflow."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu.tasks.callbacks import nudges as module
from airflow_provider_vidu.tasks.callbacks.nudges import NUDGE_KEY, READ_SECONDS, REPEAT_SECONDS, Nudges, nudges_of

log = logging.getLogger("test.nudges")


class Asset:
    """An asset's state store, and a clock that moves only when it is slept on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.latest: str | None = None
        self.due: list[float] = []
        self.reads: list[float] = []
        self.broken: Exception | None = None

    async def aget(self, key: str) -> Any:
        """Return the latest nudge."""
        assert key == NUDGE_KEY
        self.reads.append(self.now)
        if self.broken is not None:
            raise self.broken
        while self.due and self.due[0] <= self.now:
            self.latest = f"nudge of {self.due.pop(0)}"
        return self.latest

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.now += seconds


@pytest.fixture
def asset(monkeypatch) -> Asset:
    """Make an asset, and let no other reader of this process count."""
    made = Asset()
    # Not asyncio's own: a server that another file has left in a thread of this process would sleep on the clock, too.
    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=made.sleep))
    monkeypatch.setattr(module, "_readers", type(module._readers)())
    return made


async def test_a_nudge_ends_the_pause_within_one_read(asset):
    """The trigger polls at the next read instead of ten minutes later; the first read is at once."""
    nudges = Nudges(asset, log)
    asset.due = [12.0]
    await nudges.pause(600, had_events=True)
    assert asset.now == 15.0
    assert asset.reads == [0.0, 5.0, 10.0, 15.0]


async def test_without_a_nudge_the_interval_decides(asset):
    """To the second, also if it is not a multiple of the reads."""
    await Nudges(asset, log).pause(62, had_events=True)
    assert asset.now == 62.0
    assert len(asset.reads) == 13


async def test_what_came_before_the_first_round_shortens_nothing(asset):
    """A nudge of yesterday is read once, before the first round."""
    asset.latest = "yesterday"
    nudges = Nudges(asset, log)
    assert await nudges.have_come()
    assert not await nudges.have_come()
    await nudges.pause(60, had_events=True)
    assert asset.now == 60.0


async def test_many_nudges_are_one_round(asset):
    """A thousand callbacks between two reads end one pause."""
    nudges = Nudges(asset, log)
    asset.due = [3 + number / 1000 for number in range(1000)]
    await nudges.pause(600, had_events=True)
    assert asset.now == READ_SECONDS
    await nudges.pause(600, had_events=True)
    assert asset.now == READ_SECONDS + REPEAT_SECONDS


async def test_a_round_that_a_callback_caused_is_repeated_once(asset):
    """The answers of the service may lag behind its callback; after that, the interval decides again."""
    nudges = Nudges(asset, log)
    asset.due = [5.0]
    await nudges.pause(600, had_events=True)
    await nudges.pause(600, had_events=True)
    assert asset.now == 5.0 + REPEAT_SECONDS
    await nudges.pause(600, had_events=False)
    assert asset.now == 5.0 + REPEAT_SECONDS + 600


async def test_a_repetition_is_never_later_than_the_interval(asset):
    """An interval that is shorter than the repetition's is kept, whether the round found an end or not."""
    for had_events in (True, False):
        nudges = Nudges(asset, log)
        asset.due = [asset.now]
        await nudges.pause(20, had_events=True)
        began = asset.now
        await nudges.pause(20, had_events=had_events)
        assert asset.now == began + 20


async def test_true_nudges_are_heeded_every_few_seconds(asset):
    """While rounds find ends, the next callback counts at once."""
    nudges = Nudges(asset, log)
    asset.due = [1.0, 8.0]
    await nudges.pause(600, had_events=True)
    assert asset.now == 5.0
    await nudges.pause(600, had_events=True)
    assert asset.now == 10.0


async def test_untrue_nudges_cost_two_rounds_in_half_a_minute(asset):
    """Whoever sends valid callbacks without an end, as fast as possible, causes no more polls than that."""
    nudges = Nudges(asset, log)
    asset.due = [float(second) for second in range(600)]
    rounds = 0
    while asset.now < 600:
        await nudges.pause(600, had_events=False)
        rounds += 1
    assert rounds <= 2 * (600 / REPEAT_SECONDS) + 2
    assert rounds > 10


async def test_many_triggers_of_a_process_read_less_often(asset):
    """Fifty event triggers share one supervisor, so each reads once in 100 seconds; one that ended no longer counts."""
    crowd = [Nudges(asset, log) for _ in range(50)]
    assert crowd[0].interval == 100.0
    del crowd[1:]
    assert crowd[0].interval == READ_SECONDS


async def test_a_store_that_cannot_be_read_costs_latency_alone(asset, caplog):
    """The interval decides, one line says so, and reads go on: later nudges count."""
    nudges = Nudges(asset, log)
    asset.broken = RuntimeError("no such asset")
    await nudges.pause(30, had_events=True)
    assert asset.now == 30.0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    asset.broken, asset.due = None, [33.0]
    await nudges.pause(600, had_events=True)
    assert asset.now == 35.0


async def test_the_first_nudge_is_logged_and_no_other(asset, caplog):
    """A line that says that callbacks arrive; a line per callback would fill the log."""
    caplog.set_level(logging.INFO)
    nudges = Nudges(asset, log)
    for second in range(5):
        asset.due = [asset.now + second]
        await nudges.pause(600, had_events=True)
    assert caplog.text.count("Callbacks arrive") == 1


def test_without_option_or_store_nothing_is_read(monkeypatch):
    """Before Airflow 3.3, where callbacks are off, and where the option cannot be parsed."""
    option = "AIRFLOW__VIDU__CALLBACK_BASE_URL"
    monkeypatch.delenv(option, raising=False)
    assert nudges_of(Asset(), log) is None
    monkeypatch.setenv(option, "https://airflow.example.com")
    assert nudges_of(None, log) is None
    assert isinstance(nudges_of(Asset(), log), Nudges)
    monkeypatch.setenv(option, "airflow.example.com")
    assert nudges_of(Asset(), log) is None
