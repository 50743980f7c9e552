"""Reading single values out of answers that may hold anything.

Every function here takes any JSON value and returns the wanted type or None; none of them raises.
What a gateway puts into a field is not ours to trust: numbers arrive as strings, times in seconds
or milliseconds, ``error`` as a string or an object.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_provider_vidu.common.text import without_data_uris

MILLISECONDS_ABOVE: Final = 1e11  # 10 digits are seconds, 13 digits are milliseconds
MAX_URL_CHARS: Final = 16_384
MAX_DEPTH: Final = 100
MAX_INTEGER: Final = 2**64 - 1
MIN_INTEGER: Final = -(2**63)
"""What is not between them is kept as a text: Airflow's supervisor takes no larger integers in an XCom or an event."""
MAX_DIGITS: Final = 4000
"""Longer integers are read as texts: Python refuses to convert those of more than 4,300 digits."""
_LATEST: Final = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second datetime can hold
_FRACTION = re.compile(r"(\.\d{6})\d+")
# A backslash is a slash to some parsers and a letter to others: the host would be a matter of taste.
_UNFIT_FOR_URL = re.compile(r"[\x00-\x20\x7f\ud800-\udfff\\]")

_MAX_EMBEDDED_CHARS: Final = 16 * 1024 * 1024
_MAX_EMBEDDED_VALUES: Final = 20_000
_EMBEDDED_TRIES: Final = 4
_REASON_DEPTH: Final = 6
_REASONS_SHOWN: Final = 5
# Where a text that explains an error has been seen, the most telling first.
_REASON_FIELDS: Final = (
    "message", "error_message", "err_msg", "errmsg", "msg", "detail", "details", "description", "fail_reason",
    "failure_reason", "error", "errors", "reason", "cause",
)  # fmt: skip
_NO_REASON: Final = frozenset({"code", "type", "status", "state", "param", "trace_id", "request_id", "id"})
_TRACE_FIELDS: Final = ("trace_id", "request_id", "traceId", "requestId")
# new-api and one-api append "(request id: 20260520…)" to their messages.
_TRACE_IN_TEXT: Final = re.compile(r"\((?:request|trace)[ _-]?id:? *([\w.:-]{1,200})\)", re.IGNORECASE)
_BARE_MEDIA: Final = re.compile(r"[A-Za-z0-9+/_-]{4096,}={0,2}")
CUT_OUT: Final = "characters cut out)"
"""How a note ends that stands for what was cut out of a text."""

MAX_RAW_CHARS: Final = 64 * 1024
"""The longest JSON of an answer that is kept: it becomes an XCom, a row of Airflow's database."""
# Each further pass cuts more: texts to so many characters, lists and objects to so many items.
_TRIMS: Final = ((4096, 1000), (1024, 100), (256, 30), (64, 8))


# Possessive: a body of backslashes must not fill the memory with places to go back to. A text without an end reaches to
# the end of the body: otherwise each quotation mark in it would start another search to there.
_TEXT_IN_BYTES: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def without_texts(body: bytes) -> bytes:
    """Return JSON with every text taken out."""
    if b'\\"' not in body:  # then each quotation mark begins or ends a text
        return b"".join(body.split(b'"')[::2])
    return _TEXT_IN_BYTES.sub(b"", body)


def value_count(body: bytes, enough: int) -> int:
    """Return about how many values JSON holds, at the speed of a search.

    :param body: the bytes.
    :param enough: up to this number it need not be exact.
    """
    if len(body) <= enough:
        return len(body)
    count = _marks(body)
    return count if count <= enough else _marks(without_texts(body))


def _marks(body: bytes) -> int:
    return body.count(b",") + body.count(b"{") + body.count(b"[")


def integer(digits: str) -> int | str:
    """Return an integer, or its digits as they are where Python would refuse to convert so many."""
    return int(digits) if len(digits) <= MAX_DIGITS else digits


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
    return int(found) if found is not None and found.is_integer() and MIN_INTEGER <= found < MAX_INTEGER else found


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


_OF_AIRFLOW: Final = frozenset({"__classname__", "__id__", "__type", "__var"})
"""Names by which Airflow knows an object of a class in an XCom: it refuses to store a dictionary that has one of the
first two, and of the others makes an object of the class that they name (airflow.sdk.serde)."""


