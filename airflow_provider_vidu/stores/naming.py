"""What a downloaded file is called: safe on every file system, and never one name for two videos.

Pure text, no I/O. An id made of lower-case letters, digits, ``-``, ``_`` and inner dots is kept as it
is; one that had to be changed, or that a file system could confuse with another, gets a short hash.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from airflow_provider_vidu.common.media_types import EXTENSIONS, extension, has_suffix, without_suffix
from airflow_provider_vidu.common.text import SIGNING_PARAMETER, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.artifacts import BESIDE_THE_RESULT, Artifact, family_of
from airflow_provider_vidu.stores.places import account_advice
from airflow_provider_vidu.stores.schemes import STORES, scheme_of

MAX_NAME_BYTES: Final = 200
_MAX_STEM_CHARS: Final = 150
_HASH_CHARS: Final = 10

_KEPT = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9_])?")
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")
# Names that end like one of ours could meet the name of another id: a hash, an artifact, a further creation.
_LOOKS_MADE = re.compile(rf"-(?:[0-9a-f]{{{_HASH_CHARS}}}|{'|'.join(BESIDE_THE_RESULT)}|[2-9]|[1-9][0-9]{{1,2}})$")
_WINDOWS_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)

_AZURE_PARAMETER = re.compile(r"(?i)s[pertvi]|spr|sip|sk[setv]|sk[ot]id|sig")

# "file:clips/a.mp4" is not the path that it looks like.
_NO_LOCAL_URI = re.compile(r"(?:file|local):(?!//(?:/|localhost/))", re.IGNORECASE)
_SHORT_LOCAL_URI = re.compile(r"^(file|local):/(?!/)", re.IGNORECASE)
# A letter alone is a drive of Windows.
_ONE_SLASH = re.compile(r"([a-z][a-z0-9+.-]+):/(?!/)", re.IGNORECASE)
# Its case means nothing (RFC 3986), except to the path library of Airflow 2.
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(?=://)")
# Among them what breaks or turns round a line of a log.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# The file systems of S3 and Azure cut it off: the object would be the part before it.
_VERSION = re.compile(r"\?versionid=", re.IGNORECASE)


def checked_destination(value: object) -> str:
    """Return a destination as text after checking what can be checked without touching the store.

    A path object (``ObjectStoragePath``, ``Path``) drops the slash at its end, so its name decides: one with the
    extension of a medium is a file, and every other one a folder, which the text then shows by a slash. Taken for a
    file, ``ObjectStoragePath("s3://bucket/clips/")`` would let all clips overwrite one object. Blanks and line ends
    around a text are dropped: ``"s3://bucket/clips/ "`` is a folder, and not a file whose name is a blank.

    :raises ViduConfigError: when it is not a path, empty, a rendered ``None``, holds control characters, ``::`` or a
        ``..`` segment, or names no file or folder.
    """
    text = path_text(value)
    if text is None:
        raise ViduConfigError(f"destination must be a path or URL as text, not {type(value).__name__}.")
    text = plain_scheme(text.strip())
    if not text or text == "None":
        raise ViduConfigError("destination is empty (or a template rendered to None).")
    if _CONTROL.search(text):
        raise ViduConfigError(f"destination {sanitized(text, 80)!r} holds control characters.")
    if _SURROGATE.search(text):
        raise ViduConfigError(f"destination {sanitized(text, 80)!r} holds characters that cannot be encoded.")
    if _NO_LOCAL_URI.match(text):
        raise ViduConfigError(
            f"destination {sanitized(text, 120)!r} names a host, or no absolute path: the address of a local file "
            "begins with file:/// ."
        )
    if (scheme := _ONE_SLASH.match(text)) and not text.startswith(("file:", "local:")):
        raise ViduConfigError(f"destination {sanitized(text, 120)!r} lacks a slash: write {scheme[1].lower()}://… .")
    if "::" in text:
        # fsspec reads it as a chain of file systems: the file would go to the part before it.
        raise ViduConfigError(f"destination {sanitized(text, 120)!r} must not hold '::'.")
    if "://" in text and _VERSION.search(text):
        raise ViduConfigError(
            f"destination {sanitized(text, 120)!r} must not hold '?versionId=': nothing can be written to a version."
        )
    if advice := account_advice(text):
        raise ViduConfigError(f"destination {sanitized(text, 120)!r} {advice}")
    rest = text.partition("://")[2] if "://" in text else text
    if ".." in re.split(r"[/\\]", rest):
        raise ViduConfigError(f"destination {sanitized(text, 120)!r} must not hold a '..' segment.")
    _check_named(text, rest)
    return text


def _check_named(text: str, rest: str) -> None:
    """Refuse a destination that names nothing, or a bucket alone: no file can have its name.

    :param rest: what is behind its scheme.
    """
    if not rest.strip("/. ") and rest != "./":
        raise ViduConfigError(f"destination {sanitized(text, 80)!r} names no file and no folder.")
    if scheme_of(text) in STORES and "/" not in rest:
        raise ViduConfigError(
            f"destination {sanitized(text, 80)!r} names a bucket and no file: end it with a slash to store files in it."
        )


def plain_scheme(text: str) -> str:
    """Return a path or URI with its scheme in lower case, and a local one (``file:/data``) with all its slashes."""
    text = _SHORT_LOCAL_URI.sub(r"\1:///", text, count=1)
    return _SCHEME.sub(lambda match: match[0].lower(), text, count=1)


def path_text(value: object) -> str | None:
    """Return a destination as text, with the slash that a folder's path object has lost; None for something else."""
    if isinstance(value, str):
        return value
    if not hasattr(value, "parts"):
        return None
    text = str(value)
    return text if text.endswith("/") or has_suffix(text) else f"{text}/"


