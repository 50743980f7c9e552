"""The deferred wait, decision by decision; the operator's and the sensor's legs are in the integration tests."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.events import make_callback_event
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.tasks.deferral import PAUSED_POLL_SECONDS, DeferredWait, resumable
from airflow_provider_vidu.triggers import ViduGenerationTrigger
from tests.rows import each_row

DONE = Generation(id="g1", status=GenerationStatus.SUCCEEDED, video_url="https://h/v.mp4")
RUNNING = Generation(id="g1", status=GenerationStatus.RUNNING)


class Hook:
    """A hook whose connection and whose query answer as the test says."""

    vidu_conn_id = "c1"

    def __init__(self, connection: ViduError | None = None, query: Generation | ViduError = DONE) -> None:
        self.connection = connection
        self.query = query

    @property
    def config(self) -> object:
        """Return a connection, or raise."""
        if self.connection is not None:
            raise self.connection
        return object()

    def get_generation(self, generation_id: str, **_: Any) -> Generation:
        """Answer the query, or raise."""
        if isinstance(self.query, ViduError):
            raise self.query
        return self.query

    def refetch(self, generation_id: str, **_: Any) -> Generation:
        """Return the generation that has ended."""
        return DONE


def defer(*, trigger: Any, method_name: str, timeout: timedelta) -> NoReturn:
    """Do what Airflow's operators do."""
    raise TaskDeferred(trigger=trigger, method_name=method_name, timeout=timeout)


def wait(hook: Hook, **changes: Any) -> DeferredWait:
    """Return the wait of a task for generation g1."""
    operator: Any = SimpleNamespace(defer=defer, log=logging.getLogger(__name__))
    arguments: dict[str, Any] = {
        "operator": operator, "hook": hook, "trigger": ViduGenerationTrigger, "generation_id": "g1",
        "poll_interval": 5.0, "timeout": 1000.0, "max_failures": 3, "endpoint": None, "is_own": True,
    }  # fmt: skip
    return DeferredWait(**{**arguments, **changes})


def event(outcome: str = "succeeded", error: ViduError | None = None, **more: Any) -> dict[str, Any]:
    """Return the trigger's event, of a wait that has 500 of its 1000 seconds left."""
    times = {"since": time.time() - 500, "deadline": time.time() + 500}
    details = error.details() if error else None
    return {"version": 1, "outcome": outcome, "generation_id": "g1", "error": details, **times, **more}


def missing() -> ViduError:
    """Return the error of a connection that was deleted."""
    return exceptions.ViduConnectionNotFoundError("There is no Airflow connection 'c1'.")


def deferred_by(waiting: DeferredWait, fired: dict[str, Any]) -> tuple[ViduGenerationTrigger, timedelta]:
    """Resume with an event and return the trigger that the task leaves for, with the deferral's timeout."""
    with pytest.raises(TaskDeferred) as caught:
        waiting.resume(fired)
    trigger, timeout = caught.value.trigger, caught.value.timeout
    assert isinstance(trigger, ViduGenerationTrigger)
    assert isinstance(timeout, timedelta)
    return trigger, timeout


UNUSABLE = {
    "missing": missing(),
    "wrong": exceptions.ViduConfigError("field 'timeout' is wrong"),
    "out of reach": exceptions.ViduTransportError("the secrets backend is down"),
    "refused": exceptions.ViduAuthError("wrong key"),
}


@each_row("error", UNUSABLE.values(), ids=UNUSABLE.keys())
@each_row("outcome", ["succeeded", "failed", "error"])
def test_a_resumed_leg_without_a_connection_defers_again(error: ViduError, outcome: str) -> None:
    """No worker is held, no retry is used, the deadline stays, and the connection is looked up at a slow pace."""
    reported = {"failed": exceptions.ViduGenerationFailedError("no"), "error": missing()}.get(outcome)
    fired = event(outcome, reported)
    hook = Hook(query=error) if isinstance(error, exceptions.ViduAuthError) else Hook(error)
    trigger, timeout = deferred_by(wait(hook), fired)
    assert (trigger.since, trigger.deadline) == (fired["since"], pytest.approx(fired["deadline"]))
    assert (trigger.poll_interval, trigger.adaptive, trigger.known) == (PAUSED_POLL_SECONDS, False, True)
    assert timeout.total_seconds() == pytest.approx(500 + 300, abs=5)


@pytest.mark.parametrize("times", [{"since": None, "deadline": None}, {"deadline": 1e300}], ids=["none", "absurd"])
def test_the_deadline_of_another_versions_event_is_bounded(times: dict[str, Any]) -> None:
    """An event that carries no usable times lets the wait begin again, with the timeout that the task has."""
    trigger, _ = deferred_by(wait(Hook(missing())), event(**times))
    assert trigger.deadline == pytest.approx(time.time() + 1000, abs=5)


@pytest.mark.parametrize("outcome", ["succeeded", "timeout"])
def test_the_deadline_ends_the_wait_for_a_connection(outcome: str) -> None:
    """The error says what is wrong with the connection, and a retry may resume the wait."""
    reported = exceptions.ViduTimeoutError("Gave up waiting.") if outcome == "timeout" else None
    with pytest.raises(ViduError, match=r"no Airflow connection.*A retry resumes it.*generation g1") as caught:
        wait(Hook(missing())).resume(event(outcome, reported, deadline=time.time() - 1))
    assert caught.value.retryable


