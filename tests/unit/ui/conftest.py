"""The pages without a database."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(autouse=True)
def runs_go_on(monkeypatch):
    """Let no run be halted: that is looked up in Airflow's database."""
    if importlib.util.find_spec("fastapi"):  # Airflow 2 has no pages
        monkeypatch.setattr("airflow_provider_vidu.ui.page_queries.why_halted", lambda *names: None)
