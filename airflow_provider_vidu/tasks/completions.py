"""Tracks generations until they finish and reports each once: the memory of an event source. Decisions, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from airflow_provider_vidu.api.dialects.task_list import ZONE_MARGIN_SECONDS, Listing, created_at
from airflow_provider_vidu.api.ids import checked_id, is_safe_id
from airflow_provider_vidu.common.values import epoch
from airflow_provider_vidu.events import make_event
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduNotFoundError
from airflow_provider_vidu.models import Generation, Snapshot
from airflow_provider_vidu.polling.watch import Failed, PollPolicy, Wait, Watch

KEPT: Final = 1000
"""How many reported ids are remembered. Older ones are covered by the time of their creation."""
KEPT_OPEN: Final = 1400
"""How many unfinished ids survive a restart; with the reported ones, less than the 64 KB that Airflow recommends."""
LATE_SECONDS: Final = 600.0
"""How late a generation may first appear on the list."""
KEPT_CHARS: Final = 60_000
"""How many characters of reported, and of unfinished, ids survive a restart: an id may have a thousand."""
MOST_WATCHED: Final = 5000
"""How many unfinished generations of the account are watched: as many as a round reads. Others are reported only if the
list still shows them after they finish."""
MOST_NAMED: Final = 20_000
"""The most generations that one trigger is given by name: a round begins a poll of each, and 100,000 held the loop of
all triggers for five seconds."""
FEW: Final = 10
"""Up to this many unfinished generations are polled one by one rather than searched for on further pages."""
_BETWEEN: Final = 16
"""Characters of JSON per id besides the id itself: its time and punctuation."""
HOPELESS_PAUSE: Final = 300.0
"""Seconds between two rounds while the service refuses the key. A wrong connection is retried sooner: that sends no
request, and at the first start of a deployment the DAG may exist before its connection."""


class CompletionTracker:
    """Takes the service's answers round by round, and returns an event for each generation that has finished.

    Named generations are polled one by one. Without names, the account's list shows which ones exist: those still
    running on it are not polled; those finished, or no longer listed, are polled by their id, so an event means the
    same in both cases.

    Reported generations are remembered by their id. Older ones are covered by the *line*: everything finished that was
    created up to that time, by the service's own clock, is old. So the memory stays small however long the list is.

    :param generation_ids: the watched ids; None for all generations on the list.
    :param since: epoch seconds; generations created before are never reported. None: those that finished before the
        first round are never reported. Named generations are always reported.
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
        self._reported: dict[str, float | None] = {}
        self._opened: dict[str, float] = {}
        self._at_work: set[str] = set()
        self._is_first = True
        self._is_full = False
        self._lacks_line = False
        self._may_filter = True
        self._failures = 0
        self._problem: str | None = None
        self._has_answer = False
        self._refused: dict[str, ViduError] = {}
        self._polled_at = 0.0
        self._resting: dict[str, float] = {}
        """The generations that the service refuses while it answers for others, each with the time of its next poll."""

    @property
    def is_failing(self) -> bool:
        """Whether the latest round had errors."""
        return self._failures > 0

    def memory(self) -> dict[str, Any]:
        """Return the state that another process needs to continue, as plain JSON."""
        reported = _newest(self._reported, KEPT)
        line = self._line
        if self.lists and len(reported) < min(len(self._reported), KEPT):
            # Ids that are dropped are covered by their time.
            dropped = list(self._reported.values())[: len(self._reported) - len(reported)]
            line = max(filter(None, [line, *dropped]), default=None)
        return {
            "told": reported,
            "times": [None if created is None else round(created) for created in map(self._reported.get, reported)],
            "line": line,
            "open": _newest(self._watches, KEPT_OPEN),
        }

    def remember(self, memory: object, now: float) -> None:
        """Continue from the memory of an earlier process; anything else is ignored.

        Users who may edit the asset's state can write any: an id that is refused would fail each round.
        """
        if not isinstance(memory, Mapping):
            return
        self._is_first = False
        reported, times = _list(memory.get("told")), memory.get("times")
        known = times if isinstance(times, list) and len(times) == len(reported) else [None] * len(reported)
        pairs = list(zip(reported, known, strict=True))[-KEPT:]
        self._reported = {name: _past(epoch(created) or None, now) for name, created in pairs if self._is_id(name)}
        self._line = _past(epoch(memory.get("line")) or None, now)
        # An older version stored ids alone, and read one page.
        self._lacks_line = "line" not in memory and bool(reported)
        if self.lists:
            for generation_id in filter(self._is_id, _list(memory.get("open"))[-KEPT_OPEN:]):
                self._watch(generation_id, now)

    def listing(self) -> Listing:
        """Return this round's walk through the account's list.

        It ends at a page without news, unless many unfinished generations are still to be seen: one more page is
        cheaper than polling them one by one.
        """
        unseen = set(self._watches)

        def enough(page: Sequence[Generation]) -> bool:
            unseen.difference_update(generation.id for generation in page)
            is_news = any(map(self._is_news, page))
            return walk.is_sorted and not self._is_first and not is_news and len(unseen) < FEW

        walk = Listing(created_from=self._begin(), enough=enough, is_bare=True)
        return walk

    def distrusts(self, walk: Listing) -> bool:
        """Whether an empty walk must be repeated without the time filter.

        That is so if a generation created after its beginning is known: the service interprets the time differently.
        """
        begin = self._begin()
        known = [*self._opened.values(), *filter(None, self._reported.values())]
        if walk.entries or begin is None or not any(created > begin for created in known):
            return False
        self._may_filter = False
        return True

    def drop_filter(self) -> bool:
        """Stop using the time filter, which the service refused; False if there was none."""
        if self._begin() is None:
            return False
        self._may_filter = False
        return True

    def listed(self, generations: Iterable[Generation], now: float) -> str | None:
        """Take the account's list, newest first; return a warning if it is too long to watch."""
        entries = list(generations)
        self._has_answer = True
        self._draw_line(entries, now)
        self._at_work, dropped = set(), 0
        for generation in reversed(entries):
            created = _created(generation, now)
            if not generation.is_done:
                self._at_work.add(generation.id)
            if generation.id in self._reported or generation.id in self._watches:
                self._note_time(generation.id, created)
            elif self._is_old(generation):
                if created is None or (self._line is not None and created > self._line):
                    self._report(generation.id, created)
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
            f"{len(self._watches):,} generations are watched, which is the maximum; {dropped:,} more are not, and are "
            "reported only if the list still shows them after they finish."
        )

    def to_poll(self, now: float) -> list[str]:
        """Return the ids to poll in this round, oldest first."""
        self._refused, self._polled_at = {}, now
        for generation_id in self._named:
            if generation_id not in self._reported:
                self._watch(generation_id, now)
        rest = {name for name, until in self._resting.items() if until > now}
        return [name for name in self._watches if name not in self._at_work and name not in rest]

    def saw(self, generation: Generation, now: float) -> tuple[dict[str, Any] | None, str | None]:
        """Take an answer; return the event if the generation has finished, and a line to log."""
        self._has_answer = True
        self._resting.pop(generation.id, None)
        result = self._watches[generation.id].saw(generation, now)
        note = f"Generation {generation.id}: {result.note}" if result.note else None
        if isinstance(result, Wait):
            return None, note
        self._report(generation.id, _created(generation, now))
        error = result.error if isinstance(result, Failed) else None
        return make_event(generation.id, generation, error), note

    def glimpsed(self, generation_id: str, snapshot: Snapshot, now: float) -> str | None:
        """Take the state of an unfinished generation from a list; return a line to log."""
        self._has_answer = True
        note = self._watches[generation_id].listed(snapshot, now).note
        return f"Generation {generation_id}: {note}" if note else None

    def missed(self, generation_id: str, error: ViduError, now: float) -> str | None:
        """Take a failed poll; return a line to log if the generation is given up."""
        watch = self._watches[generation_id]
        if not isinstance(error, ViduNotFoundError) or now - watch.since < self.policy.grace:
            if _is_refusal(error):
                self._refused[generation_id] = error
            return None
        self._report(generation_id)
        return f"Generation {generation_id} is no longer watched: {error}"

    def pause(self, errors: list[ViduError]) -> tuple[float, str | None]:
        """Return the seconds until the next round, and a line to log if the problem is new, different or over.

        A refusal of one generation does not slow the rounds of others, for which the service answers.
        """
        has_answer, self._has_answer = self._has_answer, False
        if has_answer and self._refused:
            refused, self._refused = self._refused, {}
            # One that the service does not find yet, right after its create, is polled in the next round.
            lasting = {name: error for name, error in refused.items() if not isinstance(error, ViduNotFoundError)}
            new = [error for name, error in lasting.items() if name not in self._resting]
            self._resting |= dict.fromkeys(lasting, self._polled_at + HOPELESS_PAUSE)
            own = set(map(id, refused.values()))  # of thousands, each is not compared with all others
            delay, note = self.pause([error for error in errors if id(error) not in own])
            if not new:
                return delay, note
            what = f"{new[0]} Polls of this generation are repeated every {HOPELESS_PAUSE:.0f} s"
            also = f"; the same applies to {len(new) - 1} others" if len(new) > 1 else ""
            return delay, f"{note} {what}{also}." if note else f"{what}{also}."
        if not errors:
            over = f"reachable again after {self._failures} rounds with errors" if self._failures else None
            self._failures, self._problem = 0, None
            return self.policy.delay(), over
        worst = min(errors, key=lambda error: error.retryable)
        self._failures += 1
        known, self._problem = self._problem, worst.reason
        delay = max(self.policy.backoff.delay(self._failures, error) for error in errors)
        if any(map(_is_refusal, errors)):
            delay = max(delay, HOPELESS_PAUSE)
        return delay, None if known == self._problem else f"{worst} Retrying in {delay:.0f} s, and from then on."

    def _is_id(self, name: object) -> bool:
        return isinstance(name, str) and is_safe_id(name)

    def _begin(self) -> float | None:
        """Return the time from which the list is read, in epoch seconds; None for the whole list."""
        if not self._may_filter:
            return None
        since = None if self._since is None else self._since - ZONE_MARGIN_SECONDS
        if self._is_first or self._line is None:
            return since
        begin = min([self._line, *self._opened.values()]) - ZONE_MARGIN_SECONDS
        return begin if since is None else max(begin, since)

    def _draw_line(self, entries: list[Generation], now: float) -> None:
        """Set the line in the first round, from the newest generation on the list."""
        if not (self._is_first and self._since is None) and not self._lacks_line:
            return
        known = [entry for entry in entries if self._is_first or entry.id in self._reported]
        times = [created for entry in known if (created := _created(entry, now)) is not None]
        if times:
            self._line = max(times) - (LATE_SECONDS if self._is_first else 0.0)
            self._lacks_line = False

    def _is_news(self, generation: Generation) -> bool:
        return not (generation.id in self._reported or generation.id in self._watches or self._is_old(generation))

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
            self._reported[generation_id] = created

    def _report(self, generation_id: str, created: float | None = None) -> None:
        self._watches.pop(generation_id, None)
        self._resting.pop(generation_id, None)
        opened = self._opened.pop(generation_id, None)
        self._reported[generation_id] = opened if created is None else created
        while len(self._reported) > max(KEPT, len(self._named)):
            # Ids that are dropped are covered by their time.
            dropped = self._reported.pop(next(iter(self._reported)))
            if self.lists and dropped is not None:
                self._line = max(dropped, self._line or dropped)


