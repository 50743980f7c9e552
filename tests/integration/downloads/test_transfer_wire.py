"""What a download puts on the wire: the URL verbatim, the key only at home, connections only where allowed."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time

import pytest
import trustme

from airflow_provider_vidu.common.redaction import Redactor, Secret
from airflow_provider_vidu.downloads.transfer import Rules, Transfer
from airflow_provider_vidu.exceptions import (
    ViduConfigError,
    ViduDownloadError,
    ViduDownloadRefusedError,
    ViduIncompleteError,
    ViduURLExpiredError,
)
from airflow_provider_vidu.network import download_url
from airflow_provider_vidu.network.download_url import DownloadAccess, DownloadURL
from airflow_provider_vidu.network.stream import Stream
from tests.integration.downloads.test_transfer import BODY, LOOPBACK, Shelf
from tests.integration.servers import Server, fixed, redirect, video, whole
from tests.rows import each_row

KEY = "sk-wire-9d2f"


def fetch(url: str, shelf: Shelf | None = None, **access):
    """Run a transfer without waiting between tries."""
    access = {"allowed_hosts": LOOPBACK, "timeout": 5.0, "max_retries": 1, **access}
    shelf = shelf or Shelf()
    return Transfer(url, shelf.open, access=DownloadAccess(**access), rules=Rules(sleep=lambda _: None)).run()


def owning(server: Server, **access):
    """Return the access of a connection whose own origin is ``server``."""
    headers = (("Authorization", Secret(f"Bearer {KEY}")), ("X-Team", Secret("media")))
    return {"origin": ("http", "127.0.0.1", server.port), "headers": headers, **access}


@pytest.mark.parametrize(
    "target",
    [
        "/v;a=1/x~y%7Ez%7e.mp4?sig=a;b~c%2Fd%2fe+f%20g&x=%7E&y=!*'()[]{}|^`",
        "/?",
        "/a//b/../c/./d?x=//y",
        "/%E4%BD%A0.mp4?a=b=c&&d",
        "/v.mp4?X-Amz-Signature=abc%3D%3D&policy=a,b$c@d:e",
    ],
)
def test_the_target_travels_byte_for_byte(target):
    """A signature covers the URL as it was written; nothing is re-quoted, folded or sorted."""
    with Server(whole(BODY)) as server:
        fetch(server.url(target))
    assert server.requests[0].target == target


def test_what_cannot_travel_is_encoded_and_the_fragment_stays():
    """Letters outside ASCII are percent-encoded, alone; a fragment is not sent."""
    with Server(whole(BODY)) as server:
        fetch(server.url("/视频~;%2f.mp4?a=é#part"))
    assert server.requests[0].target == "/%E8%A7%86%E9%A2%91~;%2f.mp4?a=%C3%A9"


@pytest.mark.parametrize(("url", "path"), [("http://h.example.com?x=1", "/?x=1"), ("http://h.example.com", "/")])
def test_an_empty_path_is_the_root(url, path):
    """HTTP has no empty path."""
    assert DownloadURL.parse(url).path == path


def test_the_request_asks_for_plain_bytes():
    """Identity encoding, any medium, and the provider's name are asked for; Host has the port."""
    with Server(whole(BODY)) as server:
        fetch(server.url())
    headers = server.requests[0].headers
    assert headers["accept-encoding"] == "identity"
    assert headers["accept"] == "*/*"
    assert headers["user-agent"].startswith("airflow-provider-vidu/")
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert "authorization" not in headers


def test_the_key_goes_to_the_own_origin():
    """A file on the connection's own gateway is asked for with the key."""
    with Server(whole(BODY)) as server:
        fetch(server.url(), **owning(server))
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.requests[0].headers["x-team"] == "media"


def test_the_key_stays_at_home():
    """Another port is another origin; neither key nor further headers go there."""
    with Server(whole(BODY)) as home, Server(whole(BODY)) as foreign:
        fetch(foreign.url(), **owning(home))
    assert KEY.encode() not in foreign.requests[0].raw
    assert "x-team" not in foreign.requests[0].headers


