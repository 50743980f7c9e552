"""A worker dies in the middle of a batch: each row is paid once, and has one whole file and one line."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.batches import journal, plan
from airflow_provider_vidu.batches.leg import collecting, submitter
from airflow_provider_vidu.orders import lost_order
from tests.integration.batches.batch_task import BatchTask

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff"),
    pytest.mark.vidu_sandbox(concurrency=None, balance=10_000_000),
]


class Died(BaseException):
    """Stands for the end of a process: nothing handles it."""


@pytest.fixture
def dies(monkeypatch, connect) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Let the process die before or after each write of the journal and each create, where a function says so."""
    connect("ent-v2", timeout=5)
    for module in (submitter, lost_order):
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
    around(journal.Journal, "_begin_generation")
    around(SyncClient, "submit")
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


@pytest.mark.fault(
    "orders",
    "a worker dies at any step of a batch",
    outcome="survived",
    seen="the retry pays for no row twice, and every row has one whole file and one line of the manifest",
)
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


@pytest.mark.parametrize(
    ("count", "in_flight", "chance"),
    [pytest.param(40, 8, 0.02, marks=pytest.mark.nightly), pytest.param(5000, 50, 0.0003, marks=pytest.mark.nightly)],
    ids=["40 rows", "5,000 rows"],
)
def test_deaths_at_random_steps(dies, sandbox, tmp_path, monkeypatch, count, in_flight, chance):
    """Again and again, with several generations open, and deferrals in between; memory stays flat."""
    rng = random.Random(21)
    monkeypatch.setattr(plan, "stays", lambda *_, **__: rng.random() < 0.5)
    monkeypatch.setattr(journal, "SNAPSHOT_EVENTS", 10 if count < 100 else 64)
    sandbox.set_speed(200)
    dies(lambda: rng.random() < chance)
    task = BatchTask(tmp_path, rows(count), max_in_flight=in_flight, timeout=3600)
    before = psutil.Process().memory_info().rss
    assert lives(task) > 1
    dies(lambda: False)
    task.clear()
    task.run()
    check(task, sandbox, count)
    # The sandbox runs in this process, too, and keeps a record of each generation.
    assert psutil.Process().memory_info().rss - before < 64 * 2**20 + count * 40_000


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
