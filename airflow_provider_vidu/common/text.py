"""Makes foreign text safe to show: one line, bounded, without the query of a signed URL.

Text from a server may end up in a log line, an exception or a trigger event, so every message of this package passes
through this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from airflow_provider_vidu.common.redaction import MASK, PIECE_CHARS, Redactor, unescaped
from airflow_provider_vidu.common.url_parts import split_url

SNIPPET_CHARS: Final = 200
UNPRINTABLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    r"\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)
"""Control characters, line ends, bidirectional overrides and invisible ones: they could forge a log line or an id.

Variation selectors and joiners (U+200C, U+200D) are kept: emoji and several alphabets need them."""
_PLACEHOLDER: Final = re.compile(r"\b(?:MappedArgument\(_input=|XComArg\(<|Lazy\w*Sequence\(\[\d+ items?\]\))")
# Go's and PHP's JSON escape / and & with a backslash; CJK text precedes a URL without a space.
_URL = re.compile(r"(?i)https?:(?:\\?/){2}[^\s\"<>]+")
_PASSWORD: Final = re.compile(r"(:(?:\\?/){2}[^\s/?#@:\"<>]*+:)([^\s/?#\"<>]+)@")

# MIME has lines of 60 to 76 characters; a shorter one may be text.
_DATA_URI: Final = re.compile(
    r"(?i)data:([\w.+-]{0,60}/[\w.+-]{0,60})(?:;[\w.=+-]{0,60}){0,4};base64,"
    r"([A-Za-z0-9+/=_\\-]+(?:[\r\n]{1,2}[A-Za-z0-9+/=_-]{60,})*)"
)

SIGNING_PARAMETER: Final = re.compile(
    r"(?i)(?:x-(?:amz|goog|oss|cos|tos|obs)-(?!process)[\w-]*|q-(?:sign|ak|key|header|url)[\w-]*|signature|sig|sign"
    r"|expires?|policy|key-pair-id|\w*accesskeyid|googleaccessid|auth_key|token|security-token)"
)
"""The parameters that sign a URL rather than name the object.