def is_folder(destination: str) -> bool:
    """Whether ``destination`` is a folder, so that the file's name is chosen here."""
    return destination.endswith("/")


def is_template(text: str) -> bool:
    """Whether rendering may change a text."""
    return "{{" in text or "{%" in text


def stem_of(generation_id: str | None, url: str | None) -> str:
    """Return the file name without suffix and extension for a generation, or for a URL without an id.

    Different ids give different names, also where a file system ignores case or normalises Unicode.
    The name of a URL holds a hash of what identifies the object: everything but its signature.

    :param generation_id: the id at Vidu; wins where both are given.
    :param url: the URL; needed only without an id.
    """
    if generation_id is not None:
        is_safe = _is_unmistakable(generation_id)
        return generation_id if is_safe else f"{_cleaned(generation_id)}-{_hash(generation_id)}"
    parts = urlsplit(url or "")
    query = _unsigned(parts.query)
    segment = unquote(parts.path.rstrip("/").rpartition("/")[2], errors="replace")
    identity = f"{parts.netloc.lower()}{parts.path}?{query}"
    return _cleaned(without_suffix(segment)) + "-" + _hash(identity)


def file_name(stem: str, artifact: Artifact | None, content_type: str, creation: int = 0) -> str:
    """Return the whole name: stem, artifact where it is not the result, ``-2`` for a second creation, extension.

    :param stem: as :func:`stem_of` returns it.
    :param artifact: what is kept; None for the result, whatever its medium.
    :param content_type: gives the extension.
    :param creation: which creation of the generation, counted from 0.
    """
    kind = f"-{artifact}" if artifact in BESIDE_THE_RESULT else ""
    return f"{stem}{kind}{f'-{creation + 1}' if creation else ''}{extension(content_type)}"


def candidate_names(stem: str, artifact: Artifact | None, creation: int = 0) -> list[str]:
    """Return every name that :func:`file_name` gives to an artifact, the likeliest first."""
    family = family_of(artifact)
    wanted: tuple[str, ...] = (f"{family}/",) if family else ("video/", "image/", "audio/")
    if family == "video":
        wanted += ("image/gif", "image/webp")  # an animated result comes as an image
    kinds = [kind for kind in EXTENSIONS if kind.startswith(wanted)]
    # Earlier versions stored bytes that prove nothing, as application/octet-stream.
    return [file_name(stem, artifact, kind, creation) for kind in (*kinds, "application/octet-stream")]


def _unsigned(query: str) -> str:
    pairs = [(pair.partition("=")[0], pair) for pair in query.split("&")]
    is_azure = {"sig", "sv"} <= {name.lower() for name, _ in pairs}
    kept = [pair for name, pair in pairs if not SIGNING_PARAMETER.fullmatch(name)]
    return "&".join(pair for pair in kept if not (is_azure and _AZURE_PARAMETER.fullmatch(pair.partition("=")[0])))


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
