"""Airflow connections become checked configurations, in a worker and on an event loop."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_vidu.api.settings import connection
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.exceptions import ViduConfigError, ViduConnectionNotFoundError, ViduTransportError
from tests.versions import AIRFLOW, redact

Resolve = Callable[[str], ViduConfig]

HIDES_BROKEN_EXTRAS = (3, 0) <= AIRFLOW < (3, 2)
"""There a connection whose extra is no JSON object is not found at all."""


def on_a_loop(conn_id: str) -> ViduConfig:
    """Resolve on a fresh event loop."""
    return asyncio.run(connection.aresolve(conn_id))


@pytest.fixture(params=[connection.resolve, on_a_loop], ids=["worker", "event loop"])
def resolve(request, monkeypatch) -> Resolve:
    """Return each way of resolving a connection, before any warning."""
    monkeypatch.setattr(connection, "_warned", set())
    found: Resolve = request.param
    return found


@pytest.fixture
def env(monkeypatch) -> Callable[..., None]:
    """Return a function that defines the connection ``unit_vidu`` in the environment."""

    def define(value: str | None = None, **fields: Any) -> None:
        text = json.dumps({"conn_type": "vidu", **fields}) if value is None else value
        monkeypatch.setenv("AIRFLOW_CONN_UNIT_VIDU", text)

    return define


@pytest.mark.parametrize(
    ("value", "base_url"),
    [
        pytest.param("vidu://:sk-unit-000001@gw.example.com/?timeout=7", "https://gw.example.com", id="host"),
        pytest.param(
            "vidu://:sk-unit-000001@gw.example.com:8443/http?timeout=7", "http://gw.example.com:8443",
            id="port"),
        pytest.param(
            "vidu://:sk-unit-000001@https%3A%2F%2Fgw.example.com%2Fprefix/?timeout=7", "https://gw.example.com/prefix",
            id="encoded URL"),
        pytest.param(
            "vidu://https://:sk-unit-000001@gw.example.com/?timeout=7", "https://gw.example.com",
            id="two schemes"),
        pytest.param(
            '{"conn_type": "vidu", "host": "https://gw.example.com/p", "password": "sk-unit-000001", '
            '"extra": {"timeout": 7}}', "https://gw.example.com/p", id="JSON"),
        pytest.param(
            '{"conn_type": "vidu", "host": "gw.example.com", "schema": "http", "port": 81, '
            '"password": "sk-unit-000001", '
            '"extra": "{\\"timeout\\": \\"7\\"}"}', "http://gw.example.com:81", id="JSON with extra as text"),
    ],
)  # fmt: skip
def test_from_the_environment(env, resolve: Resolve, value: str, base_url: str) -> None:
    """Both forms that Airflow takes from the environment."""
    env(value)
    found = resolve("unit_vidu")
    assert found.base_url == base_url
    assert found.api_key.reveal() == "sk-unit-000001"
    assert found.timeout == 7
    assert found.conn_id == "unit_vidu"


def test_without_extras(env, resolve: Resolve) -> None:
    """No extra is needed."""
    for extra in ({}, None, "") if HIDES_BROKEN_EXTRAS else ({}, None, "", "null"):
        env(host="gw.example.com", password="sk-unit-000001", extra=extra)
        assert resolve("unit_vidu").timeout == 30


def test_no_such_connection(resolve: Resolve) -> None:
    """The error names the connection and the variable, and is Airflow's own as well."""
    with pytest.raises(ViduConnectionNotFoundError, match="AIRFLOW_CONN_NO_SUCH_VIDU") as caught:
        resolve("no_such_vidu")
    assert isinstance(caught.value, AirflowNotFoundException)
    assert caught.value.conn_id == "no_such_vidu"
    assert caught.value.__cause__ is None


def test_what_a_secrets_backend_hands_over(monkeypatch, resolve: Resolve) -> None:
    """HashiCorp Vault's back end makes a connection of what its JSON holds: an object, and a port as text."""
    known = {
        "conn_type": "vidu",
        "host": "gw.example.com",
        "schema": None,
        "password": "sk-unit-000001",
        "port": "8443",
    }
    conn = SimpleNamespace(**known, extra={"timeout": 7})  # without extra_dejson, which raises

    async def get_async(conn_id: str, hook: Any = None) -> Any:
        return conn

    monkeypatch.setattr("airflow.providers.common.compat.connection.get_async_connection", get_async)
    monkeypatch.setattr(connection.BaseHook, "get_connection", staticmethod(lambda conn_id: conn))
    found = resolve("unit_vidu")
    assert (found.base_url, found.timeout) == ("https://gw.example.com:8443", 7)


