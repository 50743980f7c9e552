"""Draws the frames of the sandbox's clips and covers without any library.

A :class:`Picture` is planar YUV 4:2:0, the layout of H.264. It depends only on a seed: a generation always yields the
same frames, and two generations look different.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

WIDTH = 160
HEIGHT = 96
FPS = 12
BLOCK = 16
_SQUARE = 32
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass
class Picture:
    """One frame of ``width`` x ``height`` pixels, multiples of 16; the planes ``u`` and ``v`` have half the size."""

    width: int
    height: int
    y: bytearray
    u: bytearray
    v: bytearray

    @classmethod
    def filled(cls, width: int, height: int, colour: tuple[int, int, int]) -> Picture:
        """Return a picture of one ``colour`` (Y, U, V, each 16..235)."""
        luma, chroma = width * height, (width // 2) * (height // 2)
        y, u, v = (bytes([part]) for part in colour)
        return cls(width, height, bytearray(y * luma), bytearray(u * chroma), bytearray(v * chroma))

    def copy(self) -> Picture:
        """Return an independent copy."""
        return Picture(self.width, self.height, self.y[:], self.u[:], self.v[:])

    def rectangle(self, left: int, top: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
        """Fill a rectangle; all numbers are pixels, and even because of the chroma planes."""
        y, u, v = (bytes([part]) for part in colour)
        for row in range(top, top + height):
            start = row * self.width + left
            self.y[start : start + width] = y * width
        half, stride = width // 2, self.width // 2
        for row in range(top // 2, (top + height) // 2):
            start = row * stride + left // 2
            self.u[start : start + half] = u * half
            self.v[start : start + half] = v * half

    def macroblocks(self) -> list[bytes]:
        """Return the 16 x 16 macroblocks, row by row; 384 samples each, in the order of I_PCM: Y, then U, then V."""
        planes = (
            (self.y, self.width, BLOCK),
            (self.u, self.width // 2, BLOCK // 2),
            (self.v, self.width // 2, BLOCK // 2),
        )
        return [b"".join(parts) for parts in zip(*(_blocks(*plane) for plane in planes), strict=True)]


def _blocks(plane: bytearray, stride: int, edge: int) -> Iterator[bytes]:
    """Yield the blocks of a plane, row by row."""
    lines = struct.unpack(f"{edge}s" * (len(plane) // edge), plane)  # one call cuts all lines of all blocks
    columns = stride // edge
    for start in range(0, len(lines), columns * edge):
        for column in range(start, start + columns):
            yield b"".join(lines[column : start + columns * edge : columns])


def _colour(digest: bytes, at: int, luma: tuple[int, int]) -> tuple[int, int, int]:
    low, high = luma
    return low + digest[at] % (high - low), 40 + digest[at + 1] % 170, 40 + digest[at + 2] % 170


def _backdrop(digest: bytes, watermark: bool) -> Picture:
    first, second = _colour(digest, 0, (40, 90)), _colour(digest, 3, (100, 140))
    picture = Picture.filled(WIDTH, HEIGHT, first)
    for index in range((WIDTH // BLOCK) * (HEIGHT // BLOCK)):
        row, column = divmod(index, WIDTH // BLOCK)
        if digest[6 + index % 20] >> (index % 8) & 1:
            picture.rectangle(column * BLOCK, row * BLOCK, BLOCK, BLOCK, second)
    if watermark:
        picture.rectangle(WIDTH - 48, HEIGHT - 14, 40, 6, (235, 128, 128))
    return picture


def _bounce(start: int, step: int, room: int) -> int:
    """Return the even position after ``step`` pixels of bouncing between 0 and ``room``."""
    position = (start + step) % (2 * room)
    return (position if position <= room else 2 * room - position) & ~1


def seed_digest(seed: str) -> bytes:
    """Return the 32 bytes from which everything drawn for ``seed`` follows; any text is a seed."""
    return hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()


def frames(seed: str, count: int, *, watermark: bool = False) -> Iterator[Picture]:
    """Yield ``count`` pictures: a square that bounces over a chequered backdrop, as chosen by ``seed``."""
    digest = seed_digest(seed)
    backdrop = _backdrop(digest, watermark)
    square = _colour(digest, 26, (170, 230))
    across, down = 2 + digest[29] % 5, 2 + digest[30] % 4
    for number in range(count):
        picture = backdrop.copy()
        left = _bounce(digest[31], number * across, WIDTH - _SQUARE)
        top = _bounce(digest[0], number * down, HEIGHT - _SQUARE)
        picture.rectangle(left, top, _SQUARE, _SQUARE, square)
        yield picture


@lru_cache(maxsize=16)
def _rgb(y: int, u: int, v: int) -> bytes:
    luma = 1.164 * (y - 16)
    u, v = u - 128, v - 128
    parts = (luma + 1.596 * v, luma - 0.392 * u - 0.813 * v, luma + 2.017 * u)
    return bytes(max(0, min(255, round(part))) for part in parts)


def png(seed: str, *, watermark: bool = False) -> bytes:
    """Return the first frame of the clip of ``seed`` as a PNG file (8-bit RGB)."""
    picture = next(frames(seed, 1, watermark=watermark))
    rows = bytearray()
    for y in range(picture.height):
        rows.append(0)
        chroma = y // 2 * (picture.width // 2)
        for x, luma in enumerate(picture.y[y * picture.width : (y + 1) * picture.width]):
            rows += _rgb(luma, picture.u[chroma + x // 2], picture.v[chroma + x // 2])
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def is_picture(data: bytes) -> bool:
    """Return whether ``data`` begins like a PNG, JPEG or WebP file."""
    return data.startswith(_PICTURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
