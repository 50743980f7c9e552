"""How often a request is repeated, and after what delay: pure decisions, without I/O."""

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
"""Seconds that a server's Retry-After is followed at most."""

Random = Callable[[], float]


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds a server asks to wait, capped at 600, or None if it does not say.

    ``retry-after-ms``, and ``retry-after`` as seconds or as an HTTP date are understood; a date in
    the past is 0, nonsense is None.

    :param headers: the answer's headers with lower-case names.
    :param now: the time to measure a date against; the current time if omitted.
    """
    milliseconds = number(headers.get("retry-after-ms"))
    if milliseconds is not None and milliseconds >= 0:
        return min(milliseconds / 1000, RETRY_AFTER_CAP)
    seconds = _seconds(headers.get("retry-after"), now)
    return None if seconds is None or seconds < 0 else min(seconds, RETRY_AFTER_CAP)


def _seconds(value: str | None, now: datetime | None) -> float | None:
    if value is None or (seconds := number(value)) is not None:
        return None if value is None else seconds
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

    :param max_retries: how often the request is repeated at most.
    :param bills: whether repeating it blindly could pay twice.
    :param queues: whether the caller waits for a free slot itself, so that "too many" is not repeated here.
    """

    def __init__(self, max_retries: int, *, bills: bool, queues: bool = False, backoff: Backoff | None = None) -> None:
        self._left = max_retries
        self._failures = 0
        self._bills = bills
        self._queues = queues
        self._backoff = backoff or Backoff(base=1.0, cap=60.0)

    def after(self, error: ViduError) -> float:
        """Return the seconds to wait before the next attempt.

        :raises ViduError: ``error`` itself when it must not or cannot be repeated any more.
        """
        is_queued = self._queues and isinstance(error, exceptions.ViduRateLimitError)
        if is_queued or self._failures >= self._left or not may_repeat(error, bills=self._bills):
            raise error
        self._failures += 1
        return self._backoff.delay(self._failures, error)
