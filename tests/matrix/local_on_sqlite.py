"""Airflow 2's LocalExecutor on SQLite, where it allows only the SequentialExecutor: one task after the other.

A writer waits a minute for another one (``scripts/sqlite_settings.py``), so tasks run beside each other here, each in a
process that is forked, as on most Airflows.
"""

from __future__ import annotations

from airflow.executors.local_executor import LocalExecutor


class LocalOnSQLite(LocalExecutor):
    """A LocalExecutor that passes Airflow's check of executor and database."""

    is_single_threaded = True
