"""The service that all downloads come from: files of any size, sent by the kernel.

A thread for each connection, which answers a ``GET /SIZE/name.mp4`` with ``SIZE`` bytes: a head that shows an
MP4, then one block of random bytes over and over, from the page cache with ``sendfile``. So the server costs as
little as a server can, and its bytes look like a video's. Run as ``python -m benchmarks.file_server FOLDER``: it
prints ``{"port": …}`` and serves until it is terminated.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path

HOST = "127.0.0.1"
BLOCK = 64 * 1024 * 1024
HEAD = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + b"\x00\x00\x00\x01mdat" + (1 << 40).to_bytes(8, "big")


def main(folder: Path) -> None:
    """Serve until terminated."""
    path = folder / "served.mp4"
    path.write_bytes(HEAD + os.urandom(BLOCK - len(HEAD)))
    descriptor = os.open(path, os.O_RDONLY)
    path.unlink()  # open, it stays; and nothing is left behind
    with socket.create_server((HOST, 0), backlog=64) as server:
        print(json.dumps({"port": server.getsockname()[1]}), flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, descriptor), daemon=True).start()


def _serve(connection: socket.socket, descriptor: int) -> None:
    with connection, contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = b""
        while True:
            while b"\r\n\r\n" not in asked:
                if not (more := connection.recv(65536)):
                    return
                asked += more
            head, _, asked = asked.partition(b"\r\n\r\n")
            _answer(connection, descriptor, int(head.split(b" ", 2)[1].split(b"/")[1]))


def _answer(connection: socket.socket, descriptor: int, size: int) -> None:
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nAccept-Ranges: none\r\n"
        b'ETag: "bench-%d"\r\nContent-Length: %d\r\n\r\n' % (size, size)
    )
    left = size
    while left:
        at = (size - left) % BLOCK
        left -= os.sendfile(connection.fileno(), descriptor, at, min(left, BLOCK - at))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