def test_a_foreign_redirect_does_not_get_the_key_sent_home():
    """A URL from outside cannot make the worker use its key."""
    with Server(whole(BODY)) as home, Server(redirect(home.url("/admin"))) as foreign:
        fetch(foreign.url(), **owning(home))
    assert KEY.encode() not in home.requests[0].raw


@each_row(
    ("location", "target"),
    [
        ("/next;a~%2f?x=%7e+;", "/next;a~%2f?x=%7e+;"),
        ("next.mp4?y=1", "/v/next.mp4?y=1"),
        ("//{authority}/slashes", "/slashes"),
        ("http://{authority}/whole?z=%2F;", "/whole?z=%2F;"),
        ("/mit leer", "/mit%20leer"),
        ("/視.mp4", "/%E8%A6%96.mp4"),
    ],
)
@each_row("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_verbatim(location, target, status):
    """Every form of Location leads where it says, and signed queries stay as they are."""
    with Server() as server:
        server.answers = [redirect(location.format(authority=f"127.0.0.1:{server.port}"), status), whole(BODY)]
        fetch(server.url("/v/start.mp4"))
    assert server.requests[1].target == target


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "gopher://127.0.0.1/", "http://", "http://u:p@127.0.0.1/"])
def test_redirects_out_of_http_are_refused(location):
    """Other schemes, and URLs with a user, are not followed."""
    with Server(redirect(location)) as server, pytest.raises(ViduDownloadRefusedError, match="not an http"):
        fetch(server.url())


@pytest.mark.fault("stores and files", "a URL that cannot be used", outcome="refused", says="Not fetched")
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://h/x",
        "s3://b/k",
        "//h/x",
        "h/x",
        "http:///x",
        "https://u@h.example.com/",
        "http://h:99999/",
        "http://h\\@i/",
        "http://a b/",
    ],
)
def test_other_schemes_are_refused(url):
    """Only http(s) URLs with a host and without a user are fetched."""
    with pytest.raises(ViduDownloadRefusedError, match="Not fetched"):
        fetch(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]"])
def test_private_addresses_are_refused_before_a_connection(host):
    """Nothing is sent to a loopback address, however it is spelled."""
    with Server(whole(BODY)) as server, pytest.raises(ViduDownloadRefusedError, match="allowed_hosts"):
        fetch(server.url(host=host), allowed_hosts=frozenset())
    assert server.requests == []


@pytest.mark.fault(
    "attacks",
    "a URL at another port, scheme or name of the gateway's host",
    outcome="refused",
    says="loopback address 127.0.0.1",
    requests=0,
)
@pytest.mark.parametrize("origin", ["port", "scheme", "host"])
def test_the_exemption_of_the_own_origin_is_for_it_alone(origin):
    """Another port, scheme or host on the same machine is not the connection's own: its address is checked."""
    with Server(whole(BODY)) as server:
        own = {
            "port": ("http", "127.0.0.1", server.port + 1),
            "scheme": ("https", "127.0.0.1", server.port),
            "host": ("http", "localhost", server.port),
        }
        with pytest.raises(ViduDownloadRefusedError, match=r"loopback address 127\.0\.0\.1.*allowed_hosts"):
            fetch(server.url(), allowed_hosts=frozenset(), origin=own[origin])
        assert server.requests == []
        fetch(server.url(), allowed_hosts=frozenset(), origin=("http", "127.0.0.1", server.port))


@pytest.mark.parametrize(
    "allowed",
    [
        pytest.param(
            "",
            marks=pytest.mark.fault(
                "attacks",
                "the gateway's name is rebound to loopback",
                outcome="refused",
                says="has the loopback address",
            ),
        ),
        "gw.example.com",
        "127.0.0.0/8",
    ],
)
def test_a_gateway_that_is_rebound_to_this_machine(allowed):
    """That the own origin's name suddenly leads to loopback is refused, unless the user has allowed it."""
    with Server(whole(BODY)) as server:
        access = {
            "allowed_hosts": frozenset(filter(None, [allowed])),
            "origin": ("http", "gw.example.com", server.port),
            "resolve": lambda *_: ["127.0.0.1"],
        }
        if allowed:
            fetch(server.url(host="gw.example.com"), **access)
        else:
            with pytest.raises(ViduDownloadRefusedError, match="loopback"):
                fetch(server.url(host="gw.example.com"), **access)
    assert len(server.requests) == bool(allowed)