def test_a_variable_that_cannot_be_read(env, resolve: Resolve) -> None:
    """Airflow says that there is none: the error does not advise to set what is set."""
    env(host="gw.example.com", password="sk-unit-000001", port="abc")
    with pytest.raises(ViduConnectionNotFoundError, match="AIRFLOW_CONN_UNIT_VIDU is set, but Airflow cannot read it"):
        resolve("unit_vidu")


@pytest.mark.parametrize("extra", ["{not json", "[1]", '"text"', "7", "nonsense"])
def test_a_broken_extra(env, resolve: Resolve, extra: str) -> None:
    """Extras that cannot be read are reported, not dropped: they hold dialect, proxy and verify."""
    env(host="gw.example.com", password="sk-unit-000001", extra=extra)
    told = (
        "'unit_vidu'.*extra: this Airflow skips one that is not a JSON object"
        if HIDES_BROKEN_EXTRAS
        else "'unit_vidu', field 'extra'"
    )
    with pytest.raises(ViduConfigError, match=told):
        resolve("unit_vidu")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"password": "sk-unit-000001"}, "host"),
        ({"host": "gw.example.com"}, "password"),
        ({"host": "gw.example.com", "password": "k", "extra": {"dialect": "x"}}, "dialect"),
        ({"host": "gw.example.com", "password": "k", "port": 70000}, "port"),
    ],
)
def test_wrong_fields(env, resolve: Resolve, fields: dict[str, Any], field: str) -> None:
    """The error of a wrong field names connection and field."""
    env(**fields)
    with pytest.raises(ViduConfigError, match=f"'unit_vidu', field '{field}'"):
        resolve("unit_vidu")


def test_cleartext_warns_once(env, resolve: Resolve, caplog) -> None:
    """A key in cleartext is worth one warning, not one per poll, and the warning has no key."""
    env(host="http://gw.example.com", password="sk-unit-000001")
    with caplog.at_level(logging.WARNING, logger=connection.__name__):
        for _ in range(3):
            resolve("unit_vidu")
    told = [record.getMessage() for record in caplog.records if record.name == connection.__name__]
    assert len(told) == 1
    assert "cleartext http to gw.example.com" in told[0]
    assert "'unit_vidu'" in told[0]
    assert "sk-unit" not in told[0]


def test_extras_that_mean_nothing_are_told_once(env, resolve: Resolve, caplog) -> None:
    """A misspelt extra would be left out silently: the warning names it, and what it may be meant for."""
    env(host="https://gw.example.com", password="sk-unit-000001", extra={"dialct": "ent-v2", "note": 1, "timeout": 7})
    with caplog.at_level(logging.WARNING, logger=connection.__name__):
        for _ in range(3):
            resolve("unit_vidu")
    told = [record.getMessage() for record in caplog.records if record.name == connection.__name__]
    assert told == ["Connection 'unit_vidu' has extras that are not used: 'dialct' (is it dialect?), 'note'."]


def test_a_prefixed_extra_that_means_nothing_is_told_with_its_like(env, resolve: Resolve, caplog) -> None:
    """The prefix of older forms hides nothing of the likeness."""
    env(host="https://gw.example.com", password="sk-unit-000002", extra={"extra__vidu__tiemout": 7})
    with caplog.at_level(logging.WARNING, logger=connection.__name__):
        resolve("unit_vidu")
    assert "'extra__vidu__tiemout' (is it timeout?)" in caplog.text


@pytest.mark.fault(
    "from Airflow", "extras with the prefix extra__vidu__", outcome="survived", says="extra__vidu__tiemout"
)
def test_prefixed_extras(env, resolve: Resolve, caplog) -> None:
    """A prefixed extra is read without a word; one without effect beside its plain twin is named."""
    env(host="https://gw.example.com", password="sk-unit-000001", extra={"extra__vidu__timeout": 7})
    with caplog.at_level(logging.WARNING, logger=connection.__name__):
        assert resolve("unit_vidu").timeout == 7
        assert not [record for record in caplog.records if record.name == connection.__name__]
        extra = {"timeout": 8, "extra__vidu__timeout": 7, "extra__vidu__tiemout": 1}
        env(host="https://gw.example.com", password="sk-unit-000001", extra=extra)
        assert resolve("unit_vidu").timeout == 8
    told = [record.getMessage() for record in caplog.records if record.name == connection.__name__]
    assert len(told) == 1
    assert "'extra__vidu__timeout'" in told[0]
    assert "'extra__vidu__tiemout'" in told[0]


