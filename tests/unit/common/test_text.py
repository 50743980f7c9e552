"""Foreign text is shown as one bounded, redacted line."""

from __future__ import annotations

import html
import json
import time
import tracemalloc
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.common.redaction import mask_pieces, pieces_of
from airflow_provider_vidu.common.text import (
    SNIPPET_CHARS,
    redact_urls,
    redacted,
    sanitized,
    signatures,
    without_query,
    without_signatures,
)
from tests.properties import properties
from tests.rows import each_row

quiet = properties(60)


@each_row(
    ("value", "expected"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("  padded \t", "padded", id="stripped"),
        pytest.param("a\r\nb\x00c", "a b c", id="control characters become spaces"),
        pytest.param("a\x1b[31mred", "a [31mred", id="terminal escape"),
        pytest.param("a\x85b\u2028c\u2029d", "a b c d", id="unicode line breaks"),
        pytest.param("a\u202eb\u2066c\u200fd\u061ce", "a b c d e", id="bidirectional overrides"),
        pytest.param("a\ud800b", "a?b", id="lone surrogate"),
        pytest.param(None, "None", id="none"),
        pytest.param(7, "7", id="number"),
        pytest.param({"a": 1}, "{'a': 1}", id="mapping"),
        pytest.param("", "", id="empty"),
    ],
)
def test_one_line_cleans(value: object, expected: str) -> None:
    """Anything becomes one printable line."""
    assert sanitized(value) == expected


@pytest.mark.parametrize(("length", "cut"), [(199, False), (200, False), (201, True), (10_000_000, True)])
def test_one_line_marks_a_cut(length: int, cut: bool) -> None:
    """A longer text is cut to the limit, with an ellipsis."""
    told = sanitized("x" * length)
    assert len(told) == min(length, SNIPPET_CHARS)
    assert told.endswith("…") is cut


@quiet
@given(st.text(st.characters(), max_size=500), st.integers(2, 80))
def test_one_line_is_always_printable_and_bounded(text: str, limit: int) -> None:
    """No control character, no line break and no surrogate survives."""
    told = sanitized(text, limit)
    told.encode()
    assert len(told) <= limit
    assert len(told.splitlines()) <= 1
    assert not [char for char in told if unicodedata.category(char) in ("Cc", "Cs")]


