"""What an operator wants to know while a generation is under way: who polls, when next, until when. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow_provider_vidu.exceptions import ViduNotFoundError
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.polling.schedule import PollHistory, adaptive_interval, net_interval
from airflow_provider_vidu.polling.watch import PollPolicy
from airflow_provider_vidu.ui.clips.clears import fetched, is_by_hook, name_of
from airflow_provider_vidu.ui.clips.facts import BETWEEN_TRIES, Clip, TaskFacts
from airflow_provider_vidu.ui.clips.service import NOT_ASKED, Live, goes_on
from airflow_provider_vidu.ui.clips.times import UNKNOWN, iso, submitted
from airflow_provider_vidu.ui.clips.xcoms import MAKING

LONGEST_ESTIMATE: Final = timedelta(hours=12)
"""An end that is further away is not worth a guess."""
_THEN: Final = (
    "the generation that it is given then: this one, unless the task that submits was cleared as well. It pays nothing "
    "itself."
)
_GIVEN: Final = {"wait": f"It waits for {_THEN}", "download": f"It downloads the {{what}} of {_THEN}"}
"""What a task does after a clear whose generation another task submits."""
_UNLESS_NEW: Final = "unless the task has durable=False: then it submits a new one and pays for it."


def outlook(clip: Clip, generation: Generation | None, live: Live, now: datetime) -> dict[str, Any]:
    """Return what is known of a wait that goes on; what is not known is None.

    ``interval`` is the seconds between Airflow's polls (``is_adaptive``: about, at the moment; ``has_callback``: at
    most, because the service reports the end), ``is_slower`` whether this server's polls fail, of this clip or of
    another one of its connection: then they come less often, and Airflow's as well, as far as is known here.
    ``next_poll`` has the bounds of Airflow's first one after a deferral, ``deadline`` is when its timeout expires.
    """
    task = next((each for each in clip.tasks if each.role in MAKING and not each.has_ended), None)
    # What no task waits for, and the service does not show, may have ended long ago.
    begun = submitted(clip, generation) if task or live.generation else UNKNOWN
    return {
        "since": begun.as_json(),
        "asked_at": iso(live.asked_at),
        "answered_at": iso(live.answered_at),
        "is_slower": live.error is not None,
        **_waiting(task, generation, live, now),
        "ends": _end(clip, generation, live, now),
        "usual": {"seconds": clip.usual[0], "count": clip.usual[1]} if clip.usual else None,
    }


def next_try(clip: Clip, generation: Generation | None, live: Live = NOT_ASKED) -> dict[str, Any] | None:
    """Return when Airflow begins the next try of a task by itself, and what that does; None if none is to come.

    :param clip: the clip.
    :param generation: what is known of it, or None.
    :param live: what the service said, where it was queried.
    """
    if (task := clip.upcoming) is None:
        return None
    # Where the task that submits is not seen beside it, a clear may have given that one another generation.
    is_given = task.was_cleared is True and clip.paying is None and task.role in _GIVEN
    does = _GIVEN[task.role or ""].format(what=fetched(task)) if is_given else _next_does(task, generation, live)
    return retry_view(task, clip.next_try, does)


def retry_view(task: TaskFacts, at: datetime | None, does: str) -> dict[str, Any]:
    """Return what the pages show of a task that Airflow will begin once more.

    :param task: the task instance.
    :param at: when its next try may begin; None if that is not known.
    :param does: what that try will do.
    """
    return {
        "task": name_of(task),
        "number": task.try_number + (task.state in BETWEEN_TRIES),  # Airflow counts it when it schedules it
        "state": task.state,
        "was_cleared": task.was_cleared,
        "at": iso(at),
        "does": does,
    }


def begun_tries(task: TaskFacts) -> int:
    """Return how many tries of a task have begun: each of them has a log, and one that is to come has none yet."""
    return task.try_number - (task.begins_anew and task.state in ("scheduled", "queued"))  # counted when scheduled


def _next_does(task: TaskFacts, generation: Generation | None, live: Live) -> str:
    """Say what the next try of a task does, and what it pays; empty where its role does not tell."""
    if task.role == "download":
        if goes_on(generation, live):
            ended = "if the generation has ended by then, and fails if not"
            return f"It downloads the {fetched(task)} {ended}; nothing more is paid."
        only = "" if fetched(task) == "clip" else " (not the clip)"
        return f"It downloads the {fetched(task)} again{only}; nothing more is paid."
    if task.is_reuse or task.role is None or task.was_cleared is None:
        return ""
    if is_by_hook(task):
        return "What it submits and pays for, its own code decides."
    if task.role == "wait":
        return "It waits for the same generation; nothing more is paid."
    if task.was_cleared:
        return 'It submits a new generation and pays for it, unless the task has on_clear="resume".'
    if isinstance(live.error, ViduNotFoundError):
        return f"It fails if the service does not find this generation then, {_UNLESS_NEW}"
    if generation is None or not generation.failed:
        return f"It resumes this generation and pays nothing more, {_UNLESS_NEW}"
    if generation.is_transient or generation.was_cancelled:
        return "It submits a new generation and pays for it."
    return f"It fails again for the same reason and pays nothing more, {_UNLESS_NEW}"


def _waiting(task: TaskFacts | None, generation: Generation | None, live: Live, now: datetime) -> dict[str, Any]:
    """Return how Airflow waits for the generation: in which task, since when, and how often it polls."""
    if task is None:
        return dict.fromkeys(("task_id", "map_index", "waits", "waiting_since", "interval", "next_poll", "deadline"))
    return {
        "task_id": task.task_id,
        "map_index": task.map_index,
        "waits": _place(task, now),
        "waiting_since": iso(task.deferred_at),
        "is_adaptive": task.is_adaptive,
        "has_callback": task.has_callback,
        "interval": _interval(task, generation, live, now),
        "next_poll": _first_poll(task, now),
        "deadline": None if task.begins_anew else iso(task.deadline),  # the next try has a timeout of its own
    }


def _place(task: TaskFacts, now: datetime) -> str | None:
    """Return where the wait is: ``triggerer``, ``unassigned`` (no triggerer runs it), ``worker``, or None."""
    if task.state == "deferred":
        return "unassigned" if task.has_triggerer(now) is False else "triggerer"
    return "worker" if task.state == "running" and not task.begins_anew else None


def _interval(task: TaskFacts, generation: Generation | None, live: Live, now: datetime) -> float | None:
    """Return the seconds between polls: as set, or as the adaptive schedule has them in this state and at this age."""
    if _place(task, now) not in ("triggerer", "worker"):
        return None
    if not task.is_adaptive:
        return task.poll_interval
    begun = task.deferred_at or task.announced_at
    if generation is None or generation.is_done or begun is None:
        return None
    age = max((now - begun).total_seconds(), 0.0)
    if task.has_callback:  # only the triggerer knows whether callbacks arrive: without them, it polls more often
        return round(net_interval(age))
    if generation.status is GenerationStatus.WAITING:
        return round(adaptive_interval(PollHistory(age=age, queued_at=age)))
    since = live.waiting_until or begun
    return round(adaptive_interval(PollHistory(age=age, started=min(max((since - begun).total_seconds(), 0.0), age))))


def _first_poll(task: TaskFacts, now: datetime) -> dict[str, str | None] | None:
    """Return between which times the trigger's first poll falls, while it is still to come."""
    if _place(task, now) != "triggerer" or task.deferred_at is None or not (task.is_adaptive or task.poll_interval):
        return None
    if task.has_callback:  # it is later once callbacks have arrived
        return None
    policy = PollPolicy.for_trigger(task.poll_interval)
    earliest = task.deferred_at + timedelta(seconds=policy.first_delay(rng=lambda: 0.0))
    latest = task.deferred_at + timedelta(seconds=policy.first_delay(rng=lambda: 1.0))
    return {"since": iso(earliest), "at": iso(latest)} if now < latest else None


def _end(clip: Clip, generation: Generation | None, live: Live, now: datetime) -> dict[str, Any] | None:
    """Return when the generation should end: by its progress, else by the other clips of its task."""
    progress = generation.progress if generation and not generation.is_done else None
    if progress is not None and live.first_progress is not None and live.answered_at is not None:
        first, seen_at = live.first_progress
        if first < progress < 100:
            left = (live.answered_at - seen_at) / (progress - first) * (100 - progress)
            at = live.answered_at + left
            if now < at < now + LONGEST_ESTIMATE:
                return {"at": iso(_minute_free(at)), "by": "progress"}
    begun = clip.main.announced_at or clip.main.started_at
    if clip.usual is not None and begun is not None:
        at = begun + timedelta(seconds=clip.usual[0])
        return {"at": iso(_minute_free(at)), "by": "others"}
    return None


def _minute_free(moment: datetime) -> datetime:
    """Return an estimate without the fractions of a second that it does not have."""
    return moment.astimezone(UTC).replace(microsecond=0)
