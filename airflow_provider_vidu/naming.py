"""What a downloaded file is called: safe on every file system, and never one name for two videos.

Pure text, no I/O. An id made of lower-case letters, digits, ``-``, ``_`` and inner dots is kept as it
is; one that had to be changed, or that a file system could confuse with another, gets a short hash.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.text import SIGNING_PARAMETER, one_line

Artifact = Literal["video", "cover", "watermarked"]
ARTIFACTS: Final[tuple[Artifact, ...]] = ("video", "cover", "watermarked")

MAX_NAME_BYTES: Final = 200
_MAX_STEM_CHARS: Final = 150
_HASH_CHARS: Final = 10

_SUFFIX: Final[dict[Artifact, str]] = {"video": "", "cover": "-cover", "watermarked": "-watermarked"}
_KEPT = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9_])?")
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")
# Names that end like one of ours could meet the name of another id.
_LOOKS_MADE = re.compile(rf"-(?:[0-9a-f]{{{_HASH_CHARS}}}|cover|watermarked)$")
_WINDOWS_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)

EXTENSIONS: Final[dict[str, str]] = {
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "video/x-msvideo": ".avi",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "application/octet-stream": ".bin",
}
_MEDIA_SUFFIX = re.compile(r"\.(mp4|m4v|mov|webm|mkv|avi|jpe?g|png|webp|gif|avif|heic|bin)$", re.IGNORECASE)

_AZURE_PARAMETER = re.compile(r"(?i)s[pertvi]|spr|sip|sk[setv]|sk[ot]id|sig")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def checked_destination(value: object) -> str:
    """Return a destination after checking what can be checked without touching the store.

    :raises ViduConfigError: when it is no text, empty, a rendered ``None``, holds control characters
        or a ``..`` segment, or names no file or folder.
    """
    text = value if isinstance(value, str) else str(value) if hasattr(value, "parts") else None
    if text is None:
        raise ViduConfigError(f"destination must be a path or URL as text, not {type(value).__name__}.")
    if not text.strip() or text == "None":
        raise ViduConfigError("destination is empty (or a template rendered to None).")
    if _CONTROL.search(text):
        raise ViduConfigError(f"destination {one_line(text, 80)!r} holds control characters.")
    if _has_lone_surrogates(text):
        raise ViduConfigError(f"destination {one_line(text, 80)!r} holds characters that cannot be encoded.")
    if text.lower().startswith("file://") and not re.match(r"/|localhost/", text[7:], re.IGNORECASE):
        raise ViduConfigError(
            f"destination {one_line(text, 120)!r} names a host: the address of a local file begins with file:/// ."
        )
    rest = text.partition("://")[2] if "://" in text else text
    if ".." in re.split(r"[/\\]", rest):
        raise ViduConfigError(f"destination {one_line(text, 120)!r} must not hold a '..' segment.")
    if not rest.strip("/. ") and rest != "./":
        raise ViduConfigError(f"destination {one_line(text, 80)!r} names no file and no folder.")
    return text


def is_folder(destination: str) -> bool:
    """Whether ``destination`` is a folder, so that the file's name is chosen here."""
    return destination.endswith("/")


def stem_of(generation_id: str | None, url: str | None) -> str:
    """Return the file name without suffix and extension for a generation, or for a URL without an id.

    Different ids give different names, also where a file system ignores case or normalises Unicode.
    The name of a URL holds a hash of what identifies the object: everything but its signature.

    :param generation_id: the id at Vidu; wins where both are given.
    :param url: the URL; needed only without an id.
    """
    if generation_id is not None:
        return _distinct(generation_id, generation_id)
    parts = urlsplit(url or "")
    query = _unsigned(parts.query)
    segment = unquote(parts.path.rstrip("/").rpartition("/")[2], errors="replace")
    identity = f"{parts.netloc.lower()}{parts.path}?{query}"
    return _cleaned(_MEDIA_SUFFIX.sub("", segment)) + "-" + _hash(identity)


def file_name(stem: str, artifact: Artifact, content_type: str) -> str:
    """Return the whole name: stem, ``-cover`` or ``-watermarked``, and the content type's extension."""
    return f"{stem}{_SUFFIX[artifact]}{extension(content_type)}"


def candidate_names(stem: str, artifact: Artifact) -> list[str]:
    """Return every name :func:`file_name` commonly gives to this artifact, the likeliest first."""
    # A cover whose bytes prove nothing, or an animated result that comes as an image, has such a name as well.
    wanted = ("image/",) if artifact == "cover" else ("video/", "image/gif", "image/webp")
    kinds = [kind for kind in EXTENSIONS if kind.startswith(wanted)]
    return [file_name(stem, artifact, kind) for kind in (*kinds, "application/octet-stream")]


def extension(content_type: str) -> str:
    """Return the extension, with its dot, for a content type; ``.bin`` where none is known."""
    found = EXTENSIONS.get(content_type) or mimetypes.guess_extension(content_type)
    return found if found and len(found) <= 8 else ".bin"


def type_of_name(name: str) -> str | None:
    """Return the content type that a file name's extension stands for, or None."""
    suffix = "." + name.lower().rpartition(".")[2]
    suffix = {".jpeg": ".jpg", ".m4v": ".mp4"}.get(suffix, suffix)
    return next((kind for kind, known in EXTENSIONS.items() if known == suffix != ".bin"), None)


def _unsigned(query: str) -> str:
    pairs = [(pair.partition("=")[0], pair) for pair in query.split("&")]
    is_azure = {"sig", "sv"} <= {name.lower() for name, _ in pairs}
    kept = [pair for name, pair in pairs if not SIGNING_PARAMETER.fullmatch(name)]
    return "&".join(pair for pair in kept if not (is_azure and _AZURE_PARAMETER.fullmatch(pair.partition("=")[0])))


def _distinct(text: str, identity: str) -> str:
    if _is_unmistakable(text):
        return text
    return f"{_cleaned(text)}-{_hash(identity)}"


def _is_unmistakable(text: str) -> bool:
    return (
        _KEPT.fullmatch(text) is not None
        and len(text) <= _MAX_STEM_CHARS
        and text.partition(".")[0] not in _WINDOWS_RESERVED
        and not _LOOKS_MADE.search(text)
    )


def _cleaned(text: str) -> str:
    cleaned = _FOREIGN.sub("_", text)[:_MAX_STEM_CHARS].strip("._-") or "vidu"
    # Windows looks at the part before the first dot, whatever follows.
    return f"vidu-{cleaned}" if cleaned.lower().partition(".")[0] in _WINDOWS_RESERVED else cleaned


def _hash(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]


def _has_lone_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
