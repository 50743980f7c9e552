"""Which proxy a request takes."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.config import Secret
from airflow_provider_vidu.proxies import proxy_for

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")
ENV, OTHER = "http://env.example.com:3128", "http://other.example.com:3128"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch) -> None:
    """Start from an environment without proxies."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_no_proxy_by_default() -> None:
    """Without a proxy anywhere the way is direct."""
    assert proxy_for("https://gw.example.com/x", None) is None


@pytest.mark.parametrize("url", ["https://gw.example.com/x", "http://gw.example.com", "http://127.0.0.1:8080/x"])
def test_the_connections_own_proxy_wins(monkeypatch, url: str) -> None:
    """What the connection says goes before the environment, loopback and NO_PROXY."""
    monkeypatch.setenv("HTTPS_PROXY", ENV)
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxy_for(url, Secret(OTHER)) == OTHER


@pytest.mark.parametrize(
    ("env", "url", "expected"),
    [
        pytest.param({"HTTPS_PROXY": ENV}, "https://gw.example.com", ENV, id="https"),
        pytest.param({"https_proxy": ENV}, "https://gw.example.com", ENV, id="lower case"),
        pytest.param({"HTTPS_PROXY": ENV}, "http://gw.example.com", None, id="another scheme"),
        pytest.param({"HTTP_PROXY": ENV}, "http://gw.example.com", ENV, id="http"),
        pytest.param({"HTTPS_PROXY": ENV}, "HTTPS://gw.example.com", ENV, id="scheme in capitals"),
        pytest.param({"ALL_PROXY": ENV}, "https://gw.example.com", ENV, id="all"),
        pytest.param({"ALL_PROXY": OTHER, "HTTPS_PROXY": ENV}, "https://gw.example.com", ENV, id="all and https"),
        pytest.param({"HTTPS_PROXY": ""}, "https://gw.example.com", None, id="empty"),
        pytest.param({"HTTPS_PROXY": ENV, "NO_PROXY": "*"}, "https://gw.example.com", None, id="no proxy at all"),
        pytest.param({"HTTPS_PROXY": ENV, "NO_PROXY": "example.com"}, "https://gw.example.com", None, id="domain"),
        pytest.param({"HTTPS_PROXY": ENV, "NO_PROXY": ".example.com"}, "https://gw.example.com", None, id="dot domain"),
        pytest.param(
            {"HTTPS_PROXY": ENV, "NO_PROXY": "other.com, gw.example.com"}, "https://gw.example.com", None,
            id="list"),
        pytest.param({"HTTPS_PROXY": ENV, "NO_PROXY": "ample.com"}, "https://gw.example.com", ENV, id="half a domain"),
        pytest.param(
            {"HTTPS_PROXY": ENV, "NO_PROXY": "GW.Example.com"}, "https://gw.example.com:8443", None,
            id="capitals"),
        pytest.param(
            {"HTTPS_PROXY": ENV, "NO_PROXY": "gw.example.com:8443"}, "https://gw.example.com:8443", None,
            id="with port"),
        pytest.param(
            {"HTTPS_PROXY": ENV, "NO_PROXY": "gw.example.com:8443"}, "https://gw.example.com", ENV, id="another port"),
        pytest.param({"HTTP_PROXY": ENV, "ALL_PROXY": ENV}, "http://localhost:8080", None, id="localhost"),
        pytest.param({"HTTP_PROXY": ENV, "ALL_PROXY": ENV}, "http://127.0.0.1:8080", None, id="loopback"),
        pytest.param({"HTTP_PROXY": ENV, "ALL_PROXY": ENV}, "http://[::1]:8080", None, id="IPv6 loopback"),
        pytest.param({"HTTPS_PROXY": "env.example.com:3128"}, "https://gw.example.com", ENV, id="without a scheme"),
    ],
)  # fmt: skip
def test_proxies_of_the_environment(monkeypatch, env: dict[str, str], url: str, expected: str | None) -> None:
    """The environment's variables, and what they exempt; always a URL that both clients understand."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url, None) == expected
