"""How a task waits for a free slot of its account before it submits: in the triggerer, or in its worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from airflow_provider_vidu.events import Predecessor, Turn
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduPricePendingError, ViduRateLimitError
from airflow_provider_vidu.polling.admission import ADMITTED_SECONDS, LONGEST_HOLD_SECONDS
from airflow_provider_vidu.polling.retries import Backoff
from airflow_provider_vidu.tasks.deferral import deferral_timeout
from airflow_provider_vidu.tasks.slots.queue import check_balance, no_slot

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_vidu.api.settings.config import ViduConfig
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation

IN_WORKER: Final = Backoff(base=5.0, cap=60.0)
"""The delays between the tries of a task that waits in its worker."""
PREDECESSOR_SECONDS: Final = 2.0
PREDECESSOR_PAUSE_SECONDS: Final = 0.4
"""How long a task that was woken for the slot of a running generation waits in its worker for the end of that, and how
long between two polls."""


@dataclass(kw_only=True)
class SlotWait:
    """The wait of one task for a free slot. It uses no retry of Airflow's, and counts towards the task's timeout.

    :param hook: of the connection that the create goes through.
    :param turn: the turn that a trigger has given to the task; None before the first wait.
    :param timeout: seconds that the task may take, this wait included.
    :param trigger: makes the trigger that waits; None waits in the worker (``deferrable=False``).
    :param on_wait: called with ``since`` (the time since which the task waits in all, in epoch seconds) and
        ``is_for_prices`` when a wait begins, or is for something else than before.
    :param check: raises when the task is no longer wanted.
    """

    operator: BaseOperator
    hook: ViduHook
    turn: Turn | None
    timeout: float
    trigger: Callable[..., BaseTrigger] | None
    on_wait: Callable[..., None]
    check: Callable[[], None]
    sleep: Callable[[float], None] = time.sleep
    _began: float = field(default_factory=time.time)
    _failures: int = 0
    _waits_for_prices: bool | None = None

    @property
    def since(self) -> float:
        """When the task began to submit or to wait, in epoch seconds."""
        return self.turn.since if self.turn is not None else self._began

    @property
    def deadline(self) -> float:
        """When the task's timeout expires, in epoch seconds."""
        return self.turn.deadline if self.turn is not None else self._began + self.timeout

    @property
    def left(self) -> float:
        """The seconds that are left of the timeout."""
        return max(self.deadline - time.time(), 1.0) if self.turn is not None or self._failures else self.timeout

    def before_create(self) -> None:
        """Wait until the limits of the connection allow a create (``max_in_flight``, ``min_balance``).

        :raises ViduBudgetError: when the balance is below the floor.
        :raises ViduConfigError: when a worker cannot hold the limit, because the service reports no balance.
        :raises ViduTimeoutError: when the timeout expires first.
        """
        if self.turn is not None:
            self._check_turn(self.turn)
            if self.turn.after is not None and not self._has_ended(self.turn.after):
                self._wait(None, "The slot is still in use")
            return
        config = self.hook.config
        if config.max_in_flight is None and config.min_balance is None:
            return
        if self.trigger is not None:
            self._wait(None)
        while not self._is_allowed():
            self._wait(None)

    def submitted(self, submit: Callable[[], Generation]) -> Generation:
        """Return what ``submit`` returns; if the account is full, wait for a free slot first.

        The end of a generation also names its price, so a task whose budget may be spent by open ones waits likewise.

        :raises ViduTimeoutError: when the timeout expires first.
        """
        while True:
            try:
                return submit()
            except (ViduRateLimitError, ViduPricePendingError) as error:
                # After other temporary refusals Airflow retries the task (a batch waits: `blame` in batches.plan).
                if error.generation_id is not None:  # of a generation that exists
                    raise
                self._wait(error)

    def _is_allowed(self) -> bool:
        """Whether the connection's limits allow a create now."""
        config = self.hook.config
        in_use = self._in_use(config) if config.dialect.has_balance else None
        if config.max_in_flight is None:
            return True
        if in_use is None and self.turn is not None:  # the triggerer has counted
            return True
        if in_use is None:
            raise ViduConfigError(
                "The connection limits the generations in flight (max_in_flight), and this service does not report how "
                "many there are. Set deferrable=True: the triggerer counts them.",
                conn_id=self.hook.vidu_conn_id,
            )
        return in_use < config.max_in_flight

    def _in_use(self, config: ViduConfig) -> int | None:
        """Return how many generations the service reports as in flight, if it does; check the connection's floor."""
        try:
            balance = self.hook.get_credits()
        except ViduError as error:
            if error.retryable or config.min_balance is not None:
                raise
            self.operator.log.info("How many generations the account has in flight is unknown: %s", error)
            return None  # as in the queue for slots: a reseller may have no balance
        check_balance(config, balance)
        return balance.in_use

    def _check_turn(self, turn: Turn) -> None:
        """Wait again if the worker has started so late that the queue may have given the slot to another task."""
        self._check_time(had_turn=True)
        config = self.hook.config
        is_late = turn.given_at is not None and time.time() - turn.given_at >= ADMITTED_SECONDS
        # A gateway reports nothing to check; waiting again there might never end if every worker starts late.
        is_checked = config.dialect.has_balance and (config.max_in_flight is not None or config.min_balance is not None)
        while is_late and is_checked and not self._is_allowed():
            self._wait(None)

    def _has_ended(self, other: Predecessor) -> bool:
        """Whether the generation has ended whose slot this task takes, now or within moments."""
        until = time.monotonic() + PREDECESSOR_SECONDS
        while True:
            try:
                if self.hook.get_generation(other.generation_id, endpoint=other.endpoint, retries=0).is_done:
                    return True
            except ViduError as error:  # waiting once more costs less than exceeding a limit
                self.operator.log.info("Could not check generation %s: %s", other.generation_id, error)
                return False
            self.check()
            if time.monotonic() >= until:
                return False
            self.sleep(PREDECESSOR_PAUSE_SECONDS)

    def _check_time(self, refusal: ViduError | None = None, *, had_turn: bool = False) -> None:
        if time.time() >= self.deadline:
            is_for_prices = isinstance(refusal, ViduPricePendingError)
            conn_id, seconds = self.hook.vidu_conn_id, self.deadline - self.since
            raise no_slot(conn_id, seconds, is_for_prices=is_for_prices, had_turn=had_turn) from refusal

    def _wait(self, refusal: ViduError | None, why: str = "The connection has a limit") -> None:
        self._check_time(refusal)
        now = time.time()
        is_for_prices = isinstance(refusal, ViduPricePendingError)
        if refusal is not None:
            why = refusal.reason.rstrip(".") if is_for_prices else f"The account is full ({refusal.reason})"
        if is_for_prices != self._waits_for_prices:
            self._waits_for_prices = is_for_prices
            self.on_wait(since=self.since, is_for_prices=is_for_prices)
        if self.trigger is not None:
            for_what = "" if is_for_prices else " for a free slot"
            self.operator.log.info("%s: waiting in the triggerer%s.", why, for_what)
            self._defer(self.trigger, refusal)
        self._failures += 1
        delay = min(IN_WORKER.delay(self._failures, refusal), LONGEST_HOLD_SECONDS, self.deadline - now)
        self.operator.log.info("%s: trying again in %.0f s.", why, delay)
        self.sleep(delay)
        self.check()

    def _defer(self, trigger: Callable[..., BaseTrigger], refusal: ViduError | None) -> NoReturn:
        now = time.time()
        made = trigger(
            vidu_conn_id=self.hook.vidu_conn_id,
            since=self.since,
            deadline=self.deadline,
            queued_at=now,
            priority=self.operator.priority_weight,
            refused_at=None if refusal is None else now,
            retry_after=None if refusal is None else refusal.retry_after,
            is_for_prices=isinstance(refusal, ViduPricePendingError),
        )
        timeout = deferral_timeout(self.deadline, now)
        self.operator.defer(trigger=made, method_name="execute_admitted", timeout=timeout)
