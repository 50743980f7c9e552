"""A ready retry policy for Airflow ≥ 3.3: retry what may pass, with the server's delay."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.exceptions import ViduConfigError, ViduError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, RetryDecision, RetryPolicy


def vidu_retry_policy(delay: timedelta | None = None) -> RetryPolicy:
    """Return a policy for the ``retry_policy`` argument of an operator.

    An error of this provider that may pass is retried after the delay the service has asked for
    (``Retry-After``), else after ``delay``, else after the task's ``retry_delay``; one that cannot
    pass fails at once. Errors of others follow the task's own settings. ``retries`` stays the limit.

    :param delay: the delay where the service has not named one.
    :raises ViduConfigError: when ``delay`` is none.
    :raises ImportError: on Airflow before 3.3, which has no retry policies.
    """
    if delay is not None and (not isinstance(delay, timedelta) or delay < timedelta()):
        raise ViduConfigError(f"delay must be a timedelta of 0 or more, not {delay!r}.")
    try:
        from airflow.providers.common.compat.sdk import RetryDecision, RetryPolicy
    except (ImportError, AttributeError) as error:
        raise ImportError(
            "vidu_retry_policy() needs Airflow 3.3 or later. On this version use retries and retry_delay: "
            "errors that a retry cannot mend fail at once anyway."
        ) from error

    class ViduRetryPolicy(RetryPolicy):  # type: ignore[misc, unused-ignore]
        """Retries errors of the provider by their ``retryable`` and ``retry_after``."""

        def evaluate(
            self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
        ) -> RetryDecision:
            if not isinstance(exception, ViduError):
                return RetryDecision.default()
            if not exception.retryable:
                return RetryDecision.fail(reason=f"{type(exception).__name__} cannot pass by itself")
            asked = None if exception.retry_after is None else timedelta(seconds=exception.retry_after)
            longest = max((wait for wait in (asked, delay) if wait is not None), default=None)
            return RetryDecision.retry(delay=longest, reason=f"{type(exception).__name__} may pass")

        def serialize(self) -> dict[str, Any]:
            return {"__type": "ViduRetryPolicy", "delay": None if delay is None else delay.total_seconds()}

    return ViduRetryPolicy()
