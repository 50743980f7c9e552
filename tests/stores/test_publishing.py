"""Publishing on Google Cloud Storage and Azure, against emulators on sockets: whole files, or none."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import subprocess
import sys

import pytest

from airflow_provider_vidu.exceptions import ViduDownloadError, ViduStorageError
from airflow_provider_vidu.operators.download import ViduDownloadOperator
from airflow_provider_vidu.stores.base import MIB, DestinationExistsError
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.stores.targets import FolderTarget
from airflow_provider_vidu.stores.uploads import MAX_PART_BYTES, MOST_PARTS, UPLOAD_BYTES, UploadWriter
from tests.integration.servers import Server, ranged, video, whole
from tests.stores.conftest import forget_stores, point_at

OLD = b"the old file"
NEW = bytes(range(256)) * 1000
LARGE = NEW * 40  # 10 MB: two blocks
WRITE = 256 * 1024

sizes = pytest.mark.parametrize("body", [NEW, LARGE, bytes(UPLOAD_BYTES)], ids=["small", "large", "one-block"])


def file_of(store, key="a.mp4"):
    """Return the place of a key."""
    return Destination(store.uri(key), store.conn_id).file()


def write(writer, body):
    """Write in pieces of the size that the transfer has."""
    for at in range(0, len(body), WRITE):
        writer.write(memoryview(body)[at : at + WRITE])


@sizes
def test_an_upload_is_published(store, body):
    """Small and large files arrive whole; the URI holds bucket and key, and no connection."""
    stored = file_of(store, "deep/a b.mp4")
    writer = stored.writer(len(body), replace=True)
    assert isinstance(writer, UploadWriter)
    for at in range(0, len(body), WRITE):
        writer.write(memoryview(body)[at : at + WRITE])
        assert store.keys() == []
    writer.publish()
    assert store.content("deep/a b.mp4") == body
    assert stored.uri == store.uri("deep/a b.mp4")
    assert stored.size() == len(body)
    assert b"".join(stored.read()) == body
    assert store.keys() == ["deep/a b.mp4"]
    assert store.unfinished() == 0


@pytest.mark.parametrize("body", [NEW, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("replace", [True, False])
def test_an_object_carries_its_type(store, body, replace):
    """Browsers play it in place instead of saving it, whatever its name."""
    writer = file_of(store, "a").writer(len(body), replace=replace, content_type="image/webp")
    write(writer, body)
    writer.publish()
    assert store.content("a") == body
    assert store.told("a") == ("image/webp", "inline")


def test_one_listing_finds_what_is_there(store):
    """Of all names that a file may have, those in the folder are found with one question."""
    for key in ("clips/a.webm", "clips/a.txt", "clips/a-2.mp4", "clips/ab.mp4"):
        store.put(key, OLD)
    found = FolderTarget(Destination(store.uri("clips/"), store.conn_id), "skip", "a", None).existing(len(OLD))
    assert found is not None
    assert found.uri == store.uri("clips/a.webm")
    assert FolderTarget(Destination(store.uri("other/"), store.conn_id), "skip", "a", None).existing(9) is None


def test_odd_pieces_arrive_whole(store):
    """Pieces that do not add up to blocks are cut into blocks without a loss."""
    writer = file_of(store).writer(None, replace=True)
    for at in range(0, len(LARGE), 1_000_003):
        writer.write(memoryview(LARGE)[at : at + 1_000_003])
    writer.publish()
    assert store.content("a.mp4") == LARGE


@sizes
@pytest.mark.parametrize("replace", [True, False])
def test_a_new_file_needs_no_old_one(store, body, replace):
    """Whether it may replace or not, a new file is published."""
    writer = file_of(store).writer(len(body), replace=replace)
    write(writer, body)
    writer.publish()
    writer.discard()
    assert store.content("a.mp4") == body
    assert store.unfinished() == 0


def test_the_old_file_is_replaced_at_the_end(store):
    """Until the new file is published, everybody reads the old one."""
    store.put("a.mp4", OLD)
    writer = file_of(store).writer(len(LARGE), replace=True)
    write(writer, LARGE)
    assert store.content("a.mp4") == OLD
    writer.publish()
    assert store.content("a.mp4") == LARGE
    assert store.keys() == ["a.mp4"]


@sizes
@pytest.mark.parametrize("replace", [True, False])
def test_a_discarded_upload_publishes_nothing(store, body, replace):
    """The old object stands, no upload hangs, and collecting the file publishes nothing."""
    key = "a.mp4" if replace else "new.mp4"
    store.put("a.mp4", OLD)
    writer = file_of(store, key).writer(None, replace=replace)
    write(writer, body)
    writer.discard()
    writer._fs.transaction.files.clear()  # fsspec keeps its open files, too
    del writer
    gc.collect()
    assert (store.keys(), store.unfinished()) == (["a.mp4"], 0)
    assert store.content("a.mp4") == OLD


@sizes
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # older gcsfs wants to go on sending
def test_a_forgotten_upload_publishes_nothing(store, body):
    """A writer that is neither published nor discarded leaves the old object when it is collected."""
    store.put("a.mp4", OLD)
    writer = file_of(store).writer(None, replace=True)
    write(writer, body)
    del writer
    forget_stores()
    gc.collect()
    assert store.content("a.mp4") == OLD


@sizes
def test_a_process_that_ends_publishes_nothing(store, body, airflow_home):
    """A process that leaves in the middle of an upload leaves the old object."""
    store.put("a.mp4", OLD)
    code = (
        "import sys\n"
        "from airflow_provider_vidu.stores.destination import Destination\n"
        f"writer = Destination({store.uri('a.mp4')!r}, {store.conn_id!r}).file().writer(None, replace=True)\n"
        f"body = memoryview(bytes({len(body)}))\n"
        f"for at in range(0, len(body), {WRITE}):\n"
        f"    writer.write(body[at:at + {WRITE}])\n"
        "print('written', flush=True)\n"
        "sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **store.settings}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert "written" in done.stdout, done.stderr[-3000:]
    assert done.returncode == 3
    assert store.content("a.mp4") == OLD
    assert store.keys() == ["a.mp4"]


def test_an_object_that_must_not_be_replaced_stays(store):
    """An object that came while ours was being uploaded wins."""
    writer = file_of(store).writer(None, replace=False)
    write(writer, LARGE)
    store.put("a.mp4", OLD)
    with pytest.raises(DestinationExistsError):
        writer.publish()
    writer.discard()
    assert (store.keys(), store.unfinished()) == (["a.mp4"], 0)
    assert store.content("a.mp4") == OLD


@sizes
def test_the_store_itself_refuses_to_replace(store, body, monkeypatch):
    """An object that comes between the last look and the end wins as well: the store compares, not we."""
    stored = file_of(store)
    writer = stored.writer(None, replace=False)
    write(writer, body)
    store.put("a.mp4", OLD)
    # What the look before the end would say a moment earlier.
    monkeypatch.setattr(type(writer._fs), "exists", lambda *_args, **_kwargs: False)
    with pytest.raises(DestinationExistsError):
        writer.publish()
    writer.discard()
    assert (store.keys(), store.unfinished()) == (["a.mp4"], 0)
    assert store.content("a.mp4") == OLD


def test_of_two_uploads_one_wins_whole(store):
    """Two uploads to one name leave one of the files, whole; the other one succeeds as well or says so."""
    first, second = file_of(store).writer(None, replace=True), file_of(store).writer(None, replace=True)
    other = LARGE[::-1]
    for at in range(0, len(LARGE), WRITE):
        first.write(memoryview(LARGE)[at : at + WRITE])
        second.write(memoryview(other)[at : at + WRITE])
    first.publish()
    assert store.content("a.mp4") == LARGE
    try:
        second.publish()
    except ViduStorageError:
        second.discard()
        assert store.content("a.mp4") == LARGE
    else:
        assert store.content("a.mp4") == other


def test_no_file_in_a_missing_bucket(store):
    """Looking for an existing file where there is no bucket finds none; writing there is an error."""
    stored = Destination(f"{store.scheme}://no-such-bucket-here/a.mp4", store.conn_id).file()
    assert stored.size() is None

    def publish():
        writer = stored.writer(None, replace=True)
        try:
            writer.write(memoryview(NEW))
            writer.publish()
        finally:
            writer.discard()

    with pytest.raises(ViduStorageError, match=r"no-such-bucket-here/a\.mp4.* could not be") as caught:
        publish()
    assert "Nothing was published" in str(caught.value)


def test_a_rehearsal_leaves_the_object_alone(store):
    """Before an order: the store takes the upload, of which nothing is seen, also if it is repeated."""
    store.put("a.mp4", OLD)
    for _ in range(2):
        Destination(store.uri("a.mp4"), store.conn_id).rehearse()
        Destination(store.uri("clips/"), store.conn_id).rehearse()
    assert (store.keys(), store.content("a.mp4")) == (["a.mp4"], OLD)
    writer = file_of(store).writer(len(NEW), replace=True)
    write(writer, NEW)
    file_of(store).rehearse()  # of another task, beside an upload to the same name
    writer.publish()
    assert store.content("a.mp4") == NEW


def test_a_rehearsal_shows_what_a_store_refuses(store, monkeypatch):
    """Nothing is paid for a file that the store would not take."""
    missing = store.uri("a.mp4").replace(store.bucket, f"{store.bucket}-gone")
    with pytest.raises(ViduStorageError, match="could not be written"):
        Destination(missing, store.conn_id).rehearse()
    point_at(store.stranger, monkeypatch)
    with pytest.raises(ViduStorageError, match=store.refusal):
        file_of(store).rehearse()
    assert store.keys() == []


def test_wrong_credentials_are_told(store, monkeypatch):
    """A store that does not know us ends in an error of ours, which says why."""
    point_at(store.stranger, monkeypatch)
    with pytest.raises(ViduStorageError, match=store.refusal):
        file_of(store).size()

    def publish():
        writer = file_of(store).writer(None, replace=True)
        try:
            writer.write(memoryview(NEW))
            writer.publish()
        finally:
            writer.discard()

    with pytest.raises(ViduStorageError, match=store.refusal):
        publish()
    assert store.keys() == []


def test_a_key_that_is_also_a_prefix_is_a_file_to_be(store):
    """Object stores have no folders: other keys below it do not matter."""
    store.put("a/b.mp4", OLD)
    stored = file_of(store, "a")
    assert stored.size() is None
    writer = stored.writer(None, replace=True)
    writer.write(memoryview(NEW))
    writer.publish()
    assert store.content("a") == NEW
    assert store.content("a/b.mp4") == OLD
    assert stored.size() == len(NEW)


def test_an_empty_object_counts_as_nothing(store):
    """An object of no bytes has the size 0, and is replaced by a file."""
    store.put("a.mp4", b"")
    stored = file_of(store)
    assert stored.size() == 0
    writer = stored.writer(None, replace=True)
    writer.write(memoryview(NEW))
    writer.publish()
    assert stored.size() == len(NEW)


@pytest.mark.parametrize("total", [None, 10**9, 10**11, MAX_PART_BYTES * MOST_PARTS])
def test_parts_grow_with_the_file(store, total):
    """Blocks have a size that the store accepts, whatever the file's size."""
    writer = file_of(store).writer(total, replace=True)
    assert writer._file.blocksize % MIB == 0
    assert (total or 0) / writer._file.blocksize < 10_000
    writer.discard()


