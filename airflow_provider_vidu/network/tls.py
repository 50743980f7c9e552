"""TLS of the sync client, the async client and downloads: trusted certificates, and sockets whose calls end in time."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError

BUNDLE_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Environment variables that name a CA bundle; the first one set replaces the default trust store."""
_ROUND_SECONDS: Final = 1.0
"""How often calls are checked, and how much longer than its timeout one may take."""


def ssl_context(verify: bool | str = True, environ: Mapping[str, str] | None = None) -> ssl.SSLContext:
    """Return the TLS context for a connection's ``verify``. It is cached and shared: do not change it.

    With True, a bundle named by ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE`` or ``SSL_CERT_FILE`` is the only one
    trusted, as with requests and curl. Without one, the system's store and certifi's bundle are both trusted: slim
    images lack the former, companies add their own CA to it.

    :param verify: true, false, or the path of a CA bundle (a file, or a directory made by ``c_rehash``).
    :param environ: the environment to read; the process's own if omitted.
    :raises ViduConfigError: when the bundle cannot be read or contains no certificate.
    """
    if verify is False:
        return _unverified()
    if isinstance(verify, str):
        return _trusting("the connection's verify", verify, _fingerprint(verify))
    for name in BUNDLE_VARIABLES:
        # In no variable: error trackers collect those of a timeout or an error, and the environment holds connections.
        if path := (os.environ if environ is None else environ).get(name):
            return _trusting(f"the environment variable {name}", path, _fingerprint(path))
    return _default()


@lru_cache(maxsize=1)
def _default() -> ssl.SSLContext:
    context = ssl.create_default_context()
    with suppress(ImportError, OSError):  # distributions ship Python without certifi's file; the system store remains
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return _of_clients(context)


@lru_cache(maxsize=32)
def _trusting(source: str, path: str, _fingerprint: tuple[int, int]) -> ssl.SSLContext:
    place = Path(path).expanduser()
    try:
        is_folder = place.is_dir()
        context = ssl.create_default_context(
            cafile=None if is_folder else str(place), capath=str(place) if is_folder else None
        )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        detail = getattr(error, "strerror", None) or str(error)
        reason = "it contains no certificate in PEM form" if isinstance(error, ssl.SSLError) else detail
        raise ViduConfigError(
            f"The CA bundle {sanitized(path)!r} named by {source} cannot be used: {reason}."
        ) from None
    return _of_clients(context)


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _of_clients(context)


def _of_clients(context: ssl.SSLContext) -> ssl.SSLContext:
    # Neither client supports HTTP/2; some gateways choose it unless the client offers only HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = GuardedSocket
    # After a request to begin again, a write would read the peer's messages, also without end (GuardedSocket).
    context.options |= ssl.OP_NO_RENEGOTIATION
    # With DHE the peer chooses the modulus: one of 10,000 bits took a second of the event loop. No browser has DHE.
    offered = [cipher["name"] for cipher in context.get_ciphers() if not cipher["name"].startswith("DHE-")]
    context.set_ciphers(":".join(offered))
    return context


def _fingerprint(path: str) -> tuple[int, int]:
    # A bundle replaced on disk must not come from the cache.
    try:
        status = Path(path).expanduser().stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_mtime_ns, status.st_size


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
        # A signal handler may begin a call in the middle of this: Airflow cancels a killed task's generation in one.
        self._lock = threading.RLock()
        self._until: dict[socket.socket, float] = {}
        self._overdue: set[socket.socket] = set()
        self._thread: threading.Thread | None = None

    def begin(self, sock: socket.socket) -> None:
        """Shut ``sock`` down if the call that begins takes longer than its timeout, which may be zero."""
        timeout = sock.gettimeout()
        if timeout is None:
            return
        with self._lock:
            self._until[sock] = time.monotonic() + timeout + _ROUND_SECONDS
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="vidu-tls", daemon=True)
                with suppress(RuntimeError):  # none can be started while the process ends
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
                    with suppress(OSError):
                        # Not SSLSocket's own, which would take the TLS state away from the call.
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)


_watch = _Watch()
os.register_at_fork(after_in_child=_watch.reset)
