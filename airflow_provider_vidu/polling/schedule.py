"""When to poll next while all goes well: a pure function of the state, the progress and the age.

The adaptive schedule is the default; a user who sets an interval gets that interval. It is sparse where an
end is unlikely (in a queue, in the first seconds) and dense where most generations end, follows a progress
that moves, and otherwise lets the interval grow with the age, so that a result is late by a small part of the
time it took. ``benchmarks/schedule.py`` measures it against fixed intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from airflow_provider_vidu.models import GenerationStatus

SHORTEST: Final = 5.0
LONGEST: Final = 300.0
"""Seconds between two polls of the adaptive schedule, at least and at most, before the jitter."""

QUEUED_SHARE: Final = 1 / 40
QUEUED_SHORTEST: Final = 30.0
QUEUED_LONGEST: Final = 240.0
"""In a queue: this share of the age. A generation that has just left it needs its minutes all the same."""

EARLY: Final = ((20.0, 25.0), (60.0, 20.0), (240.0, 11.0))
"""Up to so many seconds of running: ask at this interval. Few clips are done in the first minute, most in
the next three."""
RUNNING_SHORTEST: Final = 12.0
RUNNING_SHARE: Final = 1 / 25
"""After that: this share of the time it has been running."""

PROGRESS_SHARE: Final = 0.8
"""The part of the extrapolated rest after which to look again: progress is seldom even."""
JITTER: Final = 0.1


@dataclass(frozen=True, slots=True)
class PollHistory:
    """What the answers of a wait have reported so far; all times are seconds since the wait began.

    :param age: when the last answer came.
    :param queued_at: when an answer last said "waiting"; None when none did.
    :param started: when it began to run, as far as known: between the last "waiting" and the next answer,
        or with the wait itself.
    :param progress: the last progress, and ``progress_at`` when it was first seen.
    :param rate: percent per second between the last two different progresses.
    """

    age: float = 0.0
    queued_at: float | None = None
    started: float | None = None
    progress: int | None = None
    progress_at: float = 0.0
    rate: float | None = None

    def after(self, status: GenerationStatus, progress: int | None, age: float) -> PollHistory:
        """Return the history with one more answer."""
        if status is GenerationStatus.WAITING:
            return PollHistory(age=age, queued_at=age)
        started = self.started
        if started is None:
            started = 0.0 if self.queued_at is None else (self.queued_at + age) / 2
        known = replace(self, age=age, started=started)
        if progress is None or progress == self.progress:
            return known
        rate = None
        if self.progress is not None and progress > self.progress and age > self.progress_at:
            rate = (progress - self.progress) / (age - self.progress_at)
        return replace(known, progress=progress, progress_at=age, rate=rate)


BEGINNING: Final = PollHistory()


def first_interval() -> float:
    """Return the seconds before the first poll, when nothing is known."""
    return EARLY[0][1]


def interval(history: PollHistory) -> float:
    """Return the seconds from the last answer of ``history`` to the next poll, before the jitter."""
    if history.started is None:
        return min(max(history.age * QUEUED_SHARE, QUEUED_SHORTEST), QUEUED_LONGEST)
    running = max(history.age - history.started, 0.0)
    usual = next((pause for until, pause in EARLY if running < until), max(running * RUNNING_SHARE, RUNNING_SHORTEST))
    usual = min(usual, LONGEST)
    rest = _rest(history)
    # Progress may stretch the usual interval, or shorten it down to the least, and no more than that.
    return usual if rest is None else min(max(rest * PROGRESS_SHARE, SHORTEST), 3 * usual, LONGEST)


def _rest(history: PollHistory) -> float | None:
    """Return the seconds until 100 % at the rate seen; None where nothing moves or all should be over."""
    if history.progress is None or history.rate is None or not 0 < history.progress < 100:
        return None
    rest = (100 - history.progress) / history.rate - (history.age - history.progress_at)
    return rest if rest > 0 else None


def spread(seconds: float, rng: Callable[[], float]) -> float:
    """Return an interval with jitter: up to a tenth more or less, so that waits fall out of step."""
    return seconds * (1 - JITTER + 2 * JITTER * rng())
