"""Takes the body of an answer as it arrives: unpacks it, cuts inline media out and limits its size. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from airflow_provider_vidu.network.codings import BodyError, BodyUnpacker, real_codings, too_large

__all__ = ["BodyError", "Bounds", "IncomingBody", "has_long_run", "real_codings", "too_large"]

MIB: Final = 1024 * 1024

LONG_RUN: Final = 16 * 1024
"""A run of at least this many Base64 characters is inline media; no usable URL is that long."""

_PIECE: Final = 64 * 1024
_PORTION: Final = 512
"""This many packed bytes unpack to at most 512 KiB, which takes a millisecond or two."""
_MAGIC_BYTES: Final = 2
"""This many bytes show whether a body is packed."""
_RUN_TABLE: Final = bytes(65 if code in b"+/=_-" or (code < 128 and chr(code).isalnum()) else 32 for code in range(256))
_NEEDLE: Final = b"A" * LONG_RUN
# PHP writes a slash as \/ (with more backslashes in JSON inside JSON), .NET a plus as \u002B; MIME has lines.
_ESCAPE_BEGINS: Final = re.compile(rb"\\{1,4}(?:u(?:0(?:0[23]?)?)?)?\Z")
_MOST_ESCAPE_BYTES: Final = 8
_ESCAPED: Final = (
    b"\\\\\\/",
    b"\\/",
    *(before + line for before in (b"\\\\", b"\\") for line in (b"n", b"r")),
    *(before + code for before in (b"\\\\u00", b"\\u00") for code in (b"2B", b"2b", b"2F", b"2f", b"3D", b"3d")),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on how much of an answer is read and kept.

    :param wire: bytes taken from the network.
    :param unpacked: bytes to which a compressed body is inflated; compression is never requested.
    :param kept: bytes kept after inline media was cut out.
    :param kept_unpacked: the same for a body that was compressed.
    :param values: JSON values: 4 MiB of ``{}`` take gigabytes when parsed.
    """

    wire: int
    unpacked: int
    kept: int
    kept_unpacked: int
    values: int


SINGLE: Final = Bounds(24 * MIB, 4 * MIB, MIB, MIB // 4, 20_000)
"""For an answer about one generation: usually a few KiB, or up to 20 MB if it repeats the request."""

LIST: Final = Bounds(64 * MIB, 16 * MIB, 16 * MIB, 4 * MIB, 200_000)
"""For a page of 100 generations."""

CREATE: Final = Bounds(64 * MIB, 64 * MIB, 16 * MIB, 16 * MIB, 20_000)
"""For the answer to a billed request: finding its id justifies reading more."""


def is_kept_whole(body: bytes) -> bool:
    """Whether a complete body is what :class:`IncomingBody` would make of it: as that of nearly every poll."""
    return len(body) < LONG_RUN and body.startswith(b"{")


class IncomingBody:
    """Takes a body piece by piece; :attr:`content` holds what has arrived so far, even after an error.

    :param encoding: the ``Content-Encoding`` header; empty if there is none.
    """

    def __init__(self, encoding: str, bounds: Bounds) -> None:
        self.received = 0
        """Bytes from the network."""
        self._bounds = bounds
        self._unpacker = BodyUnpacker(encoding, bounds.unpacked)
        self._text = _WithoutMedia()

    @property
    def content(self) -> bytes:
        """The unpacked body, with long inline media cut out."""
        return self._text.content

    @property
    def is_packed(self) -> bool:
        """Whether the body turned out to be compressed."""
        return self._unpacker.is_packed

    def portions(self, data: bytes) -> Iterator[bytes]:
        """Yield ``data`` in portions to feed one by one, small ones if packed: packed bytes can grow a thousandfold."""
        at = 0
        while at < len(data):
            size = _PORTION if self.is_packed else len(data) if self.received >= _MAGIC_BYTES else _MAGIC_BYTES
            yield data[at : at + size]
            at += size

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raises BodyError when they are too many, corrupt, or in an unsupported coding."""
        self.received += len(data)
        for piece in self._unpacker.feed(data):
            self._keep(piece)
        if self.received > self._bounds.wire:
            raise too_large(self._bounds.wire)

    def end(self) -> bytes:
        """Return the content after the end of the body."""
        for piece in self._unpacker.end():
            self._keep(piece)
        return self.content

    def _keep(self, data: bytes) -> None:
        self._text.feed(data)
        limit = self._bounds.kept_unpacked if self._unpacker.is_packed else self._bounds.kept
        if self._text.size > limit:
            raise too_large(limit)


class _WithoutMedia:
    """Keeps a text without its long runs of Base64: answers repeat the images of their request.

    A run is cut out as it arrives, wherever it is (a data URI, bare, JSON inside a text); the rest stays unchanged.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._pending = b""
        self._cut = 0

    @property
    def size(self) -> int:
        """The number of bytes kept."""
        return len(self._kept) + len(self._pending)

    @property
    def content(self) -> bytes:
        """The text kept."""
        self._settle()
        self._kept += self._pending
        self._pending = b""
        return bytes(self._kept)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if not self._kept and not self._cut and len(self._pending) + len(data) < LONG_RUN:
            self._pending += data  # the fast path of nearly every body
            return
        for at in range(0, len(data), _PIECE):
            self._take(self._pending + data[at : at + _PIECE])

    def _take(self, data: bytes) -> None:
        """Keep ``data`` up to where a run may continue; each byte is searched only a few times."""
        runs = _runs(data)
        if self._cut:
            more = len(runs) - len(runs.lstrip(b"A"))
            self._cut += more
            if more == len(data) or _ESCAPE_BEGINS.match(data, more):
                self._pending = data[more:]
                return
            data, runs = data[more:], runs[more:]
            self._settle()
        at = 0
        while (start := runs.find(_NEEDLE, at)) >= 0:
            self._kept += data[at:start]
            rest = runs[start:]
            length = len(rest) - len(rest.lstrip(b"A"))
            self._cut, at = length, start + length
            if at == len(data) or _ESCAPE_BEGINS.match(data, at):
                self._pending = data[at:]
                return
            self._settle()
        # A run at the end may grow long, and an escape that began there may belong to it.
        escape = _ESCAPE_BEGINS.search(data, max(len(data) - _MOST_ESCAPE_BYTES, at))
        end = max(len(runs[: escape.start() if escape else None].rstrip(b"A")), at)
        self._kept += data[at:end]
        self._pending = data[end:]

    def _settle(self) -> None:
        if self._cut:
            self._kept += f"({self._cut} characters cut out)".encode("ascii")
            self._cut = 0


def _runs(data: bytes) -> bytes:
    """Return ``data`` with each Base64 character replaced by an A."""
    if b"\\" in data:
        for escaped in _ESCAPED:
            data = data.replace(escaped, b"A" * len(escaped))
    return data.translate(_RUN_TABLE)


def has_long_run(body: bytes, length: int) -> bool:
    """Whether ``body`` contains a run of at least ``length`` Base64 characters."""
    return len(body) >= length and _runs(body).find(_NEEDLE[:length]) >= 0
