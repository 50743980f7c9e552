"""Whom the clients trust, over real TLS: what the connection's verify names, and for good."""

from __future__ import annotations

import asyncio
import json
import ssl
from urllib.parse import urlsplit

import pytest
import trustme

from airflow_provider_vidu.exceptions import ViduTransportError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.network.tls import ssl_context
from airflow_provider_vidu.sandbox import Sandbox
from tests.integration.servers import Request, Server, Wire, fixed, tunnel

pytestmark = pytest.mark.integration

ANSWER = json.dumps({"id": "g", "status": "processing"}).encode()


@pytest.fixture(scope="module")
def authority():
    """Return a certificate authority that only the test trusts."""
    return trustme.CA()


@pytest.fixture(scope="module")
def gateway(authority, tmp_path_factory):
    """Run a service whose certificate is the authority's."""
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with Sandbox(speed=0, tls=(pem, pem)) as running:
        running.add_generation("g", states=[["processing", 0]])
        yield running


@pytest.fixture
def https(authority):
    """Return the TLS settings of a proxy on loopback with a certificate of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def bundle(authority, tmp_path):
    """Return the path of a bundle that holds the authority's certificate."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture
def strangers(tmp_path):
    """Return the path of a bundle that holds another authority's certificate."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    return str(tmp_path / "other.pem")


@pytest.fixture
def connect(gateway, monkeypatch):
    """Put a connection to the gateway into the environment."""

    def connect(host: str | None = None, **extra) -> None:
        stored = json.loads(gateway.connection_json(max_retries=0, timeout=5, **extra))
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(stored | ({"host": host} if host else {})))

    return connect


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Ask for the generation with each client in turn."""
    if request.param == "sync":
        return lambda: ViduHook().get_generation("g")
    return lambda: asyncio.run(ViduHook().aget_generation("g"))


@pytest.mark.parametrize("named_by", ["verify", "environment", "nobody"])
def test_a_request_changes_nobodys_trust(connect, ask, bundle, monkeypatch, named_by):
    """A bundle of one's own is enough to be answered, and still the only trust of the process afterwards."""
    if named_by == "environment":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    verify = {"verify": bundle, "environment": True, "nobody": False}[named_by]
    connect(verify=verify)
    context = ssl_context(verify)
    before, mode = set(context.get_ca_certs(binary_form=True)), context.verify_mode
    assert ask().id == "g"
    assert ssl_context(verify) is context
    assert set(context.get_ca_certs(binary_form=True)) == before
    assert context.verify_mode is mode


def test_another_authority_is_not_trusted(connect, ask, gateway, strangers):
    """A gateway that the bundle does not vouch for is sent nothing, not even after one that was asked blindly."""
    connect(verify=False)
    ask()
    asked = len(gateway.requests("query"))
    connect(verify=strangers)
    with pytest.raises(ViduTransportError, match="certificate"):
        ask()
    assert len(gateway.requests("query")) == asked


@pytest.mark.parametrize("of_the_proxy", ["cleartext", "tls"])
def test_through_a_proxy_the_trust_is_the_same(connect, ask, gateway, bundle, strangers, https, of_the_proxy):
    """In a tunnel the bundle decides as well, of the gateway and of a proxy that speaks TLS, and is not added to."""
    with Server(tunnel, tls=https if of_the_proxy == "tls" else None) as server:
        proxy = server.url("")
        connect(verify=bundle, proxy=proxy)
        assert ask().id == "g"
        assert ssl_context(bundle).cert_store_stats()["x509_ca"] == 1
        connect(verify=strangers, proxy=proxy)
        with pytest.raises(ViduTransportError, match="certificate"):
            ask()
    assert (server.requests[0].method, server.requests[0].target) == ("CONNECT", urlsplit(gateway.url).netloc)


@pytest.mark.fault(
    "attacks",
    "a gateway behind a proxy that speaks TLS fails the handshake with it",
    outcome="clear error",
    side="async",
    says="failed in the TLS handshake",
)
@pytest.mark.parametrize("of_the_proxy", ["cleartext", "tls"])
def test_a_handshake_that_fails_in_a_tunnel(connect, ask, bundle, https, caplog, of_the_proxy):
    """The error is that of the handshake; asyncio of Python 3.11 raised a TypeError instead, in TLS within TLS."""

    def plain(_: Request, wire: Wire) -> None:
        """Connect to a gateway that speaks plain HTTP."""
        wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        wire.sock.recv(65536)
        wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Server(plain, tls=https if of_the_proxy == "tls" else None) as proxy:
        connect("https://127.0.0.1:9", verify=bundle, proxy=proxy.url(""))
        with pytest.raises(ViduTransportError, match="failed in the TLS handshake") as caught:
            ask()
    assert not caught.value.sent
    assert [record for record in caplog.records if record.name == "asyncio" and record.levelname == "ERROR"] == []


def test_a_proxy_for_cleartext_is_verified(connect, ask, bundle, strangers, https):
    """A proxy that speaks TLS shows its certificate before it sees the key, also on the way to a cleartext service."""
    with Server(fixed(200, ANSWER, Content_Type="application/json"), tls=https) as server:
        proxy = server.url("")
        connect("http://127.0.0.1:9", verify=strangers, proxy=proxy)
        with pytest.raises(ViduTransportError, match="certificate"):
            ask()
        assert server.requests == []
        connect("http://127.0.0.1:9", verify=bundle, proxy=proxy)
        assert ask().id == "g"
    assert server.requests[0].target.startswith("http://127.0.0.1:9/")
