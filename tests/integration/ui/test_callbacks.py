"""The callback route of a real API server: what resumes a task in the database, and what changes nothing."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiohttp
import pytest
import requests

from airflow_provider_vidu.tasks.callbacks.tokens import CallbackAddress, new_address, read_token
from tests.callback_requests import body, signed_headers
from tests.integration.ui.conftest import KEY, Pages
from tests.versions import AIRFLOW

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(AIRFLOW < (3, 1, 1), reason="The API server of older versions has no route of plugins."),
]
CLASS = "airflow_provider_vidu.triggers.ViduGenerationTrigger"


@dataclass(frozen=True)
class Wait:
    """A deferred task in the database, and the address of its callback."""

    instance: UUID
    address: CallbackAddress


@pytest.fixture
def deferred(pages, request):
    """Return a function that adds a deferred task to the database."""

    def add(*, age: float = 60, cls: str = CLASS, state: str = "deferred", **arguments: Any) -> Wait:
        address = new_address(pages.url, uuid4())
        since = time.time() - age
        stored = {"generation_id": "911", "vidu_conn_id": "vidu_default", "callback": address.digest, "since": since}
        stored |= {"deadline": since + 500, **arguments}
        at = datetime.now(UTC) - timedelta(seconds=age)
        task = f"t{secrets.token_hex(6)}"
        instance = pages.add(
            task, "911", dag="called", state=state, deferred=at, trigger=(cls, json.dumps(stored, default=str))
        )
        # The token names the task instance, whose id is known only now.
        token = _with_instance(address, instance)
        _rewrite(pages, instance, {**stored, "callback": token.digest})
        return Wait(instance, token)

    return add


def _stored(arguments: dict[str, Any]) -> str:
    """Return the arguments of a trigger as this Airflow writes them, before it encrypts them."""
    from airflow.models.crypto import get_fernet
    from airflow.models.trigger import Trigger

    written: str = get_fernet().decrypt(Trigger.encrypt_kwargs(arguments).encode()).decode()
    return written


def _with_instance(address: CallbackAddress, instance: UUID) -> CallbackAddress:
    return new_address(address.url.partition("/vidu/callbacks/")[0], instance)


def _rewrite(pages: Pages, instance: UUID, arguments: dict[str, Any], *, age: float | None = None) -> None:
    """Store other arguments of a task's trigger."""
    from airflow.models.trigger import Trigger

    table = Trigger.__table__
    values: dict[str, Any] = {"kwargs": _stored(arguments)}
    if age is not None:
        values["created_date"] = datetime.now(UTC) - timedelta(seconds=age)
    with pages.engine.begin() as database:
        database.execute(table.update().where(table.c.id == row(pages, instance).trigger_id).values(values))


def row(pages: Pages, instance: UUID) -> Any:
    """Return state, trigger and event of a task instance."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    from airflow_provider_vidu.ui.callbacks.airflow_tasks import _spelt

    with pages.engine.begin() as database:
        columns = (TaskInstance.state, TaskInstance.trigger_id, TaskInstance.next_kwargs)
        return database.execute(select(*columns).where(TaskInstance.id == _spelt(instance))).one()


def event_of(pages: Pages, instance: UUID) -> Any:
    """Return the event that a task instance is resumed with, as the worker gets it."""
    from airflow.serialization.serialized_objects import BaseSerialization

    stored = row(pages, instance).next_kwargs
    if "__type" in stored:
        stored = BaseSerialization.deserialize(stored)
    elif AIRFLOW >= (3, 2):  # before, the column decodes it
        from airflow.sdk.serde import deserialize

        stored = deserialize(stored)
    return stored["event"]


def send(address: CallbackAddress, *, method: str = "POST", **changes: Any) -> requests.Response:
    """Send a callback."""
    path = urlsplit(address.url).path
    headers = changes.pop("headers", None) or signed_headers(changes.pop("key", KEY), path)
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, address.url, headers=headers, timeout=30, **{"json": body(), **changes})


def test_it_resumes_the_task_with_an_event_that_says_nothing(pages, deferred):
    """A signed callback schedules the task; the event holds the generation, the wait's times and no claim."""
    wait = deferred()
    answer = send(wait.address)
    assert (answer.status_code, answer.content) == (200, b"")
    found = row(pages, wait.instance)
    assert (found.state, found.trigger_id) == ("scheduled", None)
    event = event_of(pages, wait.instance)
    assert {event["kind"], event["generation_id"]} == {"callback", "911"}
    assert event["deadline"] == pytest.approx(event["since"] + 500)
    assert "success" not in json.dumps(event)
    assert wait.address.token not in json.dumps(event)


def test_an_early_callback_is_held(pages, deferred):
    """Within ten seconds of the deferral it is answered at once and resumes the task later."""
    wait = deferred(age=9)
    assert send(wait.address).status_code == 200
    assert row(pages, wait.instance).state == "deferred"
    end = time.monotonic() + 20
    while row(pages, wait.instance).state == "deferred" and time.monotonic() < end:
        time.sleep(0.2)
    assert row(pages, wait.instance).state == "scheduled"


