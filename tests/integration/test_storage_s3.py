"""Publishing on S3, against a real S3 API on a socket: multi-part uploads that complete or are aborted."""

from __future__ import annotations

import hashlib
import json

import pytest
import s3fs

from airflow_provider_vidu.destination import Destination
from airflow_provider_vidu.download_operator import ViduDownloadOperator
from airflow_provider_vidu.exceptions import ViduDownloadError, ViduStorageError
from airflow_provider_vidu.remote_store import UPLOAD_BYTES, UploadSink
from airflow_provider_vidu.storage import MIB, DestinationExistsError
from tests.faults.transfer_s3 import body_of, keys, s3_bucket, s3_client, s3_endpoint  # noqa: F401 - fixtures
from tests.integration.servers import Server, ranged, video, whole

OLD = b"the old file"
NEW = bytes(range(256)) * 1000
LARGE = NEW * 40  # 10 MB: two parts


@pytest.fixture(params=["environment", "connection"])
def conn_id(request):
    """Reach the store with the environment's credentials, and with an Airflow connection."""
    if request.param == "environment":
        return None
    pytest.importorskip("airflow.providers.amazon")
    return "my_store"


@pytest.mark.parametrize("body", [NEW, LARGE, bytes(UPLOAD_BYTES)], ids=["small", "large", "one-block"])
def test_an_upload_is_published(s3, bucket, conn_id, body):
    """Small and large files arrive whole; the URI holds bucket and key, and no connection."""
    place = Destination(f"s3://{bucket}/deep/a b.mp4", conn_id).place()
    sink = place.sink(len(body), replace=True)
    assert isinstance(sink, UploadSink)
    for at in range(0, len(body), 256 * 1024):
        sink.write(memoryview(body)[at : at + 256 * 1024])
        assert keys(s3, bucket)[0] == []
    sink.publish()
    assert body_of(s3, bucket, "deep/a b.mp4") == body
    assert place.uri == f"s3://{bucket}/deep/a b.mp4"
    assert place.size() == len(body)
    assert b"".join(place.read()) == body
    assert keys(s3, bucket)[1] == 0


@pytest.mark.parametrize("body", [NEW, LARGE], ids=["small", "large"])
def test_a_discarded_upload_is_aborted(s3, bucket, conn_id, body):
    """The old object stands, no upload hangs in the bucket, and collecting the file publishes nothing."""
    s3.put_object(Bucket=bucket, Key="a.mp4", Body=OLD)
    sink = Destination(f"s3://{bucket}/a.mp4", conn_id).place().sink(None, replace=True)
    sink.write(memoryview(body))
    sink.discard()
    del sink
    assert keys(s3, bucket) == (["a.mp4"], 0)
    assert body_of(s3, bucket, "a.mp4") == OLD


def test_no_file_in_a_missing_bucket(s3, conn_id):
    """Looking for an existing file where there is no bucket finds none."""
    assert Destination("s3://no-such-bucket-here/a.mp4", conn_id).place().size() is None


def test_wrong_credentials_are_told(s3, bucket, monkeypatch):
    """A store without credentials ends in an error of ours."""
    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", _no_credentials)
    with pytest.raises(ViduStorageError, match="Unable to locate credentials"):
        Destination(f"s3://{bucket}/a.mp4").place().size()


async def _no_credentials(*_args, **_kwargs):
    from botocore.exceptions import NoCredentialsError

    raise NoCredentialsError


def test_an_object_that_must_not_be_replaced_stays(s3, bucket):
    """An object that came while ours was being uploaded wins."""
    sink = Destination(f"s3://{bucket}/a.mp4").place().sink(None, replace=False)
    sink.write(memoryview(LARGE))
    s3.put_object(Bucket=bucket, Key="a.mp4", Body=OLD)
    with pytest.raises(DestinationExistsError):
        sink.publish()
    sink.discard()
    assert keys(s3, bucket) == (["a.mp4"], 0)
    assert body_of(s3, bucket, "a.mp4") == OLD


def test_a_key_that_is_also_a_prefix_is_a_file_to_be(s3, bucket):
    """Object stores have no folders: other keys below it are no obstacle."""
    s3.put_object(Bucket=bucket, Key="a/b.mp4", Body=OLD)
    place = Destination(f"s3://{bucket}/a").place()
    assert place.size() is None
    sink = place.sink(None, replace=True)
    sink.write(memoryview(NEW))
    sink.publish()
    assert body_of(s3, bucket, "a") == NEW


@pytest.mark.parametrize("total", [None, 10**9, 10**11, 5 * 10**12])
def test_parts_grow_with_the_file(s3, bucket, total):
    """A file of any size fits into the number of parts that S3 accepts."""
    sink = Destination(f"s3://{bucket}/a.mp4").place().sink(total, replace=True)
    block = sink._file.blocksize
    assert block % MIB == 0
    assert block >= UPLOAD_BYTES
    assert (total or 0) / block < 10_000
    sink.discard()


def operator(**arguments):
    """Return an operator that may fetch from loopback."""
    return ViduDownloadOperator(task_id="download", **arguments)


@pytest.fixture
def loopback(monkeypatch):
    """Make a Vidu connection that allows loopback and does not wait long."""
    extra = {"allowed_hosts": "127.0.0.1", "max_retries": 1, "timeout": 2}
    conn = {"conn_type": "vidu", "host": "http://127.0.0.2:9", "password": "sk-x", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(conn))


def test_the_operator_stores_on_s3(s3, bucket, conn_id, loopback, quick_backoff):
    """From the URL into the bucket, resumed on the way, with the digest of what lies there."""
    body = video(10_000_000)
    with Server(whole(body, cut=9_000_000), ranged(body)) as server:
        record = operator(
            video_url=server.url("/clip.mp4?sig=hush"), destination=f"s3://{bucket}/clips/", storage_conn_id=conn_id
        ).execute({})
    key = record["uri"].removeprefix(f"s3://{bucket}/")
    assert hashlib.sha256(body_of(s3, bucket, key)).hexdigest() == record["sha256"]
    assert record["size"] == len(body)
    assert keys(s3, bucket) == ([key], 0)


def test_skip_and_error_on_s3(s3, bucket, conn_id, loopback):
    """An object that is there is described, or is an error; nothing is fetched."""
    s3.put_object(Bucket=bucket, Key="a.mp4", Body=video(5000))
    arguments = {
        "video_url": "http://127.0.0.1:9/a.mp4?sig=hush",
        "destination": f"s3://{bucket}/a.mp4",
        "storage_conn_id": conn_id,
    }
    record = operator(overwrite="skip", **arguments).execute({})
    assert record["sha256"] == hashlib.sha256(video(5000)).hexdigest()
    assert (record["size"], record["content_type"]) == (5000, "video/mp4")
    with pytest.raises(ViduDownloadError, match="exists already"):
        operator(overwrite="error", **arguments).execute({})
