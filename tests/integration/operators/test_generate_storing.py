"""The generate operator with a destination: one task from the prompt to the stored file."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator, ObjectStoragePath, TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.operators import ViduBatchOperator, ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.operators.preflight import check_downstream
from airflow_provider_vidu.orders import lost_order
from airflow_provider_vidu.sensors import ViduGenerationSensor
from airflow_provider_vidu.stores import schemes
from airflow_provider_vidu.stores.naming import stem_of
from tests.faults.transfer_s3 import Door, keys, point_at, refusal, s3_bucket, s3_client, s3_endpoint  # noqa: F401 - fixtures
from tests.integration.batches.batch_task import BatchTask
from tests.integration.operators.test_generate import Task

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables")]


class MakesBucket(BaseOperator):
    """Another package's task."""


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "worker"])
def test_from_the_prompt_to_the_file(dialect, sandbox, tmp_path, deferrable):
    """The woken task stores the file and returns the generation with the file's record."""
    task = Task(deferrable=deferrable, destination=f"{tmp_path}/")
    found = task.run()
    content = Path(found["file"]["uri"].removeprefix("file://")).read_bytes()
    assert (found["status"], found["file"]["generation_id"]) == ("succeeded", found["id"])
    assert found["file"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert Path(found["file"]["uri"]).name == f"{stem_of(found['id'], None)}.mp4"
    assert (task.xcoms["vidu_watch"]["role"], task.xcoms["vidu_watch"]["stores"]) == ("generate", "file")


def test_dry_run_that_is_set_before_a_retry(dialect, sandbox, tmp_path, monkeypatch):
    """What is paid for is kept, and nothing is ordered: a dry run in its place would be green without the clip."""
    sandbox.add_fault({"match": {"kind": "file"}, "times": None, "action": {"status": 404, "body": "gone"}})
    task = Task(deferrable=True, destination=f"{tmp_path}/clip.mp4")
    with pytest.raises(exceptions.ViduError):
        task.run()
    sandbox.clear_faults()
    monkeypatch.setenv("AIRFLOW__VIDU__DRY_RUN", "True")
    failed = {"id": sandbox.creates[0].id, "task_id": sandbox.creates[0].id, "status": "failed", "state": "failed"}
    failed |= {"err_code": "QuotaExceeded", "error": {"code": "QuotaExceeded", "message": "later"}}
    sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": {"status": 200, "body": failed}})
    with pytest.raises(exceptions.ViduConfigError, match="dry_run is set: nothing was submitted"):
        task.run()
    sandbox.clear_faults()
    assert task.run()["file"]["uri"] == f"file://{tmp_path}/clip.mp4"
    assert len(sandbox.creates) == 1
    task.clear()
    assert task.run()["dry_run"] is True


@pytest.mark.parametrize("kind", ["ent-v2", "vidu-native"])
def test_a_dry_run_after_a_create_of_unknown_outcome(connect, sandbox, monkeypatch, kind):
    """It may be paid for: the retry finds it or names it; a dry run in its place was green."""
    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 0.0)
    connect(kind, timeout=1, max_retries=0)
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"lose_answer": True}})
    task = Task()
    with pytest.raises(exceptions.ViduError, match=r"outcome is unknown|may have been"):
        task.run()
    task.kwargs["dry_run"] = True
    if kind == "ent-v2":
        assert task.run()["id"] == sandbox.creates[0].id
    else:
        with pytest.raises(exceptions.ViduSubmitUnknownError, match="may have been created"):
            task.run()
    assert len(sandbox.creates) == 1
    task.clear()
    assert task.run()["dry_run"] is True


def test_a_dry_run_after_a_create_that_was_not_carried_out(connect, sandbox, monkeypatch):
    """The list proves it: nothing is submitted, and the error says how to get the dry run."""
    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 0.0)
    connect("ent-v2", timeout=1, max_retries=0)
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"status": 500}})
    task = Task()
    with pytest.raises(exceptions.ViduError):
        task.run()
    assert sandbox.creates == []
    task.kwargs["dry_run"] = True
    with pytest.raises(exceptions.ViduConfigError, match="never created, and dry_run is set"):
        task.run()
    assert sandbox.creates == []


