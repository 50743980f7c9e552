"""A private Airflow as users scale it out: PostgreSQL, Celery on Redis, two workers, two triggerers.

::

    with AirflowCluster(home, [Path("dags")]) as airflow:
        airflow.kill_component("worker-1")

Everything that :class:`~private_airflow.PrivateAirflow` can do, with faults for its parts besides.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from private_airflow import COMPONENTS, PrivateAirflow
from services import Postgres, Redis, ServiceError

WORKERS: Final = ("worker-1", "worker-2")
TRIGGERERS: Final = ("triggerer-1", "triggerer-2")
#: Tasks that one worker runs at a time.
CONCURRENCY: Final = 4

#: What every task of these tests imports.
WARM: Final = (
    "airflow.sdk.execution_time.task_runner",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.bundles.local",
    "airflow_provider_vidu.sensors",
    "airflow_provider_vidu.operators",
    "airflow_provider_vidu.hooks",
    "airflow_provider_vidu.api.sync_client",
    "airflow_provider_vidu.triggers",
)

#: How soon Airflow notices what has died. Its own values count in minutes; the order between them is kept.
NOTICED_SOON: Final = {
    # A dead worker's tasks: seconds without a heartbeat, and how often that is looked for (300 and 10).
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "25",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
    # Heartbeats that a task may miss while the API server restarts (3 of 5 seconds each).
    "WORKERS__MAX_FAILED_HEARTBEATS": "10",
    # A busy machine answers late (5).
    "WORKERS__EXECUTION_API_TIMEOUT": "30",
    # By default a task that starts while the API server is away for more than some ten seconds fails its try;
    # on a busy machine its restart takes a minute and more.
    "WORKERS__EXECUTION_API_RETRIES": "60",
    "WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    # What a dead worker had taken from the queue goes to another one (a day).
    "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
    # A dead or frozen triggerer's waits (30).
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    # A dead scheduler's runs and tasks (30 and 300).
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
}


def components() -> dict[str, Sequence[str]]:
    """Return the parts of the cluster with their command lines."""
    parts: dict[str, Sequence[str]] = {name: COMPONENTS[name] for name in ("api-server", "scheduler", "dag-processor")}
    for name in TRIGGERERS:
        parts[name] = COMPONENTS["triggerer"]
    for name in WORKERS:
        # Gossip and mingle only tell workers of each other, and slow their start down.
        quiet = ("--without-gossip", "--without-mingle", "--pid", f"{name}.pid")
        parts[name] = ("celery", "worker", "--celery-hostname", f"{name}@%h", "--concurrency", str(CONCURRENCY), *quiet)
    return parts


class AirflowCluster(PrivateAirflow):
    """Airflow on PostgreSQL and Celery, in a folder of its own.

    :param home: AIRFLOW_HOME; the services' folders lie beside it.
    :param dag_folders: folders whose DAGs it runs.
    :param settings: further settings as ``{"SECTION__NAME": value}``.
    """

    def __init__(self, home: Path, dag_folders: Sequence[Path], *, settings: Mapping[str, str] | None = None) -> None:
        self.database = Postgres(home.parent / "database")
        self.broker = Redis(home.parent / "broker")
        self._services = ExitStack()
        super().__init__(home, dag_folders, settings={**NOTICED_SOON, **(settings or {})}, components=components())

    def __enter__(self) -> Self:
        missing = [name for name in ("celery", "redis", "psycopg2", "asyncpg") if find_spec(name) is None]
        if missing:
            raise ServiceError(f"{', '.join(missing)} must be installed for this: `make setup-faults` does it.")
        with ExitStack() as services:
            services.enter_context(self.database)
            services.enter_context(self.broker)
            super().__enter__()
            self._services = services.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._services:
            super().__exit__(kind, error, trace)

    def freeze_component(self, name: str) -> None:
        """Stop a component in its tracks (SIGSTOP), as a paused machine would."""
        self.components[name].signal(signal.SIGSTOP)

    def thaw_component(self, name: str) -> None:
        """Let a frozen component go on (SIGCONT)."""
        self.components[name].signal(signal.SIGCONT)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return what a query finds in the metadata database.

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
            # One reserved task at most waits behind a worker's running ones, should that worker die.
            "CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
            # Every task is a fork of its worker: what the worker has imported, two hundred tasks need not.
            "CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": WARM}),
        }
