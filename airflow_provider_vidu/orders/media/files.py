"""A file that a request names: opened in any store, read once, and checked to be of its field's medium."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, cast
from urllib.parse import unquote

from airflow_provider_vidu.common.media_types import SNIFF_BYTES, sniffed
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduStorageError
from airflow_provider_vidu.orders.media.fields import Kind
from airflow_provider_vidu.stores.base import of_store
from airflow_provider_vidu.stores.destination import needed_host, options_of
from airflow_provider_vidu.stores.paths import NO_LOCAL_URI, VERSION_QUERY, local_path, plain_scheme
from airflow_provider_vidu.stores.places import split_connection
from airflow_provider_vidu.stores.remote import read_in_parts
from airflow_provider_vidu.stores.roots import check_input, check_opened
from airflow_provider_vidu.stores.schemes import (
    AZURE,
    S3,
    STORES,
    WEB,
    account_advice,
    is_unknown_scheme,
    missing_advice,
    scheme_of,
)

MAX_UPLOAD_BYTES: Final = 50_000_000
_PIECE_BYTES: Final = 1024 * 1024
_IN_MEMORY_BYTES: Final = 4 * 1024 * 1024
"""The rest of a larger file is on disk until the request has been sent."""

_IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/webp"})
ADVICE: Final = "Put it on the web and give its address instead."
# A name that nothing proves wrong may be a file's; "C:" is a drive.
_LIKE_AN_ADDRESS = re.compile(r"(?i)//|www\.|[a-z][a-z0-9+.-]+:(?!//)|https?//")
_USER = re.compile(r"(://[^/@:]*:)[^/]*@")  # the password in an address, which may hold any other sign


class MediaFile:
    """A file that a request names, read at most once.

    :param source: a local path, a URL of an object store, or a path object of Airflow or ``pathlib``.
    :param where: the field that names it, for errors.
    :param storage_conn_id: the Airflow connection of its store, unless the URL names one.
    """

    def __init__(self, source: Any, kind: Kind, where: str, storage_conn_id: str | None) -> None:
        self._source = plain_scheme(source.strip()) if isinstance(source, str) else source
        self._kind = kind
        self._where = where
        self._storage_conn_id = storage_conn_id
        self._content: BinaryIO | None = None
        self.content_type = ""
        self.sha256 = ""
        self.size = 0

    @property
    def content(self) -> BinaryIO:
        """The bytes, as a temporary file that no other user can open."""
        self.load()
        assert self._content is not None
        return self._content

    def load(self) -> None:
        """Read the file, unless it is loaded.

        :raises ViduConfigError: when it is missing, not allowed, too large or of another medium.
        :raises ViduStorageError: when its store failed for a possibly transient reason.
        """
        if self._content is not None:
            return
        # The file is unlinked from the start, so nothing remains however the process ends.
        content = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES))  # noqa: SIM115 - kept
        digest = hashlib.sha256()
        try:
            with self._opened() as source:
                announced = getattr(source, "size", None)  # by a store, some of which ignore which part is requested
                if isinstance(announced, int) and announced > MAX_UPLOAD_BYTES:
                    raise self._too_large()
                while self.size <= MAX_UPLOAD_BYTES and (piece := source.read(_PIECE_BYTES)):
                    content.write(piece)
                    digest.update(piece)
                    self.size += len(piece)
            self._check(content)
        except BaseException:  # nothing half-read may remain
            content.close()
            self.size = 0
            raise
        self._content, self.sha256 = content, digest.hexdigest()

    def data_uri(self) -> str:
        """Return the file as a data URI."""
        self.content.seek(0)
        return f"data:{self.content_type};base64,{base64.b64encode(self.content.read()).decode()}"

    def close(self) -> None:
        """Release the bytes."""
        if self._content is not None:
            self._content.close()
            self._content = None
            self.size = 0

    def error(self, problem: str) -> ViduConfigError:
        """Return the error, with field and file."""
        name = _USER.sub(r"\1***@", str(self._source))
        return ViduConfigError(f"{self._where}: the file {redacted(name)} {problem}")

    def _too_large(self) -> ViduConfigError:
        return self.error(f"is larger than {MAX_UPLOAD_BYTES:,} bytes, the most that the service takes. {ADVICE}")

    def _check(self, content: BinaryIO) -> None:
        if self.size > MAX_UPLOAD_BYTES:
            raise self._too_large()
        content.seek(0)
        proven = sniffed(content.read(SNIFF_BYTES))
        detail = f"; its first bytes say {proven}" if proven else ""
        if self._kind == "image" and proven not in _IMAGES:
            raise self.error(f"is not png, jpeg or webp{detail}. Nothing was sent.")
        if proven is None or not proven.startswith(f"{self._kind}/"):
            raise self.error(f"is not {'a video' if self._kind == 'video' else 'audio'}{detail}. Nothing was sent.")
        self.content_type = proven

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """Open the file in any store, and convert the store's errors into this package's."""
        try:
            with self._open() as source:
                read_in_parts(getattr(source, "_obj", source))  # Airflow wraps the files of its paths
                yield source
        except ViduError:
            raise
        except Exception as caught:  # every store has errors of its own
            uri = str(self._source)
            error = caught if local_path(uri) is not None else of_store(caught, uri)
            reason = f"cannot be read: {redacted(_reason(error)).rstrip('.')}.{self._advice(error)}"
            if _is_final(error):
                raise self.error(reason) from caught
            raise ViduStorageError(self.error(reason).reason) from caught

    def _open(self) -> BinaryIO:
        source = self._source
        # The paths of Airflow before 3.0 look like those of pathlib, but point elsewhere.
        is_storage_path = hasattr(source, "protocol")
        if isinstance(source, os.PathLike) and not is_storage_path:
            return _open_local(os.fspath(source))
        text = str(source)
        if problem := _problem(text):
            raise self.error(problem)
        path = local_path(text)
        if path is not None and (isinstance(source, str) or is_storage_path):
            return _open_local(os.path.expanduser(path), is_uri="://" in text)  # noqa: PTH111 - as of a destination
        check_input(text)
        return self._open_object(self._object_path(text), text)

    def _object_path(self, text: str) -> Any:
        """Return the path object of a store, with ``storage_conn_id`` unless it names a connection itself."""
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        source, conn_id = self._source, self._storage_conn_id
        if isinstance(source, str):
            return _object_path(source, conn_id)
        if conn_id and isinstance(source, ObjectStoragePath) and split_connection(text)[0] is None:
            return _object_path(text, conn_id, options_of(source))
        return source

    def _open_object(self, path: Any, text: str) -> BinaryIO:
        is_cut = VERSION_QUERY.search(text) and STORES.get(scheme_of(text)) in (S3, AZURE)
        if is_cut and not getattr(path.fs, "version_aware", False):
            # The file systems of S3 and Azure drop it: the newest version would be sent, and paid for.
            raise self.error("names a version, but its store would read the newest one. Give the object alone.")
        try:
            return cast("BinaryIO", path.open("rb"))
        except ValueError as error:
            # Airflow only accepts schemes that a provider registers; fsspec has more, without connections.
            if not is_unknown_scheme(error) or getattr(path, "conn_id", None):
                raise
        import fsspec

        protocol = str(path.protocol)
        if host := needed_host(text):
            raise self._needs_arguments(protocol, f"the host {redacted(host, 80)!r}")
        try:
            fs = fsspec.filesystem(protocol)
        except TypeError as error:  # such as a user, which only an Airflow connection holds
            raise self._needs_arguments(protocol, redacted(error, 160)) from None
        return cast("BinaryIO", fs.open(path.path, "rb"))

    def _needs_arguments(self, protocol: str, which: str) -> ViduConfigError:
        return self.error(
            f"cannot be read: the file system {protocol} needs arguments ({which}), and no installed Airflow provider "
            "creates it from a connection."
        )

    def _advice(self, error: Exception) -> str:
        """Return advice as a further sentence, if the error is due to spelling or installation."""
        text = str(self._source)
        if isinstance(error, ImportError) or is_unknown_scheme(error):
            return f" {missing_advice(scheme_of(text), error)}"
        if isinstance(error, FileNotFoundError) and "://" not in text and _LIKE_AN_ADDRESS.match(text):
            return " An address has :// after its scheme, as in https://example.com/a.png or s3://bucket/a.png."
        return ""


@contextmanager
def opened_input(source: Any, where: str, storage_conn_id: str | None) -> Iterator[BinaryIO]:
    """Open another input file than media within the limits, and with the arguments, of a :class:`MediaFile`.

    :raises ViduConfigError: when it is missing or not allowed.
    :raises ViduStorageError: when its store failed for a possibly transient reason.
    """
    with MediaFile(source, "image", where, storage_conn_id)._opened() as file:
        yield file


def _problem(text: str) -> str | None:
    """Return what is wrong with the spelling of a path, in any store; None if nothing."""
    if advice := account_advice(text):
        return advice
    if scheme_of(text) in WEB:  # fsspec would fetch it, past the connection's proxy and the check of its address
        return "is a web address, which is not fetched. Put it into storage and give its path there."
    if NO_LOCAL_URI.match(text):
        return "names a host, or not an absolute path: the address of a local file begins with file:/// ."
    if "::" in text and "://" in text:
        return "contains '::', with which fsspec chains file systems. Give the path of the file itself."
    if "://" in text and text.endswith("/"):  # the marker of a folder is an empty file, and Azure's client breaks
        return "ends with a slash, as a folder does. Give the path of a file."
    return None


def _object_path(uri: str, storage_conn_id: str | None, options: Mapping[str, Any] | None = None) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    # Airflow's versions differ in which of two connections wins, so it is decided here.
    scheme, _, rest = uri.partition("://")
    netloc, slash, key = rest.partition("/")
    conn_id, _, bucket = netloc.rpartition("@")
    named = unquote(conn_id) or storage_conn_id or None
    return ObjectStoragePath(f"{scheme}://{bucket}{slash}{key}", conn_id=named, **(options or {}))


def _open_local(path: str, *, is_uri: bool = False) -> BinaryIO:
    """Open a regular file; a pipe or a device could block the worker, or act when it is opened.

    :param is_uri: whether it may be percent-encoded, as in the record of a download. An existing file of that very
        name wins.
    """
    if is_uri and not os.path.exists(path):  # noqa: PTH110 - Path drops a final slash
        path = unquote(path)
    check_input(path)
    _check_regular(os.stat(path))  # noqa: PTH116 - Path drops a final slash
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _check_regular(os.fstat(descriptor))
        check_opened(descriptor, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:  # the descriptor must not stay open
        os.close(descriptor)
        raise


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError("it is not a regular file")


def _is_final(error: Exception) -> bool:
    """Whether reading the file again would fail in the same way."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    # fsspec raises OSError and ValueError for what it does not recognize.
    final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError)
    return isinstance(error, (*final, ImportError, AirflowNotFoundException))


def _reason(error: Exception) -> str:
    known = {FileNotFoundError: "it does not exist", PermissionError: "permission denied"}
    explained = next((text for kind, text in known.items() if isinstance(error, kind)), None)
    return explained or (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
