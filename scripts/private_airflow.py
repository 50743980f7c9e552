"""A private Airflow: one folder, a few processes, free ports, no traces after its end.

For the demo and the end-to-end tests::

    with PrivateAirflow(home, dag_folders=[Path("example_dags")]) as airflow:
        airflow.add_connection("vidu_default", {"conn_type": "vidu", "host": url, "password": key})
        run = airflow.trigger("vidu_prompt_to_file", {"prompt": "a red kite"})
        for change in airflow.watch(run):
            print(change)

It has SQLite, the LocalExecutor and four components in separate sessions. ``airflow standalone`` starts the same four,
but can only be stopped as a whole, and serves logs on fixed ports.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from airflow_api import USER, AirflowApi, PrivateAirflowError, Run, TaskState
from processes import LOCALHOST, Component, Guard, Startable, free_port, members_of, signals_held, tail, wait_for

#: The components of a small Airflow: name and ``airflow`` command.
COMPONENTS: Final[Mapping[str, Sequence[str]]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler",),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer",),
}
ENDED: Final = frozenset({"success", "failed"})
PRELOADED: Final = frozenset({*COMPONENTS, "db"})
"""The commands that the launcher can start."""
_SQLITE_SETTINGS: Final = Path(__file__).with_name("sqlite_settings.py")
_PRELOADED_AIRFLOW: Final = Path(__file__).with_name("preloaded_airflow.py")
_BUNDLE: Final = "airflow.dag_processing.bundles.local.LocalDagBundle"


class PrivateAirflow(AirflowApi, Startable):
    """An Airflow in its own folder.

    :param home: AIRFLOW_HOME, with the database, logs and generated secrets; nothing is stored elsewhere.
    :param dag_folders: folders with the DAGs to run.
    :param port: the port of UI and API; None for any free one.
    :param settings: further settings as ``{"SECTION__NAME": value}``.
    :param environment: further environment variables of its processes.
    :param components: its components by name; see :data:`COMPONENTS`.
    :param fresh: whether to start with an empty ``home``.
    :param serve_logs: whether the UI can show the logs of running tasks.
    :param python: the interpreter that runs Airflow; None for the current one.
    :param preload: whether tasks and parsed files inherit the imports of Airflow's own that each of them needs, which
        saves a part of a second of a core each time, and every component starts faster (``preloaded_airflow.py``).
    """

    def __init__(
        self,
        home: Path,
        dag_folders: Sequence[Path],
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        components: Mapping[str, Sequence[str]] = COMPONENTS,
        fresh: bool = True,
        serve_logs: bool = False,
        python: Path | None = None,
        preload: bool = False,
    ) -> None:
        self.home = home.resolve()
        self.python = (python or Path(sys.executable)).absolute()  # resolve() would leave the virtual environment
        self.dag_folders = [folder.resolve() for folder in dag_folders]
        self.port = port
        self.components: dict[str, Component] = {}
        self._commands = {name: tuple(command) for name, command in components.items()}
        self._guard: Guard | None = None
        self._settings = dict(settings or {})
        self._environment = dict(environment or {})
        self._fresh = fresh
        self._serve_logs = serve_logs
        self._preload = preload
        self._log_ports = ("0", "0")
        self._secrets: dict[str, str] = {}

    # -- start and stop -------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The address of UI and API."""
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def password(self) -> str:
        """The password of the user ``admin``."""
        return self._secrets["password"]

    def password_of(self, user: str) -> str:
        """Return the password that Airflow generated for a user in the settings."""
        passwords: dict[str, str] = json.loads((self.home / "passwords.json").read_text())
        return passwords[user]

    @property
    def output(self) -> Path:
        """The folder with the components' output, a file for each."""
        return self.home / "output"

    def start(self) -> None:
        """Create the database, start the components, and wait until they are healthy."""
        self.prepare()
        self.migrate()
        for name in self._commands:
            self.start_component(name)
        self.wait_healthy()

    def prepare(self) -> None:
        """Create the folder and the secrets, and choose the ports."""
        if self._fresh and self.home.exists():
            shutil.rmtree(self.home)
        self.output.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        config = self.home / "config"  # on Airflow's import path
        config.mkdir(exist_ok=True)
        shutil.copyfile(_SQLITE_SETTINGS, config / "airflow_local_settings.py")
        self._secrets = _kept_secrets(self.home / "private.json")
        _write_private(self.home / "passwords.json", json.dumps({USER: self.password}))
        self.port = free_port() if self.port is None else _checked_port(self.port)
        self._log_ports = (str(free_port()), str(free_port()))

    def migrate(self) -> None:
        """Create or update the metadata database."""
        log = self.output / "db-migrate.log"
        with log.open("wb") as out:
            done = subprocess.run(
                self._command("db", "migrate"),
                env=self.environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise PrivateAirflowError(f"`airflow db migrate` failed.\n{tail(log)}")

    def start_component(self, name: str, *options: str) -> Component:
        """Start one component, also again after :meth:`kill_component`.

        :param name: the component.
        :param options: further options for its command line.
        """
        words = self._commands[name]
        if not self._serve_logs and not {"scheduler", "triggerer", "worker"}.isdisjoint(words):
            options = ("--skip-serve-logs", *options)  # each would serve its tasks' logs on another port
        command, log, env = self._command(*words, *options), self.output / f"{name}.log", self.environment()
        component = Component.started(name, command, log, env=env, cwd=self.home, stdin=subprocess.DEVNULL)
        self._guard = self._guard or Guard()
        self._guard.watch(component.process)
        self.components[name] = component
        return component

    def kill_component(self, name: str) -> None:
        """Kill a component (SIGKILL), like a crash of its machine."""
        self.components.pop(name).kill()

    def stop(self, timeout: float = 5) -> None:
        """Stop all processes; those that do not end within ``timeout`` seconds are killed.

        The scheduler may wait forever for its idle workers (seen on 3.3.2), and the data are not needed afterwards.

        :raises PrivateAirflowError: if a process is left.
        """
        # A second Ctrl-C must not interrupt this.
        with signals_held():
            components = list(self.components.values())
            for component in components:
                component.signal(signal.SIGTERM)
                component.signal(signal.SIGCONT)  # a frozen process does not receive SIGTERM
            wait_for(lambda: not members_of(components), timeout)
            for component in components:
                component.signal(signal.SIGKILL)
            wait_for(lambda: not members_of(components), 5)
            left = members_of(components)
            self.components.clear()
            if self._guard:
                self._guard.dismiss()
                self._guard = None
        if left:
            raise PrivateAirflowError(f"These processes could not be stopped: {[process.pid for process in left]}")

    def members(self) -> list[psutil.Process]:
        """Return the living processes of this Airflow."""
        return members_of(self.components.values())

    # -- waiting --------------------------------------------------------------------------------

    def wait_healthy(self, timeout: float = 180) -> None:
        """Wait until all components report that they are healthy, at most ``timeout`` seconds."""

        def is_healthy() -> bool:
            self._check_components()
            return not self._unhealthy()

        if not wait_for(is_healthy, timeout, every=0.5):
            raise PrivateAirflowError(
                f"Airflow was not healthy within {timeout:.0f} s ({self._unhealthy()}).\n{self._tails()}"
            )

    def wait_for_dags(self, dag_ids: Iterable[str], timeout: float = 90) -> None:
        """Wait until the DAG processor has parsed these DAGs.

        :raises PrivateAirflowError: if a DAG cannot be imported, with Airflow's reason.
        """
        missing = set(dag_ids)

        def is_parsed() -> bool:
            self._check_components()
            missing.difference_update(dag["dag_id"] for dag in self.api("GET", "/dags?limit=100")["dags"])
            if missing and (errors := self.api("GET", "/importErrors")["import_errors"]):
                reasons = "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)
                raise PrivateAirflowError(f"Airflow cannot import a DAG.\n{reasons}")
            return not missing

        if not wait_for(is_parsed, timeout, every=0.5):
            raise PrivateAirflowError(
                f"Airflow did not find {', '.join(sorted(missing))} within {timeout:.0f} s.\n"
                f"{tail(self.output / 'dag-processor.log')}"
            )

    def wait(self, run: Run, timeout: float = 180) -> str:
        """Wait until a DAG run has ended and return ``success`` or ``failed``."""

        def ended() -> bool:
            self._check_components()
            return self.run_state(run) in ENDED  # without its tasks, whose list costs the API server more

        if not wait_for(ended, timeout, every=0.5):
            raise self._too_slow(run, timeout, self.tasks(run))
        return self.run_state(run)

    def watch(self, run: Run, timeout: float = 180, every: float = 0.5) -> Iterator[TaskState]:
        """Yield each change of a task's state until the run has ended.

        :param timeout: seconds after which it fails.
        :param every: seconds between two polls.
        """
        deadline = time.monotonic() + timeout
        seen: dict[str, TaskState] = {}
        while True:
            state = self.run_state(run)  # before its tasks, so that their last states are not missed
            for task in self.tasks(run):
                if seen.get(task.name) != task:
                    seen[task.name] = task
                    yield task
            if state in ENDED:
                return
            self._check_components()
            if time.monotonic() > deadline:
                raise self._too_slow(run, timeout, seen.values())
            time.sleep(every)

    def wait_for_task(self, run: Run, name: str, state: str, timeout: float = 120) -> TaskState:
        """Wait until a task is in a state and return it.

        :param name: the task id, for a mapped task with its map index: ``wait[3]``.
        :raises PrivateAirflowError: if the timeout expires or the run ends first.
        """
        seen: list[TaskState] = []

        def reached() -> bool:
            self._check_components()
            ended = self.run_state(run) in ENDED
            seen[:] = self.tasks(run)
            return ended or any((task.name, task.state) == (name, state) for task in seen)

        wait_for(reached, timeout, every=0.3)
        for task in seen:
            if (task.name, task.state) == (name, state):
                return task
        raise PrivateAirflowError(f"{run.dag_id}: {name} was never {state}, but {_listed(seen)}.\n{self._tails()}")

    def task_log(self, run: Run, task_id: str, *, map_index: int = -1) -> str:
        """Return the logs of all attempts of a task, including those of the triggerer."""
        folder = self.home / "logs" / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        return "\n".join(path.read_text("utf-8", "replace") for path in sorted(folder.glob("attempt=*")))

    # -- processes ------------------------------------------------------------------------------

    def component_log(self, name: str, lines: int = 200) -> str:
        """Return the last lines of a component's output."""
        return tail(self.components[name].log, lines)

    def environment(self) -> dict[str, str]:
        """Return the environment of the processes, without other Airflow settings and keys."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "VIDU_"))}
        quiet = ",".join(filter(None, (inherited.get("NO_PROXY") or inherited.get("no_proxy"), LOCALHOST, "localhost")))
        settings = {f"AIRFLOW__{name}": value for name, value in (self._defaults() | self._settings).items()}
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            "PATH": os.pathsep.join((str(self.python.parent), inherited.get("PATH", os.defpath))),
            "NO_PROXY": quiet,
            "no_proxy": quiet,
            "PYTHONUNBUFFERED": "1",
            **settings,
            **self._environment,
        }

    def _defaults(self) -> dict[str, str]:
        # Numbered: two folders may share a name, and Airflow reserves "example_dags" for its own.
        bundles = [
            {"name": f"folder-{number}", "classpath": _BUNDLE, "kwargs": {"path": str(path), "refresh_interval": 5}}
            for number, path in enumerate(self.dag_folders, 1)
        ]
        return {
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__PARALLELISM": "4",
            "CORE__TEST_CONNECTION": "Enabled",
            "CORE__FERNET_KEY": self._secrets["fernet"],
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "API__HOST": LOCALHOST,
            "API__PORT": str(self.port),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "API__SECRET_KEY": self._secrets["api"],
            "API_AUTH__JWT_SECRET": self._secrets["jwt"],
            "LOGGING__WORKER_LOG_SERVER_PORT": self._log_ports[0],
            "LOGGING__TRIGGER_LOG_SERVER_PORT": self._log_ports[1],
            "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
            # A file that has changed is parsed at once all the same; parsing the others every half minute takes a core.
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(self.home / "bundles"),
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            # Its listener prolongs the scheduler's transactions, which blocks SQLite.
            "OPENLINEAGE__DISABLED": "True",
        }

    def _command(self, *arguments: str) -> list[str]:
        started_by = [str(_PRELOADED_AIRFLOW)] if self._preload and arguments[0] in PRELOADED else ["-m", "airflow"]
        return [str(self.python), *started_by, *arguments]

    def _check_components(self) -> None:
        for component in self.components.values():
            if (code := component.process.poll()) is not None:
                raise PrivateAirflowError(f"{component.name} ended with status {code}.\n{tail(component.log)}")

    def _too_slow(self, run: Run, timeout: float, tasks: Iterable[TaskState]) -> PrivateAirflowError:
        return PrivateAirflowError(
            f"{run.dag_id} did not end within {timeout:.0f} s: {_listed(tasks)}.\n{self._tails()}"
        )

    def _tails(self) -> str:
        return "\n".join(tail(component.log, 12) for component in self.components.values())


def errors_in(log: str) -> list[str]:
    """Return the messages of the exceptions in a task's log of JSON lines."""
    records = [json.loads(line) for line in log.splitlines() if line.startswith('{"')]
    details = [detail for record in records for detail in record.get("error_detail") or []]
    return [f"{detail.get('exc_type')}: {detail.get('exc_value')}"[:600] for detail in details]


def _checked_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError as error:
            raise PrivateAirflowError(
                f"Port {port} cannot be used ({error.strerror}). Choose another one, or omit it for any free port."
            ) from None
    return port


def _kept_secrets(path: Path) -> dict[str, str]:
    """Return the keys of this Airflow, generated at its first start."""
    with suppress(OSError, ValueError):
        kept: dict[str, str] = json.loads(path.read_text())
        return kept
    generated = {
        "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "api": secrets.token_urlsafe(32),
        "jwt": secrets.token_urlsafe(64),
        "password": secrets.token_urlsafe(9),
    }
    _write_private(path, json.dumps(generated))
    return generated


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _listed(tasks: Iterable[TaskState]) -> str:
    return ", ".join(f"{task.name} {task.state}" for task in tasks)
