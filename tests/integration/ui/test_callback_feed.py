"""Callbacks of orders without a wait, through a real API server: what nudges a trigger, and what does nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from airflow_provider_vidu.tasks.callbacks import nudges
from airflow_provider_vidu.tasks.callbacks.nudges import NUDGE_KEY
from airflow_provider_vidu.tasks.callbacks.tokens import new_address
from tests.callback_requests import body, signed_headers
from tests.integration.ui.conftest import KEY, Pages
from tests.integration.ui.test_callbacks import send
from tests.versions import AIRFLOW

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="Older versions keep no states of tasks and assets."),
]

if AIRFLOW >= (3, 3):
    from airflow_provider_vidu import event_triggers
    from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger
    from tests.integration.ui.assets import add_asset, add_order, forget_assets, nudged_at


@pytest.fixture
def asset(pages: Pages) -> Iterator[int]:
    """Add an asset whose trigger watches the account."""
    forget_assets(pages)
    yield add_asset(pages, ViduGenerationFinishedTrigger(poll_interval=600))
    forget_assets(pages)


def test_it_nudges_once_per_callback_and_writes_nothing_else(pages, asset):
    """A signed callback is answered 200 when the nudge is written; a replayed one writes nothing."""
    order = add_order(pages, base=pages.url)
    headers = signed_headers(KEY, urlsplit(order.address.url).path)
    assert send(order.address, json=body("processing")).status_code == 200
    assert nudged_at(pages, asset) is None
    answer = send(order.address, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    first = nudged_at(pages, asset)
    assert first is not None
    assert send(order.address, headers=headers).status_code == 200
    assert nudged_at(pages, asset) == first
    assert send(order.address).status_code == 200
    assert nudged_at(pages, asset) != first


def test_what_nothing_watches_is_answered_and_writes_nothing(pages):
    """The service need not send again."""
    forget_assets(pages)
    assert send(add_order(pages, base=pages.url).address).status_code == 200


def test_refusals_are_alike_and_nudge_nothing(pages, asset):
    """Whatever is wrong: 404 without a word, after the same time at least."""
    order = add_order(pages, base=pages.url)
    cleared = add_order(pages, base=pages.url)
    cleared.clear()
    waits = add_order(pages, base=pages.url, nudges="", state="running")
    path = urlsplit(order.address.url).path
    refused = {
        "unknown": lambda: send(new_address(pages.url, uuid4())),
        "another secret": lambda: send(new_address(pages.url, order.instance)),
        "another key": lambda: send(order.address, key="sk-other"),
        "no signature": lambda: send(order.address, headers={"X-Nothing": "1"}),
        "an old date": lambda: send(order.address, headers=signed_headers(KEY, path, at=time.time() - 3600)),
        "a GET": lambda: send(order.address, method="GET"),
        "a record that was discarded": lambda: send(cleared.address),
        "a task that will wait": lambda: send(waits.address),
    }
    for what, ask in refused.items():
        began = time.monotonic()
        answer = ask()
        assert (answer.status_code, answer.content) == (404, b""), what
        assert time.monotonic() - began >= 0.15, what
    assert nudged_at(pages, asset) is None
    log = (pages.home / "output.log").read_text(errors="replace")
    assert [line for line in log.splitlines() if order.address.token in line and "http.access" not in line] == []


def test_the_asset_is_gone(pages, asset):
    """Between order and callback the DAG was deleted: 200, and nothing is left to write to."""
    order = add_order(pages, base=pages.url)
    forget_assets(pages)
    assert send(order.address).status_code == 200


class Beside:
    """The asset's state as the trigger gets it: from the API server's database."""

    def __init__(self, pages: Pages, asset: int) -> None:
        self._pages = pages
        self._asset = asset
        self.reads = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return the latest nudge; there is no memory."""
        self.reads += key == NUDGE_KEY
        return await asyncio.to_thread(nudged_at, self._pages, self._asset) if key == NUDGE_KEY else default

    async def aset(self, key: str, value: Any) -> None:
        """Keep nothing."""


async def test_from_the_services_callback_to_the_event(pages, asset, monkeypatch):
    """The service calls the API server, and a trigger with an interval of ten minutes reports the end, once."""
    from airflow_provider_vidu.hooks import ViduHook

    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", pages.url)
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", pages.sandbox.connection_json("ent-v2"))
    monkeypatch.setattr(nudges, "READ_SECONDS", 0.05)
    monkeypatch.setattr(event_triggers, "SETTLE_SECONDS", 0.01)
    store, events = Beside(pages, asset), []
    trigger = ViduGenerationFinishedTrigger(poll_interval=600)
    trigger.asset_state_store = store  # type: ignore[assignment]

    async def watch() -> None:
        async with aclosing(trigger.run()) as fired:
            async for event in fired:
                events.append(event.payload)

    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(60):
            while store.reads < 3:  # noqa: ASYNC110 - the sandbox runs in another thread; a round is over then
                await asyncio.sleep(0.02)
            order = add_order(pages, base=pages.url, generation_id=None)
            fields = {"model": "viduq3-turbo", "prompt": "a boat", "callback_url": order.address.url}
            generation = await asyncio.to_thread(ViduHook().create_generation, **fields)
            while generation.id not in {event["generation_id"] for event in events}:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    mine = [event for event in events if event["generation_id"] == generation.id]
    assert [event["outcome"] for event in mine] == ["succeeded"]
    sent = [record for record in pages.sandbox.callbacks if record.id == generation.id]
    assert [record.status for record in sent if record.word == "success"] == [200]
    assert len(pages.sandbox.requests("query", generation.id)) == 1
