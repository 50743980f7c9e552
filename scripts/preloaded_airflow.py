"""``airflow`` with modules imported before it starts: ``python preloaded_airflow.py scheduler``.

Scheduler and DAG processor fork processes for tasks and files, each of which would import these modules for itself.
Nothing of this provider is among them: a task imports of it what it needs, as everywhere.

The others start here as well, because the garbage collector is off while modules are imported. It searched all there
was again and again, a tenth of the start. From then on it leaves alone what was imported.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from typing import Final

OF_AIRFLOW_2: Final = (
    "airflow.cli.commands.task_command",
    "airflow.jobs.local_task_job_runner",
    "airflow.operators.python",
    "airflow.task.task_runner.standard_task_runner",
)
OF_AIRFLOW_3: Final = (
    "airflow.dag_processing.bundles.local",
    "airflow.providers.standard.decorators.python",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
)
OF_BOTH: Final = ("airflow.providers.common.compat.sdk", "requests")
OF_COMMANDS: Final = {
    "api-server": ("airflow.api_fastapi.core_api.app", "airflow.api_fastapi.execution_api.app"),
    "db": ("airflow.cli.commands.db_command", "airflow.utils.db"),
    "triggerer": ("airflow.jobs.triggerer_job_runner", "airflow.api_fastapi.execution_api.app"),
}
"""What the commands import that fork no tasks; Airflow 2 lacks some of it."""


def modules() -> tuple[str, ...]:
    """Return the names of the modules that the tasks of this Airflow import."""
    if find_spec("airflow.sdk") is None:
        return (*OF_AIRFLOW_2, *OF_BOTH)
    has_moved = find_spec("airflow.dag_processing.dagbag")  # in Airflow 3.2
    return (*OF_AIRFLOW_3, "airflow.dag_processing.dagbag" if has_moved else "airflow.models.dagbag", *OF_BOTH)


def preload(names: Iterable[str]) -> None:
    """Import the modules; one that cannot be imported fails where it is used."""
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)


def run() -> None:
    """Run the command as ``python -m airflow`` does."""
    sys.path[0] = os.getcwd()  # noqa: PTH109 - not this file's folder, whose modules have names that others may have
    gc.disable()
    airflow = importlib.import_module("airflow.__main__")
    preload(OF_COMMANDS.get(sys.argv[1]) or modules())
    gc.freeze()
    gc.enable()
    airflow.main()


if __name__ == "__main__":
    run()
