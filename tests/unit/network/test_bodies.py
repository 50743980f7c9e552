"""Bodies are unpacked by their bytes, lose their inline media while they arrive, and stay within their bounds."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.network.bodies import (
    CREATE,
    LIST,
    LONG_RUN,
    MIB,
    SINGLE,
    BodyError,
    Bounds,
    IncomingBody,
    has_long_run,
    is_kept_whole,
    real_codings,
)
from tests.properties import properties
from tests.rows import each_row

quiet = properties(60)


def fed(body: bytes, encoding: str = "", bounds: Bounds = SINGLE, piece: int = 64 * 1024) -> bytes:
    """Return the content of a body that arrives in pieces."""
    incoming = IncomingBody(encoding, bounds)
    for at in range(0, len(body), piece):
        incoming.feed(body[at : at + piece])
    return incoming.end()


@each_row(
    ("header", "codings"),
    [
        ("", []), ("identity", []), ("utf-8", []), ("aws-chunked", []), ("binary", []), ("none", []), ("gzips", []),
        ("GZIP", ["gzip"]), (" x-gzip ,utf-8", ["x-gzip"]), ("br, gzip", ["br", "gzip"]), ("zstd", ["zstd"]),
        ("deflate,compress, X-Compress,dcb,dcz", ["deflate", "compress", "x-compress", "dcb", "dcz"]),
    ],
)  # fmt: skip
def test_real_codings(header, codings):
    """Only registered codings count."""
    assert real_codings(header) == codings


TEXT = b'{"id": "a", "status": "processing"}'
PACKED = {
    "plain": TEXT,
    "gzip": gzip.compress(TEXT),
    "zlib": zlib.compress(TEXT),
    "raw deflate": zlib.compress(TEXT, wbits=-15),
    "one letter": b"1",
    "empty": b"",
}


@each_row("piece", [1, 2, 7, 1000])
@each_row("kind", PACKED)
def test_the_bytes_decide(kind, piece):
    """However small the pieces are, and whatever the header says where the bytes say it better."""
    expected = {"one letter": b"1", "empty": b""}.get(kind, TEXT)
    headers = {"plain": ("", "gzip", "deflate", "br", "utf-8"), "gzip": ("", "gzip", "deflate", "br", "utf-8")}
    for header in headers.get(kind, ("deflate",) if "e" in kind and expected == TEXT else ("", "deflate")):
        assert fed(PACKED[kind], header if kind != "zlib" else "deflate", piece=piece) == expected


@quiet
@given(
    st.binary(max_size=200),
    st.sampled_from(["", "gzip", "deflate", "br", "gzip, br"]),
    st.sampled_from([0, LONG_RUN - 201, LONG_RUN]),
)
def test_what_is_kept_whole(tail, header, run):
    """The short way says the same as the long one, whatever the header says."""
    body = b"{" + b"A" * run + tail
    assert is_kept_whole(body) is (len(body) < LONG_RUN)
    assert not is_kept_whole(body) or fed(body, header) == body


@pytest.mark.parametrize("header", ["gzip", "deflate", "br", "gzip, gzip"])
def test_what_cannot_be_unpacked_is_named(header):
    """Neither text nor what the header says."""
    with pytest.raises(BodyError, match=r"not valid|encoded as 'br'"):
        fed(b"\x8f\xff\xff junk", header)


def test_trailing_bytes_behind_gzip_are_dropped():
    """The stream says where it ends."""
    assert fed(gzip.compress(TEXT) + b"junk") == TEXT


RUN = b"iVBORw0KGgo/" * 5000


@each_row("header", ["br", "gzip", "deflate", "gzip, br"])
@each_row("before", [b"\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n \t", b" " * 1000, b"\n" * 3000])
def test_text_behind_blanks_is_text(before, header):
    """Whatever the header says, and wherever a piece ends: the async client takes two bytes first."""
    for piece in (1, 2, 3, 64 * 1024):
        assert fed(before + TEXT, header, piece=piece) == before + TEXT
    assert fed(before[:2], header) == before[:2]


@each_row("piece", [999, 64 * 1024, 10**6])
@each_row(
    ("media", "left"),
    [
        pytest.param(RUN, b"(60000 characters cut out)", id="one"),
        pytest.param(RUN.replace(b"/", b"\\/"), b"(65000 characters cut out)", id="slashes as PHP writes them"),
        pytest.param(RUN.replace(b"/", b"\\\\\\/"), b"(75000 characters cut out)", id="twice"),
        pytest.param(RUN.replace(b"/", b"\\u002B"), b"(85000 characters cut out)", id="plus as .NET writes it"),
        pytest.param(RUN.replace(b"/", b"\\n"), b"(65000 characters cut out)", id="lines"),
        pytest.param(RUN.replace(b"/", b"\\r\\n"), b"(75000 characters cut out)", id="lines as MIME has them"),
        pytest.param(RUN.replace(b"/", b"\\\\n"), b"(70000 characters cut out)", id="lines in JSON in JSON"),
    ],
)
def test_long_media_is_cut_out_while_it_arrives(media, left, piece):
    """Nothing else of the text changes, wherever the pieces begin and end."""
    whole = fed(b'{"a":"data:image/png;base64,' + media + b'","b":"x"}', piece=piece)
    assert whole == b'{"a":"data:image/png;base64,' + left + b'","b":"x"}'


@each_row("escaped", [b"\\/", b"\\\\\\/", b"\\u002B", b"\\\\u002f", b"\\n", b"\\r\\n"])
def test_no_piece_ends_a_run_within_an_escape(escaped):
    """What is left of an escape would make the JSON unreadable: half of it stays, half is cut out."""
    head = b'{"images":["'
    body = head + (b"A" * 8 + escaped) * 3000 + b'"],"id":"1"}'
    for end in range(len(head) + LONG_RUN - 9, len(head) + LONG_RUN + 20):
        incoming = IncomingBody("", SINGLE)
        incoming.feed(body[:end])
        incoming.feed(body[end:])
        left = b"(%d characters cut out)" % (3000 * (8 + len(escaped)))
        assert incoming.end() == head + left + b'"],"id":"1"}'


@each_row(
    "text",
    [
        b"x" * (LONG_RUN - 1),
        b"\\u4e2d\\u6587" * 10_000,
        "中文".encode() * 10_000,
        b"no media, " * 10_000,
        b"https://h/v.mp4?sign=a%2Fb&x=" + b"a" * (LONG_RUN - 3),
        b"\\" * 100_001,
        (b"A" * (LONG_RUN - 1) + b" ") * 5,
    ],
    ids=range(7),
)
@each_row("piece", [1013, 64 * 1024])
def test_what_is_no_media_stays(text, piece):
    """Prompts in any language, escaped or not, and URLs."""
    assert fed(text, piece=piece) == text


@quiet
@given(st.lists(st.binary(max_size=40) | st.just(b"A" * 20_000) | st.just(b"\\/"), max_size=8), st.integers(1, 70_000))
def test_pieces_change_nothing_but_media(parts, piece):
    """Whatever arrives in whatever pieces: without long runs, it is what was sent."""
    body = b"{" + b"".join(parts)
    found = fed(body, piece=piece)
    assert len(found) <= len(body)
    assert found == body or b"cut out)" in found or has_long_run(body, LONG_RUN)


def test_the_bounds():
    """More than is read is an error; of a create more is read, and of a compressed body less is kept."""
    text = b"no media, " * (MIB // 2)
    for bounds, body, encoding in (
        (SINGLE, text, ""),
        (SINGLE, gzip.compress(b"no media, " * 30_000), "gzip"),
        (LIST, text * 4, ""),
        (CREATE, text * 4, ""),
    ):
        with pytest.raises(BodyError) as caught:
            fed(body, encoding, bounds)
        assert caught.value.is_too_large
    assert fed(text[: MIB // 2]) == text[: MIB // 2]
    assert len(fed(gzip.compress(text), "", CREATE)) == len(text)


def test_media_beyond_any_bound_takes_no_memory():
    """Sixty megabytes of pictures are read in less than one."""
    piece = b"iVBORw0KGgo+" * 5000
    incoming = IncomingBody("", CREATE)
    tracemalloc.start()
    incoming.feed(b'{"task_id":"a","images":["')
    for _ in range(1000):
        incoming.feed(piece)
    incoming.feed(b'"]}')
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert incoming.end() == b'{"task_id":"a","images":["(60000000 characters cut out)"]}'
    assert most < MIB


def test_what_has_come_is_there_after_an_error():
    """The beginning of a body that breaks is not lost."""
    body = gzip.compress(TEXT * 3000 + random.Random(1).randbytes(300_000))
    incoming = IncomingBody("", CREATE)
    incoming.feed(body[:100_000])
    with pytest.raises(BodyError, match="not valid gzip"):
        incoming.feed(b"\xff" * 100_000)
    assert incoming.content.startswith(TEXT)
