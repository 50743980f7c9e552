"""What a batch spends, within the budgets of its DAG: each create counts as that of a single task does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from airflow_provider_vidu.exceptions import ViduPricePendingError
from airflow_provider_vidu.orders.order import OrderRecord

if TYPE_CHECKING:
    from airflow_provider_vidu.batches.jobs import Open
    from airflow_provider_vidu.batches.state import BatchState
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.orders.money.spending import Spending

READ_SECONDS: Final = 2.0
"""What others have spent is read at least this often: before each create would be too much, as the list is long."""
UNREAD_SHARE: Final = 0.05
"""The share of what was left that a batch spends before it reads again: each of four batches that began together spent
the whole budget within two seconds."""


class BatchSpending:
    """The credits of a batch.

    :param spending: the task's; None outside of a task.
    :param clock: returns monotonic seconds.
    """

    def __init__(self, spending: Spending | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._spending = spending
        self._clock = clock
        self._left = math.inf if spending is None else 0.0
        self._floor = 0.0
        self._read_at: float | None = None
        self._pending: ViduPricePendingError | None = None

    @property
    def is_limited(self) -> bool:
        """Whether the task has a budget, as far as it was read."""
        return self._left != math.inf

    def check(self, *, queries: bool = False) -> None:
        """Refuse a create if the budget is spent: by the ledger, which is read again when this batch has spent a share.

        :param queries: whether open generations of others are queried if they may have spent the rest.
        :raises ViduBudgetError: when it is.
        :raises ViduPricePendingError: when open generations without a price may have spent the rest.
        :raises ViduError: when the ledger cannot be read.
        """
        if self._spending is None:
            return
        now = self._clock()
        is_known = self._left > self._floor or self._pending is not None
        if self._read_at is None or now - self._read_at >= READ_SECONDS or not is_known:
            self._read_at = self._pending = None
            try:
                self._left = self._spending.checked_left(queries=queries)
                self._floor = self._left * (1 - UNREAD_SHARE) if self.is_limited else 0.0
            except ViduPricePendingError as error:
                self._pending = error
            self._read_at = now
        if self._pending is not None:
            raise self._pending.with_traceback(None)

    def count_paid(self, job: Open, state: BatchState) -> None:
        """Make what a generation costs visible to the other tasks; repeating it changes nothing."""
        if self._spending is None:
            return
        if job.marker:
            self.count_lost(_lost(job))
            return
        cost = job.credits or state.price
        self._left = self._left - cost if cost else 0.0  # 0: it is read before the next create
        if not job.credits and state.stored and state.price is None:
            return  # a service that names no price
        if self._spending.is_counted:
            before = max(state.credits - (job.credits or 0), 0)
            paid = OrderRecord(0, "", job.at, generation_id=job.id, credits=job.credits, spent=before)
            self._spending.count_paid(paid, job.endpoint)

    def count_lost(self, record: OrderRecord) -> None:
        """Count a create of unknown outcome as possibly spent, until it is settled; repeating it changes nothing."""
        if self._spending is not None:
            self._spending.count_lost(record)
            self._read_at = None  # what is left of the budget has changed

    def settle(self, record: OrderRecord) -> None:
        """Count a create no longer as possibly spent: what it has cost is entered, or nothing was created."""
        if self._spending is not None:
            self._spending.settle(record)
            self._read_at = None

    def ended(self, job: Open, generation: Generation | None) -> None:
        """Count a price that only the end of a generation names."""
        if self._spending is None or job.credits or generation is None:
            return
        if not generation.is_done and not generation.credits:
            return
        self._read_at = None  # what is left of the budget has changed
        if self._spending.is_counted:
            self._spending.observe(generation, job.at, job.endpoint)
        if job.marker:
            self.settle(_lost(job))


def _lost(job: Open) -> OrderRecord:
    """Return the record of a create of unknown outcome whose generation is known."""
    return OrderRecord(0, job.marker, job.at, generation_id=job.id)
