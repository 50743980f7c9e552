"""The faults that a transfer meets on the wire: one line for each."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import (
    ViduDownloadError,
    ViduDownloadRefusedError,
    ViduError,
    ViduIncompleteError,
    ViduURLExpiredError,
)
from airflow_provider_vidu.polling import retries
from fault_table import CLEAR_ERROR, LIMIT, REFUSED, SURVIVED
from tests.faults.transfer_world import KEY, OLD, Home, Scene, scene
from tests.integration.servers import LAST_MODIFIED, Answer, chunked, fixed, ranged, redirect, whole

WEBM = b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x84webm"


@dataclass(frozen=True)
class Fault:
    """A row: what goes wrong, and what must come of it.

    :param name: the fault in a few words.
    :param files: the answers to the requests for the file, the last for all that follow.
    :param requests: how many requests for the file the gateway must count.
    :param outcome: one of the table's.
    :param error: what the task ends with; None when it succeeds.
    :param seen: a part of what the user reads.
    :param asked: how often the gateway is asked for a URL.
    :param foreign: how many requests the foreign server must count.
    :param resumes: whether the second request asks for the rest only; None when there is no telling.
    :param lands: what stands at the destination after a success.
    :param there: how the foreign server answers; with the file if omitted.
    :param keys: which of the gateway's requests for the file carry the key; all of them if omitted.
    :param by_url: whether the task has only a URL, and no generation id.
    :param s3: whether the row is also run into S3.
    :param slow: whether it takes seconds: then it is run once, over an old file.
    :param tls: whether the gateway speaks https.
    :param extra: settings of the connection.
    """

    name: str
    files: Callable[[Scene], list[Answer]]
    requests: int
    outcome: str = SURVIVED
    error: type[ViduError] | None = None
    seen: str = ""
    asked: int = 1
    foreign: int = 0
    resumes: bool | None = None
    lands: Callable[[Scene], bytes] = lambda s: s.body
    there: Callable[[Scene], Answer] | None = None
    keys: tuple[bool, ...] | None = None
    by_url: bool = False
    s3: bool = False
    slow: bool = False
    tls: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def broken(*more: Callable[[Scene], Answer]) -> Callable[[Scene], list[Answer]]:
    """Return a file that is cut at half, then ``more``, then the whole file."""
    return lambda s: [whole(s.body, cut=s.half), *(answer(s) for answer in more), ranged(s.body)]


def part(body: bytes, start: int, *, span: str | None = None, **headers: str | int | None) -> Answer:
    """Return a 206 with the body from ``start``, whatever was asked for; ``span`` replaces its Content-Range."""
    said = span or f"bytes {start}-{len(body) - 1}/{len(body)}"
    return fixed(206, body[start:], **{"Content_Range": said, "ETag": '"v1"', "Content_Type": "video/mp4", **headers})


def dripping(before: bytes, after: bytes, seconds: float = 15.0) -> Answer:
    """Return ``before`` at once, and ``after`` byte by byte until the client has enough of it."""

    def answer(_request, wire) -> None:
        wire.send(before)
        for at in range(int(seconds / 0.05)):
            wire.send(after[at % len(after) :][:1])
            wire.hold(0.05)

    return answer


def steady(body: bytes, seconds: float) -> Answer:
    """Return the whole file, evenly over so many seconds."""

    def answer(_request, wire) -> None:
        wire.head(200, Content_Type="video/mp4", Content_Length=len(body), ETag='"v1"')
        pieces = int(seconds / 0.05)
        step = -(-len(body) // pieces)
        for at in range(0, len(body), step):
            wire.send(body[at : at + step])
            wire.hold(0.05)

    return answer


def head(size: int, status: int = 200) -> bytes:
    """Return the head of an answer of so many bytes."""
    return f'HTTP/1.1 {status} x\r\nContent-Type: video/mp4\r\nContent-Length: {size}\r\nETag: "v1"\r\n\r\n'.encode()


def span(start: int, stop: int, s: Scene) -> str:
    """Return the Content-Range of the bytes from ``start`` up to ``stop``."""
    return f"bytes {start}-{stop - 1}/{s.home.size}"


def percent(s: Scene, share: int) -> int:
    """Return how many bytes of the file that is."""
    return s.home.size * share // 100


def OTHER(s: Scene) -> bytes:  # noqa: N802 - reads like the other words of the rows
    """Return the server's other version of the file."""
    return s.other


