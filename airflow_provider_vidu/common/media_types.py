"""Content types of images, audio and video: detection from the first bytes, and file extensions. No I/O."""

from __future__ import annotations

import codecs
import mimetypes
import re
from collections.abc import Iterator
from typing import Final

SNIFF_BYTES: Final = 4096
"""Bytes from the beginning of a file that detection needs: two frames of any MP3, 20 packets of a transport stream."""

EXTENSIONS: Final[dict[str, str]] = {
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "video/x-msvideo": ".avi",
    "video/mpeg": ".mpg",
    "video/mp2t": ".ts",
    "video/ogg": ".ogv",
    "video/3gpp": ".3gp",
    "video/x-flv": ".flv",
    "video/x-ms-asf": ".asf",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "image/heif": ".heif",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
    "audio/mpeg": ".mp3",
    "audio/wav": ".wav",
    "audio/mp4": ".m4a",
    "audio/ogg": ".ogg",
    "audio/flac": ".flac",
    "audio/aac": ".aac",
    "audio/aiff": ".aiff",
    "audio/webm": ".weba",
    "application/octet-stream": ".bin",
}
_SAME_SUFFIX: Final = {
    ".jpeg": ".jpg",
    ".m4v": ".mp4",
    ".mpeg": ".mpg",
    ".tiff": ".tif",
    ".aif": ".aiff",
    ".oga": ".ogg",
    ".opus": ".ogg",
}
_SUFFIX = re.compile(
    rf"\.(?:{'|'.join(suffix[1:] for suffix in (*EXTENSIONS.values(), *_SAME_SUFFIX))})$", re.IGNORECASE
)

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"fLaC", "audio/flac"),
    (b"\0\0\x01\xba", "video/mpeg"),
    (b"\0\0\x01\xb3", "video/mpeg"),
    (b"FLV\x01", "video/x-flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    # A gateway may compress without a Content-Encoding header, or serve an archive or a document.
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"%PDF-", "application/pdf"),
)
_IN_RIFF: Final = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}
# Brands that name a format (https://mp4ra.org/registered-types/brands). All others, such as isom, mp42 and dash, only
# name a version of the container, so the compatible brands decide.
_BRANDS: Final = {
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "image/heic"),
    **dict.fromkeys((b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "), "audio/mp4"),
    **dict.fromkeys((b"M4V ", b"M4VH", b"M4VP", b"F4V "), "video/mp4"),
    **dict.fromkeys((b"3gp4", b"3gp5", b"3gp6", b"3gp7", b"3gs7", b"3ge6"), "video/3gpp"),
    b"qt  ": "video/quicktime",
}
# As compatible brands these only name other players: Android's videos list 3gp4, Apple's "qt  ".
_MAJOR_ONLY: Final = frozenset({"video/3gpp", "video/quicktime"})
_STILL: Final = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})
_FIRST_BOXES: Final = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"wide", b"free", b"skip"})
_PADDING: Final = frozenset({b"wide", b"free", b"skip"})
# The handler of a track in ISO containers, the codec in Matroska and WebM.
_VIDEO_TRACK = re.compile(rb"hdlr.{8}vide|\x86[\x81-\xff]V_[A-Z]", re.DOTALL)
_SOUND_TRACK = re.compile(rb"hdlr.{8}soun|\x86[\x81-\xff]A_[A-Z]", re.DOTALL)
_LARGEST_MP3_FRAME: Final = 1441
_LETTERS: Final = 300
_DIB_SIZES: Final = frozenset({12, 40, 52, 56, 64, 108, 124})
_TS_PACKET: Final = 188
_KBPS_1: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def extension(content_type: str) -> str:
    """Return the extension for a content type, with its dot; ``.bin`` if unknown."""
    suffix = EXTENSIONS.get(content_type) or mimetypes.guess_extension(content_type)
    return suffix if suffix and len(suffix) <= 8 else ".bin"


def type_of_name(name: str) -> str | None:
    """Return the content type for a file name's extension, or None."""
    suffix = "." + name.lower().rpartition(".")[2]
    suffix = _SAME_SUFFIX.get(suffix, suffix)
    return next((kind for kind, known in EXTENSIONS.items() if known == suffix != ".bin"), None)


def without_suffix(name: str) -> str:
    """Return a file name without its media extension; other extensions are kept."""
    return _SUFFIX.sub("", name)


def has_suffix(name: str) -> bool:
    """Whether a name ends in a media extension."""
    return _SUFFIX.search(name) is not None


def sniffed(head: bytes) -> str | None:
    """Return the content type that the first bytes prove, or None if they are inconclusive.

    Text is never media, even if it starts like it: ``GIF89a/*<html>…`` is a page, or a script.

    :param head: the first :data:`SNIFF_BYTES` of the file, or all of a shorter one.
    """
    if len(head) > 16 and is_text(head[:_LETTERS]):
        return None
    if is_iso(head):
        return _iso_type(head)
    if head.startswith((b"RIFF", b"RF64", b"BW64")):
        return _IN_RIFF.get(head[8:12])
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head.startswith(b"OggS\0"):
        return "video/ogg" if b"\x80theora" in head[:256] else "audio/ogg"
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None) or _by_structure(head)


