"""Multi-part uploads, one class per object store. Nothing is visible before an upload is completed."""

from __future__ import annotations

import base64
import contextlib
import logging
import secrets
from posixpath import splitext
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.stores.base import MIB, FsspecWriter
from airflow_provider_vidu.stores.schemes import (
    AZURE,
    GOOGLE,
    S3,
    Store,
    is_not_implemented,
    is_refusal,
)

log = logging.getLogger(__name__)

UPLOAD_BYTES: Final = 5 * MIB
"""Size of an upload's parts; an upload takes about three times as much memory."""
MAX_PART_BYTES: Final = 64 * MIB
"""Largest size of parts for a large file: a server's announcement must not determine a worker's memory."""
MOST_PARTS: Final = 9_500  # S3 accepts 10,000


class UploadWriter(FsspecWriter):
    """A multi-part upload, invisible until completed.

    ``autocommit=False`` prevents publishing a file that is closed or collected by accident.

    :param content_type: the type of the stored object; None to set none.
    :raises OSError: when the bytes would be visible while they are written.
    :raises ViduDownloadRefusedError: when the announced size needs more or larger parts than allowed.
    """

    def __init__(
        self, fs: Any, path: str, uri: str, total: int | None, *, replace: bool, content_type: str | None = None
    ) -> None:
        super().__init__(fs, path, uri, replace=replace)
        self._part = self._room = _part_size(total or 0)
        self._left = self._part * MOST_PARTS
        self._labels = self.labels(fs, content_type) if content_type else {}
        self._file = self._open_file("wb" if replace else "xb")

    def __del__(self) -> None:
        # An abandoned writer publishes nothing. Otherwise the collector would close the file, which publishes on Azure,
        # and at process exit waits for a loop that no longer runs (seen: minutes).
        _mark_closed(self._file)

    @staticmethod
    def labels(fs: Any, content_type: str) -> dict[str, Any]:
        """Return the arguments of ``fs.open`` that set an object's content type and let browsers display it inline.

        :param fs: the file system; its settings for all objects are kept.
        :param content_type: as proven by the file's first bytes.
        """
        return {}

    def _open_file(self, mode: str) -> Any:
        try:
            return self._fs.open(self._path, mode, block_size=self._part, autocommit=False, **self._labels)
        except (NotImplementedError, ValueError):
            # With "xb" the store itself refuses to replace a file created in the meantime. File systems before 2024.9
            # do not support it; there the check just before completion must suffice.
            if mode == "wb":
                raise
            return self._open_file("wb")

    def _begin(self) -> None:
        self._file._initiate_upload()

    def write(self, data: memoryview) -> None:
        """Append to the upload in parts of equal size.

        Older gcsfs (seen: 2025.5) sends everything buffered once it fills a part, and Google accepts only multiples of
        256 KiB.
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
        # Only this process has the upload's id. If the upload can be aborted, it was not completed. If the store no
        # longer has it, the request arrived and only its answer was lost.
        try:
            if self._is_complete():
                return True
            self._file.discard()
        except FileNotFoundError:
            return self._is_there_whole()
        except Exception:  # noqa: BLE001 - the store cannot be reached; the first failure matters more
            return None
        return False

    def _is_complete(self) -> bool:
        """Whether the store reports that the upload is complete; False if it cannot report that."""
        return False

    def _is_there_whole(self) -> bool | None:
        """Return whether the object has the size written; None if the store does not allow the check."""
        try:
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path) and self._fs.info(self._path).get("size") == self._file.tell())
        except Exception:  # noqa: BLE001 - as above
            return None

    def _abandon(self) -> None:
        try:
            self._file.discard()
        finally:
            _mark_closed(self._file)  # it may outlive this writer


class S3Upload(UploadWriter):
    """An upload to S3 or a compatible store."""

    @staticmethod
    def labels(fs: Any, content_type: str) -> dict[str, Any]:
        """Return content type and disposition, except those that the file system sets for all objects."""
        own = {"ContentType": content_type, "ContentDisposition": "inline"}
        fixed = getattr(fs, "s3_additional_kwargs", None) or {}
        return {name: value for name, value in own.items() if name not in fixed}

    def _begin(self) -> None:
        """Begin an upload and send a part: with a key of KMS, a part needs a permission of its own (kms:Decrypt)."""
        self._file.write(b"vidu")
        self._file.flush(force=True)

    def _complete(self) -> None:
        self._file.close()
        try:
            self._file.commit()
        except Exception as error:  # each store has its own exceptions
            # Some S3-compatible stores lack conditional writes; publish() has just checked that no file exists.
            if self._replace or not is_not_implemented(error):
                raise
            log.warning(
                "The store cannot refuse to replace a file (%s): one that another task completes at %s at this moment "
                "is replaced.",
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

    def _open_file(self, mode: str) -> Any:
        file = super()._open_file(mode)
        if hasattr(file, "aaow"):
            # Newer gcsfs (seen: 2026.10) appends to objects in Google's zonal buckets under their final names and
            # cannot undo that: its discard() only logs.
            _mark_closed(file)
            raise OSError("files in a zonal bucket are visible while they are written; use another bucket")
        return file

    def _complete(self) -> None:
        # Without autocommit, older gcsfs sends the rest as an ordinary part, which Google refuses.
        self._file.autocommit = True
        self._file.close()

    def _is_complete(self) -> bool:
        # Cancelling would prove nothing: Google answers 499 for a complete upload, too.
        if not self._file.location:
            return False
        _, content = self._file.gcsfs.call(
            "PUT", self._file.location, headers={"Content-Range": "bytes */*", "Content-Length": "0"}
        )
        return bool(content)  # Google returns a complete upload's object; for an open one (308) nothing


class AzureUpload(UploadWriter):
    """An Azure block blob. adlfs has neither ``commit`` nor ``discard``: closing the file publishes it."""

    @staticmethod
    def labels(fs: Any, content_type: str) -> dict[str, Any]:
        """Return content type and disposition."""
        return {"content_settings": {"content_type": content_type, "content_disposition": "inline"}}

    def _begin(self) -> None:
        """Upload a block that no blob will have: Azure has no request with which an upload begins.

        It belongs to a name of its own, since a block of another writer could break an upload that is under way. The
        name has the file's extension, since a role may be limited to that. Azure removes the block after a week.
        """
        from fsspec.asyn import sync

        file, block = self._file, base64.b64encode(b"vidu").decode()
        stem, extension = splitext(file.blob)
        own = f"{stem}.{secrets.token_hex(8)}{extension}"

        async def stage() -> None:
            async with file.container_client.get_blob_client(blob=own) as client:
                await client.stage_block(block_id=block, data=b"vidu", length=4)

        sync(file.loop, stage)

    def _complete(self) -> None:
        self._file.close()
        if self._labels and not hasattr(self._file, "_content_settings"):
            self._label(self._labels["content_settings"])

    def _label(self, settings: dict[str, str]) -> None:
        """Set the blob's content type; adlfs before 2026.8 cannot set it when committing the blob."""
        from azure.storage.blob import ContentSettings
        from fsspec.asyn import sync

        file = self._file

        async def label() -> None:
            async with file.container_client.get_blob_client(blob=file.blob) as client:
                await client.set_http_headers(content_settings=ContentSettings(**settings))

        try:
            sync(file.loop, label)
        except Exception as error:  # noqa: BLE001 - the complete file is published
            kind = settings["content_type"]
            log.warning("%s is stored, but without its content type %s: %s", self.uri, kind, redacted(error))

    def _is_published(self, error: Exception) -> bool | None:
        # Azure's client repeats a request whose answer was lost; the store may then refuse to replace what it has made.
        if self._is_complete():
            return True
        return False if is_refusal(error) else None

    def _is_complete(self) -> bool:
        from fsspec.asyn import sync

        file = self._file

        async def blocks() -> list[str]:
            async with file.container_client.get_blob_client(blob=file.blob) as client:
                committed, _ = await client.get_block_list("committed")
                return [block.id for block in committed]

        try:
            own = list(file._block_list)  # their ids are random
            return bool(own) and sync(file.loop, blocks) == own
        except Exception:  # noqa: BLE001 - there is no such blob, or the role may have only permission to write
            return False

    def _abandon(self) -> None:
        _mark_closed(self._file)


UPLOADS: Final[dict[Store, type[UploadWriter]]] = {S3: S3Upload, GOOGLE: GoogleUpload, AZURE: AzureUpload}


def _part_size(total: int) -> int:
    """Return the size of an upload's parts in bytes, a multiple of 1 MiB, for ``total`` bytes."""
    if total > MAX_PART_BYTES * MOST_PARTS:
        raise _too_large(f"{total:,} bytes")
    size = max(UPLOAD_BYTES, -(-total // MOST_PARTS))
    return -(-size // MIB) * MIB


def _too_large(amount: str) -> ViduDownloadRefusedError:
    most = MAX_PART_BYTES * MOST_PARTS
    return ViduDownloadRefusedError(
        f"Not stored: the server sends {amount}; the limit in object stores is {most:,} bytes."
    )


def _mark_closed(file: Any) -> None:
    """Mark a file as closed, so that its finalizer does not close it, which would send and publish it."""
    with contextlib.suppress(AttributeError):  # not fsspec's own class
        file.closed = True
