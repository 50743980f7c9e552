"""Removes known secrets from foreign text, in any encoding.

A gateway that refuses a key may quote it: literally, in a URL, in an HTML page, in a dump of the request's headers.
"""

from __future__ import annotations

import base64
import io
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from html.entities import html5
from itertools import chain
from typing import Any, Final

from airflow_provider_vidu.common.url_parts import CALLBACK_PATH

MASK: Final = "***"
SHORTEST_ENCODED: Final = 8
"""A shorter secret is searched only literally: its base64 or hex could occur by chance."""
PIECE_CHARS: Final = 20
_FEW_SECRETS: Final = 32
"""Up to this many secrets are replaced one by one; above, the long ones by their pieces."""

# One run per match, and only valid escapes: an answer may consist of four million percent signs.
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ESCAPES = re.compile(r"(?:\\u[0-9A-Fa-f]{4})+|(?:\\x[0-9A-Fa-f]{2})+|(?:\\/)+|\\[\"\\]")
_ENTITY = re.compile(
    r"&(?:#0{0,32}([1-9][0-9]{0,6});?|#[xX]0{0,32}([1-9A-Fa-f][0-9A-Fa-f]{0,5});?|([A-Za-z][A-Za-z0-9]{1,31};)"
    r"|(amp|lt|gt|quot|AMP|LT|GT|QUOT))"
)
_CALLBACK_TOKEN: Final = re.compile(rf"(?<={CALLBACK_PATH})[A-Za-z0-9_-]{{20,}}")
"""A service that echoes the request would put the token into the XCom of the result, or into an error, where readers of
the DAG see it."""
_LAST_CHARACTER: Final = 0x10FFFF
_GAPS: Final = ("\\n", "\\r", "\\t", "\n", "\r", "\t", "\v", "\f", " ", "+", "<wbr>")
"""What line wrapping puts into a secret, also within JSON and HTML, and the space that forms use for ``+``."""
_INVISIBLE: Final = "\x85\xa0\xad\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
_INVISIBLE_GAPS: Final = re.compile(f"[{_INVISIBLE}]+")
_GAP: Final = re.compile(rf"(?:[\n\r\t\v\f +{_INVISIBLE}]|\\[nrt]|<wbr>)++")


