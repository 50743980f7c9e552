"""Taking known secrets out of foreign text, however they are spelled.

A gateway that refuses a key may quote it: as it is, in a URL, in an HTML page, in a dump of the request's headers.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote

from airflow_provider_vidu.text import STRIKE, unescaped

SHORTEST_ENCODED: Final = 8
"""Characters below which a secret is not looked for in base64: a shorter piece of base64 proves nothing."""

_LONG_REFERENCE = re.compile(r"&#([0-9]{20,})")


def _without_entities(text: str) -> str:
    """Return ``text`` with HTML's entities spelt out.

    Python refuses to convert numbers of thousands of digits, and so does ``html.unescape``.
    """
    if "&#" in text:  # nine digits stand for no character either
        text = _LONG_REFERENCE.sub(lambda found: f"&#{found[1].lstrip('0')[:9] or '0'}", text)
    return html.unescape(text)


_DECODERS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("%", unquote),
    ("&", _without_entities),
    ("\\", unescaped),
)
_MOST_LAYERS: Final = 3
"""How many encodings around each other are undone (a percent-encoded URL in an HTML page in JSON)."""


_SECRET_WORDS: Final = (
    "auth", "key", "token", "secret", "cookie", "pass", "signature", "credential", "session", "bearer", "jwt",
)  # fmt: skip
_TOKEN_CHARS: Final = 20
_TOKEN_VARIETY: Final = 10
_TOKEN = re.compile(r"(?=\D*\d)[A-Za-z0-9_~+/=.:-]+")


def is_secret_header(name: str, value: str) -> bool:
    """Whether a header's value is a secret, by its name, or because it looks like a token and not like words."""
    if any(word in name.lower() for word in _SECRET_WORDS):
        return True
    return len(value) >= _TOKEN_CHARS and len(set(value)) >= _TOKEN_VARIETY and _TOKEN.fullmatch(value) is not None


class Redactor:
    """Replaces secrets by three stars.

    :param secrets: the secrets, in any order; empty ones are ignored.
    """

    __slots__ = ("_spellings",)

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: a short one may be the beginning of a long one.
        found = sorted({secret for secret in secrets if secret}, key=lambda secret: (-len(secret), secret))
        self._spellings = tuple(
            (spelling, len(secret)) for secret in found for spelling in (secret, *_in_base64(secret))
        )

    def scrub(self, text: str, shortest: int = 0) -> str:
        """Return ``text`` without any secret of at least ``shortest`` characters.

        Text in which a secret is percent-encoded, written in HTML entities or escaped in JSON comes back decoded.
        """
        text = self._replaced(text, shortest)
        plain = text
        for _ in range(_MOST_LAYERS):
            decoded = plain
            for mark, decode in _DECODERS:
                if mark in decoded:
                    decoded = decode(decoded)
            if decoded == plain:
                break
            plain = decoded
            if (clean := self._replaced(plain, shortest)) != plain:
                text = plain = clean
        return text

    def _replaced(self, text: str, shortest: int) -> str:
        for spelling, length in self._spellings:
            if length >= shortest and spelling in text:
                text = text.replace(spelling, STRIKE)
        return text

    def __repr__(self) -> str:
        return f"Redactor({STRIKE})"


def _in_base64(secret: str) -> set[str]:
    """Return the pieces of base64 that give a secret away, one for each place it may have in a group of three bytes."""
    data = secret.encode()
    if len(data) < SHORTEST_ENCODED:
        return set()
    found = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode("ascii")
        # A character tells six bits; those at both ends are shared with the neighbours.
        part = encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        found |= {part, part.replace("+", "-").replace("/", "_")}
    return found
