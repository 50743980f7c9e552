"""Decides whether a request is repeated, and after what delay. No I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.common.values import number
from airflow_provider_vidu.exceptions import ViduError

RETRY_AFTER_CAP: Final = 600.0
"""The longest Retry-After that is followed, in seconds."""

Random = Callable[[], float]


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds to wait according to ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date).

    The value is capped at 600; a date in the past is 0, an absent or invalid header None.

    :param headers: the answer's headers with lower-case names.
    :param now: the time that a date is compared with; the current time if omitted.
    """
    milliseconds = number(headers.get("retry-after-ms"))
    if milliseconds is not None and milliseconds >= 0:
        return min(milliseconds / 1000, RETRY_AFTER_CAP)
    value = headers.get("retry-after")
    seconds = number(value)
    if seconds is None and value is not None:
        seconds = _seconds_until(value, now)
    return None if seconds is None or seconds < 0 else min(seconds, RETRY_AFTER_CAP)


def _seconds_until(date: str, now: datetime | None) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    return max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter: ``base`` seconds, doubled for each further failure up to ``cap``."""

    base: float = 1.0
    cap: float = 300.0

    def delay(self, failures: int, error: ViduError | None = None, rng: Random = random.random) -> float:
        """Return the seconds to wait after ``failures`` failures in a row (1 is the first).

        The server's Retry-After is a lower bound. Up to a quarter is added to spread many waiting clients.
        """
        requested = (error.retry_after or 0.0) if error is not None else 0.0
        grown = min(self.base * 2.0 ** min(failures - 1, 30), self.cap)
        return max(grown, requested) * (1 + rng() / 4)


def may_repeat(error: ViduError, *, bills: bool) -> bool:
    """Whether the same request may be sent again.

    A create is repeated only if it was certainly not carried out: no connection was made, the service refused it with
    "too many requests", or a gateway reports that it forwarded nothing. After another 5xx or a lost answer, the outcome
    is unknown.
    """
    if not bills:
        return error.retryable
    if isinstance(error, exceptions.ViduTransportError):
        return not error.sent
    if error.generation_id is not None:
        return False  # [?] a refusal that names a generation does not prove that none was created
    return isinstance(error, (exceptions.ViduRateLimitError, exceptions.ViduUnavailableError))


def outcome_is_unknown(error: ViduError) -> bool:
    """Whether a create that ended with ``error`` may still have been carried out."""
    if isinstance(error, exceptions.ViduTransportError):
        return error.sent
    if isinstance(error, exceptions.ViduResponseError):
        # A redirect or a refusal in HTML stopped the request; an unreadable 200 did not, and 303 means "done".
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
"""Temporary refusals: one that names a generation may be about the one that this request created."""


class Attempts:
    """Counts the attempts of one request and decides after each error whether another one follows.

    :param max_retries: how often the request is repeated at most.
    :param bills: whether an unconditional repetition could pay twice.
    :param queues: whether the caller waits for a free slot itself, so that "too many" is not retried here.
    """

    def __init__(self, max_retries: int, *, bills: bool, queues: bool = False) -> None:
        self._left = max_retries
        self._failures = 0
        self._bills = bills
        self._queues = queues

    def after(self, error: ViduError) -> float:
        """Return the seconds to wait before the next attempt.

        :raises ViduError: ``error`` itself if the request must not be repeated, or not any more.
        """
        is_queued = self._queues and isinstance(error, exceptions.ViduRateLimitError)
        if is_queued or self._failures >= self._left or not may_repeat(error, bills=self._bills):
            raise error
        self._failures += 1
        return Backoff(base=1.0, cap=60.0).delay(self._failures, error)
