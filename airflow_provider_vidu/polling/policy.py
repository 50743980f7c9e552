"""When to ask again, and when to stop: every decision about time, in one place and without I/O.

The sync hook, the sensor and the trigger all put what they saw into a :class:`Watch` and do what
the returned :class:`Step` says. The clock and the random numbers are handed in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.urls import unusable_note
from airflow_provider_vidu.common.values import mapping, number, trace_id
from airflow_provider_vidu.defaults import check_interval, is_adaptive
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Generation, Snapshot
from airflow_provider_vidu.polling.schedule import BEGINNING, PollHistory, first_interval, spread
from airflow_provider_vidu.polling.schedule import interval as scheduled

RETRY_AFTER_CAP: Final = 600.0
"""Seconds that a server's Retry-After is followed at most."""

FIRST_POLL_FLOOR: Final = 10.0
"""Seconds a trigger waits at least before its first poll: Airflow marks a task failed when an event
fires within a few seconds of its deferral (on a busy 3.3.2 the scheduler lagged 5.6 s behind)."""

LONGEST_GROWN_INTERVAL: Final = 3600.0

LONGEST_PAUSE_SECONDS: Final = 3600.0
"""How long a wait without a deadline pauses for a connection that is missing or wrong, or whose key is refused."""

Random = Callable[[], float]


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds a server asks to wait, capped at 600, or None where it does not say.

    ``retry-after-ms``, and ``retry-after`` as seconds or as an HTTP date are understood; a date in
    the past is 0, nonsense is None.

    :param headers: the answer's headers with lower-case names.
    :param now: the time to measure a date against; the clock's where left out.
    """
    milliseconds = number(headers.get("retry-after-ms"))
    told = milliseconds is not None and milliseconds >= 0
    seconds = milliseconds / 1000 if milliseconds is not None and told else _seconds(headers.get("retry-after"), now)
    return None if seconds is None or seconds < 0 else min(seconds, RETRY_AFTER_CAP)


def _seconds(value: str | None, now: datetime | None) -> float | None:
    if value is None or (found := number(value)) is not None:
        return None if value is None else found
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    return max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter: ``base``, doubled for each failure up to ``cap`` seconds."""

    base: float = 1.0
    cap: float = 300.0

    def delay(self, failures: int, error: ViduError | None = None, rng: Random = random.random) -> float:
        """Return the seconds to wait after the given number of failures in a row (1 is the first).

        The server's Retry-After is a lower bound; up to a quarter is added, so that many waiters do
        not come back in one wave.
        """
        asked = (error.retry_after or 0.0) if error is not None else 0.0
        grown = min(self.base * 2.0 ** min(failures - 1, 30), self.cap)
        return max(grown, asked) * (1 + rng() / 4)


def may_repeat(error: ViduError, *, bills: bool) -> bool:
    """Whether the same request may be sent once more.

    A create is repeated only when it certainly was not carried out: the connection was never made, the service said
    "too many" (nothing is created then), or a gateway says that it has sent nothing. Another 5xx or a lost answer
    leaves the outcome unknown.
    """
    if not bills:
        return error.retryable
    if isinstance(error, exceptions.ViduTransportError):
        return not error.sent
    if error.generation_id is not None:
        return False  # [?] a refusal that names a generation is no proof that none was created
    return isinstance(error, (exceptions.ViduRateLimitError, exceptions.ViduUnavailableError))


def outcome_is_unknown(error: ViduError) -> bool:
    """Whether a create that ended with ``error`` may have been carried out all the same."""
    if isinstance(error, exceptions.ViduTransportError):
        return error.sent
    if isinstance(error, exceptions.ViduResponseError):
        # A redirect or a refusal in HTML stopped the request; a 200 that cannot be read did not, and 303 says "done".
        stopped = error.status_code is not None and 300 <= error.status_code < 500 and error.status_code != 303
        return error.generation_id is not None or not stopped
    if error.generation_id is not None and isinstance(error, _TRANSIENT_REFUSALS):
        return True
    return isinstance(error, exceptions.ViduServerError)


