"""Decides what follows a poll: poll again, done, or failed. No I/O.

The hook, the sensor and the trigger pass the answer or error of each poll to a :class:`Watch` and act on the
:data:`PollResult` that it returns. Clock and random numbers are parameters.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.common.progress import duration
from airflow_provider_vidu.common.text import redacted, sentence
from airflow_provider_vidu.common.urls import unusable_note
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Generation, Snapshot
from airflow_provider_vidu.polling import schedule
from airflow_provider_vidu.polling.failures import failure, given_up, is_doubtful
from airflow_provider_vidu.polling.intervals import POLL_SECONDS, check_interval
from airflow_provider_vidu.polling.retries import Backoff, Random
from airflow_provider_vidu.polling.schedule import BEGINNING, PollHistory

FIRST_POLL_FLOOR: Final = 10.0
"""Minimum seconds before a trigger's first poll: Airflow fails a task whose event fires within a few seconds of its
deferral (on a busy 3.3.2 the scheduler lagged 5.6 s behind)."""


def earliest_event(deferred_at: float) -> float:
    """Return the epoch seconds before which no event may fire, for a task that was deferred at ``deferred_at``."""
    return deferred_at + FIRST_POLL_FLOOR


LONGEST_GROWN_INTERVAL: Final = 3600.0

LONGEST_PAUSE_SECONDS: Final = 3600.0
"""How long a wait without a deadline stays paused for a missing or wrong connection, or a refused key."""


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How a generation is watched.

    :param interval: seconds between polls.
    :param max_failures: failed polls in a row that are tolerated; a successful one resets the count.
    :param grace: seconds after the start during which "no such generation" is tolerated as a failed poll.
    :param missing_url_polls: further polls after a success without a URL.
    :param unnamed_failure_polls: further polls after a failure without any id.
    :param exponential: double the interval after every poll (a sensor's ``exponential_backoff``).
    :param max_wait: upper bound of the interval in seconds; if omitted, an exponential one grows up to an hour.
    :param adaptive: follow ``schedule``; ``interval`` then only sets the delays after failed polls.
    :param sparse: with ``adaptive``: poll seldom, because a callback reports the end.
    """

    interval: float = POLL_SECONDS
    max_failures: int = 10
    backoff: Backoff = field(default_factory=Backoff)
    grace: float = 60.0
    missing_url_polls: int = 3
    unnamed_failure_polls: int = 2
    exponential: bool = False
    max_wait: float | None = None
    adaptive: bool = False
    sparse: bool = False

    def __post_init__(self) -> None:
        check_interval(self.interval)

    @classmethod
    @lru_cache(maxsize=64, typed=True)  # thousands of triggers, a handful of policies
    def for_trigger(cls, interval: float | None, max_failures: int = 10, **more: Any) -> PollPolicy:
        """Return a trigger's policy (None: adaptive); failures back off from the interval up to five minutes."""
        seconds = POLL_SECONDS if interval is None else interval
        backoff = Backoff(base=max(seconds, 1.0), cap=max(300.0, seconds))
        return cls(seconds, max_failures, backoff, **{"adaptive": interval is None, **more})

    @classmethod
    def for_worker(cls, interval: float | None, max_failures: int) -> PollPolicy:
        """Return the policy of a wait that holds a worker (None: adaptive); failures back off from 1 s to 60 s."""
        seconds = POLL_SECONDS if interval is None else interval
        return cls(seconds, max_failures, Backoff(base=1.0, cap=60.0), adaptive=interval is None)

    def first_delay(self, left: float | None = None, rng: Random = random.random) -> float:
        """Return the seconds before a trigger's first poll, spread so that simultaneous deferrals do not poll together.

        :param left: seconds until the deadline, an upper bound; None if there is none.
        """
        interval = schedule.first_interval() if self.adaptive else self.interval
        # The floor shifts the whole spread: if it cut the spread off, half the polls would come at the floor.
        delay = max(interval * 0.5, FIRST_POLL_FLOOR) + interval * rng()
        return delay if left is None else max(min(delay, left), FIRST_POLL_FLOOR)

    def delay(self, polls: int = 1, rng: Random = random.random, history: PollHistory | None = None) -> float:
        """Return the seconds until the next poll after ``polls`` successful ones."""
        if self.adaptive and history is not None:
            seconds = schedule.adaptive_interval(history)
            delay = schedule.spread(max(seconds, schedule.net_interval(history.age)) if self.sparse else seconds, rng)
        else:
            interval = self.interval
            if self.exponential:
                interval = min(interval * 2.0 ** min(polls - 1, 30), max(LONGEST_GROWN_INTERVAL, interval))
            delay = interval * (0.95 + rng() / 10)
        return delay if self.max_wait is None else min(delay, self.max_wait)


