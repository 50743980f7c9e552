"""The pages without a database."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.ui import page_queries


@pytest.fixture(autouse=True)
def runs_go_on(monkeypatch):
    """Let no run be halted: that is looked up in Airflow's database."""
    monkeypatch.setattr(page_queries, "why_halted", lambda *names: None)
