"""What the integration tests share: a sandbox on a real socket and an Airflow connection to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_vidu.sandbox import Sandbox

KEY = "sk-integration-4f1c9a"


@pytest.fixture
def sandbox(request) -> Iterator[Sandbox]:
    """Run a sandbox: a generation ends within a fifth of a second; the marker vidu_sandbox changes its settings.

    Most tests name models of their own, and lost creates are looked up by their payload.
    """
    marker = request.node.get_closest_marker("vidu_sandbox")
    settings = {"models": "any", "list_payload": True, **(marker.kwargs if marker is not None else {})}
    with Sandbox(keys=[KEY], speed=250, queue=25, duration=15, **settings) as running:
        yield running


@pytest.fixture
def connect(sandbox, monkeypatch) -> Callable[..., str]:
    """Put a connection to the sandbox into the environment; return its id."""

    def connect(dialect: str = "vidu-native", conn_id: str = "vidu_default", **extra: Any) -> str:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", sandbox.connection_json(dialect, **extra))
        return conn_id

    return connect


@pytest.fixture(params=["vidu-native", "ent-v2"])
def dialect(request, connect) -> str:
    """Each dialect in turn, with the default connection speaking it."""
    connect(request.param, max_retries=2, timeout=2)
    return request.param
