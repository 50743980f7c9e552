"""Unpacking what a server has compressed unasked."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest

from airflow_provider_vidu.downloads.unpacking import unpacker_of
from airflow_provider_vidu.exceptions import ViduDownloadError, ViduDownloadRefusedError
from tests.rows import each_row

MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + bytes(range(256)) * 10
RAW = zlib.compressobj(wbits=-15)
DEFLATED = RAW.compress(MP4) + RAW.flush()


@each_row(
    ("packed", "codings"),
    [
        (gzip.compress(MP4), ["gzip"]),
        (gzip.compress(MP4), ["x-gzip"]),
        (gzip.compress(MP4), []),
        (gzip.compress(MP4), ["br"]),
        (gzip.compress(MP4[:99]) + gzip.compress(MP4[99:]), ["gzip"]),
        (gzip.compress(MP4) + bytes(600), ["gzip"]),
        (gzip.compress(MP4) + b"\r\n", ["gzip"]),
        (zlib.compress(MP4), ["deflate"]),
        (DEFLATED, ["deflate"]),
    ],
    ids=["gzip", "x-gzip", "undeclared", "misdeclared", "two members", "padded", "a line end", "deflate", "bare"],
)
@each_row("step", [1, 7, 100_000])
def test_what_is_compressed_is_unpacked(packed, codings, step):
    """Whatever the header calls it, and however it is cut into pieces."""
    unpacker = unpacker_of(packed[:4096], codings)
    assert unpacker is not None
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
    assert b"".join(bytes(found) for piece in pieces for found in unpacker.unpack(piece)) == MP4
    assert unpacker.is_at_end


@pytest.mark.parametrize("codings", [[], ["gzip"], ["deflate"], ["br"], ["gzip", "br"]])
def test_a_medium_is_taken_as_it_is(codings):
    """Bytes that prove a medium are not compressed, whatever the header says."""
    assert unpacker_of(MP4[:4096], codings) is None


def test_an_end_that_is_missing_shows():
    """Only the end of the compressed file is the end of the file."""
    packed = gzip.compress(MP4)
    unpacker = unpacker_of(packed[:4096], [])
    list(unpacker.unpack(packed[:-1]))
    assert not unpacker.is_at_end


def test_empty_members_take_time_in_proportion():
    """Twenty bytes of an empty member do not cost a copy of all that follow it in the buffer."""
    packed = gzip.compress(b"", mtime=0) * 100_000
    unpacker = unpacker_of(packed[:4096], [])
    began = time.thread_time()
    assert not list(unpacker.unpack(packed))
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("packed", [b"\x1f\x8b\x08" + b"\xff" * 100, gzip.compress(MP4)[:-8] + bytes(8)])
def test_what_is_broken_may_be_fetched_again(packed):
    """A retry of the task can meet bytes that are not broken."""
    with pytest.raises(ViduDownloadError, match="corrupt") as caught:
        list(unpacker_of(packed[:4096], ["gzip"]).unpack(packed))
    assert caught.value.retryable


def test_a_bomb_is_refused_before_it_goes_off():
    """No more is unpacked than a medium may unpack to, and in pieces of bounded size."""
    packed = gzip.compress(bytes(64_000_000))
    pieces: list[int] = []
    with pytest.raises(ViduDownloadRefusedError, match="No medium compresses"):
        pieces.extend(map(len, unpacker_of(packed[:4096], []).unpack(packed)))
    assert max(pieces) <= 1024**2
    assert sum(pieces) <= 17 * 1024**2
