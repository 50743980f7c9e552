"""A gateway whose answers are small, and dear or deadly to read."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_vidu.api.clients.async_client import async_client
from airflow_provider_vidu.api.dialects import DIALECTS, ViduNative
from airflow_provider_vidu.api.input_uploads import put
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.parsing import documents
from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.common.values import MAX_INTEGER, MIN_INTEGER, reason
from airflow_provider_vidu.downloads.transfer import Transfer
from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger
from airflow_provider_vidu.exceptions import ViduCreditError, ViduError, ViduSubmitUnknownError, ViduTransportError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.network.bodies import LIST
from airflow_provider_vidu.network.download_url import DownloadAccess
from airflow_provider_vidu.polling.watch import PollPolicy, PollResult, Wait, Watch
from airflow_provider_vidu.tasks.completions import CompletionTracker
from fault_table import CLEAR_ERROR, SURVIVED
from tests.integration.downloads.test_transfer import BODY, LOOPBACK, Shelf
from tests.integration.servers import Request, Server, Wire

KEY = "sk-of-hostile-bodies"
DIGITS = "9" * 5000
"""Python refuses to convert so many."""
RUNNING = b'{"id":"g7","status":"processing"}'


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Return a function that answers every request with these bytes, from the status line on."""
    running: list[Server] = []

    def serve(data: bytes, dialect: str = "vidu-native") -> Server:
        def answer(request: Request, wire: Wire) -> None:
            wire.sock.sendall(data)

        running.append(Server(answer).__enter__())
        extra = {"dialect": dialect, "max_retries": 0, "timeout": 10}
        fields = {"conn_type": "vidu", "host": running[-1].url(""), "password": KEY, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
        return running[-1]

    yield serve
    for server in running:
        server.__exit__()


ASKS: dict[str, Callable[[], Any]] = {
    "sync": lambda: ViduHook().get_generation("g7", retries=0),
    "async": lambda: asyncio.run(ViduHook().aget_generation("g7", retries=0)),
    "create": lambda: ViduHook().create_generation(model="viduq2", prompt="p"),
}


def whole(body: bytes, *head: bytes, status: bytes = b"200 OK") -> bytes:
    """Return an answer with these further lines in its head."""
    lines = [b"HTTP/1.1 " + status, *head, b"Content-Length: %d" % len(body), b"Connection: close", b"", body]
    return b"\r\n".join(lines)


ENTITIES = {
    "a header": (whole(RUNNING, b"X-Note: &#" + DIGITS.encode() + b";"), None),
    "a message": (whole(json.dumps({"id": "g7", "status": "processing", "message": f"&#{DIGITS};"}).encode()), None),
    "a status line": (b"HTTP/1.1 &#" + DIGITS.encode() + b"; OK\r\n\r\n", ViduError),
    "a refusal": (whole(f"&#{DIGITS};".encode(), status=b"400 Bad Request"), ViduError),
}


@pytest.mark.parametrize("place", ENTITIES)
@pytest.mark.parametrize("ask", ASKS)
def test_an_entity_of_5000_digits(serve, fault_row, ask, place):
    """The search for the key in HTML's spelling reads any number; no bare ValueError, and a paid id is kept."""
    data, expected = ENTITIES[place]
    server = serve(data)
    if expected is None:
        seen = ASKS[ask]()
        assert seen.id == "g7"
    else:
        with pytest.raises(expected) as caught:
            ASKS[ask]()
        seen = caught.value
    fault_row("attacks", f"a gateway writes &# and 5,000 digits into {place}", side=ask, seen=str(seen)[:120],
              requests=len(server.requests), outcome=CLEAR_ERROR if expected else SURVIVED)  # fmt: skip


@pytest.mark.fault("attacks", "a gateway quotes the key behind an inline picture", outcome=CLEAR_ERROR,
                   says="A proxy or firewall in front of the service answered")  # fmt: skip
@pytest.mark.parametrize("end", [4000, 16_000])
def test_a_key_behind_a_picture(serve, end):
    """Wherever the quoted part of an answer ends, no piece of the key comes into view."""
    picture = "data:image/png;base64,"
    body = f"{picture}{'A' * (end - len(picture) - 11)} {KEY} was refused".encode()
    serve(whole(body, b"Content-Type: text/html", status=b"403 Forbidden"))
    with pytest.raises(ViduError) as caught:
        ASKS["sync"]()
    assert KEY[:6] not in str(caught.value)


SALVAGED = {
    "texts inside texts": b'{"id":"g7","a":"' + b'{\\"' * 5000 + b"\\q",
    "lists inside texts": b'{"id":"g7","a":"{\\"a\\":' + b"[" * 99 + b"1,",
    "bytes before the bracket": b'\xef {"id":"g7","status":"processing"',
    "a comma before the bracket": b'\0 \0{"id":"g7","status":"processing"',
}


@pytest.mark.fault("attacks", "a gateway answers a create in broken JSON, texts inside texts", outcome=SURVIVED,
                   seen="the id where it can be read, else a clear error")  # fmt: skip
@pytest.mark.parametrize("body", SALVAGED.values(), ids=list(SALVAGED))
def test_damaged_json_is_read_without_an_end_of_the_stack(serve, body):
    """Whatever is broken, the id of a create is found or its outcome is unknown: no RecursionError, no IndexError."""
    serve(whole(body))
    try:
        found = ViduHook().create_generation(model="viduq2", prompt="p").id
    except ViduSubmitUnknownError:
        assert body[:1] != b"{"
    else:
        assert found == "g7"


def test_salvage_takes_time_in_proportion():
    """Texts that are JSON themselves are opened a few times, not as often as they are nested."""
    began = time.thread_time()
    documents(b'["' + b'{\\"' * 100_000 + b"\\q")
    assert time.thread_time() - began < 2


@pytest.mark.fault("attacks", "an answer is one text of escaped quotation marks, without its end (1 MB)",
                   outcome=SURVIVED, seen="nothing: reading it takes a moment")  # fmt: skip
@pytest.mark.parametrize(
    "body",
    [b'{"' + b'\\"{' * 300_000, b"x:[" * 100_000, b"data:" * 200_000 + b"{", b'{"a":1} x ' * 100_000, b"cb(" * 300_000],
    ids=["quotation marks", "words", "events", "documents", "calls"],
)
def test_what_is_no_json_is_read_in_proportion(body):
    """Each character is read a few times, wherever a text, an event or a document begins."""
    began = time.thread_time()
    with pytest.raises(ViduError):
        ViduNative().read_created(ApiAnswer(200, {}, body))
    assert time.thread_time() - began < 2


MARKS = "\u0316\u0300"
"""Two combining characters in the order that a normal form swaps."""
DEAR = {
    "an address without its scheme": {"video_url": "//" + "a." * 60_000},
    "hosts of combining characters": {"creations": [{"url": f"https://{n}{MARKS * 8_000}/v"} for n in range(12)]},
}


@pytest.mark.fault("attacks", "an answer holds a text that a pattern, or Unicode's normal form, reads again and again",
                   outcome=SURVIVED, seen="nothing: reading it takes a moment")  # fmt: skip
@pytest.mark.parametrize("told", DEAR.values(), ids=list(DEAR))
def test_an_answer_is_read_in_proportion(told):
    """A few kilobytes, packed, kept triggerer and API server busy for minutes: neither lets other threads run."""
    body = json.dumps({"status": "completed", **told}, ensure_ascii=False).encode()
    began = time.thread_time()
    assert ViduNative().read_generation("g7", ApiAnswer(200, {}, body)).video_url is None
    assert time.thread_time() - began < 1


@pytest.mark.fault("attacks", "the envelope of a function names a status of 65 bits", outcome=CLEAR_ERROR,
                   says="status")  # fmt: skip
@pytest.mark.parametrize("status", ["18446744073709551616", 1e300, 99, 600, -1])
def test_the_status_of_an_envelope_is_one(status):
    """It is part of the event of a trigger, which Airflow cannot send with such a number."""
    body = json.dumps({"statusCode": status, "body": "no"}).encode()
    with pytest.raises(ViduError) as told:
        ViduNative().read_generation("g7", ApiAnswer(200, {}, body))
    assert told.value.status_code == 200


@pytest.mark.fault("attacks", "a gateway nests 6,000 fields in five errors (60 kB)", outcome=SURVIVED,
                   seen="nothing: reading it takes a moment")  # fmt: skip
def test_a_reason_is_looked_for_once():
    """Every field is looked at once, and not three times on each level."""
    seen: list[str] = []

    class Noted(dict):
        def get(self, name: str, default: Any = None) -> Any:
            seen.append(name)
            return super().get(name, default)

    told: Any = Noted(x=None)
    for _ in range(5):
        told = {"error": told}
    assert reason(told) is None
    assert seen.count("message") == 1


@pytest.mark.fault("attacks", "a server puts two million headers into a hundred lines, behind one that is none",
                   outcome=SURVIVED, side="download", seen="the file")  # fmt: skip
def test_headers_behind_a_line_that_is_none():
    """Only line ends end a line, and a hundred lines are read: what a million of one name add up to is quadratic."""
    lines = [b"no header", *[b"a:\x0b" * 20_000] * 90]
    with Server(lambda _, wire: wire.sock.sendall(whole(BODY, *lines))) as server:
        began = time.thread_time()
        shelf = Shelf()
        Transfer(server.url(), shelf.open, access=DownloadAccess(allowed_hosts=LOOPBACK, timeout=10.0)).run()
        assert time.thread_time() - began < 5
    assert shelf.published == BODY


@pytest.mark.fault("attacks", "a store breaks an upload through a proxy with a password", outcome=CLEAR_ERROR,
                   says="could not be uploaded")  # fmt: skip
def test_no_frame_of_a_broken_upload_holds_its_url_or_a_password(monkeypatch):
    """Neither the error nor what it is chained to leads to the signed URL or the proxy's password."""
    with Server(lambda _, wire: wire.sock.close()) as server:
        access = DownloadAccess(timeout=5.0, proxy=Secret(f"http://user:{KEY}@127.0.0.1:{server.port}"))
        with pytest.raises(ViduTransportError) as caught:
            put("http://store.example/x?X-Amz-Signature=5f2a", io.BytesIO(b"x"), 1, "image/png", access)
    assert caught.value.__cause__ is caught.value.__context__ is None


HUGE = {"positive": 2**64, "negative": -(2**63) - 1, "thirty digits": 10**30, "a float": 1e308}


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _integers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, int):
        yield value


