"""A file that another task stores meanwhile, in stores that refuse to replace it with a bare 412."""

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
