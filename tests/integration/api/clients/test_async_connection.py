"""What an asynchronous exchange does to its connection: whether it is kept, whether it is sent again, when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import ssl
import threading
import time
from asyncio.sslproto import SSLProtocolState
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import trustme

from airflow_provider_vidu.api.clients import async_client as async_client_module
from airflow_provider_vidu.api.clients import async_connection, async_tls
from airflow_provider_vidu.api.clients.async_client import AsyncClient, async_client
from airflow_provider_vidu.api.clients.async_connection import Connector, Exchange
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.exceptions import ViduError, ViduTransportError
from airflow_provider_vidu.network.tls import ssl_context

pytestmark = pytest.mark.integration

TIMEOUT = 0.8
BODY = json.dumps({"id": "g", "status": "processing"}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Peer:
    """A connection as the service sees it: its number, and what to do with the next request."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[str]):
        self.number = number
        self._reader = reader
        self._writer = writer
        self._seen = seen

    async def request(self) -> str:
        """Read a request and return its method."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        self._seen.append(head.decode().partition(" ")[0])
        return self._seen[-1]

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def end(self) -> None:
        """Send nothing more, and read on."""
        self._writer.write_eof()


Handler = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(
    monkeypatch: pytest.MonkeyPatch, handler: Handler, patience: float = TIMEOUT, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[AsyncClient, list[str]]]:
    """Yield a client of a service that treats each connection so, and the methods of the requests that it gets."""
    seen: list[str] = []
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await handler(Peer(count, reader, writer, seen))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    extra = {"dialect": "ent-v2", "timeout": patience, "verify": tls is None}
    host = f"http{'s' * (tls is not None)}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    fields = {"conn_type": "vidu", "host": host, "password": "sk-async-exchange", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
    async with async_client("vidu_default") as client:
        yield client, seen
    server.close()


async def answering(peer: Peer) -> None:
    """Answer all requests of a connection."""
    while True:
        await peer.request()
        peer.send(ANSWER)


def after_connecting(monkeypatch: pytest.MonkeyPatch, act: Callable[[Any], object]) -> None:
    """Let something happen to each new connection before its first request."""
    known: Any = aiohttp.TCPConnector.connect

    async def connect(connector: Connector, *arguments: object) -> object:
        connection = await known(connector, *arguments)
        act(connection)
        await asyncio.sleep(TIMEOUT / 8)
        return connection

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect)


async def test_a_kept_connection_that_was_closed_costs_no_poll(monkeypatch):
    """The request is sent once more, on a new connection."""

    async def handler(peer: Peer) -> None:
        if peer.number > 1:
            await answering(peer)
        await peer.request()
        peer.send(ANSWER)
        await peer.request()  # and close without an answer

    async with serving(monkeypatch, handler) as (client, seen):
        for _ in range(2):
            assert (await client.get_generation("g")).status == "running"
        assert seen == ["GET", "GET", "GET"]


async def test_a_new_connection_that_breaks_is_a_failed_poll(monkeypatch):
    """Only the retry policy repeats it."""

    async def handler(peer: Peer) -> None:
        await peer.request()

    async with serving(monkeypatch, handler) as (client, seen):
        with pytest.raises(ViduTransportError, match="closed it without an answer"):
            await client.get_generation("g")
        assert seen == ["GET"]


async def test_a_connection_that_is_lost_before_its_request(monkeypatch):
    """A balancer without a server behind it accepts and closes at once."""
    after_connecting(monkeypatch, lambda connection: connection.transport.abort())
    async with serving(monkeypatch, answering) as (client, seen):
        with pytest.raises(ViduTransportError, match="closed it without an answer") as lost:
            await client.get_generation("g")
        assert seen == []
        assert lost.value.sent is False


async def test_a_cancel_is_never_sent_twice(monkeypatch):
    """Not even where a kept connection was closed: it may have been carried out."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.send(ANSWER)
        await peer.request()

    async with serving(monkeypatch, handler) as (client, seen):
        await client.get_generation("g")
        with pytest.raises(ViduTransportError):
            await client.cancel_generation("g")
        assert seen == ["GET", "POST"]


async def test_an_answer_before_its_request(monkeypatch):
    """A server that is full answers as soon as it is connected to, and reads nothing."""

    async def handler(peer: Peer) -> None:
        peer.send(ANSWER)
        await peer.request()

    after_connecting(monkeypatch, lambda _: None)
    async with serving(monkeypatch, handler) as (client, _):
        assert (await client.get_generation("g")).status == "running"


