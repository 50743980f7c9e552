"""Determines from the first bytes whether a server sent a video, a picture or sound, not an error page. Pure."""

from __future__ import annotations

import re
from typing import Final

from airflow_provider_vidu.common.artifacts import Artifact, Family, family_of
from airflow_provider_vidu.common.media_types import is_iso, is_text, shows_sound, shows_video, sniffed, type_of_name
from airflow_provider_vidu.common.text import before_cut, redacted
from airflow_provider_vidu.exceptions import ViduDownloadRefusedError

_ARTICLE: Final[dict[Family | None, str]] = {
    "video": "a video",
    "image": "a picture",
    "audio": "a sound file",
    None: "a video, a picture or a sound file",
}
# Containers whose first bytes may not show whether they hold only sound; then the header or the name decides.
_SOUND_ALONE: Final = {"video/mp4": "audio/mp4", "video/webm": "audio/webm", "video/3gpp": "audio/mp4"}
_MARKUP = re.compile(rb"\s*<(?:!doctype|\?xml|!--|html|head|body|error|title|h1|pre|svg)\b|\s*<[?!]", re.IGNORECASE)
_SVG = re.compile(rb"<svg[\s>/]", re.IGNORECASE)
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_JSON = re.compile(rb'\s*(?:\{\s*(?:"|\})|\[\s*(?:[\[{"\]]|-?\d+\s*[,\]]))')
_BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_QUOTED: Final = 300


def text_kind(head: bytes) -> str | None:
    """Return ``an HTML or XML page``, ``an SVG file``, ``JSON`` or ``text`` if the first bytes look like it."""
    for bom in _BOMS:
        head = head.removeprefix(bom)
    if b"\0" in head[:4] and head.lstrip(b"\0")[:1] in (b"<", b"{", b"["):  # UTF-16 or UTF-32
        head = head.replace(b"\0", b"")[:_QUOTED]
    if _MARKUP.match(head):
        # An SVG picture may contain scripts, which browsers run.
        return "an SVG file" if _SVG.search(head) and not _HTML.search(head) else "an HTML or XML page"
    if _JSON.match(head):
        return "JSON"
    return "text" if head and is_text(head[:_QUOTED]) else None


def checked_type(
    declared: str | None, head: bytes, artifact: Artifact | None, path: str = "", *, is_cut: bool = False
) -> str:
    """Return the content type that a file's first bytes prove.

    Gateways send error pages as ``video/mp4``, and stores send videos as ``application/octet-stream``. The header
    decides only whether a container that shows no video in its first bytes holds sound alone.

    :param declared: the ``Content-Type`` header.
    :param head: the first bytes of the body, up to :data:`.SNIFF_BYTES`.
    :param artifact: the wanted file; None for a result of any medium.
    :param path: the URL's path; its extension helps if the header names no type.
    :param is_cut: whether more bytes follow: a secret may be cut off at the end of these.
    :raises ViduDownloadRefusedError: when the bytes prove another type or none; the message quotes their beginning.
    """
    family = family_of(artifact)
    proven = sniffed(head)
    if proven is None:
        raise _unproven(declared, head, family, is_cut=is_cut)
    kind = _audio_only(proven, declared, head, family, path) or proven
    if not _is_accepted(kind, family):
        advice = " Without artifact the result is kept in any medium." if _is_accepted(kind, None) else ""
        raise _refused(family, kind, advice)
    return kind


def _audio_only(proven: str, declared: str | None, head: bytes, family: Family | None, path: str) -> str | None:
    if proven not in _SOUND_ALONE or family not in (None, "audio") or shows_video(head):
        return None
    kind = (declared or "").partition(";")[0].strip().lower()
    says_sound = kind.startswith("audio/") or (
        not kind.startswith("video/")
        and ((type_of_name(path) or "").startswith("audio/") or (family == "audio" and shows_sound(head)))
    )
    return _SOUND_ALONE[proven] if says_sound else None


def _is_accepted(kind: str, family: Family | None) -> bool:
    if family is None:
        return kind.startswith(("video/", "image/", "audio/"))
    # Animated results come as GIF or WebP.
    return kind.startswith(family + "/") or (family == "video" and kind in ("image/gif", "image/webp"))


def _unproven(declared: str | None, head: bytes, family: Family | None, *, is_cut: bool) -> ViduDownloadRefusedError:
    kind = text_kind(head)
    if kind:
        text = head.decode("utf-8", "replace")
        begins = redacted((before_cut(text) if is_cut else text)[:_QUOTED], 160)
    else:
        header = f" (its header says {redacted(declared, 60)})" if declared else ""
        kind, begins = f"bytes of an unknown format{header}", head[:16].hex(" ")
    return _refused(family, kind, f" It begins: {begins}")


def _refused(family: Family | None, kind: str, more: str) -> ViduDownloadRefusedError:
    return ViduDownloadRefusedError(
        f"Not stored: the server sent {redacted(kind)} instead of {_ARTICLE[family]}.{more}"
    )


class BoxWalk:
    """Follows the top-level boxes of a streamed ISO container, to notice a missing end.

    Needed only if no length was announced: a broken connection then looks like a complete one.
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
        """Whether the last box announces bytes that have not arrived; false for other files than MP4."""
        return self._follows and self._position < self._next

    def is_whole(self) -> bool:
        """Whether the file is an MP4 that ends with its last box."""
        return self._follows and 0 < self._position == self._next

    def _box_size(self) -> int | None:
        if len(self._header) < 8:
            return None
        size = int.from_bytes(self._header[:4], "big")
        if size == 1:
            if len(self._header) < 16:
                return None
            size = int.from_bytes(self._header[8:16], "big")
        is_box = self._header[4:8].isalnum() if self._next else is_iso(self._header)
        if size < 8 or not is_box:
            # Size 0 means "to the end of the file"; anything else is not a box.
            self._follows = False
            return None
        return size
