"""What the page of a task shows that waits before its create, and has no generation yet. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow_provider_vidu.ui.clips.facts import TaskFacts
from airflow_provider_vidu.ui.clips.times import iso


def slot_view(task: TaskFacts, place: Any, now: datetime) -> dict[str, Any]:
    """Return what differs from the page of a clip; nothing for a task that does not wait so.

    :param task: the task instance.
    :param place: its :class:`.QueuePlace`; None once it has its turn.
    """
    if task.waiting_since is None:
        return {}
    known = {
        "since": iso(task.waiting_since),
        "for_prices": task.waits_for_prices,
        "has_triggerer": task.has_triggerer(now),
        "is_queued": place is not None,
        "in_worker": task.state == "running",
        "place": place and place.place,
        "length": place and place.length,
        "deadline": iso(place.deadline) if place else None,
    }
    # Nothing was submitted: there is no step to show, nothing to poll, and nothing to ask support about.
    return {"slot": known, "timeline": [], "outlook": None, "support": ""}
