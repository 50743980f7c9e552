"""What a batch has ordered, has open and has finished, as the sum of its journal's events. No I/O.

A row is *pending* until its intent is recorded; then it has an *intent*, until the answer to its create is recorded;
then it is *open*, until it has a *line* of the manifest: its file is stored, or it has failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final

from airflow_provider_vidu.batches.jobs import Intent, Open, endpoint_of, intended, key_of, time_of
from airflow_provider_vidu.batches.lines import Cost, Lines, checked_line
from airflow_provider_vidu.common.values import price, strict_int, text
from airflow_provider_vidu.orders.order import OrderRecord

STATE_VERSION: Final = 1
MOST_OWNERS: Final = 200
"""Of how many task instances a batch keeps which order they belong to: a batch with a name goes on from run to run."""

MOST_INTENTS: Final = 1000
"""How many creates may be under way, lost ones included: as many as a batch has at the service at once. Budgets count
each, and the list is searched for each, so a forged journal with any number of them would hold a task for hours."""
MOST_KEPT: Final = 500_000
"""How many rows a journal may hold, removed ones included: five times those of a batch, and more than one file of
twenty values for each may hold."""
_MOST_ORDERS: Final = 2**31
_RECENT: Final = 50
"""How many of the latest files decide how long a generation usually takes."""


@dataclass(slots=True)
class BatchState:
    """The state of a batch, of any leg, try or run."""

    orders: int = 0
    """How many times the batch was ordered again from the start: 1 after its first try."""
    order: OrderRecord | None = None
    """Which order of its task instance the latest try belongs to (see ``orders.order``)."""
    orders_of: dict[str, OrderRecord] = field(default_factory=dict)
    """The same for each task instance that has run the batch; empty if an earlier version has written the state."""
    is_again: bool = False
    """Whether the order follows a clear that orders everything again, so that no earlier file is reused."""
    again_by: str = ""
    """The task instance that was cleared; empty if an earlier version has written the state."""
    since: float = 0.0
    """When the latest try of any task instance began, in epoch seconds."""
    deadline: float = 0.0
    """When that one's timeout expires."""
    times_of: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Both for each task instance: of two that run one batch, each has its own timeout."""
    dags: dict[str, None] = field(default_factory=dict)
    """The DAGs whose tasks have run the batch; the clip pages show it to those who may see one of these. As names only:
    to look each of 70,000 up in a list of the others took a minute of the API server."""
    intents: dict[str, Intent] = field(default_factory=dict)
    open: dict[str, Open] = field(default_factory=dict)
    lines: Lines = field(default_factory=Lines)
    earlier: dict[str, Cost] = field(default_factory=dict)
    """What rows have cost before they were ordered again, by their keys: limits count it."""
    earlier_sum: Cost | None = field(default=None, compare=False)
    """Of all of them; None until it is wanted: each create looks at it, and the rows may be a hundred thousand."""
    dearest: float | int = 0
    """The highest price of a generation so far, open or not, also of one that has failed and was refunded."""

    def apply(self, event: Mapping[str, Any]) -> None:
        """Add an event; unknown ones, of a later version, are ignored."""
        handler = getattr(self, f"_on_{event.get('e')}", None)
        if handler is not None:
            handler(event)

    def check_size(self) -> None:
        """Refuse what was read if it holds more rows than any batch has; what a leg adds itself is within that.

        :raises ValueError: when it does.
        """
        if len(self.lines) + len(self.open) + len(self.earlier) > MOST_KEPT:
            raise ValueError(f"it holds more than {MOST_KEPT:,} rows")

    def _on_order(self, event: Mapping[str, Any]) -> None:
        if event.get("anew"):
            if (own := event.get("keys")) is None:
                self.intents, self.open, self.lines, self.earlier = {}, {}, Lines(), {}
            else:
                self._drop(keys := _list(own))
                for key in keys:  # not a copy without them: 290 kB of a journal took 24 s
                    self.earlier.pop(key, None)
            self.earlier_sum = None
            self.orders += 1
            self.is_again = bool(event.get("again"))
            self.again_by = text(event.get("owner")) or ""
        self._ordered_by(event)
        self.since, self.deadline = time_of(event["since"]), time_of(event["deadline"])
        self._timed_for(event)
        if isinstance(dag_id := event.get("dag"), str):
            self.dags[dag_id] = None

    def _on_returned(self, event: Mapping[str, Any]) -> None:
        self._ordered_by(event)

    def _ordered_by(self, event: Mapping[str, Any]) -> None:
        self.order = OrderRecord.from_json(event.get("order"))
        if (owner := text(event.get("owner"))) is not None and self.order is not None:
            self.orders_of.pop(owner, None)
            self.orders_of[owner] = self.order
            for oldest in list(self.orders_of)[:-MOST_OWNERS]:
                del self.orders_of[oldest]
                self.times_of.pop(oldest, None)

    def _timed_for(self, event: Mapping[str, Any]) -> None:
        if (owner := text(event.get("owner"))) in self.orders_of and "since" in event:
            self.times_of[owner] = time_of(event["since"]), time_of(event["deadline"])

    def order_of(self, owner: str) -> OrderRecord | None:
        """Return which order a task instance's latest try belonged to; None if it has not run the batch.

        :param owner: identifies the task instance, over all of its tries; empty outside of a task.
        """
        return self.orders_of.get(owner) if owner and self.orders_of else self.order

    def may_know(self, owner: str) -> bool:
        """Whether a task instance has run the batch, or has perhaps been forgotten since, because many have.

        :param owner: identifies the task instance, over all of its tries; empty outside of a task.
        """
        return self.order_of(owner) is not None or len(self.orders_of) >= MOST_OWNERS

    def since_of(self, owner: str) -> float:
        """Return when a task instance's latest try began, in epoch seconds."""
        return self.times_of.get(owner, (self.since, self.deadline))[0]

    def deadline_of(self, owner: str) -> float:
        """Return when the timeout of a task instance's latest try expires, in epoch seconds."""
        return self.times_of.get(owner, (self.since, self.deadline))[1]

    def generates_again(self, owner: str) -> bool:
        """Whether a task instance reuses no earlier file: it was cleared to order everything again."""
        return self.is_again and self.again_by in ("", owner)

    def has_others(self, owner: str) -> bool:
        """Whether another task instance has run the batch, too, so that rows may be that one's."""
        return any(other != owner for other in self.orders_of)

    def _on_intent(self, event: Mapping[str, Any]) -> None:
        record, key = OrderRecord.from_json(event["record"]), key_of(event)
        if record is None or not isinstance(record.request, str) or not isinstance(record.marker, str):
            raise ValueError("an intent without a record")
        self._drop([key])
        if len(self.intents) >= MOST_INTENTS:
            raise ValueError("more creates than any batch has under way")
        self.intents[key] = Intent(record, endpoint_of(event), bool(event.get("lost")), int(event.get("index", -1)))

    def _on_back(self, event: Mapping[str, Any]) -> None:
        for key in (keys := _list(event["keys"])):
            if (row := self.lines.ended.get(key)) is not None:
                self.earlier[key] = self.earlier.get(key, Cost()).plus(row)
                self.earlier_sum = None
                self._note_price(row.credits, is_own=not row.is_reused)
        self._drop(keys)

    def _on_id(self, event: Mapping[str, Any]) -> None:
        key = key_of(event)
        self._drop([key])
        job = self.open[key] = Open.from_json(event)
        self._note_price(job.credits, is_own=not job.is_shared)

    def _on_line(self, event: Mapping[str, Any]) -> None:
        line = checked_line(event["line"])
        self._drop([line["key"]])
        self.lines[line["key"]] = line

    def _note_price(self, known: float | int | None, *, is_own: bool) -> None:
        """Note a price, unless another order's: that costs nothing here, and others may forge its entry."""
        if is_own:
            self.dearest = max(self.dearest, known or 0)

    def _drop(self, keys: Iterable[str]) -> None:
        for key in keys:
            for kept in (self.intents, self.open, self.lines):
                kept.pop(key, None)

    def knows(self, key: str) -> bool:
        """Whether a row is not pending."""
        return key in self.lines or key in self.open or key in self.intents

    def failed_keys(self, *, retryable_only: bool) -> list[str]:
        """Return the rows that have failed and may be ordered again."""
        failed = ((key, row) for key, row in self.lines.ended.items() if not row.is_stored)
        return [key for key, row in failed if row.is_retryable or not retryable_only]

    @property
    def stored(self) -> int:
        """How many rows have a file."""
        return self.lines.sums.stored

    @property
    def failed(self) -> int:
        """How many rows have failed."""
        return len(self.lines) - self.stored

    @property
    def credits(self) -> float | int:
        """What the batch has spent, as far as it is known, on open generations and those of rows ordered again, too."""
        in_flight = sum(one.credits for one in self.open.values() if one.credits and not one.is_shared)
        return self.lines.sums.cost.credits + in_flight + self._before.credits

    @property
    def ordered(self) -> tuple[int, int]:
        """How many generations the batch has ordered, and of how many of them the price is known."""
        priced = sum(one.credits is not None for one in self.open.values())
        known = Cost.sum((self.lines.sums.cost, self._before))
        return known.generations + len(self.open), known.priced + priced

    @property
    def _before(self) -> Cost:
        if self.earlier_sum is None:
            self.earlier_sum = Cost.sum(self.earlier.values())
        return self.earlier_sum

    @property
    def price(self) -> float | int | None:
        """The highest price of a generation so far; None before one is known.

        Before a file is stored, a 0 is none: failures return the credits, and all rows would be ordered at that price.
        """
        if highest := max(self.dearest, self.lines.sums.dearest):
            return highest
        return 0 if self.lines.sums.has_free else None

    @property
    def unpriced(self) -> int:
        """How many open generations have no known price."""
        return sum(not one.credits and not one.is_shared for one in self.open.values()) + len(self.intents)

    @property
    def uncertain(self) -> int:
        """How many creates may have been paid for, which nothing can find out."""
        return self.lines.sums.cost.uncertain + self._before.uncertain

    @property
    def usual_seconds(self) -> float | None:
        """How long a generation takes, by the latest; None before one has ended.

        Three of four take longer: an end is often seen late, never early.
        """
        latest = islice(reversed(self.lines.ended.values()), _RECENT)
        known = [row.took for row in latest if row.took is not None]
        import statistics  # DAG files import this module

        return statistics.quantiles(known, n=4, method="inclusive")[0] if len(known) > 1 else next(iter(known), None)

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON, with an empty list at its end: ``batches.snapshot`` adds the lines."""
        return {
            "version": STATE_VERSION,
            "orders": self.orders,
            "again": self.is_again,
            "again_by": self.again_by,
            "order": None if self.order is None else self.order.to_json(),
            "owners": [self._owner_to_json(owner, order) for owner, order in self.orders_of.items()],
            "since": self.since,
            "deadline": self.deadline,
            "dags": list(self.dags),
            "intents": [intended(key, one) for key, one in self.intents.items()],
            "open": [{"key": key, **asdict(one)} for key, one in self.open.items()],
            "earlier": [one.to_json(key) for key, one in self.earlier.items()],
            "dearest": self.dearest,
            "lines": [],
        }

    def _owner_to_json(self, owner: str, order: OrderRecord) -> dict[str, Any]:
        times = dict(zip(("since", "deadline"), self.times_of.get(owner, ()), strict=False))
        return {"owner": owner, "order": order.to_json(), **times}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> BatchState:
        """Read what :meth:`to_json` has returned; it may hold lines."""
        if (orders := strict_int(stored["orders"])) is None or not 0 <= orders < _MOST_ORDERS:
            raise ValueError("a number of orders that is none")
        state = cls(
            orders=orders,
            is_again=bool(stored.get("again")),
            again_by=text(stored.get("again_by")) or "",
            order=OrderRecord.from_json(stored.get("order")),
            since=time_of(stored["since"]),
            deadline=time_of(stored["deadline"]),
            dags=dict.fromkeys(name for name in _list(stored.get("dags", [])) if isinstance(name, str)),
        )
        latest = state.order
        for one in _list(stored.get("owners", [])):
            state._ordered_by(one)
            state._timed_for(one)
        state.order = latest
        for one in _list(stored["lines"]):
            state.lines[one["key"]] = checked_line(one)
        state.earlier = {key_of(one): Cost.from_json(one) for one in _list(stored.get("earlier", []))}
        state.dearest = max(price(stored.get("dearest")) or 0, 0)
        for one in _list(stored["open"]):
            job = state.open[key_of(one)] = Open.from_json(one)
            state._note_price(job.credits, is_own=not job.is_shared)  # an earlier version may not have
        for one in _list(stored["intents"]):
            state._on_intent(one)
        return state


def _list(stored: Any) -> list[Any]:
    """Return a list, or raise TypeError: a text is one JSON value, and a loop over its characters may take minutes."""
    if not isinstance(stored, list):
        raise TypeError("a list that is none")
    return stored
