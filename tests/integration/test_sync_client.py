"""The sync client: which requests may share a connection."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from airflow_provider_vidu.hooks import ViduHook

pytestmark = pytest.mark.integration

ANSWER = json.dumps({"id": "g", "status": "pending"}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.ports.append((self.command, self.client_address[1]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def service():
    """Run a service that keeps connections open and notes from which port each request came."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.ports = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


@pytest.mark.parametrize("way", ["direct", "proxy"])
def test_a_billed_create_has_a_connection_of_its_own(service, monkeypatch, way):
    """Queries share a connection; a create never goes out on one that lay idle, so that its outcome is known."""
    url = f"http://127.0.0.1:{service.server_port}"
    stored = {"conn_type": "vidu", "host": url, "password": "sk", "extra": {"proxy": url if way == "proxy" else None}}
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(stored))
    hook = ViduHook()
    for _ in range(2):
        hook.get_generation("g")
    for _ in range(2):
        hook.create_generation(prompt="a cat", model="m")
    methods, ports = zip(*service.ports, strict=True)
    assert methods == ("GET", "GET", "POST", "POST")
    assert ports[0] == ports[1]
    assert len(set(ports)) == 3
