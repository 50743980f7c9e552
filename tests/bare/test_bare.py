"""The wheel beside a bare Airflow: nothing that only this project's tests install is needed."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from private_airflow import PrivateAirflow
from processes import Guard
from tests.versions import LISTED

EXAMPLES = Path(__file__).parents[2] / "example_dags"
TEST_TOOLS = ("pytest", "moto", "hypothesis", "s3fs", "apache-airflow-providers-amazon", "gcsfs", "adlfs")


def test_it_is_bare(run_json) -> None:
    """Airflow, the wheel and what these two ask for; no storage provider and no test tool came along."""
    installed = run_json(
        "import importlib.metadata as m, json; print(json.dumps([d.name.lower() for d in m.distributions()]))"
    )
    assert {"apache-airflow", "airflow-provider-vidu"} <= set(installed)
    assert not set(TEST_TOOLS) & set(installed)


def test_every_module_imports(run_json) -> None:
    """No module needs a library that was not installed; pytest's fixture alone needs pytest."""
    failed = run_json("""
import importlib, json, pkgutil
import airflow_provider_vidu as package
failed = []
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    try:
        importlib.import_module(module.name) if not module.name.endswith("__main__") else None
    except ImportError as error:
        failed.append((module.name, error.name))
print(json.dumps(failed))
""")
    assert failed == [["airflow_provider_vidu.sandbox.pytest_plugin", "pytest"]]


@pytest.mark.parametrize(("command", "field", "value"), LISTED)
def test_airflow_lists_it(airflow_says, command, field, value) -> None:
    """`airflow providers …` shows the provider, its connection type, its link and its trigger's module."""
    assert value in [row[field] for row in airflow_says[command]]


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs"), ("abfs", "azure")])
def test_a_destination_without_its_extra_says_what_to_install(run_json, scheme, extra) -> None:
    """Where the file system is missing, the error names the extra that brings it."""
    told = run_json(f"""
import json
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.exceptions import ViduConfigError
try:
    Destination("{scheme}://bucket/a.mp4").file()
except ViduConfigError as error:
    print(json.dumps(str(error)))
""")
    assert f"pip install 'airflow-provider-vidu[{extra}]'" in told


@pytest.fixture(scope="module")
def sandbox_url(python) -> Iterator[str]:
    """Start the sandbox's command from the wheel; return its address."""
    command = [str(python), "-m", "airflow_provider_vidu.sandbox", "--port", "0", "--speed", "10", "--quiet"]
    guard = Guard()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        guard.watch(process)
        assert process.stdout is not None
        ready = process.stdout.readline()
        found = re.match(r"Vidu sandbox ready at (\S+) \(.* key (\S+)\)", ready)
        assert found, ready
        yield found[1]
        process.terminate()
        assert process.wait(30) == 0
    guard.dismiss()


def test_an_example_runs(python, sandbox_url, tmp_path) -> None:
    """From a prompt to a file: sandbox, scheduler, triggerer and worker all run from the bare environment."""
    environment = {"VIDU_EXAMPLES_DESTINATION": f"{tmp_path.as_uri()}/"}
    with PrivateAirflow(tmp_path / "airflow", [EXAMPLES], python=python, environment=environment) as airflow:
        airflow.add_connection(
            "vidu_default", {"conn_type": "vidu", "host": sandbox_url, "password": "sandbox-key", "extra": {}}
        )
        airflow.wait_for_dags(path.stem for path in EXAMPLES.glob("*.py"))
        run = airflow.trigger("vidu_generate_and_download", {"prompt": "a mill", "folder": "out"})
        assert airflow.wait(run, timeout=240) == "success", airflow.states(run)
        record = airflow.xcom(run, "download")
    content = Path(unquote(urlsplit(record["uri"]).path)).read_bytes()
    assert (record["size"], record["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
