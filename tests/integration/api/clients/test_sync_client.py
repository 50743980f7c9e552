"""The sync client: which requests may share a connection, and which may have arrived."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import trustme

from airflow_provider_vidu.exceptions import ViduSubmitUnknownError, ViduTransportError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.sandbox import Sandbox
from tests.integration.servers import Request, Server, Wire, fixed, tunnel

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


def _forward(request: Request, wire: Wire) -> None:
    """Pass a cleartext POST on as a proxy does, and never pass the answer back."""
    place = urlsplit(request.target)
    lines = [line for line in request.raw.split(b"\r\n")[1:] if not line.lower().startswith(b"connection")]
    with socket.create_connection((place.hostname, place.port)) as onward:
        onward.sendall(b"\r\n".join([f"POST {place.path} HTTP/1.1".encode(), *lines, b"Connection: close", b"", b""]))
        onward.sendall(request.body)
        sent, length = len(request.body), int(request.headers["content-length"])
        while sent < length:
            data = wire.sock.recv(65536)
            onward.sendall(data)
            sent += len(data)
        while onward.recv(65536):
            pass


@pytest.mark.parametrize("dialect", ["vidu-native", "ent-v2"])
@pytest.mark.parametrize("ending", ["fin", "rst"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.usefixtures("quick_backoff")
def test_an_answer_lost_behind_a_proxy_is_an_unknown_outcome(monkeypatch, tmp_path, scheme, ending, dialect):
    """What was sent through a proxy may have been carried out: it is billed once, and not repeated."""
    authority, pem = trustme.CA(), tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def lose(request: Request, wire: Wire) -> None:
        _forward(request, wire)
        if ending == "rst":
            wire.reset()

    secure = scheme == "https"
    service = Sandbox(speed=1, models="any", tls=(pem, pem) if secure else None)
    with service, Server(tunnel if secure else lose) as proxy:
        if secure:
            action = {"reset": "before", "perform": True, "fin": ending == "fin"}
            service.add_fault({"match": {"kind": "create"}, "times": None, "action": action})
        extra = {"proxy": proxy.url(""), "verify": str(tmp_path / "ca.pem"), "timeout": 5}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", service.connection_json(dialect, **extra))
        with pytest.raises(ViduSubmitUnknownError, match="outcome is unknown"):
            ViduHook().create_generation(prompt="a cat", model="m")
        assert len(service.creates) == 1


@pytest.mark.usefixtures("quick_backoff")
def test_a_proxy_that_lets_nothing_through_is_asked_again(monkeypatch):
    """Nothing was sent to the service where its proxy refused the tunnel: the create may be repeated."""
    with Server(fixed(502, b"no")) as proxy:
        stored = {"conn_type": "vidu", "host": "https://127.0.0.1:9", "password": "sk"}
        extra = {"proxy": proxy.url(""), "max_retries": 2}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps({**stored, "extra": extra}))
        with pytest.raises(ViduTransportError) as caught:
            ViduHook().create_generation(prompt="a cat", model="m")
        assert not caught.value.sent
        assert [request.method for request in proxy.requests] == ["CONNECT"] * 3