@pytest.mark.fault("attacks", "a gateway answers with integers of more than 64 bits", outcome=SURVIVED,
                   seen="kept as texts: no XCom takes them, and a paid task would fail")  # fmt: skip
@pytest.mark.parametrize("number", HUGE.values(), ids=list(HUGE))
def test_integers_that_no_xcom_holds(number):
    """Whatever numbers an answer holds, the return value can be pushed (the supervisor's messages have 64 bits)."""
    video = {"duration": number, "fps": number, "resolution": {"width": number, "height": number}}
    creation = {"id": number, "url": "https://h.example/v.mp4", "video": video}
    body = {"id": "g7", "state": "success", "seed": number, "credits": number, "creations": [creation]}
    answer = ApiAnswer(200, {}, json.dumps({**body, "text": json.dumps(body)}).encode())
    for dialect in DIALECTS.values():
        kept = dialect().read_generation("g7", answer).as_xcom()
        assert all(MIN_INTEGER <= found <= MAX_INTEGER for found in _integers(kept))
        assert kept["video_url"] == "https://h.example/v.mp4"


@pytest.mark.fault("attacks", "a gateway refuses for lack of credits, and counts them in 1e308", outcome=CLEAR_ERROR,
                   says="credits")  # fmt: skip
def test_a_balance_beyond_all_numbers(serve):
    """The sum of two is infinite; the refusal itself is what the user sees."""
    kinds = [{"credit_remain": 1e308, "concurrency_limit": 1e308}] * 2
    balance = ApiAnswer(200, {}, json.dumps({"remains": kinds}).encode())
    told = DIALECTS["ent-v2"]().read_credits(balance)
    assert told.remaining is None
    assert told.concurrency_limit is None
    body = json.dumps({"code": "insufficient_quota", "message": "none left", "remains": kinds}).encode()
    serve(whole(body, status=b"402 Payment Required"), "ent-v2")
    with pytest.raises(ViduCreditError):
        ViduHook().create_generation(model="viduq2", prompt="p", endpoint="text2video")


