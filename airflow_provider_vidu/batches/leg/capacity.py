"""How many generations a leg may submit now, by the batch's own limit and by what its account has in flight."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.batches import plan
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.tasks.slots.queue import check_balance

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook

BALANCE_SECONDS: Final = 5.0
"""Between two requests of the account's balance."""
UNREPORTED_SECONDS: Final = 300.0
"""Before the balance is requested again from a service that has none."""


class Capacity:
    """What the account of a batch's connection takes now.

    :param log: gets one line if the service reports no balance.
    """

    def __init__(self, hook: ViduHook, log: Any) -> None:
        self._hook = hook
        self._config = hook.config
        self._log = log
        self._ask_at = 0.0
        self._in_use: int | None = None

    def room(self, max_in_flight: int, in_flight: int) -> int:
        """Return how many generations the batch may submit now.

        :param in_flight: the batch's generations that have not ended, and its creates of unknown outcome.
        :raises ViduError: when the account may submit nothing at all, or its balance cannot be read.
        """
        if self._config.max_in_flight is not None:
            self.check()
        return self.known_room(max_in_flight, in_flight)

    def known_room(self, max_in_flight: int, in_flight: int) -> int:
        """Do the same as :meth:`room` without a request."""
        return plan.room(max_in_flight, in_flight, self._config.max_in_flight, self._in_use)

    def check(self) -> None:
        """Read what the account has in flight, at most every few seconds, and check the connection's floor.

        :raises ViduBudgetError: when the balance is below the floor.
        :raises ViduError: when it cannot be read.
        """
        now = time.time()
        if not self._config.dialect.has_balance or now < self._ask_at:
            return
        self._ask_at = now + BALANCE_SECONDS
        try:
            balance = self._hook.get_credits()
        except ViduError as error:
            if error.retryable or self._config.min_balance is not None:
                raise
            # As in the queue for slots: a reseller may not have it. Then the batch's own generations count.
            self._in_use, self._ask_at = None, now + UNREPORTED_SECONDS
            self._log.info("How many generations the account has in flight is unknown: %s", error)
            return
        check_balance(self._config, balance)
        self._in_use = balance.in_use

    @property
    def has_floor(self) -> bool:
        """Whether the connection has a floor for the balance."""
        return self._config.min_balance is not None

    def submitted(self) -> None:
        """Count a generation that may have been created since the balance was read."""
        if self._in_use is not None:
            self._in_use += 1
