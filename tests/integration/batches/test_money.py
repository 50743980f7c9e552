"""A batch within the budgets of its DAG, and its dry run."""

from __future__ import annotations

import json
from unittest.mock import MagicMock

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.leg import spending, submitter
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduBatchOperator, ViduBudget
from airflow_provider_vidu.orders import lost_order
from tests.integration.batches.batch_task import BatchTask, deferred_by

PRICE = 10
NOT_FOUND = json.dumps({"code": 404, "reason": "TaskNotFound", "message": "no such task"})

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables"),
    pytest.mark.vidu_sandbox(price=PRICE, concurrency=50),
]


def prompts(count):
    """Return rows with keys of their own."""
    return [{"key": f"clip{n}", "prompt": f"a cat {n}"} for n in range(count)]


def test_a_batch_ends_at_its_budget(connect, sandbox, tmp_path, variables):
    """Nothing is ordered above it, what is paid for is stored, and a clear with a larger budget continues."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(6), max_in_flight=1, budget=ViduBudget(credits=3 * PRICE))
    with pytest.raises(exceptions.ViduBudgetError, match=r"30 of 30 credits, in 3 generations.*3 of 6 rows stored"):
        task.run()
    assert (len(sandbox.creates), len(task.lines)) == (3, 3)
    place = task.xcoms["vidu_batch_place"]  # what the page of the spending adds up, however the task ends
    assert (place["generations"], place["priced"], place["credits"]) == (3, 3, 3 * PRICE)
    assert len(variables.keys("vidu_spent_")) == 3
    task.kwargs["budget"] = ViduBudget(credits=100)
    task.clear()
    assert task.run()["stored"] == 6
    assert len(sandbox.creates) == 6


@pytest.mark.parametrize("is_tree", [True, False], ids=["a folder of the file's name", "a file of the folder's"])
def test_a_row_whose_file_cannot_be_stored_is_not_ordered(connect, sandbox, tmp_path, is_tree):
    """It gets its line, the others their files; once nothing is in the way, a clear orders it."""
    connect("ent-v2")
    blocked = tmp_path / ("clips/a.mp4" if is_tree else "clips")
    blocked.parent.mkdir(exist_ok=True)
    (blocked / "x").mkdir(parents=True) if is_tree else blocked.write_text("")
    rows = [{"key": "a", "name": "clips/a", "prompt": "a cat"}, {"key": "b", "prompt": "a dog"}]
    task = BatchTask(tmp_path, rows, min_success=1)
    summary = task.run()
    assert (summary["stored"], summary["failed"], len(sandbox.creates)) == (1, 1, 1)
    line = next(line for line in task.lines if line["key"] == "a")
    assert line["error"]["message"].startswith("The row was not ordered: its file could not be stored. ")
    assert not line.get("paid")
    blocked.rename(tmp_path / "aside")
    task.clear()
    assert task.run()["stored"] == 2
    assert len(sandbox.creates) == 2


def test_a_row_whose_name_leads_out_of_the_roots_is_not_ordered(connect, sandbox, tmp_path, monkeypatch):
    """A link among the folders in it: the file could never be stored."""
    connect("ent-v2")
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "up").symlink_to("..")
    monkeypatch.setenv("AIRFLOW__VIDU__DESTINATION_ROOTS", str(tmp_path / "films"))
    rows = [{"key": "a", "name": "up/new/a", "prompt": "a cat"}, {"key": "b", "prompt": "a dog"}]
    task = BatchTask(tmp_path / "films", rows, min_success=1)
    summary = task.run()
    assert (summary["stored"], summary["failed"], len(sandbox.creates)) == (1, 1, 1)
    line = next(line for line in task.lines if line["key"] == "a")
    assert line["error"]["message"].startswith("The row was not ordered: its file could not be stored. ")
    assert "destination_roots" in line["error"]["message"]


def test_a_batch_whose_share_is_not_mounted_orders_nothing(connect, sandbox, tmp_path, monkeypatch):
    """The mount went away between two rows: what is left waits for the next try, as rows without a fault of theirs."""
    connect("ent-v2")
    (tmp_path / "share").mkdir()
    (tmp_path / "clips").symlink_to(tmp_path / "share")
    rows = [{"key": key, "name": f"clips/{key}", "prompt": "a cat"} for key in "ab"]
    task = BatchTask(tmp_path, rows)
    (tmp_path / "share").rename(tmp_path / "away")
    with pytest.raises(exceptions.ViduStorageError, match="which does not exist"):
        task.run()
    assert sandbox.creates == []
    (tmp_path / "away").rename(tmp_path / "share")
    task.clear()
    assert task.run()["stored"] == 2


def test_what_another_batch_spends_counts(connect, sandbox, tmp_path):
    """Two batches of one run share its budget, however much each of them has spent itself."""
    connect("ent-v2")
    budget = {"budget": ViduBudget(credits=4 * PRICE), "max_in_flight": 1}
    assert BatchTask(tmp_path / "a", prompts(3), **budget).run()["stored"] == 3
    with pytest.raises(exceptions.ViduBudgetError):
        BatchTask(tmp_path / "b", prompts(3), **budget).run()
    assert len(sandbox.creates) == 4


def test_a_try_counts_what_an_earlier_one_has_paid(connect, sandbox, tmp_path, variables, monkeypatch):
    """A worker that dies between the id and the budget's entry loses no entry."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(2), budget=ViduBudget(credits=100))

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(spending.BatchSpending, "count_paid", dies)
        with pytest.raises(KeyboardInterrupt):
            task.start()
    assert variables.keys("vidu_spent_") == []
    assert task.run()["stored"] == 2
    assert len(variables.keys("vidu_spent_")) == len(sandbox.creates) == 2


