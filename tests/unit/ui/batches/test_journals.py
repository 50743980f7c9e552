"""Journals of batches that another writer of the store has made, before they reach a page."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from fastapi import HTTPException

from airflow_provider_vidu.batches.snapshot import packed, state_name
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.ui.batches import journals, routes
from airflow_provider_vidu.ui.batches import rows as batch_rows
from airflow_provider_vidu.ui.batches.journals import TOO_LARGE, Read, read_journal
from airflow_provider_vidu.ui.batches.published import Batch
from airflow_provider_vidu.ui.clips.facts import TaskFacts
from airflow_provider_vidu.ui.page_queries import PageQueries
from airflow_provider_vidu.ui.threads import READS_EACH, READS_OF_DAG, Reads


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """Return the folder of a journal beneath a preview root, and a function that reads it."""
    monkeypatch.setenv("AIRFLOW__VIDU__PREVIEW_ROOTS", f"file://{tmp_path}")
    journals._kept.clear()  # pytest may give a test with a similar name the folder of an earlier one
    folder = tmp_path / ".vidu" / "films"
    folder.mkdir(parents=True)
    return folder, lambda: read_journal(f"file://{tmp_path}/", "films", "dag")


def state_of(**known):
    """Return the state of a batch as JSON."""
    empty = {"orders": 1, "since": 1, "deadline": 2, "dags": ["dag"], "open": [], "intents": [], "lines": []}
    return json.dumps({"leg": 1, "state": {**empty, **known}}).encode()


BOMBS = {
    "lists": lambda: b"[" + b"[]," * 1_000_000 + b"1]",
    "objects": lambda: b"[" + b'{"":1},' * 600_000 + b"1]",
    "quotation marks": lambda: b"[" + b'"",' * 1_600_000 + b"1]",
    "rows": lambda: state_of(lines=[{"key": str(n), "status": "stored"} for n in range(31_000)]),
    "rows ordered again": lambda: state_of(earlier=[{"key": str(n)} for n in range(31_000)]),
    "DAGs": lambda: state_of(dags=[f"dag{n}" for n in range(1_001)]),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_state_that_holds_too_much_is_not_shown(journal, kind):
    """A few kilobytes of gzip may unpack to millions of values: they are counted before they are parsed."""
    folder, read = journal
    (folder / "state.json.gz").write_bytes(gzip.compress(BOMBS[kind](), 1))
    assert read() == Read(problem=TOO_LARGE)
    assert not journals._kept


def test_events_that_hold_too_much_are_not_shown(journal):
    """Each object is small enough, and all together are not."""
    folder, read = journal
    (folder / "leg-000001").mkdir()
    for number in range(1, 4):
        events = [{"e": "x", "values": [0] * 200_000}]
        text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events)
        (folder / "leg-000001" / f"{number:06d}.jsonl").write_text(text)
    assert read() == Read(problem=TOO_LARGE)


def test_a_usual_state_is_shown(journal):
    """Twenty thousand rows are not an attack."""
    folder, read = journal
    line = {"status": "stored", "prompt": 'a "cat", a dog' * 10, "uri": "file:///x/y.mp4", "error": None}
    line |= {f"fact{n}": n for n in range(15)}
    lines = [{"key": f"row{n}", "index": n, **line} for n in range(20_000)]
    (folder / "state.json.gz").write_bytes(gzip.compress(state_of(lines=lines), 1))
    found = read()
    assert (found.problem, len(found.state.lines)) == (None, 20_000)


def test_a_later_look_does_not_change_what_a_page_is_made_of(journal):
    """It added to what the page was adding up: one look in seven at a busy batch was an internal error."""
    folder, read = journal
    lines = [{"key": "a", "status": "stored", "credits": 4, "generation_id": "g1"}]
    earlier = [{"key": "b", "generations": 1, "priced": 1, "credits": 2}]
    (folder / "state.json.gz").write_bytes(gzip.compress(state_of(lines=lines, earlier=earlier), 1))
    before = read().state
    (folder / "leg-000002").mkdir()
    (folder / "leg-000002" / "000001.jsonl").write_text('{"e":"back","keys":["a"]}\n')
    after = read().state
    assert (list(before.earlier), before.stored, before.credits, before.ordered) == (["b"], 1, 6, (2, 2))
    assert (list(after.earlier), after.stored, after.credits, after.ordered) == (["b", "a"], 0, 6, (2, 2))


def test_a_later_look_does_not_change_whose_tasks_a_page_names(journal):
    """A page goes through the tasks that have run a batch, and another look adds one meanwhile."""
    folder, read = journal
    order = {"e": "order", "order": {"order": 1, "request": "r"}, "since": 1, "deadline": 2, "dag": "dag"}
    (folder / "leg-000001").mkdir()
    (folder / "leg-000001" / "000001.jsonl").write_text(json.dumps({**order, "owner": "one"}) + "\n")
    before = read().state
    (folder / "leg-000001" / "000002.jsonl").write_text(json.dumps({**order, "owner": "two"}) + "\n")
    after = read().state
    assert (list(before.orders_of), list(before.times_of)) == (["one"], ["one"])
    assert (list(after.orders_of), list(after.times_of)) == (["one", "two"], ["one", "two"])


def test_many_journals_at_once_take_the_memory_of_few(tmp_path, monkeypatch):
    """Each look at a sheet of 20 large ones unpacked eight at once, in as many threads, and kept eight: 400 MB."""
    monkeypatch.setenv("AIRFLOW__VIDU__PREVIEW_ROOTS", f"file://{tmp_path}")
    content = state_of(lines=[{"key": "a", "status": "stored", "prompt": "x" * 1000}])
    monkeypatch.setattr(journals, "MAX_KEPT_BYTES", 2 * len(content))
    threads, all_know, made = set(), threading.Barrier(6, timeout=20), zlib.decompressobj
    follow = journals._follow

    def unpacking(*args):
        threads.add(threading.get_ident())
        return made(*args)

    def following(*args):
        all_know.wait()
        follow(*args)

    monkeypatch.setattr(journals.zlib, "decompressobj", unpacking)
    monkeypatch.setattr(journals, "_follow", following)
    for name in "abcdef":
        folder = tmp_path / ".vidu" / name
        folder.mkdir(parents=True)
        (folder / "state.json.gz").write_bytes(gzip.compress(content, 1))
    with ThreadPoolExecutor(6) as looks:
        found = list(looks.map(lambda name: read_journal(f"file://{tmp_path}/", name, "dag"), "abcdef"))
    assert [read.problem for read in found] == [None] * 6
    assert len(threads) == 1
    assert 0 < sum(one.bytes for one in journals._kept.values()) <= 2 * len(content)


def test_the_state_with_the_highest_number_is_shown(journal):
    """The objects that follow the others may be gone, and a process that was taken over may still write those."""
    folder, read = journal
    state = BatchState.from_json(json.loads(state_of())["state"])
    for generation in range(3):
        state.apply({"e": "line", "line": {"key": f"row{generation}", "status": "stored"}})
        (folder / state_name(generation)).write_bytes(packed(5 * generation + 1, state))
        if generation != 1:
            assert len(read().state.lines) == generation + 1
    (folder / state_name(0)).write_bytes(packed(99, BatchState()))
    assert len(read().state.lines) == 3


def test_the_journal_of_a_slow_store_is_not_called_gone(journal, monkeypatch):
    """Its first answer took longer than a look may: the page said that the folder was moved, and a clear pays all."""
    folder, read = journal
    leg = folder / "leg-000001"
    leg.mkdir()
    order = {"e": "order", "order": {"order": 1, "request": "r"}, "since": 1, "deadline": 2, "dag": "dag"}
    (leg / "000001.jsonl").write_text('{"e":"beat","at":1}\n')
    (leg / "000002.jsonl").write_text(json.dumps({**order, "owner": "one"}) + "\n")
    monkeypatch.setattr(journals, "LOOK_SECONDS", 0.0)
    assert read() == Read(is_behind=True, problem=journals.BUSY)
    assert list(read().state.dags) == ["dag"]  # each look reads on
    monkeypatch.setattr(journals, "LOOK_SECONDS", 0.02)

    def packed_meanwhile(*_):
        time.sleep(0.05)
        state = BatchState.from_json(json.loads(state_of())["state"])
        (folder / state_name(1)).write_bytes(packed(1, state))
        shutil.rmtree(leg)

    monkeypatch.setattr(journals, "_content", packed_meanwhile)
    assert not read().is_gone


async def test_a_silent_store_takes_a_bounded_number_of_threads(tmp_path, monkeypatch):
    """Looks that are no longer waited for keep their slots as long as their threads are in the store."""
    monkeypatch.setenv("AIRFLOW__VIDU__PREVIEW_ROOTS", f"file://{tmp_path}")
    answer, running = threading.Event(), []

    def silent(*args):
        running.append(args)
        answer.wait(20)
        return Read()

    monkeypatch.setattr(routes, "read_journal", silent)
    queries = SimpleNamespace(reads=Reads())
    request = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(queries=queries)))
    folder = f"file://{tmp_path}/"
    tasks = [SimpleNamespace(dag_id=f"dag{n}") for n in range(READS_EACH) for _ in range(READS_OF_DAG)]
    batches = [SimpleNamespace(folder=folder, name="films", task=task) for task in tasks]
    try:
        for _ in range(3):
            reads = await asyncio.gather(*(routes._read_soon(request, batch, 0.01) for batch in batches))
            assert {read.problem for read in reads} == {routes.SILENT}
        assert len(running) == READS_EACH
        began = time.monotonic()
        assert await queries.reads.run(routes.preview_root(f"{folder}x"), lambda: "a clip") == "a clip"
        assert time.monotonic() - began < 5
    finally:
        answer.set()
        await asyncio.gather(*queries.reads._late)


@pytest.mark.parametrize("dag_id", ["dag", "another"])
async def test_a_silent_store_leaves_what_was_read_of_a_batch(journal, monkeypatch, dag_id):
    """Its page alternated between the rows and an error, where each answer of the store takes seconds."""
    folder, read = journal
    (folder / "state.json.gz").write_bytes(gzip.compress(state_of(lines=[{"key": "a", "status": "stored"}])))
    read()
    answer = threading.Event()
    monkeypatch.setattr(routes, "read_journal", lambda *_: answer.wait(20) and Read())
    queries = SimpleNamespace(reads=Reads())
    request = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(queries=queries)))
    folder_uri = f"file://{folder.parent.parent}/"
    batch = SimpleNamespace(folder=folder_uri, name="films", task=SimpleNamespace(dag_id=dag_id))
    try:
        found = await routes._read_soon(request, batch, 0.01)
    finally:
        answer.set()
        await asyncio.gather(*queries.reads._late)
    if dag_id == "dag":
        assert (list(found.state.lines), found.problem, found.is_behind) == (["a"], routes.OLDER, True)
    else:
        assert found == Read(problem=routes.SILENT)


@pytest.mark.fault("attacks", "a DAG has twenty batches whose journals take seconds to parse", outcome="survived",
                   side="pages", seen="they take turns; batches of other DAGs appear within a second")  # fmt: skip
async def test_the_large_journals_of_a_dag_hold_up_no_other_dag(tmp_path, monkeypatch):
    """One parsed for another, they held the threads and the parser: the page of a batch of ten rows took 16 seconds."""
    monkeypatch.setenv("AIRFLOW__VIDU__PREVIEW_ROOTS", f"file://{tmp_path}")
    for name in ["small", *(f"large{n}" for n in range(20))]:
        own = state_of() if name == "small" else state_of(dags=["mean"], padding="x" * journals.SMALL_BYTES)
        folder = tmp_path / ".vidu" / name
        folder.mkdir(parents=True)
        (folder / "state.json.gz").write_bytes(gzip.compress(own, 1))
    gate, apply = threading.Event(), journals._apply_snapshot

    def slow(followed, packed):
        if len(gzip.decompress(packed)) > journals.SMALL_BYTES:
            gate.wait(20)
        apply(followed, packed)

    monkeypatch.setattr(journals, "_apply_snapshot", slow)
    queries = SimpleNamespace(reads=Reads())
    request = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(queries=queries)))

    def batch(name, dag_id):
        return SimpleNamespace(folder=f"file://{tmp_path}/", name=name, task=SimpleNamespace(dag_id=dag_id))

    try:
        mean = await asyncio.gather(*(routes._read_soon(request, batch(f"large{n}", "mean"), 0.05) for n in range(20)))
        assert {read.problem for read in mean} == {routes.SILENT}
        found = await routes._read_soon(request, batch("small", "dag"), 5)
        assert (found.problem, list(found.state.dags)) == (None, ["dag"])
    finally:
        gate.set()
        await asyncio.gather(*queries.reads._late)


@pytest.mark.parametrize("read_so_far", ["nothing", "another DAG"])
def test_a_journal_that_is_not_read_to_its_end_is_not_called_gone(journal, monkeypatch, read_so_far):
    """The page said to put the folder back, while another look was at the journal, or its store was slow."""
    folder, read = journal
    order = {"e": "order", "order": {"order": 1, "request": "r"}, "since": 1, "deadline": 2}
    first = {"e": "leg", "by": "x", "at": 1} if read_so_far == "nothing" else {**order, "dag": "other"}
    (folder / "leg-000001").mkdir()
    for number, event in enumerate((first, {**order, "dag": "dag"}), 1):
        (folder / "leg-000001" / f"{number:06}.jsonl").write_text(json.dumps(event) + "\n")
    clock = iter([0.0] * 2)  # one object, then the look has taken too long
    with monkeypatch.context() as patched:
        patched.setattr(journals.time, "monotonic", lambda: next(clock, 10.0))
        behind = read()
    assert (behind.problem, behind.is_behind, behind.is_gone) == (journals.BUSY, True, False)
    assert list(read().state.dags)[-1] == "dag"


@pytest.mark.parametrize("kind", ["usual", "damaged"])
async def test_a_page_of_large_journals_backs_off(journal, monkeypatch, kind):
    """Of many, each look reads some from the start: one viewer's sheet of twenty kept a processor busy."""
    folder, read = journal
    (folder / "state.json.gz").write_bytes(gzip.compress(state_of() if kind == "usual" else b"{", 1))
    clock = iter((10.0, 20.0, 21.0, 11.0))  # of the thread that looks, and within that of the one that parses
    monkeypatch.setattr(journals.time, "thread_time", lambda: next(clock))
    folder_uri = f"file://{folder.parent.parent}/"
    batch = Batch(TaskFacts("dag", "run", "task", -1, None), "films", folder_uri, "file:///m", None, 5)
    read()
    monkeypatch.setattr(routes, "read_journal", lambda *_: Read())  # as late as it may be
    state = SimpleNamespace(queries=PageQueries())
    routes.prepare(state)
    request = SimpleNamespace(app=SimpleNamespace(state=state))
    monkeypatch.setattr(routes, "read_batches", lambda *_: [batch, batch])
    monkeypatch.setattr(routes, "read_batch", lambda *_: batch)
    assert (await routes.batches_of(request, "dag", "run"))[1] == 4.0
    assert (await routes.batch_at(request, "dag", "run", "task")).cost >= 2.0


