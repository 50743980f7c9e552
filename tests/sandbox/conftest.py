"""What the sandbox's tests share: a sandbox whose clock stands still, and a client that leaves URLs as they are."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from airflow_provider_vidu.sandbox import Sandbox
from tests.sandbox.service import Service

NATIVE_PATH = "/vidu-native/video/generations"


@dataclass
class Reply:
    """An answer read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Yield a sandbox in which time only passes when the test says so."""
    with Sandbox(speed=0) as running:
        yield running


@pytest.fixture
def fetch() -> Callable[..., Reply]:
    """Return a function that requests a URL verbatim, which requests would re-quote."""

    def get(url: str, method: str = "GET", timeout: float = 5.0, **headers: str) -> Reply:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, url[url.index(parts.netloc) + len(parts.netloc) :], headers=names)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    return get


class Client:
    """Speaks both dialects to one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()

    def call(
        self, method: str, path: str, scheme: str = "Bearer", key: str | None = None, **kw: Any
    ) -> requests.Response:
        """Return the answer to one request with the API key."""
        headers = {"Authorization": f"{scheme} {key or self.sandbox.key}"}
        return self.session.request(method, self.sandbox.url + path, headers=headers, timeout=5, **kw)

    def create(self, prompt: str = "a cat", **body: Any) -> str:
        """Create a native generation and return its id."""
        return self.call("POST", NATIVE_PATH, json={"prompt": prompt, "model": "viduq2", **body}).json()["id"]

    def query(self, generation_id: str) -> dict[str, Any]:
        """Return the body of a native query."""
        return self.call("GET", f"{NATIVE_PATH}/{quote(generation_id, safe='')}").json()

    def ent(self, method: str, path: str, **kw: Any) -> requests.Response:
        """Return the answer to one request to the official API."""
        return self.call(method, f"/ent/v2/{path}", "Token", **kw)

    def video(self, **spec: Any) -> str:
        """Add a generation that is done and return its video URL."""
        self.sandbox.add_generation(id="done", states=[["completed", 0]], **spec)
        return self.query("done")["video_url"]


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Client]:
    """Yield a client of the sandbox."""
    made = Client(sandbox)
    yield made
    made.session.close()


@pytest.fixture
def service() -> Service:
    """Return a sandbox without sockets, as strict as it comes."""
    return Service()
