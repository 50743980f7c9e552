"""One leg of a batch: it submits, polls and stores until the rows are finished, or deferring is worth it."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.catalogue import Catalogue, Twins
from airflow_provider_vidu.batches.leg.collecting import Collected, Collector, QuietHook, Stored, cancelled
from airflow_provider_vidu.batches.leg.spending import BatchSpending
from airflow_provider_vidu.batches.leg.submitting import Submitter, is_searchable_at
from airflow_provider_vidu.batches.manifest import (
    failed_line,
    is_due,
    manifest,
    progress,
    repeatable,
    stopped,
    stored_line,
    summary,
    timed_out,
    too_few,
)
from airflow_provider_vidu.batches.rows import MAX_KEY_CHARS, Row
from airflow_provider_vidu.batches.settings import Settings
from airflow_provider_vidu.batches.state import BatchState, Event, Open, begun
from airflow_provider_vidu.common.progress import duration
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.claims import SharedOrderError, never_sleep
from airflow_provider_vidu.orders.order import Order
from airflow_provider_vidu.tasks.slots.queue import check_balance

if TYPE_CHECKING:
    from airflow_provider_vidu.batches.journal import Journal
    from airflow_provider_vidu.orders.claims import Claim
    from airflow_provider_vidu.stores.destination import Destination

LONGEST_PAUSE_SECONDS: Final = 2.0
SHORTEST_PAUSE_SECONDS: Final = 0.05
BALANCE_SECONDS: Final = 5.0
"""Between two requests of the account's balance."""


@dataclass(slots=True)
class _Stop:
    """Why nothing more is submitted."""

    error: ViduError | None = None
    """What ends the batch once the open generations have ended."""
    refusals: int = 0
    resume_at: float | None = None
    """When a full account is tried again, in epoch seconds."""
    doubtful: int = 0
    """Creates of unknown outcome in a row."""


@dataclass(slots=True)
class _Leg:
    began: float = field(default_factory=time.time)
    stored: int = 0
    submitted: int = 0


