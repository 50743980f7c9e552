"""Multi-part uploads: one class per object store. Nothing is visible before an upload is completed."""

from __future__ import annotations

import contextlib
import logging
from abc import abstractmethod
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.stores.base import MIB, AtomicWriter, file_exists_error, storage_error
from airflow_provider_vidu.stores.schemes import (
    AZURE,
    GOOGLE,
    S3,
    Store,
    is_not_implemented,
    is_precondition_failed,
    is_refusal,
)

log = logging.getLogger(__name__)

UPLOAD_BYTES: Final = 5 * MIB
"""Size of an upload's parts, and with it the memory an upload takes (about three times this)."""
MAX_PART_BYTES: Final = 64 * MIB
"""The size up to which parts grow for a large file: a server's announcement must not decide about a worker's memory."""
MOST_PARTS: Final = 9_500  # S3 accepts 10,000


class FsspecWriter(AtomicWriter):
    """What both ways over fsspec share: an open file, and errors that name the destination."""

    def __init__(self, fs: Any, path: str, uri: str, *, replace: bool) -> None:
        self._fs = fs
        self._path = path
        self.uri = uri
        self._replace = replace
        self._file: Any = None
        self._done = False

    def write(self, data: memoryview) -> None:
        """Append to the upload."""
        try:
            self._file.write(data)
        except Exception as error:  # each store has exceptions of its own
            raise storage_error("written", self.uri, error) from error

    def publish(self) -> None:
        """Complete the file."""
        try:
            if not self._replace:
                self._fs.invalidate_cache()
                if self._fs.exists(self._path):
                    raise file_exists_error(self.uri)
            self._complete()
        except FileExistsError:
            raise file_exists_error(self.uri) from None
        except ViduDownloadRefusedError:
            raise
        except Exception as error:  # each store has exceptions of its own
            published = self._is_published(error)
            if not published:
                if not self._replace and is_precondition_failed(error):
                    raise file_exists_error(self.uri) from None
                raise storage_error("completed", self.uri, error, certain=published is not None) from error
            log.warning("The store lost its last answer (%s), but %s is there, whole.", redacted(error), self.uri)
        self._done = True

    def discard(self) -> None:
        """Abort, and leave nothing behind where that is possible."""
        if self._done:
            return
        self._done = True
        try:
            self._abandon()
        except Exception as error:  # noqa: BLE001 - best effort; why it is discarded matters more
            log.warning("Left-overs of %s could not be removed: %s", self.uri, redacted(error))

    def _is_published(self, error: Exception) -> bool | None:
        """Return whether the file was completed although the store reported ``error``; None for unknown."""
        return False

    @abstractmethod
    def _complete(self) -> None: ...

    @abstractmethod
    def _abandon(self) -> None: ...


class UploadWriter(FsspecWriter):
    """A multi-part upload: invisible until it is completed.

    ``autocommit=False`` keeps a file that is closed or collected by accident from being published.

    :param content_type: what the stored object says of itself; None to say nothing.
    :raises OSError: when the bytes would be visible as they are written.
    :raises ViduDownloadRefusedError: when the announced size needs more or larger parts than there may be.
    """

    def __init__(
        self, fs: Any, path: str, uri: str, total: int | None, *, replace: bool, content_type: str | None = None
    ) -> None:
        super().__init__(fs, path, uri, replace=replace)
        self._part = self._room = _part_size(total or 0)
        self._left = self._part * MOST_PARTS
        self._labels = self.labels(fs, content_type) if content_type else {}
        self._file = self._opened("wb" if replace else "xb")

    def __del__(self) -> None:
        # A writer that is forgotten publishes nothing. The collector would close the file: that publishes on Azure, and
        # at the end of a process it waits for a loop that runs no more (seen: minutes).
        _leave(self._file)

    @staticmethod
    def labels(fs: Any, content_type: str) -> dict[str, Any]:
        """Return the arguments of ``fs.open`` that give an object its content type, and let browsers show it in place.

        :param fs: the file system; what it sets for all of its objects is kept.
        :param content_type: as proven by the file's first bytes.
        """
        return {}

    def _opened(self, mode: str) -> Any:
        try:
            return self._fs.open(self._path, mode, block_size=self._part, autocommit=False, **self._labels)
        except (NotImplementedError, ValueError):
            # With "xb" the store itself refuses to replace a file that came in the meantime. File systems from before
            # 2024.9 do not support it; there the check right before the end has to do.
            if mode == "wb":
                raise
            return self._opened("wb")

    def write(self, data: memoryview) -> None:
        """Append to the upload, so that its parts are of one size.

        Older gcsfs (seen: 2025.5) sends all that it holds when that is a part or more, and Google takes only
        multiples of 256 KiB.
        """
        self._left -= len(data)
        if self._left < 0:
            raise _too_large(f"more than {self._part * MOST_PARTS:,} bytes without announcing how many")
        while len(data):
            piece, data = data[: self._room], data[self._room :]
            super().write(piece)
            self._room = self._room - len(piece) or self._part

    def _complete(self) -> None:
        self._file.close()
        self._file.commit()

    def _is_published(self, error: Exception) -> bool | None:
        # Only this process knows the upload. If it can be aborted, it was not completed. If the store no longer knows
        # it, the request has arrived and its answer was lost.
        try:
            if self._is_complete():
                return True
            self._file.discard()
        except FileNotFoundError:
            return self._is_there_whole()
        except Exception:  # noqa: BLE001 - the store cannot be reached; why it failed first matters more
            return None
        return False

    def _is_complete(self) -> bool:
        """Whether the store reports that the upload is complete; False where it has no such report."""
        return False

    def _is_there_whole(self) -> bool | None:
        """Return whether the object has the size of what was written; None for a role that may not look."""
        try:
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path) and self._fs.info(self._path).get("size") == self._file.tell())
        except Exception:  # noqa: BLE001 - as above
            return None

    def _abandon(self) -> None:
        try:
            self._file.discard()
        finally:
            _leave(self._file)  # it may outlive this writer


