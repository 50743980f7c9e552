"""The batch operator against the sandbox: rows in, files and a manifest out."""

from __future__ import annotations

import asyncio
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.batches import manifest, plan
from airflow_provider_vidu.batches.leg import backlog
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.operators import ViduBatchOperator, ViduBudget
from airflow_provider_vidu.operators.mapping.shared_names import batch_name
from airflow_provider_vidu.orders.media.prepared import Prepared
from airflow_provider_vidu.polling import retries
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.tasks import handover
from airflow_provider_vidu.triggers import ViduBatchTrigger
from processes import wait_for
from tests.integration.batches.batch_task import BatchTask, deferred_by

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]


NOT_FOUND = json.dumps({"code": 404, "reason": "TaskNotFound", "message": "no such task"})


def prompts(count: int) -> list[dict[str, str]]:
    """Return rows with keys of their own."""
    return [{"key": f"clip{n}", "prompt": f"a cat {n}"} for n in range(count)]


@pytest.mark.vidu_sandbox(concurrency=50)
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_from_rows_to_files(dialect, sandbox, tmp_path, deferrable):
    """Each row is ordered once, its file is stored under its key, and its line describes the file."""
    rows = prompts(5)
    task = BatchTask(tmp_path, rows, deferrable=deferrable, max_in_flight=2)
    found = task.run()
    assert (found["rows"], found["stored"], found["failed"], found["left"]) == (5, 5, 0, 0)
    assert len(sandbox.creates) == 5
    assert [line["key"] for line in task.lines] == [row["key"] for row in rows]
    for line in task.lines:
        content = Path(line["uri"].removeprefix("file://")).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (line["size"], line["sha256"])
        assert Path(line["uri"]).name == f"{line['key']}.mp4"
    assert {line["generation_id"] for line in task.lines} == {create.id for create in sandbox.creates}


@pytest.mark.usefixtures("short_stay")
def test_the_wait_is_one_small_trigger(dialect, sandbox, tmp_path):
    """Between the legs one trigger watches all ids; neither its row nor an XCom holds a row of the batch."""
    task = BatchTask(tmp_path, prompts(6), max_in_flight=3)
    deferred = deferred_by(task, sandbox)
    found = task.run(deferred)
    assert found["stored"] == 6
    for deferral in task.deferrals:
        stored = json.dumps(deferral.trigger.serialize())
        assert "a cat" not in stored
        assert len(deferral.trigger.jobs) <= 3
    assert "a cat" not in json.dumps([found, task.xcoms])
    spent = task.xcoms["vidu_batch_place"]  # what the page of the spending adds up
    assert (spent["generations"], spent["credits"]) == (6, found["credits"])


def test_a_bad_row_fails_alone(connect, sandbox, tmp_path):
    """Refused, unreadable and failed rows are lines of the manifest, with their reasons; the others have files."""
    connect("ent-v2", max_retries=1)
    rows = [
        *prompts(2),
        {"key": "refused", "prompt": "a cat", "nonsense": 1},
        {"key": "failed", "prompt": "[fail:CreationPolicyViolation]"},
        {"key": "unreadable", "prompt": "a cat", "images": ["/no/such/file.png"]},
        {"key": "nothing"},
        7,
    ]
    task = BatchTask(tmp_path, rows, min_success=2)
    found = task.run()
    assert (found["stored"], found["failed"]) == (2, 5)
    errors = {line["key"]: line["error"] for line in task.lines if line["status"] == "failed"}
    assert set(errors) == {"refused", "failed", "unreadable", "nothing", "row-7"}
    assert errors["failed"]["type"] == "ViduGenerationFailedError"
    assert "/no/such/file.png" in errors["unreadable"]["message"]
    assert not any(error["retryable"] for error in errors.values())


def test_too_few_files_fail_the_task_for_good(connect, sandbox, tmp_path):
    """After everything else is stored; a retry orders nothing, because no reason is temporary."""
    connect("ent-v2")
    task = BatchTask(tmp_path, [*prompts(2), {"key": "bad", "prompt": "[fail:CreationPolicyViolation]"}])
    with pytest.raises(exceptions.ViduBatchFailedError, match=r"1 of 3 rows failed.*bad"):
        task.run()
    assert [line["status"] for line in task.lines] == ["stored", "stored", "failed"]
    with pytest.raises(exceptions.ViduBatchFailedError):
        task.run()
    assert len(sandbox.creates) == 3