async def test_rows_of_a_large_batch_hold_up_no_other_page():
    """They are sorted once for all who ask: forty requests held up the sheets of all DAGs for more than a minute."""
    gate, began, loop, has_begun = threading.Event(), [], asyncio.get_running_loop(), asyncio.Event()

    class Slow(BatchState):
        def __getattribute__(self, name):
            if name == "lines" and not gate.is_set():
                began.append(1)
                loop.call_soon_threadsafe(has_begun.set)
                gate.wait(20)
            return super().__getattribute__(name)

    queries = PageQueries()
    request = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(queries=queries)))
    routes.prepare(request.app.state)
    batch = Batch(TaskFacts("dag", "run", "task", -1, None), "films", "file:///x/", "file:///x/m", None, 5)
    found = routes.Found(batch, Read(Slow()), 0.0)
    asked = [
        asyncio.create_task(routes.batch_data(request, "dag", "run", found, None, 0, 24, "newest")) for _ in "12345"
    ]
    asked += [asyncio.create_task(routes.row_at(request, "0" * 16, found)) for _ in "12345"]
    try:
        await asyncio.wait_for(has_begun.wait(), 10)
        await asyncio.sleep(0.1)
        assert await asyncio.wait_for(queries.views.run(lambda: "a clip of another DAG"), 5) == "a clip of another DAG"
        assert len(began) == 1
    finally:
        gate.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [json.loads(answer.body)["total"] for answer in answers[:5]] == [0] * 5
    assert [answer.status_code for answer in answers[5:]] == [404] * 5


