"""What one look at a page reads at the most: JSON of results, and stored files that tell nothing of themselves."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, literal, select

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from starlette.datastructures import Headers
from starlette.requests import Request

from airflow_provider_vidu.batches.lines import EndedRow
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.ranges import Part
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.stores.places import Root, Spot
from airflow_provider_vidu.ui import app, page_queries, sending, threads
from airflow_provider_vidu.ui.batches import listing, routes
from airflow_provider_vidu.ui.batches.journals import Read
from airflow_provider_vidu.ui.batches.published import Batch
from airflow_provider_vidu.ui.clips import views, xcoms
from airflow_provider_vidu.ui.clips.facts import Clip, TaskFacts, with_result
from airflow_provider_vidu.ui.clips.pieces import MAX_PIECES, FileRecord
from airflow_provider_vidu.ui.playing import preview, shelf
from airflow_provider_vidu.ui.playing.media import MAX_HELD_BYTES, FileResponse, piece_size
from airflow_provider_vidu.ui.playing.preview import preview_root
from airflow_provider_vidu.ui.records import instances, store, values
from airflow_provider_vidu.ui.threads import READS_EACH, BusyError, Reads, Threads


@pytest.mark.fault(
    "attacks",
    "a thousand tasks of one page have results of 250 kB each",
    outcome="survived",
    seen="8 MiB are read, the rest counts as too large",
)
def test_the_results_of_a_look_are_bounded():
    """Each result has a limit, and so have all of them together, in the order of the tasks."""
    keys = [("t", index) for index in range(1_000)]
    sizes = dict.fromkeys(keys, 250_000) | {keys[0]: values.MAX_VALUE_BYTES + 1}
    fits = values.fitting(keys, sizes)
    assert keys[0] not in fits
    assert keys[1] in fits
    assert sum(sizes[key] for key in fits) <= values.MAX_LOOK_CHARS < sum(sizes[key] for key in fits) + 250_000
    assert values.fitting(keys, {}) == set()


@pytest.mark.fault(
    "attacks",
    "tasks that publish 24 generations each, with results of 256 KiB of empty lists",
    outcome="survived",
    side="pages",
    seen="a result is parsed once, and one of so many values not at all",
)
def test_a_result_is_parsed_once(monkeypatch):
    """For each of the 24 it took a tenth of a second, in which no other thread ran: a look took a minute."""
    text = '{"id": "g0", "status": "succeeded", "x": [' + "[]," * 80_000 + "0]}"
    began = time.process_time()
    assert xcoms.parsed(text) is None
    assert xcoms.decoded(text) == text
    assert time.process_time() - began < 0.1
    short = '{"id": "g0", "status": "succeeded"}'
    parses = []
    monkeypatch.setattr(store, "parsed", lambda stored: parses.append(stored) or xcoms.parsed(stored))
    own = {"task_id": "t", "map_index": -1, "instance": "i", "size": len(short), "text": short, "timestamp": None}
    monkeypatch.setattr(store, "rendered_fields", lambda *_: {})  # its queries differ between Airflows
    answers = iter([[SimpleNamespace(**own)]] * 2)
    reader = store._Reader(SimpleNamespace(execute=lambda statement: next(answers)), "d", "r")
    instance = "i" if instances.HAS_REGIONS else None
    tasks = [TaskFacts("d", "r", "t", -1, f"g{number}", number=number, instance=instance) for number in range(24)]
    found = reader.with_results(tasks)
    assert parses == [short]
    assert [task.generation is not None for task in found] == [True] + [False] * 23


@pytest.mark.fault(
    "attacks", "the clips of one page have thousands of tasks", outcome="survived", seen="one query that databases take"
)
def test_however_many_tasks_fit_into_one_query():
    """A chain of a thousand alternatives is too deep for SQLite; a list of pairs is not."""
    keys: list[Any] = [(f"task-{index}", index) for index in range(5_000)]
    row = SimpleNamespace(task_id=literal("task-7"), map_index=literal(7))
    if instances.HAS_REGIONS:
        keys = [f"id-{index}" for index in range(5_000)]
        row = SimpleNamespace(task_instance_id=literal("id-7"))
    engine = create_engine("sqlite://")
    with engine.connect() as database:
        assert database.scalar(select(literal(1)).where(instances.are(keys, row))) == 1
        assert database.scalar(select(literal(1)).where(instances.are(keys[8:], row))) is None
    engine.dispose()


@pytest.mark.fault(
    "attacks",
    "hundreds of stored files whose type nothing tells",
    outcome="survived",
    seen="24 are opened for a look, the next one goes on",
)
def test_the_files_that_a_look_opens_are_bounded(monkeypatch):
    """A look opens so many files; what is known is remembered, and looked at again when it is too old."""
    opened = []

    def looked(uri, before, *, reads):
        opened.append(uri)
        return shelf.Known(time.monotonic(), 5, kind="video/mp4", is_read=reads)

    monkeypatch.setattr(shelf, "_known", type(shelf._known)())
    monkeypatch.setattr(shelf, "_looked", looked)
    files = [(f"/clips/{number}.bin", 5, True) for number in range(30)]
    uris = [uri for uri, *_ in files]
    assert list(shelf.look(files + files, 600)) == uris[: shelf.MAX_LOOKED_AT]
    assert {uri: known.kind for uri, known in shelf.look(files, 600).items()} == dict.fromkeys(uris, "video/mp4")
    assert opened == uris
    monkeypatch.setattr(shelf, "MAX_KNOWN", 3)
    shelf.look([("/clips/new.bin", 5, False)], 600)
    assert len(shelf._known) == 3
    shelf.look([("/clips/new.bin", 5, False)], 600)
    assert opened[-1:] == ["/clips/new.bin"]
    shelf.look([("/clips/new.bin", 5, False)], -1)
    shelf.look([("/clips/new.bin", 5, True)], 600)  # its type was not read yet
    assert opened[-3:] == ["/clips/new.bin"] * 3


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


@pytest.mark.fault(
    "attacks",
    "one store is silent",
    outcome="survived",
    side="pages",
    seen="503 for its files after ten seconds; all others play",
)
def test_a_silent_store_holds_up_its_own_files_alone():
    """Whatever reads a silent store waits in that store's threads; other places are read, pages do without."""
    gate = threading.Event()

    async def main() -> None:
        reads = Reads(2)
        hung = [asyncio.create_task(reads.run("silent", gate.wait, 30)) for _ in range(20)]
        await asyncio.sleep(0)
        try:
            assert await asyncio.wait_for(reads.run("fine", lambda: 5), 5) == 5
            assert await reads.soon("silent", lambda: 5, patience=0.01, otherwise=7) == 7
            with pytest.raises(BusyError, match="does not answer"):
                await reads.run("silent", lambda: 5, turn=0.01)
        finally:
            gate.set()
        await asyncio.gather(*hung)
        assert await reads.soon("silent", lambda: 5, patience=5, otherwise=7) == 5

    asyncio.run(main())


