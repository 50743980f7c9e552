"""Parses untrusted JSON, in bounded time and memory, into values that every database can store. No I/O."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple

from airflow_provider_vidu.common.json_size import marks, value_count, without_texts
from airflow_provider_vidu.common.values import MAX_DEPTH, decoded, embedded_count, integer, plain, shortened

MOST_VALUES: Final = 5_000_000
"""The most values of JSON text in a field: as objects, they take a gigabyte. 50 MB of ``[],`` are sixteen million."""
# Possibly an integer of more than 64 bits; ids have 18 or 19 digits. A search in two passes: a pattern would read each
# digit of an id up to 19 times, which took half the time of a page of them.
_DIGITS_AS_ZEROS: Final = bytes(48 if code in b"0123456789" else code for code in range(256))
_LONG_NUMBERS: Final = (b"0" * 20, b"-" + b"0" * 19)
# Escapes of a NUL, of an underscore (as in __type) or of half a surrogate pair; all others are harmless.
_ODD_ESCAPE: Final = re.compile(rb"\\u(?:0000|005[fF]|[dD][89a-fA-F])")
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NOT_A_BRACKET: Final = bytes(code for code in range(256) if code not in b"[]{}")


class TooManyValuesError(ValueError):
    """The JSON holds more values than the limit."""


def bounded_json(text: str, most_values: int) -> Any:
    """Return the value of JSON text, as Python parses it; others may have written it.

    :raises TooManyValuesError: when it holds too many values: 48 MB of empty lists took a worker 1.2 GB.
    :raises ValueError, RecursionError: when it is not JSON.
    """
    if len(text) > most_values:
        _check_values(text.encode("utf-8", "replace"), most_values)
    return json.loads(text)


def parse(body: bytes, redact: Callable[[str], str] = str, most_values: int = 20_000) -> Any:
    """Parse JSON into values that every database can store.

    Invalid UTF-8 inside a string becomes U+FFFD: a gateway may quote a message in another character set.

    :param body: the bytes, in UTF-8, or in UTF-16 or UTF-32 with or without a byte order mark.
    :param redact: removes secrets from every string.
    :raises TooManyValuesError: if there are more; they are counted before parsing.
    :raises ValueError, RecursionError: if it is not JSON, or is nested deeper than 100 levels.
    """
    body = _in_utf8(body)
    _check_values(body, most_values)
    try:
        if (text := _harmless(body)) is not None:
            # Parse first: a page of megabytes is rejected before the costlier search for secrets.
            value = _PLAIN_DECODER.decode(text)
            if redact(text) == text:  # the redactor decodes escapes, too
                return value
        return plain(_DECODER.decode(_text(body)), redact)
    except json.JSONDecodeError:
        if (inner := _unwrapped(_text(body))) is None:
            raise
        # Once more: after a quotation mark in the wrapper, values were taken for text.
        _check_values(inner.encode("utf-8", "replace"), most_values)
        return plain(_DECODER.decode(inner), redact)


def _check_values(body: bytes, most: int) -> None:
    """Refuse, with a TooManyValuesError, JSON with more values than ``most``."""
    if value_count(body, most) > most:
        raise TooManyValuesError("too many values")


def bounded_texts(value: Any, body: bytes, most: int) -> Any:
    """Return parsed JSON without what is too much within its texts, which may be JSON themselves.

    Each of them is parsed where it may explain an error or hold an id: thousands in one answer took minutes.

    :param value: parsed JSON; it is not changed.
    :param most: how many values the texts may hold together; a text that would be too much is cut out.
    """
    if len(body) <= most or marks(body) <= most:  # each mark is a byte
        return value
    left = most

    def bounded(item: Any) -> Any:
        nonlocal left
        if isinstance(item, str):
            if (held := embedded_count(item)) > left:
                return shortened(item, 0)
            left -= held
            return item
        if isinstance(item, dict):
            return {name: bounded(inner) for name, inner in item.items()}
        return [bounded(inner) for inner in item] if isinstance(item, list) else item

    return bounded(value)


def _harmless(body: bytes) -> str | None:
    """Return the text of a body whose parsed values need no cleaning other than redaction, else None.

    Nearly every answer to a poll qualifies, and searching the whole text is much cheaper than searching each value.
    """
    # Valid UTF-8 holds surrogates only as escapes.
    if b"\0" in body or (b"\\" in body and _ODD_ESCAPE.search(body)):
        return None
    digits = body.translate(_DIGITS_AS_ZEROS)
    if b'"__' in body or any(number in digits for number in _LONG_NUMBERS):
        return None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth(body) > MAX_DEPTH:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if text.startswith("\ufeff") else text


def depth(body: bytes) -> int:
    """Return the nesting depth of JSON: ``MAX_DEPTH + 1`` if it is deeper or its brackets do not match."""
    left = without_texts(body).translate(_ONE_KIND, _NOT_A_BRACKET)
    for level in range(MAX_DEPTH + 1):
        if not left:
            return level
        # Each pass removes the innermost level.
        inner = left.replace(b"[]", b"")
        if len(inner) == len(left):
            break
        left = inner
    return MAX_DEPTH + 1


def _in_utf8(body: bytes) -> bytes:
    """Convert UTF-16 and UTF-32, in which a byte of a character can look like a quotation mark, to UTF-8."""
    if b"\0" not in body[:4] and body[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return body
    return _text(body).encode("utf-8", "replace")


def _text(body: bytes) -> str:
    return decoded(body, json.detect_encoding(body)).removeprefix("\ufeff")


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


# -- wrappers around JSON ----------------------------------------------------------------------------

_BLANKS: Final = " \t\r\n\v\f\0\x1e\x85\xa0\u200b\u2028\u2029\ufeff"
"""Meaningless characters around JSON, including a byte order mark and the separator of RFC 7464."""
# Prefixes such as )]}' and for (;;); that protect JSON from being included as a script.
_SCRIPT_GUARD: Final = re.compile(r"(?:\)\]\}'?,?|(?:while|for) ?\((?:1|;;)\);|\{\}&&)")
_CALL_BEGINS: Final = re.compile(r"(?:/\*\*/)?[\w$.]{1,100} ?\(")
_EVENT_LINE: Final = re.compile(r"(?:data|event|id|retry)?:")
_MOST_EVENT_LINES: Final = 50_000
"""A longer stream of events is not split into lines: 16 MiB of line ends took 12 seconds and 1.3 GB."""


def _unwrapped(text: str) -> str | None:
    """Return the JSON inside a known wrapper, or None for any other text.

    Known wrappers: blanks and byte order marks, guards against script inclusion, a call (JSONP), and a single
    server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html).
    """
    bare = content = text.strip(_BLANKS)
    if guard := _SCRIPT_GUARD.match(bare):
        content = bare[guard.end() :].strip(_BLANKS)
    elif (call := _CALL_BEGINS.match(bare)) and (inner := bare.rstrip("; ")).endswith(")"):
        content = inner[call.end() : -1].strip(_BLANKS)
    elif _EVENT_LINE.match(bare):
        content = _only_event(bare) or ""
    if content is not bare and not content.startswith(("{", "[")):
        return None
    return content if content and content != text else None


def _only_event(text: str) -> str | None:
    """Return the data of an event stream with exactly one data event; None for any other text."""
    if text.count("\n") >= _MOST_EVENT_LINES:
        return None
    events: list[list[str]] = [[]]
    for line in map(str.strip, text.split("\n")):
        if not line:
            events.append([])
        elif not _EVENT_LINE.match(line):
            return None
        elif line.startswith("data:"):
            events[-1].append(line.removeprefix("data:").strip())
    payloads = [data for lines in events if (data := "\n".join(lines)) and data != "[DONE]"]
    return payloads[0] if len(payloads) == 1 else None


# Not strict: a gateway that writes its JSON by hand repeats the line ends of a prompt as they are.
_PLAIN_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None, strict=False)
_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None, parse_int=integer, strict=False)


# -- damaged JSON --------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r'"(?P<text>[^"\\]*+(?:\\.[^"\\]*+)*+)"|(?P<open>[{\[])|(?P<close>[}\]])|(?P<sign>[,:])|"(?P<cut>.*)'
    r'|(?P<word>[^\s{}\[\],:"]+)',
    re.DOTALL,
)
_MOST_ITEMS: Final = 100
_MOST_MEMBERS: Final = 5_000
_MOST_TEXTS: Final = 4
"""How deep JSON inside a string inside JSON is followed."""
_DROPPED: Final[Any] = None


class Document(NamedTuple):
    """An object or a list in a text; ``is_clean`` if only separators precede it."""

    value: Any
    is_clean: bool


_MOST_DOCUMENTS: Final = 50
_OPENS: Final = re.compile(r"[{\[]")
_A_PAGE: Final = re.compile(r"<(?:!doctype|html|head|body)\b", re.IGNORECASE)
# Between lines of JSON and server-sent events.
_SEPARATORS: Final = re.compile(r"(?:[\s,]|data:|(?:event|id|retry)?:[^\n]*+\n)*+")


def documents(body: bytes, redact: Callable[[str], str] = str, wanted: Collection[str] = ()) -> list[Document]:
    """Return the objects and lists in a text: lines of JSON, events, JSON between words, cut off or broken JSON.

    Each is read as far as possible. A value counts only if it is complete: ``{"task_id": "94700`` holds none. Each
    character is read once. At most 50 are returned, with 5,000 members in total and 100 items per list; a web page
    yields none.

    :param wanted: names whose strings and integers are kept even beyond the 5,000.
    """
    text = _text(body).strip(_BLANKS)
    if _A_PAGE.match(text):
        return []
    salvaged: list[Document] = []
    at, room, is_clean = 0, _MOST_MEMBERS, True
    while len(salvaged) < _MOST_DOCUMENTS and (start := _OPENS.search(text, at)):
        is_clean = is_clean and _SEPARATORS.fullmatch(text, at, start.start()) is not None
        salvage = _Salvage(frozenset(wanted), room=room)
        salvaged.append(Document(plain(salvage.read(text, start.start()), redact), is_clean))
        at, room = salvage.end, salvage.room
    return salvaged


_LENIENT: Final = json.JSONDecoder(strict=False)


class _Salvage:
    """Reads JSON token by token into a tree of bounded size, without recursion or backtracking."""

    def __init__(
        self, wanted: frozenset[str], depth: int = MAX_DEPTH, texts: int = _MOST_TEXTS, *, room: int = _MOST_MEMBERS
    ) -> None:
        self.end = 0
        """The offset at which the outermost object or list ended."""
        self.room = room
        """How many more members fit."""
        self._wanted = wanted
        self._depth = depth
        self._texts = texts
        self._root: Any = None
        # Per level: the object or list (None if dropped) and, in an object, the name of the next value.
        self._levels: list[Any] = []
        self._names: list[str | None] = []

    def read(self, text: str, at: int = 0) -> Any:
        """Return the object or list that begins at ``at``."""
        self.end = len(text)
        for token in _TOKEN.finditer(text, at):
            kind, content = token.lastgroup, token.group(token.lastgroup or 0)
            if kind == "open":
                self._enter({} if content == "{" else [])
            elif kind == "close":
                level = self._levels.pop()
                self._names.pop()
                if not self._levels or (level is not None and isinstance(level, dict) != (content == "}")):
                    self.end = token.end()
                    break
            elif kind == "text":
                self._take_text(content)
            elif content == ",":
                # After a text that contains quotation marks, this distinguishes names from values again.
                self._names[-1] = None
            elif kind == "word" and token.end() < len(text):  # at the very end, digits may be missing
                self._take(_scalar(content))
            elif kind == "cut":
                self._take_cut(content)
        return self._root

    def _enter(self, level: Any) -> None:
        if not self._levels:
            self._root = level
        elif len(self._levels) >= self._depth or not self._add(level):
            level = _DROPPED
        self._levels.append(level)
        self._names.append(None)

    def _take_text(self, raw: str) -> None:
        level = self._levels[-1]
        if level is _DROPPED:
            return
        if isinstance(level, dict) and self._names[-1] is None:
            self._names[-1] = _unescaped(raw)
        else:
            self._take(_unescaped(raw))

    def _take(self, value: Any) -> None:
        if self._levels[-1] is not _DROPPED:
            self._add(value)

    def _take_cut(self, raw: str) -> None:
        """Take a string that is cut off if it is JSON itself: gateways put the service's answer into a string."""
        room = self._depth - len(self._levels)
        if self._levels[-1] is _DROPPED or room <= 0 or self._texts <= 0:
            return
        inner = _unescaped(raw.rstrip("\\"))
        if inner.lstrip().startswith("{"):
            self._take(_Salvage(self._wanted, room, self._texts - 1).read(inner.strip()))

    def _add(self, value: Any) -> bool:
        """Add a value to the current level; return False if it has no room or no name."""
        level = self._levels[-1]
        if isinstance(level, list):
            if len(level) < _MOST_ITEMS and self.room > 0:
                level.append(value)
                self.room -= 1
                return True
            return False
        name = self._names[-1]
        self._names[-1] = None
        if level is None or name is None:
            return False
        if self.room <= 0 and not (name in self._wanted and isinstance(value, (str, int))):
            return False
        level[name] = value
        self.room -= 1
        return True


def _scalar(word: str) -> Any:
    try:
        return _DECODER.decode(word)
    except ValueError:
        return None


def _unescaped(raw: str) -> str:
    if "\\" not in raw:
        return raw
    try:
        return str(_LENIENT.decode(f'"{raw}"'))
    except ValueError:
        return raw
