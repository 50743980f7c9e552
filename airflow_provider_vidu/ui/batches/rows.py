"""The rows of a batch as the pages show them: each as a clip. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.batches.jobs import Intent, Open, row_name
from airflow_provider_vidu.batches.lines import STORED
from airflow_provider_vidu.batches.manifest import RETRIED
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import mapping, moment, text, whole
from airflow_provider_vidu.models import Artifact, Generation, GenerationStatus
from airflow_provider_vidu.orders.records import owner_named
from airflow_provider_vidu.ui.batches.listing import Entry, counts
from airflow_provider_vidu.ui.batches.published import Batch
from airflow_provider_vidu.ui.clips.clears import later_iterations
from airflow_provider_vidu.ui.clips.facts import Clip, TaskFacts
from airflow_provider_vidu.ui.clips.failures import CLEAR_UPSTREAM, CLEARING, STORE_AGAIN, TEMPORARY, arguments
from airflow_provider_vidu.ui.clips.outlook import begun_tries, retry_view
from airflow_provider_vidu.ui.clips.pieces import FileRecord
from airflow_provider_vidu.ui.clips.service import Live, is_empty
from airflow_provider_vidu.ui.clips.xcoms import record_in, slim, usable_id

_FROM_JOURNAL: Final = ("stored", "failed", "paid", "open", "unwanted", "unknown", "left", "credits", "deadline")
FACTS: Final = ("duration", "fps", "width", "height")
ADVICE: Final = "The manifest holds the reasons of all rows."
_UNLESS: Final = 'unless the task has on_clear="new": then it orders, and pays for, every row again.'
_AGAIN: Final = (
    "orders the rows without a file again, as far as its limits (max_credits, budget) allow, and pays for those only, "
    f"{_UNLESS}"
)
COST: Final = f"Clearing the task {_AGAIN}"
COST_LOST: Final = f"For the batch this row has its file: clearing the task does not store it again, {_UNLESS}"
COST_RESUMED: Final = f"That does not order this row again, {_UNLESS}"
_UNSEEN: Final = (
    'unless the generation was cancelled, or the task has on_clear="new": a clear orders a cancelled row again, and '
    'pays for it, and with "new" every row.'
)
COST_UNSEEN: Final = f"That does not order this row again, {_UNSEEN}"
RESUME: Final = "Clear the task: it resumes this row, and stores its file."
LOOK_AGAIN: Final = (
    "Clear the task: it looks for the file of this row again. If it finds none, ask the service's support."
)
COST_FAILED: Final = (
    "The batch does not know of that failure: the next clear of the task notes it, and the one after that orders this "
    f"row again, and pays for it, {_UNLESS}"
)
COST_NOT_FOUND: Final = (
    "The service does not find this generation, so its file cannot be stored: a clear of the task at most notes that; "
    f"a later one orders this row again, and pays for it, {_UNLESS}"
)
UNKNOWN: Final = "The outcome of this row's create is not known: it may be paid for."
SEARCHES: Final = (
    "The batch looks for the generation in the account's list by itself. It orders the row again only if the list "
    "proves that there is none."
)
SEARCH: Final = "Clear the task: it looks for the generation in the account's list, and stores its file if it is there."
COST_UNKNOWN: Final = (
    "If the list proves that there is none, the clear orders this row again, and pays for it. If it proves nothing, "
    f"the row fails, and the next clear orders it again, {_UNLESS}"
)
UNWANTED: Final = "The batch does not wait for this generation"
NOT_AMONG: Final = (
    "Its row is no longer among the rows of the task: unless it is put back there, no try and no clear stores its "
    "file, or orders it again."
)
FETCH: Final = (
    "To store the clip without paying again, run ViduDownloadOperator({known}, destination=…) once the generation has "
    "succeeded; its file is kept for a day."
)
OF_SERVICE: Final = ("since", "asked_at", "answered_at", "ends")
"""What an outlook says of the generation alone, not of the task that waits for it."""
CLEARS: Final = (RESUME, LOOK_AGAIN, SEARCH)
NOT_NOTED: Final = "The batch has not noted this yet: it does at its next poll, or in the next try of its task."
NOT_YET: Final = (
    "Do not clear the task before the batch has ended: that cancels what it has at the service, as far as the service "
    "allows, unless the task has cancel_on_kill=False."
)
COST_PAID: Final = f"The generation itself is paid for: clearing the task only stores its file for this row, {_UNLESS}"
COST_PAID_UNSEEN: Final = f"Clearing the task only stores its file for this row, {_UNSEEN}"
CLEAR_OF_OTHERS: Final = "The clear may also order other rows of the batch, and pays for those."
REMOVED: Final = "The task is not in the DAG any more, so clearing it orders and stores nothing."
RETRY: Final = (
    "It resumes what goes on at the service, orders the rows again that failed for a temporary reason, and those that "
    "are still to order, and pays for those only."
)
CLEARED: Final = f"It resumes what goes on at the service, {_AGAIN}"
OTHERS_STAY: Final = " The rows of other tasks that run this batch stay as they are."
SHARED: Final = (
    "Other tasks have run this batch, too, and this row may be one of theirs: a try or a clear of a task resumes and "
    "orders its own rows only."
)


def clip_of(batch: Batch, entry: Entry) -> Clip:
    """Return a row as the clip of its task."""
    line = entry.line
    job = entry.kept if isinstance(entry.kept, Open) else None
    held = line.get("generation_id") if job is None else job.id
    shown = {name: text(line.get(name) if job is None else getattr(job, name)) for name in ("prompt", "model")}
    submitted = entry.submitted
    note = {
        "conn_id": batch.conn_id,
        "role": "download" if entry.stage == "stored" else "wait" if entry.is_reused else "generate",
        "shared": entry.is_reused or None,
        "credits": entry.credits,
        "seed": whole(line.get("seed") if job is None else job.seed),
        "endpoint": line.get("endpoint") if job is None else job.endpoint,
        "created_at": submitted.isoformat() if submitted else None,
        **{name: batch.task.note.get(name) for name in ("try_number", "max_tries")},
    }
    task = replace(
        batch.task,
        generation_id=usable_id(held) if held else None,
        announced_at=submitted,
        started_at=submitted,
        ended_at=moment(line.get("finished_at")),
        deferred_at=None,
        resumes=batch.task.resumes and entry.stage == "submitted",
        state={"stored": "success", "failed": "failed"}.get(entry.stage, batch.task.state),
        watch={name: value for name, value in note.items() if value is not None},
        fields={name: value for name, value in {**shown, "vidu_conn_id": batch.conn_id}.items() if value},
        label=redacted(entry.key, 250),
    )
    if line:
        at = moment(line.get("finished_at"))
        task = replace(task, generation=_generation(task, line), record=_record(batch, line, at), result_at=at)
    return Clip(task.generation_id, [task], batch.is_over)


def with_state(batch: Batch, state: BatchState | None) -> Batch:
    """Return a batch with what its journal says of the tasks that have run it.

    Rows that are no longer this task's may be those of a task that has run it since.
    """
    if state is None or not state.has_others(owner_named(batch.task, batch.task.iteration)):
        return batch
    return replace(batch, is_shared=True, removed=0, unwanted=frozenset())


def view_of(batch: Batch, entry: Entry, view: dict[str, Any], live: Live) -> dict[str, Any]:
    """Return the view of a row's clip with what only a row has, and without what only a task has.

    :param view: of the card, or of the page.
    :param live: what the service said, where it was queried.
    """
    known: dict[str, Any] = {"row": entry.name, "key": redacted(entry.key, 250), "stage": entry.stage}
    if "task" in view:
        known["tasks"] = [view["task"]]  # the batch's own, with its own state
        known["next_try"] = next_try_of(batch)
        # Of the rows on a sheet, the batch's panel says so once.
        known["is_unattended"] = entry.stage == "working" and batch.is_unattended
        if known["is_unattended"] and view["outlook"]:
            known["outlook"] = {**view["outlook"], "waits": "unassigned"}
    if entry.stage == "submitted" and live.generation is None and view.get("state") == "failed":
        known["state"] = "unknown"  # its task has failed; its generation may go on, and is paid for
    if entry.is_reused:
        known["reused_from"] = redacted(text(entry.line.get("reused_from")) or view["generation_id"] or "", 300)
    found = {**view, **known, **_ended(batch, entry, {**view, **known}, live)}
    if entry.name in batch.unwanted:
        return {**found, **_unwanted(batch, found, live)}
    if found["error"]:
        before, after = SHARED if batch.is_shared else "", later_iterations([batch.task]) if batch.is_over else ""
        cost = found["error"]["cost"]
        others = CLEAR_OF_OTHERS if cost and batch.is_over and cost != COST else ""  # COST is of all rows
        cost = " ".join(filter(None, (before, cost, others, after)))
        found["error"] = {**found["error"], "cost": cost}
        if batch.task.state == "removed":
            found["error"] |= {"cost": REMOVED} | ({"advice": ""} if found["error"]["advice"] in CLEARS else {})
    return found


def _ended(batch: Batch, entry: Entry, view: Mapping[str, Any], live: Live) -> dict[str, Any]:
    """Return what is different in the view of a row once its line or its generation says how it has ended."""
    has_failed = live.generation is not None and live.generation.failed
    if isinstance(entry.kept, Intent):
        return _ended_unknown(batch, entry.kept, view)
    if not (line := entry.line):
        return {"error": _error_of_open(batch, view, live)}
    if entry.stage == "stored":
        # Only a file that is gone is wrong with it.
        again = STORE_AGAIN.format(known=arguments(view["generation_id"], batch.conn_id, text(line.get("endpoint"))))
        return {"error": view["error"] and {**view["error"], "advice": again, "cost": COST_LOST}}
    known: dict[str, Any] = {}
    if view["generation_id"] is None:  # its create was refused: there is nothing to wait for
        known = {"done": True, "outlook": None, "timeline": []}
    error = mapping(line.get("error"))
    is_paid = line.get("paid") is True
    if is_paid and has_failed:  # after the batch had given it up
        return {**known, "error": _error_since(view, text(error.get("message")) or "")}
    told = {
        "title": "The file of this row is not stored" if is_paid else "This row has failed",
        "code": redacted(text(error.get("code")) or text(error.get("type")) or "", 100) or None,
        "message": redacted((text(error.get("message")) or "").removesuffix(RETRIED), 1000),
        "trace_id": redacted(text(error.get("trace_id")) or "", 100) or None,
        "advice": _advice_on(error, live.generation if is_paid else None),
        "cost": _cost_of_clear(batch, is_paid=is_paid, is_seen=_is_seen(live)),
    }
    if is_paid and isinstance(live.error, exceptions.ViduNotFoundError):
        told |= {"advice": ADVICE, "cost": COST_NOT_FOUND if batch.is_over else told["cost"]}
    return {**known, "state": "failed", "qualifier": None, "notice": None, "error": told}


def _unwanted(batch: Batch, view: Mapping[str, Any], live: Live) -> dict[str, Any]:
    """Return what is different in the view of a row that was submitted, and is no longer among the batch's rows."""
    if live.generation is not None and live.generation.failed:
        error = {**view["error"], "advice": "", "cost": NOT_AMONG}
    elif "task" in view:
        advice = FETCH.format(known=arguments(view["generation_id"], batch.conn_id, None))
        error = {"title": UNWANTED, "code": None, "message": NOT_AMONG, "trace_id": None, "advice": advice, "cost": ""}
    else:  # of the rows on a sheet, the batch's panel says so once
        return {"error": None}
    outlook = {name: value for name, value in (view.get("outlook") or {}).items() if name in OF_SERVICE}
    return {"next_try": None, "is_unattended": False, "outlook": outlook or None, "error": error}


