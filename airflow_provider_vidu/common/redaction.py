"""Removes known secrets from foreign text, in the encodings in which programs write what they were sent.

A gateway that refuses a key may quote it: literally, in a URL, in an HTML page, in a dump of the request's headers.
One that wants to hide it has endless ways (reversed, enciphered), and needs none of them: it has the key.
"""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
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

# One run per match, and only valid escapes: an answer may consist of four million percent signs. Each pattern begins
# with its mark, for which Python searches fast. A run is bounded: no other thread runs within one, nor an event loop.
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}(?:%[0-9A-Fa-f]{2}){0,65535}")
_ESCAPES = re.compile(
    r"\\(?:u[0-9A-Fa-f]{4}(?:\\u[0-9A-Fa-f]{4}){0,65535}|x[0-9A-Fa-f]{2}(?:\\x[0-9A-Fa-f]{2}){0,65535}"
    r"|/(?:\\/){0,65535}|\"(?:\\\"){0,65535}|\\(?:\\\\){0,65535})"
)
_SEARCHED: Final = 256 * 1024
"""How many characters are searched at once for what an answer may hold millions of: entities, invisible characters."""
_LONGEST_ENTITY: Final = 48
"""How many characters an entity has at most."""
_ENTITY = re.compile(
    r"&(?:#0{0,32}([0-9]{1,7});?|#[xX]0{0,32}([0-9A-Fa-f]{1,6});?|([A-Za-z][A-Za-z0-9]{1,31};)"
    r"|(amp|lt|gt|quot|AMP|LT|GT|QUOT))"
)
_CALLBACK_TOKEN: Final = re.compile(rf"(?<={CALLBACK_PATH})[A-Za-z0-9_-]{{20,}}")
"""A service that echoes the request would put the token into the XCom of the result, or into an error, where readers of
the DAG see it."""
_LAST_CHARACTER: Final = 0x10FFFF
_BREAKS: Final = ("<wbr>", "<WBR>", "<wbr/>", "<wbr />")
"""Where HTML allows a line to end, as its versions write it."""
_GAPS: Final = (*_BREAKS, "\\n", "\\r", "\\t", "\n", "\r", "\t", "\v", "\f", " ", "+")
"""What line wrapping puts into a secret, also within JSON and HTML, and the space that forms use for ``+``."""
_INVISIBLE: Final = (
    r"\x00-\x08\x0e-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffd\U000e0000-\U000e0fff"
)
"""Control characters, blanks, and what shows nothing, or a mark instead of what no text may hold (U+FFFD)."""
_INVISIBLE_GAPS: Final = re.compile(f"[{_INVISIBLE}]+")
_GAP: Final = re.compile(rf"(?:[\n\r\t\v\f +{_INVISIBLE}]|\\[nrt]|{'|'.join(_BREAKS)}){{1,65536}}+")
_WRAPPING: Final = (*_BREAKS, "\\n", "\\r", "\\t")
_BETWEEN_NUMERALS: Final = re.compile(rf"(?:\\[nrt]|{'|'.join(_BREAKS)}|[^0-9A-Za-z]){{1,65536}}+")
"""What stands between the numbers of a dump: ``0x73, 0x6b``, ``\\163\\153``, ``73:6b``."""
_NO_NUMERALS: Final = bytes(code for code in range(256) if not chr(code).isascii() or not chr(code).isalnum())
_LOWER: Final = bytes(range(256)).lower()
# Letters in other shapes: full-width ones, those of mathematics, raised, lowered and circled ones.
_STYLED: Final = re.compile(
    "[\uff01-\uff5e\U0001d400-\U0001d7ff\u2070-\u209c\u2100-\u214f\u2460-\u24ff\U0001f100-\U0001f1ff]{1,65536}"
)


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
    return run[1] * (len(run) // 2)


def _character(entity: re.Match[str]) -> str:
    decimal, hexadecimal, name, short = entity.groups()
    if name or short:
        return html5.get(name or short, entity[0])
    code = int(decimal) if decimal else int(hexadecimal, 16)
    is_character = code <= _LAST_CHARACTER and not 0xD800 <= code <= 0xDFFF
    return chr(code) if is_character else entity[0]


def _without_entities(text: str) -> str:
    if len(text) <= _SEARCHED:
        return _ENTITY.sub(_character, text)
    parts, begin = [], 0
    while begin < len(text):
        end = begin + _SEARCHED
        cut = text.rfind("&", end - _LONGEST_ENTITY, end)
        end = end if cut < 0 else cut
        parts.append(_ENTITY.sub(_character, text[begin:end]))
        begin = end
    return "".join(parts)


def _without_style(text: str) -> str:
    return text if text.isascii() else _STYLED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)


