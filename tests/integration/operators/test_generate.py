"""The generate operator against the sandbox; deferred legs are run as Airflow would run them."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowTaskTimeout, TaskDeferred

from airflow_provider_vidu import exceptions, hooks
from airflow_provider_vidu.api.settings import connection
from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.operators.storing import ResultStore
from airflow_provider_vidu.orders import submission
from airflow_provider_vidu.orders.order import OrderRecord
from airflow_provider_vidu.orders.records import StateStore, store_for
from airflow_provider_vidu.polling import retries
from airflow_provider_vidu.sandbox.media.pictures import png
from airflow_provider_vidu.sensors import ViduGenerationSensor
from airflow_provider_vidu.tasks import deferral
from airflow_provider_vidu.triggers import ViduGenerationTrigger
from tests.integration.servers import Answer, Request, Server, Wire
from tests.rows import each_row

DELAY = retries.Backoff.delay
"""The real one, which a fixture replaces."""

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables")]


class StateStoreAccessor(dict[str, Any]):
    """Airflow's task state store: JSON in, JSON out."""

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Store a value as JSON."""
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        """Remove a key."""
        self.pop(key, None)


class Task:
    """A task instance whose tries, clears and resumes the test plays through."""

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = {
            "task_id": "film",
            "prompt": "a cat",
            "model": "m",
            "poll_interval": 0.05,
            "timeout": 20,
            **kwargs,
        }
        self.store = StateStoreAccessor()
        self.xcoms: dict[str, Any] = {}
        self.operator = ViduGenerateOperator(**self.kwargs)
        self.try_number = 0
        self.max_tries = 2

    def context(self) -> dict[str, Any]:
        """Return the context of the current try."""
        ti = SimpleNamespace(
            dag_id="d", run_id="r", task_id="film", map_index=-1,
            try_number=self.try_number, max_tries=self.max_tries, task=SimpleNamespace(retries=2),
            xcom_push=self.push, xcom_pull=lambda task_ids, key, map_indexes: self.xcoms.get(key),
        )  # fmt: skip
        return {"ti": ti, "task_instance": ti, "task_state_store": self.store}

    def push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.xcoms[key] = value

    def start(self) -> Any:
        """Begin a try: XComs are cleared, the operator is a fresh instance."""
        self.try_number += 1
        self.xcoms.clear()
        self.operator = ViduGenerateOperator(**self.kwargs)
        return self.operator.execute(self.context())

    def run(self) -> Any:
        """Run a try to its end, through a deferral if there is one."""
        try:
            return self.start()
        except TaskDeferred as deferred:
            return self.resume(deferred)

    def resume(self, deferred: TaskDeferred) -> Any:
        """Run the trigger and resume with its event."""
        return self.wake(deferred, self.event(deferred))

    def event(self, deferred: TaskDeferred) -> dict[str, Any]:
        """Run the trigger; return its event as it is stored."""

        async def first_event() -> Any:
            async for event in deferred.trigger.run():
                return json.loads(json.dumps(event.payload))
            raise AssertionError("the trigger fired nothing")

        found: dict[str, Any] = asyncio.run(first_event())
        return found

    def wake(self, deferred: TaskDeferred, event: dict[str, Any]) -> Any:
        """Resume a fresh instance with an event."""
        self.operator = ViduGenerateOperator(**self.kwargs)
        return getattr(self.operator, deferred.method_name)(self.context(), event)

    def clear(self) -> None:
        """Do what a clear does to the counters."""
        self.max_tries = self.try_number + 2


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_from_prompt_to_generation(dialect, sandbox, deferrable):
    """The operator submits once, publishes the id and returns the succeeded generation."""
    task = Task(deferrable=deferrable)
    found = task.run()
    assert found["status"] == "succeeded"
    assert task.xcoms["generation_id"] == found["id"]
    assert [create.id for create in sandbox.creates] == [found["id"]]


def test_the_id_is_published_before_the_wait(dialect, sandbox):
    """When the task defers, the id is in the state store and in the XCom already."""
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    generation_id = sandbox.creates[0].id
    assert task.xcoms["generation_id"] == generation_id
    assert task.store["vidu_generation"]["generation_id"] == generation_id
    assert deferred.value.trigger.generation_id == generation_id
    assert deferred.value.trigger.cancel_on_kill is True


def test_an_event_of_the_order_before_a_clear_is_not_believed(dialect, sandbox):
    """The orphaned trigger's event wakes the new try; it goes on waiting for its own generation."""
    sandbox.set_speed(0)
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    old = task.xcoms["generation_id"]
    task.clear()
    with pytest.raises(TaskDeferred):
        task.start()
    stale = {"outcome": "failed", "generation_id": old, "error": {"type": "ViduGenerationFailedError"}}
    with pytest.raises(TaskDeferred) as deferred:
        ViduGenerateOperator(**task.kwargs).execute_complete(task.context(), stale)
    assert deferred.value.trigger.generation_id == task.xcoms["generation_id"] != old


def test_without_waiting(dialect, sandbox):
    """wait_for_completion=False returns the generation as it was accepted."""
    found = Task(wait_for_completion=False).run()
    assert found["status"] == "waiting"


def test_a_create_that_is_answered_as_failed(connect, sandbox):
    """A task that does not wait fails all the same if the answer to the create is the failure itself."""
    connect("ent-v2")
    answer = {"task_id": "77", "state": "failed", "err_code": "CreationPolicyViolation"}
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"status": 200, "body": answer}})
    task = Task(wait_for_completion=False)
    with pytest.raises(exceptions.ViduGenerationFailedError, match="generation 77, connection vidu_default"):
        task.run()
    assert task.xcoms["generation_id"] == "77"


