"""Submitting once, against the sandbox's ledger: every window in which a worker can die."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from typing import Any
from unittest.mock import Mock

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.orders.lost_order import SETTLE_SECONDS
from airflow_provider_vidu.orders.media.prepared import Prepared
from airflow_provider_vidu.orders.order import Order, OrderRecord
from airflow_provider_vidu.orders.records import NullStore, RecordStore
from airflow_provider_vidu.orders.submission import Submission
from airflow_provider_vidu.sandbox import Sandbox
from tests.integration.servers import Server, fixed

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_backoff")]

BODY = {"model": "m", "prompt": "a cat with wings"}


class Memory(RecordStore):
    """A store that keeps the record as JSON, and can die at a given write."""

    def __init__(self, record: OrderRecord | None = None) -> None:
        self.stored = record.to_json() if record else None
        self.dies_at: int | None = None
        self.writes = 0

    def load(self) -> OrderRecord | None:
        """Return the record."""
        return OrderRecord.from_json(self.stored)

    def save(self, record: OrderRecord) -> None:
        """Keep the record, or die."""
        self.writes += 1
        if self.writes == self.dies_at:
            raise KeyboardInterrupt
        self.stored = record.to_json()

    def clear(self) -> None:
        """Forget the record."""
        self.stored = None

    def finished(self) -> None:
        """Do nothing."""


def run(store: Memory | None, *, number: int = 0, body: dict[str, Any] = BODY, **kwargs: Any) -> str:
    """Make one try of an order; return the id of its generation."""
    kwargs = {"sleep": lambda _: None, **kwargs}
    order = Order(number, number, counts_every_clear=True)
    return Submission(ViduHook(), store or NullStore(), order, logging.getLogger(), **kwargs).generation(body, None).id


def test_a_retry_goes_on_with_the_first_try(dialect, sandbox):
    """A retry after the id was stored finds the running generation and pays nothing."""
    store = Memory()
    first = run(store)
    assert run(store) == first
    assert len(sandbox.creates) == 1


def test_a_retry_takes_a_finished_generation(dialect, sandbox):
    """A retry after the generation has succeeded returns that one."""
    store = Memory()
    first = run(store)
    sandbox.advance(1000)
    assert run(store) == first
    assert len(sandbox.creates) == 1


def test_dying_before_the_intent_costs_nothing(dialect, sandbox):
    """A worker that dies before anything is stored has not submitted either."""
    store = Memory()
    store.dies_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(store)
    assert sandbox.creates == []
    run(store)
    assert len(sandbox.creates) == 1


def test_dying_between_answer_and_id(dialect, sandbox):
    """The window that cannot be closed: found by its marker, or an error instead of a second charge."""
    store = Memory()
    store.dies_at = 2
    with pytest.raises(KeyboardInterrupt):
        run(store)
    paid = sandbox.creates[0].id
    if dialect == "ent-v2":
        assert run(store) == paid
        assert store.load().generation_id == paid
    else:
        with pytest.raises(exceptions.ViduSubmitUnknownError, match="clear this task to submit a new one"):
            run(store)
    assert len(sandbox.creates) == 1


def test_an_id_that_cannot_be_recorded_is_not_thrown_away(dialect, sandbox, caplog):
    """Without a list nothing else leads to it: the try that has it continues, and the log names it."""

    class Down(Memory):
        def save(self, record: OrderRecord) -> None:
            if record.generation_id is not None:
                raise RuntimeError("the API server is down")
            super().save(record)

    store = Down()
    first = run(store)
    assert f"Generation {first} was submitted, not recorded (the API server is down)" in caplog.text
    assert store.load().generation_id is None  # so nothing is repeated blindly
    assert [create.id for create in sandbox.creates] == [first]
    store.returned()  # the task has succeeded, so a clear asks for another one
    assert run(store, number=1) != first


def test_an_id_is_recorded_as_soon_as_the_store_is_back(dialect, sandbox):
    """Right after the create, or when the task ends without waiting: a retry needs it."""
    down = [True, True, False]

    class Blinking(Memory):
        def save(self, record: OrderRecord) -> None:
            if record.generation_id is not None and down and down.pop(0):
                raise RuntimeError("the API server is down")
            super().save(record)

    for act in (Submission.record_again, Submission.handed_over):
        down[:] = [True, True, False] if act is Submission.record_again else [True]
        store = Blinking()
        submission = Submission(ViduHook(), store, Order(0), logging.getLogger(), sleep=lambda _: None)
        paid = submission.generation(BODY, None).id
        assert store.load().generation_id is None
        act(submission)
        assert store.load().generation_id == paid
    assert store.load().handed_over


def test_a_generation_that_cannot_be_handed_over_is_returned(dialect, sandbox, caplog, monkeypatch):
    """The task ends without waiting, and its id is the result: a failed try would throw it away."""
    store = Memory()
    submission = Submission(ViduHook(), store, Order(0), logging.getLogger())
    first = submission.generation(BODY, None).id
    monkeypatch.setattr(store, "save", Mock(side_effect=RuntimeError("the API server is down")))
    submission.handed_over()
    assert "A clear may cancel the generation" in caplog.text
    assert store.load().generation_id == first


def test_a_lost_answer(dialect, sandbox):
    """A create whose answer is lost is searched for at the next try, never repeated blindly."""
    store = Memory()
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"lose_answer": True}})
    expected = {
        "ent-v2": exceptions.ViduSubmitUncertainError,
        "vidu-native": exceptions.ViduSubmitUnknownError,
    }[dialect]
    with pytest.raises(expected):
        run(store)
    if dialect == "ent-v2":
        assert run(store) == sandbox.creates[0].id
    assert len(sandbox.creates) == 1


def test_a_create_that_never_arrived(dialect, sandbox):
    """An intent whose create was cut off before it was carried out: ent-v2 proves it and submits."""
    store = Memory()
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"reset": "before"}})
    with pytest.raises(exceptions.ViduError):
        run(store)
    assert sandbox.creates == []
    if dialect == "ent-v2":
        run(store)
        assert len(sandbox.creates) == 1
    else:
        with pytest.raises(exceptions.ViduSubmitUnknownError):
            run(store)


def test_an_incomplete_list_proves_nothing(connect, sandbox):
    """When the list has a further page and the marker is not on this one, nothing is submitted."""
    connect("ent-v2", max_retries=0)
    store = Memory(OrderRecord(0, "airflow:marker-0", time.time(), marked=True))
    body = {"tasks": [], "next_page_token": "more"}
    sandbox.add_fault({"match": {"kind": "list"}, "times": None, "action": {"status": 200, "body": body}})
    with pytest.raises(exceptions.ViduSubmitUnknownError):
        run(store)
    assert sandbox.creates == []


def test_a_refused_create_leaves_no_intent(dialect, sandbox):
    """A create that was refused for good is forgotten, so that a retry may submit."""
    store = Memory()
    sandbox.add_fault(
        {"match": {"kind": "create"}, "times": 1, "action": {"status": 400, "body": {"code": "bad", "message": "no"}}}
    )
    with pytest.raises(exceptions.ViduRequestError):
        run(store)
    assert store.load() is None
    run(store)
    assert len(sandbox.creates) == 1


def test_a_clear_is_a_new_order(dialect, sandbox):
    """After a clear a new generation is submitted, and the old one is cancelled where that is possible."""
    store = Memory()
    sandbox.set_speed(0)
    first = run(store)
    second = run(store, number=2)
    assert second != first
    assert len(sandbox.creates) == 2
    assert len(sandbox.requests("cancel", first)) == (1 if dialect == "ent-v2" else 0)


def lose_a_create(store: Memory, sandbox: Sandbox, body: dict[str, Any] = BODY) -> str:
    """Make a try whose create is carried out and not answered; return the id of its generation."""
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"lose_answer": True}})
    with pytest.raises(exceptions.ViduSubmitUncertainError, match="or clearing the task, searches for the generation"):
        run(store, body=body)
    return sandbox.creates[0].id


def test_a_clear_goes_on_with_a_create_of_unknown_outcome(connect, sandbox):
    """A task without retries is cleared: what may have been paid for is looked for first, and is not paid again."""
    connect("ent-v2")
    store = Memory()
    lost = lose_a_create(store, sandbox)
    assert run(store, number=1) == lost
    assert run(store, number=1) == lost
    assert len(sandbox.creates) == 1
    assert sandbox.requests("cancel") == []


def test_a_clear_with_another_request_cancels_what_was_lost(connect, sandbox):
    """Where the user has changed the request, the lost generation is found and cancelled, and a new one ordered."""
    connect("ent-v2")
    store = Memory()
    sandbox.set_speed(0)
    lost = lose_a_create(store, sandbox)
    assert run(store, number=1, body={**BODY, "prompt": "a dog"}) != lost
    assert [create.charge for create in sandbox.creates] == ["cancelled", "charged"]


def test_a_clear_orders_anew_after_a_lost_failure(connect, sandbox):
    """A new order does not resume a lost generation that has failed meanwhile."""
    connect("ent-v2")
    store = Memory()
    body = {**BODY, "prompt": "[fail:CreationPolicyViolation] a cat"}
    lost = lose_a_create(store, sandbox, body)
    sandbox.advance(1000)
    assert run(store, number=1, body=body) != lost
    assert len(sandbox.creates) == 2


def test_a_clear_of_what_cannot_be_found_is_told_once(connect, sandbox):
    """Where the list proves nothing, a clear fails with what the user must look at; the next one orders again."""
    connect("ent-v2", max_retries=0)
    store = Memory()
    lose_a_create(store, sandbox)
    body = {"tasks": [], "next_page_token": "more"}
    sandbox.add_fault({"match": {"kind": "list"}, "times": None, "action": {"status": 200, "body": body}})
    with pytest.raises(exceptions.ViduSubmitUnknownError, match="clear this task to submit a new one"):
        run(store, number=1)
    with pytest.raises(exceptions.ViduSubmitUnknownError):
        run(store, number=1)
    assert len(sandbox.creates) == 1
    run(store, number=2)
    assert len(sandbox.creates) == 2


PAGE = {"status": 200, "body": "<html>Welcome</html>", "headers": {"Content-Type": "text/html"}}
NO_LISTS = [
    {"status": 404, "body": {"message": "no such path"}},
    {"status": 403, "body": {"message": "not for you"}},
    {"status": 501, "body": {"message": "not here"}},
    {**PAGE, "status": 404},
    PAGE,
]
no_list = pytest.mark.parametrize("answer", NO_LISTS, ids=["404", "403", "501", "404 page", "200 page"])


def hide_the_list(sandbox: Sandbox, answer: dict[str, Any]) -> None:
    """Let the service answer as one does that has no list."""
    sandbox.add_fault({"match": {"kind": "list"}, "times": None, "action": answer})


@no_list
def test_a_service_without_a_list_spoils_no_retry(connect, sandbox, answer):
    """A create that was turned away is submitted by the retry, also where the service cannot be searched."""
    connect("ent-v2", max_retries=0)
    store = Memory()
    hide_the_list(sandbox, answer)
    busy = {"status": 429, "body": {"code": 429, "reason": "RateLimited", "message": "later"}}
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": busy})
    with pytest.raises(exceptions.ViduRateLimitError):
        run(store)
    run(store)
    assert len(sandbox.creates) == 1


@no_list
def test_a_service_without_a_list_cannot_find_what_was_lost(connect, sandbox, answer):
    """A create of unknown outcome stays unknown there: the error says that; a clear says it once more, and no more."""
    connect("ent-v2", max_retries=0)
    store = Memory()
    lose_a_create(store, sandbox)
    hide_the_list(sandbox, answer)
    for number in (0, 0, 1, 1):
        with pytest.raises(exceptions.ViduSubmitUnknownError, match="cannot be searched"):
            run(store, number=number)
    assert len(sandbox.creates) == 1
    run(store, number=2)
    assert len(sandbox.creates) == 2


def test_trouble_with_the_list_is_no_proof(connect, sandbox):
    """While the list is out of reach for a while, a retry may come; nothing is ordered and nothing is given up."""
    connect("ent-v2", max_retries=0)
    store = Memory()
    lost = lose_a_create(store, sandbox)
    hide_the_list(sandbox, {"status": 503, "body": {"message": "later"}})
    for number in (0, 1):
        with pytest.raises(exceptions.ViduServerError):
            run(store, number=number)
    sandbox.clear_faults()
    assert run(store, number=1) == lost
    assert len(sandbox.creates) == 1


def test_a_handed_over_generation_is_left_alone(dialect, sandbox):
    """A task that did not wait has handed its generation over: a later clear does not cancel it."""
    store = Memory()
    sandbox.set_speed(0)
    submission = Submission(ViduHook(), store, Order(0), logging.getLogger())
    submission.generation(BODY, None)
    submission.handed_over()
    run(store, number=1)
    assert sandbox.requests("cancel") == []


@pytest.mark.parametrize(("code", "creates"), [("InternalServiceFailure", 2), ("CreationPolicyViolation", 1)])
def test_only_a_failure_that_may_pass_is_submitted_again(connect, sandbox, code, creates):
    """A retry submits again after a failure of the service, and not after a refusal of the content."""
    connect("ent-v2")
    store = Memory()
    sandbox.add_generation("77", dialect="ent-v2", states=[["failed", 0]], error=code)
    store.save(OrderRecord(0, "airflow:marker-0", time.time(), True, "77"))
    if creates == 2:
        run(store)
    else:
        with pytest.raises(exceptions.ViduGenerationFailedError, match=code):
            run(store)
    assert len(sandbox.creates) == creates - 1


def test_what_failed_for_good_is_submitted_again_after_a_clear_beside_it(connect, sandbox):
    """Airflow does not retry what has failed for good: where the run counts another clear, a user wants a new one."""
    connect("ent-v2")
    sandbox.add_generation("77", dialect="ent-v2", states=[["failed", 0]], error="CreationPolicyViolation")
    store = Memory(OrderRecord(0, "airflow:marker-0", time.time(), True, "77", clears=0))
    order = Order(0, clears=1, counts_every_clear=True)
    run = Submission(ViduHook(), store, order, logging.getLogger(), sleep=lambda _: None)
    assert run.generation(BODY, None).id == sandbox.creates[0].id


class Gone(Prepared):
    """A request whose files can no longer be read."""

    def identity(self) -> Any:
        """Raise as a missing file does."""
        raise exceptions.ViduConfigError("the image is gone")


@pytest.mark.parametrize("number", [0, 1], ids=["a retry", "a clear"])
def test_inputs_that_are_gone(connect, sandbox, number):
    """A retry needs them no more; after a clear there would be nothing to send, so the clear fails before it."""
    connect("ent-v2")
    sandbox.add_generation("77", dialect="ent-v2", states=[["queueing", 0]])
    store = Memory(OrderRecord(0, "airflow:marker-0", time.time(), True, "77"))
    submission = Submission(ViduHook(), store, Order(number), logging.getLogger(), sleep=lambda _: None)
    if number == 0:
        assert submission.generation(Gone(BODY), None).id == "77"
    else:
        with pytest.raises(exceptions.ViduConfigError, match="the image is gone"):
            submission.generation(Gone(BODY), None)
    assert (sandbox.creates, sandbox.requests("cancel")) == ([], [])


def test_what_was_cancelled_is_submitted_again(connect, sandbox):
    """A generation that was cancelled has cost nothing: the retry submits a new one."""
    connect("ent-v2", max_retries=0)
    sandbox.set_speed(0)
    store = Memory()
    first = run(store)
    assert ViduHook().cancel_generation(first).accepted
    assert run(store) != first
    assert [create.charge for create in sandbox.creates] == ["cancelled", "charged"]


def test_orders_of_the_same_name_do_not_meet(connect, sandbox):
    """Two Airflows with one key may have the same DAG and run: none takes, or cancels, what the other has ordered."""
    connect("ent-v2", max_retries=0)
    sandbox.set_speed(0)
    production, staging = Memory(), Memory()
    theirs = run(production)
    sandbox.add_fault({"match": {"kind": "create"}, "times": 2, "action": {"reset": "before"}})
    for number in (0, 1):
        with pytest.raises(exceptions.ViduSubmitUncertainError):
            run(staging, number=number, body={**BODY, "prompt": f"a draft {number}"})
    assert run(staging, number=1) != theirs
    assert run(production) == theirs
    assert [create.charge for create in sandbox.creates] == ["charged", "charged"]
    payloads = [create.body["payload"] for create in sandbox.creates]
    assert len({*payloads}) == 2
    assert all(payload.startswith("airflow:") and len(payload) == 40 for payload in payloads)


def test_a_retry_of_another_request_says_so(dialect, sandbox, caplog):
    """A request that was changed between two tries is not paid for as well: the log tells how to order it."""
    store = Memory()
    first = run(store)
    assert run(store) == first
    assert "another request" not in caplog.text
    assert run(store, body={**BODY, "prompt": "a dog"}) == first
    assert f"Generation {first} was submitted with another request than this try's" in caplog.text


def test_what_was_killed_is_not_submitted(dialect, sandbox):
    """The check for an unwanted create runs right before each send, and nothing is remembered."""
    store = Memory()
    action = {"status": 503, "body": {"code": "get_channel_failed", "message": "later", "data": None}}
    sandbox.add_fault({"match": {"kind": "create"}, "times": None, "action": action})
    asked = []

    def check() -> None:
        asked.append(store.load())
        if len(asked) == 2:
            raise exceptions.ViduError("no longer wanted")

    with pytest.raises(exceptions.ViduError, match="no longer wanted"):
        run(store, before_send=check)
    assert [record is not None for record in asked] == [True, True]
    assert len(sandbox.requests("create")) == 1
    assert store.load() is None


@pytest.mark.parametrize("unknown", [2, 100])
def test_an_id_that_is_not_known_yet(dialect, sandbox, unknown):
    """Right after the create the service may not know the id: it is asked again, and not for ever."""
    store = Memory()
    first = run(store)
    sandbox.add_fault({"match": {"kind": "query"}, "times": unknown, "action": {"status": 404, "body": {}}})
    if unknown == 2:
        assert run(store) == first
    else:
        with pytest.raises(exceptions.ViduNotFoundError):
            run(store)
        assert len(sandbox.requests("query")) == 13
    store.save(dataclasses.replace(store.load(), at=time.time() - 61))
    sandbox.clear_faults()
    sandbox.add_fault({"match": {"kind": "query"}, "times": 1, "action": {"status": 404, "body": {}}})
    with pytest.raises(exceptions.ViduNotFoundError):
        run(store)
    assert len(sandbox.creates) == 1


def test_the_time_to_settle_begins_when_the_create_has_ended(connect, sandbox):
    """A create that the service took long over is not held for settled because it was sent long ago."""
    connect("ent-v2", max_retries=0, timeout=1)
    store, sleeps = Memory(), []
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"delay": 3}})
    with pytest.raises(exceptions.ViduSubmitUncertainError):
        run(store)
    run(store, sleep=sleeps.append)
    assert len(sleeps) == 1
    assert SETTLE_SECONDS - 0.9 < sleeps[0] <= SETTLE_SECONDS


def test_a_clock_that_was_ahead(connect, sandbox):
    """An intent of the future, by another worker's clock, is given the whole time to settle."""
    connect("ent-v2")
    sleeps: list[float] = []
    run(Memory(OrderRecord(0, "airflow:marker-0", time.time() + 3600, marked=True)), sleep=sleeps.append)
    assert sleeps == [SETTLE_SECONDS]


