"""What a batch reports: the manifest with a line of JSON per row, the summary, and what ends it. Decisions, no I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_vidu.api.dialects.levels import seed_of
from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.arguments import Settings
from airflow_provider_vidu.batches.jobs import Open
from airflow_provider_vidu.batches.lines import FAILED, STORED, EndedRow, Line, Lines
from airflow_provider_vidu.batches.rows import Row
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.artifacts import Artifact
from airflow_provider_vidu.common.progress import duration
from airflow_provider_vidu.common.text import sentence
from airflow_provider_vidu.common.values import mapping, strict_int, text, whole
from airflow_provider_vidu.exceptions import (
    ViduBatchFailedError,
    ViduBatchIncompleteError,
    ViduError,
    ViduGenerationInterruptedError,
    ViduTimeoutError,
)
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.results import count_of
from airflow_provider_vidu.stores.base import StoredRecord

GROWTH: Final = 1.1
"""The manifest is written when it has grown by this factor, so that a long batch does not write it at every leg."""
MAX_SHOWN_CHARS: Final = 300
"""How much of a prompt the manifest repeats."""
MOST_SHOWN: Final = 3
"""How many errors a message names."""
MOST_ERRORS: Final = 50
"""How many classes of errors the summary counts. There are fewer, but a forged journal may name any."""
RETRIED: Final = " A retry submits it again."
"""How the reason of a row ends that failed for a temporary reason: true as long as its task has a retry left."""
_FACTS: Final = ("duration", "fps", "width", "height")


def manifest_name(batch: str) -> str:
    """Return the name of a batch's manifest, beside its files."""
    return f"{batch}.manifest.jsonl"


def stored_line(
    row: Row,
    job: Open,
    generation: Generation,
    record: StoredRecord,
    ended: float,
    now: float,
    artifact: Artifact | None = None,
) -> Line:
    """Return the line of a row whose file is stored.

    :param job: the row's generation, as it was submitted.
    :param generation: as it was last fetched.
    :param ended: when it was seen to have ended, in epoch seconds.
    :param now: epoch seconds.
    :param artifact: which file of the generation it is; None for the result.
    """
    count = count_of(generation, artifact)
    creation = generation.creations[0]
    facts = {name: getattr(creation, name) for name in _FACTS}
    return {
        **_of(row, STORED, job),
        "generation_id": job.id,
        "uri": record.uri,
        "size": record.size,
        "sha256": record.sha256,
        "content_type": record.content_type,
        **{name: value for name, value in facts.items() if value is not None},
        **({"creations": count} if count > 1 else {}),
        **_spent(job, generation),
        **_times(job, ended, now),
        "took": round(_took(job, generation, ended), 1),
        "request": job.request,
        **_shared(job),
        "error": None,
    }


def failed_line(
    row: Row,
    error: ViduError,
    now: float,
    *,
    job: Open | None = None,
    generation: Generation | None = None,
    is_paid: bool = False,
) -> Line:
    """Return the line of a row that has failed.

    :param job: its generation, if it was submitted.
    :param is_paid: whether the generation has succeeded, or may still succeed: then it is never ordered again.
    """
    details = {name: value for name, value in error.details().items() if value is not None}
    line = {
        **_of(row, FAILED, job),
        "generation_id": job.id if job is not None else error.generation_id,
        "error": {**details, "retryable": error.retryable},
    }
    if job is not None:
        line |= {**_spent(job, generation), **_times(job, None, now), "request": job.request, **_shared(job)}
        line |= {"endpoint": job.endpoint, "paid": True} if is_paid else {}
    return line


def reused_line(row: Row, earlier: Mapping[str, Any]) -> Line:
    """Return the line of a row that is served by the file of an equal order."""
    copied = {name: value for name, value in earlier.items() if name not in ("key", "index", "took", *shown_of(row))}
    return {**_of(row, STORED), **copied, "reused_from": earlier.get("reused_from") or earlier.get("generation_id")}


def _of(row: Row, status: str, job: Open | None = None) -> Line:
    """Return the beginning of a line: prompt and model are those that were ordered, as the row may be another now."""
    ordered = {} if job is None else {"prompt": job.prompt, "model": job.model}
    shown = {name: value for name, value in ordered.items() if value} or shown_of(row)
    return {"key": row.key, "index": row.index, "status": status, **shown}


def shown_of(row: Row) -> dict[str, Any]:
    """Return what manifest and pages repeat of a row's request: the beginning of its prompt, and its model."""
    body = row.arguments.get("body") or {}
    known = {name: text(row.arguments.get(name)) or text(body.get(name)) for name in ("prompt", "model")}
    return {name: value[:MAX_SHOWN_CHARS] for name, value in known.items() if value}


def _seed_of(row: Row) -> int | None:
    """Return the seed of a row's request; None if the service is to choose it, which 0 says, too."""
    given = [mapping(row.arguments.get(name)).get("seed") for name in ("body", "parameters")]
    return next((seed for seed in map(strict_int, map(whole, given)) if seed), None)


def _shared(job: Open) -> dict[str, Any]:
    return {"reused_from": job.id} if job.is_shared else {}


def _spent(job: Open, generation: Generation | None) -> dict[str, Any]:
    price, seed = job.credits, job.seed
    if generation is not None:
        price = price if generation.credits is None else generation.credits
        seed = seed or seed_of(generation.raw)
    return {"credits": price, "seed": seed}


def job_of(row: Row, generation: Generation, endpoint: str | None, request: str, now: float) -> Open:
    """Return what is kept of a generation that was just submitted."""
    seed = seed_of(generation.raw)
    return open_of(row, generation.id, now, endpoint, request, credits=generation.credits, seed=seed)


