"""The ready retry policy."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.retry_policy import vidu_retry_policy
from tests.rows import each_row

retry_policy = pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="policies came with Airflow 3.3")
Action = retry_policy.RetryAction


@each_row(
    ("error", "action", "delay"),
    [
        (exceptions.ViduServerError("x"), Action.RETRY, 30),
        (exceptions.ViduRateLimitError("x", retry_after=120), Action.RETRY, 120),
        (exceptions.ViduRateLimitError("x", retry_after=5), Action.RETRY, 30),
        (exceptions.ViduTimeoutError("x"), Action.FAIL, None),
        (exceptions.ViduAuthError("x"), Action.FAIL, None),
        (ValueError("x"), Action.DEFAULT, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_decisions(error, action, delay):
    """What may pass is retried with the server's delay, the rest fails, strangers are left to the task."""
    decision = vidu_retry_policy(timedelta(seconds=30)).evaluate(error, 1, 3)
    assert decision.action is action
    assert decision.retry_delay == (None if delay is None else timedelta(seconds=delay))


def test_it_serialises():
    """The policy tells Airflow what it is as plain JSON."""
    assert vidu_retry_policy().serialize() == {"__type": "ViduRetryPolicy", "delay": None}


@pytest.mark.parametrize("wrong", [5, "1 min", timedelta(seconds=-1)])
def test_a_delay_of_another_kind(wrong):
    """It is refused when the DAG is parsed, not when a task fails."""
    with pytest.raises(exceptions.ViduConfigError, match="delay must be a timedelta of 0 or more"):
        vidu_retry_policy(wrong)
