"""What one look at a page reads at the most: JSON of results, and stored files that tell nothing of themselves."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, literal, select

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui import preview, store
from airflow_provider_vidu.ui.threads import Threads


@pytest.mark.fault(
    "attacks",
    "a thousand tasks of one page have results of 250 kB each",
    outcome="survived",
    seen="8 MiB are read, the rest counts as too large",
)
def test_the_results_of_a_look_are_bounded():
    """Each result has a limit, and so have all of them together, in the order of the tasks."""
    keys = [("t", index) for index in range(1_000)]
    sizes = dict.fromkeys(keys, 250_000) | {keys[0]: store.MAX_VALUE_BYTES + 1}
    fits = store._fitting(keys, sizes)
    assert keys[0] not in fits
    assert keys[1] in fits
    assert sum(sizes[key] for key in fits) <= store.MAX_LOOK_CHARS < sum(sizes[key] for key in fits) + 250_000
    assert store._fitting(keys, {}) == set()


@pytest.mark.fault(
    "attacks", "the clips of one page have thousands of tasks", outcome="survived", seen="one query that databases take"
)
def test_however_many_tasks_fit_into_one_query():
    """A chain of a thousand alternatives is too deep for SQLite; a list of pairs is not."""
    keys = [(f"task-{index}", index) for index in range(5_000)]
    row = SimpleNamespace(task_id=literal("task-7"), map_index=literal(7))
    engine = create_engine("sqlite://")
    with engine.connect() as database:
        assert database.scalar(select(literal(1)).where(store._are(keys, row))) == 1
        assert database.scalar(select(literal(1)).where(store._are(keys[8:], row))) is None
    engine.dispose()


@pytest.mark.fault(
    "attacks",
    "hundreds of stored files whose type nothing tells",
    outcome="survived",
    seen="24 are opened for a look, the next one goes on",
)
def test_the_files_that_a_look_opens_are_bounded(monkeypatch):
    """A look opens so many files to learn what they are; what is known is remembered, and then looked at again."""
    opened = []
    monkeypatch.setattr(preview, "_proven", type(preview._proven)())
    monkeypatch.setattr(preview, "_proven_type", lambda uri: opened.append(uri) or "video/mp4")
    uris = [f"/clips/{number}.bin" for number in range(30)]
    assert list(preview.proven_types(uris + uris)) == uris[: preview.MAX_PROVEN_READS]
    assert preview.proven_types(uris) == dict.fromkeys(uris, "video/mp4")
    assert opened == uris
    monkeypatch.setattr(preview, "MAX_PROVEN", 3)
    monkeypatch.setattr(preview, "PROVEN_SECONDS", -1.0)
    preview.proven_types(["/clips/new.bin"])
    assert len(preview._proven) == 3
    preview.proven_types(["/clips/new.bin"])
    assert opened[-2:] == ["/clips/new.bin"] * 2


@pytest.mark.fault(
    "attacks",
    "a slow store holds every reader of a file",
    outcome="survived",
    seen="threads of the pages' own wait, none of Airflow's",
)
def test_the_pages_take_no_threads_from_airflow():
    """Slow work runs in a few threads of its own; those that the server answers everybody from stay free."""
    gate, under_way = threading.Event(), []

    def slow() -> None:
        under_way.append(1)
        gate.wait(10)

    async def main() -> None:
        threads = Threads(3)
        waiting = [asyncio.create_task(threads.run(slow)) for _ in range(60)]
        from starlette.concurrency import run_in_threadpool

        assert await asyncio.wait_for(run_in_threadpool(lambda: 5), 5) == 5
        assert len(under_way) <= 3
        gate.set()
        await asyncio.gather(*waiting)
        assert len(under_way) == 60

    asyncio.run(main())
