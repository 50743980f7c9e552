"""A create's request whose media may be files: read once, hashed, and sent inline or by the service's upload.

The limits come from the API's pages (platform.vidu.com/docs, "Image to Video" and "Reference to Image"): png, jpeg
or webp; below 10 MB each when sent as base64; a request body of at most 20 MB; 50 MB by the upload service.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast
from urllib.parse import unquote

from airflow_provider_vidu.content import SNIFF_BYTES, sniffed
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduNotFoundError, ViduStorageError
from airflow_provider_vidu.json_values import unfit
from airflow_provider_vidu.media_fields import Inline, Kind, MediaField, address, replaced
from airflow_provider_vidu.roots import check_input, check_opened, local_path
from airflow_provider_vidu.telling import size as size_text
from airflow_provider_vidu.text import shown

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook

MAX_IMAGE_BYTES: Final = 10_000_000
MAX_BODY_BYTES: Final = 20_000_000
MAX_UPLOAD_BYTES: Final = 50_000_000
_PIECE_BYTES: Final = 1024 * 1024
_IN_MEMORY_BYTES: Final = 4 * 1024 * 1024
"""Of a larger file no more is held in memory; the rest of it is on disk until the request has been sent."""

_IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/webp"})
_ADVICE: Final = "Put it on the web and give its address instead."


class MediaFile:
    """A file that a request names, read at most once.

    :param source: a local path, a URL of an object store, or a path object of Airflow or ``pathlib``.
    :param kind: what it must be.
    :param where: the field that names it, for errors.
    :param storage_conn_id: the Airflow connection of its store, unless the URL names one.
    """

    def __init__(self, source: Any, kind: Kind, where: str, storage_conn_id: str | None) -> None:
        self._source = source.strip() if isinstance(source, str) else source
        self._kind = kind
        self._where = where
        self._storage_conn_id = storage_conn_id
        self._content: BinaryIO | None = None
        self.content_type = ""
        self.sha256 = ""
        self.size = 0

    @property
    def content(self) -> BinaryIO:
        """The bytes, as a temporary file that nobody else can open."""
        self.load()
        assert self._content is not None
        return self._content

    def load(self) -> None:
        """Read the file.

        :raises ViduConfigError: when it is missing, not allowed, too large or of another kind.
        :raises ViduStorageError: when its store failed in a way that may pass.
        """
        if self._content is not None:
            return
        # The file is unlinked from the start, so nothing is left behind whatever ends the process.
        content = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES))  # noqa: SIM115
        digest = hashlib.sha256()
        try:
            with self._opened() as source:
                while self.size <= MAX_UPLOAD_BYTES and (piece := source.read(_PIECE_BYTES)):
                    content.write(piece)
                    digest.update(piece)
                    self.size += len(piece)
            self._check(content)
        except BaseException:  # whatever ends it, nothing half-read may stay
            content.close()
            self.size = 0
            raise
        self._content, self.sha256 = content, digest.hexdigest()

    def data_uri(self) -> str:
        """Return the file as a data URI."""
        self.content.seek(0)
        return f"data:{self.content_type};base64,{base64.b64encode(self.content.read()).decode()}"

    def close(self) -> None:
        """Let go of the bytes."""
        if self._content is not None:
            self._content.close()
            self._content = None
            self.size = 0

    def error(self, problem: str) -> ViduConfigError:
        """Return the error that names field and file."""
        return ViduConfigError(f"{self._where}: the file {shown(self._source)} {problem}")

    def _check(self, content: BinaryIO) -> None:
        if self.size > MAX_UPLOAD_BYTES:
            raise self.error(f"is larger than {MAX_UPLOAD_BYTES:,} bytes, the most that the service takes. {_ADVICE}")
        content.seek(0)
        found = sniffed(content.read(SNIFF_BYTES))
        if self._kind == "image" and found not in _IMAGES:
            raise self.error(f"is none of png, jpeg, webp{_proven(found)}. Nothing was sent.")
        if found is None or not found.startswith(f"{self._kind}/"):
            raise self.error(f"is not {'a video' if self._kind == 'video' else 'a sound'}{_proven(found)}.")
        self.content_type = found

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """Open the file, wherever it is, and turn what a store raises into this package's errors."""
        try:
            with self._open() as source:
                yield source
        except ViduError:
            raise
        except Exception as error:  # every store has errors of its own
            reason = f"cannot be read: {shown(_reason(error)).rstrip('.')}."
            if _is_final(error):
                raise self.error(reason) from error
            raise ViduStorageError(self.error(reason).reason) from error

    def _open(self) -> BinaryIO:
        source = self._source
        # The paths of Airflow before 3.0 look like those of pathlib, but lead elsewhere.
        is_storage_path = hasattr(source, "protocol")
        if isinstance(source, os.PathLike) and not is_storage_path:
            return _open_local(os.fspath(source))
        path = local_path(str(source))
        if path is not None and (isinstance(source, str) or is_storage_path):
            return _open_local(path, is_uri="://" in str(source))
        check_input(str(source))
        if not isinstance(source, str):
            return cast("BinaryIO", source.open("rb"))
        return cast("BinaryIO", _object_path(source, self._storage_conn_id).open("rb"))


