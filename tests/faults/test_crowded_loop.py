"""A gateway whose answers, thirty-two at a time, would hold up the event loop of every DAG."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_vidu.api.clients import async_client
from airflow_provider_vidu.api.input_uploads import put
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.network.download_url import DownloadAccess
from airflow_provider_vidu.network.framing import AnswerReader
from fault_table import CLEAR_ERROR, REFUSED, SURVIVED
from tests.integration.servers import Request, Server, Wire

MIB = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PICTURE = b"iVBORw0KGgo+" * (MIB // 4)


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[[bytes], Server]]:
    """Return a function that answers every request with these bytes, from the status line on."""
    running: list[Server] = []

    def serve(data: bytes) -> Server:
        def answer(request: Request, wire: Wire) -> None:
            wire.sock.sendall(data)

        running.append(Server(answer).__enter__())
        extra = {"dialect": "vidu-native", "max_retries": 0, "timeout": 10}
        fields = {"conn_type": "vidu", "host": running[-1].url(""), "password": "sk-crowded-loop", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
        return running[-1]

    yield serve
    for server in running:
        server.__exit__()


def whole(body: bytes, *head: bytes) -> bytes:
    """Return an answer with these further lines in its head."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", *head, b"Content-Length: %d" % len(body), b"Connection: close", b"", body])


@pytest.mark.fault("attacks", "a gateway sends its answer in chunks of one byte", outcome=CLEAR_ERROR, side="async",
                   says="little but their sizes")  # fmt: skip
def test_chunks_of_one_byte(serve):
    """A reader works through 43,000 of them in one read: given up after a few thousand."""
    serve(CHUNKED + b"1\r\n \r\n" * 10_000 + b'11\r\n{"status":"running"}\r\n0\r\n\r\n')
    with pytest.raises(ViduError, match="little but their sizes"):
        asyncio.run(ViduHook().aget_generation("g7", retries=0))


@pytest.mark.parametrize(("size", "count"), [(1, 3000), (8, 100_000)])
def test_small_chunks_of_a_server_that_means_well(size, count):
    """A few thousand bytes may come one by one, and any number in pieces of some bytes."""
    reader = AnswerReader()
    body = reader.feed(CHUNKED + (b"%x\r\n" % size + b"a" * size + b"\r\n") * count + b"0\r\n\r\n")
    assert (len(body), reader.ended) == (size * count, True)


def test_a_connection_is_read_a_little_at_a_time(serve, monkeypatch):
    """What one turn of the loop takes from a socket is worked through in that turn."""
    serve(whole(b'{"status":"processing","note":"' + b"a " * (MIB // 4) + b'"}'))
    known, sizes = AnswerReader.feed, []

    def feed(self: AnswerReader, data: bytes) -> bytes:
        sizes.append(len(data))
        return known(self, data)

    monkeypatch.setattr(AnswerReader, "feed", feed)
    assert asyncio.run(ViduHook().aget_generation("g7", retries=0)).id == "g7"
    assert max(sizes) <= 16 * 1024


@pytest.mark.fault("attacks", "a gateway packs an inline picture of 3 MiB into 4 kB", outcome=SURVIVED, side="async",
                   seen="unpacked piece by piece, others run in between")  # fmt: skip
def test_a_packed_picture_is_unpacked_in_pieces(serve, monkeypatch):
    """Between two pieces the loop turns: other waits are not held up for as long as thirty-two of these take."""
    body = b'{"status":"processing","image":"' + b"A" * (3 * MIB) + b'"}'
    serve(whole(gzip.compress(body), b"Content-Encoding: gzip"))
    turns, seen = 0, set()
    known = async_client.IncomingBody.feed

    def feed(self: Any, data: bytes) -> None:
        seen.add(turns)
        known(self, data)

    monkeypatch.setattr(async_client.IncomingBody, "feed", feed)

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def poll() -> Any:
        counting = asyncio.create_task(count())
        try:
            return await ViduHook().aget_generation("g7", retries=0)
        finally:
            counting.cancel()

    assert asyncio.run(poll()).id == "g7"
    assert len(seen) > len(gzip.compress(body)) // 1000


@pytest.mark.fault("attacks", "thirty-two answers of just under 64 kB at once", outcome=SURVIVED, side="async",
                   seen="read one by one, off the event loop")  # fmt: skip
def test_what_is_large():
    """Thirty-two answers of 60 kB take the loop a quarter of a second to read."""
    assert ApiAnswer(200, {}, b" " * 20_000).is_large
    assert not ApiAnswer(200, {}, b" " * 8000).is_large


def test_a_poll_that_repeats_its_pictures(serve):
    """Pictures do not count, however large: a paid generation is read beside them."""
    serve(whole(b'{"id":"g7","status":"processing","images":["' + PICTURE + b'","' + PICTURE + b'"]}'))
    assert asyncio.run(ViduHook().aget_generation("g7", retries=0)).status == "running"
    assert ViduHook().create_generation(model="viduq2", prompt="p").id == "g7"


@pytest.mark.fault("attacks", "the upload service of an https connection names an http:// address", outcome=REFUSED,
                   says="travel unencrypted")  # fmt: skip
def test_no_picture_travels_in_the_clear():
    """Only a host that the connection lists may be sent a file without encryption."""
    own = ("https", "api.vidu.com", 443)
    etag = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\n\r\n'
    with Server(lambda _, wire: wire.sock.sendall(etag)) as server:
        listed = DownloadAccess(origin=own, allowed_hosts=frozenset({"127.0.0.1"}), timeout=5.0)
        network = DownloadAccess(origin=own, allowed_hosts=frozenset({"127.0.0.0/8"}), timeout=5.0)
        plain = DownloadAccess(origin=("http", "127.0.0.1", server.port), timeout=5.0)
        with pytest.raises(ViduConfigError, match="travel unencrypted"):
            put(server.url("/x"), io.BytesIO(b"x"), 1, "image/png", network)
        assert not server.requests
        for access in (listed, plain):
            assert put(server.url("/x"), io.BytesIO(b"x"), 1, "image/png", access) == '"e"'
