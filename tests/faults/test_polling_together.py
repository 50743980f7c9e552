"""Many waits that share their requests, when the list of tasks is not what the vendor documents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_vidu.polling import state_lists
from fault_table import CLEAR_ERROR, SURVIVED
from tests.faults.listing_world import KEY, Listed, Listing, as_json, comma, fired, until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]

OTHER = {"id": "9990000000000000001", "key_id": "2", "state": "success", "creations": []}
ENOUGH = 12
"""Queries by themselves that show that the waits go on without the list."""


@pytest.fixture
def service(monkeypatch) -> Iterator[Listing]:
    """Run a service with a list, and a connection to it; all waits become due within one window."""
    monkeypatch.setattr(state_lists, "WINDOW_SHARE", 1.0)
    with Listing() as running:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_LISTING", running.connection())
        yield running


async def ended(service: Listing, is_enough: Callable[[], bool], **kwargs: Any) -> list[dict[str, Any]]:
    """Wait for all generations at once; let them end when enough was seen."""
    waits = [asyncio.create_task(fired(name, **kwargs)) for name in service.ids]
    try:
        await until(is_enough)
        assert not any(wait.done() for wait in waits)
        service.finish()
        return list(await asyncio.gather(*waits))
    finally:
        for wait in waits:
            wait.cancel()


def answer(status: int, body: Any, **headers: str) -> Listed:
    """Answer every list like this."""
    return lambda _ids, _entries: (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def slowly(_ids: list[str], entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answer after the client's patience."""
    time.sleep(0.6)
    return entries


@dataclass(frozen=True)
class Fault:
    """What is wrong with the list, and how many requests it gets until single queries go on alone (None: it is used).

    :param says: a part of the only log line about it.
    """

    name: str
    listed: Listed
    lists: int | None = None
    says: str = ""


FAULTS = [
    Fault("ignores the filter", lambda _i, _e: [OTHER] * 3, 3, "ignores the filter"),
    Fault("right entries and foreign ones", lambda _i, e: [*e, OTHER], 3, "ignores the filter"),
    Fault("an entry of another account for one of them", lambda _i, e: [*e[1:], OTHER], 3, "ignores the filter"),
    Fault("ids rounded by JavaScript", lambda _i, e: [{**o, "id": int(float(o["id"]))} for o in e], 3, "at most one"),
    Fault("ids as fractions", lambda _i, e: [{**o, "id": float(o["id"])} for o in e], 3, "at most one"),
    Fault("empty", lambda _i, _e: [], 3, "at most one"),
    Fault("an empty object", answer(200, {}), 3, "at most one"),
    Fault("no list at all", answer(200, {"hello": "world"}), 2, "in a row"),
    Fault("HTML with status 200", answer(200, b"<html>hello</html>", Content_Type="text/html"), 2, "in a row"),
    Fault("cut off", answer(200, b'{"tasks":[{"id":"94'), 2, "in a row"),
    Fault("a list of numbers", answer(200, [1, 2, 3]), 2, "in a row"),
    Fault("503", answer(503, {"code": 503, "message": "busy"}), 2, "in a row"),
    Fault("500 in HTML", answer(500, b"<html>oh</html>", Content_Type="text/html"), 2, "in a row"),
    Fault("429", answer(429, b""), 2, "in a row"),
    Fault("404, no such route", answer(404, {"code": 404, "message": "not found"}), 1, "not available"),
    Fault("405", answer(405, b""), 1, "not available"),
    Fault("400, unknown parameter", answer(400, {"code": 400, "reason": "FieldInvalid"}), 1, "not available"),
    Fault("401 for the list alone", answer(401, {"code": 401, "reason": "Unauthorized"}), 1, "not available"),
    Fault("403 for the list alone", answer(403, {"code": 403, "reason": "Forbidden"}), 1, "not available"),
    Fault("414, URL too long", answer(414, b""), 1, "not available"),
    Fault("silent", slowly, 2, "in a row"),
    Fault("a page of millions of values", answer(200, b"[" + b"0," * 300_000 + b"0]"), 1, "too much"),
    # One: on a busy machine a request may name few ids, and an answer with less than two of them proves nothing.
    Fault("only some of them", lambda i, e: [o for o in e if o["id"] != max(i)] if len(i) > 2 else e),
    Fault("duplicates", lambda _i, e: [*e, *e]),
    Fault("ids as numbers", lambda _i, e: [{**o, "id": int(o["id"])} for o in e]),
    Fault("ids as task_id", lambda _i, e: [{"task_id": o["id"], "state": o["state"]} for o in e]),
    Fault("states of other names", lambda _i, e: [{"id": o["id"], "status": o["state"]} for o in e]),
    Fault("a state that is not known", lambda _i, e: [{**o, "state": "dreaming"} for o in e[:1]] + e[1:]),
    Fault("entries without a state", lambda _i, e: [o if o["id"][-1] > "2" else {"id": o["id"]} for o in e]),
    Fault("entries that are no objects", lambda _i, e: [None, 7, "x", [], *e]),
    Fault(
        "duplicates that disagree",  # if two were requested, one usable entry would be a filter that was ignored
        lambda ids, e: [*e, *({**o, "state": "failed"} for o in e if o["id"][-1] == "1" and len(ids) > 2)],
    ),
    Fault("a failure that the query does not confirm", lambda _i, e: [{**o, "state": "failed"} for o in e[:1]] + e[1:]),
]


# One for each way in which the list is used, rests or is given up; `make faults` runs them all.
ALWAYS = {
    "ignores the filter", "ids as fractions", "empty", "cut off", "429", "404, no such route", "401 for the list alone",
    "silent", "only some of them", "ids as numbers", "duplicates that disagree",
    "a failure that the query does not confirm",
}  # fmt: skip
ROWS = [
    pytest.param(fault, id=fault.name, marks=[] if fault.name in ALWAYS else [pytest.mark.nightly]) for fault in FAULTS
]


