"""What a clear does to an order: a new one, or on with the earlier generation; played through against the sandbox."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduGenerateOperator
from airflow_provider_vidu.orders.order import Order
from airflow_provider_vidu.orders.submission import Submission
from tests.integration.orders.test_submission import BODY, Memory

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_backoff", "variables")]


class Accessor(dict[str, Any]):
    """Airflow's task state store."""

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Store a value."""
        self[key] = value

    def delete(self, key: str) -> None:
        """Remove a key."""
        self.pop(key, None)


class Film:
    """A task instance of a run: its counters as Airflow changes them, and its store, which a clear keeps (3.3)."""

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = {"prompt": "a cat", "model": "m", "poll_interval": 0.05, "timeout": 20, **kwargs}
        self.retries = 2
        self.counters = SimpleNamespace(tries=0, max_tries=2, clears=0)
        self.store = Accessor()

    def run(self) -> str:
        """Run a try to its success; return the generation's id."""
        self.counters.tries += 1
        ti = SimpleNamespace(
            dag_id="d", run_id="r", task_id="film", map_index=-1, task=SimpleNamespace(retries=self.retries),
            try_number=self.counters.tries, max_tries=self.counters.max_tries,
            xcom_push=lambda **_: None, xcom_pull=lambda **_: None,
        )  # fmt: skip
        run = SimpleNamespace(clear_number=self.counters.clears)
        context: Any = {"ti": ti, "dag_run": run, "task_state_store": self.store}
        operator = ViduGenerateOperator(task_id="film", **self.kwargs)
        self.result: dict[str, Any] = operator.execute(context)
        operator.post_execute(context, self.result)
        return str(self.result["id"])

    def clear(self) -> None:
        """Clear the ended task, as Airflow does."""
        self.counters.max_tries = self.counters.tries + self.retries
        self.counters.clears += 1


@pytest.fixture
def is_33(monkeypatch) -> None:
    """Have the counters of Airflow 3.3, whatever runs."""
    name = "airflow.providers.common.compat.version_compat.get_base_airflow_version_tuple"
    monkeypatch.setattr(name, lambda: (3, 3, 2))
    monkeypatch.setattr("airflow.providers.common.compat.version_compat.AIRFLOW_V_3_3_PLUS", True)
    monkeypatch.setattr("airflow.providers.common.compat.version_compat.AIRFLOW_V_3_4_PLUS", False)


@pytest.mark.fault(
    "orders",
    "cleared after retries was lowered, so max_tries comes out the same",
    outcome="survived",
    seen="a new generation, never the old video",
)
@pytest.mark.usefixtures("is_33")
@pytest.mark.parametrize("prompt", ["a dog", "a cat"], ids=["another prompt", "same prompt"])
def test_a_clear_with_fewer_retries_is_a_new_order(connect, sandbox, prompt):
    """``max_tries`` comes out the same, and still no old video is returned for a new order."""
    connect("ent-v2")
    film = Film()
    first = film.run()
    film.retries, film.kwargs["prompt"] = 1, prompt
    film.clear()
    assert film.counters.max_tries == 2
    assert film.run() != first
    assert [create.body["prompt"] for create in sandbox.creates] == ["a cat", prompt]


@pytest.mark.usefixtures("is_33")
def test_a_retry_after_the_result_pays_nothing(connect, sandbox):
    """What fails after ``execute`` leads to a retry, also while another task of the run is cleared."""
    connect("ent-v2")
    film = Film()
    first = film.run()
    film.counters.clears += 1
    assert film.run() == first
    assert len(sandbox.creates) == 1


@pytest.mark.usefixtures("is_33")
def test_a_prompt_of_each_try_is_paid_once(connect, sandbox):
    """A retry whose prompt differs, while other tasks are cleared, picks up what was paid for."""
    connect("ent-v2")
    film = Film()
    first = film.run()
    for number in (2, 3):
        film.counters.clears += 1
        film.kwargs["prompt"] = f"a cat, take {number}"
        assert film.run() == first
        assert film.result["prompt"] is None
    assert [create.body["prompt"] for create in sandbox.creates] == ["a cat"]


@pytest.mark.usefixtures("is_33")
def test_each_try_notes_the_clears_that_it_has_seen(connect, sandbox):
    """A clear of another task before the last try proves nothing any more, also when retries are lowered later."""
    connect("ent-v2")
    film = Film()
    first = film.run()
    film.counters.clears += 1
    assert film.run() == first
    film.retries, film.kwargs["prompt"] = 1, "a dog"
    assert film.run() == first
    assert len(sandbox.creates) == 1


@pytest.mark.fault(
    "orders",
    "cleared with on_clear='resume' where [state_store] clear_on_success has discarded the state",
    outcome="survived",
    seen="the finished generation; nothing is paid",
)
@pytest.mark.usefixtures("is_33")
def test_resume_where_a_success_discards_the_state(connect, sandbox):
    """Airflow may discard all states of a task that has succeeded: a Variable keeps the record."""
    connect("ent-v2")
    film = Film(on_clear="resume")
    first = film.run()
    film.store.clear()
    film.clear()
    assert film.run() == first
    assert len(sandbox.creates) == 1


