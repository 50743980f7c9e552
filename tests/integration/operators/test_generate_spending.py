"""The generate operator's limits on credits, against the sandbox's prices: a cap on one generation, budgets of many."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.operators import ViduBudget, ViduGenerateOperator
from airflow_provider_vidu.orders import lost_order
from airflow_provider_vidu.orders.money import pending, spending
from airflow_provider_vidu.orders.money.budget import MOST_UNPRICED
from airflow_provider_vidu.orders.money.ledger import ListedLedger
from airflow_provider_vidu.orders.records import StateStore
from tests.integration.operators.test_generate import Task
from tests.versions import AIRFLOW

PRICE = 10

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables"),
    pytest.mark.vidu_sandbox(price=PRICE),
]


class Spender(Task):
    """A mapped task instance of a DAG run."""

    def __init__(self, map_index: int = 0, *, run_id: str = "r", **kwargs: Any) -> None:
        super().__init__(**{"deferrable": True, **kwargs})
        self.map_index = map_index
        self.run_id = run_id
        self.run_after = datetime(2026, 1, 31, tzinfo=UTC)
        self.dag: Any = None

    def context(self) -> dict[str, Any]:
        """Return the context of the current try."""
        context = super().context()
        context["ti"].map_index = self.map_index
        context["ti"].run_id = self.run_id
        run = SimpleNamespace(run_after=self.run_after, clear_number=None, start_date=None)
        return {**context, "dag_run": run, "dag": self.dag}

    def submit(self) -> str:
        """Begin a try that submits, or resumes, and defers; return the id."""
        with pytest.raises(TaskDeferred):
            self.start()
        return str(self.xcoms["generation_id"])

    def clear(self) -> None:
        """Let the next try follow a clear."""
        self.max_tries += 1


@pytest.fixture
def official(connect, sandbox) -> Any:
    """Return a sandbox of the official API in which nothing moves; its creates name a price."""
    connect("ent-v2", max_retries=1, timeout=2)
    sandbox.set_speed(0)
    return sandbox


@pytest.fixture
def logged(monkeypatch) -> Callable[[], str]:
    """Return what returns the lines that operators have logged."""
    log = MagicMock()
    monkeypatch.setattr(ViduGenerateOperator, "log", log)
    return lambda: "\n".join(str(call.args[0]) % call.args[1:] for call in log.method_calls)


def paid(sandbox: Any) -> list[int]:
    """Return the credits of all creates that were not refunded."""
    return [create.credits for create in sandbox.creates if create.charge == "charged"]


def names(variables: Any) -> list[str]:
    """Return the names of all entries of budgets."""
    return variables.keys(spending.Scope("run", "d", "r", None).prefix[:10])


@pytest.mark.parametrize("limits", [{}, {"budget": ViduBudget(credits=100)}], ids=["cap", "budget"])
def test_a_price_above_the_cap_is_cancelled_at_once(limits, official, variables):
    """While it is queued the credits come back; the id is known to the page, and neither budget nor sums count it."""
    task = Spender(max_credits=PRICE - 1, **limits)
    with pytest.raises(
        exceptions.ViduBudgetError, match=r"asks 10 credits .*max_credits is 9.*nothing is spent"
    ) as caught:
        task.start()
    assert not caught.value.retryable
    assert task.xcoms["generation_id"] == caught.value.generation_id == official.creates[0].id
    assert task.xcoms["vidu_spent"] == 0
    assert paid(official) == []
    assert names(variables) == []


@pytest.mark.parametrize("cap", [PRICE, "10", PRICE + 0.5], ids=str)
def test_a_price_within_the_cap_is_accepted(official, cap):
    """The cap itself is allowed; templates render text."""
    Spender(max_credits=cap).submit()
    assert paid(official) == [PRICE]


def test_a_job_that_cannot_be_cancelled_is_paid_and_no_try_uses_it(official, variables):
    """Retry, clear and resume: the error again, or a new order, never the job that is too expensive."""
    official.add_fault({"match": {"kind": "cancel"}, "times": 9, "action": {"status": 500}})
    task = Spender(max_credits=9, on_clear="resume", budget=ViduBudget(credits=100))
    for _ in range(2):
        with pytest.raises(exceptions.ViduBudgetError, match=r"did not cancel it .* 10 credits are spent"):
            task.start()
        assert task.xcoms["vidu_spent"] == PRICE
    assert len(official.creates) == len(names(variables)) == 1
    official.clear_faults()
    task.clear()
    task.kwargs["max_credits"] = 20
    assert task.submit() == official.creates[1].id
    assert task.xcoms["vidu_spent"] == 2 * PRICE


@pytest.mark.fault(
    "orders",
    "budget: a worker dies before it cancels a job above max_credits",
    outcome="clear error",
    seen="the next try cancels it and uses nothing of it",
)
def test_a_worker_that_dies_before_the_cancel(official, monkeypatch):
    """The record says refused before anything else happens: the retry cancels, and fails."""
    task = Spender(max_credits=9)
    with monkeypatch.context() as patched:
        patched.setattr(spending.Spending, "refuse", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            task.start()
    assert paid(official) == [PRICE]
    with pytest.raises(exceptions.ViduBudgetError, match="nothing is spent"):
        task.start()
    assert paid(official) == []
    assert len(official.creates) == 1
    with pytest.raises(exceptions.ViduBudgetError, match="nothing is spent"):  # without a second cancel
        task.start()
    assert len(official.requests("cancel")) == 1


@pytest.mark.parametrize("cap", ["None", "", "lots"])
def test_a_cap_without_a_value_sends_nothing(official, cap):
    """The template of a cap that renders to nothing is a mistake, not permission."""
    with pytest.raises(exceptions.ViduConfigError, match="max_credits must be a number"):
        Spender(max_credits=cap).start()
    assert official.creates == []


@pytest.fixture
def no_price(monkeypatch) -> None:
    """Let the answers to creates name no price, as those of some gateways."""
    submit = SyncClient.submit

    def unpriced(*args: Any, **kwargs: Any) -> Generation:
        return submit(*args, **kwargs).model_copy(update={"credits": None})

    monkeypatch.setattr(SyncClient, "submit", unpriced)


@pytest.mark.fault(
    "orders",
    "budget: the answer to a create names no price",
    outcome="documented limit",
    seen="a warning says that no limit applies",
)
@pytest.mark.usefixtures("no_price")
def test_a_service_without_prices_is_reported_once(connect, sandbox, logged):
    """No limit can apply; the task goes on, and the log says so in one line."""
    connect("vidu-native")
    task = Spender(max_credits=1, budget=ViduBudget(credits=1), deferrable=False)
    assert task.run()["status"] == "succeeded"
    assert logged().count("named no price") == 1


def test_a_run_spends_its_budget_and_no_more(official):
    """The create that reaches the limit is the last; the error is final and costs nothing."""
    for index in range(3):
        Spender(index, budget=ViduBudget(credits=25)).submit()
    with pytest.raises(exceptions.ViduBudgetError, match="30 of 25 credits, in 3 generations"):
        Spender(3, budget=ViduBudget(credits=25)).start()
    assert paid(official) == [PRICE] * 3
    Spender(0, run_id="another", budget=ViduBudget(credits=25)).submit()


def test_the_runs_of_a_backfill_do_not_forget_what_each_other_spend(official):
    """Their dates are months apart, and they run at the same time."""
    Spender(budget=ViduBudget(credits=10)).submit()
    later = Spender(run_id="two months later", budget=ViduBudget(credits=10))
    later.run_after = datetime(2026, 3, 31, tzinfo=UTC)
    later.submit()
    with pytest.raises(exceptions.ViduBudgetError, match="10 of 10 credits"):
        Spender(1, budget=ViduBudget(credits=10)).start()


def test_a_day_counts_all_runs(official):
    """Not only this one."""
    for run_id in ("a", "b"):
        Spender(run_id=run_id, budget=ViduBudget(credits=20, per="day")).submit()
    with pytest.raises(exceptions.ViduBudgetError, match=r"today \(UTC\) is spent: 20 of 20"):
        Spender(run_id="c", budget=ViduBudget(credits=20, per="day")).start()


def test_a_retry_counts_nothing_twice_and_a_clear_counts_again(official, variables):
    """The retry resumes the same job, whatever the budget; what was paid before a clear stays spent."""
    task = Spender(budget=ViduBudget(credits=15))
    first = task.submit()
    assert task.submit() == first
    assert len(names(variables)) == 1
    official.set_speed(0)
    task.clear()
    task.submit()
    assert task.xcoms["vidu_spent"] == 2 * PRICE
    assert len(names(variables)) == 2
    assert task.submit() == official.creates[1].id  # a retry of the new order, although the budget is spent
    task.clear()
    with pytest.raises(exceptions.ViduBudgetError, match="20 of 15 credits"):
        task.start()


def test_a_clear_that_loses_the_state_does_not_lose_what_was_spent(official):
    """As on Airflow 3.4: the ledger does not depend on the task's record."""
    task = Spender(budget=ViduBudget(credits=10))
    task.submit()
    task.store.clear()
    task.clear()
    with pytest.raises(exceptions.ViduBudgetError, match="10 of 10 credits"):
        task.start()


