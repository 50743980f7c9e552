"""The page of a task that waits for a slot: place, timeout and state, and nothing of a clip that is not there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.clips import views
from airflow_provider_vidu.ui.clips.facts import Clip, TaskFacts
from airflow_provider_vidu.ui.clips.service import NOT_ASKED
from airflow_provider_vidu.ui.clips.xcoms import note_in
from airflow_provider_vidu.ui.records.slot_waits import QueuePlace

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
NOTE = note_in({"conn_id": "c", "role": "generate", "waiting_since": NOW.timestamp()})
WAITING = TaskFacts("d", "r", "t", -1, None, state="deferred", watch=NOTE, deferred_at=NOW, attended_at=NOW)


def test_a_waiting_task():
    """It has a state of its own, is in progress, and says nothing of an id that could not be read."""
    card = views.card_view(Clip(None, [WAITING]), NOT_ASKED, stored={}, now=NOW)
    assert (card["state"], card["stage"], card["notice"], card["began_at"]) == ("slot", "working", None, None)
    view = views.slot_view(WAITING, QueuePlace(NOW, 7, 31), NOW)
    assert view["slot"] == {
        "since": NOW.isoformat(), "for_prices": False, "has_triggerer": True, "is_queued": True, "in_worker": False,
        "place": 7, "length": 31, "deadline": NOW.isoformat(),
    }  # fmt: skip


def test_a_wait_for_prices():
    """It is not one for a slot: neither the account nor its connection limits the task."""
    task = replace(WAITING, watch=note_in({**NOTE, "for_prices": True}))
    assert views.slot_view(task, QueuePlace(NOW, 7, 31), NOW)["slot"]["for_prices"] is True
    assert views.card_view(Clip(None, [task]), NOT_ASKED, stored={}, now=NOW)["state"] == "prices"
    assert replace(task, generation_id="g-1").waits_for_prices is False


def test_a_turn_and_a_long_queue():
    """Without a place it has its turn; of a queue that is too long only the length is shown."""
    assert views.slot_view(WAITING, None, NOW)["slot"]["is_queued"] is False
    told = views.slot_view(WAITING, QueuePlace(None, None, 2000), NOW)["slot"]
    assert (told["is_queued"], told["place"], told["length"], told["deadline"]) == (True, None, 2000, None)


def test_a_clip_is_none():
    """A task that has submitted is a clip, whatever an older note says."""
    assert views.slot_view(TaskFacts("d", "r", "t", -1, "g-1", watch=NOTE), None, NOW) == {}
