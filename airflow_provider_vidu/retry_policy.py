"""A retry policy for Airflow ≥ 3.3: retries transient errors after the service's delay."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.exceptions import ViduConfigError, ViduError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, RetryDecision, RetryPolicy


def vidu_retry_policy(delay: timedelta | None = None) -> RetryPolicy:
    """Return a policy for the ``retry_policy`` argument of an operator.

    A transient error of this provider is retried after the service's delay (``Retry-After``) or ``delay``, whichever is
    longer, or after the task's ``retry_delay`` if there is neither. Its other errors fail the task at once. All other
    exceptions follow the task's own settings. ``retries`` stays the limit.

    :param delay: the shortest delay.
    :raises ViduConfigError: if ``delay`` is not a timedelta of 0 or more.
    :raises ImportError: on Airflow before 3.3, which has no retry policies.
    """
    if delay is not None and (not isinstance(delay, timedelta) or delay < timedelta()):
        raise ViduConfigError(f"delay must be a timedelta of 0 or more, not {delay!r}.")
    try:
        from airflow.providers.common.compat.sdk import RetryDecision, RetryPolicy
    except (ImportError, AttributeError) as error:
        raise ImportError(
            "vidu_retry_policy() needs Airflow 3.3 or later. On this version use retries and retry_delay: "
            "errors that a retry cannot fix fail the task at once anyway."
        ) from error

    class ViduRetryPolicy(RetryPolicy):  # type: ignore[misc, unused-ignore]  # of some Airflows it is Any
        """Retries errors of the provider according to their ``retryable`` and ``retry_after``."""

        def evaluate(
            self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
        ) -> RetryDecision:
            if not isinstance(exception, ViduError):
                return RetryDecision.default()
            if not exception.retryable:
                return RetryDecision.fail(reason=f"{type(exception).__name__} is not transient")
            named = None if exception.retry_after is None else timedelta(seconds=exception.retry_after)
            longest = max((wait for wait in (named, delay) if wait is not None), default=None)
            return RetryDecision.retry(delay=longest, reason=f"{type(exception).__name__} is transient")

        def serialize(self) -> dict[str, Any]:
            return {"__type": "ViduRetryPolicy", "delay": None if delay is None else delay.total_seconds()}

    return ViduRetryPolicy()
