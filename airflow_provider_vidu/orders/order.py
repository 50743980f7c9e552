"""The stored record of an order, and which order a try belongs to. Decisions, no I/O.

An order is what a task instance has submitted and paid for. Its retries belong to it; a clear starts another one. No
single counter of Airflow distinguishes the two (read in the sources of 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2, 3.4.0b2):

* ``max_tries`` changes only with a clear, so a different number proves one. A clear sets it to the number of the last
  try plus the task's ``retries``. With the same ``retries`` that is always more than before; it is equal only if they
  were lowered in between (:meth:`Order.may_follow_a_clear_after`). A task that is cleared *while it runs* keeps its
  number before 3.1.8; since then only if its worker dies before it obeys.
* ``DagRun.clear_number`` grows with every clear of *any* task of the run since 3.2, so only "it did not grow" is
  conclusive. Before 3.2 it grows when a run that has ended is cleared, and then no retry of any task is pending.
* In a task loop (3.4), a clear of an iteration begins the later ones again with a first try, in a new region.
* ``DagRun.start_date`` is later than the order in a first try only if the run was deleted and recreated under its id.

If all of this is inconclusive, the try counts as a retry: that mistake costs a warning, the other one money.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from airflow_provider_vidu.api.ids import checked_id
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.common.values import epoch, price
from airflow_provider_vidu.exceptions import ViduConfigError


@dataclass(frozen=True, slots=True)
class Order:
    """Which order a try belongs to, according to Airflow's counters.

    :param number: the task instance's ``max_tries``.
    :param clears: the run's ``clear_number``; None if unknown.
    :param counts_every_clear: whether every clear of a task of the run increments ``clears`` (Airflow ≥ 3.2).
    :param retries: the task's current ``retries``; None if unknown.
    :param run_started: when the run started, in epoch seconds; None if unknown.
    :param region: the region of a task instance in a loop (Airflow 3.4); empty outside loops.
    """

    number: int
    clears: int | None = None
    counts_every_clear: bool = False
    try_number: int = 1
    retries: int | None = None
    run_started: float | None = None
    region: str = ""

    def may_follow_a_clear_after(self, earlier_try: int) -> bool:
        """Whether ``max_tries`` is the result of a clear after that try and before this one, with today's ``retries``.

        Never so for a retry of a task with unchanged ``retries``: its number is that of a clear before the order's
        first try, or of no clear at all.
        """
        return self.retries is not None and earlier_try <= self.number - self.retries < self.try_number


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """The stored facts about an order: the intent, and the id as soon as there is one.

    ``order`` is its number; ``marker`` identifies it uniquely at the service; ``at`` is the time of the latest send in
    epoch seconds, or that of the create's end without an answer; ``marked`` is whether the request carries the marker;
    ``handed_over`` whether the task ended without waiting, so that the job is no longer its own; ``request`` a digest
    of the request. ``began`` is the time of the first send; ``looks`` a ``lost_create.Likeness`` as JSON, for the
    search on the list; ``clears`` and ``try_number`` belong to the latest try that handled the order; ``returned`` is
    whether a try has returned the result to Airflow. ``credits`` is the price of the generation, None if the service
    named none; ``spent`` is what the task instance's earlier generations cost. ``refused`` is whether the price exceeds
    ``max_credits``, so that no try may use the generation, and ``refunded`` whether it was cancelled at no cost.
    ``region`` is the order's. ``callback`` is the digest of the token in the request's ``callback_url``; empty if the
    service reports no end. ``nudges`` is the connection whose event triggers that callback nudges; empty if it resumes
    the task. ``service`` is the connection and the address that the create was sent to: no other shows what became of
    it.
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
    credits: int | float | None = None
    spent: int | float = 0
    refused: bool = False
    refunded: bool = False
    region: str = ""
    callback: str = ""
    nudges: str = ""
    service: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        # Most records have no callback; their stored form is then that of earlier versions.
        optional = ("callback", "nudges", "service")
        return {name: value for name, value in asdict(self).items() if value or name not in optional}

    @classmethod
    def from_json(cls, stored: object) -> OrderRecord | None:
        """Read a stored record; None if there is none or it was not written by this package.

        :raises ViduConfigError: when its id, marker or request cannot be one: without them, it may be paid twice.
        """
        if not isinstance(stored, Mapping) or "order" not in stored:
            return None
        known = {name: stored[name] for name in cls.__slots__ if name in stored}
        if not all(isinstance(known.get(name, ""), str) for name in ("marker", "request")):
            raise ViduConfigError("the order's record has a marker or a request that is not text")
        # A Variable may have been edited: what is compared, added up or logged has its type, or counts as unknown.
        known = {name: value for name, value in known.items() if isinstance(value, _KINDS.get(name, object))}
        known |= {name: epoch(known.get(name)) or 0.0 for name in ("at", "began")}
        known |= {"credits": price(known.get("credits")), "spent": price(known.get("spent")) or 0}
        return cls(**{"order": -1, "marker": "", **known, "generation_id": _id(stored.get("generation_id"))})

    @property
    def total(self) -> int | float:
        """The credits that the task instance has spent on all of its generations, as far as they are known."""
        return self.spent + (0 if self.refunded else self.credits or 0)

    @property
    def is_searchable(self) -> bool:
        """Whether a create of unknown outcome can be searched for."""
        return self.marked or self.looks is not None

    @property
    def is_lost(self) -> bool:
        """Whether a generation may exist whose id is unknown but can be searched for."""
        return self.generation_id is None and self.is_searchable

    def handled_by(self, order: Order) -> OrderRecord:
        """Return the record with the counters of the try that handles it now."""
        return replace(self, clears=order.clears, try_number=order.try_number, region=order.region)

    def taken_by(self, order: Order) -> OrderRecord:
        """Return the record as one that belongs to another order from now on."""
        return replace(self.handled_by(order), order=order.number, returned=False)

    def differs(self, request: str) -> bool:
        """Whether another request was sent than this one; an empty digest cannot be compared."""
        return bool(request) and self.request not in ("", request)

    def counts_another_clear(self, order: Order) -> bool:
        """Whether some task of the run was cleared after this record."""
        return None not in (self.clears, order.clears) and self.clears != order.clears

    def is_of_a_deleted_run(self, order: Order) -> bool:
        """Whether this record's run was deleted, and the try belongs to a new run with the same id."""
        return order.run_started is not None and order.run_started > self.at > 0 and order.try_number <= self.try_number

    def is_of_another_region(self, order: Order) -> bool:
        """Whether a clear of an earlier iteration of the loop began this record's iteration again."""
        return "" not in (self.region, order.region) and self.region != order.region

    def was_cleared(self, order: Order, request: str) -> bool:
        """Whether the task was cleared after this record, so that the try belongs to another order.

        A try that may be a mere retry counts as a clear only if ``max_tries`` is what a clear would have left, and the
        result was returned already or (since 3.2) a task of the run was cleared and the request differs. So a prompt
        that changes with every try pays once, even if other tasks of the run are cleared meanwhile.
        """
        if self.order != order.number or self.is_of_a_deleted_run(order) or self.is_of_another_region(order):
            return True
        counts = None not in (self.clears, order.clears)
        if counts and order.counts_every_clear:
            fits = self.counts_another_clear(order) and (self.returned or self.differs(request))
        elif self.counts_another_clear(order):
            return True
        else:
            fits = self.returned
        return fits and order.may_follow_a_clear_after(self.try_number)


_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("order", "try_number"), int),
    **dict.fromkeys(("region", "callback", "nudges", "service"), str),
    "looks": Mapping,
    "clears": (int, type(None)),
}
"""The types of a record's fields, except those that are read as numbers or only as true or false."""


def _id(stored: object) -> str | None:
    if stored is None:
        return None
    with suppress(ViduConfigError):
        return checked_id(stored)
    raise ViduConfigError(f"the order's record names no generation that could exist: {sanitized(stored, 60)!r}")
