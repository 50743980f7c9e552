"""The official API's limit of concurrent generations: further ones wait in ``queueing``.

Nothing runs in the background: the extra wait of a generation (``Generation.held``) is computed when it is created, and
again when a cancel lets others move up.
"""

from __future__ import annotations

import heapq

from airflow_provider_vidu.sandbox.world.generations import Generation


class Slots:
    """At most ``limit`` generations run at once (None: no limit); the first to be ready starts first."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._open: list[Generation] = []
        self._free: list[float] = []
        self._last_ready = 0.0

    def admit(self, generation: Generation, now: float) -> list[Generation]:
        """Schedule a new generation; return the generations with a changed start."""
        if self._limit is None:
            return []
        self._open.append(generation)
        if not self._free or generation.ready_at < self._last_ready:
            return self._plan(now)
        self._place(generation)
        return [generation]

    def cancelled(self, now: float) -> list[Generation]:
        """Let others move up after a cancel; return the generations with a changed start."""
        return [] if self._limit is None else self._plan(now)

    def unfinished(self, now: float) -> int:
        """Return the number of admitted generations that wait or run."""
        self._forget(now)
        return len(self._open)

    def _forget(self, now: float) -> None:
        self._open = [one for one in self._open if one.cancelled_at is None and one.ends_at > now]

    def _plan(self, now: float) -> list[Generation]:
        assert self._limit is not None
        self._forget(now)
        before = {id(one): one.held for one in self._open}
        running = [one for one in self._open if one.starts_at <= now]
        waiting = [one for one in self._open if one.starts_at > now]
        busy = sorted(one.ends_at for one in running)[-self._limit :]
        self._free = busy + [now] * (self._limit - len(busy))
        heapq.heapify(self._free)
        self._last_ready = 0.0
        for one in sorted(waiting, key=lambda one: one.ready_at):
            self._place(one)
        return [one for one in self._open if one.held != before[id(one)]]

    def _place(self, generation: Generation) -> None:
        start = max(generation.ready_at, heapq.heappop(self._free))
        generation.held = start - generation.ready_at
        heapq.heappush(self._free, generation.ends_at)
        self._last_ready = generation.ready_at
