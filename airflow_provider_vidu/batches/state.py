"""What a batch has ordered, has open and has finished, as the sum of its journal's events. No I/O.

A row is *pending* until its intent is recorded; then it has an *intent*, until the answer to its create is recorded;
then it is *open*, until it has a *line* of the manifest: its file is stored, or it has failed.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from airflow_provider_vidu.api.dialects.identity import checked_id, is_safe_id
from airflow_provider_vidu.common.values import epoch, mapping, moment, price, text
from airflow_provider_vidu.exceptions import ViduConfigError, ViduSubmitUnknownError
from airflow_provider_vidu.orders.order import Order, Record

STATE_VERSION: Final = 1
Event = dict[str, Any]
Line = dict[str, Any]

STORED: Final = "stored"
FAILED: Final = "failed"

MOST_OWNERS: Final = 200
"""Of how many task instances a batch keeps which order they belong to: a batch with a name goes on from run to run."""

MOST_INTENTS: Final = 1000
"""How many creates may be under way, lost ones included: as many as a batch has at the service at once. Budgets count
each, and the list is searched for each, so a forged journal with any number of them would hold a task for hours."""
_MOST_BYTES: Final = 10**13
"""The largest size of a file in a line: the sum of all must fit into an XCom."""
_RECENT: Final = 50
"""How many of the latest files decide how long a generation usually takes."""


@dataclass(frozen=True, slots=True)
class Open:
    """A generation that is paid for and whose file is not stored.

    :param id: the id at Vidu.
    :param at: when it was submitted, in epoch seconds.
    :param credits: its price, if the answer to the create holds it.
    :param seed: the seed that the service chose.
    :param endpoint: where it was submitted; None if the fields decided.
    :param request: the digest of its request.
    :param index: the row's place, from 0; -1 if an earlier version submitted it.
    :param prompt: the beginning of the row's prompt, for the pages.
    :param model: the model that the row asks for.
    :param is_shared: whether another task with an equal order has paid for it.
    """

    id: str
    at: float
    credits: float | int | None = None
    seed: int | None = None
    endpoint: str | None = None
    request: str = ""
    index: int = -1
    prompt: str | None = None
    model: str | None = None
    is_shared: bool = False

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Open:
        """Read what an event or a snapshot holds.

        :raises ViduConfigError: when the id is not one.
        """
        index = stored.get("index", -1)
        return cls(
            _generation_id(stored.get("id")),
            epoch(stored.get("at")) or 0.0,
            credits=price(stored.get("credits")),
            seed=_whole_number(stored.get("seed")),
            index=index if isinstance(index, int) else -1,
            request=text(stored.get("request")) or "",
            is_shared=stored.get("is_shared") is True,
            **{name: text(stored.get(name)) for name in ("endpoint", "prompt", "model")},
        )


@dataclass(slots=True)
class Intent:
    """A create that is about to be sent, or whose outcome is unknown.

    :param record: the record of the create, for the search.
    :param endpoint: where it is sent.
    :param is_lost: whether the create was sent and its outcome is unknown.
    :param index: the row's place, from 0; -1 if an earlier version recorded it.
    """

    record: Record
    endpoint: str | None = None
    is_lost: bool = False
    index: int = -1


@dataclass(slots=True)
class BatchState:
    """The state of a batch, of whatever leg, try or run."""

    orders: int = 0
    """How many times the batch was ordered again from the start: 1 after its first try."""
    order: Record | None = None
    """Which order of its task instance the latest try belongs to (see ``orders.order``)."""
    orders_of: dict[str, Record] = field(default_factory=dict)
    """The same for each task instance that has run the batch; empty if an earlier version has written the state."""
    is_again: bool = False
    """Whether the order follows a clear that orders everything again, so that no earlier file is reused."""
    again_by: str = ""
    """The task instance that was cleared; empty if an earlier version has written the state."""
    since: float = 0.0
    deadline: float = 0.0
    dags: dict[str, None] = field(default_factory=dict)
    """The DAGs whose tasks have run the batch; the clip pages show it to those who may see one of these. As names only:
    to look each of 70,000 up in a list of the others took a minute of the API server."""
    intents: dict[str, Intent] = field(default_factory=dict)
    open: dict[str, Open] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Add an event; unknown ones, of a later version, are ignored."""
        handler = getattr(self, f"_on_{event.get('e')}", None)
        if handler is not None:
            handler(event)

    def _on_order(self, event: Mapping[str, Any]) -> None:
        if event.get("anew"):
            if (own := event.get("keys")) is None:
                self.intents, self.open, self.lines = {}, {}, {}
            else:
                self._drop(own)
            self.orders += 1
            self.is_again = bool(event.get("again"))
            self.again_by = text(event.get("owner")) or ""
        self._ordered_by(event)
        self.since, self.deadline = _time(event["since"]), _time(event["deadline"])
        if isinstance(dag_id := event.get("dag"), str):
            self.dags[dag_id] = None

    def _on_returned(self, event: Mapping[str, Any]) -> None:
        self._ordered_by(event)

    def _ordered_by(self, event: Mapping[str, Any]) -> None:
        self.order = Record.from_json(event.get("order"))
        if (owner := text(event.get("owner"))) is not None and self.order is not None:
            self.orders_of.pop(owner, None)
            self.orders_of[owner] = self.order
            for oldest in list(self.orders_of)[:-MOST_OWNERS]:
                del self.orders_of[oldest]

    def order_of(self, owner: str) -> Record | None:
        """Return which order a task instance's latest try belonged to; None if it has not run the batch.

        :param owner: identifies the task instance, over all of its tries; empty outside of a task.
        """
        return self.orders_of.get(owner) if owner and self.orders_of else self.order

    def generates_again(self, owner: str) -> bool:
        """Whether a task instance reuses no earlier file: it was cleared to order everything again."""
        return self.is_again and self.again_by in ("", owner)

    def has_others(self, owner: str) -> bool:
        """Whether another task instance has run the batch, too, so that rows may be that one's."""
        return any(other != owner for other in self.orders_of)

    def _on_intent(self, event: Mapping[str, Any]) -> None:
        record, key = Record.from_json(event["record"]), _key(event)
        if record is None or not isinstance(record.request, str) or not isinstance(record.marker, str):
            raise ValueError("an intent without a record")
        self._drop([key])
        if len(self.intents) >= MOST_INTENTS:
            raise ValueError("more creates than any batch has under way")
        self.intents[key] = Intent(
            record, text(event.get("endpoint")), bool(event.get("lost")), int(event.get("index", -1))
        )

    def _on_back(self, event: Mapping[str, Any]) -> None:
        """Make rows pending again."""
        self._drop(event["keys"])

    def _on_id(self, event: Mapping[str, Any]) -> None:
        key = _key(event)
        self._drop([key])
        self.open[key] = Open.from_json(event)

    def _on_line(self, event: Mapping[str, Any]) -> None:
        line = checked_line(event["line"])
        self._drop([line["key"]])
        self.lines[line["key"]] = line

    def _drop(self, keys: Iterable[str]) -> None:
        for key in keys:
            for kept in (self.intents, self.open, self.lines):
                kept.pop(key, None)

    def knows(self, key: str) -> bool:
        """Whether a row is not pending."""
        return key in self.lines or key in self.open or key in self.intents

    def failed_keys(self, *, retryable_only: bool) -> list[str]:
        """Return the rows that have failed and may be ordered again."""
        failed = [line for line in self.lines.values() if line["status"] != STORED]
        return [line["key"] for line in failed if not retryable_only or line["error"].get("retryable")]

    @property
    def stored(self) -> int:
        """How many rows have a file."""
        return sum(line["status"] == STORED for line in self.lines.values())

    @property
    def failed(self) -> int:
        """How many rows have failed."""
        return len(self.lines) - self.stored

    @property
    def credits(self) -> float | int:
        """What the batch has spent, as far as it is known: open generations included."""
        return sum(known for known in self._prices() if known is not None)

    @property
    def ordered(self) -> tuple[int, int]:
        """How many generations the batch has ordered, and of how many of them the price is known."""
        made = [line for line in self.lines.values() if line.get("generation_id") and not line.get("reused_from")]
        known = [price(line.get("credits")) for line in made] + [one.credits for one in self.open.values()]
        return len(known), sum(each is not None for each in known)

    @property
    def price(self) -> float | int | None:
        """The highest price of a generation so far; None before one is known.

        Not of another order's, which costs nothing here, and whose entry other writers of the destination may forge: a
        price of 0 would let all rows be ordered before the first price is known.
        """
        return max((known for known in self._prices() if known is not None), default=None)

    def _prices(self) -> list[float | int | None]:
        """Return the prices of the generations that the batch itself has ordered."""
        known = [price(line.get("credits")) for line in self.lines.values() if not line.get("reused_from")]
        return known + [one.credits for one in self.open.values() if not one.is_shared]

    @property
    def unpriced(self) -> int:
        """How many open generations have no known price."""
        return sum(one.credits is None for one in self.open.values()) + len(self.intents)

    @property
    def usual_seconds(self) -> float | None:
        """How long a generation takes, by the latest; None before one has ended.

        Three of four take longer: an end is often seen late, never early.
        """
        took = [epoch(line.get("took")) for line in list(self.lines.values())[-_RECENT:]]
        known = [seconds for seconds in took if seconds is not None]
        return statistics.quantiles(known, n=4, method="inclusive")[0] if len(known) > 1 else next(iter(known), None)

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "version": STATE_VERSION,
            "orders": self.orders,
            "again": self.is_again,
            "again_by": self.again_by,
            "order": None if self.order is None else self.order.to_json(),
            "owners": [{"owner": owner, "order": order.to_json()} for owner, order in self.orders_of.items()],
            "since": self.since,
            "deadline": self.deadline,
            "dags": list(self.dags),
            "intents": [intended(key, one) for key, one in self.intents.items()],
            "open": [{"key": key, **asdict(one)} for key, one in self.open.items()],
            "lines": list(self.lines.values()),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> BatchState:
        """Read what :meth:`to_json` wrote."""
        state = cls(
            orders=int(stored["orders"]),
            is_again=bool(stored.get("again")),
            again_by=text(stored.get("again_by")) or "",
            order=Record.from_json(stored.get("order")),
            since=_time(stored["since"]),
            deadline=_time(stored["deadline"]),
            dags=dict.fromkeys(name for name in stored.get("dags", ()) if isinstance(name, str)),
        )
        latest = state.order
        for one in stored.get("owners", ()):
            state._ordered_by(one)
        state.order = latest
        for one in stored["lines"]:
            state.lines[one["key"]] = checked_line(one)
        for one in stored["open"]:
            state.open[_key(one)] = Open.from_json(one)
        for one in stored["intents"]:
            state._on_intent(one)
        return state