def _is_refusal(error: ViduError) -> bool:
    """Whether the service refuses something for good; a wrong connection sends no request."""
    return not error.retryable and not isinstance(error, ViduConfigError)


def _created(generation: Generation, now: float) -> float | None:
    """Return when a generation was created; None for a time that no zone explains: the line never goes back.

    :param now: epoch seconds.
    """
    return _past(created_at(generation), now)


def _past(seconds: float | None, now: float) -> float | None:
    return None if seconds is None or seconds > now + ZONE_MARGIN_SECONDS else seconds


def named(generation_ids: object) -> list[str] | None:
    """Return the checked ids of one or several generations, or raise ViduConfigError; None stays None."""
    if generation_ids is None:
        return None
    listed = [generation_ids] if isinstance(generation_ids, str) else generation_ids
    if not isinstance(listed, Iterable):
        return [checked_id(listed)]
    if not (checked := list(dict.fromkeys(map(checked_id, listed)))):
        raise ViduConfigError("generation_ids is empty: name generations, or omit it to watch the account.")
    if len(checked) > MOST_NAMED:
        raise ViduConfigError(f"generation_ids names more than {MOST_NAMED:,} generations: use several triggers.")
    return checked


def _newest(names: Collection[str], most: int) -> list[str]:
    """Return the last of ``names``, limited in number and in characters."""
    kept, left = [], KEPT_CHARS
    for name in list(names)[: -most - 1 : -1]:
        left -= len(name) + _BETWEEN
        if left < 0:
            break
        kept.append(name)
    return kept[::-1]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
