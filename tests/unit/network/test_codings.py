"""Bodies are unpacked by their bytes: in layers and members, whatever their checksums say, and within bounds."""

from __future__ import annotations

import gzip
import io
import time
import zlib

import pytest

from airflow_provider_vidu.network.codings import CODINGS, BodyError, BodyUnpacker
from tests.rows import each_row

TEXT = b'{"id": "a", "status": "processing", "prompt": "a cat with wings"}'
LIMIT = 1 << 20


def unpacked(body: bytes, encoding: str = "", piece: int = 1 << 16, limit: int = LIMIT) -> bytes:
    """Return what a body that comes in pieces holds."""
    unpacker, found = BodyUnpacker(encoding, limit), b""
    for at in range(0, len(body), piece):
        found += b"".join(unpacker.feed(body[at : at + piece]))
    return found + b"".join(unpacker.end())


def with_all_fields(body: bytes) -> bytes:
    """Return gzip whose header has every optional field."""
    raw = zlib.compress(body, wbits=-15)
    return b"\x1f\x8b\x08\x1f" + b"\0" * 6 + b"\x03\0abc" + b"name\0" + b"comment\0" + b"hc" + raw + b"\0" * 8


def flushed(body: bytes) -> bytes:
    """Return gzip that was flushed and never ended, as a server that streams does."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(body) + packer.flush(zlib.Z_SYNC_FLUSH)


PACKED = {
    "gzip": (gzip.compress(TEXT), "gzip"),
    "two members": (gzip.compress(TEXT[:20]) + gzip.compress(TEXT[20:]), "gzip"),
    "an empty member between": (gzip.compress(TEXT[:20]) + gzip.compress(b"") + gzip.compress(TEXT[20:]), "gzip"),
    "twice": (gzip.compress(gzip.compress(TEXT)), "gzip, gzip"),
    "twice, said once": (gzip.compress(gzip.compress(TEXT)), "gzip"),
    "three times": (gzip.compress(gzip.compress(gzip.compress(TEXT))), "gzip, gzip, gzip"),
    "two members of two members": (gzip.compress(gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:])), "gzip, gzip"),
    "a wrong checksum": (gzip.compress(TEXT)[:-8] + b"01234567", "gzip"),
    "no trailer": (gzip.compress(TEXT)[:-8], "gzip"),
    "half a trailer": (gzip.compress(TEXT)[:-5], ""),
    "never ended": (flushed(TEXT), "gzip"),
    "zeros behind": (gzip.compress(TEXT) + b"\0" * 512, "gzip"),
    "junk behind": (gzip.compress(TEXT) + b"\x1fjunk", "gzip"),
    "every field": (with_all_fields(TEXT), "gzip"),
    "zlib": (zlib.compress(TEXT), "deflate"),
    "zlib, not said": (zlib.compress(TEXT), ""),
    "zlib, called gzip": (zlib.compress(TEXT), "gzip"),
    "zlib of another window, called gzip": (zlib.compress(TEXT, wbits=9), "gzip"),
    "zlib of another window, called x-gzip": (zlib.compress(TEXT, wbits=9), "x-gzip"),
    "a wrong checksum of zlib": (zlib.compress(TEXT)[:-4] + b"0123", "deflate"),
    "raw deflate": (zlib.compress(TEXT, wbits=-15), "deflate"),
    "raw deflate in gzip": (gzip.compress(zlib.compress(TEXT, wbits=-15)), "deflate, gzip"),
    "gzip in zlib": (zlib.compress(gzip.compress(TEXT)), "gzip, deflate"),
    "plain, called gzip": (TEXT, "gzip, gzip"),
    "an event, called gzip": (b"data: " + TEXT, "gzip"),
    "an event, called x-gzip": (b"data: " + TEXT, "x-gzip"),
    "UTF-16, called gzip": (b"\xff\xfe" + TEXT.decode().encode("utf-16-le"), "gzip"),
    **{f"an event, called {name}": (b"event: created\ndata: " + TEXT, name) for name in sorted(CODINGS)},
    **{f"UTF-16, called {name}": (b"\xff\xfe" + TEXT.decode().encode("utf-16-le"), name) for name in sorted(CODINGS)},
    **{f"an event as short as an id, called {name}": (b"9112345678", name) for name in sorted(CODINGS)},
}


@each_row("piece", [1, 2, 11, 1 << 16])
@each_row("kind", PACKED)
def test_every_way_to_pack(kind: str, piece: int) -> None:
    """The text comes out whole, in whatever pieces it comes."""
    body, encoding = PACKED[kind]
    assert unpacked(body, encoding, piece) == (body if kind.startswith(("an event", "UTF-16")) else TEXT)


def test_raw_deflate_that_looks_like_zlib() -> None:
    """Every fiftieth stream without a header begins as if it had one."""
    # A stored block: of its first byte, three bits count; its length, 0x1D, makes a multiple of 31 of both bytes.
    packed = bytes([0x08, 0x1D, 0x00, 0xE2, 0xFF]) + b"x" * 0x1D + b"\x01\0\0\xff\xff"
    assert unpacked(packed, "deflate") == b"x" * 0x1D


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"\x8f\xffjunk", "gzip"),
        (b"\x8f\xffjunk", "x-gzip"),
        (b"\x8f\xffjunk", "deflate"),
        (b"\x1f\x8b\x08\x08" + b"x" * 100_000, "gzip"),
    ],
)
def test_what_is_broken_is_named(body: bytes, encoding: str) -> None:
    """Neither text nor what the header says; a header without an end is not collected for ever."""
    with pytest.raises(BodyError, match="not valid"):
        unpacked(body, encoding, piece=4096)


@each_row("encoding", ["compress", "x-compress", "br", "zstd", "dcb", "dcz"])
def test_what_cannot_be_unpacked_is_named(encoding: str) -> None:
    """A real coding that is not supported is an error with its name, not a body that cannot be read."""
    with pytest.raises(BodyError, match=f"encoded as '{encoding}'"):
        unpacked(b"\x8f\xffjunk", encoding)


def test_what_comes_before_the_damage_is_kept() -> None:
    """An id that was unpacked before the stream broke is not lost, however short the whole is."""
    found: list[bytes] = []
    with pytest.raises(BodyError, match="not valid gzip"):
        found.extend(BodyUnpacker("gzip", LIMIT).feed(flushed(TEXT) + b"\x07\xff\xff"))
    assert b"".join(found) == TEXT


def bomb(layers: int) -> bytes:
    """Return sixteen megabytes of zeros, packed so often."""
    body = bytes(16 << 20)
    for _ in range(layers):
        body = gzip.compress(body)
    return body


@pytest.mark.fault(
    "attacks",
    "a compressed answer is packed several times, or in a million members",
    outcome="clear error",
    side="API",
    seen="The answer is larger than 1048576 bytes",
)
@pytest.mark.parametrize("body", [bomb(1), bomb(2), bomb(3), gzip.compress(b"") * 200_000], ids=range(4))
def test_bombs(body: bytes) -> None:
    """Each layer is bounded, and so is the number of members."""
    began = time.thread_time()
    with pytest.raises(BodyError):
        unpacked(body, "gzip")
    assert time.thread_time() - began < 2


def test_no_more_layers_than_three() -> None:
    """What is left then is still packed: nothing honest is."""
    body = TEXT
    for _ in range(4):
        body = gzip.compress(body)
    assert unpacked(body, "gzip").startswith(b"\x1f\x8b")


def test_members_of_a_large_list() -> None:
    """A gateway that packs each piece by itself."""
    whole = b"".join(gzip.compress(b"%06d" % number) for number in range(900))
    assert len(unpacked(whole, "gzip")) == 5400
    assert gzip.GzipFile(fileobj=io.BytesIO(whole)).read() == unpacked(whole, "gzip")
