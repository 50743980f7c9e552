"""The books of the sandbox: what was created and what it cost, and every request that arrived.

This is what a test asks afterwards: was it paid once, was it cancelled, how often was it polled, did the key
leak?
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
#: Requests kept word for word; older ones only live on in the counts.
KEPT_REQUESTS = 200_000


@dataclass
class CreateRecord:
    """One billed create: ``time`` in sandbox epoch seconds, ``wall_time`` in real ones.

    ``answered`` is False when the sandbox was told to lose the answer.
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
    """One request as it arrived: raw ``path`` and ``query``, ``id`` of the generation meant (decoded) if any.

    ``time`` is sandbox time and ``wall_time`` real time, both epoch seconds; ``status`` is the HTTP status
    decided on (0 when the connection was cut instead); ``fault`` tells whether a fault rule applied.
    ``key_sent`` is True when any header held one of the API keys, ``authorization`` when an Authorization
    header came at all.
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

    def header(self, name: str) -> str | None:
        """Return the value of the header ``name`` in any case, or None."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    @property
    def authorization(self) -> bool:
        """Whether an Authorization header arrived."""
        return self.header("authorization") is not None

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.header("range")

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON."""
        return {**asdict(self), "authorization": self.authorization, "range": self.range}

    def of_file(self) -> dict[str, Any]:
        """Return what the books say about a request for a file."""
        names = ("id", "artifact", "method", "status", "range", "authorization", "key_sent", "time", "wall_time")
        return {name: getattr(self, name) for name in names}


@dataclass
class Ledger:
    """Balance, creates and requests. ``sink`` gets one JSON object for each entry worth a line in a file."""

    balance: int
    sink: Callable[[dict[str, Any]], None] = field(default=lambda entry: None)

    def __post_init__(self) -> None:
        self.creates: dict[tuple[Dialect, str], CreateRecord] = {}
        self.requests: deque[RecordedRequest] = deque(maxlen=KEPT_REQUESTS)
        self.counts: Counter[str] = Counter()
        self.counts_by_id: dict[str, Counter[str]] = {}
        # Failures are known from the scripts beforehand: a heap by time makes settling cheap at every request.
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
        """Note when a generation will fail; again whenever its start moved."""
        fails_at = generation.failure_time()
        if fails_at is not None:
            self._generations[(generation.dialect, generation.id)] = generation
            heapq.heappush(self._failing, (fails_at, generation.dialect, generation.id))

    def settle(self, now: float) -> None:
        """Give back the credits of all generations that have failed by the sandbox time ``now``."""
        while self._failing and self._failing[0][0] <= now:
            when, dialect, generation_id = heapq.heappop(self._failing)
            # A failure that was put off has a later entry of its own.
            if self._generations[(dialect, generation_id)].failure_time() == when:
                self._give_back(dialect, generation_id, "refunded", when)

    def cancel(self, generation: Generation, now: float) -> None:
        """Give back the credits of a generation that was cancelled at the sandbox time ``now``."""
        self._give_back(generation.dialect, generation.id, "cancelled", now)

    def enter_request(self, record: RecordedRequest) -> None:
        """Enter a request; requests to the control API are not entered."""
        self.requests.append(record)
        self.counts[record.kind] += 1
        if record.id is not None:
            self.counts_by_id.setdefault(record.id, Counter())[record.kind] += 1

    def enter_file(self, record: RecordedRequest) -> None:
        """Pass a request for a file on to the sink once its status is known."""
        self.sink({"event": "file", **record.of_file()})

    def _give_back(self, dialect: Dialect, generation_id: str, charge: Charge, when: float) -> None:
        record = self.creates.get((dialect, generation_id))
        if record is None or record.charge != "charged":
            return
        record.charge = charge
        self.balance += record.credits
        event = {
            "event": charge,
            "id": generation_id,
            "dialect": dialect,
            "credits": record.credits,
            "time": when,
        }
        self.sink(event)
