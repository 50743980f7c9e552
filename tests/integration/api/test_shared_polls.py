"""Waits that share their requests, over sockets: who shares, who asks alone, and that each wait stays its own."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu.api.clients.async_client import async_client
from airflow_provider_vidu.api.shared_polls import SharedPolls
from airflow_provider_vidu.batches.trigger import MOST_JOBS, ViduBatchTrigger
from airflow_provider_vidu.events import read_event
from airflow_provider_vidu.exceptions import ViduGenerationFailedError, ViduServerError, ViduTimeoutError
from airflow_provider_vidu.polling import state_lists
from airflow_provider_vidu.triggers import ViduGenerationTrigger
from tests.faults.listing_world import FIRST_ID, KEY, Listing, fired, until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]


@pytest.fixture
def service(monkeypatch) -> Iterator[Listing]:
    """Run a service with a list, and a connection to it; all waits become due within one window."""
    monkeypatch.setattr(state_lists, "WINDOW_SHARE", 1.0)
    with Listing() as running:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_LISTING", running.connection())
        yield running


def started(service: Listing, conn_id: str = "vidu_listing", **kwargs: Any) -> dict[str, asyncio.Task[dict[str, Any]]]:
    """Start a wait for each generation."""
    return {name: asyncio.create_task(fired(name, conn_id, **kwargs)) for name in service.ids}


def is_shared(service: Listing) -> bool:
    """Whether nearly all polls came in lists; on a busy machine, a wait may be due alone now and then."""
    return 4 * len(service.queries) <= sum(map(len, service.lists))


async def test_many_waits_share_their_requests(service):
    """The states come in lists; each generation is queried once, at its end."""
    waits = started(service, deadline=time.time() + 60)
    await until(lambda: len(service.lists) > 10)
    assert is_shared(service)
    service.finish()
    events = await asyncio.gather(*waits.values())
    assert {event["outcome"] for event in events} == {"succeeded"}
    assert set(service.queries) == set(service.ids)
    assert all(event["deadline"] for event in events)


async def test_a_failure_has_its_reason(service):
    """The list has no reason, so the generation is queried."""
    waits = started(service)
    await until(lambda: len(service.lists) > 2)
    service.finish("failed")
    for name, event in zip(waits, await asyncio.gather(*waits.values()), strict=True):
        with pytest.raises(ViduGenerationFailedError) as caught:
            read_event(event, name)
        assert (caught.value.code, caught.value.generation_id) == ("Broken", name)
    assert set(service.queries) == set(service.ids)


async def test_a_wait_alone_asks_for_its_own(service):
    """A list of one would cost a request more."""
    wait = asyncio.create_task(fired(service.ids[0]))
    await until(lambda: len(service.queries) > 3)
    service.finish()
    assert (await wait)["outcome"] == "succeeded"
    assert service.lists == []


async def test_a_generation_that_the_list_omits_is_asked_for_alone(service):
    """At first beside the list, then without it; "not found" is what the query says."""
    missing = str(FIRST_ID + 1000)
    service.states[missing] = "processing"
    service.listed = lambda _, entries: [entry for entry in entries if entry["id"] != missing]
    waits = started(service)
    await until(lambda: service.queries.count(missing) > 4)
    assert 2 * service.queries.count(missing) > len(service.queries)
    named = sum(missing in ids for ids in service.lists)
    await until(lambda: service.queries.count(missing) > 7)
    assert sum(missing in ids for ids in service.lists) == named <= 4  # three forms of the filter, and once more
    unknown = await fired("9480000000000000000", since=time.time() - 3600)
    assert unknown["error"]["type"] == "ViduNotFoundError"
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits.values())} == {"succeeded"}


async def test_two_waits_for_one_generation(service):
    """They cause no list, and each gets what it waits for."""
    waits = [asyncio.create_task(fired(service.ids[0])) for _ in range(2)]
    await until(lambda: len(service.queries) > 4)
    assert service.lists == []
    third = asyncio.create_task(fired(service.ids[1]))
    await until(lambda: len(service.lists) > 3)
    assert all(sorted(ids) == service.ids[:2] for ids in service.lists)
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits, third)} == {"succeeded"}


async def test_an_audit_leaves_a_wait_with_one_plan(service, monkeypatch):
    """A generation that is queried beside the list is not polled more often afterwards."""
    monkeypatch.setattr(state_lists, "AUDIT_SECONDS", 0.0)
    waits = started(service)
    await until(lambda: len(service.queries) > 8)
    async with async_client("vidu_listing") as client:
        gathering = client.shared_polls._gathering
        assert len(gathering._coming) + len(gathering._due) <= len(service.ids)
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits.values())} == {"succeeded"}


async def test_no_wait_is_forgotten_when_something_breaks(service, monkeypatch, caplog):
    """An error of our own is logged, and the waits ask for themselves."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(SharedPolls, "_show", broken)
    waits = started(service)
    await until(lambda: len(service.queries) > 8)
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits.values())} == {"succeeded"}
    assert "The shared polls of connection vidu_listing broke" in caplog.text


