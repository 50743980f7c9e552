"""An error that leaves the clients holds no key: not in its text, its pickle, the errors behind it, or their frames."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import os
import pickle
import pkgutil
import signal
import socket
import ssl
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
import trustme

from airflow_provider_vidu.api.input_uploads import put
from airflow_provider_vidu.api.settings.connection import resolve
from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.downloads.transfer import Rules, Transfer
from airflow_provider_vidu.exceptions import ViduDownloadError, ViduError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.network.connection import Connection
from airflow_provider_vidu.network.download_url import DownloadAccess, DownloadURL
from airflow_provider_vidu.network.stream import NETWORK_ERRORS, Stream
from airflow_provider_vidu.network.tls import ssl_context
from fault_table import CLEAR_ERROR
from tests.integration.downloads.test_transfer import Shelf
from tests.integration.servers import Request, Server, Wire, fixed

pytestmark = pytest.mark.integration

KEY = "sk-nokey-c0ffee-31"
PASSWORD = "proxy-nokey-77"
SECRETS = (KEY, PASSWORD)


def chain(error: BaseException | None, seen: set[int] | None = None) -> Iterator[BaseException]:
    """Yield an error and everything that hangs on it, shown or not."""
    seen = set() if seen is None else seen
    if error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        yield from chain(error.__cause__, seen)
        yield from chain(error.__context__, seen)


def frames(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames that an error report would show, without those of the tests."""
    step = error.__traceback__
    while step is not None:
        if "/tests/" not in step.tb_frame.f_code.co_filename:
            yield step.tb_frame
        step = step.tb_next


def assert_clean(error: BaseException) -> None:
    """Assert that neither what is shown nor what a debugger or an error tracker collects holds a secret."""
    told = ["".join(traceback.format_exception(error))]
    for link in chain(error):
        told += [repr(link), str(vars(link))]
        told += [
            f"{frame.f_code.co_name}: {name}={value!r}"
            for frame in frames(link)
            for name, value in frame.f_locals.items()
        ]
    told.append(pickle.dumps(error).decode("latin-1"))
    assert not [text for text in told if any(secret in text for secret in SECRETS)]


def _quoting(request: Request, wire: Wire) -> None:
    body = json.dumps({"error": {"message": f"bad key {request.headers['authorization']}", "code": "invalid"}}).encode()
    fixed(401, body, Content_Type="application/json")(request, wire)


def _breaking(_: Request, wire: Wire) -> None:
    wire.reset()


def _cut(_: Request, wire: Wire) -> None:
    wire.head(200, Content_Length=1000)
    wire.send(b"{")


ANSWERS = {
    "quotes the key": _quoting,
    "resets": _breaking,
    "is cut": _cut,
    "is no HTTP": lambda _, wire: wire.send(b"?\r\n"),
}


@pytest.fixture
def connect(monkeypatch) -> Callable[..., None]:
    """Return what defines the default connection."""

    def connect(host: str, **extra: object) -> None:
        stored = {"conn_type": "vidu", "host": host, "password": KEY}
        extra = {"timeout": 5, "max_retries": 0, "headers": {"X-Api-Token": PASSWORD}, **extra}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(stored | {"extra": extra}))

    return connect


ASKS: dict[str, Callable[[], object]] = {
    "sync": lambda: ViduHook().get_generation("g", retries=0),
    "create": lambda: ViduHook().create_generation(prompt="a cat"),
    "async": lambda: asyncio.run(ViduHook().aget_generation("g", retries=0)),
}


@pytest.mark.fault(
    "secrets",
    "an error that is pickled, chained or reported with its frames",
    outcome="clear error",
    side="API",
    seen="an error without key or password, at any depth",
)
@pytest.mark.parametrize("way", ["direct", "proxy"])
@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("name", ANSWERS)
def test_an_error_of_the_api(connect, name: str, ask: str, way: str) -> None:
    """Whatever the service does with a request, its error can be sent anywhere."""
    with Server(ANSWERS[name]) as server:
        proxy = f"http://user:{PASSWORD}@127.0.0.1:{server.port}" if way == "proxy" else None
        connect(server.url(""), proxy=proxy)
        with pytest.raises(ViduError) as caught:
            ASKS[ask]()
    assert KEY in server.requests[0].headers["authorization"]
    assert_clean(caught.value)