@pytest.mark.fault(
    "attacks",
    "many connections ask for a hundred rows of a batch whose author has made them large",
    outcome="survived",
    side="pages",
    seen="pages of other DAGs within seconds; the surplus of that DAG gets 503",
)
def test_views_of_one_dag_hold_up_no_other_dag(monkeypatch):
    """Forty connections kept all four threads at the rows of one batch: the sheet of another DAG took 20 seconds."""
    gate = threading.Event()

    async def main() -> None:
        queries = page_queries.PageQueries()
        hung = [asyncio.create_task(queries.views.run_of("mean", gate.wait, 30)) for _ in range(40)]
        await asyncio.sleep(0)
        try:
            stored = queries.stored([Clip("g", [TaskFacts("dag", "run", "task", -1, "g")])])
            assert (await asyncio.wait_for(stored, 5))[0] == {}
            monkeypatch.setattr(threads, "TURN_SECONDS", 0.01)
            with pytest.raises(BusyError, match="of this DAG at once"):
                await queries.views.run_of("mean", gate.wait, 30)
        finally:
            gate.set()
        await asyncio.gather(*hung)

    asyncio.run(main())


@pytest.mark.fault(
    "attacks",
    "a DAG names thousands of stored files that a slow store has to look for",
    outcome="survived",
    side="pages",
    seen="clips of the same root play: looks wait in threads of their own",
)
def test_looks_at_stored_files_take_no_turn_from_players(tmp_path, monkeypatch):
    """A look opens two dozen files, one after the other, and goes on when no page waits for it any more."""
    monkeypatch.setenv("AIRFLOW__VIDU__PREVIEW_ROOTS", str(tmp_path))
    monkeypatch.setattr(page_queries, "STORE_PATIENCE_SECONDS", 0.01)
    gate, under_way = threading.Event(), []

    def silent(uri, before, *, reads):
        under_way.append(uri)
        gate.wait(20)
        return shelf.Known(time.monotonic())

    monkeypatch.setattr(shelf, "_looked", silent)

    async def main() -> None:
        queries = page_queries.PageQueries()
        uri = f"file://{tmp_path}/a.mp4"
        records, main = [FileRecord(uri, 5, None, "video/mp4", None)], SimpleNamespace(dag_id="dag")
        clip = SimpleNamespace(records=records, main=main, with_known=lambda known: known)
        try:
            await asyncio.gather(*(queries.stored([clip]) for _ in range(2 * READS_EACH)))
            assert len(under_way) <= READS_EACH
            assert await queries.reads.run(preview_root(uri), lambda: "a clip", turn=0.5) == "a clip"
        finally:
            gate.set()
            await asyncio.gather(*queries.reads._late)

    asyncio.run(main())


