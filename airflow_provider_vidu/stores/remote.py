"""Files in stores that fsspec speaks with."""

from __future__ import annotations

import contextlib
import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import ViduConfigError, ViduDownloadRefusedError, ViduError, ViduStorageError
from airflow_provider_vidu.stores.base import (
    MIB,
    READ_BYTES,
    AtomicWriter,
    StoredFile,
    file_exists_error,
    storage_error,
    temporary_name,
)
from airflow_provider_vidu.stores.schemes import (
    WITH_UPLOADS,
    is_forbidden,
    is_not_implemented,
    is_precondition_failed,
    is_refusal,
    labels,
    reading_advice,
)

log = logging.getLogger(__name__)

UPLOAD_BYTES: Final = 5 * MIB
"""Size of an upload's parts, and with it the memory an upload takes (about three times this)."""
MAX_PART_BYTES: Final = 64 * MIB
"""The most that a part grows to for a large file: what a server announces must not decide about the worker's memory."""
MOST_PARTS: Final = 9_500  # S3 accepts 10,000


class RemoteFile(StoredFile):
    """A file in a store that fsspec speaks with."""

    def __init__(self, fs: Any, protocol: str, path: str, uri: str) -> None:
        self._fs = fs
        self._protocol = protocol
        self._path = path
        self.name = path.rpartition("/")[2]
        self.uri = uri

    def size(self) -> int | None:
        """Return the size of the file that is there, or None."""
        try:
            self._fs.invalidate_cache()
            found = self._fs.info(self._path)
        except FileNotFoundError:
            return None
        except Exception as error:  # each store has exceptions of its own
            advice = reading_advice(self._protocol) if is_forbidden(error) else ""
            raise storage_error("looked at", self.uri, error, advice=advice) from error
        if found.get("type") == "directory":
            # On object stores, a mere prefix of other keys; a file may well have the same name.
            if self._protocol in WITH_UPLOADS:
                return None
            raise ViduConfigError(f"destination {self.uri!r} is a folder: end it with a slash.")
        size = found.get("size")
        # Some file systems tell no sizes. Whether there is anything at all decides about replacing it.
        return int(size) if size is not None else len(next(iter(self.read()), b""))

    def check(self) -> None:
        """Find out whether there is a folder, in stores that have folders."""
        if self._protocol not in WITH_UPLOADS:
            with contextlib.suppress(ViduStorageError):  # who may only write is not asked to read
                self.size()

    def read(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        try:
            with self._fs.open(self._path, "rb") as file:
                while data := file.read(READ_BYTES):
                    yield data
        except Exception as error:  # each store has exceptions of its own
            raise storage_error("read", self.uri, error) from error

    def sink(self, total: int | None, *, replace: bool, content_type: str | None = None) -> AtomicWriter:
        """Begin a new file, in the way that this store can publish at once."""
        try:
            if self._protocol in WITH_UPLOADS:
                headers = labels(self._protocol, self._fs, content_type) if content_type else {}
                return UploadWriter(self._fs, self._path, self.uri, total, replace=replace, headers=headers)
            return MovedWriter(self._fs, self._path, self.uri, replace=replace)
        except ViduError:
            raise
        except Exception as error:  # each store has exceptions of its own
            raise storage_error("written", self.uri, error) from error


def listed(fs: Any, protocol: str, folder: str, names: Sequence[str]) -> Sequence[str]:
    """Return which of ``names`` there are in a folder, in their order: one listing instead of a question for each.

    Where the store cannot be listed so, or this role may not, all of them are returned.

    :param fs: the file system.
    :param protocol: its scheme.
    :param folder: bucket and key prefix, without a slash at the end.
    :param names: file names that differ in their extensions alone; at least one.
    """
    if protocol not in WITH_UPLOADS:
        return names
    try:
        fs.invalidate_cache()
        found = set(fs.find(folder, prefix=names[0].rpartition(".")[0] + "."))
    except FileNotFoundError:
        return []
    except Exception:  # noqa: BLE001 - whatever is wrong shows again, with the reason, when a single name is looked at
        return names
    return [name for name in names if f"{folder}/{name}" in found]


class _FileWriter(AtomicWriter):
    """What both ways over fsspec share: an open file, and errors that name the destination."""

    def __init__(self, fs: Any, path: str, uri: str, *, replace: bool) -> None:
        self._fs = fs
        self._path = path
        self._uri = uri
        self._replace = replace
        self._file: Any = None
        self._done = False

    def write(self, data: memoryview) -> None:
        """Append to the upload."""
        try:
            self._file.write(data)
        except Exception as error:  # each store has exceptions of its own
            raise storage_error("written", self._uri, error) from error

    def publish(self) -> None:
        """Complete the file."""
        try:
            if not self._replace:
                self._fs.invalidate_cache()
                if self._fs.exists(self._path):
                    raise file_exists_error(self._uri)
            self._complete()
        except FileExistsError:
            raise file_exists_error(self._uri) from None
        except ViduDownloadRefusedError:
            raise
        except Exception as error:  # each store has exceptions of its own
            published = self._is_published(error)
            if not published:
                if not self._replace and is_precondition_failed(error):
                    raise file_exists_error(self._uri) from None
                raise storage_error("completed", self._uri, error, certain=published is not None) from error
            log.warning("The store lost its last answer (%s), but %s is there, whole.", redacted(error), self._uri)
        self._done = True

    def discard(self) -> None:
        """Abort, and leave nothing behind where that is possible."""
        if self._done:
            return
        self._done = True
        try:
            self._abandon()
        except Exception as error:  # noqa: BLE001 - best effort; why it is discarded matters more
            log.warning("Left-overs of %s could not be removed: %s", self._uri, redacted(error))

    def _is_published(self, error: Exception) -> bool | None:
        """Return whether the file was completed although the store reported ``error``; None where nobody can tell."""
        return False

    @abstractmethod
    def _complete(self) -> None: ...

    @abstractmethod
    def _abandon(self) -> None: ...


class UploadWriter(_FileWriter):
    """A multi-part upload of S3, GCS or Azure: invisible until it is completed.

    ``autocommit=False`` keeps a file that is closed or collected by accident from being published;
    adlfs has no such switch, it publishes only when the file is closed.

    :param headers: arguments of ``fs.open`` beside the usual ones (:func:`labels`).
    :raises OSError: when what is written would be visible at once.
    :raises ViduDownloadRefusedError: when the announced size needs more or larger parts than there may be.
    """

    def __init__(
        self,
        fs: Any,
        path: str,
        uri: str,
        total: int | None,
        *,
        replace: bool,
        headers: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(fs, path, uri, replace=replace)
        size = _part_size(total or 0)
        self._block = self._room = size
        self._left = size * MOST_PARTS
        self._headers = headers or {}
        self._file = self._opened("wb" if replace else "xb", size)
        if hasattr(self._file, "aaow"):
            # Newer gcsfs (seen: 2026.10) appends to objects of Google's zonal buckets, under their final names, and
            # cannot take it back: its discard() only logs that.
            _leave(self._file)
            raise OSError("files in a zonal bucket are visible while they are written; use another bucket")

    def __del__(self) -> None:
        # Who forgets a sink publishes nothing. The collector would close the file: that publishes on Azure, and at the
        # end of a process it waits for a loop that runs no more (seen: minutes).
        _leave(self._file)

    def _opened(self, mode: str, size: int) -> Any:
        try:
            return self._fs.open(self._path, mode, block_size=size, autocommit=False, **self._headers)
        except (NotImplementedError, ValueError):
            # With "xb" the store itself refuses to replace a file that came in the meantime. File systems
            # from before 2024.9 do not know it; the look before the end has to do then.
            if mode == "wb":
                raise
            return self._opened("wb", size)

    def write(self, data: memoryview) -> None:
        """Append to the upload, so that its parts are of one size.

        Older gcsfs (seen: 2025.5) sends all that it holds when that is a part or more, and Google takes only
        multiples of 256 KiB.
        """
        self._left -= len(data)
        if self._left < 0:
            raise _too_large(f"more than {self._block * MOST_PARTS:,} bytes without announcing how many")
        while len(data):
            piece, data = data[: self._room], data[self._room :]
            super().write(piece)
            self._room = self._room - len(piece) or self._block

    def _complete(self) -> None:
        if self._google is not None:
            # Older gcsfs sends the rest as a part like any other, which Google refuses, unless it is told before that
            # this completes the upload.
            self._file.autocommit = True
            self._file.close()
            return
        self._file.close()
        if _overrides(self._file, "commit"):
            self._commit()
        settings = self._headers.get("content_settings")
        if settings and not hasattr(self._file, "_content_settings"):
            _label_on_azure(self._file, settings, self._uri)

    def _commit(self) -> None:
        try:
            self._file.commit()
        except Exception as error:
            # Some stores that speak S3 know no conditional writes. They were asked for the file right before.
            if self._replace or not is_not_implemented(error):
                raise
            log.warning(
                "The store cannot refuse to replace a file by itself (%s): one that another task completes at %s in "
                "this very moment is replaced.",
                redacted(error, 80),
                self._uri,
            )
            self._file.mode = "wb"
            self._file.commit()

    @property
    def _google(self) -> Any:
        """Google's file system, or None for the other stores."""
        return getattr(self._file, "gcsfs", None)

    def _is_published(self, error: Exception) -> bool | None:
        # Only this process knows the upload. If it can be aborted, it was not completed; if the store does not
        # know it any more, the request has arrived and its answer was lost.
        if not _overrides(self._file, "discard"):
            return False if is_refusal(error) else None
        try:
            if self._is_complete_on_google():
                return True
            self._file.discard()
        except FileNotFoundError:
            return self._is_there_whole()
        except Exception:  # noqa: BLE001 - the store cannot be asked; why it failed first matters more
            return None
        return False

    def _is_there_whole(self) -> bool | None:
        """Return whether the object has the size of what was written; None for a role that may not look."""
        try:
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path) and self._fs.info(self._path).get("size") == self._file.tell())
        except Exception:  # noqa: BLE001 - as above
            return None

    def _is_complete_on_google(self) -> bool:
        """Ask Google what became of the upload; False for the other stores.

        There, cancelling an upload tells nothing: it is answered alike (499) when the upload is complete.
        """
        if self._google is None or not self._file.location:
            return False
        _, content = self._google.call(
            "PUT", self._file.location, headers={"Content-Range": "bytes */*", "Content-Length": "0"}
        )
        return bool(content)  # a complete upload is answered with its object, an open one (308) with nothing

    def _abandon(self) -> None:
        try:
            if _overrides(self._file, "discard"):
                self._file.discard()
        finally:
            _leave(self._file)  # it may outlive this sink