@pytest.mark.parametrize("fault", ROWS)
async def test_every_wait_ends_as_it_should(fault, service, monkeypatch, caplog, fault_row):
    """The list is used as far as it is right, given up with one log line where it is not, and no wait suffers."""
    if fault.listed is slowly:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_LISTING", service.connection(timeout=0.1))
    service.listed = fault.listed
    used = fault.lists is None
    events = await ended(service, lambda: len(service.lists) > 5 if used else len(service.queries) >= ENOUGH)
    assert [event["outcome"] for event in events] == ["succeeded"] * len(events)
    assert [event["generation_id"] for event in events] == service.ids
    lines = [record.message for record in caplog.records if "list of tasks" in record.message]
    assert len(lines) == (0 if used or not fault.says else 1), lines
    assert all(fault.says in line and "vidu_listing" in line and KEY not in line for line in lines)
    if not used and fault.says:
        # One more if it was sent before a query has shown that the rest of the service works.
        assert fault.lists <= len(service.lists) <= fault.lists + (fault.says == "in a row")
    fault_row(
        "polling", f"the list of tasks: {fault.name}", side="many waits", outcome=SURVIVED,
        seen=lines[0] if lines else "all waits go on", requests=len(service.lists),
    )  # fmt: skip


@pytest.mark.parametrize("read", [comma, as_json])
async def test_each_form_of_the_filter_is_found(read, service):
    """A service that reads ids between commas, or JSON, gets them so after the first tries."""
    service.read = read
    events = await ended(service, lambda: len(service.lists) > 6)
    assert {event["outcome"] for event in events} == {"succeeded"}
    assert all(set(ids) <= set(service.ids) for ids in service.lists[3:])
    assert len(service.queries) <= 2 * len(service.ids)


async def test_shorter_pages_than_requested_are_learned(service):
    """A service with three entries per page is asked for three, and nothing is taken for missing."""
    service.listed = lambda _, entries: (
        200,
        {},
        {"tasks": entries[:3], "next_page_token": "more" if len(entries) > 3 else ""},
    )
    await ended(service, lambda: len(service.lists) > 12)
    large = [number for number, ids in enumerate(service.lists) if len(ids) > 3]
    assert len(large) <= 4  # each form is tried once, and one answer teaches the length of a page
    assert {name for ids in service.lists[large[-1] :] for name in ids} >= set(service.ids)


async def test_an_outage_is_one_failure_for_each_due_wait(service, caplog, fault_row):
    """While nothing answers, each wait counts its own failures and ends with a clear error when they are used up."""
    waits = [asyncio.create_task(fired(name, max_failures=4)) for name in service.ids]
    await until(lambda: len(service.lists) > 2)
    service.is_down = True
    events = await asyncio.gather(*waits)
    assert {event["error"]["type"] for event in events} <= {"ViduServerError", "ViduUnavailableError", "ViduBusyError"}
    assert all("5 polls in a row failed" in event["error"]["message"] for event in events)
    assert [event["error"]["generation_id"] for event in events] == service.ids
    fault_row(
        "polling", "the list of tasks and the queries fail", side="many waits", outcome=CLEAR_ERROR,
        seen=events[0]["error"]["message"], requests=len(service.lists) + len(service.queries),
    )  # fmt: skip


async def test_a_look_that_fails_never_ends_a_wait_by_itself(service):
    """Before its last tolerated failure, a wait asks by itself."""
    waits = [asyncio.create_task(fired(name, max_failures=0)) for name in service.ids]
    await until(lambda: len(service.queries) >= ENOUGH)
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits)} == {"succeeded"}
    assert service.lists == []  # with no failure tolerated, there is none to lose


async def test_a_list_that_lags_behind_is_found_out(service, monkeypatch, caplog):
    """One generation at a time is queried as well: if these have finished and the list says otherwise, it is wrong."""
    monkeypatch.setattr(state_lists, "AUDIT_SECONDS", 0.0)
    service.listed = lambda ids, entries: [{**entry, "state": "processing", "creations": []} for entry in entries]
    waits = [asyncio.create_task(fired(name)) for name in service.ids]
    await until(lambda: len(service.lists) > 2)
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits)} == {"succeeded"}
    assert [record.message for record in caplog.records if "as unfinished that have finished" in record.message]


async def test_a_throttled_list_stays_away_for_as_long_as_the_server_asks(service, monkeypatch):
    """After a 429 one request follows when Retry-After has passed, however many waits are due."""
    monkeypatch.undo()
    monkeypatch.setattr("airflow_provider_vidu.polling.watch.FIRST_POLL_FLOOR", 0.0)
    monkeypatch.setattr(state_lists, "WINDOW_SHARE", 1.0)
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_LISTING", service.connection())
    waits = [asyncio.create_task(fired(name)) for name in service.ids]
    await until(lambda: len(service.lists) > 2)
    limited: list[float] = []

    def once(_ids: list[str], entries: list[dict[str, Any]]) -> Any:
        limited.append(time.monotonic())
        return (429, {"Retry-After": "1"}, b"") if len(limited) == 1 else entries

    service.listed = once
    await until(lambda: len(limited) > 1 and limited[-1] > limited[0] + 0.9)
    service.finish()
    assert {event["outcome"] for event in await asyncio.gather(*waits)} == {"succeeded"}
    # Requests that were under way when the refusal came may have arrived right after it.
    assert not [at for at in limited if limited[0] + 0.3 < at < limited[0] + 1.0]