@pytest.mark.parametrize("wrong", [None, "", " ", "None", 7, "\ud800", "a\0b", "a\nb", "\x1b[31m"])
def test_what_can_be_no_connection_id(resolve: Resolve, wrong: Any) -> None:
    """Nothing, and what a template makes of nothing, is named as such."""
    with pytest.raises(ViduConfigError, match="vidu_conn_id must be the id of an Airflow connection"):
        resolve(wrong)


@pytest.mark.parametrize(
    "host", ["https://gw.example.com", "http://localhost:8080", "http://127.0.0.1", "http://[::1]"]
)
def test_no_warning_where_it_is_safe(env, resolve: Resolve, caplog, host: str) -> None:
    """Encrypted and loopback connections are quiet."""
    env(host=host, password="sk-unit-000001")
    with caplog.at_level(logging.WARNING, logger=connection.__name__):
        resolve("unit_vidu")
    assert not [record for record in caplog.records if record.name == connection.__name__]


def test_secrets_are_masked(env, resolve: Resolve, request) -> None:
    """Key, proxy password and sensitive headers are unreadable in any log from here on."""
    mark = f"m{abs(hash(request.node.name))}"
    secrets = {name: f"{mark}-{name}-secret" for name in ("key", "proxy", "header")}
    env(
        host="gw.example.com",
        password=secrets["key"],
        extra={
            "proxy": f"http://u:{secrets['proxy']}@p:1",
            "headers": {"X-Api-Token": secrets["header"], "X-Team": "media"},
        },
    )
    resolve("unit_vidu")
    told = str(redact(" ".join(secrets.values()) + " media"))
    assert mark not in told
    assert "media" in told


def test_a_hook_class_is_asked() -> None:
    """A subclass that finds its connections elsewhere is respected."""

    class Elsewhere(BaseHook):
        @classmethod
        def get_connection(cls, conn_id: str) -> Any:
            raise AirflowNotFoundException(f"not here: {conn_id}")

    with pytest.raises(ViduConnectionNotFoundError):
        connection.resolve("x", Elsewhere)


def test_an_outage_of_the_look_up_on_a_loop(mocker) -> None:
    """A trigger survives a secrets backend that is out of reach."""
    mocker.patch(
        "airflow.providers.common.compat.connection.get_async_connection", side_effect=RuntimeError("sk-unit-000001")
    )
    with pytest.raises(ViduTransportError, match="could not be looked up") as caught:
        on_a_loop("unit_vidu")
    assert caught.value.sent is False
    assert caught.value.retryable
    assert caught.value.conn_id == "unit_vidu"
    assert "sk-unit" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_an_outage_of_the_look_up_in_a_worker() -> None:
    """An outage of Airflow's own store is raised as transient, as an error of this provider."""

    class Unreachable(BaseHook):
        @classmethod
        def get_connection(cls, conn_id: str) -> Any:
            raise RuntimeError("sk-unit-000001") from TimeoutError("sk-unit-000001")

    told = r"could not be looked up \(RuntimeError, because of TimeoutError\)"
    with pytest.raises(ViduTransportError, match=told) as caught:
        connection.resolve("unit_vidu", Unreachable)
    # Neither shown nor kept: a backend may quote what it has read.
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert caught.value.sent is False
    assert "sk-unit" not in str(caught.value)


def test_many_look_ups_at_once_on_a_loop(env, monkeypatch) -> None:
    """A thousand triggers that start together resolve without getting into each other's way."""
    monkeypatch.setattr(connection, "_warned", set())
    env(host="gw.example.com", password="sk-unit-000001")

    async def all_at_once() -> list[ViduConfig]:
        return await asyncio.gather(*(connection.aresolve("unit_vidu") for _ in range(50)))

    assert len(set(asyncio.run(all_at_once()))) == 1


@pytest.mark.fault(
    "from Airflow",
    "dag.test() with a connection of the database",
    outcome="survived",
    side="async",
    seen="the connection; an error if there is none",
)
@pytest.mark.parametrize("is_there", [True, False])
def test_the_inline_triggers_of_a_dag_test(env, monkeypatch, is_there) -> None:
    """Where Airflow's asynchronous look-up finds nothing (``dag.test()``), the synchronous one has the last word."""

    async def knows_nothing(conn_id: str, hook: Any = None) -> Any:
        raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")

    monkeypatch.setattr("airflow.providers.common.compat.connection.get_async_connection", knows_nothing)
    if is_there:
        env(host="gw.example.com", password="sk-unit-000001")
        assert on_a_loop("unit_vidu").base_url == "https://gw.example.com"
        assert asyncio.run(connection.connection_type("unit_vidu")) == "vidu"
    else:
        with pytest.raises(ViduConnectionNotFoundError, match="AIRFLOW_CONN_UNIT_VIDU"):
            on_a_loop("unit_vidu")
