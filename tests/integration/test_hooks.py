"""The hook against the sandbox, over real sockets, in both dialects."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.models import Cancellation, GenerationStatus
from tests.integration.conftest import KEY

pytestmark = pytest.mark.integration


def test_from_prompt_to_url(dialect, sandbox):
    """A submitted generation is waited for and hands out a URL; it is billed once."""
    hook = ViduHook()
    submitted = hook.create_generation(prompt="a cat with wings", model="viduq3-turbo")
    done = hook.wait(submitted.id, timeout=20, poll_interval=0.1)
    assert done.status is GenerationStatus.SUCCEEDED
    assert done.id == submitted.id
    assert done.video_url.startswith(sandbox.url)
    assert len(sandbox.creates) == 1


def test_sync_and_async_agree(dialect, sandbox):
    """Both clients read the same answer the same way."""
    hook = ViduHook()
    submitted = hook.create_generation(prompt="the same", model="m")
    sandbox.set_speed(0)
    assert asyncio.run(hook.aget_generation(submitted.id)) == hook.get_generation(submitted.id)


def test_constructing_does_no_io(monkeypatch):
    """A hook to a connection that does not exist can be made; only its use fails, naming the connection."""
    hook = ViduHook("vidu_nowhere")
    with pytest.raises(exceptions.ViduConnectionNotFoundError, match="vidu_nowhere"):
        hook.get_generation("x")


@pytest.mark.parametrize("generation_id", ["grok:299604b7/a^b", "830674162707124224^^vidu-2.0^^0", "ünï ☃ %2F?#"])
def test_odd_ids_travel(connect, sandbox, generation_id):
    """Ids with a colon, a slash, carets or unicode reach the service as they are, on both clients."""
    connect()
    sandbox.add_generation(generation_id, states=[["processing", 0]])
    assert ViduHook().get_generation(generation_id).id == generation_id
    assert asyncio.run(ViduHook().aget_generation(generation_id)).id == generation_id
    assert len(sandbox.requests("query", generation_id)) == 2


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_passing_fault_is_survived(dialect, sandbox, quick_backoff, status):
    """Errors that may pass are repeated up to max_retries, on both clients."""
    hook = ViduHook()
    submitted = hook.create_generation(prompt="x", model="m")
    for ask in (hook.get_generation, lambda name: asyncio.run(hook.aget_generation(name))):
        sandbox.add_fault(
            {"match": {"kind": "query"}, "times": 2, "action": {"status": status, "body": "<html>no</html>"}}
        )
        assert ask(submitted.id).id == submitted.id


def test_the_retries_are_counted(dialect, sandbox, quick_backoff):
    """With max_retries=2 three requests are sent and the error says what happened to which generation."""
    hook = ViduHook()
    submitted = hook.create_generation(prompt="x", model="m")
    sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": {"status": 500}})
    with pytest.raises(exceptions.ViduServerError) as caught:
        hook.get_generation(submitted.id)
    assert len(sandbox.requests("query")) == 3
    assert submitted.id in str(caught.value)
    assert "vidu_default" in str(caught.value)


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ({"garbage": "html"}, exceptions.ViduResponseError),
        ({"garbage": "truncated-json"}, exceptions.ViduResponseError),
        ({"garbage": "list"}, exceptions.ViduResponseError),
        ({"garbage": "empty"}, exceptions.ViduResponseError),
        ({"garbage": "huge"}, exceptions.ViduResponseError),
        ({"reset": "before"}, exceptions.ViduTransportError),
        ({"reset": "body", "after": 0.5}, exceptions.ViduTransportError),
        ({"delay": 5}, exceptions.ViduTransportError),
        ({"redirect": "http://127.0.0.1:9/"}, exceptions.ViduResponseError),
        ({"status": 401, "body": {"error": {"message": "no", "code": "x"}}}, exceptions.ViduAuthError),
    ],
)
def test_both_clients_raise_the_same(connect, sandbox, action, error):
    """Whatever goes wrong, the sync and the async client raise the same class, naming the generation."""
    # Megabytes of garbage take a while on a busy machine; only a silent service has to be given up.
    connect(timeout=1 if "delay" in action else 20, max_retries=0)
    sandbox.add_generation("g", states=[["processing", 0]])
    sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": action})
    for ask in (ViduHook().get_generation, lambda name: asyncio.run(ViduHook().aget_generation(name))):
        with pytest.raises(error, match="generation g, connection vidu_default") as caught:
            ask("g")
        assert "Pool" not in str(caught.value)  # a class of ours


@pytest.mark.vidu_sandbox(surplus_fields="ignore")
def test_the_request_is_told_in_a_group(dialect, sandbox, capsys, quick_backoff):
    """The log shows what is submitted, folded, without image bytes, signatures or the key, and once for all repeats."""
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"status": 429}})
    image = "data:image/png;base64,iVBORw0KGgoA" + "QUJD" * 500
    ViduHook().create_generation(
        prompt=f"a cat, {sandbox.key}", model="m", images=[image], style="https://x.y/z?sig=hush"
    )
    out = capsys.readouterr().out
    begin, end = out.index("::group::Request to "), out.index("::endgroup::")
    group = out[begin:end]
    assert out.count("::group::") == 1
    assert end < out.index("Submitted generation")
    assert "prompt: a cat, ***" in group
    assert "(inline image/png, 2.0 kB in the request)" in group
    for secret in ("QUJD", "hush", sandbox.key):
        assert secret not in out


def test_an_unanswered_create_is_never_repeated(dialect, sandbox):
    """When the answer to a create is lost, nothing is sent again and the error says how to go on."""
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"lose_answer": True}})
    with pytest.raises(exceptions.ViduSubmitUnknownError, match="may have been billed"):
        ViduHook().create_generation(prompt="x", model="m")
    assert len(sandbox.creates) == 1


def test_a_throttled_create_is_repeated(dialect, sandbox, quick_backoff):
    """429 means that nothing was created, so the create is sent again and billed once."""
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"status": 429, "body": ""}})
    ViduHook().create_generation(prompt="x", model="m")
    assert len(sandbox.creates) == 1
    assert len(sandbox.requests("create")) == 2


def test_a_new_key_is_noticed(dialect, sandbox, connect):
    """A key that was rotated while the hook lives is read again from the connection."""
    hook = ViduHook()
    submitted = hook.create_generation(prompt="x", model="m")
    sandbox.rotate_keys(["sk-rotated-77d2"])
    connect(dialect)
    assert hook.get_generation(submitted.id).id == submitted.id


def test_a_failed_generation(dialect, sandbox):
    """Waiting for a failed generation raises its reason and its id."""
    hook = ViduHook()
    submitted = hook.create_generation(prompt="[fail:CreationPolicyViolation] x", model="m")
    with pytest.raises(exceptions.ViduGenerationFailedError, match=submitted.id) as caught:
        hook.wait(submitted.id, timeout=20, poll_interval=0.05)
    assert caught.value.code == "CreationPolicyViolation"


def test_the_wait_is_bounded(dialect, sandbox):
    """A time-out tells how long was waited, in which state, for which generation."""
    hook = ViduHook()
    submitted = hook.create_generation(prompt="[slow] x", model="m")
    with pytest.raises(
        exceptions.ViduTimeoutError, match=r"Gave up waiting after .* last known state is (waiting|running)"
    ):
        hook.wait(submitted.id, timeout=0.2, poll_interval=0.05)


def test_connection_verdicts(dialect, sandbox, monkeypatch):
    """test_connection() tells apart: fine, key refused, not Vidu, cannot reach, not configured."""
    assert ViduHook().test_connection() == (True, f"Fine: {sandbox.url} speaks {dialect} and accepts the key.")
    sandbox.add_fault({"match": {}, "action": {"garbage": "html"}})
    assert "not a Vidu service" in ViduHook().test_connection()[1]
    sandbox.rotate_keys(["another"])
    assert "key was refused" in ViduHook().test_connection()[1]
    monkeypatch.setenv(
        "AIRFLOW_CONN_DEAD", '{"conn_type": "vidu", "host": "http://127.0.0.1:1", "password": "k-12345"}'
    )
    verdict = ViduHook("dead").test_connection()[1]
    assert "Cannot reach" in verdict
    assert "failed: 127.0.0.1:1: Failed to establish a new connection" in verdict  # not a class of ours
    monkeypatch.setenv("AIRFLOW_CONN_BARE", '{"conn_type": "vidu", "host": "http://127.0.0.1:1"}')
    verdict = ViduHook("bare").test_connection()
    assert verdict[0] is False
    assert "API key is missing" in verdict[1]


def test_the_key_is_nowhere_to_be_seen(dialect, sandbox, caplog):
    """Neither repr nor log lines nor errors hold the key, even where the service quotes it."""
    caplog.set_level(logging.DEBUG)
    hook = ViduHook()
    key = sandbox.key
    sandbox.add_fault(
        {"match": {"kind": "query"}, "action": {"status": 400, "body": {"code": "x", "message": f"bad token {key}"}}}
    )
    with pytest.raises(exceptions.ViduRequestError) as caught:
        hook.get_generation("1234567")
    seen = (
        repr(hook)
        + repr(hook.config)
        + repr(vars(hook))
        + str(caught.value)
        + repr(caught.value.details())
        + caplog.text
    )
    assert key not in seen
    assert "***" in str(caught.value)


def test_the_key_never_follows_a_redirect(connect, sandbox):
    """A redirect is an error: the key never follows it."""
    connect(max_retries=0)
    sandbox.add_fault({"match": {"kind": "query"}, "action": {"redirect": f"{sandbox.url}/elsewhere"}})
    with pytest.raises(exceptions.ViduResponseError, match="not sent to a redirect's target"):
        ViduHook().get_generation("g")
    assert len(sandbox.requests()) == 1


def test_balance_and_list(connect, sandbox):
    """ent-v2 tells what is left and lists what was submitted; vidu-native says that it cannot."""
    connect("ent-v2")
    hook = ViduHook()
    first, second = (hook.create_generation(prompt=prompt, model="m").id for prompt in ("x", "y"))
    assert hook.get_credits().remaining == 100_000 - 2 * 80
    assert {generation.id for generation in hook.list_generations()} == {first, second}
    connect("vidu-native")
    for ask in (ViduHook().get_credits, ViduHook().list_generations):
        with pytest.raises(exceptions.ViduConfigError, match="vidu-native has no"):
            ask()


@pytest.mark.parametrize("way", ["sync", "async"])
def test_cancel(connect, sandbox, way):
    """What waits is cancelled, what runs is not, and vidu-native has no cancel; none of it raises."""

    def cancel(name: str) -> Cancellation:
        return ViduHook().cancel_generation(name) if way == "sync" else asyncio.run(ViduHook().acancel_generation(name))

    connect("ent-v2")
    sandbox.set_speed(0)
    waiting, running = (ViduHook().create_generation(prompt=prompt, model="m").id for prompt in ("x", "y"))
    assert cancel(waiting).accepted
    sandbox.advance(30)
    refused = cancel(running)
    assert not refused
    assert "scheduled" in refused.reason
    connect("vidu-native")
    assert "cannot be cancelled" in cancel("x").reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"body": "x"}, "body must be a JSON object, not str"),
        ({"body": {}}, "nothing to submit"),
        ({"prompt": None}, "nothing to submit"),
    ],
)
def test_an_order_of_nothing_is_not_sent(dialect, sandbox, arguments, message):
    """An empty request, or one that is none, costs nothing."""
    with pytest.raises(exceptions.ViduConfigError, match=message):
        ViduHook().create_generation(**arguments)
    assert sandbox.creates == []


def test_spans_of_time_may_be_timedeltas(dialect, sandbox):
    """As in the operators; what is neither that nor a number is refused by its name."""
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0]])
    with pytest.raises(exceptions.ViduTimeoutError):
        ViduHook().wait("123", timedelta(seconds=0.2), poll_interval=timedelta(seconds=0.05))
    for name, wrong in (("timeout", "1"), ("poll_interval", "1"), ("poll_interval", 0), ("max_failures", "x")):
        with pytest.raises(exceptions.ViduConfigError, match=name):
            ViduHook().wait("123", **{name: wrong})


@pytest.mark.parametrize("method", ["get_credits", "list_generations"])
def test_errors_about_the_account_name_the_connection(connect, sandbox, method):
    """There is no generation to name; the connection is."""
    connect("ent-v2")
    sandbox.rotate_keys(["another"])
    with pytest.raises(exceptions.ViduAuthError, match="connection vidu_default"):
        getattr(ViduHook(), method)()


@pytest.mark.parametrize("wrong", ["0", "-1", "abc", "2.5"])
async def test_the_number_of_sockets_must_be_one(connect, sandbox, monkeypatch, wrong):
    """Without sockets a wait would never end; the setting is named."""
    connect()
    monkeypatch.setenv("AIRFLOW__VIDU__MAX_CONNECTIONS", wrong)
    with pytest.raises(exceptions.ViduConfigError, match=r"\[vidu\] max_connections .* whole number above 0"):
        await ViduHook().aget_generation("123")


class Lazy(Sequence[str]):
    """The outputs of a mapped task, as a @task gets them: a sequence, and no list."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return ["https://e/a.png"][index]


