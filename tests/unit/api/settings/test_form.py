"""The form shows exactly what is read, in the shape that each Airflow version wants."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu.api.dialects import DIALECTS
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.api.settings.fields import EXTRA_PREFIX
from airflow_provider_vidu.api.settings.form import (
    CONN_FIELDS,
    EXTRAS,
    UI_FIELD_BEHAVIOUR,
    form_widgets,
    ui_field_behaviour,
)
from airflow_provider_vidu.exceptions import ViduConfigError
from tests.rows import each_row

CONN = SimpleNamespace(host="https://gw.example.com", schema=None, password="k", port=None)


class Recorder(Mapping[str, Any]):
    """Extras that remember which names were asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_the_form_shows_what_is_read() -> None:
    """No field without an effect, none that only readers of the source know."""
    recorder = Recorder()
    ViduConfig.from_connection("c", CONN, recorder)
    assert recorder.asked == {prefix + name for name in EXTRAS for prefix in ("", EXTRA_PREFIX)}
    assert {*CONN_FIELDS, "proxy"} == EXTRAS


def test_the_fields_of_the_contract() -> None:
    """The names are what users type."""
    assert set(CONN_FIELDS) == {
        "dialect", "auth_scheme", "timeout", "max_retries", "verify", "via", "proxy_password", "headers",
        "query_path", "create_path", "allowed_hosts", "max_in_flight", "min_balance",
    }  # fmt: skip


@each_row("name", CONN_FIELDS)
def test_a_wrong_value_of_each_field_is_noticed(name: str) -> None:
    """Each field of the form really is read."""
    with pytest.raises(ViduConfigError, match=f"'{name}'"):
        ViduConfig.from_connection("c", CONN, {name: {"odd": {}} if name == "headers" else {"odd": 1}})


VALUES: dict[str, list[Any]] = {
    "dialect": ["vidu-native", "ent-v2"],
    "auth_scheme": ["Token", "none"],
    "timeout": [1, 3600, 7.5],
    "max_retries": [0, 100],
    "verify": ["true", "false", "/ca.pem"],
    "via": ["http://proxy.example.com:3128", "http://user@proxy.example.com:3128"],
    "proxy_password": ["p@ss/word"],
    "headers": ['{"X-Team": "media"}'],
    "query_path": ["/vidu/ent/v2/task/{id}/creations", "/v1/video/query?id={id}"],
    "create_path": ["/v/{endpoint}", "/v"],
    "allowed_hosts": ["10.0.0.5, minio.local", "198.18.0.0/15"],
    "max_in_flight": [1, 100_000],
    "min_balance": [0, 12.5],
}


@each_row(("name", "value"), [(name, value) for name in CONN_FIELDS for value in [None, *VALUES[name]]])
def test_what_the_form_lets_through_is_accepted(name: str, value: Any) -> None:
    """A value that fits the form's schema is a good value, and so is an empty field."""
    import jsonschema

    jsonschema.validate(
        value, {key: part for key, part in CONN_FIELDS[name]["schema"].items() if key != "enum" or value}
    )
    more = {"via": "http://user@proxy.example.com:3128"} if name == "proxy_password" else {}
    ViduConfig.from_connection("c", CONN, {"dialect": "ent-v2", **more, name: value})


@each_row("name", CONN_FIELDS)
def test_every_field_is_explained(name: str) -> None:
    """Label, description and a nullable type for each."""
    spec = CONN_FIELDS[name]
    assert set(spec) == {"label", "description", "schema"}
    assert spec["label"]
    assert spec["description"].endswith(".")
    assert spec["schema"]["type"][1:] == ["null"]


def test_secret_fields_are_hidden() -> None:
    """What may hold a password or token is a password field."""
    assert {name for name, spec in CONN_FIELDS.items() if spec["schema"].get("format") == "password"} == {
        "proxy_password", "headers",
    }  # fmt: skip


def test_airflow_shows_every_other_stored_field() -> None:
    """The edit form gets the values as typed: no name of a field without secrets sounds like one to Airflow."""
    from airflow.providers.common.compat.sdk import redact

    stored = {name: f"a value of {name}" for name in CONN_FIELDS}
    assert {name for name, value in stored.items() if redact(stored)[name] != value} == {"proxy_password"}


