"""What it costs to clear a task of a clip, and, in a task loop (Airflow 3.4), the loop's later iterations. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from airflow_provider_vidu.common.values import mapping, number
from airflow_provider_vidu.ui.clips.facts import Clip, TaskFacts
from airflow_provider_vidu.ui.clips.xcoms import BESIDE, HOOK

LATER_ITERATIONS: Final = (
    "A clear in Airflow's dialog also clears the loop's later iterations, unless you deselect “Later iterations”: they "
    "pay again for what they submit."
)
"""Of any task, even a download: the dialog selects its downstream tasks, and with them what decides on the next
iteration."""


def fetched(task: TaskFacts) -> str:
    """Return what a download fetches: the clip, or one of the files beside it, with which no clip is stored."""
    artifact = task.note.get("artifact")
    return artifact if task.role == "download" and isinstance(artifact, str) and artifact in BESIDE else "clip"


def cost_of_clear(clip: Clip, failed: TaskFacts | None = None) -> str:
    """Say what clearing costs.

    :param failed: the task that would be cleared, where its generation is fine; None where the generation failed.
    """
    return f"{_price_of_clear(clip, failed)} {later_iterations(clip.tasks)}".strip()


def _price_of_clear(clip: Clip, failed: TaskFacts | None) -> str:
    paying, reusing = clip.paying, clip.reusing if failed is None else failed
    for task in (failed, paying or reusing):
        if task is not None and task.state == "removed":
            return f"The task {name_of(task)} is not in the DAG any more, so clearing it submits nothing."
    # No try uses a generation above the cap, whatever the task's on_clear.
    unless = ' unless it has on_clear="resume"' if failed is not None and exceeded(clip) is None else ""
    if reusing is not None and reusing.is_reuse and (failed is not None or paying is None):
        return f"Clearing {name_of(reusing)} submits a generation of its own and pays for it{unless}."
    if failed is not None and failed.role == "wait":
        return f"Clearing {name_of(failed)} costs nothing: it only waits."
    if paying is None:
        return "No task of this run submitted it, so clearing a task here submits nothing."
    if is_by_hook(paying):
        return f"Clearing {name_of(paying)} runs its own code again, which decides what it submits and pays for."
    price = "" if clip.credits is None else f" (the price of this one: {credits_text(clip.credits)})"
    new = f"Clearing {name_of(paying)} submits a new generation and pays for it{price}{unless}."
    also = reusing is not None and reusing.is_reuse and reusing is not paying and reusing.state == "failed"
    return f"{new} Clearing {name_of(reusing)} submits one of its own, and pays for that." if also and reusing else new


def exceeded(clip: Clip) -> float | None:
    """Return the ``max_credits`` of the task that submitted a clip, if the price is higher."""
    cap = number(mapping(clip.paying.fields).get("max_credits")) if clip.paying is not None else None
    return cap if cap is not None and clip.credits is not None and clip.credits > cap else None


def later_iterations(tasks: Iterable[TaskFacts]) -> str:
    """Return what a clear of one of these tasks costs beside it; empty outside loops."""
    return LATER_ITERATIONS if any(task.region_id is not None for task in tasks) else ""


def is_by_hook(task: TaskFacts) -> bool:
    """Whether its author's own code submits, with the hook."""
    return task.note.get("by") == HOOK


def name_of(task: TaskFacts) -> str:
    """Return a task's name as the pages write it."""
    name = task.task_id if task.region_id is None else f"{task.task_id} · iteration {task.iteration}"
    return f"{name} [{task.map_index}]" if task.map_index >= 0 else name


def credits_text(count: float) -> str:
    """Return a number of credits in words."""
    return f"{count:g} credit{'' if count == 1 else 's'}"
