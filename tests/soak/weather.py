"""Bad weather for a sandbox: seeded faults all along, restarts and rotated keys at their times."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_vidu.sandbox import Sandbox

Actions = list[tuple[int, Callable[[random.Random], dict[str, Any]]]]
#: What happens to a poll, and how often in proportion. Refusals (401, 403, 404) end a wait by design: not here.
POLL_ACTIONS: Actions = [
    (4, lambda rng: {"reset": rng.choice(["before", "headers", "body"])}),
    (3, lambda rng: {"status": 429, "headers": {"Retry-After": str(rng.randint(1, 4))}}),
    (2, lambda rng: {"status": 429}),
    (3, lambda rng: {"status": 503, "headers": {"Retry-After": str(rng.randint(1, 4))}}),
    (3, lambda rng: {"status": rng.choice([500, 502, 504, 408])}),
    (2, lambda rng: {"status": 502, "garbage": "html"}),
    (3, lambda rng: {"garbage": rng.choice(["html", "list", "truncated-json", "empty"])}),
    (1, lambda rng: {"garbage": "huge", "huge_bytes": 5 * 1024 * 1024}),
    (2, lambda rng: {"delay": 3.0}),
    (2, lambda rng: {"stall": 3.0}),
]
#: A server that announces fewer bytes than it has cannot be told from one that has no more: not here.
FILE_ACTIONS: Actions = [
    (5, lambda rng: {"reset": "body", "after": rng.choice([0.01, 0.5, 0.99]), "fin": rng.random() < 0.5}),
    (2, lambda rng: {"reset": rng.choice(["before", "headers"])}),
    (2, lambda rng: {"status": rng.choice([429, 503]), "headers": {"Retry-After": "1"}}),
    (2, lambda rng: {"status": rng.choice([500, 502, 504])}),
    (2, lambda rng: {"expire": True}),
    (1, lambda rng: {"stall": 3.0, "after": 0.5}),
    (1, lambda rng: {"content_length": 100}),
    (1, lambda rng: {"garbage": "html"}),
]


def draw(rng: random.Random, actions: Actions) -> dict[str, Any]:
    """Return one action."""
    make = rng.choices([make for _, make in actions], weights=[weight for weight, _ in actions])[0]
    return make(rng)


def scatter(sandbox: Sandbox, rng: random.Random, kind: str, actions: Actions, count: int, over: int) -> None:
    """Strike ``count`` of the first requests of one kind, about ``over`` of them; however slow the machine is."""
    for _ in range(count):
        sandbox.add_fault({"match": {"kind": kind}, "skip": rng.randrange(over), "action": draw(rng, actions)})


class Weather(threading.Thread):
    """Adds faults every half second until it is stopped; restarts and rotations at given seconds.

    :param sandbox: must listen on a fixed port, so that a restart finds it again.
    :param actions: what happens to requests of which kind; without any, other faults are left alone.
    :param on_key: called with a new key before the service stops to accept the old one.
    :param calm: asked before a restart; it waits (a while) until the answer is true.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        seed: int,
        *,
        actions: dict[str, Actions],
        restarts: Sequence[float] = (),
        rotations: Sequence[float] = (),
        on_key: Callable[[str], None] = lambda _key: None,
        calm: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(name="weather", daemon=True)
        self._sandbox = sandbox
        self._rng = random.Random(seed)
        self._actions = actions
        plan = [(at, self._restart) for at in restarts] + [(at, self._rotate) for at in rotations]
        self._plan = sorted(plan, key=lambda entry: entry[0])
        self._on_key = on_key
        self._calm = calm
        self._over = threading.Event()
        self.restarting = threading.Event()
        self.restarts = 0
        self.rotations = 0

    def run(self) -> None:
        """Blow."""
        start = time.monotonic()
        while not self._over.wait(0.5):
            if self._actions:
                self._blow()
            if self._plan and time.monotonic() - start >= self._plan[0][0]:
                self._plan.pop(0)[1]()
        self._sandbox.clear_faults()

    def _blow(self) -> None:
        # Used-up rules are searched at every request: begin afresh.
        self._sandbox.clear_faults()
        for _ in range(self._rng.randint(1, 4)):
            kind = self._rng.choice(list(self._actions))
            rule = {"match": {"kind": kind}, "times": self._rng.randint(1, 4), "skip": self._rng.randint(0, 20)}
            self._sandbox.add_fault({**rule, "action": draw(self._rng, self._actions[kind])})

    def stop(self) -> None:
        """Let the sun shine; everything planned has happened or never will."""
        self._over.set()
        self.join()

    def _restart(self) -> None:
        self.restarting.set()
        until = time.monotonic() + 30
        while not self._calm() and time.monotonic() < until:
            time.sleep(0.1)
        self._sandbox.stop()
        time.sleep(2.0)
        self._sandbox.start()
        self.restarts += 1
        self.restarting.clear()

    def _rotate(self) -> None:
        # As people do it: the new key goes into the connection, then the old one is revoked.
        key = f"soak-key-{self._rng.getrandbits(64):016x}"
        self._sandbox.rotate_keys([key, self._sandbox.key])
        self._on_key(key)
        self._sandbox.rotate_keys([key])
        self.rotations += 1