@pytest.mark.fault("attacks", "a gateway lists 100 generations of 900 empty objects each, on 50 pages (100 kB of gzip)",
                   outcome=SURVIVED, seen="the generations, without most of what nobody reads")  # fmt: skip
def test_of_a_full_page_few_values_are_kept():
    """A triggerer holds all pages of a listing at a time: a page of 200,000 values would be tens of megabytes."""
    entry = {"state": "success", "x": [{}] * 900, "creations": [{"url": "https://h.example/v.mp4"}]}
    body = json.dumps({"tasks": [{**entry, "id": str(n)} for n in range(1, 101)], "next_page_token": ""}).encode()
    page = DIALECTS["ent-v2"]().read_page(ApiAnswer(200, {}, body, str, LIST.values))
    assert [found.id for found in page.generations] == [str(n) for n in range(1, 101)]
    assert page.generations[0].video_url == "https://h.example/v.mp4"
    assert value_count(json.dumps([found.raw for found in page.generations]).encode(), 0) <= 30_000


@pytest.mark.fault("attacks", "a gateway lists ids with line breaks and terminal codes", outcome=SURVIVED,
                   seen="nothing: such an entry has no id")  # fmt: skip
def test_ids_of_a_list_are_checked():
    """They get into logs and events like those of a create."""
    tasks = [{"id": told, "state": "success"} for told in ("a\nb", "\x1b[31mc", "d\u202ee", "x" * 2000, "..", "good")]
    page = DIALECTS["ent-v2"]().read_page(ApiAnswer(200, {}, json.dumps({"tasks": tasks}).encode()))
    assert [found.id for found in page.generations] == ["good"]
    assert page.count == len(tasks)


