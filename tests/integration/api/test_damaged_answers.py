"""Answers with odd headers, inline pictures, missing ends and bombs, over real sockets: no paid id is lost."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_vidu.api.clients import async_client
from airflow_provider_vidu.api.dialects.raw import MAX_RAW_CHARS
from airflow_provider_vidu.common import parsing
from airflow_provider_vidu.exceptions import (
    ViduRequestError,
    ViduResponseError,
    ViduSubmitUnknownError,
    ViduTransportError,
)
from airflow_provider_vidu.hooks import ViduHook
from tests.integration.servers import Answer, Request, Server, Wire, fixed

pytestmark = pytest.mark.integration

ID = "947000000000000001"
RUNNING = json.dumps({"id": "g", "status": "processing"}).encode()
PICTURE = "data:image/png;base64," + "iVBORw0KGgo+" * 90_000
"""A megabyte."""

CLIENTS: dict[str, Callable[[], Any]] = {
    "requests": lambda: ViduHook().get_generation("g", retries=0),
    "aiohttp": lambda: asyncio.run(ViduHook().aget_generation("g", retries=0)),
}
BOTH = pytest.mark.parametrize("client", CLIENTS)
LISTS: dict[str, Callable[[], Any]] = {
    "requests": lambda: ViduHook().list_generations(),
    "aiohttp": lambda: asyncio.run(_listed()),
}


async def _listed() -> Any:
    async with async_client.async_client("vidu_default") as client:
        return await client.list_generations()


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server and points the default connection at it."""
    running: list[Server] = []

    def serve(*answers: Answer, dialect: str = "ent-v2", timeout: float = 5) -> Server:
        server = Server(*map(patient, answers))
        running.append(server.__enter__())
        extra = {"dialect": dialect, "max_retries": 0, "timeout": timeout}
        fields = {"conn_type": "vidu", "host": server.url(""), "password": "key-of-damaged-answers", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
        return server

    yield serve
    for server in running:
        server.__exit__()


def patient(answer: Answer) -> Answer:
    """Let a server read the whole request before it answers: one that closes before resets the connection."""

    def answer_all(request: Request, wire: Wire) -> None:
        left = int(request.headers.get("content-length", 0)) - len(request.body)
        while left > 0:
            left -= len(wire.sock.recv(left)) or left
        answer(request, wire)

    return answer_all


def create() -> Any:
    """Submit a generation."""
    return ViduHook().create_generation(model="m", prompt="a cat")


def created(**fields: Any) -> bytes:
    """Return a create's answer."""
    return json.dumps({"task_id": ID, "state": "created", "model": "m", "credits": 80, **fields}).encode()


def cut(body: bytes, *, stall: bool = False, **headers: str) -> Answer:
    """Return an answer whose end never comes."""

    def answer(request: Request, wire: Wire) -> None:
        wire.head(200, Content_Type="application/json", Content_Length=len(body) + 5000, **headers)
        wire.send(body)
        if stall:
            wire.hold()

    return answer


WORDS = ("utf-8", "UTF-8", "aws-chunked", "binary", "none", "identity", "x-unheard-of", "utf-8, aws-chunked", "")


@pytest.mark.parametrize("word", [*WORDS, "gzip", "br", "zstd, gzip"])
@BOTH
def test_a_content_encoding_that_means_nothing(serve, client, word):
    """Words that are not codings, and codings that the bytes disprove, change nothing: polls and creates are read."""
    serve(fixed(200, RUNNING, Content_Encoding=word), fixed(200, created(), Content_Encoding=word))
    assert CLIENTS[client]().provider_status == "processing"
    assert create().id == ID


@pytest.mark.parametrize(
    ("word", "pack"),
    [
        ("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("", gzip.compress), ("utf-8", gzip.compress),
        ("deflate", zlib.compress), ("deflate", lambda body: zlib.compress(body, wbits=-15)),
    ],
    ids=range(6),
)  # fmt: skip
@BOTH
def test_the_bytes_prove_the_coding(serve, client, word, pack):
    """What is compressed is unpacked, declared or not."""
    serve(fixed(200, pack(RUNNING), Content_Encoding=word), fixed(200, pack(created()), Content_Encoding=word))
    assert CLIENTS[client]().provider_status == "processing"
    assert create().id == ID


def test_a_coding_that_cannot_be_read_is_named(serve):
    """Nothing is known of the create then, and the error says what to switch off."""
    serve(fixed(200, b"\x8b\x05\x80binary", Content_Encoding="br"))
    with pytest.raises(ViduSubmitUnknownError, match=r"encoded as 'br'.*Turn compression off"):
        create()


@pytest.mark.parametrize("kind", ["text/html; charset=gbk", "text/plain", "application/json; charset=utf-16", "\xff"])
@BOTH
def test_a_wrong_content_type(serve, client, kind):
    """The bytes are JSON in UTF-8, whatever the header says."""
    body = json.dumps({"id": "g", "status": "processing", "prompt": "猫"}, ensure_ascii=False).encode()
    serve(fixed(200, body, Content_Type=kind), fixed(200, created(prompt="猫"), Content_Type=kind))
    assert CLIENTS[client]().prompt == "猫"
    assert create().id == ID


@pytest.mark.parametrize("order", ["before", "behind"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("wrap", [False, True], ids=["object", "JSON in a text"])
def test_a_create_that_repeats_its_pictures(serve, order, pack, wrap):
    """Nine megabytes of pictures cost neither the id nor megabytes in the XCom."""
    echo = {"images": [PICTURE] * 9, "prompt": PICTURE}
    known = {"task_id": ID, "state": "created"}
    answered: dict[str, Any] = {**known, **echo} if order == "before" else {**echo, **known}
    if wrap:
        answered = {"code": "success", "data": json.dumps(answered)}
    serve(fixed(200, pack(json.dumps(answered).encode()), Content_Encoding="gzip" if pack is not bytes else None))
    generation = create()
    assert generation.id == ID
    stored = json.dumps(generation.as_xcom())
    assert len(stored) < 5_000
    assert "iVBORw0KGgo" not in stored
    assert wrap or "characters cut out)" in generation.raw["images"][0]


def test_a_create_that_echoes_a_long_payload(serve):
    """The longest payload that is documented, with every letter escaped, is more than a poll may have."""
    body = created(payload="\u4e2d" * 1_048_576)
    assert len(body) > 6_000_000
    serve(fixed(200, body))
    generation = create()
    assert generation.id == ID
    assert len(json.dumps(generation.raw)) <= MAX_RAW_CHARS


MANY_NAMES = b"".join(b'"%d":1,' % number for number in range(30_000))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut(created(images=[PICTURE])[:200_000]), id="in the pictures"),
        pytest.param(cut(created(images=["x"])[:-1]), id="before the last brace"),
        pytest.param(cut(created(), stall=True), id="whole, but more was announced"),
        pytest.param(cut(gzip.compress(created(prompt="\u4e2d" * 400))[:-30], Content_Encoding="gzip"), id="gzip"),
        pytest.param(fixed(200, created() + b"\n<!-- 12 ms -->"), id="text behind"),
        pytest.param(fixed(200, created() + created()), id="twice"),
        pytest.param(fixed(200, created(message="x").replace(b'"x"', b'"\xb3\xc9"')), id="not UTF-8"),
        pytest.param(fixed(200, created(seed=1).replace(b": 1}", b": " + b"1" * 5000 + b"}")), id="5,000 digits"),
        pytest.param(fixed(200, created(junk=[{}] * 50_000)), id="too many values behind"),
        pytest.param(fixed(200, b'{"junk": [' + b"{}," * 50_000 + b"{}]," + created()[1:]), id="too many before"),
        pytest.param(fixed(200, b"{" + MANY_NAMES + created()[1:]), id="too many names before"),
        pytest.param(fixed(200, b'{"junk": ' + b"[" * 5000 + b"]" * 5000 + b"," + created()[1:]), id="nested before"),
        pytest.param(fixed(200, created(images=["x" * 4_000] * 5_000)), id="20 MB"),
    ],
)  # fmt: skip
def test_an_id_that_has_arrived_counts(serve, damage):
    """Whatever is wrong with the rest of a create's answer, or missing: the id is kept, and nothing is repeated."""
    server = serve(damage, timeout=0.5)
    assert create().id == ID
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut(b'{"state": "created", "task_id": "94700'), "broke|ended"),
        (cut(b'{"id": 7'), "broke|ended"),
        (cut(b'{"id": 7, "state'), "broke|ended"),
        (cut(b""), "broke|ended"),
        (fixed(200, b'<html><script>{"id": "GTM-1"}</script>'), "not JSON"),
        (fixed(200, gzip.compress(b"0" * 70_000_000), Content_Encoding="gzip"), "larger than"),
    ],
    ids=["half an id", "half a number", "a row's number", "no byte", "a page", "a bomb"],
)
def test_what_is_no_id_does_not_count(serve, damage, says):
    """Half an id is none, and so is what a page holds: the outcome is unknown."""
    serve(damage)
    with pytest.raises(ViduSubmitUnknownError, match=says) as caught:
        create()
    assert caught.value.generation_id is None


