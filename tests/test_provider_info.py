"""The provider's metadata against Airflow's own schemas, and against the code it speaks of."""

from __future__ import annotations

import importlib
import json
import re
from importlib.metadata import distribution, entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

import airflow_provider_vidu
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.api.settings.fields import EXTRA_PREFIX
from airflow_provider_vidu.get_provider_info import get_provider_info
from tests.versions import AIRFLOW

DISTRIBUTION = "airflow-provider-vidu"


def _schema(name: str) -> dict[str, Any]:
    path = Path(airflow.__path__[0]) / name
    if not path.exists():
        pytest.skip(f"this Airflow ships no {name}")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def info() -> dict[str, Any]:
    """Return the metadata."""
    return get_provider_info()


@pytest.fixture(scope="module")
def form(info) -> dict[str, Any]:
    """Return the description of the only connection type."""
    (found,) = info["connection-types"]
    return found


class RecordingExtras(dict[str, Any]):
    """Extras of a connection that note which of them are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return default

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        raise KeyError(key)


class PlainConnection:
    """A connection of which only host and key are filled in."""

    host = "https://gateway.example.com"
    schema = None
    password = "made-up"
    port = None


def test_airflow_accepts_the_metadata(info):
    """The metadata follow the schema by which Airflow judges them at run time."""
    jsonschema.validate(info, _schema("provider_info.schema.json"))


def test_airflow_accepts_the_connection_form(info):
    """The form follows the stricter schema that Airflow applies to its own providers."""
    schema = _schema("provider.yaml.schema.json")["properties"]["connection-types"]
    jsonschema.validate(info["connection-types"], schema)


def test_the_old_form_follows_its_schema(form):
    """What older versions ask the hook for is valid as well."""
    hook = _resolve(form["hook-class-name"])
    jsonschema.validate(hook.get_ui_field_behaviour(), _schema("customized_form_field_behaviours.schema.json"))


def test_every_type_is_one_that_the_form_can_draw(form):
    """A list of types holds a known word and null, the way the form marks an optional field."""
    known = {"string", "integer", "number", "boolean", "object", "array"}
    for name, spec in form["conn-fields"].items():
        kinds = spec["schema"]["type"]
        if isinstance(kinds, list):
            assert set(kinds) - {"null"} <= known, name
            assert "null" in kinds, name


def test_every_module_can_be_imported(info):
    """Hooks, operators, sensors and triggers are where the metadata say."""
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                try:
                    importlib.import_module(module)
                except AirflowOptionalProviderFeatureException:
                    # Airflow's own loading skips this module; docs/compatibility.md names it.
                    assert AIRFLOW < (3, 0), module


def test_every_integration_is_declared(info):
    """Each module belongs to an integration that the metadata name."""
    declared = {integration["integration-name"] for integration in info["integrations"]}
    used = {entry["integration-name"] for kind in ("hooks", "operators", "sensors", "triggers") for entry in info[kind]}
    assert used <= declared


def test_the_hook_and_the_form_agree(form):
    """Connection type and name are the same in the metadata and on the hook's class."""
    hook = _resolve(form["hook-class-name"])
    assert (hook.conn_type, hook.hook_name) == (form["connection-type"], form["hook-name"])
    assert hook.conn_name_attr == "vidu_conn_id"


def test_every_class_that_is_named_exists(info):
    """Links, plugins and other classes in the metadata can be imported."""
    named = [*info.get("extra-links", []), *[plugin["plugin-class"] for plugin in info.get("plugins", [])]]
    for path in named:
        _resolve(path)


def test_the_form_shows_exactly_what_is_read(form):
    """Each extra that the configuration reads has a field, and no field is without effect."""
    extras = RecordingExtras()
    ViduConfig.from_connection("vidu_default", PlainConnection(), extras)
    # Airflow masks it, so the form has "via" instead.
    assert {*form["conn-fields"], "proxy"} == {name.removeprefix(EXTRA_PREFIX) for name in extras.asked}


def test_every_field_is_explained(form):
    """Each field has a label and a sentence of help."""
    for name, spec in form["conn-fields"].items():
        assert spec["label"].strip(), name
        assert spec["description"].strip().endswith("."), name


def test_fields_that_may_hold_secrets_are_hidden(form):
    """A proxy's password and further headers are not shown in clear."""
    for name in ("proxy_password", "headers"):
        assert form["conn-fields"][name]["schema"]["format"] == "password"


def test_the_entry_point_resolves():
    """Airflow finds the metadata through the installed distribution."""
    (found,) = [point for point in entry_points(group="apache_airflow_provider") if point.dist.name == DISTRIBUTION]
    assert found.load()() == get_provider_info()


def test_names_and_versions_agree(info):
    """Distribution, package and metadata tell one version and one name."""
    assert info["package-name"] == distribution(DISTRIBUTION).metadata["Name"] == DISTRIBUTION
    assert info["versions"][0] == airflow_provider_vidu.__version__ == distribution(DISTRIBUTION).version


def test_every_option_is_declared_and_read(info):
    """Section ``[vidu]`` names exactly the options that the code reads, and each says what it is for."""
    package = Path(airflow_provider_vidu.__file__).parent
    sources = {path: path.read_text() for path in package.rglob("*.py") if path.name != "get_provider_info.py"}
    options = info["config"]["vidu"]["options"]
    for name, option in options.items():
        assert any(f'"{name}"' in text for text in sources.values()), name
        assert option["description"].endswith("."), name
    read = {name for text in sources.values() for name in re.findall(r'conf\.get\w*\(\s*"vidu",\s*"(\w+)"', text)}
    assert len(read) >= 5
    assert read <= set(options)


def _resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
