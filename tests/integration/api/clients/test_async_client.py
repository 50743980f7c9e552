"""The async client: one bounded session for all, one look-up of the connection, gone with the last user."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import trustme

from airflow_provider_vidu.api.clients import async_client as module
from airflow_provider_vidu.api.clients.async_client import async_client
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConfigError,
    ViduConnectionNotFoundError,
    ViduTransportError,
)
from airflow_provider_vidu.sandbox import Sandbox
from processes import wait_for
from tests.integration.conftest import KEY

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
    """After the last user has left, everything is closed, and the next one opens a new session."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    async with async_client("vidu_default") as first:
        await first.get_generation("g")
        assert open_sockets(sandbox) == 1
    await asyncio.sleep(0.05)
    assert open_sockets(sandbox) == 0
    async with async_client("vidu_default") as second:
        assert second is not first


async def test_a_cancelled_user_leaves_the_others_alone(connect, sandbox):
    """Cancelling one wait in the middle of a request does not disturb the rest."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    sandbox.add_fault({"match": {"kind": "query"}, "times": 1, "action": {"delay": 5}})
    async with async_client("vidu_default") as client:
        hanging = asyncio.create_task(client.get_generation("g"))
        assert await asyncio.to_thread(wait_for, lambda: bool(sandbox.requests("query")), 30)
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


@pytest.fixture
def age(monkeypatch) -> float:
    """Let the connection be looked up again after a fifth of a second instead of five minutes."""
    monkeypatch.setattr(module, "CONFIG_AGE_SECONDS", 0.2)
    return 0.2


@contextmanager
def fed(pipe: Path, text: bytes) -> Iterator[None]:
    """Give the text to everything that opens a named pipe meanwhile.

    Not to the first reader alone: what was written has changed the pipe's time, so a look-up that a busy machine makes
    later reads it once more, and would wait for ever.
    """
    ended = threading.Event()

    def feed() -> None:
        while not ended.wait(0.01):
            with suppress(OSError):  # nothing reads
                end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                try:
                    os.write(end, text)
                finally:
                    os.close(end)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)


async def test_a_new_bundle_is_read_while_others_poll(connect, sandbox, age, tmp_path):
    """When verify is changed, polls go on while the new bundle is still being read, however slowly."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    slow, authority = tmp_path / "slow.pem", trustme.CA()
    os.mkfifo(slow)
    async with async_client("vidu_default") as client:
        await client.get_generation("g")
        connect(verify=str(slow))
        await asyncio.sleep(age)
        polls = [asyncio.create_task(client.get_generation("g"))]
        await asyncio.sleep(0.05)
        polls += [asyncio.create_task(client.get_generation("g")) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert not polls[0].done(), "the bundle cannot have been read yet"
        with fed(slow, authority.cert_pem.bytes()):
            results = await asyncio.gather(*polls, return_exceptions=True)
            assert [getattr(result, "id", result) for result in results] == ["g"] * 21
            assert (await client.config()).verify == str(slow)


@pytest.mark.parametrize("slip", [{"verify": "missing.pem"}, {"timeout": "abc"}, {"dialect": "ent-v3"}])
async def test_a_slip_of_the_pen_ends_no_wait(connect, sandbox, age, caplog, slip):
    """While a connection that was edited cannot be used, polls go on with the known one; the log names the field."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    async with async_client("vidu_default") as client:
        known = await client.config()
        connect(**slip)
        for _ in range(2):
            await asyncio.sleep(age)
            results = await asyncio.gather(*(client.get_generation("g") for _ in range(10)))
            assert {result.id for result in results} == {"g"}
        told = [record.getMessage() for record in caplog.records if "Keeping the known" in record.getMessage()]
        assert 2 <= len(told) < 20, "a line for each look-up, not for each poll"
        assert all("vidu_default" in line and next(iter(slip.values())) in line for line in told)
        connect(timeout=7)
        await asyncio.sleep(age)
        assert known.timeout != 7
        assert (await client.config()).timeout == 7


async def test_a_slip_and_a_refused_key(connect, sandbox, age):
    """The known connection is kept as long as the service takes it, and no longer."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    async with async_client("vidu_default") as client:
        await client.get_generation("g")
        sandbox.rotate_keys(["sk-rotated"])
        connect(timeout="abc")
        with pytest.raises(ViduAuthError):
            await client.get_generation("g")


async def test_a_connection_that_cannot_be_used_is_told_to_all(connect, sandbox, tmp_path):
    """Where no connection is known yet, every poll names what is wrong with it; once it is right, they go on."""
    connect(verify=str(tmp_path / "missing.pem"))
    sandbox.add_generation("g", states=[["processing", 0]])
    async with async_client("vidu_default") as client:
        for _ in range(2):
            results = await asyncio.gather(*(client.get_generation("g") for _ in range(10)), return_exceptions=True)
            assert {type(result) for result in results} == {ViduConfigError}
            assert all("missing.pem" in str(result) for result in results)
        connect()
        assert (await client.get_generation("g")).id == "g"


async def test_a_connection_that_is_gone_ends_the_waits(connect, sandbox, age, monkeypatch):
    """A connection was removed on purpose: what it was for must not go on."""
    connect()
    sandbox.add_generation("g", states=[["processing", 0]])
    async with async_client("vidu_default") as client:
        await client.get_generation("g")
        monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT")
        await asyncio.sleep(age)
        with pytest.raises(ViduConnectionNotFoundError):
            await client.get_generation("g")


async def test_a_bundle_that_was_replaced_is_read(monkeypatch, age, tmp_path):
    """A new CA under the old path is noticed with the connection's next look-up, as the sync client does."""
    authority, bundle, pem = trustme.CA(), tmp_path / "ca.pem", tmp_path / "server.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with Sandbox(keys=[KEY], speed=0, tls=(pem, pem)) as service:
        service.add_generation("g", states=[["processing", 0]])
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", service.connection_json(verify=str(bundle)))
        async with async_client("vidu_default") as client:
            with pytest.raises(ViduTransportError, match="certificate"):
                await client.get_generation("g")
            authority.cert_pem.write_to_path(str(bundle))
            await asyncio.sleep(age)
            assert (await client.get_generation("g")).id == "g"


async def test_a_request_keeps_the_trust_it_was_made_with(connect, monkeypatch, age, tmp_path):
    """When the service moves behind another CA, polls under way or in the queue still reach the old place."""
    places = []
    for name in ("old", "new"):
        authority, ca, pem = trustme.CA(), tmp_path / f"{name}-ca.pem", tmp_path / f"{name}.pem"
        authority.cert_pem.write_to_path(str(ca))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        places.append((Sandbox(keys=[KEY], speed=0, tls=(pem, pem)), str(ca)))
    (old, old_ca), (new, new_ca) = places
    with old, new:
        for place in (old, new):
            place.add_generation("g", states=[["processing", 0]])
        old.add_fault({"match": {"kind": "query"}, "times": 1, "action": {"delay": 2 * age}})
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", old.connection_json(verify=old_ca))
        async with async_client("vidu_default", max_connections=1) as client:
            polls = [asyncio.create_task(client.get_generation("g")) for _ in range(3)]
            # All three have looked the connection up together.
            assert await asyncio.to_thread(wait_for, lambda: bool(old.requests("query")), 30)
            await asyncio.sleep(age * 1.2)
            monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", new.connection_json(verify=new_ca))
            polls.append(asyncio.create_task(client.get_generation("g")))
            assert [found.id for found in await asyncio.gather(*polls)] == ["g"] * 4
        assert [len(place.requests("query")) for place in (old, new)] == [3, 1]
