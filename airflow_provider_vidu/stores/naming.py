"""File names of downloads: safe on every file system, and never the same for two videos. No I/O.

An id of lower-case letters, digits, ``-``, ``_`` and inner dots is kept; any other, or one that a file system could
confuse with another, gets a short hash.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import unquote

from airflow_provider_vidu.common.media_types import EXTENSIONS, extension, has_suffix, without_suffix
from airflow_provider_vidu.common.text import SIGNING_PARAMETER, sanitized
from airflow_provider_vidu.common.url_parts import split_url
from airflow_provider_vidu.common.urls import without_store_signatures
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.artifacts import BESIDE_THE_RESULT, Artifact, family_of
from airflow_provider_vidu.stores.places import account_advice
from airflow_provider_vidu.stores.schemes import STORES, scheme_of

MAX_NAME_BYTES: Final = 200
_MAX_STEM_CHARS: Final = 150
_HASH_CHARS: Final = 10

_KEPT = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9_])?")
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")
# An id that ends like our suffixes (hash, artifact, creation number) could collide with another id's name.
_LOOKS_MADE = re.compile(rf"-(?:[0-9a-f]{{{_HASH_CHARS}}}|{'|'.join(BESIDE_THE_RESULT)}|[2-9]|[1-9][0-9]{{1,2}})$")
# CONIN$ and CONOUT$ need no entry: a name never holds a dollar sign.
_WINDOWS_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)

_AZURE_PARAMETER = re.compile(r"(?i)s[pertvi]|spr|sip|sk[setv]|sk[ot]id|sig")

# "file:clips/a.mp4" does not mean the path clips/a.mp4.
_NO_LOCAL_URI = re.compile(r"(?:file|local):(?!//(?:/|localhost/))", re.IGNORECASE)
_SHORT_LOCAL_URI = re.compile(r"^(file|local):/(?!/)", re.IGNORECASE)
# A single letter is a Windows drive.
_ONE_SLASH = re.compile(r"([a-z][a-z0-9+.-]+):/(?!/)", re.IGNORECASE)
# Case-insensitive (RFC 3986), except in the path library of Airflow 2.
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(?=://)")
# Includes characters that break or reverse log lines.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# The file systems of S3 and Azure cut it off and use the part before it.
VERSION_QUERY: Final = re.compile(r"\?versionid=", re.IGNORECASE)


def checked_destination(value: object) -> str:
    """Check a destination without touching the store, and return it as text; a folder ends in a slash.

    A path object (``ObjectStoragePath``, ``Path``) drops its final slash, so its name decides: with the extension of a
    medium it is a file, otherwise a folder. As a file, ``ObjectStoragePath("s3://bucket/clips/")`` would make all clips
    overwrite one object. Whitespace around a text is dropped: ``"s3://bucket/clips/ "`` is a folder.

    :raises ViduConfigError: when it is not a path, empty, a rendered ``None``, contains control characters, ``::`` or a
        ``..`` segment, or names neither a file nor a folder.
    """
    text = "" if value is None else path_text(value)
    if text is None:
        raise ViduConfigError(f"destination must be a path or URL as text, not {type(value).__name__}.")
    text = plain_scheme(text.strip())
    if not text or text == "None":
        raise ViduConfigError("destination is empty (or a template rendered to None).")
    is_unrendered = not isinstance(value, str) and is_template(text)  # Airflow renders its own paths only
    if problem := "holds a template that was not rendered: give it as text." if is_unrendered else _problem_with(text):
        raise ViduConfigError(f"destination {sanitized(text, 120)!r} {problem}")
    return text


def _problem_with(text: str) -> str | None:
    """Return what is wrong with a destination, as the rest of a sentence, or None."""
    rest = text.partition("://")[2] if "://" in text else text
    if _CONTROL.search(text):
        return "contains control characters."
    if _SURROGATE.search(text):
        return "contains characters that cannot be encoded."
    if _NO_LOCAL_URI.match(text):
        return "names a host or is not an absolute path; the URI of a local file begins with file:/// ."
    if (scheme := _ONE_SLASH.match(text)) and not text.startswith(("file:", "local:")):
        return f"lacks a slash: write {scheme[1].lower()}://… ."
    if "::" in text:  # fsspec reads it as a chain of file systems and would write to the part before it
        return "must not contain '::'."
    if "://" in text and VERSION_QUERY.search(text):
        return "must not contain '?versionId=': a version cannot be written to."
    if advice := account_advice(text):
        return advice
    if ".." in re.split(r"[/\\]", rest):
        return "must not contain a '..' segment."
    if not rest.strip("/. ") and rest != "./":
        return "names neither a file nor a folder."
    if scheme_of(text) in STORES and "/" not in rest:
        return "names only a bucket: end it with a slash to store files in it."
    return None


def plain_scheme(text: str) -> str:
    """Return a path or URI with its scheme in lower case, and a local one (``file:/data``) with all its slashes."""
    text = _SHORT_LOCAL_URI.sub(r"\1:///", text, count=1)
    return _SCHEME.sub(lambda match: match[0].lower(), text, count=1)


def path_text(value: object) -> str | None:
    """Return a destination as text, restoring the final slash of a folder's path object; None for other types."""
    if isinstance(value, str):
        return value
    if not hasattr(value, "parts"):
        return None
    text = str(value)
    return text if text.endswith("/") or has_suffix(text) else f"{text}/"


