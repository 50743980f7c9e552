"""The adaptive schedule: when to poll next, computed from the state, the progress and the age of a generation.

It is the default if no interval is set. It polls rarely where an end is unlikely (in a queue, in the first seconds) and
often where most generations end, follows a moving progress, and otherwise lets the interval grow with the age, so that
a result is noticed after a small fraction of the time it took. ``benchmarks/schedule.py`` compares it with fixed
intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from airflow_provider_vidu.models import GenerationStatus

SHORTEST: Final = 5.0
LONGEST: Final = 300.0
"""Bounds of the interval between two polls, in seconds, before jitter."""

QUEUED_SHARE: Final = 1 / 40
QUEUED_SHORTEST: Final = 30.0
QUEUED_LONGEST: Final = 240.0
"""In a queue: this share of the age, within these bounds. A generation that leaves it still runs for minutes."""

EARLY: Final = ((20.0, 25.0), (60.0, 20.0), (240.0, 11.0))
"""(seconds of running, interval until then): few clips finish in the first minute, most in the next three."""
RUNNING_SHORTEST: Final = 12.0
RUNNING_SHARE: Final = 1 / 25
"""After that: this share of the running time, with this minimum."""

NET_SHORTEST: Final = 300.0
NET_SHARE: Final = 1 / 2
NET_LONGEST: Final = 1800.0
"""While the service reports ends by callbacks: this share of the age, within these bounds; the shortest is also the
first delay, once callbacks have arrived. A lost callback is noticed after half of the time that the generation took,
five minutes at least, and at most half an hour late."""

PROGRESS_SHARE: Final = 0.8
"""The share of the extrapolated remaining time to wait: progress is seldom linear."""
JITTER: Final = 0.1


class PollHistory(NamedTuple):
    """A summary of the answers of a wait; all times are seconds since the wait began.

    :param age: the time of the last answer.
    :param queued_at: the time of the last answer with "waiting", or None.
    :param started: the estimated start of running: between the last "waiting" and the next answer, or 0.
    :param progress: the last progress, first reported at ``progress_at``.
    :param rate: percent per second between the last two different progress values.
    """

    age: float = 0.0
    queued_at: float | None = None
    started: float | None = None
    progress: int | None = None
    progress_at: float = 0.0
    rate: float | None = None

    def after(self, status: GenerationStatus, progress: int | None, age: float) -> PollHistory:
        """Return this history extended by one answer."""
        if status is GenerationStatus.WAITING:
            return PollHistory(age=age, queued_at=age)
        started = self.started
        if started is None:
            started = 0.0 if self.queued_at is None else (self.queued_at + age) / 2
        if progress is None or progress == self.progress:
            return PollHistory(age, self.queued_at, started, self.progress, self.progress_at, self.rate)
        rate = None
        if self.progress is not None and progress > self.progress and age > self.progress_at:
            rate = (progress - self.progress) / (age - self.progress_at)
        return PollHistory(age, self.queued_at, started, progress, age, rate)


BEGINNING: Final = PollHistory()


def first_interval() -> float:
    """Return the seconds before the first poll."""
    return EARLY[0][1]


def adaptive_interval(history: PollHistory) -> float:
    """Return the seconds from the last answer of ``history`` to the next poll, before jitter."""
    if history.started is None:
        return min(max(history.age * QUEUED_SHARE, QUEUED_SHORTEST), QUEUED_LONGEST)
    running = max(history.age - history.started, 0.0)
    usual = next((pause for until, pause in EARLY if running < until), max(running * RUNNING_SHARE, RUNNING_SHORTEST))
    usual = min(usual, LONGEST)
    rest = _rest(history)
    # Progress may stretch the usual interval threefold at most, or shorten it to the minimum.
    return usual if rest is None else min(max(rest * PROGRESS_SHARE, SHORTEST), 3 * usual, LONGEST)


def _rest(history: PollHistory) -> float | None:
    """Return the seconds until 100 % at the observed rate; None if there is no rate or that time has passed."""
    if history.progress is None or history.rate is None or not 0 < history.progress < 100:
        return None
    rest = (100 - history.progress) / history.rate - (history.age - history.progress_at)
    return rest if rest > 0 else None


def net_interval(age: float) -> float:
    """Return the seconds to the next poll of a wait whose end a callback reports, before jitter.

    :param age: seconds since the wait began.
    """
    return min(max(age * NET_SHARE, NET_SHORTEST), NET_LONGEST)


def spread(seconds: float, rng: Callable[[], float]) -> float:
    """Return an interval with jitter of up to a tenth, so that concurrent waits spread out."""
    return seconds * (1 - JITTER + 2 * JITTER * rng())
