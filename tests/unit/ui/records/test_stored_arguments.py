"""Stored arguments of triggers, as the author of a DAG may have written them past our triggers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow.models.trigger import Trigger

from airflow_provider_vidu.ui.records.stored_arguments import arguments_of, names_classes

OWN = {"vidu_conn_id": "c", "generation_ids": ["1", "2"], "since": 1.5, "woken_at": None, "cancel_on_kill": True}
OBJECTS = {
    "a class": {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1]},
    "a class without a version": {"__classname__": "airflow.sdk.Asset"},
    "a class, as before 3.2": {"__type": "timedelta", "__var": 1.0},
    "a class by its whole name, as before 3.2": {"__type": "pandas.core.frame.DataFrame", "__var": "50415231"},
}


def stored(arguments: object) -> SimpleNamespace:
    """Return a row of Airflow's triggers, as a worker may have made it."""
    return SimpleNamespace(id=1, encrypted_kwargs=json.dumps(arguments))


def test_arguments_as_airflow_stores_them():
    """Those that this Airflow encrypts, those of a task, and those of Airflow before 3.2."""
    encrypted = SimpleNamespace(id=1, encrypted_kwargs=Trigger.encrypt_kwargs(OWN))
    assert arguments_of(encrypted) == arguments_of(stored(OWN)) == OWN
    assert arguments_of(stored({"__type": "dict", "__var": OWN})) == OWN


@pytest.mark.parametrize("kind", OBJECTS)
def test_no_class_is_made_of_arguments(kind):
    """Airflow made a table of pandas of 15 kB, which took 750 MB."""
    assert arguments_of(stored({"vidu_conn_id": "c", "more": OBJECTS[kind]})) == {
        "vidu_conn_id": "c",
        "more": OBJECTS[kind],
    }


def test_arguments_with_many_values_are_not_parsed():
    """Two thousand tasks wait at a time; an event trigger may name thousands of generations."""
    many = stored({"vidu_conn_id": "c", "more": [[]] * 1_001})
    assert arguments_of(many) is None
    assert arguments_of(many, 3_000)
    assert names_classes(many.encrypted_kwargs)
    assert not names_classes(json.dumps([[]] * 400))


@pytest.mark.parametrize("text", ["", "{", "[" * 5_000, '{"a": ' * 5_000, "gAAAAA-nonsense", "{" + "9" * 5_000 + "}"])
def test_arguments_that_cannot_be_read(text):
    """No exception leaves the look at one trigger: the others are read, too."""
    assert arguments_of(SimpleNamespace(id=1, encrypted_kwargs=text)) is None


@pytest.mark.parametrize("kind", OBJECTS)
def test_classes_are_found_at_any_depth(kind):
    """Also where Airflow looks only after it has made another object."""
    assert names_classes(json.dumps(OBJECTS[kind]))
    assert names_classes(json.dumps({"__type": "dict", "__var": {"a": [[{"b": OBJECTS[kind]}]]}}))


@pytest.mark.parametrize("value", [None, OWN, {"__type": "dict", "__var": {**OWN, "more": {"__type": "dict"}}}])
def test_plain_json_names_no_class(value):
    """So are the arguments that tasks of this package resume with."""
    assert not names_classes(json.dumps(value))
    assert not names_classes(None)


def test_what_cannot_be_parsed_counts_as_a_class():
    """Nothing is handed to Airflow then."""
    assert names_classes("{")
    assert names_classes('"')
    assert names_classes("[" * 5_000)