def open_of(row: Row, generation_id: str, at: float, endpoint: str | None, request: str, **known: Any) -> Open:
    """Return what is kept of a row's generation.

    :param at: when it was submitted, in epoch seconds.
    :param known: its price and its seed, if the create's answer holds them; otherwise the seed is the row's own.
    """
    known["seed"] = known.get("seed") or _seed_of(row)
    return Open(generation_id, at, endpoint=endpoint, request=request, index=row.index, **shown_of(row), **known)


def _times(job: Open, ended: float | None, now: float) -> dict[str, Any]:
    times: dict[str, Any] = {"submitted_at": _iso(job.at)}
    if ended is not None:
        times["ended_at"] = _iso(ended)
    return {**times, "finished_at": _iso(now)}


def _took(job: Open, generation: Generation, ended: float) -> float:
    """Return how long a generation took, in seconds: by the service's own times, or else until its end was seen."""
    seen = max(ended - job.at, 0.0)
    if generation.created_at is None or generation.completed_at is None:
        return seen
    reported = (generation.completed_at - generation.created_at).total_seconds()
    return reported if 0 < reported <= seen else seen


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def manifest(lines: Lines, rows: Sequence[Row], *, has_others: bool = False) -> list[bytes]:
    """Return the manifest: the lines of the rows that have ended, in the order of the rows, as JSON lines.

    :param has_others: whether other runs have rows in the batch, too; their lines follow.
    """
    own = [row.text for row in _ended(lines, rows)]
    if not has_others:
        return own
    keys = {row.key for row in rows}
    return own + [row.text for key, row in lines.ended.items() if key not in keys]


def _ended(lines: Lines, rows: Sequence[Row]) -> Iterator[EndedRow]:
    return (lines.ended[row.key] for row in rows if row.key in lines)


def is_due(before: int, now: int) -> bool:
    """Whether a manifest with ``before`` lines is to be written again, now that there are ``now``."""
    return _step(now) > _step(before)


def _step(count: int) -> int:
    return math.floor(math.log(count, GROWTH)) if count else -1


@dataclass(frozen=True, slots=True)
class Counts:
    """How the rows of a task have ended. The state may hold others: of other runs, or from before they were edited."""

    stored: int
    failed: int
    is_temporary: bool
    """Whether a retry may help one of the failed rows."""


def counts(state: BatchState, rows: Sequence[Row]) -> Counts:
    """Return how the rows of a task have ended."""
    ended = list(_ended(state.lines, rows))
    stored = sum(row.is_stored for row in ended)
    return Counts(stored, len(ended) - stored, any(row.is_retryable for row in ended))


def is_of_another_request(row: Row, line: Line | None, job: Open | None) -> bool:
    """Whether a row has, or waits for, a file that was ordered with another prompt or model, as far as these show it.

    :param line: its line, if it has one.
    :param job: its generation, if that is open.
    """
    if job is not None:
        known: dict[str, Any] = {"prompt": job.prompt, "model": job.model}
    elif line is not None and line["status"] == STORED:
        known = {name: line.get(name) for name in ("prompt", "model")}
    else:
        return False
    shown = shown_of(row)  # neither is kept by earlier versions
    return any(known.values()) and any(known[name] != shown.get(name) for name in known)


def summary(state: BatchState, rows: Sequence[Row], batch: str, uri: str, destination: str) -> dict[str, Any]:
    """Return the summary of a batch as plain JSON: counts, credits and where the manifest is, never the rows."""
    ended = counts(state, rows)
    size = reused = 0
    errors: Counter[str] = Counter()
    for row in _ended(state.lines, rows):
        line = row.line
        if row.is_stored:
            size, reused = size + line.get("size", 0), reused + ("reused_from" in line)
        else:
            errors[line["error"]["type"]] += 1
    return {
        "batch": batch,
        "rows": len(rows),
        "stored": ended.stored,
        "failed": ended.failed,
        "reused": reused,
        "left": len(rows) - ended.stored - ended.failed,
        "credits": state.credits,
        "bytes": size,
        "errors": dict(errors.most_common(MOST_ERRORS)),
        "manifest": uri,
        "destination": destination,
    }


def first_errors(state: BatchState, rows: Sequence[Row]) -> str:
    """Return the first errors of failed rows, for a message."""
    failed = [row for row in _ended(state.lines, rows) if not row.is_stored]
    shown = "; ".join(
        f"{line['key']}: {line['error']['message']}" for line in (row.line for row in failed[:MOST_SHOWN])
    )
    return shown + (f"; and {len(failed) - MOST_SHOWN} more" if len(failed) > MOST_SHOWN else "")


def progress(state: BatchState, rows: Sequence[Row]) -> str:
    """Return the progress of a batch in one clause."""
    left = sum(not state.knows(row.key) for row in rows)
    spent = f", {state.credits:g} credits" if state.credits else ""
    ended = counts(state, rows)
    failed = f", {ended.failed} failed" if ended.failed else ""
    is_open = f", {len(state.open)} open" if state.open else ""
    return f"{ended.stored} of {len(rows)} rows stored{failed}{is_open}, {left} to order{spent}"


def too_few(state: BatchState, rows: Sequence[Row], settings: Settings) -> ViduError:
    """Return the error of a batch in which too many rows have failed; a retry helps if one of them may succeed."""
    ended = counts(state, rows)
    kind = ViduBatchIncompleteError if ended.is_temporary else ViduBatchFailedError
    least = plan.least_stored(settings.min_success, len(rows))
    return kind(
        f"{ended.failed} of {len(rows)} rows failed, and min_success needs {least} files. "
        f"{sentence(first_errors(state, rows))} The manifest holds every reason.",
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
    return error.restated(ViduGenerationInterruptedError, f"{error.reason}.{RETRIED}")
