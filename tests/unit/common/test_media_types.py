"""What the first bytes of a file prove, and which extension it gets."""

from __future__ import annotations

import io
import wave
from random import Random

import pytest

from airflow_provider_vidu.common.media_types import EXTENSIONS, SNIFF_BYTES, extension, sniffed, type_of_name
from tests.rows import each_row


def ftyp(*brands: bytes) -> bytes:
    """Return the first box of an ISO container: the major brand, a version, the compatible brands."""
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return (8 + len(body)).to_bytes(4, "big") + b"ftyp" + body


def wide_ftyp(*brands: bytes) -> bytes:
    """Return the same with a size of 64 bits, as some muxers write every box."""
    narrow = ftyp(*brands)
    return b"\0\0\0\1ftyp" + (len(narrow) + 8).to_bytes(8, "big") + narrow[8:]


def box(name: bytes, content: bytes = b"") -> bytes:
    """Return a box of an ISO container."""
    return (8 + len(content)).to_bytes(4, "big") + name + content


def mp3(bitrate: int = 9, rate: int = 0, version: int = 3, count: int = 4) -> bytes:
    """Return frames of MPEG audio, layer III (by default 128 kbit/s at 44.1 kHz)."""
    header = bytes((0xFF, 0xE3 | version << 3, bitrate << 4 | rate << 2, 0xC4))
    kbps = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[bitrate]
    kbps = kbps if version == 3 else (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)[bitrate]
    length = (144 if version == 3 else 72) * 1000 * kbps // ((44_100, 48_000, 32_000)[rate] >> (3 - version))
    return (header + bytes(length - 4)) * count


def adts(length: int = 300) -> bytes:
    """Return frames of AAC."""
    header = bytes((0xFF, 0xF1, 0x50, 0x80 | length >> 11, length >> 3 & 0xFF, (length & 7) << 5 | 0x1F, 0xFC))
    return (header + bytes(length - 7)) * 4


def wav() -> bytes:
    """Return a short WAV as Python writes it."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(800))
    return made.getvalue()


BRANDS = {
    "image/avif": (b"avif", b"avis"),
    "image/heic": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    "image/heif": (b"mif1", b"mif2", b"msf1", b"miaf"),
    "audio/mp4": (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "),
    "video/3gpp": (b"3gp4", b"3gp5", b"3gp6", b"3gp7", b"3gs7", b"3ge6"),
    "video/quicktime": (b"qt  ",),
}
"""What a file's first brand says, as registered (https://mp4ra.org/registered-types/brands)."""

TRANSPORT = (b"\x47\x40\0\x10" + bytes(184)) * 30
BMP = b"BM" + (1000).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")


