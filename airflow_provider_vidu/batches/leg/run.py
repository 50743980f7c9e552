"""One leg of a batch: it submits, polls and stores until the rows are finished, or deferring is worth it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.batches.arguments import Settings
from airflow_provider_vidu.batches.catalogue import Catalogue
from airflow_provider_vidu.batches.jobs import Event, Open
from airflow_provider_vidu.batches.leg.backlog import Backlog
from airflow_provider_vidu.batches.leg.beginning import begun, changed_rows, removed_rows
from airflow_provider_vidu.batches.leg.collecting import Collected, Collector, QuietHook, Stored, cancelled
from airflow_provider_vidu.batches.leg.spending import BatchSpending
from airflow_provider_vidu.batches.leg.submitter import Submitter
from airflow_provider_vidu.batches.manifest import (
    counts,
    failed_line,
    is_due,
    is_of_another_request,
    manifest,
    manifest_name,
    progress,
    repeatable,
    stopped,
    stored_line,
    summary,
    timed_out,
    too_few,
)
from airflow_provider_vidu.batches.rows import MAX_KEY_CHARS, Row, names_beside
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.artifacts import BESIDE_THE_RESULT
from airflow_provider_vidu.common.progress import duration
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.orders.order import Order

if TYPE_CHECKING:
    from airflow_provider_vidu.batches.journal import Journal
    from airflow_provider_vidu.stores.destination import Destination

LONGEST_PAUSE_SECONDS: Final = 2.0
SHORTEST_PAUSE_SECONDS: Final = 0.05
MOST_NAMED: Final = 5


class BatchRun:
    """A leg of a batch.

    :param journal: of the batch, opened.
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
        self._owner = journal.owner
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
        self._was_resumed = False
        self._began = time.time()
        self._stored = 0
        self._lines_before = len(self.state.lines)
        self._collector = Collector(settings, self._config, destination, log, lambda: self.state.usual_seconds)
        self._spending = BatchSpending(None) if spending is None else spending
        self._backlog = Backlog(
            settings,
            self._by_key,
            journal=journal,
            collector=self._collector,
            submitter=Submitter(
                *(self._hook, journal, settings.storage_conn_id, log, self._check_wanted, self._spending),
                artifact=settings.artifact,
            ),
            spending=self._spending,
            hook=self._hook,
            log=log,
            check=self._check_wanted,
        )

    @property
    def state(self) -> BatchState:
        """The state of the batch."""
        return self._journal.state

    @property
    def _deadline(self) -> float:
        return self.state.deadline_of(self._owner)

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
        again, is_new = begun(
            state,
            order,
            time.time(),
            settings.timeout,
            is_new=is_new,
            dag_id=dag_id,
            owner=self._owner,
            keys=self._by_key.keys(),
            shares=settings.reuse == "identical",
        )
        if is_new and settings.cancel_on_kill:
            given_up = frozenset(again[0].get("keys", state.open))
            jobs = [job for key, job in state.open.items() if key in given_up]
            self._cancel(jobs, "the task was cleared")
        self._journal.append(*again)

    def run(self, ended: Collection[str] | None, *, was_resumed: bool) -> dict[str, Any] | plan.Pending:
        """Work until the batch is finished, or until it is to be deferred.

        :param ended: ids that the trigger reported; None polls all.
        :param was_resumed: whether this leg follows a deferral of the same try.
        :return: the summary, or what the trigger is to wait for.
        :raises ViduError: when the batch has failed.
        """
        self._hook._retry_until(self._deadline)
        try:
            self._prepare(ended, was_resumed=was_resumed)
            while True:
                self._step()
                self._journal.beat()
                if self._is_finished():
                    return self._finished()
                is_late = self._deadline <= time.time()
                self._collector.is_resting = is_late or self._is_idle()
                if is_late and not self._collector.is_busy:
                    self._timed_out()
                if self._settings.deferrable and self._may_defer():
                    return self._deferred()
                seconds = self._collector.next_poll() - time.time()
                self._collector.pause(min(max(seconds, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))
                self._check_wanted()
        finally:
            self._collector.close()

    def kill(self) -> None:
        """Stop, and cancel all open generations but those of other runs' rows; called from a signal handler."""
        self._killed = True
        self._collector.cancel()
        if self._settings.cancel_on_kill:
            keys = self._by_key if self.state.has_others(self._owner) else self.state.open
            jobs = [job for key, job in self.state.open.items() if key in keys]
            self._cancel(jobs, "the task was killed", beat=lambda: None)  # an append may be under way

    def _check_wanted(self) -> None:
        if self._killed:
            raise ViduError("The task was killed: nothing more is submitted.", conn_id=self._settings.vidu_conn_id)

    def _prepare(self, ended: Collection[str] | None, *, was_resumed: bool) -> None:
        state = self.state
        for intent in state.intents.values():  # a process ended in the middle of this create
            intent.is_lost = True
            self._spending.count_lost(intent.record)
        now = time.time()
        for key, job in list(state.open.items()):
            if (row := self._by_key.get(key)) is None:
                continue
            is_reported = ended is None or job.id in ended
            self._collector.watch(row, job, poll_at=now if is_reported else None)
            if not was_resumed:  # an earlier try may have ended before it could
                self._spending.count_paid(job, state)
        if not was_resumed:
            self._warn_of_changed()
        elif (error := changed_rows(state, self._owner, self._by_key)) is not None:
            self._backlog.stop(error)
        self._warn_of_removed()
        self._name_beside(was_resumed=was_resumed)
        self._backlog.add(*(row for row in self._rows if not state.knows(row.key)))
        self._was_resumed = was_resumed
        if self._settings.reuse == "identical":
            catalogue = Catalogue.of(self._destination, self._config, self._settings.artifact, self._log)
            if state.generates_again(self._owner):
                self._backlog.keep_in(catalogue)
            else:
                self._backlog.share(catalogue, f"batch {self._batch}")

    def _warn_of_removed(self) -> None:
        """Warn of open generations whose rows were removed, in one line: a journal, also a forged one, has many."""
        removed = [(key, job.id) for key, job in self.state.open.items() if key not in self._by_key]
        if removed:
            named = ", ".join(f"{job_id} of {sanitized(key, MAX_KEY_CHARS)!r}" for key, job_id in removed[:MOST_NAMED])
            more = f" and {len(removed) - MOST_NAMED} more" if len(removed) > MOST_NAMED else ""
            self._log.warning(
                "Open generations are not waited for, because their rows are no longer among the rows: %s%s.",
                *(named, more),
            )

    def _name_beside(self, *, was_resumed: bool) -> None:
        """Give files other names where rows that were added or moved would replace the files of other rows."""
        kept, naming = self._settings.artifact, self._settings.naming
        kind = f"-{kept}" if kept in BESIDE_THE_RESULT else ""
        names = names_beside(self._by_key, naming, self.state.lines, self.place["folder"], kind)
        self._collector.names = names
        if names and not was_resumed:
            self._log.warning(
                "The names of %d files end in a hash, because files of other rows have the names without it (%s). Use "
                "naming='{key}' if rows are added or moved.",
                *(len(names), ", ".join(list(names.values())[:MOST_NAMED])),
            )

    def _warn_of_changed(self) -> None:
        """Warn of rows that have, or wait for, the file of another prompt or model: the key decides."""
        state = self.state
        known = ((row, state.lines.get(row.key), state.open.get(row.key)) for row in self._rows)
        changed = [row.key for row, line, job in known if is_of_another_request(row, line, job)]
        if changed:
            self._log.warning(
                "%d rows have another prompt or model than the generation that was ordered under their key, and are "
                "not ordered again (%s). Give them other keys, or clear the task with on_clear='new'.",
                *(len(changed), ", ".join(map(repr, changed[:MOST_NAMED]))),
            )

    def _step(self) -> None:
        self._collect()
        self._backlog.search()
        while self._backlog.submit_next():  # the account must not idle while files are stored
            self._collect()
            self._collector.poll_due()
        self._collector.poll_due()

    # -- collecting ------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        events = [self._event_of(one) for one in self._collector.collected()]
        if events:
            self._journal.append(*events)
            self._backlog.ended(event["line"] for event in events if event["e"] == "line")
        self._backlog.settle()
        if self._collector.trouble is not None:
            self._backlog.stop(self._collector.trouble)

    def _event_of(self, one: Collected) -> Event:
        row, now = self._by_key[one.key], time.time()
        self._spending.ended(one.job, one.generation)
        if isinstance(one, Stored):
            self._stored += 1
            line = stored_line(row, one.job, one.generation, one.record, one.ended, now, self._settings.artifact)
            return {"e": "line", "line": line}
        is_earlier = one.job.at < self.state.since_of(self._owner)
        if is_earlier and one.generation is not None and one.generation.was_cancelled:
            self._backlog.add(row)  # an earlier try was killed, and cancelled it
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

    # -- ends of a leg -----------------------------------------------------------------------------------------------

    def _is_finished(self) -> bool:
        if self._collector.is_busy or self._collector.in_flight:
            return False
        return self._backlog.error is not None or self._backlog.is_finished

    def _is_idle(self) -> bool:
        """Whether the leg is about to defer, as soon as its polls are answered, because nothing ends."""
        is_at_work = self._collector.is_storing or (self._backlog.is_ready and self._backlog.has_room)
        return self._settings.deferrable and not is_at_work and self._idle_seconds > plan.LONGEST_STAY_SECONDS

    @property
    def _idle_seconds(self) -> float:
        return time.time() - max(self._collector.last_end, self._began)

    def _may_defer(self) -> bool:
        now = time.time()
        if self._collector.is_busy or self._deadline <= now:
            return False
        if self._backlog.is_ready and self._backlog.has_room:
            return False  # waits for the price of the first generation, or for a search
        jobs = self._collector.open_jobs()
        ages = [now - job.at for job in jobs]
        idle, in_leg = self._idle_seconds, now - self._began
        usual, is_first = self.state.usual_seconds, not self._was_resumed
        return not plan.stays(ages, usual, self._wanted(), idle=idle, in_leg=in_leg, is_first=is_first)

    def _wanted(self) -> int:
        return plan.wake_count(self._settings.max_in_flight, self._collector.in_flight, self._backlog.has_more)

    def _deferred(self) -> plan.Pending:
        self._end_leg()
        jobs, wanted = self._collector.open_jobs(), self._wanted()
        expected = plan.expected_at((job.at for job in jobs), self.state.usual_seconds, wanted, time.time())
        resume_at = min([*self._backlog.due_times(), *([] if expected is None else [expected])], default=None)
        return plan.Pending(jobs, wanted, self._deadline, resume_at, self.token)

    def _finished(self) -> dict[str, Any]:
        error = self._backlog.error
        least = plan.least_stored(self._settings.min_success, len(self._rows))
        if error is None and counts(self.state, self._rows).stored < least:
            error = too_few(self.state, self._rows, self._settings)
        if error is not None:
            self._end_leg(is_last=True)
            raise stopped(error, self.state, self._rows, self._settings)
        order = self.state.order_of(self._owner)
        assert order is not None
        owner = {"owner": self._owner} if self._owner else {}
        self._end_leg({"e": "returned", "order": replace(order, returned=True).to_json(), **owner}, is_last=True)
        place = self.place
        return summary(self.state, self._rows, self._batch, place["manifest"], place["folder"])

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
            self._backlog.submitted,
            self._stored,
            duration(time.time() - self._began),
        )

    def _write_manifest(self) -> None:
        from airflow_provider_vidu.stores.small_files import write_file

        has_others = self.state.has_others(self._owner)
        content, digest = manifest(self.state.lines, self._rows, has_others=has_others), hashlib.sha256()
        write_file(self._manifest, content, "application/x-ndjson")
        for line in content:
            digest.update(line)
        self.manifest_digest = digest.hexdigest()

    @property
    def _manifest(self) -> Any:
        return self._destination.file(manifest_name(self._batch))

    @property
    def place(self) -> dict[str, Any]:
        """Where the batch is, for the clip pages: no row of it."""
        uri: str = self._manifest.uri
        folder = uri.rpartition("/")[0] + "/"
        conn_id, rows = self._settings.vidu_conn_id, len(self._rows)
        return {"batch": self._batch, "folder": folder, "manifest": uri, "conn_id": conn_id, "rows": rows}

    @property
    def note(self) -> dict[str, Any]:
        """Where the batch is, what it has spent so far over all of its tries, and what its next rows wait for."""
        generations, priced = self.state.ordered
        spent = {"generations": generations, "priced": priced, "credits": self.state.credits}
        removed = removed_rows(self.state, self._owner, self._by_key)
        return {**self.place, **spent, "waits_for": self._backlog.waits_for, **removed}

    def _cancel(self, jobs: Sequence[Open], why: str, beat: Callable[[], None] | None = None) -> None:
        if jobs:
            count = cancelled(self._settings.vidu_conn_id, self._config, jobs, beat or self._journal.beat)
            self._log.info("Because %s: %d of %d open generations were cancelled.", why, count, len(jobs))