def is_iso(head: bytes) -> bool:
    """Whether a file begins with a box of an ISO container: MP4, QuickTime, M4A, HEIF, AVIF."""
    # If the size is four printable letters, this is text that happens to continue with a box name.
    return head[4:8] in _FIRST_BOXES and not _is_printable(head[:4])


def shows_video(head: bytes) -> bool:
    """Whether the beginning of a container declares a video track."""
    return _VIDEO_TRACK.search(head) is not None


def shows_sound(head: bytes) -> bool:
    """Whether the beginning of a container declares an audio track."""
    return _SOUND_TRACK.search(head) is not None


def is_text(head: bytes) -> bool:
    """Whether bytes are printable UTF-8 text; the last character may be cut off."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\t\r\n\f" for char in text)


def _boxes(head: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield (name, content, everything after it) for each box of an ISO container."""
    while len(head) >= 8:
        size, begin = int.from_bytes(head[:4], "big"), 8
        if size == 1:  # a 64-bit size follows the name
            size, begin = int.from_bytes(head[8:16], "big"), 16
        end = size if size >= begin else len(head)  # 0 is "to the end of the file"
        yield head[4:8], head[begin:end], head[end:]
        head = head[end:]


def _iso_type(head: bytes) -> str | None:
    """Return the type of an ISO container, or None if only padding boxes precede other content."""
    file_type = b""
    for name, content, rest in _boxes(head):
        if name in (b"ftyp", b"styp"):
            file_type = content
            break
        if name in _PADDING and len(rest) >= 8 and (_is_printable(rest[:4]) or not rest[4:8].isalnum()):
            return None  # for example a page after a padding box
    if not file_type:
        return "video/mp4"
    brands = [file_type[:4], *(file_type[at : at + 4] for at in range(8, len(file_type) - 3, 4))]
    compatible = (_BRANDS[brand] for brand in brands if brand in _BRANDS)
    named = _BRANDS.get(brands[0]) or next((kind for kind in compatible if kind not in _MAJOR_ONLY), None)
    if named == "audio/mp4" and brands[0] not in _BRANDS and (b"M4V " in brands or shows_video(head)):
        return "video/mp4"  # M4V files list M4A as well
    return named or ("image/heif" if _STILL & set(brands) else "video/mp4")


def _by_structure(head: bytes) -> str | None:
    """Return the type of a format that a few magic bytes cannot prove."""
    if head.startswith(b"ID3") and len(head) >= 10 and head[3] in (2, 3, 4) and max(head[6:10]) < 0x80:
        return _tagged(head)
    if _is_mp3(head):
        return "audio/mpeg"
    if _is_adts(head):
        return "audio/aac"
    if head.startswith(b"BM") and head[6:10] == bytes(4) and int.from_bytes(head[14:18], "little") in _DIB_SIZES:
        return "image/bmp"
    packets = range(0, min(len(head), SNIFF_BYTES), _TS_PACKET)
    if len(packets) >= 4 and all(head[at] == 0x47 for at in packets):
        return "video/mp2t"
    return None


def _tagged(head: bytes) -> str | None:
    """Return the type of what follows an ID3 tag: MP3, AAC or FLAC."""
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    rest = head[10 + size :].lstrip(b"\0")
    if rest.startswith(b"fLaC"):
        return "audio/flac"
    if _is_adts(rest):
        return "audio/aac"
    # A cover image may fill the first bytes, so that no second frame is left.
    is_short = len(rest) < _LARGEST_MP3_FRAME + 4 and (not rest or not is_text(rest))
    return "audio/mpeg" if is_short or _is_mp3(rest) else None


def _is_mp3(head: bytes) -> bool:
    """Whether two consecutive, matching frames of MPEG audio layer III are present.

    A single sync word (eleven set bits) may be a byte order mark (``FF FE``) or noise.
    """
    length = _mp3_frame(head[:4])
    following = head[length : length + 4] if length else b""
    # Version, layer and sampling rate never change within a file; the bit rate may.
    return bool(_mp3_frame(following)) and following[1] == head[1] and following[2] & 0x0C == head[2] & 0x0C


def _mp3_frame(header: bytes) -> int | None:
    """Return the length of a frame in bytes, or None if this is not a layer III header."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, bitrate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    sampling = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    kbps, samples = (_KBPS_1[bitrate], 144) if version == 3 else (_KBPS_2[bitrate], 72)
    return samples * 1000 * kbps // sampling + (header[2] >> 1 & 1)


def _is_adts(head: bytes) -> bool:
    """Whether two consecutive, matching ADTS frames of AAC are present."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 0xF > 12:
        return False
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    following = head[length : length + 3]
    return length >= 7 and len(following) == 3 and following[:2] == head[:2] and following[2] & 0xFC == head[2] & 0xFC


def _is_printable(data: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in data)
