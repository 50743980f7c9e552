"""The transfer engine against servers that misbehave: what arrives is whole, or nothing is published."""

from __future__ import annotations

import hashlib
import itertools
import logging
import threading
import traceback

import pytest

from airflow_provider_vidu.downloads.transfer import Rules, Transfer
from airflow_provider_vidu.exceptions import (
    ViduDownloadError,
    ViduDownloadRefusedError,
    ViduIncompleteError,
    ViduMissingVideoError,
    ViduStorageError,
    ViduURLExpiredError,
)
from airflow_provider_vidu.network.download_url import DownloadAccess
from airflow_provider_vidu.stores.base import AtomicWriter
from tests.integration.servers import Server, chunked, fixed, ranged, video, whole

BODY = video(100_000)
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = video(90_000, seed=2)
LOOPBACK = frozenset({"127.0.0.1"})
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Shelf:
    """Stands for a store: what was published, and how often it was begun and discarded."""

    def __init__(self, *, fail_after: int | None = None) -> None:
        self.published: bytes | None = None
        self.begun: list[tuple[str, int | None]] = []
        self.discarded = 0
        self.fail_after = fail_after

    def open(self, content_type: str, total: int | None) -> AtomicWriter:
        """Begin a file."""
        self.begun.append((content_type, total))
        return _ShelfWriter(self)


class _ShelfWriter(AtomicWriter):
    uri = "shelf://a.mp4"

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
    access |= {name: settings.pop(name) for name in list(settings) if name in DownloadAccess.__dataclass_fields__}
    noted = [] if sleeps is None else sleeps
    transfer = Transfer(
        server.url(path),
        shelf.open,
        access=DownloadAccess(**access),
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


@pytest.mark.parametrize("size", [20, 4095, 4096, 4097, 262_144, 262_145, 700_001])
def test_every_size_arrives(shelf, size):
    """Sizes around the buffers' own are as good as any."""
    body = video(1_000_000)[:size]
    with Server(whole(body)) as server:
        assert fetch(server, shelf).sha256 == hashlib.sha256(body).hexdigest()
    assert shelf.published == body


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


@pytest.mark.parametrize("answer", [chunked(BODY), whole(BODY, Content_Length=None)], ids=["chunked", "until-close"])
def test_a_file_without_an_announced_length_arrives(shelf, answer):
    """Chunks, and bodies that end with the connection, are taken."""
    with Server(answer) as server:
        assert fetch(server, shelf).sha256 == SHA
    assert shelf.begun == [("video/mp4", None)]


@pytest.mark.parametrize(
    "answer",
    [
        fixed(200, b"<!DOCTYPE html><p>sorry", Content_Type="text/html"),
        fixed(200, b"<html>" + b" " * 5000, Content_Type="video/mp4"),
        fixed(200, b'{"error": "gone"}', Content_Type="video/mp4"),
        fixed(200, b"no video", Content_Type="text/plain"),
    ],
    ids=["html", "html-as-video", "json-as-video", "text"],
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


SIGNED = "/v.mp4?X-Amz-Credential=AKIAEXAMPLE%2F20261125%2Fus&X-Amz-Signature=0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("quoted", [SIGNED, "<SignatureProvided>0123456789abcdef0123456789abcdef</SignatureProvided>"])
@pytest.mark.parametrize("status", [200, 400, 403])
def test_a_signature_that_the_store_quotes(shelf, status, quoted):
    """The message goes to a log that more people may read than may open the file."""
    with Server(fixed(status, quoted.encode())) as server, pytest.raises(ViduDownloadError) as caught:
        fetch(server, shelf, path=SIGNED, max_retries=0, fresh_url=lambda: server.url(SIGNED))
    assert "0123456789abcdef" not in str(caught.value)
    assert status == 403 or "***" in str(caught.value)


@pytest.mark.parametrize("answer", [b"GET Bearer sk-quoted\r\n\r\n", CHUNKED + b"sk-quoted\r\n"])
def test_what_was_no_http_is_in_no_cause(shelf, answer):
    """Errors of http.client quote it; a traceback shows them as long as they are context or cause."""
    with Server(lambda _, wire: wire.send(answer)) as server, pytest.raises(ViduDownloadError) as caught:
        fetch(server, shelf, max_retries=0)
    assert "sk-quoted" not in "".join(traceback.format_exception(caught.value))


def test_a_refused_connection_is_retried_and_told(shelf):
    """A refused connection is a retryable error."""
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
        transfer = Transfer(server.url(), shelf.open, access=DownloadAccess(allowed_hosts=LOOPBACK))
        threading.Thread(target=lambda: (arrived.wait(5), transfer.cancel())).start()
        with pytest.raises(ViduDownloadError, match="cancelled"):
            transfer.run()
    assert shelf.published is None


def test_the_log_tells_progress_without_the_query(shelf, caplog):
    """Start and end are logged; the signature never is."""
    ticks = itertools.count(0.0, 11.0)
    with Server(whole(BODY)) as server, caplog.at_level("INFO"):
        fetch(server, shelf, path="/v/video.mp4?Signature=hush", clock=lambda: next(ticks), timeout=1e6)
    assert "Fetching http://127.0.0.1" in caplog.text
    assert "Fetched 100.0 kB of video/mp4" in caplog.text
    assert "hush" not in caplog.text


def test_the_progress_is_told_in_a_few_lines(shelf, caplog):
    """A transfer of some minutes (by its clock) leaves an early line, some on the way, and a last one."""
    body = video(40 * 256 * 1024)
    seconds = itertools.count()
    with Server(whole(body)) as server, caplog.at_level(logging.INFO):
        fetch(server, shelf, clock=lambda: float(next(seconds)))
    reads = next(seconds)
    told = [record.message for record in caplog.records if " of 10.5 MB, " in record.message]
    assert 3 <= len(told) <= 4 + reads / 10
    assert all("/s, about " in line for line in told)
    assert any(record.message.startswith("Fetched 10.5 MB of video/mp4 in ") for record in caplog.records)


@pytest.mark.fault(
    "transfer",
    "a pause before a retry, and a slow end of the upload",
    outcome="survived",
    says="Fetched 100.0 kB of video/mp4 in 0.1 s",
)
def test_the_rate_is_about_the_bytes(shelf, caplog, monkeypatch):
    """Neither a pause before a retry nor the end of an upload counts as time in which bytes came."""
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += 100 * seconds

    monkeypatch.setattr(_ShelfWriter, "publish", lambda _writer: wait(10))
    with Server(whole(BODY, cut=50_000), ranged(BODY)) as server, caplog.at_level(logging.INFO):
        fetch(server, shelf, clock=lambda: now[0], sleep=wait)
    assert now[0] > 1000
    assert [record.message for record in caplog.records][-1] == "Fetched 100.0 kB of video/mp4 in 0.1 s"