@pytest.mark.parametrize(
    "answer",
    [ANSWER + b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"],
    ids=["bytes after the answer", "another protocol"],
)
async def test_a_spoiled_connection_is_not_kept(monkeypatch, answer):
    """What follows on it belongs to no request."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.send(answer if peer.number == 1 else ANSWER)
        await answering(peer)

    async with serving(monkeypatch, handler) as (client, seen):
        with contextlib.suppress(ViduError):
            await client.get_generation("g")
        assert (await client.get_generation("g")).status == "running"
        assert seen == ["GET", "GET"]


async def test_bytes_on_an_idle_connection_close_it(monkeypatch):
    """They are not taken for the answer to the next request."""
    connections = 0

    async def handler(peer: Peer) -> None:
        nonlocal connections
        connections = peer.number
        await peer.request()
        peer.send(ANSWER)
        await asyncio.sleep(TIMEOUT / 4)
        peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await answering(peer)

    async with serving(monkeypatch, handler) as (client, _):
        for _ in range(2):
            assert (await client.get_generation("g")).status == "running"
            await asyncio.sleep(TIMEOUT / 2)
        assert connections == 2


@pytest.mark.parametrize("early", [ANSWER, ANSWER[:20]], ids=["all of it", "its beginning"])
async def test_an_answer_before_its_request_is_the_last(monkeypatch, early):
    """The server may answer the request as well: that answer must not reach the next one."""
    connections = 0

    async def handler(peer: Peer) -> None:
        nonlocal connections
        connections = peer.number
        peer.send(early if peer.number == 1 else b"")
        await peer.request()
        peer.send(ANSWER[len(early) % len(ANSWER) :] if peer.number == 1 else ANSWER)
        await answering(peer)

    after_connecting(monkeypatch, lambda _: None)
    async with serving(monkeypatch, handler) as (client, _):
        for _ in range(3):
            assert (await client.get_generation("g")).status == "running"
        assert connections == 2


async def test_bytes_that_the_loop_has_not_read_yet(monkeypatch):
    """They arrived after the end of an answer, so they belong to no request: least of all to the one that is next."""
    peers: list[Peer] = []

    async def handler(peer: Peer) -> None:
        peers.append(peer)
        await answering(peer)

    async with serving(monkeypatch, handler) as (client, _):
        for _ in range(3):
            assert (await client.get_generation("g")).status == "running"
            peers[-1].send(ANSWER.replace(b"processing", b"failed    "))
        assert len(peers) == 3


async def test_a_cancel_after_an_end_that_the_loop_has_not_read_yet(monkeypatch):
    """It goes out on a new connection: on the old one it would count as sent, and it is never sent twice."""
    peers: list[Peer] = []

    async def handler(peer: Peer) -> None:
        peers.append(peer)
        await answering(peer)

    async with serving(monkeypatch, handler) as (client, seen):
        await client.get_generation("g")
        peers[0].end()
        await client.cancel_generation("g")
        assert seen == ["GET", "POST"]
        assert len(peers) == 2


async def test_each_exchange_has_its_own_time(monkeypatch):
    """The timer is the connection's; a silence counts from the last byte of the exchange that suffers from it."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        for at in range(0, len(ANSWER), 40):  # longer than the timeout, and never silent for as long
            peer.send(ANSWER[at : at + 40])
            await asyncio.sleep(TIMEOUT / 2)
        await answering_once_then_silent(peer)

    async def answering_once_then_silent(peer: Peer) -> None:
        await peer.request()
        peer.send(ANSWER)
        await peer.request()
        await asyncio.sleep(30)

    async with serving(monkeypatch, handler) as (client, seen):
        for _ in range(2):
            assert (await client.get_generation("g")).status == "running"
        await asyncio.sleep(TIMEOUT / 2)
        begun = time.monotonic()
        with pytest.raises(ViduTransportError, match="silent for too long"):
            await client.get_generation("g")
        assert TIMEOUT * 0.9 < time.monotonic() - begun < TIMEOUT * 3
        assert seen == ["GET", "GET", "GET"]


async def test_an_answer_that_trickles_ends(monkeypatch):
    """It is never silent, but all of an exchange takes at most four timeouts, on a kept connection, too."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.send(ANSWER)
        await peer.request()
        while True:
            peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(TIMEOUT / 4)

    async with serving(monkeypatch, handler) as (client, _):
        await client.get_generation("g")
        begun = time.monotonic()
        with pytest.raises(ViduTransportError, match="took too long"):
            await client.get_generation("g")
        assert 3.9 * TIMEOUT < time.monotonic() - begun < 6 * TIMEOUT


@pytest.mark.parametrize("patience", [TIMEOUT, 600])
async def test_an_idle_connection_is_closed_in_time(monkeypatch, patience):
    """Not only when the next exchange looks for one, nor when an exchange would have failed."""
    closed = asyncio.Event()
    monkeypatch.setattr(async_connection, "KEEPALIVE_SECONDS", TIMEOUT)

    async def handler(peer: Peer) -> None:
        try:
            await answering(peer)
        finally:
            closed.set()

    async with serving(monkeypatch, handler, patience) as (client, seen):
        for _ in range(2):
            await client.get_generation("g")
        assert not closed.is_set()
        await asyncio.wait_for(closed.wait(), 10 * TIMEOUT)
        assert (await client.get_generation("g")).status == "running"
        assert seen == ["GET"] * 3


async def test_a_change_of_trust_closes_what_is_idle(monkeypatch):
    """Nothing will use it: kept, it would be a socket beyond ``max_connections``."""
    closed = asyncio.Event()
    monkeypatch.setattr(async_client_module, "CONFIG_AGE_SECONDS", 0)

    async def handler(peer: Peer) -> None:
        try:
            await answering(peer)
        finally:
            closed.set()

    async with serving(monkeypatch, handler) as (client, _):
        await client.get_generation("g")
        fields = json.loads(os.environ["AIRFLOW_CONN_VIDU_DEFAULT"])
        fields["extra"]["verify"] = False
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
        assert not closed.is_set()
        await client.get_generation("g")
        await asyncio.wait_for(closed.wait(), 10 * TIMEOUT)


async def test_a_kept_connection_is_closed_on_the_loop_itself(monkeypatch):
    """The library waits for it in a task. On Python 3.12 and later, waits ended with a bare RuntimeError instead."""
    loops = []
    known: Any = aiohttp.TCPConnector.close

    def close(connector: Connector, **options: Any) -> Any:
        loops.append(connector._loop)
        return known(connector, **options)

    monkeypatch.setattr(aiohttp.TCPConnector, "close", close)
    async with serving(monkeypatch, answering) as (client, _):
        await client.get_generation("g")
    assert loops == [asyncio.get_running_loop()]


async def test_a_cancelled_poll_takes_its_connection_along(monkeypatch):
    """The answer that still comes must not reach the next poll."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await asyncio.sleep(TIMEOUT / 4)
            peer.send(ANSWER.replace(b"processing", b"failed"))
        else:
            peer.send(ANSWER)
        await answering(peer)

    async with serving(monkeypatch, handler) as (client, _):
        poll = asyncio.create_task(client.get_generation("g"))
        await asyncio.sleep(TIMEOUT / 8)
        poll.cancel()
        with pytest.raises(asyncio.CancelledError):
            await poll
        assert (await client.get_generation("g")).status == "running"


async def test_a_connection_that_is_lost_while_its_answer_is_held(monkeypatch):
    """The poll fails: asyncio's TLS has an error of its own for a reader that resumes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    take = Exchange.take

    def take_and_lose(exchange: Any, data: bytes) -> None:
        take(exchange, data)
        for _ in range(2 if exchange._is_held else 0):  # asyncio's TLS forgets itself with the second one
            exchange._transport.close()

    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b" " * 600_000)
        await peer.request()

    monkeypatch.setattr(async_connection, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(Exchange, "take", take_and_lose)
    async with serving(monkeypatch, handler, patience=2, tls=context) as (client, _):
        with pytest.raises(ViduTransportError):
            await client.get_generation("g", retries=0)


class ClosedSocket(asyncio.Transport):
    """The connection beneath TLS once it has been closed: uvloop's raise this error."""

    def is_closing(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> None:
        """Raise uvloop's error."""
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    def close(self) -> None:
        """Do nothing."""

    def _force_close(self, exc: BaseException | None) -> None:
        pass


def tls_of(ready: asyncio.Future[None]) -> Any:
    """Return the TLS of a connection that is about to be made."""
    loop = asyncio.get_running_loop()
    return async_tls._Tls(loop, asyncio.Protocol(), ssl_context(verify=False), ready, False, "127.0.0.1")


async def test_tls_on_a_connection_that_has_been_closed_fails_at_once():
    """A proxy that closed it right after its answer to CONNECT left a traceback in the log, and a wait for nothing."""
    ready = asyncio.get_running_loop().create_future()
    tls_of(ready).connection_made(ClosedSocket())
    with pytest.raises(ConnectionResetError):
        await ready


def test_a_call_that_is_cancelled_while_its_handshake_waits_for_its_turn_on_uvloop(monkeypatch):
    """The connection is closed by uvloop without a word: each was a bare RuntimeError in the log of the API server."""

    async def main() -> None:
        loop, unhandled, turns = asyncio.get_running_loop(), [], iter([False, False, True])
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        monkeypatch.setattr(async_tls._Steps, "take", lambda _, __, step: next(turns) and (step() or True))
        made = async_tls._Tls.connection_made

        def made_and_cancelled(tls: Any, transport: asyncio.BaseTransport) -> None:
            made(tls, transport)
            connecting.cancel()

        monkeypatch.setattr(async_tls._Tls, "connection_made", made_and_cancelled)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = socket.create_connection(listener.getsockname())
            sock.setblocking(False)
            connect = async_tls.LoopWithTls(loop).create_connection(
                asyncio.Protocol, ssl=ssl_context(verify=False), server_hostname="127.0.0.1", sock=sock
            )
            connecting = loop.create_task(connect)
            await asyncio.wait([connecting])
            await asyncio.sleep(0.05)
        assert connecting.cancelled()
        assert not unhandled
        assert sock.fileno() == -1  # uvloop has closed it; up to 0.22, the socket would have done so once more

    pytest.importorskip("uvloop").run(main())


async def test_an_end_whose_last_bytes_close_the_connection():
    """The standard library shut it down once more: each was a bare RuntimeError in the log of the triggerer."""
    tls = tls_of(asyncio.get_running_loop().create_future())
    tls._transport, tls._state, tls._do_read = ClosedSocket(), SSLProtocolState.WRAPPED, tls._abort
    assert not tls.eof_received()


async def test_tls_that_is_closed_twice_can_be_aborted():
    """The standard library's forgets itself then: a poll within a proxy's TLS ended with a bare AttributeError."""
    transport = tls_of(asyncio.get_running_loop().create_future())._get_app_transport()
    transport.close()
    transport.close()
    transport._force_close(None)


async def test_a_peer_that_never_ends_its_tls_holds_no_socket(monkeypatch):
    """Its half of the end does not come: a poll that waited for it would leave a socket for half a minute."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))
    polls = 5
    ended = threading.Semaphore(0)

    def serve(sock: socket.socket) -> None:
        with sock.dup() as raw, context.wrap_socket(sock, server_side=True) as encrypted:
            encrypted.recv(4096)
            encrypted.sendall(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            with contextlib.suppress(ConnectionError):
                while raw.recv(4096):  # until the client has closed its socket, whatever TLS says before
                    pass
            ended.release()

    def accept() -> None:
        for _ in range(polls):
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    fields = {
        "conn_type": "vidu",
        "host": f"https://127.0.0.1:{listener.getsockname()[1]}",
        "password": "sk-async-exchange",
        "extra": {"dialect": "ent-v2", "timeout": 5, "verify": False},
    }
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
    with listener:
        async with async_client("vidu_default") as client:
            for _ in range(polls):
                await client.get_generation("g")
            for _ in range(polls):
                assert await asyncio.to_thread(ended.acquire, timeout=5)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\nzzz\r\n" % (len(BODY), BODY),
        b"HTTP/1.1 200 OK\r\n",
        b"nonsense" * 9,
        ANSWER.replace(b"200", b"503"),
        ANSWER.replace(b'"}', b'" '),
    ],
    ids=["cut", "chunks", "head", "no head", "refusal", "no JSON"],
)
async def test_a_failed_poll_keeps_no_answer(monkeypatch, answer):
    """Errors that held their own frames held the answers in them: in a process of a triggerer's size, for hours."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.send(answer)

    def kept() -> list[object]:
        # Not isinstance(), which lets proxies of other libraries import what is not installed.
        return [item for item in gc.get_objects() if type(item) in (Exchange, ApiAnswer)]

    async with serving(monkeypatch, handler) as (client, _):
        gc.collect()
        before = len(kept())
        gc.disable()
        try:
            with contextlib.suppress(ViduError):
                await client.get_generation("g")
                raise AssertionError
            assert len(kept()) == before
        finally:
            gc.enable()


def test_timers_that_are_due_at_once_on_uvloop():
    """Their handles have no time: a poll on a connection whose alarm was due ended with a bare AttributeError."""

    async def main() -> None:
        loop, client = asyncio.get_running_loop(), AsyncClient("vidu_default", 1)
        connection = async_connection._Protocol(loop=loop)
        for wake_at in (connection.wake_at, client.shared_polls._wake_at):
            for later in (0.0, 5.0, -5.0):
                wake_at(loop.time() + later)
        connection.connection_lost(None)
        await client.close()

    pytest.importorskip("uvloop").run(main())
