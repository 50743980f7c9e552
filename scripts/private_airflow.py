"""A private Airflow: one folder, a handful of processes, free ports, stopped without a trace.

Used by the demo and by the end-to-end tests::

    with PrivateAirflow(home, dag_folders=[Path("example_dags")]) as airflow:
        airflow.add_connection("vidu_default", {"conn_type": "vidu", "host": url, "password": key})
        run = airflow.trigger("vidu_prompt_to_file", {"prompt": "a red kite"})
        for change in airflow.watch(run):
            print(change)

SQLite, LocalExecutor and four components, each in a session of its own: ``airflow standalone``
starts the same four, but as one that can only be stopped as a whole, on fixed ports for its logs.
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
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from processes import LOCALHOST, Component, Guard, free_port, members_of, signals_held, tail, wait_for

#: The parts of a small Airflow: a name for each, and what follows ``airflow`` on its command line.
COMPONENTS: Final[Mapping[str, Sequence[str]]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler",),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer",),
}
USER: Final = "admin"
REQUEST_TIMEOUT: Final = 90  # seconds
PAGE: Final = 100  # the most entries that the REST API returns at a time
ENDED: Final = frozenset({"success", "failed"})
_SQLITE_SETTINGS: Final = Path(__file__).with_name("sqlite_settings.py")
_BUNDLE: Final = "airflow.dag_processing.bundles.local.LocalDagBundle"


class PrivateAirflowError(RuntimeError):
    """The private Airflow does not do what it should; the message says what to do and where to look."""


class ApiError(PrivateAirflowError):
    """Airflow's REST API refused a request.

    :param status: the HTTP status of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Run:
    """A DAG run that was triggered."""

    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        """Its address in the REST API."""
        return f"/dags/{_quoted(self.dag_id)}/dagRuns/{_quoted(self.run_id)}"


@dataclass(frozen=True)
class TaskState:
    """What Airflow says of one task instance.

    :param name: the task id, with the map index behind it where there is one.
    """

    name: str
    state: str
    try_number: int
    record: Mapping[str, Any] = field(compare=False, repr=False)