def test_a_temporary_failure_is_ordered_again_by_a_retry(connect, sandbox, tmp_path):
    """And only that row."""
    connect("ent-v2")
    task = BatchTask(tmp_path, [*prompts(2), {"key": "once", "prompt": "[fail:InternalServiceFailure] a dog"}])
    with pytest.raises(exceptions.ViduBatchIncompleteError):
        task.run()
    task.kwargs["rows"][2] = {"key": "once", "prompt": "a dog"}
    assert task.run()["stored"] == 3
    assert len(sandbox.creates) == 4


def test_stop_orders_nothing_more_once_the_batch_cannot_succeed(connect, sandbox, tmp_path):
    """With on_failure="stop"."""
    connect("ent-v2")
    rows = [{"key": "bad", "prompt": "[fail:CreationPolicyViolation]"}, *prompts(9)]
    task = BatchTask(tmp_path, rows, max_in_flight=1, on_failure="stop")
    with pytest.raises(exceptions.ViduBatchFailedError):
        task.run()
    assert len(sandbox.creates) == 1


def test_stop_counts_the_rows_only_when_it_may_be_time_to(connect, sandbox, tmp_path, monkeypatch):
    """All of them after each row that ended took a batch of 100,000 rows half an hour."""
    connect("ent-v2")
    counted = list[int]()

    def counts(state: BatchState, rows: Any) -> Any:
        counted.append(state.failed)
        return manifest.counts(state, rows)

    monkeypatch.setattr(backlog, "counts", counts)
    bad = [{"key": f"bad{n}", "prompt": "[fail:CreationPolicyViolation]"} for n in range(3)]
    rows = [*prompts(3), *bad, {"key": "last", "prompt": "a dog"}]
    task = BatchTask(tmp_path, rows, max_in_flight=1, on_failure="stop", min_success=5)
    with pytest.raises(exceptions.ViduBatchFailedError):
        task.run()
    assert counted == [3]
    assert len(sandbox.creates) == 6


@pytest.mark.vidu_sandbox(concurrency=2, when_full="refuse", gateway_concurrency=2)
def test_a_full_account_ends_no_task(dialect, sandbox, tmp_path, monkeypatch):
    """A refused create is tried again later; nothing is paid twice."""
    monkeypatch.setattr(plan, "PROBE_SECONDS", 0.2)
    task = BatchTask(tmp_path, prompts(6), max_in_flight=5)

    def go_on() -> None:
        assert wait_for(lambda: len(sandbox.requests("create")) > 2, 30)
        sandbox.set_speed(250)

    sandbox.set_speed(0)  # nothing ends before a create is refused, however busy the machine is
    with ThreadPoolExecutor(1) as beside:
        refused = beside.submit(go_on)
        assert task.run()["stored"] == 6
        refused.result(30)
    assert len(sandbox.creates) == 6
    assert len(sandbox.requests("create")) > 6


@pytest.mark.vidu_sandbox(balance=200)
def test_without_credits_the_open_generations_are_kept(connect, sandbox, tmp_path):
    """Nothing more is ordered, what is paid for is stored, then the task fails; after a top-up a clear continues."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(5), max_in_flight=5)
    with pytest.raises(exceptions.ViduCreditError, match="2 of 5 rows stored"):
        task.run()
    assert len(task.lines) == 2
    sandbox.core.ledger.balance = 10_000
    task.clear()
    assert task.run()["stored"] == 5
    assert len(sandbox.creates) == 5


def test_max_credits_is_checked_before_each_create(connect, sandbox, tmp_path):
    """A generation costs 80: three fit into 250."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(5), max_in_flight=5, max_credits=250)
    with pytest.raises(exceptions.ViduBudgetError, match="3 of 5 rows stored"):
        task.run()
    assert len(sandbox.creates) == 3


def test_max_credits_needs_a_service_that_reports_prices(connect, sandbox, tmp_path):
    """A gateway does not: after the first generation, of which that is seen, nothing more is ordered."""
    connect("vidu-native")
    task = BatchTask(tmp_path, prompts(3), max_credits=250)
    with pytest.raises(exceptions.ViduConfigError, match="max_credits cannot be held"):
        task.run()
    assert len(sandbox.creates) == 1