@pytest.mark.fault(
    "stores and files",
    "a private address for a download without a connection",
    outcome="survived",
    seen="the file, by [vidu] allowed_hosts",
)
def test_the_deployments_allowed_hosts_hold_without_a_connection(monkeypatch):
    """A network in [vidu] allowed_hosts is enough for a download that has no connection."""
    monkeypatch.setenv("AIRFLOW__VIDU__ALLOWED_HOSTS", "198.18.0.0/15, 127.0.0.0/8")
    with Server(whole(BODY)) as server:
        shelf = Shelf()
        Transfer(server.url(host="localhost"), shelf.open).run()
    assert shelf.published == BODY


def test_a_bad_entry_of_the_deployments_allowed_hosts(monkeypatch):
    """A network that does not exist is named with its setting."""
    monkeypatch.setenv("AIRFLOW__VIDU__ALLOWED_HOSTS", "198.18.0.0/51")
    with pytest.raises(ViduConfigError, match=r"\[vidu\] allowed_hosts.*198\.18\.0\.0/51"):
        DownloadAccess()


@pytest.mark.fault("from Airflow", "HTTP:// and blanks around a URL to fetch", outcome="survived", seen="the file")
def test_blanks_and_capitals_around_an_address():
    """What a template or a spreadsheet puts around an address does not belong to it."""
    with Server(whole(BODY)) as server:
        fetch(f" HTTP://LOCALHOST:{server.port}/V.mp4?Sig=a%2F\r\n", allowed_hosts=frozenset({"localhost"}))
    assert server.requests[0].target == "/V.mp4?Sig=a%2F"


@pytest.mark.fault(
    "attacks", "a proxy trickles its answer to CONNECT", outcome="clear error", side="download", says="too slow"
)
def test_a_proxy_that_trickles_its_tunnel():
    """The answer to CONNECT ends within two time-outs, like the head of any other answer."""
    done = threading.Event()

    def trickle(request, wire):
        wire.send(b"HTTP/1.1 200 OK\r\n")
        while not done.wait(0.02):
            wire.sock.sendall(b"X: y\r\n")

    began = time.monotonic()
    with Server(trickle) as proxy:
        try:
            with pytest.raises(ViduDownloadError, match="too slow"):
                fetch(
                    "https://cdn.example.com/v.mp4",
                    proxy=Secret(proxy.url("")),
                    resolve=lambda *_: ["8.8.8.8"],
                    timeout=0.2,
                    max_retries=0,
                )
        finally:
            done.set()
    assert time.monotonic() - began < 10


def raw(*pieces: bytes):
    """Return an answer of these very bytes."""
    return lambda _, wire: [wire.send(piece) for piece in pieces]


LENGTH = f"{len(BODY)}".encode()
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % LENGTH
ODD_HEADS = {
    "early hints": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + PLAIN, BODY),
    "another version": (b"HTTP/2 200\r\nContent-Length: %s\r\n\r\n" % LENGTH, BODY),
    "another version, chunked": (b"HTTP/2.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKS),
    "processing": (b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + PLAIN, BODY),
    "a blank behind chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked \r\n\r\n", CHUNKS),
    "the length twice": (b"HTTP/1.1 200 OK\r\nContent-Length: %s, %s\r\n\r\n" % (LENGTH, LENGTH), BODY),
    "a line that is no header": (b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: %s\r\n\r\n" % LENGTH, BODY),
    "a blank before the colon": (b"HTTP/1.1 200 OK\r\nContent-Length : %s\r\n\r\n" % LENGTH, BODY),
}


@each_row("name", ODD_HEADS)
def test_odd_heads(name):
    """Python's client gives up on them; the file is whole, and one that is cut is noticed."""
    head, body = ODD_HEADS[name]
    with Server(raw(head, body)) as server:
        assert fetch(server.url()).size == len(BODY)
    webm = b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x84webm"  # its own structure does not show its end
    with Server(raw(head, body.replace(BODY, webm + BODY[:9000]))) as server, pytest.raises(ViduIncompleteError):
        fetch(server.url(), max_retries=0)


