"""The sensor in its three modes, against the sandbox."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException, TaskDeferred

from airflow_provider_vidu import exceptions, sensors
from airflow_provider_vidu.sandbox import Sandbox
from airflow_provider_vidu.sensors import ViduGenerationSensor
from tests.versions import AIRFLOW

FAST = 5000
"""Sandbox seconds per second: what takes ten seconds at the fixture's speed is over in a tenth."""

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]


def sensor(**kwargs: Any) -> ViduGenerationSensor:
    """Make a sensor for generation 123 that pokes quickly."""
    return ViduGenerationSensor(
        **{"task_id": "wait", "generation_id": "123", "poke_interval": 0.05, "timeout": 20, **kwargs}
    )


def run_deferred(task: ViduGenerationSensor, context: dict[str, Any], sandbox: Sandbox) -> Any:
    """Execute until the task defers, run its trigger, and resume a fresh instance, as Airflow does.

    The sandbox's clock all but stands until the task has deferred, however slow the machine is.
    """
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    sandbox.set_speed(FAST)

    async def first_event() -> Any:
        async for event in deferred.value.trigger.run():
            return event.payload
        raise AssertionError("the trigger fired nothing")

    event = json.loads(json.dumps(asyncio.run(first_event())))
    fresh = sensor(deferrable=True, soft_fail=task.soft_fail)
    return fresh.resume_execution(deferred.value.method_name, {"event": event}, context)


def run(task: ViduGenerationSensor, context: dict[str, Any], sandbox: Sandbox) -> Any:
    """Run a task to its end, deferred or in the worker."""
    if task.deferrable:
        return run_deferred(task, context, sandbox)
    sandbox.set_speed(FAST)
    return task.execute(context)


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "poke"])
def test_it_returns_the_generation(dialect, sandbox, context, deferrable):
    """Both ways end with the succeeded generation as plain JSON, with a URL."""
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0], ["success", 500]])
    task = sensor(deferrable=deferrable)
    found = run(task, context, sandbox)
    assert json.loads(json.dumps(found)) == found
    assert (found["id"], found["status"]) == ("123", "succeeded")
    assert found["video_url"].startswith(sandbox.url)


def test_a_finished_generation_needs_no_deferral(dialect, sandbox, context):
    """The worker looks first: what is already done never reaches the triggerer."""
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    assert sensor(deferrable=True).execute(context)["status"] == "succeeded"
    assert len(sandbox.requests("query")) == 1


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "poke"])
def test_a_failed_generation_fails_without_a_retry(dialect, sandbox, context, deferrable):
    """The error is one that Airflow never retries, with reason, id and code."""
    sandbox.add_generation(
        "123", dialect=dialect, states=[["processing", 0], ["failed", 500]], error="AuditSubmitIllegal"
    )
    task = sensor(deferrable=deferrable)
    with pytest.raises(
        exceptions.ViduGenerationFailedError, match=r"generation 123, .*code AuditSubmitIllegal"
    ) as caught:
        run(task, context, sandbox)
    assert not caught.value.retryable


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "poke"])
def test_a_time_out_tells_state_and_id(dialect, sandbox, context, deferrable):
    """The time-out is Airflow's own kind of error and says how long, which state, which id."""
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0]])
    task = sensor(deferrable=deferrable, timeout=0.3)
    with pytest.raises(AirflowSensorTimeout, match=r"last known state is running.*generation 123"):
        run(task, context, sandbox)


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "poke"])
@pytest.mark.parametrize("fault", ["failed", "timeout"])
def test_soft_fail_skips(dialect, sandbox, context, deferrable, fault):
    """With soft_fail a failure and a time-out skip the task instead."""
    states = [["processing", 0], ["failed", 500]] if fault == "failed" else [["processing", 0]]
    sandbox.add_generation("123", dialect=dialect, states=states)
    task = sensor(deferrable=deferrable, soft_fail=True, timeout=0.3 if fault == "timeout" else 20)
    reason = "ended as" if fault == "failed" else "Gave up waiting after.*last known state is running"
    with pytest.raises(AirflowSkipException, match=f"{reason}.*123"):
        run(task, context, sandbox)


