"""The sandbox's time: starts at the wall clock, may run faster, and may jump ahead."""

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

    ``source`` is a monotonic clock in real seconds, ``start`` the initial sandbox time, ``speed`` the sandbox seconds
    per real second (0 stops the clock). It is thread-safe: the stretches are swapped as one tuple.
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
        """Return the wall-clock time of the sandbox time ``moment``, both in epoch seconds.

        A moment inside a jump maps to the time of the jump. Moments before the sandbox's start keep their distance to
        it; future ones are placed by the current speed.
        """
        stretches = self._stretches
        index = bisect_right(stretches, moment, key=lambda stretch: stretch.sandbox) - 1
        if index < 0:
            return self._start_wall - (stretches[0].sandbox - moment)
        # While the clock is stopped, several stretches begin at the same sandbox time: the first one counts.
        while index and stretches[index - 1].sandbox == moment:
            index -= 1
        begin, passed = stretches[index], moment - stretches[index].sandbox
        real = begin.real + passed / begin.speed if begin.speed else begin.real
        if passed and index + 1 < len(stretches):
            # A moment inside a jump maps to the time of the jump.
            jump = stretches[index + 1].real
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
