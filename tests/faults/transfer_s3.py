"""S3 as a place for downloads: a real S3 API on a socket, and a door before it that can be shut."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import s3fs

from tests.faults.transfer_world import LARGE
from tests.integration.servers import Request, Server, Wire, s3_server
from tests.versions import object_stores


@pytest.fixture(scope="module", name="endpoint")
def s3_endpoint() -> Iterator[str]:
    """Start an S3 server for the module; return its URL."""
    with s3_server() as endpoint:
        yield endpoint


def settings(endpoint: str) -> dict[str, str]:
    """Return the environment in which a process finds the server at ``endpoint``, with and without a connection."""
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    conn = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra}
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AIRFLOW_CONN_MY_STORE": json.dumps(conn),
    }


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find S3 at ``endpoint``, and forget where it was before."""
    for name, value in settings(endpoint).items():
        monkeypatch.setenv(name, value)
    # s3fs repeats lost requests itself: five times, with doubling pauses of up to seconds.
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    object_stores()._STORE_CACHE.clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(name="s3")
def s3_client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Point the environment's credentials and Airflow's at the server; return a client."""
    point_at(endpoint, monkeypatch)
    yield boto3.client("s3", endpoint_url=endpoint)
    object_stores()._STORE_CACHE.clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(name="bucket")
def s3_bucket(s3: Any) -> str:
    """Return a new, empty bucket."""
    name = f"clips-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


def keys(s3: Any, bucket: str) -> tuple[list[str], int]:
    """Return what the bucket shows, and how many uploads hang in it."""
    listed = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return listed, len(s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []))


def body_of(s3: Any, bucket: str, key: str) -> bytes:
    """Return an object's content."""
    found: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return found


class Bucket:
    """A bucket as a home for the file."""

    name = "s3"
    size = LARGE

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self.bucket = bucket
        self.destination = f"s3://{bucket}/clips/t.mp4"

    def put(self, data: bytes | None) -> None:
        """Store the old object."""
        if data is not None:
            self._s3.put_object(Bucket=self.bucket, Key="clips/t.mp4", Body=data)

    def content(self) -> bytes | None:
        """Read it."""
        return (
            body_of(self._s3, self.bucket, "clips/t.mp4") if "clips/t.mp4" in keys(self._s3, self.bucket)[0] else None
        )

    def left_over(self) -> list[str]:
        """List the other keys, and the uploads that were not completed."""
        listed, uploads = keys(self._s3, self.bucket)
        return [key for key in listed if key != "clips/t.mp4"] + ["an unfinished upload"] * uploads


class Door(Server):
    """Stands before a store and passes everything on, but for the requests that ``shut`` answers itself.

    :param shut: takes a request; returns what is sent instead, or None to pass it on.
    :param after: whether the store gets the request all the same.
    """

    def __init__(self, store_url: str, shut: Callable[[Request], bytes | None], *, after: bool = False) -> None:
        super().__init__(self._answer)
        parts = urlsplit(store_url)
        self._store = (parts.hostname, parts.port)
        self.shut = shut
        self._after = after
        self.turned_away: list[str] = []
        self._noted = threading.Lock()
        self._deciding = threading.Lock()

    def _answer(self, request: Request, wire: Wire) -> None:
        instead = self.shut(request)
        if instead is None:
            # S3 decides about conditional completions one after the other; the server behind this door does not.
            with self._deciding if request.method == "POST" else contextlib.nullcontext():
                wire.send(self._passed_on(request, wire))
            return
        with self._noted:
            self.turned_away.append(request.line)
        if self._after:
            self._passed_on(request, wire)
        else:
            _body(request, wire)
        wire.send(instead)

    def _passed_on(self, request: Request, wire: Wire) -> bytes:
        lines = [
            line for line in request.raw.split(b"\r\n") if not line.lower().startswith((b"connection:", b"expect:"))
        ]
        with socket.create_connection(self._store, timeout=20) as onward:
            onward.sendall(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
            onward.sendall(_body(request, wire))
            answer = b""
            while data := onward.recv(1 << 20):
                answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        return head + b"\r\nConnection: close\r\n\r\n" + body


def _body(request: Request, wire: Wire) -> bytes:
    """Read the rest of a request's body."""
    if "100-continue" in request.headers.get("expect", ""):
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    body, size = request.body, int(request.headers.get("content-length", 0))
    while len(body) < size and (data := wire.sock.recv(1 << 20)):
        body += data
    return body


def refusal(status: int, code: str) -> bytes:
    """Return an error as S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body
