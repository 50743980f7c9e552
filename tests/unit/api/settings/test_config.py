"""What a connection says: each field good and bad, and a key that is never shown."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.dialects import EntV2, ViduNative
from airflow_provider_vidu.api.dialects.created import written_out
from airflow_provider_vidu.api.messages import ApiRequest
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.common.origins import is_loopback, origin_of
from airflow_provider_vidu.common.redaction import MASK, Secret
from airflow_provider_vidu.defaults import DEFAULT_CONN_ID
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.network.limits import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT
from tests.properties import properties
from tests.rows import each_row

KEY = "sk-GEHEIM-0123456789"
HOST = "https://gw.example.com"


def config(extra: dict[str, Any] | None = None, conn_id: str = "my_vidu", **fields: Any) -> ViduConfig:
    """Return the configuration of a connection with these fields."""
    conn = SimpleNamespace(**({"host": HOST, "schema": None, "password": KEY, "port": None} | fields))
    return ViduConfig.from_connection(conn_id, conn, extra or {})


def refused(field: str, extra: dict[str, Any] | None = None, **fields: Any) -> str:
    """Assert that a connection is refused by an error that names it and the field; return the message."""
    with pytest.raises(ViduConfigError) as caught:
        config(extra, **fields)
    told = str(caught.value)
    assert "'my_vidu'" in told
    assert f"'{field}'" in told
    assert caught.value.conn_id == "my_vidu"
    assert "GEHEIM" not in told
    assert len(told) < 500
    told.encode()
    return told


def test_defaults() -> None:
    """A host and a key suffice."""
    found = config()
    assert DEFAULT_CONN_ID == "vidu_default"
    assert found.base_url == HOST
    assert isinstance(found.dialect, ViduNative)
    assert (found.auth_scheme, found.timeout, found.max_retries) == ("Bearer", 30.0, 5)
    assert (DEFAULT_TIMEOUT, DEFAULT_MAX_RETRIES) == (30.0, 5)
    assert found.verify is True
    assert found.proxy is None
    assert found.headers == ()
    assert found.allowed_hosts == frozenset()
    assert found.api_key.reveal() == KEY


@each_row("blank", [None, "", "  "])
@each_row(
    "field",
    ["dialect", "auth_scheme", "timeout", "max_retries", "verify", "via", "proxy", "proxy_password", "headers",
     "query_path", "create_path", "allowed_hosts"],
)  # fmt: skip
def test_blank_extras_are_absent(field: str, blank: Any) -> None:
    """The form stores empty fields as null or empty text."""
    assert config({field: blank}) == config()


def test_unknown_extras_are_ignored() -> None:
    """An extra of another package does no harm."""
    assert config({"note": "ours", "deep": {"er": 1}}) == config()


# -- dialect, auth, paths -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "scheme"),
    [("vidu-native", ViduNative, "Bearer"), ("ent-v2", EntV2, "Token"), (" ENT-V2 ", EntV2, "Token")],
)
def test_dialects(name: str, kind: type, scheme: str) -> None:
    """The dialect decides the word before the key."""
    found = config({"dialect": name})
    assert type(found.dialect) is kind
    assert found.auth_scheme == scheme


@each_row("name", ["v3", "ent_v2", "native", 7, True, ["ent-v2"], "ent\nv2", {}])
def test_unknown_dialects(name: Any) -> None:
    """An unknown dialect is refused."""
    refused("dialect", {"dialect": name})


def test_an_unknown_dialect_is_told_the_known_ones() -> None:
    """The message lists what may stand there."""
    assert "vidu-native, ent-v2" in refused("dialect", {"dialect": "v3"})


@pytest.mark.parametrize(
    ("scheme", "header"), [("Key", f"Key {KEY}"), (" Token ", f"Token {KEY}"), ("none", KEY), (" NONE", KEY)]
)
def test_auth_scheme(scheme: str, header: str) -> None:
    """Resellers want another word, or the key alone."""
    assert config({"auth_scheme": scheme}).request_headers()["Authorization"] == header


@each_row("scheme", ["A\r\nX: y", "A\x00", 7, True, [], "密钥", "Bearér"])
def test_bad_auth_schemes(scheme: Any) -> None:
    """What no header can carry is refused here and not by one of the clients."""
    refused("auth_scheme", {"auth_scheme": scheme})


def test_paths() -> None:
    """A reseller's paths are used."""
    found = config({"dialect": "ent-v2", "query_path": "/v/task/{id}/creations", "create_path": "/v/{endpoint}"})
    assert found.url(found.dialect.query("1").request) == f"{HOST}/v/task/1/creations"
    assert found.url(found.dialect.create({"prompt": "p"}).request) == f"{HOST}/v/text2video"


