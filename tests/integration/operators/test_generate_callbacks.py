"""Orders with a callback address: which ones ask for one, what is kept of it, and how the woken task goes on."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.events import make_callback_event
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduGenerateOperator
from airflow_provider_vidu.tasks.callbacks import arrivals as callbacks
from airflow_provider_vidu.tasks.callbacks.tokens import read_token
from tests.integration.operators.test_generate import Task

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables")]
BASE = "https://airflow.example.com/team"


class CalledTask(Task):
    """A task instance with an id, as Airflow 3 has it; each try has a new one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"deferrable": True, **kwargs})
        self.ids: list[UUID] = []

    def start(self) -> Any:
        """Begin a try."""
        self.ids.append(uuid4())
        return super().start()

    def context(self) -> dict[str, Any]:
        """Return the context of the current try."""
        context = super().context()
        context["ti"].id = self.ids[-1]
        return context

    def deferred(self) -> Any:
        """Begin a try, and return the deferral."""
        with pytest.raises(TaskDeferred) as caught:
            self.start()
        return caught.value

    def call(self, deferred: Any) -> Any:
        """Resume as the callback route does."""
        trigger = deferred.trigger
        event = make_callback_event(
            trigger.generation_id, since=trigger.since, deadline=trigger.deadline, callback=trigger.callback
        )
        return self.wake(deferred, json.loads(json.dumps(event)))


@pytest.fixture(autouse=True)
def address(monkeypatch):
    """Configure callbacks."""
    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", BASE)
    monkeypatch.setattr(callbacks, "has_pages", lambda: True)


@pytest.fixture
def ent(sandbox, monkeypatch):
    """Point the default connection at the official API."""
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", sandbox.connection_json("ent-v2", max_retries=0))
    return sandbox


def sent_url(sandbox: Any) -> str | None:
    """Return the callback address of the last create."""
    url: str | None = sandbox.creates[-1].body.get("callback_url")
    return url


def test_a_deferred_order_asks_for_a_callback(ent):
    """The address names the task instance; Airflow keeps the digest alone, in record and trigger."""
    task = CalledTask()
    deferred = task.deferred()
    url = sent_url(ent) or ""
    token = url.rpartition("/")[2]
    assert url == f"{BASE}/vidu/callbacks/{token}"
    instance, digest = read_token(token) or (None, None)
    assert instance == task.ids[0]
    assert deferred.trigger.callback == digest
    assert task.store["vidu_generation"]["callback"] == digest
    kept = json.dumps([task.store, task.xcoms, deferred.trigger.serialize()[1]])
    assert token not in kept


@pytest.mark.parametrize(
    "kwargs",
    [
        {"deferrable": False},
        {"parameters": {"callback_url": "https://mine.example/x"}},
        {"wait_for_completion": False, "parameters": {"callback_url": "https://mine.example/x"}},
        {"wait_for_completion": False, "durable": False},
    ],
    ids=["in the worker", "own address", "own address without a wait", "without a wait and a record"],
)
def test_other_orders_ask_for_none(ent, kwargs):
    """Nothing could use the report, or the user has an address of their own."""
    task = CalledTask(**kwargs)
    try:
        task.start()
    except TaskDeferred as deferred:
        assert deferred.trigger.callback is None  # noqa: PT017 - both ends are right
    assert sent_url(ent) == kwargs.get("parameters", {}).get("callback_url")


@pytest.mark.parametrize("deferrable", [True, False])
def test_an_order_without_a_wait_asks_for_a_callback_that_nudges(ent, deferrable):
    """The record names the connection whose event triggers it is for; the token is kept nowhere."""
    task = CalledTask(wait_for_completion=False, deferrable=deferrable)
    task.start()
    token = (sent_url(ent) or "").rpartition("/")[2]
    instance, digest = read_token(token) or (None, None)
    record = task.store["vidu_generation"]
    assert instance == task.ids[0]
    assert (record["callback"], record["nudges"]) == (digest, "vidu_default")
    assert record["generation_id"] == ent.creates[0].id
    assert token not in json.dumps([task.store, task.xcoms])