def test_a_retry_that_finds_the_failure_publishes_what_was_paid_for(connect, sandbox):
    """The try before died while it waited; without the id, the pages would show no generation and no price."""
    connect("ent-v2")
    task = Task(prompt="[fail:CreationPolicyViolation] a cat", deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    (submitted,) = sandbox.creates
    price = task.xcoms["vidu_watch"]["credits"]
    sandbox.advance(1000)  # then the service's answer says that it cost nothing
    with pytest.raises(exceptions.ViduGenerationFailedError, match=f"CreationPolicyViolation.*{submitted.id}"):
        task.start()
    assert task.xcoms["generation_id"] == submitted.id
    assert task.xcoms["vidu_watch"]["credits"] == price > 0
    assert len(sandbox.creates) == 1


def test_a_service_that_is_out_of_reach_when_the_task_wakes(connect, sandbox, monkeypatch):
    """The clip is made: what the worker meets then is the service's trouble, not a timeout, and cancels nothing."""
    connect("ent-v2", timeout=2)
    monkeypatch.setattr(hooks, "REFETCH_PATIENCE_SECONDS", 0.1)
    task = Task(deferrable=True, max_failures=10_000)
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    sandbox.advance(1000)
    trouble = {"match": {"kind": "query"}, "skip": 1, "times": None, "action": {"status": 503, "body": {}}}
    sandbox.add_fault(trouble)
    with pytest.raises(exceptions.ViduServerError, match="wait for it again by its id") as caught:
        task.resume(deferred.value)
    assert caught.value.retryable
    assert sandbox.requests("cancel") == []
    sandbox.clear_faults()
    assert task.run()["status"] == "succeeded"
    assert len(sandbox.creates) == 1


def test_a_connection_that_is_missing_when_a_retry_begins(connect, sandbox, monkeypatch):
    """The clip is paid for, so the task may be retried until the connection is back: nothing is ordered again."""
    connect("ent-v2")
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    sandbox.advance(1000)
    monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT")
    (ordered,) = sandbox.creates
    with pytest.raises(exceptions.ViduError, match=r"no Airflow connection.*A retry resumes it") as caught:
        task.run()
    assert (caught.value.retryable, caught.value.generation_id) == (True, ordered.id)
    assert not isinstance(caught.value, AirflowFailException)
    connect("ent-v2")
    assert task.run()["id"] == ordered.id
    assert len(sandbox.creates) == 1


@pytest.mark.fault(
    "orders",
    "the connection is deleted before the task wakes, then restored",
    outcome="survived",
    seen="the generation; the task defers again, and no retry is used",
)
@pytest.mark.parametrize("outcome", ["succeeded", "failed", "error"])
def test_a_connection_that_is_missing_when_the_task_wakes(connect, sandbox, monkeypatch, outcome):
    """Whatever the event says, the task defers again with the same deadline, without a retry, until it is back."""
    monkeypatch.setattr(deferral, "PAUSED_POLL_SECONDS", 0.05)
    connect("ent-v2")
    task = Task(deferrable=True, retries=0, prompt="[fail:InternalServiceFailure] x" if outcome == "failed" else "x")
    with pytest.raises(TaskDeferred) as first:
        task.start()
    sandbox.advance(1000)
    event = task.event(first.value)
    if outcome == "error":
        event |= {"outcome": "error", "error": exceptions.ViduConnectionNotFoundError("There is none.").details()}
    monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT")
    with pytest.raises(TaskDeferred) as second:
        task.wake(first.value, event)
    assert second.value.trigger.deadline == first.value.trigger.deadline
    assert second.value.trigger.since == first.value.trigger.since
    connect("ent-v2")
    if outcome == "failed":
        with pytest.raises(exceptions.ViduGenerationInterruptedError):
            task.resume(second.value)
    else:
        assert task.resume(second.value)["status"] == "succeeded"
    assert len(sandbox.creates) == 1


def test_a_connection_that_never_was_fails_for_good(monkeypatch):
    """Nothing was ordered, so no retry would help."""
    monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT", raising=False)
    with pytest.raises(exceptions.ViduConnectionNotFoundError):
        Task().run()


@pytest.mark.parametrize("has_state", [False, True], ids=["before 3.3", "3.3"])
def test_the_order_is_remembered_until_the_success(monkeypatch, variables, has_state):
    """Not in ``execute``: what fails after it leads to a retry. A user's callbacks, from wherever, stay.

    Where Airflow keeps the order there is no callback but the user's, so that a policy's default finds its place.
    """
    monkeypatch.setattr("airflow.providers.common.compat.version_compat.AIRFLOW_V_3_3_PLUS", has_state)

    def given(context: Any) -> None:
        """Do nothing."""

    with DAG("d", default_args={"on_success_callback": given}):
        inherited = ViduGenerateOperator(task_id="inherited", prompt="x")
    for operator in (inherited, ViduGenerateOperator(task_id="own", prompt="x", on_success_callback=[given])):
        given_back = operator.on_success_callback
        first, *ours = given_back if isinstance(given_back, list) else [given_back]
        assert first is given
        assert len(ours) == (0 if has_state else 1)
        context = Task().context()
        del context["task_state_store"]
        store_for(context).save(OrderRecord(2, "airflow:m", 5.0))
        for forget in ours:
            forget(context)
        assert bool(variables.kept) is has_state  # where the state store keeps it, nobody asks for a Variable
    assert not ViduGenerateOperator(task_id="forgetful", prompt="x", durable=False).on_success_callback


def test_retries_pay_once_and_a_clear_pays_again(dialect, sandbox):
    """Three tries of one order are one create; a clear makes it two."""
    sandbox.set_speed(0)
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    with pytest.raises(TaskDeferred):
        task.start()
    sandbox.set_speed(50)
    first = task.run()
    assert len(sandbox.creates) == 1
    task.clear()
    second = task.run()
    assert second["id"] != first["id"]
    assert len(sandbox.creates) == 2


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_a_failure_for_good(dialect, sandbox, deferrable):
    """A refusal of the content is final and names reason and id."""
    with pytest.raises(exceptions.ViduGenerationFailedError) as caught:
        Task(prompt="[fail:CreationPolicyViolation] x", deferrable=deferrable).run()
    assert caught.value.code == "CreationPolicyViolation"
    assert (caught.value.generation_id, caught.value.conn_id) == (sandbox.creates[0].id, "vidu_default")


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_a_failure_that_may_pass_is_submitted_again_by_a_retry(connect, sandbox, deferrable):
    """Trouble of the service raises a retryable error; the retry submits again."""
    connect("ent-v2")
    task = Task(prompt="[fail:InternalServiceFailure] x", deferrable=deferrable)
    with pytest.raises(exceptions.ViduGenerationInterruptedError, match="A retry submits it again"):
        task.run()
    task.kwargs["prompt"] = "x"
    assert task.run()["status"] == "succeeded"
    assert [create.charge for create in sandbox.creates] == ["refunded", "charged"]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_a_time_out_cancels(connect, sandbox, deferrable):
    """When the time is over, a job that has not started is cancelled and its credits come back."""
    connect("ent-v2")
    sandbox.set_speed(0)
    with pytest.raises(exceptions.ViduTimeoutError, match="The task has cancelled the generation: raise") as caught:
        Task(deferrable=deferrable, timeout=0.2).run()
    assert "last known state is" in caught.value.reason
    assert "may still finish" not in caught.value.reason
    assert caught.value.generation_id
    assert [create.charge for create in sandbox.creates] == ["cancelled"]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_a_time_out_without_a_cancel_leaves_the_generation(connect, sandbox, deferrable):
    """What is not cancelled may still finish, and its id is worth a wait."""
    connect("ent-v2")
    sandbox.set_speed(0)
    with pytest.raises(exceptions.ViduTimeoutError, match="may still finish: wait for it again by its id"):
        Task(deferrable=deferrable, timeout=0.2, cancel_on_kill=False).run()
    assert [create.charge for create in sandbox.creates] == ["charged"]


@pytest.mark.parametrize("is_done", [False, True], ids=["still queued", "done meanwhile"])
def test_a_wait_that_no_triggerer_took_up(connect, sandbox, is_done):
    """Given up by Airflow after the timeout, a job is cancelled and the error says why; a finished one is kept."""
    connect("ent-v2")
    sandbox.set_speed(0)
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    task.operator = ViduGenerateOperator(**task.kwargs)
    given_up = ("__fail__", {"error": "Trigger timeout"}, task.context())
    if is_done:
        sandbox.advance(3600)
        assert task.operator.resume_execution(*given_up)["status"] == "succeeded"
    else:
        with pytest.raises(exceptions.ViduTimeoutError, match=r"no triggerer ran the trigger.*has cancelled the gen"):
            task.operator.resume_execution(*given_up)
    assert [create.charge for create in sandbox.creates] == ["charged" if is_done else "cancelled"]


def test_a_kill_cancels(connect, sandbox):
    """on_kill cancels what this try waits for; a refusal is logged and not raised."""
    connect("ent-v2")
    sandbox.set_speed(0)
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    task.operator.on_kill()
    assert [create.charge for create in sandbox.creates] == ["cancelled"]
    task.operator.on_kill()
    assert len(sandbox.requests("cancel")) == 2


def test_a_kill_during_the_wait_for_a_slot(dialect, sandbox, monkeypatch):
    """A signal that comes while a worker waits for a free slot: nothing is sent after it."""
    action = {"status": 429, "body": {"code": 429, "reason": "RateLimited", "message": "later"}}
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": action})
    task = Task(deferrable=False)
    # Airflow's supervisor lets the task go on for some seconds after this.
    monkeypatch.setattr(retries.Backoff, "delay", lambda *_, **__: 1.0)
    former = signal.signal(signal.SIGALRM, lambda *_: task.operator.on_kill())
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(exceptions.ViduError, match="killed before its create was sent"):
            task.start()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert sandbox.creates == []
    assert task.store == {}


def test_a_kill_before_the_send(connect, sandbox, monkeypatch):
    """While the store is tried: it ends at once, since Airflow waits for seconds only, and nothing is remembered."""
    connect("ent-v2")
    task = Task(deferrable=False, destination="memory://films/")
    monkeypatch.setattr(ResultStore, "rehearse", lambda _: task.operator.on_kill())
    monkeypatch.setattr(retries.Backoff, "delay", Mock(side_effect=AssertionError("The check is repeated.")))
    with pytest.raises(exceptions.ViduError, match="killed before its create was sent"):
        task.start()
    assert sandbox.requests("create") == []
    assert task.store == {}


@pytest.mark.parametrize(
    ("execution_timeout", "error", "message"),
    [
        (30, AirflowTaskTimeout, r"execution_timeout of 30 s.*last known state"),
        (9000, exceptions.ViduTimeoutError, "no triggerer ran the trigger"),
    ],
)
def test_the_execution_timeout_of_airflow_2(connect, sandbox, execution_timeout, error, message):
    """Airflow 2 counts the deferred wait into it: the job is cancelled, and the error is one that may be retried."""
    connect("ent-v2")
    sandbox.set_speed(0)
    task = Task(deferrable=True, execution_timeout=timedelta(seconds=execution_timeout), timeout=600)
    with pytest.raises(TaskDeferred):
        task.start()
    task.operator = ViduGenerateOperator(**task.kwargs)
    with pytest.raises(error, match=message):
        task.operator.resume_execution("__fail__", {"error": "Trigger/execution timeout"}, task.context())
    assert [create.charge for create in sandbox.creates] == ["cancelled"]


def test_a_kill_is_not_wanted(connect, sandbox):
    """cancel_on_kill=False leaves the job alone."""
    connect("ent-v2")
    task = Task(deferrable=True, cancel_on_kill=False)
    with pytest.raises(TaskDeferred):
        task.start()
    task.operator.on_kill()
    assert sandbox.requests("cancel") == []


def test_no_credits(connect, sandbox):
    """A refusal for lack of credits is final and says how many are left."""
    connect("ent-v2")
    fault = {"code": 400, "reason": "CreditInsufficient", "message": "no credits", "metadata": {"trace_id": "t1"}}
    sandbox.add_fault({"match": {"kind": "create"}, "action": {"status": 400, "body": fault}})
    with pytest.raises(exceptions.ViduCreditError, match="Credits left: 100000") as caught:
        Task().run()
    assert caught.value.trace_id == "t1"
    assert not caught.value.retryable


def test_local_images_are_sent_inline(connect, sandbox, tmp_path):
    """A path becomes a data URI, a web address stays; the number of images picks the endpoint."""
    connect("ent-v2")
    picture = tmp_path / "start.png"
    picture.write_bytes(png("seed"))
    Task(images=[str(picture), "https://example.com/end.png"]).run()
    body = sandbox.creates[0].body
    assert body["images"][0].startswith("data:image/png;base64,")
    assert body["images"][1] == "https://example.com/end.png"
    assert sandbox.creates[0].endpoint == "start-end2video"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a", "not png"),
        (None, "cannot be read"),
        (png("seed") + b"x" * 10_000_000, "larger than 9,999,999 bytes.*no upload service"),
    ],
)
def test_images_that_cannot_be_sent(connect, sandbox, tmp_path, content, message):
    """An image that is missing, too large or of another kind is refused before anything is submitted."""
    connect("vidu-native")
    picture = tmp_path / "picture.png"
    if content is not None:
        picture.write_bytes(content)
    with pytest.raises(exceptions.ViduConfigError, match=message):
        Task(images=[str(picture)]).run()
    assert sandbox.creates == []