@pytest.mark.parametrize("dialect", ["vidu-native", "ent-v2"])
def test_an_id_in_a_query(dialect: str) -> None:
    """The id may be a query parameter; nothing in it can end the parameter or add another one."""
    found = config({"dialect": dialect, "query_path": "/v1/video/query?v=1&id={task_id}", "create_path": "/v1/create"})
    path = found.dialect.query("a&b=c#d/ é+%").request.path
    assert path == "/v1/video/query?v=1&id=a%26b%3Dc%23d%2F%20%C3%A9%2B%25"
    assert not found.dialect.can_cancel()


@pytest.mark.parametrize(
    ("query_path", "cancel"),
    [
        (None, "/ent/v2/tasks/1%2F2/cancel"),
        ("/vidu/ent/v2/task/{id}/creations", "/vidu/ent/v2/task/1%2F2/cancel"),
        ("/v/{id}/creations?lang=en", "/v/1%2F2/cancel?lang=en"),
        ("/v/{id}?id={id}", "/v/1%2F2/cancel?id=1%2F2"),
    ],
)
def test_the_cancel_beside_a_query(query_path: str | None, cancel: str) -> None:
    """A cancel has the query's path and keeps its query string."""
    request = config({"dialect": "ent-v2", "query_path": query_path}).dialect.cancel("1/2").request
    assert request.path == cancel


@each_row(
    ("field", "path"),
    [
        ("query_path", "/v/tasks"), ("query_path", "v/{id}"), ("query_path", "/v/{x}/{id}"), ("query_path", 7),
        ("query_path", "/v/{id}?x=1?y=2"), ("query_path", "/v/{id}#x"), ("query_path", "/v\r\n/{id}"),
        ("create_path", "v"), ("create_path", "/{id}"), ("create_path", ["/v"]), ("create_path", "/v /x"),
        ("create_path", "/v?x=1"),
    ],
)  # fmt: skip
def test_bad_paths(field: str, path: Any) -> None:
    """A bad template is refused with its field."""
    refused(field, {field: path})


# -- host -----------------------------------------------------------------------------------------