class Wait(NamedTuple):
    """Poll again after ``delay`` seconds.

    ``note`` is a line to log, present only if there is news: another state, a further quarter of the progress, another
    error. ``trouble`` marks a delay caused by an error or a missing URL, ``paused`` one that ends only when the
    connection is fixed.
    """

    delay: float
    note: str | None = None
    trouble: bool = False
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The generation succeeded and has a result."""

    generation: Generation
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The wait ended with an error."""

    error: ViduError
    note: str | None = None


PollResult = Wait | Done | Failed


class Watch:
    """The state of one wait: takes the outcome of each poll and returns what to do.

    Until the generation is known to exist for this connection, a refusal is a mistake in the DAG or the connection and
    ends the wait at once. Afterwards the generation is paid for, and no single answer ends the wait: a missing or wrong
    connection or a refused key pauses it until its deadline (or for an hour), other refusals count as failed polls. The
    error that ends such a wait may be retried, unless the generation itself failed.

    :param generation_id: named in every error, as is ``conn_id``.
    :param since: epoch seconds at which the wait began, in its first deferral.
    :param deadline: epoch seconds at which it ends; None for no limit.
    :param end_reported: whether an event has reported the generation's end; the deadline is then not the user's, and
        passing it is an error of the service, not a timeout.
    :param known: whether the generation was submitted or seen with this connection before.
    :param logged: the service's word for the state that was logged before; the first poll with it is not news.
    :param replan: returns the policy to continue with, whenever an unfinished generation is to be polled again.
    :param rng: returns numbers in [0, 1).
    """

    # A triggerer holds thousands of these.
    __slots__ = (
        "_end_reported", "_failures", "_history", "_known", "_logged", "_paused_at", "_pauses", "_polls", "_quarter",
        "_replan", "_rng", "_trouble", "_unnamed", "_without_url", "conn_id", "deadline", "generation_id", "last",
        "policy", "since",
    )  # fmt: skip

    def __init__(
        self,
        policy: PollPolicy,
        *,
        generation_id: str,
        since: float,
        deadline: float | None = None,
        conn_id: str | None = None,
        end_reported: bool = False,
        known: bool = False,
        logged: str | None = None,
        replan: Callable[[], PollPolicy] | None = None,
        rng: Random = random.random,
    ) -> None:
        self.policy = policy
        self.generation_id = generation_id
        self.conn_id = conn_id
        self.since = since
        self.deadline = deadline
        self.last: Snapshot | None = None
        self._replan = replan
        self._rng = rng
        self._trouble: ViduError | None = None
        self._failures = 0
        self._end_reported = end_reported
        self._known = known or end_reported
        self._logged = logged
        self._pauses = 0
        self._paused_at: float | None = None
        self._without_url = 0
        self._unnamed = 0
        self._polls = 0
        self._quarter = 0
        self._history = BEGINNING

    @property
    def is_known(self) -> bool:
        """Whether the generation exists for this connection: submitted with it, or seen by a poll."""
        return self._known or self.last is not None

    @property
    def has_waited_sparsely(self) -> bool:
        """Whether the latest poll came after the long delay of a wait whose end a callback reports."""
        return self.policy.sparse and self._polls > 1  # the first delay is as short as without callbacks

    @property
    def polled_at(self) -> float | None:
        """When a poll last saw the generation unfinished, in epoch seconds; None before that."""
        return None if self._history is BEGINNING else self.since + self._history.age

    @property
    def queued(self) -> float | None:
        """About how many seconds the generation waited in a queue, if polls saw it wait and then run."""
        return self._history.started or None

    def saw(self, generation: Generation, now: float) -> PollResult:
        """Record the answer to a poll at ``now`` (epoch seconds) and return what to do."""
        if (doubt := self._doubted(generation, now)) is not None:
            return doubt
        seen = generation.sighting()
        note, self.last = self._recovery_note(seen), seen
        if generation.failed:
            return Failed(failure(generation).with_context(conn_id=self.conn_id), note)
        if generation.succeeded:
            return Done(generation, note) if generation.video_url else self._no_url(generation, now, note)
        return self._unfinished(seen, now, note)

    def listed(self, snapshot: Snapshot, now: float) -> PollResult:
        """Record the state of an unfinished generation, from a poll or the account's list at ``now`` (epoch seconds).

        The list holds no result, so a finished generation must be queried (:meth:`saw`).
        """
        note = self._recovery_note(snapshot)
        self.last = snapshot
        return self._unfinished(snapshot, now, note)

    def must_be_queried(self, now: float) -> bool:
        """Whether only a query of its own decides: the next failure ends the wait, or its deadline has come."""
        is_last = self.deadline is not None and now >= self.deadline
        return is_last or self._failures >= self.policy.max_failures

    def _unfinished(self, seen: Snapshot, now: float, note: str | None) -> PollResult:
        self._without_url = self._unnamed = 0
        self._history = self._history.after(seen.status, seen.progress, max(now - self.since, 0.0))
        if self._replan is not None:
            self.policy = self._replan()
        return self._wait(self.policy.delay(self._polls, self._rng, self._history), now, note)

    def _recovery_note(self, seen: Snapshot) -> str | None:
        """Count a successful poll and reset the failures; return a line if there is news."""
        recovered, self._failures = self._failures, 0
        trouble, self._trouble = self._trouble, None
        is_resumed, self._paused_at, self._pauses = self._paused_at is not None, None, 0
        self._polls += 1
        note = seen.describe() if self._is_news(seen) else None
        if is_resumed:
            is_back = isinstance(trouble, exceptions.ViduConfigError)
            back = "the connection is back" if is_back else "the key is accepted again"
            return f"{back}. {note or seen.describe()}"
        if recovered and note is None:
            return f"reachable again after {recovered} failed polls: {seen.describe()}"
        return note

    def _is_news(self, seen: Snapshot) -> bool:
        """Whether the state, or the quarter of the progress, is another than at the last poll."""
        last, quarter = self.last, (seen.progress or 0) // 25
        if last is None and seen.word == self._logged:
            self._quarter = quarter
            return False
        is_same = last is not None and (last.status, last.provider_status) == (
            seen.status,
            seen.provider_status,
        )
        is_news = not is_same or quarter > self._quarter
        self._quarter = max(quarter, self._quarter) if is_same else quarter
        return is_news

    def missed(self, error: ViduError, now: float, *, has_connection: bool = True) -> PollResult:
        """Record the failure of a poll at ``now`` (epoch seconds) and return what to do.

        :param has_connection: False if the poll was not sent because the connection could not be loaded.
        """
        before = self._trouble
        # It is kept until the next poll, by each of thousands of waits: without the answer in its frames.
        self._trouble = error.with_context(generation_id=self.generation_id, conn_id=self.conn_id).without_frames()
        # After a successful poll with the same arguments, the connection must have changed.
        has_connection &= self.last is None and not isinstance(error, exceptions.ViduConnectionNotFoundError)
        if isinstance(error, exceptions.ViduConfigError) and not has_connection:
            # A connection that never existed is a mistake in the DAG; one that existed is usually restored.
            is_mistake = not self.is_known and now - self.since <= self.policy.grace
            return Failed(error) if is_mistake else self._pause(error, now, "the connection is back")
        if isinstance(error, exceptions.ViduAuthError) and self.is_known:
            return self._pause(error, now, "the key is accepted")
        if not self._tolerable(error, now):
            return Failed(error)
        self._failures += 1
        if self._failures > self.policy.max_failures:
            return Failed(self._given_up(error, now))
        delay = self.policy.backoff.delay(self._failures, error, self._rng)
        note = None
        if before is None or before.reason != error.reason or self._failures == self.policy.max_failures:
            note = f"poll failed ({self._failures} of {self.policy.max_failures} tolerated): {error}"
        return self._wait(delay, now, note, trouble=True)

    def _pause(self, error: ViduError, now: float, until: str) -> PollResult:
        """Poll again after growing pauses, until the deadline, or for an hour if there is none."""
        note = f"paused until {until}: {error}" if self._paused_at is None else None
        self._paused_at = now if self._paused_at is None else self._paused_at
        self._pauses += 1
        delay = self.policy.backoff.delay(self._pauses, error, self._rng)
        if self.deadline is not None:
            return self._wait(delay, now, note, trouble=True, paused=True)
        left = self._paused_at + LONGEST_PAUSE_SECONDS - now
        if left <= 0:
            return Failed(self._given_up(error, now))
        return Wait(min(delay, left), note, trouble=True, paused=True)

    def timeout_error(self, now: float) -> exceptions.ViduTimeoutError:
        """Return the error of a wait that has passed its deadline, with its duration and the last state."""
        state = self.last.describe() if self.last else "never seen"
        trouble = f" The last poll failed: {sentence(self._trouble.reason)}" if self._trouble else ""
        return exceptions.ViduTimeoutError(
            f"Gave up waiting after {duration(now - self.since)}; the last known state is {state}.{trouble} "
            f"{exceptions.MAY_FINISH}, or raise the timeout.",
            generation_id=self.generation_id,
            conn_id=self.conn_id,
        )

    def _never_shown(self, now: float) -> ViduError:
        """Return the error for a reported end that no answer has confirmed; a retry may see it."""
        if self._trouble is not None:
            return self._given_up(self._trouble, now)
        state = self.last.describe() if self.last else "never seen"
        return exceptions.ViduBusyError(
            f"The trigger reported that the generation ended, but {duration(now - self.since)} later its state is "
            f"still {state}. A retry checks it again.",
            generation_id=self.generation_id,
            conn_id=self.conn_id,
        )

    def _tolerable(self, error: ViduError, now: float) -> bool:
        if error.retryable or (self.is_known and isinstance(error, exceptions.ViduAPIError)):
            return True
        # The service may not find a generation for a moment after its creation.
        return isinstance(error, exceptions.ViduNotFoundError) and now - self.since < self.policy.grace

    def _given_up(self, error: ViduError, now: float) -> ViduError:
        """Return the error that ends a wait whose generation may be fine; a retry can resume the wait."""
        summary = f"{self._failures} polls in a row failed; the last one"
        if self._paused_at is not None and isinstance(error, (exceptions.ViduAuthError, exceptions.ViduConfigError)):
            summary = f"The wait was paused for {duration(now - self._paused_at)}, but the connection is still unusable"
        return given_up(error, f"{summary}: {sentence(error.reason)}")

    def _doubted(self, generation: Generation, now: float) -> Wait | None:
        """Return when to poll again after a failure that names no generation, or None to accept the answer."""
        if not is_doubtful(generation):
            self._unnamed = 0
            return None
        self._unnamed += 1
        if self._unnamed > self.policy.unnamed_failure_polls:
            return None
        reason = redacted(generation.error_message or generation.raw, 200)
        note = f"the service reports a failure without an id, so the next poll decides: {reason}"
        result = self._wait(self.policy.delay(self._polls + 1, self._rng), now, note, trouble=True)
        return result if isinstance(result, Wait) else None

    def _no_url(self, generation: Generation, now: float, note: str | None) -> PollResult:
        self._without_url += 1
        if self._without_url <= self.policy.missing_url_polls:
            if self._without_url == 1:
                note = f"{note or generation.describe()}, but without a URL"
            return self._wait(self.policy.delay(self._polls, self._rng), now, note, trouble=True)
        error = exceptions.ViduMissingVideoError(
            f"The service reports {generation.provider_status!r}, but {self._without_url} answers in a row held no "
            f"usable video URL.{unusable_note(generation.raw)} Ask its support with this id.",
            generation_id=self.generation_id,
            conn_id=self.conn_id,
        )
        return Failed(error, note)

    def _wait(self, delay: float, now: float, note: str | None, **marks: bool) -> Wait | Failed:
        if self.deadline is not None:
            left = self.deadline - now
            if left <= 0:
                return Failed(self._never_shown(now) if self._end_reported else self.timeout_error(now), note)
            delay = min(delay, left)  # one last poll at the deadline itself
        if note and self.policy.adaptive and not marks.get("paused"):
            note += f"; next poll in {duration(delay)}"
        return Wait(delay, note, **marks)
