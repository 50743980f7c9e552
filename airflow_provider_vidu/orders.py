"""What is stored about an order, and which order a try belongs to. Decisions, no I/O.

An order is what a task instance has submitted and paid for. Its retries belong to it; a clear starts another one. No
single number of Airflow tells the two apart (seen in the sources of 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2, 3.4.0b2):

* ``max_tries`` is set to "tries so far + the task's retries" by a clear and left alone by a retry. It comes out the
  same when ``retries`` was lowered in between, and before 3.4 it stays the same when the task is cleared while it runs
  in a worker.
* ``DagRun.clear_number`` grows with every clear of any task of the run since 3.2. Before, it grows when a run that has
  ended is cleared, and then no retry of any task is pending.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Order:
    """Which order a try belongs to, as far as Airflow's counters tell.

    :param number: the task instance's ``max_tries``.
    :param clears: the run's ``clear_number``; None where it is unknown.
    :param counts_every_clear: whether every clear of a task of the run makes ``clears`` grow (Airflow ≥ 3.2).
    :param try_number: the number of the try.
    :param retries: the task's ``retries`` today; None where they are unknown.
    """

    number: int
    clears: int | None = None
    counts_every_clear: bool = False
    try_number: int = 1
    retries: int | None = None

    def may_follow_a_clear_after(self, earlier_try: int) -> bool:
        """Whether ``max_tries`` is what a clear between that try and this one has left."""
        return self.retries is not None and earlier_try <= self.number - self.retries < self.try_number


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored about an order: the intent, and the id as soon as there is one.

    ``order`` is its number; ``marker`` names it at the service, and nothing else there; ``at`` is the time of the
    latest send in epoch seconds, or that of the create's end without an answer; ``marked`` tells whether the request
    carries the marker; ``handed_over`` that the task has ended without waiting, so that the job is no longer its own;
    ``request`` is a digest of what was sent. ``began`` is the time of the first send; ``looks`` is a
    ``lost_create.Likeness`` as JSON, by which the list is searched; ``clears`` and ``try_number`` belong to the try
    that submitted; ``returned`` tells that a try has returned the result to Airflow.
    """

    order: int
    marker: str
    at: float
    marked: bool = False
    generation_id: str | None = None
    handed_over: bool = False
    request: str = ""
    began: float = 0.0
    looks: Mapping[str, Any] | None = None
    clears: int | None = None
    try_number: int = 1
    returned: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: object) -> Record | None:
        """Read a stored record; None when there is none or it is not one of ours."""
        if not isinstance(stored, Mapping) or "order" not in stored:
            return None
        known = {name: stored[name] for name in cls.__slots__ if name in stored}
        return cls(**{"marker": "", "at": 0.0, **known})

    @property
    def is_searchable(self) -> bool:
        """Whether a create of unknown outcome can be looked for."""
        return self.marked or self.looks is not None

    @property
    def is_lost(self) -> bool:
        """Whether something may have been created whose id is not known yet and can be found."""
        return self.generation_id is None and self.is_searchable

    def differs(self, request: str) -> bool:
        """Whether another request was sent than this one; an empty digest is of a request that cannot be compared."""
        return bool(request) and self.request not in ("", request)

    def counts_another_clear(self, order: Order) -> bool:
        """Whether some task of the run was cleared after this record."""
        return None not in (self.clears, order.clears) and self.clears != order.clears

    def was_cleared(self, order: Order, request: str) -> bool:
        """Whether the task was cleared after this record, so that the try belongs to another order.

        Where Airflow's counters leave it open, the evidence decides: a task of the run was cleared and the request
        was changed; or a try has returned its result, and ``max_tries`` is what a clear with today's retries leaves.
        A mere retry fits neither, as long as its request stays the same.

        :param order: which order the try belongs to.
        :param request: the digest of its request.
        """
        if self.order != order.number:
            return True
        if self.counts_another_clear(order):
            if not order.counts_every_clear or self.differs(request):
                return True
        elif order.counts_every_clear and None not in (self.clears, order.clears):
            return False
        return self.returned and order.may_follow_a_clear_after(self.try_number)


class RecordStore(Protocol):
    """Keeps one record per task instance across tries."""

    def load(self) -> Record | None:
        """Return the record, or None."""

    def save(self, record: Record) -> None:
        """Store the record durably before returning."""

    def clear(self) -> None:
        """Forget the record."""

    def returned(self) -> None:
        """Take note that a try is about to return its result to Airflow."""

    def finished(self) -> None:
        """Take note that Airflow knows of the task's success."""
