"""Reads single values from answers that may hold anything.

The functions that read a value take any JSON, return the wanted type or None, and do not raise. Gateways send numbers
as strings, times in seconds or milliseconds, and ``error`` as a string or an object.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.text import without_data_uris
from airflow_provider_vidu.common.url_parts import split_url

MILLISECONDS_ABOVE: Final = 1e11  # 10 digits are seconds, 13 digits are milliseconds
MAX_URL_CHARS: Final = 16_384
MAX_DEPTH: Final = 100
MAX_INTEGER: Final = 2**64 - 1
MIN_INTEGER: Final = -(2**63)
"""Integers beyond these become strings: Airflow's supervisor rejects them in an XCom or an event."""
MAX_PRICE: Final = 10**12
MAX_DIGITS: Final = 4000
"""Longer integers stay strings: Python refuses to convert more than 4,300 digits."""
SWITCH: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
"""The words for true and false, in lower case."""
_LATEST: Final = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second datetime can hold
_FRACTION = re.compile(r"(\.\d{6})\d+")
_AROUND: Final = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
    "\xad\u061c\u180e\u202a\u202b\u202c\u202d\u202e\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069"
    "\u206a\u206b\u206c\u206d\u206e\u206f\ufff9\ufffa\ufffb"
)
"""What ``str.isspace`` calls blank, and what shows nothing: byte-order marks, zero-width characters, direction marks.

All of Unicode's format characters (Cf) of the first plane, but for the signs before Arabic and Syriac numbers."""
# Some parsers read a backslash as a slash, others as a letter, so they would disagree about the host.
_UNFIT_FOR_URL = re.compile(r"[\x00-\x20\x7f\ud800-\udfff\\]")

_DECODED_BYTES: Final = 256 * 1024
_MAX_EMBEDDED_CHARS: Final = 16 * 1024 * 1024
_MAX_EMBEDDED_VALUES: Final = 20_000
_EMBEDDED_TRIES: Final = 4
_REASON_DEPTH: Final = 6
_REASONS_SHOWN: Final = 5
# Fields in which gateways explain an error, the most specific first.
_REASON_FIELDS: Final = (
    "message", "error_message", "err_msg", "errmsg", "msg", "detail", "details", "description", "fail_reason",
    "failure_reason", "error", "errors", "reason", "cause",
)  # fmt: skip
_NO_REASON: Final = frozenset({"code", "type", "status", "state", "param", "trace_id", "request_id", "id"})
_TRACE_FIELDS: Final = ("trace_id", "request_id", "traceId", "requestId")
# new-api and one-api append "(request id: 20260520…)" to their messages.
_TRACE_IN_TEXT: Final = re.compile(r"\((?:request|trace)[ _-]?id:? *([\w.:-]{1,200})\)", re.IGNORECASE)
# MIME has line ends after 60 to 76 characters.
_BARE_MEDIA: Final = re.compile(r"[A-Za-z0-9+/_-]{60}[A-Za-z0-9+/_\r\n-]{4000,}={0,2}[\r\n]{0,2}")
CUT_OUT: Final = "characters cut out)"
"""The end of a note that replaces text that was cut out."""


def integer(digits: str) -> int | str:
    """Return an integer, or its digits unchanged if Python would refuse to convert so many."""
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def number(value: Any) -> float | None:
    """Return a finite number from a number or a string such as ``"12"`` or ``"100%"``, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value.strip().removesuffix("%") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def strict_int(value: object) -> int | None:
    """Return an int unchanged; None for anything else, and for a bool."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def whole(value: Any) -> int | float | None:
    """Return ``value`` as an int if it is whole, else as a float; None if it is not a number."""
    read = number(value)
    return int(read) if read is not None and read.is_integer() and MIN_INTEGER <= read < MAX_INTEGER else read


def price(value: Any) -> int | float | None:
    """Return a number of credits; None if it is none, or beyond every price.

    Airflow's supervisor rejects an XCom whose integer has more than 64 bits, and the sum of some prices would have.
    """
    read = whole(value)
    return read if read is not None and abs(read) <= MAX_PRICE else None


def epoch(value: Any) -> float | None:
    """Return a time in epoch seconds that ``datetime`` can hold; None if it is none."""
    seconds = number(value)
    return seconds if seconds is not None and 0 <= seconds <= _LATEST else None


def percent(value: Any) -> int | None:
    """Return a progress between 0 and 100 from an int or a string such as ``"0"`` or ``"100%"``."""
    read = number(value)
    return None if read is None else int(min(max(read, 0), 100))