def test_not_durable_submits_every_time(dialect, sandbox):
    """durable=False has no memory: that is what it is for."""
    assert run(None) != run(None)
    assert len(sandbox.creates) == 2
    assert all("airflow:" not in str(create.body) for create in sandbox.creates)


def test_a_users_payload_is_kept(connect, sandbox):
    """A payload of the user's own is sent as it is; the order then cannot be searched for."""
    connect("ent-v2")
    store = Memory()
    run(store, body={**BODY, "payload": "mine"})
    assert sandbox.creates[0].body["payload"] == "mine"
    assert store.load().marked is False


def test_records_of_other_versions_are_read():
    """A record with fields that this version does not know is still understood."""
    record = OrderRecord(3, "m", 5.0, True, "g")
    assert OrderRecord.from_json({**record.to_json(), "new": 1}) == record
    assert OrderRecord.from_json("nonsense") is None
    assert dataclasses.asdict(record) == {**record.to_json(), "callback": "", "nudges": "", "service": ""}
    assert not {"callback", "nudges", "service"} & set(record.to_json())


@pytest.mark.parametrize("error", [exceptions.ViduConfigError("no"), RuntimeError("odd"), KeyboardInterrupt()])
@pytest.mark.parametrize("hook", ["before_order", "before_send"])
def test_what_stops_an_order_before_it_is_sent_leaves_no_record(dialect, sandbox, hook, error):
    """Whatever is raised before the first send, the next try submits at once instead of looking for a lost create."""

    def refuse() -> None:
        raise error

    store = Memory()
    with pytest.raises(type(error)):
        run(store, **{hook: refuse})
    assert (store.stored, sandbox.requests("create")) == (None, [])
    run(store)
    assert len(sandbox.creates) == 1


