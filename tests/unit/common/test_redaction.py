"""Known secrets are taken out of foreign text, however they are spelled there."""

from __future__ import annotations

import base64
import html
import json
import re
import textwrap
import time
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.dialects import EntV2
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.common import redaction
from airflow_provider_vidu.common.parsing import parse
from airflow_provider_vidu.common.redaction import Redactor, Secret, is_secret_header
from airflow_provider_vidu.tasks.callbacks.tokens import new_address
from tests.rows import each_row

KEY = 'sk-GEHEIM/+"&<0123>=é'
PLAIN = "sk-GEHEIM-0123456789"
BREAKS = ("<wbr>", "<WBR>", "<wbr/>", "<wbr />")


def spelled(key: str) -> list[str]:
    """Return a key in the spellings of URLs, pages, JSON and dumps of headers."""
    data = key.encode()
    return [
        key,
        quote(key, safe=""),
        re.sub("%..", lambda found: found.group().lower(), quote(key, safe="")),
        "".join(f"%{byte:02x}" for byte in data),
        quote(quote(key, safe=""), safe=""),
        html.escape(key),
        "".join(f"&#{ord(char)};" for char in key),
        "".join(f"&#x{ord(char):X};" for char in key),
        html.escape(quote(key, safe="")),
        json.dumps(key)[1:-1],
        *(base64.b64encode(before.encode() + data + b"; more").decode() for before in ("", "B", "Be", "Bearer ", "u:")),
        base64.urlsafe_b64encode(b"Token " + data).decode(),
        data.hex(),
        (b"Bearer " + data).hex().upper(),
        f"{key[:5]}\r\n  {key[5:]}",
        f"{key[:5]}\\n{key[5:]}",
        quote(f"{key[:5]}\n{key[5:]}"),
        key.replace("+", " "),
        *(
            "\n".join(textwrap.wrap(base64.b64encode(before.encode() + data).decode(), 16))
            for before in ("", "B", "Be")
        ),
        "\r\n\t".join(textwrap.wrap(data.hex(), 20)),
        data.hex(" "),
        data.hex(" ", 2).upper(),
        "".join(f"\\x{byte:02x}" for byte in key.encode("latin-1")),
        *(f"{key[:5]}{gap}{key[5:]}" for gap in ("\f", *BREAKS, "&#0;", "&#8203;", "&shy;", "&nbsp;", "\u2028")),
        *(sign.join(key) for sign in "\0\b\x1b\x7f\x9b\u034f\u115f\u3164\ufe0f\uffa0\ufffd\U000e0041"),
        *in_numerals(key),
        "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in key),
        "".join(chr(0x1D468 - ord("A") + ord(char)) if "A" <= char <= "Z" else char for char in key),
    ]


def in_numerals(key: str) -> list[str]:
    """Return a key in dumps of bytes and of characters, in Base32, and in one encoding within another."""
    data, b64 = key.encode(), base64.b64encode
    return [
        *("".join(f"\\{byte:{form}}" for byte in data) for form in ("03o", "o")),
        json.dumps("".join(f"\\{byte:03o}" for byte in data)),
        *(separator.join(f"{byte:03o}" for byte in data) for separator in (" ", "\\n")),
        json.dumps(list(data)),
        *(data.hex(separator) for separator in ":-.="),
        data.hex(":").upper().replace(":", "%3A"),
        ", ".join(f"0x{byte:02X}" for byte in data),
        data.hex("x").replace("x", " 0x"),
        "".join(char.upper() if place % 3 else char for place, char in enumerate(data.hex())),
        *("".join(f"{before}{ord(char):{form}}" for char in key) for before, form in (("%u", "04x"), ("\\U", "08x"))),
        *("".join(f"\\{before}{{{ord(char):x}}}" for char in key) for before in "ux"),
        " ".join(f"U+{ord(char):04X}" for char in key),
        *(base64.b32encode(b"u:user"[:before] + data + b"; more").decode() for before in range(5)),
        base64.b32encode(data).decode().lower(),
        *(
            gap.join(textwrap.wrap(form, 7))
            for form in (base64.b32encode(data).decode(), data.hex(), data.hex(" "))
            for gap in BREAKS
        ),
        *(
            b64(b"inner"[:before] + b64(b"outer"[:within] + data)).decode()
            for before in range(3)
            for within in range(3)
        ),
        base64.urlsafe_b64encode(b"Basic " + base64.urlsafe_b64encode(b"u:" + data)).decode(),
        b64(data.hex().encode()).decode(),
        b64(b"u:" + data).hex(" "),
    ]


