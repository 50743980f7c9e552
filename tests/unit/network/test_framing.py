"""Heads and framing: what curl reads is read, whatever pieces it comes in, and nothing is read without end."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.clients.canonical import canonically, chunk
from airflow_provider_vidu.network.framing import (
    MOST_HEAD_BYTES,
    MOST_INTERIM,
    AnswerReader,
    FramingError,
    Head,
)
from tests.rows import each_row

BODY = b'{"id": "g"}'
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"4\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (BODY[:4], len(BODY) - 4, BODY[4:])


def read(raw: bytes, piece: int = 1 << 20, *, to_end: bool = False) -> tuple[AnswerReader, bytes]:
    """Return a reader that was fed with an answer, and the body."""
    reader, body = AnswerReader(), b""
    for at in range(0, len(raw), piece):
        body += reader.feed(raw[at : at + piece])
    if to_end:
        reader.end()
    return reader, body


WHOLE = {
    "a length": OK + LENGTH + b"\r\n" + BODY,
    "chunks": OK + CHUNKED + b"\r\n" + CHUNKS,
    "chunks without carriage returns": OK + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r\n", b"\n"),
    "chunk extensions": OK + CHUNKED + b"\r\n" + CHUNKS.replace(b"4\r\n", b'4 ;a="b"\r\n'),
    "trailers": OK + CHUNKED + b"\r\n" + CHUNKS[:-2] + b"X: y\r\nno colon\r\n\r\n",
    "lines without carriage returns": (OK + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "interim answers": b"HTTP/1.1 103 E\r\nLink: </a>\r\n\r\nHTTP/1.1 100\r\n\r\n" + OK + LENGTH + b"\r\n" + BODY,
    "an empty line before": b"\r\n" + OK + LENGTH + b"\r\n" + BODY,
    "a length twice": OK + LENGTH * 2 + b"\r\n" + BODY,
    "a length in a list": OK + b"Content-Length: 11, 11\r\n\r\n" + BODY,
    "a length before its colon": OK + b"Content-Length : 11\r\n\r\n" + BODY,
    "a folded line": OK + b"X: a\r\n\tContent-Length: 1\r\n" + LENGTH + b"\r\n" + BODY,
    "odd lines": OK + b"nonsense\r\n: 1\r\nX Y(z): 1\r\n\xff: 1\r\nX: a\0\x07\rb\r\n" + LENGTH + b"\r\n" + BODY,
    "two hundred lines": OK + b"X-A: 1\r\n" * 200 + LENGTH + b"\r\n" + BODY,
    "a long line": OK + b"X-A: " + b"a" * 100_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "identity": OK + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
}


@each_row("piece", [1, 7, 1 << 20])
@each_row("kind", WHOLE)
def test_an_answer_in_any_form_and_in_any_pieces(kind: str, piece: int) -> None:
    """The body is found, and so is its end."""
    reader, body = read(WHOLE[kind], piece)
    assert (body, reader.ended, reader.is_spoiled) == (BODY, True, False)
    assert reader.head is not None
    assert reader.head.status == 200


@each_row(
    ("head", "body"),
    [
        (b"", BODY), (b"Content-Length: many\r\n", BODY), (b"Content-Length: -1\r\n", BODY), (CHUNKED, BODY),
        (b"Content-Length: 3\r\nContent-Length: 11\r\n", BODY), (CHUNKED + LENGTH, BODY), (CHUNKED, b"\n" + BODY),
        (CHUNKED, b"\x1f\x8bpacked"), (b"Transfer-Encoding: gzip\r\n", b"\x1f\x8bpacked"),
        (b"Content-Length: 99999999999999999999\r\n", BODY),
        (b"Transfer-Encoding: gzip\r\nContent-Length: 3\r\n", BODY),
        (b"Transfer-Encoding: identity\r\nContent-Length: 500\r\n", BODY),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_body_that_only_the_connections_end_ends(head: bytes, body: bytes) -> None:
    """Without a length that can be understood, and in chunks that are none, all that comes is the body."""
    reader, found = read(OK + head + b"\r\n" + body, to_end=True)
    assert (found, reader.ended, reader.keeps) == (body, True, False)


@each_row(
    ("raw", "keeps"),
    [
        (WHOLE["a length"], True), (WHOLE["chunks"], True), (WHOLE["a length twice"], True),
        (OK + b"Connection: Close\r\n" + LENGTH + b"\r\n" + BODY, False),
        (b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n" + BODY, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH + b"\r\n" + BODY, True),
        (WHOLE["a length"] + b"\n", False), (WHOLE["chunks"] + b"HTTP/1.1 200 OK\r\n\r\n", False),
        (OK + CHUNKED + LENGTH + b"\r\n" + CHUNKS, False), (WHOLE["identity"], False),
        (OK + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True), (b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + b"\r\n", True),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n", False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n" + LENGTH + b"\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n", False),
    ],
    ids=range(17),
)  # fmt: skip
def test_an_odd_answer_is_the_last_of_its_connection(raw: bytes, keeps: bool) -> None:
    """What might be smuggled behind an answer is never taken for the next one."""
    reader, body = read(raw)
    assert reader.ended
    assert body in (BODY, b"")
    assert reader.keeps is keeps


@each_row(
    ("raw", "says"),
    [
        (b"", "without an answer"), (b"HTTP/1.1 200", "within the head"), (b'{"id": "g"}', "status line"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "status line"), (b"HTTP/1.1 2000 OK\r\n\r\n", "status line"),
        (OK + b"Content-Length: 12\r\n\r\n" + BODY, "ended before"), (OK + CHUNKED + b'\r\n4\r\n{"i', "ended before"),
        (OK + CHUNKED + b"\r\nzz\r\n", "chunks are malformed"), (OK + CHUNKED + b"\r\n-1\r\n", "chunks are malformed"),
        (OK + b"X: y\r\n" * 100_000, "larger than"), (OK + b"X: " + b"y" * MOST_HEAD_BYTES, "larger than"),
        (b"\r\n" * MOST_HEAD_BYTES, "larger than"),
        (b"HTTP/1.1 100 C\r\n\r\n" * (MOST_INTERIM + 1) + WHOLE["a length"], "interim answers"),
        (OK + CHUNKED + b"\r\n" + b"1\r\n \r\n" * 900_000, "little but their sizes"),
        (OK + CHUNKED + b"\r\n5;" + b"x" * 100_000, "little but their sizes"),
    ],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_answer_or_has_no_end(raw: bytes, says: str) -> None:
    """It ends with an error that says what is wrong."""
    with pytest.raises(FramingError, match=says):
        read(raw, 64 * 1024, to_end=True)


def test_a_status_that_has_arrived_counts() -> None:
    """The connection broke within the head: a refusal is known all the same."""
    reader, _ = read(b"HTTP/1.1 400 Bad Request\r\nContent-Ty", to_end=True)
    assert reader.head is not None
    assert reader.head.status == 400


def test_the_last_line_end_of_the_chunks_may_be_missing() -> None:
    """The last chunk has come, and nothing else can."""
    reader, body = read(OK + CHUNKED + b"\r\n" + CHUNKS[:-2], to_end=True)
    assert (body, reader.ended) == (BODY, True)


def test_what_comes_before_broken_chunks_counts() -> None:
    """The id of a create may be in it, also where all arrives at once; what is wrong is raised with the next step."""
    raw = OK + CHUNKED + b"\r\n%x\r\n%b\r\nzz\r\n" % (len(BODY), BODY)
    reader = AnswerReader()
    assert reader.feed(raw) == BODY
    assert not reader.keeps
    for go_on in (reader.end, lambda: reader.feed(b"0\r\n\r\n")):
        with pytest.raises(FramingError, match="chunks are malformed"):
            go_on()
    pieces = canonically(AnswerReader(), raw)
    assert [next(pieces), next(pieces)][1] == chunk(BODY)
    with pytest.raises(FramingError, match="chunks are malformed"):
        next(pieces)


def test_the_fields() -> None:
    """Lists are joined, of others the first counts, controls become blanks, and over-long values say nothing."""
    raw = (
        b"content-ENCODING: gzip\r\nContent-Encoding: br\r\nRetry-After: 7\r\nRetry-After: 9\r\nX-Trace-Id: a\0b\r\n"
        b"Location: " + b"x" * 8000 + b"\r\nContent-Type: text/\xe9\r\nX-Request-Id: a\r\n  b\r\nSet-Cookie: a=b\r\n"
    )
    reader, _ = read(OK + raw + LENGTH + b"\r\n" + BODY)
    assert reader.head is not None
    assert reader.head.fields == {
        "content-encoding": "gzip, br",
        "retry-after": "7",
        "x-trace-id": "a b",
        "content-type": "text/é",
        "x-request-id": "a b",
    }


@pytest.mark.parametrize("line", [b"content-length:\n", b"x\n", b"X:" + b" \n" * 2, b"location: a\n b\n", b"\0\n"])
def test_a_head_is_read_in_bounded_time(line: bytes) -> None:
    """Half a megabyte of any lines holds up an event loop for some milliseconds only."""
    raw = OK + line * ((MOST_HEAD_BYTES - 100) // len(line)) + LENGTH + b"\n"
    began = time.thread_time()
    read(raw, 64 * 1024)
    assert time.thread_time() - began < 1


def test_the_simplest_form() -> None:
    """What aiohttp gets is a clean head and chunks, of which the last is never sent for an answer that is cut."""
    reader = AnswerReader()
    pieces = b"".join(canonically(reader, WHOLE["odd lines"][:-3]))
    assert pieces == b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"id": "\r\n'
    with pytest.raises(FramingError):
        list(canonically(reader, b""))
    assert b"".join(canonically(reader, BODY[-3:] + b"surplus")) == b'3\r\ng"}\r\n0\r\n\r\n'
    assert list(canonically(reader, b"more")) == []


@each_row("kind", WHOLE)
def test_a_whole_answer_takes_one_step(kind: str) -> None:
    """Nearly every poll's answer arrives at once; in three pieces, aiohttp restarted its timeout for each."""
    (piece,) = canonically(AnswerReader(), WHOLE[kind])
    head, _, body = piece.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-length: 11" in head.splitlines()
    assert body == BODY


def test_an_answer_without_a_body_takes_one_step() -> None:
    """A status that has no body has none, whatever length it announces."""
    for status, end in ((b"204", b"connection: close\r\n\r\n"), (b"304", b"\r\n")):
        pieces = list(canonically(AnswerReader(), b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n"))
        assert pieces == [b"HTTP/1.1 " + status + b" \r\ncontent-length: 0\r\n" + end]


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_a_value_is_one_line_without_controls(value: bytes) -> None:
    """Each run of controls, with the blanks after it, is one blank; those around a value are dropped."""
    value = value.replace(b"\n", b"")
    head = Head.parse(OK + b"X-Trace-Id:" + value + b"\r\n\r\n")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    assert head.fields["x-trace-id"] == re.sub("[\\x00-\\x1f\\x7f-\\x9f][\\x00-\\x20\\x7f-\\x9f]*", " ", text).strip()


@pytest.mark.parametrize("piece", [1, 7])
def test_an_answer_of_tls_to_plain_http_is_named(piece):
    """A host with http:// whose port is one of https: the advice was to check the gateway."""
    with pytest.raises(FramingError, match="speaks TLS on this port: write https://"):
        read(b"\x15\x03\x03\0\2\2\x46", piece)