class S3Upload(UploadWriter):
    """An upload to S3, or to a store that speaks its protocol."""

    @staticmethod
    def labels(fs: Any, content_type: str) -> dict[str, Any]:
        """Return content type and disposition, except for those that the file system sets for all of its objects."""
        own = {"ContentType": content_type, "ContentDisposition": "inline"}
        fixed = getattr(fs, "s3_additional_kwargs", None) or {}
        return {name: value for name, value in own.items() if name not in fixed}

    def _complete(self) -> None:
        self._file.close()
        try:
            self._file.commit()
        except Exception as error:
            # Some stores that speak S3 support no conditional writes. The file was looked for right before.
            if self._replace or not is_not_implemented(error):
                raise
            log.warning(
                "The store cannot refuse to replace a file by itself (%s): one that another task completes at %s in "
                "this very moment is replaced.",
                redacted(error, 80),
                self.uri,
            )
            self._file.mode = "wb"
            self._file.commit()


class GoogleUpload(UploadWriter):
    """A resumable upload to Google Cloud Storage."""

    @staticmethod
    def labels(fs: Any, content_type: str) -> dict[str, Any]:
        """Return content type and disposition."""
        return {"content_type": content_type, "fixed_key_metadata": {"content_disposition": "inline"}}

    def _opened(self, mode: str) -> Any:
        file = super()._opened(mode)
        if hasattr(file, "aaow"):
            # Newer gcsfs (seen: 2026.10) appends to objects of Google's zonal buckets, under their final names, and
            # cannot take it back: its discard() only logs that.
            _leave(file)
            raise OSError("files in a zonal bucket are visible while they are written; use another bucket")
        return file

    def _complete(self) -> None:
        # Older gcsfs sends the rest as a part like any other, which Google refuses, unless it is marked before as
        # the end of the upload.
        self._file.autocommit = True
        self._file.close()

    def _is_complete(self) -> bool:
        # Cancelling an upload shows nothing: Google answers alike (499) when it is complete.
        if not self._file.location:
            return False
        _, content = self._file.gcsfs.call(
            "PUT", self._file.location, headers={"Content-Range": "bytes */*", "Content-Length": "0"}
        )
        return bool(content)  # a complete upload is answered with its object, an open one (308) with nothing


class AzureUpload(UploadWriter):
    """A block blob of Azure. adlfs has no ``commit`` and no ``discard``: it publishes only when the file is closed."""

    @staticmethod
    def labels(fs: Any, content_type: str) -> dict[str, Any]:
        """Return content type and disposition."""
        return {"content_settings": {"content_type": content_type, "content_disposition": "inline"}}

    def _complete(self) -> None:
        self._file.close()
        if self._labels and not hasattr(self._file, "_content_settings"):
            self._label(self._labels["content_settings"])

    def _label(self, settings: dict[str, str]) -> None:
        """Give the blob its content type; adlfs before 2026.8 cannot do so while it commits the blob."""
        from azure.storage.blob import ContentSettings
        from fsspec.asyn import sync

        file = self._file

        async def label() -> None:
            async with file.container_client.get_blob_client(blob=file.blob) as client:
                await client.set_http_headers(content_settings=ContentSettings(**settings))

        try:
            sync(file.loop, label)
        except Exception as error:  # noqa: BLE001 - the file is published, whole
            kind = settings["content_type"]
            log.warning("%s is stored, but without its content type %s: %s", self.uri, kind, redacted(error))

    def _is_published(self, error: Exception) -> bool | None:
        return False if is_refusal(error) else None

    def _abandon(self) -> None:
        _leave(self._file)


UPLOADS: Final[dict[Store, type[UploadWriter]]] = {S3: S3Upload, GOOGLE: GoogleUpload, AZURE: AzureUpload}


def _part_size(total: int) -> int:
    """Return the size of an upload's parts, in whole MiB.

    :raises ViduDownloadRefusedError: when ``total`` bytes do not fit into the number of parts.
    """
    if total > MAX_PART_BYTES * MOST_PARTS:
        raise _too_large(f"{total:,} bytes")
    size = max(UPLOAD_BYTES, -(-total // MOST_PARTS))
    return -(-size // MIB) * MIB


def _too_large(what: str) -> ViduDownloadRefusedError:
    return ViduDownloadRefusedError(
        f"Not stored: the server sends {what}; an upload to an object store takes at most "
        f"{MAX_PART_BYTES * MOST_PARTS:,} bytes here."
    )


def _leave(file: Any) -> None:
    """Let a file be as it is: its finalizer closes what is not closed yet, and with it sends and publishes."""
    with contextlib.suppress(AttributeError):  # not one of fsspec's own kind
        file.closed = True