@pytest.mark.fault(
    "secrets",
    "a gateway quotes the key in percent, HTML, JSON, Base64, Base32, or a dump of its bytes",
    outcome="survived",
    seen="*** in its place",
)
@each_row("key", [KEY, PLAIN], ids=["odd", "plain"])
@each_row("place", range(len(spelled(PLAIN))))
def test_every_spelling_is_found(key: str, place: int) -> None:
    """No spelling passes, and what stands around it stays readable."""
    spelling = spelled(key)[place]
    clean = Redactor([key]).redact(f"before {spelling} after")
    assert "***" in clean
    assert clean.startswith("before ")
    assert clean.endswith(" after")
    assert not [other for other in spelled(key) if other in clean]


@pytest.mark.parametrize(
    "text",
    ["https://cdn.example.com/a%2Fb?x=1&amp;y=%41&z=2", "100 % sure \\n & done", "a\\u0041b", "", "%zz &bogus; \\q"],
)
def test_text_without_a_secret_is_not_touched(text: str) -> None:
    """A signed URL stays byte for byte what it was."""
    assert Redactor([KEY, PLAIN]).redact(text) is text


def test_short_secrets() -> None:
    """What is shorter than asked for stays; short pieces of base64 prove nothing."""
    redactor = Redactor(["v1", PLAIN])
    assert redactor.redact(f"v1 {PLAIN}", shortest=8) == "v1 ***"
    assert redactor.redact(f"v1 {PLAIN}") == "*** ***"
    assert redactor.redact(base64.b64encode(b"v1").decode()) == base64.b64encode(b"v1").decode()


def test_the_longest_secret_goes_first() -> None:
    """A secret that begins like another one leaves no rest, and empty ones mean nothing."""
    assert Redactor([PLAIN, f"{PLAIN}-tail", ""]).redact(f"x {PLAIN}-tail y") == "x *** y"
    assert PLAIN not in repr(Redactor([PLAIN]))


