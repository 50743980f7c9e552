"""What went wrong with a clip, what to do about it and what that costs, in plain words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_vidu import __version__
from airflow_provider_vidu.api.dialects.errors import failure_advice
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.defaults import DEFAULT_CONN_ID
from airflow_provider_vidu.exceptions import ViduConfigError, ViduNotFoundError, ViduRequestError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.polling.failures import trace_of
from airflow_provider_vidu.ui.clips.cards import model_of
from airflow_provider_vidu.ui.clips.clears import (
    cost_of_clear,
    credits_text,
    exceeded,
    fetched,
    is_by_hook,
    later_iterations,
    name_of,
)
from airflow_provider_vidu.ui.clips.facts import Action, Clip, TaskFacts
from airflow_provider_vidu.ui.clips.pieces import FATES, FileRecord
from airflow_provider_vidu.ui.clips.service import NO_FILE, Live, advice_of, goes_on, is_empty, why_empty
from airflow_provider_vidu.ui.clips.times import Moment, ended, submitted
from airflow_provider_vidu.ui.clips.xcoms import MAKING, PAYING
from airflow_provider_vidu.ui.playing.shelf import Lost

CLEARING: Final = " Clearing the task submits a new generation."
OWN_CONNECTION: Final = (
    "The API server cannot use the connection: it is missing there, or invalid. The tasks may have a working one "
    "nevertheless: see their log. An administrator finds the reason in the API server's log."
)
_SKIPPED: Final = "as when a run's timeout expires, another task of a DAG with fail_fast fails, or a user marks it so"
CLEAR_UPSTREAM: Final = "Clear the task that failed, with its downstream tasks."
CLEAR_DOWNLOAD: Final = (
    "Clear that task: the clip is paid for, and downloading it again costs nothing, if the service still has it."
)
NOTHING_THERE: Final = "The service returned no file: while it has none, clearing that task fails in the same way."
CLEAR_LATER: Final = "Clear that task once the cause is gone: downloading costs nothing."
TOO_EARLY: Final = (
    "The generation has not ended yet. Clear that task once it has: before, there is nothing to download. Downloading "
    "costs nothing. A ViduGenerationSensor before it waits for the end."
)
TEMPORARY: Final = "This failure is often temporary."
PAID_FOR: Final = "The generation itself succeeded and is paid for."
FAILED_STATES: Final = ("failed", "upstream_failed")
STORE_AGAIN: Final = (
    "To store it again without paying, run ViduDownloadOperator({known}, destination=…), if the service still has it."
)
UNREADABLE: Final = "{what} is kept by this deployment's XCom back end and cannot be read here."
BACK_END: Final = "The API server needs the settings of the back end, its packages and access to its store."
AGAIN: Final[Mapping[bool | None, str]] = {True: "task cleared", False: "task retries"}
LOST: Final[Mapping[Lost, str]] = {
    "missing": "file not found",
    "replaced": "file replaced",
    "kept": "earlier file kept",
}


def qualifier(clip: Clip, generation: Generation | None, lost: FileRecord | None) -> str | None:
    """Return what the state's word does not say: ``cancelled``, or what has become of the task or of the file.

    :param lost: the file of which the API server does not find any copy.
    """
    if clip.stage == "stored":
        return LOST[lost.lost] if lost is not None and lost.lost else None
    if generation is None:
        return None
    cancelled = "cancelled" if generation.was_cancelled else None
    if (upcoming := clip.upcoming) is not None and upcoming.role != "download":
        again = AGAIN.get(upcoming.was_cleared)
        return ", ".join(filter(None, (cancelled, again))) or None
    if generation.failed:
        return cancelled
    if clip.stage not in ("failed", "submitted"):
        return None
    if any(task.state == "failed" for task in clip.tasks):
        return "task failed"
    if clip.marked is not None:
        return "task marked"
    return f"task {clip.dropped.state}" if clip.dropped is not None else None


def failure_view(
    clip: Clip, generation: Generation | None, live: Live, lost: FileRecord | None = None
) -> dict[str, Any] | None:
    """Return what failed, why, what to do and what a clear costs; None where nothing did.

    :param lost: the file of which the API server does not find any copy.
    """
    if generation is not None and generation.failed:
        return _of_generation(clip, generation)
    if lost is not None:
        return _of_file(clip, lost)
    failures = (task for task in clip.tasks if task.state in FAILED_STATES and task.role is not None)
    failed = min(failures, key=lambda task: fetched(task) != "clip", default=clip.marked or clip.dropped)
    if failed is None or clip.stage in ("stored", "working"):
        return None
    if failed.role == "download":
        return _of_download(failed, generation, live)
    return _of_task(clip, failed, generation, live)


def _of_generation(clip: Clip, generation: Generation) -> dict[str, Any]:
    code = line(generation.error_code)
    reason = line(generation.error_message, 1000) or ("" if code else "The service gave no reason.")
    cancelled = generation.was_cancelled
    advice = _of_price(clip) if cancelled else failure_advice(generation).removesuffix(CLEARING)
    # No retry submits another one: its task is in another run, or has ended well, or the author's own code decides.
    is_others = clip.paying is None or clip.paying.role == "submit" or is_by_hook(clip.paying)
    if generation.is_transient and is_others and not cancelled:
        advice = TEMPORARY
    # A try that is to come replaces it, and begins by itself: a clear would not help.
    is_past = clip.upcoming is not None and clip.upcoming.role in PAYING
    return {
        "title": f"The generation{' of the earlier try' * is_past} {'was cancelled' if cancelled else 'failed'}",
        "code": code,
        "message": f"{_canceller(clip)} {reason}".strip() if cancelled else reason,
        "trace_id": line(trace_of(generation)),
        # What a clear does is said below, with the task's name and the price.
        "advice": f"{advice} {_to_notice(clip)}".strip(),
        "cost": f"{_charged(clip, generation)} {'' if is_past else cost_of_clear(clip)}".strip(),
    }


def _of_download(task: TaskFacts, generation: Generation | None, live: Live) -> dict[str, Any]:
    """Say that a clip is not stored, and what to do."""
    title, message, advice = "The clip is not stored", _why_failed(task), CLEAR_DOWNLOAD
    if _was_failed_since(task):
        title = "The task failed after it had stored its file"
    elif task.was_marked:
        title = "The clip may not be stored"
        message = f"{_marked(task)} Whether it has stored the file is not known; its log may say."
    elif task.state == "upstream_failed":
        title = "The clip was not stored again"
        message = _did_not_run(task)
        advice = CLEAR_UPSTREAM
    elif goes_on(generation, live):
        advice = TOO_EARLY
    elif generation is not None and is_empty(generation):
        advice = NOTHING_THERE
    elif generation is None or not generation.succeeded:  # that there is a clip is not known
        is_refused = isinstance(live.error, ViduNotFoundError | ViduRequestError)  # a clear fails in the same way
        advice = "" if is_refused else CLEAR_LATER
    cost = later_iterations([task])
    return {"title": title, "code": None, "message": message, "trace_id": None, "advice": advice, "cost": cost}


def _was_failed_since(task: TaskFacts) -> bool:
    """Whether a task is a failure for Airflow that has come to its end before: a user may mark any task so."""
    return task.state == "failed" and task.has_result


def _why_failed(task: TaskFacts, *, is_known_unmarked: bool = False) -> str:
    """Say why a task failed: the log of one that has come to its end does not, nor that of one that a user has ended.

    :param is_known_unmarked: whether Airflow's records show that no user has.
    """
    if _was_failed_since(task):
        return (
            f"The task {name_of(task)} has returned its result and is failed in Airflow: a user marked it since, or "
            "its log says why."
        )
    unless = "" if is_known_unmarked else ", unless a user marked it so"
    return f"The task {name_of(task)} failed; its log says why{unless}."


def _did_not_run(task: TaskFacts) -> str:
    """Say why a task has not run that has an id: what is known of it is of a try before a clear."""
    return f"The task {name_of(task)} was cleared and did not run: a task before it failed."


def _marked(task: TaskFacts, action: Action | None = None) -> str:
    """Say that a task is a success that has not come to its end, and who made it one, as far as that is known."""
    if action is not None and action.state == "success":
        what = "run" if action.of_run else f"task {name_of(task)}"
        return f"A user marked the {what} as success before the task had a result."
    return (
        f"The task {name_of(task)} is a success in Airflow without a result: a user marked it, or removed the result."
    )


def _of_file(clip: Clip, lost: FileRecord) -> dict[str, Any]:
    """Say that a stored file is not there any more, and how to get it again."""
    place = redacted(lost.uri, 400)
    title, message = FATES[lost.lost or "missing"]
    task = next((task for task in clip.tasks if task.record is not None and task.record.uri == lost.uri), clip.main)
    if task.begins_anew:  # what its next try does is said beside this
        advice = cost = ""
    elif task.role == "download" and task.state != "removed" and lost.lost != "kept":
        advice = f"Clear {name_of(task)}: it downloads the clip again, if the service still has it."
        cost = f"That costs nothing. {later_iterations([task])}".strip()
    else:
        advice, cost = (
            STORE_AGAIN.format(known=arguments(clip.generation_id, clip.conn_id, clip.endpoint)),
            cost_of_clear(clip, task),
        )
    message = message.format(place=place, size=lost.size)
    return {"title": title, "code": None, "message": message, "trace_id": None, "advice": advice, "cost": cost}


def _of_task(clip: Clip, task: TaskFacts, generation: Generation | None, live: Live) -> dict[str, Any]:
    """Say that a task failed, or was marked, whose generation did not, and how to get the clip without paying again."""
    why, ended = _why_ended(clip, task)
    known = arguments(clip.generation_id, clip.conn_id, clip.endpoint)
    wait, download = f"ViduGenerationSensor({known})", f"ViduDownloadOperator({known}, destination=…)"
    kept = next((record for record in clip.records if not record.is_cover and not record.lost), None)
    if isinstance(live.error, ViduNotFoundError) and kept is None:  # waiting, or a download, would fail in the same way
        title, state, advice = ended, "The service does not find the generation itself.", ""
        if generation is not None and generation.succeeded:
            state = f"{PAID_FOR} The service does not find it any more."
    elif generation is not None and is_empty(generation):
        title, state = f"{ended}, and there is no file", f"{PAID_FOR[:-1]}, but the service returned no file."
        advice = f"To look again without paying, run {wait}. If it finds none either, ask the service's support."
        if (reason := why_empty(clip.endpoint)) != NO_FILE:  # there is nothing to look for
            title, state, advice = ended, PAID_FOR, reason
    elif generation is not None and generation.succeeded:
        title, state = f"{ended}, the clip is fine", PAID_FOR
        advice = f"To use it without paying again, run {download}, or continue from {wait}."
        if kept is not None:
            advice = f"A task has stored its file at {redacted(kept.uri, 400)}: use that one."
    elif live.generation is not None and live.error is None:
        title, state = f"{ended}, the generation continues", "The generation itself is still under way."
        advice = f"To wait for it without paying again, run {wait}, then {download}."
    elif isinstance(live.error, ViduRequestError) and clip.paying is None:  # likewise: the id may be a typing error
        title, state, advice = ended, "The service refuses the query of the generation itself.", ""
    else:
        title, state = ended, "The state of the generation itself is not known; it may be fine."
        advice = f"To wait for it without paying again, run {wait}."
    advice, cost = f"{advice} {_of_price(clip)}".strip(), cost_of_clear(clip, task)
    return {"title": title, "code": None, "message": f"{why} {state}", "trace_id": None, "advice": advice, "cost": cost}


def _why_ended(clip: Clip, task: TaskFacts) -> tuple[str, str]:
    """Say why a task has no result, and in a title that it has none."""
    is_looked_up = clip.actions is not None and task is (clip.paying or clip.main)
    why, ended = _why_failed(task, is_known_unmarked=is_looked_up), "The task failed"
    if task.was_marked:
        why = _marked(task, next(iter(clip.kills if is_looked_up else ()), None))
        ended = "The task has no result"
    elif task.state == "upstream_failed":
        why, ended = _did_not_run(task), "The task did not run"
    elif task is clip.dropped:
        why, ended = _dropped(clip, task), f"The task was {task.state}"
    elif task.timed_out:
        why = f"The task {name_of(task)} failed: its timeout expired."
    elif (cap := exceeded(clip)) is not None and clip.credits is not None:
        price = credits_text(clip.credits)
        why = f"The task {name_of(task)} failed: the price, {price}, is above its max_credits ({cap:g})."
    elif clip.kills and clip.kills[0].state == "failed":
        why = f"A user marked the {'run' if clip.kills[0].of_run else f'task {name_of(task)}'} as failed."
    return why, ended


def _dropped(clip: Clip, task: TaskFacts) -> str:
    if task.state == "removed":
        return f"The task {name_of(task)} is not in the DAG any more, and Airflow has removed it without a result."
    if clip.kills:
        return f"A user marked the task {name_of(task)} as skipped before it had a result."
    return f"The task {name_of(task)} was skipped before it had a result, {_SKIPPED}."


def arguments(generation_id: str | None, conn_id: str | None, endpoint: str | None) -> str:
    """Return the arguments with which another task finds a generation.

    Without its connection the task would ask another account, which does not know it.
    """
    others = {"vidu_conn_id": conn_id if conn_id != DEFAULT_CONN_ID else None, "endpoint": endpoint}
    named = {"generation_id": generation_id, **{name: value for name, value in others.items() if value}}
    return ", ".join(f'{name}="{line(value, 300)}"' for name, value in named.items())


def _charged(clip: Clip, generation: Generation) -> str:
    """Say whether the credits of a failed generation came back, as far as the service reports it."""
    price, now = clip.credits, generation.credits
    if now == 0:
        was = f" ({price:g} at its create): they were returned, or never charged" if price else ""
        return f"The service reports a cost of 0 credits{was}."
    if now is not None:
        return f"The service reports a cost of {credits_text(now)}; it does not say whether they were returned."
    return "The service does not report whether the credits were returned: compare the balance."


def _of_price(clip: Clip) -> str:
    """Say what to do about a price above the cap; empty where it is not above it."""
    if clip.dropped is not None or exceeded(clip) is None:
        return ""
    return "If it may cost that much, raise max_credits before you clear the task."


def _to_notice(clip: Clip) -> str:
    """Say what follows of itself where a task still waits for what has failed; empty where none does."""
    task = next((task for task in clip.tasks if task.role in MAKING and not task.has_ended), None)
    if task is None or task.begins_anew:
        return ""
    return f"The task {name_of(task)} has not ended yet: once it learns of this, it fails, or Airflow retries it."


def _canceller(clip: Clip) -> str:
    """Say who cancelled a generation, as far as Airflow's records show it."""
    if (task := next((task for task in clip.tasks if task.timed_out), None)) is not None:
        return f"Airflow cancelled it: the timeout of the task {name_of(task)} expired."
    paying = clip.paying
    # Such as one that only submits; a task's own code may have cancelled what it has submitted.
    if paying is not None and paying.has_ended and paying.has_result and not is_by_hook(paying):
        return f"The task {name_of(paying)} had ended before that: it was cancelled at the service, or by other code."
    if clip.kills:
        action = clip.kills[-1]
        what = "run" if action.of_run else f"task {name_of(paying or clip.main)}"
        return f"Airflow cancelled it: a user marked the {what} as {action.state}."
    if (cap := exceeded(clip)) is not None and paying is not None:
        return f"Airflow cancelled it: its price is above the max_credits of the task {name_of(paying)} ({cap:g})."
    if paying is None:
        return (
            "No task of this run submitted it, or that task was cleared since: it was cancelled by the clear, in "
            "another run, or at the service."
        )
    if paying.state == "skipped":
        return f"Airflow cancelled it: the task {name_of(paying)} was skipped, {_SKIPPED}."
    if paying.was_cleared:
        return f"The task {name_of(paying)} was cleared since: the clear cancelled it, or the task's log says what did."
    if not paying.has_ended and not paying.begins_anew:
        return "Airflow's records do not show by what it was cancelled."
    # A task may be marked long after its end, and for another reason; what is known of an earlier try is not read.
    if clip.actions is None or paying.was_marked or not paying.has_ended:
        return f"The log of {name_of(paying)} says whether the task cancelled it."
    return (
        "Airflow's records show neither a timeout nor an action of a user that ended the wait: the task itself "
        "cancelled it because of its price or its execution_timeout, it was cancelled at the service, its worker was "
        "stopped, or a user marked several tasks at once, which Airflow may not record. "
        f"If the log of {name_of(paying)} says nothing of a cancel, it was cancelled at the service, or through a hook."
    )


