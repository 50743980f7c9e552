"""Names whose servers are silent delay nothing but their own connections."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_vidu.api.clients.async_client import async_client
from airflow_provider_vidu.exceptions import ViduTransportError
from airflow_provider_vidu.sandbox import Sandbox

pytestmark = pytest.mark.integration

KEY = "sk-names-1"
MANY = 33
"""More names than an event loop has threads for look-ups, on any machine."""


@pytest.fixture
def held(monkeypatch) -> Iterator[threading.Event]:
    """Yield what holds the look-up of each name in the domain ``silent.test``."""
    real, answered = socket.getaddrinfo, threading.Event()

    def looked_up(host, *args, **options):
        if str(host).endswith(".silent.test"):
            answered.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    yield answered
    answered.set()


def connect(monkeypatch, conn_id: str, host: str) -> None:
    """Define a connection."""
    fields = {"conn_type": "vidu", "host": host, "password": KEY, "extra": {"timeout": 15, "max_retries": 0}}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def _on_uvloop(main: Callable) -> None:
    pytest.importorskip("uvloop").run(main())


@pytest.mark.fault(
    "attacks",
    "the name servers of many connections are silent",
    outcome="survived",
    side="async",
    seen="another connection's poll, at once",
)
@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), _on_uvloop], ids=["asyncio", "uvloop"])
def test_silent_names_delay_no_other_look_up(monkeypatch, held, run) -> None:
    """They took all threads that an event loop has for look-ups: four with uvloop, six on two cores."""

    async def poll(conn_id: str) -> None:
        async with async_client(conn_id) as client:
            await client.get_generation(known)

    async def polls() -> None:
        silent = [asyncio.create_task(poll(f"silent_{number}")) for number in range(MANY)]
        await asyncio.sleep(0.5)
        await asyncio.wait_for(poll("answering"), 10)
        assert not any(task.done() for task in silent)
        held.set()
        for outcome in await asyncio.gather(*silent, return_exceptions=True):
            assert isinstance(outcome, ViduTransportError)
            assert "Temporary failure in name resolution" in str(outcome)

    with Sandbox(keys=[KEY]) as service:
        known = service.add_generation("94710000000000001", states=[("success", 0)])
        connect(monkeypatch, "answering", service.url.replace("127.0.0.1", "localhost"))
        for number in range(MANY):
            connect(monkeypatch, f"silent_{number}", f"https://{number}.silent.test")
        run(polls)


async def test_a_look_up_that_is_cancelled_leaves_nothing(monkeypatch, held) -> None:
    """Its thread ends with the look-up, whose result is not used."""
    connect(monkeypatch, "silent", "https://a.silent.test")
    async with async_client("silent") as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get_generation("1"), 0.3)
    held.set()
    for thread in threading.enumerate():
        if thread.name == "vidu-names":
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()


async def test_a_silent_name_has_one_thread(monkeypatch, held) -> None:
    """Clients that come and go, as triggers of one task after the other do, left a thread behind each."""

    async def poll() -> None:
        async with async_client("silent") as client:
            await client.get_generation("1")

    connect(monkeypatch, "silent", "https://b.silent.test")
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(poll(), 0.3)
    names = [thread for thread in threading.enumerate() if thread.name == "vidu-names" and thread.is_alive()]
    assert len(names) == 1
    waiting = [asyncio.create_task(poll()) for _ in range(2)]
    await asyncio.sleep(0.3)
    held.set()
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, ViduTransportError)
        assert "Temporary failure in name resolution" in str(outcome)
