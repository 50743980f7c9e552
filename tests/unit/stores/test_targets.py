"""What happens to a file that is there, decided once for a file and for a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError, ViduDownloadRefusedError
from airflow_provider_vidu.stores.base import DestinationExistsError, StoredRecord
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.stores.targets import FileTarget, FolderTarget

OLD = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + b"old" * 100
SOURCE = "https://cdn.example.com/a.mp4"


@pytest.fixture(params=["file", "folder"])
def make(request, tmp_path):
    """Return a function that makes a target of each kind for ``a.mp4``."""

    def target(overwrite) -> FileTarget:
        if request.param == "file":
            return FileTarget(Destination(f"{tmp_path}/a.mp4"), overwrite)
        return FolderTarget(Destination(f"{tmp_path}/"), overwrite, "a", None)

    return target


def write(target: FileTarget, data: bytes) -> str:
    """Store a file, and return its URI."""
    target.check()
    writer = target.writer("video/mp4", len(data))
    writer.write(memoryview(data))
    writer.publish()
    return writer.uri


def test_a_file_that_is_kept_has_a_record(make, tmp_path: Path):
    """Its size, its digest and its type are those of the file, and it says that nothing was fetched."""
    (tmp_path / "a.mp4").write_bytes(OLD)
    digest = hashlib.sha256(OLD).hexdigest()
    expected = StoredRecord(f"file://{tmp_path}/a.mp4", len(OLD), digest, "video/mp4", SOURCE, existed=True)
    assert make("skip").existing(len(OLD), SOURCE) == expected


@pytest.mark.parametrize(("overwrite", "there"), [("replace", OLD), ("skip", b""), ("error", b""), ("skip", None)])
def test_what_leaves_the_name_free(make, tmp_path: Path, overwrite, there):
    """A file that may be replaced, an empty one and none at all: then the new one is stored."""
    if there is not None:
        (tmp_path / "a.mp4").write_bytes(there)
    target = make(overwrite)
    assert target.existing(1) is None
    assert write(target, b"new") == f"file://{tmp_path}/a.mp4"
    assert (tmp_path / "a.mp4").read_bytes() == b"new"


def test_a_file_may_be_an_error(make, tmp_path: Path):
    """It is neither read nor replaced."""
    (tmp_path / "a.mp4").write_bytes(OLD)
    with pytest.raises(DestinationExistsError, match="exists already"):
        make("error").existing(1)


@pytest.mark.parametrize("overwrite", ["skip", "error"])
def test_a_file_of_a_faster_task_stays(make, tmp_path: Path, overwrite):
    """It appears while the new one is being written: publishing fails, and nothing is left over."""
    writer = make(overwrite).writer("video/mp4", None)
    (tmp_path / "a.mp4").write_bytes(OLD)
    writer.write(memoryview(b"new"))
    with pytest.raises(DestinationExistsError):
        writer.publish()
    writer.discard()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [OLD]


def test_a_large_file_is_not_read_for_its_digest(make, tmp_path: Path):
    """The limit of a download holds for the file that is there, too."""
    (tmp_path / "a.mp4").write_bytes(OLD)
    with pytest.raises(ViduDownloadRefusedError, match="max_bytes"):
        make("skip").existing(len(OLD) - 1)


def test_the_type_names_a_file_in_a_folder(tmp_path: Path):
    """A folder's file is named by stem, artifact, creation and type."""
    writer = FolderTarget(Destination(f"{tmp_path}/"), "replace", "a", "cover", 1).writer("image/webp", None)
    writer.discard()
    assert writer.uri == f"file://{tmp_path}/a-cover-2.webp"


@pytest.mark.parametrize("end", ["", "/"])
def test_a_local_destination_has_no_connection(tmp_path: Path, end):
    """A connection that would be ignored is an error before anything is fetched."""
    destination = Destination(f"{tmp_path}/a{end}", "my_aws")
    target = FolderTarget(destination, "replace", "a", None) if end else FileTarget(destination, "replace")
    with pytest.raises(ViduConfigError, match="does not apply to a local destination"):
        target.check()
