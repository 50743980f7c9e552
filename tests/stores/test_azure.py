"""What only Azure Blob Storage does: no way to abort an upload, and names of its own."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.batches.journal import Journal
from airflow_provider_vidu.exceptions import ViduConfigError, ViduStorageError
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.stores.uploads import AzureUpload
from tests.faults.transfer_s3 import Door
from tests.stores.conftest import AzureContainer, point_at
from tests.stores.test_publishing import LARGE, NEW, OLD, file_of, write

# A status that Azure's client does not try again; 503 would be tried for a minute.
LOST = b"HTTP/1.1 501 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
FORBIDDEN = b"HTTP/1.1 403 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def behind(door, azurite, azure, monkeypatch):
    """Let the store be reached through a door."""
    text = azurite.connection_string.replace(azurite.url, door.url("/devstoreaccount1"))
    point_at(AzureContainer._found(text, azure.conn_id), monkeypatch)


def commits(request):
    """Return whether a request completes an upload."""
    return "comp=blocklist" in request.target and request.method == "PUT"


@pytest.mark.parametrize("replace", [True, False])
def test_a_completed_upload_whose_answer_is_lost_counts(azurite, azure, replace, monkeypatch):
    """The blocks of the blob are those of this upload, so the task does not fail."""
    with Door(azurite.url, lambda request: LOST if commits(request) else None, after=True) as door:
        behind(door, azurite, azure, monkeypatch)
        writer = file_of(azure).writer(len(LARGE), replace=replace)
        write(writer, LARGE)
        writer.publish()
        assert door.turned_away
    assert azure.content("a.mp4") == LARGE


def test_a_completed_upload_that_is_completed_again_counts(azurite, azure, monkeypatch):
    """Azure's client repeats a request whose answer was lost; Azure refuses to replace what that has made."""

    def busy_once(request):
        return None if door.turned_away or not commits(request) else refusal(500, "OperationTimedOut")

    with Door(azurite.url, busy_once, after=True) as door:
        behind(door, azurite, azure, monkeypatch)
        writer = file_of(azure).writer(len(NEW), replace=False)
        write(writer, NEW)
        writer.publish()
        assert door.turned_away
    assert azure.content("a.mp4") == NEW


def test_a_role_for_one_extension_may_rehearse(azurite, azure, monkeypatch):
    """A condition of a role assignment may name paths such as ``*.mp4``: the block of a rehearsal has one of them."""

    def other(request):
        return FORBIDDEN if "comp=block" in request.target and ".mp4?" not in request.target else None

    with Door(azurite.url, other) as door:
        behind(door, azurite, azure, monkeypatch)
        file_of(azure).rehearse()
        assert not door.turned_away
    assert azure.keys() == []


@pytest.mark.parametrize("can_read", [True, False])
def test_nobody_can_tell_when_an_answer_is_lost(azurite, azure, can_read, monkeypatch):
    """Without an answer, or the permission to read the blob, the error promises no more than that it is whole."""
    azure.put("a.mp4", OLD)

    def lost(request):
        if commits(request):
            return LOST
        return FORBIDDEN if "comp=blocklist" in request.target and not can_read else None

    with Door(azurite.url, lost, after=not can_read) as door:
        behind(door, azurite, azure, monkeypatch)
        writer = file_of(azure).writer(len(LARGE), replace=True)
        write(writer, LARGE)
        with pytest.raises(ViduStorageError, match="either the old file or the whole new one"):
            writer.publish()
        writer.discard()
        assert door.turned_away
    assert azure.content("a.mp4") == (OLD if can_read else LARGE)


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("code", ["BlobImmutableDueToPolicy", "ContainerBeingDeleted"])
def test_not_every_conflict_is_a_file(azurite, azure, code, replace, monkeypatch):
    """The error says what Azure has said, and a retry may help: adlfs reports that a file exists."""
    with Door(azurite.url, lambda request: refusal(409, code) if commits(request) else None) as door:
        behind(door, azurite, azure, monkeypatch)
        writer = file_of(azure).writer(len(NEW), replace=replace)
        write(writer, NEW)
        with pytest.raises(ViduStorageError, match=f"{code}.*Nothing was published"):
            writer.publish()
        writer.discard()
    assert azure.keys() == []


