"""A service that a test runs on loopback, with the standard library's server."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Exchange(BaseHTTPRequestHandler):
    """One request, on a connection that stays open; the service answers it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        self.server.service.serve(self)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def respond(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, service: Loopback) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.service = service


class Loopback(ABC):
    """A service, as a context manager that runs it; the port is the system's choice."""

    def __init__(self) -> None:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @abstractmethod
    def serve(self, exchange: Exchange) -> None:
        """Answer a request, in a thread of its connection."""

    @property
    def url(self) -> str:
        """The service's address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def connected(self, key: str, **fields: Any) -> str:
        """Return an Airflow connection to it, with ``ent-v2`` and no retries.

        :param fields: further extras.
        """
        extra = {"dialect": "ent-v2", "max_retries": 0, "timeout": 5, **fields}
        return json.dumps({"conn_type": "vidu", "host": self.url, "password": key, "extra": extra})