class PrivateAirflow:
    """Airflow in a folder of its own.

    :param home: AIRFLOW_HOME; database, logs and generated secrets live there, nothing elsewhere.
    :param dag_folders: folders whose DAGs it runs.
    :param port: the port of UI and API; a free one is chosen when None.
    :param settings: further settings as ``{"SECTION__NAME": value}``.
    :param environment: further environment variables of its processes.
    :param components: what it consists of, by name; see :data:`COMPONENTS`.
    :param fresh: whether to start with an empty ``home``.
    :param serve_logs: whether the UI can show the logs of tasks that are still running.
    :param python: the interpreter whose Airflow it is; this process's own where None.
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
    ) -> None:
        self.home = home.resolve()
        self.python = (python or Path(sys.executable)).absolute()  # not resolved: that would leave its environment
        self.dag_folders = [folder.resolve() for folder in dag_folders]
        self.port = port
        self.components: dict[str, Component] = {}
        self._commands = {name: tuple(command) for name, command in components.items()}
        self._guard: Guard | None = None
        self._settings = dict(settings or {})
        self._environment = dict(environment or {})
        self._fresh = fresh
        self._serve_logs = serve_logs
        self._log_ports = ("0", "0")
        self._token: str | None = None
        self._secrets: dict[str, str] = {}

    # -- life -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address of UI and API."""
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def password(self) -> str:
        """The password of the user ``admin``."""
        return self._secrets["password"]

    def password_of(self, user: str) -> str:
        """Return the password of a user that the settings name; Airflow has made it when it started."""
        passwords: dict[str, str] = json.loads((self.home / "passwords.json").read_text())
        return passwords[user]

    @property
    def output(self) -> Path:
        """The folder with what the components print, a file for each."""
        return self.home / "output"

    def start(self) -> None:
        """Make the database and start the components, without waiting for them."""
        self.prepare()
        self.migrate()
        for name in self._commands:
            self.start_component(name)

    def prepare(self) -> None:
        """Make the folder, the secrets and the choice of ports."""
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
            raise PrivateAirflowError(f"The metadata database could not be made.\n{tail(log)}")

    def start_component(self, name: str, *options: str) -> Component:
        """Start one component; used again after :meth:`kill_component`.

        :param name: one of its components.
        :param options: further options for its command line.
        """
        log = self.output / f"{name}.log"
        command = self._commands[name]
        # Each of these would serve the logs of its tasks on a port of its own.
        silent = not self._serve_logs and not {"scheduler", "triggerer", "worker"}.isdisjoint(command)
        with log.open("ab") as out:
            process = subprocess.Popen(
                self._command(*command, *(["--skip-serve-logs"] if silent else []), *options),
                env=self.environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = self._guard or Guard()
        self._guard.watch(process)
        self.components[name] = Component(name, process, log)
        return self.components[name]

    def kill_component(self, name: str) -> None:
        """End a component at once (SIGKILL), as a crash of its machine would.

        :param name: one of its components.
        """
        self.components.pop(name).kill()

    def stop(self, patience: float = 5) -> None:
        """Stop every process; those that do not end within ``patience`` seconds are killed.

        The scheduler may wait for ever for its idle workers (seen on 3.3.2), and nothing of this Airflow
        is worth waiting for: its data are only looked at while it runs.

        :raises PrivateAirflowError: when a process is left all the same.
        """
        # A second Ctrl-C must not leave half of the processes behind.
        with signals_held():
            components = list(self.components.values())
            for component in components:
                component.signal(signal.SIGTERM)
                component.signal(signal.SIGCONT)  # a frozen one would never hear of it
            wait_for(lambda: not members_of(components), patience)
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
        """Return every living process of this Airflow."""
        return members_of(self.components.values())

    # -- waiting --------------------------------------------------------------------------------

    def wait_healthy(self, timeout: float = 180) -> None:
        """Wait until all parts that report on themselves are well.

        :param timeout: seconds until that counts as a failure.
        """
        if not wait_for(self._is_healthy, timeout, every=0.5):
            raise PrivateAirflowError(
                f"Airflow was not healthy within {timeout:.0f} s ({self._ailing()}).\n{self._tails()}"
            )

    def wait_for_dags(self, dag_ids: Iterable[str], timeout: float = 90) -> None:
        """Wait until the DAG processor has read these DAGs.

        :raises PrivateAirflowError: when one of them cannot be imported, with Airflow's reason.
        """
        missing = set(dag_ids)

        def known() -> bool:
            self._check_components()
            missing.difference_update(dag["dag_id"] for dag in self.api("GET", "/dags?limit=100")["dags"])
            if missing and (errors := self.api("GET", "/importErrors")["import_errors"]):
                told = "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)
                raise PrivateAirflowError(f"Airflow cannot import a DAG.\n{told}")
            return not missing

        if not wait_for(known, timeout, every=0.5):
            raise PrivateAirflowError(
                f"Airflow did not find {', '.join(sorted(missing))} within {timeout:.0f} s.\n"
                f"{tail(self.output / 'dag-processor.log')}"
            )

    def wait(self, run: Run, timeout: float = 180) -> str:
        """Wait until a DAG run has ended; return ``success`` or ``failed``."""
        for _ in self.watch(run, timeout):
            pass
        return self.run_state(run)

    def watch(self, run: Run, timeout: float = 180, every: float = 0.5) -> Iterator[TaskState]:
        """Yield each change of a task's state until the run has ended.

        :param timeout: seconds until that counts as a failure.
        :param every: seconds between two looks.
        """
        deadline = time.monotonic() + timeout
        seen: dict[str, TaskState] = {}
        while True:
            state = self.run_state(run)  # first the run, then its tasks: the last states are never missed
            for task in self.tasks(run):
                if seen.get(task.name) != task:
                    seen[task.name] = task
                    yield task
            if state in ENDED:
                return
            self._check_components()
            if time.monotonic() > deadline:
                raise PrivateAirflowError(
                    f"{run.dag_id} did not end within {timeout:.0f} s: {_listed(seen.values())}.\n{self._tails()}"
                )
            time.sleep(every)

    def wait_for_task(self, run: Run, name: str, state: str, timeout: float = 120) -> TaskState:
        """Wait until a task is in a state and return it.

        :param name: the task id, with the map index behind it where there is one: ``wait[3]``.
        :raises PrivateAirflowError: when that takes too long, or the run ends without it.
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

    # -- REST API -------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask Airflow's REST API and return the decoded answer.

        :param method: the HTTP method.
        :param path: what follows ``/api/v2``, query included.
        :param body: sent as JSON when not None.
        """
        return self.ask(method, f"/api/v2{path}", body)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask Airflow's server for any path, such as those of the UI, and return the decoded answer."""
        if self._token is None:
            login = {"username": USER, "password": self.password}
            self._token = str(self._request("POST", "/auth/token", login)["access_token"])
        return self._patient_request(method, path, body)

    def add_connection(self, conn_id: str, fields: Mapping[str, Any]) -> None:
        """Create or replace a connection.

        Through the API: the key then stands on no command line and in no file, and the UI shows the connection.

        :param conn_id: its id.
        :param fields: ``conn_type``, ``host``, ``password``, ``extra`` (a mapping).
        """
        body = {**fields, "connection_id": conn_id}
        if not isinstance(body.get("extra"), str | None):
            body["extra"] = json.dumps(body["extra"])
        with suppress(ApiError):
            self.api("DELETE", f"/connections/{_quoted(conn_id)}")
        self.api("POST", "/connections", body)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """Start a DAG run with ``conf`` as its params."""
        answer = self.api("POST", f"/dags/{_quoted(dag_id)}/dagRuns", {"logical_date": None, "conf": dict(conf or {})})
        return Run(dag_id, answer["dag_run_id"])

    def run_state(self, run: Run) -> str:
        """Return the state of a DAG run."""
        return str(self.api("GET", run.path)["state"])

    def tasks(self, run: Run) -> list[TaskState]:
        """Return the states of all tasks of a run, in a stable order."""
        records: list[Mapping[str, Any]] = []
        while True:
            page = self.api("GET", f"{run.path}/taskInstances?limit={PAGE}&offset={len(records)}&order_by=id")
            records += page["task_instances"]
            if not page["task_instances"] or len(records) >= page["total_entries"]:
                return sorted((_task_state(record) for record in records), key=lambda task: task.name)

    def states(self, run: Run) -> dict[str, str]:
        """Return the state of each task by its name."""
        return {task.name: task.state for task in self.tasks(run)}

    def xcom(self, run: Run, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what a task has left as an XCom, decoded."""
        path = f"{run.path}/taskInstances/{_quoted(task_id)}/xcomEntries/{_quoted(key)}"
        return self.api("GET", f"{path}?map_index={map_index}&deserialize=false")["value"]

    def task_log(self, run: Run, task_id: str, *, map_index: int = -1) -> str:
        """Return what every try of a task has logged, the triggerer's part included."""
        folder = self.home / "logs" / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        return "\n".join(path.read_text("utf-8", "replace") for path in sorted(folder.glob("attempt=*")))

    # -- inside ---------------------------------------------------------------------------------

    def component_log(self, name: str, lines: int = 200) -> str:
        """Return the end of what a component has printed."""
        return tail(self.components[name].log, lines)

    def environment(self) -> dict[str, str]:
        """Return the environment of the processes: nobody else's Airflow settings, and no key."""
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
            "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(self.home / "bundles"),
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            # Nothing is reported to anybody.
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            # Its listener makes the scheduler's transactions longer, which SQLite cannot stand.
            "OPENLINEAGE__DISABLED": "True",
        }

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.python), "-m", "airflow", *arguments]

    def _patient_request(self, method: str, path: str, body: Any) -> Any:
        """Ask again when SQLite was busy: the API server then answers 500, and nothing was done."""
        for pause in (0.5, 1.0, 2.0):
            try:
                return self._request(method, path, body, self._token)
            except ApiError as error:
                if error.status != 500 or "Database error" not in str(error):
                    raise
            time.sleep(pause)
        return self._request(method, path, body, self._token)

    def _request(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path, method=method, data=None if body is None else json.dumps(body).encode()
        )
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            # Longer than the API server may wait for its database.
            with _OPENER.open(request, timeout=REQUEST_TIMEOUT) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            told = error.read(2000).decode("utf-8", "replace")
            raise ApiError(f"{method} {path}: HTTP {error.code}: {told}", error.code) from None
        return json.loads(content) if content else None

    def _is_healthy(self) -> bool:
        self._check_components()
        return not self._ailing()

    def _ailing(self) -> str:
        try:
            health = self._request("GET", "/api/v2/monitor/health")
        except (OSError, ValueError, PrivateAirflowError):
            return "api-server does not answer"
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return ", ".join(part for part in parts if (health.get(part) or {}).get("status") != "healthy")

    def _check_components(self) -> None:
        for component in self.components.values():
            if (code := component.process.poll()) is not None:
                raise PrivateAirflowError(f"{component.name} ended with status {code}.\n{tail(component.log)}")

    def _tails(self) -> str:
        return "\n".join(tail(component.log, 12) for component in self.components.values())


# Proxies of the environment are for the outside world.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def errors_in(log: str) -> list[str]:
    """Return the messages of the exceptions in a task's log, which is a JSON object per line."""
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
                f"Port {port} cannot be used ({error.strerror}). Name another one, or none to have a free one chosen."
            ) from None
    return port


def _kept_secrets(path: Path) -> dict[str, str]:
    """Return the keys of this Airflow, made at the first start and kept for the next ones."""
    with suppress(OSError, ValueError):
        kept: dict[str, str] = json.loads(path.read_text())
        return kept
    made = {
        "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "api": secrets.token_urlsafe(32),
        "jwt": secrets.token_urlsafe(64),
        "password": secrets.token_urlsafe(9),
    }
    _write_private(path, json.dumps(made))
    return made


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _task_state(record: Mapping[str, Any]) -> TaskState:
    index = record["map_index"]
    name = record["task_id"] if index < 0 else f"{record['task_id']}[{index}]"
    return TaskState(name, record["state"] or "none", record["try_number"], record)


def _listed(tasks: Iterable[TaskState]) -> str:
    return ", ".join(f"{task.name} {task.state}" for task in tasks)


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