@pytest.mark.parametrize("ask", ASKS)
def test_an_error_of_the_handshake(connect, ask: str) -> None:
    """A certificate that is not trusted is an error without a request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Server(_quoting, tls=context) as server:
        connect(server.url(""))
        with pytest.raises(ViduError) as caught:
            ASKS[ask]()
    assert_clean(caught.value)


def access(server: Server) -> DownloadAccess:
    """Return the access of a connection whose origin is ``server``."""
    return DownloadAccess(
        origin=("http", "127.0.0.1", server.port),
        headers=(("Authorization", Secret(f"Bearer {KEY}")),),
        secrets=(Secret(KEY),),
        timeout=5,
        max_retries=0,
    )


@pytest.mark.fault(
    "secrets",
    "an error that is pickled, chained or reported with its frames",
    outcome="clear error",
    side="download",
    seen="an error without key or password, at any depth",
)
@pytest.mark.parametrize("name", ANSWERS)
def test_an_error_of_a_download(name: str) -> None:
    """The same for a file on the connection's own origin, which is asked for with the key."""
    with Server(ANSWERS[name]) as server:
        rules = Rules(sleep=lambda _: None)
        with pytest.raises(ViduDownloadError) as caught:
            Transfer(server.url(), Shelf().open, access=access(server), rules=rules).run()
    assert KEY in server.requests[0].headers["authorization"]
    assert_clean(caught.value)


@pytest.mark.parametrize("answer", [fixed(200, b"<html>Bearer " + KEY.encode()), fixed(500, KEY.encode())])
def test_what_a_server_quotes_is_not_kept(answer) -> None:
    """The first bytes of what is refused are let go of with it."""
    with Server(answer) as server:
        transfer = Transfer(server.url(), Shelf().open, access=access(server), rules=Rules(sleep=lambda _: None))
        with pytest.raises(ViduDownloadError) as caught:
            transfer.run()
    assert_clean(caught.value)
    assert KEY not in str(vars(transfer._file))


def test_a_refused_address_leaves_no_trace_of_the_request() -> None:
    """It is found out when the request is already written, key and all."""
    with Server(_breaking) as server:
        own = dataclasses.replace(
            access(server),
            origin=("http", "gw.example.com", server.port),
            resolve=lambda *_: ["127.0.0.1"],
        )
        with pytest.raises(ViduDownloadError, match="loopback") as caught:
            Transfer(server.url(host="gw.example.com"), Shelf().open, access=own).run()
    assert server.requests == []
    assert_clean(caught.value)


@pytest.mark.parametrize("answer", [_breaking, fixed(407)])
def test_a_proxy_that_fails_leaves_no_trace_of_its_password(answer) -> None:
    """The connection, which an error's frames hold, knows it only as a secret."""
    with Server(answer) as server:
        proxy = Secret(f"http://user:{PASSWORD}@127.0.0.1:{server.port}")
        behind = dataclasses.replace(access(server), proxy=proxy, resolve=lambda *_: ["8.8.8.8"])
        with pytest.raises(ViduDownloadError) as caught:
            Transfer("https://cdn.example.com/v.mp4", Shelf().open, access=behind).run()
        # An error of the transfer has no cause any more that holds its stream.
        with pytest.raises(NETWORK_ERRORS) as cause:
            Stream(DownloadURL.parse("https://cdn.example.com/v.mp4"), behind, {}, own=False)
    assert "proxy-authorization" in server.requests[0].headers
    assert_clean(caught.value)
    assert_clean(cause.value)
    streams = [value for link in chain(cause.value) for frame in frames(link) for value in frame.f_locals.values()
               if isinstance(value, Stream)]  # fmt: skip
    proxies = [stream._connection._proxy for stream in streams]
    assert proxies
    assert PASSWORD not in str([getattr(each, part.name) for each in proxies for part in dataclasses.fields(each)])


def test_a_broken_stream_leaves_no_trace_of_its_request(monkeypatch) -> None:
    """The library's frames hold the request as it was written: they are cut off."""

    def broken(_: Connection, data: bytes) -> None:
        assert KEY.encode() in data
        raise BrokenPipeError

    monkeypatch.setattr(Connection, "send", broken)
    with Server(_breaking) as server, pytest.raises(BrokenPipeError) as caught:
        Stream(DownloadURL.parse(server.url()), access(server), {}, own=True)
    assert_clean(caught.value)


class _Interrupt(BaseException):
    """As Airflow's ``execution_timeout``, which no handler of errors catches."""


def _interrupt(*_: object) -> None:
    raise _Interrupt


async def _cancelled() -> None:
    await asyncio.wait_for(ViduHook().aget_generation("g", retries=0), 0.5)


