"""Which generations have finished, each told once: the memory of an event source. Decisions, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from airflow_provider_vidu.api.dialects import checked_id
from airflow_provider_vidu.api.dialects.task_list import ZONE_MARGIN_SECONDS, Listing, created_at
from airflow_provider_vidu.common.values import moment, number
from airflow_provider_vidu.events import make_event
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduNotFoundError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.polling.watch import Failed, PollPolicy, Wait, Watch

KEPT: Final = 1000
"""So many reported ids are remembered one by one. Older ones are remembered by the time of their creation."""
KEPT_OPEN: Final = 1400
"""So many unfinished ones outlive a restart; with the others that stays below the 64 KB that Airflow likes to store."""
LATE_SECONDS: Final = 600.0
"""How late the list may show a generation that it has not shown yet."""
KEPT_CHARS: Final = 60_000
"""So many characters of reported, and of unfinished ones, outlive a restart: an id may have a thousand."""
MOST_WATCHED: Final = 5000
"""So many unfinished ones of the account are watched: as many as a round reads. Others are told if they are listed once
they have ended."""
FEW: Final = 10
"""So many unfinished generations are asked one by one rather than looked for on further pages."""
_BETWEEN: Final = 16
"""Characters that an id and its time take in JSON beside the id."""
HOPELESS_PAUSE: Final = 300.0
"""Seconds between two looks while the service refuses the key. A wrong connection is looked up sooner: that asks
nobody outside, and at the first start of a deployment the DAG may well be there before its connection."""


class CompletionTracker:
    """Takes what the service says, round by round, and gives back an event for each generation that has ended.

    Named generations are asked one by one. Without names the account's list tells which ones there are:
    those that it shows at work need no question, those that it shows as ended, or shows no longer, are
    asked by their id, so that an event means the same in both cases.

    What was reported is remembered by its id, and what is older than the *line* by that alone: everything finished
    that was created up to it is old, by the service's own clock. So the memory stays small however long the list is.

    :param policy: intervals and backoff.
    :param generation_ids: what is watched; None for whatever the list shows.
    :param since: epoch seconds; what was created before is never told. None: what has ended before the
        first look is never told. Named generations are told whenever they have ended.
    """

    def __init__(
        self, policy: PollPolicy, generation_ids: Iterable[str] | None = None, since: float | None = None
    ) -> None:
        self.policy = policy
        self.lists = generation_ids is None
        self._named = tuple(generation_ids or ())
        self._since = since
        self._line: float | None = None
        self._watches: dict[str, Watch] = {}
        self._told: dict[str, float | None] = {}
        self._opened: dict[str, float] = {}
        self._at_work: set[str] = set()
        self._is_first = True
        self._is_full = False
        self._lacks_line = False
        self._may_filter = True
        self._failures = 0
        self._problem: str | None = None

    # -- what outlives a process ----------------------------------------------------------------

    def memory(self) -> dict[str, Any]:
        """Return what another process needs to go on, as plain JSON."""
        told = _newest(self._told, KEPT)
        line = self._line
        if self.lists and len(told) < min(len(self._told), KEPT):
            # What is forgotten by its id is remembered by its time.
            dropped = list(self._told.values())[: len(self._told) - len(told)]
            line = max(filter(None, [line, *dropped]), default=None)
        return {
            "told": told,
            "times": [None if created is None else round(created) for created in map(self._told.get, told)],
            "line": line,
            "open": _newest(self._watches, KEPT_OPEN),
        }

    def remember(self, memory: object, now: float) -> None:
        """Go on from what an earlier process has kept; anything else is ignored."""
        if not isinstance(memory, Mapping):
            return
        self._is_first = False
        told, times = _ids(memory.get("told")), memory.get("times")
        known = times if isinstance(times, list) and len(times) == len(told) else [None] * len(told)
        self._told = dict(zip(told, map(number, known), strict=True))
        line = moment(memory.get("line"))
        self._line = None if line is None else line.timestamp()
        # An older version has kept ids alone, and looked at one page.
        self._lacks_line = "line" not in memory and bool(told)
        if self.lists:
            for generation_id in _ids(memory.get("open")):
                self._watch(generation_id, now)

    # -- one round ------------------------------------------------------------------------------

    def listing(self) -> Listing:
        """Return the walk through the account's list that this round needs.

        It goes back to where everything is known: a page without news ends it, unless many unfinished generations are
        still to be seen, which one page shows cheaper than questions one by one.
        """
        unseen = set(self._watches)

        def enough(page: Sequence[Generation]) -> bool:
            news = [found for found in page if self._is_news(found)]
            unseen.difference_update(found.id for found in page)
            return walk.is_sorted and not self._is_first and not news and len(unseen) < FEW

        walk = Listing(created_from=self._begin(), enough=enough)
        return walk

    def distrusts(self, walk: Listing) -> bool:
        """Whether a walk that found nothing must be done again, without the filter by time.

        Something that was created after its beginning is known: the service reads the time otherwise.
        """
        begin = self._begin()
        if walk.entries or begin is None or not any(found > begin for found in self._times()):
            return False
        self._may_filter = False
        return True

    def drop_filter(self) -> bool:
        """List without the filter by time from now on, for the service refused it; False when there is none."""
        if self._begin() is None:
            return False
        self._may_filter = False
        return True

    def listed(self, generations: Iterable[Generation], now: float) -> str | None:
        """Take the account's list, its newest first; return a line worth logging when it is too much to watch."""
        found = list(generations)
        self._draw_line(found)
        self._at_work, dropped = set(), 0
        for generation in reversed(found):
            created = created_at(generation)
            if not generation.is_done:
                self._at_work.add(generation.id)
            if generation.id in self._told or generation.id in self._watches:
                self._note_time(generation.id, created)
            elif self._is_old(generation):
                if created is None or (self._line is not None and created > self._line):
                    self._tell(generation.id, created)
            elif len(self._watches) < MOST_WATCHED * (1 + generation.is_done):
                self._watch(generation.id, now)
                self._note_time(generation.id, created)
            else:
                dropped += 1
        self._is_first = False
        was_full, self._is_full = self._is_full, bool(dropped)
        if was_full or not dropped:
            return None
        return (
            f"{len(self._watches):,} generations are watched, which is the most; {dropped:,} more are not, and are "
            "reported only if the list still shows them when they have ended."
        )

    def to_ask(self, now: float) -> list[str]:
        """Return the generations that must be asked by their id in this round, the oldest first."""
        for generation_id in self._named:
            if generation_id not in self._told:
                self._watch(generation_id, now)
        return [found for found in self._watches if found not in self._at_work]

    def saw(self, generation: Generation, now: float) -> tuple[dict[str, Any] | None, str | None]:
        """Take an answer; return the event if the generation has ended, and a line worth logging."""
        result = self._watches[generation.id].saw(generation, now)
        note = f"Generation {generation.id}: {result.note}" if result.note else None
        if isinstance(result, Wait):
            return None, note
        self._tell(generation.id, created_at(generation))
        error = result.error if isinstance(result, Failed) else None
        return make_event(generation.id, generation, error), note

    def missed(self, generation_id: str, error: ViduError, now: float) -> str | None:
        """Take the failure of a question; return a line worth logging when the generation is given up."""
        watch = self._watches[generation_id]
        if not isinstance(error, ViduNotFoundError) or now - watch.since < self.policy.grace:
            return None
        self._tell(generation_id)
        return f"Generation {generation_id} is watched no longer: {error}"

    # -- between two rounds ---------------------------------------------------------------------

    def pause(self, errors: list[ViduError]) -> tuple[float, str | None]:
        """Return the seconds until the next round, and a line when the trouble is new, another or over."""
        if not errors:
            over = f"reachable again after {self._failures} rounds with errors" if self._failures else None
            self._failures, self._problem = 0, None
            return self.policy.delay(), over
        worst = min(errors, key=lambda error: error.retryable)
        self._failures += 1
        known, self._problem = self._problem, worst.reason
        delay = max(self.policy.backoff.delay(self._failures, error) for error in errors)
        if any(not error.retryable and not isinstance(error, ViduConfigError) for error in errors):
            delay = max(delay, HOPELESS_PAUSE)
        return delay, None if known == self._problem else f"{worst} Trying again in {delay:.0f} s, and from then on."

    def _times(self) -> list[float]:
        return [*self._opened.values(), *filter(None, self._told.values())]

    def _begin(self) -> float | None:
        """Return since when the list is read, in epoch seconds; None for as far back as it shows."""
        if not self._may_filter:
            return None
        since = None if self._since is None else self._since - ZONE_MARGIN_SECONDS
        if self._is_first or self._line is None:
            return since
        begin = min([self._line, *self._opened.values()]) - ZONE_MARGIN_SECONDS
        return begin if since is None else max(begin, since)

    def _draw_line(self, found: list[Generation]) -> None:
        """Set the line at the first look, by the newest generation that the list shows then."""
        if not (self._is_first and self._since is None) and not self._lacks_line:
            return
        times = [
            created
            for generation in found
            if (created := created_at(generation)) is not None and (self._is_first or generation.id in self._told)
        ]
        if times:
            self._line = max(times) - (LATE_SECONDS if self._is_first else 0.0)
            self._lacks_line = False

    def _is_news(self, generation: Generation) -> bool:
        return not (generation.id in self._told or generation.id in self._watches or self._is_old(generation))

    def _is_old(self, generation: Generation) -> bool:
        created = created_at(generation)
        if created is not None and self._since is not None and created < self._since:
            return True
        if not generation.is_done:
            return False
        if self._is_first and (self._since is None or created is None):
            return generation.id not in self._watches
        return created is not None and self._line is not None and created <= self._line

    def _watch(self, generation_id: str, now: float) -> None:
        if generation_id not in self._watches:
            self._watches[generation_id] = Watch(self.policy, generation_id=generation_id, since=now)

    def _note_time(self, generation_id: str, created: float | None) -> None:
        if created is None:
            return
        if generation_id in self._watches:
            self._opened[generation_id] = created
        else:
            self._told[generation_id] = created

    def _tell(self, generation_id: str, created: float | None = None) -> None:
        self._watches.pop(generation_id, None)
        opened = self._opened.pop(generation_id, None)
        self._told[generation_id] = opened if created is None else created
        while len(self._told) > max(KEPT, len(self._named)):
            # What is forgotten by its id is remembered by its time.
            dropped = self._told.pop(next(iter(self._told)))
            if self.lists and dropped is not None:
                self._line = max(dropped, self._line or dropped)


def named(generation_ids: object) -> list[str] | None:
    """Return the checked ids of one or several generations; None stays None.

    :raises ViduConfigError: when one of them cannot be an id.
    """
    if generation_ids is None:
        return None
    listed = [generation_ids] if isinstance(generation_ids, str) else generation_ids
    if not isinstance(listed, Iterable):
        return [checked_id(listed)]
    if not (checked := list(dict.fromkeys(checked_id(found) for found in listed))):
        raise ViduConfigError("generation_ids is empty: name generations, or leave it out to watch the account.")
    return checked


def _newest(names: Collection[str], most: int) -> list[str]:
    """Return the last of ``names``: as many as there may be, with as many characters as there may be."""
    kept, left = [], KEPT_CHARS
    for name in list(names)[: -most - 1 : -1]:
        left -= len(name) + _BETWEEN
        if left < 0:
            break
        kept.append(name)
    return kept[::-1]


def _ids(listed: object) -> list[str]:
    return [found for found in listed if isinstance(found, str)] if isinstance(listed, list) else []
