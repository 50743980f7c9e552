"""Attacks on the callback route of a real API server: what is not a signed callback changes and shows nothing."""

from __future__ import annotations

import gzip
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from airflow_provider_vidu.tasks.callbacks.tokens import new_address
from tests.callback_requests import signed_headers
from tests.integration.ui.conftest import KEY
from tests.integration.ui.test_callbacks import deferred, row  # noqa: F401 - a fixture
from tests.versions import AIRFLOW

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(AIRFLOW < (3, 1, 1), reason="The API server of older versions has no route of plugins."),
]


def raw(url, head, content=b"", *, wait=15.0):
    """Send bytes; return the status of the answer and its body."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=wait) as wire:
        wire.sendall(head.replace("\n", "\r\n").encode("latin-1") + content)
        received = b""
        while b"\r\n\r\n" not in received and (piece := wire.recv(65_536)):
            received += piece
    status, _, rest = received.partition(b"\r\n\r\n")
    return int(status.split()[1]) if status else 0, rest


def head_of(path, headers=(), *, method="POST", length: int | None = 2):
    """Return the head of a request."""
    named = [("Host", "airflow"), *([] if length is None else [("Content-Length", str(length))]), *headers]
    return f"{method} {path} HTTP/1.1\n" + "".join(f"{name}: {value}\n" for name, value in named) + "\n"


def spelt(path):
    """Return paths that are nearly the one of a callback."""
    base, _, token = path.partition("/vidu/callbacks/")
    swapped = token[:-1] + ("A" if token[-1] != "A" else "B")
    return {
        "two slashes": f"{base}/vidu//callbacks/{token}",
        "three slashes": f"{base}//vidu/callbacks/{token}",
        "a slash at the end": f"{base}/vidu/callbacks/{token}/",
        "a slash before": f"{base}/vidu/callbacks//{token}",
        "a dot": f"{base}/vidu/callbacks/./{token}",
        "an encoded dot": f"{base}/vidu/callbacks/%2e/{token}",
        "parents": f"{base}/vidu/callbacks/x/../{token}",
        "encoded parents": f"{base}/vidu/callbacks/%2e%2e/callbacks/{token}",
        "an encoded slash": f"{base}/vidu/callbacks%2f{token}",
        "another case": f"{base}/vidu/Callbacks/{token}",
        "the token in another case": f"{base}/vidu/callbacks/{token.swapcase()}",
        "a blank": f"{base}/vidu/callbacks/{token}%20",
        "a NUL": f"{base}/vidu/callbacks/{token}%00",
        "a line": f"{base}/vidu/callbacks/{token}%0d%0aX-Y:%20z",
        "wide letters": f"{base}/vidu/callbacks/%EF%BC%A1{token[1:]}",
        "padding": f"{base}/vidu/callbacks/{token}=",
        "parameters": f"{base}/vidu/callbacks/{token};a=b",
        "one bit": f"{base}/vidu/callbacks/{swapped}",
        "no token": f"{base}/vidu/callbacks",
        "ten thousand characters": f"{base}/vidu/callbacks/{'A' * 10_000}",
    }


def test_no_other_spelling_and_no_other_method_resumes(pages, deferred):  # noqa: F811
    """With a signature of the right path, each is refused, and no answer shows more than another."""
    wait = deferred()
    path = urlsplit(wait.address.url).path
    signed = list(signed_headers(KEY, path).items())
    for kind, other in spelt(path).items():
        own = list(signed_headers(KEY, other).items())
        for headers in (signed, own):
            status, body = raw(pages.url, head_of(other, headers), b"{}")
            assert status in (400, 404, 405), kind
            assert wait.address.token.encode() not in body
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "post"):
        assert raw(pages.url, head_of(path, signed, method=method), b"{}")[0] in (400, 404, 405), method
    assert row(pages, wait.instance).state == "deferred"
    # The path was right: a blind spot of this test would be a prefix that leads nowhere.
    assert raw(pages.url, head_of(path, signed), b"{}")[0] == 200
    log = (pages.home / "output.log").read_text(errors="replace")
    assert KEY not in log
    # Airflow's own access log has each path; nothing else holds the token.
    assert [line for line in log.splitlines() if wait.address.token in line and "http.access" not in line] == []


def forms(headers):
    """Return headers that are nearly the ones of a signature."""
    signature = headers["X-HMAC-SIGNATURE"]

    def changed(**values):
        named = {**headers, **{name.replace("_", "-"): value for name, value in values.items()}}
        return [(name, value) for name, value in named.items() if value is not None]

    bit = signature[:-2] + ("A" if signature[-2] != "A" else "B") + "="
    return {
        **{f"without {name}": changed(**{name.replace("-", "_"): None}) for name in headers if "ACCESS" not in name},
        "no list": changed(X_HMAC_SIGNED_HEADERS=""),
        "a list without the date": changed(X_HMAC_SIGNED_HEADERS="x-request-nonce"),
        "a list without the nonce": changed(X_HMAC_SIGNED_HEADERS="Date"),
        "a long list": changed(X_HMAC_SIGNED_HEADERS="Date;x-request-nonce;" + "Date;" * 5000),
        "another order": changed(X_HMAC_SIGNED_HEADERS="x-request-nonce;Date"),
        "no algorithm": changed(X_HMAC_ALGORITHM="none"),
        "another algorithm": changed(X_HMAC_ALGORITHM="hmac-sha1"),
        "an empty signature": changed(X_HMAC_SIGNATURE=""),
        "one bit": changed(X_HMAC_SIGNATURE=bit),
        "a signature that is not ASCII": changed(X_HMAC_SIGNATURE="\xff" * 44),
        "a date that no calendar has": changed(Date="Thu, 99 Foo 99999 99:99:99 +9999"),
        "a first nonce that is another": [("x-request-nonce", "n"), *headers.items()],
        "a first signature that is another": [("X-HMAC-SIGNATURE", bit), *headers.items()],
    }


def test_no_other_form_of_a_signature_resumes(pages, deferred):  # noqa: F811
    """Missing, doubled and odd headers are refused like a wrong signature, after the same time at least."""
    wait = deferred()
    path = urlsplit(wait.address.url).path
    took = {}
    for kind, headers in forms(signed_headers(KEY, path)).items():
        began = time.monotonic()
        assert raw(pages.url, head_of(path, headers), b"{}") == (404, b""), kind
        took[kind] = time.monotonic() - began
    assert min(took.values()) >= 0.15
    assert row(pages, wait.instance).state == "deferred"


def test_bodies_of_the_unknown_and_of_liars(pages, deferred):  # noqa: F811
    """A bomb, a lying length and broken chunks of a stranger are not read; those of the service harm nothing."""
    unknown = urlsplit(new_address(pages.url, uuid4()).url).path
    bomb = gzip.compress(b"0" * 50_000_000)
    assert raw(pages.url, head_of(unknown, length=10**15), b"{}")[0] == 404
    assert raw(pages.url, head_of(unknown, [("Transfer-Encoding", "chunked")], length=None), b"2\r\n{}\r\n")[0] == 404
    packed = [("Content-Encoding", "gzip")]
    assert raw(pages.url, head_of(unknown, packed, length=len(bomb)), bomb)[0] == 404
    assert raw(pages.url, head_of(unknown, [("X-Y", "z" * 30_000)]), b"{}")[0] in (404, 431)
    assert raw(pages.url, head_of(unknown, [(f"X-{n}", "z" * 400) for n in range(100)]), b"{}")[0] in (404, 431)

    wait = deferred()
    path = urlsplit(wait.address.url).path
    signed = list(signed_headers(KEY, path).items())
    assert raw(pages.url, head_of(path, [*signed, *packed], length=len(bomb)), bomb)[0] == 200
    assert row(pages, wait.instance).state == "scheduled"


def test_senders_that_trickle_hold_up_nobody(pages, deferred):  # noqa: F811
    """With two hundred open sockets, half in their headers and half in bodies, callbacks and pages are answered."""
    wait = deferred()
    pages.add("beside", "912", dag="called")
    assert pages.get(pages.at("beside", dag="called", then="/clip.json"), "admin").status_code == 200
    path = urlsplit(wait.address.url).path
    where = urlsplit(pages.url)
    with ExitStack() as open_ones:
        for n in range(200):
            wire = open_ones.enter_context(socket.create_connection((where.hostname, where.port), timeout=10))
            other = urlsplit(new_address(pages.url, uuid4()).url).path
            head = head_of(other, length=1_000_000).replace("\n", "\r\n")
            wire.sendall((head[: len(head) // 2] if n % 2 else head + "{").encode())
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            looks = [
                pool.submit(pages.get, pages.at("beside", dag="called", then="/clip.json"), "admin") for _ in range(8)
            ]
            signed = list(signed_headers(KEY, path).items())
            assert raw(pages.url, head_of(path, signed), b"{}")[0] == 200
            assert {look.result().status_code for look in looks} == {200}
        assert time.monotonic() - began < 30
    assert row(pages, wait.instance).state == "scheduled"