def notice(clip: Clip, live: Live) -> dict[str, Any] | None:
    """Say in plain words why the state is not known, and nothing of the connection that its readers may not see."""
    if live.error is not None:
        # The class's words, not the error's own: host, port and type of a connection are not for every reader.
        return _notice(
            OWN_CONNECTION if isinstance(live.error, ViduConfigError) else advice_of(live.error, clip.endpoint),
            "The page retries." if live.error.retryable else "",
            code=line(live.error.code),
            trace_id=line(live.error.trace_id),
            is_old=live.generation is not None,
        )
    if clip.main.waiting_since is not None:
        return None
    if clip.generation_id is None:
        return _notice(
            UNREADABLE.format(what="The id of the generation"),
            BACK_END,
        )
    if any(task.is_too_large for task in clip.tasks) and live.generation is None and not clip.result:
        return _notice("The result of the task is too large, or kept where it cannot be read here.")
    if clip.conn_id or clip.result or clip.is_dry_run:
        return None
    return _notice("No task has noted the connection to query.")


def _notice(message: str, advice: str = "", **more: Any) -> dict[str, Any]:
    return {"message": message, "advice": advice, "code": None, "trace_id": None, "is_old": False, **more}


def support(clip: Clip, task: TaskFacts, generation: Generation | None, live: Live) -> str:
    """Return the facts that the service's support, or a colleague, needs: no prompt, no URL, no key; times in UTC."""
    error = failure_view(clip, generation, live) or {}
    known = notice(clip, live) or {}
    end = ended(clip, generation, live) if generation is not None and generation.is_done else Moment(None)
    rows = [
        ("Generation", line(clip.generation_id, 300)),
        ("State", line(generation.describe()) if generation else None),
        ("Error", " · ".join(filter(None, (error.get("code") or known.get("code"), error.get("message")))) or None),
        ("Trace id", error.get("trace_id") or known.get("trace_id")),
        ("Model", line(model_of(clip, generation))),
        ("Submitted", _told(submitted(clip, generation))),
        ("Ended", _told(end)),
        ("Connection", line(clip.conn_id)),
        ("DAG run", f"{task.dag_id} / {task.run_id}"),
        ("Task", f"{name_of(task)}, try {task.try_number}, {task.state or 'no status'}"),
        ("Provider", f"airflow-provider-vidu {__version__}"),
    ]
    return "\n".join(f"{name}: {value}" for name, value in rows if value)


def _told(moment: Moment) -> str | None:
    if moment.at is None:
        return None
    at = f"{moment.at:%Y-%m-%d %H:%M:%S} UTC"
    if moment.is_exact:
        return at
    return f"between {moment.since:%Y-%m-%d %H:%M:%S} and {at}" if moment.since else f"seen at {at}"


def line(value: Any, limit: int = 200) -> str | None:
    """Return a value as one redacted line, or None where there is nothing."""
    return redacted(value, limit) or None if value is not None else None
