"""What only Google Cloud Storage does: sessions that outlive lost answers, and buckets that cannot be used."""

from __future__ import annotations

import re

import pytest

from airflow_provider_vidu.exceptions import ViduStorageError
from airflow_provider_vidu.stores.base import DestinationExistsError
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.stores.remote import RemoteFile
from tests.stores.google_storage import Answer
from tests.stores.test_publishing import LARGE, NEW, OLD, file_of, write

# A status that gcsfs does not try again; 503 would be tried for half a minute.
LOST = Answer(520, b"lost")


def completes(asked):
    """Return whether a request completes an upload."""
    return bool(re.search(r"/\d+$", asked.upload_range))


def lost_where(condition, answer=LOST):
    """Return what loses the answers to some requests."""
    return lambda asked: answer if condition(asked) else None


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("body", [NEW, LARGE], ids=["small", "large"])
def test_a_completed_upload_whose_answer_is_lost_counts(gcs, body, replace):
    """The upload itself is asked what became of it; the file is there, whole, so the task does not fail."""
    writer = file_of(gcs).writer(len(body), replace=replace)
    write(writer, body)
    gcs.service.instead, gcs.service.after = lost_where(completes), True
    writer.publish()
    assert gcs.content("a.mp4") == body


def test_an_upload_is_completed_at_the_second_try(gcs):
    """An answer that is lost once is asked for again; the object is made once."""
    lost = []

    def once(asked):
        if completes(asked) and not lost:
            lost.append(asked)
            return Answer(503, b"lost")
        return None

    writer = file_of(gcs).writer(len(NEW), replace=False)
    write(writer, NEW)
    gcs.service.instead, gcs.service.after = once, True
    writer.publish()
    assert lost
    assert gcs.content("a.mp4") == NEW


@pytest.mark.parametrize("body", [NEW, LARGE], ids=["small", "large"])
def test_an_upload_that_was_not_completed_is_cancelled(gcs, body):
    """Where the request has not arrived, the old file stays, nothing hangs, and the error says so."""
    gcs.put("a.mp4", OLD)
    writer = file_of(gcs).writer(len(body), replace=True)
    write(writer, body)
    gcs.service.instead = lost_where(completes)
    with pytest.raises(ViduStorageError, match="Nothing was published"):
        writer.publish()
    writer.discard()
    assert gcs.content("a.mp4") == OLD
    assert gcs.unfinished() == 0


def test_nobody_can_tell_when_the_store_is_silent(gcs):
    """If not even that request is answered, the error says that the outcome cannot be determined."""
    writer = file_of(gcs).writer(len(NEW), replace=True)
    write(writer, NEW)
    gcs.service.instead, gcs.service.after = lost_where(lambda asked: asked.upload_range.startswith("bytes")), True
    with pytest.raises(ViduStorageError, match="either the old file or the whole new one"):
        writer.publish()
    writer.discard()


def test_an_object_that_is_there_already_is_seen_by_the_store(gcs):
    """An upload that must not replace is not even begun where there is an object; the old one stays."""
    gcs.put("a.mp4", OLD)
    writer = file_of(gcs).writer(len(NEW), replace=False)
    write(writer, NEW)
    with pytest.raises(DestinationExistsError):
        writer.publish()
    writer.discard()
    assert gcs.content("a.mp4") == OLD
    assert gcs.unfinished() == 0


@pytest.mark.parametrize("conn_id", [None])
def test_nobody_in_particular_is_refused(gcs, conn_id, monkeypatch):
    """Without any credentials gcsfs is anonymous; the error quotes the store's refusal."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    with pytest.raises(ViduStorageError, match="Anonymous caller"):
        file_of(gcs).size()


@pytest.mark.parametrize("conn_id", ["my_store"])
def test_the_other_scheme(gcs, conn_id):
    """What begins with gcs:// is the same store."""
    stored = Destination(gcs.uri("a.mp4").replace("gs://", "gcs://"), conn_id).file()
    writer = stored.writer(len(NEW), replace=True)
    write(writer, NEW)
    assert gcs.keys() == []
    writer.publish()
    assert gcs.content("a.mp4") == NEW


@pytest.mark.parametrize("conn_id", [None])
def test_a_zonal_bucket_is_refused(gcs, conn_id):
    """Objects of a zonal bucket grow under their final names: nothing is written to one.

    Such a bucket speaks gRPC, which the emulator does not; so the test sets the kind of the bucket in gcsfs.
    """
    extended = pytest.importorskip("gcsfs.extended_gcsfs", reason="this gcsfs knows no zonal buckets")
    fs = extended.ExtendedGcsFileSystem(token="anon")
    fs._storage_layout_cache[gcs.bucket] = extended.BucketType.ZONAL_HIERARCHICAL
    for replace in (True, False):
        stored = RemoteFile(fs, "gs", f"{gcs.bucket}/a.mp4", gcs.uri("a.mp4"))
        with pytest.raises(ViduStorageError, match=r"zonal bucket.*Nothing was published"):
            stored.writer(None, replace=replace)
    assert gcs.keys() == []


def test_replace_only_writes(gcs):
    """Who may neither read nor list replaces an object; looking at it names what is missing."""
    gcs.put("a.mp4", OLD)
    stored = file_of(gcs)
    gcs.service.instead = lost_where(lambda asked: asked.method == "GET", Answer(403, b"forbidden"))
    stored.check()
    writer = stored.writer(len(NEW), replace=True, content_type="video/mp4")
    write(writer, NEW)
    writer.publish()
    assert gcs.content("a.mp4") == NEW
    with pytest.raises(ViduStorageError, match=r"need the permissions storage\.objects\.get"):
        stored.size()
