"""A file that another task stores meanwhile, and other conflicts that a store or its client words in the same way."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduError, ViduStorageError
from airflow_provider_vidu.stores.base import DestinationExistsError
from airflow_provider_vidu.stores.uploads import UploadWriter


class RefusalError(Exception):
    """What botocore raises: MinIO, Ceph and R2 do not repeat the condition, so s3fs makes a plain OSError of it."""

    def __init__(self, status: int) -> None:
        super().__init__("refused")
        self.response = {"Error": {"Code": "Refused"}, "ResponseMetadata": {"HTTPStatusCode": status}}


class Upload:
    """An open upload whose completion is refused, and which can be aborted."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.is_aborted = False

    def close(self) -> None:
        """Send nothing."""

    def commit(self) -> None:
        """Refuse as s3fs does."""
        raise OSError(errno.EINVAL, "refused") from RefusalError(self.status)

    def discard(self) -> None:
        """Abort."""
        self.is_aborted = True


class Store:
    """A store that shows no file before the upload ends."""

    def __init__(self, status: int) -> None:
        self.upload = Upload(status)

    def open(self, *_: Any, **__: Any) -> Upload:
        """Open an upload."""
        return self.upload

    def exists(self, _: str) -> bool:
        """Show nothing."""
        return False

    def invalidate_cache(self) -> None:
        """Keep nothing."""


@pytest.mark.parametrize(
    ("status", "replace", "error"),
    [(412, False, DestinationExistsError), (403, False, ViduStorageError), (412, True, ViduStorageError)],
)
def test_a_bare_412_says_that_another_file_is_there(status, replace, error):
    """So overwrite='skip' keeps the file that came first, and the upload is aborted."""
    store = Store(status)
    writer = UploadWriter(store, "bucket/a.mp4", "s3://bucket/a.mp4", 4, replace=replace)
    with pytest.raises(ViduError) as caught:
        writer.publish()
    writer.discard()
    assert type(caught.value) is error
    assert store.upload.is_aborted


class AzureError(Exception):
    """What Azure's client raises."""

    def __init__(self, code: str) -> None:
        super().__init__(f"ErrorCode:{code}")
        self.status_code, self.error_code = 409, code


@pytest.mark.parametrize("names_cause", [True, False])
@pytest.mark.parametrize(
    ("code", "replace", "error", "message"),
    [
        ("BlobAlreadyExists", False, DestinationExistsError, "exists already"),
        ("BlobImmutableDueToPolicy", False, ViduStorageError, "ErrorCode:BlobImmutableDueToPolicy. Nothing was"),
        ("BlobImmutableDueToPolicy", True, ViduStorageError, "ErrorCode:BlobImmutableDueToPolicy. Nothing was"),
        (None, False, ViduStorageError, "the store reports a conflict"),
        (None, True, ViduStorageError, "the store reports a conflict"),
    ],
)
def test_a_conflict_need_not_be_a_file(monkeypatch, names_cause, code, replace, error, message):
    """Each 409 is a file that exists to adlfs, and each 412 to gcsfs; with "replace" that cannot be it."""
    store = Store(409)

    def refuse() -> None:
        try:
            if code is not None:
                raise AzureError(code)
        except AzureError as known:
            if names_cause:
                raise FileExistsError("bucket/a.mp4") from known
            raise FileExistsError("bucket/a.mp4")  # noqa: B904 - as older versions of adlfs
        raise FileExistsError("bucket/a.mp4")

    monkeypatch.setattr(store.upload, "commit", refuse)
    writer = UploadWriter(store, "bucket/a.mp4", "abfs://bucket/a.mp4", 4, replace=replace)
    with pytest.raises(ViduError, match=message) as caught:
        writer.publish()
    assert type(caught.value) is error


def test_a_conflict_is_a_file_where_one_is_seen(monkeypatch):
    """Nothing of the answer is kept by gcsfs: the store is looked at, and where that is forbidden its word counts."""
    for seen in (lambda _: True, lambda _: 1 / 0):
        store = Store(412)
        looks = iter([lambda _: False, seen])
        monkeypatch.setattr(store, "exists", lambda path, looks=looks: next(looks)(path))
        monkeypatch.setattr(store.upload, "commit", lambda: (_ for _ in ()).throw(FileExistsError("bucket/a.mp4")))
        writer = UploadWriter(store, "bucket/a.mp4", "gs://bucket/a.mp4", 4, replace=False)
        with pytest.raises(DestinationExistsError):
            writer.publish()
