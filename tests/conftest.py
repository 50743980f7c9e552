"""What every test stands on: an Airflow home of its own, no settings from outside, no database.

Airflow reads its settings when it is first imported, so they are put in place here, at import time:
pytest imports this file before any test module.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))
_OWNER = os.getpid()


@atexit.register
def _remove_home() -> None:
    if os.getpid() == _OWNER:  # not in a forked child
        shutil.rmtree(_HOME, ignore_errors=True)


def _isolate() -> None:
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "VIDU_"))]:
        del os.environ[name]
    os.environ.update(
        AIRFLOW_HOME=str(_HOME),
        AIRFLOW__CORE__DAGS_FOLDER=str(_HOME / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="True",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME / 'airflow.db'}",
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
        # Loopback servers are asked directly, whatever proxy the machine has.
        NO_PROXY="127.0.0.1,localhost",
        no_proxy="127.0.0.1,localhost",
    )


_isolate()

# Brings the fixture vidu_sandbox: a fast, fresh sandbox for each test that asks for it.
pytest_plugins = ["airflow_provider_vidu.sandbox.pytest_plugin"]


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """Return this process's AIRFLOW_HOME."""
    return _HOME


@pytest.fixture
def vidu_connection(vidu_sandbox, monkeypatch):
    """Point the connection ``vidu_default`` at a fresh sandbox and return the sandbox."""
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", vidu_sandbox.connection_json())
    return vidu_sandbox


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the end-to-end tests last: they take minutes, and a broken unit explains them."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is not None)