def test_a_clear_resumes(dialect, sandbox, tmp_path):
    """Rows with a file are not ordered again, unless the task is to order everything again."""
    task = BatchTask(tmp_path, prompts(3))
    first = task.run()
    task.clear()
    assert task.run() == first
    assert len(sandbox.creates) == 3
    task.kwargs["on_clear"] = "new"
    task.clear()
    assert task.run()["stored"] == 3
    assert len(sandbox.creates) == 6


def test_runs_with_one_destination_do_not_mix(connect, sandbox, tmp_path):
    """Another run is another batch, with a manifest of its own; a name makes them one."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(2))
    first = task.run()
    task.run_id = "another"
    assert task.run()["manifest"] != first["manifest"]
    assert len(sandbox.creates) == 4
    task.kwargs["batch"] = "spring"
    task.run()
    task.run_id, task.try_number = "third", 0
    assert task.run()["manifest"].endswith("/spring.manifest.jsonl")
    assert len(sandbox.creates) == 6


@pytest.mark.usefixtures("short_stay")
def test_a_kill_while_deferred_cancels_all(connect, sandbox, tmp_path, monkeypatch):
    """One check of the task's state, then all cancels; a hand-over cancels none."""
    connect("ent-v2")
    sandbox.set_speed(0)
    trigger = deferred_by(BatchTask(tmp_path, prompts(4)), sandbox).trigger
    seen: list[str] = []

    def state(_ti, key):
        seen.append(key)
        return ("deferred" if len(seen) == 1 else "failed"), trigger.token

    monkeypatch.setattr(handover, "_look", state)
    asyncio.run(trigger.on_kill())
    assert sandbox.requests("cancel") == []
    asyncio.run(trigger.on_kill())
    assert len(sandbox.requests("cancel")) == 4
    assert seen == ["vidu_batch", "vidu_batch"]


@pytest.mark.usefixtures("short_stay")
def test_a_kill_of_a_leg_cancels_all_and_a_retry_orders_again(connect, sandbox, tmp_path):
    """What the kill has cancelled is ordered by the same retry, not by the next one."""
    connect("ent-v2")
    sandbox.set_speed(0)
    task = BatchTask(tmp_path, prompts(3))
    deferred = deferred_by(task, sandbox)
    operator = task.operator
    operator.on_kill()
    assert len(sandbox.requests("cancel")) == 3
    del deferred
    sandbox.set_speed(500)
    assert task.run()["stored"] == 3
    assert len(sandbox.creates) == 6


