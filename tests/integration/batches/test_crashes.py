"""A worker dies in the middle of a batch: each row is paid once, and has one whole file and one line."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.batches import collecting, journal, plan, submitting
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.orders import lost_order
from tests.integration.batches.batch_task import BatchTask

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff"),
    pytest.mark.vidu_sandbox(concurrency=50),
]


class Died(BaseException):
    """Stands for the end of a process: nothing handles it."""


@pytest.fixture
def dies(monkeypatch, connect) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Let the process die before or after each write of the journal and each create, where a function says so."""
    connect("ent-v2", timeout=5)
    for module in (submitting, lost_order):
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)
    should_die: list[Callable[[], bool]] = [lambda: False]

    def around(kind, name) -> None:
        original = getattr(kind, name)

        def step(*arguments, **known):
            if should_die[0]():
                raise Died
            found = original(*arguments, **known)
            if should_die[0]():
                raise Died
            return found

        monkeypatch.setattr(kind, name, step)

    around(journal.Journal, "_write")
    around(ViduHook, "_submit")
    yield lambda decide: should_die.__setitem__(0, decide)
    should_die[0] = lambda: False


def rows(count: int) -> list[dict[str, str]]:
    """Return rows."""
    return [{"key": f"clip{n}", "prompt": f"a cat {n}"} for n in range(count)]


def check(task: BatchTask, sandbox, count: int) -> None:
    """Compare creates, files and manifest."""
    assert len(sandbox.creates) == count
    assert sorted(line["key"] for line in task.lines) == sorted(row["key"] for row in rows(count))
    assert {line["generation_id"] for line in task.lines} == {create.id for create in sandbox.creates}
    for line in task.lines:
        content = Path(line["uri"].removeprefix("file://")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == line["sha256"]


def lives(task: BatchTask) -> int:
    """Run tries until one survives; return how many died."""
    deaths = 0
    while True:
        try:
            task.run()
        except Died:
            deaths += 1
        else:
            return deaths


def test_a_death_at_every_step(dies, sandbox, tmp_path):
    """Whatever the last thing is that a worker does, its retry pays for nothing twice."""
    step, deaths = 0, 0
    while True:
        step += 1
        left = iter(range(step - 1, -1, -1))
        dies(lambda left=left: next(left, None) == 0)
        sandbox.reset()
        sandbox.set_speed(500)
        task = BatchTask(tmp_path / str(step), rows(2), max_in_flight=1)
        died = lives(task)
        check(task, sandbox, 2)
        deaths += died
        if not died:
            break
    assert deaths > 10


def test_deaths_at_random_steps(dies, sandbox, tmp_path, monkeypatch):
    """Again and again, with several generations open, and deferrals in between."""
    rng = random.Random(21)
    monkeypatch.setattr(plan, "stays", lambda *_, **__: rng.random() < 0.5)
    monkeypatch.setattr(journal, "SNAPSHOT_EVENTS", 10)
    sandbox.set_speed(200)
    dies(lambda: rng.random() < 0.02)
    task = BatchTask(tmp_path, rows(40), max_in_flight=8)
    assert lives(task) > 2
    dies(lambda: False)
    task.clear()
    task.run()
    check(task, sandbox, 40)


def test_a_leg_that_is_taken_over_orders_nothing_more(dies, sandbox, tmp_path, monkeypatch):
    """A worker that was believed dead and still runs fails at its next record, before its next create."""
    sandbox.set_speed(0)
    task = BatchTask(tmp_path, rows(6), max_in_flight=6)
    original = collecting.Collector.watch
    taken: list[int] = []

    def watch(self, *arguments, **known):
        original(self, *arguments, **known)
        if len(sandbox.creates) == 3 and not taken:
            taken.append(1)
            monkeypatch.setattr(plan, "stays", lambda *_, **__: False)
            with pytest.raises(TaskDeferred):
                task.start()

    monkeypatch.setattr(collecting.Collector, "watch", watch)
    with pytest.raises(journal._TakenError, match="Another process has taken over"):
        task.start()
    assert len(sandbox.creates) == 6