def _ended_unknown(batch: Batch, intent: Intent, view: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is different where a create is under way, or was lost: neither id nor generation are certain."""
    known: dict[str, Any] = {"notice": None, "error": None, "outlook": None, "timeline": []}
    if batch.is_over:  # also if its worker was killed in the middle of the create
        error = {"title": "It is not known whether this row has a generation", "code": None, "message": UNKNOWN}
        return {
            **known,
            "state": "unknown",
            "error": {**error, "trace_id": None, "advice": SEARCH, "cost": COST_UNKNOWN},
        }
    if intent.is_lost:
        known["notice"] = {"message": UNKNOWN, "advice": SEARCHES, "code": None, "trace_id": None, "is_old": False}
    return known


def _error_of_open(batch: Batch, view: Mapping[str, Any], live: Live) -> dict[str, Any] | None:
    """Return what is wrong with a row that the batch has not collected: its generation has failed, or the task alone.

    Of the task, only the row's own page says so: a retry or a clear resumes the row, and the batch's panel has the log.
    """
    if view["error"] is None:
        return None
    generation = live.generation
    has_failed = generation is not None and generation.failed
    if not batch.is_over:  # it fails alone, or is ordered again in the next try
        return {**view["error"], "advice": NOT_NOTED, "cost": ""} if has_failed else None
    if not has_failed:
        resume = CLEAR_UPSTREAM if batch.task.state == "upstream_failed" else _resume(generation)
        advice = view["error"]["advice"] and resume  # none where the service does not find the generation
        cost = COST_RESUMED if _is_seen(live) else COST_UNSEEN
        if isinstance(live.error, exceptions.ViduNotFoundError):
            cost = COST_NOT_FOUND
        return {**view["error"], "advice": advice, "cost": cost} if "task" in view else None
    return _error_since(view, "The batch's task has ended: its log says whether it cancelled its open generations.")


def _is_seen(live: Live) -> bool:
    """Whether the service has just said what a generation is: one that the end of its batch has cancelled shows it."""
    return live.generation is not None and live.error is None


def _cost_of_clear(batch: Batch, *, is_paid: bool, is_seen: bool) -> str:
    """Say what a clear does for a failed row; empty where the batch was cleared already, or is retried."""
    if batch.is_over:
        return (COST_PAID if is_seen else COST_PAID_UNSEEN) if is_paid else COST
    return "" if batch.task.begins_anew else NOT_YET


def _resume(generation: Generation | None) -> str:
    """Say how a row gets the file of a generation that has not failed."""
    return LOOK_AGAIN if generation is not None and is_empty(generation) else RESUME


def _error_since(view: Mapping[str, Any], cancelled: str) -> dict[str, Any]:
    """Return the error of a row whose generation has failed since the batch's task looked last.

    :param cancelled: what is known of a cancel. Such a row is ordered again by the next clear, any other by the second.
    """
    error = view["error"]
    if view["qualifier"] == "cancelled":
        return {**error, "message": redacted(cancelled, 1000), "cost": COST}
    is_temporary = error["advice"] == exceptions.ViduGenerationInterruptedError.advice  # it names what one clear does
    return {**error, "advice": TEMPORARY if is_temporary else error["advice"], "cost": COST_FAILED}


def _advice_on(error: Mapping[str, Any], generation: Generation | None) -> str:
    """Say what to do about the error of a row.

    :param generation: what the service says of it now, if it is paid for.
    """
    kind: Any = getattr(exceptions, text(error.get("type")) or "", None)
    if kind is exceptions.ViduTimeoutError and generation is not None and generation.succeeded:
        return _resume(generation)  # it has finished since
    if kind is exceptions.ViduGenerationInterruptedError:  # its own advice promises a retry
        return f"{TEMPORARY} {ADVICE}"
    if not isinstance(kind, type) or not issubclass(kind, exceptions.ViduError):
        return ADVICE
    return f"{kind.advice.removesuffix(CLEARING)} {ADVICE}"


def _generation(task: TaskFacts, line: Mapping[str, Any]) -> Generation | None:
    """Return what a line says of its generation."""
    error = mapping(line.get("error"))
    if task.generation_id is None or line.get("paid") is True:
        return None
    is_stored = line.get("status") == STORED
    try:
        return slim(
            Generation(
                id=task.generation_id,
                status=GenerationStatus.SUCCEEDED if is_stored else GenerationStatus.FAILED,
                model=text(line.get("model")),
                credits=whole(line.get("credits")),
                error_message=text(error.get("message")),
                created_at=moment(line.get("submitted_at")),
                completed_at=moment(line.get("ended_at")),
                artifacts=(Artifact.model_validate({name: whole(line.get(name)) for name in FACTS}),),
                raw={},
            )
        )
    except (ValidationError, RecursionError):
        return None


def _record(batch: Batch, line: Mapping[str, Any], at: datetime | None) -> FileRecord | None:
    """Return the file of a line, if it is in the batch's folder."""
    record = record_in(line, None, at)
    return record if record is not None and record.uri.startswith(batch.folder) else None


def next_try_of(batch: Batch) -> dict[str, Any] | None:
    """Return when Airflow begins the next try of a batch's task by itself; None if none is to come."""
    if not batch.task.begins_anew:
        return None
    does: dict[bool | None, str] = {True: CLEARED, False: RETRY, None: ""}
    done = f"{does[batch.task.was_cleared]}{OTHERS_STAY if batch.is_shared else ''}".strip()
    return retry_view(batch.task, batch.next_try, done)


def _deadline(task: TaskFacts, state: BatchState) -> float:
    """Return when the timeout of a task instance's latest try expires, in epoch seconds; 0 if unknown."""
    owner = owner_named(task, task.iteration)
    return state.deadline_of(owner) if owner in state.times_of or not state.times_of else 0.0


def batch_view(batch: Batch, state: BatchState | None) -> dict[str, Any]:
    """Return how far a batch is, as plain JSON.

    :param state: by its journal; None if that cannot be shown.
    """
    view: dict[str, Any] = {
        **batch.task.place,
        "name": redacted(batch.name, 300),
        "manifest": redacted(batch.manifest, 2000),
        "rows": batch.rows,
        "task_state": batch.task.state,
        "try_number": batch.task.try_number,
        "begun_tries": begun_tries(batch.task),
        "is_over": batch.is_over,
        "is_shared": batch.is_shared,
        "was_marked": batch.task.was_marked,
        "removed": REMOVED if batch.task.state == "removed" else None,
        "later": later_iterations([batch.task]),
        "next_try": next_try_of(batch),
        "waits_for": batch.waits_for,
    }
    if state is None:
        return {**view, **dict.fromkeys(_FROM_JOURNAL)}
    known = counts(state, is_over=batch.is_over)
    # Of the rows that are no longer its task's, the batch keeps what it has of them.
    count = batch.rows + batch.removed
    # The next try begins with a timeout of its own, and each run of a named batch has one.
    is_timed = not batch.is_over and not batch.task.begins_anew
    at = moment(_deadline(batch.task, state) or None) if is_timed else None
    return {
        **view,
        "rows": count,
        "stored": known["stored"],
        "failed": known["failed"],
        "paid": sum(row.is_paid for row in state.lines.ended.values()) if batch.is_over and known["failed"] else 0,
        "open": known["working"] + known["submitted"],
        "unwanted": len(batch.unwanted & {row_name(key) for key in state.open}) if batch.unwanted else 0,
        "unknown": len(state.intents) if batch.is_over else 0,
        "left": None if batch.is_shared else max(count - sum(known.values()), 0),
        "credits": whole(state.credits),
        "deadline": at.isoformat() if at else None,
    }
