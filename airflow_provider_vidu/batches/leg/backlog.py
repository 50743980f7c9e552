"""The rows of a batch that are not ordered yet: which one is next, and whether it may be submitted now."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.arguments import Settings
from airflow_provider_vidu.batches.catalogue import Catalogue, Twins
from airflow_provider_vidu.batches.leg.capacity import Capacity
from airflow_provider_vidu.batches.leg.submitter import Submitter, is_searchable_at
from airflow_provider_vidu.batches.lines import STORED, Line
from airflow_provider_vidu.batches.manifest import counts, too_few
from airflow_provider_vidu.batches.rows import Row
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.exceptions import (
    ViduBudgetError,
    ViduConfigError,
    ViduError,
    ViduPricePendingError,
    ViduStorageError,
)
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.claims import SharedOrderError, never_sleep

if TYPE_CHECKING:
    from airflow_provider_vidu.batches.journal import Journal
    from airflow_provider_vidu.batches.leg.collecting import Collector
    from airflow_provider_vidu.batches.leg.spending import BatchSpending
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.orders.claims import Claim


WaitsFor = Literal["prices", "slot"]


class Backlog:
    """The rows that a leg has still to order.

    :param log: gets a line when the account is full.
    :param check: raises when the task is no longer wanted.
    """

    def __init__(
        self,
        settings: Settings,
        rows: Mapping[str, Row],
        *,
        journal: Journal,
        collector: Collector,
        submitter: Submitter,
        spending: BatchSpending,
        hook: ViduHook,
        log: Any,
        check: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._rows = rows
        self._journal = journal
        self._collector = collector
        self._submitter = submitter
        self._spending = spending
        self._hook = hook
        self._capacity = Capacity(hook, log)
        self._log = log
        self._check = check
        self._pending: deque[Row] = deque()
        self._twins: Twins | None = None
        self._kept_in: Catalogue | None = None
        self._refusals = 0
        self._resume_at: float | None = None
        self._doubtful = 0
        self.error: ViduError | None = None
        """What ends the batch once the open generations have ended; nothing more is submitted."""
        self.submitted = 0
        """How many generations this leg has submitted."""
        self._waits_for: WaitsFor | None = None

    @property
    def has_more(self) -> bool:
        """Whether a row is still to be submitted."""
        return bool(self._pending) and self.error is None

    @property
    def waits_for(self) -> WaitsFor | None:
        """What keeps the next row from being ordered beside the batch's own ``max_in_flight``; None if nothing does."""
        return self._waits_for if self.has_more else None

    @property
    def is_ready(self) -> bool:
        """Whether a row is still to be submitted, and the account is not known to be full."""
        return self.has_more and (self._resume_at is None or time.time() >= self._resume_at)

    @property
    def is_finished(self) -> bool:
        """Whether no row is left to order, and none waits for the outcome of a create or for an equal row."""
        return not self._pending and not self._state.intents and not self._twins

    def add(self, *rows: Row) -> None:
        """Add rows to those that are still to order."""
        self._pending.extend(rows)

    def share(self, catalogue: Catalogue, owner: str) -> None:
        """Let equal rows of the batch, and equal orders of other tasks, share one create.

        :param owner: names the batch in its claims.
        """

        def claim(request: str, endpoint: str | None = None) -> Claim:
            def look_up() -> None:
                if catalogue.find(request) is not None:  # by now: the row takes it when it is looked at again
                    raise SharedOrderError("")

            return catalogue.claim(request, owner, self._hook, endpoint, look_up, sleep=never_sleep)

        self._twins = Twins(catalogue, self._state, self._submitter.digest, claim, self._rows)
        self._submitter.claim = claim

    def keep_in(self, catalogue: Catalogue) -> None:
        """Add the files to a catalogue that serves no row of this leg: they may have replaced the files in it."""
        self._kept_in = catalogue

    def stop(self, error: ViduError) -> None:
        """Submit nothing more, because of an error; the first one counts."""
        self.error = self.error or error

    def ended(self, lines: Iterable[Line]) -> None:
        """Take note of rows that have ended."""
        self._check_failures()
        for line in lines:
            if self._twins is not None:
                self._twins.ended(line)
            elif self._kept_in is not None and line["status"] == STORED:
                self._kept_in.keep(line)

    def settle(self) -> None:
        """Decide the rows that waited for an equal one: its file serves them, or they are still to order."""
        if self._twins is None:
            return
        reused, again = self._twins.settled()
        if reused:
            self._journal.append(*reused)
        for key in (event["key"] for event in reused if event["e"] == "id"):
            self._collector.watch(self._rows[key], self._state.open[key])
        self.add(*again)

    def search(self) -> None:
        """Search for creates of unknown outcome, once a search can prove something.

        :raises ViduError: when the task is no longer wanted.
        """
        now = time.time()
        for key, intent in list(self._state.intents.items()):
            if self._is_late:  # a search may take minutes
                return
            if intent.is_lost and is_searchable_at(intent.record) <= now and self.error is None:
                self._check()
                row = self._rows.get(key, Row(key, -1))
                if (error := self._submitter.search(row, intent.endpoint, intent.record)) is not None:
                    self.error = None if self._is_late else error  # then the leg ends with its timeout
                    return
                if (job := self._state.open.get(key)) is not None and key in self._rows:
                    self._collector.watch(row, job)
                elif key in self._rows and not self._state.knows(key):
                    self._pending.appendleft(row)

    def submit_next(self) -> bool:
        """Submit the next row, or take the file of an equal one; return False if nothing may be submitted now.

        :raises ViduError: when the task is no longer wanted, or an outcome could not be recorded.
        """
        if not self.is_ready:
            return False
        self._check()
        if self._settings.is_dry:  # only since the task waits: a dry run begins no leg
            self.stop(ViduConfigError("dry_run was set while the batch waited. Clear the task without it to continue."))
            return False
        try:
            if self._is_late or not self._is_allowed():
                return False
        except ViduError as error:
            self.error = error
            return False
        row = self._pending.popleft()
        try:
            taken = None if self._twins is None else self._twins.taken(row)
            if taken is None:
                row = self._collector.checked(row)
        except ViduStorageError as error:
            self._pending.appendleft(row)
            self.stop(error)
            return False
        if taken is None:
            self._submit(row)
        elif isinstance(taken, dict):  # an equal order serves the row already; otherwise it will
            self._journal.append(taken)
        return True

    @property
    def has_room(self) -> bool:
        """Whether a slot is free for a row, as far as that is known without a request."""
        return self._capacity.known_room(self._settings.max_in_flight, self._in_flight) > 0

    def due_times(self) -> list[float]:
        """Return when something can be decided that cannot be decided now, in epoch seconds."""
        times = [is_searchable_at(intent.record) for intent in self._state.intents.values()]
        if self._resume_at is not None and self._pending:
            times.append(self._resume_at)
        if self._twins is not None and (due_at := self._twins.due_at) is not None:
            times.append(due_at)
        if self.is_ready and self._in_flight < self._settings.max_in_flight:
            # Others use the connection's slots, whose ends no trigger of this task sees.
            times.append(time.time() + plan.CROWDED_SECONDS)
        return times

    @property
    def _in_flight(self) -> int:
        return self._collector.in_flight + len(self._state.intents)

    @property
    def _state(self) -> BatchState:
        return self._journal.state

    @property
    def _is_late(self) -> bool:
        return self._state.deadline_of(self._journal.owner) <= time.time()

    def _check_failures(self) -> None:
        """Stop submitting if the batch cannot succeed any more, and the user wants that."""
        most_failed = len(self._rows) - plan.least_stored(self._settings.min_success, len(self._rows))
        # First by the known number, which includes other runs' rows: all would be counted again after each row.
        if self._settings.on_failure != "stop" or self._state.failed <= most_failed:
            return
        rows = tuple(self._rows.values())
        if counts(self._state, rows).failed > most_failed:
            self.stop(too_few(self._state, rows, self._settings))

    def _submit(self, row: Row) -> None:
        result = self._submitter.submit(row)
        if result.refusal is not None:
            self._pending.appendleft(row)
            self._refused(result.refusal, is_full=result.is_full)
            return
        if result.shared is not None:
            assert self._twins is not None
            self._twins.park(row, result.shared, result.since)
            return
        self._refusals, self._resume_at = 0, None
        self._doubtful = self._doubtful + 1 if result.is_lost else 0
        if self._doubtful >= plan.DOUBTFUL_CREATES:
            message = f"{self._doubtful} creates in a row had an unknown outcome, so nothing more is submitted."
            self.error = ViduError(message, conn_id=self._settings.vidu_conn_id)
        job = self._state.open.get(row.key)
        if result.is_lost or (job is not None and not job.is_shared):
            self._capacity.submitted()
        if job is not None:
            self.submitted += not job.is_shared
            self._collector.watch(row, job, done=_with_result(result.generation))
        elif row.key in self._state.lines:
            self._check_failures()

    def _refused(self, error: ViduError, *, is_full: bool) -> None:
        if not is_full:
            self.error = error
            return
        self._refusals += 1
        self._waits_for = "prices" if isinstance(error, ViduPricePendingError) else "slot"
        self._resume_at = time.time() + plan.probe_delay(self._refusals, error.retry_after)
        why = error.reason if isinstance(error, ViduPricePendingError) else f"The account is full ({error.reason})."
        self._log.info("%s %d rows wait.", why, len(self._pending))

    def _is_allowed(self) -> bool:
        """Whether the account and the budget allow one more generation now; note what it waits for.

        :raises ViduError: when they never will.
        """
        self._waits_for = None
        if self._capacity.room(self._settings.max_in_flight, self._in_flight) <= 0:
            self._waits_for = "slot" if self._in_flight < self._settings.max_in_flight else None
            return False
        if not self._may_spend():
            self._waits_for = "prices"
            return False
        return True

    def _may_spend(self) -> bool:
        """Whether the budget allows one more generation now; raises ViduError when it never will."""
        if self._capacity.has_floor:
            self._capacity.check()
        state, limit = self._state, self._settings.max_credits
        # No leg of this task learns the price of other rows: they are another run's, or were removed.
        own = [job for key, job in state.open.items() if key in self._rows]
        unpriced = [job for job in own if not job.credits and not job.is_shared]
        is_awaited = any(not job.marker for job in unpriced)  # one of the batch's own, which will name its price
        try:
            self._spending.check(queries=not is_awaited)
        except ViduBudgetError:
            raise
        except ViduPricePendingError as error:
            if not is_awaited:
                self._refused(error, is_full=True)
            return False
        except ViduError:
            if not state.intents and not any(job.marker for job in own):
                raise
            return False  # one of its own creates may have spent the rest: a search, or its end, names the price
        price = state.price
        if is_awaited and price is None and not state.stored and self._spending.is_limited:
            return False
        if limit is None:
            return True
        count = len(unpriced) + len(state.intents) if price is None else state.unpriced
        spent, stored = state.credits, state.stored
        return plan.check_credits(limit, spent, price, count, ended=stored, uncertain=state.uncertain)


def _with_result(generation: Generation | None) -> Generation | None:
    """Return a generation whose create's answer holds its result; there may be no query for it."""
    return generation if generation is not None and generation.succeeded and generation.video_url else None