async def test_ids_that_no_list_can_name_are_asked_for_alone(service):
    """A comma in an id would be two ids."""
    odd = ["a,b", "c d", "é1"]
    waits = [asyncio.create_task(fired(name, since=time.time() - 3600)) for name in odd]
    assert {event["error"]["type"] for event in await asyncio.gather(*waits)} == {"ViduNotFoundError"}
    assert service.lists == []


async def test_products_with_a_query_of_their_own_are_asked_for_alone(service):
    """The list does not show them."""
    waits = started(service, endpoint="one-click/mv")
    await until(lambda: len(service.queries) > 6)
    assert service.lists == []
    for wait in waits.values():
        wait.cancel()
    await asyncio.gather(*waits.values(), return_exceptions=True)


async def test_a_gateway_without_a_list_is_asked_for_each(service, monkeypatch):
    """The dialect vidu-native keeps single queries."""
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_LISTING", service.connection(dialect="vidu-native", auth_scheme="Token"))
    service.answer = lambda path, _: (200, {}, {"id": path.rpartition("/")[2], "status": service.states[service.ids[0]],
                                                "video_url": "https://h.invalid/v.mp4"})  # fmt: skip
    waits = started(service)
    await asyncio.sleep(0.5)
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits.values())} == {"succeeded"}
    assert service.lists == []


async def test_each_wait_keeps_its_deadline(service):
    """It is reported by the wait that it belongs to, after one query of its own; the others go on."""
    early, *others = service.ids
    hasty = asyncio.create_task(fired(early, deadline=(end := time.time() + 1.0)))
    waits = [asyncio.create_task(fired(name)) for name in others]
    event = await hasty
    assert end <= time.time() < end + 5
    with pytest.raises(ViduTimeoutError, match="running"):
        read_event(event, early)
    assert 1 <= service.queries.count(early) <= 2
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits)} == {"succeeded"}


async def test_each_wait_keeps_its_interval(service):
    """A slow wait beside quick ones is named rarely."""
    slow, *others = service.ids
    waits = [asyncio.create_task(fired(slow, poll_interval=60.0)), *[asyncio.create_task(fired(n)) for n in others]]
    await until(lambda: len(service.lists) > 8)
    assert not any(slow in ids for ids in service.lists)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def test_the_end_of_one_wait_leaves_the_others(service):
    """A cancelled wait is no longer named; nothing is left on the loop after the last one."""
    waits = started(service)
    await until(lambda: len(service.lists) > 2)
    gone, *_ = waits
    waits.pop(gone).cancel()
    await asyncio.sleep(0.3)
    seen = len(service.lists)
    await until(lambda: len(service.lists) > seen + 3)
    assert not any(gone in ids for ids in service.lists[seen:])
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits.values())} == {"succeeded"}
    await asyncio.sleep(0.3)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_all_waits_end_while_a_request_is_under_way(service):
    """A triggerer that stops waits for nothing."""
    service.listed = lambda _, entries: time.sleep(0.3) or entries
    waits = started(service)
    await until(lambda: bool(service.lists))
    for wait in waits.values():
        wait.cancel()
    await asyncio.gather(*waits.values(), return_exceptions=True)
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_rotated_key_is_picked_up(service, monkeypatch):
    """The list is refused once, the connection is looked up again, and no wait notices."""
    waits = started(service)
    await until(lambda: len(service.lists) > 2)
    service.key = "sk-listing-rotated-1"
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_LISTING", service.connection())
    service.keys = {service.key}
    seen = len(service.lists)
    await until(lambda: len(service.lists) > seen + 2)
    assert is_shared(service)
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits.values())} == {"succeeded"}