def test_a_look_at_a_slow_store_ends(monkeypatch):
    """A store that takes a minute for each file would hold a thread for half an hour; the next look goes on."""
    now, opened = [0.0], []

    def looked(uri, before, *, reads):
        now[0] += 3
        opened.append(uri)
        return shelf.Known(now[0], 5)

    monkeypatch.setattr(shelf, "_known", type(shelf._known)())
    monkeypatch.setattr(shelf, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(shelf, "_looked", looked)
    files = [(f"/clips/{number}.bin", 5, False) for number in range(12)]
    for looks in (1, 2, 3):
        shelf.look(files, 600)
        assert opened == [uri for uri, *_ in files[: 4 * looks]]


class Endless(preview.Preview):
    """A file without an end in a store."""

    size, piece = 2**40, preview.REMOTE_PIECE

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.is_asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def read(self, start: int, length: int) -> bytes:
        """Note how much is asked for."""
        self.taken.append(length)
        self._loop.call_soon_threadsafe(self.is_asked.set)
        return b"x"


@pytest.mark.fault(
    "attacks",
    "a thousand players are paused, each with a piece of its file",
    outcome="survived",
    side="pages",
    seen="the pieces become smaller; 64 MiB are held together, about",
)
def test_transfers_that_stand_still_hold_little_together():
    """The more transfers are under way, the less of its file each of them holds."""

    async def main() -> list[int]:
        never, reads, files = asyncio.Event(), Reads(), [Endless() for _ in range(200)]

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await never.wait()

        async def receive() -> Any:
            await never.wait()

        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        under_way = []
        for file in files:
            response = FileResponse(file, Part(200, 0, file.size), {}, reads)
            under_way.append(asyncio.create_task(response(scope, receive, send)))
            await file.is_asked.wait()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        assert FileResponse._under_way == 0
        return [file.taken[0] for file in files]

    taken = asyncio.run(main())
    assert taken[0] == preview.REMOTE_PIECE
    assert sum(taken) <= 4 * MAX_HELD_BYTES
    assert piece_size(200) * 200 <= MAX_HELD_BYTES
    assert piece_size(10**6) > 0


@pytest.mark.fault(
    "attacks",
    "an XCom with eighty thousand creations",
    outcome="survived",
    side="pages",
    seen="twelve are read",
)
def test_the_creations_of_a_result_are_cut_before_they_are_made(monkeypatch):
    """A result of 250 kB does not become eighty thousand models, which holds the interpreter and everybody's pages."""
    made: list[int] = []
    validate = Generation.model_validate
    monkeypatch.setattr(
        Generation, "model_validate", lambda value: (made.append(len(value["artifacts"])), validate(value))[1]
    )
    task = TaskFacts("d", "r", "t", -1, "g")
    result = {"id": "g", "status": "succeeded", "artifacts": [{"url": "https://a.example/v"}, *[{}] * 80_000]}
    found = with_result(task, result, None).generation
    assert found is not None
    assert made == [MAX_PIECES] == [len(found.artifacts)]


def test_a_page_weighs_what_its_texts_weigh():
    """All text that is kept with a page counts, whichever field holds it."""
    long = dict.fromkeys(
        ("prompt", "enhanced_prompt", "provider_status", "model", "error_code", "error_message"), "x" * 100
    )
    result = {"id": "g", "status": "failed", **long, "artifacts": [{"url": "y" * 100}]}
    task = replace(with_result(TaskFacts("d", "r", "t", -1, "g"), result, None), fields={"prompt": "z" * 100})
    page = store.Page(Clip("g", [task]), task, None, None)
    assert 800 <= page_queries.weight(page) <= 850
    assert page_queries.weight(store.Sheet([page.clip] * 2, {}, 2, False, False)) == 2 * page_queries.weight(page)
    assert page_queries.weight(None) == 0


@pytest.mark.fault(
    "attacks",
    "a sheet of a hundred clips, each with texts up to the limit",
    outcome="survived",
    side="pages",
    seen="a thread makes the answer; the event loop goes on",
)
@pytest.mark.parametrize("kind", ["sheet", "page"])
def test_answers_are_made_off_the_event_loop(monkeypatch, kind):
    """What a page shows is put together in a thread: from a hundred clips with all their texts it takes a while."""
    makers = []
    for name in ("card_view", "clip_view"):
        monkeypatch.setattr(
            views, name, lambda *args, **more: makers.append(threading.current_thread()) or {"pieces": []}
        )
    task = TaskFacts("d", "r", "t", -1, "g")
    sheet, page = store.Sheet([Clip("g", [task])], {}, 1, False, False), store.Page(Clip("g", [task]), task, None, None)
    monkeypatch.setattr(store, "read_sheet", lambda *names: sheet)
    monkeypatch.setattr(store, "read_page", lambda *names: page)
    monkeypatch.setattr(routes, "read_batches", lambda *names: [])

    async def main() -> None:
        request: Any = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace()))
        app.prepare(request.app.state)
        if kind == "sheet":
            await app.sheet_data(request, "d", "r", None, 0, 24)
        else:
            await app.clip_data(request, "d", "r", await app.clip_at(request, "d", "r", "t"))

    asyncio.run(main())
    assert makers
    assert threading.main_thread() not in makers