@pytest.mark.parametrize("soft_fail", [False, True], ids=["fails", "skips"])
def test_a_wait_that_no_triggerer_took_up(dialect, sandbox, context, soft_fail):
    """Given up by Airflow after the time-out, it looks once more: done is done, and the error says what happened."""
    given_up = ("__fail__", {"error": "Trigger timeout"}, context)
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0]])
    if soft_fail:
        with pytest.raises(AirflowSkipException, match=r"no triggerer .*generation 123"):
            sensor(deferrable=True, soft_fail=True).resume_execution(*given_up)
        return
    with pytest.raises(AirflowSensorTimeout, match=r"no triggerer .* state is running.*generation 123"):
        sensor(deferrable=True).resume_execution(*given_up)
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    assert sensor(deferrable=True).resume_execution(*given_up)["status"] == "succeeded"


def test_soft_fail_counts_before_the_deferral(dialect, sandbox, context):
    """A generation that has failed already skips in the first leg as well."""
    sandbox.add_generation("123", dialect=dialect, states=[["failed", 0]])
    with pytest.raises(AirflowSkipException, match="123"):
        sensor(deferrable=True, soft_fail=True).execute(context)


def test_trouble_is_sat_out_in_the_worker(dialect, sandbox, context):
    """Failing polls in poke mode are repeated within the budget instead of failing the task."""
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    sandbox.add_fault({"match": {"kind": "query"}, "times": 4, "action": {"status": 502, "body": "<html>"}})
    assert sensor(max_failures=4).execute(context)["status"] == "succeeded"
    sandbox.add_fault({"match": {"kind": "query"}, "times": 5, "action": {"status": 502, "body": "<html>"}})
    with pytest.raises(exceptions.ViduServerError, match="5 polls in a row"):
        sensor(max_failures=4).execute(context)


def test_trouble_does_not_prevent_the_deferral(dialect, sandbox, context):
    """A service that is down when the sensor starts is the triggerer's to wait for."""
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    sandbox.add_fault({"match": {"kind": "query"}, "times": 3, "action": {"status": 503}})
    assert run_deferred(sensor(deferrable=True), context, sandbox)["status"] == "succeeded"


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 asks its database for the first poke; see tests/matrix")
def test_reschedule_pokes_once(dialect, sandbox, context):
    """One poke of a rescheduled sensor sends one request and says "not yet"."""
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0]])
    assert sensor(mode="reschedule").poke(context) is False
    assert len(sandbox.requests("query")) == 1


def test_the_trigger_row_holds_no_secret(dialect, sandbox, context):
    """What is stored for the trigger: ids and numbers; neither key nor URL nor host."""
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0]])
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True, timeout=3600).execute(context)
    path, kwargs = deferred.value.trigger.serialize()
    assert path == "airflow_provider_vidu.triggers.ViduGenerationTrigger"
    assert sandbox.key not in json.dumps(kwargs)
    assert "http" not in json.dumps(kwargs)
    assert deferred.value.timeout > timedelta(seconds=3600)


def test_the_id_is_checked_first(context):
    """An id that an upstream task failed to hand over is named as such before any request."""
    with pytest.raises(exceptions.ViduConfigError, match="returned no id"):
        sensor(generation_id="None").execute(context)


def test_a_bad_budget_fails_at_parse():
    """A negative budget is refused when the DAG is parsed."""
    with pytest.raises(exceptions.ViduConfigError, match="max_failures"):
        sensor(max_failures=-1)


def test_an_interval_of_nothing_fails_at_parse():
    """Polling without a pause is refused when the DAG is parsed."""
    with pytest.raises(exceptions.ViduConfigError, match="more than 0 seconds"):
        sensor(poke_interval=0)


def test_an_event_of_another_generation_is_not_believed(dialect, sandbox, context):
    """The event of an orphaned trigger neither ends nor fails the wait; it goes on."""
    stale = {"outcome": "failed", "generation_id": "9", "error": {"type": "ViduGenerationFailedError"}}
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0]])
    with pytest.raises(TaskDeferred):
        sensor(deferrable=True).execute_complete(context, stale)
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    assert sensor(deferrable=True).execute_complete(context, stale)["id"] == "123"


def test_an_event_that_is_none_of_ours_is_refused(context):
    """An event that is not understood fails loudly."""
    with pytest.raises(exceptions.ViduError, match="Cannot read the trigger"):
        sensor().execute_complete(context, {"status": "ok"})


