"""What the tasks of this provider need, for a Celery worker to import before it forks: see the page *Scaling*.

Operators load most of it only when a task runs, so that DAG files stay cheap; each fork would load it again.
"""

from __future__ import annotations

from airflow_provider_vidu import hooks, triggers
from airflow_provider_vidu.api.clients import sync_client
from airflow_provider_vidu.downloads import transfer
from airflow_provider_vidu.operators import download, generate, generate_leg, task_request
from airflow_provider_vidu.stores import targets

__all__ = [
    "download",
    "generate",
    "generate_leg",
    "hooks",
    "sync_client",
    "targets",
    "task_request",
    "transfer",
    "triggers",
]