@each_row(
    ("url", "expected"),
    [
        pytest.param("https://h/p?Signature=s", "https://h/p", id="query"),
        pytest.param("https://h/p#frag", "https://h/p", id="fragment"),
        pytest.param("https://user:pw@h:8443/p?x", "https://h:8443/p", id="user info"),
        pytest.param("https://u:p@q@h/p", "https://h/p", id="two at signs"),
        pytest.param("https://h", "https://h", id="no path"),
        pytest.param("https://[::1", "<unreadable URL>", id="unreadable"),
        pytest.param("/files/v.mp4?Signature=s", "/files/v.mp4", id="relative"),
        pytest.param("//h/p?x", "//h/p", id="no scheme"),
        pytest.param("h.example.com/p?x", "h.example.com/p", id="neither scheme nor slashes"),
        pytest.param("user:pw@h.example.com/a@b.mp4#x", "h.example.com/a@b.mp4", id="user info without a scheme"),
        pytest.param("http:/user:pw@h/p", "http:/h/p", id="user info behind one slash"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_without_query(url: str, expected: str) -> None:
    """Only scheme, host and path of a URL may be shown."""
    assert without_query(url) == expected


SIGNED = "https://cdn.example.com/v.mp4?Expires=1&Signature=GEHEIM&Key=1"


@each_row(
    "text",
    [
        pytest.param(f"fetch {SIGNED} failed", id="in a sentence"),
        pytest.param(SIGNED, id="alone"),
        pytest.param(f"({SIGNED})", id="in brackets"),
        pytest.param(f"'{SIGNED}'", id="in quotes"),
        pytest.param(f"<a href='{SIGNED}'>", id="in HTML"),
        pytest.param(SIGNED.upper(), id="upper case scheme"),
        pytest.param(SIGNED.replace("https", "http"), id="http"),
        pytest.param(f"{SIGNED} and {SIGNED}", id="two of them"),
        pytest.param("https://h/p?file=a;b~c&Signature=GEHEIM", id="semicolon and tilde"),
        pytest.param("https://h/p?d=attachment;filename*=UTF-8''v.mp4&Signature=GEHEIM", id="RFC 5987 file name"),
        pytest.param("https://GEHEIM:GEHEIM@h/p", id="user info"),
        pytest.param(f"下载失败{SIGNED}", id="behind Chinese text without a space"),
        pytest.param(f"url_{SIGNED}", id="behind an underscore"),
        pytest.param(json.dumps({"url": SIGNED}), id="JSON"),
        pytest.param(json.dumps({"url": SIGNED}).replace("&", "\\u0026"), id="JSON as Go writes it"),
        pytest.param(json.dumps({"url": SIGNED}).replace("/", "\\/"), id="JSON as PHP writes it"),
        pytest.param(str({"url": SIGNED}), id="repr of a dict"),
        pytest.param(str({"url": SIGNED.replace("&Key", "'&Signature=GEHEIM&Key")}), id="repr with an apostrophe"),
    ],
)
def test_signatures_are_never_shown(text: str) -> None:
    """The query of a signed URL is gone in whatever spelling a gateway quotes it."""
    assert "GEHEIM" not in redact_urls(text)
    assert "GEHEIM" not in redacted(text)


def test_redacting_leaves_the_rest_alone() -> None:
    """What is not a URL stays as it is, and so does the readable part of a URL."""
    assert redact_urls(f"a {SIGNED} b; see ftp://h/x?y") == "a https://cdn.example.com/v.mp4 b; see ftp://h/x?y"


def test_a_cut_url_is_redacted_all_the_same() -> None:
    """A URL that the limit cuts in half shows nothing of its query."""
    assert "GEHEIM" not in redacted("https://h/p?" + "a" * 100 + "GEHEIM" * 1000, 40)


def test_shown_is_one_line_and_bounded() -> None:
    """Redacting and cleaning go together."""
    assert redacted(f"a\n{SIGNED}\nb") == "a https://cdn.example.com/v.mp4 b"
    assert len(redacted("y" * 5000, 60)) == 60


SECRET = "vjbyPxybdZaNmGa+yT272YEAiv4="
QUOTED = "vjbyPxybdZaNmGa%2ByT272YEAiv4%3D"


@each_row(
    "value",
    [
        pytest.param(f"https://h/v?Expires=1790000000&Signature={QUOTED}", id="alone"),
        pytest.param(f"see https://h/v?Signature={QUOTED} there", id="in a text"),
        pytest.param({"a": [{"b": (f"https://h/v?X-Amz-Signature={QUOTED}&x=1",)}]}, id="nested"),
        pytest.param({f"https://h/v?sig={QUOTED}": 1}, id="as a key"),
        pytest.param(f'{{"u":"https:\\/\\/h\\/v?a=1\\u0026sign={QUOTED}"}}', id="JSON as PHP and Go write it"),
        pytest.param(rf"https://h/v?a=1\u0026sign={QUOTED}", id="alone, as Go writes it in JSON"),
        pytest.param(f'https://h/"quoted"?Signature={QUOTED}', id="with a quotation mark"),
    ],
)
def test_signatures_are_found_in_both_spellings(value: object) -> None:
    """What a masker must know: the value as it stands in the URL, and decoded."""
    assert {SECRET, QUOTED} <= signatures(value)


@pytest.mark.fault(
    "attacks",
    "dag_run.conf is nested ten thousand levels deep, and a template hands it on",
    outcome="survived",
    side="workers",
    seen="its signatures are masked",
)
def test_signatures_are_found_however_deep() -> None:
    """What a template renders to may be nested deeper than Python's stack, or in itself."""
    deep: list[object] = [f"https://h/v?sig={QUOTED}"]
    deep.append(deep)
    for _ in range(10_000):
        deep = [{"a": deep}]
    assert QUOTED in signatures(deep)


@pytest.mark.parametrize(
    "text", ["http://a/?" + "&" * 2_000_000, "http://a/?" + "".join(f"sig={number:x}&" for number in range(200_000))]
)
def test_the_search_for_signatures_takes_no_memory_for_each_parameter(text: str) -> None:
    """A conf of 10 MB of ampersands took a worker 640 MB: a tuple of three texts for each."""
    tracemalloc.start()
    try:
        assert len(signatures([text])) == ("sig" in text)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@each_row(
    "value",
    [
        "https://h/v?Expires=1790000000&Key-Pair-Id=SANDBOX&policy=true",
        "https://h/v?id=7&token=1",
        "https://h/v?token=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "https://h/v",
        "no URL: Signature=" + QUOTED,
        "data:image/png;base64,aHR0cHM6Ly9o?Signature=" + QUOTED,
        None,
        7,
        b"https://h/v?Signature=" + QUOTED.encode(),
    ],
)
def test_common_words_are_no_signatures(value: object) -> None:
    """Numbers, words and dates are left alone: masking one of them would make holes into everything."""
    assert not {part for part in signatures(value) if "?" not in part and "&" not in part and "=" not in part}


def test_an_id_in_a_query_is_no_signature() -> None:
    """An id beside the signature is only hidden together with the whole query."""
    found = signatures(f"https://h/v?task_id=48038932-0ff5-4251-8b4b-7a76c09fd114&sig={QUOTED}")
    assert not {part for part in found if part.startswith("48038932")}


LEAVES = st.none() | st.integers() | st.text(st.characters(), max_size=10) | st.just(f"x https://h/v?sig={QUOTED}!")


@quiet
@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))
def test_nothing_signed_is_left_at_any_depth(value: object) -> None:
    """Stripped JSON keeps its shape and holds no signature; stripping twice changes nothing."""
    bare = without_signatures(value)
    assert QUOTED not in json.dumps(bare)
    assert without_signatures(bare) == bare
    assert type(bare) is type(value)


class Counting(frozenset[str]):
    """A set that counts how often it is searched."""

    searched = 0

    def __contains__(self, piece: object) -> bool:
        Counting.searched += 1
        return super().__contains__(piece)


def test_masking_is_linear_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """One search for each character, however many secrets there are."""
    secrets = [f"{number:040x}" + "ghijklmnop" for number in range(1000)]
    text = "https://a?b ".join(["", *secrets, "", "x" * 100_000])
    Counting.searched = 0
    bare = mask_pieces(text, Counting(pieces_of(secrets)))
    assert Counting.searched <= len(text) + 2 * len(secrets)
    assert bare == "https://a?b ".join(["", *["***"] * 1000, "", "x" * 100_000])


@pytest.mark.parametrize("count", [3, 500])
def test_many_urls_lose_their_signatures_everywhere(count: int) -> None:
    """Few secrets or many: each is gone, in its URL and wherever else it is, and the rest is there."""
    parts = [f"{number:06d}QfZxR8sLmNpTvWyKbDgHjC" for number in range(count)]
    value = {"urls": [f"https://h/v{n}?Signature={part}" for n, part in enumerate(parts)], "told": " and ".join(parts)}
    bare = without_signatures(value)
    assert bare["urls"] == [f"https://h/v{n}" for n in range(count)]
    assert bare["told"] == " and ".join(["***"] * count)


def test_no_data_uri_is_shown() -> None:
    """A message quotes what stands around a picture, in whatever case its scheme is written."""
    told = redacted("bad image DATA:image/PNG;charset=x;BASE64,iVBORw0KGgo= in images")
    assert told == "bad image data:image/PNG;base64,… (12 characters cut out) in images"
    lines = "data:image/png;base64," + "\r\n".join(["A" * 76] * 10) + "\nis too large"
    assert redacted(lines) == "data:image/png;base64,… (778 characters cut out) is too large"


@pytest.mark.parametrize("text", ["https://", "//", "x:/\t/", "\x01https://user@"])
def test_a_host_of_combining_characters_is_not_normalized(text):
    """An XCom of that kind stopped the API server for a minute, at each of the addresses in it."""
    began = time.thread_time()
    assert "\u0316" not in without_query(text + "\u0316\u0300" * 50_000 + "/v?sig=x")
    assert time.thread_time() - began < 1


def test_long_addresses_and_foreign_hosts_are_shown():
    """Only a long host is unreadable."""
    for shown in (
        "https://" + "a" * 1_000 + "/v",
        "https://b\u00fccher.example/v",
        "https://x.example/" + "\u00fc" * 500,
    ):
        assert without_query(f"{shown}?sig=x") == shown


_SIGNATURE = "f3a9c0d7b1e24866a1c9e0b7d2f4a6c8"
_SIGNED = f"https://bucket.example/in/a.png?X-Amz-Expires=3600&X-Amz-Signature={_SIGNATURE}"


@pytest.mark.fault(
    "attacks",
    "a service quotes an input's signed URL without its host, or in percent, entities or escapes",
    outcome="survived",
    seen="no signature in what it is quoted in",
)
@each_row(
    "quoted",
    [
        _SIGNED.removeprefix("https://bucket.example"),
        _SIGNED.replace("https", "s3"),
        f"GET\n/in/a.png\nX-Amz-Expires=3600&X-Amz-Signature={_SIGNATURE}",
        quote(_SIGNED, safe=""),
        quote(quote(_SIGNED, safe=""), safe=""),
        html.escape(_SIGNED).replace("/", "&#x2F;").replace("=", "&#x3D;"),
        _SIGNED.replace("/", "&#47;"),
        _SIGNED.replace("/", "\\u002f").replace("?", "\\u003f").replace("&", "\\u0026").replace("=", "\\u003d"),
        _SIGNED.replace("/", "\\x2f").replace("=", "\\x3d"),
        _SIGNED.replace("?", " ?"),
        f"/in/a.mp4?OSSAccessKeyId=LTAI5tabcdefghijklmnop&Signature={_SIGNATURE}",
        f"/in/a.mp4?sv=2024&sig={_SIGNATURE}",
        f"\u7b7e\u540dSignature={_SIGNATURE}",
        f"/in/a.png map[X-Amz-Expires:[3600] X-Amz-Signature:[{_SIGNATURE}]]",
        f"/in/a.png {{'X-Amz-Expires': ['3600'], 'X-Amz-Signature': ['{_SIGNATURE}']}}",
        f'{{"path":"/in/a.png","query":{{"X-Amz-Signature":"{_SIGNATURE}"}}}}',
        f'{{\\"Signature\\": \\"{_SIGNATURE}\\"}}',
        f'/in/a.png "x_amz_signature" => "{_SIGNATURE}"',
    ],
)
def test_signatures_are_removed_where_no_url_shows_them(quoted: str) -> None:
    """A service that cannot fetch an input quotes its address in the way of its own."""
    shown = redacted(f"Failed to fetch {quoted} (403)", 1_000)
    assert (_SIGNATURE in shown, "Failed to fetch " in shown, shown.endswith("(403)")) == (False, True, True)


@each_row(
    "text",
    [
        *(
            "token=short",
            "design=0123456789abcdefghijklmn",
            "a policy: none",
            "assign=0123456789abcdefghijklmn",
            "sig = 1",
        ),
        *(
            "the signature: verification of it has failed in zone 1",
            "signature: SignatureDoesNotMatchError",
            "sig => 11",
        ),
    ],
)
def test_other_values_stay(text: str) -> None:
    """Only parameters that sign are masked, and only long values."""
    assert redacted(text) == text


def test_the_search_for_bare_signatures_is_linear() -> None:
    """A name that begins again and again is not read to its end each time."""
    began = time.thread_time()
    for text in ("26x-amz-", "26token%25252525", "26accesskeyi", "3fx-amz-signature", "sig:" + "a" * 60):
        redact_urls(text * (1_000_000 // len(text)))
    assert time.thread_time() - began < 5
