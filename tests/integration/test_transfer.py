"""The transfer engine against servers that misbehave: what arrives is whole, or nothing is published."""

from __future__ import annotations

import hashlib
import itertools
import threading

import pytest

from airflow_provider_vidu.exceptions import (
    ViduDownloadError,
    ViduDownloadRefusedError,
    ViduIncompleteError,
    ViduMissingVideoError,
    ViduStorageError,
    ViduURLExpiredError,
)
from airflow_provider_vidu.http_stream import Access
from airflow_provider_vidu.storage import Sink
from airflow_provider_vidu.transfer import Rules, Transfer
from tests.integration.servers import LAST_MODIFIED, Server, chunked, fixed, ranged, video, whole

BODY = video(100_000)
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = video(90_000, seed=2)
LOOPBACK = frozenset({"127.0.0.1"})


class Shelf:
    """Stands for a store: what was published, and how often it was begun and discarded."""

    def __init__(self, *, fail_after: int | None = None) -> None:
        self.published: bytes | None = None
        self.begun: list[tuple[str, int | None]] = []
        self.discarded = 0
        self.fail_after = fail_after

    def open(self, content_type: str, total: int | None) -> Sink:
        """Begin a file."""
        self.begun.append((content_type, total))
        return _ShelfSink(self)


class _ShelfSink(Sink):
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._data = bytearray()

    def write(self, data: memoryview) -> None:
        self._data += data
        if self._shelf.fail_after is not None and len(self._data) > self._shelf.fail_after:
            raise ViduStorageError("the shelf is full")

    def publish(self) -> None:
        self._shelf.published = bytes(self._data)

    def discard(self) -> None:
        self._shelf.discarded += 1


@pytest.fixture
def shelf() -> Shelf:
    """Return an empty store."""
    return Shelf()


def fetch(server: Server, shelf: Shelf, *, fresh_url=None, path="/v/video.mp4", sleeps=None, **settings):
    """Run a transfer from ``server``; waits are noted in ``sleeps`` instead of being waited for."""
    access = {"allowed_hosts": LOOPBACK, "timeout": 5.0, "max_retries": 3}
    access |= {name: settings.pop(name) for name in list(settings) if name in Access.__dataclass_fields__}
    noted = [] if sleeps is None else sleeps
    transfer = Transfer(
        server.url(path),
        shelf.open,
        access=Access(**access),
        rules=Rules(**{"sleep": noted.append, **settings}),
        fresh_url=fresh_url,
    )
    return transfer.run()


def test_a_file_arrives_whole(shelf):
    """Size, digest, type and source are returned; the destination learns type and size."""
    with Server(whole(BODY)) as server:
        received = fetch(server, shelf, path="/v/video.mp4?Signature=hush")
    assert shelf.published == BODY
    assert (received.size, received.sha256, received.content_type) == (len(BODY), SHA, "video/mp4")
    assert received.source == server.url("/v/video.mp4")
    assert shelf.begun == [("video/mp4", len(BODY))]
    assert shelf.discarded == 0


@pytest.mark.parametrize("size", [1, 20, 1023, 1024, 1025, 262_144, 262_145, 700_001])
def test_every_size_arrives(shelf, size):
    """Sizes around the buffers' own are as good as any."""
    body = video(1_000_000)[:size]
    with Server(whole(body)) as server:
        assert fetch(server, shelf).sha256 == hashlib.sha256(body).hexdigest()
    assert shelf.published == body