@pytest.mark.vidu_sandbox(surplus_fields="ignore")
def test_parameters_are_merged_and_body_replaces(dialect, sandbox):
    """Parameters become fields of the request; body is sent as it is (plus the marker, where there is a place)."""
    Task(parameters={"duration": 4}).run()
    assert sandbox.creates[0].body.items() >= {"model": "m", "prompt": "a cat", "duration": 4}.items()
    body = {"model": "TC-Vidu", "prompt": "x", "settings": {"settings": {"duration": 4}}}
    Task(prompt=None, model=None, body=body).run()
    assert sandbox.creates[1].body.items() >= body.items()


@each_row(
    ("kwargs", "message"),
    [
        ({"body": {"prompt": "x"}}, "one or the other"),
        ({"prompt": None}, "nothing to submit"),
        ({"poll_interval": 0}, "poll_interval"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("inf")}, "timeout must be at most ten years"),
        ({"timeout": float("nan")}, "timeout must be at most ten years"),
        ({"timeout": timedelta(days=4000)}, "timeout must be at most ten years"),
        ({"timeout": 10**400}, "timeout must be at most ten years"),
        ({"max_failures": "many"}, "max_failures"),
        ({"deferrable": "{{ params.deferrable }}"}, "deferrable must be True or False .it is not templated"),
        ({"wait_for_completion": None}, "wait_for_completion must be True or False"),
        ({"durable": "maybe"}, "durable must be True or False"),
        ({"cancel_on_kill": 2}, "cancel_on_kill must be True or False"),
        ({"on_clear": "resume", "durable": False}, "needs durable=True"),
    ],
)
def test_bad_arguments_fail_at_parse(kwargs, message):
    """What is wrong on the face of it is refused when the DAG is parsed."""
    with pytest.raises(exceptions.ViduConfigError, match=message):
        Task(**kwargs)


