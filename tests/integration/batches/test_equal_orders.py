"""Equal orders of a batch and of other tasks (``reuse="identical"``) where one of them ends badly: paid for once."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.batches import catalogue
from airflow_provider_vidu.batches.leg import submitter
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.orders import claims, lost_order
from tests.integration.batches.batch_task import BatchTask, deferred_by
from tests.integration.operators.test_generate_reuse import RunTask, claims_in

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables"),
    pytest.mark.vidu_sandbox(concurrency=50),
]

TWINS = [{"key": "a", "prompt": "a cat"}, {"key": "b", "prompt": "a cat"}]


def die_after(monkeypatch: pytest.MonkeyPatch, task: BatchTask, whole: Any, place: tuple[Any, str]) -> None:
    """Let the worker die right after the first call of a function, in a task's first leg."""

    def deadly(*arguments: Any, **known: Any) -> None:
        whole(*arguments, **known)
        raise KeyboardInterrupt  # what no code of a task handles

    with monkeypatch.context() as dying:
        dying.setattr(*place, deadly)
        with pytest.raises(KeyboardInterrupt):
            task.start()


def test_the_twin_of_a_lost_create_waits_for_the_search(dialect, sandbox, tmp_path, monkeypatch):
    """A worker died during the create of one of two equal rows: the other shares what is found, or fails like it."""
    monkeypatch.setattr(submitter, "SETTLE_SECONDS", 1.0)
    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 1.0)
    task = BatchTask(tmp_path, TWINS, reuse="identical")
    die_after(monkeypatch, task, SyncClient.submit, (SyncClient, "submit"))
    if dialect == "ent-v2":
        found = task.run()
        assert (found["stored"], found["reused"]) == (2, 1)
    else:
        with pytest.raises(exceptions.ViduError):
            task.run()
        assert {line["error"]["type"] for line in task.lines} == {"ViduSubmitUnknownError"}
    assert len(sandbox.creates) == 1


@pytest.mark.parametrize("is_opened", [True, False], ids=["open", "lost"])
def test_a_row_with_another_key_continues_what_is_paid(connect, sandbox, tmp_path, monkeypatch, is_opened):
    """The rows were edited after the worker died: the equal row takes the generation of the one that was removed."""
    connect("ent-v2")
    monkeypatch.setattr(submitter, "SETTLE_SECONDS", 1.0)
    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 1.0)
    task = BatchTask(tmp_path, TWINS[:1], reuse="identical", batch="films")
    whole, place = SyncClient.submit, (SyncClient, "submit")
    if is_opened:
        whole, place = submitter.Submitter.submit, (submitter.Submitter, "submit")
    die_after(monkeypatch, task, whole, place)
    task.kwargs["rows"] = [{**TWINS[0], "key": "renamed"}, {**TWINS[0], "key": "copied"}]
    found = task.run()
    assert (found["stored"], found["credits"]) == (2, sandbox.creates[0].credits)
    assert {line["generation_id"] for line in task.lines} == {sandbox.creates[0].id}
    assert len(sandbox.creates) == 1


def test_a_product_with_a_query_of_its_own_is_shared(connect, sandbox, tmp_path, monkeypatch):
    """The batch finds the generation of another task where it was submitted."""
    connect("ent-v2")
    monkeypatch.setattr(claims, "GRACE_SECONDS", 0)
    monkeypatch.setattr("airflow_provider_vidu.batches.plan.stays", lambda *_, **__: False)
    monkeypatch.setattr(catalogue, "PARKED_SECONDS", 0.3)
    images = [f"https://example.com/{number}.png" for number in range(7)]
    body = {"images": images, "audio_url": "https://example.com/a.mp3", "prompt": "x"}
    single = RunTask(tmp_path, prompt=None, model=None, body=body, endpoint="one-click/mv")
    own = deferred_by(single, sandbox)
    batch = BatchTask(tmp_path, [{"body": body, "endpoint": "one-click/mv"}], reuse="identical", model=None)
    parked = deferred_by(batch, sandbox)
    assert len(sandbox.creates) == 1
    single.resume(own)
    assert batch.run(parked)["reused"] == 1


@pytest.mark.parametrize("is_batch", [True, False], ids=["batch", "single"])
def test_the_id_in_an_error_answer_is_shared(connect, sandbox, tmp_path, monkeypatch, is_batch):
    """Without a list it is all there is, also for the tasks with equal orders: the claim holds it."""
    connect("vidu-native")
    sandbox.set_speed(0)
    submit = ViduHook._submit

    def answered_badly(*arguments: Any, **known: Any) -> None:
        raise exceptions.ViduSubmitUnknownError("x", generation_id=submit(*arguments, **known).id)

    monkeypatch.setattr(ViduHook, "_submit", answered_badly)
    monkeypatch.setattr("airflow_provider_vidu.batches.plan.stays", lambda *_, **__: False)
    task = BatchTask(tmp_path, TWINS[:1], reuse="identical") if is_batch else RunTask(tmp_path)
    with pytest.raises(TaskDeferred if is_batch else exceptions.ViduSubmitUncertainError):
        task.start()
    assert [claim["record"]["generation_id"] for claim in claims_in(tmp_path)] == [sandbox.creates[0].id]


def test_a_file_that_its_owner_never_stores(dialect, sandbox, tmp_path, monkeypatch):
    """The other task has failed after its generation: the row stores the file, and nothing is paid for twice."""
    monkeypatch.setattr(catalogue, "PARKED_SECONDS", 0.3)
    monkeypatch.setattr(submitter, "OWNER_SECONDS", 1.0)
    single = RunTask(tmp_path)
    deferred_by(single, sandbox)
    batch = BatchTask(tmp_path, TWINS, reuse="identical", deferrable=False)
    found = batch.run()
    assert (found["stored"], found["reused"], found["credits"]) == (2, 2, 0)
    assert {line["reused_from"] for line in batch.lines} == {sandbox.creates[0].id}
    assert len(sandbox.creates) == 1
    assert claims_in(tmp_path) == []