@pytest.mark.fault("attacks", "a gateway answers each poll with 100 kB", outcome=SURVIVED,
                   seen="one answer of a connection is read at a time, and the loop's threads stay free")  # fmt: skip
def test_large_answers_are_read_one_after_the_other(serve, monkeypatch):
    """Six threads that parse leave the event loop of every DAG a second of lag, and no thread to look a name up."""
    serve(whole(b'{"status":"processing","x":"' + b"a " * 50_000 + b'"}'))
    known, busy, seen = DIALECTS["vidu-native"].read_generation, [], []

    def read(*args: Any) -> Any:
        busy.append(1)
        seen.append((len(busy), threading.current_thread().name[:9]))
        time.sleep(0.02)
        busy.pop()
        return known(*args)

    monkeypatch.setattr(DIALECTS["vidu-native"], "read_generation", read)

    async def wait_for_all() -> None:
        await asyncio.gather(*(ViduHook().aget_generation(f"g{n}", retries=0) for n in range(8)))

    asyncio.run(wait_for_all())
    assert seen == [(1, "vidu-read")] * 8


@pytest.mark.fault("attacks", "the gateways of two connections answer with megabytes that take seconds to read",
                   outcome=SURVIVED, seen="a page of a third connection's list is read at once")  # fmt: skip
