"""Transfers under faults into S3: the rows that matter there, and a store that fails by itself."""

from __future__ import annotations

import re

import pytest

from airflow_provider_vidu.exceptions import ViduStorageError
from fault_table import CLEAR_ERROR, SURVIVED
from tests.faults.transfer_s3 import (  # noqa: F401 - some are fixtures
    Bucket,
    Door,
    point_at,
    refusal,
    s3_bucket,
    s3_client,
    s3_endpoint,
)
from tests.faults.transfer_table import FAULTS, quick, suffer  # noqa: F401 - a fixture
from tests.faults.transfer_world import LARGE, OLD, SMALL, scene
from tests.integration.servers import ranged

pytestmark = pytest.mark.usefixtures("quick")


# The same decisions as with a local file; these are the ones in which an upload starts over, waits, or goes on.
EVERY_TIME = ("cut at 50 %", "silence at half", "resume answered by 200 with another version", "no ETag and no date")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=() if fault.name in EVERY_TIME else pytest.mark.nightly)
        for fault in FAULTS
        if fault.s3
    ],
)
def test_a_fault(fault, s3, bucket, capsys, monkeypatch, fault_row):
    """The object is the old or the whole one, no upload hangs in the bucket, and a rerun succeeds."""
    fault_row("transfer", fault.name, **suffer(fault, Bucket(s3, bucket), capsys, monkeypatch))


def completes(request):
    """Whether a request completes an upload."""
    return request.method == "POST" and "uploadId=" in request.target


def is_last_part(request):
    """Whether a request brings the last part of an upload of two."""
    return request.method == "PUT" and "partNumber=2" in request.target


@pytest.mark.parametrize(
    ("name", "what", "answer"),
    [
        ("S3 refuses the last part", is_last_part, refusal(403, "AccessDenied")),
        ("S3 fails at the last part", is_last_part, refusal(500, "InternalError")),
        ("S3 says 200 and means no", completes, refusal(200, "InternalError")),
        # Each of these ends as one of those above.
        pytest.param("S3 breaks off at the last part", is_last_part, b"", marks=pytest.mark.nightly),
        pytest.param("S3 refuses to complete", completes, refusal(403, "AccessDenied"), marks=pytest.mark.nightly),
        pytest.param("S3 fails to complete", completes, refusal(503, "SlowDown"), marks=pytest.mark.nightly),
        pytest.param("S3 is full", is_last_part, refusal(507, "QuotaExceeded"), marks=pytest.mark.nightly),
    ],
)
def test_the_store_fails_at_the_end(s3, bucket, endpoint, capsys, monkeypatch, fault_row, name, what, answer):
    """The old object stays, the upload is aborted, the error names it; a rerun at a sound store succeeds."""
    home = Bucket(s3, bucket)
    home.put(OLD)
    with Door(endpoint, lambda request: answer if what(request) else None) as door:
        point_at(door.url(""), monkeypatch)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        with scene(home, capsys, monkeypatch) as s:
            s.gateway.files = [ranged(s.body)]
            error = s.download()
            assert isinstance(error, ViduStorageError), error
            assert home.destination in str(error)
            assert door.turned_away
            assert home.content() == OLD
            assert home.left_over() == []
            requests = s.requests()
            door.shut = lambda _request: None
            s.check_rerun()
    fault_row("transfer", name, side="s3", seen=str(error), requests=requests, outcome=CLEAR_ERROR)


@pytest.mark.parametrize(
    ("overwrite", "size"),
    [pytest.param("replace", LARGE, marks=pytest.mark.nightly), ("error", LARGE), ("replace", SMALL)],
)
def test_the_answer_to_the_last_request_is_lost(s3, bucket, endpoint, capsys, monkeypatch, fault_row, overwrite, size):
    """The store has completed and its answer is lost: the object is looked for, and the task succeeds."""
    home = Bucket(s3, bucket)
    home.size = size
    with Door(endpoint, lambda request: b"" if completes(request) else None, after=True) as door:
        point_at(door.url(""), monkeypatch)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with scene(home, capsys, monkeypatch, overwrite=overwrite) as s:
            s.gateway.files = [ranged(s.body)]
            record = s.download()
            seen, requests = s.seen(record), s.requests()
            s.check_whole(record, s.body)
            assert door.turned_away
            door.shut = lambda _request: None
            s.overwrite = "replace"
            s.check_rerun()
    name = f"S3 completes, its answer is lost (overwrite={overwrite!r}, {size:,} bytes)"
    fault_row("transfer", name, side="s3", seen=seen, requests=requests, outcome=SURVIVED)


def test_the_store_is_gone_when_it_is_asked(s3, bucket, endpoint, capsys, monkeypatch, fault_row):
    """The store breaks off at the completion and after it: the error says that the outcome is unknown."""
    home = Bucket(s3, bucket)
    with Door(
        endpoint, lambda request: b"" if completes(request) or request.method == "DELETE" else None, after=True
    ) as door:
        point_at(door.url(""), monkeypatch)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with scene(home, capsys, monkeypatch) as s:
            s.gateway.files = [ranged(s.body)]
            error = s.download()
            assert isinstance(error, ViduStorageError), error
            assert "the old file or the whole new one" in str(error)
            requests = s.requests()
            assert home.content() == s.body
            assert home.left_over() == []
            door.shut = lambda _request: None
            s.check_rerun()
    name = "S3 completes, then answers nothing any more"
    fault_row("transfer", name, side="s3", seen=str(error), requests=requests, outcome=CLEAR_ERROR)


def test_a_missing_bucket(s3, capsys, monkeypatch, fault_row):
    """The error names bucket and reason; once the bucket exists, the same task succeeds."""
    home = Bucket(s3, "clips-to-be-made")
    with scene(home, capsys, monkeypatch) as s:
        s.gateway.files = [ranged(s.body)]
        error = s.download()
        assert isinstance(error, ViduStorageError), error
        assert re.search(r"s3://clips-to-be-made/clips/t\.mp4.*bucket.*does not exist", str(error))
        requests = s.requests()
        s3.create_bucket(Bucket=home.bucket)
        assert home.left_over() == []
        s.check_rerun()
    fault_row("transfer", "bucket missing", side="s3", seen=str(error), requests=requests, outcome=CLEAR_ERROR)