@each_row(
    ("fields", "base_url"),
    [
        pytest.param({"host": "https://gw.example.com"}, "https://gw.example.com", id="URL"),
        pytest.param({"host": "https://gw.example.com/"}, "https://gw.example.com", id="trailing slash"),
        pytest.param({"host": "https://gw.example.com//"}, "https://gw.example.com", id="trailing slashes"),
        pytest.param({"host": "  https://gw.example.com \n"}, "https://gw.example.com", id="blanks"),
        pytest.param({"host": "gw.example.com"}, "https://gw.example.com", id="no scheme"),
        pytest.param({"host": "gw.example.com/p/q/"}, "https://gw.example.com/p/q", id="no scheme, prefix"),
        pytest.param({"host": "gw.example.com:8443"}, "https://gw.example.com:8443", id="no scheme, port"),
        pytest.param({"host": "gw.example.com", "schema": "http"}, "http://gw.example.com", id="schema"),
        pytest.param({"host": "gw.example.com", "schema": "HTTP"}, "http://gw.example.com", id="schema in capitals"),
        pytest.param({"host": "gw.example.com", "schema": " "}, "https://gw.example.com", id="blank schema"),
        pytest.param({"host": HOST, "schema": "http"}, HOST, id="the host's scheme wins"),
        pytest.param({"host": "HTTPS://GW.Example.COM/Path"}, "https://gw.example.com/Path", id="capitals"),
        pytest.param({"host": HOST, "port": 8443}, f"{HOST}:8443", id="port"),
        pytest.param({"host": HOST, "port": 0}, HOST, id="port 0, which the test button sends"),
        pytest.param({"host": f"{HOST}:8443/p", "port": 8443}, f"{HOST}:8443/p", id="the same port twice"),
        pytest.param({"host": f"{HOST}/p", "port": 8443}, f"{HOST}:8443/p", id="port and prefix"),
        pytest.param({"host": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080", id="IPv4"),
        pytest.param({"host": "http://[::1]:8080/p"}, "http://[::1]:8080/p", id="IPv6"),
        pytest.param({"host": "[::1]"}, "https://[::1]", id="IPv6 without a scheme"),
        pytest.param({"host": f"{HOST}/vidu-native"}, HOST, id="ends in the root"),
        pytest.param({"host": f"{HOST}/p/vidu-native/"}, f"{HOST}/p", id="prefix and root"),
        pytest.param({"host": f"{HOST}//vidu-native"}, HOST, id="two slashes before the root"),
        pytest.param({"host": f"{HOST}/my-vidu-native"}, f"{HOST}/my-vidu-native", id="ends in another word"),
    ],
)
def test_hosts(fields: dict[str, Any], base_url: str) -> None:
    """A host in all its forms."""
    found = config(**fields)
    assert found.base_url == base_url
    assert found.url(ApiRequest("GET", "/x")) == f"{base_url}/x"


@pytest.mark.parametrize("host", ["https://api.vidu.cn", "https://api.vidu.cn/ent/v2", "https://api.vidu.cn/ent/v2/"])
def test_hosts_of_ent_v2(host: str) -> None:
    """A host that ends in the dialect's root is accepted."""
    found = config({"dialect": "ent-v2"}, host=host)
    assert found.url(found.dialect.query("1").request) == "https://api.vidu.cn/ent/v2/tasks/1/creations"


@pytest.mark.parametrize("host", [None, "", " "])
def test_ent_v2_without_a_host(host: str | None) -> None:
    """The official API is the default of its dialect."""
    assert config({"dialect": "ent-v2"}, host=host).base_url == "https://api.vidu.com"


@pytest.mark.parametrize(
    ("host", "dialect"),
    [
        ("https://api.vidu.com", "ent-v2"),
        ("api.vidu.cn", "ent-v2"),
        ("https://API.vidu.cn:443/ent/v2", "ent-v2"),
        ("https://api.vidu.com.example.com", "vidu-native"),
        ("https://gw.example.com/api.vidu.com", "vidu-native"),
    ],
)
def test_the_official_hosts_speak_their_dialect(host: str, dialect: str) -> None:
    """Without a dialect, only the two official hosts mean ent-v2; a dialect that is set always counts."""
    assert config({}, host=host).dialect.name == dialect
    assert config({"dialect": "vidu-native"}, host=host).dialect.name == "vidu-native"


def test_a_root_in_the_host_stays_where_the_paths_do_without() -> None:
    """Who writes paths below the host means the host as it stands."""
    found = config(
        {"dialect": "ent-v2", "query_path": "/task/{id}/creations", "create_path": "/{endpoint}"},
        host="https://r.example.com/vidu/ent/v2",
    )
    assert found.url(found.dialect.query("1").request) == "https://r.example.com/vidu/ent/v2/task/1/creations"


@each_row(
    "host",
    [
        None, "", "  ", "https://", "https:///p", "ftp://gw.example.com", "file:///etc/passwd", "://gw.example.com",
        "https://gw.example.com?x=1", "https://gw.example.com/#x", "https://user@gw.example.com",
        "https://user:GEHEIM@gw.example.com", "GEHEIM@gw.example.com", "https://GEHEIM@gw:80a", "ftp://GEHEIM@gw:80a",
        "https://gw example.com", "https://gw.example.com/a b", "https://gw.example.com/a\tb", "https://gw.exa\nmple.com",
        "https://gäteway.example.com", "https://视频.example.com", "https://gw.example.com:99999",
        "https://gw.example.com:x", "https://[::1", "::1", "https://gw.example.com\\@evil.example.com",
        "https://gw%2eexample.com", "https:gw.example.com",
    ],
)  # fmt: skip
def test_bad_hosts(host: Any) -> None:
    """Anything but a base URL is refused, without showing what may be a key."""
    refused("host", host=host)


@pytest.mark.parametrize("port", [70000, -1, 65536])
def test_bad_ports(port: int) -> None:
    """A port that does not exist is refused here and not by an assertion later."""
    refused("port", port=port)


@each_row(("given", "url"), [("8443", f"{HOST}:8443"), (8443.0, f"{HOST}:8443"), ("", HOST), (" ", HOST), ("0", HOST)])
def test_the_port_of_a_secrets_backend(given: Any, url: str) -> None:
    """A back end that reads JSON or YAML hands over what stands there: text, or a number."""
    assert config(host=HOST, port=given).base_url == url


@each_row("port", ["abc", "70000", 8443.5, True, [1]])
def test_no_port_of_a_secrets_backend(port: Any) -> None:
    """The error names the field."""
    refused("port", port=port)


def test_fields_of_a_secrets_backend_that_are_not_text() -> None:
    """A key of digits may be a number; what is neither is not sent."""
    assert config(password=12345678).api_key.reveal() == "12345678"
    refused("password", password={"key": KEY})
    refused("host", host=["https://gw.example.com"])


def test_two_different_ports() -> None:
    """Host and port may not contradict each other."""
    assert "8443" in refused("port", host=f"{HOST}:8443", port=9443)


@properties(150)
@given(st.text(st.characters(), max_size=30), st.sampled_from(["", "https://", "http://h", "https://[", "h:"]))
def test_any_host(text: str, start: str) -> None:
    """Whatever stands in the host, it is refused or gives an origin and a printable URL."""
    try:
        found = config(host=start + text)
    except ViduConfigError:
        return
    assert found.origin[0] in ("http", "https")
    assert found.base_url.isascii()
    assert found.base_url.isprintable()
    assert not set(found.base_url) & set(" ?#@\\")


# -- key ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "  ", "\n"])
def test_no_key(key: str | None) -> None:
    """A missing key is reported before anything is sent."""
    assert "API key is missing" in refused("password", password=key)


@pytest.mark.parametrize("key", ["GEHEIM\nX: y", "GEHEIM\x00", "GEHEIM-ключ", "GEHEIM\x7f"])
def test_bad_keys(key: str) -> None:
    """A key that no header can carry is refused and not shown."""
    refused("password", password=key)


@pytest.mark.parametrize("key", ["Bearer GEHEIM", "token  GEHEIM"])
def test_a_key_with_its_scheme_is_refused(key: str) -> None:
    """What was copied with the header's first word would be sent with two of them; alone it may be wanted."""
    assert "Enter the key without it" in refused("password", password=key)
    assert config({"auth_scheme": "none"}, password=key).request_headers()["Authorization"] == key


def test_a_key_in_the_login() -> None:
    """A URI such as vidu://KEY@host puts it there; the message says where to look, and not what is there."""
    message = refused("password", password=None, login="GEHEIM")
    assert "The login, which is not used, is set" in message


def test_a_key_is_stripped() -> None:
    """A pasted line break does not become part of the key."""
    assert config(password=f" {KEY}\n").api_key.reveal() == KEY


# -- numbers --------------------------------------------------------------------------------------


@each_row(
    ("field", "value", "expected"),
    [
        ("timeout", 7, 7.0), ("timeout", "7", 7.0), ("timeout", 0.5, 0.5), ("timeout", " 7.5 ", 7.5),
        ("timeout", 3600, 3600.0), ("max_retries", 0, 0), ("max_retries", "3", 3), ("max_retries", 100, 100),
        ("max_retries", 2.0, 2),
    ],
)  # fmt: skip
def test_numbers(field: str, value: Any, expected: float) -> None:
    """Numbers come as numbers and as text."""
    found = getattr(config({field: value}), field)
    assert found == expected
    assert type(found) is type(expected)


@each_row(
    ("field", "value"),
    [
        ("timeout", 0), ("timeout", -1), ("timeout", 3601), ("timeout", "soon"), ("timeout", True), ("timeout", []),
        ("timeout", "nan"), ("timeout", "inf"), ("timeout", float("nan")), ("timeout", "30 s"),
        ("timeout", "30%"),
        ("max_retries", -1), ("max_retries", 101), ("max_retries", 1.5), ("max_retries", "many"),
        ("max_retries", False), ("max_retries", {}), ("max_retries", -0.5),
    ],
)  # fmt: skip
def test_bad_numbers(field: str, value: Any) -> None:
    """A bad number is refused with its field."""
    refused(field, {field: value})


# -- verify, proxy, headers, hosts ----------------------------------------------------------------


@each_row(
    ("value", "expected"),
    [
        (True, True), (False, False), ("true", True), ("False", False), (" TRUE ", True), ("no", False), ("yes", True),
        ("0", False), ("1", True), (0, False), (1, True), ("off", False), ("On", True),
        ("/etc/ssl/ca.pem", "/etc/ssl/ca.pem"), ("~/ca.pem", "~/ca.pem"),
    ],
)  # fmt: skip
def test_verify(value: Any, expected: Any) -> None:
    """True, false, or a bundle's path, as JSON or as the form's text."""
    found = config({"verify": value}).verify
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [7, [], {}, 0.5])
def test_bad_verify(value: Any) -> None:
    """Other kinds of values are refused, not taken for true."""
    refused("verify", {"verify": value})


@pytest.mark.parametrize("value", ["http://p:3128", "https://u:GEHEIM@p:3128"])
def test_proxy(value: str) -> None:
    """A proxy is kept hidden, because it may hold a password."""
    found = config({"proxy": value})
    assert found.proxy == Secret(value)
    assert "GEHEIM" not in repr(found)


def test_via_is_the_proxy_that_airflow_shows() -> None:
    """It comes before ``proxy``, takes the password's field, and refuses a password that every reader would see."""
    assert config({"via": "http://u@p:3128", "proxy": "http://old:3128"}).proxy == Secret("http://u@p:3128")
    assert config({"via": "http://u@p:3128", "proxy_password": "GEHEIM"}).proxy == Secret("http://u:GEHEIM@p:3128")
    refused("via", {"via": "http://u:GEHEIM@p:3128"})
    refused("via", {"via": "p:3128"})


@each_row(
    "value", ["p:3128", "GEHEIM@p", "SOCKS5H://p", "socks5://u:GEHEIM@p", "http://", 7, "http://p:x", "http://p\n"]
)
def test_bad_proxies(value: Any) -> None:
    """Anything but the URL of an HTTP proxy is refused and not shown."""
    if value == "http://p\n":
        value = "http://p\nx"
    refused("proxy", {"proxy": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"X-Team": "media"}, {"X-Team": "media"}),
        ('{"X-Team": "media", "X_Num": 7}', {"X-Team": "media", "X_Num": "7"}),
        ("{}", {}),
        ({}, {}),
        ("null", {}),
    ],
)
def test_headers(value: Any, expected: dict[str, str]) -> None:
    """Headers come as an object or as its JSON."""
    sent = config({"headers": value}).request_headers()
    base = config().request_headers()
    assert {name: value for name, value in sent.items() if name not in base} == expected