def test_a_task_that_was_just_woken_is_left_alone_for_a_while(pages, deferred):
    """Half a minute lies between two callbacks that resume the same task."""
    wait = deferred(woken_at=time.time() - 5)
    assert send(wait.address).status_code == 200
    assert row(pages, wait.instance).state == "deferred"


REFUSALS = {
    "an unknown token": lambda wait, url: send(new_address(url, uuid4())),
    "another secret": lambda wait, url: send(new_address(url, wait.instance)),
    "garbage": lambda wait, url: send(CallbackAddress(f"{url}/vidu/callbacks/..%2f..", "")),
    "an empty token": lambda wait, url: send(CallbackAddress(f"{url}/vidu/callbacks/", "")),
    "a GET": lambda wait, url: send(wait.address, method="GET"),
    "another key": lambda wait, url: send(wait.address, key="sk-other"),
    "no signature": lambda wait, url: send(wait.address, headers={"X-Nothing": "1"}),
    "an old date": lambda wait, url: send(
        wait.address, headers=signed_headers(KEY, urlsplit(wait.address.url).path, at=time.time() - 3600)
    ),
    "another path": lambda wait, url: send(wait.address, headers=signed_headers(KEY, "/vidu/callbacks/x")),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_refusals_are_alike_and_change_nothing(pages, deferred, what):
    """Whatever is wrong: 404 without a word, after the same time, and the task sleeps on."""
    wait = deferred()
    began = time.monotonic()
    answer = REFUSALS[what](wait, pages.url)
    assert (answer.status_code, answer.content if what != "garbage" else b"") == (404, b"")
    assert time.monotonic() - began >= (0.15 if what != "garbage" else 0)
    assert row(pages, wait.instance).state == "deferred"


@pytest.mark.parametrize("state", ["running", "scheduled", "success", "failed"])
def test_only_a_deferred_task_is_resumed(pages, deferred, state):
    """A callback for a task that runs, or has ended, is refused like an unknown one."""
    wait = deferred(state=state)
    assert send(wait.address).status_code == 404
    assert row(pages, wait.instance).state == state


@pytest.mark.parametrize(
    "cls", ["airflow_provider_vidu.triggers.ViduSlotTrigger", "other.triggers.ViduGenerationTrigger"]
)
def test_tasks_of_other_triggers_are_left_alone(pages, deferred, cls):
    """A trigger of another class is never resumed, whatever its arguments are."""
    wait = deferred(cls=cls)
    assert send(wait.address).status_code == 404
    assert row(pages, wait.instance).state == "deferred"


@pytest.mark.parametrize("at", ["arguments", "resumes with"])
def test_no_class_that_a_wait_names_is_made(pages, deferred, monkeypatch, at):
    """The author of a DAG may store any; Airflow would import it, and make an object of it in the API server."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from sqlalchemy.orm import sessionmaker

    from airflow_provider_vidu.ui.callbacks import airflow_tasks

    monkeypatch.setattr(airflow_tasks, "create_session", lambda: sessionmaker(pages.engine).begin())
    wait = deferred()
    named = {"more": {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1]}}
    with pages.engine.begin() as database:
        (task,) = airflow_tasks.find_waiting([wait.instance])[wait.instance]
        own = {**task.arguments, **named}
        if at == "arguments":
            table = Trigger.__table__
            database.execute(table.update().where(table.c.id == task.trigger_id).values(kwargs=json.dumps(own)))
        else:
            table = TaskInstance.__table__
            change = table.update().where(table.c.id == airflow_tasks._spelt(wait.instance))
            database.execute(change.values(next_kwargs=named))
    found = airflow_tasks.find_waiting([wait.instance])
    if at == "arguments":
        assert found[wait.instance][0].arguments == own
    else:
        assert found == {}
        assert send(wait.address).status_code == 404
        assert row(pages, wait.instance).state == "deferred"


def test_a_state_that_is_not_an_end_wakes_nobody(pages, deferred):
    """``processing`` is answered, and costs no poll."""
    wait = deferred()
    assert send(wait.address, json=body("processing")).status_code == 200
    assert send(wait.address, json={"status": "processing"}).status_code == 200
    assert row(pages, wait.instance).state == "deferred"


def test_a_body_that_is_not_json_still_wakes(pages, deferred):
    """What cannot be read may be an end: the task checks."""
    wait = deferred()
    assert send(wait.address, json=None, data=b"\xff{" * 100).status_code == 200
    assert row(pages, wait.instance).state == "scheduled"


def test_a_replayed_callback_has_no_effect(pages, deferred):
    """A callback that was accepted is answered again, and does not resume the task a second time."""
    wait = deferred()
    headers = signed_headers(KEY, urlsplit(wait.address.url).path)
    assert send(wait.address, headers=headers, json=body("processing")).status_code == 200
    assert send(wait.address, headers=headers).status_code == 200
    assert row(pages, wait.instance).state == "deferred"
    assert send(wait.address).status_code == 200
    assert row(pages, wait.instance).state == "scheduled"


def test_simultaneous_callbacks_resume_the_task_once(pages, deferred):
    """Of twelve callbacks at once, all are answered, and one schedules the task."""
    wait = deferred()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: send(wait.address).status_code, range(12)))
    assert set(answers) <= {200, 404}
    assert 200 in answers
    assert row(pages, wait.instance).state == "scheduled"


def test_one_statement_decides(pages, deferred, monkeypatch):
    """Of the same wait, resumed twice from what was read before, the second changes nothing."""
    from sqlalchemy.orm import sessionmaker

    from airflow_provider_vidu.ui.callbacks import airflow_tasks

    monkeypatch.setattr(airflow_tasks, "create_session", lambda: sessionmaker(pages.engine).begin())
    wait = deferred()
    assert airflow_tasks.missing() is None
    (task,) = airflow_tasks.find_waiting([wait.instance, uuid4()])[wait.instance]
    assert task.arguments["callback"] == wait.address.digest
    assert airflow_tasks.resume(task, {"kind": "callback", "n": 1})
    assert not airflow_tasks.resume(task, {"kind": "callback", "n": 2})
    assert event_of(pages, wait.instance) == {"kind": "callback", "n": 1}


def test_the_token_of_an_earlier_try_finds_the_retry(pages, deferred):
    """A retry that waits for the generation of an earlier try is resumed by that try's callback."""
    wait = deferred()
    earlier = uuid4()
    address = new_address(pages.url, earlier)
    _archive(pages, wait.instance, earlier)
    digest = read_token(address.token)[1]
    since = time.time() - 60
    _rewrite(
        pages,
        wait.instance,
        {"generation_id": "911", "vidu_conn_id": "vidu_default", "callback": digest, "since": since, "deadline": None},
    )
    assert send(address).status_code == 200
    assert row(pages, wait.instance).state == "scheduled"


def _archive(pages: Pages, instance: UUID, earlier: UUID) -> None:
    """Add an earlier try of a task instance, as this Airflow keeps it."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    from airflow_provider_vidu.ui.callbacks.airflow_tasks import _spelt

    table = TaskInstance.__table__
    with pages.engine.begin() as database:
        own = database.execute(select(table).where(table.c.id == _spelt(instance))).one()._mapping
        if AIRFLOW >= (3, 4):
            values = {**own, "id": earlier, "working_set": None, "state": "failed", "trigger_id": None, "try_number": 0}
            database.execute(table.insert().values(**values))
        else:
            from airflow.models.taskinstancehistory import TaskInstanceHistory

            names = {name: own[name] for name in ("dag_id", "run_id", "task_id", "map_index", "pool")}
            values = {**names, "task_instance_id": _spelt(earlier), "try_number": 0, "pool_slots": 1}
            history = TaskInstanceHistory.__table__
            if "span_status" in history.c:
                values["span_status"] = "not_started"
            database.execute(history.insert().values(**values))


def test_a_connection_that_this_server_lacks_leaves_the_token_to_decide(pages, deferred):
    """A signature that cannot be checked is not an obstacle: the token is unguessable."""
    wait = deferred(vidu_conn_id="only_workers_have_it")
    assert send(wait.address, key="whatever").status_code == 200
    assert row(pages, wait.instance).state == "scheduled"


def test_a_flood_leaves_the_server_usable(pages, deferred):
    """Of a thousand made-up tokens at once, each gets its refusal, and pages and true callbacks get their answers."""
    wait = deferred()

    async def flood() -> tuple[list[int], float]:
        connector = aiohttp.TCPConnector(limit=100)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one() -> int:
                async with session.post(new_address(pages.url, uuid4()).url, json=body()) as answer:
                    return answer.status

            began = time.monotonic()
            many = asyncio.gather(*(one() for _ in range(1000)))
            await asyncio.sleep(0.1)
            answer = await asyncio.to_thread(send, wait.address)
            assert answer.status_code == 200
            return await many, time.monotonic() - began

    statuses, seconds = asyncio.run(flood())
    assert set(statuses) <= {404, 503}
    assert statuses.count(404) > 900
    assert seconds < 60
    assert row(pages, wait.instance).state == "scheduled"


def test_a_slow_body_for_an_unknown_token_is_not_waited_for(pages):
    """The refusal comes before the body, so that a slow sender holds nothing."""
    import socket

    where = urlsplit(pages.url)
    path = urlsplit(new_address(pages.url, uuid4()).url).path
    with socket.create_connection((where.hostname, where.port), timeout=10) as wire:
        head = f"POST {path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: 1000000\r\n\r\n{{"
        wire.sendall(head.encode())
        assert wire.recv(64).startswith(b"HTTP/1.1 404")
