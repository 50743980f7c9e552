"""TLS messages without data hold neither a worker nor an event loop, and many addresses cost no sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from airflow_provider_vidu.api.clients import async_tls
from airflow_provider_vidu.api.clients.async_client import async_client
from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.downloads.transfer import Transfer
from airflow_provider_vidu.exceptions import ViduTransportError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.network.download_url import DownloadAccess
from airflow_provider_vidu.network.tls import ssl_context
from airflow_provider_vidu.sandbox import Sandbox
from tests.integration.servers import Server, tunnel
from tests.integration.tls_flood import FILE, flooding

pytestmark = pytest.mark.integration

FLOOD_SECONDS = 25.0
SOON = 15.0
"""Seconds that no request here comes near, even on a busy machine."""


def connect(monkeypatch, host: str, timeout: float) -> None:
    """Define the connection."""
    fields = {"conn_type": "vidu", "host": host, "password": "sk-tls-flood-1"}
    extra = {"timeout": timeout, "max_retries": 0, "verify": False}
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields | {"extra": extra}))


def open_files() -> int:
    """Return how many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.fault(
    "attacks",
    "a server sends TLS messages without data, during or after the handshake, and never stops",
    outcome="clear error",
    side="sync",
    seen="ViduTransportError soon after the timeout",
)
@pytest.mark.parametrize("kind", ["hello requests", "tickets"])
def test_a_worker_is_not_held(monkeypatch, tmp_path, kind) -> None:
    """OpenSSL returns while such messages arrive for no timeout of the socket, and no signal."""
    with flooding(kind, FLOOD_SECONDS, tmp_path) as host:
        connect(monkeypatch, host, timeout=0.5)
        began = time.monotonic()
        with pytest.raises(ViduTransportError):
            ViduHook().get_generation("g", retries=0)
        assert time.monotonic() - began < SOON


class _Memory:
    """A writer that keeps the file."""

    uri = "memory:///a.mp4"

    def __init__(self) -> None:
        self.content = b""
        self.is_published = False

    def write(self, data: memoryview) -> None:
        self.content += bytes(data)

    def publish(self) -> None:
        self.is_published = True

    def discard(self) -> None:
        """Nothing is left of it."""


@pytest.mark.fault(
    "attacks",
    "a file server sends TLS messages without data behind the whole file, and never stops",
    outcome="survived",
    side="sync",
    seen="the file, after a second",
)
@pytest.mark.parametrize("way", ["direct", "through a proxy with TLS"])
def test_a_worker_is_not_held_behind_the_last_byte(tmp_path, way) -> None:
    """The look for bytes beyond the announced ones waits for nothing, but there is always a message to take."""
    stored, context = _Memory(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Server(tunnel, tls=context) as server, flooding("a file, then tickets", FLOOD_SECONDS, tmp_path) as host:
        access = DownloadAccess(
            timeout=1.0,
            max_retries=0,
            verify=False,
            allowed_hosts=frozenset({"127.0.0.1"}),
            proxy=None if way == "direct" else Secret(server.url("")),
        )
        began = time.monotonic()
        Transfer(f"{host}/a.mp4", lambda *_: stored, access=access).run()
        assert time.monotonic() - began < SOON
    assert stored.is_published
    assert stored.content == FILE


def _on_uvloop(main: Callable) -> None:
    pytest.importorskip("uvloop").run(main())


@pytest.mark.fault(
    "attacks",
    "a server sends TLS messages without data, during or after the handshake, and never stops",
    outcome="clear error",
    side="async",
    seen="ViduTransportError after 128 KiB, or when 16 KiB had to be answered",
)
@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), _on_uvloop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["hello requests", "tickets", "tickets and data", "key updates and data"])
def test_an_event_loop_drops_the_connection(monkeypatch, tmp_path, kind, run) -> None:
    """It would be busy with them until the timeout: on uvloop, for seconds at a time."""

    async def poll() -> None:
        async with async_client("vidu_default") as client:
            with pytest.raises(ViduTransportError) as caught:
                await client.get_generation("g")
            assert "timed out" not in str(caught.value)
            assert "silent" not in str(caught.value)

    with flooding(kind, FLOOD_SECONDS, tmp_path) as host:
        connect(monkeypatch, host, timeout=10.0)
        began = time.monotonic()
        run(poll)
        assert time.monotonic() - began < SOON


class _Below(asyncio.BufferedProtocol):
    """What the TLS of a proxy hands its data to."""

    def __init__(self) -> None:
        self.received = 0
        self.lost = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(8192)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