@each_row(
    "value",
    [
        pytest.param("no json", id="no JSON"),
        pytest.param("[1]", id="JSON list"),
        pytest.param([], id="list"),
        pytest.param(7, id="number"),
        pytest.param("[" * 100_000, id="deep JSON"),
        pytest.param({"X-A": "a\r\nX-B: GEHEIM"}, id="CRLF in a value"),
        pytest.param({"X-A\r\nX-B": "b"}, id="CRLF in a name"),
        pytest.param({"X A": "b"}, id="space in a name"),
        pytest.param({"X:A": "b"}, id="colon in a name"),
        pytest.param({"": "b"}, id="empty name"),
        pytest.param({"-": "b"}, id="only a dash"),
        pytest.param({"X-Ä": "b"}, id="name not ASCII"),
        pytest.param({"X-A": "ä"}, id="value not ASCII"),
        pytest.param({"X-A": None}, id="null value"),
        pytest.param({"X-A": ["b"]}, id="list value"),
        pytest.param({"X-A": "\x00"}, id="NUL"),
        pytest.param({"Authorization": "GEHEIM"}, id="Authorization"),
        pytest.param({"AUTHORIZATION": "GEHEIM"}, id="AUTHORIZATION"),
        pytest.param({"host": "evil"}, id="Host"),
        pytest.param({"Content-Length": "0"}, id="Content-Length"),
        pytest.param({"Transfer-Encoding": "chunked"}, id="Transfer-Encoding"),
    ],
)
def test_bad_headers(value: Any) -> None:
    """Nothing smuggles a line break, and the key's header is the provider's."""
    refused("headers", {"headers": value})


