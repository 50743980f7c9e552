"""A server that sends TLS messages without data, faster than a client takes them."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RECORD = 16_384
HELLO_REQUESTS = b"\x16\x03\x03\x40\x00" + bytes(RECORD)
"""A record of 4,096 messages in cleartext that ask the client to begin, as it has already (RFC 5246, 7.4.1.1)."""
TICKET = bytes.fromhex("0400000e 00000000 00000000 00 0001 41 0000")
"""A session ticket (RFC 8446, 4.6.1)."""
KEY_UPDATE = bytes.fromhex("18 000001 01")
"""A new key, and a request for one (RFC 8446, 4.6.3)."""
HANDSHAKE, DATA = b"\x16", b"\x17"
"""The types of records."""
DATA_BYTES = {"tickets": 0, "a file, then tickets": 0, "tickets and data": 600, "key updates and data": 40}
"""How many bytes of data follow each record of other messages."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n"
FILE = b"\0\0\0\x18ftypisom\0\0\0\0isommp42\0\0\x20\0mdat" + bytes(8192 - 8)
WHOLE_FILE = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n%b" % (len(FILE), FILE)


class _Keys:
    """Encrypts what a server sends after its handshake, with TLS_AES_256_GCM_SHA384."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(_expanded(secret, b"key", 32))
        self._start = int.from_bytes(_expanded(secret, b"iv", 12), "big")
        self._number = 0

    def record(self, messages: bytes, kind: bytes) -> bytes:
        head = b"\x17\x03\x03" + struct.pack(">H", len(messages) + 17)
        nonce = (self._start ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._cipher.encrypt(nonce, messages + kind, head)

    def update(self) -> bytes:
        """Return the record that announces new keys, and use them from now on."""
        record = self.record(KEY_UPDATE, HANDSHAKE)
        self.__init__(_expanded(self._secret, b"traffic upd", 48))  # type: ignore[misc]
        return record


def _expanded(secret: bytes, label: bytes, length: int) -> bytes:
    label = b"tls13 " + label
    info = struct.pack(">HB", length, len(label)) + label + b"\0\1"
    return hmac.new(secret, info, hashlib.sha384).digest()[:length]


def _after_the_handshake(kind: str, sock: socket.socket, log: Path) -> Iterator[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    context.num_tickets, context.keylog_filename = 0, str(log)
    came, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(came, sent, server_side=True)
    for step in (tls.do_handshake, tls.read):
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                step()
                break
            sock.sendall(sent.read())
            came.write(sock.recv(65_536))
    lines = [line.split() for line in log.read_text().splitlines()]
    keys = _Keys(bytes.fromhex(next(words[2] for words in reversed(lines) if words[0] == "SERVER_TRAFFIC_SECRET_0")))
    data = b" " * DATA_BYTES[kind]
    if data:
        yield keys.record(ANSWER, DATA)
    if kind == "a file, then tickets":
        tickets = TICKET * (RECORD // len(TICKET))
        # Ahead, because they must arrive faster than they are taken.
        yield keys.record(WHOLE_FILE, DATA) + b"".join(keys.record(tickets, HANDSHAKE) for _ in range(400))
    while True:
        is_update = kind == "key updates and data"
        other = keys.update() if is_update else keys.record(TICKET * (RECORD // len(TICKET)), HANDSHAKE)
        yield other + keys.record(data, DATA) if data else other


def _hello_requests(sock: socket.socket) -> Iterator[bytes]:
    sock.recv(65_536)
    while True:
        yield HELLO_REQUESTS * 8


@contextlib.contextmanager
def flooding(kind: str, seconds: float, folder: Path) -> Iterator[str]:
    """Provide the address of a server that floods each client for so many seconds, then ends the connection.

    :param kind: ``hello requests``, during the handshake, ``tickets``, in place of an answer, ``a file, then
        tickets``, ``tickets and data`` or ``key updates and data``.
    :param folder: for the keys of the connections.
    """

    def serve(sock: socket.socket, number: int) -> None:
        until = time.monotonic() + seconds
        log = folder / f"keys{number}"
        pieces = _hello_requests(sock) if kind == "hello requests" else _after_the_handshake(kind, sock, log)
        with sock, contextlib.suppress(OSError, ssl.SSLError):
            while time.monotonic() < until:
                sock.sendall(next(pieces))

    def accept() -> None:
        with contextlib.suppress(OSError):
            for number in range(100):
                threading.Thread(target=serve, args=(listener.accept()[0], number), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