def test_switches_as_text():
    """What an environment variable or a file holds means what it says, and no other text counts as true."""
    off = dict.fromkeys(("deferrable", "wait_for_completion", "cancel_on_kill", "durable"), " False ")
    task = ViduGenerateOperator(task_id="t", prompt="p", **off)
    assert [getattr(task, name) for name in off] == [False] * 4
    assert ViduGenerateOperator(task_id="t", prompt="p", deferrable="yes").deferrable is True
    assert ViduGenerationSensor(task_id="t", generation_id="1", deferrable="off").deferrable is False


def test_an_interval_of_none_is_the_adaptive_one():
    """In both ways of leaving it out."""
    assert ViduGenerateOperator(task_id="t", prompt="p", poll_interval=None).poll_interval is None
    assert ViduGenerationSensor(task_id="t", generation_id="1", poke_interval=None)._adaptive


def test_blanks_around_an_endpoint(connect, sandbox):
    """A template leaves them there; they do not belong to the path."""
    connect("ent-v2")
    Task(endpoint=" img2video\n", images=["https://e/a.png"]).run()
    assert sandbox.requests("create")[0].path.endswith("/img2video")


def test_a_field_given_twice(connect, sandbox):
    """A field in an argument and in parameters is refused before the submit."""
    connect()
    with pytest.raises(exceptions.ViduConfigError, match="prompt is given twice"):
        Task(parameters={"prompt": "another"}).run()