@pytest.mark.parametrize("name", ["user-agent", "ACCEPT", "content-type"])
def test_a_header_replaces_ours_in_any_case(name: str) -> None:
    """No header goes out twice."""
    sent = config({"headers": {name: "mine"}}).request_headers()
    assert [value for other, value in sent.items() if other.lower() == name.lower()] == ["mine"]


@each_row(
    ("value", "expected"),
    [
        ("10.0.0.5", {"10.0.0.5"}),
        ("a.local, B.Local  c.local.", {"a.local", "b.local", "c.local"}),
        (["A.local", " b.local "], {"a.local", "b.local"}),
        ("[fd00::1]", {"fd00::1"}),
        ("198.18.1.1/15, fd00::/8", {"198.18.0.0/15", "fd00::/8"}),
        (",", set()),
        ([], set()),
    ],
)
def test_allowed_hosts(value: Any, expected: set[str]) -> None:
    """Host names as a list or separated by commas, in one spelling."""
    assert config({"allowed_hosts": value}).allowed_hosts == expected


def test_an_endpoint_where_there_is_only_one() -> None:
    """A place for the endpoint means nothing to a dialect that has a single one: it would be sent as it stands."""
    path = {"create_path": "/c/{endpoint}"}
    assert config({"dialect": "ent-v2", **path}).dialect.create_path == "/c/{endpoint}"
    refused("create_path", {"dialect": "vidu-native", **path})


