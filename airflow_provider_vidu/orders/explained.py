"""Errors of an order's generation, restated so that Airflow and the user do the right thing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.exceptions import (
    ViduError,
    ViduGenerationFailedError,
    ViduGenerationInterruptedError,
    ViduNotFoundError,
)
from airflow_provider_vidu.polling.failures import failure
from airflow_provider_vidu.tasks.deferral import not_resumed

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation


def failed(hook: ViduHook, generation: Generation) -> ViduError:
    """Return the error of a failed generation: retryable if a new submit may succeed."""
    error = failure(generation).with_context(conn_id=hook.vidu_conn_id)
    if not generation.is_transient:
        return error
    return error.restated(ViduGenerationInterruptedError, f"{error.reason}. A retry submits it again.")


@contextmanager
def explained_not_found(is_synchronous: bool) -> Iterator[None]:
    """Explain that the result of a synchronous product was only in the answer to an earlier try.

    It is not documented whether the query of other generations returns it, so that is tried first.
    """
    try:
        yield
    except ViduNotFoundError as error:
        if error.generation_id is None:
            raise
        if not is_synchronous:
            raise not_resumed(error, error.generation_id) from error
        message = (
            "An earlier try submitted this request, and the result was only in the answer to that try: the service "
            "does not keep it. Clear the task to submit, and pay for, a new generation."
        )
        raise error.restated(ViduNotFoundError, message) from error


@contextmanager
def explained_failure(hook: ViduHook, generation_id: str, endpoint: str | None, log: Any) -> Iterator[None]:
    """Raise the error of a failed generation as retryable if a new submit may succeed."""
    try:
        yield
    except ViduGenerationFailedError as error:
        try:
            generation = hook.get_generation(generation_id, endpoint=endpoint)
        except ViduError as unanswered:
            log.warning("Could not re-fetch the failed generation %s: %s", generation_id, unanswered)
            raise error from None
        if generation.failed:
            raise failed(hook, generation) from error
        raise
