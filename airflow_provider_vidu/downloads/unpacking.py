"""Unpacks a file that a server compressed although no compression was requested, streaming and bounded. Pure.

The first bytes decide, not ``Content-Encoding``: stores keep the header of an upload, and gateways unpack a body but
forward the header.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from airflow_provider_vidu.common.media_types import sniffed
from airflow_provider_vidu.exceptions import ViduDownloadError, ViduDownloadRefusedError

MOST_RATIO: Final = 100
"""No service's medium compresses to less than a hundredth; a bomb compresses to a thousandth."""
FREE_BYTES: Final = 16 * 1024**2
"""Up to this size in bytes the ratio does not count: a small picture of one colour compresses to nearly nothing."""
_GZIP: Final = b"\x1f\x8b\x08"
_PIECE: Final = 1024**2
_PORTION: Final = 16 * 1024
"""Bytes that are unpacked at a time. After each end of a member zlib copies what is left of them: a megabyte of empty
members cost a second, and a file server may send gigabytes of them."""


def unpacker_of(head: bytes, codings: Sequence[str]) -> FileUnpacker | None:
    """Return the unpacker for a file with these first bytes; None if it is not packed.

    Gzip is recognized by its first bytes, declared or not. ``deflate`` has no such mark, so it must be declared and the
    bytes must not be a medium. Other codings are not supported.

    :param head: the first bytes, enough to prove a medium.
    :param codings: the declared codings (:func:`~airflow_provider_vidu.network.codings.real_codings`).
    """
    if head.startswith(_GZIP):
        return FileUnpacker("gzip", 31)
    if list(codings) != ["deflate"] or sniffed(head) is not None:
        return None
    # Some servers omit zlib's header (RFC 9110, 8.4.1.2).
    has_header = len(head) > 1 and head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0
    return FileUnpacker("deflate", 15 if has_header else -15)


class FileUnpacker:
    """Unpacks a compressed file in pieces of bounded size.

    :param wbits: zlib's window setting, which selects the format.
    """

    def __init__(self, name: str, wbits: int) -> None:
        self.name = name
        self._wbits = wbits
        self._zlib = zlib.decompressobj(wbits=wbits)
        self._taken = self._given = 0
        self._is_over = False

    @property
    def is_at_end(self) -> bool:
        """Whether the compressed file is complete."""
        return self._zlib.eof

    def unpack(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Yield ``data`` unpacked.

        :raises ViduDownloadError: when the compressed bytes are corrupt.
        :raises ViduDownloadRefusedError: when they unpack to far more than a medium does.
        """
        for at in range(0, len(data), _PORTION):
            yield from self._unpacked(bytes(data[at : at + _PORTION]))

    def _unpacked(self, rest: bytes) -> Iterator[memoryview]:
        self._taken += len(rest)
        while rest and not self._is_over:
            if self._zlib.eof:
                # A gzip file may have several members. Other bytes after its end are ignored, as gzip does.
                self._is_over = not (self.name == "gzip" and rest.startswith(_GZIP[:1]))
                if self._is_over:
                    return
                self._zlib = zlib.decompressobj(wbits=self._wbits)
            try:
                piece = self._zlib.decompress(rest, _PIECE)
            except zlib.error:
                rest = b""  # this frame may be quoted, and the bytes may hold the key
                raise ViduDownloadError(
                    f"The server sent the file {self.name}-compressed although no compression was requested, and it "
                    "cannot be unpacked: the compressed data is corrupt."
                ) from None
            rest = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
            self._given += len(piece)
            if self._given > max(FREE_BYTES, MOST_RATIO * self._taken):
                raise ViduDownloadRefusedError(
                    f"Not stored: {self._taken:,} {self.name}-compressed bytes unpack to more than {self._given:,}. "
                    "No medium compresses that much."
                )
            if piece:
                yield memoryview(piece)