class MovedWriter(_FileWriter):
    """A temporary file beside the destination, moved over it at the end."""

    def __init__(self, fs: Any, path: str, uri: str, *, replace: bool) -> None:
        super().__init__(fs, path, uri, replace=replace)
        folder, _, name = path.rpartition("/")
        self._temporary = f"{folder}/{temporary_name(name)}" if folder else temporary_name(name)
        if folder:
            fs.makedirs(folder, exist_ok=True)
        self._file = fs.open(self._temporary, "wb")

    def _complete(self) -> None:
        self._file.close()
        try:
            self._move()
        except FileExistsError:
            if not self._replace:
                raise
            self._move_in_two_steps()

    def _move_in_two_steps(self) -> None:
        """Replace a file in stores that never move over one (SFTP, SMB).

        Between the steps there is no file under the name. If the second one fails, the old file goes back.
        """
        aside = f"{self._temporary}.old"
        self._move(self._path, aside)
        try:
            self._move()
        except BaseException as error:
            try:
                self._move(aside, self._path)
            except Exception:  # noqa: BLE001 - why the new file did not get there matters more
                raise OSError(f"{redacted(error, 120)}; the old file is now {aside!r}") from error
            raise
        try:
            self._fs.rm_file(aside)
        except Exception as error:  # noqa: BLE001 - the new file is there
            log.warning("The replaced file is left over as %s: %s", aside, redacted(error))

    def _move(self, source: str = "", target: str = "") -> None:
        from fsspec.spec import AbstractFileSystem

        source, target = source or self._temporary, target or self._path
        if type(self._fs).mv is AbstractFileSystem.mv:
            # fsspec's own takes the name for a pattern: "a[1].mp4" would not be found.
            self._fs.cp_file(source, target)
            self._fs.rm_file(source)
        else:
            self._fs.mv(source, target)

    def _abandon(self) -> None:
        try:
            self._file.close()
        finally:
            if self._fs.exists(self._temporary):
                self._fs.rm_file(self._temporary)


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


def _label_on_azure(file: Any, settings: dict[str, str], uri: str) -> None:
    """Give a blob its content type; adlfs before 2026.8 cannot do so while it commits the blob."""
    from azure.storage.blob import ContentSettings
    from fsspec.asyn import sync

    async def label() -> None:
        async with file.container_client.get_blob_client(blob=file.blob) as client:
            await client.set_http_headers(content_settings=ContentSettings(**settings))

    try:
        sync(file.loop, label)
    except Exception as error:  # noqa: BLE001 - the file is published, whole
        log.warning("%s is stored, but without its content type %s: %s", uri, settings["content_type"], redacted(error))


def _leave(file: Any) -> None:
    """Let a file be as it is: its finalizer closes what is not closed yet, and with it sends and publishes."""
    with contextlib.suppress(AttributeError):  # not one of fsspec's own kind
        file.closed = True


def _overrides(file: Any, method: str) -> bool:
    from fsspec.spec import AbstractBufferedFile

    return getattr(type(file), method, None) not in (None, getattr(AbstractBufferedFile, method))
