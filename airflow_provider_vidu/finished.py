"""Which generations have finished, each told once: the memory of an event source. Decisions, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from airflow_provider_vidu.dialects import checked_id
from airflow_provider_vidu.events import Outcome, make_event
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduNotFoundError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.policy import PollPolicy, Watch

KEPT: Final = 1000
"""So many ids are remembered; the account's list shows no more than its newest ones anyway."""
HOPELESS_PAUSE: Final = 300.0
"""Seconds between two looks while the service refuses the key. A wrong connection is looked up sooner: that asks
nobody outside, and at the first start of a deployment the DAG may well be there before its connection."""


class Finished:
    """Takes what the service says, round by round, and gives back an event for each generation that has ended.

    Named generations are asked one by one. Without names the account's list tells which ones there are:
    those that it shows at work need no question, those that it shows as ended, or shows no longer, are
    asked by their id, so that an event means the same in both cases and no page of the list is missed.

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
        self._watches: dict[str, Watch] = {}
        self._told: dict[str, None] = {}
        self._at_work: set[str] = set()
        self._is_first = True
        self._failures = 0
        self._problem: str | None = None

    # -- what outlives a process ----------------------------------------------------------------

    def memory(self) -> dict[str, Any]:
        """Return what another process needs to go on, as plain JSON."""
        return {"told": list(self._told)[-KEPT:], "open": list(self._watches)[-KEPT:]}

    def remember(self, memory: object, now: float) -> None:
        """Go on from what an earlier process has kept; anything else is ignored."""
        if not isinstance(memory, Mapping):
            return
        self._is_first = False
        self._told = dict.fromkeys(_ids(memory.get("told")))
        if self.lists:
            for generation_id in _ids(memory.get("open")):
                self._watch(generation_id, now)

    # -- one round ------------------------------------------------------------------------------

    def listed(self, generations: Iterable[Generation], now: float) -> None:
        """Take the account's list, its newest first."""
        self._at_work = set()
        for generation in reversed(list(generations)):
            if not generation.is_done:
                self._at_work.add(generation.id)
            if generation.id in self._told:
                continue
            if self._is_old(generation):
                self._tell(generation.id)
            else:
                self._watch(generation.id, now)
        self._is_first = False

    def to_ask(self, now: float) -> list[str]:
        """Return the generations that must be asked by their id in this round, the oldest first."""
        for generation_id in self._named:
            if generation_id not in self._told:
                self._watch(generation_id, now)
        return [found for found in self._watches if found not in self._at_work]

    def saw(self, generation: Generation, now: float) -> tuple[dict[str, Any] | None, str | None]:
        """Take an answer; return the event if the generation has ended, and a line worth logging."""
        step = self._watches[generation.id].saw(generation, now)
        note = f"Generation {generation.id}: {step.note}" if step.note else None
        if not step.finished:
            return None, note
        self._tell(generation.id)
        return make_event(Outcome.of(step), generation.id, generation, step.error), note

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

    def _is_old(self, generation: Generation) -> bool:
        if self._since is not None and generation.created_at is not None:
            return generation.created_at.timestamp() < self._since
        return self._is_first and generation.is_done and generation.id not in self._watches

    def _watch(self, generation_id: str, now: float) -> None:
        if generation_id not in self._watches:
            self._watches[generation_id] = Watch(self.policy, generation_id=generation_id, since=now)

    def _tell(self, generation_id: str) -> None:
        self._watches.pop(generation_id, None)
        self._told[generation_id] = None
        while len(self._told) > max(KEPT, len(self._named)):
            del self._told[next(iter(self._told))]


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


def _ids(listed: object) -> list[str]:
    return [found for found in listed if isinstance(found, str)] if isinstance(listed, list) else []