@pytest.mark.parametrize(
    ("asked", "adaptive"),
    [({}, True), ({"poke_interval": 15}, False), ({"poke_interval": timedelta(seconds=15)}, False),
     ({"exponential_backoff": True}, False)],
    ids=["left out", "seconds", "timedelta", "a growing interval"],
)  # fmt: skip
def test_the_interval_of_a_user_is_kept(connect, sandbox, context, asked, adaptive):
    """A deferred wait follows the schedule only if no interval is set."""
    connect()
    sandbox.add_generation("123", states=[["processing", 0]])
    task = ViduGenerationSensor(task_id="wait", generation_id="123", deferrable=True, **asked)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    assert (deferred.value.trigger.poll_interval, deferred.value.trigger.adaptive) == (15.0, adaptive)


def test_a_mapped_sensor_keeps_the_default():
    """Mapping over the ids neither loses the adaptive default nor a set interval."""
    from airflow.providers.common.compat.sdk import DAG

    with DAG("mapped"):
        left_out = ViduGenerationSensor.partial(task_id="a").expand(generation_id=["1"])
        was_set = ViduGenerationSensor.partial(task_id="b", poke_interval=15).expand(generation_id=["1"])
    assert left_out.unmap({"generation_id": "1"})._adaptive
    assert not was_set.unmap({"generation_id": "1"})._adaptive


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), 1e12, timedelta(days=4000)])
def test_a_time_out_that_no_date_can_hold(timeout):
    """It is refused when the DAG is parsed, and not where the wait begins."""
    with pytest.raises(exceptions.ViduConfigError, match="at most ten years"):
        sensor(timeout=timeout)


def test_a_wait_never_grows_backwards():
    """A longest wait of nothing would be polls without a pause."""
    for wrong in (timedelta(seconds=-5), timedelta()):
        with pytest.raises(exceptions.ViduConfigError, match="max_wait must be more than 0 seconds"):
            sensor(exponential_backoff=True, max_wait=wrong)


@pytest.mark.fault(
    "from Airflow", "a whole generation as generation_id", outcome="refused", says="Pass generation=generate.output"
)
def test_a_whole_generation_as_id(context):
    """The most likely slip, the XCom of the generate task as it is, is refused with what to write instead."""
    with pytest.raises(exceptions.ViduConfigError, match=r"not dict. Pass generation=generate.output, or just the id"):
        sensor(generation_id={"id": "123"}).execute(context)


@pytest.mark.fault(
    "polling",
    "the connection is deleted between two pokes",
    outcome="survived",
    side="sync",
    seen="the next poke looks again",
)
@pytest.mark.parametrize(("minutes", "is_first"), [(5, False), (None, True)], ids=["later poke", "first poke"])
def test_a_connection_that_was_deleted_between_two_pokes(context, monkeypatch, minutes, is_first):
    """A rescheduled wait pauses: the next poke looks again. At the first poke a missing connection is a mistake."""
    begun = None if minutes is None else datetime.now(UTC) - timedelta(minutes=minutes)
    monkeypatch.setattr(sensors, "_first_poke", lambda _context: begun)
    task = sensor(mode="reschedule", vidu_conn_id="vidu_gone", timeout=3600)
    if is_first:
        with pytest.raises(exceptions.ViduConnectionNotFoundError):
            task.poke(context)
    else:
        assert task.poke(context) is False


@pytest.mark.fault(
    "from Airflow",
    "a whole generation is handed over",
    outcome="survived",
    side="sensor",
    seen="the generation, with what its order knows",
)
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "poke"])
def test_what_a_task_returned(dialect, sandbox, deferrable):
    """The whole generation may be handed over; what only its order knows is in the result."""
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    handed = {
        "id": "123", "status": "waiting", "prompt": "a cat", "model": "m", "created_at": "2026-11-25T00:00:00Z",
        "parameters": {"seed": 7},
    }  # fmt: skip
    found = sensor(generation_id=None, generation=handed, deferrable=deferrable).execute({})
    assert (found["id"], found["status"]) == ("123", "succeeded")
    if dialect == "ent-v2":
        assert {name: found[name] for name in ("prompt", "created_at")} == {
            name: handed[name] for name in ("prompt", "created_at")
        }
    assert found["parameters"] == {"seed": 7}