@pytest.mark.parametrize("generation_id", ["g1", "g2"], ids=["lost", "another's"])
def test_an_event_that_reports_no_end(generation_id: str) -> None:
    """The connection is back, or the event is of another generation: one poll, and the wait goes on if it must."""
    fired = event("error", missing()) if generation_id == "g1" else event(generation_id=generation_id)
    assert wait(Hook()).resume(fired) is DONE
    for query in (RUNNING, exceptions.ViduServerError("busy")):
        trigger, _ = deferred_by(wait(Hook(query=query), poll_interval=None), fired)
        assert trigger.adaptive
        # Only the own event's times are those of this wait.
        left = 500 if fired["generation_id"] == "g1" else 1000
        assert trigger.deadline == pytest.approx(time.time() + left, abs=60)
    with pytest.raises(ViduError, match=r"has no such query.*A retry resumes it"):
        wait(Hook(query=exceptions.ViduConfigError("The dialect has no such query."))).resume(fired)


@pytest.mark.parametrize("is_own", [True, False], ids=["own", "another's"])
def test_whose_generation_it_is(is_own: bool) -> None:
    """A task re-fetches the failure of its own order, and no refusal of that is final; others take the event's word."""
    waiting = wait(Hook(), is_own=is_own)
    failed = event("failed", exceptions.ViduGenerationFailedError("no"))
    refused = event("error", exceptions.ViduAuthError("no"))
    if is_own:
        assert waiting.resume(failed) is DONE
        assert wait(Hook(query=exceptions.ViduServerError("busy"))).resume(failed) is DONE  # by the hook's re-fetch
    else:
        with pytest.raises(exceptions.ViduGenerationFailedError):
            waiting.resume(failed)
    with pytest.raises(ViduError) as caught:
        waiting.resume(refused)
    assert caught.value.retryable is is_own


def test_a_timeout_is_announced_before_it_is_raised() -> None:
    """There is something to cancel when the wait ends with a timeout, whether the trigger or Airflow ends it."""
    calls: list[str] = []
    waiting = wait(Hook(query=RUNNING), on_timeout=lambda: calls.append("now"))
    with pytest.raises(exceptions.ViduTimeoutError, match="Gave up"):
        waiting.resume(event("timeout", exceptions.ViduTimeoutError("Gave up waiting.")))
    with pytest.raises(exceptions.ViduTimeoutError, match="no triggerer"):
        waiting.give_up({"error": "Trigger timeout"}, None)
    assert calls == ["now", "now"]


def test_a_refusal_is_made_resumable() -> None:
    """What a retry cannot fix by itself becomes an error that Airflow retries, with all its details."""
    refused = exceptions.ViduAuthError("no", conn_id="c", status_code=401, code="N", trace_id="t")
    with (
        pytest.raises(ViduError, match=r"^no\. The wait for a generation .* A retry resumes it") as caught,
        resumable("g1"),
    ):
        raise refused
    assert type(caught.value) is ViduError
    assert caught.value.retryable
    known = {name: value for name, value in caught.value.details().items() if name not in ("type", "message")}
    assert known == {
        "generation_id": "g1", "conn_id": "c", "status_code": 401, "code": "N", "trace_id": "t", "retry_after": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        exceptions.ViduGenerationFailedError, exceptions.ViduMissingVideoError, exceptions.ViduTimeoutError,
        exceptions.ViduServerError,
    ],
)  # fmt: skip
def test_an_end_of_the_generation_stays_what_it_is(kind: type[ViduError]) -> None:
    """So does an error that may be retried anyway."""
    error = kind("x")
    with pytest.raises(kind) as caught, resumable("g1"):
        raise error
    assert caught.value is error


def called(**more: Any) -> dict[str, Any]:
    """Return the event of a callback, of a wait that has 500 of its 1000 seconds left."""
    times = {"since": time.time() - 500, "deadline": time.time() + 500}
    return {**make_callback_event("g1", **times, callback="d" * 40), **more}


def test_a_callback_that_is_true_ends_the_wait():
    """One poll shows the end."""
    assert wait(Hook(query=DONE), callback="d" * 40).resume(called()) == DONE


@pytest.mark.parametrize("query", [RUNNING, exceptions.ViduServerError("busy")], ids=["lie", "failed poll"])
def test_after_a_callback_without_an_end_the_task_sleeps_on(query):
    """It defers with the same begin and deadline, still expects callbacks, and notes when it was woken."""
    event = called()
    trigger, timeout = deferred_by(wait(Hook(query=query), callback="d" * 40), event)
    assert (trigger.since, trigger.deadline) == (event["since"], event["deadline"])
    assert trigger.callback == "d" * 40
    assert trigger.woken_at == event["called_at"]
    assert timeout.total_seconds() == pytest.approx(800, abs=5)
    assert trigger.poll_interval == 5.0


def test_a_callback_for_another_generation_is_not_followed():
    """The event of an earlier order does not end this one's wait."""
    trigger, _ = deferred_by(wait(Hook(query=RUNNING)), called(generation_id="g0"))
    assert (trigger.generation_id, trigger.woken_at) == ("g1", None)


def test_a_wait_without_callbacks_stores_nothing_of_them():
    """Rows of tasks that expect none are those of earlier versions."""
    trigger, _ = deferred_by(wait(Hook(query=RUNNING)), {**event(), "generation_id": "g0"})
    assert not {"callback", "woken_at"} & trigger.serialize()[1].keys()
