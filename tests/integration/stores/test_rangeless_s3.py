"""Files that a worker reads from a store compatible with S3 that ignores which part is requested."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.media.files import MediaFile, opened_input
from airflow_provider_vidu.stores.base import MIB
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.stores.small_files import content_of, is_there
from tests.integration.servers import Request, Server, Wire

WHOLE = 400 * MIB


class Rangeless:
    """Such a store; each name is an object of 400 MiB, of which a HEAD may announce less."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def __call__(self, request: Request, wire: Wire) -> None:
        announced = 1_000 if request.method == "HEAD" and "lie" in request.target else WHOLE
        wire.head(200, Content_Length=announced, ETag='"v1"', Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")
        if request.method == "HEAD":
            return
        count = 0
        with suppress(OSError):
            while count < WHOLE:
                count += wire.sock.send(b"0123456789abcdef" * (MIB // 16))
        self.sent.append(count)


@pytest.fixture
def store(monkeypatch):
    """Return the store, with an Airflow connection."""
    rangeless = Rangeless()
    with Server(rangeless) as server:
        extra = {"endpoint_url": server.url("").rstrip("/"), "region_name": "us-east-1"}
        stored = {"conn_type": "aws", "login": "someone", "password": "something", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_RANGELESS", json.dumps(stored))
        yield rangeless


@pytest.mark.fault(
    "attacks",
    "a store that ignores the range of a request, or lies about it",
    outcome="survived",
    side="worker",
    seen="no more of an answer in memory than was asked for",
)
def test_a_worker_reads_no_more_of_an_answer_than_it_requests(store):
    """The look for a journal, a file of rows and a picture each took the whole object, twice, into memory."""
    assert is_there(Destination("s3://clips/state.json", "rangeless").file())
    with opened_input("s3://clips/rows.jsonl", "rows", "rangeless") as rows:
        assert rows.read(20) == b"0123456789abcdef0123"
        rows.seek(3_000_001)
        assert rows.read(20) == b"123456789abcdef01234"
    with pytest.raises(ViduConfigError, match="not png"):
        MediaFile("s3://clips/lie.png", "image", "images[0]", "rangeless").load()
    assert len(content_of(Destination("s3://clips/lie.json", "rangeless").file()) or b"") == 1_000
    assert max(store.sent) < 100 * MIB