def test_a_kill_before_the_send(connect, sandbox, tmp_path, monkeypatch):
    """While a row's inputs are uploaded: it ends at once, and the next leg has no create to search for."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(2), deferrable=False)
    resolve = Prepared.resolve

    def killed(prepared: Prepared, *arguments: Any) -> Any:
        task.operator.on_kill()
        return resolve(prepared, *arguments)

    with monkeypatch.context() as kills:
        kills.setattr(Prepared, "resolve", killed)
        kills.setattr(retries.Backoff, "delay", Mock(side_effect=AssertionError("The check is repeated.")))
        with pytest.raises(exceptions.ViduError, match="killed"):
            task.run()
    assert sandbox.requests("create") == []
    assert task.run()["stored"] == 2
    assert sandbox.requests("list") == []


def test_the_timeout_cancels_and_keeps(connect, sandbox, tmp_path):
    """Files are kept; the manifest says which rows timed out, and a clear orders them."""
    connect("ent-v2")
    sandbox.set_speed(0)
    task = BatchTask(tmp_path, prompts(2), deferrable=False, timeout=2)  # time for two creates
    with pytest.raises(exceptions.ViduTimeoutError, match="0 of 2 rows stored"):
        task.run()
    assert len(sandbox.requests("cancel")) == 2
    assert {line["error"]["type"] for line in task.lines} == {"ViduTimeoutError"}
    sandbox.set_speed(500)
    task.kwargs["timeout"] = 60
    task.clear()
    assert task.run()["stored"] == 2


@pytest.mark.fault(
    "orders",
    "the service answers polls more slowly than the open generations of a batch are due",
    outcome="survived",
    seen="the leg defers, and the timeout ends the batch: no more polls begin then",
)
@pytest.mark.vidu_sandbox(concurrency=50)
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_slow_service_holds_no_leg_for_ever(connect, sandbox, tmp_path, monkeypatch, deferrable):
    """Some poll is always under way then, and a leg that polls is busy."""
    connect("ent-v2")
    sandbox.set_speed(0)
    monkeypatch.setattr(plan, "STAY_SECONDS", 0.5)
    monkeypatch.setattr(plan, "LONGEST_STAY_SECONDS", 0.5)
    sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": {"delay": 0.3}})
    task = BatchTask(tmp_path, prompts(20), max_in_flight=20, deferrable=deferrable, timeout=60 if deferrable else 3)
    with pytest.raises(TaskDeferred if deferrable else exceptions.ViduTimeoutError):
        task.start()


@pytest.mark.parametrize("ends", ["outage", "timeout"])
def test_what_may_still_succeed_is_not_ordered_again(dialect, sandbox, tmp_path, ends):
    """A retry after an outage, and a clear after a timeout that cancelled nothing, resume the paid generations."""
    rule = {"match": {"kind": "query"}, "times": None, "action": {"status": 500}}
    sandbox.add_fault(rule)
    sandbox.add_fault({**rule, "match": {"kind": "cancel"}})
    limits = {"outage": {"max_failures": 1}, "timeout": {"max_failures": 100_000, "timeout": 2}}[ends]
    task = BatchTask(tmp_path, prompts(2), deferrable=False, **limits)
    with pytest.raises(exceptions.ViduTimeoutError if ends == "timeout" else exceptions.ViduBatchIncompleteError):
        task.run()
    sandbox.clear_faults()
    task.kwargs["timeout"] = 60
    if ends == "timeout":
        task.clear()
    ordered = len(sandbox.creates)
    assert task.run()["stored"] == 2
    assert len(sandbox.creates) == max(ordered, 2)


def test_a_generation_that_is_unknown_to_the_service_is_ordered_by_a_clear_only(dialect, sandbox, tmp_path):
    """A retry pays for nothing again because the service did not find it."""
    sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": {"status": 404, "body": NOT_FOUND}})
    task = BatchTask(tmp_path, prompts(1), deferrable=False, max_failures=1)
    for _ in range(2):
        with pytest.raises(exceptions.ViduBatchFailedError):
            task.run()
    assert len(sandbox.creates) == 1
    sandbox.clear_faults()
    task.clear()
    assert task.run()["stored"] == 1
    assert len(sandbox.creates) == 2


def test_a_dry_deployment_orders_nothing(dialect, sandbox, tmp_path, monkeypatch):
    """All rows are checked, nothing is sent or written, and too many wrong rows fail the task."""
    monkeypatch.setenv("AIRFLOW__VIDU__DRY_RUN", "True")
    rows = [*prompts(2), {"key": "bad", "prompt": "a cat", "images": ["/no/such.png"]}]
    found = BatchTask(tmp_path, rows, min_success=2).run()
    assert (found["dry_run"], found["rows"], list(found["errors"])) == (True, 3, ["bad"])
    with pytest.raises(exceptions.ViduBatchFailedError, match="bad"):
        BatchTask(tmp_path, rows).run()
    assert sandbox.requests() == []
    assert list(tmp_path.iterdir()) == []


def test_a_deployment_that_becomes_dry_orders_nothing_more(dialect, sandbox, tmp_path, monkeypatch, short_stay):
    """What is paid for is waited for and stored; a batch that has ordered everything succeeds."""
    wanting, whole = BatchTask(tmp_path / "a", prompts(3), max_in_flight=2), BatchTask(tmp_path / "b", prompts(2))
    waits = [deferred_by(task, sandbox) for task in (wanting, whole)]
    monkeypatch.setenv("AIRFLOW__VIDU__DRY_RUN", "True")
    with pytest.raises(exceptions.ViduConfigError, match=r"dry_run was set while the batch waited.*2 of 3 rows stored"):
        wanting.run(waits[0])
    assert whole.run(waits[1])["stored"] == 2
    assert len(sandbox.creates) == 4
    monkeypatch.delenv("AIRFLOW__VIDU__DRY_RUN")
    wanting.clear()
    assert wanting.run()["stored"] == 3


@pytest.mark.parametrize(
    ("name", "written", "rendered"),
    [
        ("rows", "{{ x }}", "None"),
        ("batch", "{{ x }}", ""),
        ("model", "{{ x }}", None),
        ("images", "{{ x }}", ""),
        ("parameters", {"duration": "{{ x }}"}, {"duration": "None"}),
    ],
)
def test_what_a_template_renders_to_nothing_orders_nothing(dialect, sandbox, tmp_path, name, written, rendered):
    """Instead of ordering the whole batch without it, or again under another name."""
    task = ViduBatchOperator(**{**BatchTask(tmp_path, prompts(1)).kwargs, name: written})
    setattr(task, name, rendered)
    with pytest.raises(exceptions.ViduConfigError, match=name):
        task.execute({})
    assert sandbox.requests() == []


@pytest.mark.parametrize("name", ["model", "images", "parameters", "batch", "max_credits", "budget"])
def test_what_is_mapped_over_nothing_orders_nothing(connect, sandbox, tmp_path, name):
    """An upstream task had no value for one of the instances; a None that the DAG itself holds is meant."""
    connect("ent-v2")
    task = BatchTask(tmp_path, [{"prompt": "a cat", "model": "m"}], **{name: None})

    def run(mapped_over: object) -> dict[str, Any]:
        mapped = SimpleNamespace(expand_input=SimpleNamespace(value={name: mapped_over}))
        task.further["dag"] = SimpleNamespace(task_dict={"films": mapped})
        return task.run()

    with pytest.raises(exceptions.ViduConfigError, match=f"{name} is None"):
        run("the output of an upstream task")
    assert sandbox.creates == []
    assert run(["x", None])["stored"] == 1


def test_each_iteration_of_a_loop_is_a_batch(tmp_path):
    """Otherwise the second one would return the files of the first."""
    task = BatchTask(tmp_path, prompts(1))
    context = task.context()
    names = {batch_name(task.operator, {**context, "loop": SimpleNamespace(index=index)}) for index in (0, 1)}
    assert len(names | {batch_name(task.operator, context)}) == 3


def test_rows_may_be_the_text_of_a_list(tmp_path):
    """As a template with the filter tojson renders it."""
    rows = BatchTask(tmp_path, ' [{"key": "a", "prompt": "x"}, "y"] ').operator._rows()
    assert [row.arguments["prompt"] for row in rows] == ["x", "y"]


def test_a_failed_download_does_not_order_again(dialect, sandbox, tmp_path):
    """A retry stores the file of the generation that is paid for."""
    sandbox.add_fault({"match": {"kind": "file"}, "times": None, "action": {"status": 404, "body": "gone"}})
    task = BatchTask(tmp_path, prompts(2))
    with pytest.raises(exceptions.ViduError):
        task.run()
    sandbox.clear_faults()
    task.clear()
    assert task.run()["stored"] == 2
    assert len(sandbox.creates) == 2


def test_a_success_without_an_address_is_not_ordered_again(dialect, sandbox, tmp_path):
    """It is paid for, and its file may come: a clear polls it again, and orders nothing."""
    task = BatchTask(tmp_path, [{"key": "a", "prompt": "a cat [nourl]"}], deferrable=False)
    with pytest.raises(exceptions.ViduBatchFailedError, match="no usable video URL"):
        task.run()
    assert task.lines[0]["paid"] is True
    (generation,) = sandbox.core.generations.values()
    generation.without_url = False
    task.clear()
    assert (task.run()["stored"], len(sandbox.creates)) == (1, 1)


def test_a_lost_create_is_found(connect, sandbox, tmp_path, monkeypatch):
    """The answer to a create is lost: the row's generation is searched for, and paid once."""
    from airflow_provider_vidu.batches.leg import submitter
    from airflow_provider_vidu.orders import lost_order

    for module in (submitter, lost_order):
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0.1)
    connect("ent-v2", timeout=2)
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "skip": 1, "action": {"lose_answer": True}})
    task = BatchTask(tmp_path, prompts(4))
    assert task.run()["stored"] == 4
    assert len(sandbox.creates) == 4


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_rows_in_a_file(connect, sandbox, tmp_path, ending):
    """Columns without a name of their own are parameters, with their types."""
    connect("ent-v2")
    path = tmp_path / f"rows.{ending}"
    if ending == "csv":
        path.write_text('key,prompt,duration\na,"a cat, red",4\nb,a dog,\n', "utf-8")
    else:
        lines = ['{"key": "a", "prompt": "a cat, red", "duration": 4}', "", '{"key": "b", "prompt": "a dog"}', "{oops"]
        path.write_text("\n".join(lines), "utf-8")
    task = BatchTask(tmp_path / "out", str(path), min_success=2)
    assert task.run()["stored"] == 2
    assert [create.body.get("duration") for create in sandbox.creates] == [4, None]