def test_a_batch_ends_at_a_conflict(azurite, azure, monkeypatch):
    """A name that is refused and not taken is not taken for another process's, again and again."""
    with Door(azurite.url, lambda request: refusal(409, "ContainerBeingDeleted") if commits(request) else None) as door:
        behind(door, azurite, azure, monkeypatch)
        journal = Journal(Destination(azure.uri("out/"), azure.conn_id), "spring", sleep=lambda _: None)
        with pytest.raises(ViduStorageError, match="ContainerBeingDeleted"):
            journal.open()


def refusal(status, code):
    """Return an error as Azure words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    head = f"HTTP/1.1 {status} x\r\nx-ms-error-code: {code}\r\nContent-Type: application/xml\r\nContent-Length: "
    return f"{head}{len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def test_a_file_that_came_meanwhile_is_replaced_or_stays(azure):
    """A file put there meanwhile is replaced, or stays where the store drops our blocks with it: one of both, whole.

    Azure's manual says that it drops them; Azurite 3.37 keeps them.
    """
    for body in (NEW, LARGE):
        writer = file_of(azure).writer(len(body), replace=True)
        write(writer, body)
        azure.put("a.mp4", OLD)
        try:
            writer.publish()
        except ViduStorageError:
            assert azure.content("a.mp4") == OLD
        else:
            assert azure.content("a.mp4") == body
        writer.discard()


@pytest.mark.parametrize("conn_id", ["my_store"])
def test_the_other_scheme(azure, conn_id):
    """What begins with abfss:// is the same store."""
    stored = Destination(azure.uri("clips/a.mp4").replace("abfs", "abfss"), conn_id).file()
    writer = stored.writer(len(NEW), replace=True)
    assert isinstance(writer, AzureUpload)
    write(writer, NEW)
    assert azure.keys() == []
    writer.publish()
    assert azure.content("clips/a.mp4") == NEW
    assert stored.size() == len(NEW)
    assert b"".join(stored.read()) == NEW


@pytest.mark.parametrize("conn_id", [None])
def test_a_scheme_that_only_fsspec_knows(azure, conn_id):
    """Airflow does not know az://; with the environment's credentials it works all the same."""
    stored = Destination(azure.uri("a.mp4").replace("abfs", "az")).file()
    writer = stored.writer(len(NEW), replace=True)
    write(writer, NEW)
    writer.publish()
    assert azure.content("a.mp4") == NEW


@pytest.mark.parametrize("scheme", ["wasb", "wasbs"])
@pytest.mark.parametrize("conn_id", [None])
def test_a_scheme_of_hadoop_is_refused(azure, conn_id, scheme):
    """No file system in Python knows wasb://; the error does not advise to install what would not help."""
    with pytest.raises(ViduConfigError, match="There is no file system") as caught:
        Destination(azure.uri("a.mp4").replace("abfs", scheme)).file()
    assert "pip install" not in str(caught.value)


def test_replace_only_writes(azurite, azure, monkeypatch):
    """Who may neither read nor list replaces an object; looking at it names what is missing."""
    azure.put("a.mp4", OLD)
    with Door(azurite.url, lambda r: FORBIDDEN if r.method in ("GET", "HEAD") else None) as door:
        behind(door, azurite, azure, monkeypatch)
        stored = file_of(azure)
        stored.check()
        writer = stored.writer(len(NEW), replace=True, content_type="video/mp4")
        write(writer, NEW)
        writer.publish()
        with pytest.raises(ViduStorageError, match="to read and list blobs"):
            stored.size()
    assert azure.content("a.mp4") == NEW
    assert azure.told("a.mp4") == ("video/mp4", "inline")


def test_an_older_adlfs_gives_the_type_afterwards(azure):
    """Before 2026.8 adlfs could not give a blob its type; then a second request gives it."""
    azure.put("a", NEW)
    writer = file_of(azure, "a").writer(len(NEW), replace=True)
    settings = {"content_type": "image/webp", "content_disposition": "inline"}
    writer._label(settings)
    writer.discard()
    assert azure.content("a") == NEW
    assert azure.told("a") == ("image/webp", "inline")
