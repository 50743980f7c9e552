"""The target of a download, a file or a folder: what happens to a file that is there, and the record of what stays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from airflow_provider_vidu.common.media_types import SNIFF_BYTES, sniffed, type_of_name
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.stores.artifacts import Artifact
from airflow_provider_vidu.stores.base import AtomicWriter, Overwrite, StoredFile, StoredRecord, file_exists_error
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.stores.naming import candidate_names, file_name


class FileTarget:
    """A file whose name the user chose, and what to do about one that is there.

    :param destination: where to.
    :param overwrite: whether such a file is replaced, kept (``skip``), or an error.
    """

    def __init__(self, destination: Destination, overwrite: Overwrite) -> None:
        self._destination = destination
        self._overwrite = overwrite

    def check(self) -> None:
        """Check before anything is fetched what would make the end fail: a missing file system, a folder, a link.

        :raises ViduConfigError: when there is no file system, or something else than a file.
        :raises ViduStorageError: when the store cannot be reached.
        """
        self._destination.file().check()

    def existing(self, max_bytes: int, source: str | None = None) -> StoredRecord | None:
        """Return the record of the file that is there and stays; None when the download has to store one.

        An empty file counts as missing. The file is read once for its digest.

        :param max_bytes: the largest file that is read, in bytes.
        :param source: the URL that the record names.
        :raises DestinationExistsError: with ``overwrite="error"``, when there is one.
        :raises ViduDownloadRefusedError: when it is larger than ``max_bytes``.
        :raises ViduStorageError: when the store cannot be reached or read.
        """
        if self._overwrite == "replace":
            return None
        file = next((file for file in self._candidates() if file.size()), None)
        if file is not None and self._overwrite == "error":
            raise file_exists_error(file.uri)
        return _record_of(file, max_bytes, source) if file is not None else None

    def writer(self, content_type: str, total: int | None) -> AtomicWriter:
        """Begin the file; one that is there in the meantime is replaced only where it may be.

        :param content_type: the file's type; in a folder it decides the extension.
        :param total: its size in bytes, if known.
        """
        file = self._file(content_type)
        may_replace = self._overwrite == "replace" or file.size() == 0
        return file.writer(total, replace=may_replace, content_type=content_type)

    def _candidates(self) -> Iterable[StoredFile]:
        """Return the files that may be there, the likeliest first."""
        return [self._destination.file()]

    def _file(self, content_type: str) -> StoredFile:
        """Return the file to store."""
        return self._destination.file()


class FolderTarget(FileTarget):
    """A folder, in which the file is named by its generation and its type.

    :param stem: the name without artifact and extension (:func:`.naming.stem_of`).
    :param artifact: what is kept; None for the result, whatever its medium.
    :param creation: which creation of the generation, counted from 0.
    """

    def __init__(
        self, destination: Destination, overwrite: Overwrite, stem: str, artifact: Artifact | None, creation: int = 0
    ) -> None:
        super().__init__(destination, overwrite)
        self._naming = (stem, artifact, creation)

    def check(self) -> None:
        """Check that the folder has a file system; what is in it is not looked at."""
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
                f"{file.uri} exists already and has more than {max_bytes:,} bytes (max_bytes), so it is not read for "
                "its digest. Remove it, raise max_bytes, or use overwrite='replace'."
            )
        digest.update(piece)
    content_type = sniffed(head) or type_of_name(file.name) or "application/octet-stream"
    return StoredRecord(file.uri, size, digest.hexdigest(), content_type, source, existed=True)
