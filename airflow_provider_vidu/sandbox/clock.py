"""The sandbox's own time: starts at the wall clock, may run faster, and may jump ahead."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Sandbox time in epoch seconds.

    ``source`` is a monotonic clock in real seconds (a test passes its own), ``start`` the sandbox time at the
    beginning, ``speed`` the sandbox seconds that pass per real second (0 stands still). Reading and changing
    it from several threads is safe: the three numbers are swapped as one tuple.
    """

    def __init__(
        self, speed: float = 1.0, *, source: Callable[[], float] = time.monotonic, start: float | None = None
    ) -> None:
        self._source = source
        self._state = (source(), time.time() if start is None else start, _checked(speed, "speed"))

    @property
    def speed(self) -> float:
        """Sandbox seconds per real second."""
        return self._state[2]

    def now(self) -> float:
        """Return the sandbox time in epoch seconds."""
        since, base, speed = self._state
        return base + (self._source() - since) * speed

    def set_speed(self, speed: float) -> None:
        """Run ``speed`` times as fast as the wall clock from now on; ValueError below 0."""
        self._state = (self._source(), self.now(), _checked(speed, "speed"))

    def advance(self, seconds: float) -> None:
        """Jump ahead by ``seconds`` of sandbox time; ValueError below 0, since time never runs back."""
        self._state = (self._source(), self.now() + _checked(seconds, "seconds"), self.speed)


def _checked(value: float, name: str) -> float:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of 0 or more, not {value!r}")
    return float(value)