FLAC = b"fLaC" + bytes(9000)
GZIP: dict[str, Any] = {"Content_Encoding": "gzip"}
UNFETCHED: dict[str, Any] = {"outcome": CLEAR_ERROR, "error": ViduDownloadError}
INCOMPLETE: dict[str, Any] = {"outcome": CLEAR_ERROR, "error": ViduIncompleteError}
NOT_STORED: dict[str, Any] = {"outcome": REFUSED, "error": ViduDownloadRefusedError}
EXPIRED: dict[str, Any] = {"outcome": CLEAR_ERROR, "error": ViduURLExpiredError, "seen": "Pass generation_id"}

CUTS = [
    *(
        Fault(f"cut at {share} %{', reset' if reset else ''}",
              lambda s, share=share, reset=reset: [whole(s.body, cut=percent(s, share), reset=reset), ranged(s.body)],
              2, resumes=None if reset else True, s3=not reset)
        for share in (1, 50, 99) for reset in (False, True)
    ),
    Fault("cut before the first byte of the body", lambda s: [whole(s.body, cut=0), ranged(s.body)], 2, resumes=False),
    Fault("cut before the head", lambda s: [lambda _r, wire: wire.reset(), ranged(s.body)], 2, resumes=False),
    Fault("cut nine times, a little further each time",
          lambda s: [*[ranged(s.body, cut=percent(s, 10))] * 9, ranged(s.body)], 10, resumes=True),
    Fault("cut at half, each time at the same byte", lambda s: [whole(s.body, cut=s.half)], 3,
          **INCOMPLETE, seen="Gave up after 3 failures", s3=True),
]  # fmt: skip

RESUMES = [
    Fault("resume answered by 200", broken(lambda s: whole(s.body)), 2, resumes=True, s3=True),
    Fault("resume answered by 200 with another version", broken(lambda s: whole(s.other, ETag='"v2"')), 2,
          resumes=True, lands=OTHER, s3=True),
    Fault("resume answered by 206 from a wrong byte", broken(lambda s: part(s.body, s.half - 1)), 3,
          seen="another part than was requested", s3=True),
    Fault("resume answered by 206 whose Content-Range is not what comes",
          broken(lambda s: part(s.body, s.half - 1, span=span(s.half, s.home.size, s))), 3),
    Fault("resume answered by 206 with another total",
          broken(lambda s: part(s.body, s.half, span=f"bytes {s.half}-{s.home.size - 1}/{s.home.size + 1}")), 3),
    Fault("resume answered by 206 without Content-Range", broken(lambda s: part(s.body, s.half, span=" ")), 3),
    Fault("resume answered by 206 with a senseless Content-Range",
          broken(lambda s: part(s.body, s.half, span="bytes 9-1/x")), 3),
    Fault("resume answered by 206 with a Content-Range of 5,000 digits",
          broken(lambda s: part(s.body, s.half, span=f"bytes {s.half}-{'9' * 5000}/*")), 3),
    Fault("resume answered by multipart/byteranges",
          broken(lambda s: part(s.body, s.half, span=" ", Content_Type="multipart/byteranges; boundary=x")), 3),
    Fault("resume answered by 206 in pieces",
          broken(lambda s: part(s.body[:percent(s, 75)], s.half, span=span(s.half, percent(s, 75), s))), 3,
          resumes=True),
    Fault("resume answered by 416", broken(lambda s: fixed(416, Content_Range=f"bytes */{s.home.size}")), 3, s3=True),
    Fault("resume answered by 206 of another version, ETag changed",
          broken(lambda s: part(s.other, s.half, ETag='"v2"')), 3, s3=True),
    Fault("resume answered by 206 of another version, ETag weak",
          broken(lambda s: part(s.other, s.half, ETag='W/"v1"')), 3),
    Fault("resume answered by 206 of another version, ETag missing",
          broken(lambda s: part(s.other, s.half, ETag=None)), 3),
    Fault("resume answered by 206 of another version, date changed",
          lambda s: [whole(s.body, cut=s.half, ETag=None, Last_Modified=LAST_MODIFIED),
                     part(s.other, s.half, ETag=None, Last_Modified="Tue, 07 Jul 2026 10:00:00 GMT"), whole(s.body)],
          3),
    Fault("weak ETag", lambda s: [whole(s.body, cut=s.half, ETag='W/"v1"'), whole(s.other, ETag='W/"v1"')], 2,
          resumes=False, lands=OTHER),
    Fault("no ETag and no date", lambda s: [whole(s.body, cut=s.half, ETag=None), whole(s.other, ETag=None)], 2,
          resumes=False, lands=OTHER, s3=True),
    Fault("no ETag and a senseless date",
          lambda s: [whole(s.body, cut=s.half, ETag=None, Last_Modified="soon"), whole(s.body)], 2, resumes=False),
    Fault("no ETag, a date", lambda s: [whole(s.body, cut=s.half, ETag=None, Last_Modified=LAST_MODIFIED),
                                        ranged(s.body, ETag=None, Last_Modified=LAST_MODIFIED)], 2, resumes=True),
    Fault("Accept-Ranges: none", lambda s: [whole(s.body, cut=s.half, Accept_Ranges="none"), whole(s.body)], 2,
          resumes=False),
    Fault("resume of a file that was replaced, again and again",
          lambda s: [whole(s.body, cut=s.half), *[part(s.other, s.half, ETag='"v2"'), whole(s.body, cut=s.half)] * 3],
          3, **INCOMPLETE, seen="Gave up after 3 failures"),
]  # fmt: skip

