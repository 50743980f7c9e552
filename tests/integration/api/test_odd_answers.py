"""Answers that curl reads are read by both clients in the same way, over real sockets, and a create keeps its id."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_vidu.api.clients.async_client import async_client
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduRateLimitError,
    ViduRequestError,
    ViduResponseError,
    ViduSubmitUnknownError,
    ViduTransportError,
)
from airflow_provider_vidu.hooks import ViduHook
from tests.integration.servers import Request, Server, Wire

pytestmark = pytest.mark.integration

ID = "947000000000000001"
BODY = json.dumps({"task_id": ID, "id": ID, "state": "processing", "status": "processing"}).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

ASKS: dict[str, Callable[[], Any]] = {
    "requests": lambda: ViduHook().get_generation(ID, retries=0),
    "aiohttp": lambda: asyncio.run(ViduHook().aget_generation(ID, retries=0)),
    "create": lambda: ViduHook().create_generation(model="m", prompt="a cat"),
}
ALL = pytest.mark.parametrize("ask", ASKS)


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server, which sends given bytes, and points the default connection at it."""
    running: list[Server] = []

    def serve(raw: bytes, *, hold: bool = False, timeout: float = 5) -> Server:
        def answer(request: Request, wire: Wire) -> None:
            left = int(request.headers.get("content-length", 0)) - len(request.body)
            while left > 0:
                left -= len(wire.sock.recv(left)) or left
            wire.send(raw)
            if hold:
                wire.hold()

        server = Server(answer)
        running.append(server.__enter__())
        extra = {"dialect": "ent-v2", "max_retries": 0, "timeout": timeout}
        fields = {"conn_type": "vidu", "host": server.url(""), "password": "key-of-odd-answers", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
        return server

    yield serve
    for server in running:
        server.__exit__()


HEADS = {
    "identity": OK + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
    "length-twice": OK + LENGTH * 2 + b"\r\n" + BODY,
    "chunked-and-length": OK + CHUNKED + LENGTH + b"\r\n" + CHUNKS,
    "long-line": OK + b"X-A: " + b"a" * 9_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "very-long-line": OK + b"X-A: " + b"a" * 70_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "many-lines": OK + b"X-A: 1\r\n" * 300 + LENGTH + b"\r\n" + BODY,
    "no-colon": OK + b"nonsense\r\n" + LENGTH + b"\r\n" + BODY,
    "odd-names": OK + b"X A(b): 1\r\n\xff: 1\r\n: 1\r\n" + LENGTH + b"\r\n" + BODY,
    "controls": OK + b"X-A: a\0b\x07\rc\r\n" + LENGTH + b"\r\n" + BODY,
    "empty-line-before": b"\r\n" + OK + LENGTH + b"\r\n" + BODY,
    "chunked-twice": OK + CHUNKED * 2 + b"\r\n" + CHUNKS,
    "interim": b"HTTP/1.1 103 Early Hints\r\nno colon\r\n\r\n" * 20 + OK + LENGTH + b"\r\n" + BODY,
}


@pytest.mark.fault(
    "orders",
    "a gateway answers with a head that only curl reads",
    outcome="survived",
    side="sync, async and create",
    seen="the answer is read, and the connection closed where its framing is odd",
)
@pytest.mark.parametrize("kind", HEADS)
@ALL
def test_heads(serve, ask: str, kind: str) -> None:
    """The connection stays open behind the answer: its end is found by its head, without a second request."""
    server = serve(HEADS[kind], hold=True)
    assert ASKS[ask]().id == ID
    assert len(server.requests) == 1


BODIES = {
    "not-in-chunks": OK + CHUNKED + b"\r\n" + BODY,
    "not-in-chunks-packed": OK + CHUNKED + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(BODY),
    "two-lengths": OK + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY,
    "no-length": OK + b"\r\n" + BODY,
    "surplus": OK + LENGTH + b"\r\n" + BODY + b"\n<!-- 12 ms -->",
    "surplus-behind-close": OK + b"Connection: close\r\n" + LENGTH + b"\r\n" + BODY + b"\n<!-- 12 ms -->",
    "surplus-behind-chunks": OK + CHUNKED + b"\r\n" + CHUNKS + b"<!-- 12 ms -->",
    "chunks-without-their-last-line": OK + CHUNKED + b"\r\n" + CHUNKS[:-2],
    "two-members": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(BODY[:20]) + gzip.compress(BODY[20:]),
    "packed-twice": OK + b"Content-Encoding: gzip, gzip\r\n\r\n" + gzip.compress(gzip.compress(BODY)),
    "encoding-in-two-lines": OK + b"Content-Encoding: deflate\r\nContent-Encoding: gzip\r\n\r\n"
    + gzip.compress(zlib.compress(BODY, wbits=-15)),
    "wrong-checksum": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(BODY)[:-8] + b"01234567",
    "half-a-trailer": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(BODY)[:-5],
    "packed-transfer": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(gzip.compress(BODY)), gzip.compress(BODY)),
}  # fmt: skip


@pytest.mark.fault(
    "orders",
    "a body is packed, cut into chunks or measured in another way than its head says",
    outcome="survived",
    side="sync, async and create",
    seen="the answer is read",
)
@pytest.mark.parametrize("kind", BODIES)
@ALL
def test_bodies(serve, ask: str, kind: str) -> None:
    """What the connection's end, or the bytes themselves, make clear is read."""
    serve(BODIES[kind])
    assert ASKS[ask]().id == ID


