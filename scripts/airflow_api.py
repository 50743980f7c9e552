"""A client of Airflow's REST API: connections, DAG runs, task states and XComs."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

USER: Final = "admin"
REQUEST_TIMEOUT: Final = 90  # seconds; longer than the API server may wait for its database
PAGE: Final = 100  # the maximum number of entries per answer
# Without the environment's proxies, which are for other hosts.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class PrivateAirflowError(RuntimeError):
    """The private Airflow failed; the message says what to do and where to look."""


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
        """Its path in the REST API."""
        return f"/dags/{_quoted(self.dag_id)}/dagRuns/{_quoted(self.run_id)}"


@dataclass(frozen=True)
class TaskState:
    """The state of a task instance.

    :param name: the task id, followed by ``[map index]`` for a mapped task.
    """

    name: str
    state: str
    try_number: int
    record: Mapping[str, Any] = field(compare=False, repr=False)


class AirflowApi:
    """The REST API of the Airflow at :attr:`url`, as its administrator."""

    _token: str | None = None

    @property
    def url(self) -> str:
        """The address of UI and API."""
        raise NotImplementedError

    @property
    def password(self) -> str:
        """The password of the user ``admin``."""
        raise NotImplementedError

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to the REST API and return the decoded answer.

        :param method: the HTTP method.
        :param path: the path after ``/api/v2``, with its query.
        :param body: sent as JSON unless None.
        :raises ApiError: if it is refused.
        """
        return self.ask(method, f"/api/v2{path}", body)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to any path of the server, such as those of the UI, and return the decoded answer."""
        if self._token is None:
            login = {"username": USER, "password": self.password}
            self._token = str(self.request("POST", "/auth/token", login)["access_token"])
        # The API server answers 500, with nothing done, while SQLite is busy.
        for pause in (0.5, 1.0, 2.0):
            try:
                return self.request(method, path, body, self._token)
            except ApiError as error:
                if error.status != 500 or "Database error" not in str(error):
                    raise
            time.sleep(pause)
        return self.request(method, path, body, self._token)

    def request(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """Send one request, without login or retries, and return the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with _OPENER.open(request, timeout=REQUEST_TIMEOUT) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            detail = error.read(2000).decode("utf-8", "replace")
            raise ApiError(f"{method} {path}: HTTP {error.code}: {detail}", error.code) from None
        return json.loads(content) if content else None

    def add_connection(self, conn_id: str, fields: Mapping[str, Any]) -> None:
        """Create or replace a connection, so that its key is in no command line or file and the UI shows it.

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
        """Return the states of all tasks of a run, sorted by name."""
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
        """Return the decoded XCom of a task."""
        path = f"{run.path}/taskInstances/{_quoted(task_id)}/xcomEntries/{_quoted(key)}"
        return self.api("GET", f"{path}?map_index={map_index}&deserialize=false")["value"]

    def _unhealthy(self) -> str:
        """Return the components that are not healthy, as text; empty if all are."""
        try:
            health = self.request("GET", "/api/v2/monitor/health")
        except (OSError, ValueError, PrivateAirflowError):
            return "api-server does not answer"
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return ", ".join(part for part in parts if (health.get(part) or {}).get("status") != "healthy")


def _task_state(record: Mapping[str, Any]) -> TaskState:
    index = record["map_index"]
    name = record["task_id"] if index < 0 else f"{record['task_id']}[{index}]"
    return TaskState(name, record["state"] or "none", record["try_number"], record)


def _quoted(text: str) -> str:
    return quote(text, safe="")
