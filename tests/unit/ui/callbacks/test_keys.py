"""The keys that signatures of callbacks are checked with."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

from airflow_provider_vidu.exceptions import ViduConnectionNotFoundError, ViduTransportError
from airflow_provider_vidu.ui.callbacks import keys
from airflow_provider_vidu.ui.callbacks.keys import Keys
from airflow_provider_vidu.ui.threads import BusyError


async def hangs(conn_id):
    """Never answer."""
    await asyncio.sleep(60)


def fails(error):
    """Return a look-up that fails."""

    async def look_up(conn_id):
        raise error

    return look_up


@pytest.mark.parametrize(
    "look_up", [hangs, fails(ViduTransportError("the backend is away", sent=False))], ids=["hangs", "fails"]
)
async def test_an_outage_does_not_replace_a_signature(monkeypatch, look_up):
    """While the connection cannot be looked up, nothing is accepted: the token alone would have decided."""
    monkeypatch.setattr(keys, "LOOK_UP_SECONDS", 0.01)
    monkeypatch.setattr(keys, "connection_type", look_up)
    known = Keys()
    with pytest.raises(BusyError):
        await known.get("vidu")
    monkeypatch.setattr(keys, "FAILURE_SECONDS", 0.0)
    monkeypatch.setattr(keys, "connection_type", fails(ViduConnectionNotFoundError("there is none")))
    assert await known.get("vidu") is None


async def test_the_log_has_no_password_of_an_address(monkeypatch, caplog):
    """The connection is what a stored argument names."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(keys, "connection_type", fails(ViduConnectionNotFoundError("there is none")))
    assert await Keys().get("https://viewer:hunter2pw@gateway.example") is None
    assert "cannot be checked" in caplog.text
    assert "hunter2pw" not in caplog.text


async def test_the_key_of_another_type_is_not_read(monkeypatch):
    """The author of a DAG may name any connection; only one of type vidu is resolved."""

    async def kind(conn_id):
        return "postgres"

    monkeypatch.setattr(keys, "connection_type", kind)
    monkeypatch.setattr(keys, "aresolve", fails(AssertionError("looked up")))
    assert await Keys().get("postgres_default") is None


async def test_an_endless_id_is_not_looked_up(monkeypatch):
    """Nor is it kept, or logged."""
    monkeypatch.setattr(keys, "connection_type", fails(AssertionError("looked up")))
    assert await Keys().get("x" * 60_000) is None


async def test_connections_without_a_known_key_take_turns(monkeypatch):
    """A DAG may name thousands: two are looked up at once, and a connection whose key is known waits for none."""
    running, most, began, released = 0, 0, asyncio.Event(), asyncio.Event()

    async def kind(conn_id):
        nonlocal running, most
        if conn_id == "vidu":
            return "vidu"
        running += 1
        most = max(most, running)
        began.set()
        await released.wait()
        running -= 1
        return "postgres"

    async def resolved(conn_id):
        return SimpleNamespace(api_key=SimpleNamespace(reveal=lambda: "k"))

    monkeypatch.setattr(keys, "connection_type", kind)
    monkeypatch.setattr(keys, "aresolve", resolved)
    monkeypatch.setattr(keys, "KEPT_SECONDS", 0.0)
    known = Keys()
    assert await known.get("vidu") == "k"
    strangers = [asyncio.create_task(known.get(f"stranger_{number}")) for number in range(50)]
    await began.wait()
    assert await known.get("vidu") == "k"
    released.set()
    assert await asyncio.gather(*strangers) == [None] * 50
    assert most == keys.MAX_STRANGERS
