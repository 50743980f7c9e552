"""The body of an answer as it arrives: unpacked, without inline media, and bounded. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from airflow_provider_vidu.network.codings import CODINGS, BodyError, Unpacker, real_codings, too_large

__all__ = ["CODINGS", "BodyError", "Bounds", "IncomingBody", "has_long_run", "real_codings", "too_large"]

MIB: Final = 1024 * 1024

LONG_RUN: Final = 16 * 1024
"""From so many characters of Base64 in a row on, a body's text is inline media. No URL that is used is longer."""

_PIECE: Final = 64 * 1024
_PORTION: Final = 512
"""So many packed bytes hold at most 512 KiB, which take a millisecond or two."""
_TELLING: Final = 2
"""After so many bytes it is known whether a body is packed."""
_RUN_TABLE: Final = bytes(65 if code in b"+/=_-" or (code < 128 and chr(code).isalnum()) else 32 for code in range(256))
_NEEDLE: Final = b"A" * LONG_RUN
# PHP writes a slash as \/ (and with more backslashes inside a text that is JSON itself), .NET a plus as \u002B.
_ESCAPE_BEGINS: Final = re.compile(rb"\\{1,4}(?:u(?:0(?:0[23]?)?)?)?")
_ESCAPED: Final = (
    b"\\\\\\/",
    b"\\/",
    *(before + code for before in (b"\\\\u00", b"\\u00") for code in (b"2B", b"2b", b"2F", b"2f", b"3D", b"3d")),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of an answer is read and kept.

    :param wire: the most bytes that are taken from the network.
    :param unpacked: the most bytes that a compressed body is inflated to; no compression is ever asked for.
    :param kept: the most bytes that are kept, after inline media was cut out.
    :param kept_unpacked: the same of a body that was compressed.
    :param values: the most JSON values: 4 MiB of ``{}`` take gigabytes when they are parsed.
    """

    wire: int
    unpacked: int
    kept: int
    kept_unpacked: int
    values: int


SINGLE: Final = Bounds(24 * MIB, 4 * MIB, MIB, MIB // 4, 20_000)
"""For an answer about one generation; an honest one has a few KiB, or repeats a request (20 MB at most)."""

LIST: Final = Bounds(64 * MIB, 16 * MIB, 16 * MIB, 4 * MIB, 200_000)
"""For a page of 100 generations."""

CREATE: Final = Bounds(64 * MIB, 64 * MIB, 16 * MIB, 16 * MIB, 20_000)
"""For an answer to a request that bills: its id is worth more reading."""


class IncomingBody:
    """Takes a body piece by piece; :attr:`content` is what has come so far, whatever happened then.

    :param encoding: the ``Content-Encoding`` header; empty without one.
    :param bounds: how much is read and kept.
    """

    def __init__(self, encoding: str, bounds: Bounds) -> None:
        self.received = 0
        """Bytes from the network."""
        self._bounds = bounds
        self._unpacker = Unpacker(encoding, bounds.unpacked)
        self._text = _WithoutMedia()

    @property
    def content(self) -> bytes:
        """The body as it was before its encoding, with long inline media cut out."""
        return self._text.content

    @property
    def is_packed(self) -> bool:
        """Whether the body turned out to be compressed."""
        return self._unpacker.is_packed

    def portions(self, data: bytes) -> Iterator[bytes]:
        """Yield ``data`` in portions to be fed one by one: packed bytes grow a thousandfold, so these are small.

        :param data: the next bytes; each portion must be fed before the next one is taken.
        """
        at = 0
        while at < len(data):
            size = _PORTION if self.is_packed else len(data) if self.received >= _TELLING else _TELLING
            yield data[at : at + size]
            at += size

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        :raises BodyError: when the body is larger than its bounds, broken, or in a coding that cannot be read.
        """
        self.received += len(data)
        for piece in self._unpacker.feed(data):
            self._keep(piece)
        if self.received > self._bounds.wire:
            raise too_large(self._bounds.wire)

    def end(self) -> bytes:
        """Return the content, now that the body has ended."""
        for piece in self._unpacker.end():
            self._keep(piece)
        return self.content

    def _keep(self, data: bytes) -> None:
        self._text.feed(data)
        limit = self._bounds.kept_unpacked if self._unpacker.is_packed else self._bounds.kept
        if self._text.size > limit:
            raise too_large(limit)


class _WithoutMedia:
    """Keeps a text, except for the long runs of Base64 in it: answers repeat the images of their request.

    A run is cut out wherever it is (in a data URI, bare, or in JSON inside a text), so that nothing else of the text
    changes, and none of it is kept in memory while it arrives.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._pending = b""
        self._cut = 0

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return len(self._kept) + len(self._pending)

    @property
    def content(self) -> bytes:
        """What is kept."""
        self._settle()
        self._kept += self._pending
        self._pending = b""
        return bytes(self._kept)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if not self._kept and not self._cut and len(self._pending) + len(data) < LONG_RUN:
            self._pending += data  # nearly every body is that short, and needs no more than this
            return
        for at in range(0, len(data), _PIECE):
            self._take(self._pending + data[at : at + _PIECE])

    def _take(self, data: bytes) -> None:
        """Keep ``data`` up to where a run may go on, and search no byte more than a few times."""
        runs = _runs(data)
        if self._cut:
            going_on = len(runs) - len(runs.lstrip(b"A"))
            self._cut += going_on
            if going_on == len(data) or _ESCAPE_BEGINS.fullmatch(data, going_on):
                self._pending = data[going_on:]
                return
            data, runs = data[going_on:], runs[going_on:]
            self._settle()
        at = 0
        while (start := runs.find(_NEEDLE, at)) >= 0:
            self._kept += data[at:start]
            rest = runs[start:]
            length = len(rest) - len(rest.lstrip(b"A"))
            self._cut, at = length, start + length
            if at == len(data):
                self._pending = b""
                return
            self._settle()
        # A run at the end may become a long one; a backslash may belong to the slash that follows.
        end = len(runs.rstrip(b"A\\")) if runs[-1:] in (b"A", b"\\") else len(data)
        end = max(end, len(data) - LONG_RUN, at)
        self._kept += data[at:end]
        self._pending = data[end:]

    def _settle(self) -> None:
        if self._cut:
            self._kept += f"({self._cut} characters cut out)".encode("ascii")
            self._cut = 0


def _runs(data: bytes) -> bytes:
    """Return ``data`` with an A for each character of Base64."""
    if b"\\/" in data or b"\\u00" in data:
        for escaped in _ESCAPED:
            data = data.replace(escaped, b"A" * len(escaped))
    return data.translate(_RUN_TABLE)


def has_long_run(body: bytes, length: int) -> bool:
    """Whether so many characters of Base64 follow each other anywhere."""
    return len(body) >= length and _runs(body).find(_NEEDLE[:length]) >= 0