@pytest.mark.parametrize("name", ["prompt", "model", "images", "endpoint"])
def test_what_renders_to_nothing_is_not_paid_for(dialect, sandbox, name):
    """An XCom that is not there leaves the word None; the task fails before anything is sent or remembered."""
    task = Task(**{name: "{{ ti.xcom_pull(task_ids='nobody') }}"})
    setattr(task.operator, name, "None")
    task.try_number = 1
    with pytest.raises(exceptions.ViduConfigError, match=f"{name} is the word None"):
        task.operator.execute(task.context())
    assert sandbox.creates == []
    assert task.store == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("images", "images is None"),
        ("prompt", "prompt is None"),
        ("destination", "destination is empty"),
        ("max_credits", "max_credits is None"),
        ("budget", "budget is None"),
    ],
)
def test_what_is_mapped_over_nothing_is_not_paid_for(connect, sandbox, name, words):
    """An upstream task had no value for one of the instances; a None that the DAG itself holds is meant."""
    connect("ent-v2")
    known = {"images": ["https://x.example/a.png"], name: None}

    def run(mapped_over: object) -> Any:
        task = Task(**known)
        mapped = SimpleNamespace(expand_input=SimpleNamespace(value={name: mapped_over}))
        return task.operator.execute({**task.context(), "dag": SimpleNamespace(task_dict={"film": mapped})})

    with pytest.raises(exceptions.ViduConfigError, match=words):
        run("the output of an upstream task")
    assert sandbox.creates == []
    assert run(["x", None])["status"] == "succeeded"


@pytest.mark.parametrize(
    ("rows", "row", "words"),
    [
        ("dag", {"prompt": "a cat", "images": None}, "images is None"),
        ("dag", {"prompt": "a cat", "max_credits": None}, "max_credits is None"),
        ("xcom", {"prompt": "a cat", "max_credits": None}, "max_credits is None"),
        ("xcom", {"prompt": "a cat", "budget": None}, "budget is None"),
        ("xcom", {"prompt": "a cat", "destination": None}, "destination is empty"),
        ("xcom", {"prompt": "a cat", "images": None}, None),
        ("meant", {"prompt": "a cat", "images": None, "max_credits": None}, None),
    ],
)
def test_none_in_a_row_of_expand_kwargs(connect, sandbox, rows, row, words):
    """In a row of the DAG, it is an upstream task's; in one from another task, an empty field, but not a limit."""
    connect("ent-v2")
    with DAG("d", schedule=None, default_args={"budget": None} if rows == "meant" else {}) as dag:
        upstream = ViduGenerateOperator(task_id="upstream", prompt="x", model="m").output
        written = {name: upstream if value is None else value for name, value in row.items()}
        given = {"xcom": upstream, "dag": [{"prompt": "x"}, written], "meant": [{"prompt": "x"}, row]}[rows]
        ViduGenerateOperator.partial(task_id="film", model="m", poll_interval=0.05).expand_kwargs(given)
    task = Task()
    task.try_number = 1
    context = {**task.context(), "dag": dag}
    context["ti"].map_index = 1
    operator = dag.task_dict["film"].unmap(row)
    if words is None:
        assert operator.execute(context)["status"] == "succeeded"
    else:
        with pytest.raises(exceptions.ViduConfigError, match=words):
            operator.execute(context)
        assert sandbox.creates == []


def test_an_id_that_could_not_be_recorded_is_recorded_at_the_resume(connect, sandbox, monkeypatch):
    """The outage lasted until the task had left its worker: a retry of the resumed one needs the id."""
    connect("vidu-native")
    monkeypatch.setattr(submission, "RECORD_PAUSE_SECONDS", 0.0)
    task, save = Task(deferrable=True), StateStore.save

    def away(store: StateStore, record: OrderRecord) -> None:
        if record.generation_id is not None:
            raise RuntimeError("the API server is down")
        save(store, record)

    with monkeypatch.context() as patched:
        patched.setattr(StateStore, "save", away)
        with pytest.raises(TaskDeferred) as waiting:
            task.start()
    assert task.store["vidu_generation"]["generation_id"] is None
    task.resume(waiting.value)
    assert task.store["vidu_generation"]["generation_id"] == sandbox.creates[0].id
    assert task.run()["id"] == sandbox.creates[0].id
    assert len(sandbox.creates) == 1


class Outputs(Sequence):
    """What Airflow makes of the output of a mapped task: those of the instances that returned something."""

    def __init__(self, *values: str) -> None:
        self._values = values
        self._xcom_arg = SimpleNamespace(operator=SimpleNamespace(task_id="pictures"))

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]


@pytest.mark.parametrize("endpoint", [None, "start-end2video"])
def test_instances_that_returned_nothing_do_not_change_the_endpoint(connect, sandbox, endpoint):
    """Of three pictures one was skipped: two are the first and the last frame, and no references."""
    connect("ent-v2")
    pictures = [f"https://x.example/{name}.png" for name in "ab"]
    task = Task(images=Outputs(*pictures), endpoint=endpoint)
    task.try_number = 1
    context = task.context()
    context["ti"].get_ti_count = lambda **asked: {"pictures": 3}[asked["task_ids"][0]]
    if endpoint is None:
        with pytest.raises(exceptions.ViduConfigError, match=r"1 instance .*/start-end2video instead of .*/reference2"):
            task.operator.execute(context)
        assert sandbox.creates == []
    else:
        assert task.operator.execute(context)["status"] == "succeeded"


def test_instances_that_returned_nothing_are_left_out_if_the_endpoint_is_the_same(connect, sandbox, monkeypatch):
    """What is there is taken, with a warning; Airflow may not say how many there were."""
    connect("ent-v2")
    pictures = [f"https://x.example/{name}.png" for name in "abc"]
    for count in (lambda **_: 5, None):
        log = MagicMock()
        monkeypatch.setattr(ViduGenerateOperator, "log", log)
        task = Task(images=Outputs(*pictures))
        context = task.context()
        context["ti"].get_ti_count = count
        assert task.operator.execute(context)["status"] == "succeeded"
        assert sandbox.creates[-1].body["images"] == pictures
        assert ("2 instances returned nothing" in str(log.warning.call_args_list)) == (count is not None)