def moment(value: Any) -> datetime | None:
    """Return an aware UTC time from epoch seconds, epoch milliseconds or an ISO 8601 string.

    Fractions are cut to six digits (the official API sends nine); a string without an offset is UTC. Zero and negative
    numbers mean "not set", and so does a time before 1970 (Go's zero time is 0001-01-01).
    """
    seconds = number(value)
    if seconds is not None:
        seconds = seconds / 1000 if seconds > MILLISECONDS_ABOVE else seconds
        return datetime.fromtimestamp(seconds, UTC) if 0 < seconds <= _LATEST else None
    if not isinstance(value, str):
        return None
    try:
        read = datetime.fromisoformat(_FRACTION.sub(r"\1", value.strip()))
        read = read.replace(tzinfo=read.tzinfo or UTC).astimezone(UTC)
        return read if read.timestamp() > 0 else None
    except (ValueError, OverflowError):
        return None


def text(value: Any) -> str | None:
    """Return a non-empty string (or the digits of an int), else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and value.strip() else None


def web_url(value: Any) -> str | None:
    """Return ``value`` if it is an http(s) URL with a host, else None.

    It is returned unchanged, because stripping or re-quoting would break a signed URL.
    """
    if not isinstance(value, str) or len(value) > MAX_URL_CHARS or _UNFIT_FOR_URL.search(value):
        return None
    try:
        parts = split_url(value)
        return value if parts.scheme.lower() in ("http", "https") and parts.hostname else None
    except ValueError:
        return None


def trimmed(value: str) -> str:
    """Return a text without the blanks, line ends and invisible characters around it, such as a byte-order mark."""
    return value.strip(_AROUND)


def decoded(data: bytes, encoding: str) -> str:
    """Return bytes as text, with U+FFFD for what is none; other threads run between the pieces of a large answer.

    :param encoding: one that needs a byte order mark only if the bytes begin with it.
    """
    if len(data) <= _DECODED_BYTES:
        return data.decode(encoding, "replace")
    decode = codecs.getincrementaldecoder(encoding)("replace").decode
    pieces = [decode(data[at : at + _DECODED_BYTES]) for at in range(0, len(data), _DECODED_BYTES)]
    return "".join([*pieces, decode(b"", True)])


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def first_text(*values: Any) -> str | None:
    """Return the first of ``values`` that is a non-empty string."""
    return next(filter(None, map(text, values)), None)


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
    """Return JSON that UTF-8, PostgreSQL, strict parsers and Airflow's XComs accept.

    Lone surrogates and NUL characters become U+FFFD, NaN and infinities None, integers of more than 64 bits strings.
    Names that mean a class to Airflow are changed (:func:`unserialized`).

    :param depth: the nesting depth of ``value`` itself.
    :raises ValueError: if the nesting exceeds 100 levels.
    """
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        text = decoded(value.encode("utf-16", "surrogatepass"), "utf-16")
        return redact(text.replace("\0", "\ufffd"))
    if isinstance(value, dict):
        items = ((plain(name, redact), plain(item, redact, depth + 1)) for name, item in value.items())
        return {f"x{name}" if name in _OF_AIRFLOW else name: item for name, item in items}
    if isinstance(value, list):
        if (masked := _masked_bytes(value, redact)) is not None:
            return masked
        return [plain(item, redact, depth + 1) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return redact(str(value))
    return value


def _masked_bytes(value: list[Any], redact: Callable[[str], str]) -> list[str] | None:
    """Return a list of bytes that spell a secret, as JavaScript writes a buffer, as one text without it; else None."""
    if not all(type(item) is int and 0 <= item < 256 for item in value):  # True is an int, too
        return None
    text = " ".join(map(str, value))
    return None if (masked := redact(text)) == text else [masked]


def embedded(value: Any, redact: Callable[[str], str] = str) -> Any:
    """Return the JSON object or list inside a string, else None.

    Gateways put the service's whole answer into a message, alone or after words of their own.

    :param value: any value; a string such as ``status 400: {"reason": …}`` holds an object.
    :param redact: removes secrets from every string (in the outer one they may have been escaped).
    """
    if not isinstance(value, str) or len(value) > _MAX_EMBEDDED_CHARS:
        return None
    content = value.strip()
    for start in _beginnings(content):
        if len(content) - start > _MAX_EMBEDDED_VALUES and _count_from(content, start) > _MAX_EMBEDDED_VALUES:
            return None
        if (inner := _json_at(content, start)) is not None:
            with suppress(ValueError):
                return plain(inner, redact)
    return None


def embedded_count(value: str) -> int:
    """Return approximately how many values :func:`embedded` parses of a text."""
    content, count = value.strip(), 0
    for start in _beginnings(content):
        count += _count_from(content, start)
        if count > _MAX_EMBEDDED_VALUES or _json_at(content, start) is not None:
            break
    return count


def _beginnings(content: str) -> Iterator[int]:
    """Yield where JSON may begin in a text."""
    start = 0 if content.startswith(("{", "[")) else content.find("{")
    for _ in range(_EMBEDDED_TRIES):
        if start < 0:
            return
        yield start
        start = content.find("{", start + 1)


def _json_at(content: str, start: int) -> Any:
    """Return the JSON object or list that begins somewhere in a text, else None."""
    try:
        inner, end = _DECODER.raw_decode(content, start)
    except (ValueError, RecursionError):
        return None
    # A list must be the whole text: "[1] try again" is not JSON.
    return inner if isinstance(inner, dict) or (isinstance(inner, list) and end == len(content)) else None


def _count_from(content: str, start: int) -> int:
    """Return how many values the JSON holds that begins somewhere in a text.

    Not those of the whole text: after a quotation mark before that, values would be taken for text.
    """
    return value_count(content[start:].encode("utf-8", "replace"), 0)


_DECODER: Final = json.JSONDecoder(parse_int=integer)


def reason(value: Any, redact: Callable[[str], str] = str, depth: int = 0) -> str | None:
    """Return the text that explains an error, from a string, a list, nested objects or JSON inside a string.

    :param value: the content of a field such as ``error``, ``message`` or ``fail_reason``.
    :param depth: the nesting depth of ``value`` itself; below the top level, any text counts.
    """
    if depth > _REASON_DEPTH:
        return None
    if isinstance(value, str):
        inner = embedded(value, redact) if "{" in value or "[" in value else None
        # Words before the JSON may be the explanation, so an object after words counts only by an explaining field.
        whole_text = value.rstrip().endswith(("}", "]")) and value.lstrip().startswith(("{", "["))
        explanation = (
            _reason_of_object(inner, redact, depth + 1, leaves=whole_text)
            if isinstance(inner, Mapping)
            else reason(inner, redact, depth + 1)
        )
        return explanation or text(value)
    if isinstance(value, list):
        reasons = filter(None, (reason(item, redact, depth + 1) for item in value[:_REASONS_SHOWN]))
        return "; ".join(dict.fromkeys(reasons)) or None
    if isinstance(value, Mapping):
        return _reason_of_object(value, redact, depth, leaves=depth > 0)
    return text(value)


def _reason_of_object(
    value: Mapping[str, Any], redact: Callable[[str], str], depth: int, *, leaves: bool
) -> str | None:
    # Visit each field once: three visits on each of six levels would read the innermost 729 times.
    for name in dict.fromkeys(_reason_names(value, leaves=leaves)):
        if explanation := reason(value[name], redact, depth + 1):
            return explanation
    return None


def _reason_names(value: Mapping[str, Any], *, leaves: bool) -> Iterator[str]:
    # {"error": {"message": …}, "message": "Bad Request"}: the object is more specific than the text.
    if isinstance(value.get("error"), Mapping):
        yield "error"
    yield from (name for name in _REASON_FIELDS if value.get(name))
    if leaves:
        yield from (name for name, item in value.items() if name not in _NO_REASON and not isinstance(item, int))


def given(value: str | None) -> str | None:
    """Return a text without the space around it; None if a template rendered it to nothing."""
    named = (value or "").strip()
    return None if named in ("", "None") else named


def trace_id(payload: Mapping[str, Any]) -> str | None:
    """Return the id by which the support of the service or gateway finds a request, from one level of an answer.

    The official API sends it in ``metadata.trace_id``; gateways in ``trace_id``, ``request_id``, ``error.request_id``
    or at the end of the message.
    """
    error = mapping(payload.get("error"))
    for holder in (mapping(payload.get("metadata")), payload, error, mapping(error.get("metadata"))):
        for name in _TRACE_FIELDS:
            if value := text(holder.get(name)):
                return value
    for message in (payload.get("message"), error.get("message"), payload.get("fail_reason"), payload.get("error")):
        if isinstance(message, str) and (match := _TRACE_IN_TEXT.search(message)):
            return match[1]
    return None


def without_media(value: Any) -> Any:
    """Return JSON with inline media (data URIs, long Base64) replaced by short notes.

    Answers to creates repeat the images of the request, which would put megabytes into an XCom.
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
    """Whether text was cut out of ``value``, so that it cannot be compared with the original."""
    return CUT_OUT in value


def shortened(value: str, chars: int) -> str:
    """Return the first ``chars`` characters of a text, and a note about the rest."""
    return value if len(value) <= chars else f"{value[:chars]}… ({len(value) - chars} {CUT_OUT}"


def objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects in a list; nothing for any other value."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))
