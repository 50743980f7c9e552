"""What every test stands on: an Airflow home of its own, no settings from outside, no database.

Airflow reads its settings when it is first imported, so they are put in place here, at import time:
pytest imports this file before any test module.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import re
import shutil
import tempfile
from collections.abc import Container, Generator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
    if not os.environ.get("ALL_EXAMPLES"):
        # Hypothesis then tries the same examples each time, and has no deadline: a busy machine and an unlucky draw
        # make no test fail.
        os.environ.setdefault("CI", "true")


_isolate()
gc.disable()  # until everything is imported: pytest_collection enables it

# The fixture vidu_sandbox (a fast, fresh sandbox for each test), the table of faults, and test processes.
pytest_plugins = ["airflow_provider_vidu.sandbox.pytest_plugin", "fault_table", "tests.shares"]


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """Return this process's AIRFLOW_HOME."""
    return _HOME


@pytest.fixture
def vidu_connection(vidu_sandbox, monkeypatch):
    """Point the connection ``vidu_default`` at a fresh sandbox and return the sandbox."""
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", vidu_sandbox.connection_json())
    return vidu_sandbox


@pytest.fixture
def context() -> dict[str, Any]:
    """As much of a task's context as the operators need outside a running Airflow."""
    names = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
    ti = SimpleNamespace(**names, start_date=datetime.now(UTC), try_number=1, xcom_push=lambda **_: None)
    return {"ti": ti, "task_instance": ti}


@pytest.fixture(autouse=True)
def no_outage(monkeypatch) -> None:
    """Let Airflow 2, whose look-ups read its database, find nothing in it: the tests have none, which is an outage."""
    from airflow_provider_vidu.network import secrets_backends
    from tests.versions import AIRFLOW

    if AIRFLOW < (3, 0):
        monkeypatch.setattr(secrets_backends, "_backends", lambda: ())


class Variables:
    """Airflow's Variables, in memory: the real ones need a database or a supervisor.

    ``kept`` holds them, ``asked`` counts the look-ups.

    :param parameters: the names of the parameters of the real ``get()``, which differ between Airflows.
    """

    def __init__(self, parameters: Container[str]) -> None:
        self.kept: dict[str, str] = {}
        self.asked = 0
        self._parameters = parameters

    def get(self, key: str, **default: Any) -> Any:
        """Return a Variable, or the default."""
        assert all(name in self._parameters for name in default), f"This Airflow has no such parameter: {default}"
        self.asked += 1
        return self.kept.get(key, *default.values())

    def set(self, key: str, value: str) -> None:
        """Store a Variable."""
        self.kept[key] = value

    def delete(self, key: str) -> None:
        """Remove a Variable."""
        del self.kept[key]

    def keys(self, prefix: str) -> list[str]:
        """Return the names that begin with a prefix (Airflow ≥ 3.3)."""
        return [key for key in list(self.kept) if key.startswith(prefix)]


@pytest.fixture
def variables(monkeypatch) -> Variables:
    """Stand in for Airflow's Variables, which records of orders live in where a clear discards a task's state."""
    from airflow_provider_vidu.orders import records
    from airflow_provider_vidu.orders.money import ledger

    found = Variables(inspect.signature(records.Variable.get).parameters)
    monkeypatch.setattr(records, "Variable", found)
    monkeypatch.setattr(ledger, "Variable", found)
    # Any Airflow lists these names, in its own way.
    monkeypatch.setattr("airflow_provider_vidu.orders.money.spending.ledger", lambda: ledger.ListedLedger(found.keys))
    return found


@pytest.fixture
def no_first_wait(monkeypatch) -> None:
    """Let triggers poll at once; the floor only matters to a running Airflow."""
    from airflow_provider_vidu.polling import watch

    monkeypatch.setattr(watch, "FIRST_POLL_FLOOR", 0.0)


@pytest.fixture
def quick_backoff(monkeypatch) -> None:
    """Let repeated requests follow each other quickly."""
    from airflow_provider_vidu.polling import retries

    monkeypatch.setattr(retries.Backoff, "delay", lambda *_args, **_kwargs: 0.01)


TESTS = Path(__file__).parent
MARKS = {
    "bare": "matrix", "browser": "browser", "cluster": "cluster", "e2e": "e2e", "matrix": "matrix", "soak": "soak",
    "stores": "stores",
}  # fmt: skip
"""The folders whose tests are all of one kind, and its marker."""
STARTERS = {"integration/ui": "pages", "sandbox": "launch", "faults": "nursery"}
"""By folder, the fixture that starts an API server, the sandbox's command, or a worker that is killed."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the folders that the usual run would deselect: importing them takes seconds in each process.

    The cluster needs services of its own, so its tests run only if they are asked for by name.
    """
    mark = MARKS.get(collection_path.name) if collection_path.parent == TESTS else None
    wanted = config.getoption("markexpr")
    usual = re.fullmatch(r"not \(([\w ]+)\)", wanted)
    is_out = mark and (mark in usual[1].split(" or ") if usual else mark == "cluster" and mark not in wanted)
    return True if is_out else None


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the folders' tests, and put those on a whole Airflow last: they take minutes."""
    start = len(str(TESTS)) + 1
    for item in items:
        # A prefix of the path: `Path.parents` for thousands of tests takes a second.
        folder = os.path.dirname(str(item.path)[start:]).replace(os.sep, "/")  # noqa: PTH120
        if mark := MARKS.get(folder.partition("/")[0]):
            item.add_marker(getattr(pytest.mark, mark))
        if STARTERS.get(folder) in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.processes)
    items.sort(key=lambda item: str(item.path)[start:].startswith(("e2e" + os.sep, "browser" + os.sep)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the collector of garbage begin after all imports, and search none of what they made.

    Beside the imports it took a quarter of their time; later, each search of everything takes tenths of a second.
    """
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
