"""Why there is no clip at an address."""

from __future__ import annotations

from datetime import datetime


class NoTaskError(LookupError):
    """The run has no such task instance."""


class NoRunError(NoTaskError):
    """There is no such run, or no longer: its task instances were deleted with it."""


class NoIterationError(LookupError):
    """The address of a task in a loop names no iteration."""


class BatchError(LookupError):
    """The task is a batch: it has rows instead of a clip of its own."""


class NotYetError(LookupError):
    """A task has not ended, and its latest try has published no id: Airflow has removed those of earlier ones.

    :param try_number: its latest try.
    :param next_try: when Airflow may begin its next try; None if it is not up for retry, or that is not known.
    """

    def __init__(self, try_number: int, next_try: datetime | None = None) -> None:
        super().__init__(str(try_number))
        self.try_number = try_number
        self.next_try = next_try


class EndedError(LookupError):
    """A task has ended without a generation.

    :param state: its state.
    :param try_number: its latest try.
    :param is_open: whether it left its try open: a user has marked it.
    :param has_run: whether a worker has ever begun it, as far as Airflow shows.
    """

    def __init__(self, state: str, try_number: int, *, is_open: bool, has_run: bool) -> None:
        super().__init__(state)
        self.has_run = has_run
        self.state = state
        self.try_number = try_number
        self.is_open = is_open
