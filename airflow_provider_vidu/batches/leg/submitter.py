"""Submits the rows of a batch, one after the other: the intent is recorded before each create, the outcome after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.batches.jobs import Event, Intent, intended, opened
from airflow_provider_vidu.batches.manifest import failed_line, job_of, open_of, repeatable
from airflow_provider_vidu.batches.plan import Blame, blame
from airflow_provider_vidu.batches.rows import Row
from airflow_provider_vidu.common.artifacts import Artifact
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduSubmitUnknownError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.arguments import required_arguments
from airflow_provider_vidu.orders.claims import BusyClaimError, ClaimLostError, NoClaim, SharedOrderError
from airflow_provider_vidu.orders.lost_order import SETTLE_SECONDS, Sends, find_lost, intent_of, named_id
from airflow_provider_vidu.orders.media.prepared import Prepared
from airflow_provider_vidu.orders.request import check_product, endpoint_of, request_of
from airflow_provider_vidu.polling.failures import failure

if TYPE_CHECKING:
    from airflow_provider_vidu.api.dialects import Dialect
    from airflow_provider_vidu.batches.journal import Journal
    from airflow_provider_vidu.batches.leg.spending import BatchSpending
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.orders.order import OrderRecord


OWNER_SECONDS: Final = 60.0
"""How long the file of a finished generation is left to the task that has paid for it."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a row.

    :param generation: the accepted generation; None if there is none.
    :param refusal: why the account takes no more for now, or at all.
    :param is_full: whether it takes none for now only.
    :param is_lost: whether the outcome of the create is unknown.
    :param shared: the digest of the request, if another task has submitted an equal order; nothing was sent.
    :param since: when that task submitted it, in epoch seconds; None if unknown.
    """

    generation: Generation | None = None
    refusal: ViduError | None = None
    is_full: bool = False
    is_lost: bool = False
    shared: str | None = None
    since: float | None = None


class Submitter:
    """Submits rows through one connection.

    :param check: raises right before a send if the create is no longer wanted.
    :param artifact: which file of each generation is kept; None for the result, whatever its medium.
    """

    def __init__(
        self,
        hook: ViduHook,
        journal: Journal,
        storage_conn_id: str | None,
        log: Any,
        check: Callable[[], None],
        spending: BatchSpending,
        artifact: Artifact | None,
    ) -> None:
        self._artifact = artifact
        self.claim: Callable[[str, str | None], NoClaim] = lambda *_: NoClaim()
        """Returns the claim on the order of a request and an endpoint, if equal orders share one create."""
        self._spending = spending
        self._hook = hook
        self._journal = journal
        self._storage_conn_id = storage_conn_id
        self._log = log
        self._check = check

    def digest(self, row: Row) -> str | None:
        """Return the digest of a row's request; None if the row cannot be ordered, which :meth:`submit` reports."""
        try:
            fields, endpoint = fields_of(row)
            with closing(Prepared(fields, self._storage_conn_id)) as prepared:
                return prepared.digest(endpoint, self._hook.config.dialect)
        except ViduError:
            return None

    def submit(self, row: Row) -> Submitted:
        """Submit a row, once.

        A row that cannot be ordered, or is refused, gets its line. If the account refuses, the row stays pending.

        :raises ViduError: when the outcome could not be recorded.
        """
        try:
            endpoint, record, body = self._prepared(row)
        except ViduError as error:
            about = Blame.ROW if isinstance(error, ViduConfigError) else blame(error)
            if about is Blame.ROW:
                self._fail(row, error)
                return Submitted()
            return Submitted(refusal=error, is_full=about is Blame.FULL)
        return self._sent(row, endpoint, record, body)

    def _prepared(self, row: Row) -> tuple[str | None, OrderRecord, Mapping[str, Any]]:
        """Return endpoint, intent and body of a row's create; its files are read, and uploaded if they must be."""
        fields, endpoint = fields_of(row)
        dialect = self._hook.config.dialect
        with closing(Prepared(fields, self._storage_conn_id)) as prepared:
            request, body = prepared.digest(endpoint, dialect), prepared.resolve(self._hook)
        path_of(dialect, body, endpoint, self._artifact)  # refuses it before anything is recorded
        record, marked = intent_of(self._hook, body, endpoint, number=0, request=request)
        return endpoint, record, marked

    def _sent(self, row: Row, endpoint: str | None, record: OrderRecord, body: Mapping[str, Any]) -> Submitted:
        claim = self.claim(record.request, endpoint)
        if (other := self._without_claim(row, endpoint, record, claim)) is not None:
            return other
        self._journal.append(_intent(row, endpoint, record))
        sends = Sends(
            *(self._check, self._spending.check, claim.check),
            renew=lambda: self._journal.append(_intent(row, endpoint, replace(record, at=time.time()))),
        )
        try:
            generation = self._hook._submit(body, endpoint, sends, queues=True)
        except ViduSubmitUnknownError as error:
            return self._unknown(row, endpoint, record, error, claim)
        except ClaimLostError:
            self._journal.append({"e": "back", "keys": [row.key]})
            return Submitted(shared=record.request)
        except ViduError as error:
            claim.release()
            about = blame(error)
            if not sends.count and about is Blame.ROW:
                about = Blame.ACCOUNT  # what prevents a send is not the row's fault
            if about is Blame.ROW:
                self._fail(row, error)
                return Submitted()
            self._journal.append({"e": "back", "keys": [row.key]})
            return Submitted(refusal=error, is_full=about is Blame.FULL)
        except BaseException:  # a kill before the send: the row is open again, and the intent means nothing
            if not sends.count:
                self._journal.append({"e": "back", "keys": [row.key]})
                claim.release()
            raise
        with self._named(row, generation.id):
            return self._created(row, generation, endpoint, record, claim)

    def _created(
        self, row: Row, generation: Generation, endpoint: str | None, record: OrderRecord, claim: NoClaim
    ) -> Submitted:
        """Record a generation that is paid for."""
        job = job_of(row, generation, endpoint, record.request, time.time())
        if generation.failed:  # some creates are answered with the failure at once
            failed = failure(generation).with_context(conn_id=self._hook.vidu_conn_id)
            self._fail(row, repeatable(failed, generation), job=job, generation=generation)
            claim.release()
            self._spending.count_paid(job, self._journal.state)
            self._spending.ended(job, generation)
            return Submitted()
        self._journal.append(opened(row.key, job))
        claim.submitted(job.id)
        self._spending.count_paid(job, self._journal.state)
        return Submitted(generation)

    @contextmanager
    def _named(self, row: Row, generation_id: str) -> Iterator[None]:
        """Name a generation that is paid for if it cannot be recorded: without a list, nothing else leads to it.

        :raises ViduError: the error of the journal, with the id.
        """
        try:
            yield
        except ViduError as error:
            self._log.error("Row %s: generation %s was submitted, and could not be recorded.", row.key, generation_id)
            raise error.with_context(generation_id=generation_id) from error.__cause__

    def _without_claim(self, row: Row, endpoint: str | None, record: OrderRecord, claim: NoClaim) -> Submitted | None:
        """Take the claim on a row's order; return what becomes of the row if another task has it."""
        try:
            claim.take(record)  # at once, or not at all: the intent's time stays right
        except BusyClaimError:
            return Submitted(shared=record.request)
        except SharedOrderError as other:
            if not _is_left(other):
                return Submitted(shared=record.request, since=other.since)
            # The other task has failed, or is late. Its generation is paid for, so this batch stores the file.
            at = time.time() if other.since is None else other.since
            job = open_of(row, other.generation_id, at, endpoint, record.request, credits=0, is_shared=True)
            self._journal.append(opened(row.key, job))
            return Submitted(other.finished)
        except ViduSubmitUnknownError as error:  # of the other task
            self._fail(row, error)
            return Submitted()
        except ViduError as error:
            return Submitted(refusal=error)
        return None

    def _unknown(
        self, row: Row, endpoint: str | None, record: OrderRecord, error: ViduSubmitUnknownError, claim: NoClaim
    ) -> Submitted:
        self._spending.count_lost(record)
        if (generation_id := named_id(record, error)) is not None:
            at = record.began or record.at
            job = open_of(row, generation_id, at, endpoint, record.request, marker=record.marker)
            self._journal.append(opened(row.key, job))
            claim.submitted(job.id)
            return Submitted(is_lost=True)
        self._log.warning("Row %s: %s", row.key, error)
        self._journal.append(_intent(row, endpoint, replace(record, at=time.time()), is_lost=True))
        return Submitted(is_lost=True)

    def search(self, row: Row, endpoint: str | None, record: OrderRecord) -> ViduError | None:
        """Search for the generation of a create of unknown outcome.

        The row gets its generation, becomes pending if there is none, or fails if that cannot be determined.

        :return: an error that prevented the search; None if the row is decided.
        """
        try:
            generation_id = find_lost(self._hook, record, self._log, time.sleep)
        except ViduSubmitUnknownError as error:
            self._spending.count_lost(record)
            self._fail(row, error)
        except ViduError as error:
            return error
        else:
            if generation_id is None:
                self._journal.append({"e": "back", "keys": [row.key]})
            else:
                cost = self._price_of(generation_id, endpoint)
                at = record.began or record.at
                job = open_of(row, generation_id, at, endpoint, record.request, credits=cost)
                self._journal.append(opened(row.key, job))
                self.claim(record.request, endpoint).submitted(generation_id)
                self._spending.count_paid(job, self._journal.state)
            self._spending.settle(record)
        return None

    def _price_of(self, generation_id: str, endpoint: str | None) -> float | int | None:
        """Return what a generation costs whose create's answer was lost; None if its end has to name the price."""
        try:
            return self._hook.get_generation(generation_id, endpoint=endpoint, retries=0).credits
        except ViduError:
            return None

    def _fail(self, row: Row, error: ViduError, **known: Any) -> None:
        self._journal.append({"e": "line", "line": failed_line(row, error, time.time(), **known)})