def unserialized(value: Any) -> Any:
    """Return JSON in which no object passes for one that Airflow has serialized; such names begin with an x then.

    :param value: plain JSON; it is not changed.
    """
    if isinstance(value, Mapping):
        return {f"x{name}" if name in _OF_AIRFLOW else name: unserialized(item) for name, item in value.items()}
    return [unserialized(item) for item in value] if isinstance(value, list) else value


def plain(value: Any, redact: Callable[[str], str] = str, depth: int = 0) -> Any:
    """Return JSON that survives UTF-8, PostgreSQL, strict parsers, and Airflow's XComs.

    Lone surrogates and NUL characters become U+FFFD, NaN and infinities become None, integers
    of more than 64 bits become strings. Names that mean a class to Airflow are changed (:func:`unserialized`).

    :param value: parsed JSON.
    :param redact: takes secrets out of every string.
    :param depth: how deep ``value`` is nested already.
    :raises ValueError: when the value is nested deeper than 100 levels.
    """
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        text = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return redact(text.replace("\0", "\ufffd"))
    if isinstance(value, dict):
        items = ((plain(name, redact), plain(item, redact, depth + 1)) for name, item in value.items())
        return {f"x{name}" if name in _OF_AIRFLOW else name: item for name, item in items}
    if isinstance(value, list):
        return [plain(item, redact, depth + 1) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return str(value)
    return value


def embedded(value: Any, redact: Callable[[str], str] = str) -> Any:
    """Return the JSON object or list that a text holds, else None.

    Gateways put the whole answer of the service behind them into a message, alone or behind words of their own.

    :param value: a text such as ``status 400: {"reason": …}``; anything else holds none.
    :param redact: takes secrets out of every string (inside a text they may be spelt with escapes).
    """
    if not isinstance(value, str) or len(value) > _MAX_EMBEDDED_CHARS:
        return None
    if len(value) > _MAX_EMBEDDED_VALUES:
        # Inside a text they were not counted yet.
        count = value_count(value.encode("utf-8", "replace"), _MAX_EMBEDDED_VALUES)
        if count > _MAX_EMBEDDED_VALUES:
            return None
    content = value.strip()
    start = 0 if content.startswith(("{", "[")) else content.find("{")
    for _ in range(_EMBEDDED_TRIES):
        if start < 0:
            return None
        try:
            found, end = _DECODER.raw_decode(content, start)
            # A list must be the whole text: "[1] try again" holds none.
            if isinstance(found, dict) or (isinstance(found, list) and end == len(content)):
                return plain(found, redact)
        except (ValueError, RecursionError):
            pass
        start = content.find("{", start + 1)
    return None


_DECODER: Final = json.JSONDecoder(parse_int=integer)


def reason(value: Any, redact: Callable[[str], str] = str, depth: int = 0) -> str | None:
    """Return the text that explains an error, from a text, a list, nested objects or JSON inside a text.

    :param value: what a field such as ``error``, ``message`` or ``fail_reason`` holds.
    :param redact: takes secrets out of what is decoded.
    :param depth: how deep ``value`` is nested already; from the second level on, any text will do.
    """
    if depth > _REASON_DEPTH:
        return None
    if isinstance(value, str):
        inner = embedded(value, redact) if "{" in value or "[" in value else None
        # Words before the JSON may be all there is to know, so an object inside a text must have a field that explains.
        whole_text = value.rstrip().endswith(("}", "]")) and value.lstrip().startswith(("{", "["))
        explanation = (
            _reason_of_object(inner, redact, depth + 1, leaves=whole_text)
            if isinstance(inner, Mapping)
            else reason(inner, redact, depth + 1)
        )
        return explanation or text(value)
    if isinstance(value, list):
        found = filter(None, (reason(item, redact, depth + 1) for item in value[:_REASONS_SHOWN]))
        return "; ".join(dict.fromkeys(found)) or None
    if isinstance(value, Mapping):
        return _reason_of_object(value, redact, depth, leaves=depth > 0)
    return text(value)


def _reason_of_object(
    value: Mapping[str, Any], redact: Callable[[str], str], depth: int, *, leaves: bool
) -> str | None:
    # Each field is looked at once: three times on each of six levels would be 729 times for the innermost.
    for name in dict.fromkeys(_reason_names(value, leaves=leaves)):
        if explanation := reason(value[name], redact, depth + 1):
            return explanation
    return None


def _reason_names(value: Mapping[str, Any], *, leaves: bool) -> Iterator[str]:
    # {"error": {"message": …}, "message": "Bad Request"}: the object says more than the text beside it.
    if isinstance(value.get("error"), Mapping):
        yield "error"
    yield from (name for name in _REASON_FIELDS if value.get(name))
    if leaves:
        yield from (name for name, item in value.items() if name not in _NO_REASON and not isinstance(item, int))


def trace_id(payload: Mapping[str, Any]) -> str | None:
    """Return the id under which the service's (or the gateway's) support finds a request, from one level of an answer.

    The official API names it in ``metadata.trace_id``; gateways in ``trace_id``, ``request_id``,
    ``error.request_id`` or at the end of the message.
    """
    error = mapping(payload.get("error"))
    for holder in (mapping(payload.get("metadata")), payload, error, mapping(error.get("metadata"))):
        for name in _TRACE_FIELDS:
            if found := text(holder.get(name)):
                return found
    for message in (payload.get("message"), error.get("message"), payload.get("fail_reason"), payload.get("error")):
        if isinstance(message, str) and (match := _TRACE_IN_TEXT.search(message)):
            return match[1]
    return None


def without_media(value: Any) -> Any:
    """Return JSON in which inline media (data URIs, long Base64) is replaced by a short note; the rest is unchanged.

    Answers to creates repeat the images that were sent; in an XCom they would be megabytes.
    """
    if isinstance(value, str):
        if "64," in value:
            return without_data_uris(value)
        if len(value) >= 4096 and _BARE_MEDIA.fullmatch(value):
            return f"Base64… ({len(value)} {CUT_OUT}"
        return value
    if isinstance(value, Mapping):
        return {name: without_media(item) for name, item in value.items()}
    return [without_media(item) for item in value] if isinstance(value, list) else value


def is_cut(value: str) -> bool:
    """Whether something was cut out of a text, so that it cannot be compared with the original."""
    return CUT_OUT in value


def bounded(value: dict[str, Any], most_values: int | None = None) -> dict[str, Any]:
    """Return an answer whose JSON has at most ``MAX_RAW_CHARS``: what is too long in it is cut, with a note.

    :param value: plain JSON; it is not changed.
    :param most_values: how many values it may have; if omitted, the characters alone decide.
    """
    for chars, items in _TRIMS:
        if _fits(value, most_values):
            return value
        value = _trimmed(value, chars, items)
    if _fits(value, most_values):
        return value
    kept = {name: item for name, item in value.items() if not isinstance(item, (dict, list))}
    return {**kept, "…": f"({len(value) - len(kept)} more fields, too large to keep)"}


def _fits(value: dict[str, Any], most_values: int | None) -> bool:
    dumped = json.dumps(value)
    if len(dumped) > MAX_RAW_CHARS:
        return False
    return most_values is None or value_count(dumped.encode("ascii"), most_values) <= most_values


def _trimmed(value: Any, chars: int, items: int) -> Any:
    if isinstance(value, str):
        return shortened(value, chars)
    if isinstance(value, list):
        more = [f"({len(value) - items} more items cut out)"] if len(value) > items else []
        return [_trimmed(item, chars, items) for item in value[:items]] + more
    if isinstance(value, dict):
        few = itertools.islice(value.items(), items)
        found = {shortened(name, chars): _trimmed(item, chars, items) for name, item in few}
        return {**found, "…": f"({len(value) - items} more fields cut out)"} if len(value) > items else found
    return value


def shortened(value: str, chars: int) -> str:
    """Return a text of at most ``chars`` characters, and a note about the rest."""
    return value if len(value) <= chars else f"{value[:chars]}… ({len(value) - chars} {CUT_OUT}"


def objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects in a list; everything else holds none."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))
