"""What the tests of batches share: legs that look often, and legs that stay no longer than they must."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.leg import run


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch) -> None:
    """Let a leg without anything to poll look again at once: with the sandbox's clock, two seconds are minutes."""
    monkeypatch.setattr(run, "LONGEST_PAUSE_SECONDS", 0.05)


@pytest.fixture
def short_stay(monkeypatch) -> None:
    """Let a leg defer as soon as it has nothing to do."""
    monkeypatch.setattr(plan, "STAY_SECONDS", 0.0)
    monkeypatch.setattr(plan, "stays", lambda *_, **__: False)
