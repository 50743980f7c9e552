"""Explains URLs that cannot be fetched, and finds them in answers. No I/O.

A paid file may be behind such a URL, so messages show it without its possible secrets. Only ``//host/…`` is
unambiguous; the dialects read it as https. ``/files/v.mp4`` is not resolved: it may belong to the connection's host, to
a path prefix, or to the service behind a gateway, and a wrong guess would send the key to the wrong host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from airflow_provider_vidu.common.text import sanitized, without_data_uris, without_query
from airflow_provider_vidu.common.values import CUT_OUT, MAX_URL_CHARS, trimmed, web_url

_URL_FIELD: Final = re.compile(r"ur[il]s?$", re.IGNORECASE)
_MAY_BE_URL: Final = frozenset({"fail_reason", "output", "outputs", "result", "results", "video", "videos", "data"})
"""Fields that hold a URL in some answers and other content in others."""
_LOOKS_LIKE_ONE: Final = re.compile(r"(?:[\w.+-]+:)?/{0,2}[\w.~%-]*/\S+")
_NOT_RESULTS: Final = frozenset(
    {
        "input", "inputs", "request", "params", "parameters", "images", "subjects", "payload", "meta_data", "body",
        "prompt", "callback_url", "wm_url", "original_request", "arguments", "options",
    }
)  # fmt: skip
"""Fields that echo the request."""
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]{0,30}):(?=//)|(data|blob|file|javascript):", re.IGNORECASE)
_CUT: Final = re.compile(rf"\(\d+ {re.escape(CUT_OUT)}")
_MOST_SHOWN: Final = 3
_MOST_DEEP: Final = 5


_SIGNED: Final = (
    (
        r"x-(?:amz|goog|oss|tos|obs)-signature",
        r"x-\w+-(?:algorithm|credential|date|expires|(?:signed|additional-)headers|signature(?:-version)?|security-token)",
    ),
    (r"signature (?:aws|oss)?accesskeyid", r"signature|expires|(?:aws|oss)?accesskeyid|(?:x-amz-)?security-token"),
    (r"signature googleaccessid", r"signature|expires|googleaccessid"),
    (r"signature key-pair-id", r"signature|expires|policy|key-pair-id"),
    (r"sig sv", r"s[pertvi]|spr|sip|sk[setv]|sk[ot]id|sig"),
    (r"q-signature", r"q-(?:sign-algorithm|ak|(?:sign|key)-time|header-list|url-param-list|signature)|x-cos-[\w-]+"),
)
"""Of each way in which stores sign a URL: the parameters that prove it, and all that belong to it."""
_WEB_URL: Final = re.compile(r"https?://[^\s\"'<>\\]+", re.IGNORECASE)


def without_store_signatures(text: str) -> str:
    """Return a text whose web addresses lack the signatures of stores: a file has a fresh one each time it is signed.

    Only parameters of signatures that are certain are removed, because others may name the file (``?token=…``).
    """
    return _WEB_URL.sub(lambda match: _unsigned(match[0]), text)


def _unsigned(url: str) -> str:
    if len(url) > MAX_URL_CHARS:
        return url
    base, marked, rest = url.partition("?")
    query, hashed, fragment = rest.partition("#")
    pairs = [(unquote(pair.partition("=")[0]).lower(), pair) for pair in query.split("&")]
    names = [name for name, _ in pairs]
    for proofs, own in _SIGNED:
        if all(any(re.fullmatch(proof, name) for name in names) for proof in proofs.split()):
            kept = "&".join(pair for name, pair in pairs if not re.fullmatch(own, name))
            return f"{base}{marked if kept else ''}{kept}{hashed}{fragment}"
    return url


def url_problem(value: str) -> str | None:
    """Return what is wrong with a URL, as the end of a sentence (``lacks its beginning, …``), or None if it is usable.

    :param value: expected to be an http(s) URL; surrounding blanks are ignored.
    """
    text = trimmed(value)
    if web_url(text) is not None:
        return None
    match = _SCHEME.match(text)
    scheme = (match[1] or match[2]).lower() if match else ""
    if scheme == "data" or _CUT.match(text):  # before the spaces of a note on what was cut out
        return "is the file itself, not its URL"
    if len(text) > MAX_URL_CHARS:
        return f"is longer than {MAX_URL_CHARS:,} characters"
    if len(text.split()) > 1:
        return "contains a space or a line break"
    if text.startswith("/") and not text.startswith("//"):
        return "is relative: it lacks https:// and a host"
    if scheme and scheme not in ("http", "https"):
        return f"has the scheme {scheme!r}; only http and https are fetched"
    if not scheme:
        return "lacks its beginning, https://"
    return "has no readable host, or contains characters that are not allowed in a URL"


def shown_url(value: str) -> str:
    """Return a URL as a message may show it: one line, without user info, query and fragment."""
    text = value.strip()
    return sanitized(without_data_uris(text[:2000]) if text[:5].lower() == "data:" else without_query(text), 120)


def unusable_note(answer: Mapping[str, Any]) -> str:
    """Return a sentence, after a space, about the URLs in an answer that cannot be fetched; empty if there are none.

    :param answer: the whole answer (:attr:`.Generation.raw`).
    """
    notes: dict[str, str] = {}
    for name, value in _addresses(answer):
        problem = url_problem(value)
        if problem is not None and len(notes) < _MOST_SHOWN:
            notes.setdefault(shown_url(value), f"{sanitized(name, 40)} holds {shown_url(value)!r}, which {problem}")
    if not notes:
        return ""
    return f" In its answer {'; '.join(notes.values())}. Pass the correct URL as video_url to ViduDownloadOperator."


def _addresses(level: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield name and value of each field that should hold the URL of a result."""
    if isinstance(level, str):
        is_one = _URL_FIELD.search(name) or (name in _MAY_BE_URL and _LOOKS_LIKE_ONE.fullmatch(level.strip()))
        if level.strip() and is_one:
            yield name, level
    elif depth >= _MOST_DEEP:
        return
    elif isinstance(level, Mapping):
        for inner, value in level.items():
            if inner not in _NOT_RESULTS:
                yield from _addresses(value, str(inner), depth + 1)
    elif isinstance(level, list):
        for value in level:
            yield from _addresses(value, name, depth + 1)