@pytest.mark.fault(
    "secrets", "http.client prints what it sends", outcome="survived", side="download", seen="no key is printed"
)
def test_http_client_prints_nothing(monkeypatch, capsys):
    """With the printing of http.client switched on, the key is not printed."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 2)
    with Server(whole(BODY)) as server:
        fetch(server.url(), **owning(server))
    assert KEY in server.requests[0].headers["authorization"]
    told = capsys.readouterr()
    assert KEY not in told.out + told.err


def test_a_name_that_resolves_to_a_private_address_is_refused():
    """The address counts, not the name."""
    with Server(whole(BODY)) as server, pytest.raises(ViduDownloadRefusedError, match=r"cdn\.example\.com"):
        fetch(server.url(host="cdn.example.com"), resolve=lambda *_: ["127.0.0.1"])
    assert server.requests == []


def test_a_name_is_resolved_once_per_connection():
    """Check and connect use one answer: a second, private one (rebinding) is never asked for."""
    answers = iter([["127.0.0.1"]])
    with Server(whole(BODY)) as server:
        fetch(
            server.url(host="rebind.example.com"),
            allowed_hosts=frozenset({"rebind.example.com"}),
            resolve=lambda *_: next(answers),
        )
    assert server.requests[0].headers["host"] == f"rebind.example.com:{server.port}"


def test_the_next_address_is_tried():
    """When the first address of a host does not answer, the second does."""
    with Server(whole(BODY)) as server:
        fetch(
            server.url(host="two.example.com"),
            allowed_hosts=frozenset({"two.example.com"}),
            resolve=lambda *_: ["127.0.0.2", "127.0.0.1"],
        )
    assert len(server.requests) == 1


def test_a_host_that_does_not_exist_is_told():
    """An unknown name is a retryable error with the resolver's words."""

    def unknown(host, port):
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(ViduDownloadError, match="Name or service not known"):
        fetch("http://nowhere.example.com/v.mp4", resolve=unknown)


@pytest.fixture(scope="module")
def authority():
    """Return a certificate authority that only the test trusts."""
    return trustme.CA()


@pytest.fixture
def https(authority):
    """Return the TLS settings of a server for 127.0.0.1 and cdn.example.com."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "cdn.example.com").configure_cert(context)
    return context


@pytest.fixture
def bundle(authority, tmp_path):
    """Return the path of the authority's certificate."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def test_https_with_a_bundle_of_ones_own(https, bundle):
    """A connection's verify names the CA that is trusted; SNI and Host carry the name."""
    with Server(whole(BODY), tls=https) as server:
        received = fetch(
            server.url(host="cdn.example.com"),
            verify=bundle,
            allowed_hosts=frozenset({"cdn.example.com"}),
            resolve=lambda *_: ["127.0.0.1"],
        )
    assert received.size == len(BODY)


def test_an_unknown_certificate_is_not_tried_again(https):
    """A certificate does not become better by waiting."""
    with (
        Server(whole(BODY), tls=https) as server,
        pytest.raises(ViduDownloadError, match="certificate cannot be verified"),
    ):
        fetch(server.url())
    assert server.requests == []


def test_a_certificate_for_another_host_is_refused(https, bundle):
    """The name is checked, not only the signature."""
    with Server(whole(BODY), tls=https) as server, pytest.raises(ViduDownloadError, match="certificate"):
        fetch(
            server.url(host="other.example.com"),
            verify=bundle,
            allowed_hosts=frozenset({"other.example.com"}),
            resolve=lambda *_: ["127.0.0.1"],
        )


def test_verification_can_be_switched_off(https):
    """verify=false fetches from anyone."""
    with Server(whole(BODY), tls=https) as server:
        assert fetch(server.url(), verify=False).size == len(BODY)


def test_a_cut_over_tls_is_noticed(https):
    """A TLS stream that ends early, without a length, is not a whole file."""
    body = video(50_000)
    with Server(whole(body, cut=20_000, Content_Length=None), whole(body), tls=https) as server:
        shelf = Shelf()
        fetch(server.url(), shelf, verify=False)
    assert shelf.published == body


