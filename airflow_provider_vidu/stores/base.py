"""The interface of a store and of its writers, the record of a stored file, and the wording of errors."""

from __future__ import annotations

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError, ViduStorageError
from airflow_provider_vidu.stores.naming import MAX_NAME_BYTES
from airflow_provider_vidu.stores.schemes import STORES, conflict_in, is_precondition_failed, scheme_of

log = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
READ_BYTES: Final = MIB


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """The record of a stored file.

    :param uri: its location, without credentials or connection.
    :param size: in bytes.
    :param sha256: the digest in hex.
    :param content_type: the type that its first bytes prove.
    :param source: the URL that it came from, without its query, if known.
    :param existed: whether it existed before, so that nothing was fetched.
    """

    uri: str
    size: int
    sha256: str
    content_type: str
    source: str | None = None
    existed: bool = False


class DestinationExistsError(ViduDownloadRefusedError):
    """The destination exists already and must not be replaced."""


class AtomicWriter(ABC):
    """A file that is being written and not yet visible; ``uri`` is its future location."""

    uri: str

    @abstractmethod
    def write(self, data: memoryview) -> None:
        """Append ``data``, which is valid only during the call; raises ViduStorageError."""

    @abstractmethod
    def publish(self) -> None:
        """Make the whole file visible under its name.

        :raises DestinationExistsError: when the destination exists and must not be replaced.
        :raises ViduStorageError: when the file could not be completed.
        """

    @abstractmethod
    def discard(self) -> None:
        """Discard the written data. Never raises; does nothing after :meth:`publish`."""


class StoredFile(ABC):
    """A file in a store, existing or not.

    :param uri: its location, without credentials or connection.
    :param name: the last part of its path.
    """

    uri: str
    name: str

    @abstractmethod
    def size(self) -> int | None:
        """Return the size in bytes of the existing file, or None.

        :raises ViduStorageError: when the store cannot be reached.
        :raises ViduConfigError: when the name belongs to something other than a file.
        """

    @abstractmethod
    def check(self) -> None:
        """Check before a download for what would make its end fail; needs no permission to read or list.

        :raises ViduConfigError: when the name belongs to something other than a file.
        :raises ViduStorageError: when the store cannot be reached.
        """

    @abstractmethod
    def read(self) -> Iterator[bytes]:
        """Yield the content in pieces of bounded size; raises ViduStorageError when it cannot be read."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the file, if there is one; raises ViduStorageError when that failed."""

    @abstractmethod
    def writer(self, total: int | None, *, replace: bool, content_type: str | None = None) -> AtomicWriter:
        """Begin a new version of this file.

        :param total: its announced size in bytes, if known.
        :param replace: whether to replace a file that exists when it is published.
        :param content_type: the type of the stored object, in stores that keep one.
        :raises ViduStorageError: when it cannot be written.
        :raises ViduDownloadRefusedError: when the store accepts no file of the announced size.
        """


_CLIENT_FILE: Final = {
    FileNotFoundError: "does not exist",
    PermissionError: "may not be read",
    IsADirectoryError: "is a folder",  # a mount makes one where the file lacks
    NotADirectoryError: "does not exist",
}
"""What is wrong with a file of a store's client, such as a role's token, by the error that it raises."""


