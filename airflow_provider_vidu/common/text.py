"""Making foreign text fit to be shown: one line, bounded, and without the query of a signed URL.

Everything that comes from a server may end up in a log line, an exception or a trigger event, so
every message of this package passes through here first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from airflow_provider_vidu.common.redaction import PIECE_CHARS, Redactor, unescaped

SNIPPET_CHARS: Final = 200
UNPRINTABLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    r"\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)
"""Control characters, line ends, bidirectional overrides and what is invisible: what could forge a log line or an id.

Variation selectors and joiners (U+200C, U+200D) stay: emoji and several alphabets are written with them."""
# Go's and PHP's JSON spell / and & with a backslash; CJK text stands before a URL without a blank.
_URL = re.compile(r"(?i)https?:(?:\\?/){2}[^\s\"<>]+")

_DATA_URI: Final = re.compile(
    r"(?i)data:([\w.+-]{0,60}/[\w.+-]{0,60})(?:;[\w.=+-]{0,60}){0,4};base64,([A-Za-z0-9+/=_\\-]+)"
)

SIGNING_PARAMETER: Final = re.compile(
    r"(?i)(?:x-(?:amz|goog|oss|cos|tos|obs)-(?!process)[\w-]*|q-(?:sign|ak|key|header|url)[\w-]*|signature|sig|sign"
    r"|expires?|policy|key-pair-id|\w*accesskeyid|googleaccessid|auth_key|token|security-token)"
)
"""What signed URLs carry besides the name of the object.

Files are named by what is left of a URL. A parameter missing here gives one file two names; one too many
would give two files one name, so anything doubtful is missing.
"""

_SECRET_VARIETY: Final = 10


def sanitized(value: object, limit: int = SNIPPET_CHARS) -> str:
    """Return ``value`` as one printable line of at most ``limit`` characters.

    Control characters and bidirectional overrides become spaces, so that an answer cannot forge a
    log line; lone surrogates become ``?``, so that the text can be encoded.

    :param value: anything; ``str()`` of it is shown.
    :param limit: the most characters to keep; an ellipsis marks a cut.
    """
    # Cut before the regular expressions run: a gateway may answer in megabytes.
    text = str(value)[: limit * 4].encode("utf-8", "replace").decode("utf-8")
    text = UNPRINTABLE.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def without_query(url: str) -> str:
    """Return ``url`` without user info, query and fragment: the part that may be shown.

    :param url: any URL, also one without scheme or host; one that cannot be parsed is replaced by
        ``<unreadable URL>``.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<unreadable URL>"
    if parts.netloc:
        scheme = f"{parts.scheme}:" if parts.scheme else ""
        return f"{scheme}//{parts.netloc.rpartition('@')[2]}{parts.path}"
    # Without a host nothing is where it should be: "user:word@host/path" has the scheme "user".
    first, *others = re.split("[?#]", url, maxsplit=1)[0].strip().split("/")
    return "/".join([first.rpartition("@")[2], *(part.rpartition("@")[2] if ":" in part else part for part in others)])


def redact_urls(text: str) -> str:
    """Return ``text`` with the query of every http(s) URL in it removed (it may be a signature)."""
    return _URL.sub(lambda found: without_query(re.split(r"[?#]", unescaped(found.group()))[0]), text)


def without_data_uris(text: str) -> str:
    """Return ``text`` with the content of every data URI in it replaced by a note: ``data:image/png;base64,… (…)``."""
    if "64," not in text:
        return text
    return _DATA_URI.sub(lambda found: f"data:{found[1]};base64,… ({len(found[2])} characters cut out)", text)


def signatures(value: Any) -> set[str]:
    """Return the secret parts of all signed URLs in ``value``: whole queries, and the values that sign.

    What is short or of few characters (a number, a word, a date) is left out: masking it would make
    holes into everything.

    :param value: a text, or lists and mappings of texts to any depth.
    """
    parts: set[str] = set()
    for text in _texts(value):
        for url in _urls(text):
            query = url.partition("?")[2].partition("#")[0]
            pairs = [pair.partition("=") for pair in query.split("&")]
            signing = [value for name, _, value in pairs if SIGNING_PARAMETER.fullmatch(unquote(name))]
            parts |= {query, *signing, *map(unquote, signing)}
    return {part for part in parts if len(part) >= PIECE_CHARS and len(set(part)) >= _SECRET_VARIETY}


def without_signatures(value: Any) -> Any:
    """Return JSON in which every http(s) URL has lost its query, and no signature stands anywhere else.

    :param value: plain JSON; it is not changed.
    """
    return _stripped(value, Redactor(signatures(value)).redact)


def _stripped(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(without_query(value) if _is_url(value) else redact_urls(value))
    if isinstance(value, Mapping):
        return {_stripped(name, mask): _stripped(item, mask) for name, item in value.items()}
    return [_stripped(item, mask) for item in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    # No recursion: a template may render to JSON that is nested deeper than Python's stack, or in itself.
    left, seen = [value], set()
    while left:
        found = left.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, (Mapping, list, tuple, set, frozenset)) and id(found) not in seen:
            seen.add(id(found))
            left.extend(found)
            if isinstance(found, Mapping):
                left.extend(found.values())


def _urls(text: str) -> list[str]:
    if text.startswith("data:"):  # an image of megabytes
        return []
    return [text] if _is_url(text) else [unescaped(found) for found in _URL.findall(text)]


def _is_url(text: str) -> bool:
    """Whether the whole text is one URL; inside a text a quotation mark ends one."""
    return text.lower().startswith(("http://", "https://")) and len(text.split()) == 1


def redacted(value: object, limit: int = SNIPPET_CHARS) -> str:
    """Return ``value`` as one redacted line: what a message may quote from a server. Data URIs are cut out.

    :param value: anything; ``str()`` of it is shown.
    :param limit: the most characters to keep.
    """
    return sanitized(redact_urls(without_data_uris(str(value)[: limit * 8])), limit)


def redacted_lines(value: str, limit: int) -> str:
    """Return a text of several lines, cut, redacted and without characters that could disguise it."""
    # First the URLs: an escape in one may stand for a character that is not to be shown.
    text = redact_urls(without_data_uris(value[: limit * 2])).encode("utf-8", "replace").decode("utf-8")
    text = UNPRINTABLE.sub(
        lambda found: "".join(sign if sign in "\t\n" else " " for sign in found[0]), text.replace("\r\n", "\n")
    )
    return text[:limit].strip()