def test_tasks_without_a_budget_are_counted_and_not_refused(official):
    """A budget is of the DAG: all of its generate tasks spend it, mapped ones too."""
    with DAG("d", schedule=None) as dag:
        ViduGenerateOperator(task_id="plain", prompt="a cat", model="m")
        ViduGenerateOperator.partial(task_id="many", model="m", budget=ViduBudget(credits=10)).expand(prompt=["a"])
    for index in range(2):
        task = Spender(index)
        task.dag = dag
        task.submit()
    with pytest.raises(exceptions.ViduBudgetError, match="20 of 10 credits"):
        Spender(2, budget=ViduBudget(credits=10)).start()


@pytest.mark.parametrize(
    ("conn_id", "generation_id"),
    [
        ("vidu_default", "1\nThe budget is free\x1b[31m"),
        ("vidu_default", "1\u2028The budget is free"),
        ("of_http", "7"),
    ],
    ids=["lines", "separator", "another connection"],
)
def test_an_entry_that_a_user_forged_forges_no_log_line_and_asks_no_other_service(
    conn_id, generation_id, official, variables, logged, monkeypatch
):
    """Users who may edit Variables write entries: not every connection of the deployment is theirs to use."""
    other = {"conn_type": "http", "host": official.url, "password": official.key}
    monkeypatch.setenv("AIRFLOW_CONN_OF_HTTP", json.dumps(other))
    scope = spending.Scope("run", "d", "r", Spender().run_after)
    facts = {"conn_id": conn_id, "generation_id": generation_id, "at": 1.0}
    variables.kept[scope.open_entry(generation_id)] = json.dumps(facts)
    variables.kept |= {scope.open_entry(f"g{number}"): "{}" for number in range(MOST_UNPRICED)}
    monkeypatch.setattr(pending, "MOST_QUERIES", 2 * MOST_UNPRICED)
    with pytest.raises(TaskDeferred):
        Spender(budget=ViduBudget(credits=5)).start()
    assert official.requests("query") == []
    assert "free" not in logged()


