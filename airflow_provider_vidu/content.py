"""What was really sent: telling a video from an error page, whatever the header claims. Pure."""

from __future__ import annotations

import re
from typing import Final

from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from airflow_provider_vidu.naming import Artifact, type_of_name
from airflow_provider_vidu.text import shown

SNIFF_BYTES: Final = 1024
"""How much of the beginning is looked at."""

_GENERIC: Final = frozenset(
    {
        "application/octet-stream",
        "binary/octet-stream",
        "application/binary",
        "application/x-binary",
        "application/x-download",
        "application/download",
        "application/force-download",
        "application/unknown",
        "application/mp4",
    }
)
_BOXED: Final = ("video/mp4", "video/quicktime")
_MARKUP = re.compile(rb"\s*<(?:!doctype|\?xml|!--|html|head|body|error|title|h1|pre)\b|\s*<[?!]", re.IGNORECASE)
_JSON = re.compile(rb'\s*(?:\{\s*(?:"|\})|\[\s*(?:[\[{"\]]|-?\d+\s*[,\]]))')
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    # A gateway that compresses without saying so, or hands out an archive.
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"PK\x03\x04", "application/zip"),
)
_BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def sniffed(head: bytes) -> str | None:
    """Return the content type that the first bytes prove, or None where they prove nothing."""
    if head[4:8] == b"ftyp":
        return {b"qt  ": "video/quicktime", b"avif": "image/avif", b"heic": "image/heic"}.get(head[8:12], "video/mp4")
    if head[4:8] in (b"moov", b"mdat", b"styp", b"moof", b"wide"):
        return "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head.startswith(b"RIFF"):
        return {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}.get(head[8:12])
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def text_kind(head: bytes) -> str | None:
    """Return ``an HTML or XML page`` or ``JSON`` when the first bytes look like one, else None."""
    for bom in _BOMS:
        head = head.removeprefix(bom)
    head = head.replace(b"\0", b"")[:200] if b"\0" in head[:4] and head[:1] in b"<{[" else head
    if _MARKUP.match(head):
        return "an HTML or XML page"
    return "JSON" if _JSON.match(head) else None


def judged(declared: str | None, head: bytes, artifact: Artifact, path: str = "") -> str:
    """Return the content type of a file from its header and its first bytes.

    The bytes are believed before the header: gateways send error pages as ``video/mp4``, and stores
    send videos as ``application/octet-stream``. Bytes that prove nothing pass when the header names
    the right family or nothing at all.

    :param declared: the ``Content-Type`` header.
    :param head: the first bytes of the body, up to :data:`SNIFF_BYTES`.
    :param artifact: what is being fetched; a cover is an image, everything else a video.
    :param path: the URL's path; its extension helps when neither header nor bytes say anything.
    :raises ViduDownloadRefusedError: when it is something else; the message quotes the beginning of text.
    """
    said = (declared or "").partition(";")[0].strip().lower()
    wanted = "image" if artifact == "cover" else "video"
    proven = sniffed(head)
    if proven is not None:
        if not _fits(proven, wanted):
            raise _refused(wanted, proven, head, quote=False)
        return said if said.split("/")[0] == proven.split("/")[0] else proven
    if page := text_kind(head):
        raise _refused(wanted, page, head, quote=True)
    if said.startswith(wanted + "/"):
        return said
    if said and said not in _GENERIC:
        raise _refused(wanted, said, head, quote=said.startswith("text/") or "json" in said)
    guess = type_of_name(path)
    return guess if guess and guess.startswith(wanted) else "application/octet-stream"


def _fits(kind: str, wanted: str) -> bool:
    # Animated results come as GIF or WebP.
    return kind.startswith(wanted + "/") or (wanted == "video" and kind in ("image/gif", "image/webp"))


def _refused(wanted: str, found: str, head: bytes, *, quote: bool) -> ViduDownloadRefusedError:
    article = "an image" if wanted == "image" else "a video"
    begins = f" It begins: {shown(head[:300].decode('utf-8', 'replace'), 160)}" if quote else ""
    return ViduDownloadRefusedError(f"Not stored: the server sent {shown(found, 80)} instead of {article}.{begins}")


class BoxWalk:
    """Follows the top-level boxes of an MP4 while it streams by, to notice that its end is missing.

    Needed only where no length was announced: then a connection that broke looks like one that ended.
    """

    def __init__(self) -> None:
        self._position = 0
        self._next = 0
        self._header = b""
        self._follows = True

    def feed(self, data: memoryview | bytes) -> None:
        """Take the next bytes of the file."""
        view, start = memoryview(data), self._position
        self._position += len(view)
        while self._follows and (begin := self._next + len(self._header)) < self._position:
            self._header += bytes(view[begin - start : begin - start + 16 - len(self._header)])
            if (size := self._box_size()) is None:
                return
            self._next += size
            self._header = b""

    def is_cut(self) -> bool:
        """Whether the last box claims bytes that have not come (false where the file is no MP4)."""
        return self._follows and self._position < self._next

    def is_whole(self) -> bool:
        """Whether the file is an MP4 that ends where its last box does."""
        return self._follows and 0 < self._position == self._next

    def _box_size(self) -> int | None:
        if len(self._header) < 8:
            return None
        size = int.from_bytes(self._header[:4], "big")
        if size == 1:
            if len(self._header) < 16:
                return None
            size = int.from_bytes(self._header[8:16], "big")
        is_box = self._header[4:8].isalnum() if self._next else sniffed(self._header) in _BOXED
        if size < 8 or not is_box:
            # Size 0 means "to the end of the file"; anything else is no box.
            self._follows = False
            return None
        return size