@pytest.mark.parametrize("percent", [0, 1, 50, 99])
@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_transfer_resumes(shelf, percent, reset):
    """After an orderly or a rough end the rest is asked for, with If-Range, and fits."""
    with Server(whole(BODY, cut=len(BODY) * percent // 100, reset=reset), ranged(BODY)) as server:
        assert fetch(server, shelf).sha256 == SHA
    assert shelf.published == BODY
    second = server.requests[1]
    if percent == 50 and not reset:
        assert second.headers["range"] == "bytes=50000-"
        assert second.headers["if-range"] == '"v1"'
    assert second.start is None or 0 < second.start <= len(BODY)


def test_a_transfer_that_is_cut_again_and_again_arrives(shelf):
    """Progress earns new tries: ten cuts are survived with three retries."""
    with Server(*[ranged(BODY, cut=10_000)] * 9, ranged(BODY)) as server:
        assert fetch(server, shelf).sha256 == SHA
    assert [request.start for request in server.requests[1:]] == list(range(10_000, 100_000, 10_000))


def test_a_transfer_that_never_gets_further_ends(shelf):
    """Without progress the retries run out, with rising waits, and the error counts the bytes."""
    sleeps: list[float] = []
    with (
        Server(whole(BODY, cut=50_000)) as server,
        pytest.raises(ViduIncompleteError, match=r"50,000 of 100,000 bytes.*4 failures"),
    ):
        fetch(server, shelf, sleeps=sleeps)
    assert len(server.requests) == 4
    assert sum(sleeps) >= 1 + 2 + 4
    assert shelf.published is None
    assert shelf.discarded == len(shelf.begun)


@pytest.mark.parametrize(
    ("second", "published"),
    [
        pytest.param(whole(BODY), BODY, id="200-to-a-range"),
        pytest.param(ranged(OTHER, etag='"v2"'), OTHER, id="changed-etag"),
        pytest.param(fixed(206, BODY[40_000:], Content_Range="bytes 40000-99999/100000"), BODY, id="wrong-place"),
        pytest.param(fixed(206, BODY[50_000:], Content_Range="bytes 50000-99999/100001"), BODY, id="wrong-total"),
        pytest.param(fixed(206, BODY[50_000:]), BODY, id="no-content-range"),
        pytest.param(
            fixed(206, OTHER[50_000:], Content_Range="bytes 50000-89999/90000", ETag='"v2"'),
            BODY,
            id="ignores-if-range",
        ),
        pytest.param(fixed(416, b"", Content_Range="bytes */100000"), BODY, id="416"),
    ],
)
def test_what_cannot_be_continued_begins_anew(shelf, second, published):
    """A wrong continuation is never mixed in: the file starts from zero, and so does the digest."""
    with Server(whole(BODY, cut=50_000), second, whole(BODY)) as server:
        received = fetch(server, shelf)
    assert shelf.published == published
    assert received.sha256 == hashlib.sha256(published).hexdigest()
    assert server.requests[1].start == 50_000
    assert len(shelf.begun) == 2


@pytest.mark.parametrize(
    "headers",
    [{"ETag": None}, {"ETag": 'W/"v1"'}, {"Accept_Ranges": "none"}, {"ETag": None, "Last_Modified": "nonsense"}],
    ids=["no-etag", "weak-etag", "no-ranges", "bad-date"],
)
def test_without_a_validator_nothing_is_resumed(shelf, headers):
    """Without proof that it is the same file, the whole file is asked for again."""
    with Server(whole(BODY, cut=50_000, **headers), whole(OTHER, **headers)) as server:
        fetch(server, shelf)
    assert "range" not in server.requests[1].headers
    assert shelf.published == OTHER


def test_a_date_is_a_validator(shelf):
    """Without an ETag, Last-Modified goes into If-Range."""
    headers = {"ETag": None, "Last_Modified": LAST_MODIFIED}
    with Server(whole(BODY, cut=50_000, **headers), ranged(BODY, **headers)) as server:
        assert fetch(server, shelf).sha256 == SHA
    assert server.requests[1].headers["if-range"] == LAST_MODIFIED


def test_a_server_that_gives_parts_gives_all_of_them(shelf):
    """A 206 shorter than asked for is continued by the next."""
    parts = [
        fixed(206, BODY[at : at + 25_000], Content_Range=f"bytes {at}-{at + 24_999}/100000", ETag='"v1"')
        for at in (25_000, 50_000, 75_000)
    ]
    with Server(whole(BODY, cut=25_000), *parts) as server:
        assert fetch(server, shelf).sha256 == SHA


@pytest.mark.parametrize("answer", [chunked(BODY), whole(BODY, Content_Length=None)], ids=["chunked", "until-close"])
def test_a_file_without_an_announced_length_arrives(shelf, answer):
    """Chunks, and bodies that end with the connection, are taken."""
    with Server(answer) as server:
        assert fetch(server, shelf).sha256 == SHA
    assert shelf.begun == [("video/mp4", None)]


@pytest.mark.parametrize(
    "first",
    [chunked(BODY, cut=50_000, ETag='"v1"'), whole(BODY, cut=50_000, Content_Length=None)],
    ids=["chunked", "until-close"],
)
def test_a_cut_without_an_announced_length_is_noticed(shelf, first):
    """The missing last chunk, or the missing end of the video's last box, gives it away."""
    with Server(first, ranged(BODY)) as server:
        assert fetch(server, shelf).sha256 == SHA
    assert shelf.published == BODY


@pytest.mark.parametrize("length", [90_000, 99_999])
def test_more_bytes_than_announced_are_not_published(shelf, length):
    """A body that goes on behind its announced end is an error."""
    with Server(whole(BODY, Content_Length=length)) as server, pytest.raises(ViduIncompleteError, match="more than"):
        fetch(server, shelf)
    assert shelf.published is None
    assert shelf.discarded == len(shelf.begun) > 0


def test_fewer_bytes_than_announced_are_not_published(shelf):
    """A body that ends early is an error, also when every retry ends early."""
    with Server(whole(BODY, Content_Length=100_001)) as server, pytest.raises(ViduIncompleteError, match="of 100,001"):
        fetch(server, shelf)
    assert shelf.published is None


@pytest.mark.parametrize("answer", [fixed(200, b"", Content_Type="video/mp4"), chunked(b"")])
def test_an_empty_body_is_not_published(shelf, answer):
    """An empty file is tried again, then it is an error."""
    with Server(answer) as server, pytest.raises(ViduIncompleteError, match="empty body"):
        fetch(server, shelf)
    assert len(server.requests) == 4
    assert shelf.begun == []


def test_an_empty_body_may_be_a_passing_trouble(shelf):
    """A store that had not got the file yet has it a moment later."""
    with Server(fixed(200, b"", Content_Type="video/mp4"), whole(BODY)) as server:
        assert fetch(server, shelf).sha256 == SHA


@pytest.mark.parametrize(
    "answer",
    [
        fixed(200, b"<!DOCTYPE html><p>sorry", Content_Type="text/html"),
        fixed(200, b"<html>" + b" " * 5000, Content_Type="video/mp4"),
        fixed(200, b'{"error": "gone"}', Content_Type="video/mp4"),
        fixed(200, b"no video", Content_Type="text/plain"),
        whole(BODY, Content_Encoding="gzip"),
    ],
    ids=["html", "html-as-video", "json-as-video", "text", "gzip"],
)
def test_what_is_no_video_is_refused_at_once(shelf, answer):
    """Nothing is opened at the destination, and nothing is tried again."""
    with Server(answer) as server, pytest.raises(ViduDownloadRefusedError, match="Not stored"):
        fetch(server, shelf)
    assert len(server.requests) == 1
    assert shelf.begun == []


def test_a_generic_type_is_replaced_by_what_the_bytes_prove(shelf):
    """A video sent as application/octet-stream is a video."""
    with Server(whole(BODY, Content_Type="application/octet-stream")) as server:
        assert fetch(server, shelf).content_type == "video/mp4"


@pytest.mark.parametrize("answer", [whole(BODY), chunked(BODY)], ids=["announced", "counted"])
def test_max_bytes(shelf, answer):
    """A file that is too large is refused: before its body where announced, else when the count is over."""
    with Server(answer) as server, pytest.raises(ViduDownloadRefusedError, match=r"max_bytes is 99,999"):
        fetch(server, shelf, max_bytes=len(BODY) - 1)
    assert shelf.published is None
    with Server(answer) as server:
        assert fetch(server, shelf, max_bytes=len(BODY)).size == len(BODY)


def test_a_silent_server_is_left(shelf):
    """Silence longer than the time-out breaks the transfer off; it resumes."""
    with Server(whole(BODY, cut=50_000, stall=True), ranged(BODY)) as server:
        assert fetch(server, shelf, timeout=0.2).sha256 == SHA
    assert server.requests[1].start == 50_000


def test_a_server_that_never_answers_is_named(shelf):
    """Silence before the first byte is told with the URL's path."""
    with (
        Server(lambda _request, wire: wire.hold()) as server,
        pytest.raises(ViduDownloadError, match=r"/v/video\.mp4 could not be fetched: the server fell silent"),
    ):
        fetch(server, shelf, timeout=0.1, max_retries=1)


def test_a_trickle_is_left(shelf):
    """A server that sends a little now and then is no better than a silent one."""

    def trickle(request, wire):
        wire.head(200, Content_Type="video/mp4", Content_Length=len(BODY), ETag='"v1"')
        for at in range(0, 3000, 1000):
            wire.send(BODY[at : at + 1000])
            wire.sock.settimeout(0.05)
            try:
                wire.sock.recv(1)
            except TimeoutError:
                continue

    minutes = itertools.count(0, 30)
    with Server(trickle, ranged(BODY)) as server:
        received = fetch(server, shelf, clock=lambda: float(next(minutes)), least_rate=1024, rate_window=60)
    assert received.sha256 == SHA
    assert server.requests[1].start in (1000, 2000, 3000)


@pytest.mark.parametrize("status", [403, 404, 410, 401])
def test_an_expired_url_without_an_id_is_final(shelf, status):
    """Nothing can be done without an id, and the message says so."""
    with (
        Server(fixed(status, b"<Error/>")) as server,
        pytest.raises(ViduURLExpiredError, match="generation_id") as caught,
    ):
        fetch(server, shelf)
    assert caught.value.status_code == status
    assert len(server.requests) == 1


def test_an_expired_url_is_replaced(shelf):
    """With a way to a fresh URL the transfer goes on there."""
    with Server(fixed(403), whole(BODY)) as server:
        assert fetch(server, shelf, fresh_url=lambda: server.url("/fresh.mp4?s=2")).sha256 == SHA
    assert [request.target for request in server.requests] == ["/v/video.mp4", "/fresh.mp4?s=2"]


@pytest.mark.parametrize(("second", "start"), [(ranged(BODY), 50_000), (ranged(OTHER, etag='"v2"'), 50_000)])
def test_a_url_that_expires_in_the_middle(shelf, second, start):
    """The fresh URL continues the same file, or begins another one from zero."""
    with Server(whole(BODY, cut=50_000), fixed(403), second) as server:
        received = fetch(server, shelf, fresh_url=lambda: server.url("/fresh.mp4"))
    assert server.requests[2].start == start
    assert received.sha256 == hashlib.sha256(shelf.published or b"").hexdigest()
    assert shelf.published in (BODY, OTHER)


def test_a_url_that_expires_in_the_middle_without_an_id(shelf):
    """What has come is thrown away: half a file is published by nobody."""
    with Server(whole(BODY, cut=50_000), fixed(403)) as server, pytest.raises(ViduURLExpiredError):
        fetch(server, shelf)
    assert shelf.published is None
    assert shelf.discarded == 1


def test_fresh_urls_are_asked_for_a_few_times_only(shelf):
    """When fresh URLs are refused too, the transfer ends."""
    asked = []

    def fresh_url():
        asked.append(1)
        return server.url(f"/fresh{len(asked)}.mp4")

    with Server(fixed(403)) as server, pytest.raises(ViduDownloadError, match="4 URLs in a row"):
        fetch(server, shelf, fresh_url=fresh_url)
    assert len(asked) == 3


def test_an_error_of_the_service_ends_the_transfer(shelf):
    """What the service says about the generation is what the user reads."""

    def fresh_url():
        raise ViduMissingVideoError("no video")

    with Server(fixed(404)) as server, pytest.raises(ViduMissingVideoError):
        fetch(server, shelf, fresh_url=fresh_url)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 408])