@pytest.mark.vidu_sandbox(surplus_fields="ignore")
def test_names_of_several_types_within_the_request(dialect, sandbox):
    """What JSON can say is sent, and can be compared with an earlier try's."""
    assert Task(parameters={"meta": {5: 1, "x": 2}}).run()["status"] == "succeeded"
    assert sandbox.creates[0].body["meta"] == {"5": 1, "x": 2}


def test_a_kill_while_a_woken_task_looks_its_connection_up(connect, sandbox, monkeypatch):
    """The handler asks Airflow for nothing, which may be in the middle of an answer; the job is cancelled after it."""
    connect("ent-v2")
    sandbox.set_speed(0)
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    task.operator = ViduGenerateOperator(**task.kwargs)
    asked = []

    def look_up(*args: Any) -> Any:
        asked.append(args)
        task.operator.on_kill()
        assert len(asked) == 1
        return connection.resolve(*args)

    monkeypatch.setattr(hooks, "resolve", look_up)
    event = {"version": 1, "outcome": "succeeded", "generation_id": task.xcoms["generation_id"]}
    with pytest.raises(exceptions.ViduGenerationFailedError):
        getattr(task.operator, deferred.value.method_name)(task.context(), event)
    assert [create.charge for create in sandbox.creates] == ["cancelled"]


def says(status: int = 200, into: list[Any] | None = None, **body: Any) -> Answer:
    """Answer with JSON, after having read the whole request; its body goes ``into`` a list."""

    def answer(request: Request, wire: Wire) -> None:
        sent = request.body
        while len(sent) < int(request.headers.get("content-length", 0)):
            sent += wire.sock.recv(65536)
        if into is not None:
            into.append(json.loads(sent))
        content = json.dumps(body).encode()
        wire.head(status, Content_Type="application/json", Content_Length=len(content), Connection="close")
        wire.send(content)

    return answer


@pytest.fixture
def official(monkeypatch):
    """Point the default connection, of the official dialect, at a server with these answers."""

    def serve(server: Server) -> Server:
        value = {"conn_type": "vidu", "host": server.url(""), "password": "k", "extra": {"dialect": "ent-v2"}}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(value))
        return server

    return serve


@pytest.mark.parametrize(("body", "answer", "path"), [
    ({"text": "hello", "voice_setting_voice_id": "v"}, {"task_id": "7", "state": "success", "file_url": "https://h/a.mp3"},
     "/ent/v2/audio-tts"),
    ({"name": "hero", "images": ["https://h/a.png"]}, {"id": "7", "name": "hero"}, "/ent/v2/subjects"),
])  # fmt: skip
@pytest.mark.parametrize("waits", [True, False])
def test_a_synchronous_product_is_not_polled(official, body, answer, path, waits):
    """The answer to the create is the result, with or without a state: one request in all."""
    with official(Server(says(**answer), says(500))) as server:
        task = Task(prompt=None, model=None, body=body, deferrable=True, wait_for_completion=waits)
        found = task.start()
    assert (found["id"], found["status"]) == ("7", "succeeded")
    assert task.xcoms["generation_id"] == "7"
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", path)


def test_a_synchronous_answer_that_was_lost(official, monkeypatch):
    """The create is not repeated; where the service has no query for the id, the error says what was lost."""
    body = {"text": "hello"}
    monkeypatch.setattr("airflow_provider_vidu.orders.lost_order.GRACE_SECONDS", 0.0)
    with official(Server(says(task_id="7", state="success"), says(404, reason="NotFound"))) as server:
        task = Task(prompt=None, model=None, body=body)
        assert task.start()["id"] == "7"
        with pytest.raises(exceptions.ViduNotFoundError, match=r"An earlier try submitted this request.*generation 7"):
            task.start()
    assert [request.method for request in server.requests] == ["POST", "GET"]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_a_one_click_production(official, deferrable):
    """It is polled at its own query, by the worker, by the trigger, and after it; it carries no marker."""
    done = {"id": "7", "state": "success", "creations": [{"url": "https://h/v.mp4"}]}
    bodies: list[Any] = []
    answers = (says(id="7", into=bodies), says(id="7", state="processing", creations=[]), says(**done))
    with official(Server(*answers)) as server:
        body = {"images": ["https://h/a.png"], "audio_url": "https://h/a.mp3"}
        task = Task(prompt=None, model=None, body=body, endpoint="one-click/mv", deferrable=deferrable)
        assert task.run()["status"] == "succeeded"
        task.operator.on_kill()
    create, *polls = server.requests
    assert (create.method, create.target) == ("POST", "/ent/v2/one-click/mv")
    assert bodies == [body]
    assert {(poll.method, poll.target) for poll in polls} == {("GET", "/ent/v2/one-click/mv/7")}
    assert task.xcoms["vidu_watch"]["endpoint"] == "one-click/mv"


def test_a_stored_wait_knows_its_query():
    """The endpoint is in the row only where one is known; a row of an earlier version lacks it."""
    _, stored = ViduGenerationTrigger(generation_id="1", endpoint="one-click/mv").serialize()
    assert ViduGenerationTrigger(**stored).endpoint == "one-click/mv"
    _, stored = ViduGenerationTrigger(generation_id="1").serialize()
    assert "endpoint" not in stored