def path_of(dialect: Dialect, body: Mapping[str, Any], endpoint: str | None, artifact: Artifact | None) -> str:
    """Return where the create of a request goes.

    :raises ViduConfigError: when it fits no endpoint, or the file of its product could not be kept.
    """
    check_product(dialect.medium(body, endpoint), artifact)
    return dialect.target(body, endpoint)


def fields_of(row: Row) -> tuple[dict[str, Any], str | None]:
    """Return the request of a row, and its endpoint; raises ViduError when the row cannot be ordered."""
    if row.problem is not None:
        raise row.problem
    fields = request_of(row.arguments, required_arguments(row.arguments))
    if not any(value for name, value in fields.items() if name != "model"):
        raise ViduConfigError("The row holds nothing to submit: give it a prompt, images, parameters or body.")
    return fields, endpoint_of(row.arguments)


def _is_left(other: SharedOrderError) -> bool:
    """Whether the file of another task's generation is missing although that task has had the time to store it."""
    if other.finished is None:
        return False
    ended = other.finished.completed_at
    at = other.since if ended is None else ended.timestamp()
    return at is None or time.time() - at >= OWNER_SECONDS


def is_searchable_at(record: OrderRecord) -> float:
    """Return when a search for a create can prove that there is none, in epoch seconds."""
    return record.at + SETTLE_SECONDS if record.is_searchable else 0.0


def _intent(row: Row, endpoint: str | None, record: OrderRecord, *, is_lost: bool = False) -> Event:
    return {"e": "intent", **intended(row.key, Intent(record, endpoint, is_lost, row.index))}