def _without_percent(text: str) -> str:
    return _PERCENT.sub(lambda match: bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace"), text)


def unescaped(text: str) -> str:
    r"""Decode the escapes in raw JSON and scripts that can hide text: ``\u0026``, ``\x26``, ``\/``, ``\"``, ``\\``."""
    return _ESCAPES.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    run = match[0]
    if run[1] == "u":
        return bytes.fromhex(run.replace("\\u", "")).decode("utf-16-be", "replace")
    if run[1] == "x":
        return bytes.fromhex(run.replace("\\x", "")).decode("latin-1")
    return "/" * (len(run) // 2) if run[1] == "/" else run[1]


def _character(entity: re.Match[str]) -> str:
    decimal, hexadecimal, name, short = entity.groups()
    if name or short:
        return html5.get(name or short, entity[0])
    code = int(decimal) if decimal else int(hexadecimal, 16)
    is_character = code <= _LAST_CHARACTER and not 0xD800 <= code <= 0xDFFF
    return chr(code) if is_character else entity[0]


_DECODERS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("%", _without_percent),
    ("&", lambda text: _ENTITY.sub(_character, text)),
    ("\\", unescaped),
)
_MOST_LAYERS: Final = 3
"""How many nested encodings are decoded, such as a percent-encoded URL in an HTML page in JSON."""


def _decoded(text: str, clean: Callable[[str], str]) -> tuple[str, str]:
    """Return ``text`` as of the last change by ``clean``, and fully decoded.

    :param clean: called after each step, because a secret may itself look encoded.
    """
    plain = text = clean(text)
    for _ in range(_MOST_LAYERS):
        before = plain
        for mark, decode in _DECODERS:
            if mark in plain and (decoded := decode(plain)) != plain:
                plain = clean(decoded)
                if plain != decoded:
                    text = plain
        if plain == before:
            break
    return text, plain


_SECRET_WORDS: Final = (
    "auth", "key", "token", "secret", "cookie", "pass", "signature", "credential", "session", "bearer", "jwt",
)  # fmt: skip
_TOKEN_CHARS: Final = 20
_TOKEN_VARIETY: Final = 10
_TOKEN = re.compile(r"(?=\D*\d)[A-Za-z0-9_~+/=.:-]+")


def is_secret_name(name: str) -> bool:
    """Whether a name is one that secrets have."""
    return any(word in name.lower() for word in _SECRET_WORDS)


def is_secret_header(name: str, value: str) -> bool:
    """Whether a header's value is secret, judging by the header's name or because the value looks like a token."""
    if is_secret_name(name):
        return True
    return len(value) >= _TOKEN_CHARS and len(set(value)) >= _TOKEN_VARIETY and _TOKEN.fullmatch(value) is not None


class Secret:
    """A string that ``repr``, ``str`` and formatting mask; :meth:`reveal` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret string."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> Any:
        """Refuse pickling, so that no key gets onto a disk or into a queue.

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

    __slots__ = ("_pieces", "_solid", "_spellings")

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first: a short secret may be the beginning of a longer one.
        known = sorted({secret for secret in secrets if secret}, key=lambda secret: (-len(secret), secret))
        many = [secret for secret in known if len(secret) >= PIECE_CHARS] if len(known) > _FEW_SECRETS else []
        self._pieces = pieces_of(many)
        few = known[len(many) :]
        # A secret that looks encoded itself is decoded with the text around it.
        plain = [(secret, _decoded(secret, str)[1]) for secret in few]
        self._spellings = tuple(
            (spelling, len(secret)) for secret, decoded in plain for spelling in (secret, *_encoded(secret, decoded))
        )
        # Wrapping also puts gaps into Base64 and hexadecimal digits.
        solid = {_without_gaps(form): length for form, length in self._spellings}
        solid |= {_without_gaps(decoded): len(decoded) for _, decoded in plain}
        self._solid = tuple((form, length) for form, length in solid.items() if len(form) >= SHORTEST_ENCODED)

    def redact(self, text: str, shortest: int = 0) -> str:
        """Return ``text`` with every secret of at least ``shortest`` characters masked, and every callback's token.

        If a secret is percent-encoded, written in HTML entities or escaped in JSON, the text is returned decoded.
        """
        text, plain = _decoded(text, lambda step: self._replaced(step, shortest))
        joined = self._joined(plain, shortest)
        return text if joined is None else self._joined(text, shortest) or joined

    def _replaced(self, text: str, shortest: int) -> str:
        for spelling, length in self._spellings:
            if length >= shortest and spelling in text:
                text = text.replace(spelling, MASK)
        if CALLBACK_PATH in text:
            text = _CALLBACK_TOKEN.sub(MASK, text)
        return mask_pieces(text, self._pieces) if self._pieces else text

    def _joined(self, text: str, shortest: int) -> str | None:
        """Return ``text`` without secrets that are wrapped or whose ``+`` became a space; None if there are none."""
        joined = _without_gaps(text)
        present = [solid for solid, length in self._solid if length >= shortest and solid in joined]
        return _masked_across_gaps(text, present) if present else None

    def __repr__(self) -> str:
        return f"Redactor({MASK})"


def _without_gaps(text: str) -> str:
    for gap in _GAPS:
        text = text.replace(gap, "")
    return text if text.isascii() or text.isprintable() else _INVISIBLE_GAPS.sub("", text)


def _masked_across_gaps(text: str, solids: Iterable[str]) -> str:
    """Mask secrets within which ``text`` has gaps.

    Not a pattern with a gap after each character: it would read a run of gaps again from each ``n`` in it, and a server
    that knows the secret, such as its own URL, chooses the text.

    :param solids: the secrets, without gaps.
    """
    joined, places, begins, at = io.StringIO(), array("q"), array("q"), 0
    for end, after in chain((gap.span() for gap in _GAP.finditer(text)), [(len(text), 0)]):
        places.append(at)
        begins.append(joined.tell())
        joined.write(text[at:end])
        at = after

    def place(index: int) -> int:
        number = bisect_right(begins, index) - 1
        return places[number] + index - begins[number]

    parts, kept = list[str](), 0
    for begin, end in _spans(joined.getvalue(), solids):
        parts += [text[kept : place(begin)], MASK]
        kept = place(end - 1) + 1
    return "".join(parts) + text[kept:]


def _spans(text: str, wanted: Iterable[str]) -> list[tuple[int, int]]:
    """Return where texts are in another one, in order; those that overlap as one."""
    found = sorted(match.span() for each in wanted for match in re.finditer(re.escape(each), text))
    spans: list[tuple[int, int]] = []
    for begin, end in found:
        if spans and begin < spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((begin, end))
    return spans


def _encoded(secret: str, decoded: str) -> set[str]:
    """Return a secret's spellings that no decoder handles (base64, hex), and its own decoded form.

    Base64 has three spellings, by the secret's offset in a group of three bytes.
    """
    data = secret.encode()
    if len(data) < SHORTEST_ENCODED:
        return set()
    spellings = {data.hex(), data.hex().upper()}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode("ascii")
        # A character holds six bits; those at both ends depend on the neighbouring bytes.
        part = encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        spellings |= {part, part.replace("+", "-").replace("/", "_")}
    return spellings | ({decoded} if len(decoded.strip()) >= SHORTEST_ENCODED else set()) - {secret}


def pieces_of(secrets: Iterable[str]) -> frozenset[str]:
    """Return every substring of ``PIECE_CHARS`` characters of the secrets."""
    return frozenset(secret[at : at + PIECE_CHARS] for secret in secrets for at in range(len(secret) - PIECE_CHARS + 1))


def mask_pieces(text: str, pieces: Collection[str]) -> str:
    """Mask all pieces in ``text`` in one pass: replacing thousands of secrets one by one takes minutes.

    Text that many of them share, such as a parameter's name, is masked as well.
    """
    parts, at, kept = [], 0, 0
    while at + PIECE_CHARS <= len(text):
        if text[at : at + PIECE_CHARS] not in pieces:
            at += 1
            continue
        parts += [text[kept:at], MASK]
        at += 1
        while text[at : at + PIECE_CHARS] in pieces:
            at += 1
        at = kept = at + PIECE_CHARS - 1
    return "".join(parts) + text[kept:]
