"""The trigger for event-driven scheduling, run on a loop against the sandbox as the triggerer would."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("airflow.sdk", reason="event-driven scheduling came with Airflow 3.0")

from airflow.exceptions import AirflowOptionalProviderFeatureException
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_vidu import event_triggers
from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.tasks.asset_memory import STATE_KEY
from airflow_provider_vidu.tasks.callbacks import nudges
from airflow_provider_vidu.tasks.callbacks.nudges import NUDGE_KEY
from tests.integration.documented import DocumentedService

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_backoff")]

BUSY = [["processing", 0]]
DONE = [["success", 0]]


class Store:
    """Keeps what Airflow would keep beside the asset."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.reads: list[str] = []

    @property
    def told(self) -> list[str]:
        """The generations that were remembered as reported."""
        return json.loads(self.kept.get(STATE_KEY, "{}")).get("told", [])

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return a copy of what was stored."""
        self.reads.append(key)
        return json.loads(self.kept[key]) if key in self.kept else default

    async def aset(self, key: str, value: Any) -> None:
        """Store plain JSON."""
        self.kept[key] = json.dumps(value)


def made(store: Store | None = None, **kwargs: Any) -> ViduGenerationFinishedTrigger:
    """Return a trigger that went through the database."""
    _, stored = ViduGenerationFinishedTrigger(**{"poll_interval": 0.05, **kwargs}).serialize()
    trigger = ViduGenerationFinishedTrigger(**json.loads(json.dumps(stored)))
    trigger.asset_state_store = store
    return trigger


class Watching:
    """A running trigger and the events that it has fired so far."""

    def __init__(self, trigger: ViduGenerationFinishedTrigger) -> None:
        self.events: list[dict[str, Any]] = []
        self._trigger = trigger

    async def __aenter__(self) -> Watching:
        self._task = asyncio.create_task(self._collect())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _collect(self) -> None:
        async with aclosing(self._trigger.run()) as fired:
            async for event in fired:
                self.events.append(json.loads(json.dumps(event.payload)))

    @property
    def ids(self) -> list[str]:
        """The generations that were reported."""
        return [event["generation_id"] for event in self.events]


async def until(condition, seconds: float = 30) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the sandbox runs in another thread
            await asyncio.sleep(0.02)


async def rounds(sandbox, kind: str, more: int = 3) -> None:
    """Wait until the service was asked some more times."""
    seen = len(sandbox.requests(kind))
    await until(lambda: len(sandbox.requests(kind)) >= seen + more)


async def test_named_generations_fire_once_each(dialect, sandbox):
    """A success and a failure are reported once each, without URL or key, and then nothing more is requested."""
    sandbox.add_generation("1", dialect=dialect, states=DONE)
    sandbox.add_generation("2", dialect=dialect, states=BUSY)
    async with Watching(made(generation_ids=["1", "2"])) as watching:
        await until(lambda: watching.ids == ["1"])
        await rounds(sandbox, "query")
        sandbox.add_generation("2", dialect=dialect, states=[["failed", 0]], error="CreationPolicyViolation")
        await until(lambda: watching.ids == ["1", "2"])
        asked = len(sandbox.requests("query"))
        await asyncio.sleep(0.5)
    assert len(sandbox.requests("query")) == asked
    assert [event["outcome"] for event in watching.events] == ["succeeded", "failed"]
    assert watching.events[1]["error"]["code"] == "CreationPolicyViolation"
    told = json.dumps(watching.events)
    assert "http" not in told
    assert sandbox.key not in told


async def test_a_whole_account(connect, sandbox):
    """Every generation that finishes after the first look is reported, also another client's; earlier ones are not."""
    connect("ent-v2")
    sandbox.add_generation("1", dialect="ent-v2", states=DONE)
    sandbox.add_generation("2", dialect="ent-v2", states=BUSY)
    async with Watching(made()) as watching:
        await rounds(sandbox, "list")
        assert sandbox.requests("query") == []
        sandbox.add_generation("2", dialect="ent-v2", states=DONE)
        await until(lambda: watching.ids == ["2"])
        sandbox.add_generation("3", dialect="ent-v2", states=DONE)
        await until(lambda: watching.ids == ["2", "3"])
        await rounds(sandbox, "list")
    assert watching.ids == ["2", "3"]


async def test_since_the_first_time_of_all(connect, sandbox):
    """All are reported; as the number that Airflow stores, it was no time, and the trigger was never made."""
    connect("ent-v2")
    sandbox.add_generation("1", dialect="ent-v2", states=DONE)
    async with Watching(made(since=datetime.min.replace(tzinfo=UTC))) as watching:
        await until(lambda: watching.ids == ["1"], 10)


