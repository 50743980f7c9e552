"""Decides when one request for the states of many generations replaces their single queries. No clock, no I/O.

The official API lists up to 100 named tasks in one answer (``GET /ent/v2/tasks?task_ids=…``). That is documented, but
neither how the array is written nor what a reseller makes of it, so only answers count: :class:`ListTrust` tries the
spellings, and returns to single queries when the answers are not about the requested generations.
:class:`Gathering` collects the waits that become due at about the same time.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Snapshot
from airflow_provider_vidu.polling.retries import Backoff

T = TypeVar("T")

MOST_IDS: Final = 100
"""The largest page of the list, as documented."""
FEWEST_IDS: Final = 2
"""A single generation is queried: its answer holds the result, and the list's does not."""
WINDOW_SHARE: Final = 0.1
LONGEST_WINDOW: Final = 1.0
"""How long a due poll waits for others: this share of its interval, at most this many seconds."""
STEP_SECONDS: Final = 0.1
"""While polls are gathered, how often the number of due ones is checked."""

SHORTEST_REST: Final = 60.0
LONGEST_REST: Final = 3600.0
"""Seconds of single queries after a list that failed or proved nothing; doubled each time in a row."""
TRIED_FAILURES: Final = 2
PROVEN_FAILURES: Final = 3
"""After this many failures in a row the list rests if single queries work meanwhile, so that it does not use up the
failure budgets of the waits: fewer if it has never answered."""
AUDIT_SECONDS: Final = 60.0
"""How often one generation that the list shows as unfinished is queried as well."""
MOST_STALE_AUDITS: Final = 3
"""This many audits in a row that find a finished generation mean that the list lags behind."""

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_~.-]{1,64}")


class Form(enum.Enum):
    """How an array is written in a query string. The vendor does not document it."""

    REPEATED = "task_ids=1&task_ids=2"
    COMMA = "task_ids=1,2"
    JSON = 'task_ids=["1","2"]'


def may_be_listed(generation_id: str) -> bool:
    """Whether an id can be named in a list of ids, in every form and within the usual length of a URL."""
    return _PLAIN_ID.fullmatch(generation_id) is not None


def window(interval: float) -> float:
    """Return how many seconds a poll may wait for others, after ``interval`` seconds of waiting."""
    return min(max(interval, 0.0) * WINDOW_SHARE, LONGEST_WINDOW)


@dataclass(frozen=True, slots=True)
class StateList:
    """An answer of the list to named ids.

    :param states: the states by requested id, without those that the answer omits or contradicts itself about.
    :param is_foreign: whether it has entries that were not requested, so that it ignores the filter.
    :param has_more: whether there are further pages.
    """

    states: Mapping[str, Snapshot] = field(default_factory=dict)
    is_foreign: bool = False
    has_more: bool = False


