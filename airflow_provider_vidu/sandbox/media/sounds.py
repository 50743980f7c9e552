"""Makes the sandbox's MP3 files without any library.

MPEG-1 Layer III (ISO/IEC 11172-3) with frames without audio data: decoders play silence. An ID3v2.4 title
(https://id3.org/id3v2.4.0-structure) holds a digest of the seed, so that all sounds differ.
"""

from __future__ import annotations

import hashlib
import math
import struct

SAMPLES_PER_FRAME = 1152
SAMPLE_RATE = 44_100
#: 11 bits of sync, MPEG-1, Layer III, no CRC; 128 kbit/s, 44.1 kHz, no padding; joint stereo.
_HEADER = b"\xff\xfb\x90\x40"
#: 144 x bit rate / sample rate, rounded down.
FRAME_BYTES = 144 * 128_000 // SAMPLE_RATE
_FRAME = _HEADER + bytes(FRAME_BYTES - len(_HEADER))


def mp3(seed: str, *, seconds: float = 2.0) -> bytes:
    """Return a silent MP3 file of about ``seconds``, with a digest of ``seed`` as title."""
    title = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()
    frames = max(1, math.ceil(seconds * SAMPLE_RATE / SAMPLES_PER_FRAME))
    return _tag(title) + _FRAME * frames


def _tag(title: str) -> bytes:
    text = b"\x03" + title.encode()  # 3: UTF-8
    frame = b"TIT2" + _syncsafe(len(text)) + bytes(2) + text
    return b"ID3\x04\x00\x00" + _syncsafe(len(frame)) + frame


def _syncsafe(size: int) -> bytes:
    return struct.pack(">4B", *((size >> shift) & 0x7F for shift in (21, 14, 7, 0)))
