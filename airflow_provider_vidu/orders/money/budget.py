"""A limit on the credits of a DAG run, or of a DAG's day. Decisions, no I/O.

A create is allowed only while the known sum is below the limit. Its price is known only from its answer, so the limit
can be exceeded by the creates that were under way when it was reached, and by nothing else.

A create of unknown outcome counts as one without an amount, until a later try learns what became of it. Otherwise, a
service that carries creates out and loses the answers could be paid without end. So does a generation whose create
named no price, until it has ended: some services name the price only then, and all could be submitted by that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.common.values import number, whole
from airflow_provider_vidu.exceptions import ViduBudgetError, ViduConfigError, ViduError, ViduPricePendingError

Period = Literal["run", "day"]

MOST_UNPRICED: Final = 3
"""How many creates without an amount are accepted while no price is known that they could be counted with."""
LOST: Final = "_lost"
"""How the name of the entry of a create of unknown outcome ends."""
OPEN: Final = "_open"
"""How the name of the entry of a generation without a price ends, until it has ended."""


@dataclass(frozen=True)
class ViduBudget:
    """The most credits that the generate tasks of a DAG may spend, as ``ViduGenerateOperator(budget=…)``.

    It counts what all generate tasks of the DAG have spent, with or without a budget of their own. Above the limit, a
    task that has the budget fails before its create with a ``ViduBudgetError``, which Airflow does not retry.

    :param credits: the limit.
    :param per: ``run`` counts the DAG run, its cleared tasks included; ``day`` counts all of the DAG's runs on the UTC
        day of the create.
    :raises ViduConfigError: when an argument is wrong.
    """

    credits: float
    per: Period = "run"

    def __post_init__(self) -> None:
        if isinstance(self.credits, (bool, str)) or number(self.credits) is None or self.credits <= 0:
            raise ViduConfigError(f"ViduBudget: credits must be a number above 0, not {sanitized(self.credits, 40)!r}.")
        if self.per not in get_args(Period):
            raise ViduConfigError(f"ViduBudget: per must be 'run' or 'day', not {sanitized(self.per, 40)!r}.")


def check_budget(budget: ViduBudget, prices: Sequence[float], lost: int = 0, unpriced: int = 0) -> float:
    """Refuse the next create if a budget is spent; return the credits that are left of it.

    :param prices: of everything that was paid for within the period.
    :param lost: how many creates of the period have an unknown outcome. Each counts with the highest of the prices.
    :param unpriced: how many generations of the period have not ended and have no known price. Each counts so, too.
    :raises ViduBudgetError: saying spent, limit and what was asked for.
    :raises ViduPricePendingError: when it depends on these generations whether the budget is spent.
    :raises ViduError: when it depends on creates of unknown outcome. A retry helps once their outcome is known.
    """
    spent, dearest = sum(prices), max(prices, default=None)
    left = budget.credits - spent - (lost + unpriced) * (dearest or 0)
    if left > 0 and (dearest is not None or lost + unpriced < MOST_UNPRICED):
        return left
    whose = "this DAG run" if budget.per == "run" else "this DAG today (UTC)"
    if spent < budget.credits:
        price = "no price is known yet" if dearest is None else f"until now, one has cost up to {amount(dearest)}"
        known = f"{amount(spent)} of {amount(budget.credits)} credits are"
        if unpriced:
            raise ViduPricePendingError(
                f"The budget of {whose} may be spent: {known}, and generations whose price is not known yet (their "
                f"number: {unpriced}) may cost the rest ({price}). Nothing was submitted; it is retried when they have "
                f"ended. If one never ends, check the account, and delete the Variable or entry that ends in {OPEN}."
            )
        raise ViduError(
            f"The budget of {whose} may be spent: {known}, and creates "
            f"of unknown outcome (their number: {lost}) may have cost the rest ({price}). Nothing was submitted. Retry "
            "the tasks of these creates first: each searches for its generation. If none can be found, check the "
            f"account, and delete the Variable or entry that ends in {LOST} if nothing was billed."
        )
    raise ViduBudgetError(
        f"The budget of {whose} is spent: {amount(spent)} of {amount(budget.credits)} credits, in {len(prices)} "
        f"generations. One more was asked for (until now, one has cost up to {amount(max(prices))}). Nothing was "
        "submitted."
    )


def checked_budget(value: object) -> ViduBudget | None:
    """Return the argument ``budget``; raises ViduConfigError when it is something else than a budget."""
    if value is None or isinstance(value, ViduBudget):
        return value
    raise ViduConfigError(
        f"budget must be a ViduBudget, such as ViduBudget(credits=100), not {sanitized(value, 40)!r}."
    )


def checked_cap(value: object, is_given: bool) -> float | None:
    """Return ``max_credits`` as a number; None if there is no cap.

    :param value: the rendered argument.
    :param is_given: whether the author has given one: then a template that renders to nothing must not remove the cap.
    :raises ViduConfigError: when it is not a number of 0 or more.
    """
    if not is_given:
        return None
    read = number(value)
    if read is None or read < 0:
        raise ViduConfigError(
            f"max_credits must be a number of 0 or more, not {sanitized(value, 40)!r}: check the XCom or the param "
            "that it is templated from. Nothing was submitted."
        )
    return read


def price_refused(generation_id: str, price: float, cap: float | None, cancelled: bool, reason: str) -> ViduBudgetError:
    """Return the error of a generation that costs more than its task allows.

    :param cap: None if the cap was removed since.
    :param cancelled: whether the service has accepted the cancel.
    :param reason: what the service answered to the cancel, in one clause.
    """
    outcome = (
        "The service accepted the cancel: nothing is spent"
        if cancelled
        else f"The service did not cancel it ({reason}): {amount(price)} credits are spent"
    )
    limit = "was lower" if cap is None or cap >= price else f"is {amount(cap)}"
    return ViduBudgetError(
        f"The service asks {amount(price)} credits for this generation, and max_credits {limit}. {outcome}. Clear the "
        "task with a higher max_credits to submit it again.",
        generation_id=generation_id,
    )


def amount(price: float) -> str:
    """Return a number of credits as text: ``4``, ``2.5``."""
    rounded = whole(round(price, 4))
    return f"{rounded:.4f}".rstrip("0").rstrip(".") if isinstance(rounded, float) else str(rounded)
