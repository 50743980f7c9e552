"""Opening a stored file for the player: only beneath the deployment's roots, only videos, pictures and sound."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from airflow.configuration import conf

from airflow_provider_vidu.common.media_types import SNIFF_BYTES, sniffed
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.stores.base import MIB
from airflow_provider_vidu.stores.places import Root, Spot, read_roots, root_of
from airflow_provider_vidu.stores.remote import part_of_s3, unpacked_coding
from airflow_provider_vidu.stores.roots import is_really_beneath
from airflow_provider_vidu.stores.schemes import STORES

log = logging.getLogger(__name__)

LOCAL_PIECE: Final = MIB // 4
REMOTE_PIECE: Final = 2 * MIB
_VERSIONS: Final = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated")
_OUTSIDE: Final = "The file is not beneath one of this deployment's preview roots."
_NO_ROOT: Final = "The API server does not have the preview root of this file: is its folder mounted there?"


class PreviewError(Exception):
    """The file cannot be shown; the message says why, and may be shown on the page."""


class AbsentError(PreviewError):
    """There is no such file."""


class ReplacedError(PreviewError):
    """There is a file of another size than the stored one.

    :param size: its size in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__("Another file has replaced the stored one: its size is not the one that was stored.")
        self.size = size


class Preview(ABC):
    """A stored file that may be shown, opened.

    :param size: its size in bytes.
    :param etag: an entity tag that changes with the content.
    :param piece: how many bytes are read at a time.
    :param place: the root that it is beneath.
    """

    place: Root | None = None

    size: int
    etag: str
    piece: int
    content_type: str

    @abstractmethod
    def read(self, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on; fewer only at the end."""

    def close(self) -> None:  # noqa: B027 - there is not always something to close
        """Release what was opened."""

    def sniff(self) -> None:
        """Look at the first bytes.

        :raises PreviewError: when they are not a video, sound or picture that a browser shows without running it.
        """
        kind = sniffed(self.read(0, SNIFF_BYTES))
        # A picture of text can hold scripts.
        if kind is None or kind.partition("/")[0] not in ("video", "image", "audio") or "svg" in kind:
            raise PreviewError("The stored file is not a video, a picture or sound.")
        self.content_type = kind


def roots() -> Sequence[Root]:
    """Return the folders that the deployment allows to be shown; none unless it says so."""
    return _roots_in(conf.get("vidu", "preview_roots", fallback="") or "")


@lru_cache(maxsize=4)
def _roots_in(setting: str) -> tuple[Root, ...]:
    found, refused = read_roots(setting)
    for item in refused:
        log.error("[vidu] preview_roots: %r is not an absolute folder or bucket; it is ignored.", redacted(item))
    return tuple(found)


def preview_root(uri: str) -> Root | None:
    """Return the root that a stored file is beneath, by its name; None if there is none."""
    found = root_of(uri, roots())
    return found[0] if found else None


def open_preview(uri: str, size: int | None = None) -> Preview:
    """Open a stored file.

    :param uri: where it is, by an XCom; not trusted.
    :param size: how many bytes were stored, where that is known.
    :raises PreviewError: when it lies beneath no root, is not there, is another file by now, or nothing to play.
    """
    preview = opened(uri)
    try:
        if size is not None and preview.size != size:
            raise ReplacedError(preview.size)
        preview.sniff()
    except BaseException:  # in every case the file is closed
        preview.close()
        raise
    return preview


def opened(uri: str) -> Preview:
    """Open a stored file; its content is not checked, and ``content_type`` is not known yet.

    :param uri: where it is, by an XCom; not trusted.
    :raises AbsentError: when it is not there, although its root is.
    :raises PreviewError: when it is beneath no root, really elsewhere, not a file, or cannot be read.
    """
    found = root_of(uri, roots())
    if found is None:
        raise PreviewError(_OUTSIDE)
    root, spot = found
    try:
        preview = open_beneath(root, spot)
    except AbsentError:
        if not spot.scheme and not Path(root.spot.path).is_dir():
            raise PreviewError(_NO_ROOT) from None
        raise
    preview.place = root
    return preview


def open_beneath(root: Root, spot: Spot) -> Preview:
    """Open a file beneath a root by its name; its content is not checked, and ``content_type`` is not known yet.

    :raises PreviewError: when it is really elsewhere, is not a file, or cannot be read.
    """
    return _RemoteFile(root, spot) if spot.scheme else _LocalFile(root, spot)


class _LocalFile(Preview):
    """A local file, checked by its open descriptor, so that links and races cannot redirect it."""

    piece = LOCAL_PIECE

    def __init__(self, root: Root, spot: Spot) -> None:
        try:
            # Also before it is opened: opening and closing a pipe ends its writer, and a device may act.
            if not stat.S_ISREG(Path(spot.path).stat().st_mode):
                raise PreviewError(_OUTSIDE)
            # Without O_NONBLOCK a pipe of that name would hold the thread until something is written.
            self._descriptor = os.open(spot.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise _unreadable(error) from None
        # Closes once, and at the latest with this object: a request may end before its answer has begun.
        self._closes = weakref.finalize(self, os.close, self._descriptor)
        try:
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode) or not is_really_beneath(self._descriptor, spot.path, root):
                raise PreviewError(_OUTSIDE)
        except BaseException:  # in every case the descriptor is closed
            self.close()
            raise
        self.size = status.st_size
        self.etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'

    def read(self, start: int, length: int) -> bytes:
        """Read at a position; the file may be read by several requests at once."""
        return os.pread(self._descriptor, length, start)

    def close(self) -> None:
        """Close the descriptor."""
        self._descriptor = -1
        self._closes()


class _RemoteFile(Preview):
    """An object in a store, read piece by piece with the root's own connection."""

    piece = REMOTE_PIECE

    def __init__(self, root: Root, spot: Spot) -> None:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        try:
            path: Any = ObjectStoragePath(spot.uri, conn_id=root.conn_id)
            self._store, self._path, self._is_object = path.fs, str(path.path), spot.scheme in STORES
            known = self._store.info(self._path)
        except Exception as error:  # any error of a provider or its client library
            raise _unreadable(error) from error
        if known.get("type") != "file" or not isinstance(known.get("size"), int):
            raise AbsentError("The stored file does not exist.")
        self._check_coding(known)
        self.size = known["size"]
        # Where a store reports nothing that changes with the content, each answer counts as another file.
        version = [found for name in _VERSIONS if (found := known.get(name))] or [time.time_ns()]
        self.etag = f'"{hashlib.sha256(repr((version, self.size)).encode()).hexdigest()[:32]}"'

    def read(self, start: int, length: int) -> bytes:
        """Fetch one piece."""
        stop = min(start + length, self.size)
        if start >= stop:
            return b""
        try:
            if hasattr(self._store, "_call_s3"):
                return part_of_s3(self._store, self._path, start, stop)
            if self._is_object:
                self._check_coding(self._store.info(self._path))  # another object may have the name by now
                data: bytes = self._store.cat_file(self._path, start=start, end=stop)
                return data
            # Other file systems may ignore the range and return the whole file (SFTP).
            with self._store.open(self._path, "rb") as file:
                file.seek(start)
                return bytes(file.read(stop - start))
        except PreviewError:
            raise
        except Exception as error:  # any error of a client library
            raise _unreadable(error) from error

    @staticmethod
    def _check_coding(known: Mapping[str, Any]) -> None:
        if (coding := unpacked_coding(known)) is not None:
            raise PreviewError(f"The stored file has the Content-Encoding {coding}: store it without.")


def _unreadable(error: Exception) -> PreviewError:
    if isinstance(error, FileNotFoundError):
        return AbsentError("The stored file no longer exists.")
    if isinstance(error, PermissionError):
        return PreviewError("The API server may not read the stored file: permission denied.")
    return PreviewError(f"The stored file cannot be read ({type(error).__name__}).")
