"""TLS sockets whose calls end in time, even if a peer sends nothing but messages without data."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from typing import Any, Final

_ROUND_SECONDS: Final = 1.0
"""How often calls are checked, and how much longer than its timeout one may take."""


class GuardedSocket(ssl.SSLSocket):
    """A TLS socket whose timeout holds for session tickets, requests to begin again, key updates and the like.

    OpenSSL takes such messages one after the other and returns only for data, or when nothing has arrived. Meanwhile
    Python checks no timeout and runs no signal handler: two megabytes of them a second held a worker for ever.
    """

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - its name in the base class
        """Read data; raises TimeoutError also while other messages arrive."""
        _watch.begin(self)
        try:
            return super().read(len, buffer)
        finally:
            _watch.end(self)

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands; raises TimeoutError also while messages arrive that end nothing."""
        _watch.begin(self)
        try:
            super().do_handshake(block)
        finally:
            _watch.end(self)


class _Watch:
    """Shuts sockets down whose call is overdue, in a thread that lives while there are calls."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything; in a forked process no other thread lives on, and one of them may have held the lock."""
        self._lock = threading.Lock()
        self._until: dict[socket.socket, float] = {}
        self._overdue: set[socket.socket] = set()
        self._thread: threading.Thread | None = None

    def begin(self, sock: socket.socket) -> None:
        """Shut ``sock`` down if the call that begins takes longer than its timeout."""
        timeout = sock.gettimeout()
        if not timeout:
            return
        with self._lock:
            self._until[sock] = time.monotonic() + timeout + _ROUND_SECONDS
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="vidu-tls", daemon=True)
                with contextlib.suppress(RuntimeError):  # none can be started while the process ends
                    self._thread.start()

    def end(self, sock: socket.socket) -> None:
        """Note that the call has ended; raises TimeoutError if the socket was shut down."""
        with self._lock:
            self._until.pop(sock, None)
            if sock not in self._overdue:
                return
            self._overdue.remove(sock)
        raise TimeoutError("the peer sent no data in time, only other TLS messages") from None

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(_ROUND_SECONDS):
            now = time.monotonic()
            with self._lock:
                if not self._until:
                    self._thread = None
                    return
                for sock in [sock for sock, until in self._until.items() if until < now]:
                    self._overdue.add(sock)
                    with contextlib.suppress(OSError):
                        # Not SSLSocket's own, which would take the TLS state away from the call.
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)


_watch = _Watch()
os.register_at_fork(after_in_child=_watch.reset)
