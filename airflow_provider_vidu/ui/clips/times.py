"""When the steps of a clip happened: facts where a time was reported, bounds where it was only observed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.ui.clips.facts import Clip
from airflow_provider_vidu.ui.clips.service import Live
from airflow_provider_vidu.ui.clips.xcoms import MAKING

NARROW: Final = timedelta(seconds=1)
"""Bounds that are no further apart are shown as one time."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened: at ``at``, or before it, and then not before ``since``.

    :param at: the time itself, or the earliest time by which it had happened; None where neither is known.
    :param since: for an observed moment, the last time at which it had not happened yet.
    """

    at: datetime | None
    is_exact: bool = True
    since: datetime | None = None

    @property
    def exact(self) -> datetime | None:
        """The time, where it is a fact."""
        return self.at if self.is_exact else None

    def as_json(self) -> dict[str, Any]:
        """Return it as the pages get it."""
        return {"at": iso(self.at), "is_exact": self.is_exact, "since": iso(self.since)}


UNKNOWN: Final = Moment(None)


def observed(by: Iterable[datetime | None], not_before: Iterable[datetime | None] = ()) -> Moment:
    """Return a moment that observations bound.

    :param by: times by which it had happened. One that an observation of ``not_before`` contradicts is ignored.
    :param not_before: times at which it had not happened.
    """
    since = max((at for at in not_before if at), default=None)
    at = min((at for at in by if at and (since is None or at >= since)), default=None)
    if at is None:
        return UNKNOWN
    if since is not None and at - since <= NARROW:
        return Moment(at)
    return Moment(at, is_exact=False, since=since)


def submitted(clip: Clip, generation: Generation | None) -> Moment:
    """Return when the generation was submitted: as the service, or the order, recorded it."""
    created_at = (generation.created_at if generation else None) or clip.created_at
    return Moment(created_at) if created_at else observed([clip.main.announced_at])


def started(submit: Moment, live: Live) -> Moment:
    """Return when it began to run. The service does not say so: this server's polls bound it."""
    found = observed([live.running_since], [live.waiting_until])
    is_odd = found.at is not None and submit.at is not None and found.at < submit.at
    return UNKNOWN if is_odd else found


def ended(clip: Clip, generation: Generation, live: Live) -> Moment:
    """Return when the generation ended: as the service says, or between the observations that bound it."""
    if ended_at := generation.completed_at or generation.updated_at:
        return Moment(ended_at)
    result, stored_at = clip.result or (None, None)
    reported = stored_at if result is not None and result.is_done else None
    stored = [record.stored_at for record in clip.records]  # what is stored has ended before
    return observed(
        [reported, live.done_since, *stored, *_ends_of_tasks(clip, generation)], [live.busy_until, live.running_since]
    )


def _ends_of_tasks(clip: Clip, generation: Generation) -> list[datetime | None]:
    """Return when the tasks ended that ended because the generation did.

    A task that failed proves no success, and one whose timeout expired or that was killed ended before the generation.
    """
    proving = {"success"} if generation.succeeded else {"success", "failed"}
    waited = [task for task in clip.tasks if task.role in MAKING and task.state in proving and not task.was_marked]
    if clip.kills or generation.was_cancelled:
        return []
    return [task.ended_at for task in waited if not task.timed_out]


def timeline(clip: Clip, generation: Generation | None, live: Live) -> list[dict[str, Any]]:
    """Return the steps of a clip with their times, and whether these are facts or bounds."""
    records = [record for record in clip.records if not record.is_cover]
    stored_at = min((record.stored_at for record in records if record.stored_at), default=None)
    stored = Moment(stored_at) if stored_at else observed(task.result_at for task in clip.tasks if task.is_served)
    is_stored = bool(records) or clip.stage == "stored"
    status = generation.status if generation else None
    done = is_stored or bool(generation and generation.is_done)
    queued = submitted(clip, generation)
    running = started(queued, live)
    # A stored file proves that the generation has ended, whether the service can be queried or not.
    is_reported = generation is not None and generation.is_done
    end = ended(clip, generation, live) if generation and is_reported else observed([stored.at], [live.busy_until])
    failed = status is GenerationStatus.FAILED
    reached = {
        "queued": True,
        # The service does not say when it began: a row without a time says nothing once it is over.
        **({"running": done or status is GenerationStatus.RUNNING} if running.at or not done else {}),
        "failed" if failed else "done": done,
        # Once the run is over, no task stores it any more.
        **({} if failed or not (is_stored or not clip.run_is_over) else {"stored": is_stored}),
    }
    times = {"queued": queued, "running": running, "done": end, "failed": end, "stored": stored}
    return _with_durations([(name, times[name], is_reached) for name, is_reached in reached.items()])


def _with_durations(steps: list[tuple[str, Moment, bool]]) -> list[dict[str, Any]]:
    shown_steps: list[dict[str, Any]] = []
    before: datetime | None = None
    current = max((index for index, (_, _, reached) in enumerate(steps) if reached), default=0)
    for index, (name, time, reached) in enumerate(steps):
        exact = time.exact
        seconds = (exact - before).total_seconds() if exact and before else None
        shown_steps.append(
            {
                "name": name,
                **time.as_json(),
                "seconds": max(round(seconds, 1), 0) if seconds is not None else None,
                "reached": reached,
                "current": index == current,
            }
        )
        before = exact or before
    return shown_steps


def iso(moment: datetime | None) -> str | None:
    """Return a moment as text, or None."""
    return moment.isoformat() if moment else None
