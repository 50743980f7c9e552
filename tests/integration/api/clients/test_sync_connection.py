"""One deadline bounds a synchronous request, whatever trickles, on whichever way."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import trustme

from airflow_provider_vidu.exceptions import ViduError, ViduSubmitUnknownError, ViduTimeoutError, ViduTransportError
from airflow_provider_vidu.hooks import ViduHook
from tests.integration.servers import Answer, Request, Server, Wire, fixed, trickling, tunnel

pytestmark = pytest.mark.integration

KEY = "sk-deadline-5e1f"
TIMEOUT = 0.15
SOON = 10.0
"""Seconds that no request here comes near, even on a busy machine; what trickles does so for longer."""
ANSWER = json.dumps({"id": "g", "status": "pending"}).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def endless(start: bytes, piece: bytes) -> Answer:
    """Return an answer that never ends: a piece now and then, well within the timeout."""
    return trickling(start, piece, seconds=3 * SOON, pause=TIMEOUT / 5)


TRICKLES = {
    "status line": endless(b"HTTP/1.1 200 ", b"x"),
    "header name": endless(OK, b"x"),
    "header lines": endless(OK, b"X: y\r\n"),
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": endless(OK + b"Content-Length: 9999\r\n\r\n", b" "),
    "body without a length": endless(OK + b"\r\n", b" "),
    "chunk size": endless(CHUNKED, b"0"),
    "chunk extension": endless(CHUNKED + b"5;", b"x"),
    "chunks": endless(CHUNKED, b"1\r\n \r\n"),
    "trailers": endless(CHUNKED + b"0\r\n", b"X: y\r\n"),
}


@pytest.fixture
def connect(monkeypatch) -> Callable[..., None]:
    """Return what defines a connection, the default one if omitted."""

    def connect(host: str, *, conn_id: str = "vidu_default", **extra: object) -> None:
        stored = {"conn_type": "vidu", "host": host, "password": KEY}
        extra = {"timeout": TIMEOUT, "max_retries": 0, **extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(stored | {"extra": extra}))

    return connect


def quickly(ask: Callable[[], object], most: float = SOON) -> float:
    """Run ``ask``; return the seconds it has taken, which are not more than ``most``."""
    began = time.monotonic()
    ask()
    taken = time.monotonic() - began
    assert taken < most
    return taken


@pytest.mark.fault(
    "attacks",
    "a gateway trickles status line, headers, 1xx, chunks or trailers",
    outcome="clear error",
    side="sync",
    says="took too long to deliver the answer",
)
def test_a_trickle_ends(connect) -> None:
    """After four time-outs each request is given up, and it may have arrived; the requests wait beside each other."""
    with ExitStack() as stack, ThreadPoolExecutor(len(TRICKLES)) as pool:
        hooks = {}
        for number, (name, answer) in enumerate(TRICKLES.items()):
            connect(stack.enter_context(Server(answer)).url(""), conn_id=f"trickle_{number}", timeout=4 * TIMEOUT)
            hooks[name] = ViduHook(f"trickle_{number}")

        def ask(hook: ViduHook) -> Exception | None:
            try:
                hook.get_generation("g", retries=0)
            except ViduTransportError as error:
                return error
            return None

        began = time.monotonic()
        for name, error in zip(hooks, pool.map(ask, hooks.values(), timeout=2 * SOON), strict=True):
            assert error is not None, name
            assert "took too long to deliver the answer (2.4 s)" in str(error), name
            assert error.sent, name
        assert 12 * TIMEOUT < time.monotonic() - began < SOON


def test_a_trickled_create_is_an_unknown_outcome(connect) -> None:
    """The create has arrived: it is not repeated."""
    with Server(TRICKLES["header lines"]) as server:
        connect(server.url(""), max_retries=3)
        with pytest.raises(ViduSubmitUnknownError):
            ViduHook().create_generation(prompt="a cat")
    assert len(server.requests) == 1


@pytest.mark.fault(
    "attacks",
    "every poll of wait(timeout=…) trickles",
    outcome="clear error",
    side="sync",
    seen="ViduTimeoutError when the timeout has expired",
)
def test_a_wait_ends_in_spite_of_a_trickle(connect) -> None:
    """A wait whose every poll trickles comes to its own end."""
    with Server(TRICKLES["interim answers"]) as server:
        connect(server.url(""))

        def wait() -> None:
            with pytest.raises(ViduTimeoutError):
                ViduHook().wait("g", timeout=0.7, poll_interval=0.1)

        quickly(wait)


def test_the_minute_of_a_cancel_includes_its_attempts(connect, monkeypatch) -> None:
    """With a timeout of 30 s, six attempts that trickle held a killed task for twelve minutes instead of one."""
    monkeypatch.setattr("airflow_provider_vidu.hooks.CANCEL_PATIENCE_SECONDS", 4.0)
    with Server(TRICKLES["status line"]) as server:
        connect(server.url(""), dialect="ent-v2", timeout=2 * TIMEOUT, max_retries=5)
        with pytest.raises(ViduTransportError, match="took too long to deliver the answer"):
            ViduHook().cancel_generation("g")
    assert len(server.requests) <= 2  # a third one would begin when four seconds are over


def test_a_search_whose_answers_trickle_ends_with_the_timeout(connect) -> None:
    """A hundred good answers, each of which trickled, held a worker for hours after its task's timeout."""
    entries = [{"id": str(number), "state": "success"} for number in range(10)]

    def page(request: Request, wire: Wire) -> None:
        token = len(server.requests)
        tasks = [{**entry, "id": f"{token}{entry['id']}"} for entry in entries]
        body = json.dumps({"tasks": tasks, "next_page_token": str(token)}).encode()
        wire.head(200, Content_Length=len(body))
        time.sleep(2 * TIMEOUT)
        wire.send(body)

    with Server(page) as server:
        connect(server.url(""), dialect="ent-v2", timeout=4 * TIMEOUT)
        hook = ViduHook()
        hook._retry_until(time.time() + 5 * TIMEOUT)
        with pytest.raises(ViduError, match="timeout expired while the list"):
            hook.find_generation("airflow:1")
    assert 1 <= len(server.requests) <= 3


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return a certificate authority that only the test trusts."""
    return trustme.CA()


@pytest.fixture
def https(authority) -> ssl.SSLContext:
    """Return the TLS settings of a server on loopback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def bundle(authority, tmp_path) -> Iterator[str]:
    """Return the path of the authority's certificate."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.mark.fault(
    "attacks",
    "a proxy trickles its answer to CONNECT",
    outcome="clear error",
    side="sync",
    says="timed out",
)
@pytest.mark.parametrize("name", ["status line", "header lines"])
@pytest.mark.parametrize("of_the_proxy", ["cleartext", "tls"])
def test_a_proxy_that_trickles_its_tunnel(connect, https, bundle, name: str, of_the_proxy: str) -> None:
    """The answer to CONNECT is bounded as well, and nothing was sent to the service."""
    with Server(TRICKLES[name], tls=https if of_the_proxy == "tls" else None) as proxy:
        connect("https://127.0.0.1:9", proxy=proxy.url(""), verify=bundle)

        def ask() -> None:
            with pytest.raises(ViduTransportError) as caught:
                ViduHook().create_generation(prompt="a cat")
            assert not caught.value.sent

        while not proxy.requests:  # on a busy machine, the handshake alone may take longer than the timeout
            quickly(ask)
    assert [request.method for request in proxy.requests] == ["CONNECT"]


def test_a_trickle_inside_two_tls_layers(connect, https, bundle) -> None:
    """Through a proxy that speaks TLS, records are put together from many reads, none of which resets the clock."""
    with Server(TRICKLES["header lines"], tls=https) as server, Server(_slow_tunnel, tls=https) as proxy:
        connect(server.url(""), proxy=proxy.url(""), verify=bundle)

        def ask() -> None:
            with pytest.raises(ViduTransportError):
                ViduHook().get_generation("g", retries=0)

        quickly(ask)


def _slow_tunnel(request: Request, wire: Wire) -> None:
    """Carry the way back of a tunnel byte by byte."""
    sock = wire.sock

    class Slowly:
        """A socket that sends little at a time."""

        def __getattr__(self, name: str) -> object:
            return getattr(sock, name)

        def sendall(self, data: bytes) -> None:
            for at in range(len(data)):
                sock.sendall(data[at : at + 1])
                time.sleep(TIMEOUT / 10)

    wire.sock = Slowly()
    tunnel(request, wire)


def test_a_body_that_is_taken_slowly(connect) -> None:
    """A peer that lets a large request trickle in delays no one either."""
    done = threading.Event()

    def sip(_: Request, wire: Wire) -> None:
        while not done.wait(TIMEOUT / 2) and wire.sock.recv(4096):
            pass

    def ask() -> None:
        with pytest.raises(ViduSubmitUnknownError):
            ViduHook().create_generation(prompt="a cat", images=["x" * 20_000_000])

    with Server(sip) as server:
        connect(server.url(""), timeout=4 * TIMEOUT)  # a busy machine may need one to open the connection
        try:
            quickly(ask)
        finally:
            done.set()


def test_answers_in_time_are_whole(connect) -> None:
    """Slow but honest: pieces that come to an end within the four time-outs are an answer."""

    def slowly(_: Request, wire: Wire) -> None:
        wire.head(200, Content_Type="application/json", Content_Length=len(ANSWER))
        for at in range(0, len(ANSWER), 4):
            wire.send(ANSWER[at : at + 4])
            time.sleep(TIMEOUT / 10)

    with Server(slowly) as server:
        connect(server.url(""))
        assert ViduHook().get_generation("g", retries=0).provider_status == "pending"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + OK,
        OK + b"nonsense\r\n",
        OK.replace(b"\r\n", b"\r\nnonsense\r\n", 1),
    ],
    ids=["early-hints", "processing", "no-header-at-the-end", "no-header-at-the-beginning"],
)
@pytest.mark.parametrize("chunked", [True, False])
def test_no_head_of_an_answer_loses_a_paid_id(connect, caplog, head: bytes, chunked: bool) -> None:
    """Interim answers, lines that are not headers and blanks behind a value cause no refusal and no unknown outcome."""
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ANSWER), ANSWER) if chunked else ANSWER
    rest = b"Transfer-Encoding: chunked \r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % len(ANSWER)
    with Server(lambda _, wire: wire.send(head + b"Connection: close\r\n" + rest + body)) as server:
        connect(server.url(""), timeout=5)
        hook = ViduHook()
        assert hook.create_generation(prompt="a cat").id == "g"
        assert hook.get_generation("g").provider_status == "pending"
    assert "Failed to parse headers" not in caplog.text


@pytest.mark.fault(
    "secrets", "http.client prints what it sends", outcome="survived", side="API", seen="nothing is printed"
)
def test_http_client_prints_nothing(connect, monkeypatch, capsys) -> None:
    """With the printing of http.client switched on, the key of this provider is not printed."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 2)
    with Server(fixed(200, ANSWER, Content_Type="application/json")) as server:
        for extra in ({}, {"proxy": server.url("")}):
            connect(server.url(""), timeout=5, **extra)
            ViduHook().get_generation("g")
    assert KEY in server.requests[0].headers["authorization"]
    told = capsys.readouterr()
    assert KEY not in told.out + told.err
    assert "send:" not in told.out
