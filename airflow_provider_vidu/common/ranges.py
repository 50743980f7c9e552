"""Evaluates Range and If-Range headers (RFC 9110, section 14). No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_HEADER_CHARS: Final = 100
"""A longer Range header is ignored unparsed, so that it cannot occupy the server's event loop."""

# At most 19 digits: Python refuses to convert thousands, and no file is longer.
_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,19})[ \t]*-[ \t]*([0-9]{0,19})", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """The bytes to send: status 200 (all), 206 (``start`` to ``stop``, exclusive) or 416 (not satisfiable)."""

    status: int
    start: int
    stop: int

    def content_range(self, size: int) -> str | None:
        """Return the Content-Range value for a file of ``size`` bytes, or None for a 200."""
        if self.status == 200:
            return None
        return f"bytes */{size}" if self.status == 416 else f"bytes {self.start}-{self.stop - 1}/{size}"


def decide(range_header: str | None, if_range: str | None, *, size: int, etag: str, modified: str) -> Part:
    """Return which part of ``size`` bytes to send.

    ``etag`` and ``modified`` are the file's current validators, empty if it has none. A Range header is ignored if it
    cannot be parsed, is longer than :data:`MAX_HEADER_CHARS`, names several parts, or if If-Range is not an exact,
    strong match.
    """
    whole = Part(200, 0, size)
    if not range_header or len(range_header) > MAX_HEADER_CHARS or not _holds(if_range, etag, modified):
        return whole
    match = _RANGE.fullmatch(range_header.strip())
    if match is None or not (match[1] or match[2]):
        return whole
    if not match[1]:
        length = min(int(match[2]), size)
        return Part(206, size - length, size) if length else Part(416, 0, 0)
    first = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return whole
    if first >= size:
        return Part(416, 0, 0)
    return Part(206, first, min(last, size - 1) + 1)


def _holds(if_range: str | None, etag: str, modified: str) -> bool:
    if if_range is None:
        return True
    value = if_range.strip()
    if value.startswith('"'):
        return value == etag
    # A weak entity tag never matches: weakly equal files may differ in the bytes that are to be joined.
    return not value.startswith("W/") and bool(modified) and value == modified