def test_a_refused_order_after_a_clear_forgets_nothing(connect, sandbox):
    """What was paid before the clear is known to the next one, with ``on_clear="resume"`` too."""
    connect("ent-v2")
    store = Memory()
    first = run(store)

    def refuse() -> None:
        raise exceptions.ViduConfigError("no")

    with pytest.raises(exceptions.ViduConfigError):
        run(store, number=2, body={**BODY, "prompt": "a dog"}, on_clear="resume", cancel_abandoned=False,
            before_send=refuse)  # fmt: skip
    assert run(store, number=4, on_clear="resume") == first
    assert len(sandbox.creates) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"code": "rate_limit", "task_id": "task_947", "message": "slow down", "data": None}),
        (500, {"code": "unmarshal_response_failed", "message": '{"task_id": "task_947"}', "data": None}),
    ],
    ids=["429", "500"],
)
def test_an_error_that_names_the_generation(monkeypatch, status, body):
    """It is sent once, and where there is no list the retry picks up what the error names instead of failing."""
    store = Memory()
    done = {"id": "task_947", "status": "processing", "progress": 5}
    replies = [fixed(status, json.dumps(body).encode()), fixed(200, json.dumps(done).encode())]
    with Server(*replies) as server:
        conn = {"conn_type": "vidu", "host": server.url(""), "password": "long-enough", "extra": {"max_retries": 3}}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(conn))
        with pytest.raises(exceptions.ViduSubmitUncertainError, match="that the answer names"):
            run(store)
        assert run(store) == "task_947"
    assert [request.method for request in server.requests] == ["POST", "GET"]