@pytest.mark.fault(
    "stores and files",
    "HEIF, AVIF and M4A in ISO containers",
    outcome="survived",
    seen="what their compatible brands say",
)
@each_row(
    ("head", "kind"),
    [
        (ftyp(b"isom", b"isom", b"mp41"), "video/mp4"),
        (ftyp(b"mp42", b"mp42", b"isom"), "video/mp4"),
        (ftyp(b"qt  "), "video/quicktime"),
        (ftyp(b"M4V ", b"M4V ", b"M4A ", b"mp42", b"isom"), "video/mp4"),
        (ftyp(b"mp42", b"M4A ", b"M4V ", b"isom"), "video/mp4"),
        (ftyp(b"mp42", b"M4A ", b"isom") + b"\0\0\0\x21hdlr" + bytes(8) + b"vide", "video/mp4"),
        (ftyp(b"3gp5", b"3gp5", b"isom"), "video/3gpp"),
        (ftyp(b"isom", b"isom", b"3gp4"), "video/mp4"),
        (ftyp(b"mp42", b"mp41", b"isom", b"qt  "), "video/mp4"),
        (ftyp(b"isom") + b"\0\0\0\x08free", "video/mp4"),
        (ftyp(b"isom") + bytes(20), "video/mp4"),
        (ftyp(b"isom") + b"\0\0\0\1mdat", "video/mp4"),
        (b"\0\0\1\0moov", "video/mp4"),
        (b"\0\0\0\1mdat", "video/mp4"),
        (b"\0\0\0\x08wide", "video/mp4"),
        (ftyp(b"M4A ", b"M4A ", b"mp42", b"isom"), "audio/mp4"),
        (ftyp(b"mp42", b"M4A ", b"isom"), "audio/mp4"),
        (wide_ftyp(b"isom", b"mp41"), "video/mp4"),
        (wide_ftyp(b"M4A ", b"isom"), "audio/mp4"),
        (wide_ftyp(b"mif1", b"mif1", b"avif"), "image/avif"),
        (box(b"free") + ftyp(b"qt  "), "video/quicktime"),
        (box(b"skip", bytes(40)) + box(b"wide") + ftyp(b"M4A ", b"isom"), "audio/mp4"),
        (box(b"moov", bytes(90)) + wide_ftyp(b"heic"), "image/heic"),
        (box(b"wide") + b"\0\0\0\0mdat" + bytes(50), "video/mp4"),
        (box(b"free", bytes(9000)), "video/mp4"),
        (ftyp(b"avif", b"mif1"), "image/avif"),
        (ftyp(b"mif1", b"mif1", b"avif", b"miaf"), "image/avif"),
        (ftyp(b"mif1", b"mif1", b"heic"), "image/heic"),
        (ftyp(b"msf1", b"msf1", b"hevc"), "image/heic"),
        (ftyp(b"mif1", b"mif1", b"miaf"), "image/heif"),
        *((ftyp(brand), kind) for kind, brands in BRANDS.items() for brand in brands),
        *((ftyp(brand, b"avif"), "video/mp4") for brand in (b"M4V ", b"M4VH", b"M4VP", b"F4V ")),
        (b"\x1a\x45\xdf\xa3\1\0\0\0\0\0\0\x1f\x42\x82\x84webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\1\0\0\0\0\0\0\x1f\x42\x82\x88matroska", "video/x-matroska"),
        (b"RIFF\x24\0\0\0AVI LIST", "video/x-msvideo"),
        (TRANSPORT, "video/mp2t"),
        (b"\0\0\1\xba\x44", "video/mpeg"),
        (b"FLV\1\5", "video/x-flv"),
        (b"OggS\0\2" + bytes(22) + b"\x80theora", "video/ogg"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        (b"GIF89a", "image/gif"),
        (BMP, "image/bmp"),
        (b"II*\0\x08\0\0\0", "image/tiff"),
        (b"MM\0*\0\0\0\x08", "image/tiff"),
        (wav(), "audio/wav"),
        (b"BW64" + wav()[4:], "audio/wav"),
        (b"OggS\0\2" + bytes(22) + b"OpusHead", "audio/ogg"),
        (b"OggS\0\2" + bytes(22) + b"\x01vorbis", "audio/ogg"),
        (b"fLaC\0\0\0\x22", "audio/flac"),
        (b"FORM\0\0\0\x2eAIFFCOMM", "audio/aiff"),
        (b"ID3\4\0\0\0\0\x10\0", "audio/mpeg"),
        (b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + mp3(), "audio/mpeg"),
        (b"ID3\3\0\0\0\0\0\x0a" + bytes(30) + mp3(count=1), "audio/mpeg"),
        (b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + adts(), "audio/aac"),
        (b"ID3\4\0\0\0\0\0\0fLaC\0\0\0\x22", "audio/flac"),
        (mp3(), "audio/mpeg"),
        (mp3(bitrate=14, rate=2), "audio/mpeg"),
        (mp3(bitrate=8, rate=1, version=2), "audio/mpeg"),
        (adts(), "audio/aac"),
        (b"\x1f\x8b\x08\0", "application/gzip"),
        (b"PK\3\4", "application/zip"),
        (b"%PDF-1.7", "application/pdf"),
    ],
)
def test_first_bytes(head, kind):
    """Each format shows itself in its first bytes; every medium among them has an extension."""
    assert sniffed(head[:SNIFF_BYTES]) == kind
    assert kind in EXTENSIONS or kind.startswith("application/")


@each_row(
    "head",
    [
        b"",
        b"\xff",
        bytes(range(128, 200)),
        "<html>größer".encode("utf-16"),
        b"\xff\xfe" + "fffffff".encode("utf-16-le") * 100,
        b"\xff\xfb\x90\xc4" + bytes(SNIFF_BYTES),
        mp3(count=1),
        b"\xff\xf1\x50\x80\x25\x9f\xfc" + bytes(SNIFF_BYTES),
        b"ID3 tags are explained here",
        b"BMW builds cars" + bytes(20),
        b"GIF is a format",
        b"Good news" + bytes(179) + b"G" + bytes(300),
        b"see ftypisom",
        b"the moov box",
        b"\0\0\0\x08free<html><script>alert(1)</script>",
        box(b"free", bytes(20)) + b"<html><script>alert(1)</script>",
        box(b"wide") + box(b"skip") + bytes(4) + b"<!-- page",
        b"GIF89a/*<html><script>alert(1)</script>*/=1;",
        b"RIFF<!--WEBP--><script>alert(1)</script>",
        b"fLaC is explained here, and nothing is to be heard",
        b"ID3\3\0\0\0\0\0\0<html><script>alert(1)</script>",
        b"ID3\3\0\0\0\0\0\0" + bytes(range(128, 256)) * 30,
        b"RIFF\x24\0\0\0CDDA",
        b"OggS",
    ],
)
def test_what_looks_similar_proves_nothing(head):
    """A byte order mark, a lone frame, or text with the right letters in it is not a medium."""
    assert sniffed(head) is None


def test_noise_is_never_sound():
    """Of thousands of blocks of noise that begin like a frame, none is taken for sound."""
    random = Random(7)
    for start in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xf9"):
        assert not [noise for _ in range(1000) if (noise := sniffed(start + random.randbytes(SNIFF_BYTES)))]


@each_row("kind", [kind for kind in EXTENSIONS if kind != "application/octet-stream"])
def test_type_and_extension_name_each_other(kind):
    """Every type that is kept has an extension, and is found again by it."""
    assert type_of_name(f"a{extension(kind).upper()}") == kind