async def test_a_revoked_key_pauses_every_wait(service, caplog):
    """A known generation outlives it: when the key is accepted again, the waits go on."""
    waits = started(service)
    await until(lambda: len(service.lists) > 2)
    service.keys = set()
    await asyncio.sleep(0.5)
    assert not any(wait.done() for wait in waits.values())
    service.keys = {KEY}
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits.values())} == {"succeeded"}
    assert KEY not in caplog.text


async def test_two_connections_share_nothing(service, monkeypatch):
    """What one service ignores does not change how another is asked; no id goes to the other service."""
    with Listing(key="sk-listing-other-2") as other:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_OTHER", other.connection())
        other.states = {str(FIRST_ID + 500 + number): "processing" for number in range(6)}
        other.listed = lambda _, entries: [{"id": "1", "state": "success"}]
        waits = {**started(service), **started(other, "vidu_other")}
        await until(lambda: len(service.lists) > 5 and len(other.queries) > 12)
        assert len(other.lists) == 3
        assert is_shared(service)
        assert {name for ids in service.lists for name in ids} == set(service.ids)
        service.finish()
        other.finish()
        assert {event["outcome"] for event in await asyncio.gather(*waits.values())} == {"succeeded"}


async def test_another_service_behind_the_connection_is_tried_anew(service, monkeypatch):
    """A host that ignored the filter says nothing about the next one."""
    with Listing() as before:
        before.listed = lambda _, entries: [{"id": "1", "state": "success"}]
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_LISTING", before.connection())
        waits = started(service)
        await until(lambda: len(before.queries) > 8)
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_LISTING", service.connection())
        async with async_client("vidu_listing") as client:
            client._resolved_at = float("-inf")
        await until(lambda: len(service.lists) > 3)
        service.finish()
        assert {event["outcome"] for event in await asyncio.gather(*waits.values())} == {"succeeded"}


async def test_a_line_is_logged_when_something_changes(service, caplog, capfd):
    """In the context of the wait that it is about, and not for each look."""
    caplog.set_level(logging.INFO)  # up to Airflow 2 the lines go there
    waits = started(service)
    await until(lambda: len(service.lists) > 10)
    printed, kept = (
        [line for line in lines if "running (processing)" in line]
        for lines in (capfd.readouterr().out.splitlines(), caplog.messages)
    )
    assert len(printed or kept) == len(service.ids)
    service.finish()
    await asyncio.gather(*waits.values())


async def test_a_batch_shares_its_requests(service):
    """The trigger of a batch watches many generations: they are looked up together, and queried at the end."""
    trigger = ViduBatchTrigger(
        vidu_conn_id="vidu_listing", jobs=dict.fromkeys(service.ids, time.time()), token="t", wanted=len(service.ids),
        deadline=time.time() + 60, deferred_at=time.time() - 60, poll_interval=0.1,
    )  # fmt: skip
    trigger.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)

    async def first() -> Any:
        return [event.payload async for event in trigger.run()]

    run = asyncio.create_task(first())
    await until(lambda: len(service.lists) > 5)
    alone = len(service.queries)  # before the others were due for the first time
    assert is_shared(service)
    service.finish()
    (payload,) = await run
    assert all(name in json.dumps(payload) for name in service.ids)
    assert set(service.queries[alone:]) == set(service.ids)


async def test_an_event_source_shares_its_requests(service):
    """Named generations are looked up together; each is queried once, when it has finished."""
    pytest.importorskip("airflow.sdk", reason="event-driven scheduling came with Airflow 3.0")
    from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger

    source = ViduGenerationFinishedTrigger(
        vidu_conn_id="vidu_listing", generation_ids=service.ids, poll_interval=0.1
    ).run()
    first = asyncio.create_task(anext(source))
    await until(lambda: len(service.lists) > 3)
    assert is_shared(service)
    service.finish()
    events = [await first] + [await anext(source) for _ in service.ids[1:]]
    assert sorted(event.payload["generation_id"] for event in events) == sorted(service.ids)
    assert set(service.queries) == set(service.ids)
    await source.aclose()


