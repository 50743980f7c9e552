"""Which proxy a request takes."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.network.proxies import environment_secrets, is_exempt, proxy_for
from tests.rows import each_row

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
        pytest.param({"HTTPS_PROXY": f" {ENV} "}, "https://gw.example.com", ENV, id="blanks"),
        pytest.param({"HTTPS_PROXY": ENV.upper()}, "https://gw.example.com", "http://ENV.EXAMPLE.COM:3128", id="caps"),
        pytest.param({"https_proxy": "", "HTTPS_PROXY": ENV}, "https://gw.example.com", None, id="lower case wins"),
        pytest.param({"HTTPS_PROXY": "", "ALL_PROXY": ENV}, "https://gw.example.com", ENV, id="empty, then all"),
        pytest.param({"HTTP_PROXY": ENV, "REQUEST_METHOD": "GET"}, "http://gw.example.com", None, id="httpoxy"),
        pytest.param({"http_proxy": ENV, "REQUEST_METHOD": "GET"}, "http://gw.example.com", ENV, id="CGI, lower case"),
        pytest.param({"HTTPS_PROXY": "socks5://s:1", "NO_PROXY": "gw.example.com"}, "https://gw.example.com", None,
            id="SOCKS for others"),
        pytest.param({"HTTPS_PROXY": ENV, "ALL_PROXY": "socks5://s:1"}, "https://gw.example.com", ENV,
            id="SOCKS where nothing better is named"),
    ],
)  # fmt: skip
def test_proxies_of_the_environment(monkeypatch, env: dict[str, str], url: str, expected: str | None) -> None:
    """The environment's variables, and what they exempt; always a URL that both clients understand."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url, None) == expected


@each_row(
    ("listed", "host", "exempt"),
    [
        ("10.0.0.0/8", "10.1.2.3", True), ("10.0.0.0/8", "11.1.2.3", False), ("10.1.2.3/8", "10.9.9.9", True),
        ("10.1.2.3", "10.1.2.3", True), ("10.1.2.3:443", "10.1.2.3", True), ("10.1.2.3:80", "10.1.2.3", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True), ("a,10.0.0.0/8 b", "10.1.2.3", True),
        ("fd00::/8", "fd12::1", True), ("fd00::/8", "fe12::1", False), ("fd12::1", "fd12::1", True),
        ("FD12:0::1", "fd12::1", True), ("[fd12::1]", "fd12::1", True), ("[fd12::1]:443", "fd12::1", True),
        ("[fd12::1]:80", "fd12::1", False), ("fe80::1%eth0", "fe80::1%eth1", True),
        ("10.0.0.0/8", "10.example.com", False), ("0.0.0.0/0", "gw.example.com", False), ("::/0", "10.1.2.3", False),
        ("10.0.0.0/99", "10.1.2.3", False), ("example.com", "example.com.", True),
        ("*.example.com", "a.example.com", True),
        ("10.1.2.*", "10.1.2.3", True), ("10.1.2.*", "10.1.3.3", False), ("10.1.*.*", "10.1.3.3", True),
        ("10.1.*", "10.1.3.3", True), ("10.1.2.*:443", "10.1.2.3", True), ("10.1.2.*:80", "10.1.2.3", False),
        ("10.1.2.*", "::ffff:10.1.2.3", True), ("10.1.2.*", "fd12::1", False), ("10.1.2.*", "10.1.2.3.com", False),
        ("[fd00::]/8", "fd12::1", True), ("[fd00::]/8", "fe12::1", False),
        ("https://gw.example.com", "gw.example.com", True), ("http://example.com/", "gw.example.com", True),
        ("https://gw.example.com:8443", "gw.example.com", False), ("https://10.1.2.3/", "10.1.2.3", True),
        ("https://[fd12::1]:443", "fd12::1", True), ("10.0.0.0/8/", "10.1.2.3", True),
        ("bücher.example", "xn--bcher-kva.example", True), ("xn--bcher-kva.example", "bücher.example", True),
        (".BÜCHER.example", "gw.bücher.example", True), ("bücher.example", "bucher.example", False),
        ("ü" * 80, "gw.example.com", False), ("gw.example.com", "ü" * 80, False),
        ('"localhost,gw.example.com"', "gw.example.com", True), ("'10.0.0.0/8'", "10.1.2.3", True),
        (".", "gw.example.com", False), (",, ,", "gw.example.com", False), ("", "gw.example.com", False),
    ],
)  # fmt: skip
def test_what_no_proxy_exempts(listed: str, host: str, exempt: bool) -> None:
    """Addresses, networks and domains, in the spellings that are in use; https on port 443."""
    assert is_exempt(host, 443, listed) is exempt


@pytest.mark.parametrize(
    ("env", "proxy", "named"),
    [
        (
            {"ALL_PROXY": "socks5://u:GEHEIM@s:1080"},
            None,
            "environment variable ALL_PROXY names a SOCKS proxy .socks5:",
        ),
        ({"all_proxy": "SOCKS5H://s:1080"}, None, "environment variable all_proxy names a SOCKS proxy .socks5h:"),
        ({"HTTPS_PROXY": "socks4://s"}, None, "environment variable HTTPS_PROXY names a SOCKS proxy"),
        ({}, "socks5://s:1080", "connection's proxy names a SOCKS proxy"),
        ({"HTTPS_PROXY": "ftp://u:GEHEIM@p"}, None, "environment variable HTTPS_PROXY is not the URL of an HTTP proxy"),
        ({"HTTPS_PROXY": "http://u:GEHEIM@p:x"}, None, "HTTPS_PROXY is not the URL"),
        ({"HTTPS_PROXY": "http://"}, None, "HTTPS_PROXY is not the URL"),
    ],
)
def test_proxies_that_cannot_be_used(env: dict[str, str], proxy: str | None, named: str) -> None:
    """The error names where the proxy comes from and says that nothing was sent, without a password."""
    with pytest.raises(ViduConfigError, match=named) as caught:
        proxy_for("https://gw.example.com", Secret(proxy) if proxy else None, env)
    assert "Nothing was sent" in str(caught.value)
    assert "GEHEIM" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://u:GEHEIM@s:1080", "http://u:GEHEIM@p:x", "u:GEHEIM@"])
@pytest.mark.parametrize("is_own", [True, False], ids=["connection", "environment"])
def test_no_frame_of_the_error_holds_the_password(monkeypatch, proxy: str, is_own: bool) -> None:
    """Error trackers and Airflow's own tracebacks show the variables of each frame."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    own = Secret(proxy) if is_own else None
    with pytest.raises(ViduConfigError) as caught:
        proxy_for("https://gw.example.com", own)
    frames = [entry.frame.f_locals for entry in caught.traceback if entry.path.name == "proxies.py"]
    assert frames
    assert "GEHEIM" not in repr(frames)


@pytest.mark.parametrize(
    ("env", "hidden"),
    [
        ({"HTTPS_PROXY": "http://joe:p%40ssword@p:1"}, {"p%40ssword", "p@ssword", "am9lOnBAc3N3b3Jk"}),
        ({"all_proxy": "a-token@p"}, {"a-token", "YS10b2tlbjo="}),
        ({"http_proxy": "http://joe:abc@p"}, {"am9lOmFiYw=="}),
        ({"HTTP_PROXY": "http://p:3128", "HTTPS_PROXY": "http://[x@p", "NO_PROXY": "joe:hidden@h"}, set()),
    ],
)
def test_what_is_secret_of_the_environment(env: dict[str, str], hidden: set[str]) -> None:
    """The password as it is written, meant and sent; a word of three letters alone would make holes into messages."""
    assert environment_secrets(env) == hidden
