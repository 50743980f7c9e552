"""MP4 files (ISO/IEC 14496-12 and -15) around the frames of :mod:`~airflow_provider_vidu.sandbox.media.h264`.

``moov`` precedes ``mdat`` ("fast start"), so that a player can start during the download.
"""

from __future__ import annotations

import struct

from airflow_provider_vidu.sandbox.media import h264, pictures

#: Ticks per second of all times in the file; a multiple of the frame rate, so that no frame time is rounded.
TIMESCALE = 12_000
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_KEY_FRAME_SECONDS = 5


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return one box: 32-bit size, four-letter ``kind``, content."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, flags: int, *parts: bytes) -> bytes:
    """Return one box of version 0 with ``flags``."""
    return box(kind, struct.pack(">I", flags), *parts)


def free_box_header(size: int) -> bytes:
    """Return the header of a ``free`` box of ``size`` bytes in total: 8 bytes, or 16 from 4 GiB on.

    ValueError if ``size`` is below 8, the smallest box.
    """
    if size < 8:
        raise ValueError(f"a box has at least 8 bytes, not {size}")
    if size < 1 << 32:
        return struct.pack(">I4s", size, b"free")
    return struct.pack(">I4sQ", 1, b"free", size)


def _sample_entry(sps: bytes, pps: bytes) -> bytes:
    configuration = b"".join(
        (
            bytes([1, sps[1], sps[2], sps[3], 0xFF, 0xE1]),  # 0xFF: NAL units have 4-byte lengths
            struct.pack(">H", len(sps)) + sps,
            b"\x01" + struct.pack(">H", len(pps)) + pps,
        )
    )
    visual = struct.pack(
        ">6xH16xHHIII H32sHh",
        1,  # data reference
        pictures.WIDTH,
        pictures.HEIGHT,
        0x480000,  # 72 dots per inch
        0x480000,
        0,
        1,  # one frame per sample
        b"",
        24,
        -1,
    )
    return box(b"avc1", visual, box(b"avcC", configuration))


def _sample_table(frames: list[h264.EncodedFrame], sizes: list[int], offset: int) -> bytes:
    keys = [number for number, frame in enumerate(frames, 1) if frame.is_key]
    ticks = TIMESCALE // pictures.FPS
    sps = h264.sequence_parameters(pictures.WIDTH, pictures.HEIGHT)
    return box(
        b"stbl",
        full_box(b"stsd", 0, struct.pack(">I", 1), _sample_entry(sps, h264.picture_parameters())),
        full_box(b"stts", 0, struct.pack(">III", 1, len(sizes), ticks)),
        full_box(b"stss", 0, struct.pack(f">I{len(keys)}I", len(keys), *keys)),
        full_box(b"stsc", 0, struct.pack(">IIII", 1, 1, len(sizes), 1)),
        full_box(b"stsz", 0, struct.pack(f">II{len(sizes)}I", 0, len(sizes), *sizes)),
        full_box(b"stco", 0, struct.pack(">II", 1, offset)),
    )


def _movie(sample_table: bytes, duration: int) -> bytes:
    movie_header = struct.pack(">IIIIIH10x36s24xI", 0, 0, TIMESCALE, duration, 0x10000, 0x100, _MATRIX, 2)
    track_header = struct.pack(
        ">IIIII8xHHHH36sII", 0, 0, 1, 0, duration, 0, 0, 0, 0, _MATRIX, pictures.WIDTH << 16, pictures.HEIGHT << 16
    )
    media = box(
        b"mdia",
        full_box(b"mdhd", 0, struct.pack(">IIIIHH", 0, 0, TIMESCALE, duration, 0x55C4, 0)),  # "und"
        full_box(b"hdlr", 0, struct.pack(">I4s12x", 0, b"vide"), b"Vidu sandbox\x00"),
        box(
            b"minf",
            full_box(b"vmhd", 1, bytes(8)),
            box(b"dinf", full_box(b"dref", 0, struct.pack(">I", 1), full_box(b"url ", 1))),
            sample_table,
        ),
    )
    track = box(b"trak", full_box(b"tkhd", 3, track_header), media)
    return box(b"moov", full_box(b"mvhd", 0, movie_header), track)


def clip(seed: str, *, seconds: float = 2.0, watermark: bool = False) -> bytes:
    """Return a playable MP4 of ``seconds`` seconds (at least one frame) that depends only on the arguments.

    ``watermark`` adds a white bar in the lower right corner. Different seeds give different bytes, because a ``free``
    box holds the seed's digest.
    """
    count = max(1, round(seconds * pictures.FPS))
    moving = pictures.frames(seed, count, watermark=watermark)
    frames = list(h264.encode(moving, key_every=_KEY_FRAME_SECONDS * pictures.FPS))
    samples = [struct.pack(">I", len(frame.data)) + frame.data for frame in frames]
    sizes = [len(sample) for sample in samples]
    duration = count * (TIMESCALE // pictures.FPS)
    digest = pictures.seed_digest(seed)
    start = box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isomiso2avc1mp41") + box(b"free", digest)
    # The chunk offset inside moov includes the size of moov, which does not depend on it: a first pass measures it.
    length = len(_movie(_sample_table(frames, sizes, 0), duration))
    movie = _movie(_sample_table(frames, sizes, len(start) + length + 8), duration)
    return start + movie + box(b"mdat", *samples)
