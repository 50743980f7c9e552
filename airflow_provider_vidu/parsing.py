"""Bytes that claim to be JSON become values that every store can hold, in bounded time and memory. No I/O."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Collection
from typing import Any, Final

from airflow_provider_vidu.values import (
    MAX_DEPTH,
    integer,
    plain,
    value_count,
    without_texts,
)

# May be an integer of more than 64 bits; ids have 18 or 19 digits.
_LONG_NUMBER: Final = re.compile(rb"[0-9-][0-9]{19}")
# Escapes that stand for a NUL or for half of a character; every other one is harmless.
_ODD_ESCAPE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NOT_A_BRACKET: Final = bytes(code for code in range(256) if code not in b"[]{}")


class TooManyValuesError(ValueError):
    """There are more values than are read."""


def parse(body: bytes, strike: Callable[[str], str] = str, most_values: int = 20_000) -> Any:
    """Return JSON that every store can hold.

    Bytes that are not UTF-8 inside a text become U+FFFD: a gateway may quote a message in another character set.

    :param body: the bytes, in UTF-8, or in UTF-16 or UTF-32 with or without a byte order mark.
    :param strike: takes secrets out of every text.
    :param most_values: the most values that are read.
    :raises TooManyValuesError: when there are more; they are counted before anything is parsed.
    :raises ValueError, RecursionError: when it is not JSON, or nested deeper than 100 levels.
    """
    body = _in_utf8(body)
    if value_count(body, most_values) > most_values:
        raise TooManyValuesError("too many values")
    if (text := _harmless(body, strike)) is not None:
        return _PLAIN_DECODER.decode(text)
    return plain(_DECODER.decode(_text(body)), strike)


def _harmless(body: bytes, strike: Callable[[str], str]) -> str | None:
    """Return the body's text if parsing alone makes it plain, else None.

    Nearly every poll brings such an answer, and a search of the whole is much cheaper than one of each value.
    """
    # Proper UTF-8 has no surrogates but in escapes.
    if b"\0" in body or (b"\\" in body and _ODD_ESCAPE.search(body)):
        return None
    if _LONG_NUMBER.search(body):
        return None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth(body) > MAX_DEPTH:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    # Secrets are looked for in what escapes stand for, too.
    return text if not text.startswith("\ufeff") and strike(text) == text else None


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


def parse_partly(body: bytes, strike: Callable[[str], str] = str, wanted: Collection[str] = ()) -> Any:
    """Return as much as can be read of JSON that is cut off, broken, too large, or followed by something else.

    A value counts only if its end was seen: of ``{"task_id": "94700`` nothing is known. Lists are cut after 100 items
    and objects after 5,000 members.

    :param body: the bytes; what does not begin with an object or a list, such as a page, holds nothing.
    :param strike: takes secrets out of every text.
    :param wanted: names whose texts and numbers are kept however many members an object has.
    :return: the outermost object or list, or None.
    """
    if not _BEGINS_JSON.match(body):
        return None
    return plain(_Salvage(frozenset(wanted)).read(_text(body).strip()), strike)


_LENIENT: Final = json.JSONDecoder(strict=False)


class _Salvage:
    """Reads JSON token by token into a tree of bounded size; no recursion, no look back."""

    def __init__(self, wanted: frozenset[str], depth: int = MAX_DEPTH, texts: int = _MOST_TEXTS) -> None:
        self._wanted = wanted
        self._depth = depth
        self._texts = texts
        self._root: Any = None
        # Each level: the object or list (None when it is dropped) and, in an object, the name of the next value.
        self._levels: list[Any] = []
        self._names: list[str | None] = []
        self._left = _MOST_MEMBERS

    def read(self, text: str) -> Any:
        for token in _TOKEN.finditer(text):
            kind, found = token.lastgroup, token.group(token.lastgroup or 0)
            if kind == "open":
                self._enter({} if found == "{" else [])
            elif not self._levels:
                continue  # before the first bracket there are bytes that are no text, at the most
            elif kind == "close":
                level = self._levels.pop()
                self._names.pop()
                if not self._levels or (level is not None and isinstance(level, dict) != (found == "}")):
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
        """Put a value where it belongs; False if there is no room for it, or no name."""
        level = self._levels[-1]
        if isinstance(level, list):
            if len(level) < _MOST_ITEMS and self._left > 0:
                level.append(value)
                self._left -= 1
                return True
            return False
        name = self._names[-1]
        self._names[-1] = None
        if level is None or name is None:
            return False
        if self._left <= 0 and not (name in self._wanted and isinstance(value, (str, int))):
            return False
        level[name] = value
        self._left -= 1
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
