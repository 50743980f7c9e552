"""What a clear of a task in a task loop (Airflow 3.4) does to the loop's other iterations. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from airflow_provider_vidu.ui.clips.facts import TaskFacts

LATER_ITERATIONS: Final = (
    "A clear in Airflow's dialog also clears the loop's later iterations, unless you deselect “Later iterations”: they "
    "pay again for what they submit."
)
"""Of any task, even a download: the dialog selects its downstream tasks, and with them what decides on the next
iteration."""


def later_iterations(tasks: Iterable[TaskFacts]) -> str:
    """Return what a clear of one of these tasks costs beside it; empty outside loops."""
    return LATER_ITERATIONS if any(task.region_id is not None for task in tasks) else ""
