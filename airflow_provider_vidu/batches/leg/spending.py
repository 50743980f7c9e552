"""What a batch spends, within the budgets of its DAG: each create counts as that of a single task does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from airflow_provider_vidu.orders.order import Record

if TYPE_CHECKING:
    from airflow_provider_vidu.batches.state import BatchState, Open
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.orders.money.spending import Spending

READ_SECONDS: Final = 2.0
"""What others have spent is read at most this often: a batch makes many creates a second, and the list is long."""


class BatchSpending:
    """The credits of a batch.

    :param spending: the task's; None outside of a task.
    :param clock: returns monotonic seconds.
    """

    def __init__(self, spending: Spending | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._spending = spending
        self._clock = clock
        self._left = math.inf if spending is None else 0.0
        self._read_at: float | None = None
        self._is_unpriced = False

    def check(self) -> None:
        """Refuse a create if the budget is spent: by the ledger, and by what this batch has spent since.

        :raises ViduBudgetError: when it is.
        :raises ViduError: when the ledger cannot be read.
        """
        if self._spending is None:
            return
        now = self._clock()
        if self._read_at is None or now - self._read_at >= READ_SECONDS or self._left <= 0:
            self._left, self._read_at = self._spending.checked_left(), now

    def covers_unpriced(self, jobs: Sequence[Open], state: BatchState) -> bool:
        """Whether the budget, as it was last read, covers open generations without a known price, and more.

        Each counts as the most expensive one so far, and the price of the first one is waited for. At a service that
        has stored a file and named no price, no limit applies.

        :param jobs: the generations, which the task waits for.
        :param state: of the batch.
        """
        count = sum(not job.marker for job in jobs)  # the ledger counts those of unknown outcome
        if not count or self._left == math.inf:
            return True
        price = state.price
        return bool(state.stored) if price is None else self._left > count * price

    def count_paid(self, job: Open, state: BatchState) -> None:
        """Make what a generation costs visible to the other tasks; repeating it changes nothing.

        :param state: of the batch, with the generation.
        """
        if self._spending is None:
            return
        if job.marker:
            self.count_lost(_lost(job))
            return
        if job.credits is None:
            if not self._is_unpriced:
                self._spending.count_unpriced(job.at)
            self._is_unpriced = True
            return
        self._left -= job.credits
        if self._spending.is_counted:
            before = max(state.credits - job.credits, 0)
            self._spending.count_paid(Record(0, "", job.at, generation_id=job.id, credits=job.credits, spent=before))

    def count_lost(self, record: Record) -> None:
        """Count a create of unknown outcome as possibly spent, until it is settled; repeating it changes nothing."""
        if self._spending is not None:
            self._spending.count_lost(record)
            self._read_at = None  # what is left of the budget has changed

    def settle(self, record: Record) -> None:
        """Count a create no longer as possibly spent: what it has cost is entered, or nothing was created."""
        if self._spending is not None:
            self._spending.settle(record)
            self._read_at = None

    def ended(self, job: Open, generation: Generation | None) -> None:
        """Count a price that only the end of a generation names."""
        if self._spending is None or job.credits is not None or generation is None:
            return
        if generation.credits is not None:
            self._left -= generation.credits
            if self._spending.is_counted:
                self._spending.named_late(generation, datetime.fromtimestamp(job.at, UTC).isoformat())
        if job.marker and (generation.is_done or generation.credits is not None):
            self.settle(_lost(job))


def _lost(job: Open) -> Record:
    """Return the record of a create of unknown outcome whose generation is known."""
    return Record(0, job.marker, job.at, generation_id=job.id)