def test_prefixed_extras_are_read() -> None:
    """Airflow 2 stored the form's fields under prefixed names; the plain name wins where it holds something."""
    found = config({"extra__vidu__dialect": "ent-v2", "timeout": "", "extra__vidu__timeout": "7"})
    assert (found.dialect.name, found.timeout) == ("ent-v2", 7.0)
    assert config({"timeout": 8, "extra__vidu__timeout": 7}).timeout == 8
    refused("timeout", {"extra__vidu__timeout": "soon"})


@each_row("value", [7, {"a": 1}, [1], ["a", None], True, "*.example.com", "a.local, *", "10.0.0.0/40", "a.local/8"])
def test_bad_allowed_hosts(value: Any) -> None:
    """Anything but host names is refused."""
    refused("allowed_hosts", {"allowed_hosts": value})


def test_allowed_hosts_as_json_text() -> None:
    """A list typed into the form is a list."""
    assert config({"allowed_hosts": '["a.local", "b.local"]'}).allowed_hosts == {"a.local", "b.local"}


# -- secrecy --------------------------------------------------------------------------------------

PRIVATE = {
    "proxy": "http://user:GEHEIM-proxy@proxy.example.com:3128",
    "headers": {"X-Api-Token": "GEHEIM-token", "X-Team": "media"},
}


@each_row(
    "show",
    [
        repr, str, "{}".format, "{!r}".format, "%s".__mod__, "%r".__mod__, ascii,
        lambda value: json.dumps(dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value, default=str),  # type: ignore[arg-type]
        lambda value: repr(copy.copy(value)), lambda value: repr(copy.deepcopy(value)), lambda value: repr([value]),
        lambda value: repr(dataclasses.replace(value) if dataclasses.is_dataclass(value) else value),  # type: ignore[type-var]
        lambda value: repr(dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value),  # type: ignore[arg-type]
    ],
    ids=["repr", "str", "format", "format!r", "%s", "%r", "ascii", "json", "copy", "deepcopy", "list", "replace",
         "asdict"],
)  # fmt: skip
@each_row("value", [config(PRIVATE), Secret("GEHEIM")], ids=["config", "secret"])
def test_nothing_shows_the_key(value: Any, show: Any) -> None:
    """No way of printing shows key, proxy password or headers."""
    assert "GEHEIM" not in show(value)
    assert MASK in show(value)


@pytest.mark.parametrize("value", [config(PRIVATE), Secret("GEHEIM")], ids=["config", "secret"])
def test_a_key_is_not_pickled(value: Any) -> None:
    """What is sent to another process or kept on disk holds no key."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(value)


def test_a_secret_cannot_be_formatted_out() -> None:
    """A width in a format string does not help either."""
    try:
        assert "GEHEIM" not in f"{Secret('GEHEIM'):>10}"
    except TypeError as error:
        assert "GEHEIM" not in str(error)  # noqa: PT017


def test_equality() -> None:
    """Two readings of the same connection are equal; another key or dialect is not."""
    assert config(PRIVATE) == config(PRIVATE)
    assert hash(config(PRIVATE)) == hash(config(PRIVATE))
    assert config() != config(password="another-key")
    assert config() != config({"dialect": "ent-v2"})
    assert config() != config({"query_path": "/x/{id}"})
    assert Secret("a") != "a"


def test_secrets_to_mask() -> None:
    """Key, proxy password (also as it is sent) and sensitive headers are masked; harmless headers are not."""
    sent = base64.b64encode(b"user:GEHEIM-proxy").decode()
    assert set(config(PRIVATE).secrets()) == {KEY, "GEHEIM-proxy", sent, "GEHEIM-token"}


def test_a_header_that_looks_like_a_token_is_masked() -> None:
    """The name of a header need not say that it is secret."""
    assert "GEHEIM0123456789abcdef" in config({"headers": {"X-Gateway": "GEHEIM0123456789abcdef"}}).secrets()


def test_a_broken_header_text_does_not_stay_in_the_error() -> None:
    """The error of the JSON parser holds the whole text: it is not kept as the cause."""
    with pytest.raises(ViduConfigError) as caught:
        config({"headers": '{"X-Token": "GEHEIM"'})
    assert caught.value.__context__ is None


def test_a_proxy_password_has_a_field_of_its_own() -> None:
    """It joins the user in the proxy's URL, percent-encoded, and is masked in both spellings."""
    found = config({"proxy": "http://u@p:3128", "proxy_password": "GEHEIM@/pro:xy"})
    assert found.proxy == Secret("http://u:GEHEIM%40%2Fpro%3Axy@p:3128")
    assert {"GEHEIM%40%2Fpro%3Axy", "GEHEIM@/pro:xy"} <= set(found.secrets())
    assert "GEHEIM" not in repr(found)