def test_a_mistake_in_the_settings_after_a_create_of_unknown_outcome(connect, sandbox, monkeypatch):
    """The task does not end for good: a retry of the corrected one finds what may be paid for."""
    monkeypatch.setattr(lost_order, "SETTLE_SECONDS", 0.0)
    connect("ent-v2", timeout=1, max_retries=0)
    sandbox.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"lose_answer": True}})
    task = Task()
    with pytest.raises(exceptions.ViduSubmitUncertainError):
        task.run()
    task.kwargs["prompt"] = "  "
    with pytest.raises(exceptions.ViduError, match="may have submitted a generation") as caught:
        task.run()
    assert caught.value.retryable
    task.kwargs["prompt"] = "a cat"
    assert task.run()["id"] == sandbox.creates[0].id
    assert len(sandbox.creates) == 1


def of_three(sandbox, generation_id):
    """Let a generation of the official API have three creations."""
    sandbox.add_generation(generation_id, dialect="ent-v2", states=[["success", 0]], creations=3, credits=9)


def test_further_creations_are_not_kept_silently(connect, sandbox, tmp_path, monkeypatch):
    """One file is stored of three that were paid for: log and result say so, and how to get the others."""
    connect("ent-v2")
    log = MagicMock()
    monkeypatch.setattr(ViduGenerateOperator, "log", log)
    task = Task(deferrable=True, destination=f"{tmp_path}/")
    with pytest.raises(TaskDeferred) as waiting:
        task.start()
    of_three(sandbox, sandbox.creates[0].id)
    found = task.resume(waiting.value)
    assert found["file"]["creations"] == len(found["artifacts"]) == 3
    lines = "\n".join(str(call.args[0]) % call.args[1:] for call in log.warning.call_args_list)
    assert lines.count("has 3 creations, and only number 0 is stored") == 1
    other = ViduDownloadOperator(task_id="d", generation_id=found["id"], creation=2, destination=f"{tmp_path}/")
    assert other.execute({})["sha256"] != found["file"]["sha256"]


def test_a_manifest_counts_further_creations(connect, sandbox, tmp_path, monkeypatch):
    """A row keeps one file; the line says how many there are, and the log once a leg."""
    connect("ent-v2")
    log = MagicMock()
    monkeypatch.setattr(ViduBatchOperator, "log", log)
    monkeypatch.setattr(plan, "stays", lambda *_, **__: False)
    task = BatchTask(tmp_path, [{"key": name, "prompt": f"a cat {name}"} for name in "ab"])
    sandbox.set_speed(0)  # nothing ends before the first leg defers
    with pytest.raises(TaskDeferred) as waiting:
        task.start()
    for create in sandbox.creates:
        of_three(sandbox, create.id)
    assert task.run(waiting.value)["stored"] == 2
    assert [line["creations"] for line in task.lines] == [3, 3]
    lines = "\n".join(str(call.args[0]) % call.args[1:] for call in log.warning.call_args_list)
    assert 1 <= lines.count("only number 0 is stored") < task.legs


def test_a_retry_after_a_failed_download_continues(dialect, sandbox, tmp_path):
    """With the generation that is paid for."""
    sandbox.add_fault({"match": {"kind": "file"}, "times": None, "action": {"status": 404, "body": "gone"}})
    task = Task(deferrable=True, destination=f"{tmp_path}/clip.mp4")
    with pytest.raises(exceptions.ViduError):
        task.run()
    sandbox.clear_faults()
    assert task.run()["file"]["uri"] == f"file://{tmp_path}/clip.mp4"
    assert len(sandbox.creates) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"endpoint": "img2video-prompt-recommendation", "images": ["https://x.example/a.png"]}, "has no file"),
        ({"parameters": {"name": "anna"}, "images": ["https://x.example/a.png"], "prompt": None}, "has no file"),
        ({"prompt": "a bell", "endpoint": "text2audio", "model": "audio1.0", "artifact": "video"}, "of another medium"),
    ],
)
def test_a_product_whose_file_could_not_be_kept_costs_nothing(connect, sandbox, tmp_path, arguments, problem):
    """It would be paid for, and each retry would fail in the same way. An unknown endpoint may have any result."""
    connect("ent-v2")
    with pytest.raises(exceptions.ViduConfigError, match=problem):
        Task(destination=f"{tmp_path}/", **arguments).run()
    assert sandbox.requests() == []
    row = {name: value for name, value in arguments.items() if name != "artifact"}
    task = BatchTask(tmp_path, [row], artifact=arguments.get("artifact"))
    with pytest.raises(exceptions.ViduBatchFailedError, match=problem):
        task.run()
    task.kwargs["dry_run"] = True
    with pytest.raises(exceptions.ViduBatchFailedError, match=f"Dry run.*{problem}"):
        task.run()
    assert sandbox.requests() == []