_DECODERS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("", _without_style),
    ("%", _without_percent),
    ("&", _without_entities),
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
        """Refuse pickling, with a TypeError, so that no key gets onto a disk or into a queue."""
        raise TypeError("A secret of a Vidu connection cannot be pickled.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


class Redactor:
    """Replaces secrets by three stars.

    :param secrets: the secrets, in any order; empty ones are ignored.
    :param in_numerals: whether they are also searched in dumps of bytes, in Base32 and in Base64 of Base64: fifty more
        searches for each.
    """

    __slots__ = ("_numerals", "_pieces", "_solid", "_spellings")

    def __init__(self, secrets: Iterable[str], *, in_numerals: bool = True) -> None:
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
        searched = few if in_numerals else []
        numerals = {_numerals_of(form): len(secret) for secret in searched for form in _in_numerals(secret)}
        self._numerals = tuple((form, length) for form, length in numerals.items() if len(form) >= SHORTEST_ENCODED)

    def redact(self, text: str, shortest: int = 0) -> str:
        """Return ``text`` with every secret of at least ``shortest`` characters masked, and every callback's token.

        If a secret is percent-encoded, written in HTML entities or escaped in JSON, the text is returned decoded.
        """
        text, plain = _decoded(text, lambda step: self._replaced(step, shortest))
        for masked in (self._joined, self._without_numerals):
            if (found := masked(plain, shortest)) is not None:
                text = plain = found
        return text

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
        return _masked_across_gaps(text, present, _GAP) if present else None

    def _without_numerals(self, text: str, shortest: int) -> str | None:
        """Return ``text`` without secrets that are spelt in numerals, with anything between; None if there are none."""
        numerals = _numerals_of(text)
        present = [form.decode() for form, length in self._numerals if length >= shortest and form in numerals]
        return _masked_across_gaps(text, present, _BETWEEN_NUMERALS, str.lower) if present else None

    def __repr__(self) -> str:
        return f"Redactor({MASK})"


def _without_gaps(text: str) -> str:
    for gap in _GAPS:
        text = text.replace(gap, "")
    if text.isascii() and text.isprintable():
        return text
    pieces = (text[at : at + _SEARCHED] for at in range(0, len(text), _SEARCHED))
    return "".join(_INVISIBLE_GAPS.sub("", piece) for piece in pieces)


def _numerals_of(text: str) -> bytes:
    """Return the ASCII letters and digits of a text, in lower case, without those of what wraps a line."""
    for gap in _WRAPPING:
        text = text.replace(gap, "")
    return text.encode("ascii", "ignore").translate(_LOWER, _NO_NUMERALS)


def _masked_across_gaps(
    text: str, solids: Iterable[str], gaps: re.Pattern[str], folded: Callable[[str], str] = str
) -> str:
    """Mask secrets within which ``text`` has gaps.

    Not a pattern with a gap after each character: it would read a run of gaps again from each ``n`` in it, and a server
    that knows the secret, such as its own URL, chooses the text.

    :param solids: the secrets, without gaps.
    :param gaps: what a gap is.
    :param folded: returns a part of the text as the secrets are spelt, of the same length.
    """
    joined, places, begins, at = io.StringIO(), array("q"), array("q"), 0
    for end, after in chain((gap.span() for gap in gaps.finditer(text)), [(len(text), 0)]):
        places.append(at)
        begins.append(joined.tell())
        joined.write(folded(text[at:end]))
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
    """Return a secret's spellings that no decoder handles (base64, hex), and its own decoded form."""
    data = secret.encode()
    if len(data) < SHORTEST_ENCODED:
        return set()
    spellings = {data.hex(), data.hex().upper(), *_in_base64(data)}
    return spellings | ({decoded} if len(decoded.strip()) >= SHORTEST_ENCODED else set()) - {secret}


def _in_base64(data: bytes) -> Iterator[str]:
    for part in _within(base64.b64encode, 3, 6, data):
        yield from {part, part.replace("+", "-").replace("/", "_")}


def _within(encode: Callable[[bytes], bytes], group: int, bits: int, data: bytes) -> Iterator[str]:
    """Yield the spellings of data within longer data: one for each offset in a group of bytes.

    :param group: how many bytes are encoded together.
    :param bits: how many a character holds; those at both ends depend on the neighbouring bytes.
    """
    for before in range(group):
        encoded = encode(b"\0" * before + data).decode("ascii")
        yield encoded[-(-before * 8 // bits) : (before + len(data)) * 8 // bits]


def _in_numerals(secret: str) -> Iterator[str]:
    r"""Yield the spellings of a secret in which letters and digits alone tell, in any case and with anything between.

    The numbers of its bytes in hexadecimal, octal (``od``, C) and decimal (lists of bytes in JSON and Go), those of its
    characters (``%u0073``, ``\u{73}``, ``U+0073``), Base32, and Base64 and hexadecimal within each other.
    """
    data = secret.encode()
    if len(data) < SHORTEST_ENCODED:
        return
    for form in ("02x", "#04x", "03o", "o", "#o", "d"):
        yield "".join(format(byte, form) for byte in data).removeprefix("0x").removeprefix("0o")
    for form in ("u{:04x}", "u{:x}", "u{:08x}", "x{:x}"):
        yield "".join(form.format(ord(character)) for character in secret)
    yield from _within(base64.b32encode, 5, 5, data)
    for inner in _in_base64(data):
        yield from _in_base64(inner.encode())
        yield inner.encode().hex()
    for inner in (data.hex(), data.hex().upper()):
        yield from _in_base64(inner.encode())


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
