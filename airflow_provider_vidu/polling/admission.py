"""Which waiting task may submit next, while an account is full. Every decision of a queue, without I/O or a clock.

An account runs a few generations at once and refuses the next create (HTTP 429, ``QuotaExceeded``, a gateway's full
queue). One :class:`Gate` per connection in each triggerer decides who may try again, and when:

* ``ent-v2`` reports its slots (``GET /credits``): the gate admits as many tasks as there are free slots;
* a gateway reports nothing: each generation that ends frees a slot, and beyond that the gate probes with one task,
  with twice as many after a success, and with half as many, later, after a refusal;
* the user's own limit (``max_in_flight``) holds in both cases;
* a generation that is expected to end soon (:mod:`.forecast`) is promised to one task, which starts meanwhile and
  submits only after it has ended.

Admitted tasks that have not submitted yet count as slots in use, so that no two tasks are woken for the same slot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from airflow_provider_vidu.polling.forecast import USUAL_START_SECONDS, Forecast
from airflow_provider_vidu.polling.turns import Waiter, is_plain

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
DOUBTED_SECONDS: Final = 15.0
"""After so long at the latest, it is worth checking what has become of an admitted task that shows no generation."""


@dataclass(slots=True)
class _Admitted:
    at: float
    until: float
    is_probe: bool
    is_watched: bool
    after: str | None = None
    """The generation whose slot was promised to the task."""
    submitted_at: float | None = None


@dataclass(slots=True)
class _Running:
    since: float | None
    watchers: int = 0
    is_promised: bool = False
    """Whether its slot is, or was, promised: a second wake-up before its end would cost more than it gains."""


@dataclass(frozen=True, slots=True)
class _Report:
    free: int
    in_use: int


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
        self._running: dict[str, _Running] = {}
        self._elsewhere: dict[str, float] = {}
        """The generations that another triggerer watches, each with its probable end."""
        self._forecast = Forecast()
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
        admitted = self._admitted.pop(waiter.key, None)
        self._waiting[waiter.key] = waiter
        if waiter.refused_at is None:
            if admitted is not None and admitted.after is not None:
                self._forecast.was_early()
            if admitted is not None:
                self._give_back(admitted, now)
            return
        refused_at = min(waiter.refused_at, now)  # the worker's clock may be ahead
        if waiter.retry_after is not None:
            self._held_until = max(self._held_until, refused_at + min(waiter.retry_after, LONGEST_HOLD_SECONDS))
        # The slots of what ended before the refusal were taken already.
        self._ends = [end for end in self._ends if end > refused_at]
        if admitted is not None and admitted.after is not None:  # others have taken the slot: no probe has failed
            self._probe_at = max(self._probe_at, now + self._pause)
        elif admitted is not None:
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

    def doubted(self, now: float) -> list[str]:
        """Return the admitted tasks that hold a slot for longer than a start takes, without a sign of life."""
        return [
            key
            for key, one in self._admitted.items()
            if one.submitted_at is None and one.is_watched and now - one.at >= self._doubted_after
        ]

    def released(self, key: str, now: float) -> None:
        """Note that an admitted task has ended without a create: its slot is the next one's."""
        admitted = self._admitted.get(key)
        if admitted is not None and admitted.submitted_at is None:
            del self._admitted[key]
            self._give_back(admitted, now)

    def moved(self, key: str, generation_id: str | None, now: float) -> None:
        """Note that an admitted task waits in another triggerer: what becomes of it is not seen here.

        :param generation_id: what it waits for; None if for a slot, like those here.
        """
        if (admitted := self._admitted.get(key)) is None or admitted.submitted_at is not None:
            return
        if generation_id is None:
            del self._admitted[key]
            return
        if generation_id not in self._running and not self._forecast.is_blank:
            self._elsewhere[generation_id] = now + self._forecast.duration
        self._succeeded(key, admitted, now)

    def watches(self, generation_id: str) -> bool:
        """Whether a generation is watched from here."""
        return generation_id in self._running

    @property
    def is_hurried(self) -> bool:
        """Whether the end of a generation is worth a poll: a task waits, and nothing else shows when a slot is free."""
        return bool(self._waiting) and (self._report is None or self._forecast.is_blank)

    def expected_end(self, generation_id: str) -> float:
        """Return when a watched generation will probably have ended; infinity if unknown."""
        one = self._running.get(generation_id)
        return math.inf if one is None or one.since is None else one.since + self._forecast.duration

    @property
    def expects(self) -> bool:
        """Whether an admitted task has not shown its generation yet."""
        return bool(self._admitted)

    def submitted(self, generation_id: str, key: str | None, now: float, since: float | None = None) -> None:
        """Note that a generation is being watched, once for each watcher.

        :param key: the task instance that watches it, if known.
        :param since: when it was submitted; None if unknown, so that its end is not forecast.
        """
        since = since if is_plain(since) else None  # by the author of a DAG: a trigger may have been made with any
        running = self._running.setdefault(generation_id, _Running(since))
        running.watchers += 1
        self._elsewhere.pop(generation_id, None)
        if key is not None and (admitted := self._admitted.get(key)) and admitted.submitted_at is None:
            self._forecast.started((now if since is None else since) - admitted.at)
            if admitted.after is not None:
                self._forecast.was_in_time()
            self._succeeded(key, admitted, now)

    def ended(self, generation_id: str, now: float, *, is_over: bool, lasted: float | None = None) -> None:
        """Note that a watcher of a generation has stopped.

        :param is_over: whether the generation has ended, so that its slot is free; a triggerer that stops proves
            nothing.
        :param lasted: the seconds from its submit to its success, if known well.
        """
        running = self._running.get(generation_id)
        if running is None:
            return
        running.watchers -= 1
        if is_over or running.watchers == 0:
            del self._running[generation_id]
        if is_over and lasted is not None:
            self._forecast.lasted(lasted)
        if is_over and self._waiting and not self._promises(generation_id):
            self._ends.append(now)

    def reported(self, limit: int, in_use: int, asked_at: float) -> None:
        """Note how many slots the service reports.

        :param limit: how many generations run at once.
        :param in_use: how many run or wait.
        :param asked_at: when the question was sent: what was submitted or has ended since is not in the answer.
        """
        self._report = _Report(max(limit - in_use, 0), in_use)
        self._admitted = {
            key: admitted
            for key, admitted in self._admitted.items()
            if admitted.submitted_at is None or admitted.submitted_at > asked_at
        }

    def unreported(self) -> None:
        """Note that the service reports no slots."""
        if self._report is not None:
            self._ends.clear()  # the reports have counted them
        self._report = None
        self._admitted = {key: one for key, one in self._admitted.items() if one.submitted_at is None}

    def admit(self, now: float) -> list[Waiter]:
        """Return the tasks that may submit now, and take them out of the queue."""
        room, is_probe = self._room(now)
        ready = sorted((one for one in self._waiting.values() if one.ready_at <= now), key=lambda one: one.turn)
        chosen = ready[:room]
        if not chosen:
            return []
        known = len(self._ends) if is_probe else len(chosen)
        if len(chosen) > known:
            self._probe_at = now + self._pause
        del self._ends[: len(chosen)]
        self._is_refused = self._is_refused and len(chosen) <= known and now < self._contradicted_until
        for place, waiter in enumerate(chosen):
            del self._waiting[waiter.key]
            seconds = ADMITTED_SECONDS if waiter.is_watched else UNWATCHED_SECONDS
            self._admitted[waiter.key] = _Admitted(now, now + seconds, place >= known, waiter.is_watched)
        return chosen

    def promise(self, now: float) -> list[tuple[Waiter, str]]:
        """Return the tasks that may start now and submit after the end of a generation, and take them out of the queue.

        Each generation is promised once, and only to a task whose own generation is watched from here.

        :return: each task with the id of the generation that has to end first.
        """
        if now < max(self._held_until, self._settled_at) or not self._has_room_after():
            return []
        due = sorted((at, name) for name, at in self._wake_times() if at <= now)
        if self._report is not None:  # some may have ended already: then their slots are in the report
            due = due[: max(self._report.in_use - self._open_promises(), 0)]
        ready = (one for one in self._waiting.values() if one.ready_at <= now and one.is_watched)
        promised = []
        for waiter, (_, name) in zip(sorted(ready, key=lambda one: one.turn), due, strict=False):
            del self._waiting[waiter.key]
            self._running[name].is_promised = True
            self._admitted[waiter.key] = _Admitted(now, now + ADMITTED_SECONDS, False, True, name)
            promised.append((waiter, name))
        return promised

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
            *(one.at + self._doubted_after for one in self._admitted.values()),
            *self._elsewhere.values(),
            *(at for _, at in self._wake_times()),
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

    def _wake_times(self) -> list[tuple[str, float]]:
        """Return the generations whose slots are not promised, each with the time to do so."""
        if self._forecast.is_blank:
            return []
        after = self._forecast.wake_after
        return [
            (name, one.since + after)
            for name, one in self._running.items()
            if one.since is not None and not one.is_promised
        ]

    def _has_room_after(self) -> bool:
        """Whether a slot that becomes free may be used again, by the user's own limit."""
        return self.limit is None or self._in_flight() - self._open_promises() <= self.limit

    def _open_promises(self) -> int:
        """Return how many admitted tasks wait for the end of a generation that still runs."""
        return sum(one.submitted_at is None and one.after in self._running for one in self._admitted.values())

    def _promises(self, generation_id: str) -> bool:
        """Whether an admitted task waits for the end of this generation."""
        return any(one.after == generation_id and one.submitted_at is None for one in self._admitted.values())

    def _give_back(self, admitted: _Admitted, now: float) -> None:
        """Return the slot of an admitted task that did not submit to the queue. Reports show it by themselves."""
        if self._report is None and not admitted.is_probe and admitted.after not in self._running:
            self._ends.append(now)

    @property
    def _doubted_after(self) -> float:
        return min(USUAL_START_SECONDS + 2 * self._forecast.lead, DOUBTED_SECONDS)

    def _in_flight(self) -> int:
        """Return how many generations run, as far as is known here, or may be submitted by admitted tasks."""
        return len(self._running) + len(self._elsewhere) + self._pending()

    def _pending(self) -> int:
        """Return how many admitted tasks may still submit."""
        return sum(one.submitted_at is None for one in self._admitted.values())

    def _expire(self, now: float) -> None:
        """Forget the admitted tasks and the generations of which nothing more will be seen."""
        for generation_id, until in list(self._elsewhere.items()):
            if until <= now:
                del self._elsewhere[generation_id]
                if self._report is None and self._waiting:
                    self._ends.append(now)
        for key, one in list(self._admitted.items()):
            if one.submitted_at is None and one.until <= now:
                if one.is_watched:
                    self.released(key, now)
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
            room = self.limit - self._in_flight()
        if self._report is not None:
            room = min(room, self._report.free - len(self._admitted))
            if now < self._contradicted_until:  # by a refusal that the report does not explain
                room = min(room, len(self._ends))
        elif self.limit is None or self._probe_at > 0:
            is_probe = now >= self._probe_at and not pending
            room = min(room, len(self._ends) + (self._probe if is_probe else 0))
        return max(int(room), 0), is_probe