def test_a_generation_that_is_deferred(dialect, sandbox, context):
    """The trigger watches its id, and the resumed task finds it again in what was handed over."""
    sandbox.add_generation("123", dialect=dialect, states=[["processing", 0], ["success", 500]])
    task = sensor(generation_id=None, generation={"id": "123", "parameters": {}}, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    assert deferred.value.trigger.generation_id == "123"
    sandbox.set_speed(FAST)
    event = {"version": 1, "outcome": "succeeded", "generation_id": "123"}
    fresh = sensor(generation_id=None, generation={"id": "123", "parameters": {}}, deferrable=True)
    assert fresh.resume_execution("execute_complete", {"event": event}, context)["parameters"] == {}


@pytest.mark.fault(
    "from Airflow",
    "native rendering makes a number of an id",
    outcome="survived",
    side="sensor",
    seen="the generation of that id",
)
def test_an_id_that_native_rendering_made_a_number(connect, sandbox, context):
    """Ids of digits arrive as whole numbers in a DAG with native rendering, in every leg."""
    connect("ent-v2")
    sandbox.add_generation("123", dialect="ent-v2", states=[["processing", 0], ["success", 500]])
    task = sensor(generation_id=123, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    assert deferred.value.trigger.generation_id == "123"
    sandbox.set_speed(FAST)
    event = {"version": 1, "outcome": "succeeded", "generation_id": "123"}
    fresh = sensor(generation_id=123, deferrable=True)
    assert fresh.resume_execution("execute_complete", {"event": event}, context)["id"] == "123"


@pytest.mark.parametrize("arguments", [
    {"generation_id": None}, {"generation_id": "1", "generation": {"id": "1"}},
])  # fmt: skip
def test_a_generation_is_named_once(arguments):
    """Neither and both are refused when the DAG is parsed."""
    with pytest.raises(exceptions.ViduConfigError, match="generation"):
        sensor(**arguments)


@pytest.mark.fault(
    "from Airflow", "execute({}) or a MagicMock as context", outcome="survived", side="sensor", seen="the generation"
)
@pytest.mark.parametrize("stand_in", [None, {}, MagicMock()], ids=["None", "nothing", "a mock"])
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "poke"])
def test_in_a_unit_test_of_a_user(dialect, sandbox, stand_in, deferrable):
    """No context is needed, and a mock of one does."""
    sandbox.add_generation("123", dialect=dialect, states=[["success", 0]])
    assert sensor(deferrable=deferrable).execute(stand_in)["status"] == "succeeded"


@pytest.mark.fault(
    "polling",
    "the connection is deleted before the task wakes",
    outcome="survived",
    side="sensor",
    seen="the generation; the task defers again, and no retry is used",
)
def test_a_connection_that_is_missing_when_the_task_wakes(connect, sandbox, context, monkeypatch):
    """The task defers again with the same deadline, also with soft_fail; once that has passed, it skips."""
    connect()
    sandbox.add_generation("123", states=[["processing", 0]])
    with pytest.raises(TaskDeferred) as first:
        sensor(deferrable=True).execute(context)
    monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT")
    times = {"since": first.value.trigger.since, "deadline": first.value.trigger.deadline}
    event = {"version": 1, "outcome": "succeeded", "generation_id": "123", **times}
    with pytest.raises(TaskDeferred) as second:
        sensor(deferrable=True, soft_fail=True).resume_execution("execute_complete", {"event": event}, context)
    assert second.value.trigger.deadline == times["deadline"]
    event["deadline"] = times["since"]
    with pytest.raises(AirflowSkipException, match="no Airflow connection"):
        sensor(deferrable=True, soft_fail=True).resume_execution("execute_complete", {"event": event}, context)
    connect()
    sandbox.add_generation("123", states=[["completed", 0]])
    task = sensor(deferrable=True)
    assert task.resume_execution("execute_complete", {"event": event}, context)["status"] == "succeeded"


def test_blanks_around_an_id(connect, sandbox):
    """A template leaves them there; at the service they would be part of the id."""
    connect()
    sandbox.add_generation("123", states=[["completed", 0]])
    assert sensor(generation_id=" 123\n").execute({})["id"] == "123"


@pytest.mark.parametrize("stand_in", [{}, MagicMock()], ids=["nothing", "a mock"])
def test_a_rescheduled_sensor_in_a_unit_test_of_a_user(connect, sandbox, stand_in):
    """Without a task instance nothing can be rescheduled: it waits in the test, or defers."""
    connect()
    sandbox.set_speed(0)
    sandbox.add_generation("123", states=[["processing", 0], ["completed", 2]])
    waiting = {"mode": "reschedule", "poke_interval": 0.05}
    assert sensor(**waiting).poke(stand_in) is False
    with pytest.raises(TaskDeferred):
        sensor(**waiting, deferrable=True).execute(stand_in)
    sandbox.set_speed(FAST)
    assert sensor(**waiting).execute(stand_in)["status"] == "succeeded"