@pytest.mark.parametrize("row", ["None by scene", "sheet", "('sheet', None, 'scene')"])
def test_the_name_of_a_row_is_not_taken_for_a_sheet(row):
    """A reader chooses it in an address: the sheets of all others broke while such a row was looked for."""
    task = TaskFacts("films", "run", "task", -1, None)
    found = routes.Found(Batch(task, "b", "file:///a/", "file:///a/b.jsonl", None, 1), Read(BatchState()), 0.0)

    async def both():
        state = SimpleNamespace(queries=PageQueries())
        routes.prepare(state)
        request = SimpleNamespace(app=SimpleNamespace(state=state))
        rows = (routes.row_at(request, row, found) for _ in range(2))
        sheet = routes.batch_data(request, "films", "run", found, None, 0, 24, "scene")
        return await asyncio.gather(*rows, sheet, return_exceptions=True)

    *rows, sheet = asyncio.run(both())
    assert [type(each) for each in rows] == [HTTPException] * 2
    assert not isinstance(sheet, BaseException), repr(sheet)
    assert json.loads(sheet.body)["total"] == 0


@pytest.mark.parametrize(("state", "is_shown"), [("deferred", True), ("up_for_retry", False)])
def test_the_timeout_of_a_try_that_is_over_is_not_shown(state, is_shown):
    """The next try begins with one of its own, so the earlier one never fires."""
    task = TaskFacts("d", "r", "films", -1, None, state=state)
    shown = batch_rows.batch_view(
        Batch(task, "b", "file:///a/", "file:///a/b.jsonl", None, 1), BatchState(deadline=60.0)
    )
    assert (shown["deadline"] == "1970-01-01T00:01:00+00:00") is is_shown


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_journal_that_is_gone_is_not_shown_from_memory(journal, is_packed):
    """A batch that had stored all its rows was shown as the page had last seen it, with rows "not collected"."""
    folder, read = journal
    order = {"e": "order", "order": {"order": 1, "request": "r"}, "since": 1, "deadline": 2, "dag": "dag", "owner": "a"}
    leg = folder / "leg-000001"
    leg.mkdir()
    (leg / "000001.jsonl").write_text(json.dumps(order) + "\n")
    if is_packed:
        (folder / "state.json.gz").write_bytes(gzip.compress(state_of(), 1))
    assert (read().problem, read().is_gone) == (None, False)
    folder.rename(folder.parent / "moved")
    found = read()
    assert (found.state, found.problem, found.is_gone) == (None, journals.NO_JOURNAL, True)
    (folder.parent / "moved").rename(folder)
    assert read().problem is None


def test_a_journal_whose_objects_were_packed_meanwhile_is_not_gone(journal, monkeypatch):
    """The state is written, and then the objects are removed: between two steps of a look."""
    folder, read = journal
    order = {"e": "order", "order": {"order": 1, "request": "r"}, "since": 1, "deadline": 2, "dag": "dag", "owner": "a"}
    leg = folder / "leg-000001"
    leg.mkdir()
    (leg / "000001.jsonl").write_text(json.dumps(order) + "\n")
    assert read().problem is None
    content = journals._content

    def packing(*args):
        (folder / "state.json.gz").write_bytes(gzip.compress(state_of(), 1))
        (leg / "000001.jsonl").unlink(missing_ok=True)
        return content(*args)

    monkeypatch.setattr(journals, "_content", packing)
    assert (read().problem, read().is_gone) == (None, False)
