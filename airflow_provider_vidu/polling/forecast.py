"""When a running generation will probably end, and how long before that a waiting task has to be woken. No I/O.

A woken task needs some seconds until it can submit: its event is stored, the scheduler queues it, a worker starts. On
an account with short clips these seconds are a quarter of its time. So the next task is woken while the generation
still runs, early enough to start at its end. The task itself checks that the generation has ended before it submits
(:meth:`..tasks.slots.slot_wait.SlotWait.before_create`), so a wrong forecast costs a task start, never a refused
create.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_provider_vidu.models import Generation

REMEMBERED: Final = 9
"""How many of the last generations, and of the last task starts, a forecast is made from."""
USUAL_START_SECONDS: Final = 3.0
"""From a wake-up to the create, until some were measured."""
LONGEST_START_SECONDS: Final = 30.0
AFTER_CREATE_SECONDS: Final = 1.0
"""What a measured start holds beyond the create's moment: the worker publishes the id and defers. It is more than that
takes, so that starts that had to wait for their slot shorten the next ones."""
EARLY_PENALTY_SECONDS: Final = 2.0
IN_TIME_REWARD_SECONDS: Final = 0.5
"""How far one wake-up that was too early moves the next ones, and how far one that was not moves them back: in the
balance, one in five is too early, however much the durations vary."""

WELL_KNOWN_SECONDS: Final = 7.0
"""The longest interval between two polls within which an end is known well."""


def moment_of_end(generation: Generation, polled_at: float | None, seen_at: float) -> float | None:
    """Return when a generation has succeeded, in epoch seconds; None if that is not known well.

    :param polled_at: the time of the last poll that saw it run, if there was one.
    :param seen_at: the time of the poll that saw its end.
    """
    reported = None if generation.completed_at is None else generation.completed_at.timestamp()
    # The service's clock may differ from ours.
    if reported is not None and polled_at is not None and polled_at <= reported <= seen_at:
        return reported
    if polled_at is None or seen_at - polled_at > WELL_KNOWN_SECONDS:
        return None
    return (polled_at + seen_at) / 2


class Forecast:
    """What is known about the pace of one connection. All times are in seconds."""

    def __init__(self) -> None:
        self._durations: deque[float] = deque(maxlen=REMEMBERED)
        self._starts: deque[float] = deque(maxlen=REMEMBERED)
        self._margin = 0.0

    def lasted(self, seconds: float) -> None:
        """Note how long a generation took that has succeeded."""
        if seconds > 0:
            self._durations.append(seconds)

    def started(self, seconds: float) -> None:
        """Note how long after its wake-up a task began to wait for its generation."""
        self._starts.append(min(max(seconds, 0.0), LONGEST_START_SECONDS))

    def was_early(self) -> None:
        """Note that a woken task found its slot still in use, and went back to the queue."""
        self._margin = min(self._margin + EARLY_PENALTY_SECONDS, max(self._durations, default=0.0))

    def was_in_time(self) -> None:
        """Note that a task that was woken before the end has submitted."""
        self._margin = max(self._margin - IN_TIME_REWARD_SECONDS, 0.0)

    @property
    def is_blank(self) -> bool:
        """Whether no generation has ended yet, so that nothing can be expected."""
        return not self._durations

    @property
    def lead(self) -> float:
        """How long before the expected end a task has to be woken."""
        return max(median(self._starts) - AFTER_CREATE_SECONDS, 0.0) if self._starts else USUAL_START_SECONDS

    @property
    def duration(self) -> float:
        """How long a generation will probably take; infinity if unknown."""
        return median(self._durations) + self._margin if self._durations else math.inf

    @property
    def wake_after(self) -> float:
        """How long after the submit of a generation the task has to be woken that takes its slot."""
        return max(self.duration - self.lead, 0.0)
