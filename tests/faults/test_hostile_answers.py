"""A gateway that answers in gigabytes, in bombs, or with lines that look like another program's log."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import re
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduError, ViduResponseError, ViduSubmitUnknownError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.network.bodies import SINGLE
from airflow_provider_vidu.operators import ViduDownloadOperator
from airflow_provider_vidu.triggers import ViduGenerationTrigger
from fault_table import CLEAR_ERROR, REFUSED, SURVIVED
from tests.faults.hostile_texts import FORGED, bomb, is_one_clean_line
from tests.integration.servers import Answer, Request, Server, Wire, fixed

#: Far below what a bomb holds, far above what an honest answer takes.
MOST_MEMORY = 10 * SINGLE.unpacked
#: How a line of Airflow's log begins; a forged one begins otherwise.
LOGGED = re.compile(r"20\d\d-\d\d-\d\dT\S+ \[(?:info|warning|debug|error) ")
RUNNING = json.dumps({"id": "g", "status": "processing"}).encode()

Ask = Callable[[], Any]
SIDES: dict[str, Ask] = {
    "sync": lambda: ViduHook().get_generation("g", retries=0),
    "async": lambda: asyncio.run(ViduHook().aget_generation("g", retries=0)),
}


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[[Answer], Server]]:
    """Return a function that starts a server and points the default connection at it."""
    running: list[Server] = []

    def serve(answer: Answer, dialect: str = "vidu-native") -> Server:
        server = Server(answer)
        server.__enter__()
        running.append(server)
        extra = {"dialect": dialect, "max_retries": 0, "timeout": 10}
        fields = {"conn_type": "vidu", "host": server.url(""), "password": "key-of-hostile-tests", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
        return server

    yield serve
    for server in running:
        server.__exit__()


def _explosive(kind: str = "application/json", encoding: str = "gzip") -> tuple[Answer, list[int]]:
    """Return an answer that sends a bomb of 10 GB, and the list of the byte counts that went out."""
    sent: list[int] = []

    def answer(request: Request, wire: Wire) -> None:
        wire.head(200, Content_Type=kind, Content_Encoding=encoding, Connection="close")
        for piece in bomb():
            wire.sock.sendall(piece)
            sent.append(len(piece))

    return answer, sent


@pytest.fixture
def memory() -> Iterator[Callable[[], int]]:
    """Return a function that tells the most memory that was taken since the test began, in bytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_the_bomb_is_one():
    """The first pieces inflate to a thousand times their size, and go on."""
    pieces, unpack = bomb(), zlib.decompressobj(wbits=31)
    packed = next(pieces) + next(pieces)
    found = unpack.decompress(packed)
    assert len(found) > 900 * len(packed)
    assert not unpack.eof


@pytest.mark.parametrize("side", SIDES)
def test_a_bomb_as_an_answer(serve, memory, fault_row, side):
    """Ten gigabytes in ten megabytes end a poll with a clear error, in bounded memory, after one request."""
    answer, sent = _explosive()
    server = serve(answer)
    with pytest.raises(ViduResponseError, match=r"larger than \d+ bytes") as caught:
        SIDES[side]()
    assert memory() < MOST_MEMORY
    assert sum(sent) < 16_000_000
    assert len(server.requests) == 1
    assert server.requests[0].headers["accept-encoding"] == "identity"
    fault_row("hostile input", "gzip bomb (10 GB)", side=side, seen=str(caught.value), requests=1, outcome=CLEAR_ERROR)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("megabytes", [1024, 64])
