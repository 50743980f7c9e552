"""One rule of proxies for three clients: the synchronous one, the asynchronous one, and downloads."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
import trustme

from airflow_provider_vidu.api.settings.connection import resolve
from airflow_provider_vidu.downloads.transfer import Rules, Transfer
from airflow_provider_vidu.exceptions import ViduConfigError, ViduTransportError
from airflow_provider_vidu.hooks import ViduHook
from tests.integration.downloads.test_transfer import BODY, Shelf
from tests.integration.servers import Request, Server, Wire, fixed, tunnel, whole

pytestmark = pytest.mark.integration

KEY = "sk-proxy-77aa"
ANSWER = json.dumps({"id": "g", "status": "processing"}).encode()
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def _answer(request: Request, wire: Wire) -> None:
    """Be a service and a store of videos in one, and their proxy."""
    if request.method == "CONNECT":
        tunnel(request, wire)
    elif "v.mp4" in request.target:
        whole(BODY)(request, wire)
    else:
        fixed(200, ANSWER, Content_Type="application/json")(request, wire)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch) -> None:
    """Start from an environment without proxies."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def connect(monkeypatch) -> Callable[..., None]:
    """Return what defines the default connection."""

    def connect(host: str, **extra: object) -> None:
        stored = {"conn_type": "vidu", "host": host, "password": KEY}
        extra = {"timeout": 5, "max_retries": 0, **extra}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(stored | {"extra": extra}))

    return connect


def _download() -> None:
    config = resolve("vidu_default")
    rules = Rules(sleep=lambda _: None)
    received = Transfer(f"{config.base_url}/v.mp4", Shelf().open, access=config.access(), rules=rules).run()
    assert received.size == len(BODY)


CLIENTS: dict[str, Callable[[], object]] = {
    "sync": lambda: ViduHook().get_generation("g", retries=0),
    "async": lambda: asyncio.run(ViduHook().aget_generation("g", retries=0)),
    "download": _download,
}


@pytest.fixture(params=CLIENTS)
def client(request) -> Callable[[], object]:
    """Each client in turn."""
    return CLIENTS[request.param]