LENGTHS = [
    Fault("no Content-Length", lambda s: [whole(s.body, Content_Length=None)], 1, s3=True),
    Fault("no Content-Length, cut at half",
          lambda s: [whole(s.body, cut=s.half, Content_Length=None), ranged(s.body)], 2,
          seen="in the middle of the file", s3=True),
    Fault("no Content-Length, cut at half by a reset",
          lambda s: [whole(s.body, cut=s.half, Content_Length=None, reset=True), ranged(s.body)], 2),
    Fault("no Content-Length, cut at half, each time",
          lambda s: [whole(s.body, cut=s.half, Content_Length=None, ETag=None)], 3, **INCOMPLETE,
          seen="in the middle of the file"),
    Fault("chunked", lambda s: [chunked(s.body)], 1, s3=True),
    Fault("chunked, cut at half",
          lambda s: [chunked(s.body, cut=s.half, ETag='"v1"'), ranged(s.body)], 2, resumes=True),
    Fault("chunked, with a chunk size that is none",
          lambda s: [lambda _r, wire: (wire.head(200, Content_Type="video/mp4", Transfer_Encoding="chunked"),
                                       wire.send(b"zz\r\n" + s.body)), ranged(s.body)], 2),
    Fault("announced longer than it is", lambda s: [whole(s.body, Content_Length=s.home.size + 1)], 3,
          **INCOMPLETE, seen="The transfer ended after", s3=True),
    Fault("announced shorter than it is", lambda s: [whole(s.body, Content_Length=s.home.size - 1)], 3,
          **INCOMPLETE, seen="more than the", s3=True),
    Fault("announced shorter than it is, once",
          lambda s: [whole(s.body, Content_Length=s.half), whole(s.body)], 2, seen="more than the"),
    Fault("two lengths that differ",
          lambda s: [lambda _r, wire: wire.send(head(s.half)[:-2] + head(s.home.size).partition(b"\r\n")[2] + s.body)],
          3, **UNFETCHED, seen="do not show where its body ends"),
    Fault("one length, told twice in one line, of a file that is cut",
          lambda s: [whole(s.body, cut=s.half, ETag=None, Content_Length=f"{s.home.size}, {s.home.size}")], 3,
          **INCOMPLETE, seen="The transfer ended after"),
    Fault("a length behind a line that is no header",
          lambda s: [lambda _r, wire: wire.send(head(s.home.size).replace(b"\r\n", b"\r\nnonsense\r\n", 1)
                                                + s.body[:s.half]), whole(s.body)], 2, seen="The transfer ended after"),
    Fault("chunked, with a blank behind it", lambda s: [chunked(s.body, Transfer_Encoding="chunked ")], 1),
    Fault("interim answers before the file",
          lambda s: [lambda r, wire: (wire.send(b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\nLink: </a>\r\n\r\n"),
                                      whole(s.body)(r, wire))], 1),
    Fault("announced as 100 TB", lambda s: [whole(s.body, Content_Length=10**14)], 1, **NOT_STORED,
          seen="max_bytes is 21,474,836,480", s3=True),
    Fault("a length of 5,000 digits", lambda s: [whole(s.body, cut=s.half, Content_Length="9" * 5000)], 3,
          **UNFETCHED, seen="do not show where its body ends"),
    Fault("a length that is no number", lambda s: [whole(s.body, cut=s.half, Content_Length="many")], 3,
          **UNFETCHED, seen="do not show where its body ends"),
    Fault("an empty body, once", lambda s: [whole(b""), whole(s.body)], 2, seen="empty body"),
    Fault("an empty body, each time", lambda s: [whole(b"")], 3, **INCOMPLETE, seen="empty body", s3=True),
    Fault("no Content-Length, no MP4, cut: nothing shows that the end is missing",
          lambda s: [whole(WEBM + s.body, cut=s.half, Content_Length=None, Content_Type="video/webm")], 1, LIMIT,
          lands=lambda s: (WEBM + s.body)[: s.half], seen="nothing proves"),
]  # fmt: skip

CONTENTS = [
    *(Fault(f"Content-Encoding: {coding} of a file that is not encoded", lambda s, coding=coding: [
          whole(s.body, Content_Encoding=coding)], 1) for coding in ("gzip", "br", "deflate", "gzip, zstd")),
    Fault("Content-Encoding: gzip of a file that is not encoded, cut at half",
          lambda s: [whole(s.body, cut=s.half, **GZIP), ranged(s.body, **GZIP)], 2, resumes=True),
    Fault("gzip although identity was asked for", lambda s: [whole(gzip.compress(s.body, 0), **GZIP)], 1,
          seen="gzip-compressed", s3=True),
    Fault("gzip although identity was asked for, cut at half",
          lambda s: [whole(gzip.compress(s.body, 0), cut=s.half, **GZIP), ranged(gzip.compress(s.body, 0), **GZIP)],
          2, resumes=True, seen="gzip-compressed"),
    Fault("gzip that is not declared", lambda s: [whole(gzip.compress(s.body, 0))], 1, seen="gzip-compressed"),
    Fault("gzip in chunks, cut at half",
          lambda s: [whole(gzip.compress(s.body, 0), cut=s.half, Content_Length=None, **GZIP),
                     ranged(gzip.compress(s.body, 0), **GZIP)], 2, seen="in the middle of the file"),
    Fault("gzip whose end is missing", lambda s: [whole(gzip.compress(s.body, 0)[:s.half])], 3, **INCOMPLETE,
          seen="their end is missing"),
    Fault("gzip that is broken", lambda s: [whole(gzip.compress(s.body, 0)[:-8] + bytes(8), **GZIP)], 1,
          **UNFETCHED, seen="cannot be unpacked"),
    Fault("gzip of a page", lambda s: [whole(gzip.compress(b"<!DOCTYPE html><p>sorry"), **GZIP)], 1, **NOT_STORED,
          seen="HTML"),
    Fault("gzip that unpacks to a thousand times its size",
          lambda s: [whole(gzip.compress(s.body[:40] + bytes(40_000_000)), **GZIP)], 1, **NOT_STORED,
          seen="No medium compresses that much", s3=True),
    Fault("deflate although identity was asked for",
          lambda s: [whole(zlib.compress(s.body), Content_Encoding="deflate")], 1, seen="deflate-compressed"),
    Fault("Brotli although identity was asked for",
          lambda s: [whole(b"\x80\x81" * 5000, Content_Encoding="br")], 1, **NOT_STORED, seen="br-encoded"),
    Fault("gzip as a transfer coding",
          lambda s: [whole(s.body, Content_Length=None, Transfer_Encoding="gzip, chunked")], 3, **UNFETCHED,
          seen="do not show where its body ends"),
    Fault("gzip in the continuation only", broken(lambda s: part(s.body, s.half, **GZIP)), 3,
          seen="another part than was requested"),
    *(Fault(f"the file with status {status}", lambda s, status=status: [
          lambda _r, wire: wire.send(head(s.home.size, status) + s.body)], 1) for status in (201, 203)),
    Fault("the file with status 203, cut at half", lambda s: [
          lambda _r, wire: wire.send(head(s.home.size, 203) + s.body[:s.half]), whole(s.body)], 2, resumes=False),
    Fault("an HTML page as video/mp4", lambda s: [whole(b"<!DOCTYPE html><p>sorry")], 1, **NOT_STORED, seen="HTML",
          s3=True),
    Fault("JSON as video/mp4", lambda s: [whole(b'{"error": "gone"}')], 1, **NOT_STORED, seen="JSON"),
    Fault("SVG as image/svg+xml", lambda s: [whole(b"<svg onload='x()'/>", Content_Type="image/svg+xml")], 1,
          **NOT_STORED, seen="an SVG file"),
    Fault("bytes that prove nothing as video/mp4", lambda s: [whole(b"\x80\x81" * 5000)], 1, **NOT_STORED,
          seen="bytes of an unknown format", s3=True),
    Fault("sound as video/mp4, where any medium is right", lambda s: [whole(FLAC)], 1,
          lands=lambda _s: FLAC, seen="audio/flac", s3=True),
    *(Fault(f"Content-Encoding: {coding}, which means nothing", lambda s, coding=coding: [
          whole(s.body, Content_Encoding=coding)], 1) for coding in ("utf-8", "aws-chunked", "binary", "none")),
]  # fmt: skip

PATIENCE: dict[str, Any] = {"slow": True, "extra": {"timeout": 0.4, "max_retries": 1}}
STALLS = [
    Fault("silence at half", lambda s: [whole(s.body, cut=s.half, stall=True), ranged(s.body)], 2,
          resumes=True, seen="stopped responding", **PATIENCE, s3=True),
    Fault("silence at half, each time", lambda s: [whole(s.body, cut=s.half, stall=True)], 2,
          **INCOMPLETE, seen="stopped responding", **PATIENCE),
    Fault("silence before the head", lambda s: [lambda _r, wire: wire.hold()], 2,
          **UNFETCHED, seen="stopped responding", **PATIENCE),
    Fault("bytes trickle from half on", lambda s: [dripping(head(s.home.size) + s.body[:s.half], s.body[s.half:]),
                                                   ranged(s.body)], 2, resumes=True, seen="too slow", **PATIENCE),
    Fault("bytes trickle from the first on, each time", lambda s: [dripping(head(s.home.size), s.body)], 2,
          **INCOMPLETE, seen="too slow", **PATIENCE),
    Fault("the head trickles", lambda s: [dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"), ranged(s.body)], 2,
          seen="too slow", **PATIENCE),
    Fault("a chunk's size trickles",
          lambda s: [dripping(head(1).replace(b"Content-Length: 1", b"Transfer-Encoding: chunked") + b"5;", b"x"),
                     ranged(s.body)], 2, seen="too slow", **PATIENCE),
    Fault("an error's text trickles", lambda s: [dripping(head(2000, 503), b"x"), ranged(s.body)], 2, **PATIENCE),
    Fault("slow but steady, longer than every time-out", lambda s: [steady(s.body, 1.5)], 1,
          slow=True, extra={"timeout": 0.6}),
]  # fmt: skip

EXPIRIES = [
    *(Fault(f"URL expired before the start ({status}), with an id",
            lambda s, status=status: [fixed(status), ranged(s.body)], 2, asked=2,
            seen=f"HTTP {status}") for status in (403, 404, 410)),
    *(Fault(f"URL expired before the start ({status}), without an id", lambda s, status=status: [fixed(status)], 1,
            by_url=True, asked=0, **EXPIRED) for status in (403, 404, 410)),
    *(Fault(f"URL expired in the middle ({status}), with an id", broken(lambda _s, status=status: fixed(status)), 3,
            asked=2, resumes=True, s3=status == 403) for status in (403, 404, 410)),
    *(Fault(f"URL expired in the middle ({status}), without an id",
            broken(lambda _s, status=status: fixed(status)), 2, by_url=True, asked=0,
            s3=status == 403, **EXPIRED) for status in (403, 404, 410)),
    Fault("URL expired, said with 400",
          lambda s: [fixed(400, b"<Code>ExpiredToken</Code>"), ranged(s.body)], 2, asked=2),
    Fault("URL expired in the middle, another version behind the fresh one",
          lambda s: [whole(s.body, cut=s.half), fixed(403), ranged(s.other, etag='"v2"')], 3, asked=2, lands=OTHER),
    Fault("fresh URLs are refused too", lambda s: [fixed(403)], 4, asked=4, **UNFETCHED, seen="4 URLs in a row"),
    Fault("503, then the file", lambda s: [fixed(503), ranged(s.body)], 2),
    Fault("503, each time", lambda s: [fixed(503)], 3, **UNFETCHED, seen="HTTP status 503"),
]  # fmt: skip

FOREIGN: dict[str, Any] = {"extra": {"allowed_hosts": "localhost"}, "foreign": 1}
REDIRECTS = [
    Fault("redirect to the same host", lambda s: [redirect("/elsewhere.mp4"), ranged(s.body)], 2),
    Fault("redirect to a foreign host: the key stays at home",
          lambda s: [redirect(s.foreign.url(host="localhost"))], 1, **FOREIGN),
    Fault("redirect to a foreign host, resumed there",
          lambda s: [whole(s.body, cut=s.half), redirect(s.foreign.url(host="localhost"))], 2, **FOREIGN),
    Fault("redirect to a foreign host and back: the key is not taken up again",
          lambda s: [redirect(s.foreign.url(host="localhost")), ranged(s.body)], 2, **FOREIGN,
          there=lambda s: redirect(s.gateway.url("/back")), keys=(True, False)),
    Fault("redirect loop", lambda s: [redirect("/again")], 6, **NOT_STORED, seen="more than 5 redirects"),
    *(Fault(f"redirect to {target[:20]}", lambda s, target=target: [redirect(target)], 1, **NOT_STORED, seen="an http")
      for target in ("http://[::1", "//[", "http://a:b/")),
    Fault("redirect to file:", lambda s: [redirect("file:///etc/passwd")], 1, **NOT_STORED, seen="an http"),
    Fault("redirect from https to http", lambda s: [redirect(s.foreign.url(host="127.0.0.1"))], 1, **NOT_STORED,
          seen="from https to unencrypted http", tls=True),
    Fault("redirect to a loopback address", lambda s: [redirect(s.foreign.url(host="localhost"))], 1, **NOT_STORED,
          seen="'localhost' has the loopback address"),
    Fault("redirect to a private address", lambda s: [redirect("http://10.0.0.1/v.mp4")], 1, **NOT_STORED,
          seen="private address 10.0.0.1"),
    Fault("redirect to the cloud's metadata service", lambda s: [redirect("http://169.254.169.254/latest/")], 1,
          **NOT_STORED, seen="link-local address"),
    Fault("redirect to a private address in the middle",
          broken(lambda s: redirect("http://[::ffff:10.0.0.1]/v.mp4")), 2, **NOT_STORED, seen="private address"),
]  # fmt: skip

FAULTS = [*CUTS, *RESUMES, *LENGTHS, *CONTENTS, *STALLS, *EXPIRIES, *REDIRECTS]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let repeated requests follow each other quickly."""
    monkeypatch.setattr(retries.Backoff, "delay", lambda *_args, **_kwargs: 0.01)


def suffer(fault: Fault, home: Home, capsys: Any, monkeypatch: Any, tls: Any = None) -> dict[str, Any]:
    """Run a download into a fault, look at what it leaves behind, and run it again without the fault.

    :return: what the table wants to know.
    """
    row: dict[str, Any] = {}
    for old in (OLD,) if fault.slow or home.name != "local" else (None, OLD):
        home.put(old)
        with scene(home, capsys, monkeypatch, tls=tls, **fault.extra) as s:
            s.by_url = fault.by_url
            s.gateway.files = fault.files(s)
            if fault.there:
                s.foreign.answers = [fault.there(s)]
            row = _attempt(fault, s, old)
            s.check_rerun()
    return {"side": home.name, "outcome": fault.outcome, **row}


def _attempt(fault: Fault, s: Scene, old: bytes | None) -> dict[str, Any]:
    result = s.download()
    row = {"seen": s.seen(result), "requests": s.requests()}
    s.check_secrets(result)
    if fault.error is None:
        assert isinstance(result, dict), result
        s.check_whole(result, fault.lands(s))
    else:
        assert type(result) is fault.error, result
        assert s.home.content() == old
        assert s.home.left_over() == []
    assert re.search(fault.seen, s.log if isinstance(result, dict) else row["seen"]), row["seen"]
    files = [request for request in s.gateway.requests if request.target in s.gateway.fetched]
    assert (len(files), s.gateway.polls, len(s.foreign.requests)) == (fault.requests, fault.asked, fault.foreign)
    assert tuple(KEY.encode() in request.raw for request in files) == (fault.keys or (True,) * len(files))
    if fault.resumes is not None:
        assert (files[1].start is not None) is fault.resumes
    return row