def test_passing_troubles_are_waited_out(shelf, status):
    """Retry-After is honoured."""
    sleeps: list[float] = []
    with Server(fixed(status, Retry_After=9), whole(BODY)) as server:
        fetch(server, shelf, sleeps=sleeps)
    assert sum(sleeps) >= 9
    assert shelf.published == BODY


@pytest.mark.parametrize("status", [400, 405, 451])
def test_other_refusals_are_final(shelf, status):
    """What a retry cannot mend is not repeated, and the server's words are quoted."""
    with (
        Server(fixed(status, b"go away")) as server,
        pytest.raises(ViduDownloadRefusedError, match="go away") as caught,
    ):
        fetch(server, shelf)
    assert caught.value.status_code == status
    assert len(server.requests) == 1


def test_a_refused_connection_is_retried_and_told(shelf):
    """A port nobody listens on is a retryable error."""
    with Server(whole(BODY)) as server:
        pass
    with pytest.raises(ViduDownloadError, match="refused") as caught:
        fetch(server, shelf, max_retries=1)
    assert caught.value.retryable


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 70_000])
def test_what_is_no_http_is_told(shelf, garbage):
    """Something else than a web server is an error with words."""
    with (
        Server(lambda _request, wire: wire.send(garbage)) as server,
        pytest.raises(ViduDownloadError, match=r"not HTTP|broke|reset|closed"),
    ):
        fetch(server, shelf, max_retries=1)