def test_a_destination_that_renders_to_none_costs_nothing(dialect, sandbox):
    """Otherwise the task would succeed, and keep no file."""
    operator = ViduGenerateOperator(task_id="g", prompt="x", model="m", destination="{{ ti.xcom_pull('path') }}")
    operator.destination = None
    with pytest.raises(exceptions.ViduConfigError, match="destination is empty"):
        operator.execute({})
    assert sandbox.requests("create") == []


def test_a_destination_that_renders_to_none_after_the_wait(dialect, sandbox, tmp_path):
    """Its file would be missing, and the task would be green. It is paid for, so a retry may store it."""
    task = Task(deferrable=True, destination=f"{tmp_path}/")
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    event = task.event(deferred.value)
    resumed = ViduGenerateOperator(**task.kwargs)
    resumed.destination = None
    with pytest.raises(exceptions.ViduError, match="destination is empty") as caught:
        resumed.execute_complete(task.context(), event)
    assert caught.value.retryable
    assert task.run()["file"]["generation_id"] == sandbox.creates[0].id
    assert len(sandbox.creates) == 1


def test_a_prompt_that_renders_to_nothing_in_a_retry(dialect, sandbox, tmp_path):
    """An earlier try has paid for the generation, so the error leaves it to the next one."""
    task = Task(deferrable=True, destination=f"{tmp_path}/")
    with pytest.raises(TaskDeferred):
        task.start()
    task.try_number += 1
    retried = ViduGenerateOperator(**task.kwargs)
    retried.prompt = None
    with pytest.raises(exceptions.ViduError, match=r"prompt is None.*already submitted.*A retry resumes") as caught:
        retried.execute(task.context())
    assert caught.value.retryable
    assert task.run()["id"] == sandbox.creates[0].id
    assert len(sandbox.creates) == 1


@pytest.mark.parametrize("blocked", ["clips", "clips/c.mp4"], ids=["a file for the folder", "a folder for the file"])
def test_a_destination_that_cannot_be_written_after_the_wait(dialect, sandbox, tmp_path, blocked):
    """The generation is paid for: retries store its file as soon as that is possible, and order nothing."""
    task = Task(deferrable=True, destination=f"{tmp_path}/clips/c.mp4")
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    path = tmp_path / blocked
    (path / "x").mkdir(parents=True) if path.suffix else path.write_text("")
    for attempt in (lambda: task.resume(deferred.value), task.run):
        with pytest.raises(exceptions.ViduError) as caught:
            attempt()
        assert caught.value.retryable
    path.rename(tmp_path / "aside")
    assert task.run()["file"]["uri"] == f"file://{tmp_path}/clips/c.mp4"
    assert len(sandbox.creates) == 1


def test_a_destination_that_cannot_be_written_costs_nothing(dialect, sandbox, tmp_path):
    """It is checked before the order."""
    (tmp_path / "file").write_text("")
    with pytest.raises(exceptions.ViduConfigError, match="Nothing was ordered"):
        Task(destination=f"{tmp_path}/file/clips/").run()
    assert sandbox.requests("create") == []


