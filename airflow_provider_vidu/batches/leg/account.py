"""How many generations a leg may submit now, by the batch's own limit and by what its account has in flight."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.tasks.slots.queue import check_balance

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook

BALANCE_SECONDS: Final = 5.0
"""Between two requests of the account's balance."""


class Account:
    """The account of a batch's connection.

    :param hook: of the connection.
    """

    def __init__(self, hook: ViduHook) -> None:
        self._hook = hook
        self._config = hook.config
        self._ask_at = 0.0
        self._in_use: int | None = None

    def room(self, max_in_flight: int, in_flight: int) -> int:
        """Return how many generations the batch may submit now.

        :param max_in_flight: the batch's own limit.
        :param in_flight: the batch's generations that have not ended, and its creates of unknown outcome.
        :raises ViduError: when the account may submit nothing at all, or its balance cannot be read.
        """
        limit = self._config.max_in_flight
        if limit is not None:
            self.check()
        return plan.room(max_in_flight, in_flight, limit, None if limit is None else self._in_use)

    def check_floor(self) -> None:
        """Check the connection's floor for the balance, if it has one.

        :raises ViduBudgetError: when the balance is below the floor.
        :raises ViduError: when it cannot be read.
        """
        if self._config.min_balance is not None:
            self.check()

    def check(self) -> None:
        """Read what the account has in flight, at most every few seconds, and check the connection's floor.

        :raises ViduBudgetError: when the balance is below the floor.
        :raises ViduError: when it cannot be read.
        """
        now = time.time()
        if self._config.dialect.has_balance and now >= self._ask_at:
            self._ask_at = now + BALANCE_SECONDS
            balance = self._hook.get_credits()
            check_balance(self._config, balance)
            self._in_use = balance.in_use