def storage_error(verb: str, uri: str, error: Exception, *, certain: bool = True, advice: str = "") -> ViduStorageError:
    """Return the error of a store, naming the destination and the reason.

    :param verb: the operation that failed: ``written``, ``read``, …
    :param certain: whether it is certain that nothing was published.
    :param advice: a last sentence: what to do.
    """
    reasons = {
        PermissionError: "permission denied",
        FileNotFoundError: "the bucket or folder does not exist",
        FileExistsError: "the store reports a conflict",
        IsADirectoryError: "a folder of that name exists",
        NotADirectoryError: "a part of the path is a file",
    }
    error = of_store(error, uri)
    known = next((text for kind, text in reasons.items() if isinstance(error, kind)), None)
    detail = redacted((error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__)
    reason = f"{known} ({detail})" if known and known.lower() != detail.lower() else detail
    refused = certain or isinstance(error, (PermissionError, FileNotFoundError))
    state = "Nothing was published." if refused else "It holds either the old file or the whole new one."
    message = f"The destination {sanitized(uri, 300)!r} could not be {verb}: {reason.rstrip('.')}. {state} {advice}"
    return ViduStorageError(message.rstrip())


def of_store(error: Exception, uri: str) -> Exception:
    """Return a store's error, and another kind of one if the store's client cannot read a file of its own.

    A token or a certificate that is not mounted, or is not readable in this worker, raises FileNotFoundError or
    PermissionError, too, which says nothing about the object.

    :param uri: of the object; other file systems' errors name it as their own path.
    """
    state = next((text for kind, text in _CLIENT_FILE.items() if isinstance(error, kind)), None)
    own = error.filename if isinstance(error, OSError) and scheme_of(uri) in STORES else None
    if state is None or not isinstance(own, str) or not own.startswith("/"):
        return error
    folder = str(PurePosixPath(own).parent)
    if own in uri or (folder != "/" and folder in uri):
        return error
    return OSError(f"the file {own!r}, which the store's client needs, {state} in this worker")


def temporary_name(name: str) -> str:
    """Return a hidden, unique name derived from ``name``, short enough for every file system."""
    kept = name.encode("utf-8", "surrogateescape")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    return f".{kept}.{secrets.token_hex(8)}.part"


def file_exists_error(uri: str) -> DestinationExistsError:
    """Return the error for a destination that must not be replaced."""
    return DestinationExistsError(
        f"The destination {sanitized(uri, 300)!r} exists already. Use overwrite='replace' to replace it, or "
        "overwrite='skip' to keep it."
    )


class FsspecWriter(AtomicWriter):
    """A file opened with fsspec; errors name the destination."""

    def __init__(self, fs: Any, path: str, uri: str, *, replace: bool) -> None:
        self._fs = fs
        self._path = path
        self.uri = uri
        self._replace = replace
        self._file: Any = None
        self._done = False

    def begin(self) -> None:
        """Do what shows whether the store takes a file, without publishing one; raises ViduStorageError if not.

        Only :meth:`discard` may follow.
        """
        try:
            self._begin()
        except Exception as error:  # each store has its own exceptions
            raise storage_error("written", self.uri, error) from error

    def write(self, data: memoryview) -> None:
        """Append to the upload."""
        try:
            self._file.write(data)
        except Exception as error:  # each store has its own exceptions
            raise storage_error("written", self.uri, error) from error

    def publish(self) -> None:
        """Complete the file."""
        try:
            if not self._replace:
                self._fs.invalidate_cache()
                if self._fs.exists(self._path):
                    raise file_exists_error(self.uri)
            self._complete()
        except ViduDownloadRefusedError:
            raise
        except Exception as error:  # each store has its own exceptions
            published = self._is_published(error)
            if not published:
                if not self._replace and self._means_a_file(error):
                    raise file_exists_error(self.uri) from None
                known = conflict_in(error) or error
                raise storage_error("completed", self.uri, known, certain=published is not None) from error
            log.warning("The store's last answer was lost (%s), but %s is complete.", redacted(error), self.uri)
        self._done = True

    def discard(self) -> None:
        """Abort and clean up as far as possible."""
        if self._done:
            return
        self._done = True
        try:
            self._abandon()
        except Exception as error:  # noqa: BLE001 - best effort; the original failure matters more
            log.warning("The incomplete upload of %s could not be removed: %s", self.uri, redacted(error))

    def _means_a_file(self, error: Exception) -> bool:
        """Whether the store has refused to complete the file because there is one of that name.

        gcsfs reports each 412 so, also that of an organization's policy, and keeps nothing of the answer.
        """
        if (known := conflict_in(error)) is not None:
            return bool(getattr(known, "error_code", None) == "BlobAlreadyExists")
        if is_precondition_failed(error) or not isinstance(error, FileExistsError):
            return is_precondition_failed(error)
        try:
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path))
        except Exception:  # noqa: BLE001 - the role may have only permission to write
            return True

    def _is_published(self, error: Exception) -> bool | None:
        """Return whether the file was completed although the store reported ``error``; None if unknown."""
        return False

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _complete(self) -> None: ...

    @abstractmethod
    def _abandon(self) -> None: ...