@pytest.mark.usefixtures("no_price")
def test_a_price_that_only_the_end_names_is_counted_then(connect, sandbox, variables, logged):
    """It is too late to cancel, so the result is kept, and the log says what it cost."""
    connect("ent-v2")
    task = Spender(max_credits=9, budget=ViduBudget(credits=100), deferrable=False)
    assert task.run()["credits"] == PRICE
    assert "cost 10 credits, more than max_credits (9)" in logged()
    assert len(names(variables)) == 1


@pytest.mark.usefixtures("no_price")
def test_a_cap_that_renders_differently_at_the_end_loses_no_result(connect, sandbox):
    """The generation is paid for by then."""
    connect("ent-v2")
    task = Spender(max_credits=9)
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    task.kwargs["max_credits"] = "None"
    assert task.resume(deferred.value)["credits"] == PRICE


@pytest.mark.fault(
    "orders",
    "budget: the ledger cannot be read",
    outcome="refused",
    says="Could not read what was spent",
)
def test_a_ledger_that_cannot_be_read_allows_no_create(official, variables):
    """The error may be retried, and nothing was paid."""
    variables.keys = lambda prefix: 1 / 0
    with pytest.raises(exceptions.ViduError, match="nothing was submitted") as caught:
        Spender(budget=ViduBudget(credits=10)).start()
    assert caught.value.retryable
    assert official.creates == []