@pytest.mark.parametrize("proxy", [None, "http://p:3128", "http://u:GEHEIM@p:3128"])
def test_a_proxy_password_without_its_place_is_refused(proxy: str | None) -> None:
    """No proxy, no user, or a second password in the URL; none of them is quoted."""
    refused("proxy_password", {"proxy": proxy, "proxy_password": "GEHEIM-2"})


def test_an_encoded_proxy_password_is_masked_in_both_spellings() -> None:
    """Error texts show a password encoded or decoded."""
    found = config({"proxy": "http://u:GEHEIM%40proxy@p:3128"}).secrets()
    assert {"GEHEIM%40proxy", "GEHEIM@proxy"} <= set(found)


def test_request_headers() -> None:
    """The headers of a request, the key last so that nothing overrides it."""
    sent = config({"headers": {"X-Team": "media"}}).request_headers()
    assert sent.pop("User-Agent").startswith("airflow-provider-vidu/")
    assert sent == {
        "Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json",
        "X-Team": "media", "Authorization": f"Bearer {KEY}",
    }  # fmt: skip


# -- answers --------------------------------------------------------------------------------------


@each_row(
    ("key", "quoted"),
    [
        pytest.param(KEY, KEY, id="as it is"),
        pytest.param('sk-"GEHEIM"-01', json.dumps('sk-"GEHEIM"-01')[1:-1], id="JSON quotes"),
        pytest.param("sk-GEHEIM\\01", json.dumps("sk-GEHEIM\\01")[1:-1], id="JSON backslash"),
        pytest.param("sk/GEHEIM/01", "sk\\/GEHEIM\\/01", id="JSON as PHP writes it"),
        pytest.param('sk/"GEHEIM"/01', 'sk\\/\\"GEHEIM\\"\\/01', id="quotes and slashes as PHP writes them"),
        pytest.param("sk&GEHEIM<01>", "sk\\u0026GEHEIM\\u003c01\\u003e", id="JSON as Go writes it"),
        pytest.param("sk+GEHEIM=01", "sk\\u002bGEHEIM\\u003d01", id="JSON as .NET writes it"),
        pytest.param("sk+GEHEIM=01", "sk%2BGEHEIM%3D01", id="percent"),
        pytest.param("sk+GEHEIM<01", "sk&#43;GEHEIM&lt;01", id="HTML"),
    ],
)
def test_a_quoted_key_is_struck_out(key: str, quoted: str) -> None:
    """A gateway that quotes the key in its refusal does not get it into a message, in any spelling of JSON."""
    found = config(password=key)
    answer = found.answer(401, [("X-Echo", f"Bearer {key}")], f'{{"message": "bad key {quoted}", "key": 1}}'.encode())
    error = found.dialect.error(answer)
    assert "GEHEIM" not in str(error)
    assert "GEHEIM" not in repr(answer.headers)
    assert "GEHEIM" not in json.dumps(answer.json_or_none())
    assert "bad key ***" in str(error)
    assert "GEHEIM" not in answer.snippet()


@pytest.mark.parametrize("key", ["vda_Q7xZ2mN9pL4kR8sT1wY6", "3f2b8c1e-7a4d-4e6b-9c0f-1d2e3a4b5c6d"])
def test_a_create_that_is_answered_with_the_key_alone(key: str) -> None:
    """Of an answer that is nothing but a word, the word is the id: in the log, the return value and addresses."""
    found = config(password=key)
    for echoed in (key, f" {key}\n", key.replace("-", "%2d")):
        assert key not in str(written_out(found.answer(200, [], echoed.encode())))
    assert written_out(found.answer(200, [], b"task_0123456789")) == {"id": "task_0123456789"}


