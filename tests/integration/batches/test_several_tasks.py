"""Batches beside other tasks: two runs of one batch, an account that others use, rows that are not this task's."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.batches import journal, plan
from airflow_provider_vidu.batches.leg import collecting, submitter
from airflow_provider_vidu.batches.leg.run import BatchRun
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import batch_waits
from airflow_provider_vidu.orders import lost_order
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.triggers import ViduBatchTrigger
from tests.integration.batches.batch_task import BatchTask, deferred_by

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff"),
    pytest.mark.vidu_sandbox(concurrency=50),
]


def prompts(count: int, prefix: str = "clip") -> list[dict[str, str]]:
    """Return rows with keys of their own."""
    return [{"key": f"{prefix}{n}", "prompt": f"a cat {n}"} for n in range(count)]


def of_run(folder: Path, run_id: str, rows: Any, **kwargs: Any) -> BatchTask:
    """Return the task of a run of the batch "spring"."""
    task = BatchTask(folder, rows, **{"batch": "spring", **kwargs})
    task.run_id = run_id
    return task


def told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> str:
    """Return what was logged, wherever this Airflow writes it."""
    return caplog.text + "".join(capfd.readouterr())


@pytest.mark.fault(
    "orders",
    "two runs of one batch at the same time",
    outcome="survived",
    seen="the second waits until the leg of the first has ended; each row is paid once, and no id is lost",
)
def test_two_runs_of_one_batch(dialect, sandbox, tmp_path, monkeypatch):
    """A run that starts in the middle of the other's create takes nothing over: the id of that create is recorded."""
    monkeypatch.setattr(batch_waits, "HELD_SECONDS", 0.1)
    first, second = (of_run(tmp_path, run_id, prompts(3), max_in_flight=3) for run_id in ("r1", "r2"))
    submit, waits = ViduHook._submit, []

    def submitted(*arguments: Any, **known: Any) -> Any:
        generation = submit(*arguments, **known)
        if not waits:
            waits.append(deferred_by(second, sandbox))
        return generation

    monkeypatch.setattr(ViduHook, "_submit", submitted)
    assert first.run()["stored"] == 3
    (wait,) = waits
    assert (wait.method_name, wait.trigger.jobs) == ("execute_awaited", {})
    assert second.run(wait)["stored"] == 3
    assert {line["generation_id"] for line in second.lines} == {create.id for create in sandbox.creates}
    assert len(sandbox.creates) == 3


def test_a_wait_for_another_run_ends_with_the_timeout(dialect, sandbox, tmp_path, monkeypatch):
    """However often the task is woken meanwhile: the event holds the deadline."""
    monkeypatch.setattr(batch_waits, "HELD_SECONDS", 0.1)
    journal.Journal(Destination(f"{tmp_path}/"), "spring", owner="r1").open()
    task = of_run(tmp_path, "r2", prompts(1), timeout=1)
    with pytest.raises(exceptions.ViduTimeoutError, match=r"timeout of 1\.0 s expired.*r1"):
        task.run()
    assert len({deferral.trigger.deadline for deferral in task.deferrals}) == 1
    assert sandbox.requests() == []


def test_a_worker_waits_for_another_run(dialect, sandbox, tmp_path, monkeypatch):
    """With deferrable=False."""
    monkeypatch.setattr(batch_waits, "HELD_SECONDS", 0.05)
    other = journal.Journal(Destination(f"{tmp_path}/"), "spring", owner="r1")
    other.open()
    open_journal, looks = journal.Journal.open, []

    def opened(self: journal.Journal) -> Any:
        looks.append(len(sandbox.requests()))
        if len(looks) == 3:
            other.end()
        return open_journal(self)

    monkeypatch.setattr(journal.Journal, "open", opened)
    assert of_run(tmp_path, "r2", prompts(1), deferrable=False).run()["stored"] == 1
    assert looks == [0, 0, 0]


@pytest.mark.usefixtures("short_stay")
def test_each_run_of_a_batch_has_its_own_timeout(connect, sandbox, tmp_path):
    """The run that began last does not lengthen the timeout of another one."""
    connect("ent-v2")
    sandbox.set_speed(0)
    first = of_run(tmp_path, "r1", prompts(1, "a"), timeout=100)
    began = deferred_by(first, sandbox)
    later = deferred_by(of_run(tmp_path, "r2", prompts(1, "b"), timeout=5000), sandbox)
    assert later.trigger.deadline - began.trigger.deadline > 4000
    with pytest.raises(TaskDeferred) as woken:
        first.wake(began, None)
    assert woken.value.trigger.deadline == began.trigger.deadline