def entries(variables):
    """Return the last part of the budget's entries: a price, or ``lost``."""
    return sorted(name.rpartition("_")[2] for name in variables.keys("vidu_spent_"))


def test_a_lost_create_that_is_found_is_counted_once(connect, sandbox, tmp_path, variables, monkeypatch):
    """Until the batch's own search has found it, it may have spent the rest: no row is ordered, and nothing fails."""
    for module in (submitter, lost_order):
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0.1)
    connect("ent-v2", timeout=2)
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "skip": 1, "action": {"lose_answer": True}})
    task = BatchTask(tmp_path, prompts(4), max_in_flight=1, budget=ViduBudget(credits=2 * PRICE))
    with pytest.raises(exceptions.ViduBudgetError, match="20 of 20 credits, in 2 generations"):
        task.run()
    assert (len(sandbox.creates), entries(variables)) == (2, [str(PRICE)] * 2)
    assert task.xcoms["vidu_batch_place"]["credits"] == 2 * PRICE


def test_creates_that_nothing_can_find_end_a_batch(connect, sandbox, tmp_path, variables, monkeypatch):
    """A gateway loses the answers: what they may have cost is not spent again."""
    submit = SyncClient.submit

    def priced(*args, **kwargs):
        return submit(*args, **kwargs).model_copy(update={"credits": PRICE})

    monkeypatch.setattr(SyncClient, "submit", priced)  # the sandbox's gateways name no price, as most
    connect("vidu-native", timeout=2, max_retries=0)
    sandbox.add_fault({"match": {"kind": "create"}, "times": None, "skip": 1, "action": {"lose_answer": True}})
    task = BatchTask(tmp_path, prompts(6), max_in_flight=1, budget=ViduBudget(credits=3 * PRICE))
    with pytest.raises(exceptions.ViduError, match="may be spent: 10 of 30 credits"):
        task.run()
    assert (len(sandbox.creates), entries(variables)) == (3, [str(PRICE), "lost", "lost"])