@pytest.mark.fault(
    "from Airflow", "execute({}) or a MagicMock as context", outcome="survived", side="batch", seen="the summary"
)
@pytest.mark.parametrize(
    "stand_in",
    [
        None,
        {},
        MagicMock(),
        {"ti": Mock(), "dag": Mock()},
        {"ti": MagicMock(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1)},
    ],
    ids=["None", "nothing", "a mock", "mocks without items", "a mock with names"],
)
def test_in_a_unit_test_of_a_user(connect, sandbox, tmp_path, stand_in):
    """No context is needed, and a mock of one does, also with a budget: nothing is kept outside of the folder."""
    connect("ent-v2")
    arguments = {**BatchTask(tmp_path, prompts(2)).kwargs, "budget": ViduBudget(credits=1000), "deferrable": False}
    task = ViduBatchOperator(**arguments)
    task.pre_execute(stand_in)
    task.post_execute(stand_in, summary := task.execute(stand_in))
    assert (summary["stored"], len(sandbox.creates)) == (2, 2)


@pytest.mark.parametrize("field", ["images", "template", "parameters"])
def test_a_field_of_a_row_that_renders_to_none_orders_nothing(connect, sandbox, tmp_path, field):
    """An upstream task had no result: without the field, the row would be another product, and paid for."""
    connect("ent-v2")
    written = {"key": "a", "prompt": "a cat", "style": None, field: "{{ x }}"}
    if field == "parameters":
        written["parameters"] = {"video_creation_id": "{{ x }}"}
    rendered = {**written, field: {"video_creation_id": None} if field == "parameters" else None}
    task = ViduBatchOperator(**{**BatchTask(tmp_path, [written, {"prompt": "a dog"}]).kwargs, "min_success": 1})
    task.rows = [rendered, {"prompt": "a dog"}]
    task.deferrable = False
    assert (task.execute({})["stored"], len(sandbox.creates)) == (1, 1)
    (line,) = [line for line in map(json.loads, next(tmp_path.glob("*.jsonl")).open()) if line["key"] == "a"]
    assert f"{field if field != 'parameters' else 'parameters.video_creation_id'} is None" in line["error"]["message"]


