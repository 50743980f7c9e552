"""The kinds of fields in a create's table, each as a check that raises :class:`Refused`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from airflow_provider_vidu.sandbox.media import pictures

Json = dict[str, Any]
Medium = Literal["image", "video", "audio"]

#: An inline image has fewer bytes, decoded: "The length of the base64 decode must be under 10MB"
#: (platform.vidu.com/docs/image-to-video). Larger ones need the upload service.
TOO_LARGE_INLINE = 10_000_000
MAX_PAYLOAD = 1_048_576
DOWNLOAD_FAILURES: dict[str, str] = {"image": "ImageDownloadFailure", "video": "VideoDownloadFailure"}


class Refused(Exception):  # noqa: N818 - an answer, not an error of the sandbox
    """The official API refuses a request with 400: the code string and the message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Unknown(Exception):  # noqa: N818 - an answer, not an error of the sandbox
    """A request names something that does not exist; the official API answers 404."""

    def __init__(self, name: str) -> None:
        super().__init__(f"task {name} not found")


class Surroundings(Protocol):
    """The context of a check."""

    def uploaded(self, address: str, medium: Medium) -> None:
        """Raise :class:`Refused` unless ``address`` (``ssupload:…``) names a finished upload of the medium."""


Check = Callable[[str, Any, Surroundings], None]


@dataclass(frozen=True)
class Field:
    """One row of a create's table: the check of its value, and whether it is required."""

    check: Check
    required: bool = False


def required(check: Check) -> Field:
    """Return a required row; an empty string counts as absent."""
    return Field(check, required=True)


def check_fields(table: Mapping[str, Field], body: Mapping[str, Any], around: Surroundings, prefix: str = "") -> None:
    """Raise :class:`Refused` for the first missing or invalid field in ``body``; null counts as absent."""
    for name, row in table.items():
        value = body.get(name)
        if value is None or (row.required and value == ""):
            if row.required:
                raise Refused("FieldLacking", f"field {prefix}{name} is lacking")
            continue
        row.check(prefix + name, value, around)


def check_surplus(
    table: Mapping[str, Field], body: Mapping[str, Any], allowed: Sequence[str] = (), prefix: str = ""
) -> None:
    """Raise :class:`Refused` for the first field that is neither in ``table`` nor in ``allowed``."""
    for name in body:
        if name not in table and name not in allowed:
            raise Refused("FieldUnwanted", f"field {prefix}{name} is unwanted")


def text(limit: int | None = None, least: int = 0) -> Check:
    """Return the check for a string of ``least`` to ``limit`` characters."""

    def check(name: str, value: Any, around: Surroundings) -> None:
        if not isinstance(value, str):
            raise Refused("FieldInvalid", f"field {name} must be a text")
        if (limit is not None and len(value) > limit) or len(value) < least:
            bounds = f"at most {limit}" if not least else f"{least} to {limit}"
            raise Refused("FieldInvalid", f"field {name} must have {bounds} characters, got {len(value)}")

    return check


def number(low: float, high: float, *, whole: bool = False) -> Check:
    """Return the check for a number within ``low`` and ``high``, both included."""

    def check(name: str, value: Any, around: Surroundings) -> None:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise Refused("FieldInvalid", f"field {name} must be {kind} from {low} to {high}")

    return check


def flag(name: str, value: Any, around: Surroundings) -> None:
    """Check a boolean."""
    if not isinstance(value, bool):
        raise Refused("FieldInvalid", f"field {name} must be true or false")


def choice(*values: str) -> Check:
    """Return the check for one of ``values``; an empty string leaves the choice to the service."""

    def check(name: str, value: Any, around: Surroundings) -> None:
        if value != "" and value not in values:
            raise Refused("FieldInvalid", f"field {name} must be one of {', '.join(values)}")

    return check


def items(check_item: Check, low: int, high: int) -> Check:
    """Return the check for a list of ``low`` to ``high`` items."""

    def check(name: str, value: Any, around: Surroundings) -> None:
        if not isinstance(value, list):
            raise Refused("FieldInvalid", f"field {name} must be a list")
        if not low <= len(value) <= high:
            counts = str(low) if low == high else f"{low} to {high}"
            raise Refused("FieldItemCountOutOfRange", f"field {name} must have {counts} items, got {len(value)}")
        for index, item in enumerate(value):
            check_item(f"{name}[{index}]", item, around)

    return check


def objects(table: Mapping[str, Field]) -> Check:
    """Return the check for an object with only the rows of ``table``."""

    def check(name: str, value: Any, around: Surroundings) -> None:
        if not isinstance(value, dict):
            raise Refused("FieldInvalid", f"field {name} must be an object")
        check_surplus(table, value, prefix=f"{name}.")
        check_fields(table, value, around, f"{name}.")

    return check


def media(medium: Medium, *, inline: bool = True) -> Check:
    """Return the check for an address of ``medium``: http(s), an upload, or a data URI where ``inline``."""

    def check(name: str, value: Any, around: Surroundings) -> None:
        if not isinstance(value, str):
            raise Refused("FieldInvalid", f"field {name} must be a text")
        scheme = value.partition(":")[0].lower()
        if scheme == "ssupload":
            around.uploaded(value, medium)
        elif scheme == "data" and inline:
            _check_inline(name, value, medium)
        elif scheme not in ("http", "https"):
            reason = DOWNLOAD_FAILURES.get(medium, "FieldInvalid")
            raise Refused(reason, f"field {name}: the {medium} cannot be downloaded")

    return check


def _check_inline(name: str, value: str, medium: Medium) -> None:
    head, comma, encoded = value.partition(",")
    kind = head[len("data:") :].lower()
    if not comma or not kind.endswith(";base64") or not kind.startswith(f"{medium}/"):
        raise Refused("FieldInvalid", f"field {name} must begin with data:{medium}/…;base64,")
    if medium == "image" and len(encoded) // 4 * 3 - encoded[-2:].count("=") >= TOO_LARGE_INLINE:
        raise Refused("ImageSizeInvalid", f"field {name}: an inline image has fewer than {TOO_LARGE_INLINE} bytes")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("FieldInvalid", f"field {name} is not base64") from None
    if medium == "image" and not pictures.is_picture(data):
        raise Refused("ImageFormatInvalid", f"field {name}: the image is not PNG, JPEG or WebP")
