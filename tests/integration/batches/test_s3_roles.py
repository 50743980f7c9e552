"""Roles that may not list a bucket: S3 answers 403 for an object that does not exist."""

from __future__ import annotations

from collections.abc import Iterator
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