def test_what_a_task_hands_to_the_hook(connect, sandbox):
    """Lazy sequences, enums and decimals are JSON; what cannot be is named by its field, and nothing is sent."""
    connect("ent-v2")
    model = enum.Enum("model", {"Q2": "viduq2"}).Q2
    ViduHook().create_generation(model=model, prompt="x", images=Lazy(), duration=Decimal(4))
    created = ViduHook().request("POST", "/ent/v2/img2video", {"model": model, "images": Lazy()})
    assert [create.body["images"] for create in sandbox.creates] == [["https://e/a.png"]] * 2
    assert (sandbox.creates[0].body["duration"], created["model"]) == (4, "viduq2")
    with pytest.raises(exceptions.ViduConfigError, match=r"duration holds .*Give the number of seconds"):
        ViduHook().create_generation(prompt="x", duration=timedelta(seconds=4))
    assert len(sandbox.requests("create")) == 2


def test_a_request_of_ones_own(connect, sandbox, capsys):
    """What has no method of its own is sent with the key and read as JSON; a POST may say that it costs nothing."""
    connect("ent-v2")
    sandbox.set_speed(0)  # it is still queued when it is cancelled
    hook = ViduHook()
    created = hook.request("post", "/ent/v2/text2video", {"model": "viduq3-turbo", "prompt": "x"})
    assert created["task_id"] == sandbox.creates[0].id
    assert hook.request("GET", "/ent/v2/tasks?pager.page=0")["tasks"][0]["id"] == created["task_id"]
    assert hook.request("POST", f"/ent/v2/tasks/{created['task_id']}/cancel", {}, bills=False) in ({}, None)
    assert KEY not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("method", "bills", "sent", "error"),
    [
        ("POST", None, 1, exceptions.ViduSubmitUnknownError),
        ("POST", False, 3, exceptions.ViduServerError),
        ("PUT", True, 1, exceptions.ViduSubmitUnknownError),
        ("PUT", None, 3, exceptions.ViduServerError),
        ("GET", None, 3, exceptions.ViduServerError),
    ],
)
def test_a_request_of_ones_own_that_bills_is_not_repeated(connect, sandbox, quick_backoff, method, bills, sent, error):
    """After a failure of the service the outcome of what bills is unknown; everything else is repeated."""
    connect("ent-v2", max_retries=2)
    sandbox.add_fault({"match": {}, "times": None, "action": {"status": 500, "body": "{}"}})
    with pytest.raises(error) as caught:
        ViduHook().request(method, "/ent/v2/subjects?secret=hidden", {} if method != "GET" else None, bills=bills)
    assert len(sandbox.requests()) == sent
    assert caught.value.conn_id == "vidu_default"
    assert "hidden" not in str(caught.value)
    assert error is not exceptions.ViduSubmitUnknownError or f"{method} /ent/v2/subjects" in str(caught.value)


