"""The request fields that hold images, videos and audio: their names, and their valid values. Pure.

A value is an address that the service fetches itself (http, https, ``data:``, or ``ssupload:``, the service's address
of an uploaded file), or names a file that the worker reads.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from airflow_provider_vidu.api.json_values import as_json
from airflow_provider_vidu.common.parsing import MOST_VALUES, TooManyValuesError, bounded_json
from airflow_provider_vidu.common.text import redacted, without_data_uris
from airflow_provider_vidu.common.values import trimmed
from airflow_provider_vidu.exceptions import ViduConfigError

Kind = Literal["image", "video", "audio"]


class Inline(enum.Enum):
    """Whether a field takes a file inside the request, as a data URI."""

    YES = enum.auto()
    IF_NEEDED = enum.auto()
    """The sources disagree: an upload is used if the connection has one, else the file goes inline."""
    NO = enum.auto()


@dataclass(frozen=True, slots=True)
class MediaField:
    """A field that holds media.

    :param path: its name, or the dot-separated names that lead to it; lists on the way are entered.
    :param inline: whether it takes a data URI.
    """

    path: str
    kind: Kind
    inline: Inline


# Images: "Base64 or URL" on the pages of each of these endpoints. `videos` takes Base64 according to a reseller's copy
# of the page (doc.vtrix.ai, viduq2-pro reference2video), and an address according to others; the names of `image_url`,
# `ref_photo_url` and `lip_ref_url` say address. If only an address is documented, an uploaded file's address probably
# works too, but that is not certain: the upload service is described for images.
MEDIA_FIELDS: Final = (
    MediaField("images", "image", Inline.YES),
    MediaField("start_image", "image", Inline.YES),
    MediaField("image_settings.key_image", "image", Inline.YES),
    MediaField("subjects.images", "image", Inline.YES),
    MediaField("subjects.videos", "video", Inline.IF_NEEDED),
    MediaField("image", "image", Inline.YES),
    MediaField("image_url", "image", Inline.IF_NEEDED),
    MediaField("ref_photo_url", "image", Inline.IF_NEEDED),
    MediaField("lip_ref_url", "image", Inline.IF_NEEDED),
    MediaField("videos", "video", Inline.IF_NEEDED),
    MediaField("video_url", "video", Inline.NO),
    MediaField("audio_url", "audio", Inline.NO),
    MediaField("sounds", "audio", Inline.NO),
)

Replace = Callable[[Any, MediaField, str], Any]
"""Takes a value that names media, its field, and its position (``subjects[0].images[1]``)."""

_ADDRESS = re.compile(r"(?i)(https?://|data:|ssupload:)")
_BROKEN = re.compile(r"(?:http|ssupload).*[\r\n\t]")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64}")
_MAX_PATH_CHARS: Final = 4096
_LISTS: Final = frozenset({"images", "videos", "sounds"})
"""The fields that take several."""
# Commas occur in signed URLs and in every data URI, so only the beginning of another address counts.
_SEVERAL = re.compile(r"[,;|\s](?:[a-z][a-z0-9+.-]{1,20}://|data:[a-z]+/|ssupload:)", re.IGNORECASE)
_SEVERAL_PATHS = re.compile(r"/[^,;|]*[,;|]\s?/")


def address(value: object) -> str | None:
    """Return the address in a text, or None if it is not one that the service fetches itself.

    Surrounding whitespace, and whitespace in the base64 of a data URI, is removed; the scheme becomes lower-case, which
    no signature covers. Everything else is unchanged. Bare base64, which some gateways take, counts as an address.
    """
    text = trimmed(value) if isinstance(value, str) else ""
    if match := _ADDRESS.match(text):
        if match[1].lower() == "data:":
            head, comma, data = text.partition(",")
            text = head + comma + ("".join(data.split()) if head.lower().endswith(";base64") else data)
        return match[1].lower() + text[match.end() :]
    return text if len(text) > _MAX_PATH_CHARS and _BASE64.match(text) else None


def as_list(name: str, value: Any) -> Any:
    """Return an argument as a list: it is one address or path, a list of them, or the JSON text of one; empty stays.

    :raises ViduConfigError: when it is, or holds, something else.
    """
    value = _read_list(name, as_json(value))
    if not value or value == "None" or (isinstance(value, str) and not value.strip()):
        return value
    if isinstance(value, dict):
        raise _wrong_type(name, value)
    _check_single(name, value)
    items = value if isinstance(value, list) else [value]
    for index, item in enumerate(items):
        _check(item, f"{name}[{index}]" if isinstance(value, list) else name)
    return items


def replaced(body: Mapping[str, Any], replace: Replace) -> dict[str, Any]:
    """Return a request in which every value that names media is replaced.

    A form that only gateways take (an object in place of an address) stays unchanged.

    :raises ViduConfigError: naming the field, and the index in its list, of any other value.
    """
    request: dict[str, Any] = as_json(body)
    for field in MEDIA_FIELDS:
        request = _walked(request, field.path.split("."), field, "", replace)
    return request


def _walked(value: Any, names: list[str], field: MediaField, where: str, replace: Replace) -> Any:
    if not names:
        return _leaf(value, field, where, replace)
    if isinstance(value, list):
        return [_walked(item, names, field, f"{where}[{index}]", replace) for index, item in enumerate(value)]
    if not isinstance(value, dict) or names[0] not in value:
        return value
    inner = f"{where}.{names[0]}".removeprefix(".")
    return {**value, names[0]: _walked(value[names[0]], names[1:], field, inner, replace)}


def _leaf(value: Any, field: MediaField, where: str, replace: Replace) -> Any:
    value = _read_list(where, value)
    if value is None or value == "":
        return value
    if not isinstance(value, list):
        if where.rpartition(".")[2] in _LISTS:
            _check_single(where, value)
        return _item(value, field, where, replace)
    return [_item(item, field, f"{where}[{index}]", replace) for index, item in enumerate(value)]


def _item(value: Any, field: MediaField, where: str, replace: Replace) -> Any:
    if isinstance(value, dict):
        return value
    _check(value, where)
    return replace(value, field, where)


def _is_path(value: Any) -> bool:
    """Whether this is a path of Airflow or pathlib, and not the mock of a user's test, which has every attribute."""
    return (isinstance(value, os.PathLike) or hasattr(value, "open")) and not hasattr(value, "mock_calls")