def test_a_failing_store_ends_the_transfer(shelf):
    """A store's error is not mistaken for the network's: no retry, nothing left."""
    shelf = Shelf(fail_after=60_000)
    with Server(whole(BODY)) as server, pytest.raises(ViduStorageError, match="full"):
        fetch(server, shelf)
    assert len(server.requests) == 1
    assert shelf.discarded == 1


def test_a_cancelled_transfer_ends_soon():
    """cancel() from another thread ends a read that waits, and discards."""
    shelf = Shelf()
    arrived = threading.Event()

    def answer(request, wire):
        wire.head(200, Content_Type="video/mp4", Content_Length=len(BODY))
        wire.send(BODY[:50_000])
        arrived.set()
        wire.hold()

    with Server(answer) as server:
        transfer = Transfer(server.url(), shelf.open, access=Access(allowed_hosts=LOOPBACK))
        threading.Thread(target=lambda: (arrived.wait(5), transfer.cancel())).start()
        with pytest.raises(ViduDownloadError, match="cancelled"):
            transfer.run()
    assert shelf.published is None


def test_the_log_tells_progress_without_the_query(shelf, caplog):
    """Start, progress and end are told; the signature never is."""
    ticks = itertools.count(0.0, 11.0)
    with Server(whole(BODY)) as server, caplog.at_level("INFO"):
        fetch(server, shelf, path="/v/video.mp4?Signature=hush", clock=lambda: next(ticks), rate_window=1e9)
    assert "Fetching http://127.0.0.1" in caplog.text
    assert "bytes (" in caplog.text
    assert "100 %" in caplog.text
    assert SHA in caplog.text
    assert "hush" not in caplog.text
