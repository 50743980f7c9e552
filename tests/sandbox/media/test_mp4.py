"""The videos and covers: whole, deterministic, different from each other."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator

import pytest

from airflow_provider_vidu.sandbox.media import h264, mp4, pictures
from airflow_provider_vidu.sandbox.messages.answers import Bytes, Padded, Repeated

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf"}


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, offset of the content, end) of every box, depth first."""
    stop = len(data) if stop is None else stop
    while start < stop:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        assert head <= size <= stop - start
        yield kind, start + head, start + size
        if kind in CONTAINERS:
            yield from boxes(data, start + head, start + size)
        start += size


@pytest.fixture(scope="module")
def clip() -> bytes:
    """Return a clip of two seconds."""
    return mp4.clip("a seed")


def test_the_boxes_fill_the_file_exactly(clip) -> None:
    """The top-level boxes tile the file, with the movie header before the media."""
    kinds = [kind for kind, *_ in boxes(clip)]
    assert kinds.index(b"ftyp") == 0
    assert kinds.index(b"moov") < kinds.index(b"mdat")
    assert kinds[-1] == b"mdat"
    assert len(clip) < 300_000


def test_the_sample_table_points_at_the_nal_units(clip) -> None:
    """Chunk offset and sample sizes lead exactly to length-prefixed NAL units that end with the file."""
    found = {kind: (start, end) for kind, start, end in boxes(clip)}
    offset = struct.unpack_from(">I", clip, found[b"stco"][0] + 8)[0]
    assert offset == found[b"mdat"][0]
    start = found[b"stsz"][0]
    count = struct.unpack_from(">I", clip, start + 8)[0]
    sizes = struct.unpack_from(f">{count}I", clip, start + 12)
    kinds = []
    for size in sizes:
        assert struct.unpack_from(">I", clip, offset)[0] == size - 4
        kinds.append(clip[offset + 4] & 0x1F)
        offset += size
    assert offset == len(clip)
    assert kinds == [5] + [1] * 23


def test_the_duration_follows_from_the_seconds_asked_for() -> None:
    """A clip of three seconds says so in its header."""
    data = mp4.clip("x", seconds=3)
    start = next(start for kind, start, _ in boxes(data) if kind == b"mdhd")
    scale, duration = struct.unpack_from(">II", data, start + 12)
    assert duration / scale == 3


def test_one_seed_gives_one_file_and_another_seed_another(clip) -> None:
    """Equal seeds give equal bytes; other seeds and the watermark give other bytes."""
    assert mp4.clip("a seed") == clip
    assert len({clip, mp4.clip("b seed"), mp4.clip("a seed", watermark=True)}) == 3


def test_any_text_is_a_seed() -> None:
    """Ids may hold anything, even half a surrogate pair."""
    assert mp4.clip("ü/^\udc80", seconds=0.1)


def test_long_clips_have_key_frames_to_seek_to() -> None:
    """A key frame stands every five seconds, listed in the sync sample table."""
    data = mp4.clip("x", seconds=11)
    start = next(start for kind, start, _ in boxes(data) if kind == b"stss")
    assert struct.unpack_from(">4I", data, start + 4) == (3, 1, 61, 121)


def test_exp_golomb_codes_are_those_of_the_standard() -> None:
    """The first five codes match table 9-2 of H.264."""
    out = h264.BitWriter()
    for value in range(5):
        out.ue(value)
    out.align()
    assert out.finish()[:3] == bytes([0b10100110, 0b01000010, 0b10000000])


def test_start_codes_cannot_appear_inside_a_nal_unit() -> None:
    """Emulation prevention breaks up every forbidden pattern."""
    assert h264.nal(1, b"\0\0\0\0\0\1") == b"\x61\0\0\3\0\0\3\0\1"


def test_the_cover_is_a_whole_png() -> None:
    """All checksums are right and the pixels are as many as the header says."""
    data, at, pixels = pictures.png("a seed"), 8, b""
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        pixels += body if kind == b"IDAT" else b""
        at += 12 + length
    assert len(zlib.decompress(pixels)) == pictures.HEIGHT * (1 + 3 * pictures.WIDTH)


@pytest.mark.parametrize("extra", [0, 16, 100_000, 5 * 2**30])
def test_padding_reaches_any_size_with_boxes_that_add_up(clip, extra) -> None:
    """A padded clip has exactly the size asked for, and its last box ends with the file."""
    padded = Padded(clip, len(clip) + extra)
    assert padded.read(0, len(clip)) == clip
    if extra:
        size, kind = struct.unpack(">I4s", padded.read(len(clip), len(clip) + 8))
        if size == 1:
            (size,) = struct.unpack(">Q", padded.read(len(clip) + 8, len(clip) + 16))
        assert (kind, size) == (b"free", extra)
        assert len(padded.read(padded.size - 10, padded.size)) == 10


@pytest.mark.parametrize("content", [Padded(b"h" * 50, 300_000), Repeated(b"ab", 1000, b"yz"), Bytes(b"0123" * 99)])
def test_slices_of_a_content_add_up_to_the_whole(content) -> None:
    """Reading by parts yields the same bytes as reading at once, wherever the cuts fall."""
    whole = content.read(0, content.size)
    assert len(whole) == content.size
    for step in (7, 65_521, 70_000):
        parts = [content.read(i, min(i + step, content.size)) for i in range(0, min(content.size, step * 50), step)]
        assert whole.startswith(b"".join(parts))


def test_a_size_that_no_box_fits_into_is_refused(clip) -> None:
    """The clip plus 8 bytes cannot be padded, and neither can less than the clip."""
    for size in (len(clip) - 1, len(clip) + 8):
        with pytest.raises(ValueError, match="size must be"):
            Padded(clip, size)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_real_decoder_finds_nothing_to_complain_about(clip, tmp_path) -> None:
    """The strictest mode of ffmpeg decodes the clip without a word."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip)
    command = ["ffmpeg", "-v", "error", "-xerror", "-err_detect", "explode", "-i", str(path), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
