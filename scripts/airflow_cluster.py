"""A private Airflow in a scaled-out set-up: PostgreSQL, Celery on Redis, two workers, two triggerers.

::

    with AirflowCluster(home, [Path("dags")]) as airflow:
        airflow.kill_component("worker-1")

It extends :class:`~private_airflow.PrivateAirflow` with faults of its components.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from private_airflow import COMPONENTS, PrivateAirflow
from services import Postgres, Redis, ServiceError

WORKERS: Final = ("worker-1", "worker-2")
TRIGGERERS: Final = ("triggerer-1", "triggerer-2")
#: Tasks that one worker runs at a time.
CONCURRENCY: Final = 4

#: The imports of every task of these tests.
WARM: Final = (
    "airflow.sdk.execution_time.task_runner",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.bundles.local",
    "airflow_provider_vidu.operators.preload",
    "airflow_provider_vidu.sensors",
)

#: Lets Airflow notice dead components in seconds instead of minutes; defaults in parentheses.
NOTICED_SOON: Final = {
    # Tasks of a dead worker: seconds without a heartbeat, and between two checks (300 and 10).
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "25",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
    # Missed heartbeats that a task tolerates while the API server restarts (3, of 5 seconds each).
    "WORKERS__MAX_FAILED_HEARTBEATS": "10",
    # For a busy machine (5).
    "WORKERS__EXECUTION_API_TIMEOUT": "30",
    # By default a task fails if the API server is away for some ten seconds at its start; on a busy machine a restart
    # takes over a minute.
    "WORKERS__EXECUTION_API_RETRIES": "60",
    "WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    # Messages that a dead worker has taken from the queue (a day).
    "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
    # Triggers of a dead or frozen triggerer (30).
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    # Runs and tasks of a dead scheduler (30 and 300).
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
}


def components() -> dict[str, Sequence[str]]:
    """Return the components of the cluster with their commands."""
    parts: dict[str, Sequence[str]] = {name: COMPONENTS[name] for name in ("api-server", "scheduler", "dag-processor")}
    for name in TRIGGERERS:
        parts[name] = COMPONENTS["triggerer"]
    for name in WORKERS:
        # Gossip and mingle only synchronize workers, and delay their start.
        quiet = ("--without-gossip", "--without-mingle", "--pid", f"{name}.pid")
        parts[name] = ("celery", "worker", "--celery-hostname", f"{name}@%h", "--concurrency", str(CONCURRENCY), *quiet)
    return parts


class AirflowCluster(PrivateAirflow):
    """Airflow on PostgreSQL and Celery, in its own folder.

    :param home: AIRFLOW_HOME; the services get folders beside it.
    :param dag_folders: folders with the DAGs to run.
    :param port: the port of UI and API; None for any free one.
    :param settings: further settings as ``{"SECTION__NAME": value}``.
    """

    def __init__(
        self,
        home: Path,
        dag_folders: Sequence[Path],
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.database = Postgres(home.parent / "database")
        self.broker = Redis(home.parent / "broker")
        self._services = ExitStack()
        merged = {**NOTICED_SOON, **(settings or {})}
        super().__init__(home, dag_folders, port=port, settings=merged, components=components())

    def start(self) -> None:
        """Start the services, then Airflow."""
        missing = [name for name in ("celery", "redis", "psycopg2", "asyncpg") if find_spec(name) is None]
        if missing:
            raise ServiceError(f"{', '.join(missing)} must be installed: run `make setup-faults`.")
        self._services.enter_context(self.database)
        self._services.enter_context(self.broker)
        super().start()

    def stop(self, timeout: float = 5) -> None:
        """Stop Airflow, then the services."""
        with self._services:
            super().stop(timeout)

    def freeze_component(self, name: str) -> None:
        """Freeze a component (SIGSTOP), like a paused machine."""
        self.components[name].signal(signal.SIGSTOP)

    def thaw_component(self, name: str) -> None:
        """Resume a frozen component (SIGCONT)."""
        self.components[name].signal(signal.SIGCONT)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query of the metadata database.

        :param query: SQL with ``%s`` for each of ``values``.
        """
        import psycopg2

        with psycopg2.connect(self.database.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())

    def _defaults(self) -> dict[str, str]:
        return {
            **super()._defaults(),
            "CORE__EXECUTOR": "CeleryExecutor",
            "CORE__PARALLELISM": "32",
            "DATABASE__SQL_ALCHEMY_CONN": self.database.url,
            "CELERY__BROKER_URL": self.broker.url,
            "CELERY__RESULT_BACKEND": f"db+{self.database.url}",
            "CELERY__WORKER_CONCURRENCY": str(CONCURRENCY),
            # At most one reserved task waits behind a worker's running ones if that worker dies.
            "CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
            # Every task is a fork of its worker, so it need not repeat the worker's imports.
            "CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": WARM}),
        }
