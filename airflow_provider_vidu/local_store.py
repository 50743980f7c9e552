"""Local files, published with one rename."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.storage import (
    READ_BYTES,
    Place,
    Sink,
    already_there,
    storage_error,
    temporary_name,
)

STALE_AFTER: Final = 24 * 3600.0
"""Seconds without a write after which a temporary file of ours belongs to nobody any more."""


class LocalPlace(Place):
    """A local path. A link of that name is replaced, not followed."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser().absolute()
        self.name = self._path.name
        self.uri = local_uri(str(self._path))

    def size(self) -> int | None:
        """Return the size of the file that is there, or None."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise storage_error("looked at", self.uri, error) from error
        if stat.S_ISDIR(found.st_mode):
            raise ViduConfigError(f"destination {str(self._path)!r} is a folder: end it with a slash.")
        if not stat.S_ISREG(found.st_mode):
            raise ViduConfigError(f"destination {str(self._path)!r} is a device or pipe, no file.")
        return found.st_size

    def read(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        try:
            with self._path.open("rb", buffering=0) as file:
                while data := file.read(READ_BYTES):
                    yield data
        except OSError as error:
            raise storage_error("read", self.uri, error) from error

    def sink(self, total: int | None, *, replace: bool) -> Sink:
        """Begin a temporary file in the same folder, which is made where missing."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(self._path)
            return LocalSink(self._path, self.uri, replace=replace)
        except OSError as error:
            raise storage_error("written", self.uri, error) from error


class LocalSink(Sink):
    """A temporary file, renamed at the end. Only a killed process leaves it behind."""

    def __init__(self, path: Path, uri: str, *, replace: bool) -> None:
        self._path = path
        self._uri = uri
        self._replace = replace
        self._temporary: Path | None = path.parent / temporary_name(path.name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        # 0o666 less the umask, like any file that a program creates; mkstemp's 0o600 would shut others out.
        self._descriptor = os.open(self._temporary, flags, 0o666)

    def write(self, data: memoryview) -> None:
        """Append to the temporary file."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise storage_error("written", self._uri, error) from error

    def publish(self) -> None:
        """Bring the bytes to the disk, then rename."""
        assert self._temporary is not None
        try:
            os.fsync(self._descriptor)
            self._close()
            if self._replace:
                self._temporary.replace(self._path)
            else:
                _rename_unless_there(self._temporary, self._path)
            self._temporary = None
        except FileExistsError:
            raise already_there(self._uri) from None
        except OSError as error:
            raise storage_error("completed", self._uri, error) from error
        _sync_folder(self._path.parent)

    def discard(self) -> None:
        """Remove the temporary file."""
        with contextlib.suppress(OSError):  # some network file systems report a full disk only now
            self._close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):  # the folder may be gone or read-only by now
                self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _rename_unless_there(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (FAT, some network shares): check and rename, with a small gap in between.
        if path.exists():
            raise FileExistsError(str(path)) from None
        temporary.replace(path)
    else:
        temporary.unlink()


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):  # not every file system can; the rename itself is done
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    """Remove what a killed process left behind for this very file.

    A running transfer gives up after a minute without bytes, so nobody writes to a file that has been
    silent for a day.
    """
    stem = re.escape(temporary_name(path.name)[: -len("0123456789abcdef.part")])
    pattern = re.compile(stem + r"[0-9a-f]{16}\.part")
    oldest = time.time() - STALE_AFTER
    try:
        with os.scandir(path.parent) as entries:
            for entry in entries:
                if pattern.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    Path(entry.path).unlink(missing_ok=True)
    except OSError:  # tidying up is a courtesy; the download itself will say what is wrong with the folder
        return


def local_uri(path: str) -> str:
    """Return ``file://`` and the absolute path, unquoted as ``ObjectStoragePath`` expects it."""
    return "file://" + os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links