def test_a_link_to_a_share_that_is_not_mounted_is_tried_again(dialect, sandbox, tmp_path):
    """The share may be back at the next try; until then nothing is ordered."""
    (tmp_path / "link").symlink_to(tmp_path / "share")
    task = Task(destination=f"{tmp_path}/link/clips/")
    with pytest.raises(exceptions.ViduStorageError, match=r"'link' is a symbolic link to '/.*does not exist") as caught:
        task.run()
    assert caught.value.retryable
    assert sandbox.requests("create") == []
    (tmp_path / "share").mkdir()
    assert task.run()["file"]["uri"].startswith(f"file://{tmp_path}/link/clips/")


@pytest.mark.fault("orders", "the store refuses what the task is going to store", outcome="refused", side="s3",
                   says="Nothing was ordered")  # fmt: skip
@pytest.mark.parametrize("name", ["clips/", "clips/a.mp4"])
@pytest.mark.parametrize("refused", ["access", "bucket", "key"])
def test_a_store_that_refuses_costs_nothing(connect, sandbox, s3, bucket, endpoint, monkeypatch, name, refused):
    """The upload is begun and aborted before the order; once the store takes it, a retry orders.

    An upload with a key of KMS begins with kms:GenerateDataKey; its parts need kms:Decrypt, too.
    """
    connect("ent-v2")
    code, method = {
        "access": ("AccessDenied", "POST"),
        "bucket": ("NoSuchBucket", "POST"),
        "key": ("AccessDenied", "PUT"),
    }[refused]
    task = Task(destination=f"s3://{bucket}/{name}", storage_conn_id=None)
    with (
        monkeypatch.context() as patch,
        Door(endpoint, lambda r: refusal(403, code) if r.method == method else None) as door,
    ):
        point_at(door.url(""), patch)
        with pytest.raises(exceptions.ViduStorageError, match="Nothing was ordered") as caught:
            task.run()
    assert caught.value.retryable
    assert sandbox.requests("create") == []
    point_at(endpoint, monkeypatch)
    assert task.run()["file"]["uri"].startswith(f"s3://{bucket}/clips/")
    assert (len(keys(s3, bucket)[0]), keys(s3, bucket)[1], len(sandbox.creates)) == (1, 0, 1)


@pytest.mark.fault("orders", "the store refuses what the download that follows is going to store", outcome="refused",
                   side="s3", says="Nothing was ordered")  # fmt: skip
@pytest.mark.parametrize("is_mapped", [False, True], ids=["one", "mapped"])
def test_a_store_that_refuses_the_download_that_follows(connect, sandbox, s3, bucket, endpoint, monkeypatch, is_mapped):
    """The DAG shows both: an upload is begun and aborted before the order, once for each bucket."""
    connect("ent-v2")
    task = Task(deferrable=False)
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        film = ViduGenerateOperator(**task.kwargs)
        film >> download_to(bucket, "a.mp4", "b.mp4") if is_mapped else film >> download_to(bucket, "clips/")
    with (
        monkeypatch.context() as patch,
        Door(endpoint, lambda r: refusal(403, "AccessDenied") if r.method == "POST" else None) as door,
    ):
        point_at(door.url(""), patch)
        with pytest.raises(exceptions.ViduStorageError, match="Nothing was ordered: the download 'keep'") as caught:
            film.execute(task.context())
    assert caught.value.retryable
    assert sandbox.requests("create") == []
    with Door(endpoint, lambda _: None) as door:
        point_at(door.url(""), monkeypatch)
        assert film.execute(task.context())["status"] == "succeeded"
        assert [r.method for r in door.requests].count("POST") == 1
    assert keys(s3, bucket) == ([], 0)