def checked_line(line: Any) -> Line:
    """Return a line of the manifest as it was recorded.

    :raises ValueError, ViduConfigError: when it lacks what each line has; the store may have other writers.
    """
    known = mapping(line)
    status, error = known.get("status"), mapping(known.get("error"))
    if not isinstance(known.get("key"), str) or status not in (FAILED, STORED):
        raise ValueError("a line without a key or a status")
    if status == FAILED and not (isinstance(error.get("type"), str) and isinstance(error.get("message"), str)):
        raise ValueError("a failed line without an error")
    if known.get("generation_id") is not None:
        _generation_id(known["generation_id"])
    size = known.get("size", 0)
    if not isinstance(size, int) or not 0 <= size <= _MOST_BYTES or not isinstance(known.get("request", ""), str):
        raise ValueError("a line with a size or a request that is none")
    return dict(known)


def _generation_id(stored: Any) -> str:
    """Return the id of a generation.

    :raises ViduConfigError: when it is not one.
    """
    if not is_safe_id(generation_id := checked_id(stored)):
        raise ViduConfigError("The id of a generation could forge a log line.")
    return generation_id


def _key(event: Mapping[str, Any]) -> str:
    """Return the key of the row that an event is about.

    :raises TypeError: when it is not text.
    """
    if not isinstance(key := event["key"], str):
        raise TypeError("a key that is not text")
    return key