class BatchRun:
    """A leg of a batch.

    :param settings: of the batch.
    :param rows: all rows.
    :param batch: the batch's name.
    :param destination: the folder of the files.
    :param journal: of the batch, opened.
    :param log: gets one line of progress.
    :param spending: counts the credits under the budgets of the DAG; nothing does if omitted.
    :raises ViduConfigError: when the connection is unusable.
    """

    def __init__(
        self,
        settings: Settings,
        rows: Sequence[Row],
        batch: str,
        destination: Destination,
        journal: Journal,
        log: Any,
        spending: BatchSpending | None = None,
    ) -> None:
        self._settings = settings
        self._rows = rows
        self._by_key = {row.key: row for row in rows}
        self._batch = batch
        self._destination = destination
        self._journal = journal
        self._log = log
        self._hook = QuietHook(settings.vidu_conn_id)
        self._config = self._hook.config
        self.manifest_digest: str | None = None
        """The SHA-256 of the manifest, once this leg has written it."""
        self._killed = False
        self._balance_at = 0.0
        self._was_resumed = False
        self._twins: Twins | None = None
        self._in_use: int | None = None
        self._stop = _Stop()
        self._leg = _Leg()
        self._lines_before = len(self.state.lines)
        self._pending: deque[Row] = deque()
        self._collector = Collector(settings, self._config, destination, log, lambda: self.state.usual_seconds)
        self._spending = BatchSpending(None) if spending is None else spending
        self._submitter = Submitter(
            self._hook, journal, settings.storage_conn_id, log, self._check_wanted, self._spending
        )

    @property
    def state(self) -> BatchState:
        """The state of the batch."""
        return self._journal.state

    @property
    def token(self) -> str:
        """What identifies this order of the batch: another one after a clear with ``on_clear="new"``."""
        return f"{self._batch}#{self.state.orders}"

    def begin(self, order: Order, dag_id: str | None = None) -> None:
        """Begin a try: resume what an earlier one has left, or order everything again.

        :param order: which order of the task instance the try belongs to.
        :param dag_id: the DAG of the task; None outside of one.
        """
        settings, state = self._settings, self.state
        is_new = settings.on_clear == "new"
        again, is_new = begun(state, order, time.time(), settings.timeout, is_new=is_new, dag_id=dag_id)
        if is_new and settings.cancel_on_kill:
            self._cancel(list(state.open.values()), "the task was cleared")
        self._journal.append(*again)

    def run(self, ended: Collection[str] | None, *, was_resumed: bool) -> dict[str, Any] | plan.Pending:
        """Work until the batch is finished, or until it is to be deferred.

        :param ended: ids that the trigger reported; None polls all.
        :param was_resumed: whether this leg follows a deferral of the same try.
        :return: the summary, or what the trigger is to wait for.
        :raises ViduError: when the batch has failed.
        """
        self._hook._retry_until(self.state.deadline)
        try:
            self._prepare(ended, was_resumed=was_resumed)
            while True:
                self._step()
                if self._is_finished():
                    return self._finished()
                if self.state.deadline <= time.time() and not self._collector.is_busy:
                    self._timed_out()
                if self._settings.deferrable and self._may_defer():
                    return self._deferred()
                self._collector.pause(self._pause())
                self._check_wanted()
        finally:
            self._collector.close()

    def kill(self) -> None:
        """Stop, and cancel all open generations; called from a signal handler."""
        self._killed = True
        self._collector.cancel()
        if self._settings.cancel_on_kill:
            self._cancel(list(self.state.open.values()), "the task was killed")

    def _check_wanted(self) -> None:
        if self._killed:
            raise ViduError("The task was killed: nothing more is submitted.", conn_id=self._settings.vidu_conn_id)

    def _prepare(self, ended: Collection[str] | None, *, was_resumed: bool) -> None:
        state = self.state
        for intent in state.intents.values():  # a process ended in the middle of this create
            intent.is_lost = True
        now = time.time()
        for key, job in list(state.open.items()):
            if (row := self._by_key.get(key)) is None:
                shown = sanitized(key, MAX_KEY_CHARS)  # by the journal, which others may write
                self._log.warning("Row %s is no longer among the rows; its generation is %s.", shown, job.id)
                continue
            is_reported = ended is None or job.id in ended
            self._collector.watch(row, job, poll_at=now if is_reported else None)
            if not was_resumed:  # an earlier try may have ended before it could
                self._spending.paid(job, state)
        self._pending.extend(row for row in self._rows if not state.knows(row.key))
        self._was_resumed = was_resumed
        if self._settings.reuse == "identical" and not state.is_again:
            service = f"{self._config.dialect.name} {self._config.base_url}"
            catalogue = Catalogue(self._destination, service, self._settings.artifact, self._log)
            owner = f"batch {self._batch}"

            def claim(request: str, endpoint: str | None = None) -> Claim:
                def look_up() -> None:
                    if catalogue.find(request) is not None:  # by now: the row takes it when it is looked at again
                        raise SharedOrderError("")

                return catalogue.claim(request, owner, self._hook, endpoint, look_up, sleep=never_sleep)

            self._twins = Twins(catalogue, state, self._submitter.digest, claim, self._by_key)
            self._submitter.claim = claim

    def _step(self) -> None:
        self._collect()
        self._search()
        self._refill()
        self._collector.poll_due()

    # -- collecting ------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        events = [self._event_of(one) for one in self._collector.collected()]
        if events:
            self._journal.append(*events)
            self._check_failures()
            for line in (event["line"] for event in events if event["e"] == "line"):
                if self._twins is not None:
                    self._twins.ended(line)
        if self._twins is not None:
            reused, again = self._twins.settled()
            if reused:
                self._journal.append(*reused)
            for key in (event["key"] for event in reused if event["e"] == "id"):
                self._collector.watch(self._by_key[key], self.state.open[key])
            self._pending.extend(again)
        if self._collector.trouble is not None and self._stop.error is None:
            self._stop.error = self._collector.trouble

    def _event_of(self, one: Collected) -> Event:
        row, now = self._by_key[one.key], time.time()
        self._spending.ended(one.job, one.generation)
        if isinstance(one, Stored):
            self._leg.stored += 1
            return {"e": "line", "line": stored_line(row, one.job, one.generation, one.record, one.ended, now)}
        if one.generation is not None and one.generation.was_cancelled and one.job.at < self.state.since:
            self._pending.append(row)  # an earlier try was killed, and cancelled it
            return {"e": "back", "keys": [row.key]}
        line = failed_line(
            row,
            repeatable(one.error, one.generation),
            now,
            job=one.job,
            generation=one.generation,
            is_paid=one.is_paid,
        )
        return {"e": "line", "line": line}

    def _check_failures(self) -> None:
        """Stop submitting if the batch cannot succeed any more, and the user wants that."""
        least = plan.least_stored(self._settings.min_success, len(self._rows))
        if self._settings.on_failure == "stop" and len(self._rows) - self.state.failed < least:
            self._stop.error = self._stop.error or too_few(self.state, self._rows, self._settings)

    # -- submitting ------------------------------------------------------------------------------------------------

    @property
    def _in_flight(self) -> int:
        return self._collector.in_flight + len(self.state.intents)

    def _refill(self) -> None:
        """Submit while there is room: the account must not idle while files are stored."""
        while self._pending and self._stop.error is None and not self._is_held():
            self._check_wanted()
            try:
                if self.state.deadline <= time.time() or self._room() <= 0 or not self._may_spend():
                    return
            except ViduError as error:
                self._stop.error = error
                return
            row = self._pending.popleft()
            if not self._is_reused(row):
                self._submit(row)
            self._collect()
            self._collector.poll_due()

    def _is_reused(self, row: Row) -> bool:
        """Whether an equal order serves a row, now or soon."""
        taken = None if self._twins is None else self._twins.taken(row)
        if isinstance(taken, dict):
            self._journal.append(taken)
        return taken is not None

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
        self._stop.refusals = 0
        self._stop.resume_at = None
        self._stop.doubtful = self._stop.doubtful + 1 if result.is_lost else 0
        if self._stop.doubtful >= plan.DOUBTFUL_CREATES:
            message = f"{self._stop.doubtful} creates in a row had an unknown outcome, so nothing more is submitted."
            self._stop.error = ViduError(message, conn_id=self._settings.vidu_conn_id)
        if (job := self.state.open.get(row.key)) is not None:
            self._leg.submitted += not job.is_shared
            self._collector.watch(row, job, done=_with_result(result.generation))
        elif row.key in self.state.lines:
            self._check_failures()

    def _refused(self, error: ViduError, *, is_full: bool) -> None:
        if not is_full:
            self._stop.error = error
            return
        self._stop.refusals += 1
        self._stop.resume_at = time.time() + plan.probe_delay(self._stop.refusals, error.retry_after)
        self._log.info("The account is full (%s); %d rows wait.", error.reason, len(self._pending))

    def _is_held(self) -> bool:
        """Whether the account is full, as far as it is known."""
        return self._stop.resume_at is not None and time.time() < self._stop.resume_at

    def _room(self) -> int:
        limit = self._config.max_in_flight
        in_use = self._account_in_use() if limit is not None else None
        return plan.room(self._settings.max_in_flight, self._in_flight, limit, in_use)

    def _may_spend(self) -> bool:
        """Whether the budget allows one more generation now.

        :raises ViduError: when it never will.
        """
        if self._config.min_balance is not None:
            self._account_in_use()
        self._spending.check()
        state, limit = self.state, self._settings.max_credits
        if limit is None:
            return True
        return plan.check_credits(limit, state.credits, state.price, state.unpriced, ended=state.stored)

    def _account_in_use(self) -> int | None:
        """Return how many generations the account has in flight, if the service reports it; checks its floor, too."""
        now = time.time()
        if self._config.dialect.has_balance and now >= self._balance_at:
            self._balance_at = now + BALANCE_SECONDS
            balance = self._hook.get_credits()
            check_balance(self._config, balance)
            self._in_use = balance.in_use
        return self._in_use

    def _search(self) -> None:
        """Search for creates of unknown outcome, once a search can prove something."""
        now = time.time()
        for key, intent in list(self.state.intents.items()):
            if intent.is_lost and is_searchable_at(intent.record) <= now and self._stop.error is None:
                row = self._by_key.get(key, Row(key, -1))
                if (error := self._submitter.search(row, intent.endpoint, intent.record)) is not None:
                    self._stop.error = error
                    return
                if (job := self.state.open.get(key)) is not None and key in self._by_key:
                    self._collector.watch(row, job)
                elif key in self._by_key and not self.state.knows(key):
                    self._pending.appendleft(row)

    # -- ends of a leg -----------------------------------------------------------------------------------------------

    def _is_finished(self) -> bool:
        if self._collector.is_busy or self._collector.in_flight:
            return False
        if self._stop.error is not None:
            return True
        return not self._pending and not self.state.intents and not self._twins

    def _may_defer(self) -> bool:
        now = time.time()
        if self._collector.is_busy or self.state.deadline <= now:
            return False
        if self._pending and self._stop.error is None and not self._is_held() and self._room() > 0:
            return False  # waits for the price of the first generation, or for a search
        jobs = self._collector.open_jobs()
        ages = [now - job.at for job in jobs]
        idle, in_leg = now - max(self._collector.last_end, self._leg.began), now - self._leg.began
        usual, is_first = self.state.usual_seconds, not self._was_resumed
        return not plan.stays(ages, usual, self._wanted(), idle=idle, in_leg=in_leg, is_first=is_first)

    def _wanted(self) -> int:
        has_more = bool(self._pending) and self._stop.error is None
        return plan.wake_count(self._settings.max_in_flight, self._collector.in_flight, has_more)

    def _pause(self) -> float:
        seconds = self._collector.next_poll() - time.time()
        return min(max(seconds, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)

    def _deferred(self) -> plan.Pending:
        self._end_leg()
        searches = [is_searchable_at(intent.record) for intent in self.state.intents.values()]
        times = [*searches, *([] if self._stop.resume_at is None or not self._pending else [self._stop.resume_at])]
        if self._twins is not None and (due_at := self._twins.due_at) is not None:
            times.append(due_at)
        jobs, wanted = self._collector.open_jobs(), self._wanted()
        expected = plan.expected_at((job.at for job in jobs), self.state.usual_seconds, wanted, time.time())
        resume_at = min([*times, *([] if expected is None else [expected])], default=None)
        return plan.Pending(jobs, wanted, self.state.deadline, resume_at, self.token)

    def _finished(self) -> dict[str, Any]:
        error = self._stop.error
        if error is None and self.state.stored < plan.least_stored(self._settings.min_success, len(self._rows)):
            error = too_few(self.state, self._rows, self._settings)
        if error is not None:
            self._end_leg(is_last=True)
            raise stopped(error, self.state, self._rows, self._settings)
        assert self.state.order is not None
        self._end_leg({"e": "returned", "order": replace(self.state.order, returned=True).to_json()}, is_last=True)
        return self._summary()

    def _timed_out(self) -> None:
        jobs = {key: job for key, job in self.state.open.items() if key in self._by_key}
        error = timed_out(self.state, self._rows, self._settings)
        if self._settings.cancel_on_kill:
            self._cancel(list(jobs.values()), "the timeout expired")
        # Paid for until a poll shows otherwise: not every service cancels, and none cancels what has ended.
        now = time.time()
        lines = [failed_line(self._by_key[key], error, now, job=job, is_paid=True) for key, job in jobs.items()]
        self._journal.append(*({"e": "line", "line": line} for line in lines))
        self._end_leg(is_last=True)
        raise error

    def _end_leg(self, *events: Event, is_last: bool = False) -> None:
        if is_last or is_due(self._lines_before, len(self.state.lines)):
            self._write_manifest()
        self._journal.end(*events)
        self._log.info(
            "Batch %s: %s. In this leg: %d submitted, %d stored, %s.",
            self._batch,
            progress(self.state, self._rows),
            self._leg.submitted,
            self._leg.stored,
            duration(time.time() - self._leg.began),
        )

    def _write_manifest(self) -> None:
        from airflow_provider_vidu.stores.small_files import write_file

        content = manifest(self.state.lines, self._rows)
        write_file(self._manifest, content, "application/x-ndjson")
        self.manifest_digest = hashlib.sha256(content).hexdigest()

    @property
    def _manifest(self) -> Any:
        return self._destination.file(f"{self._batch}.manifest.jsonl")

    @property
    def place(self) -> dict[str, Any]:
        """Where the batch is, for the clip pages: no row of it."""
        uri: str = self._manifest.uri
        folder = uri.rpartition("/")[0] + "/"
        conn_id, rows = self._settings.vidu_conn_id, len(self._rows)
        return {"batch": self._batch, "folder": folder, "manifest": uri, "conn_id": conn_id, "rows": rows}

    @property
    def spent(self) -> dict[str, Any]:
        """What the batch has spent so far over all of its tries, for the page of the spending."""
        generations, priced = self.state.ordered
        return {"generations": generations, "priced": priced, "credits": self.state.credits}

    def _summary(self) -> dict[str, Any]:
        place = self.place
        return summary(self.state, self._rows, self._batch, place["manifest"], place["folder"])

    def _cancel(self, jobs: Sequence[Open], why: str) -> None:
        if jobs:
            count = cancelled(self._settings.vidu_conn_id, self._config, jobs)
            self._log.info("Because %s: %d of %d open generations were cancelled.", why, count, len(jobs))


def _with_result(generation: Generation | None) -> Generation | None:
    """Return a generation whose create's answer holds its result; there may be no query for it."""
    return generation if generation is not None and generation.succeeded and generation.video_url else None