def test_a_refusal_that_is_cut_off_is_a_refusal(serve):
    """Its status has arrived."""

    def answer(request: Request, wire: Wire) -> None:
        wire.head(400, Content_Length=500)
        wire.send(b'{"code": 400, "reason": "FieldInv')

    serve(answer)
    with pytest.raises(ViduRequestError):
        create()


@BOTH
def test_a_poll_that_is_cut_off_is_a_failed_poll(serve, client):
    """It costs nothing to ask again, so nothing is read out of half an answer."""
    serve(cut(RUNNING))
    with pytest.raises((ViduTransportError, ViduResponseError)):
        CLIENTS[client]()


def test_a_request_of_ones_own_keeps_the_id_in_the_error(serve):
    """An answer without a model is not read in part, but its id is named."""
    serve(cut(created(images=[PICTURE])[:200_000]))
    with pytest.raises(ViduSubmitUnknownError) as caught:
        ViduHook().request("POST", "/ent/v2/new-thing", {"a": 1})
    assert caught.value.generation_id == ID


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x1b[31m", "a\u202eb", "a\x9bb", "x" * 1025, "...", "1" * 2000], ids=range(7)
)
def test_a_hostile_id_is_shown_escaped_and_logged_nowhere(serve, caplog, name):
    """It could forge a log line, so the error is all that shows it: without a line end or a control character."""
    serve(fixed(200, json.dumps({"task_id": name, "state": "created"}).encode()))
    caplog.set_level("DEBUG")
    with pytest.raises(ViduSubmitUnknownError, match="an id that is not used") as caught:
        create()
    assert str(caught.value).isprintable()
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert caught.value.generation_id is None