def _time(value: Any) -> float:
    """Return epoch seconds.

    :raises ValueError: when it is none.
    """
    if (seconds := epoch(value)) is None:
        raise ValueError("a time that is none")
    return seconds


def _whole_number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def intended(key: str, intent: Intent) -> dict[str, Any]:
    """Return what an event or a snapshot holds of a row's intent."""
    return {
        "key": key,
        "record": intent.record.to_json(),
        "endpoint": intent.endpoint,
        "lost": intent.is_lost,
        "index": intent.index,
    }


def opened(key: str, job: Open) -> Event:
    """Return the event of a row's generation."""
    return {"e": "id", "key": key, **asdict(job)}


def reopened(line: Mapping[str, Any]) -> Open | None:
    """Return the generation of a failed row that is paid for and may have a result; None to order it again."""
    if not line.get("paid") or not line.get("generation_id"):
        return None
    submitted = moment(line.get("submitted_at"))
    at = 0.0 if submitted is None else submitted.timestamp()
    known: dict[str, Any] = {name: line.get(name) for name in ("credits", "seed", "endpoint", "prompt", "model")}
    is_shared, request = bool(line.get("reused_from")), line.get("request", "")
    known |= {"request": request, "index": line.get("index", -1), "is_shared": is_shared}
    return Open(line["generation_id"], at, **known)


