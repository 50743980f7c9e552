"""Files in the stores that fsspec supports."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduStorageError
from airflow_provider_vidu.stores.base import (
    MIB,
    READ_BYTES,
    FsspecWriter,
    StoredFile,
    of_store,
    storage_error,
    temporary_name,
)
from airflow_provider_vidu.stores.schemes import S3, STORES, is_forbidden, reading_advice
from airflow_provider_vidu.stores.uploads import UPLOADS

log = logging.getLogger(__name__)

MOST_LISTED: Final = 1_000
"""Of a longer listing, which a page of S3 cannot hold, nothing is read: each of the names is looked for."""
_UNPACKED: Final = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd"})


class RemoteFile(StoredFile):
    """A file in a store that fsspec supports."""

    def __init__(self, fs: Any, protocol: str, path: str, uri: str) -> None:
        self._fs = fs
        self._protocol = protocol
        self._store = STORES.get(protocol)
        self._path = path
        self.name = path.rpartition("/")[2]
        self.uri = uri

    def size(self) -> int | None:
        """Return the size of the existing file, or None."""
        try:
            self._fs.invalidate_cache()
            info = self._fs.info(self._path)
        except Exception as error:  # each store has its own exceptions
            reported = of_store(error, self.uri)
            if isinstance(reported, FileNotFoundError):
                return None
            advice = reading_advice(self._protocol) if is_forbidden(reported) else ""
            raise storage_error("checked", self.uri, error, advice=advice) from error
        if info.get("type") == "directory":
            # In object stores only a prefix of other keys; a file can have the same name.
            if self._store:
                return None
            raise ViduConfigError(f"destination {self.uri!r} is a folder: end it with a slash.")
        size = info.get("size")
        # Some file systems report no size; only an empty file may be replaced, so one byte is enough.
        return int(size) if size is not None else len(next(iter(self.read()), b""))

    def check(self) -> None:
        """Refuse a folder, in stores that have folders."""
        if self._store is None:
            with contextlib.suppress(ViduStorageError):  # the role may have only permission to write
                self.size()

    def rehearse(self) -> None:
        """Begin to write this file and take it back, so that what prevents it shows.

        :raises ViduConfigError: when the name belongs to a folder.
        :raises ViduStorageError: when the store refuses it, or cannot be reached.
        """
        self.check()
        writer = self.writer(None, replace=True)
        try:
            writer.begin()
        finally:
            writer.discard()

    def read(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        try:
            with self._fs.open(self._path, "rb") as file:
                read_in_parts(file)
                while data := file.read(READ_BYTES):
                    yield data
        except ViduError:
            raise
        except Exception as error:  # each store has its own exceptions
            raise storage_error("read", self.uri, error) from error

    def remove(self) -> None:
        """Remove the file, if there is one."""
        try:
            self._fs.rm_file(self._path)
        except FileNotFoundError:
            return
        except Exception as error:  # each store has its own exceptions
            raise storage_error("removed", self.uri, error) from error

    def writer(self, total: int | None, *, replace: bool, content_type: str | None = None) -> FsspecWriter:
        """Begin a new file in the way this store can publish it atomically."""
        try:
            if self._store:
                upload = UPLOADS[self._store]
                return upload(self._fs, self._path, self.uri, total, replace=replace, content_type=content_type)
            return MovedWriter(self._fs, self._path, self.uri, replace=replace)
        except ViduError:
            raise
        except Exception as error:  # each store has its own exceptions
            raise storage_error("written", self.uri, error) from error


def existing_names(fs: Any, protocol: str, folder: str, names: Sequence[str]) -> Sequence[str]:
    """Return those of ``names`` that exist in a folder, in their order, by one listing instead of a request for each.

    If the store does not support it, the role may not list, or others have put very many files beside these, all names
    are returned.

    :param folder: bucket and key prefix, without a final slash.
    :param names: file names that differ only in their extensions; at least one.
    """
    if protocol not in STORES:
        return names
    # The file systems of Google and Azure read all pages.
    limit = {"max_items": MOST_LISTED} if STORES[protocol] is S3 else {}
    try:
        fs.invalidate_cache()
        keys = set(fs.find(folder, prefix=names[0].rpartition(".")[0] + ".", **limit))
    except Exception as error:  # noqa: BLE001 - the check of a single name reports the problem
        return [] if isinstance(of_store(error, f"{protocol}://{folder}/"), FileNotFoundError) else names
    return [name for name in names if f"{folder}/{name}" in keys] if len(keys) < MOST_LISTED else names


def part_of_s3(fs: Any, path: str, start: int, stop: int) -> bytes:
    """Return a part of an object; what a store sends beyond it is not read.

    :param fs: a file system of s3fs.
    """
    from fsspec.asyn import sync

    async def read() -> bytes:
        bucket, key, version = fs.split_path(path)
        named = {"VersionId": version} if version else {}
        wanted = f"bytes={start}-{stop - 1}"
        answer = await _Parts(fs)._call_s3("get_object", Bucket=bucket, Key=key, Range=wanted, **named, **fs.req_kw)
        body: _Part = answer["Body"]
        try:
            return await body.read()
        finally:
            body.close()

    found: bytes = sync(fs.loop, read)
    return found


def read_in_parts(file: Any) -> None:
    """Have an opened file take no more of an answer than the part that it requests.

    :param file: of any file system of fsspec; all but those of s3fs stay as they are.
    :raises ViduConfigError: when the store's client would unpack the parts.
    """
    fs = getattr(file, "fs", None)
    if hasattr(fs, "_call_s3"):
        file.fs = _Parts(fs)
    elif _is_of_store(fs) and (coding := unpacked_coding(file.details)):
        raise ViduConfigError(
            f"{sanitized(file.path, 300)} cannot be read: its store keeps it with Content-Encoding {coding}, so that a "
            "part of it is not what it seems. Store it without."
        )


def unpacked_coding(known: Mapping[str, Any]) -> str | None:
    """Return the Content-Encoding of an object of Google or Azure that their clients would unpack, or None.

    A writer of the object sets it. Two megabytes of gzip took two gigabytes, and the size that the store reports
    is the packed one.

    :param known: what its file system reports of it.
    """
    coding = known.get("contentEncoding") or getattr(known.get("content_settings"), "content_encoding", None)
    coding = str(coding or "").strip().lower()
    return coding if coding in _UNPACKED else None


def _is_of_store(fs: Any) -> bool:
    protocol = getattr(fs, "protocol", ())
    return any(name in STORES for name in ([protocol] if isinstance(protocol, str) else protocol))


class _Parts:
    """A file system of s3fs, as its files use it.

    Some stores that are compatible with S3 ignore a range: s3fs took the whole object into memory for each part.
    """

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    async def _call_s3(self, method: str, *args: Any, **settings: Any) -> Any:
        answer = await self._fs._call_s3(method, *args, **settings)
        if wanted := settings.get("Range"):
            start, last = map(int, wanted.removeprefix("bytes=").split("-"))
            answer["Body"] = _Part(answer["Body"], 0 if answer.get("ContentRange") else start, last + 1 - start)
        return answer


class _Part:
    """The body of an answer, of which a part is read.

    :param skipped: how many bytes the store sends before it.
    """

    def __init__(self, body: Any, skipped: int, length: int) -> None:
        self._body = body
        self._skipped = skipped
        self._length = length
        self.close = body.close

    async def read(self) -> bytes:
        part, skipped = bytearray(), self._skipped
        while (left := skipped + self._length - len(part)) and (data := await self._body.read(min(left, MIB))):
            part += data[skipped:]
            skipped -= min(skipped, len(data))
        return bytes(part)


class MovedWriter(FsspecWriter):
    """A temporary file in the destination's folder, moved over the destination at the end."""

    def __init__(self, fs: Any, path: str, uri: str, *, replace: bool) -> None:
        super().__init__(fs, path, uri, replace=replace)
        folder, _, name = path.rpartition("/")
        self._temporary = f"{folder}/{temporary_name(name)}" if folder else temporary_name(name)
        refused = _refusal_of_folders(fs, folder) if folder else None
        try:
            self._file = fs.open(self._temporary, "wb")
        except Exception as error:  # noqa: BLE001 - each store has its own exceptions
            raise refused or error from None

    def _begin(self) -> None:
        """Rename the empty file, as publishing does: a role may be allowed to write but not to rename."""
        self._file.close()
        renamed = f"{self._temporary}.new"
        self._move(self._temporary, renamed)
        self._temporary = renamed

    def _complete(self) -> None:
        self._file.close()
        try:
            self._move(self._temporary, self._path)
        except FileExistsError:
            if not self._replace:
                raise
            self._move_in_two_steps()

    def _move_in_two_steps(self) -> None:
        """Replace a file in stores that cannot move over one (SFTP, SMB).

        Between the steps no file has the name. If the second step fails, the old file is moved back.
        """
        aside = f"{self._temporary}.old"
        self._move(self._path, aside)
        try:
            self._move(self._temporary, self._path)
        except BaseException as error:
            try:
                self._move(aside, self._path)
            except Exception:  # noqa: BLE001 - the first failure matters more
                raise OSError(f"{redacted(error, 120)}; the old file is now {aside!r}") from error
            raise
        try:
            self._fs.rm_file(aside)
        except Exception as error:  # noqa: BLE001 - the new file is published
            log.warning("The replaced file could not be removed and remains as %s: %s", aside, redacted(error))

    def _move(self, source: str, target: str) -> None:
        from fsspec.spec import AbstractFileSystem

        if getattr(self._fs.mv, "__func__", None) is AbstractFileSystem.mv:
            # fsspec's own mv reads the name as a pattern and would not find "a[1].mp4".
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


def _refusal_of_folders(fs: Any, folder: str) -> Exception | None:
    """Create the folders of a file; return the error if that failed.

    Some servers refuse it to a role that may only write files, also for a folder that is there.
    """
    try:
        fs.makedirs(folder, exist_ok=True)
    except Exception as error:  # noqa: BLE001 - the file may be creatable all the same
        return error
    return None