def is_folder(destination: str) -> bool:
    """Whether ``destination`` is a folder, in which the file's name is generated."""
    return destination.endswith("/")


def is_template(text: str) -> bool:
    """Whether a text contains a template."""
    return "{{" in text or "{%" in text


def stem_of(generation_id: str | None, url: str | None) -> str:
    """Return the file name without suffix and extension for a generation, or for a URL without an id.

    Different ids give different names even if a file system ignores case or normalizes Unicode. The name of a URL
    includes a hash of the URL without its signature, unless only that may name the file.

    :param generation_id: the id at Vidu; used if both are given.
    :param url: the URL; needed only without an id.
    """
    if generation_id is not None:
        is_safe = _is_unmistakable(generation_id)
        return generation_id if is_safe else f"{_cleaned(generation_id)}-{_hash(generation_id)}"
    parts = split_url(url or "")
    query = _unsigned(parts.query)
    segment = unquote(parts.path.rstrip("/").rpartition("/")[2], errors="replace")
    if not query and not has_suffix(
        segment
    ):  # neither names a file: what may be a signature (?token=…) may be its name
        query = split_url(without_store_signatures(url or "")).query
    identity = f"{parts.netloc.lower()}{parts.path}?{query}"
    return _cleaned(without_suffix(segment)) + "-" + _hash(identity)


def file_name(stem: str, artifact: Artifact | None, content_type: str, creation: int = 0) -> str:
    """Return the whole name: stem, artifact unless it is the result, ``-2`` for a second creation, extension.

    :param stem: the value of :func:`stem_of`.
    :param artifact: the file to keep; None for the result in any medium.
    :param content_type: determines the extension.
    :param creation: the index of the creation, from 0.
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
    # Earlier versions stored unrecognized bytes, as application/octet-stream.
    return [file_name(stem, artifact, kind, creation) for kind in (*kinds, "application/octet-stream")]


def _unsigned(query: str) -> str:
    pairs = [(pair.partition("=")[0], pair) for pair in query.split("&")]
    is_azure = {"sig", "sv"} <= {name.lower() for name, _ in pairs}
    signing = [SIGNING_PARAMETER, _AZURE_PARAMETER] if is_azure else [SIGNING_PARAMETER]
    return "&".join(pair for name, pair in pairs if not any(pattern.fullmatch(name) for pattern in signing))


def _is_unmistakable(text: str) -> bool:
    return (
        _KEPT.fullmatch(text) is not None
        and len(text) <= _MAX_STEM_CHARS
        and text.partition(".")[0] not in _WINDOWS_RESERVED
        and not _LOOKS_MADE.search(text)
    )


def _cleaned(text: str) -> str:
    cleaned = _FOREIGN.sub("_", text)[:_MAX_STEM_CHARS].strip("._-") or "vidu"
    # Windows reserves the part before the first dot, with any extension.
    return f"vidu-{cleaned}" if cleaned.lower().partition(".")[0] in _WINDOWS_RESERVED else cleaned


def _hash(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]