@pytest.mark.usefixtures("short_stay")
def test_a_file_of_rows_that_is_gone_after_the_wait(connect, sandbox, tmp_path):
    """The generations are paid for, so the error is retryable; a try that orders nothing yet fails for good."""
    connect("ent-v2")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a cat"}\n{"prompt": "a dog"}\n', "utf-8")
    task = BatchTask(tmp_path / "out", str(path))
    sandbox.set_speed(0)
    deferred = deferred_by(task, sandbox)
    path.rename(tmp_path / "aside")
    with pytest.raises(exceptions.ViduError, match=r"does not exist.*paid for: once that is fixed, a retry") as caught:
        task.wake(deferred, None)
    assert caught.value.retryable
    with pytest.raises(exceptions.ViduConfigError, match="does not exist"):
        BatchTask(tmp_path / "other", str(path)).start()
    (tmp_path / "aside").rename(path)
    sandbox.set_speed(250)
    assert task.run()["stored"] == len(sandbox.creates) == 2


@pytest.mark.usefixtures("short_stay")
def test_a_connection_of_the_store_that_is_gone_after_the_wait(connect, sandbox, tmp_path, monkeypatch):
    """The generations are paid for, so a retry goes on with them as soon as the connection is back."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(2))
    sandbox.set_speed(0)
    deferred = deferred_by(task, sandbox)

    def missing(*_: object) -> None:
        raise exceptions.ViduConfigError("There is no Airflow connection 'store'.")

    with monkeypatch.context() as patch:
        patch.setattr(Destination, "file", missing)
        with pytest.raises(exceptions.ViduError, match=r"no Airflow connection.*a retry or a clear resumes") as caught:
            task.wake(deferred, None)
    assert caught.value.retryable
    sandbox.set_speed(250)
    assert task.run()["stored"] == len(sandbox.creates) == 2


def test_wrong_arguments_fail_at_parse_time():
    """What is wrong in every run is reported when the DAG is read."""
    from airflow_provider_vidu.operators import ViduBatchOperator

    for arguments, words in (
        ({"destination": "/tmp/a.mp4"}, "must be a folder"),
        ({"max_in_flight": 0}, "max_in_flight must be from 1"),
        ({"max_in_flight": 1001}, "max_in_flight must be from 1 to 1,000"),
        ({"max_credits": 0}, "max_credits"),
        ({"min_success": 1.5}, "min_success"),
        ({"naming": "{prompt}"}, "naming must contain"),
        ({"naming": "{key} {x}"}, "unknown field 'x'"),
        ({"rows": None}, "rows is None"),
        ({"on_clear": "maybe"}, "on_clear must be one of"),
        ({"max_bytes": "1"}, "max_bytes must be a whole number above 0"),
        ({"max_bytes": 0}, "max_bytes must be a whole number above 0"),
    ):
        with pytest.raises(exceptions.ViduConfigError, match=words):
            ViduBatchOperator(**{"task_id": "b", "rows": [], "destination": "/tmp/x/", **arguments})


def test_a_setting_that_no_download_can_use_orders_nothing(dialect, sandbox, tmp_path, monkeypatch):
    """Each row would be paid for, and none kept."""
    monkeypatch.setenv("AIRFLOW__VIDU__ALLOWED_HOSTS", "10.0.0.0/99")
    with pytest.raises(exceptions.ViduConfigError, match=r"\[vidu\] allowed_hosts"):
        BatchTask(tmp_path, prompts(2)).start()
    assert sandbox.requests("create") == []


def test_an_old_event_only_costs_polls(dialect, sandbox, tmp_path):
    """The task reads what is open from its own state, whatever an event says."""
    task = BatchTask(tmp_path, prompts(2))
    sandbox.set_speed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "stays", lambda *_, **__: False)
        deferred = deferred_by(task, sandbox)
    assert isinstance(deferred.trigger, ViduBatchTrigger)
    sandbox.set_speed(500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "stays", lambda *_, **__: True)
        assert task.wake(deferred, {"kind": "batch", "token": "other", "ended": ["1"]})["stored"] == 2
    assert len(sandbox.creates) == 2


def test_identical_rows_share_a_file(connect, sandbox, tmp_path):
    """Within a batch and with an earlier run in the same destination; not after a clear that orders all again."""
    connect("ent-v2")
    rows = [{"key": "a", "prompt": "x"}, {"key": "b", "prompt": "x"}, {"key": "c", "prompt": "y"}]
    task = BatchTask(tmp_path, rows, reuse="identical", on_clear="new")
    found = task.run()
    assert (found["stored"], found["reused"], len(sandbox.creates)) == (3, 1, 2)
    first, second, _ = task.lines
    assert second["reused_from"] == first["generation_id"]
    assert second["uri"] == first["uri"]

    task.run_id = "another"
    assert task.run()["reused"] == 3
    assert len(sandbox.creates) == 2
    task.clear()
    assert task.run()["reused"] == 0
    assert len(sandbox.creates) == 5


def test_a_failed_twin_does_not_fail_the_others(connect, sandbox, tmp_path):
    """The next equal row is ordered instead."""
    connect("ent-v2")
    sandbox.add_fault({"match": {"kind": "file"}, "times": None, "action": {"status": 404, "body": "gone"}})
    rows = [{"key": "a", "prompt": "x"}, {"key": "b", "prompt": "x"}]
    task = BatchTask(tmp_path, rows, reuse="identical", min_success=0)
    assert task.run()["failed"] == 2
    assert len(sandbox.creates) == 2


@pytest.mark.parametrize("named", [{"a": 1}, ["aws"], True, 1.5])
def test_a_connection_of_the_store_that_is_no_text_is_refused(dialect, sandbox, tmp_path, named):
    """An XCom that a mapped batch is expanded over may hold any value."""
    task = BatchTask(tmp_path, prompts(1), storage_conn_id=named)
    with pytest.raises(exceptions.ViduConfigError, match="storage_conn_id"):
        task.start()
    assert sandbox.creates == []