def test_a_small_bomb_is_not_unpacked(serve, memory, fault_row, side, megabytes):
    """A body within the limit that would unpack to more is dropped when the limit is reached."""
    body = b"".join(itertools.islice(bomb(), 1 + megabytes // 64))
    assert len(body) < SINGLE.unpacked
    server = serve(fixed(200, body, Content_Type="application/json", Content_Encoding="gzip"))
    with pytest.raises(ViduResponseError, match=r"larger than \d+ bytes") as caught:
        SIDES[side]()
    assert memory() < MOST_MEMORY
    fault, count = f"gzip bomb ({megabytes} MB in {len(body) >> 10} KB)", len(server.requests)
    fault_row("hostile input", fault, side=side, seen=str(caught.value), requests=count, outcome=CLEAR_ERROR)


def test_a_bomb_as_the_answer_to_a_create(serve, memory, fault_row):
    """The create may have been carried out, so its outcome is unknown; it is not repeated."""
    answer, _ = _explosive()
    server = serve(answer)
    with pytest.raises(ViduSubmitUnknownError, match="larger than") as caught:
        ViduHook().create_generation(model="viduq2", prompt="p")
    assert memory() < MOST_MEMORY
    assert len(server.requests) == 1
    fault_row(
        "hostile input", "gzip bomb (10 GB)", side="create", seen=str(caught.value), requests=1, outcome=CLEAR_ERROR
    )


def test_a_bomb_as_a_video(serve, memory, context, tmp_path, fault_row):
    """A compressed file although none was asked for is not a video: refused, and nothing is kept."""
    answer, _ = _explosive("video/mp4")
    server = serve(answer)
    operator = ViduDownloadOperator(task_id="t", destination=f"{tmp_path}/", video_url=server.url())
    with pytest.raises(ViduError) as caught:
        operator.execute(context)
    assert memory() < MOST_MEMORY
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not caught.value.retryable
    seen, count = str(caught.value), len(server.requests)
    fault_row("hostile input", "gzip bomb (10 GB)", side="download", seen=seen, requests=count, outcome=REFUSED)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "x\x1b[31m", "gzip"])
def test_encodings_that_nobody_asked_for(serve, fault_row, side, encoding):
    """Foreign encodings are refused by name; corrupt gzip is reported as such."""
    server = serve(fixed(200, b"\x8b\x05\x80" + RUNNING, Content_Type="application/json", Content_Encoding=encoding))
    with pytest.raises(ViduError) as caught:
        SIDES[side]()
    assert is_one_clean_line(str(caught.value))
    if "\x1b" not in encoding:  # aiohttp refuses such a header by itself
        assert ("not valid gzip" if "gzip" in encoding else repr(encoding)) in str(caught.value)
    fault = f"Content-Encoding {encoding!r} unasked"
    fault_row(
        "hostile input", fault, side=side, seen=str(caught.value), requests=len(server.requests), outcome=CLEAR_ERROR
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body, wbits=-15)),
        ("identity", bytes),
    ],
    ids=["gzip", "x-gzip", "deflate", "raw deflate", "identity"],
)
def test_an_honest_gateway_that_compresses_is_understood(serve, fault_row, side, encoding, pack):
    """A gateway that compresses unasked is read all the same."""
    server = serve(fixed(200, pack(RUNNING), Content_Type="application/json", Content_Encoding=encoding))
    assert SIDES[side]().provider_status == "processing"
    fault_row(
        "hostile input",
        f"{encoding} unasked",
        side=side,
        seen="understood",
        requests=len(server.requests),
        outcome=SURVIVED,
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["4 kB of gzip", "4 MB"])
def test_a_bomb_of_values(serve, memory, fault_row, side, pack):
    """Millions of empty objects are counted and not parsed: they would take gigabytes, and a minute of the loop."""
    body = pack(b'{"status":"processing","x":[' + b"{}," * 1_390_000 + b"{}]}")
    server = serve(fixed(200, body, Content_Type="application/json", Content_Encoding="gzip"))
    with pytest.raises(ViduResponseError, match=r"larger than \d+ bytes|more than 20,000 values") as caught:
        SIDES[side]()
    assert memory() < MOST_MEMORY
    fault = f"millions of values in {len(body) >> 10} kB"
    fault_row("hostile input", fault, side=side, seen=str(caught.value), requests=1, outcome=CLEAR_ERROR)
    assert len(server.requests) == 1


@pytest.mark.parametrize("side", [*SIDES, "create"])
@pytest.mark.parametrize("encoding", ["utf-8", "aws-chunked", "binary", "none", "br", "gzip"])
def test_encodings_that_mean_nothing(serve, fault_row, side, encoding):
    """The bytes are JSON, so they are read, whatever the header says of them."""
    serve(fixed(200, RUNNING, Content_Type="application/json", Content_Encoding=encoding))
    ask = SIDES.get(side, lambda: ViduHook().create_generation(model="viduq2", prompt="p"))
    assert ask().id == "g"
    fault = f"Content-Encoding {encoding!r} of plain JSON"
    fault_row("hostile input", fault, side=side, seen="understood", requests=1, outcome=SURVIVED)


def test_a_create_answered_in_gigabytes(vidu_connection, memory, fault_row):
    """A body without an end is dropped at the limit; the create is neither repeated nor called refused."""
    action = {"garbage": "huge", "huge_bytes": 1 << 30}
    vidu_connection.add_fault({"match": {"kind": "create"}, "times": None, "action": action})
    with pytest.raises(ViduSubmitUnknownError, match="larger than") as caught:
        ViduHook().create_generation(model="viduq2", prompt="p")
    assert memory() < MOST_MEMORY
    assert len(vidu_connection.requests(kind="create")) == len(vidu_connection.creates) == 1
    fault_row("hostile input", "answer of 1 GB", side="create", seen=str(caught.value), requests=1, outcome=CLEAR_ERROR)