@pytest.mark.fault(
    "polling",
    "an unasked 101 Switching Protocols",
    outcome="clear error",
    side="sync and async",
    says="answered 101 Switching Protocols",
)
@ALL
def test_switching_protocols(serve, ask: str) -> None:
    """It is not a refusal: a poll is tried again, and of a create nothing is known."""
    serve(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", hold=True)
    kind = ViduSubmitUnknownError if ask == "create" else ViduResponseError
    with pytest.raises(kind, match="answered 101 Switching Protocols") as caught:
        ASKS[ask]()
    assert ask == "create" or caught.value.retryable


@pytest.mark.fault(
    "attacks", "a gateway floods a poll with interim answers", outcome="clear error", says="interim answers (1xx)"
)
@ALL
def test_interim_answers_are_counted(serve, ask: str) -> None:
    """A flood ends after a hundred, and not at the deadline."""
    server = serve(b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000 + HEADS["identity"], hold=True, timeout=30)
    with pytest.raises((ViduTransportError, ViduSubmitUnknownError), match=r"more than 100 interim answers \(1xx\)"):
        ASKS[ask]()
    assert len(server.requests) == 1


@pytest.mark.parametrize("piece", [b"HTTP/1.1 102 Processing\r\n\r\n", OK], ids=["interim", "half a head"])
def test_a_service_that_sends_anything_is_not_silent(monkeypatch, piece: bytes) -> None:
    """Bytes of which nothing is passed on yet restart the timeout, too."""

    def answer(request: Request, wire: Wire) -> None:
        for at in range(0, len(piece), len(piece) // 4 + 1):
            wire.send(piece[at : at + len(piece) // 4 + 1])
            time.sleep(0.6)
        wire.send((b"" if piece is OK else OK) + LENGTH + b"\r\n" + BODY)

    with Server(answer) as server:
        extra = {"dialect": "ent-v2", "max_retries": 0, "timeout": 1}
        fields = {"conn_type": "vidu", "host": server.url(""), "password": "key-of-odd-answers", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
        assert ASKS["aiohttp"]().id == ID


@pytest.mark.parametrize("client", ["requests", "aiohttp"])
def test_surplus_is_never_the_next_answer(serve, client: str) -> None:
    """What a gateway sends behind an answer of odd framing is not taken for the answer to the next poll."""
    forged = OK + LENGTH + b"\r\n" + BODY.replace(b"processing", b"successful")
    server = serve(HEADS["chunked-and-length"] + forged, hold=True)

    async def ask_twice() -> list[Any]:
        async with async_client("vidu_default") as shared:
            return [await shared.get_generation(ID) for _ in range(2)]

    hook = ViduHook()
    found = asyncio.run(ask_twice()) if client == "aiohttp" else [hook.get_generation(ID) for _ in range(2)]
    assert [generation.provider_status for generation in found] == ["processing"] * 2
    assert len(server.requests) == 2


@pytest.mark.parametrize("client", ["requests", "aiohttp"])
def test_a_plain_answer_keeps_its_connection(monkeypatch, client: str) -> None:
    """The reader knows where an answer ends: the next poll goes over the same connection."""
    connections: list[bytes] = []

    def answer(request: Request, wire: Wire) -> None:
        connections.append(request.raw)
        for _ in range(3):
            wire.send(OK + CHUNKED + b"\r\n" + CHUNKS)
            wire.sock.recv(65536)

    with Server(answer) as server:
        fields = {"conn_type": "vidu", "host": server.url(""), "password": "k" * 9, "extra": {"timeout": 5}}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))

        async def ask_thrice() -> None:
            async with async_client("vidu_default") as shared:
                for _ in range(3):
                    assert (await shared.get_generation(ID)).provider_status == "processing"

        hook = ViduHook()
        if client == "aiohttp":
            asyncio.run(ask_thrice())
        else:
            for _ in range(3):
                assert hook.get_generation(ID).provider_status == "processing"
            hook._client.close()
    assert len(connections) == 1


BROKEN = b"Content-Encoding: br\r\nContent-Length: 8\r\n\r\n\x8b\x05\x80binary"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (b"401 No", ViduAuthError),
        (b"429 Later\r\nRetry-After: 7", ViduRateLimitError),
        (b"302 F\r\nLocation: /", ViduResponseError),
    ],
)
@ALL
def test_a_status_counts_without_its_body(serve, ask: str, status: bytes, kind: type) -> None:
    """A refused key is one, and a wait is kept, although the body is in a coding that cannot be read."""
    serve(b"HTTP/1.1 " + status + b"\r\n" + BROKEN)
    with pytest.raises(kind) as caught:
        ASKS[ask]()
    assert caught.value.status_code == int(status[:3])
    assert caught.value.retry_after == (7 if status.startswith(b"429") else None)


@pytest.mark.fault(
    "orders", "the connection breaks behind the head of a refusal", outcome="clear error", side="sync", says="refused"
)
def test_a_refusal_without_its_body(serve) -> None:
    """The head of a 400 has arrived: nothing was created."""
    serve(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\n")
    with pytest.raises(ViduRequestError, match="refused"):
        ASKS["create"]()


@pytest.mark.fault(
    "attacks",
    "a redirect brings a bomb of gzip, or an address that cannot be parsed",
    outcome="clear error",
    side="sync",
    says="The service redirects to",
)
@pytest.mark.parametrize("location", [b"/elsewhere", b"http://["])
def test_the_body_of_a_redirect_is_bounded(serve, location: bytes, monkeypatch) -> None:
    """To find out where a redirect leads, requests would unpack its body, 50 MB of it here."""
    monkeypatch.setattr("requests.Response.content", property(lambda _: pytest.fail("read by requests")))
    head = b"HTTP/1.1 302 Found\r\nContent-Encoding: gzip\r\nLocation: " + location
    serve(head + b"\r\n\r\n" + gzip.compress(bytes(50_000_000)))
    with pytest.raises(ViduResponseError, match="The service redirects to"):
        ASKS["requests"]()