def test_the_record_is_there_before_the_create(ent, monkeypatch):
    """A callback that is faster than the create's answer finds the order."""
    task = CalledTask(wait_for_completion=False)
    seen = []
    submit = ViduHook._submit

    def submitted(hook, *args, **kwargs):
        seen.append(dict(task.store["vidu_generation"]))
        return submit(hook, *args, **kwargs)

    monkeypatch.setattr(ViduHook, "_submit", submitted)
    task.start()
    (record,) = seen
    assert (record["nudges"], record["generation_id"]) == ("vidu_default", None)
    assert record["callback"] == task.store["vidu_generation"]["callback"]


def test_before_airflow_3_3_an_order_without_a_wait_asks_for_none(ent, monkeypatch):
    """The API server could not find the token: there is no state store."""
    task = CalledTask(wait_for_completion=False)
    context = task.context
    monkeypatch.setattr(task, "context", lambda: {k: v for k, v in context().items() if k != "task_state_store"})
    task.start()
    assert sent_url(ent) is None


def test_a_wait_nudges_no_event_trigger(ent):
    """Its callback resumes the task, and the record has the form of earlier versions."""
    task = CalledTask()
    task.deferred()
    assert "nudges" not in task.store["vidu_generation"]


def test_other_dialects_ask_for_none(sandbox, monkeypatch):
    """Gateways of the native dialect know no callbacks."""
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", sandbox.connection_json("vidu-native"))
    assert CalledTask().deferred().trigger.callback is None
    assert sent_url(sandbox) is None


def test_a_wrong_base_url_stops_the_task_before_anything_is_sent(ent, monkeypatch):
    """The error names the option."""
    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", "airflow.example.com")
    with pytest.raises(ViduConfigError, match="callback_base_url"):
        CalledTask().start()
    assert ent.creates == []


def test_a_true_callback_ends_the_task_with_one_poll(ent):
    """The woken task asks once, and returns the generation."""
    task = CalledTask()
    deferred = task.deferred()
    ent.advance(10_000)
    before = len(ent.requests("query"))
    assert task.call(deferred)["status"] == "succeeded"
    assert len(ent.requests("query")) == before + 1


def test_a_lie_costs_one_poll_and_the_task_sleeps_on(ent):
    """With the same deadline; the next callback, or the trigger, still ends the wait."""
    ent.set_speed(0)
    task = CalledTask()
    deferred = task.deferred()
    with pytest.raises(TaskDeferred) as again:
        task.call(deferred)
    trigger = again.value.trigger
    assert (trigger.deadline, trigger.since) == (deferred.trigger.deadline, deferred.trigger.since)
    assert trigger.callback == deferred.trigger.callback
    assert trigger.woken_at == pytest.approx(time.time(), abs=30)
    assert len(ent.requests("query")) == 1
    ent.advance(10_000)
    assert task.call(again.value)["status"] == "succeeded"
    assert len(ent.creates) == 1


def test_a_retry_expects_the_callback_of_the_order(ent):
    """The second try waits for the first try's generation, by the first try's token."""
    ent.set_speed(0)
    task = CalledTask()
    first = task.deferred()
    second = task.deferred()
    assert len(ent.creates) == 1
    assert second.trigger.callback == first.trigger.callback
    assert read_token((sent_url(ent) or "").rpartition("/")[2])[0] == task.ids[0]


def test_a_clear_has_a_token_of_its_own(ent):
    """The callback of the order before the clear finds nothing."""
    task = CalledTask()
    first = task.deferred()
    task.clear()
    assert task.deferred().trigger.callback != first.trigger.callback


def test_a_failure_that_a_callback_reports_is_the_services_own(ent):
    """The reason comes from the query, not from the callback."""
    task = CalledTask(prompt="[fail:CreationPolicyViolation] a cat")
    deferred = task.deferred()
    ent.advance(10_000)
    with pytest.raises(Exception, match="CreationPolicyViolation"):
        task.call(deferred)


def test_the_operator_needs_no_callbacks(ent, monkeypatch):
    """Without the option, request, record and trigger are those of earlier versions."""
    monkeypatch.delenv("AIRFLOW__VIDU__CALLBACK_BASE_URL")
    task = CalledTask()
    stored = task.deferred().trigger.serialize()[1]
    assert sent_url(ent) is None
    assert "callback" not in stored
    assert "callback" not in task.store["vidu_generation"]
    assert isinstance(task.operator, ViduGenerateOperator)
