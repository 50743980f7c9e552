"""How many values JSON holds, counted before it is parsed: a few bytes may be as many objects. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

PIECE_BYTES: Final = 64 * 1024
"""How many bytes are read at a time."""


def without_texts(body: bytes) -> bytes:
    """Return JSON without its strings, in time and memory proportional to its length.

    If a backslash is outside of a string, where each parser stops, the rest of the result is meaningless.
    """
    return b"".join(_outside_texts(body))


def _outside_texts(body: bytes) -> Iterator[bytes]:
    """Yield JSON without its strings, in pieces: all its strings at once are objects of ten times its length."""
    is_inside, at = False, 0
    while at < len(body):
        piece = body[at : at + PIECE_BYTES]
        at += len(piece)
        if at < len(body) and (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # what it escapes is in the next piece
            piece, at = piece[:-1], at - 1
        if b'\\"' in piece:
            # From the left, as a parser reads a run of backslashes: pairs first, then each that escapes a quote.
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')  # each quotation mark begins or ends a string
        yield b"".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0


def value_count(body: bytes, enough: int) -> int:
    """Return approximately how many values JSON holds, without parsing it.

    :param enough: a count up to this number may be too high.
    """
    if len(body) <= enough:
        return len(body)
    count = marks(body)
    return count if count <= enough else sum(map(marks, _outside_texts(body)))


def marks(body: bytes) -> int:
    """Return how many values JSON holds at most, with the signs of more within its texts."""
    return body.count(b",") + body.count(b"{") + body.count(b"[")
