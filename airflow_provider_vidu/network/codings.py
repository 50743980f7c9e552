"""Content codings: which ones are real, and unpacking a body piece by piece, by its bytes, not its header. No I/O.

The API and downloads share this list of real codings. Gateways and stores also send ``utf-8``, ``aws-chunked``,
``binary`` or ``none`` as ``Content-Encoding``, which mean nothing, and a real coding may be wrong, so the bytes decide
where they can. Checksums are ignored: the JSON shows whether an answer is complete.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd", "dcb", "dcz"})
"""The registered content codings (https://www.iana.org/assignments/http-parameters) that change the bytes."""

_MOST_LAYERS: Final = 3
"""Codings that may be nested: a gateway packs what is already packed."""
_MOST_MEMBERS: Final = 1000
"""Gzip members allowed in a body (RFC 1952, 2.2); each costs a new decompressor."""
_PIECE: Final = 64 * 1024
_MOST_HEADER_BYTES: Final = 64 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
# Optional parts of a gzip header (RFC 1952, 2.3); name and comment end in a NUL.
_EXTRA, _NAME, _COMMENT, _HEADER_CHECKSUM = 4, 8, 16, 2
_GZIP_TRAILER: Final = 8
# No coding's first bytes are blanks only; how many of them arrive at once must not decide.
_BEGINS_TEXT: Final = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t\r\n]{1000}|[ \t\r\n]*[{\[\"<])")
_ANY_TEXT: Final = re.compile(rb"[\t\r\n\x20-\x7e]|\xef\xbb|\xff\xfe|\xfe\xff")
"""Text of any kind; no gzip begins so, and other codings may."""
_MUCH_TEXT: Final = re.compile(rb"[\t\r\n\x20-\x7e]{16}|\xef\xbb|\xff\xfe|\xfe\xff")
"""So much text that no coding begins so, but by a chance of one in millions."""
_UNDECIDED: Final = re.compile(rb".?|(?:\xef(?:\xbb(?:\xbf)?)?)?[ \t\r\n]{0,1000}", re.DOTALL)
"""What the beginning of a body may be before it shows whether the rest is text."""
_UNDECIDED_PACKED: Final = re.compile(rb"(?s:%b)|[\t\r\n\x20-\x7e]{0,15}" % _UNDECIDED.pattern)
"""The same, if the header names a coding."""
_BEGINS_ZLIB: Final = re.compile(rb"x[\x01\x9c\xda]")


def real_codings(header: str) -> list[str]:
    """Return the real codings in a ``Content-Encoding`` header, in lower case."""
    return [name for part in header.split(",") if (name := part.strip().lower()) in CODINGS]


class BodyError(ValueError):
    """The rest of the body cannot be read."""

    def __init__(self, message: str, *, is_too_large: bool = False) -> None:
        super().__init__(message)
        self.is_too_large = is_too_large


def too_large(limit: int) -> BodyError:
    """Return the error for a body larger than ``limit`` bytes."""
    return BodyError(f"The answer is larger than {limit} bytes.", is_too_large=True)


class BodyUnpacker:
    """Takes a body piece by piece and yields it unpacked.

    :param encoding: the ``Content-Encoding`` header; empty if there is none.
    :param limit: the most bytes to which any layer is inflated.
    """

    def __init__(self, encoding: str, limit: int, layer: int = 1) -> None:
        self._codings = real_codings(encoding)
        self._limit = limit
        self._layer = layer
        self._first: bytearray | None = bytearray()
        self._inflater: _Inflater | None = None
        self._inner: BodyUnpacker | None = None

    @property
    def is_packed(self) -> bool:
        """Whether the body turned out to be compressed."""
        return self._inflater is not None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield ``data`` unpacked; raises BodyError when it is too large, corrupt, or in an unsupported coding."""
        if self._first is not None:
            self._first += data
            undecided = _UNDECIDED_PACKED if self._codings else _UNDECIDED
            if undecided.fullmatch(self._first):
                return
            data, self._first = bytes(self._first), None
            self._inflater = self._inflater_for(data)
            if self._inflater is not None and self._layer < _MOST_LAYERS:
                self._inner = BodyUnpacker(",".join(self._codings[:-1]), self._limit, self._layer + 1)
        if self._inflater is None:
            yield data
            return
        for piece in self._inflater.inflate(data):
            if self._inner is None:
                yield piece
            else:
                yield from self._inner.feed(piece)

    def end(self) -> Iterator[bytes]:
        """Yield the bytes held back, after the end of the body."""
        if self._first:
            yield bytes(self._first)
        self._first = None
        if self._inner is not None:
            yield from self._inner.end()

    def _inflater_for(self, first: bytes) -> _Inflater | None:
        """Return the inflater for a body with these first bytes, or None if it is not packed."""
        if first.startswith(_GZIP_MAGIC):
            return _Inflater("gzip", self._limit)
        if _BEGINS_ZLIB.match(first):
            return _Inflater("deflate", self._limit)
        if not self._codings or _BEGINS_TEXT.match(first) or _MUCH_TEXT.match(first):
            return None  # or unpacked on its way, and the header passed on: JSON, events, UTF-16
        outermost = self._codings[-1]
        if outermost == "deflate":
            # Some servers omit zlib's header (RFC 9110, 8.4.1.2).
            return _Inflater("deflate", self._limit, may_be_raw=True)
        if outermost in ("gzip", "x-gzip"):
            if _has_zlib_header(first):
                return _Inflater("deflate", self._limit)
            if _ANY_TEXT.match(first):
                return None
            raise BodyError(f"The answer is not valid {', '.join(self._codings)}.")
        raise BodyError(
            f"The answer is encoded as {', '.join(self._codings)!r}, although no encoding was requested. "
            "Turn compression off at the gateway, or at the proxy in front of it."
        )


def _has_zlib_header(data: bytes) -> bool:
    return data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0 and not data[1] & 0x20


class _Inflater:
    """Unpacks in pieces of bounded size: how much of a bomb a library inflates at once depends on its version.

    Headers are parsed here and checksums skipped, because zlib discards unpacked data when a checksum is wrong.

    :param name: gzip or deflate.
    :param limit: the most bytes to unpack.
    :param may_be_raw: whether the header may be missing.
    """

    def __init__(self, name: str, limit: int, *, may_be_raw: bool = False) -> None:
        self.name = name
        self._limit = limit
        self._may_be_raw = may_be_raw
        self._count = 0
        self._members = 0
        self._header: bytearray | None = bytearray()
        """The bytes of an incomplete header."""
        self._skip = 0
        """Bytes of the trailer still to come."""
        self._ended = False
        self._unpack = zlib.decompressobj(wbits=-15)

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Yield ``data`` unpacked; raises BodyError when it is corrupt or too large."""
        while data and not self._ended:
            if self._header is not None:
                data = self._begun(data)
                continue
            if self._skip:
                skipped = min(self._skip, len(data))
                self._skip -= skipped
                data = data[skipped:]
                if not self._skip:
                    self._header = bytearray()
                continue
            yield from self._inflated(data)
            data = self._unpack.unused_data
            if self._unpack.eof and self.name == "gzip":
                self._skip = _GZIP_TRAILER
            elif self._unpack.eof:
                self._ended = True

    def _begun(self, data: bytes) -> bytes:
        """Return the bytes after the header; none while it is incomplete."""
        assert self._header is not None
        self._header += data
        header = bytes(self._header)
        if self.name == "gzip":
            if self._members and not _GZIP_MAGIC.startswith(header[:2]):
                self._ended = True  # padding after the last member, such as zeros, is ignored
                return b""
            length = _gzip_header(header)
        elif len(header) < 2:
            length = None
        else:
            length = 0 if self._may_be_raw and not _is_zlib(header) else 2
        if length is None:
            if len(header) > _MOST_HEADER_BYTES:
                raise BodyError(f"The answer is not valid {self.name}.")
            return b""
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise BodyError(f"The answer consists of more than {_MOST_MEMBERS} gzip files.")
        self._header = None
        self._unpack = zlib.decompressobj(wbits=-15)
        return header[length:]

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        while data and not self._unpack.eof:
            before = self._unpack.copy()
            try:
                piece = self._unpack.decompress(data, _PIECE)
            except zlib.error:
                yield from self._until_damage(before, data)  # may hold an id
                raise BodyError(f"The answer is not valid {self.name}.") from None
            yield self._counted(piece)
            data = self._unpack.unconsumed_tail

    def _until_damage(self, unpack: zlib._Decompress, data: bytes) -> Iterator[bytes]:
        for at in range(len(data)):
            try:
                piece = unpack.decompress(data[at : at + 1])
            except zlib.error:
                return
            if piece:
                yield self._counted(piece)

    def _counted(self, piece: bytes) -> bytes:
        self._count += len(piece)
        if self._count > self._limit:
            raise too_large(self._limit)
        return piece


def _is_zlib(data: bytes) -> bool:
    """Whether packed bytes begin with zlib's header; by chance, one in fifty raw streams looks like it."""
    if not _has_zlib_header(data):
        return False
    try:
        zlib.decompressobj(wbits=-15).decompress(data[2:], _PIECE)
    except zlib.error:
        return False
    return True


def _gzip_header(data: bytes) -> int | None:
    """Return the length of a gzip header, or None while it is incomplete."""
    if len(data) < 10:
        return None
    flags, at = data[3], 10
    if flags & _EXTRA:
        if len(data) < at + 2:
            return None
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for flag in (_NAME, _COMMENT):
        if flags & flag:
            end = data.find(b"\0", at)
            if end < 0:
                return None
            at = end + 1
    at += 2 if flags & _HEADER_CHECKSUM else 0
    return at if at <= len(data) else None
