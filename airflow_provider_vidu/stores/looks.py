"""What one look at a local path shows, of a link, a folder or a file that other processes may change meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.stores.base import storage_error


def dangling(link: Path, target: str) -> FileNotFoundError:
    """Return the error of a link among a path's folders that leads nowhere: no folder is created through it."""
    return FileNotFoundError(errno.ENOENT, f"{str(link)!r} is a symbolic link to {target!r}, which does not exist")


def target_of(path: Path) -> str | None:
    """Return where a link leads, None if it is not one, or not any more: another process may have removed it."""
    try:
        return sanitized(os.readlink(path), 200)  # noqa: PTH115 - Path normalizes it
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
            return None
        raise storage_error("checked", f"file://{path}", error) from error


def mode_of(path: Path) -> int | None:
    """Return the mode of a path, None if there is none; unlike ``Path.exists()``, no other error means that."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_kept_by_sticky_bit(file: Path) -> bool:
    """Whether only another user may replace a file, because of its folder's sticky bit (rename(2), EPERM)."""
    with contextlib.suppress(OSError):  # no file, or none that could be replaced anyway
        folder = file.parent.stat()
        return bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, file.stat().st_uid, folder.st_uid)
    return False
