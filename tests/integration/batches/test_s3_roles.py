"""What may exist but cannot be read: for roles that may not list a bucket, and in an outage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from tests.faults.transfer_s3 import Door, point_at, refusal, s3_bucket, s3_client, s3_endpoint  # noqa: F401 - fixtures
from tests.integration.batches.batch_task import BatchTask
from tests.integration.operators.test_generate_reuse import RunTask
from tests.integration.servers import Request

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables")]


@pytest.fixture
def unlisted(endpoint: str, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return a folder in which this role may get and put objects, and list nothing."""

    def shut(request: Request) -> bytes | None:
        key = request.target.partition("?")[0].lstrip("/").partition("/")[2]
        if request.method not in ("GET", "HEAD") or key in [
            found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        ]:
            return None
        answer = refusal(403, "AccessDenied")
        return answer if request.method == "GET" else answer.partition(b"<")[0]

    with Door(endpoint, shut) as door:
        point_at(door.url(""), monkeypatch)
        yield f"s3://{bucket}/out/"


class Watched:
    """A folder of a bucket, parts of which can be made unreadable."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.open()

    def open(self) -> None:
        """Let everything be read."""
        self.close_to("", 200, when=lambda: False)

    def close_to(self, part: str, status: int, when: Callable[[], bool] = lambda: True) -> None:
        """Answer reads of what has ``part`` in its name with a status, while ``when`` says so."""
        self._part, self._status, self._when = part, status, when

    def shut(self, request: Request) -> bytes | None:
        """Return the answer to a request that does not reach the store."""
        if request.method not in ("GET", "HEAD") or self._part not in request.target or not self._when():
            return None
        answer = refusal(self._status, "AccessDenied" if self._status == 403 else "SlowDown")
        return answer if request.method == "GET" else answer.partition(b"<")[0]


@pytest.fixture
def watched(endpoint: str, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Return a folder that can be made unreadable in part."""
    folder = Watched(f"s3://{bucket}/out/")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # an outage that outlasts botocore's own pauses, sooner
    with Door(endpoint, folder.shut) as door:
        point_at(door.url(""), monkeypatch)
        yield folder


def test_a_state_that_may_exist_is_not_taken_for_missing(connect, sandbox, unlisted, tmp_path):
    """Batch and shared orders fail before anything is paid for, and name the permission."""
    connect("ent-v2")
    for task in (BatchTask(tmp_path, ["a cat"], destination=unlisted), RunTask(tmp_path, destination=unlisted)):
        with pytest.raises(exceptions.ViduStorageError, match="s3:ListBucket"):
            task.run()
    assert sandbox.creates == []


@pytest.mark.parametrize("name", ["", "film.mp4"], ids=["folder", "file"])
def test_a_role_that_only_writes_stores_a_film(connect, sandbox, unlisted, tmp_path, name):
    """Without a state beside the files, nothing needs to be read."""
    connect("ent-v2")
    assert RunTask(tmp_path, destination=unlisted + name, reuse="never").run()["file"]["size"] > 0


@pytest.mark.parametrize(("part", "status"), [("/catalogue/", 503), (".mp4", 403)], ids=["entry", "file"])
def test_an_outage_is_not_taken_for_no_earlier_order(connect, sandbox, watched, tmp_path, part, status):
    """Single task and batch order nothing while the store does not say whether there is a file; then they get it."""
    connect("ent-v2")
    first = RunTask(tmp_path, destination=watched.folder).run()
    tasks = (
        RunTask(tmp_path, "r2", destination=watched.folder),
        BatchTask(tmp_path, ["a cat"], destination=watched.folder, reuse="identical"),
    )
    watched.close_to(part, status)
    for task in tasks:
        with pytest.raises(exceptions.ViduError):
            task.run()
    watched.open()
    assert tasks[0].run()["reused_from"] == first["id"]
    assert tasks[1].run()["reused"] == 1
    assert len(sandbox.creates) == 1


def test_what_is_paid_for_is_stored_whatever_the_catalogue_says(connect, sandbox, watched, tmp_path):
    """After the create, a catalogue that cannot be read costs the next task its look, not this one its file."""
    connect("ent-v2")
    watched.close_to("/catalogue/", 403, when=lambda: bool(sandbox.creates))
    assert RunTask(tmp_path, destination=watched.folder).run()["file"]["size"] > 0