def _check_single(where: str, value: Any) -> None:
    """Refuse a text of several addresses, which would be taken for one file name or one URL.

    :raises ViduConfigError: naming the field, and the remedy.
    """
    text = value.strip() if isinstance(value, str) else ""
    if _SEVERAL.search(text) or _SEVERAL_PATHS.match(text):
        raise ViduConfigError(
            f"{where} holds several addresses in one text: {redacted(without_data_uris(text), 120)}. Give them as a "
            "list. If it is a single address, put it into a list of its own. Nothing was submitted."
        )


def _check(value: Any, where: str) -> None:
    """Refuse anything but an address or a path."""
    is_text = isinstance(value, str) and value.strip() not in ("", "None")
    if not is_text and not _is_path(value):
        empty = {"": "an empty text", "None": "the word None"}
        content = empty[value.strip()] if isinstance(value, str) else redacted(repr(value), 80)
        raise ViduConfigError(f"{where} holds {content}: it must be an address or a path.")
    known = address(value)
    if known is not None and _BROKEN.match(known):
        raise ViduConfigError(
            f"{where} holds an address with a line break: {redacted(known, 80)}. Give several addresses as a list."
        )
    if isinstance(value, str) and len(value) > _MAX_PATH_CHARS and known is None:
        raise ViduConfigError(f"{where} holds {len(value):,} characters that are neither an address nor a path.")


def _read_list(where: str, value: Any) -> Any:
    """Return the list whose JSON text a template rendered; any other valid value unchanged.

    :raises ViduConfigError: when it is not a text, path, list or object, or the text of a list that is not JSON.
    """
    if value is not None and not isinstance(value, (str, list, dict)) and not _is_path(value):
        raise _wrong_type(where, value)
    text = value.strip() if isinstance(value, str) else ""
    return read_json(where, text, "list") if text.startswith("[") and text.endswith("]") else value


def read_json(where: str, text: str, kind: str) -> Any:
    """Return the list or object (``kind``) whose JSON text a template rendered, or a file of rows holds.

    :raises ViduConfigError: when it is not JSON, or holds too many values.
    """
    try:
        return bounded_json(text, MOST_VALUES)
    except TooManyValuesError:
        raise ViduConfigError(f"{where} holds more than {MOST_VALUES:,} values. Nothing was submitted.") from None
    except (ValueError, RecursionError):
        raise ViduConfigError(
            f"{where} is not valid JSON: {redacted(text.strip(), 80)}. Pass the {kind} itself (a task's "
            "output, or render_template_as_native_obj=True on the DAG), or render it with the filter tojson."
        ) from None


def _wrong_type(where: str, value: Any) -> ViduConfigError:
    return ViduConfigError(f"{where} must be an address, a path or a list of them, not {type(value).__name__}.")