class ListTrust:
    """What is known about the list of one service: which form of the filter it honours, and whether it works.

    Times are seconds of any clock that never goes back.
    """

    def __init__(self) -> None:
        self.size = MOST_IDS
        """How many ids one request names."""
        self.is_proven = False
        """Whether an answer has shown that the filter is honoured."""
        self._form = Form.REPEATED
        self._tried: dict[Form, StateList] = {}
        self._is_off = False
        self._failures = 0
        self._failed_at = float("-inf")
        self._has_query_worked = False
        self._paused_until = 0.0
        self._rests = 0
        self._rests_until = 0.0
        self._audit_at: float | None = None
        self._stale_audits = 0
        self._note: str | None = None
        self._is_noted = False

    @property
    def form(self) -> Form:
        """How the next request writes its ids."""
        return self._form

    @property
    def paused_until(self) -> float:
        """The time before which no further request is sent after a failed one."""
        return self._paused_until

    def is_in_use(self, now: float) -> bool:
        """Whether due generations are to be requested together."""
        return not self._is_off and now >= self._rests_until

    @property
    def is_certain(self) -> bool:
        """Whether several requests may be under way: not before the first good answer, nor after a failed one."""
        return self.is_proven and not self._failures

    def took(self, asked: int, answer: StateList, now: float) -> StateList | None:
        """Take an answer; return the states to use, or None if another form is to be tried or single queries remain.

        :param asked: how many ids the request named.
        """
        self._failures, self._has_query_worked, self._paused_until = 0, False, 0.0
        if not self.is_proven:
            return self._compared(asked, answer, now)
        if answer.is_foreign:
            self._end("answers with generations that were not requested")
            return None
        self._rests = 0
        if answer.has_more and FEWEST_IDS <= len(answer.states) < asked:
            self.size = len(answer.states)
        return answer

    def _compared(self, asked: int, answer: StateList, now: float) -> StateList | None:
        """Take the answer to a form that is tried: the first that shows all wins, else the one that shows most."""
        self._tried[self._form] = answer
        is_whole = len(answer.states) == asked and not answer.is_foreign
        left = [form for form in Form if form not in self._tried]
        if left and not is_whole:
            self._form = left[0]
            return None
        honest = {form: tried for form, tried in self._tried.items() if not tried.is_foreign}
        best = max(honest, key=lambda form: len(honest[form].states), default=None)
        self._tried, self._form = {}, best or Form.REPEATED
        if best is None:
            self._end("ignores the filter task_ids")
        elif len(honest[best].states) >= FEWEST_IDS:
            self.is_proven = True
            self._audit_at = now + AUDIT_SECONDS
            return self.took(asked, honest[best], now)
        else:
            self._rest(now, "showed at most one of the requested generations.")
        return None

    def failed(self, error: ViduError, now: float, sent_at: float | None = None) -> bool:
        """Take the error of a request; return whether it counts as a failed poll of every generation that was due.

        If it does not, the error is the list's own, and the generations are queried one by one.

        :param sent_at: when the request was sent; those that were sent before an earlier failure are part of it.
        """
        self._tried, self._form = {}, self._form if self.is_proven else Form.REPEATED
        if isinstance(error, exceptions.ViduConfigError):
            return False  # single queries report what is wrong with the connection
        if isinstance(error, exceptions.ViduAuthError) and self.is_proven:
            return True
        if not error.retryable:
            self._rest(now, f"is not available: {error.reason}")
            return False
        if sent_at is None or sent_at >= self._failed_at:
            self._count(error, now)
        return True

    def _count(self, error: ViduError, now: float) -> None:
        self._failures += 1
        self._failed_at = now
        self._paused_until = now + Backoff(base=1.0, cap=60.0).delay(self._failures, error)
        if self._has_query_worked and self._failures >= self._most_failures:
            self._rest(now, f"failed {self._failures} times in a row: {error.reason}")
            self._failures, self._has_query_worked = 0, False

    @property
    def _most_failures(self) -> int:
        return PROVEN_FAILURES if self.is_proven else TRIED_FAILURES

    @property
    def is_suspect(self) -> bool:
        """Whether the next failure is one too many, so that a query must show if anything works at all."""
        return 0 < self._failures >= self._most_failures - 1

    def was_too_large(self, now: float) -> None:
        """Name fewer ids per request, after an answer that exceeded a limit."""
        if self.is_proven and self.size > FEWEST_IDS:
            self.size = max(self.size // 4, FEWEST_IDS)
        else:
            self._rest(now, "answers with too much.")

    def audits(self, now: float) -> bool:
        """Whether one of the unfinished generations in an answer is to be queried as well; True once per interval."""
        if self._audit_at is None or now < self._audit_at:
            return False
        self._audit_at = now + AUDIT_SECONDS
        return True

    def audited(self, *, is_done: bool) -> None:
        """Take what a query found for a generation that the list showed as unfinished, or failed to show."""
        self._has_query_worked = True
        if self._failures:
            return
        self._stale_audits = self._stale_audits + 1 if is_done else 0
        if self._stale_audits >= MOST_STALE_AUDITS:
            self._end("shows generations as unfinished that have finished")

    def take_note(self) -> str | None:
        """Return why single queries are sent instead, once; None if there is nothing new to log."""
        note, self._note = self._note, None
        return note

    def _rest(self, now: float, reason: str) -> None:
        self._rests_until = now + min(SHORTEST_REST * 2.0 ** min(self._rests, 20), LONGEST_REST)
        self._rests += 1
        self._say(f"The list of tasks {reason} Until it works, each generation is queried by itself.")

    def _end(self, reason: str) -> None:
        self._is_off = True
        self._say(f"The list of tasks {reason}. From now on, each generation is queried by itself.")

    def _say(self, note: str) -> None:
        """Keep the first reason of each kind; a repeated error is not news."""
        if self._is_off or not self._is_noted:
            self._note, self._is_noted = note, True


class Gathering(Generic[T]):
    """Items that become due one after the other, and are taken in portions.

    A portion is complete when it is full, or when its first item has waited for its window.
    """

    def __init__(self) -> None:
        self._coming: list[tuple[float, int, float, T]] = []
        self._number = itertools.count()
        self._due: list[T] = []
        self._complete_at = 0.0

    def add(self, item: T, due: float, slack: float) -> None:
        """Add an item.

        :param due: the time at which it is due.
        :param slack: how many seconds it may wait for others then.
        """
        heapq.heappush(self._coming, (due, next(self._number), slack, item))

    def advance(self, now: float) -> None:
        """Note which items have become due."""
        while self._coming and self._coming[0][0] <= now:
            due, _, slack, item = heapq.heappop(self._coming)
            complete_at = due + slack
            self._complete_at = min(self._complete_at, complete_at) if self._due else complete_at
            self._due.append(item)

    def portion(self, size: int, now: float) -> list[T]:
        """Remove and return the next portion; empty if none is complete."""
        if len(self._due) < size and (not self._due or now < self._complete_at):
            return []
        portion, self._due = self._due[:size], self._due[size:]
        return portion

    def take_due(self) -> list[T]:
        """Remove and return all due items."""
        due, self._due = self._due, []
        return due

    def drop(self, is_dropped: Callable[[T], bool]) -> list[T]:
        """Remove and return the due items of a kind."""
        dropped = [item for item in self._due if is_dropped(item)]
        if dropped:
            self._due = [item for item in self._due if not is_dropped(item)]
        return dropped

    def next_at(self, now: float) -> float | None:
        """Return the next time at which something may be complete; None if there are no items."""
        soonest = self._coming[0][0] if self._coming else None
        if not self._due:
            return soonest
        return self._complete_at if soonest is None else min(self._complete_at, max(soonest, now + STEP_SECONDS))

    def clear(self) -> None:
        """Remove all items."""
        self._coming.clear()
        self._due.clear()
