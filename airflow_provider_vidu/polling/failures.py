"""The errors that end a wait: of a generation that has failed, and of polls that have. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import mapping, trace_id
from airflow_provider_vidu.exceptions import ViduError, ViduGenerationFailedError
from airflow_provider_vidu.models import Generation


def is_doubtful(generation: Generation) -> bool:
    """Whether an answer reports a failure but holds no id.

    Every documented answer holds an id [doc]; ``{"status": "error", "message": …}`` alone may be about the request.
    """
    return generation.failed and bool(generation.raw) and not _holds_id(generation.raw)


def failure(generation: Generation) -> ViduGenerationFailedError:
    """Return the error for a failed generation, with the service's reason or else its whole answer."""
    reason = generation.error_message or generation.error_code
    detail = redacted(reason) if reason else f"no reason was given; the whole answer: {redacted(generation.raw, 600)}"
    return ViduGenerationFailedError(
        f"The generation ended as {generation.provider_status!r}: {detail}",
        generation_id=generation.id,
        code=generation.error_code,
        trace_id=trace_of(generation),
    )


def trace_of(generation: Generation) -> str | None:
    """Return the id under which the service's support finds a generation, if the answer names one."""
    data = mapping(generation.raw.get("data"))
    return next(filter(None, map(trace_id, (generation.raw, data, mapping(data.get("data"))))), None)


def _holds_id(value: Any, depth: int = 0) -> bool:
    if isinstance(value, Mapping):
        if value.get("id") or value.get("task_id"):
            return True
        value = list(value.values())
    return depth < 3 and isinstance(value, list) and any(_holds_id(inner, depth + 1) for inner in value)


def given_up(error: ViduError, summary: str) -> ViduError:
    """Return the error that ends a wait whose generation may be fine: with advice, in a class that may be retried."""
    message = f"{summary} The generation itself may be fine: wait for it again by its id"
    if error.retryable:
        error.reason = f"{message}."
        return error
    replacement = error.restated(ViduError, f"{message}, or let a retry resume the wait.")
    replacement.__cause__ = error
    return replacement