def begun(
    state: BatchState,
    order: Order,
    now: float,
    timeout: float,
    *,
    is_new: bool,
    dag_id: str | None = None,
    owner: str = "",
    keys: Collection[str] | None = None,
) -> tuple[list[Event], bool]:
    """Return the events with which a try begins, and whether it gives up what the order before a clear has open.

    A batch with a name is run by several task instances. The first try of another one is no clear, although its DAG run
    began later: it orders the rows that have no file. A clear that orders everything again leaves the rows of other
    task instances alone.

    :param order: which order of the task instance the try belongs to.
    :param now: epoch seconds.
    :param timeout: seconds that the batch may take.
    :param is_new: whether a clear orders everything again.
    :param dag_id: the DAG of the task; None outside of one.
    :param owner: identifies the task instance, over all of its tries; empty outside of a task.
    :param keys: of the try's rows; None for all that the state has.
    """
    earlier = state.order_of(owner)
    was_cleared = earlier is not None and earlier.was_cleared(order, "")
    is_anew = state.order is None or (was_cleared and is_new)
    record = Record(order.number, "", now, clears=order.clears, try_number=order.try_number, region=order.region)
    event: Event = {
        "e": "order", "anew": is_anew, "again": is_anew and was_cleared, "order": record.to_json(), "dag": dag_id,
        **({"owner": owner} if owner else {}), "since": now, "deadline": now + timeout,
    }  # fmt: skip
    if is_anew:
        if keys is not None and state.has_others(owner):
            event["keys"] = [key for key in keys if state.knows(key)]  # the other rows are of tasks that no one cleared
        return [event], was_cleared
    failed = state.failed_keys(retryable_only=earlier is not None and not was_cleared)
    if earlier is None:  # no user has decided to pay for these again
        failed = [key for key in failed if not _is_uncertain(state.lines[key])]
    return [event, *_ordered_again(state, [key for key in failed if keys is None or key in keys])], False


def _is_uncertain(line: Line) -> bool:
    """Whether it is unknown if a failed row's generation was created, so that only a user may order it again."""
    return mapping(line["error"]).get("type") == ViduSubmitUnknownError.__name__


def _ordered_again(state: BatchState, failed: Iterable[str]) -> list[Event]:
    """Return the events that order failed rows again; the wait for those that are paid for is resumed."""
    events: list[Event] = []
    back: list[str] = []
    for key in failed:
        if (job := reopened(state.lines[key])) is not None:
            events.append(opened(key, job))
        else:
            back.append(key)
    return [*events, {"e": "back", "keys": back}] if back else events
