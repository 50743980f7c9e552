"""The manual's table of what each Airflow can do, compared with the Airflow that runs the tests."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException, Asset, Context
from airflow.triggers.base import BaseTrigger

from airflow_provider_vidu.api.settings import connection
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.retry_policy import vidu_retry_policy
from tests.versions import AIRFLOW

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


def table() -> dict[str, dict[str, str]]:
    """Return the table as what is promised for each Airflow, by feature."""
    section = PAGE.read_text("utf-8").partition("## What differs between Airflow versions")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    head = rows[0]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows[2:]}


def python() -> str:
    """Return the Python that runs this."""
    return "{}.{}".format(*sys.version_info)


def record() -> str:
    """Return where the record of an order lives."""
    return "task state store" if "task_state_store" in getattr(Context, "__annotations__", {}) else "Variable"


def kill() -> str:
    """Return what tells a trigger that its task was killed."""
    return "`on_kill`" if hasattr(BaseTrigger, "on_kill") else "cancelled watch"


def watch() -> str:
    """Return where the Watch link leads."""
    return "page" if has_pages() else "XComs"


def execution_timeout() -> str:
    """Return what a task's execution_timeout counts: Airflow 2 gives it to the trigger as well."""
    try:
        runner = importlib.import_module("airflow.sdk.execution_time.task_runner")
    except ModuleNotFoundError:
        runner = importlib.import_module("airflow.models.taskinstance")
    counts = "execution_timeout" in inspect.getsource(runner._defer_task)
    return "also the deferred wait" if counts else "time in a worker"


def finished_trigger() -> str:
    """Tell whether a DAG can run when a generation finishes."""
    try:
        importlib.import_module("airflow_provider_vidu.event_triggers")
    except AirflowOptionalProviderFeatureException:
        return "no"
    return "yes"


def retry_policy() -> str:
    """Tell whether there is the ready retry policy."""
    try:
        vidu_retry_policy()
    except ImportError:
        return "no"
    return "yes"


def asset_names() -> str:
    """Tell whether an asset may be called anything."""
    try:
        Asset(uri="file:///data/größe.mp4")
    except ValueError:
        return "no"
    return "yes"


def broken_extra() -> str:
    """Return how a connection is refused whose extra is a list."""
    with pytest.raises(ViduConfigError) as caught:
        connection.resolve("broken_vidu")
    return "named" if "field 'extra'" in str(caught.value) else "not found, with a hint"


PROBES: dict[str, Callable[[], str]] = {
    "Python": python,
    "record of an order": record,
    "how the trigger learns of a kill": kill,
    "Watch leads to": watch,
    "`execution_timeout` counts": execution_timeout,
    "`ViduGenerationFinishedTrigger`": finished_trigger,
    "`vidu_retry_policy`": retry_policy,
    "asset names beyond ASCII": asset_names,
    "a connection whose extra is not a JSON object": broken_extra,
}


def test_every_row_is_looked_at() -> None:
    """Each promise in the table is compared."""
    assert list(table()) == list(PROBES)


@pytest.mark.parametrize("feature", PROBES)
def test_this_airflow_is_as_the_table_says(feature, monkeypatch) -> None:
    """The column of this Airflow is true, each cell of it."""
    broken = '{"conn_type": "vidu", "host": "h", "password": "k", "extra": "[1]"}'
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN_VIDU", broken)
    version = "{}.{}".format(*AIRFLOW)
    (promised,) = [cell for column, cell in table()[feature].items() if version in column.split(", ")]
    found = PROBES[feature]()
    assert found in promised.split(", ") or found in (promised, promised.partition(" (")[0])
