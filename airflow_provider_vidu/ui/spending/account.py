"""What generations have cost, as sums by day, DAG, model and outcome. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

OUTCOMES: Final = ("succeeded", "working", "submitted", "failed")
"""Of the task: it has succeeded, goes on, has submitted without waiting for the result, or has not succeeded."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the generations of one day, DAG, model and outcome have cost.

    :param day: the UTC day of the submit, as ``2026-01-31``.
    :param model: None if no task has noted it.
    :param outcome: one of :data:`OUTCOMES`.
    :param generations: how many there are.
    :param priced: of how many of them a price is known.
    :param credits: the sum of these prices.
    """

    day: str
    dag_id: str
    model: str | None
    outcome: str
    generations: int
    priced: int
    credits: float


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent in a period, the newest day first.

    :param is_cut: whether there is more than was added up.
    :param unread: how many tasks' notes could not be read, because an XCom back end keeps them elsewhere.
    :param begun_again: by DAG, how many tasks have begun another try and published nothing in it: what their earlier
        tries have spent is missing, because Airflow has removed their XComs.
    """

    rows: tuple[Spent, ...]
    is_cut: bool = False
    unread: int = 0
    begun_again: Mapping[str, int] = field(default_factory=dict)