Files are named by the rest of the URL. A missing parameter gives one file two names, a wrong one gives two files the
same name, so doubtful ones are omitted.
"""

_BARE_SIGNATURE: Final = re.compile(
    r"(?i)(?:(?<![A-Za-z0-9_-])|(?<=3f)|(?<=26))"
    r"((?:x-(?:amz|goog|oss|cos|tos|obs)-(?!process)[\w-]{0,40}|q-(?:sign|ak|key|header|url)[\w-]{0,40}|signature|sig|sign"
    r"|policy|key-pair-id|\w{0,20}accesskeyid|googleaccessid|auth_key|(?:security-)?token)"
    rf"(?:=|%(?:25){{0,3}}3d|&#(?:x3d|61);|\\{{1,4}}[ux](?:00)?3d))[^\s&\"'<>,]{{{PIECE_CHARS},}}"
)
"""A parameter that signs, and its value, where no URL shows that it is one: of a path alone, of another scheme, or of a
URL that is percent-encoded or written in entities or escapes."""
_SIGNATURE_FIELD: Final = re.compile(
    r"(?i)(?<![A-Za-z0-9_-])"
    r"((?:x[-_](?:amz|goog|oss|cos|tos|obs)[-_](?:signature|security[-_]token|credential)|q-signature|signature|sig)"
    r"[\\\"'\s]{0,4}(?:[:=]|[=-]>)[\\\"'\[\s]{0,6})(?=[^\d\s]{0,64}\d)[\w+/=%~.-]{20,}"
)
"""The same in a query that a service has taken apart and quotes: as JSON, or as its language prints a mapping."""

_CUT_CHARS: Final = 1024
"""How much of a secret may be visible before a cut."""
_PARAMETER: Final = re.compile("[^&]+")
_SECRET_VARIETY: Final = 10


def sanitized(value: object, limit: int = SNIPPET_CHARS) -> str:
    """Return ``value`` as one printable line of at most ``limit`` characters.

    Control characters and bidirectional overrides become spaces, so that an answer cannot forge a log line; lone
    surrogates become ``?``, so that the text can be encoded. Passwords in addresses are masked: that of a destination
    may be in the message of another task, whose log does not know it, or cut off, so that no log does.

    :param value: any object; its ``str()`` is shown.
    :param limit: the maximum number of characters; an ellipsis marks a cut.
    """
    # Cut first, because a gateway may answer in megabytes.
    return printable(_PASSWORD.sub(rf"\1{MASK}@", str(value)[: limit * 8]), limit)


def printable(text: str, limit: int) -> str:
    """Return a text as one printable line, as :func:`sanitized` does, where it names something: nothing is masked."""
    text = text[: limit * 4].encode("utf-8", "replace").decode("utf-8")
    text = UNPRINTABLE.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def before_cut(text: str) -> str:
    """Return a text that was cut off, without its last visible characters.

    They may be the beginning of a secret, which no search finds. What is shown of a text reaches them if most of it is
    invisible, or was masked.
    """
    visible = [at for at, sign in enumerate(text) if not (sign.isspace() or UNPRINTABLE.match(sign))]
    return text[: visible[-_CUT_CHARS]] if len(visible) > _CUT_CHARS else ""


def without_query(url: str) -> str:
    """Return ``url`` without user info, query and fragment: the part that may be shown.

    :param url: any URL, with or without scheme and host; ``<unreadable URL>`` is returned if it cannot be parsed.
    """
    try:
        parts = split_url(url)
    except ValueError:
        return "<unreadable URL>"
    if parts.netloc:
        scheme = f"{parts.scheme}:" if parts.scheme else ""
        return f"{scheme}//{parts.netloc.rpartition('@')[2]}{parts.path}"
    # Without "//" the parts are ambiguous: "user:word@host/path" has the scheme "user".
    first, *others = re.split("[?#]", url, maxsplit=1)[0].strip().split("/")
    return "/".join([first.rpartition("@")[2], *(part.rpartition("@")[2] if ":" in part else part for part in others)])


def redact_urls(text: str) -> str:
    """Return ``text`` without the queries of its http(s) URLs, which may be signatures, and without bare signatures."""
    bare = _URL.sub(lambda url: without_query(re.split(r"[?#]", unescaped(url.group()), maxsplit=1)[0]), text)
    return _SIGNATURE_FIELD.sub(rf"\1{MASK}", _BARE_SIGNATURE.sub(rf"\1{MASK}", bare))


def without_data_uris(text: str) -> str:
    """Return ``text`` with the content of each data URI replaced by a note: ``data:image/png;base64,… (…)``."""
    if "64," not in text:
        return text
    return _DATA_URI.sub(lambda uri: f"data:{uri[1]};base64,… ({len(uri[2])} characters cut out)", text)


def signatures(value: Any) -> set[str]:
    """Return the secret parts of all signed URLs in ``value``: whole queries, and signing parameters.

    Short values and values of few distinct characters (numbers, words, dates) are omitted: masking them would damage
    ordinary text.

    :param value: a string, or lists and mappings of strings to any depth.
    """
    parts = (part for text in _texts(value) for url in _urls(text) for part in _secret_parts(url))
    return {part for part in parts if len(set(part)) >= _SECRET_VARIETY}


def _secret_parts(url: str) -> Iterator[str]:
    """Yield the query of a URL and its signing parameters, unless they are short.

    One at a time: a list of all parameters took seventy times as much as a query of ampersands.
    """
    query = url.partition("?")[2].partition("#")[0]
    if len(query) < PIECE_CHARS:
        return
    yield query
    for match in _PARAMETER.finditer(query):
        name, _, value = match[0].partition("=")
        if len(value) >= PIECE_CHARS and SIGNING_PARAMETER.fullmatch(unquote(name)):
            yield value
            if len(plain := unquote(value)) >= PIECE_CHARS:
                yield plain


def passwords(value: Any) -> set[str]:
    """Return the passwords of all addresses in ``value``, of any scheme: ``sftp://user:password@host/``.

    :param value: a string, or lists and mappings of strings to any depth.
    """
    texts = (text for text in _texts(value) if not text.startswith("data:"))
    found = {match[2] for text in texts for match in _PASSWORD.finditer(text)}
    return found | set(map(unquote, found))


def without_signatures(value: Any) -> Any:
    """Return JSON without the queries of http(s) URLs and without their signatures elsewhere.

    :param value: plain JSON; it is not changed.
    """
    # Thousands of texts and many signatures, each of which opens one file for a while: no search in dumps.
    return _stripped(value, Redactor(signatures(value), in_numerals=False).redact)


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
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, (Mapping, list, tuple, set, frozenset)) and id(item) not in seen:
            seen.add(id(item))
            left.extend(item)
            if isinstance(item, Mapping):
                left.extend(item.values())


def _urls(text: str) -> Iterator[str]:
    if text.startswith("data:"):  # an image of megabytes
        return
    if _is_url(text):
        yield from {text, unescaped(text)}
        return
    for match in _URL.finditer(text):
        yield unescaped(match[0])


def _is_url(text: str) -> bool:
    """Whether the whole text is one URL (in other text, a quotation mark would end it)."""
    return text[:8].lower().startswith(("http://", "https://")) and len(text.split(None, 1)) == 1


def redacted(value: object, limit: int = SNIPPET_CHARS) -> str:
    """Return ``value`` as one line that a message may quote, without queries of URLs and data URIs.

    :param value: any object; its ``str()`` is shown.
    """
    return sanitized(redact_urls(without_data_uris(str(value)[: limit * 8])), limit)


def redacted_lines(value: str, limit: int) -> str:
    """Return up to ``limit`` characters of a text of several lines, redacted and without disguising characters."""
    # URLs first: an escape in one may decode to a character that must not be shown.
    text = redact_urls(without_data_uris(value[: limit * 2])).encode("utf-8", "replace").decode("utf-8")
    text = UNPRINTABLE.sub(
        lambda run: "".join(char if char in "\t\n" else " " for char in run[0]), text.replace("\r\n", "\n")
    )
    return text[:limit].strip()


def sentence(text: str) -> str:
    """Return ``text`` with a full stop, unless it already ends like a sentence."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def placeholder_problem(text: str) -> str | None:
    """Return what is wrong with a text into which an f-string has put Airflow's placeholder for a value, or None."""
    if _PLACEHOLDER.search(text) is None:
        return None
    return (
        "holds Airflow's placeholder for a value, not the value: an f-string cannot know what a mapped task group "
        "hands in, or what map(), zip() or concat() return. Pass the value alone, and make the text in an upstream "
        "task or in the list that is mapped over."
    )