ERROR = {"error": {"code": FORGED, "type": FORGED, "message": FORGED}, "trace_id": FORGED}
ENT_ERROR = {"code": 400, "reason": FORGED, "message": FORGED, "metadata": {"trace_id": FORGED}}
JSON = {"Content-Type": "application/json"}
#: Every place of an answer that the service fills: dialect, and the answer to every query.
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "error answer": ("vidu-native", {"status": 400, "body": ERROR}),
    "error answer, flat": ("vidu-native", {"status": 500, "body": {"code": FORGED, "message": FORGED, "data": None}}),
    "error answer, ent": ("ent-v2", {"status": 400, "body": ENT_ERROR}),
    "error answer, wrapped": (
        "vidu-native",
        {"status": 400, "body": {"code": "fail_to_fetch_task", "message": json.dumps(ENT_ERROR)}},
    ),
    "error page": ("vidu-native", {"status": 502, "body": f"<html>{FORGED}</html>"}),
    "no JSON": ("vidu-native", {"status": 200, "body": FORGED}),
    "field names": ("vidu-native", {"status": 200, "body": {FORGED: FORGED}}),
    "reason of a failure": ("vidu-native", {"body": {"status": "failed", "fail_reason": FORGED, "error_code": FORGED}}),
    "answer without a reason": ("vidu-native", {"body": {"status": "failed", FORGED: [FORGED], "trace_id": FORGED}}),
    "reason of a failure, JSON in a text": (
        "vidu-native",
        {"body": {"data": {"status": "FAILURE", "fail_reason": json.dumps(ENT_ERROR)}}},
    ),
    "failure, ent": ("ent-v2", {"body": {"state": "failed", "err_code": FORGED, "err_msg": FORGED}}),
    "status word": ("vidu-native", {"body": {"status": FORGED, "progress": 5}}),
    "state, ent": ("ent-v2", {"body": {"state": FORGED, "creations": [{"url": FORGED, "id": FORGED}]}}),
    "success without a URL": ("vidu-native", {"body": {"status": "completed", "video_url": FORGED}}),
    "redirect": ("vidu-native", {"status": 302, "headers": {"Location": "http://e/\x9b1m\x85x"}}),
    "content type": ("vidu-native", {"status": 200, "body": "<", "content_type": "text/\x9b1m\x85x"}),
}


@pytest.mark.usefixtures("no_first_wait", "quick_backoff")
@pytest.mark.parametrize("place", PLACES)
def test_no_answer_forges_a_log_line(vidu_sandbox, monkeypatch, capsys, fault_row, place):
    """Whatever the service writes wherever: log lines, errors and the event are single clean lines."""
    dialect, action = PLACES[place]
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", vidu_sandbox.connection_json(dialect, max_retries=0))
    vidu_sandbox.add_generation("7", dialect=dialect)
    vidu_sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": {"status": 200, **action}})
    told: list[str] = []
    for way in (
        lambda: ViduHook().wait("7", timeout=0.3, poll_interval=0.05, max_failures=1),
        lambda: asyncio.run(ViduHook().aget_generation("7")),
    ):
        try:
            generation = way()
        except ViduError as error:
            told += [str(error), error.reason, *map(str, error.details().values())]
        else:
            told += [repr(generation), generation.describe()]
    event = asyncio.run(_event())
    told += [str(value) for value in event.values() if not isinstance(value, dict)]
    told += map(str, (event["error"] or {}).values())
    lines = capsys.readouterr().out.splitlines()  # which also splits where Unicode ends a line
    assert lines or place != "status word"
    assert [line for line in lines if not LOGGED.match(line)] == []
    assert [line for line in [*told, *lines] if not is_one_clean_line(line)] == []
    count = len(vidu_sandbox.requests())
    assert count <= 20
    seen = next(line for line in told if line)
    outcome = SURVIVED if place in ("status word", "state, ent") else CLEAR_ERROR
    fault_row("hostile input", f"forged log line: {place}", side="both", seen=seen, requests=count, outcome=outcome)


async def _event() -> dict[str, Any]:
    trigger = ViduGenerationTrigger(
        generation_id="7", poll_interval=0.05, deadline=time.time() + 0.3, max_failures=1, since=0
    )
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger fired no event")