def test_lost_creates_that_an_error_names_count_until_they_end(connect, sandbox, tmp_path, variables, monkeypatch):
    """Without a list, the id in the error is followed; until its end names the price, it may have spent the rest."""
    submit, query, sent = SyncClient.submit, ViduHook.get_generation, []

    def submitted(*args, **kwargs):
        sent.append(submit(*args, **kwargs).model_copy(update={"credits": PRICE}))
        if len(sent) > 1:
            raise exceptions.ViduSubmitUnknownError("the answer is damaged", generation_id=sent[-1].id)
        return sent[-1]

    def queried(*args, **kwargs):
        generation = query(*args, **kwargs)
        return generation.model_copy(update={"credits": PRICE if generation.is_done else None})

    monkeypatch.setattr(SyncClient, "submit", submitted)
    monkeypatch.setattr(ViduHook, "get_generation", queried)
    connect("vidu-native")
    task = BatchTask(tmp_path, prompts(6), max_in_flight=6, budget=ViduBudget(credits=3 * PRICE))
    with pytest.raises(exceptions.ViduBudgetError, match="30 of 30 credits, in 3 generations"):
        task.run()
    assert (len(sandbox.creates), entries(variables)) == (3, [str(PRICE)] * 3)


@pytest.mark.vidu_sandbox(price=PRICE, concurrency=50, native_shape="official")
def test_a_refund_is_no_price(connect, sandbox, tmp_path):
    """The service names a price at the end only, and 0 for what has failed: the next row is not one of many at 0."""
    connect("vidu-native")
    rows = [{"key": "bad", "prompt": "[fail:AuditSubmitIllegal] a cat"}, *prompts(8)]
    task = BatchTask(tmp_path, rows, max_in_flight=9, max_credits=3 * PRICE)
    with pytest.raises(exceptions.ViduBudgetError, match="3 of 9 rows stored"):
        task.run()
    assert [one.charge for one in sandbox.creates] == ["refunded", *["charged"] * 3]


@pytest.mark.vidu_sandbox(price=PRICE, concurrency=50, native_shape="official")
def test_a_budget_counts_what_has_no_price_yet(connect, sandbox, tmp_path):
    """The service names a price at the end only: until then, each counts as the most expensive one so far."""
    connect("vidu-native")
    task = BatchTask(tmp_path, prompts(9), max_in_flight=9, budget=ViduBudget(credits=3 * PRICE))
    with pytest.raises(exceptions.ViduBudgetError, match=r"30 of 30 credits, in 3 generations.*3 of 9 rows stored"):
        task.run()
    assert len(sandbox.creates) == 3


@pytest.mark.vidu_sandbox(price=PRICE, concurrency=50, native_shape="official")
@pytest.mark.parametrize("limit", [{"max_credits": 10 * PRICE}, {"budget": ViduBudget(credits=10 * PRICE)}], ids=min)
def test_no_task_waits_for_the_price_of_rows_that_it_does_not_have(connect, sandbox, tmp_path, monkeypatch, limit):
    """They are of another run, which waits until this leg ends, or were removed: nothing would name the price."""
    connect("vidu-native")
    first, second = (
        BatchTask(tmp_path, [{"key": run, "prompt": f"a cat {run}"}], batch="spring", timeout=5, **limit)
        for run in ("r1", "r2")
    )
    monkeypatch.setattr(plan, "stays", lambda *_, **__: False)
    deferred_by(first, sandbox)
    second.run_id = "r2"
    assert second.run()["stored"] == 1


@pytest.mark.vidu_sandbox(price=PRICE, concurrency=1, when_full="refuse")
@pytest.mark.parametrize("waits_for", ["prices", "slot", None])
def test_a_batch_that_waits_before_its_next_row_says_for_what(connect, sandbox, tmp_path, monkeypatch, waits_for):
    """It is noted for its page when the leg defers; at its own ``max_in_flight`` it waits for nothing else."""
    monkeypatch.setattr(plan, "stays", lambda *_, **__: False)
    connect("ent-v2")
    if waits_for == "prices":  # of generations of other tasks
        error = exceptions.ViduPricePendingError("They may spend the rest.")
        monkeypatch.setattr(spending.BatchSpending, "check", MagicMock(side_effect=error))
    task = BatchTask(tmp_path, prompts(3), timeout=10, max_in_flight=1 if waits_for is None else 3)
    deferred_by(task, sandbox)
    assert task.xcoms["vidu_batch_place"]["waits_for"] == waits_for
    assert len(sandbox.creates) == (waits_for != "prices")