@pytest.mark.fault(
    "polling",
    "the key is refused between two pokes",
    outcome="survived",
    side="sync",
    seen="the next poke looks again",
)
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_between_two_pokes(connect, sandbox, context, monkeypatch, status):
    """A later poke knows that the first one has seen the generation: it leaves the worker and asks again later."""
    connect(max_retries=0)
    sandbox.add_generation("123", states=[["processing", 0]])
    begun = datetime.now(UTC) - timedelta(minutes=5)
    refused = {"match": {"kind": "query"}, "times": None, "action": {"status": status, "body": {"code": "no"}}}
    monkeypatch.setattr(sensors, "_first_poke", lambda _context: begun)
    sandbox.add_fault(refused)
    assert sensor(mode="reschedule", timeout=3600).poke(context) is False
    assert len(sandbox.requests("query")) == 1
    monkeypatch.setattr(sensors, "_first_poke", lambda _context: None)
    with pytest.raises(exceptions.ViduAuthError):
        sensor(mode="reschedule", timeout=3600).poke(context)


@pytest.mark.fault(
    "polling",
    "the connection is made wrong between two pokes",
    outcome="survived",
    side="sync",
    seen="the next poke looks again",
)
def test_a_connection_that_is_wrong_between_two_pokes(connect, context, monkeypatch):
    """A slip of the pen in the connection ends no rescheduled wait."""
    connect(timeout="soon")
    monkeypatch.setattr(sensors, "_first_poke", lambda _context: datetime.now(UTC) - timedelta(minutes=5))
    assert sensor(mode="reschedule", timeout=3600).poke(context) is False


def test_refused_pokes_use_up_their_budget_and_may_be_retried(connect, sandbox, context, monkeypatch):
    """In one poke as many refusals are sat out as the budget says; the error at its end leaves a retry possible."""
    connect(max_retries=0)
    monkeypatch.setattr(sensors, "_first_poke", lambda _context: datetime.now(UTC) - timedelta(minutes=5))
    with pytest.raises(exceptions.ViduError, match="3 polls in a row failed") as caught:
        sensor(mode="reschedule", timeout=3600, max_failures=2).poke(context)
    assert caught.value.retryable
    assert len(sandbox.requests("query")) == 3


@pytest.mark.parametrize(("fault", "known"), [(None, True), ({"status": 503}, False)], ids=["seen", "not seen"])
def test_the_trigger_knows_what_the_worker_has_seen(connect, sandbox, context, fault, known):
    """Only a good first poll makes later refusals pass for trouble, also in another triggerer."""
    connect(max_retries=0)
    sandbox.add_generation("123", states=[["processing", 0]])
    if fault:
        sandbox.add_fault({"match": {"kind": "query"}, "action": fault})
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True).execute(context)
    assert deferred.value.trigger.serialize()[1].get("known", False) is known


def test_each_state_is_logged_once(connect, sandbox, context):
    """The trigger does not repeat what the worker has logged."""
    connect()
    sandbox.add_generation("123", states=[["processing", 0]])
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True).execute(context)
    row = deferred.value.trigger.serialize()[1]
    assert row["logged"] == "processing"


@pytest.mark.parametrize(("pokes", "is_logged"), [(0, True), (1, True), (3, False), (4, True), (7, False), (8, True)])
def test_a_rescheduled_wait_logs_ever_more_rarely(
    connect, sandbox, context, monkeypatch, caplog, capsys, pokes, is_logged
):
    """Each poke is a process without memory, so the state is logged again when the wait has doubled."""
    connect()
    sandbox.add_generation("123", states=[["processing", 0]])
    first = datetime.now(UTC) - timedelta(seconds=30 * pokes)
    monkeypatch.setattr(sensors, "_first_poke", lambda _context: first if pokes else None)
    with caplog.at_level("INFO"):
        assert sensor(mode="reschedule", timeout=3600, poke_interval=30).poke(context) is False
    logged = caplog.text + capsys.readouterr().out  # Airflow 2 and 3
    assert ("running (processing)" in logged) is is_logged
