"""What tells the clips of a run apart on its contact sheet: prompt, parameters, label, cost, time and size. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import mapping, text, whole
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.ui.clips.facts import Clip
from airflow_provider_vidu.ui.clips.xcoms import MAX_PARAMETER_CHARS, prompt_start

ORDERS: Final = ("scene", "newest", "cost", "state", "label")
"""The orders of a sheet: as the DAG runs, the newest first, the most expensive first, what failed first, by label."""
STAGES: Final = ("working", "submitted", "ready", "stored", "failed")
DIGITS: Final = "0123456789"
STAGE_RANK: Final[Mapping[str, int]] = {"failed": 0, "working": 1, "submitted": 2, "ready": 3, "stored": 4}


def card_facts(clip: Clip, generation: Generation | None) -> dict[str, Any]:
    """Return what only the card shows, as plain JSON.

    :param clip: the clip.
    :param generation: what is known of it, or None.
    """
    files = [record for record in clip.records if not record.is_cover and not record.lost]
    return {
        "number": clip.main.number,
        "label": redacted(clip.main.label, 250) if clip.main.label else None,
        "prompt": prompt_start(prompt_of(clip, generation)),
        "parameters": parameters_of(clip),
        "credits": _cost_of(clip, generation),
        "size": files[0].size if files else None,
        **_times(clip, generation),
    }


def prompt_of(clip: Clip, generation: Generation | None) -> str | None:
    """Return the prompt of the generation, or as the task that submits it had it rendered."""
    return (generation and generation.prompt) or _rendered(clip, "prompt")


def model_of(clip: Clip, generation: Generation | None) -> str | None:
    """Return the model as the service names it, or as the task that submits it had it rendered."""
    return (generation and generation.model) or _rendered(clip, "model")


def _rendered(clip: Clip, name: str) -> str | None:
    return next((found for task in clip.tasks if (found := text(mapping(task.fields).get(name)))), None)


def parameters_of(clip: Clip) -> dict[str, Any]:
    """Return the parameters of a clip's request, with the seed that the service chose; text is redacted."""
    fields = (mapping(task.fields) for task in clip.tasks)
    known = next((mapping(each.get("parameters")) for each in fields if each.get("parameters")), {})
    seeds = (whole(task.note.get("seed")) for task in clip.tasks)
    seed = next((found for found in seeds if found), None)
    found = {
        **({"seed": seed} if seed else {}),
        **{name: value for name, value in known.items() if (name, value) != ("seed", 0)},
    }
    return {
        redacted(name, MAX_PARAMETER_CHARS): redacted(value, MAX_PARAMETER_CHARS) if isinstance(value, str) else value
        for name, value in found.items()
    }


def _cost_of(clip: Clip, generation: Generation | None) -> int | float | None:
    if clip.is_dry_run or (clip.reusing is not None and clip.paying is None):
        return None  # the result names what an earlier run, or an equal order, has paid
    return generation.credits if generation and generation.credits is not None else clip.credits


def _times(clip: Clip, generation: Generation | None) -> dict[str, Any]:
    """Return when the clip was submitted, and the seconds until it was stored, or else made; None if not known."""
    began = (generation and generation.created_at) or clip.created_at
    stored = [record.stored_at for record in clip.records if not record.is_cover and record.stored_at]
    made = (generation.completed_at or generation.updated_at) if generation and generation.is_done else None
    ended = min(stored, default=made)
    seconds = (ended - began).total_seconds() if began and ended and ended >= began else None  # clocks may differ
    at: datetime | None = began or clip.main.announced_at
    return {"began_at": at.isoformat() if at else None, "seconds": None if seconds is None else round(seconds, 1)}


def in_order(clips: Iterable[Clip], order: str) -> list[Clip]:
    """Return the clips of a run in an order of the sheet, where the database cannot do so.

    :param clips: in the order ``scene``.
    :param order: one of :data:`ORDERS`.
    """
    return sorted(clips, key=_SORTED_BY[order])


def _newest(clip: Clip) -> Sequence[Any]:
    return (-(clip.main.announced_at.timestamp() if clip.main.announced_at else float("inf")),)


def _cost(clip: Clip) -> Sequence[Any]:
    known = clip.credits
    return (known is None, -(known or 0))


def _label(clip: Clip) -> Sequence[Any]:
    label = text(clip.main.label)
    return (label is None, *label_key(label or ""))


def label_key(label: str) -> Sequence[Any]:
    """Return what a label is sorted by: a number at its beginning or its end counts as one, so 2 comes before 10."""
    digits = len(label) - len(label.lstrip(DIGITS))
    return (digits == 0, digits, label.rstrip(DIGITS), len(label), label)


_SORTED_BY: Final[Mapping[str, Callable[[Clip], Any]]] = {
    "scene": lambda clip: 0,
    "newest": _newest,
    "cost": _cost,
    "state": lambda clip: STAGE_RANK[clip.stage],
    "label": _label,
}
