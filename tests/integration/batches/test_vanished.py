"""A retry of a batch whose folder is gone: Airflow remembers that the batch has begun."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.operators import ViduBatchOperator
from airflow_provider_vidu.stores import local
from tests.integration.batches.batch_task import BatchTask, deferred_by
from tests.integration.batches.test_several_tasks import prompts
from tests.integration.orders.test_clears import Accessor, is_33  # noqa: F401 - a fixture

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables", "is_33")]


@pytest.mark.fault(
    "orders",
    "the state of a batch is gone in a retry: a local destination and another worker or pod, or the folder was removed",
    outcome="clear error",
    seen="nothing is ordered again; a clear orders all rows",
)
def test_a_retry_that_finds_no_batch_pays_nothing(connect, sandbox, tmp_path):
    """Airflow knows that an earlier try has begun it, wherever the folder was."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(2), batch="spring", deferrable=False)
    task.further["task_state_store"] = Accessor()
    assert task.run()["stored"] == 2  # and the worker dies before Airflow has the result
    shutil.rmtree(tmp_path)
    for _ in range(2):
        with pytest.raises(exceptions.ViduConfigError, match=r"in an earlier try.*nothing was ordered") as error:
            task.run()
        assert not error.value.retryable
    assert len(sandbox.creates) == 2
    task.clear()
    assert task.run()["stored"] == 2
    assert len(sandbox.creates) == 4


def test_a_retry_beside_the_manifest_says_that_a_clear_needs_it_removed(connect, sandbox, tmp_path):
    """The files were moved without ``.vidu/``: a clear alone would be refused for a manifest without its journal."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(2), batch="spring", deferrable=False)
    task.further["task_state_store"] = Accessor()
    assert task.run()["stored"] == 2
    shutil.rmtree(tmp_path / ".vidu")
    (manifest,) = tmp_path.glob("*.manifest.jsonl")
    with pytest.raises(exceptions.ViduConfigError, match="clear the task to order all rows again, once") as error:
        task.run()
    assert f"removed the manifest {manifest.as_uri()}." in str(error.value)
    task.clear()
    with pytest.raises(exceptions.ViduConfigError, match="so nothing was ordered"):
        task.run()
    manifest.unlink()
    assert task.run()["stored"] == 2
    assert len(sandbox.creates) == 4


def test_a_batch_that_is_cleared_after_its_success_needs_no_folder(connect, sandbox, tmp_path):
    """Also where a clear leaves the counters of the try before, because retries were lowered."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(1), deferrable=False)
    task.further |= {"task_state_store": Accessor(), "dag_run": SimpleNamespace(clear_number=0)}
    task.operator.post_execute(task.context(), task.run())
    shutil.rmtree(tmp_path)
    task.further["dag_run"] = SimpleNamespace(clear_number=1)
    task.retries = 1
    assert task.run()["stored"] == 1
    assert len(sandbox.creates) == 2


def test_a_try_that_paid_nothing_needs_no_folder(connect, sandbox, tmp_path):
    """A refused key, say: the next try may begin in another pod."""
    connect("ent-v2")
    key = sandbox.key
    sandbox.rotate_keys(["another-key"])
    task = BatchTask(tmp_path, prompts(2), deferrable=False)
    task.further["task_state_store"] = Accessor()
    with pytest.raises(exceptions.ViduError):
        task.run()
    shutil.rmtree(tmp_path)
    sandbox.rotate_keys([key])
    assert task.run()["stored"] == 2
    assert len(sandbox.creates) == 2


@pytest.mark.usefixtures("short_stay")
@pytest.mark.parametrize("deferrable", [False, True], ids=["retry", "wait"])
def test_a_journal_of_other_tasks_is_not_taken_for_the_own_one(connect, sandbox, tmp_path, deferrable):
    """Of a named batch, another worker's disk may hold what another run has begun: it does not know what is paid."""
    connect("ent-v2")
    task = BatchTask(tmp_path / "here", prompts(2), batch="spring", deferrable=deferrable)
    task.further["task_state_store"] = Accessor()
    waiting = deferred_by(task, sandbox) if deferrable else task.run() and None
    other = BatchTask(tmp_path / "there", [{"key": "other", "prompt": "a dog"}], batch="spring", deferrable=False)
    other.run_id = "r2"
    assert other.run()["stored"] == 1
    task.kwargs["destination"] = other.kwargs["destination"]
    with pytest.raises(exceptions.ViduConfigError, match="this task is not in the journal of batch spring"):
        task.run(waiting)
    assert len(sandbox.creates) == 3
    task.clear()
    assert task.run()["stored"] == 2
    assert len(sandbox.creates) == 5
    assert other.run()["stored"] == 1


def test_a_second_batch_of_one_try_is_not_ordered(connect, sandbox, tmp_path):
    """As when a ``@task`` executes several operators: Airflow keeps one batch for each task instance."""
    connect("ent-v2")
    task = BatchTask(tmp_path / "spring", prompts(2), batch="spring", deferrable=False)
    task.further["task_state_store"] = Accessor()
    assert task.run()["stored"] == 2
    task.kwargs |= {"rows": [{"key": "other", "prompt": "a dog"}], "batch": "autumn", "destination": f"{tmp_path}/"}
    with pytest.raises(exceptions.ViduConfigError, match=r"executes several operators, .* make each a task of its own"):
        ViduBatchOperator(**task.kwargs).execute(task.context())
    assert len(sandbox.creates) == 2


@pytest.mark.fault(
    "orders",
    "the files of a batch were moved without `.vidu/`, or some of its states are gone; another run, or a clear",
    outcome="clear error",
    seen="nothing is ordered; the error names manifest and folder, and says how to order all rows again",
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "cleared"])
def test_a_manifest_without_a_journal_orders_nothing(connect, sandbox, tmp_path, named):
    """Another run of a named batch, or a clear: neither has a note of an earlier try."""
    connect("ent-v2")
    task = BatchTask(tmp_path, prompts(2), deferrable=False, **({"batch": "spring"} if named else {}))
    assert task.run()["stored"] == 2
    shutil.rmtree(tmp_path / ".vidu")
    if named:
        task.run_id = "r2"
    else:
        task.clear()
    for _ in range(2):
        with pytest.raises(exceptions.ViduConfigError, match=r"manifest of batch .*so nothing was ordered") as error:
            task.run()
        assert not error.value.retryable
    assert len(sandbox.creates) == len(task.lines) == 2
    (manifest,) = tmp_path.glob("*.manifest.jsonl")
    manifest.unlink()
    assert task.run()["stored"] == 2


def test_a_role_that_may_not_read_the_manifest_orders(connect, sandbox, tmp_path, monkeypatch):
    """It needs to read ``.vidu/`` alone: on S3, without the permission to list, a missing object is forbidden, too."""
    connect("ent-v2")
    read = local.LocalFile.read

    def forbidden(file):
        if file.uri.endswith(".manifest.jsonl"):
            raise exceptions.ViduStorageError("Forbidden.") from PermissionError(13, "Permission denied")
        return read(file)

    monkeypatch.setattr(local.LocalFile, "read", forbidden)
    assert BatchTask(tmp_path, prompts(1), deferrable=False).run()["stored"] == 1