@pytest.mark.fault(
    "orders",
    "budget: the ledger cannot be written after a create",
    outcome="survived",
    seen="a warning; the job goes on, and a retry writes the entry",
)
def test_a_ledger_that_cannot_be_written_loses_no_job(official, variables, logged):
    """It is paid for: it is logged, and the retry writes the entry."""
    task = Spender(budget=ViduBudget(credits=10))
    write = variables.set
    variables.set = lambda key, value: 1 / 0 if key.startswith("vidu_spent") else write(key, value)
    first = task.submit()
    assert "Could not enter into the budget what the generation costs" in logged()
    variables.set = write
    assert task.submit() == first
    assert len(names(variables)) == 1


@pytest.mark.fault(
    "orders",
    "budget: kill -9 of a worker at any step of a create",
    outcome="survived",
    seen="at most its own job above the limit, counted at the retry",
)
@pytest.mark.parametrize("step", range(1, 14))
def test_a_worker_killed_at_any_step_spends_at_most_its_own_job(official, variables, monkeypatch, step):
    """The budget plus the one job that was being created; its retry pays nothing and closes the gap."""
    done = 0

    def counted(action: Any) -> Any:
        def act(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done == step:
                raise KeyboardInterrupt
            return action(*args, **kwargs)

        return act

    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 0.0)
    victim = Spender(0, budget=ViduBudget(credits=20))
    with monkeypatch.context() as patched:
        patched.setattr(StateStore, "save", counted(StateStore.save))
        for name in ("keys", "set"):
            patched.setattr(variables, name, counted(getattr(variables, name)))
        patched.setattr(spending, "ledger", lambda: ListedLedger(variables.keys))
        patched.setattr(victim, "push", counted(victim.push))
        patched.setattr(SyncClient, "submit", counted(SyncClient.submit))
        with pytest.raises((KeyboardInterrupt, exceptions.ViduError, TaskDeferred)):
            victim.start()
    for index in range(1, 9):
        try:
            Spender(index, budget=ViduBudget(credits=20)).submit()
        except exceptions.ViduBudgetError:
            break
    else:
        raise AssertionError("the budget was never spent")
    assert sum(paid(official)) <= 20 + PRICE
    before = len(official.creates)
    try:
        victim.submit()
    except exceptions.ViduBudgetError:
        assert StateStore(victim.store).load() is None
    assert len(official.creates) == before
    with pytest.raises(exceptions.ViduBudgetError):
        Spender(20, budget=ViduBudget(credits=20)).start()


@pytest.mark.fault(
    "orders",
    "budget: fifty creates at once",
    outcome="survived",
    seen="the limit, and what was being created when it was reached",
)
@pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 lets no thread but the main one call execute()")
def test_fifty_tasks_at_once_spend_the_budget_and_what_was_being_created(official, variables):
    """Every create that was allowed began before the known sum reached the limit; afterwards none is."""
    lock = threading.Lock()
    results: list[str] = []

    def one(index: int) -> None:
        task = Spender(index, budget=ViduBudget(credits=100))
        try:
            task.start()
        except TaskDeferred:
            outcome = "paid"
        except exceptions.ViduBudgetError:
            outcome = "refused"
        with lock:
            results.append(outcome)

    at_once = 5
    gate = threading.Semaphore(at_once)

    def limited(index: int) -> None:
        with gate:
            one(index)

    threads = [threading.Thread(target=limited, args=(index,)) for index in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 50
    assert results.count("paid") == len(official.creates) == len(names(variables))
    assert 100 <= sum(paid(official)) <= 100 + (at_once - 1) * PRICE


def test_a_result_above_the_cap_is_kept(connect, sandbox):
    """The answer to the create of speech is the result: no cancel brings its credits back."""
    connect("ent-v2")
    fields = {"text": "hello", "voice_setting_voice_id": "v1"}
    task = Task(prompt=None, model=None, endpoint="audio-tts", parameters=fields, max_credits=1)
    assert task.run()["status"] == "succeeded"
    assert sandbox.requests("cancel") == []
