"""Making foreign text fit to be shown: one line, bounded, and without the query of a signed URL.

Everything that comes from a server may end up in a log line, an exception or a trigger event, so
every message of this package passes through here first.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

SNIPPET_CHARS: Final = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
# Go's and PHP's JSON spell / and & with a backslash; CJK text stands before a URL without a blank.
_URL = re.compile(r"(?i)https?:(?:\\?/){2}[^\s\"<>]+")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\([/\"\\])")


def one_line(value: object, limit: int = SNIPPET_CHARS) -> str:
    """Return ``value`` as one printable line of at most ``limit`` characters.

    Control characters and bidirectional overrides become spaces, so that an answer cannot forge a
    log line; lone surrogates become ``?``, so that the text can be encoded.

    :param value: anything; ``str()`` of it is shown.
    :param limit: the most characters to keep; an ellipsis marks a cut.
    """
    # Cut before the regular expressions run: a gateway may answer in megabytes.
    text = str(value)[: limit * 4].encode("utf-8", "replace").decode("utf-8")
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def without_query(url: str) -> str:
    """Return ``url`` without user info, query and fragment: the part that may be shown.

    :param url: any URL; one that cannot be parsed is replaced by ``<unreadable URL>``.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"
    except ValueError:
        return "<unreadable URL>"


def unescaped(text: str) -> str:
    r"""Return raw JSON text with ``\u0026`` and ``\/`` spelt out, so that secrets in it can be found."""
    return _ESCAPED.sub(lambda found: found.group(2) or chr(int(found.group(1), 16)), text)


def redact_urls(text: str) -> str:
    """Return ``text`` with the query of every http(s) URL in it removed (it may be a signature)."""
    return _URL.sub(lambda found: without_query(re.split(r"[?#]", unescaped(found.group()))[0]), text)


def shown(value: object, limit: int = SNIPPET_CHARS) -> str:
    """Return ``value`` as one redacted line: what a message may quote from a server.

    :param value: anything; ``str()`` of it is shown.
    :param limit: the most characters to keep.
    """
    return one_line(redact_urls(str(value)[: limit * 8]), limit)
