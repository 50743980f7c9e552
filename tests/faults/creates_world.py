"""Where a create meets a fault: an account with a price, and tasks whose tries a test plays through."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.records import StateStore
from airflow_provider_vidu.sandbox.world.ledger import CreateRecord
from tests.conftest import Variables
from tests.faults.polling_world import CONN_ID, NATIVE, World
from tests.integration.operators.test_generate_spending import Spender

PRICE = 10
QUEUE, DURATION = 25.0, 15.0


class CreateWorld(World):
    """A sandbox that bills creates, and faults that hit them.

    :param variables: Airflow's Variables, which hold the entries of budgets.
    """

    kind = "create"
    performs = False
    """Whether a create is carried out although the fault decides how it is answered."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        certificates: dict[str, str],
        variables: Variables,
        **settings: Any,
    ) -> None:
        billing = {"price": PRICE, "models": "any", "list_payload": True, "concurrency": 50}
        super().__init__(monkeypatch, certificates, queue=QUEUE, duration=DURATION, **billing, **settings)
        self._variables = variables
        self._is_dead = False
        self.extra: dict[str, Any] = {}
        """Further fields of the connection."""

    def settle(self, dialect: str, *, timeout: float = 10.0, budget: int = 2) -> None:
        """Put a good connection in place, to a service whose answers to creates name the price."""
        super().settle(dialect, timeout=timeout, budget=budget)
        if dialect == NATIVE:  # the sandbox's gateways name none, as most
            submit = SyncClient.submit

            def priced(*args: Any, **kwargs: Any) -> Generation:
                return submit(*args, **kwargs).model_copy(update={"credits": PRICE})

            self._monkeypatch.setattr(SyncClient, "submit", priced)

    def connect(self, **fields: Any) -> None:
        """Store the connection."""
        super().connect(**{**self.extra, **fields})

    def generation(self, **fields: Any) -> None:
        """Add nothing: only what tasks create counts."""

    def fault(self, *, times: int | None = None, **action: Any) -> None:
        """Let creates be answered like this."""
        super().fault(times=times, **action, **({"perform": True} if self.performs else {}))

    def kill(self, owner: type, method: str, *, nth: int = 1, is_after: bool = False) -> None:
        """Let the worker die once, at a call of a method; nothing that it does while it unwinds is done.

        :param nth: which call of the method.
        :param is_after: die after the method has done its work, instead of before.
        """
        self._mortal(owner, method, nth, is_after)
        for other, name in ((StateStore, "save"), (StateStore, "clear"), (Variables, "set"), (Variables, "delete")):
            self._mortal(other, name, 0, False)

    def _mortal(self, owner: type, method: str, nth: int, is_after: bool) -> None:
        original, calls = getattr(owner, method), 0

        def mortal(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if self._is_dead or (calls == nth and not is_after):
                self._die()
            found = original(*args, **kwargs)
            if calls == nth:
                self._die()
            return found

        self._monkeypatch.setattr(owner, method, mortal)

    def _die(self) -> None:
        self._is_dead = True
        raise KeyboardInterrupt

    def lift(self) -> None:
        """Let everything be well again, and another worker take over."""
        self._is_dead = False
        super().lift()

    # -- tasks and money ---------------------------------------------------------------------------

    def task(self, map_index: int, **kwargs: Any) -> Spender:
        """Return a mapped task instance, whose prompt names it in the ledger."""
        return Spender(map_index, vidu_conn_id=CONN_ID, prompt=f"film {map_index}", **kwargs)

    @property
    def creates(self) -> list[CreateRecord]:
        """What was created at the service."""
        return [create for sandbox in (*self._former, self.sandbox) for create in sandbox.creates]

    @property
    def sent(self) -> int:
        """How many creates the service has received."""
        return sum(len(sandbox.requests("create")) for sandbox in (*self._former, self.sandbox))

    @property
    def billed(self) -> int:
        """What the creates have cost."""
        return sum(create.credits for create in self.creates if create.charge == "charged")

    @property
    def entered(self) -> list[str]:
        """The last part of each of the budget's entries: a price, or ``lost``."""
        return [name.rpartition("_")[2] for name in self._variables.kept if name.startswith("vidu_spent_")]

    @property
    def counted(self) -> float:
        """The sum of the prices in the budget's entries."""
        return sum(float(price) for price in self.entered if price != "lost")

    @property
    def doubts(self) -> int:
        """How many creates are counted as possibly spent."""
        return self.entered.count("lost")
