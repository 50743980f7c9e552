"""The sandbox's own time: starts at the wall clock, may run faster, and may jump ahead."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple


class _Stretch(NamedTuple):
    """A span of constant speed: it begins at ``real`` on the monotonic source, at ``sandbox`` in sandbox time."""

    real: float
    sandbox: float
    speed: float


class Clock:
    """Sandbox time in epoch seconds.

    ``source`` is a monotonic clock in real seconds (a test passes its own), ``start`` the sandbox time at the
    beginning, ``speed`` the sandbox seconds that pass per real second (0 stands still). Reading and changing
    it from several threads is safe: the stretches are swapped as one tuple.
    """

    def __init__(
        self, speed: float = 1.0, *, source: Callable[[], float] = time.monotonic, start: float | None = None
    ) -> None:
        self._source = source
        self._start_wall = time.time() if start is None else start
        self._start_real = source()
        self._stretches: tuple[_Stretch, ...] = (
            _Stretch(self._start_real, self._start_wall, _checked(speed, "speed")),
        )

    @property
    def speed(self) -> float:
        """Sandbox seconds per real second."""
        return self._stretches[-1].speed

    def now(self) -> float:
        """Return the sandbox time in epoch seconds."""
        return self._at(self._source())

    def wall_now(self) -> float:
        """Return the wall-clock time in epoch seconds; it never runs back."""
        return self._wall(self._source())

    def wall_of(self, moment: float) -> float:
        """Return when the sandbox time ``moment`` was on the wall clock, both in epoch seconds.

        A moment inside a jump happened when the clock jumped. Moments before the sandbox's start keep their
        distance to it, and those to come are placed by the present speed.
        """
        stretches = self._stretches
        found = bisect_right(stretches, moment, key=lambda stretch: stretch.sandbox) - 1
        if found < 0:
            return self._start_wall - (stretches[0].sandbox - moment)
        # Where the clock stood still, several stretches begin at one sandbox time: it was reached in the first.
        while found and stretches[found - 1].sandbox == moment:
            found -= 1
        begin, passed = stretches[found], moment - stretches[found].sandbox
        real = begin.real + passed / begin.speed if begin.speed else begin.real
        if passed and found + 1 < len(stretches):
            # A moment that the clock jumped over happened when it jumped.
            jump = stretches[found + 1].real
            real = min(real, jump) if begin.speed else jump
        return self._wall(real)

    def set_speed(self, speed: float) -> None:
        """Run ``speed`` times as fast as the wall clock from now on; ValueError below 0."""
        self._change(0.0, _checked(speed, "speed"))

    def advance(self, seconds: float) -> None:
        """Jump ahead by ``seconds`` of sandbox time; ValueError below 0, since time never runs back."""
        self._change(_checked(seconds, "seconds"), self.speed)

    def _change(self, jump: float, speed: float) -> None:
        real = self._source()
        self._stretches = (*self._stretches, _Stretch(real, self._at(real) + jump, speed))

    def _at(self, real: float) -> float:
        begin = self._stretches[-1]
        return begin.sandbox + (real - begin.real) * begin.speed

    def _wall(self, real: float) -> float:
        return self._start_wall + (real - self._start_real)


def _checked(value: float, name: str) -> float:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of 0 or more, not {value!r}")
    return float(value)