@pytest.mark.fault(
    "attacks", "an answer of megabytes of percent signs, entities or escapes", outcome="survived", seen="bounded time"
)
@pytest.mark.parametrize("piece", ["%", "&", "&a", "&#65;", "\\u0041", "\\/", "%25", "%41", "&amp;"])
def test_a_text_of_escapes_is_searched_in_bounded_time(piece: str) -> None:
    """A megabyte takes tenths of a second at the most, and a key at its end is found."""
    text = piece * (1_000_000 // len(piece))
    began = time.process_time()
    clean = Redactor([KEY, PLAIN]).redact(f"{text} {quote(PLAIN, safe='').replace('-', '%2D')}")
    assert time.process_time() - began < 0.5
    assert clean.endswith("***")


def test_a_text_of_gaps_is_searched_in_bounded_time() -> None:
    """A file server knows a secret: the query of its own URL. From each ``n``, the search would read all gaps again."""
    secret = "next=0123456789abcdef"
    began = time.monotonic()
    text = Redactor([secret, "next=fedcba9876543210"]).redact("\\n" * 200_000 + f"{secret[:9]} \n{secret[9:]}&b")
    assert time.monotonic() - began < 5
    assert text.endswith("\\n***&b")


def test_a_key_that_is_wrapped_twice_is_masked_twice() -> None:
    """One copy as it is, and one that only a decoder shows: where the first was masked, the second stayed."""
    wrapped = f"{PLAIN[:5]}\n{PLAIN[5:]}"
    escaped = "".join(f"%{byte:02x}" for byte in wrapped.encode())
    assert Redactor([PLAIN]).redact(f"a {wrapped} b {escaped} c") == "a *** b *** c"


def test_a_buffer_of_bytes_in_an_answer_is_masked() -> None:
    """JavaScript writes the header that it was sent as numbers, which are not text within parsed JSON."""
    header = [*b"Bearer ", *KEY.encode()]
    body = {"id": "1", "authorization": {"type": "Buffer", "data": header}, "sizes": [1, 2, 256], "flags": [True]}
    parsed = parse(json.dumps(body).encode(), Redactor([KEY]).redact)
    assert parsed["authorization"] == {"type": "Buffer", "data": ["66 101 97 114 101 114 32 ***"]}
    assert (parsed["sizes"], parsed["flags"]) == ([1, 2, 256], [True])
    digits = "1234567890" * 3
    assert parse(f'{{"key": {digits}}}'.encode(), Redactor([digits]).redact) == {"key": "***"}


def test_dumps_are_searched_in_bounded_time() -> None:
    """Four megabytes of separators, of letters in odd shapes, or of the beginnings of a dump of the key."""
    redactor = Redactor([KEY, PLAIN])
    begun = PLAIN.encode().hex(":")[:-2]
    for text in (". " * 2_000_000, "\uff41b" * 1_000_000, begun * (4_000_000 // len(begun)), "0x" * 2_000_000):
        began = time.process_time()
        assert redactor.redact(f"{text} {PLAIN.encode().hex(':')}.").endswith("***.")
        assert time.process_time() - began < 3


@pytest.mark.parametrize("key", ['00\\"0000', "00%410000", "00&amp;0000", "00\\u00410000", 'a%41"b&lt;c0000'])
def test_a_key_that_looks_encoded_is_found(key: str) -> None:
    """A key whose characters mean something to a decoder is found as it is, and in every encoding."""
    for spelling in (key, quote(key, safe=""), html.escape(key), json.dumps(key)[1:-1], quote(html.escape(key))):
        assert Redactor([key]).redact(f"a {spelling} b") == "a *** b"


def test_four_megabytes_of_an_ordinary_answer_are_searched_in_bounded_time() -> None:
    """The largest answer that is read, indented and with escapes, does not hold a poll up."""
    row = json.dumps({"id": "94700", "url": "https:\\/\\/h/a%2Fb?x=1&amp;y=2", "prompt": "a cat\n+ é"}, indent=2)
    text = row * (4_000_000 // len(row))
    began = time.process_time()
    assert Redactor([KEY, PLAIN, f"{PLAIN}-proxy"]).redact(text) is text
    assert time.process_time() - began < 3


@given(st.text(min_size=8, max_size=40), st.text(max_size=20))
def test_any_key_in_any_place(key: str, before: str) -> None:
    """Percent-encoding and base64 hide no key, whatever it consists of and whatever stands before it."""
    try:
        data = key.encode()
        start = before.encode()
    except UnicodeEncodeError:
        return
    redactor = Redactor([key])
    for told in (quote(start + data, safe=""), base64.b64encode(start + data).decode()):
        assert redactor.redact(told) != told


@each_row(
    ("name", "value", "secret"),
    [
        ("X-Api-Token", "1", True), ("Cookie", "a", True), ("X-Session-Id", "a", True), ("X-Team", "media", False),
        ("X-Gateway", "8f3ab27cd0914e6f8f3ab27c", True), ("X-Gateway", "abc.DEF-ghi_jkl0mnopq=", True),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)", False), ("X-Source", "airflow-production-cluster", False),
        ("X-Zeros", "0" * 40, False),
    ],
)  # fmt: skip
def test_secret_headers(name: str, value: str, secret: bool) -> None:
    """A header is secret by its name, or because its value looks like a token."""
    assert is_secret_header(name, value) is secret


@pytest.mark.parametrize("spell", [str, lambda url: quote(url, safe=""), lambda url: url.replace("/", "\\/")])
def test_the_token_of_a_callback_is_masked(spell):
    """A gateway that echoes the request, or quotes it in an error, shows no reader of the DAG the token."""
    address = new_address("https://airflow.example.com/team", uuid4())
    text = f"callback_url {spell(address.url)} cannot be reached"
    told = Redactor([]).redact(text)
    assert address.token not in told
    assert address.token[:20] not in told
    assert "cannot be reached" in told


def test_the_token_does_not_reach_the_return_value():
    """The whole answer is part of a generation, and becomes an XCom."""
    address = new_address("https://airflow.example.com", uuid4())
    config = ViduConfig(
        conn_id="v", base_url="https://api.vidu.com", api_key=Secret(KEY), dialect=EntV2(), auth_scheme="Token"
    )
    body = json.dumps({"id": "1", "state": "success", "callback_url": address.url, "meta": [{"x": address.url}]})
    parsed = parse(body.encode(), config.redact)
    assert parsed["callback_url"].endswith("/vidu/callbacks/***")
    assert address.token not in json.dumps(parsed)


@pytest.mark.fault(
    "attacks",
    "a page of the list is 16 MiB of escapes, or of their beginnings",
    outcome="survived",
    seen="the event loop runs between the pieces that are searched in its threads",
)
def test_no_search_takes_all_of_a_long_text(monkeypatch) -> None:
    """Within one search, no other thread runs: the event loop stood still for half a second."""
    runs_of = (redaction._PERCENT, "%41"), (redaction._ESCAPES, r"\u0041"), (redaction._ESCAPES, r"\/")
    runs_of += (redaction._ESCAPES, r"\\"), (redaction._ESCAPES, r"\"")
    gaps = (redaction._GAP, " "), (redaction._GAP, "<wbr>"), (redaction._BETWEEN_NUMERALS, "<")
    for pattern, escape in (*runs_of, *gaps, (redaction._STYLED, "\u2100")):
        runs = [len(found.group()) for found in pattern.finditer(escape * 300_000)]
        assert max(runs) <= 65_536 * len(escape)
        assert len(runs) < 10  # each match costs as much as a hundred characters of one
    searched = []

    class Counted:
        def __init__(self, pattern: re.Pattern[str]) -> None:
            self.pattern = pattern

        def sub(self, repl, text):
            searched.append(len(text))
            return self.pattern.sub(repl, text)

    for name in ("_ENTITY", "_INVISIBLE_GAPS"):
        monkeypatch.setattr(redaction, name, Counted(getattr(redaction, name)))
    redactor = Redactor([KEY])
    for text in ("&" * 3_000_000, "a\x7f" * 1_500_000):
        searched.clear()
        assert redactor.redact(text) == text
        assert sum(searched) >= len(text)
        assert max(searched) <= 256 * 1024


@pytest.mark.parametrize("spelling", [KEY, KEY.encode().hex()])
def test_a_key_is_found_around_a_gap_of_several_pieces(spelling) -> None:
    """A gap is read in pieces, and is one nevertheless."""
    text = f"a {spelling[:9]}{' ' * 200_000}{spelling[9:]} b"
    assert Redactor([KEY]).redact(text) == "a *** b"


@each_row("before", range(0, 50, 7))
def test_an_entity_is_found_where_a_long_text_is_cut(before) -> None:
    """The pieces end before an entity, never within one."""
    text = "x" * (256 * 1024 - before)
    assert Redactor([KEY]).redact(f"{text}&#x00000073;{KEY[1:]} &amp;") == f"{text}*** &"