@pytest.mark.fault(
    "attacks",
    "the journal of a batch with a hundred lines of megabytes",
    outcome="survived",
    side="pages",
    seen="a thread reads the lines; the event loop goes on",
)
@pytest.mark.parametrize("kind", ["sheet", "page", "file"])
def test_the_lines_of_a_batch_are_read_off_the_event_loop(monkeypatch, kind):
    """Who writes the journal decides how long they are, and each request for a page decodes those that it shows."""
    readers = []
    line = EndedRow.line.fget
    monkeypatch.setattr(EndedRow, "line", property(lambda row: readers.append(threading.current_thread()) or line(row)))
    monkeypatch.setattr(Clip, "with_known", lambda clip, known: readers.append(threading.current_thread()) or clip)
    state = BatchState()
    state.lines["a"] = {"key": "a", "status": "stored", "uri": "file:///b/a.mp4", "size": 1, "generation_id": "g"}
    task = TaskFacts("d", "r", "t", -1, None, state="success")
    batch = Batch(task, "b", "file:///b/", "file:///b/b.jsonl", None, 1)
    found = routes.Found(batch, Read(state), 0.0)

    async def main() -> None:
        request: Any = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace()), headers=Headers())
        app.prepare(request.app.state)
        if kind == "sheet":
            await routes.batch_data(request, "d", "r", found, None, 0, 24)
            return
        row = await routes.row_at(request, listing.entries(state, is_over=True)[0].name, found)
        if kind == "page":
            await routes.row_data(request, "d", "r", row)
        else:
            await routes.row_file(request, row)

    asyncio.run(main())
    assert readers
    assert threading.main_thread() not in readers


