"""Telling a kill from a hand-over."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_vidu import guard
from airflow_provider_vidu.exceptions import ViduError

TI = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)


@pytest.mark.parametrize(
    ("state", "is_mine", "goes_on"),
    [
        ("deferred", True, True),
        ("deferred", False, False),
        ("failed", True, False),
        ("success", True, False),
        ("running", False, False),
        ("running", True, None),
        ("queued", True, None),
        (None, True, None),
        (None, False, False),
    ],
)
def test_verdict(state, is_mine, goes_on):
    """Deferred for this generation goes on; ended, or busy with another, does not; the rest shows later."""
    assert guard.verdict(state, is_mine) is goes_on


def looks(monkeypatch, *seen):
    """Let the task instance look like each of ``seen`` in turn, the last one for ever."""
    script = list(seen)

    def look(_ti):
        found = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(guard, "_look", look)


async def test_a_clear_shows_when_the_new_try_has_begun(monkeypatch):
    """Queued, the cleared task still shows the old id; running its new try, it does not."""
    looks(monkeypatch, (None, "g"), ("queued", "g"), ("running", None))
    assert await guard.is_handed_over(TI, "g", pause=0) is False


async def test_an_outage_is_sat_out(monkeypatch):
    """An API server that is away for a moment does not decide over a generation."""
    looks(monkeypatch, OSError("away"), ("deferred", "g"))
    assert await guard.is_handed_over(TI, "g", pause=0) is True


async def test_nothing_is_cancelled_blindly(monkeypatch):
    """Where the task instance cannot be asked at all, the generation is left alone."""
    looks(monkeypatch, OSError("away"))
    with pytest.raises(ViduError, match="nothing is cancelled"):
        await guard.is_handed_over(TI, "g", pause=0)


async def test_a_resumed_try_keeps_its_generation(monkeypatch):
    """A task that was resumed meanwhile is still at work on the same generation."""
    looks(monkeypatch, ("running", "g"))
    assert await guard.is_handed_over(TI, "g", pause=0) is True