@pytest.mark.parametrize(
    ("overwrite", "name", "refuses", "words"),
    [
        ("error", "old.mp4", (), r"keep'.*old\.mp4' exists already"),
        ("error", "new.mp4", (), None),
        ("skip", "old.mp4", ("POST", "PUT"), None),
        ("skip", "new.mp4", ("POST", "PUT"), "keep'.*could not be written: permission denied"),
        ("skip", "new.mp4", ("HEAD", "GET"), "keep'.*need the permissions s3:GetObject and s3:ListBucket"),
        ("error", "clips/", ("HEAD", "GET"), "keep'.*need the permissions s3:GetObject and s3:ListBucket"),
        ("replace", "old.mp4", ("HEAD", "GET"), None),
    ],
)
def test_a_file_in_a_store_that_the_download_that_follows_keeps(
    s3, bucket, endpoint, monkeypatch, overwrite, name, refuses, words
):
    """The download would look first: what it would find, or may not look at, was found when the clip was paid for."""
    s3.put_object(Bucket=bucket, Key="old.mp4", Body=b"the old file")

    def shut(request):
        if request.method not in refuses:
            return None
        answer = refusal(403, "AccessDenied")
        return answer.partition(b"<")[0] if request.method == "HEAD" else answer

    task = Task()
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        film = ViduGenerateOperator(**task.kwargs)
        film >> download_to(bucket, name, overwrite=overwrite)
    with Door(endpoint, shut) as door:
        point_at(door.url(""), monkeypatch)
        with pytest.raises(exceptions.ViduError, match=f"Nothing was ordered: .*{words}") if words else nullcontext():
            check_downstream(film, logging.getLogger("preflight"), rehearses=True)
    assert keys(s3, bucket) == (["old.mp4"], 0)


@pytest.mark.parametrize("why", ["template", "connection", "another package's task", "queue", "dry run"])
def test_a_store_that_is_not_asked_for_the_download_that_follows(bucket, why, caplog):
    """Its bucket may be made by the task in between, its worker have another role, and a template may name another."""
    task = Task()
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        film = ViduGenerateOperator(**task.kwargs)
        waits = ViduGenerationSensor(task_id="b", generation_id="x")
        between = MakesBucket(task_id="c") if why == "another package's task" else waits
        more = {"storage_conn_id": "{{ params.store }}"} if why == "connection" else {}
        name = "{{ ds }}/" if why == "template" else "clips/"
        film >> between >> download_to("not-there-yet", name, **more, **({"queue": "gpu"} if why == "queue" else {}))
    check_downstream(film, logging.getLogger("preflight"), rehearses=why != "dry run")
    assert "will fail" not in caplog.text


def download_to(bucket: str, *names: str, **more: Any) -> Any:
    """Return a task that downloads to a bucket, mapped over its names if there are several."""
    places = [f"s3://{bucket}/{name}" for name in names]
    if len(places) == 1:
        return ViduDownloadOperator(task_id="keep", generation_id="x", destination=places[0], **more)
    return ViduDownloadOperator.partial(task_id="keep", generation_id="x", **more).expand(destination=places)


def test_a_retry_that_resumes_does_not_ask_the_store_first(connect, sandbox, s3, bucket, endpoint, monkeypatch):
    """What is paid for is waited for, whatever the store says by then."""
    connect("ent-v2")
    task = Task(deferrable=True, destination=f"s3://{bucket}/clips/")
    with pytest.raises(TaskDeferred):
        task.start()
    task.try_number += 1
    with monkeypatch.context() as patch, Door(endpoint, lambda _: refusal(403, "AccessDenied")) as door:
        point_at(door.url(""), patch)
        with pytest.raises(TaskDeferred):
            task.start()
        assert door.requests == []
    assert len(sandbox.creates) == 1