@pytest.mark.fault(
    "secrets",
    "an execution_timeout, a signal or a cancel in the middle of a request",
    outcome="clear error",
    seen="no key in the variables of its frames",
)
@pytest.mark.parametrize("ask", ["sync", "async", "download"])
def test_an_interrupt_within_a_request(connect, ask: str) -> None:
    """It is raised within libraries whose variables hold the headers, and error trackers collect variables."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        connect(f"http://127.0.0.1:{port}")
        secret = (("Authorization", Secret(f"Bearer {KEY}")),)
        own = DownloadAccess(("https", "127.0.0.1", port), secret, allowed_hosts=frozenset({"127.0.0.1"}), verify=False)
        asks = {
            "sync": ASKS["sync"],
            "async": lambda: asyncio.run(_cancelled()),
            "download": lambda: Stream(DownloadURL.parse(f"https://127.0.0.1:{port}/a.mp4"), own, {}, own=True),
        }
        before = signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0 if ask == "async" else 0.5)
        try:
            with pytest.raises((_Interrupt, TimeoutError)) as caught:
                asks[ask]()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert_clean(caught.value)


WRONG: dict[str, dict[str, object]] = {
    "number": {"timeout": "soon"},
    "headers": {"headers": {"X-Api-Token": PASSWORD, "X-Other": "a\r\nb"}},
    "proxy": {"proxy": f"socks5://user:{PASSWORD}@127.0.0.1:1"},
    "bundle": {"verify": "/nowhere/ca.pem"},
    "dialect": {"dialect": "ent-v7"},
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_of_a_connection(connect, name: str, ask: str) -> None:
    """The variables of what reads a connection hold all of it."""
    connect("http://127.0.0.1:9", **WRONG[name])
    with pytest.raises(ViduError) as caught:
        ASKS[ask]()
    assert_clean(caught.value)


def test_a_bundle_that_the_environment_names(connect, monkeypatch) -> None:
    """The environment holds connections."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    connect("https://127.0.0.1:9")
    with pytest.raises(ViduError, match="CA bundle") as caught:
        ssl_context()
    assert_clean(caught.value)


@pytest.mark.parametrize("step", ["ViduConfig.from_connection", "_get", "mask_secret"])
def test_an_interrupt_while_a_connection_is_looked_up(connect, monkeypatch, step: str) -> None:
    """Airflow's own look-up holds the connection, too."""
    connect("http://127.0.0.1:9")
    module = "airflow_provider_vidu.api.settings.connection"
    name = f"{module}.{step}"
    real = pkgutil.resolve_name(f"{module}:{step}")

    def interrupted(*args: object) -> object:
        held = [real(*args), os.environ["AIRFLOW_CONN_VIDU_DEFAULT"]]
        raise _Interrupt(len(held))

    monkeypatch.setattr(name, interrupted)
    with pytest.raises(_Interrupt) as caught:
        resolve("vidu_default")
    assert_clean(caught.value)