async def test_a_proxy_that_has_to_be_answered_again_and_again_is_dropped(tmp_path) -> None:
    """Its TLS holds another: the replies that it did not read took 5 MB a second of each connection."""
    with flooding("key updates and data", FLOOD_SECONDS, tmp_path) as host:
        sock = socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2])))
        sock.setblocking(False)
        loop = async_tls.LoopWithTls(asyncio.get_running_loop())
        transport, below = await loop.create_connection(_Below, sock=sock, ssl=ssl_context(False), server_hostname="p")
        transport.write(b"CONNECT")
        await asyncio.wait_for(below.lost, SOON)
        assert 0 < below.received < 64 * 1024


@pytest.mark.fault(
    "attacks",
    "a server sends TLS messages to an event loop faster than it takes them",
    outcome="survived",
    side="async",
    seen="at most 8 KiB of each connection between two turns of the loop",
)
@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), _on_uvloop], ids=["asyncio", "uvloop"])
def test_others_run_between_two_pieces(monkeypatch, tmp_path, run) -> None:
    """A socket is read up to 32 times in a row on uvloop: a dozen connections held it for seconds."""
    pieces = [0]
    taken = async_tls._Tls.buffer_updated

    def counted(self: async_tls._Tls, nbytes: int) -> None:
        pieces[-1] += 1
        taken(self, nbytes)

    async def poll() -> None:
        def turn() -> None:
            pieces.append(0)
            asyncio.get_running_loop().call_soon(turn)

        turn()
        async with async_client("vidu_default") as client:
            with pytest.raises(ViduTransportError):
                await client.get_generation("g")

    monkeypatch.setattr(async_tls._Tls, "buffer_updated", counted)
    with flooding("tickets", FLOOD_SECONDS, tmp_path) as host:
        connect(monkeypatch, host, timeout=10.0)
        run(poll)
    assert sum(pieces) > 10
    assert max(pieces) <= 2


@pytest.mark.fault(
    "attacks",
    "a server makes the handshakes of all connections expensive, and answers all at once",
    outcome="survived",
    side="async",
    seen="one step of a handshake between two turns of the loop",
)
@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), _on_uvloop], ids=["asyncio", "uvloop"])
def test_others_run_between_two_expensive_handshakes(monkeypatch, tmp_path, run) -> None:
    """With ffdhe8192, those of a pool held the loop for four seconds."""
    steps = [0]
    taken = SSLProtocol._do_handshake  # type: ignore[attr-defined]  # not in typeshed

    def expensive(self: SSLProtocol) -> None:
        if isinstance(self, async_tls._Tls):  # not the sandbox's, which has a loop in another thread
            steps[-1] += 1
            time.sleep(0.05)
        taken(self)

    async def polls() -> None:
        def turn() -> None:
            steps.append(0)
            asyncio.get_running_loop().call_soon(turn)

        async with async_client("vidu_default") as client:
            await client.config()
            turn()
            found = await asyncio.gather(*(client.get_generation(one) for one in known))
            assert [one.id for one in found] == known

    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    with Sandbox(keys=["sk-tls-flood-1"], tls=(certificate, key)) as service:
        known = [service.add_generation(f"9471000000000000{n:02}", states=[("success", 0)]) for n in range(16)]
        connect(monkeypatch, service.url, timeout=20.0)
        monkeypatch.setattr(SSLProtocol, "_do_handshake", expensive)
        run(polls)
    assert sum(steps) >= 32
    assert max(steps) <= 3  # of two turns, as the count begins within one; uvloop takes one more from the sockets


async def test_many_addresses_cost_few_sockets(monkeypatch) -> None:
    """Each attempt keeps its socket until the timeout; a DNS answer of 200 addresses opened 1,300."""
    real = socket.getaddrinfo
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("0.0.0.0", 0))  # noqa: S104 - all addresses of loopback
        full.listen(0)
        port = full.getsockname()[1]
        for filler in (first, second):  # further connects get no answer
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))

        def found(host, *args, **options):
            if host != "gateway.test":
                return real(host, *args, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.1.{n}", port)) for n in range(1, 200)]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        connect(monkeypatch, f"http://gateway.test:{port}", timeout=3.0)
        async with async_client("vidu_default") as client:
            await client.config()
            before = open_files()
            poll = asyncio.create_task(client.get_generation("g", retries=0))
            await asyncio.sleep(2.5)
            assert open_files() - before <= 4
            with suppress(ViduTransportError):
                await poll
