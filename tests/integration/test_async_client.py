"""The async client: one bounded session for all, one look-up of the connection, gone with the last user."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import psutil
import pytest

from airflow_provider_vidu import async_client as module
from airflow_provider_vidu.async_client import async_client
from airflow_provider_vidu.exceptions import ViduAuthError
from airflow_provider_vidu.sandbox import Sandbox

pytestmark = pytest.mark.integration


def open_sockets(sandbox: Sandbox) -> int:
    """Count this process's client connections to the sandbox."""
    port = urlsplit(sandbox.url).port
    found = psutil.Process().net_connections("tcp")
    return len([c for c in found if c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED])


async def test_many_users_share_one_client(connect, sandbox, mocker):
    """Two hundred waits use one client, one look-up, and no more sockets than the limit."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    looked_up = mocker.spy(module, "aresolve")

    async def wait() -> int:
        async with async_client("vidu_default", max_connections=4) as client:
            await client.get_generation("g")
            return id(client)

    async with async_client("vidu_default", max_connections=4):
        assert len(set(await asyncio.gather(*(wait() for _ in range(200))))) == 1
        assert 1 <= open_sockets(sandbox) <= 4
    assert looked_up.call_count == 1
    assert len(sandbox.requests("query")) == 200


async def test_the_last_user_closes(connect, sandbox):
    """After the last user has left nothing is open any more, and the next one starts afresh."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    async with async_client("vidu_default") as first:
        await first.get_generation("g")
        session = first._session
    assert session.closed
    async with async_client("vidu_default") as second:
        assert second is not first


async def test_a_cancelled_user_leaves_the_others_alone(connect, sandbox):
    """Cancelling one wait in the middle of a request does not disturb the rest."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    sandbox.add_fault({"match": {"kind": "query"}, "times": 1, "action": {"delay": 5}})
    async with async_client("vidu_default") as client:
        hanging = asyncio.create_task(client.get_generation("g"))
        await asyncio.sleep(0.1)
        hanging.cancel()
        assert (await client.get_generation("g")).id == "g"


async def test_a_rotated_key_costs_one_look_up(connect, sandbox, mocker):
    """When the key is rotated, even right after a look-up, fifty waits notice it through a single new one."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    async with async_client("vidu_default") as client:
        await client.get_generation("g")
        looked_up = mocker.spy(module, "aresolve")
        sandbox.rotate_keys(["sk-rotated-0a4c"])
        connect()
        found = await asyncio.gather(*(client.get_generation("g") for _ in range(50)))
    assert len(found) == 50
    assert looked_up.call_count == 1


async def test_a_revoked_key_is_no_storm(connect, sandbox, mocker):
    """When the key is refused and the connection has no other, each wait fails after one request."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    async with async_client("vidu_default") as client:
        await client.get_generation("g")
        sandbox.rotate_keys(["sk-unknown-to-the-connection"])
        looked_up = mocker.spy(module, "aresolve")
        before = len(sandbox.requests("query"))
        results = await asyncio.gather(*(client.get_generation("g") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, ViduAuthError) for result in results)
    assert len(sandbox.requests("query")) - before == 20
    assert looked_up.call_count == 1


async def test_a_key_rotated_twice_in_a_row(connect, sandbox):
    """A second rotation within seconds of the first is noticed as well: no wait ends because of it."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    async with async_client("vidu_default") as client:
        for key in ("sk-rotated-1", "sk-rotated-2", "sk-rotated-3"):
            sandbox.rotate_keys([key])
            connect()
            found = await asyncio.gather(*(client.get_generation("g") for _ in range(10)))
            assert len(found) == 10
    assert sum(record.status == 401 for record in sandbox.requests("query")) <= 30
