"""The target of a download, a file or a folder: handling of an existing file, and its record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from airflow_provider_vidu.common.artifacts import Artifact
from airflow_provider_vidu.common.media_types import SNIFF_BYTES, sniffed, type_of_name
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.stores.base import AtomicWriter, StoredFile, StoredRecord, file_exists_error
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.stores.naming import candidate_names, file_name
from airflow_provider_vidu.stores.paths import Overwrite


class FileTarget:
    """A file with a name chosen by the user.

    :param overwrite: whether an existing file is replaced, kept (``skip``) or an error.
    """

    def __init__(self, destination: Destination, overwrite: Overwrite) -> None:
        self._destination = destination
        self._overwrite = overwrite

    def check(self) -> None:
        """Check before the download for what would make its end fail: a missing file system, a folder, a link.

        :raises ViduConfigError: when there is no file system, or the name belongs to something other than a file.
        :raises ViduStorageError: when the store cannot be reached.
        """
        self._destination.file().check()

    def existing(self, max_bytes: int, source: str | None = None) -> StoredRecord | None:
        """Return the record of an existing file to keep; None if the download must store one.

        An empty file counts as missing. The file is read once for its digest.

        :param max_bytes: the largest file to read, in bytes.
        :raises DestinationExistsError: with ``overwrite="error"``, when a file exists.
        :raises ViduDownloadRefusedError: when it is larger than ``max_bytes``.
        :raises ViduStorageError: when the store cannot be reached or read.
        """
        if self._overwrite == "replace":
            return None
        file = self._there()
        if file is not None and self._overwrite == "error":
            raise file_exists_error(file.uri)
        return _record_of(file, max_bytes, source) if file is not None else None

    def identical(self, fetched: StoredRecord, max_bytes: int) -> StoredRecord | None:
        """Return the record of an existing file with the very bytes that were fetched; None if there is none.

        :param fetched: the record of these bytes.
        """
        file = self._there()
        record = None if file is None else _record_of(file, max_bytes, fetched.source)
        return record if record is not None and record.sha256 == fetched.sha256 else None

    def _there(self) -> StoredFile | None:
        return next((file for file in self._candidates() if file.size()), None)

    def writer(self, content_type: str, total: int | None) -> AtomicWriter:
        """Begin the file; another one created in the meantime is replaced only if ``overwrite`` allows it.

        :param content_type: the file's type; in a folder it determines the extension.
        :param total: its size in bytes, if known.
        """
        file = self._file(content_type)
        may_replace = self._overwrite == "replace" or file.size() == 0
        return file.writer(total, replace=may_replace, content_type=content_type)

    def _candidates(self) -> Iterable[StoredFile]:
        return [self._destination.file()]

    def _file(self, content_type: str) -> StoredFile:
        return self._destination.file()


class Unkept(AtomicWriter):
    """Takes a file whose digest alone is wanted."""

    uri = ""

    def write(self, data: memoryview) -> None:
        """Keep nothing."""

    def publish(self) -> None:
        """Store nothing."""

    def discard(self) -> None:
        """Do nothing."""


class FolderTarget(FileTarget):
    """A folder, in which the file is named by its generation and type.

    :param stem: the name without artifact and extension (:func:`.naming.stem_of`).
    """

    def __init__(
        self, destination: Destination, overwrite: Overwrite, stem: str, artifact: Artifact | None, creation: int = 0
    ) -> None:
        super().__init__(destination, overwrite)
        self._naming = (stem, artifact, creation)

    def check(self) -> None:
        """Check that the folder has a file system; its files are not checked."""
        self._destination.file(self._naming[0])

    def _candidates(self) -> Iterable[StoredFile]:
        return self._destination.files(candidate_names(*self._naming))

    def _file(self, content_type: str) -> StoredFile:
        stem, artifact, creation = self._naming
        return self._destination.file(file_name(stem, artifact, content_type, creation))


def _record_of(file: StoredFile, max_bytes: int, source: str | None) -> StoredRecord:
    digest, size, head = hashlib.sha256(), 0, b""
    for piece in file.read():
        head = head or piece[:SNIFF_BYTES]
        size += len(piece)
        if size > max_bytes:
            raise ViduDownloadRefusedError(
                f"{file.uri} exists already and has more than {max_bytes:,} bytes (max_bytes), so its digest is not "
                "computed. Remove it, raise max_bytes, or use overwrite='replace'."
            )
        digest.update(piece)
    content_type = sniffed(head) or type_of_name(file.name) or "application/octet-stream"
    return StoredRecord(file.uri, size, digest.hexdigest(), content_type, source, existed=True)
