"""Taking known secrets out of foreign text, however they are spelled.

A gateway that refuses a key may quote it: as it is, in a URL, in an HTML page, in a dump of the request's headers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from html.entities import html5
from typing import Any, Final

from airflow_provider_vidu.common.text import MASK

SHORTEST_ENCODED: Final = 8
"""Characters below which a secret is not looked for in base64: a shorter piece of base64 proves nothing."""

# A run at a time, and nothing that stands for no character: an answer may consist of four million percent signs.
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ESCAPES = re.compile(r"(?:\\u[0-9A-Fa-f]{4})+|(?:\\/)+|\\[\"\\]")
_ENTITY = re.compile(
    r"&(?:#0{0,32}([1-9][0-9]{0,6});?|#[xX]0{0,32}([1-9A-Fa-f][0-9A-Fa-f]{0,5});?|([A-Za-z][A-Za-z0-9]{1,31};)"
    r"|(amp|lt|gt|quot|AMP|LT|GT|QUOT))"
)
_LAST_CHARACTER: Final = 0x10FFFF


def _without_percent(text: str) -> str:
    """Return ``text`` with percent-encoding spelt out."""
    return _PERCENT.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "replace"), text)


def _without_escapes(text: str) -> str:
    """Return ``text`` with the escapes of JSON spelt out that name a printable character."""
    return _ESCAPES.sub(_unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    run = found[0]
    if run[1] == "u":
        return bytes.fromhex(run.replace("\\u", "")).decode("utf-16-be", "replace")
    return "/" * (len(run) // 2) if run[1] == "/" else run[1]


def _without_entities(text: str) -> str:
    """Return ``text`` with HTML's entities spelt out."""
    return _ENTITY.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    decimal, hexadecimal, name, short = found.groups()
    if name or short:
        return html5.get(name or short, found[0])
    code = int(decimal) if decimal else int(hexadecimal, 16)
    is_character = code <= _LAST_CHARACTER and not 0xD800 <= code <= 0xDFFF
    return chr(code) if is_character else found[0]


_DECODERS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("%", _without_percent),
    ("&", _without_entities),
    ("\\", _without_escapes),
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


class Secret:
    """A string that neither ``repr`` nor ``str`` nor formatting shows; :meth:`reveal` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> Any:
        """Refuse to be pickled: what is written to a disk or a queue must not hold a key.

        :raises TypeError: always.
        """
        raise TypeError("A secret of a Vidu connection cannot be pickled.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


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

    def redact(self, text: str, shortest: int = 0) -> str:
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
                text = text.replace(spelling, MASK)
        return text

    def __repr__(self) -> str:
        return f"Redactor({MASK})"


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
