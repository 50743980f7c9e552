"""What earlier versions have stored still runs: after an upgrade no wait is lost."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vidu.events import read_event
from airflow_provider_vidu.triggers import ViduGenerationTrigger

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_first_wait", "quick_backoff")]

STORED = sorted((Path(__file__).parent.parent / "fixtures" / "stored").glob("*.json"))
pinned = pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    """Return a pinned row with its event."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


@pinned
async def test_a_stored_row_still_runs(path, dialect, sandbox):
    """The triggerer makes a trigger of an old row; it polls to the end and fires an event that is understood."""
    row = load(path)
    module, _, name = row["classpath"].rpartition(".")
    generation_id = row["kwargs"]["generation_id"]
    sandbox.add_generation(
        generation_id, dialect=dialect, states=[["success" if dialect == "ent-v2" else "completed", 0]]
    )
    # The deadline alone is today's: the last poll comes at it, so that the test need not wait.
    trigger = getattr(importlib.import_module(module), name)(**{**row["kwargs"], "deadline": time.time() + 0.1})
    (event,) = [event.payload async for event in trigger.run()]
    assert read_event(json.loads(json.dumps(event)), generation_id) is None


@pinned
def test_an_event_of_an_older_triggerer_is_understood(path):
    """A worker that is newer than the triggerer reads the event that the older one has fired."""
    row = load(path)
    assert read_event(row["event"], row["kwargs"]["generation_id"]) is None


def test_todays_row_is_pinned():
    """A change of what is stored needs a new file: the newest pinned row has today's fields."""
    _, kwargs = ViduGenerationTrigger(generation_id="1").serialize()
    assert any(load(path)["kwargs"].keys() == kwargs.keys() for path in STORED)
