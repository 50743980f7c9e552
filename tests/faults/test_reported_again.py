"""Second instances of reported faults, found by trying the kinds again: over sockets, against the public face."""

from __future__ import annotations

import json

import pytest

from airflow_provider_vidu.exceptions import ViduDownloadError, ViduURLExpiredError
from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator
from tests.integration.servers import Request, Server, Wire, fixed

JSON = "application/json"
NO_PAGE = b"<html>not allowed by the company's proxy</html>"


def connect(monkeypatch, host: str, **extra) -> None:
    """Let the default connection lead to a host."""
    extra = {"dialect": "ent-v2", "max_retries": 0, "timeout": 5, **extra}
    fields = {"conn_type": "vidu", "host": host, "password": "key-of-reported-faults", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))


def download(url: str, folder) -> dict:
    """Fetch a file as a user's unit test would."""
    return ViduDownloadOperator(task_id="d", video_url=url, destination=f"{folder}/").execute({})


def test_the_refusal_of_a_proxy_names_the_proxy(monkeypatch, tmp_path):
    """A page of 403 that a proxy may have written is not reported as an expired URL alone."""
    with Server(fixed(403, NO_PAGE, Content_Type="text/html")) as proxy:
        connect(monkeypatch, "http://gateway.example", proxy=proxy.url(""))
        with pytest.raises(ViduURLExpiredError, match=rf"through the proxy 127\.0\.0\.1:{proxy.port}.*NO_PROXY"):
            download("http://gateway.example/a.mp4", tmp_path)


def test_without_a_proxy_none_is_named(monkeypatch, tmp_path):
    """An expired URL that was requested directly says nothing of proxies."""
    with Server(fixed(403, b"", Content_Type="text/html")) as server:
        connect(monkeypatch, server.url(""))
        with pytest.raises(ViduURLExpiredError) as caught:
            download(server.url("/a.mp4"), tmp_path)
    assert "proxy" not in str(caught.value)


def test_a_proxy_that_wants_a_password(monkeypatch, tmp_path):
    """The 407 of a proxy is not said to be the server's refusal."""
    with Server(fixed(407, b"", Content_Type="text/html")) as proxy:
        connect(monkeypatch, "http://gateway.example", proxy=proxy.url(""))
        with pytest.raises(ViduDownloadError, match="the proxy requires a user name and password"):
            download("http://gateway.example/a.mp4", tmp_path)


def test_what_a_generation_cost_is_in_its_result(monkeypatch):
    """A query that omits the credits does not lose what the create has answered."""

    def answer(request: Request, wire: Wire) -> None:
        done = {"id": "g7", "state": "success", "creations": [{"id": "1", "url": "https://cdn.example/a.mp4"}]}
        created = {"task_id": "g7", "state": "created", "credits": 80}
        body = json.dumps(created if request.method == "POST" else done).encode()
        fixed(200, body, Content_Type=JSON)(request, wire)

    with Server(answer) as server:
        connect(monkeypatch, server.url(""))
        operator = ViduGenerateOperator(task_id="g", prompt="p", model="viduq2", deferrable=False)
        assert operator.execute({})["credits"] == 80