async def test_an_event_source_survives_an_outage_of_the_list(service):
    """One failure per round, then single queries while the list rests."""
    pytest.importorskip("airflow.sdk", reason="event-driven scheduling came with Airflow 3.0")
    from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger

    service.listed = lambda _ids, _entries: (503, {}, {"code": 503, "message": "busy"})
    source = ViduGenerationFinishedTrigger(
        vidu_conn_id="vidu_listing", generation_ids=service.ids, poll_interval=0.1
    ).run()
    first = asyncio.create_task(anext(source))
    await until(lambda: len(service.queries) >= len(service.ids))
    assert len(service.lists) == 2
    service.finish()
    events = [await first] + [await anext(source) for _ in service.ids[1:]]
    assert len({event.payload["generation_id"] for event in events}) == len(service.ids)
    await source.aclose()


def woken(name: str) -> ViduGenerationTrigger:
    """Return the trigger of a task that a callback may resume."""
    return ViduGenerationTrigger(
        generation_id=name, vidu_conn_id="vidu_listing", cancel_on_kill=True, callback="a" * 64, known=True
    )


async def test_waits_that_callbacks_end_at_once_share_their_requests(service):
    """Each trigger that is left behind asks whether there is something to cancel."""
    service.finish()
    await asyncio.gather(*(woken(name).on_kill() for name in service.ids))
    assert [sorted(ids) for ids in service.lists] == [service.ids]
    assert service.queries == []
    await woken(service.ids[0]).on_kill()
    assert (len(service.lists), service.queries) == (1, service.ids[:1])  # a list of one would cost as much


async def test_only_what_goes_on_is_not_over(service):
    """What the list omits is queried; a service that fails leaves it open."""
    *omitted, last = service.ids
    service.states[last] = "success"
    service.listed = lambda _, entries: [entry for entry in entries if entry["id"] not in omitted[:1]]
    async with async_client("vidu_listing") as client:
        over = await asyncio.gather(*map(client.shared_polls.is_over, service.ids))
        assert over == [name == last for name in service.ids]
        assert set(service.queries) == set(omitted[:1])
        service.is_down = True
        failed = await asyncio.gather(*map(client.shared_polls.is_over, service.ids), return_exceptions=True)
    assert {type(error) for error in failed} == {ViduServerError}


async def test_a_batch_trigger_with_too_many_generations_watches_none(service):
    """Ours name at most a thousand. The watches of 100,000 held the loop of all triggers for 39 seconds."""
    trigger = ViduBatchTrigger(
        vidu_conn_id="vidu_listing", jobs={f"g-{number}": 1.0 for number in range(MOST_JOBS + 1)}, token="t", wanted=9,
        deadline=time.time() + 60, deferred_at=time.time() - 60,
    )  # fmt: skip
    ((payload,)) = [event.payload async for event in trigger.run()]
    assert (payload["problem"], payload["ended"], service.lists) == ("ViduConfigError", [], [])
    await trigger.on_kill()


ODD = {"since": [float("nan"), "x"], "deadline": [float("nan")], "max_wait": ["x"], "max_failures": ["x"]}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ODD.items() for value in values], ids=str
)
async def test_a_trigger_that_an_author_made_with_odd_numbers_ends_alone(service, name, value):
    """They stood among the times of all waits of the connection: after one that is NaN, none was polled any more."""
    event = await fired(service.ids[0], **{name: value})
    assert "not an ordinary number" in event["error"]["message"]
    odd = {"deadline": time.time() + 60, "deferred_at": time.time() - 60, "jobs": {service.ids[0]: 1.0}}
    odd |= {"jobs": {service.ids[0]: value}} if name == "since" else {"deadline" if name == "max_wait" else name: value}
    trigger = ViduBatchTrigger(vidu_conn_id="vidu_listing", token="t", wanted=1, **odd)
    assert [event.payload["problem"] async for event in trigger.run()] == ["ViduConfigError"]
