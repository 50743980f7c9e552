"""The generate operator with ``reuse="identical"``: equal orders of several tasks are paid for once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.providers.common.compat.sdk import Asset, AssetAlias, TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.batches import catalogue
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.orders import claims
from airflow_provider_vidu.sandbox.media.pictures import png
from tests.integration.batches.batch_task import BatchTask
from tests.integration.operators.test_generate import Task
from tests.integration.outlet_events import Events

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables")]


class RunTask(Task):
    """A task instance of a run of its own."""

    def __init__(self, folder: Path, run_id: str = "r1", **kwargs: Any) -> None:
        self.run_id = run_id
        super().__init__(**{"destination": f"{folder}/", "reuse": "identical", "deferrable": True, **kwargs})

    def context(self) -> dict[str, Any]:
        """Return the context of the current try."""
        context = super().context()
        context["ti"].run_id = self.run_id
        return context


@pytest.fixture
def hurried(monkeypatch) -> None:
    """Let nothing wait for a claim whose create may still be answered."""
    monkeypatch.setattr(claims, "TOTAL_TIMEOUTS", 0)
    monkeypatch.setattr(claims, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("airflow_provider_vidu.orders.lost_order.SETTLE_SECONDS", 0.0)


def claims_in(folder: Path) -> list[dict[str, Any]]:
    """Return what the claims in a folder hold."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob(".vidu/claims/*/*.json"))]


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_an_equal_order_is_not_paid_again(dialect, sandbox, tmp_path, deferrable):
    """Another task with the same request gets the file and the id, and says so; no claim remains."""
    first = RunTask(tmp_path, deferrable=deferrable).run()
    second = RunTask(tmp_path, "r2", deferrable=deferrable).run()
    assert len(sandbox.creates) == 1
    assert "reused_from" not in first
    assert second["reused_from"] == second["id"] == first["id"]
    assert (second["file"], second["status"], second["credits"]) == (first["file"], "succeeded", None)
    assert claims_in(tmp_path) == []


@pytest.mark.parametrize("context", [{}, MagicMock()], ids=["empty", "mock"])
def test_equal_orders_outside_of_a_task(dialect, sandbox, tmp_path, context):
    """As in a script or a user's unit test; a batch shares them, too."""
    found = [RunTask(tmp_path, deferrable=False).operator.execute(context) for _ in range(3)]
    assert len(sandbox.creates) == 1
    assert [result.get("reused_from") for result in found] == [None, found[0]["id"], found[0]["id"]]
    assert claims_in(tmp_path) == []


@pytest.mark.parametrize("reuse", ["never", "identical"])
def test_a_retry_whose_inputs_are_gone_keeps_what_is_paid_for(dialect, sandbox, tmp_path, reuse):
    """The digest cannot be computed any more, but the order was submitted; a task that was not says what it lacks."""
    image = tmp_path / "cat.png"
    image.write_bytes(png("seed"))
    task = RunTask(tmp_path / "films", images=[str(image)], reuse=reuse, deferrable=False)
    sandbox.add_fault({"match": {"kind": "file"}, "times": None, "action": {"status": 404, "body": "gone"}})
    with pytest.raises(exceptions.ViduError):
        task.run()
    sandbox.clear_faults()
    image.unlink()
    assert Path(task.run()["file"]["uri"].removeprefix("file://")).exists()
    assert len(sandbox.creates) == 1
    with pytest.raises(exceptions.ViduConfigError, match="does not exist"):
        RunTask(tmp_path / "films", "r2", images=[str(image)], reuse=reuse).run()


def test_a_clear_of_a_reused_result_that_resumes_pays_nothing(dialect, sandbox, tmp_path):
    """As a clear of a task with an order of its own: on_clear="resume" is to save the second price."""
    first = RunTask(tmp_path).run()
    task = RunTask(tmp_path, "r2", on_clear="resume")
    assert task.run()["reused_from"] == first["id"]
    task.clear()
    assert task.run()["reused_from"] == first["id"]
    assert len(sandbox.creates) == 1


def test_a_reused_file_is_reported_to_the_outlets(dialect, sandbox, tmp_path, monkeypatch):
    """As a stored one is: a DAG that is scheduled on the files would otherwise not run, or not know which."""
    film, films = Asset("s3://bucket/film"), AssetAlias("films")
    seen = []
    for run_id in ("r1", "r2"):
        task = RunTask(tmp_path, run_id, outlets=[film, films], deferrable=False)
        events = Events()
        known = {**task.context(), "outlet_events": events}
        monkeypatch.setattr(task, "context", lambda known=known: known)
        result = task.run()
        assert events[films].added == [(result["file"]["uri"], events[film].extra)]
        seen.append({name: events[film].extra.get(name) for name in ("uri", "sha256", "generation_id", "prompt")})
    assert len(sandbox.creates) == 1
    assert seen[0] == seen[1]


@pytest.mark.parametrize("changed", [{"prompt": "a dog"}, {"parameters": {"duration": 8}}, {"reuse": "never"}], ids=min)
def test_another_order_is_paid(dialect, sandbox, tmp_path, changed):
    """A request that differs, and a task that wants no reuse, submit."""
    RunTask(tmp_path).run()
    assert "reused_from" not in RunTask(tmp_path, "r2", **changed).run()
    assert len(sandbox.creates) == 2


def test_numbers_of_templates_are_numbers(connect, sandbox, tmp_path):
    """A template turns 5 into text, and pandas into 5.0: what ``ent-v2`` gets is one request."""
    connect("ent-v2")
    written: list[dict[str, Any]] = [
        {"duration": "5", "bgm": "False"},
        {"bgm": False, "duration": 5},
        {"duration": 5.0, "bgm": "false"},
    ]
    for number, parameters in enumerate(written):
        RunTask(tmp_path, f"r{number}", parameters=parameters).run()
    assert len(sandbox.creates) == 1


def test_a_clear_generates_again(dialect, sandbox, tmp_path):
    """And so does its retry; a later task gets the newer file."""
    task = RunTask(tmp_path)
    first = task.run()
    task.clear()
    sandbox.add_fault({"match": {"kind": "file"}, "times": None, "action": {"status": 404, "body": "gone"}})
    with pytest.raises(exceptions.ViduError):
        task.run()
    sandbox.clear_faults()
    again = task.run()
    assert again["id"] != first["id"]
    assert len(sandbox.creates) == 2
    assert RunTask(tmp_path, "r2").run()["reused_from"] == again["id"]


def test_a_clear_of_a_reused_result_generates(dialect, sandbox, tmp_path):
    """The task has no order of its own, and Airflow's counters alone show the clear."""
    RunTask(tmp_path).run()
    task = RunTask(tmp_path, "r2")
    assert "reused_from" in task.run()
    task.clear()
    assert "reused_from" not in task.run()


def test_a_run_created_with_more_retries_was_not_cleared(connect, sandbox, tmp_path):
    """Airflow keeps the number of tries that a queued task had before its DAG's author lowered ``retries``."""
    connect("ent-v2")
    RunTask(tmp_path).run()
    task = RunTask(tmp_path, "r2")
    task.max_tries = 5
    assert "reused_from" in task.run()
    assert len(sandbox.creates) == 1


@pytest.mark.parametrize("damage", ["removed", "cut", "moved"])
def test_a_catalogue_is_believed_only_with_its_file(dialect, sandbox, tmp_path, damage):
    """The file must be there with its size, and lie within the destination."""
    path = Path(RunTask(tmp_path / "clips").run()["file"]["uri"].removeprefix("file://"))
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        (entry,) = (tmp_path / "clips").glob(".vidu/catalogue/*.json")
        other = tmp_path / "other.mp4"
        path.rename(other)
        entry.write_text(json.dumps({**json.loads(entry.read_text()), "uri": f"file://{other}"}))
    assert "reused_from" not in RunTask(tmp_path / "clips", "r2").run()
    assert len(sandbox.creates) == 2


@pytest.mark.parametrize("damage", [{"content_type": 5}, {"content_type": None}, {"sha256": ["x"]}])
def test_a_catalogue_whose_record_is_none_is_not_believed(connect, sandbox, tmp_path, damage):
    """Another writer of the destination may have put it there: each try of an equal order ended with a bare error."""
    connect("ent-v2")
    RunTask(tmp_path).run()
    (entry,) = tmp_path.glob(".vidu/catalogue/*.json")
    entry.write_text(json.dumps({**json.loads(entry.read_text()), **damage}))
    assert RunTask(tmp_path, "r2").run()["file"]["content_type"] == "video/mp4"
    assert len(sandbox.creates) == 2


def test_equal_orders_at_the_same_time_share_one_create(dialect, sandbox, tmp_path):
    """The second waits for the generation of the first; the first to be woken stores the file, once."""
    first, second = RunTask(tmp_path), RunTask(tmp_path, "r2")
    with pytest.raises(TaskDeferred) as own:
        first.start()
    with pytest.raises(TaskDeferred) as shared:
        second.start()
    assert len(sandbox.creates) == 1
    assert shared.value.trigger.generation_id == own.value.trigger.generation_id
    assert shared.value.trigger.cancel_on_kill is False
    found = second.resume(shared.value)
    assert found["reused_from"] == sandbox.creates[0].id
    assert first.resume(own.value)["file"]["uri"] == found["file"]["uri"]
    assert len(list(tmp_path.glob("*.mp4"))) == 1
    assert claims_in(tmp_path) == []


def test_a_kill_of_the_second_cancels_nothing(dialect, sandbox, tmp_path):
    """It pays nothing, so the generation is not its own to cancel."""
    with pytest.raises(TaskDeferred):
        RunTask(tmp_path).start()
    second = RunTask(tmp_path, "r2")
    with pytest.raises(TaskDeferred):
        second.start()
    second.operator.on_kill()
    assert sandbox.requests("cancel") == []


def test_a_refused_create_gives_the_claim_back(dialect, sandbox, tmp_path):
    """The next task may submit."""
    sandbox.add_fault({"match": {"kind": "create"}, "action": {"status": 400, "body": '{"code": 400}'}})
    with pytest.raises(exceptions.ViduError):
        RunTask(tmp_path).run()
    assert claims_in(tmp_path) == []
    assert "reused_from" not in RunTask(tmp_path, "r2").run()


def die_in(monkeypatch, method: str) -> None:
    """Let the process die right after a method of the claim has done its work."""
    whole = getattr(claims.Claim, method)

    def deadly(self: Any, *arguments: Any) -> None:
        whole(self, *arguments)
        monkeypatch.setattr(claims.Claim, "release", lambda self: None)
        raise KeyboardInterrupt  # what no code of a task handles

    monkeypatch.setattr(claims.Claim, method, deadly)


@pytest.mark.usefixtures("hurried")
def test_a_dead_owner_before_its_create_blocks_no_one(dialect, sandbox, tmp_path, monkeypatch):
    """The account's list proves that there is no generation, and the next task submits; without a list it fails."""
    with monkeypatch.context() as dying:
        die_in(dying, "take")
        with pytest.raises(KeyboardInterrupt):
            RunTask(tmp_path).start()
    assert len(claims_in(tmp_path)) == 1
    assert sandbox.requests("create") == []
    second = RunTask(tmp_path, "r2")
    if dialect == "ent-v2":
        assert "reused_from" not in second.run()
        assert len(sandbox.creates) == 1
    else:
        with pytest.raises(exceptions.ViduSubmitUnknownError, match=r"then remove .*claims"):
            second.run()
        assert sandbox.requests("create") == []


@pytest.mark.usefixtures("hurried")
def test_a_dead_owner_after_its_create_is_paid_once(connect, sandbox, tmp_path, monkeypatch):
    """The list shows its generation, which the next task shares and stores; the owner's retry gets the same."""
    connect("ent-v2")
    whole = SyncClient.submit

    def deadly(self: Any, *arguments: Any, **known: Any) -> Any:
        whole(self, *arguments, **known)
        raise KeyboardInterrupt

    first = RunTask(tmp_path)
    with monkeypatch.context() as dying:
        dying.setattr(SyncClient, "submit", deadly)
        with pytest.raises(KeyboardInterrupt):
            first.start()
    assert claims_in(tmp_path)[0]["record"]["generation_id"] is None
    found = RunTask(tmp_path, "r2").run()
    assert found["reused_from"] == sandbox.creates[0].id
    assert first.run()["id"] == found["id"]
    assert len(sandbox.creates) == 1


def test_a_failed_generation_is_not_shared_for_ever(connect, sandbox, tmp_path):
    """Its claim stands for nothing; the next task takes it over."""
    connect("ent-v2")
    with pytest.raises(exceptions.ViduGenerationFailedError):
        RunTask(tmp_path, prompt="[fail:CreationPolicyViolation] a cat").run()
    with pytest.raises(exceptions.ViduGenerationFailedError):
        RunTask(tmp_path, "r2", prompt="[fail:CreationPolicyViolation] a cat").run()
    assert len(sandbox.creates) == 2


def test_a_cancelled_generation_of_another_task_may_be_retried(connect, sandbox, tmp_path):
    """That task was killed; the retry of this one submits."""
    connect("ent-v2")
    sandbox.set_speed(0)
    first, second = RunTask(tmp_path), RunTask(tmp_path, "r2")
    with pytest.raises(TaskDeferred) as own:
        first.start()
    with pytest.raises(TaskDeferred) as shared:
        second.start()
    ViduHook().cancel_generation(own.value.trigger.generation_id)
    with pytest.raises(exceptions.ViduGenerationInterruptedError, match="another task with an equal order"):
        second.resume(shared.value)
    sandbox.set_speed(250)
    assert "reused_from" not in second.run()
    assert len(sandbox.creates) == 2


@pytest.mark.usefixtures("hurried")
def test_who_lost_the_claim_sends_nothing(dialect, sandbox, tmp_path, monkeypatch):
    """A task that slept between its claim and its create, so that another one has taken over, submits nothing."""
    whole = claims.Claim.check

    def late(self: Any) -> None:
        monkeypatch.setattr(claims.Claim, "check", whole)
        assert self._own is not None
        claims.create_file(self._file(2), claims._content(claims._Held(2, "another", self._own.record)), "x/y")
        self.check()

    monkeypatch.setattr(claims.Claim, "check", late)
    with pytest.raises(exceptions.ViduError, match="taken over"):
        RunTask(tmp_path).start()
    assert sandbox.requests("create") == []


@pytest.mark.vidu_sandbox(concurrency=50)
def test_batches_and_single_tasks_share_a_catalogue(dialect, sandbox, tmp_path):
    """A batch finds the file of a single task, and a single task that of a batch."""
    single = RunTask(tmp_path).run()
    rows = [{"key": "known", "prompt": "a cat"}, {"key": "new", "prompt": "a dog"}]
    assert BatchTask(tmp_path, rows, reuse="identical").run()["reused"] == 1
    assert RunTask(tmp_path, "r2", prompt="a dog").run()["reused_from"] == sandbox.creates[1].id
    assert len(sandbox.creates) == 2
    assert single["id"] == sandbox.creates[0].id


@pytest.mark.parametrize("arguments", [{}, {"destination": "/tmp/x.mp4"}, {"destination": "/tmp/x/", "reuse": "all"}])
def test_wrong_arguments_fail_at_parse_time(arguments):
    """The file of an equal order can only be in a folder."""
    from airflow_provider_vidu.operators import ViduGenerateOperator

    with pytest.raises(exceptions.ViduConfigError, match="reuse"):
        ViduGenerateOperator(**{"task_id": "g", "prompt": "x", "reuse": "identical", **arguments})


@pytest.mark.vidu_sandbox(concurrency=50)
def test_a_batch_and_a_single_task_share_one_create(dialect, sandbox, tmp_path, monkeypatch):
    """Rows wait for the generation of another task, and a single task waits for that of a row."""
    monkeypatch.setattr(catalogue, "PARKED_SECONDS", 0.3)
    single = RunTask(tmp_path)
    with pytest.raises(TaskDeferred) as own:
        single.start()
    rows = [{"key": "shared", "prompt": "a cat"}, {"key": "twin", "prompt": "a cat"}, {"key": "new", "prompt": "a dog"}]
    batch = BatchTask(tmp_path, rows, reuse="identical")
    with pytest.raises(TaskDeferred) as deferred:
        batch.start()
    assert len(sandbox.creates) == 2
    first = single.resume(own.value)
    while True:
        try:
            found = batch.wake(deferred.value, batch.event(deferred.value))
            break
        except TaskDeferred as again:
            deferred.value = again
    assert (found["stored"], found["reused"]) == (3, 2)
    assert {line["generation_id"] for line in batch.lines if line["key"] != "new"} == {first["id"]}
    assert len(sandbox.creates) == 2
    assert claims_in(tmp_path) == []


@pytest.mark.vidu_sandbox(concurrency=50)
def test_a_single_task_waits_for_a_row(connect, sandbox, tmp_path):
    """The claim of a batch has the generation's id right after the create, and is gone with the file."""
    connect("ent-v2")
    sandbox.set_speed(0)
    batch = BatchTask(tmp_path, [{"prompt": "a cat"}], reuse="identical")
    batch.kwargs["timeout"] = 600
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_vidu.batches.plan.stays", lambda *_, **__: False)
        with pytest.raises(TaskDeferred) as deferred:
            batch.start()
    single = RunTask(tmp_path)
    with pytest.raises(TaskDeferred) as shared:
        single.start()
    assert shared.value.trigger.generation_id == sandbox.creates[0].id
    sandbox.set_speed(250)
    assert batch.wake(deferred.value, batch.event(deferred.value))["stored"] == 1
    assert single.resume(shared.value)["reused_from"] == sandbox.creates[0].id
    assert len(sandbox.creates) == 1
    assert claims_in(tmp_path) == []
