"""Reading single values out of answers that may hold anything.

Every function here takes any JSON value and returns the wanted type or None; none of them raises.
What a gateway puts into a field is not ours to trust: numbers arrive as strings, times in seconds
or milliseconds, ``error`` as a string or an object.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

MILLISECONDS_ABOVE: Final = 1e11  # 10 digits are seconds, 13 digits are milliseconds
MAX_URL_CHARS: Final = 16_384
_LATEST: Final = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second datetime can hold
_FRACTION = re.compile(r"(\.\d{6})\d+")
# A backslash is a slash to some parsers and a letter to others: the host would be a matter of taste.
_UNFIT_FOR_URL = re.compile(r"[\x00-\x20\x7f\ud800-\udfff\\]")


def number(value: Any) -> float | None:
    """Return a finite number from a number or a string such as ``"12"`` or ``"100%"``, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value.strip().removesuffix("%") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | float | None:
    """Return ``value`` as an int where it is whole, else as a float, else None."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else found


def percent(value: Any) -> int | None:
    """Return a progress between 0 and 100 from an int or a string such as ``"0"`` or ``"100%"``."""
    found = number(value)
    return None if found is None else int(min(max(found, 0), 100))


def moment(value: Any) -> datetime | None:
    """Return an aware UTC time from epoch seconds, epoch milliseconds or an ISO 8601 string.

    More than six fractional digits are cut (the official API sends nine); a string without an
    offset is taken as UTC. Zero and negative numbers mean "not set".
    """
    seconds = number(value)
    if seconds is not None:
        seconds = seconds / 1000 if seconds > MILLISECONDS_ABOVE else seconds
        return datetime.fromtimestamp(seconds, UTC) if 0 < seconds <= _LATEST else None
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(_FRACTION.sub(r"\1", value.strip()))
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def text(value: Any) -> str | None:
    """Return a non-empty string (or the digits of an int), else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and value.strip() else None


def web_url(value: Any) -> str | None:
    """Return ``value`` verbatim when it is an http(s) URL with a host, else None.

    A signed URL must not be touched in any way, so nothing is stripped or re-quoted here.
    """
    if not isinstance(value, str) or len(value) > MAX_URL_CHARS or _UNFIT_FOR_URL.search(value):
        return None
    try:
        parts = urlsplit(value)
        return value if parts.scheme.lower() in ("http", "https") and parts.hostname else None
    except ValueError:
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` when it is a JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def first_text(*values: Any) -> str | None:
    """Return the first of ``values`` that is a non-empty string."""
    return next((found for found in map(text, values) if found), None)