def test_huge_answers_delay_no_others(serve, monkeypatch):
    """Two threads read all large answers: a page of 60 kB waited for 40 seconds."""
    # A list's page may have 16 MiB, the answer to a poll no more than one.
    monkeypatch.setattr("airflow_provider_vidu.api.clients.async_client._HUGE_BYTES", 500_000, raising=False)
    for conn_id, length in (("huge_1", 900_000), ("huge_2", 900_000), ("large", 60_000)):
        serve(whole(b'{"status":"processing","x":"' + b"a " * (length // 2) + b'"}'))
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", os.environ["AIRFLOW_CONN_VIDU_DEFAULT"])
    known, begun, may_end = DIALECTS["vidu-native"].read_generation, threading.Event(), threading.Event()

    def read(*args: Any) -> Any:
        if any(isinstance(one, ApiAnswer) and len(one.body) > 500_000 for one in args):
            begun.set()
            may_end.wait(20)
        return known(*args)

    monkeypatch.setattr(DIALECTS["vidu-native"], "read_generation", read)

    async def polls() -> None:
        huge = [asyncio.create_task(ViduHook(one).aget_generation("g", retries=0)) for one in ("huge_1", "huge_2")]
        try:
            await asyncio.to_thread(begun.wait, 20)
            await asyncio.sleep(0.5)  # for the second one to begin, if it may
            await asyncio.wait_for(ViduHook("large").aget_generation("g", retries=0), 10)
        finally:
            may_end.set()
            await asyncio.gather(*huge)

    asyncio.run(polls())


@pytest.mark.fault("attacks", "a gateway answers the polls of many waits with 900 kB of an error", outcome=SURVIVED,
                   seen="the reason alone is kept")  # fmt: skip
@pytest.mark.parametrize("status", [b"200 OK", b"503 Busy"])
def test_a_wait_does_not_keep_the_answer_that_failed_it(serve, status):
    """In the frames of its last error, each wait of a triggerer kept a megabyte until its next poll: a gigabyte."""
    serve(whole(b'{"error": "' + b"no " * 300_000 + b'"}', status=status))
    watches = [Watch(PollPolicy.for_trigger(30, 10), generation_id=f"g{number}", since=0.0) for number in range(4)]

    async def poll(watch: Watch) -> PollResult:
        async with async_client("vidu_default") as client:
            return await client.shared_polls.polls(watch, None, None).after(0.0)

    async def poll_all() -> None:
        results = await asyncio.gather(*map(poll, watches))
        assert all(isinstance(result, Wait) and result.trouble for result in results)

    before = _answers()
    asyncio.run(poll_all())
    assert _answers(before) == before


@pytest.mark.fault("attacks", "a gateway answers the polls of an event trigger with 900 kB of an error",
                   outcome=SURVIVED, seen="the reasons alone are kept")  # fmt: skip
@pytest.mark.parametrize("status", [b"200 OK", b"400 No", b"503 Busy"])
def test_an_event_trigger_does_not_keep_the_answers_that_failed_it(serve, status, monkeypatch):
    """The errors of a round held theirs until Python's next search for cycles: 2 MB for each of 5,000 generations."""
    serve(whole(b'{"error": "' + b"no " * 300_000 + b'"}', status=status))
    names = [f"g{number}" for number in range(4)]
    trigger, seen = ViduGenerationFinishedTrigger(generation_ids=names), list[int]()
    tracker = CompletionTracker(PollPolicy.for_trigger(30), names)
    pause = tracker.pause

    def paused(errors: list[ViduError]) -> tuple[float, str | None]:
        seen.extend([len(errors), _answers(before)])
        return pause(errors)

    monkeypatch.setattr(tracker, "pause", paused)

    async def poll_all() -> None:
        async with async_client("vidu_default") as client:
            await trigger._round(client, tracker)

    before = _answers()
    asyncio.run(poll_all())
    assert seen == [4, before]


def _answers(usual: int | None = None) -> int:
    """Return how many answers this process holds.

    :param usual: how many it should hold: the thread that read the last one may be about to drop it.
    """
    until = time.monotonic() + 2
    while True:
        gc.collect()
        # isinstance() would wake lazy proxies
        count = sum(type(each) is ApiAnswer for each in gc.get_objects())
        if usual is None or count == usual or time.monotonic() > until:
            return count
        time.sleep(0.02)


@pytest.mark.fault("attacks", "a gateway sends interim answers without end (1xx)", outcome=CLEAR_ERROR, side="async",
                   says="more than 100 interim answers")  # fmt: skip
def test_interim_answers_without_end(serve):
    """They all came out of one read: the event loop must not work through ten thousand of them at a time."""
    server = serve(b"HTTP/1.1 100 Continue\r\n\r\n" * 5000 + whole(RUNNING))
    with pytest.raises(ViduError, match="interim answers"):
        ASKS["async"]()
    assert len(server.requests) == 1


def test_a_hundred_interim_answers_are_read(serve):
    """An honest proxy sends a few, for each request of a kept connection."""
    serve(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100 + whole(RUNNING))
    assert ASKS["async"]().id == "g7"


@pytest.mark.fault("attacks", "an answer holds what Airflow takes for a serialized object", outcome=SURVIVED,
                   seen="its fields, under other names")  # fmt: skip
@pytest.mark.parametrize("ask", ["sync", "async"])
@pytest.mark.parametrize(
    "told",
    [
        {"__classname__": "airflow.sdk.definitions.asset.Asset", "__version__": 1, "__data__": {"name": "a"}},
        {"__type": "airflow.sdk.definitions.connection.Connection", "__var": {"conn_id": "other"}},
        {"__id__": "a"},
    ],
    ids=lambda told: next(iter(told)),
)
def test_an_xcom_of_an_answer_is_plain(serve, ask, told):
    """Stored and pulled again it is what it was: no class is imported, no connection is looked up, nothing fails."""
    serde = pytest.importorskip("airflow.sdk.serde", reason="Airflow before 3.2 has it elsewhere")
    serve(whole(json.dumps({"id": "g7", "status": "processing", "more": [told], **told}).encode()))
    stored = ASKS[ask]().as_xcom()
    assert serde.deserialize(json.loads(json.dumps(serde.serialize(stored)))) == stored
    assert list(stored["raw"]["more"][0].values()) == list(told.values())
