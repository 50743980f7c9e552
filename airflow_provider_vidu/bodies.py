"""The body of an answer as it arrives: unpacked, without inline media, and bounded. No I/O.

Which content codings are real is decided here for the API and for downloads. Gateways and stores also send ``utf-8``,
``aws-chunked``, ``binary`` or ``none`` as ``Content-Encoding``: such a word means nothing, and a real one may be wrong,
so the bytes decide where they can.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024

CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz"})
"""The registered content codings (https://www.iana.org/assignments/http-parameters) that change the bytes."""

LONG_RUN: Final = 16 * 1024
"""From so many characters of Base64 in a row on, a body's text is inline media. No URL that is used is longer."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_BEGINS_TEXT: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[{\[\"<]")
_PIECE: Final = 64 * 1024
_RUN_TABLE: Final = bytes(65 if code in b"+/=_-" or (code < 128 and chr(code).isalnum()) else 32 for code in range(256))
_NEEDLE: Final = b"A" * LONG_RUN
# PHP writes a slash as \/ (and with more backslashes inside a text that is JSON itself), .NET a plus as \u002B.
_ESCAPE_BEGINS: Final = re.compile(rb"\\{1,4}(?:u(?:0(?:0[23]?)?)?)?")
_ESCAPED: Final = (
    b"\\\\\\/",
    b"\\/",
    *(before + code for before in (b"\\\\u00", b"\\u00") for code in (b"2B", b"2b", b"2F", b"2f", b"3D", b"3d")),
)


def real_codings(header: str) -> list[str]:
    """Return the codings in a ``Content-Encoding`` header that mean something, in lower case."""
    return [name for part in header.split(",") if (name := part.strip().lower()) in CODINGS]


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


SINGLE: Final = Bounds(24 * MIB, 4 * MIB, 4 * MIB, MIB // 4, 20_000)
"""For an answer about one generation; an honest one has a few KiB, or repeats a request (20 MB at most)."""

LIST: Final = Bounds(64 * MIB, 16 * MIB, 16 * MIB, 4 * MIB, 200_000)
"""For a page of 100 generations."""

CREATE: Final = Bounds(64 * MIB, 64 * MIB, 16 * MIB, 16 * MIB, 20_000)
"""For an answer to a request that bills: its id is worth more reading."""


class BodyError(ValueError):
    """The body cannot be read on.

    :param message: why, as a sentence.
    :param is_too_large: whether it is larger than its bounds.
    """

    def __init__(self, message: str, *, is_too_large: bool = False) -> None:
        super().__init__(message)
        self.is_too_large = is_too_large


def too_large(limit: int) -> BodyError:
    """Return the error of a body that is larger than ``limit`` bytes."""
    return BodyError(f"The answer is larger than {limit} bytes.", is_too_large=True)


class IncomingBody:
    """Takes a body piece by piece; :attr:`content` is what has come so far, whatever happened then.

    :param encoding: the ``Content-Encoding`` header; empty without one.
    :param bounds: how much is read and kept.
    """

    def __init__(self, encoding: str, bounds: Bounds) -> None:
        self.received = 0
        """Bytes from the network."""
        self._codings = real_codings(encoding)
        self._bounds = bounds
        self._first: bytearray | None = bytearray()
        self._inflater: _Inflater | None = None
        self._text = _WithoutMedia()

    @property
    def content(self) -> bytes:
        """The body as it was before its encoding, with long inline media cut out."""
        return self._text.content

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        :raises BodyError: when the body is larger than its bounds, broken, or in a coding that cannot be read.
        """
        self.received += len(data)
        if self._first is not None:
            self._first += data
            if len(self._first) < 2:
                return
            data, self._first = bytes(self._first), None
            self._inflater = self._inflater_for(data)
        if self._inflater is None:
            self._keep(data, self._bounds.kept)
        else:
            for piece in self._inflater.inflate(data):
                self._keep(piece, self._bounds.kept_unpacked)
        if self.received > self._bounds.wire:
            raise too_large(self._bounds.wire)

    def end(self) -> bytes:
        """Return the content, now that the body has ended."""
        if self._first:
            self._keep(bytes(self._first), self._bounds.kept)
            self._first = None
        return self.content

    def _keep(self, data: bytes, limit: int) -> None:
        self._text.feed(data)
        if self._text.size > limit:
            raise too_large(limit)

    def _inflater_for(self, first: bytes) -> _Inflater | None:
        """Return what unpacks a body that begins so, or None for one that is not packed, whatever its header says."""
        if first.startswith(_GZIP_MAGIC):
            return _Inflater("gzip", 31, self._bounds.unpacked)
        if not self._codings or _BEGINS_TEXT.match(first):
            return None
        if self._codings == ["deflate"]:
            # Some servers send it without its header (RFC 9110, 8.4.1.2).
            has_header = first[0] & 0x0F == 8 and (first[0] << 8 | first[1]) % 31 == 0
            return _Inflater("deflate", 15 if has_header else -15, self._bounds.unpacked)
        if self._codings[-1] in ("gzip", "x-gzip", "deflate"):
            raise BodyError(f"The answer is broken {', '.join(self._codings)}.")
        raise BodyError(
            f"The answer is encoded as {', '.join(self._codings)!r}, although no encoding was asked for. "
            "Switch the compression off at the gateway, or at the proxy in front of it."
        )


class _Inflater:
    """Unpacks in pieces of bounded size: how much of a bomb a library inflates at a time depends on its version."""

    def __init__(self, name: str, wbits: int, limit: int) -> None:
        self.name = name
        self._limit = limit
        self._count = 0
        self._unpack = zlib.decompressobj(wbits=wbits)

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` unpacks to.

        :raises BodyError: when it is broken or too much.
        """
        while data and not self._unpack.eof:
            try:
                piece = self._unpack.decompress(data, _PIECE)
            except zlib.error:
                raise BodyError(f"The answer is broken {self.name}.") from None
            self._count += len(piece)
            if self._count > self._limit:
                raise too_large(self._limit)
            yield piece
            data = self._unpack.unconsumed_tail


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
