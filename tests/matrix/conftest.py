"""One private Airflow of whatever version is installed, and one sandbox, for the tests of the matrix."""

from __future__ import annotations

import json
import secrets
import select
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import PrivateAirflow, Run, TaskState
from processes import members_of, tail, wait_for
from tests.versions import AIRFLOW

HERE = Path(__file__).parent
DAGS = [HERE.parent.parent / "example_dags", HERE / "dags"]
KEY = f"vda-matrix-{secrets.token_hex(16)}"


class AnyAirflow(PrivateAirflow):
    """What the tests do to every Airflow."""

    def fail_task(self, run: Run, name: str) -> None:
        """Mark a task as failed, as a user does."""
        self.api("PATCH", f"{run.path}/taskInstances/{name}", {"new_state": "failed"})

    def clear_task(self, run: Run, name: str) -> None:
        """Clear a task, as a user does who leaves everything else as the dialog has it."""
        body = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": [name], "only_failed": False}
        self.api("POST", f"/dags/{run.dag_id}/clearTaskInstances", body)

    def variables(self) -> list[str]:
        """Return the names of all Variables."""
        return [one["key"] for one in self.api("GET", "/variables?limit=100")["variables"]]

    def shut_down(self, name: str) -> None:
        """Ask a component to end and wait until it has; a minute is enough for that."""
        component = self.components[name]
        component.signal(signal.SIGTERM)
        assert wait_for(lambda: not members_of([component]), 60), self.component_log(name)
        del self.components[name]


