"""A create's request with media files: read once, hashed, and sent inline or by the service's upload.

The limits come from the API's pages (platform.vidu.com/docs, "Image to Video" and "Reference to Image"): png, jpeg
or webp; below 10 MB each when sent as base64; a request body of at most 20 MB; 50 MB by the upload service.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.api.json_values import unfit
from airflow_provider_vidu.common.progress import size as size_text
from airflow_provider_vidu.common.urls import without_store_signatures
from airflow_provider_vidu.common.values import given
from airflow_provider_vidu.exceptions import ViduConfigError, ViduNotFoundError
from airflow_provider_vidu.orders.media.fields import Inline, Kind, MediaField, address, replaced
from airflow_provider_vidu.orders.media.files import ADVICE, MediaFile

if TYPE_CHECKING:
    from airflow_provider_vidu.api.dialects import Dialect
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.orders.dry_run import Offline

MAX_IMAGE_BYTES: Final = 9_999_999
"""Fewer than 10 MB. The vendor does not say whether it means 1,000² or 1,024² bytes: the smaller number fits both."""
MAX_BODY_BYTES: Final = 20_000_000
MAX_FILES: Final = 100
"""The most files of a request: each takes a descriptor, and up to 4 MiB of memory, until it is sent. The API takes few,
but the user who fills a template names any number, and one file in any number of spellings."""


@dataclass(frozen=True, eq=False)
class _Place:
    """A file in one field of a request."""

    file: MediaFile
    field: MediaField
    where: str


class _Address(str):
    """An address in a field that holds media, which the service fetches itself."""

    __slots__ = ()


class Prepared:
    """A request as the user wrote it, whose files are resolved when it is sent.

    :param body: the request; its media fields may name files.
    :param storage_conn_id: the Airflow connection of the files' object storage.
    :raises ViduConfigError: when a media field holds neither an address nor a path, any field is not valid JSON, or
        there are too many files.
    """

    def __init__(self, body: Mapping[str, Any], storage_conn_id: str | None = None) -> None:
        self._storage_conn_id = given(storage_conn_id)
        self._files: dict[tuple[str, Kind], MediaFile] = {}
        self._places: list[_Place] = []
        self._body = replaced(body, self._placed)
        if problem := unfit(self._filled(lambda place: place.where)):
            raise ViduConfigError(f"{problem} Nothing was submitted.")

    def identity(self) -> dict[str, Any]:
        """Return the request with digests in place of its files: equal for the same files, wherever they are.

        The request as sent would not be equal: an upload has a new address at every try, and a signed address another
        signature.

        :raises ViduError: when a file cannot be read, or does not fit its field.
        """
        return self._digested(without_store_signatures)

    def _digested(self, address_of: Callable[[str], str] = str) -> dict[str, Any]:
        for place in self._places:
            place.file.load()
        return self._filled(lambda place: f"sha256:{place.file.sha256}", address_of)

    def digest(self, endpoint: str | None, dialect: Dialect) -> str:
        """Return the short digest that equal requests to one endpoint share, however their numbers are written.

        :param dialect: decides what is sent.
        :raises ViduError: as :meth:`identity` does.
        """
        # Parsed first: names of different types cannot be sorted. The create refuses anything that is not JSON.
        plain = json.loads(json.dumps([endpoint, dialect.sent(self.identity())], default=str, skipkeys=True))
        text = json.dumps(plain, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def resolve(self, hook: ViduHook | Offline, log: Any = None) -> dict[str, Any]:
        """Return the request to send: files become data URIs, or are uploaded at no cost.

        :param hook: uploads files that are too large for the request, or not allowed inline in their field.
        :raises ViduError: when a file cannot be read or sent.
        """
        total = len(json.dumps(self._digested(), default=str, skipkeys=True))
        if total > MAX_BODY_BYTES:
            raise ViduConfigError(f"The request has {total:,} bytes; the API takes {MAX_BODY_BYTES:,}. {ADVICE}")
        sender = _Sender(hook, log, MAX_BODY_BYTES - total)
        values = {place: sender.sent(place) for place in self._places}
        return self._filled(values.__getitem__)

    def close(self) -> None:
        """Release the bytes of all files."""
        for file in self._files.values():
            file.close()

    def _placed(self, value: Any, field: MediaField, where: str) -> Any:
        if (known := address(str(value))) is not None:
            return _Address(known)
        key = (str(value), field.kind)
        if key not in self._files and len(self._files) >= MAX_FILES:
            raise ViduConfigError(
                f"The request names more than {MAX_FILES} files, far more than the API takes. Nothing was submitted."
            )
        file = self._files.setdefault(key, MediaFile(value, field.kind, where, self._storage_conn_id))
        self._places.append(_Place(file, field, where))
        return self._places[-1]

    def _filled(self, value_of: Callable[[_Place], str], address_of: Callable[[str], str] = str) -> dict[str, Any]:
        def filled(value: Any) -> Any:
            if isinstance(value, _Place):
                return value_of(value)
            if isinstance(value, _Address):
                return address_of(value)
            if isinstance(value, dict):
                return {name: filled(item) for name, item in value.items()}
            return [filled(item) for item in value] if isinstance(value, list) else value

        request: dict[str, Any] = filled(self._body)
        return request


class _Sender:
    """Decides for each file whether it goes into the request, and uploads it otherwise."""

    def __init__(self, hook: ViduHook | Offline, log: Any, room: int) -> None:
        self._hook = hook
        self._log = log
        self._room = room
        self._uploaded: dict[str, str] = {}

    def sent(self, place: _Place) -> str:
        """Return the file's address: its data URI, or that of its upload."""
        inline, has_uploads = place.field.inline, self._hook.config.dialect.has_uploads
        if inline is Inline.YES and self._fits(place):
            return self._inlined(place)
        if has_uploads:
            try:
                return self._upload(place)
            except ViduNotFoundError as error:  # resellers of the API may not have it
                if inline is not Inline.IF_NEEDED or not self._fits(place):
                    raise place.file.error(f"must be uploaded, but this service takes no uploads. {ADVICE}") from error
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
                what = size_text(file.size), file.content_type
                self._log.info("Uploaded the file of %s (%s of %s)", place.where, *what)
        return self._uploaded[file.sha256]

    def _cannot_be_sent(self, place: _Place) -> ViduConfigError:
        if place.field.inline is Inline.NO:
            why = "must be uploaded, because this field takes addresses only,"
        elif place.field.kind == "image" and place.file.size > MAX_IMAGE_BYTES:
            why = f"is larger than {MAX_IMAGE_BYTES:,} bytes, the most that the API takes inline,"
        else:
            why = f"makes the request larger than {MAX_BODY_BYTES:,} bytes, the most that the API takes,"
        dialect = self._hook.config.dialect.name
        return place.file.error(f"{why} and the dialect {dialect} has no upload service. {ADVICE}")
