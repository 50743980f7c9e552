"""Destinations as a DAG's author writes them: what is wrong with one is visible without touching its store. No I/O."""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache
from typing import Final, Literal, get_args

from airflow_provider_vidu.common.text import placeholder_problem, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.schemes import STORES, account_advice, canonical, scheme_of, stored_key

Overwrite = Literal["replace", "skip", "error"]
OVERWRITES: Final[tuple[Overwrite, ...]] = get_args(Overwrite)
"""What happens to an existing file."""

_LOCAL_URI = re.compile(r"(?i)(?:file|local)://")
# "file:clips/a.mp4" does not mean the path clips/a.mp4.
NO_LOCAL_URI: Final = re.compile(r"(?:file|local):(?!//(?:/|localhost/))", re.IGNORECASE)
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
UNRENDERED: Final = (
    "holds a template that was not rendered. Airflow renders text in the DAG and its own paths, but neither XComs nor "
    "what a mapped task group hands in: write the template as the task's own argument."
)
"""What is wrong with an argument that names a place, as the rest of a sentence."""


def checked_destination(value: object) -> str:
    """Check a destination without touching the store, and return it as text; a folder ends in a slash.

    A path object (``ObjectStoragePath``, ``Path``) drops its final slash, so its name decides: with the extension of a
    medium it is a file, otherwise a folder. As a file, ``ObjectStoragePath("s3://bucket/clips/")`` would make all clips
    overwrite one object. Whitespace around a text is dropped: ``"s3://bucket/clips/ "`` is a folder.

    :raises ViduConfigError: when it is not a path, empty, a rendered ``None``, a template, contains control characters,
        ``::`` or a ``..`` segment, or names neither a file nor a folder.
    """
    text = "" if value is None else path_text(value)
    if text is None:
        raise ViduConfigError(f"destination must be a path or URL as text, not {type(value).__name__}.")
    text = plain_scheme(text.strip())
    if not text or text == "None":
        raise ViduConfigError("destination is empty (or a template rendered to None).")
    if problem := _problem_with(text):
        raise ViduConfigError(f"destination {sanitized(text, 120)!r} {problem}")
    return text


def _problem_with(text: str) -> str | None:
    """Return what is wrong with a destination, as the rest of a sentence, or None."""
    rest = text.partition("://")[2] if "://" in text else text
    if is_template(text):  # all instances and runs would write to the one place that its braces name
        return UNRENDERED
    if problem := placeholder_problem(text):
        return problem
    if _CONTROL.search(text):
        return "contains control characters."
    if _SURROGATE.search(text):
        return "contains characters that cannot be encoded."
    if NO_LOCAL_URI.match(text):
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
    return _bucket_problem(rest) if scheme_of(text) in STORES else None


def _bucket_problem(rest: str) -> str | None:
    """Return what is wrong with the bucket in a URI of a store, as :func:`_problem_with` does.

    :param rest: what follows the scheme.
    """
    authority, slash, _ = rest.partition("/")
    bucket = authority.rpartition("@")[2]
    if not bucket:  # a template for it was empty
        return "names no bucket."
    if ":" in bucket and not bucket.startswith("arn:"):  # s3://minio:9000/clips/
        return "has a port where a bucket belongs. The address of a store belongs in its connection (endpoint_url)."
    return None if slash else "names only a bucket: end it with a slash to store files in it."


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
    from airflow_provider_vidu.common.media_types import has_suffix

    text = str(value)
    return text if text.endswith("/") or has_suffix(text) else f"{text}/"


def local_path(path: str) -> str | None:
    """Return the path of a local file without its scheme, or None for another store."""
    if local := _LOCAL_URI.match(path):
        return re.sub(r"(?i)^localhost(?=/)", "", path[local.end() :])
    return None if "://" in path else path


def place_of(destination: object) -> str:
    """Return a destination in the one spelling that is equal for all that lead to the same place, to compare it.

    A template keeps its expressions, in which slashes mean something else.
    """
    return _place_of((path_text(destination) or str(destination)).strip())


@lru_cache(maxsize=8192)  # a mapped task compares each of its destinations with all others
def _place_of(text: str) -> str:
    text = plain_scheme(text)
    if (path := local_path(text)) is None:
        scheme, _, key = text.partition("://")
        return f"{canonical(scheme)}://{stored_key(scheme, key)}"
    if is_template(path):
        return path
    return re.sub("^//+", "/", posixpath.normpath(path)) + "/" * (path.endswith("/") and path.strip("/") != "")


def is_folder(destination: str) -> bool:
    """Whether ``destination`` is a folder, in which the file's name is generated."""
    return destination.endswith("/")


def is_template(text: str) -> bool:
    """Whether a text contains a template."""
    return "{{" in text or "{%" in text
