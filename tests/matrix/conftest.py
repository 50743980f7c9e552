"""One private Airflow of whatever version is installed, and one sandbox, for the tests of the matrix."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import PrivateAirflow, Run, TaskState
from processes import wait_for
from tests.versions import AIRFLOW, printed_json

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "example_dags"
KEY = f"vda-matrix-{secrets.token_hex(16)}"


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests: they belong to `make matrix`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.matrix)


class CommandLineAirflow(PrivateAirflow):
    """An Airflow 2: without the API of Airflow 3, so everything is asked on its command line."""

    def __init__(self, home: Path, examples: Path, connection: str) -> None:
        settings = {
            "CORE__DAGS_FOLDER": str(examples),
            # The one executor that Airflow 2 allows on SQLite.
            "CORE__EXECUTOR": "SequentialExecutor",
            "SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "5",
        }
        parts = {name: (name,) for name in ("scheduler", "triggerer")}
        variables = {"AIRFLOW_CONN_VIDU_DEFAULT": connection}
        super().__init__(home, [examples], settings=settings, environment=variables, components=parts)

    def run(self, *arguments: str) -> str:
        """Run an ``airflow`` command and return what it prints."""
        done = subprocess.run(
            self._command(*arguments), env=self.environment(), cwd=self.home, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def read(self, *arguments: str) -> Any:
        """Run an ``airflow`` command that prints JSON."""
        return printed_json(self.run(*arguments, "--output", "json"))

    def wait_healthy(self, timeout: float = 180) -> None:
        """Wait until scheduler and triggerer beat."""

        def beats() -> bool:
            self._check_components()
            try:
                for kind in ("SchedulerJob", "TriggererJob"):
                    self.run("jobs", "check", "--job-type", kind)
            except AssertionError:
                return False
            return True

        assert wait_for(beats, timeout, every=1), self._tails()

    def wait_for_dags(self, dag_ids: Iterable[str], timeout: float = 90) -> None:
        """Wait until the scheduler has read these DAGs."""
        wanted = set(dag_ids)
        found = wait_for(lambda: wanted <= {dag["dag_id"] for dag in self.read("dags", "list")}, timeout, every=1)
        assert found, self.run("dags", "list-import-errors")

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """Start a DAG run with ``conf`` as its params."""
        run = Run(dag_id, f"matrix-{secrets.token_hex(4)}")
        self.run("dags", "trigger", dag_id, "--run-id", run.run_id, "--conf", json.dumps(dict(conf or {})))
        return run

    def run_state(self, run: Run) -> str:
        """Return the state of a DAG run."""
        return next(
            row["state"] for row in self.read("dags", "list-runs", "-d", run.dag_id) if row["run_id"] == run.run_id
        )

    def tasks(self, run: Run) -> list[TaskState]:
        """Return the states of all tasks of a run."""
        rows = self.read("tasks", "states-for-dag-run", run.dag_id, run.run_id)
        return [TaskState(row["task_id"], row["state"] or "none", 1, row) for row in rows]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Run the service; a generation takes long enough that its task is seen waiting."""
    with Sandbox(keys=[KEY], queue=1, duration=19) as service:
        yield service


@pytest.fixture(scope="session")
def airflow(tmp_path_factory, sandbox) -> Iterator[PrivateAirflow]:
    """Run Airflow with the example DAGs, connected to the sandbox."""
    home = tmp_path_factory.mktemp("matrix") / "airflow"
    fields = {"conn_type": "vidu", "host": sandbox.url, "password": KEY}
    if AIRFLOW < (3, 0):
        running: PrivateAirflow = CommandLineAirflow(home, EXAMPLES, json.dumps(fields))
    else:
        running = PrivateAirflow(home, [EXAMPLES])
    with running:
        if AIRFLOW >= (3, 0):
            running.add_connection("vidu_default", {**fields, "extra": {}})
        running.wait_for_dags(["vidu_generate_and_download", "vidu_prompt_to_file"])
        yield running