def _object_path(uri: str, storage_conn_id: str | None) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    # Which of two connections wins is not left to Airflow, whose versions differ.
    scheme, _, rest = uri.partition("://")
    netloc, slash, key = rest.partition("/")
    conn_id, _, bucket = netloc.rpartition("@")
    return ObjectStoragePath(
        f"{scheme.lower()}://{bucket}{slash}{key}", conn_id=unquote(conn_id) or storage_conn_id or None
    )


def _open_local(path: str, *, is_uri: bool = False) -> BinaryIO:
    """Open a regular file; a pipe or a device would hold the worker, or do something when it is opened.

    :param is_uri: whether it may be percent-encoded, as in the record of a download. A file of that very name wins.
    """
    if is_uri and not os.path.exists(path):  # noqa: PTH110 - no object for each look
        path = unquote(path)
    check_input(path)
    _check_regular(os.stat(path))  # noqa: PTH116
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _check_regular(os.fstat(descriptor))
        check_opened(descriptor, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:  # whatever ends it, the descriptor may not stay open
        os.close(descriptor)
        raise


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError("it is not a regular file")


def _is_final(error: Exception) -> bool:
    """Whether reading the file again would fail in the same way."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    # An OSError is no ValueError, but fsspec raises both for what it does not know.
    final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError)
    return isinstance(error, (*final, ImportError, AirflowNotFoundException))


def _reason(error: Exception) -> str:
    known = {FileNotFoundError: "it does not exist", PermissionError: "permission denied"}
    told = next((text for kind, text in known.items() if isinstance(error, kind)), None)
    return told or (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _proven(found: str | None) -> str:
    return f"; its first bytes say {found}" if found else ""


class _Place:
    """A file in one field of a request."""

    def __init__(self, file: MediaFile, field: MediaField, where: str) -> None:
        self.file = file
        self.field = field
        self.where = where


class Prepared:
    """A request as the user wrote it, and what becomes of its files when it is really sent.

    :param body: the request; its media fields may name files.
    :param storage_conn_id: the Airflow connection of the object storage that files lie in.
    :raises ViduConfigError: when a media field holds neither an address nor a path, or another one what JSON cannot.
    """

    def __init__(self, body: Mapping[str, Any], storage_conn_id: str | None = None) -> None:
        self._storage_conn_id = storage_conn_id
        self._files: dict[tuple[str, Kind], MediaFile] = {}
        self._places: list[_Place] = []
        self._body = replaced(body, self._placed)
        if told := unfit(self._filled(lambda place: place.where)):
            raise ViduConfigError(f"{told} Nothing was submitted.")

    def identity(self) -> dict[str, Any]:
        """Return the request with digests in place of its files: the same for the same files, wherever they are.

        What is sent is no such name: an upload has another address at every try.

        :raises ViduError: when a file cannot be read, or is not what its field takes.
        """
        for place in self._places:
            place.file.load()
        return self._filled(lambda place: f"sha256:{place.file.sha256}")

    def resolve(self, hook: ViduHook, log: Any = None) -> dict[str, Any]:
        """Return the request as it is sent: files become data URIs, or are uploaded, which costs nothing.

        :param hook: uploads what does not fit into the request, or into its field.
        :param log: gets one line for each upload.
        :raises ViduError: when a file cannot be read or sent.
        """
        total = len(json.dumps(self.identity(), default=str, skipkeys=True))
        if total > MAX_BODY_BYTES:
            raise ViduConfigError(f"The request has {total:,} bytes; the API takes {MAX_BODY_BYTES:,}. {_ADVICE}")
        sender = _Sender(hook, log, MAX_BODY_BYTES - total)
        values = {place: sender.sent(place) for place in self._places}
        return self._filled(values.__getitem__)

    def close(self) -> None:
        """Let go of the bytes of all files."""
        for file in self._files.values():
            file.close()

    def _placed(self, value: Any, field: MediaField, where: str) -> Any:
        if (known := address(str(value))) is not None:
            return known
        key = (str(value), field.kind)
        file = self._files.setdefault(key, MediaFile(value, field.kind, where, self._storage_conn_id))
        self._places.append(_Place(file, field, where))
        return self._places[-1]

    def _filled(self, value_of: Callable[[_Place], str]) -> dict[str, Any]:
        def filled(value: Any) -> Any:
            if isinstance(value, _Place):
                return value_of(value)
            if isinstance(value, dict):
                return {name: filled(item) for name, item in value.items()}
            return [filled(item) for item in value] if isinstance(value, list) else value

        found: dict[str, Any] = filled(self._body)
        return found


class _Sender:
    """Decides for one file after the other whether it goes into the request, and sends it where it does not."""

    def __init__(self, hook: ViduHook, log: Any, room: int) -> None:
        self._hook = hook
        self._log = log
        self._room = room
        self._uploaded: dict[str, str] = {}

    def sent(self, place: _Place) -> str:
        """Return the address of a file: its data URI, or that of its upload."""
        inline, has_uploads = place.field.inline, self._hook.config.dialect.upload() is not None
        if inline is Inline.YES and self._fits(place):
            return self._inlined(place)
        if has_uploads:
            try:
                return self._upload(place)
            except ViduNotFoundError as error:  # resellers of the API need not have it
                if inline is not Inline.IF_NEEDED or not self._fits(place):
                    raise place.file.error(f"must be uploaded, and this service takes no uploads. {_ADVICE}") from error
        elif inline is Inline.NO or not self._fits(place):
            raise self._cannot_be_sent(place)
        return self._inlined(place)

    def _fits(self, place: _Place) -> bool:
        limit = MAX_IMAGE_BYTES if place.field.kind == "image" else MAX_BODY_BYTES
        return place.file.size <= limit and place.file.size * 4 // 3 + 100 <= self._room

    def _inlined(self, place: _Place) -> str:
        uri = place.file.data_uri()
        self._room -= len(uri)
        return uri

    def _upload(self, place: _Place) -> str:
        file = place.file
        if file.sha256 not in self._uploaded:
            self._uploaded[file.sha256] = self._hook._upload(file.content, file.size, file.content_type)
            if self._log is not None:
                self._log.info(
                    "Uploaded the file of %s (%s of %s)", place.where, size_text(file.size), file.content_type
                )
        return self._uploaded[file.sha256]

    def _cannot_be_sent(self, place: _Place) -> ViduConfigError:
        if place.field.inline is Inline.NO:
            why = "must be uploaded, because this field takes addresses only,"
        elif place.field.kind == "image" and place.file.size > MAX_IMAGE_BYTES:
            why = f"is larger than {MAX_IMAGE_BYTES:,} bytes, the most that the API takes inline,"
        else:
            why = f"makes the request larger than {MAX_BODY_BYTES:,} bytes, the most that the API takes,"
        dialect = self._hook.config.dialect.name
        return place.file.error(f"{why} and the dialect {dialect} has no upload service. {_ADVICE}")
