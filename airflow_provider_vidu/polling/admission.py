"""Which waiting task may submit next, while an account is full. Every decision of a queue, without I/O or a clock.

An account runs a few generations at once and refuses the next create (HTTP 429, ``QuotaExceeded``, a gateway's full
queue). One :class:`Gate` per connection in each triggerer decides who may try again, and when:

* ``ent-v2`` reports its slots (``GET /credits``): the gate admits as many tasks as there are free slots;
* a gateway reports nothing: each generation that ends frees a slot, and beyond that the gate probes with one task,
  with twice as many after a success, and with half as many, later, after a refusal;
* the user's own limit (``max_in_flight``) holds in both cases.

Admitted tasks that have not submitted yet count as slots in use, so that no two tasks are woken for the same slot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

PROBE_SECONDS: Final = 15.0
"""Between a refusal and the next probe, doubled with each refused probe."""
LONGEST_PROBE_SECONDS: Final = 120.0
LARGEST_PROBE: Final = 16
LONGEST_HOLD_SECONDS: Final = 900.0
"""The most of a Retry-After: it is about one request, and here it holds all tasks of the connection."""
ADMITTED_SECONDS: Final = 120.0
"""After so long, an admitted task that shows no generation no longer holds a slot: it has failed."""
UNWATCHED_SECONDS: Final = 20.0
"""After so long without a refusal, a task that does not wait for its generation counts as one that has submitted."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """A task that waits for a slot.

    :param key: names the task instance.
    :param priority: higher goes first (Airflow's ``priority_weight``).
    :param since: when it began to wait, in epoch seconds; earlier goes first. Kept over refusals.
    :param ready_at: the earliest time at which Airflow may be given its event.
    :param refused_at: when the service refused its create; None if it has not sent one yet.
    :param retry_after: seconds that the refusal asked to wait.
    :param is_watched: whether the generation is watched from here once it is submitted.
    """

    key: str
    priority: int
    since: float
    ready_at: float
    refused_at: float | None = None
    retry_after: float | None = None
    is_watched: bool = True

    @property
    def turn(self) -> tuple[int, float, str]:
        """The place in the queue: by priority, then by age."""
        return -self.priority, self.since, self.key


@dataclass(slots=True)
class _Admitted:
    until: float
    is_probe: bool
    is_watched: bool
    submitted_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Report:
    free: int
    asked_at: float


class Gate:
    """Decides who goes next on one connection. All times are epoch seconds and are handed in.

    :param settled_at: when the generations that ran before the gate existed are counted: after a restart, their
        watches begin at the same time as those of the waiting tasks.
    """

    def __init__(self, settled_at: float = 0.0) -> None:
        self._settled_at = settled_at
        self.limit: int | None = None
        """The user's own limit (``max_in_flight``)."""
        self._waiting: dict[str, Waiter] = {}
        self._admitted: dict[str, _Admitted] = {}
        self._running: dict[str, int] = {}
        self._ends: list[float] = []
        self._report: _Report | None = None
        self._held_until = 0.0
        self._contradicted_until = 0.0
        self._probe_at = 0.0
        self._probe = 1
        self._pause = PROBE_SECONDS
        self._is_refused = False

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    def places(self) -> dict[str, int]:
        """Return the place of each waiting task in the queue, from 1."""
        ordered = sorted(self._waiting.values(), key=lambda waiter: waiter.turn)
        return {waiter.key: place for place, waiter in enumerate(ordered, 1)}

    def is_ready(self, now: float) -> bool:
        """Whether a waiting task could be admitted now if there is a slot."""
        return any(one.ready_at <= now for one in self._waiting.values())

    def join(self, waiter: Waiter, now: float) -> None:
        """Add a task to the queue; if it was refused, nothing more is tried for a while."""
        was_admitted = self._admitted.pop(waiter.key, None) is not None
        self._waiting[waiter.key] = waiter
        if waiter.refused_at is None:
            return
        refused_at = min(waiter.refused_at, now)  # the worker's clock may be ahead
        if waiter.retry_after is not None:
            self._held_until = max(self._held_until, refused_at + min(waiter.retry_after, LONGEST_HOLD_SECONDS))
        # The slots of what ended before the refusal were taken already.
        self._ends = [end for end in self._ends if end > refused_at]
        if was_admitted:
            self._is_refused = True
            self._probe = max(self._probe // 2, 1)
            self._probe_at = max(self._probe_at, now + self._pause)
            self._contradicted_until = self._probe_at
            self._pause = min(self._pause * 2, LONGEST_PROBE_SECONDS)
        else:
            self._probe_at = max(self._probe_at, refused_at + PROBE_SECONDS)

    def leave(self, key: str) -> None:
        """Take a task out of the queue: it was killed, or its time is up."""
        self._waiting.pop(key, None)

    @property
    def is_hurried(self) -> bool:
        """Whether the end of a generation is worth a poll: a task waits, and the service reports no slots."""
        return bool(self._waiting) and self._report is None

    @property
    def expects(self) -> bool:
        """Whether an admitted task has not shown its generation yet."""
        return bool(self._admitted)

    def submitted(self, generation_id: str, key: str | None, now: float) -> None:
        """Note that a generation is being watched, once for each watcher.

        :param generation_id: the generation.
        :param key: the task instance that watches it, if known.
        """
        self._running[generation_id] = self._running.get(generation_id, 0) + 1
        if key is not None and (admitted := self._admitted.get(key)) and admitted.submitted_at is None:
            self._succeeded(key, admitted, now)

    def ended(self, generation_id: str, now: float, *, is_over: bool) -> None:
        """Note that a watcher of a generation has stopped.

        :param is_over: whether the generation has ended, so that its slot is free; a triggerer that stops proves
            nothing.
        """
        watchers = self._running.get(generation_id)
        if watchers is None:
            return
        if is_over or watchers == 1:
            del self._running[generation_id]
        else:
            self._running[generation_id] = watchers - 1
        if is_over and self._waiting:
            self._ends.append(now)

    def reported(self, limit: int, in_use: int, asked_at: float) -> None:
        """Note how many slots the service reports.

        :param limit: how many generations run at once.
        :param in_use: how many run or wait.
        :param asked_at: when the question was sent: what was submitted or has ended since is not in the answer.
        """
        self._report = _Report(max(limit - in_use, 0), asked_at)
        self._ends = [end for end in self._ends if end > asked_at]
        self._admitted = {
            key: admitted
            for key, admitted in self._admitted.items()
            if admitted.submitted_at is None or admitted.submitted_at > asked_at
        }

    def unreported(self) -> None:
        """Note that the service reports no slots."""
        self._report = None
        self._admitted = {key: one for key, one in self._admitted.items() if one.submitted_at is None}

    def admit(self, now: float) -> list[Waiter]:
        """Return the tasks that may submit now, and take them out of the queue."""
        room, is_probe = self._room(now)
        ready = sorted((one for one in self._waiting.values() if one.ready_at <= now), key=lambda waiter: waiter.turn)
        chosen = ready[:room]
        if not chosen:
            return []
        known = len(self._ends) if is_probe else len(chosen)
        if len(chosen) > known:
            self._probe_at = now + self._pause
        if self._report is None:  # a report counts what was admitted instead
            del self._ends[: len(chosen)]
        self._is_refused = self._is_refused and len(chosen) <= known and now < self._contradicted_until
        for place, waiter in enumerate(chosen):
            del self._waiting[waiter.key]
            seconds = ADMITTED_SECONDS if waiter.is_watched else UNWATCHED_SECONDS
            self._admitted[waiter.key] = _Admitted(now + seconds, place >= known, waiter.is_watched)
        return chosen

    def next_at(self, now: float) -> float:
        """Return when something may change by time alone; infinity while nothing waits."""
        if not self._waiting:
            return math.inf
        ready = (one.ready_at for one in self._waiting.values())
        times = (
            *ready,
            self._held_until,
            self._probe_at,
            self._contradicted_until,
            self._settled_at,
            *(one.until for one in self._admitted.values()),
        )
        return min((time for time in times if time > now), default=math.inf)

    def _succeeded(self, key: str, admitted: _Admitted, now: float) -> None:
        admitted.submitted_at = now
        if self._report is None:
            del self._admitted[key]
        if self._is_refused:
            return
        if admitted.is_probe or self._report is not None:
            self._pause = PROBE_SECONDS
            if admitted.is_probe and not self._pending():
                self._probe = min(self._probe * 2, LARGEST_PROBE)
                self._probe_at = now

    def _pending(self) -> int:
        """Return how many admitted tasks may still submit."""
        return sum(one.submitted_at is None for one in self._admitted.values())

    def _expire(self, now: float) -> None:
        """Forget admitted tasks of which nothing more will be seen."""
        for key, one in list(self._admitted.items()):
            if one.submitted_at is None and one.until <= now:
                if one.is_watched:
                    del self._admitted[key]
                else:
                    self._succeeded(key, one, now)

    def _room(self, now: float) -> tuple[int, bool]:
        """Return how many tasks may submit now, and whether that is beyond what is known to be free."""
        self._expire(now)
        is_counted = self.limit is None or self._report is not None or now >= self._settled_at
        if now < self._held_until or not is_counted:
            return 0, False
        pending = self._pending()
        room, is_probe = math.inf, False
        if self.limit is not None:
            room = self.limit - len(self._running) - pending
        if self._report is not None:
            room = min(room, self._report.free + len(self._ends) - len(self._admitted))
            if now < self._contradicted_until:  # by a refusal that the report does not explain
                room = min(room, len(self._ends))
        elif self.limit is None or self._probe_at > 0:
            is_probe = now >= self._probe_at and not pending
            room = min(room, len(self._ends) + (self._probe if is_probe else 0))
        return max(int(room), 0), is_probe
