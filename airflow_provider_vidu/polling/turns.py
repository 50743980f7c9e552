"""Whose turn it is in a queue: priority, and age so that no task starves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from airflow_provider_vidu.exceptions import ViduConfigError

HEAD_START_SECONDS: Final = 3600.0
HALF_PRIORITY: Final = 9
"""What a priority is worth: a head start of this priority's half of the seconds at this priority, more with a higher
one, and never all of them. So a task is passed only by tasks that came less than the head start after it (less than
two, if it has a negative priority), and every task gets its turn."""


MOST: Final = 1e15
"""What no time and no priority reaches: beyond it, numbers are not compared exactly."""


def is_plain(value: object) -> bool:
    """Whether a value is a number that can be added to times and sorted."""
    return isinstance(value, (int, float)) and -MOST < value < MOST


def check_plain(*needed: object, optional: Iterable[object] = ()) -> None:
    """Refuse a trigger that was made with NaN, or a text, where a number belongs.

    The author of a DAG may have made it with any, and they meet those of others: in the queue of a connection, in its
    shared polls, and among the timers of the event loop.

    :param optional: what may also be None.
    :raises ViduConfigError: when one is not.
    """
    if not all(map(is_plain, (*needed, *(each for each in optional if each is not None)))):
        raise ViduConfigError("A time or another number of the trigger is not an ordinary number (NaN, for example).")


def head_start(priority: int) -> float:
    """Return the seconds that a priority is worth: more for a higher one, but always less than an hour either way."""
    return HEAD_START_SECONDS * priority / (abs(priority) + HALF_PRIORITY)


def turn(priority: int, since: float) -> tuple[float, ...]:
    """Return what the queue is ordered by: age, to which the priority adds a head start.

    :param priority: higher goes first.
    :param since: when the task began to wait.
    """
    # Two large priorities may be worth the same in floating point.
    return since - head_start(priority), -priority, since


@dataclass(frozen=True, slots=True)
class Waiter:
    """A task that waits for a slot.

    :param priority: higher goes first (Airflow's ``priority_weight``).
    :param since: when it began to wait, in epoch seconds; earlier goes first. Kept over refusals.
    :param ready_at: the earliest time at which Airflow may be given its event.
    :param refused_at: when the service refused its create; None if it has not sent one yet.
    :param retry_after: seconds that the refusal asked to wait.
    :param is_watched: whether the generation is watched from here once it is submitted.
    :raises ViduConfigError: when an argument is not a number: all tasks of a connection are sorted together, and the
        author of a DAG may make a trigger with any.
    """

    key: str
    priority: int
    since: float
    ready_at: float
    refused_at: float | None = None
    retry_after: float | None = None
    is_watched: bool = True

    def __post_init__(self) -> None:
        check_plain(self.priority, self.since, self.ready_at, optional=(self.refused_at, self.retry_after))

    @property
    def turn(self) -> tuple[tuple[float, ...], str]:
        """The place in the queue."""
        return turn(self.priority, self.since), self.key