@pytest.mark.fault(
    "orders",
    "cleared with on_clear='resume' although the generation is finished",
    outcome="survived",
    seen="the finished generation; nothing is paid",
)
@pytest.mark.usefixtures("is_33")
def test_resume_takes_the_finished_generation(connect, sandbox):
    """With ``on_clear="resume"`` a clear pays nothing, as long as the request is the same."""
    connect("ent-v2")
    film = Film(on_clear="resume")
    first = film.run()
    film.clear()
    assert film.run() == first
    film.clear()
    film.kwargs["prompt"] = "a dog"
    assert film.run() != first
    assert len(sandbox.creates) == 2


def resumed(store: Memory, number: int, **kwargs: Any) -> str:
    """Make one try of an order with ``on_clear="resume"``; return the id of its generation."""
    order = Order(number, number, counts_every_clear=True)
    kwargs = {"on_clear": "resume", "sleep": lambda _: None, **kwargs}
    return Submission(ViduHook(), store, order, logging.getLogger(), **kwargs).generation(BODY, None).id


def test_resume_goes_on_with_a_running_generation(dialect, sandbox):
    """What is alive is waited for, and not cancelled; later tries belong to the new order."""
    sandbox.set_speed(0)
    store = Memory()
    first = resumed(store, 0)
    assert resumed(store, 2) == first
    assert resumed(store, 2) == first
    assert len(sandbox.creates) == 1
    assert sandbox.requests("cancel") == []


@pytest.mark.parametrize("end", ["failed", "gone"])
def test_resume_orders_anew_after_a_failure(connect, sandbox, end):
    """A generation that failed, or that the service no longer knows, is not resumed."""
    connect("ent-v2", max_retries=0)
    store = Memory()
    first = resumed(store, 0)
    if end == "failed":
        sandbox.add_generation(first, dialect="ent-v2", states=[["failed", 0]], error="CreationPolicyViolation")
    else:
        sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": {"status": 404, "body": {}}})
    assert resumed(store, 2) != first
    assert len(sandbox.creates) == 2


def test_resume_does_not_pay_while_the_service_is_out_of_reach(connect, sandbox):
    """What became of the earlier generation must be known before another is paid: the error may be retried."""
    connect("ent-v2", max_retries=0)
    store = Memory()
    first = resumed(store, 0)
    sandbox.add_fault({"match": {"kind": "query"}, "times": 1, "action": {"status": 503, "body": {}}})
    with pytest.raises(exceptions.ViduServerError):
        resumed(store, 2)
    assert resumed(store, 2) == first
    assert len(sandbox.creates) == 1


@pytest.mark.fault(
    "orders",
    "cleared although an earlier generation was paid for",
    outcome="survived",
    says="The task was cleared. Its earlier generation was",
)
@pytest.mark.parametrize(("on_clear", "is_same"), [("new", False), ("resume", True)])
def test_the_log_names_the_earlier_generation(connect, sandbox, caplog, on_clear, is_same):
    """Its id, its state and what it cost stand in the log of the try after the clear."""
    caplog.set_level(logging.INFO)
    connect("ent-v2")
    store = Memory()
    first = resumed(store, 0)
    sandbox.advance(1000)
    assert (resumed(store, 2, on_clear=on_clear) == first) is is_same
    line = next(line for line in caplog.messages if "The task was cleared" in line)
    assert first in line
    assert "succeeded (success)" in line
    assert "credits" in line
    assert sandbox.requests("cancel") == []


def test_a_failure_for_good_is_not_the_end_of_another_request(connect, sandbox):
    """Airflow retries no final failure: a try that comes all the same, with another request, is a user's wish."""
    connect("ent-v2")
    store = Memory()
    first = resumed(store, 0)
    sandbox.add_generation(first, dialect="ent-v2", states=[["failed", 0]], error="CreationPolicyViolation")
    order = Order(0, 0, counts_every_clear=True)
    submission = Submission(ViduHook(), store, order, logging.getLogger())
    with pytest.raises(exceptions.ViduGenerationFailedError):
        submission.generation(BODY, None)
    assert submission.generation({**BODY, "prompt": "a dog"}, None).id != first


@pytest.mark.parametrize("wrong", ["again", None, True])
def test_what_a_clear_does_is_one_of_two_words(wrong):
    """Another word is refused when the DAG is read."""
    with pytest.raises(exceptions.ViduConfigError, match="on_clear must be one of new, resume"):
        ViduGenerateOperator(task_id="film", prompt="x", on_clear=wrong)


@pytest.mark.usefixtures("is_33")
def test_a_note_that_cannot_be_stored_costs_nothing(connect, sandbox, monkeypatch):
    """The result is paid for: that a store is out of reach at the very end does not fail the task."""
    connect("ent-v2")
    film = Film()
    stored = Accessor.set

    def set_once(self: Accessor, key: str, value: Any, **known: Any) -> None:
        if value["returned"]:
            raise RuntimeError("no answer")
        stored(self, key, value, **known)

    monkeypatch.setattr(Accessor, "set", set_once)
    assert film.run() == sandbox.creates[0].id