@pytest.mark.parametrize(("kwargs", "hours"), [
    ({"parameters": {"off_peak": True}}, 50),
    ({"parameters": {"off_peak": "True"}}, 50),
    ({"prompt": None, "model": None, "body": {"prompt": "x", "model": "m", "off_peak": True}}, 50),
    ({"parameters": {"off_peak": False}}, 24),
    ({}, 24),
    ({"parameters": {"off_peak": True}, "timeout": 60}, 1 / 60),
])  # fmt: skip
def test_how_long_it_waits(connect, sandbox, kwargs, hours):
    """Off-peak generations take up to 48 hours; a timeout that is given is kept."""
    connect("ent-v2")
    task = Task(**{"timeout": None, **kwargs}, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    trigger = deferred.value.trigger
    assert trigger.deadline - trigger.since == pytest.approx(hours * 3600)
    assert deferred.value.timeout.total_seconds() == pytest.approx(hours * 3600 + 300)


def test_an_ambiguous_request(connect, sandbox):
    """Parsing refuses the structure of the official API; the rest is refused by the task, before it pays."""
    connect("ent-v2")
    picture = "https://h/a.png"
    with pytest.raises(exceptions.ViduConfigError, match="either subjects or images"):
        Task(images=[picture], parameters={"subjects": [{"name": "x"}]})
    assert Task(images=[picture], parameters={"subjects": [{"name": "x"}]}, endpoint="reference2video")
    task = Task(images=[picture], parameters={"video_url": "https://h/v.mp4"})
    with pytest.raises(exceptions.ViduConfigError, match="extend, trending-replicate"):
        task.run()
    assert (sandbox.creates, task.store) == ([], {})


def test_a_gateway_decides_by_itself(connect, sandbox):
    """Under the other dialect the fields need not say anything of an endpoint."""
    connect("vidu-native")
    assert Task(images=["https://h/a.png"], parameters={"video_url": "https://h/v.mp4"}).run()["status"] == "succeeded"


@pytest.mark.fault(
    "orders",
    "a result without model, prompt, seed, parameters and time",
    outcome="survived",
    seen="the order fills them in",
)
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_the_result_holds_what_the_order_knows(connect, sandbox, deferrable):
    """The query answers neither prompt nor model nor time nor parameters; they come from order and create."""
    connect("ent-v2")
    found = Task(deferrable=deferrable, parameters={"duration": 4, "seed": 9, "callback_url": "https://h/?t=1"}).run()
    assert (found["prompt"], found["model"], found["status"]) == ("a cat", "m", "succeeded")
    assert found["parameters"] == {"duration": 4, "seed": 9}
    assert found["created_at"].startswith("20")
    assert "prompt" not in found["raw"]


def test_a_retry_knows_them_too(connect, sandbox):
    """Without the answer to the create, the order's own time stands in for the service's."""
    connect("ent-v2")
    task = Task()
    first = task.run()
    again = task.run()
    assert len(sandbox.creates) == 1
    assert (again["prompt"], again["model"]) == ("a cat", "m")
    assert again["created_at"]
    assert first["id"] == again["id"]


@pytest.mark.fault(
    "from Airflow", "execute({}) or a MagicMock as context", outcome="survived", side="generate", seen="the generation"
)
@pytest.mark.parametrize(
    "stand_in",
    [
        None,
        {},
        MagicMock(),
        {"ti": Mock(), "dag": Mock()},
        {"ti": MagicMock(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1)},
        {"ti": MagicMock(spec=["xcom_push", "xcom_pull"])},
    ],
    ids=["None", "nothing", "a mock", "mocks without items", "a mock with names", "a mock without names"],
)
def test_in_a_unit_test_of_a_user(dialect, sandbox, variables, stand_in):
    """No context is needed, and a mock of one does; the order is remembered nowhere."""
    arguments = {"task_id": "t", "prompt": "a cat", "model": "m", "poll_interval": 0.05}
    task = ViduGenerateOperator(**arguments)
    task.pre_execute(stand_in)
    task.post_execute(stand_in, found := task.execute(stand_in))
    assert found["status"] == "succeeded"
    with pytest.raises(TaskDeferred) as deferred:
        ViduGenerateOperator(**arguments, deferrable=True).execute(stand_in)
    generation_id = deferred.value.trigger.generation_id
    event = {"version": 1, "outcome": "succeeded", "generation_id": generation_id}
    sandbox.advance(1000)
    fresh = ViduGenerateOperator(**arguments, deferrable=True)
    assert fresh.execute_complete(stand_in, event)["id"] == generation_id
    assert variables.asked == 0


@pytest.mark.fault(
    "from Airflow", "native rendering makes a fraction of a prompt", outcome="refused", says="prompt is the number"
)
def test_a_fraction_is_no_prompt(dialect, sandbox):
    """Native rendering has changed the text, maybe: nothing is paid for it."""
    task = Task()
    task.kwargs["prompt"] = 3.1
    with pytest.raises(exceptions.ViduConfigError, match="prompt is the number"):
        task.run()
    assert sandbox.creates == []


@pytest.mark.fault(
    "orders",
    "the destination of the download that follows has no file system",
    outcome="refused",
    says="Nothing was ordered",
)
def test_a_download_that_is_bound_to_fail_is_found_before_the_create(dialect, sandbox, tmp_path):
    """A destination without a file system behind the task refuses the order, and nothing is paid."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        generate = ViduGenerateOperator(task_id="generate", prompt="a cat")
        generate >> ViduDownloadOperator(task_id="keep", destination="nowhere://clips/", generation_id="x")
    with pytest.raises(exceptions.ViduConfigError, match=r"Nothing was ordered: the download 'keep'"):
        generate.execute({})
    assert sandbox.requests("create") == []


def refuse(sandbox: Any, status: int, times: int | None = None) -> None:
    """Let queries be refused."""
    sandbox.add_fault({"match": {"kind": "query"}, "times": times, "action": {"status": status, "body": {"code": 1}}})


@pytest.mark.fault(
    "orders", "a refusal right after the submit", outcome="survived", seen="the generation, ordered once", side="401"
)
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_a_key_that_is_refused_right_after_the_submit(connect, sandbox, deferrable, monkeypatch):
    """The generation is known to exist without a single good poll: the wait pauses, whatever the budget."""
    monkeypatch.setattr("airflow_provider_vidu.api.clients.async_client.REFRESH_PAUSE_SECONDS", 0.1)
    connect(max_retries=0)
    refuse(sandbox, 401, times=4)
    assert Task(deferrable=deferrable, max_failures=0).run()["status"] == "succeeded"
    assert len(sandbox.creates) == 1


@pytest.mark.fault(
    "orders", "refused polls for good, then a retry", outcome="clear error", says="polls in a row failed"
)
@pytest.mark.parametrize("status", [400, 402, 404])
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_a_retry_resumes_a_wait_that_was_refused(connect, sandbox, deferrable, status):
    """The error that ends the wait may be retried, and the retry picks up the job that is paid for."""
    connect(max_retries=0)
    refuse(sandbox, status)
    task = Task(deferrable=deferrable, max_failures=1)
    with pytest.raises(exceptions.ViduError, match="2 polls in a row failed") as caught:
        task.run()
    assert caught.value.retryable
    assert not isinstance(caught.value, AirflowFailException)
    sandbox.clear_faults()
    assert task.run()["id"] == sandbox.creates[0].id
    assert len(sandbox.creates) == 1


@pytest.mark.fault(
    "orders", "a retry is refused as it picks up the paid job", outcome="clear error", says="A retry resumes it"
)
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404])
def test_a_retry_that_is_refused(connect, sandbox, status, monkeypatch):
    """Only a clear, which pays again, would be left: so the next retry may pick it up as well."""
    monkeypatch.setattr("airflow_provider_vidu.orders.lost_order.GRACE_SECONDS", 0.0)
    connect(max_retries=0)
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    refuse(sandbox, status)
    with pytest.raises(exceptions.ViduError, match="A retry resumes it") as caught:
        task.start()
    assert caught.value.retryable
    assert caught.value.status_code == status
    sandbox.clear_faults()
    assert task.run()["status"] == "succeeded"
    assert len(sandbox.creates) == 1


def test_a_worker_without_the_xcom_back_end_resumes_by_the_event(connect, sandbox):
    """It reads the address of an object where an earlier leg has stored the id, which the service must not see."""
    connect("ent-v2")
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    generation_id = task.xcoms["generation_id"]
    task.xcoms |= dict.fromkeys(task.xcoms, "s3://bucket/xcom/d/r/t/0b1c")
    sandbox.advance(1000)
    event = {"version": 1, "outcome": "succeeded", "generation_id": generation_id}
    found = ViduGenerateOperator(**task.kwargs).execute_complete(task.context(), event)
    assert found["id"] == generation_id
    assert {one.id for one in sandbox.requests("query")} == {generation_id}


@pytest.mark.parametrize("leg", ["another's event", "given up"])
def test_a_resumed_task_that_is_refused(connect, sandbox, leg):
    """After another's event the trigger waits on; after a lost trigger the error leaves a retry possible."""
    connect(max_retries=0)
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    refuse(sandbox, 401)
    task.operator = ViduGenerateOperator(**task.kwargs)
    if leg == "another's event":
        with pytest.raises(TaskDeferred):
            task.operator.execute_complete(task.context(), {"outcome": "failed", "generation_id": "9"})
        return
    with pytest.raises(exceptions.ViduError, match="A retry resumes it") as caught:
        task.operator.resume_execution("__fail__", {"error": "Trigger timeout"}, task.context())
    assert caught.value.retryable


def test_a_refusal_does_not_hide_a_failure(connect, sandbox):
    """The look that follows a failure may be refused: the failure is what the user reads."""
    connect(max_retries=0)
    told = {"id": "g", "status": "failed", "error": "too many cats"}
    sandbox.add_fault({"match": {"kind": "query"}, "times": 1, "action": {"status": 200, "body": told}})
    refuse(sandbox, 403)
    with pytest.raises(exceptions.ViduGenerationFailedError, match="too many cats"):
        Task(deferrable=False).run()


@pytest.mark.fault(
    "orders", "a retry meets a failure that names no generation", outcome="clear error", says="nothing is resubmitted"
)
def test_a_failure_of_nobody_is_no_reason_to_pay_again(connect, sandbox):
    """A gateway's own error looks like a failure that may pass: taken for one, the retry would order a second job."""
    connect(max_retries=0)
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred):
        task.start()
    slip = {"status": "error", "error": {"code": "TooManyRequests", "message": "slow down"}}
    sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": {"status": 200, "body": slip}})
    with pytest.raises(exceptions.ViduResponseError, match=r"nothing is resubmitted.*slow down") as caught:
        task.start()
    assert caught.value.retryable
    sandbox.clear_faults()
    assert task.run()["id"] == sandbox.creates[0].id
    assert len(sandbox.creates) == 1


def test_no_create_waits_beyond_the_timeout(sandbox, connect, monkeypatch):
    """A service that asks for ten minutes before each repetition does not hold the worker of a task with 20 seconds."""
    connect("ent-v2")
    monkeypatch.setattr(retries.Backoff, "delay", DELAY)
    refusal = {"status": 521, "body": "down", "headers": {"Retry-After": "600"}}  # repeated: nothing was forwarded
    sandbox.add_fault({"match": {"kind": "create"}, "times": None, "action": refusal})
    with pytest.raises(exceptions.ViduError) as raised:
        Task(deferrable=False).start()
    assert raised.value.retry_after == 600
    assert len(sandbox.requests("create")) == 1
