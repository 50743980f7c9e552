"""The sandbox's ledger: creates with their costs, and every received request.

It lets a test check what was paid or cancelled, how often a generation was polled, and whether the key leaked.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from airflow_provider_vidu.sandbox.messages.calls import Dialect
from airflow_provider_vidu.sandbox.world.generations import Generation

Charge = Literal["charged", "refunded", "cancelled"]
#: Requests that are kept in full; older ones remain only in the counts.
KEPT_REQUESTS = 200_000


@dataclass
class CreateRecord:
    """One billed create: ``time`` in sandbox epoch seconds, ``wall_time`` in real ones.

    ``answered`` is False if a fault lost the answer.
    """

    id: str
    dialect: Dialect
    endpoint: str
    body: Any
    time: float
    wall_time: float
    credits: int
    charge: Charge = "charged"
    answered: bool = True


@dataclass
class RecordedRequest:
    """One received request: raw ``path`` and ``query``, the decoded ``id`` of its generation, if any.

    ``time`` is sandbox time and ``wall_time`` real time, both epoch seconds; ``status`` is the HTTP status of the
    answer (0 if the connection was cut instead); ``fault`` is whether a fault rule applied. ``key_sent`` is whether a
    header or the URL held an API key, ``authorization`` whether an Authorization header was present. ``listed`` are
    the ids of the generations that the answer to a list held.
    """

    kind: str
    dialect: Dialect | None
    id: str | None
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any
    time: float
    wall_time: float
    key_sent: bool
    status: int = 0
    fault: bool = False
    artifact: str = ""
    listed: tuple[str, ...] = ()

    def header(self, name: str) -> str | None:
        """Return the value of the header ``name`` (case-insensitive), or None."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    @property
    def authorization(self) -> bool:
        """Whether an Authorization header was present."""
        return self.header("authorization") is not None

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.header("range")

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON."""
        return {**asdict(self), "authorization": self.authorization, "range": self.range}

    def of_file(self) -> dict[str, Any]:
        """Return the ledger's entry for a request for a file."""
        names = ("id", "artifact", "method", "status", "range", "authorization", "key_sent", "time", "wall_time")
        return {name: getattr(self, name) for name in names}


@dataclass
class Ledger:
    """Balance, creates and requests; ``sink`` receives creates, refunds and file requests as JSON objects."""

    balance: int
    sink: Callable[[dict[str, Any]], None] = field(default=lambda entry: None)

    def __post_init__(self) -> None:
        self.creates: dict[tuple[Dialect, str], CreateRecord] = {}
        self.requests: deque[RecordedRequest] = deque(maxlen=KEPT_REQUESTS)
        self.counts: Counter[str] = Counter()
        self.counts_by_id: dict[str, Counter[str]] = {}
        # Failures follow from the scripts, so a heap by time makes settling at every request cheap.
        self._failing: list[tuple[float, Dialect, str]] = []
        self._generations: dict[tuple[Dialect, str], Generation] = {}

    def enter_create(self, generation: Generation, body: Any, *, wall_time: float) -> CreateRecord:
        """Charge and enter a create."""
        record = CreateRecord(
            id=generation.id,
            dialect=generation.dialect,
            endpoint=generation.endpoint,
            body=body,
            time=generation.created_at,
            wall_time=wall_time,
            credits=generation.credits,
        )
        self.creates[(record.dialect, record.id)] = record
        self.balance -= record.credits
        self.expect_end(generation)
        self.sink({"event": "create", **asdict(record)})
        return record

    def expect_end(self, generation: Generation) -> None:
        """Record when a generation will fail; to be repeated when its start changes."""
        fails_at = generation.failure_time()
        if fails_at is not None:
            self._generations[(generation.dialect, generation.id)] = generation
            heapq.heappush(self._failing, (fails_at, generation.dialect, generation.id))

    def settle(self, now: float) -> None:
        """Refund all generations that have failed by the sandbox time ``now``."""
        while self._failing and self._failing[0][0] <= now:
            when, dialect, generation_id = heapq.heappop(self._failing)
            # A postponed failure has another, later entry.
            if self._generations[(dialect, generation_id)].failure_time() == when:
                self._refund(dialect, generation_id, "refunded", when)

    def cancel(self, generation: Generation, now: float) -> None:
        """Refund a generation that was cancelled at the sandbox time ``now``."""
        self._refund(generation.dialect, generation.id, "cancelled", now)

    def enter_request(self, record: RecordedRequest) -> None:
        """Enter a request to the API or the file store."""
        self.requests.append(record)
        self.counts[record.kind] += 1
        if record.id is not None:
            self.counts_by_id.setdefault(record.id, Counter())[record.kind] += 1

    def enter_file(self, record: RecordedRequest) -> None:
        """Report a request for a file, with its status, to the sink."""
        self.sink({"event": "file", **record.of_file()})

    def _refund(self, dialect: Dialect, generation_id: str, charge: Charge, when: float) -> None:
        record = self.creates.get((dialect, generation_id))
        if record is None or record.charge != "charged":
            return
        record.charge = charge
        self.balance += record.credits
        event = {"event": charge, "id": generation_id, "dialect": dialect, "credits": record.credits, "time": when}
        self.sink(event)