async def test_more_generations_than_a_page_shows(connect, sandbox):
    """Thirty newer ones push a generation off the list's first page (20); its end is reported all the same."""
    connect("ent-v2")
    sandbox.add_generation("1", dialect="ent-v2", states=BUSY)
    async with Watching(made()) as watching:
        await rounds(sandbox, "list")
        for number in range(100, 130):
            sandbox.add_generation(str(number), dialect="ent-v2", states=BUSY)
        await rounds(sandbox, "list")
        sandbox.add_generation("1", dialect="ent-v2", states=DONE)
        await until(lambda: "1" in watching.ids)


@pytest.fixture
def documented(monkeypatch) -> Iterator[DocumentedService]:
    """Run a service whose list is as documented, with the default connection to it."""
    with DocumentedService() as running:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", running.connection())
        yield running


async def test_five_hundred_within_one_interval(documented):
    """The list is paged until it shows what is known: all are reported, each once, the oldest first."""
    documented.add("old")
    async with Watching(made()) as watching:
        await until(lambda: len(documented.queries) >= 4)
        for number in range(1, 501):
            documented.add(number, state="failed" if number % 10 == 0 else "success")
        await until(lambda: len(watching.events) >= 500, 60)
        seen = len(documented.queries)
        await until(lambda: len(documented.queries) >= seen + 5)
    assert len(watching.ids) == 500
    assert set(watching.ids) == {str(number) for number in range(1, 501)}
    assert documented.asked.count("7") == 1


async def test_a_first_look_at_a_long_list(documented):
    """What had ended before is not reported, however many pages it fills; what was at work on the last of them is."""
    documented.add("busy", state="processing", age=9000)
    for number in range(350):
        documented.add(number, age=8000 - number)
    store = Store()
    async with Watching(made(store)) as watching:
        await until(lambda: len(documented.queries) >= 8)
        documented.tasks[-1]["state"] = "success"
        await until(lambda: watching.ids)
    assert watching.ids == ["busy"]


async def test_a_round_without_news_is_one_request(documented):
    """Once everything is known, a round asks for a single page, and for no generation."""
    for number in range(350):
        documented.add(number, age=8000 - number)
    async with Watching(made()) as watching:
        await until(lambda: len(documented.queries) >= 10)
    later = [query["pager.page"] for query in documented.queries[5:10]]
    assert later == [["0"]] * 5
    assert (watching.ids, documented.asked) == ([], [])


async def test_a_restart_with_a_memory_tells_nothing_twice(connect, sandbox, monkeypatch):
    """Another triggerer reports what finished in between, and nothing twice."""
    monkeypatch.setattr(event_triggers, "SETTLE_SECONDS", 0.01)
    connect("ent-v2")
    store = Store()
    sandbox.add_generation("1", dialect="ent-v2", states=BUSY)
    async with Watching(made(store)) as watching:
        await rounds(sandbox, "list")
        sandbox.add_generation("1", dialect="ent-v2", states=DONE)
        await until(lambda: watching.ids == ["1"])
        await until(lambda: store.told == ["1"])
    sandbox.add_generation("2", dialect="ent-v2", states=DONE)
    async with Watching(made(store)) as watching:
        await until(lambda: watching.ids)
        await rounds(sandbox, "list")
    assert watching.ids == ["2"]


async def test_a_crash_right_after_an_event_repeats_it(connect, sandbox):
    """The memory is stored some seconds after the event: what Airflow may not have stored is reported again."""
    connect()
    store = Store()
    sandbox.add_generation("g", states=[["completed", 0]])
    for _ in range(2):
        async with Watching(made(store, generation_ids="g", poll_interval=60)) as watching:
            await until(lambda watching=watching: watching.ids == ["g"])
    assert store.kept == {}


async def test_no_end_of_a_round_waits_for_the_next_one(connect, sandbox, monkeypatch):
    """Airflow before 3.4 takes events up to the one that queued a run; so the last one comes when it has taken some."""
    monkeypatch.setattr(event_triggers, "SETTLE_SECONDS", 0.5)
    connect("ent-v2")
    ids = [sandbox.add_generation(str(number), dialect="ent-v2", states=BUSY) for number in range(1, 7)]
    async with Watching(made(poll_interval=1)) as watching:
        await rounds(sandbox, "list", 1)
        for each in ids:
            sandbox.add_generation(each, dialect="ent-v2", states=DONE)
        stored, queued, taken = 0, 0, 0
        async with asyncio.timeout(15):
            while taken < len(ids):
                await asyncio.sleep(0.1)
                if queued:
                    stored, queued, taken = len(watching.events), 0, queued
                elif len(watching.events) > stored:
                    queued = stored + 1
    assert sorted(watching.ids) == ids


