"""Publishing on S3, against a real S3 API on a socket: multi-part uploads that complete or are aborted."""

from __future__ import annotations

import hashlib
import json

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_vidu.batches.journal import Journal
from airflow_provider_vidu.exceptions import (
    ViduConfigError,
    ViduDownloadError,
    ViduDownloadRefusedError,
    ViduStorageError,
)
from airflow_provider_vidu.operators.download import ViduDownloadOperator
from airflow_provider_vidu.stores import remote, uploads
from airflow_provider_vidu.stores.base import MIB, DestinationExistsError
from airflow_provider_vidu.stores.destination import Destination, options_of
from airflow_provider_vidu.stores.paths import checked_destination
from airflow_provider_vidu.stores.small_files import create_file
from airflow_provider_vidu.stores.targets import FolderTarget
from airflow_provider_vidu.stores.uploads import MAX_PART_BYTES, MOST_PARTS, UPLOAD_BYTES, UploadWriter
from tests.faults.transfer_s3 import (  # noqa: F401 - some are fixtures
    Door,
    body_of,
    keys,
    point_at,
    refusal,
    s3_bucket,
    s3_client,
    s3_endpoint,
)
from tests.faults.transfer_world import connection
from tests.integration.servers import Server, ranged, video, whole

OLD = b"the old file"
NEW = bytes(range(256)) * 1000
LARGE = NEW * 40  # 10 MB: two parts


def named(way: str) -> str | None:
    """Return the connection's id, or None for the environment's credentials."""
    if way == "environment":
        return None
    return "my_store"


@pytest.fixture(params=["environment", "connection"])
def conn_id(request):
    """Reach the store with the environment's credentials, and with an Airflow connection."""
    return named(request.param)


@pytest.fixture(params=["environment", pytest.param("connection", marks=pytest.mark.nightly)])
def either_id(request):
    """Do the same where megabytes are sent, and how the store is reached makes no difference to them."""
    return named(request.param)


@pytest.mark.parametrize("body", [NEW, LARGE, bytes(UPLOAD_BYTES)], ids=["small", "large", "one-block"])
def test_an_upload_is_published(s3, bucket, either_id, body):
    """Small and large files arrive whole; the URI holds bucket and key, and no connection."""
    stored = Destination(f"s3://{bucket}/deep/a b.mp4", either_id).file()
    writer = stored.writer(len(body), replace=True)
    assert isinstance(writer, UploadWriter)
    for at in range(0, len(body), 256 * 1024):
        writer.write(memoryview(body)[at : at + 256 * 1024])
        assert keys(s3, bucket)[0] == []
    writer.publish()
    assert body_of(s3, bucket, "deep/a b.mp4") == body
    assert stored.uri == f"s3://{bucket}/deep/a b.mp4"
    assert stored.size() == len(body)
    assert b"".join(stored.read()) == body
    assert keys(s3, bucket)[1] == 0


@pytest.mark.parametrize("body", [NEW, LARGE], ids=["small", "large"])
def test_a_discarded_upload_is_aborted(s3, bucket, either_id, body):
    """The old object stands, no upload hangs in the bucket, and collecting the file publishes nothing."""
    s3.put_object(Bucket=bucket, Key="a.mp4", Body=OLD)
    writer = Destination(f"s3://{bucket}/a.mp4", either_id).file().writer(None, replace=True)
    writer.write(memoryview(body))
    writer.discard()
    del writer
    assert keys(s3, bucket) == (["a.mp4"], 0)
    assert body_of(s3, bucket, "a.mp4") == OLD


@pytest.mark.fault("attacks", "another writer puts many files beside the name of a download", outcome="survived",
                   seen="the file is found; one page of the list is read")  # fmt: skip
def test_a_long_list_of_similar_names_is_not_read(s3, bucket, conn_id, monkeypatch):
    """All pages were read and kept, and each name that another writer chooses makes the list longer."""
    for number in range(25):
        s3.put_object(Bucket=bucket, Key=f"clips/a.{number}/b", Body=b"x")
    s3.put_object(Bucket=bucket, Key="clips/a.webm", Body=OLD)
    monkeypatch.setattr(remote, "MOST_LISTED", 10)
    destination = Destination(f"s3://{bucket}/clips/", conn_id)
    system, listed = type(destination.file("a")._fs), []
    find = system.find
    monkeypatch.setattr(system, "find", lambda *args, **more: listed.append(find(*args, **more)) or listed[-1])
    found = FolderTarget(destination, "skip", "a", None).existing(len(OLD))
    assert found is not None
    assert found.uri.endswith("/clips/a.webm")
    assert [len(keys) for keys in listed] == [10]