class CommandLineAirflow(AnyAirflow):
    """An Airflow 2: without the API of Airflow 3, so it is controlled by its command line and read in its database."""

    def __init__(self, home: Path, connections: Mapping[str, str], environment: Mapping[str, str]) -> None:
        # Airflow 2 has one folder for all DAGs.
        dags = home.parent / "dags"
        for folder in DAGS:
            shutil.copytree(folder, dags, dirs_exist_ok=True)
        settings = {
            "CORE__DAGS_FOLDER": str(dags),
            "CORE__EXECUTOR": "local_on_sqlite.LocalOnSQLite",
            # The DAGs do not change; parsing all of them every five seconds took a core.
            "SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "60",
        }
        parts = {name: (name,) for name in ("scheduler", "triggerer")}
        variables = {f"AIRFLOW_CONN_{name.upper()}": connection for name, connection in connections.items()}
        variables["PYTHONPATH"] = str(HERE)  # the executor's
        super().__init__(
            home, [dags], settings=settings, environment={**variables, **environment}, components=parts, preload=True
        )
        self._commands_process: subprocess.Popen[bytes] | None = None

    def run(self, *words: str) -> None:
        """Run an ``airflow`` command, or Python after ``-c``."""
        log = self.output / "commands.log"
        if self._commands_process is None:
            with log.open("wb") as out:
                self._commands_process = subprocess.Popen(
                    [self.python, HERE / "airflow_commands.py"], env=self.environment(), cwd=self.home,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out,
                )  # fmt: skip
        process = self._commands_process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(words).encode() + b"\n")
        process.stdin.flush()
        readable, _, _ = select.select([process.stdout], [], [], 120)
        answer = process.stdout.readline() if readable else b""
        assert answer == b'""\n', f"{words}: {answer.decode()}\n{tail(log)}"

    def stop(self, timeout: float = 5) -> None:
        """Stop all processes."""
        if self._commands_process is not None:
            self._commands_process.kill()
            self._commands_process.communicate()
            self._commands_process = None
        super().stop(timeout)

    def rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """Read the metadata database: every ``airflow`` command costs seconds of a core."""
        address = f"{(self.home / 'airflow.db').as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def wait_healthy(self, timeout: float = 180) -> None:
        """Wait until scheduler and triggerer run."""

        def run() -> bool:
            self._check_components()
            return len(self.rows("SELECT DISTINCT job_type FROM job WHERE state = 'running'")) == len(self.components)

        assert wait_for(run, timeout, every=0.5), self._tails()

    def wait_for_dags(self, dag_ids: Iterable[str], timeout: float = 90) -> None:
        """Wait until the scheduler has read these DAGs."""
        wanted = {(dag_id,) for dag_id in dag_ids}
        found = wait_for(lambda: wanted <= set(self.rows("SELECT dag_id FROM serialized_dag")), timeout, every=0.5)
        assert found, self.rows("SELECT filename, stacktrace FROM import_error")

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """Start a DAG run with ``conf`` as its params."""
        run = Run(dag_id, f"matrix-{secrets.token_hex(4)}")
        # Rounded to a second, the dates of two runs could be equal, which Airflow refuses.
        exact = "--no-replace-microseconds"
        self.run("dags", "trigger", dag_id, exact, "--run-id", run.run_id, "--conf", json.dumps(dict(conf or {})))
        return run

    def run_state(self, run: Run) -> str:
        """Return the state of a DAG run."""
        ((state,),) = self.rows("SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?", run.dag_id, run.run_id)
        return str(state)

    def fail_task(self, run: Run, name: str) -> None:
        """Mark a task as failed by the call that the page of Airflow 2 makes."""
        self.run(
            "-c",
            f"""
from airflow.models.serialized_dag import SerializedDagModel
SerializedDagModel.get_dag({run.dag_id!r}).set_task_instance_state(
    task_id={name!r}, run_id={run.run_id!r}, state="failed", commit=True
)""",
        )

    def clear_task(self, run: Run, name: str) -> None:
        """Clear a task."""
        self.run("tasks", "clear", "--yes", "--task-regex", f"^{name}$", run.dag_id)

    def variables(self) -> list[str]:
        """Return the names of all Variables."""
        return [key for (key,) in self.rows("SELECT key FROM variable")]

    def tasks(self, run: Run) -> list[TaskState]:
        """Return the states of all tasks of a run."""
        rows = self.rows(
            "SELECT task_id, state, try_number FROM task_instance WHERE dag_id = ? AND run_id = ?",
            run.dag_id,
            run.run_id,
        )
        return [TaskState(name, state or "none", tries, {}) for name, state, tries in rows]

    def xcom(self, run: Run, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what a task has left as an XCom, decoded."""
        query = "SELECT value FROM xcom WHERE dag_id = ? AND run_id = ? AND task_id = ? AND key = ? AND map_index = ?"
        ((value,),) = self.rows(query, run.dag_id, run.run_id, task_id, key, str(map_index))
        return json.loads(value)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Run the service; a generation takes long enough that its task is seen waiting."""
    with Sandbox(keys=[KEY], queue=1, duration=19, models="any", list_payload=True, concurrency=None) as service:
        yield service


@pytest.fixture(scope="session")
def patient() -> Iterator[Sandbox]:
    """Run a service at which everything stays queued, where it can be cancelled."""
    with Sandbox(keys=[KEY], queue=3600, models="any", list_payload=True) as service:
        yield service


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """Return the folder that the examples store their files beneath."""
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def airflow(tmp_path_factory, sandbox, patient, videos) -> Iterator[PrivateAirflow]:
    """Run Airflow with the example DAGs and those of these tests, connected to the sandboxes."""
    home = tmp_path_factory.mktemp("matrix") / "airflow"
    connections = {
        "vidu_default": {"conn_type": "vidu", "host": sandbox.url, "password": KEY, "extra": {}},
        "vidu_ent": {"conn_type": "vidu", "host": sandbox.url, "password": KEY, "extra": {"dialect": "ent-v2"}},
        "vidu_patient": {"conn_type": "vidu", "host": patient.url, "password": KEY, "extra": {"dialect": "ent-v2"}},
    }
    environment = {"VIDU_EXAMPLES_DESTINATION": f"{videos.as_uri()}/"}
    if AIRFLOW < (3, 0):
        told = {name: json.dumps(fields) for name, fields in connections.items()}
        running: PrivateAirflow = CommandLineAirflow(home, told, environment)
    else:
        running = AnyAirflow(home, DAGS, environment=environment, preload=True)
    with running:
        if AIRFLOW >= (3, 0):
            for name, fields in connections.items():
                running.add_connection(name, fields)
        ours = ["matrix_order", "matrix_retried", "matrix_lost", "matrix_rescheduled", "matrix_loop", "vidu_loop"]
        running.wait_for_dags(["vidu_generate_and_download", "vidu_prompt_to_file", *ours])
        yield running


@pytest.fixture(scope="session")
def begun(airflow, sandbox, patient) -> dict[str, Run]:
    """Start what goes on by itself while other tests run."""
    sandbox.add_fault({"match": {"kind": "create", "dialect": "ent-v2"}, "times": 1, "action": {"lose_answer": True}})
    endless = patient.add_generation("77", dialect="ent-v2", states=[["processing", 0]])
    looped = {}
    if AIRFLOW >= (3, 4):
        looped["loop"] = airflow.trigger("matrix_loop")
        looped["example_loop"] = airflow.trigger(
            "vidu_loop", {"prompt": "a heron", "folder": "loop", "enough_bytes": 1}
        )
    return looped | {
        "retried": airflow.trigger("matrix_retried"),
        "lost": airflow.trigger("matrix_lost"),
        "rescheduled": airflow.trigger("matrix_rescheduled", {"generation_id": endless}),
    }