async def test_a_store_that_cannot_be_asked_costs_only_the_memory(connect, sandbox):
    """Several assets that share a trigger have no store in common: it works without."""

    class Shared(Store):
        async def aget(self, key: str, default: Any = None) -> Any:
            raise ValueError("Task has 2 concrete inlets")

        async def aset(self, key: str, value: Any) -> None:
            pytest.fail("stored")

    connect()
    sandbox.add_generation("g", states=[["completed", 0]])
    async with Watching(made(Shared(), generation_ids="g")) as watching:
        await until(lambda: watching.ids == ["g"])
        await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    "left", [None, {"__airflow_state_ref__": "file:///state/assets/a/vidu_finished"}], ids=["object", "back end"]
)
async def test_a_memory_that_is_lost_is_not_taken_for_one(connect, sandbox, capsys, left):
    """Airflow returns None for a lost object of a state back end, and the reference to a triggerer without that.

    The reference counted as a memory without a line: the whole account was reported, a DAG run for each.
    """
    connect("ent-v2")
    store = Store()
    store.kept[STATE_KEY] = json.dumps(left)
    sandbox.add_generation("1", dialect="ent-v2", states=DONE)
    sandbox.add_generation("2", dialect="ent-v2", states=BUSY)
    async with Watching(made(store)) as watching:
        await rounds(sandbox, "list")
        sandbox.add_generation("2", dialect="ent-v2", states=DONE)
        await until(lambda: "2" in watching.ids)
    assert watching.ids == ["2"]
    assert capsys.readouterr().out.count("the state vidu_finished of the asset, is lost") == 1


async def test_a_dialect_without_a_list_says_what_to_do(connect, sandbox, capsys):
    """``vidu-native`` has no list: the log names dialect and argument, once, and no request is sent."""
    connect("vidu-native")
    async with Watching(made()) as watching:
        await asyncio.sleep(1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "no list of generations" in line]
    assert len(lines) == 1
    assert "vidu_default" in lines[0]
    assert sandbox.requests() == []
    assert watching.events == []


async def test_trouble_of_the_service_ends_nothing(dialect, sandbox, capsys):
    """A dozen failing answers delay the event; they leave one line, and one when it is over."""
    sandbox.add_generation("1", dialect=dialect, states=DONE)
    sandbox.add_fault({"match": {"kind": "query"}, "times": 12, "action": {"status": 503}})
    async with Watching(made(generation_ids="1")) as watching:
        await until(lambda: watching.ids == ["1"])
    out = capsys.readouterr().out
    assert out.count("Retrying in") == 1
    assert out.count("reachable again after 12 rounds") == 1


async def test_a_refused_generation_does_not_slow_the_others(connect, sandbox):
    """The service has refused its id for good: the other one was reported five minutes after its end."""
    connect("vidu-native")
    for name in ("1", "2"):
        sandbox.add_generation(name, dialect="vidu-native", states=BUSY)
    sandbox.add_fault({"match": {"kind": "query", "id": "1"}, "times": None, "action": {"status": 400, "body": "no"}})
    async with Watching(made(generation_ids=["1", "2"])) as watching:
        await rounds(sandbox, "query")
        sandbox.add_generation("2", dialect="vidu-native", states=DONE)
        await until(lambda: watching.ids == ["2"], 10)
    assert len([one for one in sandbox.requests("query") if "1" in one.path.rpartition("/")[2]]) == 1


async def test_an_unknown_generation_does_not_stop_the_others(dialect, sandbox):
    """A wrong id among the named ones costs nothing but its own event."""
    sandbox.add_generation("2", dialect=dialect, states=DONE)
    async with Watching(made(generation_ids=["1", "2"])) as watching:
        await until(lambda: watching.ids == ["2"])


