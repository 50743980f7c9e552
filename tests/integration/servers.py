"""A loopback HTTP server that misbehaves byte for byte on demand, and records what it was sent."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[["Request", "Wire"], None]
LAST_MODIFIED = "Mon, 06 Jul 2026 10:00:00 GMT"


@dataclass(frozen=True)
class Request:
    """A request as it stood on the wire: its head, and as much of its body as came with it."""

    raw: bytes
    body: bytes = b""
    line: str = field(init=False)
    method: str = field(init=False)
    target: str = field(init=False)
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        lines = self.raw.decode("latin-1").split("\r\n")
        object.__setattr__(self, "line", lines[0])
        method, target, _ = lines[0].split(" ", 2)
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "target", target)
        pairs = (line.partition(":") for line in lines[1:] if line)
        object.__setattr__(self, "headers", {name.lower(): value.strip() for name, _, value in pairs})

    @property
    def start(self) -> int | None:
        """The first byte of ``Range: bytes=N-``, or None without a range."""
        value = self.headers.get("range")
        return int(value.removeprefix("bytes=").rstrip("-")) if value else None


class Wire:
    """The server's end of a connection."""

    def __init__(self, sock: socket.socket, stopped: threading.Event) -> None:
        self.sock = sock
        self._stopped = stopped

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def head(self, status: int, **headers: str | int | None) -> None:
        """Send a status line and headers; underscores in names become dashes, None leaves one out."""
        lines = [f"HTTP/1.1 {status} Whatever"]
        # Each answer is the connection's last: a client that is not told so may send its next request into the close.
        lines += [
            f"{name.replace('_', '-')}: {value}"
            for name, value in {"Connection": "close", **headers}.items()
            if value is not None
        ]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8"))

    def reset(self) -> None:
        """Break the connection with a reset instead of an orderly end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def hold(self, most: float = 10.0) -> None:
        """Stay silent until the client gives up or the server stops."""
        self.sock.settimeout(0.05)
        for _ in range(int(most / 0.05)):
            if self._stopped.is_set():
                return
            try:
                if not self.sock.recv(1024):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


class Server:
    """Answers each request with the next of ``answers``; the last one stays for all that follow.

    :param answers: functions that take the request and the wire.
    :param tls: serve https with this context.
    """

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self._tls = tls
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.host = "127.0.0.1"
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()

    def url(self, path: str = "/v/video.mp4", host: str | None = None) -> str:
        """Return the absolute URL of ``path`` on this server."""
        return f"{'https' if self._tls else 'http'}://{host or self.host}:{self.port}{path}"

    def __enter__(self) -> Server:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:  # a client keeps its connections: a thread would read from one until a timeout
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS's own would pull the session from under a read
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        try:
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with self._lock:
                self._open.add(sock)
            raw = b""
            while b"\r\n\r\n" not in raw:
                if not (data := sock.recv(65536)):
                    return
                raw += data
            head, _, body = raw.partition(b"\r\n\r\n")
            request = Request(head, body)
            with self._lock:
                self.requests.append(request)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            answer(request, Wire(sock, self._stopped))
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            sock.close()


def fixed(status: int, body: bytes = b"", **headers: str | int | None) -> Answer:
    """Return an answer of fixed status, headers and body."""

    def answer(request: Request, wire: Wire) -> None:
        wire.head(status, **{"Content_Length": len(body), **headers})
        wire.send(body)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    """Return an answer that sends the client elsewhere."""
    return fixed(status, Location=location)


def whole(body: bytes, *, cut: int | None = None, reset: bool = False, stall: bool = False, **headers) -> Answer:
    """Return the file with status 200, whatever range was asked for.

    :param cut: stop after so many bytes of the body: orderly, with a reset, or falling silent.
    """

    def answer(request: Request, wire: Wire) -> None:
        wire.head(200, **{"Content_Type": "video/mp4", "ETag": '"v1"', "Content_Length": len(body), **headers})
        wire.send(body if cut is None else body[:cut])
        if stall:
            wire.hold()
        if reset:
            wire.reset()

    return answer


def ranged(body: bytes, *, cut: int | None = None, etag: str = '"v1"', **headers) -> Answer:
    """Return the asked part with status 206 when If-Range names the ETag, else the whole file.

    :param cut: stop after so many bytes of the body.
    """

    def answer(request: Request, wire: Wire) -> None:
        common = {"Content_Type": "video/mp4", "ETag": etag, **headers}
        start = request.start
        if start is None or request.headers.get("if-range") not in (None, common["ETag"], common.get("Last_Modified")):
            wire.head(200, **{"Content_Length": len(body), **common})
            part = body
        else:
            part = body[start:]
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            wire.head(206, **{"Content_Length": len(part), "Content_Range": span, **common})
        wire.send(part if cut is None else part[:cut])

    return answer


def chunked(body: bytes, *, piece: int = 5000, cut: int | None = None, **headers) -> Answer:
    """Return the file in chunks; with ``cut`` the connection ends before the last chunk."""

    def answer(request: Request, wire: Wire) -> None:
        wire.head(200, **{"Content_Type": "video/mp4", "Transfer_Encoding": "chunked", **headers})
        sent = body if cut is None else body[:cut]
        for at in range(0, len(sent), piece):
            part = sent[at : at + piece]
            wire.send(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        if cut is None:
            wire.send(b"0\r\n\r\n")

    return answer


def trickling(start: bytes, piece: bytes, *, seconds: float, pause: float) -> Answer:
    """Return an answer that begins with ``start`` and goes on for ``seconds``: a piece after each ``pause``."""

    def answer(_: Request, wire: Wire) -> None:
        wire.send(start)
        for _ in range(round(seconds / pause)):
            try:
                wire.sock.sendall(piece)
            except OSError:
                return
            time.sleep(pause)

    return answer


@contextlib.contextmanager
def s3_server(bucket: str | None = None) -> Iterator[str]:
    """Run an S3, with a bucket if one is named, and yield its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        if bucket is not None:
            s3_client(endpoint).create_bucket(Bucket=bucket)
        yield endpoint
    finally:
        server.stop()


def s3_client(endpoint: str) -> Any:
    """Return a client of that S3."""
    import boto3

    known = {"aws_access_key_id": "made-up", "aws_secret_access_key": "made-up", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=endpoint, **known)


def video(size: int = 100_000, seed: int = 1) -> bytes:
    """Return ``size`` bytes with the box structure of an MP4 and content that never repeats."""
    head = (24).to_bytes(4, "big") + b"ftypisom" + b"\0\0\2\0" + b"isommp41"
    length = size - len(head)
    pattern = b"".join((n * 2654435761 + seed).to_bytes(8, "big") for n in range(length // 8 + 1))
    return head + length.to_bytes(4, "big") + b"mdat" + pattern[: length - 8]


def tunnel(request: Request, wire: Wire) -> None:
    """Answer CONNECT as a proxy does, and carry the bytes."""
    wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    host, _, port = request.target.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as onward:
        ends = {wire.sock: onward, onward: wire.sock}
        while readable := select.select(list(ends), [], [], 10)[0]:
            for ready in readable:
                if not (data := ready.recv(65536)):
                    return
                ends[ready].sendall(data)