def test_a_lost_create_is_searched_for_within_its_own_timeout(connect, sandbox, tmp_path, monkeypatch, short_stay):
    """The timeout of a run that came later has expired: this one still finds what it has paid for."""
    for module in (submitter, lost_order):
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0.1)
    connect("ent-v2", timeout=2)
    first = of_run(tmp_path, "r1", prompts(2), max_in_flight=1, timeout=20)
    wait = deferred_by(first, sandbox)
    second = of_run(tmp_path, "r2", prompts(1, "other"), timeout=3)
    assert second.run()["stored"] == 1
    time.sleep(3)
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"lose_answer": True}})
    assert first.run(wait)["stored"] == 2
    assert len(sandbox.creates) == 3


def test_a_leg_that_cancels_at_a_dead_service_is_alive(connect, sandbox, tmp_path, monkeypatch):
    """Hundreds take hours there: without a sign of life, another run would take the batch over."""
    connect("ent-v2")
    sandbox.set_speed(0)
    task = of_run(tmp_path, "r1", prompts(2), on_clear="new")
    with monkeypatch.context() as short:
        short.setattr(plan, "stays", lambda *_, **__: False)
        deferred_by(task, sandbox)
    beat, has_beaten = journal.Journal.beat, threading.Event()
    cancelled: list[bool] = []

    def beaten(self: journal.Journal) -> None:
        beat(self)
        has_beaten.set()

    def cancel(*_: Any, **__: Any) -> Any:
        cancelled.append(has_beaten.wait(20))
        raise exceptions.ViduTransportError("the service does not answer")

    monkeypatch.setattr(journal.Journal, "beat", beaten)
    monkeypatch.setattr(collecting, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(ViduHook, "cancel_generation", cancel)
    task.clear()
    sandbox.set_speed(250)
    assert task.run()["stored"] == 2
    assert cancelled == [True, True]


def test_the_next_run_of_a_batch_is_no_clear(connect, sandbox, tmp_path):
    """Also with on_clear="new", which would give up what the earlier run has open, and pay for all rows again."""
    connect("ent-v2")

    def in_run(run_id: str, began: int) -> BatchTask:
        task = of_run(tmp_path, run_id, prompts(2), on_clear="new")
        task.further = {"dag_run": SimpleNamespace(start_date=operator_time(began), clear_number=0)}
        return task

    first = in_run("r1", -100)
    first.run()
    second = in_run("r2", +100)
    assert second.run()["stored"] == 2
    assert len(sandbox.creates) == 2
    second.clear()
    assert second.run()["stored"] == 2
    assert len(sandbox.creates) == 4


@pytest.mark.usefixtures("short_stay")
def test_a_clear_orders_only_its_own_rows_again(connect, sandbox, tmp_path):
    """With on_clear="new": rows that another run of the batch has open are neither cancelled nor paid again."""
    connect("ent-v2")
    sandbox.set_speed(0)
    first, second = (
        of_run(tmp_path, run_id, prompts(2, run_id), on_clear="new", poll_interval=0.05) for run_id in ("r1", "r2")
    )
    deferred_by(first, sandbox)
    theirs = deferred_by(second, sandbox)
    first.clear()
    mine = deferred_by(first, sandbox)
    assert len(sandbox.creates) == 6
    sandbox.set_speed(250)
    assert first.run(mine)["stored"] == 2
    assert second.run(theirs)["stored"] == 2
    assert len(sandbox.creates) == 6


@pytest.mark.usefixtures("short_stay")
def test_a_kill_cancels_only_its_own_rows(connect, sandbox, tmp_path, monkeypatch):
    """Those of another run of the batch are waited for by that one."""
    connect("ent-v2")
    sandbox.set_speed(0)
    first, second = (of_run(tmp_path, run_id, prompts(2, run_id)) for run_id in ("r1", "r2"))
    theirs = deferred_by(first, sandbox)
    run, killed = BatchRun.run, []

    def killed_run(self: BatchRun, *arguments: Any, **known: Any) -> Any:
        found = run(self, *arguments, **known)
        killed.append(self.kill())
        return found

    with monkeypatch.context() as kills:
        kills.setattr(BatchRun, "run", killed_run)
        deferred_by(second, sandbox)
    assert killed
    assert len(sandbox.requests("cancel")) == 2
    sandbox.set_speed(250)
    assert first.run(theirs)["stored"] == 2
    assert len(sandbox.creates) == 4


def test_a_clear_of_one_run_lets_the_others_reuse(connect, sandbox, tmp_path):
    """With on_clear="new" only the task that was cleared generates again."""
    connect("ent-v2")
    known = {"on_clear": "new", "reuse": "identical"}
    first = of_run(tmp_path, "r1", prompts(1, "a"), **known)
    first.run()
    first.clear()
    assert first.run()["reused"] == 0
    assert of_run(tmp_path, "r2", prompts(1, "b"), **known).run()["reused"] == 1
    assert len(sandbox.creates) == 2


def operator_time(seconds: float) -> Any:
    """Return a time beside now."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time.time() + seconds, UTC)


def test_rows_of_others_are_not_counted(connect, sandbox, tmp_path):
    """Files of an earlier run do not make a run succeed whose own rows have failed."""
    connect("ent-v2")
    assert of_run(tmp_path, "r1", prompts(3)).run()["stored"] == 3
    bad = [{"key": f"bad{n}", "prompt": "[fail:CreationPolicyViolation]"} for n in range(2)]
    with pytest.raises(exceptions.ViduBatchFailedError, match=r"2 of 2 rows failed, and min_success needs 2.*bad0"):
        of_run(tmp_path, "r2", bad).run()
    assert of_run(tmp_path, "r3", prompts(1, "more"), on_failure="stop").run()["stored"] == 1


@pytest.mark.fault(
    "orders",
    "other tasks use all slots that the connection allows when a batch begins",
    outcome="survived",
    seen="the batch looks again every two minutes, and orders as soon as there is a slot",
)
@pytest.mark.usefixtures("short_stay")
def test_a_batch_that_others_crowd_out_is_woken(connect, sandbox, tmp_path, monkeypatch):
    """It has nothing open whose end would wake it before its timeout."""
    monkeypatch.setattr(plan, "CROWDED_SECONDS", 0.2)
    connect("ent-v2", max_in_flight=2)
    sandbox.set_speed(0)
    others = [ViduHook().create_generation(prompt="a dog", model="m").id for _ in range(2)]
    task = BatchTask(tmp_path, prompts(2))
    deferred = deferred_by(task, sandbox)
    assert deferred.trigger.jobs == {}
    assert deferred.trigger.resume_at < time.time() + 5
    sandbox.set_speed(250)
    for other in others:
        ViduHook().wait(other, poll_interval=0.05)
    assert task.run(deferred)["stored"] == 2


@pytest.mark.usefixtures("short_stay")
def test_the_limit_of_the_connection_holds_between_two_reports(connect, sandbox, tmp_path):
    """What the batch has submitted since the service reported what is in flight counts, too."""
    connect("ent-v2", max_in_flight=5)
    sandbox.set_speed(0)
    for _ in range(3):
        ViduHook().create_generation(prompt="a dog", model="m")
    assert len(deferred_by(BatchTask(tmp_path, prompts(9)), sandbox).trigger.jobs) == 2
    assert len(sandbox.creates) == 5


NO_BALANCE = {"match": {"kind": "credits"}, "times": None, "action": {"status": 404, "body": "{}"}}


@pytest.mark.parametrize("floor", [None, 1])
def test_a_reseller_without_a_balance(connect, sandbox, tmp_path, floor):
    """The batch's own generations count; only a floor for the balance cannot be held."""
    connect("ent-v2", max_in_flight=2, min_balance=floor)
    sandbox.add_fault({**NO_BALANCE, "action": {"status": 404, "body": json.dumps({"reason": "NotFound"})}})
    task = BatchTask(tmp_path, prompts(4))
    if floor is None:
        assert task.run()["stored"] == 4
    else:
        with pytest.raises(exceptions.ViduNotFoundError):
            task.run()
        assert sandbox.creates == []


def test_the_manifest_of_a_named_batch_has_the_rows_of_all_runs(connect, sandbox, tmp_path):
    """The second run replaced the lines of the first by its own."""
    connect("ent-v2")
    of_run(tmp_path, "r1", prompts(2, "a")).run()
    second = of_run(tmp_path, "r2", prompts(1, "b"))
    assert second.run()["rows"] == 1
    first, *others = (line["key"] for line in second.lines)
    assert (first, sorted(others)) == ("b0", ["a0", "a1"])  # others' in the order in which they have ended


def test_an_id_that_cannot_be_recorded_is_named(connect, sandbox, tmp_path, monkeypatch, caplog, capfd):
    """The store is away after a create: without a list, only the log and the error lead to what is paid for."""
    connect("vidu-native")
    write = journal.Journal._write

    def away(self: Any, content: bytes) -> None:
        if b'"e":"id"' in content:
            raise exceptions.ViduStorageError("the store is away")
        write(self, content)

    monkeypatch.setattr(journal.Journal, "_write", away)
    monkeypatch.setattr(journal, "PAUSE_SECONDS", 0.0)
    with pytest.raises(exceptions.ViduStorageError) as error, caplog.at_level(logging.ERROR):
        BatchTask(tmp_path, prompts(1)).run()
    (create,) = sandbox.creates
    assert error.value.generation_id == create.id
    assert create.id in told(caplog, capfd)


@pytest.mark.usefixtures("short_stay")
def test_a_retry_without_its_connection_may_be_retried(connect, sandbox, tmp_path, monkeypatch):
    """As for a single task: a deleted connection must not fail for good what is paid for."""
    connect("ent-v2")
    sandbox.set_speed(0)
    task = BatchTask(tmp_path, prompts(2))
    deferred_by(task, sandbox)
    with monkeypatch.context() as deleted:
        deleted.delenv("AIRFLOW_CONN_VIDU_DEFAULT")
        with pytest.raises(exceptions.ViduError, match="retry or a clear resumes") as error:
            task.start()
        assert error.value.retryable
        with pytest.raises(exceptions.ViduConfigError):
            BatchTask(tmp_path / "new", prompts(1)).start()
    sandbox.set_speed(250)
    assert task.run()["stored"] == 2
    assert len(sandbox.creates) == 2


@pytest.mark.fault(
    "orders",
    "the state of a batch is gone after a wait, or its destination renders to another folder",
    outcome="clear error",
    seen="nothing is ordered again; the error names the folder, and no retry follows",
)
@pytest.mark.usefixtures("short_stay")
@pytest.mark.parametrize("what", ["removed", "destination", "batch"])
def test_a_batch_that_vanished_is_not_ordered_again(connect, sandbox, tmp_path, what):
    """Templates are rendered again after each wait: a destination with the current time would pay at each wake."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(2), batch="spring")
    deferred = deferred_by(task, sandbox)
    if what == "removed":
        shutil.rmtree(tmp_path / ".vidu")
    else:
        task.kwargs[what] = {"destination": f"{tmp_path}/later/", "batch": "summer"}[what]
    with pytest.raises(exceptions.ViduConfigError, match=r"waited for spring.*nothing was ordered") as error:
        task.run(deferred)
    assert not error.value.retryable
    assert len(sandbox.creates) == 2


def test_each_iteration_of_a_loop_generates(connect, sandbox, tmp_path):
    """Also with reuse="identical": another iteration asks for another generation of the same requests."""
    connect("ent-v2")
    for index in (0, 1):
        task = BatchTask(tmp_path, prompts(1), reuse="identical")
        task.further = {"loop": SimpleNamespace(index=index)}
        assert task.run()["reused"] == 0
    assert len(sandbox.creates) == 2


def test_a_row_with_another_prompt_is_told(connect, sandbox, tmp_path, caplog, capfd):
    """Its key has a file, so it is not ordered again; the log says what to do."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(3))
    task.run()
    task.clear()
    task.kwargs["rows"][1]["prompt"] = "a dog"
    with caplog.at_level(logging.WARNING):
        assert task.run()["stored"] == 3
    assert re.search(r"1 rows have another prompt or model.*'clip1'", told(caplog, capfd))
    assert len(sandbox.creates) == 3


@pytest.mark.parametrize("where", ["row", "parameters"])
@pytest.mark.usefixtures("short_stay")
def test_off_peak_rows_have_time(connect, sandbox, tmp_path, where):
    """Off-peak takes up to 48 hours, wherever it is asked for."""
    connect("ent-v2")
    sandbox.set_speed(0)
    kwargs: dict[str, Any] = {"rows": [{"prompt": "x", "off_peak": "true"}, {"prompt": "y"}]}
    if where == "parameters":
        kwargs = {"rows": [{"prompt": "x"}], "parameters": {"off_peak": True}}
    deadline = deferred_by(BatchTask(tmp_path, kwargs.pop("rows"), timeout=None, **kwargs), sandbox).trigger.deadline
    assert deadline - time.time() > 49 * 3600


def test_a_watch_that_breaks_wakes_the_task(connect, sandbox, tmp_path, monkeypatch):
    """A fault of the trigger itself must not leave the batch asleep until its timeout."""
    connect("ent-v2")

    def broken(*_: Any) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr("airflow_provider_vidu.api.shared_polls.SharedPolls.polls", broken)
    task = BatchTask(tmp_path, prompts(1))
    sandbox.set_speed(0)
    with monkeypatch.context() as short:
        short.setattr(plan, "stays", lambda *_, **__: False)
        deferred = deferred_by(task, sandbox)
    assert isinstance(deferred.trigger, ViduBatchTrigger)
    sandbox.set_speed(250)
    started = time.monotonic()
    assert task.run(deferred)["stored"] == 1
    assert time.monotonic() - started < 30


def whole_files(task: BatchTask) -> dict[str, str]:
    """Return the names of a batch's files, by their keys; each must still be the one that its line names."""
    for line in task.lines:
        content = Path(line["uri"].removeprefix("file://")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == line["sha256"], line["key"]
    return {line["key"]: line["uri"].rpartition("/")[2] for line in task.lines}


def test_a_row_that_was_inserted_replaces_no_file(connect, sandbox, tmp_path, caplog, capfd):
    """It shifts the index of the others, whose files are paid for and keep their names."""
    connect("ent-v2")
    task = of_run(tmp_path, "r1", prompts(2), naming="{index}")
    task.run()
    task.kwargs["rows"] = [{"key": "new", "prompt": "a dog"}, *prompts(2), {"key": "last", "prompt": "a bird"}]
    task.clear()
    assert task.run()["stored"] == 4
    names = whole_files(task)
    assert (names["clip0"], names["clip1"], names["last"]) == ("00000.mp4", "00001.mp4", "00003.mp4")
    assert re.fullmatch(r"00000-[0-9a-f]{12}\.mp4", names["new"])
    assert "The names of 1 files end in a hash" in told(caplog, capfd)
    assert len(sandbox.creates) == 4


def test_another_run_of_a_batch_replaces_no_file(connect, sandbox, tmp_path):
    """Its rows have the same indices."""
    connect("ent-v2")
    first, second = (of_run(tmp_path, run, prompts(2, run), naming="films/{index}") for run in ("r1", "r2"))
    first.run()
    lines = first.lines
    second.run()
    assert len(set(whole_files(second).values())) == 4
    for line in lines:
        assert hashlib.sha256(Path(line["uri"].removeprefix("file://")).read_bytes()).hexdigest() == line["sha256"]


def test_the_name_of_an_edited_row_stays(connect, sandbox, tmp_path):
    """Its key is derived from its content. Two rows that swap their names lose no file."""
    connect("ent-v2")
    task = of_run(tmp_path, "r1", [{"name": "hero", "prompt": "a cat"}, {"name": "b", "key": "b", "prompt": "a fox"}])
    task.run()
    task.kwargs["rows"] = [
        {"name": "hero", "prompt": "a dog"},
        {"name": "b2", "key": "b", "prompt": "a fox"},
        {"name": "b", "prompt": "a bird"},
    ]
    task.clear()
    task.run()
    hero, b, bird = whole_files(task).values()
    assert (hero, b) == ("hero.mp4", "b.mp4")
    assert re.fullmatch(r"b-[0-9a-f]{12}\.mp4", bird)


def test_a_fresh_signature_makes_no_other_row(connect, sandbox, tmp_path):
    """The rows of each run come with addresses that were signed for it."""
    connect("ent-v2")
    for day in "12":
        url = f"https://bucket.example.com/a.png?X-Amz-Date={day}&X-Amz-Signature={day}"
        rows = [{"prompt": "a cat", "images": [url]}, {"prompt": "a dog", "images": json.dumps([url])}]
        assert of_run(tmp_path, f"r{day}", rows).run()["stored"] == 2
    assert len(sandbox.creates) == 2


class ChangingTask(BatchTask):
    """A task whose DAG file has another seed each time it is parsed."""

    def _leg(self, method: str, *arguments: Any) -> Any:
        self.kwargs["rows"] = [{"prompt": f"a cat {n}", "seed": self.legs + 1} for n in range(4)]
        return super()._leg(method, *arguments)


def test_rows_that_change_with_each_leg_are_not_ordered_for_ever(connect, sandbox, tmp_path, short_stay):
    """Each leg ordered as many as it had slots, because it knew none of them."""
    connect("ent-v2")
    task = ChangingTask(tmp_path, [], max_in_flight=2)
    wait = deferred_by(task, sandbox)
    with pytest.raises(exceptions.ViduConfigError, match="2 open generations are of rows that are no longer there"):
        task.run(wait)
    with pytest.raises(exceptions.ViduConfigError, match="None of the rows is one that an earlier try has begun"):
        task.run()
    assert len(sandbox.creates) == 2


def test_rows_that_were_added_during_the_wait_are_ordered(connect, sandbox, tmp_path, short_stay):
    """A file of rows may grow."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(2), max_in_flight=2)
    wait = deferred_by(task, sandbox)
    task.kwargs["rows"] = prompts(3)
    assert task.run(wait)["stored"] == 3
