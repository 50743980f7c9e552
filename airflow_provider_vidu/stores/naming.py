"""File names of downloads: safe on every file system, and never the same for two videos. No I/O.

An id of lower-case letters, digits, ``-``, ``_`` and inner dots is kept; any other, or one that a file system could
confuse with another, gets a short hash.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import unquote

from airflow_provider_vidu.common.artifacts import BESIDE_THE_RESULT, Artifact, family_of
from airflow_provider_vidu.common.media_types import EXTENSIONS, extension, has_suffix, without_suffix
from airflow_provider_vidu.common.text import SIGNING_PARAMETER
from airflow_provider_vidu.common.url_parts import split_url
from airflow_provider_vidu.common.urls import without_store_signatures

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
    if not query and not has_suffix(segment):
        # Neither names a file: what may be a signature (?token=…) may be its name.
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
    kind = "-" + artifact if artifact in BESIDE_THE_RESULT else ""  # not formatted: it may be the member of an enum
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