def _refusing(request: Request, wire: Wire) -> None:
    sent = request.headers["proxy-authorization"].removeprefix("Basic ")
    body = f"{sent} is {base64.b64decode(sent).decode()}".encode()
    wire.send(b"HTTP/1.1 407 Not " + sent.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


SHORT = "nk-7777"
"""Its Base64 is not looked for by itself."""


@pytest.mark.fault("secrets", "a proxy quotes the password that it refuses", outcome=CLEAR_ERROR, seen="three stars")
@pytest.mark.parametrize("is_own", [True, False], ids=["connection", "environment"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("ask", [*ASKS, "download", "upload"])
def test_a_proxy_that_quotes_its_password(connect, monkeypatch, ask: str, scheme: str, is_own: bool) -> None:
    """In its status line or on its page, as it was sent or decoded, wherever the proxy is named."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    with Server(_refusing) as server:
        proxy = f"http://joe:{SHORT}@127.0.0.1:{server.port}"
        if not is_own:
            monkeypatch.setenv(f"{scheme}_proxy", proxy)
        connect(f"{scheme}://gw.example.com", **({"proxy": proxy} if is_own else {}))
        access = dataclasses.replace(resolve("vidu_default").access(), resolve=lambda *_: ["8.8.8.8"])
        url = f"{scheme}://gw.example.com/v.mp4"
        files: dict[str, Callable[[], object]] = {
            "download": lambda: Transfer(url, Shelf().open, access=access).run(),
            "upload": lambda: put(url, io.BytesIO(b"x"), 1, "image/png", access),
        }
        with pytest.raises(ViduError) as caught:
            (ASKS | files)[ask]()
    assert len(server.requests) == 1
    sent = base64.b64encode(f"joe:{SHORT}".encode()).decode()
    # A 407 on plain http is the proxy's own: its page is not quoted at all.
    assert "***" in str(caught.value) or "The proxy requires a user" in str(caught.value)
    for secret in (SHORT, sent):
        assert secret not in str(caught.value)
        assert secret not in str(caught.value.details())


@pytest.mark.parametrize("ask", [*ASKS, "download", "upload"])
@pytest.mark.parametrize("before", [40, 60, 100, 1000])
def test_a_password_at_the_end_of_what_is_kept_of_a_reason(connect, monkeypatch, ask: str, before: int) -> None:
    """A status line that is longer than what is kept of it could end within the password, where no search finds it."""
    password = "".join(f"{number * 7919 % 9973:04d}" for number in range(20))
    reason = "." * 40 + f"{password} " * (before // 60) if before > 100 else "." * (before - 20)

    def answer(request: Request, wire: Wire) -> None:
        wire.send(f"HTTP/1.1 407 {reason}{password * 40}\r\nContent-Length: 0\r\n\r\n".encode())

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    with Server(answer) as server:
        connect("https://gw.example.com", proxy=f"http://joe:{password}@127.0.0.1:{server.port}")
        access = dataclasses.replace(resolve("vidu_default").access(), resolve=lambda *_: ["8.8.8.8"])
        files: dict[str, Callable[[], object]] = {
            "download": lambda: Transfer("https://gw.example.com/v.mp4", Shelf().open, access=access).run(),
            "upload": lambda: put("https://gw.example.com/v", io.BytesIO(b"x"), 1, "image/png", access),
        }
        with pytest.raises(ViduError) as caught:
            (ASKS | files)[ask]()
    assert "407" in str(caught.value)
    assert not any(password[at : at + 8] in str(caught.value) for at in range(len(password) - 7))


NOT_A_FILE = bytes(range(1, 200)) * 30


@pytest.mark.fault("secrets", "a file server quotes the key in a header", outcome=CLEAR_ERROR, seen="three stars")
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"Content-Type": KEY}),
        (302, {"Location": f"ftp://h/{KEY}"}),
        (302, {"Location": f"{KEY}://h"}),
        (302, {"Location": f"http://{KEY}.localtest:1/"}),
        (302, {"Location": f"http://{KEY}@127.0.0.1/"}),
    ],
    ids=["type", "path", "scheme", "host", "user"],
)
def test_a_file_server_that_quotes_the_key_in_a_header(status: int, headers: dict[str, str]) -> None:
    """The connection's own origin gets the key; what a refusal quotes of its headers is redacted like its body."""

    def answer(request: Request, wire: Wire) -> None:
        wire.head(status, Content_Length=len(NOT_A_FILE), **headers)
        wire.send(NOT_A_FILE)

    with Server(answer) as server:
        own = dataclasses.replace(access(server), resolve=lambda *_: ["127.0.0.1"])
        with pytest.raises(ViduDownloadError) as caught:
            Transfer(server.url(), Shelf().open, access=own).run()
    assert_clean(caught.value)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("size", [2048, 4096, 8192])
@pytest.mark.parametrize("filler", ["", "\u200b"], ids=["keys", "invisible"])
def test_a_key_at_the_end_of_what_is_read_of_an_answer(filler: str, size: int, status: int) -> None:
    """What is left of a key that is cut off is not found; behind text that shows nothing, the quote reached it."""
    key = "".join(f"{number * 7919 % 9973:04d}" for number in range(40))
    shown = size - len(key) + 2
    before = filler * (shown // 3) or key * (shown // len(key))
    body = f"{'.' * (shown - len(before.encode()))}{before}{key}{'-' * 9000}".encode()

    def answer(request: Request, wire: Wire) -> None:
        wire.head(status, Content_Type="text/plain", Content_Length=len(body))
        wire.send(body)

    with Server(answer) as server:
        own = dataclasses.replace(access(server), secrets=(Secret(key),))
        with pytest.raises(ViduDownloadError) as caught:
            Transfer(server.url(), Shelf().open, access=own).run()
    assert not any(key[at : at + 8] in str(caught.value) for at in range(len(key) - 7))


def test_a_compressed_file_that_holds_the_key() -> None:
    """It is broken, and the frames of the error hold the beginning of what came."""
    body = b"\x1f\x8b\x08" + bytes(7) + KEY.encode()
    with Server(fixed(200, body)) as server, pytest.raises(ViduDownloadError, match="corrupt") as caught:
        Transfer(server.url(), Shelf().open, access=access(server)).run()
    assert_clean(caught.value)