def test_blanks_around_an_id_are_not_part_of_it(serve):
    """An id that comes with a line end is asked for without it."""
    serve(fixed(200, json.dumps({"task_id": f" {ID}\n", "state": "created"}).encode()))
    assert create().id == ID


def page(count: int, images: list[str]) -> bytes:
    """Return a page of the list."""
    entries = [
        {"id": str(n), "state": "success", "prompt": f"p{n}", "images": images, "created_at": 1_780_000_000 - n}
        for n in range(1, count + 1)
    ]
    return json.dumps({"tasks": entries, "next_page_token": ""}).encode()


@pytest.mark.parametrize("client", LISTS)
def test_a_list_that_repeats_pictures_is_read(serve, client):
    """Forty entries with half a megabyte of pictures each."""
    server = serve(fixed(200, page(40, [PICTURE[: 1 << 19]])))
    found = LISTS[client]()
    assert len(found) == 40
    assert "iVBORw0KGgo" not in json.dumps([generation.raw for generation in found])
    assert all("pagesz=100" in request.target for request in server.requests)


@pytest.mark.parametrize("client", LISTS)
def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(serve, client):
    """Twenty megabytes that are not pictures: the service is asked for ten entries at a time, from the beginning."""
    large, small = fixed(200, page(100, ["no picture, " * 20_000])), fixed(200, page(7, ["x"]))
    server = serve(large, small)
    assert len(LISTS[client]()) == 7
    assert ["pagesz=100" in server.requests[0].target, "pagesz=10&" in server.requests[1].target] == [True, True]


def test_a_lost_create_is_found_behind_a_page_that_is_too_large(serve):
    """The search does not end as unknown for that."""
    entry = {"id": ID, "state": "created", "payload": "airflow:m", "created_at": 1_780_000_000}
    small = json.dumps({"tasks": [entry], "next_page_token": ""}).encode()
    serve(fixed(200, page(100, ["no picture, " * 20_000])), fixed(200, small))
    assert ViduHook().find_generation("airflow:m", created_from=1_779_999_000).generation_id == ID


BOMB = b'{"status":"processing","x":[' + b"{}," * 1_300_000 + b"{}]}"


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["gzip", "plain"])
@BOTH
def test_four_megabytes_of_empty_objects_are_not_parsed(serve, client, pack, monkeypatch):
    """4 kB of gzip, or 4 MB as they are, end a poll with a clear error: they would take gigabytes."""

    def parsed(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(parsing, "_DECODER", parsed)
    monkeypatch.setattr(parsing, "_PLAIN_DECODER", parsed)
    serve(fixed(200, pack(BOMB), Content_Encoding="gzip" if pack is not bytes else None))
    with pytest.raises(ViduResponseError, match=r"larger than (262144|1048576) bytes|more than 20,000 values"):
        CLIENTS[client]()


async def test_large_answers_leave_the_event_loop(serve, monkeypatch):
    """What takes long to parse is parsed in a thread; nearly every answer is not worth one."""
    threads: list[str] = []
    parse = parsing.parse

    def noted(*args: Any) -> Any:
        threads.append(threading.current_thread().name)
        return parse(*args)

    monkeypatch.setattr("airflow_provider_vidu.api.messages.parse", noted)
    large = json.dumps({"status": "processing", "x": ["no picture, "] * 10_000}).encode()
    serve(fixed(200, large), fixed(200, RUNNING))
    await ViduHook().aget_generation("g")
    await ViduHook().aget_generation("g")
    loop = threading.current_thread().name
    assert [thread == loop for thread in threads] == [False, True]


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (303, b"", {"Location": f"/ent/v2/tasks/{ID}/creations"}),
        (201, b"", {"Location": f"/ent/v2/tasks/{ID}/creations"}),
        (200, b'event: created\ndata: {"task_id": "%s"}\n\n' % ID.encode(), {"Content-Type": "text/event-stream"}),
        (200, b'\xef\xbb\xbf\r\n{"task_id": "%s"}' % ID.encode(), {"Content-Type": "text/plain"}),
        (200, b'Notice: x\n{"id": "req-1", "data": {"task_id": "%s"}}' % ID.encode(), {"Content-Type": "text/html"}),
    ],
    ids=["303", "201", "event", "byte order mark", "words"],
)
def test_a_create_that_is_answered_in_another_form(serve, status, body, headers):
    """The client hands over the status, the header and the bytes that name the generation; nothing is sent again."""
    server = serve(fixed(status, body, **headers))
    assert create().id == ID
    assert len(server.requests) == 1
