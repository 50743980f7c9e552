"""Sending a file to a store that misbehaves: it ends in time, with an error that says whether a retry helps."""

from __future__ import annotations

import io
import socket
import threading
import time

import pytest

from airflow_provider_vidu.api.input_uploads import put
from airflow_provider_vidu.exceptions import (
    ViduConfigError,
    ViduRequestError,
    ViduResponseError,
    ViduServerError,
    ViduTransportError,
)
from airflow_provider_vidu.network.download_url import DownloadAccess
from tests.integration.servers import Answer, Request, Server, Wire, fixed, redirect, trickling
from tests.rows import each_row

pytestmark = pytest.mark.integration

TIMEOUT = 0.2
SOON = 10.0
"""Seconds that no upload here comes near, even on a busy machine; what trickles does so for longer."""
TAKEN = b'HTTP/1.1 200 OK\r\nETag: "e1"\r\nContent-Length: 0\r\n\r\n'


def send(server: Server, size: int = 1000, timeout: float = TIMEOUT) -> str:
    """Upload so many bytes."""
    access = DownloadAccess(allowed_hosts=frozenset({"127.0.0.1"}), timeout=timeout)
    return put(server.url("/put?sig=hush"), io.BytesIO(bytes(size)), size, "image/png", access)


def endless(start: bytes, piece: bytes) -> Answer:
    """Return an answer that never ends: a piece now and then, well within the timeout."""
    return trickling(start, piece, seconds=2 * SOON, pause=TIMEOUT / 10)


@pytest.mark.parametrize(
    "answer",
    [
        endless(b"HTTP/1.1 200 ", b"x"),
        endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        lambda _, wire: wire.hold(),
    ],
    ids=["status line", "header lines", "interim answers", "silence"],
)
def test_an_answer_that_does_not_come_to_an_end(answer):
    """Nothing holds the worker, and a retry costs nothing."""
    began = time.monotonic()
    with Server(answer) as server, pytest.raises(ViduTransportError, match="A retry uploads it again") as caught:
        send(server)
    assert time.monotonic() - began < SOON
    assert "hush" not in str(caught.value)


def test_a_file_that_is_taken_byte_by_byte():
    """The store's buffers are full, and it reads a little within every time-out."""
    done = threading.Event()

    def sip(_: Request, wire: Wire) -> None:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while not done.wait(TIMEOUT / 4) and wire.sock.recv(64):
            pass

    began = time.monotonic()
    with Server(sip) as server:
        try:
            with pytest.raises(ViduTransportError):
                send(server, 20_000_000)
        finally:
            done.set()
    assert time.monotonic() - began < SOON


def test_an_error_whose_text_trickles():
    """The status is what counts."""
    with (
        Server(endless(b"HTTP/1.1 400 No\r\nContent-Length: 9999\r\n\r\n", b"x")) as server,
        pytest.raises(ViduRequestError, match="HTTP status 400"),
    ):
        send(server)


def test_an_interim_answer():
    """What comes before the answer is none."""
    with Server(lambda _, wire: wire.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + TAKEN)) as server:
        assert send(server, timeout=5) == '"e1"'


@each_row(
    ("answer", "error"),
    [
        (redirect("http://169.254.169.254/latest/"), ViduResponseError),
        (fixed(200), ViduResponseError),
        (fixed(200, ETag="e" * 2000), ViduResponseError),
        (fixed(403), ViduServerError),
        (fixed(503), ViduServerError),
        (fixed(405), ViduRequestError),
    ],
    ids=["redirect", "no ETag", "a long ETag", "expired", "busy", "refused"],
)
def test_what_else_a_store_answers(answer, error):
    """Redirects are not followed, and only what may pass is tried again."""
    with Server(answer) as server, pytest.raises(error):
        send(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["http://10.0.0.1/put", "http://169.254.169.254/", "ftp://127.0.0.1/", "http://u:p@h/"])
def test_nothing_goes_to_private_addresses(url):
    """The service names the address; it may be anything."""
    with pytest.raises(ViduConfigError, match="returned an address that is not allowed"):
        put(url, io.BytesIO(b"x"), 1, "image/png", DownloadAccess())
