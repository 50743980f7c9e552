"""What ends a batch, and how it is worded. Decisions, no I/O."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.manifest import first_errors
from airflow_provider_vidu.batches.rows import Row
from airflow_provider_vidu.batches.settings import Settings
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.progress import duration
from airflow_provider_vidu.exceptions import (
    ViduBatchFailedError,
    ViduBatchIncompleteError,
    ViduError,
    ViduGenerationInterruptedError,
    ViduTimeoutError,
)
from airflow_provider_vidu.models import Generation


def progress(state: BatchState, rows: Sequence[Row]) -> str:
    """Return the progress of a batch in one clause."""
    left = sum(not state.knows(row.key) for row in rows)
    spent = f", {state.credits:g} credits" if state.credits else ""
    failed = f", {state.failed} failed" if state.failed else ""
    is_open = f", {len(state.open)} open" if state.open else ""
    return f"{state.stored} of {len(rows)} rows stored{failed}{is_open}, {left} to order{spent}"


def too_few(state: BatchState, rows: Sequence[Row], settings: Settings) -> ViduError:
    """Return the error of a batch in which too many rows have failed; a retry helps if one of them may succeed."""
    is_temporary = bool(state.failed_keys(retryable_only=True))
    kind = ViduBatchIncompleteError if is_temporary else ViduBatchFailedError
    least = plan.least_stored(settings.min_success, len(rows))
    return kind(
        f"{state.failed} of {len(rows)} rows failed, and min_success needs {least} files. "
        f"{first_errors(state.lines.values())}. The manifest holds every reason.",
        conn_id=settings.vidu_conn_id,
    )


def stopped(error: ViduError, state: BatchState, rows: Sequence[Row], settings: Settings) -> ViduError:
    """Return the error that ends a batch, with the progress in it."""
    if not isinstance(error, (ViduBatchFailedError, ViduBatchIncompleteError)):
        error.reason = f"{error.reason.rstrip('.')}. The batch stopped: {progress(state, rows)}. Its files are kept."
    return error.with_context(conn_id=settings.vidu_conn_id)


def timed_out(state: BatchState, rows: Sequence[Row], settings: Settings) -> ViduTimeoutError:
    """Return the error of a batch whose timeout has expired."""
    cancelled = " Open generations were cancelled as far as the service allows." if settings.cancel_on_kill else ""
    return ViduTimeoutError(
        f"The timeout of {duration(settings.timeout)} expired: {progress(state, rows)}.{cancelled} Raise the timeout "
        "and clear the task to continue.",
        conn_id=settings.vidu_conn_id,
    )


def repeatable(error: ViduError, generation: Generation | None) -> ViduError:
    """Return the error of a failed generation as retryable if a new submit may succeed."""
    if generation is None or not generation.failed or not (generation.is_transient or generation.was_cancelled):
        return error
    return error.restated(ViduGenerationInterruptedError, f"{error.reason}. A retry submits it again.")