@pytest.fixture
def loopback(monkeypatch):
    """Make a Vidu connection that allows loopback and does not wait long."""
    extra = {"allowed_hosts": "127.0.0.1", "max_retries": 1, "timeout": 2}
    conn = {"conn_type": "vidu", "host": "http://127.0.0.2:9", "password": "sk-x", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(conn))


def operator(**arguments):
    """Return an operator that may fetch from loopback."""
    return ViduDownloadOperator(task_id="download", **arguments)


def test_the_operator_stores_the_file(store, loopback, quick_backoff):
    """From the URL into the bucket, resumed on the way, with the digest of what lies there."""
    body = video(10_000_000)
    with Server(whole(body, cut=9_000_000), ranged(body)) as server:
        record = operator(
            video_url=server.url("/clip.mp4?sig=hush"), destination=store.uri("clips/"), storage_conn_id=store.conn_id
        ).execute({})
    key = record["uri"].removeprefix(store.uri(""))
    assert hashlib.sha256(store.content(key)).hexdigest() == record["sha256"]
    assert record["size"] == len(body)
    assert (store.keys(), store.unfinished()) == ([key], 0)
    assert store.told(key) == ("video/mp4", "inline")


def test_a_broken_download_publishes_nothing(store, loopback, quick_backoff):
    """A download that never ends whole leaves the old object and no upload."""
    store.put("a.mp4", OLD)
    body = video(10_000_000)
    with Server(whole(body, cut=9_000_000)) as server, pytest.raises(ViduDownloadError):
        operator(
            video_url=server.url("/clip.mp4"), destination=store.uri("a.mp4"), storage_conn_id=store.conn_id
        ).execute({})
    forget_stores()
    gc.collect()
    assert store.content("a.mp4") == OLD
    assert (store.keys(), store.unfinished()) == (["a.mp4"], 0)


def test_skip_and_error(store, loopback):
    """An object that is there is described, or is an error; nothing is fetched."""
    store.put("a.mp4", video(5000))
    arguments = {
        "video_url": "http://127.0.0.1:9/a.mp4?sig=hush",
        "destination": store.uri("a.mp4"),
        "storage_conn_id": store.conn_id,
    }
    record = operator(overwrite="skip", **arguments).execute({})
    assert record["sha256"] == hashlib.sha256(video(5000)).hexdigest()
    assert (record["size"], record["content_type"]) == (5000, "video/mp4")
    with pytest.raises(ViduDownloadError, match="exists already"):
        operator(overwrite="error", **arguments).execute({})