def test_a_proxy_gets_the_whole_url_and_its_password():
    """Cleartext http goes through the connection's proxy in absolute form, still verbatim."""
    with Server(whole(BODY)) as proxy:
        fetch(
            "http://cdn.example.com/v;~%2f.mp4?s=%7e",
            proxy=Secret(f"http://user:p%40ss@127.0.0.1:{proxy.port}"),
            resolve=lambda *_: ["8.8.8.8"],
        )
    request = proxy.requests[0]
    assert request.target == "http://cdn.example.com/v;~%2f.mp4?s=%7e"
    assert request.headers["host"] == "cdn.example.com"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"


def test_the_environments_proxy_is_honoured(monkeypatch):
    """HTTP_PROXY is used for hosts that NO_PROXY does not name."""
    with Server(whole(BODY)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        fetch("http://cdn.example.com/v.mp4", resolve=lambda *_: ["8.8.8.8"])
    assert proxy.requests[0].target == "http://cdn.example.com/v.mp4"


def test_a_proxy_is_no_way_to_private_addresses():
    """What this machine can tell of the host is checked before the proxy is asked."""
    with Server(whole(BODY)) as proxy, pytest.raises(ViduDownloadRefusedError, match="private"):
        fetch("http://10.0.0.1/v.mp4", proxy=Secret(f"http://127.0.0.1:{proxy.port}"))
    assert proxy.requests == []


def test_https_through_a_tunnel(https, bundle):
    """CONNECT carries the proxy's password; inside the tunnel TLS runs with the server itself."""
    with Server(whole(BODY), tls=https) as server:

        def connect(request, wire):
            wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(("127.0.0.1", server.port)) as onward:
                onward.settimeout(5)
                wire.sock.settimeout(5)
                back = threading.Thread(target=_pump, args=(onward, wire.sock), daemon=True)
                back.start()
                _pump(wire.sock, onward)
                back.join(5)

        with Server(connect) as proxy:
            received = fetch(
                "https://cdn.example.com/v.mp4",
                verify=bundle,
                proxy=Secret(f"http://user:pw@127.0.0.1:{proxy.port}"),
                resolve=lambda *_: ["8.8.8.8"],
            )
    assert received.size == len(BODY)
    assert proxy.requests[0].line == "CONNECT cdn.example.com:443 HTTP/1.1"
    assert "proxy-authorization" in proxy.requests[0].headers
    assert "proxy-authorization" not in server.requests[0].headers


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_a_tunnel_that_is_refused_is_told():
    """A proxy that wants a password says so in the error."""
    with Server(fixed(407)) as proxy, pytest.raises(ViduDownloadError, match="refused the tunnel: HTTP 407"):
        fetch(
            "https://cdn.example.com/v.mp4",
            proxy=Secret(f"http://127.0.0.1:{proxy.port}"),
            resolve=lambda *_: ["8.8.8.8"],
        )


@pytest.mark.parametrize("host", ["a" * 64 + ".example.com", "a..example.com", "."])
def test_a_host_that_tls_cannot_name_is_refused_behind_a_proxy(host):
    """Behind a proxy nothing here resolves the name, and TLS ended the task with a bare UnicodeError."""
    with Server(raw(b"HTTP/1.1 200 OK\r\n\r\n")) as proxy, pytest.raises(ViduDownloadRefusedError, match="not a host"):
        fetch(f"https://{host}/v.mp4", proxy=Secret(proxy.url("")))


@pytest.mark.fault(
    "stores and files", "carriage returns within the lines of a head, 60 kB of them", outcome="survived",
    seen="the file, at once",
)  # fmt: skip
def test_carriage_returns_within_a_line_do_not_end_it():
    """Python's parser would make 20,000 headers of one line, and take half a minute for them, past every deadline."""
    line = b"X-Odd: " + b"a:\r" * 20_000 + b"\r\n"

    def answer(request, wire):
        wire.send(b"HTTP/1.1 200 OK\r\n" + line + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)

    began = time.thread_time()
    with Server(answer) as server:
        assert fetch(server.url()).size == len(BODY)
    assert time.thread_time() - began < 2


def test_a_redirect_whose_last_byte_is_a_blank_in_latin_1():
    """The path is UTF-8 as the server wrote it."""

    def answer(request, wire):
        wire.send(b"HTTP/1.1 302 Found\r\nLocation: /voil\xc3\xa0\r\nContent-Length: 0\r\n\r\n")

    with Server(answer, whole(BODY)) as server:
        fetch(server.url())
    assert server.requests[1].target == "/voil%C3%A0"


@pytest.mark.parametrize("gap", ["", "\t", "\u200b", "\u00ad"])
def test_a_key_in_a_redirect_that_is_refused(gap):
    """Also in pieces, between which a server writes UTF-8 that shows nothing."""
    location = f"https://h/\x0b{KEY[:6]}{gap}{KEY[6:]}"

    def answer(request, wire):
        wire.send(b"HTTP/1.1 302 Found\r\nLocation: " + location.encode() + b"\r\nContent-Length: 0\r\n\r\n")

    with Server(answer) as server, pytest.raises(ViduDownloadRefusedError, match="not an http") as caught:
        fetch(server.url(), secrets=(Secret(KEY),))
    assert KEY[6:] not in str(caught.value)


TYPE = b"Content-Type: multipart/mixed; boundary"


@pytest.mark.fault(
    "stores and files", "a boundary of quotes and semicolons, or one that Python cannot decode", outcome="survived",
    seen="the file, at once",
)  # fmt: skip
@pytest.mark.parametrize(
    "line",
    [
        b'Content-Type: multipart/mixed;"' + b"\r\n ".join([b";" * 60_000] * 20),
        TYPE + b"*" + b"9" * 5000 + b"*=x",
        TYPE + b"*=a%00b''x",
        TYPE + b"*=idna''x%FF",
        TYPE + b'="a"\r\nnonsense\r\n--a',
        b"Content-Type: message/rfc822\r\nnonsense",
    ],
    ids=["semicolons", "digits", "charset", "codec", "multipart", "message"],
)
def test_headers_are_not_read_as_those_of_an_email(line):
    """Python's parser looked for the boundary in quadratic time, past every deadline, or raised a bare ValueError."""

    def answer(request, wire):
        wire.send(b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)

    began = time.thread_time()
    with Server(answer) as server:
        assert fetch(server.url()).size == len(BODY)
    assert time.thread_time() - began < 2


@pytest.mark.fault(
    "stores and files", "an error with a chunk of -1 bytes and 64 MiB behind it", outcome="clear error",
    seen="{ViduURLExpiredError}",
)  # fmt: skip
@pytest.mark.parametrize("size", [b"-1", b"-5"])
def test_a_chunk_of_less_than_nothing_is_none(size):
    """Python would read all that comes into memory, or raise a bare ValueError."""
    sent = 0

    def answer(request, wire):
        nonlocal sent
        wire.send(b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n")
        with contextlib.suppress(OSError):
            for _ in range(64):
                wire.sock.sendall(b"x" * 2**20)
                sent += 2**20

    with Server(answer) as server, pytest.raises(ViduURLExpiredError):
        fetch(server.url())
    assert sent < 32 * 2**20


def test_the_secrets_are_spelt_once_for_all_headers(monkeypatch):
    """A signed URL has hundreds of spellings, which take milliseconds: not once for each header."""
    spelt = []

    class Counted(Redactor):
        def __init__(self, secrets):
            spelt.append(secrets := set(secrets))
            super().__init__(secrets)

    monkeypatch.setattr(download_url, "Redactor", Counted)
    query = f"X-Amz-Signature={'0123456789abcdef' * 4}"
    with Server(fixed(200, b"abcde", **{f"X-{number}": query for number in range(50)})) as server:
        access = DownloadAccess(allowed_hosts=LOOPBACK, timeout=5.0)
        with contextlib.closing(Stream(DownloadURL.parse(server.url(f"/v?{query}")), access, {}, own=False)) as stream:
            assert {stream.headers[f"x-{number}"] for number in range(50)} == {"***"}
    assert len(spelt) == 1