def test_no_file_in_a_missing_bucket(s3, conn_id):
    """Looking for an existing file where there is no bucket finds none."""
    assert Destination("s3://no-such-bucket-here/a.mp4", conn_id).file().size() is None


def test_credentials_that_cannot_be_had_are_told(s3, bucket, tmp_path, monkeypatch):
    """A store that the client has no credentials for, and so sends nothing to, ends in an error of ours."""
    # Without any, s3fs asks anonymously; here a program should bring them, and fails.
    config = tmp_path / "config"
    config.write_text("[default]\ncredential_process = false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ViduStorageError, match="custom-process"):
        Destination(f"s3://{bucket}/a.mp4").file().size()


def test_an_object_that_must_not_be_replaced_stays(s3, bucket):
    """An object that came while ours was being uploaded wins."""
    writer = Destination(f"s3://{bucket}/a.mp4").file().writer(None, replace=False)
    writer.write(memoryview(LARGE))
    s3.put_object(Bucket=bucket, Key="a.mp4", Body=OLD)
    with pytest.raises(DestinationExistsError):
        writer.publish()
    writer.discard()
    assert keys(s3, bucket) == (["a.mp4"], 0)
    assert body_of(s3, bucket, "a.mp4") == OLD


def test_a_key_that_is_also_a_prefix_is_a_file_to_be(s3, bucket):
    """Object stores have no folders: other keys below it do not matter."""
    s3.put_object(Bucket=bucket, Key="a/b.mp4", Body=OLD)
    stored = Destination(f"s3://{bucket}/a").file()
    assert stored.size() is None
    writer = stored.writer(None, replace=True)
    writer.write(memoryview(NEW))
    writer.publish()
    assert body_of(s3, bucket, "a") == NEW


@pytest.mark.parametrize("total", [None, 10**9, 10**11, MAX_PART_BYTES * MOST_PARTS])
def test_parts_grow_with_the_file(s3, bucket, total):
    """A file of every size that is taken fits into the number of parts that S3 accepts, and parts stay small."""
    writer = Destination(f"s3://{bucket}/a.mp4").file().writer(total, replace=True)
    block = writer._file.blocksize
    assert block % MIB == 0
    assert UPLOAD_BYTES <= block <= MAX_PART_BYTES
    assert (total or 0) / block < 10_000
    writer.discard()


@pytest.mark.fault(
    "attacks", "a server announces 100 TB", outcome="refused", side="s3", says="the limit in object stores"
)
def test_an_announced_length_does_not_set_the_memory(s3, bucket):
    """What a server announces beyond the largest upload is refused before a part is reserved."""
    stored = Destination(f"s3://{bucket}/a.mp4").file()
    with pytest.raises(ViduDownloadRefusedError, match="100,000,000,000,000 bytes; the limit in object stores"):
        stored.writer(10**14, replace=True)
    assert keys(s3, bucket) == ([], 0)


def test_more_parts_than_there_may_be_are_refused(s3, bucket, monkeypatch):
    """A file without an announced length ends in an error of ours when the parts are used up."""
    monkeypatch.setattr(uploads, "MOST_PARTS", 2)
    writer = Destination(f"s3://{bucket}/a.mp4").file().writer(None, replace=True)
    writer.write(memoryview(bytes(2 * UPLOAD_BYTES)))
    with pytest.raises(ViduDownloadRefusedError, match="without announcing how many"):
        writer.write(memoryview(b"x"))
    writer.discard()
    assert keys(s3, bucket) == ([], 0)


@pytest.mark.fault(
    "stores and files",
    "a browser opens a stored object",
    outcome="survived",
    side="s3",
    seen="it plays: the proven type, inline",
)
@pytest.mark.parametrize("body", [NEW, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("replace", [True, False])
def test_an_object_carries_its_type(s3, bucket, either_id, body, replace):
    """Browsers play it in place instead of saving it."""
    writer = Destination(f"s3://{bucket}/a", either_id).file().writer(None, replace=replace, content_type="image/webp")
    writer.write(memoryview(body))
    writer.publish()
    found = s3.head_object(Bucket=bucket, Key="a")
    assert (found["ContentType"], found["ContentDisposition"]) == ("image/webp", "inline")


@pytest.mark.fault(
    "from Airflow",
    "an ObjectStoragePath with options, KMS among them",
    outcome="survived",
    side="s3",
    seen="the object is encrypted with that key",
)
def test_the_options_of_a_path_reach_the_store(s3, bucket, conn_id):
    """The key that an ObjectStoragePath names encrypts the object, with and without a connection."""
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key, "ContentDisposition": "attachment"}
    path = ObjectStoragePath(f"s3://{bucket}/clips/", conn_id=conn_id, s3_additional_kwargs=extra)
    destination = Destination(checked_destination(path), None, options_of(path))
    writer = destination.file("a.mp4").writer(None, replace=True, content_type="video/mp4")
    writer.write(memoryview(NEW))
    writer.publish()
    found = s3.head_object(Bucket=bucket, Key="clips/a.mp4")
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", key)
    assert (found["ContentType"], found["ContentDisposition"]) == ("video/mp4", "attachment")
    plain = Destination(f"s3://{bucket}/b.mp4", conn_id).file().writer(None, replace=True)
    assert not plain._fs.s3_additional_kwargs
    plain.discard()


def test_one_listing_finds_what_is_there(s3, bucket, conn_id):
    """Of all names that a file may have, those in the folder are found with one question."""
    for key in ("clips/a.webm", "clips/a.txt", "clips/a-2.mp4", "clips/a.mp4/b", "clips/ab.mp4"):
        s3.put_object(Bucket=bucket, Key=key, Body=OLD)
    s3.put_object(Bucket=bucket, Key="clips/a.mov", Body=b"")
    found = FolderTarget(Destination(f"s3://{bucket}/clips/", conn_id), "skip", "a", None).existing(len(OLD))
    assert found is not None
    assert found.uri == f"s3://{bucket}/clips/a.webm"
    assert FolderTarget(Destination(f"s3://{bucket}/", conn_id), "skip", "a", None).existing(len(OLD)) is None


def unreadable(request):
    """Refuse what reads an object or lists the bucket."""
    answer = refusal(403, "AccessDenied")
    head = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    return {"GET": answer, "HEAD": head}.get(request.method)


@pytest.mark.fault(
    "stores and files",
    "a role that may only write, skip and error",
    outcome="clear error",
    side="s3",
    says="need the permissions s3:GetObject and s3:ListBucket",
)
@pytest.mark.fault(
    "stores and files", "a role that may only write, replace", outcome="survived", side="s3", seen="the new object"
)
@pytest.mark.parametrize("folder", [True, False])
def test_replace_only_writes(s3, bucket, endpoint, loopback, monkeypatch, folder):
    """A role that may neither read nor list replaces an object; skip and error name what it lacks."""
    s3.put_object(Bucket=bucket, Key="clips/t.mp4", Body=OLD)
    body = video(10_000)
    with Server(whole(body)) as server, Door(endpoint, unreadable) as door:
        point_at(door.url(""), monkeypatch)
        arguments = {
            "generation_id": "t",
            "video_url": server.url("/t.mp4"),
            "destination": f"s3://{bucket}/clips/" + ("" if folder else "t.mp4"),
        }
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", connection(server, max_retries=0))
        assert operator(**arguments).execute({})["size"] == len(body)
        assert door.turned_away == []
        for overwrite in ("skip", "error"):
            with pytest.raises(ViduStorageError, match="need the permissions s3:GetObject and s3:ListBucket"):
                operator(overwrite=overwrite, **arguments).execute({})
    assert body_of(s3, bucket, "clips/t.mp4") == body


@pytest.mark.parametrize("end", ["?", "#"])
def test_a_name_that_means_another_one_is_refused(s3, bucket, end):
    """Path libraries drop such an end; the record would name an object that is not there."""
    with pytest.raises(ViduConfigError, match=r"would use the name '.*/a\.mp4'"):
        Destination(f"s3://{bucket}/a.mp4{end}")


@pytest.mark.parametrize("key", ["a#b.mp4", "a%20b.mp4", "x//a.mp4", "a*[1]?.mp4", "e\u0301 é.", "a&b=c+d;e"])
def test_an_object_has_the_name_that_is_told(s3, bucket, key):
    """No letter of a key means anything on its way."""
    stored = Destination(checked_destination(f"s3://{bucket}/{key}")).file()
    writer = stored.writer(None, replace=True)
    writer.write(memoryview(NEW))
    writer.publish()
    assert keys(s3, bucket) == ([key], 0)
    assert stored.uri == f"s3://{bucket}/{key}"
    assert stored.size() == len(NEW)


def test_the_argument_wins_over_the_connection_in_the_address():
    """Which connection is used does not depend on the version of Airflow."""
    found = Destination("s3://theirs@bucket/a.mp4", "mine")
    assert (found._conn_id, found._uri) == ("mine", "s3://bucket/a.mp4")
    assert Destination("s3://theirs@bucket/a.mp4")._conn_id == "theirs"


def test_a_spelling_of_the_scheme_that_is_not_known_is_no_missing_package(monkeypatch):
    """The error does not advise to install what is there."""

    def unknown(*_args, **_kwargs):
        raise ValueError("Unsupported filesystem: 's3n'")

    monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", unknown)
    with pytest.raises(ViduConfigError, match=r"Write s3:// instead\.$"):
        Destination("s3n://bucket/a.mp4")


@pytest.mark.fault(
    "stores and files",
    "a store answers 501, or 400, to conditional writes",
    outcome="survived",
    side="s3",
    says="cannot refuse to replace a file",
)
@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_a_store_without_conditional_writes(s3, bucket, endpoint, monkeypatch, caplog, status, code):
    """A store that does not know them is looked at before the end, and then written like any other."""
    with Door(endpoint, lambda r: refusal(status, code) if "if-none-match" in r.headers else None) as door:
        point_at(door.url(""), monkeypatch)
        writer = Destination(f"s3://{bucket}/a.mp4").file().writer(None, replace=False, content_type="video/mp4")
        writer.write(memoryview(LARGE))
        writer.publish()
        assert len(door.turned_away) == 1
        again = Destination(f"s3://{bucket}/a.mp4").file().writer(None, replace=False)
        again.write(memoryview(NEW))
        with pytest.raises(DestinationExistsError):
            again.publish()
        again.discard()
    assert body_of(s3, bucket, "a.mp4") == LARGE
    assert keys(s3, bucket) == (["a.mp4"], 0)
    assert "cannot refuse to replace a file" in caplog.text


@pytest.mark.fault(
    "stores and files",
    "a store, or a policy, that refuses every conditional write",
    outcome="refused",
    side="s3",
    says="refuses conditional writes",
)
def test_a_store_that_answers_412_to_every_conditional_write(s3, bucket, endpoint, monkeypatch):
    """The journal took each for another process that was faster, and read for ever."""
    refuse = Door(endpoint, lambda r: refusal(412, "PreconditionFailed") if "if-none-match" in r.headers else None)
    with refuse as door:
        point_at(door.url(""), monkeypatch)
        with pytest.raises(ViduStorageError, match="refuses conditional writes"):
            Journal(Destination(f"s3://{bucket}/"), "b", sleep=lambda _: None).open()
        with pytest.raises(ViduStorageError, match="refuses conditional writes"):
            create_file(Destination(f"s3://{bucket}/").file("a.json"), b"{}", "application/json")
    assert keys(s3, bucket) == ([], 0)


def operator(**arguments):
    """Return an operator that may fetch from loopback."""
    return ViduDownloadOperator(task_id="download", **arguments)


@pytest.mark.fault(
    "stores and files",
    "storage_conn_id names a connection that does not exist",
    outcome="survived",
    side="s3",
    says="The worker's own credentials",
)
def test_a_connection_that_does_not_exist_is_told(s3, bucket, caplog):
    """Amazon's provider silently takes the environment's credentials; the log says so."""
    writer = Destination(f"s3://{bucket}/a.mp4", "no_such_store").file().writer(None, replace=True)
    writer.write(memoryview(NEW))
    writer.publish()
    assert "There is no Airflow connection 'no_such_store'" in caplog.text
    assert body_of(s3, bucket, "a.mp4") == NEW


def test_a_connection_that_exists_is_no_matter(s3, bucket, conn_id, caplog):
    """Neither one that is there nor none costs a line."""
    assert Destination(f"s3://{bucket}/a.mp4", conn_id).file().size() is None
    assert "no Airflow connection" not in caplog.text


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
    assert s3.head_object(Bucket=bucket, Key=key)["ContentType"] == "video/mp4"


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


def test_a_lost_last_answer_to_a_role_that_may_not_look(s3, bucket, monkeypatch):
    """The upload is complete, its answer is lost and no look is allowed: still an error that names the file."""
    stored = Destination(f"s3://{bucket}/a.mp4").file()
    writer = stored.writer(UPLOAD_BYTES + 1, replace=True)
    writer.write(memoryview(bytes(UPLOAD_BYTES + 1)))

    def refuse(*_args, **_kwargs):
        raise PermissionError("Forbidden")

    def lost():
        raise OSError("the answer was lost")

    def gone():
        raise FileNotFoundError("NoSuchUpload")

    monkeypatch.setattr(writer, "_complete", lost)
    monkeypatch.setattr(writer._file, "discard", gone)
    monkeypatch.setattr(type(writer._fs), "exists", refuse)
    with pytest.raises(ViduStorageError, match=rf"{bucket}/a\.mp4"):
        writer.publish()


def test_a_store_whose_package_fails_to_import_is_named(monkeypatch):
    """``oss://`` without ossfs raises ImportError in Airflow's path: a configuration error, and not a retry."""

    def missing(*_args, **_kwargs):
        raise ImportError("Install ossfs to access OSS")

    monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", missing)
    with pytest.raises(ViduConfigError, match=r"oss://bucket/a\.mp4"):
        Destination("oss://bucket/a.mp4")
