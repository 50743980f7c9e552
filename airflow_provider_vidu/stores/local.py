"""Local files, published with one rename.

Other programs may write to the folder, too. It is opened once and every step uses the open folder, so a link swapped
into its path redirects nothing, and ``[vidu] destination_roots`` is checked against the folder's real location. Just
before the rename the temporary file is compared with the open one: a replaced file or a second name (hard link) is an
error. Only a folder that others cannot write to closes the gap between comparison and rename. On mounts that give a
file a new inode number at each lookup, owner and bytes are compared instead, which reads the file once more.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.stores.base import (
    READ_BYTES,
    AtomicWriter,
    StoredFile,
    file_exists_error,
    storage_error,
    temporary_name,
)
from airflow_provider_vidu.stores.roots import check_destination, check_folder, check_opened

log = logging.getLogger(__name__)

STALE_AFTER: Final = 24 * 3600.0
"""Seconds without a write after which one of our temporary files counts as abandoned."""
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.EROFS, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""Errors of ``fsync`` on mounts without it (fsync(2)); EIO and ENOSPC mean lost bytes. A disk that turned read-only
after an error reports EROFS, too: then the rename fails, and nothing is published."""
_OF_THE_PATH: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
)
"""Errors that are due to a path or its permissions; any other (ESTALE, EIO, ETIMEDOUT) may be over at the next look."""
_FOLDER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""A folder that may be written to need not be readable (a drop box)."""
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalFile(StoredFile):
    """A local path. It must not be a symbolic link; links among its folders are followed."""

    def __init__(self, path: str) -> None:
        self._path = absolute(path)
        self.name = self._path.name
        # Unquoted, as ObjectStoragePath expects it.
        self.uri = f"file://{os.path.abspath(self._path)}"  # noqa: PTH100 - Path.resolve would follow links

    def size(self) -> int | None:
        """Return the size of the existing file, or None."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise storage_error("checked", self.uri, error) from error
        if stat.S_ISDIR(status.st_mode):
            raise ViduConfigError(f"destination {str(self._path)!r} is a folder: end it with a slash.")
        if not stat.S_ISREG(status.st_mode):
            raise ViduConfigError(f"destination {str(self._path)!r} is a device or pipe, not a file.")
        return status.st_size

    def check(self) -> None:
        """Refuse a folder, a device, a link, and a file of another user that only its owner may replace."""
        self.size()
        if (target := _target_of(self._path)) is not None:
            raise ViduConfigError(
                f"destination {str(self._path)!r} is a symbolic link to {target!r}, which the file would replace. Use "
                "the path of the link's target, or remove the link."
            )
        if _is_kept_by_sticky_bit(self._path):
            why = "belongs to another user, and only its owner may replace it: its folder has the sticky bit, as /tmp"
            raise ViduConfigError(f"destination {str(self._path)!r} {why}. Use another path, or remove the file.")

    def read(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        try:
            with _opened(self._path) as file:
                check_opened(file.fileno(), str(self._path), "destination_roots")
                while data := file.read(READ_BYTES):
                    yield data
        except OSError as error:
            raise storage_error("read", self.uri, error) from error

    def remove(self) -> None:
        """Remove the file, if there is one."""
        try:
            folder = os.open(self._path.parent, _FOLDER)
            try:
                check_folder(folder, str(self._path.parent))
                os.unlink(self.name, dir_fd=folder)
            finally:
                os.close(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error("removed", self.uri, error) from error

    def writer(self, total: int | None, *, replace: bool, content_type: str | None = None) -> AtomicWriter:
        """Begin a temporary file in the same folder, which is created if missing."""
        self.check()
        try:
            _make_folders(self._path.parent)
            return LocalWriter(self._path, self.uri, replace=replace)
        except OSError as error:
            raise storage_error("written", self.uri, error) from error


def _make_folders(path: Path) -> None:
    """Create a folder and its missing parents; raises ViduConfigError if a swap moved them out of the roots."""
    folder, missing = path, list[str]()
    while True:
        try:
            descriptor = os.open(folder, _FOLDER)
            break
        except FileNotFoundError:
            if (target := _target_of(folder)) is not None:
                raise _dangling(folder, target) from None
            missing.insert(0, folder.name)
            folder = folder.parent
    try:
        check_folder(descriptor, str(path), missing)
        for name in missing:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=descriptor)
            above, descriptor = descriptor, os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(above)
    finally:
        os.close(descriptor)


class LocalWriter(AtomicWriter):
    """A temporary file, renamed at the end, with the mode of a file that it replaces. Only a kill leaves it behind."""

    def __init__(self, path: Path, uri: str, *, replace: bool) -> None:
        self._name = path.name
        self.uri = uri
        self._replace = replace
        self._temporary: str | None = None
        self._descriptor = -1
        self._folder = os.open(path.parent, _FOLDER)
        try:
            check_folder(self._folder, str(path.parent))
            _remove_stale(self._folder, path.name)
            temporary = temporary_name(path.name)
            # 0o666 minus the umask, like any new file; mkstemp's 0o600 would lock others out.
            self._descriptor = os.open(temporary, _NEW_FILE, 0o666, dir_fd=self._folder)
            self._temporary = temporary
        except BaseException:  # close the folder even after KeyboardInterrupt
            self.discard()
            raise

    def write(self, data: memoryview) -> None:
        """Append to the temporary file."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise storage_error("written", self.uri, error) from error

    def publish(self) -> None:
        """Flush the bytes to disk, then rename."""
        assert self._temporary is not None
        try:
            if self._replace:
                _copy_mode(self._folder, self._name, self._descriptor)
            _sync(self._descriptor, self.uri)
            _compare(self._descriptor, self._folder, self._temporary)
            self._close()
            if self._replace:
                os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            else:
                _rename_unless_there(self._folder, self._temporary, self._name)
            self._temporary = None
        except FileExistsError:
            raise file_exists_error(self.uri) from None
        except OSError as error:
            raise storage_error("completed", self.uri, error) from error
        with contextlib.suppress(OSError), _readable(self._folder) as descriptor:
            os.fsync(descriptor)  # not supported everywhere; the rename itself is done
        self._leave_folder()

    def discard(self) -> None:
        """Remove the temporary file."""
        with contextlib.suppress(OSError):  # some network file systems report a full disk only on close
            self._close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):  # the folder may have been removed or become read-only
                os.unlink(self._temporary, dir_fd=self._folder)
            self._temporary = None
        self._leave_folder()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _leave_folder(self) -> None:
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)


def _copy_mode(folder: int, name: str, descriptor: int) -> None:
    """Give an open file the permissions of the existing file ``name``, if any."""
    with contextlib.suppress(OSError):  # no such file, or a mount without modes
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISREG(mode):
            os.fchmod(descriptor, stat.S_IMODE(mode) & 0o777)


def _sync(descriptor: int, uri: str) -> None:
    """Flush an open file to disk; log a warning if the mount does not support that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        log.warning(
            "The mount of %s does not support fsync (%s): a power failure right after this can lose the file.",
            uri,
            error.strerror,
        )


def _compare(descriptor: int, folder: int, temporary: str) -> None:
    """Check that a temporary file is still the open one, without a second name; raises OSError if it is not."""
    own = os.fstat(descriptor)
    try:
        there = os.stat(temporary, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        raise OSError("another process removed the temporary file") from None
    if (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino) and not _is_copy(descriptor, folder, temporary):
        raise OSError("another process replaced the temporary file")
    if max(own.st_nlink, there.st_nlink) > 1:
        raise OSError("another process gave the temporary file a second name")


def _is_copy(descriptor: int, folder: int, temporary: str) -> bool:
    """Whether a temporary file with another inode than the open one has the same owner and bytes.

    Some mounts (FUSE, network shares) give a file a new inode number at each lookup; there only the bytes prove that
    it was not replaced.
    """
    try:
        with (
            _opened(temporary, os.O_NOFOLLOW, folder=folder) as present,
            _opened(f"/proc/self/fd/{descriptor}") as written,
        ):
            there, own = os.fstat(present.fileno()), os.fstat(descriptor)
            if (there.st_uid, there.st_size) != (own.st_uid, own.st_size):
                return False
            while piece := present.read(READ_BYTES):
                if piece != written.read(READ_BYTES):
                    return False
            return not written.read(1)
    except OSError:  # no /proc, or no permission to read: unproven
        return False


@contextlib.contextmanager
def _opened(path: str | Path, flags: int = 0, *, folder: int | None = None) -> Iterator[BinaryIO]:
    """Open a regular file to read it, and close it in all cases: ``os.fdopen`` leaves the descriptor of a folder open.

    :param flags: further flags of ``open(2)``.
    :param folder: the open folder that ``path`` is relative to.
    :raises OSError: also when it is something other than a regular file.
    """
    # O_NONBLOCK: a pipe put in its place would block the worker forever.
    flags |= os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
            raise (IsADirectoryError if stat.S_ISDIR(mode) else OSError)("it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _rename_unless_there(folder: int, temporary: str, name: str) -> None:
    here = {"src_dir_fd": folder, "dst_dir_fd": folder}
    try:
        os.link(temporary, name, **here, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        # Without hard links (FAT, some network shares): check, then rename, with a small gap in between.
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(name) from None
        os.replace(temporary, name, **here)  # noqa: PTH105 - pathlib has no dir_fd
    else:
        try:
            os.unlink(temporary, dir_fd=folder)
        except OSError as error:  # the file has its name, so it is published
            log.warning("%s is complete, but its temporary name %s remains: %s", name, temporary, error.strerror)


@contextlib.contextmanager
def _readable(folder: int) -> Iterator[int]:
    """Reopen an open folder for listing, which needs a permission that writing does not."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_stale(folder: int, name: str) -> None:
    """Remove temporary files of this file left behind by killed processes.

    A running transfer gives up after a minute without bytes, so a file unchanged for a day has no writer.
    """
    stem = re.escape(temporary_name(name)[: -len("0123456789abcdef.part")])
    pattern = re.compile(stem + r"[0-9a-f]{16}\.part")
    oldest = time.time() - STALE_AFTER
    try:
        with _readable(folder) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                if pattern.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(entry.name, dir_fd=folder)
    except OSError:  # best effort; the download itself reports a problem with the folder
        return


def obstacle(path: str, *, is_folder: bool) -> str | None:
    """Return why this process could not store a file there, or None; changes nothing.

    :param path: the file, or the folder for it; missing folders count as creatable.
    :param is_folder: whether ``path`` is the folder.
    :raises ViduStorageError: when its mount does not answer, or a link leads to none.
    """
    full = absolute(path)
    folder = full if is_folder else full.parent
    try:
        check_destination(f"{full}/" if is_folder else str(full))  # a link among a name's folders may lead elsewhere
        if not is_folder:
            LocalFile(path).check()
        while (mode := _mode_of(folder)) is None and (target := _target_of(folder)) is None:
            folder = folder.parent
    except (OSError, ViduError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno not in _OF_THE_PATH:
            raise storage_error("checked", f"file://{full}", cause) from cause
        return error.reason if isinstance(error, ViduError) else f"{str(folder)!r}: {error.strerror}"
    if mode is None:
        raise storage_error("checked", f"file://{full}", _dangling(folder, target or ""))
    if not stat.S_ISDIR(mode):
        return f"{str(folder)!r} is not a folder"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{str(folder)!r} cannot be written to by this user"


def _dangling(link: Path, target: str) -> FileNotFoundError:
    """Return the error of a link among a path's folders that leads nowhere: no folder is created through it."""
    return FileNotFoundError(f"{link.name[:50]!r} is a symbolic link to {target[:90]!r}, which does not exist")


def _target_of(path: Path) -> str | None:
    """Return where a link leads, None if it is not one, or not any more: another process may have removed it."""
    try:
        return sanitized(os.readlink(path), 200)  # noqa: PTH115 - Path normalizes it
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
            return None
        raise storage_error("checked", f"file://{path}", error) from error


def _mode_of(path: Path) -> int | None:
    """Return the mode of a path, None if there is none; unlike ``Path.exists()``, no other error means that."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_kept_by_sticky_bit(file: Path) -> bool:
    """Whether only another user may replace a file, because of its folder's sticky bit (rename(2), EPERM)."""
    with contextlib.suppress(OSError):  # no file, or none that could be replaced anyway
        folder = file.parent.stat()
        return bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, file.stat().st_uid, folder.st_uid)
    return False


def absolute(path: str) -> Path:
    """Return the absolute path of a destination; an unknown ``~user`` stays a folder of that name."""
    return Path(os.path.expanduser(re.sub("^//+", "/", path))).absolute()  # noqa: PTH111 - Path.expanduser raises