@pytest.fixture
def called(connect, sandbox, monkeypatch):
    """Switch callbacks on, and let the trigger read often; return a store that counts reads of nudges."""
    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", "https://airflow.example.com")
    monkeypatch.setattr(event_triggers, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(nudges, "READ_SECONDS", 0.02)
    monkeypatch.setattr(nudges, "SHARE_SECONDS", 0.0)
    connect("ent-v2", max_retries=0)
    return Store()


async def test_a_callback_makes_the_next_round_begin(called, sandbox):
    """With an interval of ten minutes, an end is reported as soon as a callback has come, and once."""
    sandbox.add_generation("1", dialect="ent-v2", states=BUSY)
    async with Watching(made(called, poll_interval=600)) as watching:
        await until(lambda: called.reads.count(NUDGE_KEY) > 3)
        asked = len(sandbox.requests("list"))
        sandbox.add_generation("1", dialect="ent-v2", states=DONE)
        await until(lambda: called.reads.count(NUDGE_KEY) > 6)
        assert (watching.ids, len(sandbox.requests("list"))) == ([], asked)
        await called.aset(NUDGE_KEY, "now")
        await until(lambda: watching.ids == ["1"])
        await called.aset(NUDGE_KEY, "again")
        await until(lambda: len(sandbox.requests("list")) == asked + 2)
    assert watching.ids == ["1"]


async def test_a_callback_that_is_not_true_reports_nothing(called, sandbox):
    """The service decides: the round that the callback causes finds no end."""
    sandbox.add_generation("1", dialect="ent-v2", states=BUSY)
    async with Watching(made(called, poll_interval=600)) as watching:
        await until(lambda: called.reads.count(NUDGE_KEY) > 3)  # after the first round
        asked = len(sandbox.requests("list"))
        await called.aset(NUDGE_KEY, "now")
        await until(lambda: len(sandbox.requests("list")) == asked + 1)
    assert watching.ids == []


async def test_a_callback_shortens_no_backoff(called, sandbox, monkeypatch):
    """A service that fails is not asked more often because of callbacks: Retry-After decides."""
    monkeypatch.setattr("airflow_provider_vidu.polling.retries.Backoff.delay", lambda *_args, **_kwargs: 600.0)
    sandbox.add_fault({"match": {"kind": "list"}, "times": 100, "action": {"status": 503, "body": {}}})
    async with Watching(made(called, poll_interval=600)):
        await until(lambda: sandbox.requests("list"))
        await asyncio.sleep(0.1)
        asked = len(sandbox.requests("list"))
        await called.aset(NUDGE_KEY, "now")
        await asyncio.sleep(0.3)
        assert len(sandbox.requests("list")) == asked
    assert called.reads.count(NUDGE_KEY) == 1


async def test_without_callbacks_no_nudge_is_read(called, sandbox, monkeypatch):
    """A read costs the supervisor time, so it needs the option."""
    monkeypatch.delenv("AIRFLOW__VIDU__CALLBACK_BASE_URL")
    async with Watching(made(called, poll_interval=0.05)):
        await rounds(sandbox, "list")
    assert NUDGE_KEY not in called.reads


async def test_the_end_leaves_nothing_open(connect, sandbox):
    """A trigger that the triggerer cancels closes its session."""
    from airflow_provider_vidu.api.clients.async_client import _clients

    connect()
    sandbox.add_generation("g", states=BUSY)
    async with Watching(made(generation_ids="g")):
        await rounds(sandbox, "query")
    assert not _clients.get(asyncio.get_running_loop())


def test_equal_arguments_make_one_trigger():
    """Airflow knows a trigger again by its arguments, which therefore do not change from parse to parse."""
    since = datetime(2026, 1, 1, tzinfo=UTC)
    first = ViduGenerationFinishedTrigger(generation_ids="g", since=since)
    second = ViduGenerationFinishedTrigger(generation_ids=["g"], since="2026-01-01T00:00:00Z")
    other = ViduGenerationFinishedTrigger(generation_ids=["g"])
    hashes = [BaseEventTrigger.hash(*trigger.serialize()) for trigger in (first, second, other)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"generation_ids": ""},
        {"generation_ids": []},
        {"poll_interval": 0},
        {"since": "soon"},
        {"since": datetime(2026, 1, 1)},  # noqa: DTZ001 - that it has no zone is the point
    ],
)
def test_wrong_arguments_fail_at_parse_time(wrong):
    """What is wrong in every run is reported when the DAG is read."""
    with pytest.raises(ViduConfigError):
        ViduGenerationFinishedTrigger(**wrong)


def test_an_airflow_without_event_driven_scheduling(monkeypatch):
    """On Airflow 2 the module says what it needs; no other module imports it."""
    monkeypatch.delattr("airflow.triggers.base.BaseEventTrigger")
    monkeypatch.delitem(sys.modules, event_triggers.__name__)
    with pytest.raises(AirflowOptionalProviderFeatureException, match=r"FinishedTrigger needs Airflow 3\.0 or newer"):
        importlib.import_module(event_triggers.__name__)


def test_the_loudness_of_trouble():
    """What only a user can mend is an error, what may pass is a warning, its end is information."""
    from airflow_provider_vidu.exceptions import ViduAuthError, ViduServerError

    assert event_triggers._level([ViduServerError("503")]) == logging.WARNING
    assert event_triggers._level([ViduServerError("503"), ViduAuthError("no")]) == logging.ERROR
    assert event_triggers._level([]) == logging.INFO