def test_the_dialects_of_the_form() -> None:
    """The choice is the one that the code has; none is preselected, so that an official host decides by itself."""
    schema = CONN_FIELDS["dialect"]["schema"]
    assert schema["enum"] == list(DIALECTS)
    assert "default" not in schema


def test_the_dialect_comes_first() -> None:
    """It has a section of its own above all others, whose title names the choice and both official hosts."""
    assert next(iter(CONN_FIELDS)) == "dialect"
    titles = {spec["schema"].get("section") for spec in CONN_FIELDS.values()} - {None}
    assert titles == {CONN_FIELDS["dialect"]["schema"]["section"]}
    for word in ("api.vidu.com", "api.vidu.cn", *DIALECTS):
        assert word in titles.copy().pop()


def test_verify_is_a_choice_that_accepts_a_path() -> None:
    """Proposals for what to enter, but no enum, which would refuse the path of a CA bundle."""
    schema = CONN_FIELDS["verify"]["schema"]
    assert schema["examples"][:2] == ["true", "false"]
    assert "enum" not in schema


def test_the_port_is_shown() -> None:
    """Airflow 3.3 tests a stored connection only with host and port."""
    assert "port" not in UI_FIELD_BEHAVIOUR["hidden-fields"]


def test_both_platforms_are_named() -> None:
    """A key of China's platform is refused by the global one: the form says which hosts there are."""
    for text in (CONN_FIELDS["dialect"]["description"], UI_FIELD_BEHAVIOUR["placeholders"]["host"]):
        assert "https://api.vidu.com" in text
        assert "https://api.vidu.cn" in text


def test_the_behaviour_for_older_versions() -> None:
    """The same words, with underscores."""
    found = ui_field_behaviour()
    assert set(found) == {"hidden_fields", "relabeling", "placeholders"}
    assert {"login", "schema"} <= set(found["hidden_fields"])
    assert found["relabeling"]["password"] == "API key"
    assert found["hidden_fields"] == UI_FIELD_BEHAVIOUR["hidden-fields"]
    assert set(UI_FIELD_BEHAVIOUR) == {"hidden-fields", "relabeling", "placeholders"}


def test_the_form_is_plain_json() -> None:
    """Airflow stores the metadata and sends it to the browser."""
    assert json.loads(json.dumps([CONN_FIELDS, UI_FIELD_BEHAVIOUR])) == [CONN_FIELDS, UI_FIELD_BEHAVIOUR]


class Posted(dict[str, list[str]]):
    """What a browser has sent, in the shape that WTForms reads."""

    def getlist(self, name: str) -> list[str]:
        """Return all values of a field."""
        return self.get(name, [])


@pytest.fixture(scope="module")
def old_form() -> Any:
    """Return the form's class as Airflow before 3.2 puts it together."""
    from wtforms import Form

    return type("ConnectionForm", (Form,), form_widgets())


@pytest.mark.parametrize("name", CONN_FIELDS)
def test_a_field_of_older_versions(old_form, name: str) -> None:
    """A text or password field with the label and the help of the newer versions' field."""
    field, spec = old_form()[name], CONN_FIELDS[name]
    assert (str(field.label.text), field.description) == (spec["label"], spec["description"])
    assert field.data == spec["schema"].get("default")
    shown = field()
    assert ('type="password"' in shown) == (spec["schema"].get("format") == "password")


@pytest.mark.parametrize(("dialect", "fits"), [("ent-v2", True), ("", True), ("ent-v3", False)])
def test_the_form_of_older_versions_checks_the_dialect(old_form, dialect: str, fits: bool) -> None:
    """A dialect that there is, or none; anything else is refused before it is stored."""
    assert old_form(formdata=Posted(dialect=[dialect])).validate() is fits


def test_an_airflow_without_form_libraries_takes_the_plain_widgets(monkeypatch) -> None:
    """Airflow 3.0 has neither Flask-AppBuilder nor Flask-Babel, and its form gets every field all the same."""
    for name in ("flask_appbuilder", "flask_appbuilder.fieldwidgets", "flask_babel"):
        monkeypatch.setitem(sys.modules, name, None)
    assert set(form_widgets()) == set(CONN_FIELDS)