@pytest.mark.parametrize(("told", "is_same"), [({}, False), ({"ETag": "x"}, True), ({"last_modified": 5}, True)])
def test_a_store_that_tells_no_version_gets_no_tag_twice(monkeypatch, told, is_same):
    """Two files of one size are not taken for one, where the store tells nothing that changes with the content."""
    from airflow.providers.common.compat import sdk

    files = SimpleNamespace(info=lambda path: {"type": "file", "size": 5, **told})
    monkeypatch.setattr(sdk, "ObjectStoragePath", lambda uri, conn_id: SimpleNamespace(fs=files, path="b/a.mp4"))
    spot = Spot("sftp", "b", ("a.mp4",))
    first, second = (preview.open_beneath(Root(spot), spot).etag for _ in range(2))
    assert (first == second) is is_same


@pytest.mark.parametrize("scheme", ["sftp", "s3"])
def test_a_piece_of_a_store_that_knows_no_ranges(monkeypatch, scheme):
    """The file system of SFTP returns the whole file whatever part of it is requested; object stores know ranges."""
    from airflow.providers.common.compat import sdk

    whole = bytes(range(100))
    files = SimpleNamespace(
        info=lambda path: {"type": "file", "size": 100},
        open=lambda path, mode: io.BytesIO(whole),
        cat_file=lambda path, start, end: whole[start:end] if scheme == "s3" else whole,
    )
    monkeypatch.setattr(sdk, "ObjectStoragePath", lambda uri, conn_id: SimpleNamespace(fs=files, path="b/a.mp4"))
    spot = Spot(scheme, "b", ("a.mp4",))
    opened = preview.open_beneath(Root(spot), spot)
    assert [opened.read(10, 5), opened.read(98, 5)] == [whole[10:15], whole[98:]]


@pytest.mark.fault(
    "attacks",
    "two proxies have each added a name of Airflow, and a clip leads to one of them",
    outcome="refused",
    side="pages",
    seen="410: the link is not followed",
)
def test_every_line_of_a_forwarded_host_counts():
    """Proxies add lines or lengthen them: all names are Airflow's own."""
    lines = [
        (b"host", b"inner:8080"),
        (b"x-forwarded-host", b"a.example, b.example"),
        (b"x-forwarded-host", b"c.example"),
    ]
    own = sending._own_hosts(Request({"type": "http", "headers": lines}))
    assert {"inner", "a.example", "b.example", "c.example"} <= own


@pytest.mark.fault(
    "attacks",
    "a header of thousands of ranges for a script of the pages, without a login",
    outcome="survived",
    side="pages",
    seen="the whole script",
)
def test_scripts_know_no_ranges():
    """Versions of Starlette before 0.49.1 take minutes of the server's event loop to merge the ranges of one header."""
    folder = Path(app.__file__).parent / "static"
    headers = [(b"range", b"bytes=0-9,20-29")]
    scope = {"type": "http", "method": "GET", "path": "/icon.svg", "root_path": "", "headers": headers}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(3600)  # no client disconnects

    asyncio.run(app._Static(directory=folder)(scope, receive, send))
    assert sent[0]["status"] == 200
    assert b"".join(message.get("body", b"") for message in sent) == (folder / "icon.svg").read_bytes()


@pytest.mark.fault(
    "attacks",
    "a path of thousands of folders, without a login",
    outcome="refused",
    side="pages",
    seen="404",
)
@pytest.mark.parametrize("path", ["/static/" + "a/" * 32_000, "/static/" + "../" * 20_000, "/" * 64_000])
def test_long_paths_are_not_looked_up(path):
    """A file is looked up folder by folder, in Airflow's threads; a page of a refusal leads out of each folder."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "root_path": ""}
    scope |= {"headers": [(b"accept", b"text/html")], "query_string": b""}
    pages = app.make_app()
    began = time.process_time()
    asyncio.run(pages(scope, receive, send))
    took = time.process_time() - began
    assert sent[0]["status"] == 404
    assert sum(len(message.get("body", b"")) for message in sent) < 1_000
    assert took < 0.1