def test_a_key_at_the_end_of_what_is_quoted_of_an_answer() -> None:
    """A long key is masked in most of the text, so that the quote reaches the end of it, where one is cut off."""
    key = "eyJ" + "".join(f"{number * 7919 % 9973:04d}" for number in range(100))
    body = "".join(f"%{ord(sign):02x}" for sign in key * 20)
    snippet = config(password=key).answer(400, [], body.encode()).snippet()
    assert not any(key[at : at + 8] in snippet for at in range(len(key) - 7))


def test_a_key_in_html_and_in_a_redirect() -> None:
    """Error pages and redirect targets are cleaned like JSON."""
    found = config()
    page = found.answer(502, [("Content-Type", "text/html")], f"<b>Authorization: Bearer {KEY}</b>".encode())
    moved = found.answer(302, [("Location", f"https://h/login/{KEY}")], b"")
    assert "GEHEIM" not in str(found.dialect.error(page)) + str(found.dialect.error(moved))


def test_the_longest_secret_goes_first() -> None:
    """A secret that begins like another one leaves no rest."""
    found = config({"headers": {"X-Token": f"{KEY}-GEHEIM-tail"}})
    assert "GEHEIM" not in found.redact(f"got {KEY}-GEHEIM-tail")


def test_answers_have_lower_case_header_names() -> None:
    """Header names are compared in one case."""
    assert config().answer(200, [("Content-Type", "a/b"), ("RETRY-AFTER", "7")], b"").headers == {
        "content-type": "a/b", "retry-after": "7",
    }  # fmt: skip


@pytest.mark.parametrize(
    "headers", [{"X-Auth-Version": "1"}, {"X-Auth-Provider": "vidu"}, {"X-Token-Type": "mp4"}], ids=["1", "vidu", "mp4"]
)
def test_short_values_do_not_spoil_answers(headers: dict[str, str]) -> None:
    """A header called "auth" with an everyday value strikes nothing out of ids and URLs."""
    body = b'{"id": "vidu:1-21", "status": "completed", "video_url": "https://vidu.example.com/v1.mp4"}'
    found = config({"headers": headers})
    generation = found.dialect.read_generation("vidu:1-21", found.answer(200, [], body))
    assert generation.video_url == "https://vidu.example.com/v1.mp4"


# -- origins --------------------------------------------------------------------------------------


@each_row(
    ("url", "origin"),
    [
        ("https://h/p", ("https", "h", 443)), ("http://H", ("http", "h", 80)),
        ("HTTPS://h:8443/x", ("https", "h", 8443)),
        ("https://h.", ("https", "h", 443)), ("https://[::1]:1", ("https", "::1", 1)),
        ("https://u:p@h", ("https", "h", 443)),
        ("ftp://h", None), ("h", None), ("", None), ("https://", None), ("https://h:x", None),
        ("https://h:99999", None),
        ("https://[::1", None), ("//h/p", None),
    ],
)  # fmt: skip
def test_origin_of(url: str, origin: Any) -> None:
    """Scheme, host and port, or nothing."""
    assert origin_of(url) == origin


def test_the_origin_of_a_connection() -> None:
    """The key's only destination."""
    assert config(host="https://GW.example.com/prefix").origin == ("https", "gw.example.com", 443)
    assert config(host="http://gw.example.com", port=8080).origin == ("http", "gw.example.com", 8080)


@each_row(
    ("host", "loopback"),
    [
        ("localhost", True), ("LOCALHOST.", True), ("a.localhost", True), ("127.0.0.1", True), ("127.9.9.9", True),
        ("::1", True), ("[::1]", True), ("gw.example.com", False), ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("notlocalhost", False), ("", False), ("0.0.0.0", False),  # noqa: S104
    ],
)  # fmt: skip
def test_is_loopback(host: str, loopback: bool) -> None:
    """This machine by its name or literal address."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "cleartext"),
    [
        ("https://gw", False),
        ("http://gw", True),
        ("http://localhost:8", False),
        ("http://[::1]", False),
        ("http://10.1.1.1", True),
    ],
)
def test_cleartext(host: str, cleartext: bool) -> None:
    """Only http to another machine shows the key to the network."""
    assert config(host=host).is_cleartext is cleartext