def test_no_budget_holds_a_service_without_prices(connect, sandbox, tmp_path):
    """As for single tasks; the first file shows that there are none."""
    connect("vidu-native")
    task = BatchTask(tmp_path, prompts(6), max_in_flight=3, budget=ViduBudget(credits=PRICE))
    assert task.run()["stored"] == 6


def test_the_limit_of_a_batch_counts_what_its_rows_have_cost_before(connect, sandbox, tmp_path):
    """A clear orders a row again whose paid generation the service does not find: both are spent."""
    connect("ent-v2")
    sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": {"status": 404, "body": NOT_FOUND}})
    task = BatchTask(tmp_path, prompts(1), deferrable=False, max_failures=1, max_credits=2.5 * PRICE)
    for _ in range(2):
        with pytest.raises(exceptions.ViduBatchFailedError):
            task.run()
        task.clear()
    place = task.xcoms["vidu_batch_place"]
    assert (place["generations"], place["priced"], place["credits"]) == (2, 2, 2 * PRICE)
    with pytest.raises(exceptions.ViduBudgetError, match="20 credits are spent, and the next generation may cost 10"):
        task.run()
    assert len(sandbox.creates) == 2


def test_the_limit_of_a_batch_counts_creates_that_nothing_can_find(connect, sandbox, tmp_path, monkeypatch):
    """A gateway carries out every second one and loses the answer."""
    submit = SyncClient.submit

    def priced(*args, **kwargs):
        generation = submit(*args, **kwargs).model_copy(update={"credits": PRICE})
        if len(sandbox.creates) % 2 == 0:
            raise exceptions.ViduSubmitUnknownError("the answer was lost")
        return generation

    monkeypatch.setattr(SyncClient, "submit", priced)
    connect("vidu-native")
    task = BatchTask(tmp_path, prompts(8), max_in_flight=1, max_credits=4 * PRICE)
    with pytest.raises(exceptions.ViduBudgetError, match=r"20 credits are spent.*as may have 2 creates of unknown"):
        task.run()
    assert len(sandbox.creates) == 4
    task.clear()
    with pytest.raises(exceptions.ViduBudgetError, match=r"20 credits are spent.*as may have 2 creates of unknown"):
        task.run()
    assert len(sandbox.creates) == 4


def test_no_task_waits_for_the_lost_create_of_another_run(connect, sandbox, tmp_path, monkeypatch):
    """That run waits until this leg ends: the error may be retried, once the price is known."""
    submit, query, sent = SyncClient.submit, ViduHook.get_generation, []

    def submitted(*args, **kwargs):
        sent.append(submit(*args, **kwargs).model_copy(update={"credits": PRICE}))
        if len(sent) == 2:
            raise exceptions.ViduSubmitUnknownError("the answer is damaged", generation_id=sent[-1].id)
        return sent[-1]

    monkeypatch.setattr(SyncClient, "submit", submitted)
    monkeypatch.setattr(
        ViduHook, "get_generation", lambda *args, **known: query(*args, **known).model_copy(update={"credits": None})
    )
    monkeypatch.setattr(plan, "stays", lambda *_, **__: False)
    connect("vidu-native")
    known = {"batch": "spring", "timeout": 5, "budget": ViduBudget(credits=2 * PRICE, per="day")}
    first, second = BatchTask(tmp_path, prompts(2), **known), BatchTask(tmp_path, [{"prompt": "a dog"}], **known)
    deferred_by(first, sandbox)
    second.run_id = "r2"
    with pytest.raises(exceptions.ViduError, match="may be spent: 10 of 20 credits") as caught:
        second.run()
    assert caught.value.retryable
    assert len(sandbox.creates) == 2