@pytest.mark.parametrize("status", [200, 400])
def test_an_error_answer_to_a_request_of_ones_own(connect, sandbox, status):
    """Error answers are the errors of the tree, also with a status of success; an empty body is None."""
    connect("ent-v2")
    body = {"code": "FieldLacking", "message": "name is required", "data": None}
    sandbox.add_fault({"match": {}, "times": 1, "action": {"status": status, "body": body}})
    with pytest.raises(exceptions.ViduRequestError, match="name is required"):
        ViduHook().request("POST", "/ent/v2/subjects", {"images": []})
    sandbox.add_fault({"match": {}, "times": 1, "action": {"status": 200, "body": ""}})
    assert ViduHook().request("DELETE", "/ent/v2/subjects/1") is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("GET", "ent/v2/subjects"), "path must start with one slash"),
        (("GET", "//other.example.com/x"), "path must start with one slash"),
        (("GET", "https://other.example.com/x"), "path must start with one slash"),
        (("GET", "/a b"), "percent-encoded"),
        (("GET", "/a#b"), "percent-encoded"),
        (("GET", "/a\r\nX: y"), "percent-encoded"),
        (("GET", "/ä"), "percent-encoded"),
        (("GET", None), "path must start"),
        (("FETCH", "/a"), "method must be one of GET"),
        ((None, "/a"), "method must be one of GET"),
        (("POST", "/a", ["x"]), "json must be a JSON object, not list"),
        (("POST", "/a", {"x": b"y"}), "JSON"),
    ],
)
def test_a_request_of_ones_own_that_cannot_be_sent(connect, sandbox, arguments, told):
    """A wrong argument is named, and nothing is sent: the key stays at the connection's host."""
    connect("ent-v2")
    with pytest.raises(exceptions.ViduConfigError, match=told):
        ViduHook().request(*arguments)
    assert sandbox.requests() == []


def test_a_refused_model_is_named(connect, sandbox):
    """A typo in the model's name is a final refusal that names it, and never a create of unknown outcome."""
    connect()
    body = {"error": {"code": "model_not_found", "message": "no channel (request id: r1)", "type": "new_api_error"}}
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"status": 503, "body": body}})
    with pytest.raises(exceptions.ViduRequestError, match=r"name is wrong, or.*switched off.*viduq9.*r1") as caught:
        ViduHook().create_generation(model="viduq9", prompt="x")
    assert not caught.value.retryable
    assert sandbox.creates == []