@pytest.mark.fault("stores and files", "a mount that does not answer before the order", outcome="refused",
                   seen="an error that Airflow retries; nothing is paid")  # fmt: skip
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN])
@pytest.mark.parametrize("name", ["", "a.mp4"], ids=["folder", "file"])
def test_a_mount_that_does_not_answer_is_tried_again(dialect, sandbox, tmp_path, monkeypatch, number, name):
    """It may answer at the next try: an error that no retry repeats lost the whole run."""
    stat = Path.stat

    def silent(path: Path, **named: bool) -> os.stat_result:
        if path.is_relative_to(tmp_path / "mount"):
            raise OSError(number, os.strerror(number), str(path))
        return stat(path, **named)

    task = Task(destination=f"{tmp_path}/mount/{name}")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", silent)
        with pytest.raises(exceptions.ViduStorageError, match="could not be checked") as caught:
            task.run()
    assert caught.value.retryable
    assert sandbox.requests("create") == []
    assert task.run()["file"]["uri"].startswith(f"file://{tmp_path}/mount/")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"storage_conn_id": "my_aws"}, "does not apply to a local destination"),
        ({"destination": ObjectStoragePath("file:///tmp/clips/", auto_mkdir=True)}, "takes no options"),
        ({"destination": "gs://slip@bucket/clips/"}, "There is no Airflow connection 'slip'"),
        ({"destination": "gs://bucket/clips/", "storage_conn_id": "slip"}, "There is no Airflow connection 'slip'"),
    ],
)
def test_a_destination_that_no_store_takes_costs_nothing(dialect, sandbox, tmp_path, monkeypatch, arguments, words):
    """What is looked at for a download that follows is looked at for the task's own file, too."""
    monkeypatch.setattr(schemes, "find_spec", lambda _name: True)
    with pytest.raises(exceptions.ViduConfigError, match=words):
        Task(**{"destination": f"{tmp_path}/", **arguments}).run()
    assert sandbox.requests("create") == []


def test_a_setting_that_no_download_can_use_costs_nothing(dialect, sandbox, tmp_path, monkeypatch):
    """It is read before the order, like the largest size."""
    monkeypatch.setenv("AIRFLOW__VIDU__ALLOWED_HOSTS", "10.0.0.0/99")
    with pytest.raises(exceptions.ViduConfigError, match=r"\[vidu\] allowed_hosts"):
        Task(destination=f"{tmp_path}/").run()
    assert sandbox.requests("create") == []


@pytest.mark.parametrize("value", ["maybe", ""])
def test_a_setting_with_which_no_result_is_returned_costs_nothing(dialect, sandbox, monkeypatch, value):
    """Each try would fail at its end, after the generation is paid for; a try that has paid is retried."""
    task = Task(deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.start()
    monkeypatch.setenv("AIRFLOW__VIDU__SIGNED_URLS_IN_XCOM", value)
    with pytest.raises(Exception, match="signed_urls_in_xcom") as caught:  # of a class that is no AirflowException
        task.resume(deferred.value)
    assert not isinstance(caught.value, AirflowFailException)
    with pytest.raises(exceptions.ViduConfigError, match=r"\[vidu\] signed_urls_in_xcom"):
        Task().run()
    assert len(sandbox.creates) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"artifact": "cover"}, "need a destination"),
        ({"destination": "/tmp/x/", "wait_for_completion": False}, "wait_for_completion"),
        ({"destination": "/tmp/x/", "artifact": "gif"}, "artifact must be one of"),
        ({"destination": "/a/../b/"}, r"'\.\.' segment"),
        ({"destination": "/tmp/x/", "max_bytes": "1"}, "max_bytes must be a whole number above 0"),
        ({"destination": "/tmp/x/", "max_bytes": 0}, "max_bytes must be a whole number above 0"),
        ({"destination": "/tmp/x/", "max_bytes": True}, "max_bytes must be a whole number above 0"),
        ({"destination": "/tmp/x/", "max_bytes": 1.5}, "max_bytes must be a whole number above 0"),
    ],
)
def test_wrong_arguments_fail_at_parse_time(arguments, words):
    """What is wrong in every run is reported when the DAG is read."""
    with pytest.raises(exceptions.ViduConfigError, match=words):
        ViduGenerateOperator(**{"task_id": "g", "prompt": "x", **arguments})


def test_a_destination_that_is_set_after_the_operator_was_made(dialect, sandbox, tmp_path):
    """By a subclass, or a cluster policy: the order was paid for, and its file was stored nowhere."""
    task = Task(deferrable=True)

    class Late(ViduGenerateOperator):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.destination = f"{tmp_path}/"

    with pytest.raises(TaskDeferred) as deferred:
        Late(**task.kwargs).execute(task.context())
    event = task.event(deferred.value)
    record = Late(**task.kwargs).execute_complete(task.context(), event)["file"]
    assert record["uri"].startswith(f"file://{tmp_path}/")