_TRANSIENT_REFUSALS: Final = (
    exceptions.ViduRateLimitError,
    exceptions.ViduUnavailableError,
    exceptions.ViduBusyError,
    exceptions.ViduConflictError,
)
"""Refusals of the moment: one that names a generation may be about the very one that was created."""


class Attempts:
    """The memory of one request that may be repeated: put in an error, get the delay or the error back.

    :param max_retries: how often the request is repeated at the most.
    :param bills: whether repeating it blindly could pay twice.
    """

    def __init__(self, max_retries: int, *, bills: bool, backoff: Backoff | None = None) -> None:
        self._left = max_retries
        self._failures = 0
        self._bills = bills
        self._backoff = backoff or Backoff(base=1.0, cap=60.0)

    def after(self, error: ViduError) -> float:
        """Return the seconds to wait before the next attempt.

        :raises ViduError: ``error`` itself when it must not or cannot be repeated any more.
        """
        if self._failures >= self._left or not may_repeat(error, bills=self._bills):
            raise error
        self._failures += 1
        return self._backoff.delay(self._failures, error)


@dataclass(frozen=True, slots=True)
class PollPolicy:
    """How a generation is watched.

    :param interval: seconds between polls.
    :param max_failures: failed polls in a row that are tolerated; a good one resets the count.
    :param backoff: the delays after failed polls; never shorter than ``interval`` where ``interval``
        is the base.
    :param grace: seconds after the start in which "no such generation" is not believed yet.
    :param missing_url_polls: further polls when success is reported without a URL.
    :param unnamed_failure_polls: further polls when a failure is reported without any id.
    :param exponential: double the interval after every poll (a sensor's ``exponential_backoff``).
    :param max_wait: seconds that a growing interval never exceeds; an hour where left out.
    :param adaptive: ask when ``schedule`` says so, and not every ``interval`` seconds.
    """

    interval: float = 15.0
    max_failures: int = 10
    backoff: Backoff = Backoff()
    grace: float = 60.0
    missing_url_polls: int = 3
    unnamed_failure_polls: int = 2
    exponential: bool = False
    max_wait: float | None = None
    adaptive: bool = False

    def __post_init__(self) -> None:
        check_interval(self.interval)

    @classmethod
    @lru_cache(maxsize=64, typed=True)  # thousands of triggers, a handful of policies
    def for_trigger(cls, interval: float, max_failures: int = 10, **more: Any) -> PollPolicy:
        """Return the policy of a trigger: failures back off from the interval up to five minutes."""
        more = {"adaptive": is_adaptive(interval), **more}
        return cls(
            interval=interval,
            max_failures=max_failures,
            backoff=Backoff(base=max(interval, 1.0), cap=max(300.0, interval)),
            **more,
        )

    @classmethod
    def for_worker(cls, interval: float, max_failures: int) -> PollPolicy:
        """Return the policy of a process that holds a worker: failures back off from one second."""
        backoff = Backoff(base=1.0, cap=60.0)
        return cls(interval=interval, max_failures=max_failures, backoff=backoff, adaptive=is_adaptive(interval))

    def first_delay(self, left: float | None = None, rng: Random = random.random) -> float:
        """Return the seconds before a trigger's first poll: spread, so that a wave falls out of step.

        :param left: seconds until the deadline, which is not overslept; None where there is none.
        """
        interval = first_interval() if self.adaptive else self.interval
        # The floor moves the whole spread and cuts nothing off it: half a crowd would poll at the floor.
        delay = max(interval * 0.5, FIRST_POLL_FLOOR) + interval * rng()
        return delay if left is None else max(min(delay, left), FIRST_POLL_FLOOR)

    def delay(self, polls: int = 1, rng: Random = random.random, course: PollHistory | None = None) -> float:
        """Return the seconds until the next poll while all goes well, after ``polls`` good ones."""
        if self.adaptive and course is not None:
            delay = spread(scheduled(course), rng)
            return delay if self.max_wait is None else min(delay, self.max_wait)
        interval = self.interval
        if self.exponential:
            interval = min(interval * 2.0 ** min(polls - 1, 30), max(LONGEST_GROWN_INTERVAL, interval))
        delay = interval * (0.95 + rng() / 10)
        return delay if self.max_wait is None else min(delay, self.max_wait)


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next: poll again after ``delay`` seconds, or stop with a generation or an error.

    ``note`` is a line worth logging, present only when something changed. ``trouble`` marks a wait
    that an error or a missing URL forced, ``paused`` one that only an edit of the connection can end.
    """

    delay: float | None = None
    generation: Generation | None = None
    error: ViduError | None = None
    note: str | None = None
    trouble: bool = False
    paused: bool = False

    @property
    def finished(self) -> bool:
        """Whether the watch is over."""
        return self.delay is None


class Watch:
    """The memory of one wait: put in what each poll brought, get out what to do.

    Before the generation is known to exist for this connection, a refusal is a mistake in the DAG or the connection,
    and ends the wait at once. Afterwards the generation is paid for, and no single answer ends the wait: a missing or
    wrong connection and a refused key pause it until its deadline (or for an hour), other refusals count as failed
    polls. The error that ends such a wait may be retried, unless the generation itself has failed.

    :param policy: the numbers.
    :param generation_id: named in every error, and so is ``conn_id``.
    :param since: epoch seconds at which the wait (over all its legs) began.
    :param deadline: epoch seconds at which it ends, or None for no end.
    :param told: whether the generation's end was told already: then the deadline is not the user's, and that it
        passes is the service's trouble and no time-out.
    :param known: whether the generation was submitted or seen with this connection before this watch began.
    :param rng: numbers in [0, 1).
    """

    # A triggerer holds thousands of these.
    __slots__ = (
        "_course", "_failures", "_known", "_paused_at", "_pauses", "_polls", "_rng", "_trouble", "_unnamed",
        "_without_url", "conn_id", "deadline", "generation_id", "last", "policy", "since", "told",
    )  # fmt: skip

    def __init__(
        self,
        policy: PollPolicy,
        *,
        generation_id: str,
        since: float,
        deadline: float | None = None,
        conn_id: str | None = None,
        told: bool = False,
        known: bool = False,
        rng: Random = random.random,
    ) -> None:
        self.policy = policy
        self.told = told
        self.generation_id = generation_id
        self.conn_id = conn_id
        self.since = since
        self.deadline = deadline
        self.last: Snapshot | None = None
        self._rng = rng
        self._trouble: ViduError | None = None
        self._failures = 0
        self._known = known or told
        self._pauses = 0
        self._paused_at: float | None = None
        self._without_url = 0
        self._unnamed = 0
        self._polls = 0
        self._course = BEGINNING

    @property
    def is_known(self) -> bool:
        """Whether the generation exists for this connection: it was submitted with it, or a poll has seen it."""
        return self._known or self.last is not None

    def saw(self, generation: Generation, now: float) -> Step:
        """Take the answer of a poll at ``now`` (epoch seconds)."""
        if (doubt := self._doubted(generation, now)) is not None:
            return doubt
        recovered, self._failures = self._failures, 0
        trouble, self._trouble = self._trouble, None
        is_resumed, self._paused_at, self._pauses = self._paused_at is not None, None, 0
        self._polls += 1
        sighting = generation.sighting()
        note = None if sighting == self.last else sighting.describe()
        if is_resumed:
            is_back = isinstance(trouble, exceptions.ViduConfigError)
            back = "the connection is back" if is_back else "the key is accepted again"
            note = f"{back}. {note or generation.describe()}"
        elif recovered and note is None:
            note = f"reachable again after {recovered} failed polls: {generation.describe()}"
        self.last = sighting
        if generation.failed:
            return Step(generation=generation, error=failure(generation).with_context(conn_id=self.conn_id), note=note)
        if generation.succeeded and generation.video_url:
            return Step(generation=generation, note=note)
        if generation.succeeded:
            return self._no_url(generation, now, note)
        self._without_url = 0
        if self.policy.adaptive:
            self._course = self._course.after(generation.status, generation.progress, max(now - self.since, 0.0))
        return self._wait(self.policy.delay(self._polls, self._rng, self._course), now, note)

    def missed(self, error: ViduError, now: float) -> Step:
        """Take the failure of a poll at ``now`` (epoch seconds)."""
        if isinstance(error, exceptions.ViduConnectionNotFoundError) or (
            # A good poll was asked with the same arguments: it is the connection that has changed.
            isinstance(error, exceptions.ViduConfigError) and self.last is not None
        ):
            return self.lacks_connection(error, now)
        self._trouble = error.with_context(generation_id=self.generation_id, conn_id=self.conn_id)
        if isinstance(error, exceptions.ViduAuthError) and self.is_known:
            return self._pause(error, now, "the key is accepted")
        if not self._tolerable(error, now):
            return Step(error=error)
        self._failures += 1
        if self._failures > self.policy.max_failures:
            return Step(error=self._given_up(error, now))
        delay = self.policy.backoff.delay(self._failures, error, self._rng)
        note = f"poll failed ({self._failures} of {self.policy.max_failures} tolerated): {error}"
        return replace(self._wait(delay, now, note), trouble=True)

    def lacks_connection(self, slip: exceptions.ViduConfigError, now: float) -> Step:
        """Take a look-up at ``now`` (epoch seconds) that found no usable connection.

        A connection that there never was is a mistake in the DAG; one that was there when the wait began is restored
        more often than not.
        """
        self._trouble = slip.with_context(generation_id=self.generation_id, conn_id=self.conn_id)
        if not self.is_known and now - self.since <= self.policy.grace:
            return Step(error=slip)
        return self._pause(slip, now, "the connection is back")

    def _pause(self, error: ViduError, now: float, until: str) -> Step:
        """Ask again with growing pauses, for as long as the wait may last, or for an hour if it has no end."""
        note = f"paused until {until}: {error}" if self._paused_at is None else None
        self._paused_at = now if self._paused_at is None else self._paused_at
        self._pauses += 1
        delay = self.policy.backoff.delay(self._pauses, error, self._rng)
        if self.deadline is None:
            left = self._paused_at + LONGEST_PAUSE_SECONDS - now
            step = Step(delay=min(delay, left), note=note) if left > 0 else Step(error=self._given_up(error, now))
        else:
            step = self._wait(delay, now, note)
        return step if step.error is not None else replace(step, trouble=True, paused=True)

    def timeout_error(self, now: float) -> exceptions.ViduTimeoutError:
        """Return the error of a wait that has lasted too long: how long, which state, which id."""
        state = self.last.describe() if self.last else "never seen"
        trouble = f" The last poll failed: {_sentence(self._trouble.reason)}" if self._trouble else ""
        return exceptions.ViduTimeoutError(
            f"Gave up waiting after {_human(now - self.since)}; the last known state is {state}.{trouble} The "
            "generation may still finish: wait for it again by its id, or raise the timeout.",
            generation_id=self.generation_id,
            conn_id=self.conn_id,
        )

    def _never_shown(self, now: float) -> ViduError:
        """Return the error of an end that was told and that no answer has shown since: a retry may see it."""
        if self._trouble is not None:
            return self._given_up(self._trouble, now)
        state = self.last.describe() if self.last else "never seen"
        return exceptions.ViduBusyError(
            f"The generation was told to have ended, but {_human(now - self.since)} later its state is still {state}. "
            "A retry asks again.",
            generation_id=self.generation_id,
            conn_id=self.conn_id,
        )

    def _tolerable(self, error: ViduError, now: float) -> bool:
        if error.retryable or (self.is_known and isinstance(error, exceptions.ViduAPIError)):
            return True
        # A generation may be unknown for a moment after its creation.
        return isinstance(error, exceptions.ViduNotFoundError) and now - self.since < self.policy.grace

    def _given_up(self, error: ViduError, now: float) -> ViduError:
        """Return the error that ends a wait whose generation may be fine; a retry can resume the wait."""
        what = f"{self._failures} polls in a row failed; the last one"
        if self._paused_at is not None and isinstance(error, (exceptions.ViduAuthError, exceptions.ViduConfigError)):
            what = f"The wait was paused for {_human(now - self._paused_at)}, and the connection is still not usable"
        return _resumable(error, f"{what}: {_sentence(error.reason)}")

    def _doubted(self, generation: Generation, now: float) -> Step | None:
        """Return when to ask again after a failure that names no generation; None if the answer counts."""
        if not is_doubtful(generation):
            self._unnamed = 0
            return None
        self._unnamed += 1
        if self._unnamed > self.policy.unnamed_failure_polls:
            return None
        told = redacted(generation.error_message or generation.raw, 200)
        note = f"a failure is reported that names no generation, so it is asked for again: {told}"
        step = self._wait(self.policy.delay(self._polls + 1, self._rng), now, note)
        return None if step.error is not None else replace(step, trouble=True)

    def _no_url(self, generation: Generation, now: float, note: str | None) -> Step:
        self._without_url += 1
        if self._without_url > self.policy.missing_url_polls:
            return Step(
                generation=generation,
                error=exceptions.ViduMissingVideoError(
                    f"The service reports {generation.provider_status!r}, but {self._without_url} answers "
                    f"in a row held no usable video URL.{unusable_note(generation.raw)} Ask its support with this id.",
                    generation_id=self.generation_id,
                    conn_id=self.conn_id,
                ),
                note=note,
            )
        step = self._wait(self.policy.delay(self._polls, self._rng), now, note or "success is reported without a URL")
        return replace(step, trouble=True)

    def _wait(self, delay: float, now: float, note: str | None) -> Step:
        if self.deadline is None:
            return Step(delay=delay, note=note)
        left = self.deadline - now
        if left <= 0:
            return Step(error=self._never_shown(now) if self.told else self.timeout_error(now), note=note)
        # One last poll at the deadline itself.
        return Step(delay=min(delay, left), note=note)


def is_doubtful(generation: Generation) -> bool:
    """Whether an answer reports a failure and names no generation.

    Every documented answer holds an id [doc]. ``{"status": "error", "message": …}`` alone may be about the request.
    """
    return generation.failed and bool(generation.raw) and not _holds_id(generation.raw)


def failure(generation: Generation) -> exceptions.ViduGenerationFailedError:
    """Return the error that a failed generation stands for, with whatever reason was given."""
    reason = generation.error_message or generation.error_code
    told = redacted(reason) if reason else f"no reason was given; the whole answer: {redacted(generation.raw, 600)}"
    raw = generation.raw
    levels = (raw, mapping(raw.get("data")), mapping(mapping(raw.get("data")).get("data")))
    return exceptions.ViduGenerationFailedError(
        f"The generation ended as {generation.provider_status!r}: {told}",
        generation_id=generation.id,
        code=generation.error_code,
        trace_id=next(filter(None, map(trace_id, levels)), None),
    )


def _holds_id(value: Any, depth: int = 0) -> bool:
    """Whether an answer holds the id of anything."""
    if isinstance(value, Mapping):
        if value.get("id") or value.get("task_id"):
            return True
        value = list(value.values())
    return depth < 3 and isinstance(value, list) and any(_holds_id(inner, depth + 1) for inner in value)


def _resumable(error: ViduError, what: str) -> ViduError:
    """Return the error of a wait whose generation may be fine: one that Airflow may retry."""
    told = f"{what} The generation itself may be fine: wait for it again by its id"
    if error.retryable:
        error.reason = f"{told}."
        return error
    plain = {"type": ViduError.__name__, "message": f"{told}, or let a retry resume the wait."}
    kept = exceptions.from_details({**error.details(), **plain})
    kept.__cause__ = error
    return kept


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _human(seconds: float) -> str:
    seconds = max(int(seconds), 0)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0) + [f"{seconds % 60} s"]
    return " ".join(parts)