def test_a_dry_run_sends_and_writes_nothing(connect, sandbox, tmp_path):
    """It says how many rows would be submitted where, which would fail and why, and leaves no trace."""
    connect("ent-v2")
    rows = [*prompts(3), {"key": "bad", "prompt": "x", "images": ["/no/such/file.png"]}, {"key": "nothing"}]
    found = BatchTask(tmp_path, rows, dry_run=True, min_success=3).run()
    assert json.loads(json.dumps(found)) == found
    assert (found["dry_run"], found["submitted"], found["failed"]) == (True, 3, 2)
    assert found["endpoints"] == {"/ent/v2/text2video": 3}
    assert "file.png" in found["errors"]["bad"]
    assert found["credits"] == {"sum": 0, "rows": 0}
    assert sandbox.requests() == []
    assert list(tmp_path.rglob("*")) == []


def test_a_dry_run_knows_the_prices_of_earlier_runs(connect, sandbox, tmp_path):
    """Rows with the model and parameters of earlier ones cost the same; rows with a file are not submitted."""
    connect("ent-v2")
    first = BatchTask(tmp_path, prompts(2), batch="series")
    summary = first.run()
    again = BatchTask(tmp_path, [*prompts(4), {"prompt": "a long cat", "duration": 8}], batch="series", dry_run=True)
    found = again.run()
    assert (found["stored"], found["submitted"], found["credits"]) == (2, 3, {"sum": 2 * PRICE, "rows": 2})
    other = BatchTask(tmp_path, prompts(3), dry_run=True)
    other.earlier["return_value"] = summary
    assert other.run()["credits"] == {"sum": 3 * PRICE, "rows": 3}
    other.earlier["return_value"] = {"manifest": "file:///etc/passwd"}
    assert other.run()["credits"]["rows"] == 0
    assert len(sandbox.creates) == 2


def test_a_dry_run_reads_no_forged_manifest(connect, sandbox, tmp_path):
    """Neither one that is nested without end, nor one elsewhere that an XCom names."""
    connect("ent-v2")
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "series.manifest.jsonl").write_text("[" * 100_000)
    terms = {"key": "a", "status": "failed", "credits": 7}
    (tmp_path / "foreign.manifest.jsonl").write_text(json.dumps(terms))
    task = BatchTask(folder, [{"key": "a", "prompt": "a cat"}], batch="series", dry_run=True)
    task.earlier["return_value"] = {"manifest": f"file://{folder}/../foreign.manifest.jsonl"}
    assert task.run()["credits"] == {"sum": 0, "rows": 0}


def test_a_key_of_the_journal_forges_no_log_line(connect, sandbox, tmp_path, monkeypatch):
    """Others may write to the destination, and so to the journal."""
    connect("ent-v2")
    leg = tmp_path / ".vidu" / "series" / "leg-000001"
    leg.mkdir(parents=True)
    order = {"e": "order", "order": {"order": 2}, "since": 1, "deadline": 2}
    event = {"e": "id", "key": "a\n[2026-01-01] ERROR forged\x1b[2J", "id": "g", "at": 1}
    (leg / "000001.jsonl").write_text(f"{json.dumps(order)}\n{json.dumps(event)}\n")
    log = MagicMock()
    monkeypatch.setattr(ViduBatchOperator, "log", log)
    assert BatchTask(tmp_path, prompts(1), batch="series").run()["stored"] == 1
    told = [call.args[0] % call.args[1:] for call in log.warning.call_args_list]
    assert [line for line in told if "no longer among the rows" in line]
    assert not [line for line in told if "\n" in line or "\x1b" in line]


def test_a_dry_run_counts_what_would_be_reused(connect, sandbox, tmp_path):
    """Equal rows share one generation, and files of earlier orders serve others."""
    connect("ent-v2")
    BatchTask(tmp_path, prompts(1), reuse="identical").run()
    rows = [{"key": "a", "prompt": "a cat 0"}, {"key": "b", "prompt": "new"}, {"key": "c", "prompt": "new"}]
    found = BatchTask(tmp_path, rows, batch="other", reuse="identical", dry_run=True).run()
    assert (found["submitted"], found["reused"]) == (1, 2)


def test_a_wrong_budget_fails_at_parse_time():
    """It is an object, because it says of what it is the limit."""
    with pytest.raises(exceptions.ViduConfigError, match="ViduBudget"):
        ViduBatchOperator(task_id="b", rows=[], destination="/tmp/x/", budget=5)
