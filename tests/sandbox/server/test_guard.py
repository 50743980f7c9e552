"""No web site steers the sandbox: what Host and Origin must say."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_vidu.sandbox import Sandbox
from airflow_provider_vidu.sandbox.messages.calls import Call
from airflow_provider_vidu.sandbox.server.guard import problem
from tests.rows import each_row

CREDITS, CONTROL = "/ent/v2/credits", "/_sandbox/ledger"


@each_row(
    "host",
    ["127.0.0.1:8787", "127.9.9.9", "localhost:1", "LOCALHOST.", "vidu.localhost", "[::1]:8787", None],
)
def test_loopback_names_are_welcome(host) -> None:
    """With and without port, in any case; a client that sends no Host is not a browser."""
    headers = {} if host is None else {"Host": host}
    for target in (CREDITS, CONTROL):
        call = Call("GET", target, headers, origin=f"http://{host or '127.0.0.1'}")
        assert problem(call, listens_on="127.0.0.1", is_control=target == CONTROL) is None


@pytest.mark.fault(
    "attacks", "a name that was made to resolve to loopback reaches the sandbox", outcome="refused", seen="403"
)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8787", "10.0.0.1", "127.0.0.1.evil.example", "[", "@"])
def test_a_foreign_name_is_refused(host) -> None:
    """A name that was made to resolve to loopback opens nothing."""
    for target in (CREDITS, CONTROL):
        call = Call("GET", target, {"host": host}, origin=f"http://{host}")
        assert problem(call, listens_on="127.0.0.1", is_control=target == CONTROL)


@pytest.mark.fault("attacks", "another web site steers the sandbox", outcome="refused", seen="403")
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8080", "http://localhost:1"])
def test_a_foreign_origin_is_refused(origin) -> None:
    """Another site's page, even one on this machine."""
    call = Call("POST", CONTROL, {"Host": "127.0.0.1:1", "Origin": origin}, origin="http://127.0.0.1:1")
    assert "other web sites" in (problem(call, listens_on="127.0.0.1", is_control=True) or "")
    own = Call("POST", CONTROL, {"Host": "127.0.0.1:1", "Origin": call.origin}, origin=call.origin)
    assert problem(own, listens_on="127.0.0.1", is_control=True) is None


@pytest.mark.fault(
    "attacks", "a picture or link of another web site asks the sandbox", outcome="refused", seen="403 by Sec-Fetch-Site"
)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "odd"])
def test_a_foreign_picture_is_refused(site) -> None:
    """A GET without Origin would use up a fault that was meant for the next query."""
    for target in (CREDITS, CONTROL):
        headers = {"Host": "127.0.0.1:1", "Sec-Fetch-Site": site}
        assert problem(Call("GET", target, headers), listens_on="127.0.0.1", is_control=target == CONTROL)
        own = Call("GET", target, {**headers, "Sec-Fetch-Site": "none"})
        assert problem(own, listens_on="127.0.0.1", is_control=target == CONTROL) is None


def test_names_can_be_allowed() -> None:
    """For a proxy or a container; files, whose URLs are secrets, are open to pages that play them."""
    call = Call("GET", CREDITS, {"Host": "Vidu.Test:80"}, origin="http://vidu.test:80")
    assert problem(call, listens_on="127.0.0.1", allowed=["vidu.test"], is_control=False) is None
    file = Call("GET", "/files/ab.mp4", {"Host": "evil.example", "Origin": "http://127.0.0.1:8080"})
    assert problem(file, listens_on="127.0.0.1", is_control=False) is None


def test_beyond_loopback_every_name_may_lead_to_it() -> None:
    """Bound to the network it serves the API under any name, and the control API under loopback's alone."""
    call = Call("GET", CREDITS, {"Host": "sandbox"}, origin="http://sandbox")
    assert problem(call, listens_on="0.0.0.0", is_control=False) is None  # noqa: S104 - the case that is tested
    control = Call("GET", CONTROL, {"Host": "sandbox"}, origin="http://sandbox")
    assert problem(control, listens_on="0.0.0.0", is_control=True)  # noqa: S104 - the case that is tested


@pytest.mark.fault(
    "attacks", "a web site steers the sandbox of its visitor", outcome="refused", side="sandbox", seen="403"
)
def test_a_page_cannot_reset_a_running_sandbox() -> None:
    """Over a socket: 403 with the reason, and nothing has happened."""
    with Sandbox(speed=0) as sandbox:
        sandbox.add_generation("x", states=[["pending", 0]])
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            answer = requests.post(f"{sandbox.url}/_sandbox/reset", headers=headers, timeout=5)
            assert (answer.status_code, bool(answer.json()["message"])) == (403, True)
        assert sandbox.core.generations
        assert requests.post(f"{sandbox.url}/_sandbox/reset", timeout=5).status_code == 200
        assert not sandbox.core.generations


@pytest.mark.fault(
    "attacks", "a web site sends large bodies to its visitor's sandbox", outcome="refused", side="sandbox", seen="403"
)
@each_row("path", ["/v1/videos", "/_sandbox/reset", "/files/ab.mp4", "/uploads/ab"])
@each_row("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}])
def test_the_body_of_a_refused_request_is_not_read(path: str, headers: dict[str, str]) -> None:
    """Each could be 128 MB, and nothing limits how many there are: the answer comes before the first byte."""
    with Sandbox(speed=0) as sandbox, socket.create_connection(("127.0.0.1", urlsplit(sandbox.url).port)) as peer:
        head = {"Host": "127.0.0.1", "Content-Length": "100000000", **headers}
        peer.settimeout(5)
        peer.sendall("\r\n".join([f"POST {path} HTTP/1.1", *map(": ".join, head.items()), "", ""]).encode())
        assert peer.recv(1000).startswith(b"HTTP/1.1 403")
