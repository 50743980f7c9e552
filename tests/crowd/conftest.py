"""A private Airflow with two triggerers, for a run of hundreds of clips; nightly, because it takes many minutes.

``VIDU_CROWD`` sets the number of clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from private_airflow import COMPONENTS, PrivateAirflow

HERE = Path(__file__).parent
SECOND = "triggerer-2"


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(scope="session")
def airflow(tmp_path_factory) -> Iterator[PrivateAirflow]:
    """Run Airflow with SQLite and a second triggerer."""
    settings = {
        "CORE__PARALLELISM": "8",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        # How long a dead triggerer keeps its triggers; half a minute otherwise.
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
        "WORKERS__EXECUTION_API_TIMEOUT": "60",
    }
    components = {**COMPONENTS, SECOND: ("triggerer",)}
    home = tmp_path_factory.mktemp("crowd") / "airflow"
    with PrivateAirflow(home, [HERE / "dags"], settings=settings, components=components) as running:
        running.wait_for_dags(["crowd"], timeout=300)
        yield running
