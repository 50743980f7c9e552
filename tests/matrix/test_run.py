"""A run with scheduler, triggerer and worker, and the provider as Airflow lists it, on whatever Airflow there is."""

from __future__ import annotations

import json
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

import airflow_provider_vidu
from airflow_provider_vidu.api.settings.form import CONN_FIELDS, UI_FIELD_BEHAVIOUR
from tests.versions import AIRFLOW, LISTED, LISTS, ask_airflow


@pytest.fixture(scope="module")
def airflow_says(tmp_path_factory) -> dict[str, Any]:
    """Return what ``airflow providers`` lists, by its further word."""
    return ask_airflow(sys.executable, tmp_path_factory.mktemp("asked"), *LISTS)


def test_it_is_the_wheel_that_runs() -> None:
    """The package under test is the installed one, not a source tree beside the tests."""
    place = Path(airflow_provider_vidu.__file__)
    assert "site-packages" in place.parts
    assert distribution("airflow-provider-vidu").version == airflow_provider_vidu.__version__


@pytest.mark.parametrize(("command", "field", "value"), LISTED)
def test_airflow_lists_it(airflow_says, command, field, value) -> None:
    """`airflow providers …` shows the provider, its connection type, its link and its trigger's module."""
    assert value in [row[field] for row in airflow_says[command]]


def test_the_connection_form(airflow, airflow_says) -> None:
    """The form for connections of type vidu has every field: as the UI gets it, before 3.0 as Airflow lists it."""
    if AIRFLOW >= (3, 0):
        (form,) = [
            known for known in airflow.ask("GET", "/ui/connections/hook_meta") if known["connection_type"] == "vidu"
        ]
        assert set(form["extra_fields"]) == set(CONN_FIELDS)
        assert form["standard_fields"]["password"]["title"] == UI_FIELD_BEHAVIOUR["relabeling"]["password"]
        return
    widgets = {row["connection_parameter_name"] for row in airflow_says["widgets"]}
    assert {f"extra__vidu__{name}" for name in CONN_FIELDS} <= widgets
    assert "vidu" in json.dumps(airflow_says["behaviours"])


def test_a_prompt_becomes_a_file(airflow, sandbox, videos) -> None:
    """Submitted once, waited for without a worker, downloaded whole: the example DAG on a real Airflow."""
    run = airflow.trigger("vidu_generate_and_download", {"prompt": "a mill", "folder": "out"})
    airflow.wait_for_task(run, "generate", "deferred", timeout=120)
    assert airflow.wait(run, timeout=240) == "success", airflow.states(run)

    (create,) = [create for create in sandbox.creates if create.body["prompt"] == "a mill"]
    (file,) = (videos / "out").iterdir()
    content = file.read_bytes()
    assert content == sandbox.file_bytes(create.id)
    assert create.charge == "charged"
    assert airflow.xcom(run, "download")["size"] == len(content)
