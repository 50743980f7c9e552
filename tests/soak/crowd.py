"""The crowd of waits: what each of them is, when it arrives, and what must become of it. Seeded."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_vidu.sandbox import Sandbox
from airflow_provider_vidu.triggers import ViduGenerationTrigger

NATIVE: Final = "vidu-native"
ENT: Final = "ent-v2"
CONNECTIONS: Final = {NATIVE: "soak_native", ENT: "soak_ent"}
#: Proportions. ``handed_over``: to another triggerer and back; ``killed``: by the user.
KINDS: Final = {
    "succeeds": 56,
    "fails": 10,
    "times_out": 6,
    "unknown": 3,
    "without_url": 4,
    "killed": 10,
    "handed_over": 11,
}
#: What the one event may say: outcome and, for an error, its type. A killed wait fires nothing.
EXPECTED: Final[dict[str, set[tuple[str, str | None]]]] = {
    "succeeds": {("succeeded", None)},
    "fails": {("failed", "ViduGenerationFailedError")},
    "times_out": {("timeout", "ViduTimeoutError")},
    # A gateway says it with a 400; when the weather spoils the body, only the 400 is left to be believed.
    "unknown": {("error", "ViduNotFoundError"), ("error", "ViduRequestError")},
    "without_url": {("error", "ViduMissingVideoError")},
    "killed": set(),
    "handed_over": {("succeeded", None)},
}
POLL_INTERVAL: Final = 3.0


@dataclass
class Wait:
    """One task that waits.

    :param seconds: sandbox seconds until the generation is done.
    :param acts_after: wall seconds after which it is killed or handed over, or until its deadline.
    """

    number: int
    kind: str
    dialect: str
    seconds: float
    acts_after: float
    started: float = 0.0
    ended: float = 0.0
    trigger_ids: list[int] = field(default_factory=list)
    outcomes: list[tuple[str, str | None]] = field(default_factory=list)
    acted: bool = False

    @property
    def task_id(self) -> str:
        """The Airflow task's name."""
        return f"wait_{self.number}"

    @property
    def generation_id(self) -> str:
        """The id at the service; the official API has numeric ones."""
        return str(930_000_000_000_000_000 + self.number) if self.dialect == ENT else f"soak:{self.number}^^vidu-2.0"

    def deferred(self) -> ViduGenerationTrigger:
        """Return the trigger as an operator defers it."""
        now = time.time()
        return ViduGenerationTrigger(
            generation_id=self.generation_id,
            vidu_conn_id=CONNECTIONS[self.dialect],
            poll_interval=POLL_INTERVAL,
            deadline=now + (self.acts_after if self.kind == "times_out" else 900.0),
            # An id may be unknown for a minute after its creation: these are older.
            since=now - 120.0 if self.kind == "unknown" else now,
            cancel_on_kill=True,
        )

    def put_into(self, sandbox: Sandbox) -> None:
        """Let the service have the generation."""
        ent = self.dialect == ENT
        accepted, running = ("created", "processing") if ent else ("pending", "processing")
        done = {"fails": "failed"}.get(self.kind, "success" if ent else "completed")
        states: list[list[Any]] = [[accepted, 0.0]]
        if self.kind == "times_out":
            states.append([running, 20.0])
        elif self.kind != "killed":  # a killed one still waits for its turn, so that it can be cancelled
            states += [[running, self.seconds / 3], [done, self.seconds]]
        if self.kind != "unknown":
            sandbox.add_generation(
                self.generation_id,
                dialect=self.dialect,
                states=states,
                without_url=self.kind == "without_url",
            )

    def problem(self) -> str | None:
        """Return what is wrong with what was noticed, or None."""
        expected = EXPECTED[self.kind]
        if len(self.outcomes) == min(len(expected), 1) and expected.issuperset(self.outcomes):
            return None
        return (
            f"{self.task_id} ({self.kind}, {self.dialect}) saw {self.outcomes}, not one of {sorted(expected, key=str)}"
        )


def gather(count: int, rng: random.Random, first: int = 0) -> list[Wait]:
    """Return ``count`` waits in the order of their arrival."""
    kinds = rng.choices(list(KINDS), weights=list(KINDS.values()), k=count)
    return [
        Wait(
            number=first + number,
            kind=kind,
            dialect=rng.choice([NATIVE, ENT]),
            seconds=rng.uniform(60, 900),
            acts_after=rng.uniform(12, 30) if kind == "times_out" else rng.uniform(3, 9),
        )
        for number, kind in enumerate(kinds)
    ]


def census(waits: list[Wait]) -> dict[str, int]:
    """Return how many there are of each kind."""
    return dict(Counter(wait.kind for wait in waits))
