"""What the tests of batches share: a leg that looks often."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.batches.leg import run


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch) -> None:
    """Let a leg without anything to poll look again at once: with the sandbox's clock, two seconds are minutes."""
    monkeypatch.setattr(run, "LONGEST_PAUSE_SECONDS", 0.05)