@pytest.fixture
def untouched() -> Iterator[str]:
    """Return the authority of a SOCKS proxy that fails the test when anything connects to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.fault("secrets", "SOCKS in ALL_PROXY", outcome="refused", says="names a SOCKS proxy", requests=0)
@pytest.mark.parametrize("host", ["http://gw.example.com", "https://gw.example.com"])
@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy"])
def test_socks_is_refused_before_anything_is_sent(connect, client, monkeypatch, untouched, name, host) -> None:
    """No client sends its request, and the key, to a SOCKS port; the error names the variable."""
    connect(host)
    monkeypatch.setenv(name, f"socks5h://u:GEHEIM@{untouched}")
    with pytest.raises(ViduConfigError, match=f"The environment variable {name} names a SOCKS proxy") as caught:
        client()
    assert "GEHEIM" not in str(caught.value)


@pytest.mark.fault("orders", "a create behind a SOCKS proxy", outcome="refused", says="names a SOCKS proxy")
def test_a_create_behind_socks_is_no_unknown_outcome(connect, monkeypatch, untouched) -> None:
    """Nothing left the machine, so nothing was billed; the test button says so, too."""
    connect("https://gw.example.com")
    monkeypatch.setenv("HTTPS_PROXY", f"socks5://{untouched}")
    with pytest.raises(ViduConfigError, match="HTTPS_PROXY names a SOCKS proxy"):
        ViduHook().create_generation(prompt="a cat")
    works, told = ViduHook().test_connection()
    assert not works
    assert "HTTPS_PROXY" in told


@pytest.mark.fault(
    "secrets", "networks and ports in NO_PROXY", outcome="survived", seen="no proxy sees what it must not see"
)
@pytest.mark.parametrize(
    ("listed", "exempt"),
    [("127.0.0.0/8", True), ("127.0.0.1:{port}", True), ("10.0.0.0/8", False), ("127.0.0.1:1", False)],
)
def test_networks_in_no_proxy(connect, client, monkeypatch, listed: str, exempt: bool) -> None:
    """An address in NO_PROXY, or in a network that it lists, is reached directly by every client; another is not."""
    # Loopback itself is never proxied: the rule is tried on it as if it were any network.
    monkeypatch.setattr("airflow_provider_vidu.network.proxies.is_loopback", lambda host: False)
    with Server(_answer) as service, Server(_answer) as proxy:
        connect(service.url(""))
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        monkeypatch.setenv("NO_PROXY", listed.format(port=service.port))
        client()
    assert [len(service.requests), len(proxy.requests)] == ([1, 0] if exempt else [0, 1])


@pytest.mark.parametrize("exempt", [True, False], ids=["exempt", "not exempt"])
def test_a_bare_ipv6_address_in_no_proxy(connect, client, monkeypatch, exempt: bool) -> None:
    """IPv6 is written without brackets there."""
    monkeypatch.setattr("airflow_provider_vidu.network.proxies.is_loopback", lambda host: False)
    with Server(_answer) as proxy, _ipv6_service() as service:
        connect(service.url("", host="[::1]"))
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        monkeypatch.setenv("NO_PROXY", "::1" if exempt else "::2")
        client()
    assert [len(service.requests), len(proxy.requests)] == ([1, 0] if exempt else [0, 1])


def _ipv6_service() -> Server:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = Server(_answer)
    server._listener.close()
    server._listener, server.port = listener, listener.getsockname()[1]
    return server


@pytest.mark.parametrize(
    ("variables", "taken"),
    [
        ({"HTTP_PROXY": 0, "ALL_PROXY": 1}, 0), ({"HTTPS_PROXY": 0, "ALL_PROXY": 1}, 1), ({"HTTPS_PROXY": 0}, None),
        ({"http_proxy": 0, "HTTP_PROXY": 1}, 0),
    ],
)  # fmt: skip
def test_which_variable_counts(connect, client, monkeypatch, variables: dict[str, int], taken: int | None) -> None:
    """For a cleartext service HTTP_PROXY, then ALL_PROXY, for every client alike."""
    monkeypatch.setattr("airflow_provider_vidu.network.proxies.is_loopback", lambda host: False)
    with Server(_answer) as service, Server(_answer) as first, Server(_answer) as second:
        connect(service.url(""))
        for name, place in variables.items():
            monkeypatch.setenv(name, (first, second)[place].url(""))
        client()
    assert [len(server.requests) for server in (first, second, service)] == [
        int(taken == 0), int(taken == 1), int(taken is None),
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_speaks_tls(connect, client, tmp_path, scheme: str) -> None:
    """Every client goes through an https proxy, to a cleartext service and, with TLS inside TLS, to one over TLS."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        Server(_answer, tls=context if scheme == "https" else None) as service,
        Server(_answer, tls=context) as proxy,
    ):
        connect(service.url(""), proxy=f"HTTPS://u:p%40ss@127.0.0.1:{proxy.port}", verify=str(tmp_path / "ca.pem"))
        client()
    seen = proxy.requests[0]
    assert seen.method == ("CONNECT" if scheme == "https" else "GET")
    assert seen.headers["proxy-authorization"] == "Basic dTpwQHNz"
    assert len(service.requests) == (scheme == "https")
    assert all("proxy-authorization" not in request.headers for request in service.requests)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("login", "sent"),
    [("a-token", "YS10b2tlbjo="), ("u:p%C3%BC", "dTpww7w="), ("u:p%E2%82%AC", "dTpw4oKs")],
    ids=["a token without a password", "Latin-1", "beyond Latin-1"],
)
def test_a_login_at_the_proxy(connect, client, tmp_path, scheme: str, login: str, sent: str) -> None:
    """Every client sends the same header: requests omits a user without a password, and others send Latin-1."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Server(_answer, tls=context if scheme == "https" else None) as service, Server(_answer) as proxy:
        connect(service.url(""), proxy=f"http://{login}@127.0.0.1:{proxy.port}", verify=str(tmp_path / "ca.pem"))
        client()
    assert [request.headers.get("proxy-authorization") for request in proxy.requests] == [f"Basic {sent}"]
    assert all("proxy-authorization" not in request.headers for request in service.requests)


@pytest.fixture(params=["plain HTTP", "closes", "resets", "garbage"])
def no_tls(request) -> Iterator[str]:
    """Return the authority of a service that speaks no TLS, in each way to take a handshake."""
    made: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            made.append(sock)
            sock.settimeout(2)
            if request.param == "closes":
                sock.close()
                continue
            sock.recv(65536)
            if request.param == "resets":
                Wire(sock, threading.Event()).reset()
                continue
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" if request.param == "plain HTTP" else b"\0" * 400)
            sock.close()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.mark.fault("polling", "a host without a scheme that speaks no TLS", outcome="clear error", says="write http://")
@pytest.mark.parametrize("name", ["sync", "async"])
def test_a_host_without_a_scheme_that_speaks_no_tls(connect, no_tls, name: str) -> None:
    """The hint names the scheme that is missing."""
    connect(no_tls)
    with pytest.raises(ViduTransportError, match=r"failed in the TLS handshake.*write http://") as caught:
        CLIENTS[name]()
    assert not caught.value.sent


@pytest.mark.fault("orders", "a create at a host that speaks no TLS", outcome="clear error", says="write http://")
@pytest.mark.usefixtures("quick_backoff")
def test_a_create_whose_handshake_fails(connect, no_tls) -> None:
    """Nothing was sent: the create is repeated, and is never called billed."""
    connect(no_tls, max_retries=1)
    with pytest.raises(ViduTransportError, match="write http://") as caught:
        ViduHook().create_generation(prompt="a cat")
    assert not caught.value.sent
    assert "billed" not in str(caught.value)
