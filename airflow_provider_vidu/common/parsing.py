"""Bytes that claim to be JSON become values that every store can hold, in bounded time and memory. No I/O."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple

from airflow_provider_vidu.common.values import (
    MAX_DEPTH,
    integer,
    plain,
    value_count,
    without_texts,
)

# May be an integer of more than 64 bits; ids have 18 or 19 digits.
_LONG_NUMBER: Final = re.compile(rb"[0-9-][0-9]{19}")
# Escapes that stand for a NUL, an underscore (as in __type) or half of a character; every other one is harmless.
_ODD_ESCAPE: Final = re.compile(rb"\\u(?:0000|005[fF]|[dD][89a-fA-F])")
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NOT_A_BRACKET: Final = bytes(code for code in range(256) if code not in b"[]{}")


class TooManyValuesError(ValueError):
    """There are more values than are read."""


def parse(body: bytes, redact: Callable[[str], str] = str, most_values: int = 20_000) -> Any:
    """Return JSON that every store can hold.

    Bytes that are not UTF-8 inside a text become U+FFFD: a gateway may quote a message in another character set.

    :param body: the bytes, in UTF-8, or in UTF-16 or UTF-32 with or without a byte order mark.
    :param redact: takes secrets out of every text.
    :param most_values: the most values that are read.
    :raises TooManyValuesError: when there are more; they are counted before anything is parsed.
    :raises ValueError, RecursionError: when it is not JSON, or nested deeper than 100 levels.
    """
    body = _in_utf8(body)
    if value_count(body, most_values) > most_values:
        raise TooManyValuesError("too many values")
    try:
        if (text := _harmless(body)) is not None:
            # What is not JSON, such as a page of megabytes, is refused before secrets are looked for.
            found = _PLAIN_DECODER.decode(text)
            # They are looked for in what escapes stand for, too.
            if redact(text) == text:
                return found
        return plain(_DECODER.decode(_text(body)), redact)
    except json.JSONDecodeError:
        if (inner := _unwrapped(_text(body))) is None:
            raise
        return plain(_DECODER.decode(inner), redact)


def _harmless(body: bytes) -> str | None:
    """Return the body's text if parsing alone makes it plain, secrets apart, else None.

    Nearly every poll brings such an answer, and a search of the whole is much cheaper than one of each value.
    """
    # Proper UTF-8 has no surrogates but in escapes.
    if b"\0" in body or (b"\\" in body and _ODD_ESCAPE.search(body)):
        return None
    if _LONG_NUMBER.search(body) or b'"__' in body:
        return None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth(body) > MAX_DEPTH:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if text.startswith("\ufeff") else text


def depth(body: bytes) -> int:
    """Return how deep JSON is nested, up to one more than ``MAX_DEPTH``; that also where its brackets do not match."""
    left = without_texts(body).translate(_ONE_KIND, _NOT_A_BRACKET)
    for found in range(MAX_DEPTH + 1):
        if not left:
            return found
        # Each pass takes the innermost level away.
        inner = left.replace(b"[]", b"")
        if len(inner) == len(left):
            break
        left = inner
    return MAX_DEPTH + 1


def _in_utf8(body: bytes) -> bytes:
    """Return what is in UTF-16 or UTF-32 in UTF-8: the bytes of a letter there can look like a quotation mark."""
    if b"\0" not in body[:4] and body[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return body
    return _text(body).encode("utf-8", "replace")


def _text(body: bytes) -> str:
    return body.decode(json.detect_encoding(body), "replace").removeprefix("\ufeff")


def _finite(digits: str) -> float | None:
    found = float(digits)
    return found if math.isfinite(found) else None


# -- what is around it ----------------------------------------------------------------------------

_BLANKS: Final = " \t\r\n\v\f\0\x1e\x85\xa0\u200b\u2028\u2029\ufeff"
"""What may be around JSON and means nothing: also a byte order mark, and the separator of RFC 7464."""
# A guard against script tags that include JSON of another origin: )]}' and for (;;); among others.
_SCRIPT_GUARD: Final = re.compile(r"(?:\)\]\}'?,?|(?:while|for) ?\((?:1|;;)\);|\{\}&&)")
_CALL_BEGINS: Final = re.compile(r"(?:/\*\*/)?[\w$.]{1,100} ?\(")
_EVENT_LINE: Final = re.compile(r"(?:data|event|id|retry)?:")
_MOST_EVENT_LINES: Final = 50_000
"""A longer stream of events is not split into lines: 16 MiB of line ends took 12 seconds and 1.3 GB."""


def _unwrapped(text: str) -> str | None:
    """Return the JSON in a text that is nothing else than JSON in a known wrapping; None for any other.

    Known are blanks and byte order marks, the guards against script tags, a call (JSONP), and a single server-sent
    event (https://html.spec.whatwg.org/multipage/server-sent-events.html).
    """
    bare = found = text.strip(_BLANKS)
    if guard := _SCRIPT_GUARD.match(found):
        found = found[guard.end() :].strip(_BLANKS)
    elif (call := _CALL_BEGINS.match(found)) and (inner := found.rstrip("; ")).endswith(")"):
        found = inner[call.end() : -1].strip(_BLANKS)
    elif _EVENT_LINE.match(found):
        found = _only_event(found) or ""
    if found is not bare and not found.startswith(("{", "[")):
        return None
    return found if found and found != text else None


def _only_event(text: str) -> str | None:
    """Return the data of a stream of events that has one with data; None where it has several, or is no stream."""
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
    found = [data for lines in events if (data := "\n".join(lines)) and data != "[DONE]"]
    return found[0] if len(found) == 1 else None


_PLAIN_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None)
_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None, parse_int=integer)


# -- what is not whole ----------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r'"(?P<text>[^"\\]*+(?:\\.[^"\\]*+)*+)"|(?P<open>[{\[])|(?P<close>[}\]])|(?P<sign>[,:])|"(?P<cut>.*)'
    r'|(?P<word>[^\s{}\[\],:"]+)',
    re.DOTALL,
)
# Also behind a byte order mark, and in UTF-16 and UTF-32.
_BEGINS_JSON: Final = re.compile(rb"[\xef\xbb\xbf\xfe\xff\0 \t\r\n]{0,64}[{\[]")
_MOST_ITEMS: Final = 100
_MOST_MEMBERS: Final = 5_000
_MOST_TEXTS: Final = 4
"""So many texts that are JSON themselves are opened inside each other."""
_DROPPED: Final[Any] = None


def parse_partly(body: bytes, redact: Callable[[str], str] = str, wanted: Collection[str] = ()) -> Any:
    """Return as much as can be read of JSON that is cut off, broken, too large, or followed by something else.

    A value counts only if its end was seen: of ``{"task_id": "94700`` nothing is known. Lists are cut after 100 items
    and objects after 5,000 members.

    :param body: the bytes; what does not begin with an object or a list, such as a page, holds nothing.
    :param redact: takes secrets out of every text.
    :param wanted: names whose texts and numbers are kept however many members an object has.
    :return: the outermost object or list, or None.
    """
    if not _BEGINS_JSON.match(body):
        return None
    return plain(_Salvage(frozenset(wanted)).read(_text(body).strip()), redact)


class Document(NamedTuple):
    """An object or a list in a text, and whether there is nothing but separators before it."""

    value: Any
    is_clean: bool


_MOST_DOCUMENTS: Final = 50
_OPENS: Final = re.compile(r"[{\[]")
_A_PAGE: Final = re.compile(r"<(?:!doctype|html|head|body)\b", re.IGNORECASE)
# Lines of JSON, and server-sent events.
_SEPARATORS: Final = re.compile(r"(?:[\s,]|data:|(?:event|id|retry)?:[^\n]*+\n)*+")


def documents(body: bytes, redact: Callable[[str], str] = str, wanted: Collection[str] = ()) -> list[Document]:
    """Return the objects and lists in a text, each as far as it can be read: lines of JSON, events, JSON in words.

    Each character is read once. Up to 50 are returned, with 5,000 members together; of a web page, none is.

    :param body: the bytes.
    :param redact: takes secrets out of every text.
    :param wanted: as for :func:`parse_partly`.
    """
    text = _text(body).strip(_BLANKS)
    found: list[Document] = []
    at, room, is_clean = 0, _MOST_MEMBERS, not _A_PAGE.match(text)
    if not is_clean:
        return []
    while len(found) < _MOST_DOCUMENTS and (start := _OPENS.search(text, at)):
        is_clean = is_clean and _SEPARATORS.fullmatch(text, at, start.start()) is not None
        salvage = _Salvage(frozenset(wanted), room=room)
        found.append(Document(plain(salvage.read(text, start.start()), redact), is_clean))
        at, room = salvage.end, salvage.room
    return found


_LENIENT: Final = json.JSONDecoder(strict=False)


class _Salvage:
    """Reads JSON token by token into a tree of bounded size; no recursion, no look back."""

    def __init__(
        self,
        wanted: frozenset[str],
        depth: int = MAX_DEPTH,
        texts: int = _MOST_TEXTS,
        *,
        room: int = _MOST_MEMBERS,
    ) -> None:
        self.end = 0
        """Where in the text the outermost object or list has ended."""
        self.room = room
        """How many more members are kept."""
        self._wanted = wanted
        self._depth = depth
        self._texts = texts
        self._root: Any = None
        # Each level: the object or list (None when it is dropped) and, in an object, the name of the next value.
        self._levels: list[Any] = []
        self._names: list[str | None] = []

    def read(self, text: str, at: int = 0) -> Any:
        """Return the first object or list from ``at`` on, or None."""
        self.end = len(text)
        for token in _TOKEN.finditer(text, at):
            kind, found = token.lastgroup, token.group(token.lastgroup or 0)
            if kind == "open":
                self._enter({} if found == "{" else [])
            elif not self._levels:
                continue  # before the first bracket there are at most bytes that are not text
            elif kind == "close":
                level = self._levels.pop()
                self._names.pop()
                if not self._levels or (level is not None and isinstance(level, dict) != (found == "}")):
                    self.end = token.end()
                    break
            elif kind == "text":
                self._take_text(found)
            elif kind == "word" and token.end() < len(text):  # at the very end a number may lack its last digits
                self._take(_scalar(found))
            elif kind == "cut":
                self._take_cut(found)
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
        """Take a text without its end if it is JSON itself, as gateways put the service's answer into a text."""
        room = self._depth - len(self._levels)
        if self._levels[-1] is _DROPPED or room <= 0 or self._texts <= 0:
            return
        inner = _unescaped(raw.rstrip("\\"))
        if inner.lstrip().startswith("{"):
            self._take(_Salvage(self._wanted, room, self._texts - 1).read(inner.strip()))

    def _add(self, value: Any) -> bool:
        """Put a value where it belongs; False if it has no room or no name."""
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
