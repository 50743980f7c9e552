"""The decisions of a batch: what to order, when to stay in the worker, when to wake the task. No I/O, no clock."""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.batches.jobs import Open
from airflow_provider_vidu.exceptions import ViduBudgetError, ViduConfigError, ViduError

WAKE_SHARE: Final = 1 / 5
WAKE_MOST: Final = 16
"""A task is woken for this share of its slots, up to this number."""
HOLD_SECONDS: Final = 45.0
"""How long a finished generation waits for others before the task is woken for it alone."""
STAY_SECONDS: Final = 20.0
"""What a deferral takes at least: ten seconds before an event may fire, and the start of a worker."""
START_SECONDS: Final = 5.0
"""From an event to the running task."""
LONGEST_STAY_SECONDS: Final = 45.0
"""How long a leg stays without anything that has ended."""
PROBE_SECONDS: Final = 20.0
"""Before a refused account is tried again, doubled with each refusal."""
LONGEST_PROBE_SECONDS: Final = 120.0
CROWDED_SECONDS: Final = 120.0
"""Before a batch looks again whether other tasks have left it a slot of the connection's limit."""
DOUBTFUL_CREATES: Final = 3
"""Creates of unknown outcome in a row after which nothing more is submitted: the service is broken."""


BATCH_KIND: Final = "batch"
EVENT_VERSION: Final = 1
TOKEN_KEY: Final = "vidu_batch"  # noqa: S105 - an XCom's key
"""The XCom that names the order of a batch, for the check before its jobs are cancelled."""
MOST_NAMED: Final = 300
"""How many ended generations an event names; it is stored in Airflow's database."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What a leg leaves to the trigger.

    :param wanted: how many must end before the task is woken.
    :param deadline: when the batch's timeout expires, in epoch seconds.
    :param resume_at: when to wake the task in any case, in epoch seconds.
    :param token: identifies the order, for the check before a cancel.
    """

    jobs: Sequence[Open]
    wanted: int
    deadline: float
    resume_at: float | None
    token: str


class Blame(enum.Enum):
    """What a refused create says: about its row, the account, or the number of generations."""

    ROW = "row"
    ACCOUNT = "account"
    FULL = "full"


_OF_THE_ACCOUNT: Final = (
    exceptions.ViduAuthError,
    exceptions.ViduCreditError,
    exceptions.ViduBudgetError,
    exceptions.ViduConfigError,
    exceptions.ViduTransportError,
)
_FULL: Final = (
    exceptions.ViduRateLimitError,
    exceptions.ViduPricePendingError,
    exceptions.ViduUnavailableError,
    exceptions.ViduBusyError,
)
"""A single task waits for a slot only after the first two (``SlotWait.submitted``): it fails with the others, and
Airflow retries it. A row has no retry of its own, so it waits within the batch."""


def blame(error: ViduError) -> Blame:
    """Return whom a refused create is about; its request has been checked before."""
    if isinstance(error, _FULL) and error.generation_id is None:
        return Blame.FULL
    return Blame.ACCOUNT if isinstance(error, _OF_THE_ACCOUNT) else Blame.ROW


def room(
    max_in_flight: int, in_flight: int, account_limit: int | None = None, account_in_use: int | None = None
) -> int:
    """Return how many generations may be submitted now.

    :param in_flight: the batch's generations that have not ended, and its creates of unknown outcome.
    :param account_limit: the connection's own limit (``max_in_flight``), if any.
    :param account_in_use: how many generations the service reports for the account, if it does.
    """
    free = max_in_flight - in_flight
    if account_limit is not None:
        free = min(free, account_limit - (in_flight if account_in_use is None else max(account_in_use, in_flight)))
    return max(free, 0)


def check_credits(
    limit: float, spent: float, price: float | None, unpriced: int, ended: int, uncertain: int = 0
) -> bool:
    """Return whether one more generation may be ordered now; False waits for the price of an open one.

    Each generation without a known price counts as the most expensive one so far.

    :param limit: ``max_credits`` of the batch.
    :param spent: the known credits of all generations of the batch.
    :param price: the highest known price; None before one is known.
    :param unpriced: generations that are open and have no known price.
    :param ended: how many generations have ended.
    :param uncertain: how many creates may have been paid for, which nothing can find out.
    :raises ViduBudgetError: when one more may exceed the limit.
    :raises ViduConfigError: when the service reports no prices.
    """
    if price is None:
        if not unpriced and ended:
            raise ViduConfigError(
                "max_credits cannot be held, because this service does not report what a generation costs. Remove "
                "max_credits, and limit the number of rows."
            )
        return unpriced == 0
    if spent + price * (unpriced + uncertain + 1) > limit:
        lost = f", as may have {uncertain} creates of unknown outcome" if uncertain else ""
        raise ViduBudgetError(
            f"max_credits of {limit:g} is reached: {spent:g} credits are spent, and the next generation may cost "
            f"{price:g}{lost}. Raise max_credits and clear the task to continue."
        )
    return True


def wake_count(max_in_flight: int, open_count: int, has_more: bool) -> int:
    """Return how many generations must have ended before the task is woken.

    :param open_count: how many are open.
    :param has_more: whether rows are left to order: then slots are free, and the account would idle.
    """
    slots = min(max_in_flight, open_count) if has_more else open_count
    return max(1, min(math.ceil(slots * WAKE_SHARE), WAKE_MOST))


def wake_at(
    ends: Sequence[float], open_count: int, wanted: int, deadline: float, *, resume_at: float | None = None
) -> float:
    """Return when the task is to be woken, in epoch seconds, as far as it is known now.

    :param ends: when generations have ended, in epoch seconds.
    :param open_count: how many the trigger watches, ended ones included.
    :param wanted: how many ends wake the task at once (:func:`wake_count`).
    :param deadline: when the batch's timeout expires.
    :param resume_at: when the task wants to be woken in any case.
    """
    times = [deadline]
    if resume_at is not None:
        times.append(resume_at)
    if ends:
        enough = len(ends) >= min(wanted, open_count)
        times.append(max(ends) if enough else min(ends) + HOLD_SECONDS)
    return min(times)


def stays(
    ages: Iterable[float], usual: float | None, wanted: int, *, idle: float, in_leg: float, is_first: bool
) -> bool:
    """Return whether a leg stays in the worker, because deferring would take longer than what it waits for.

    Before it is known how long generations take, the first leg stays for a moment: pictures and sounds take seconds.

    :param ages: the seconds since each open generation was submitted.
    :param usual: how long a generation usually takes, in seconds; None if unknown.
    :param wanted: how many ends the task would be woken for.
    :param idle: seconds since something has ended, or since the leg began.
    :param in_leg: seconds since the leg began.
    :param is_first: whether the leg is the first of its try.
    """
    if usual is None:
        return is_first and in_leg < STAY_SECONDS
    if idle > LONGEST_STAY_SECONDS:
        return False
    due = sum(usual - STAY_SECONDS <= age < 2 * usual + STAY_SECONDS for age in ages)
    return due >= wanted


def expected_at(submitted: Iterable[float], usual: float | None, wanted: int, now: float) -> float | None:
    """Return when to be back in the worker, because a few generations are about to end; None if that is unknown.

    The event of an end comes seconds after it, and a worker starts seconds after the event: meanwhile slots idle.

    :param submitted: when the open generations were submitted, in epoch seconds.
    :param usual: how long a generation usually takes, in seconds; None if unknown.
    :param wanted: how many ends the task is woken for.
    :param now: epoch seconds.
    """
    if usual is None:
        return None
    ends = sorted(at + usual for at in submitted)
    if len(ends) < wanted:
        return None
    back = ends[wanted - 1] - START_SECONDS
    return back if back > now + STAY_SECONDS - START_SECONDS else None


def probe_delay(refusals: int, retry_after: float | None) -> float:
    """Return the seconds before a full account is tried again.

    :param refusals: how often it has refused in a row.
    :param retry_after: what the service asks for.
    """
    grown = min(PROBE_SECONDS * 2.0 ** min(max(refusals, 1) - 1, 10), LONGEST_PROBE_SECONDS)
    return max(grown, retry_after or 0.0)


def least_stored(min_success: float | int, rows: int) -> int:
    """Return how many rows must have a file for the batch to succeed.

    :param min_success: a share (a float from 0 to 1) or a number of rows (a whole number).
    """
    return math.ceil(min_success * rows - 1e-9) if isinstance(min_success, float) else min(min_success, rows)


def make_batch_event(
    token: str, ended: Collection[str], problem: str | None = None, deadline: float | None = None
) -> dict[str, Any]:
    """Return the event as plain JSON. It is a hint only: the task reads what is open from its own state.

    :param problem: why the trigger gave up, if it did.
    :param deadline: of the trigger, in epoch seconds: a task that waits for another one has no other memory of it.
    """
    named = list(ended)[:MOST_NAMED]
    event = {"version": EVENT_VERSION, "kind": BATCH_KIND, "token": token, "ended": named, "problem": problem}
    return event if deadline is None else {**event, "deadline": deadline}


def ended_in(event: object, token: str) -> set[str] | None:
    """Return the ids that an event names as ended; None, so that all are polled, if it is of another order or kind."""
    if not isinstance(event, Mapping) or event.get("kind") != BATCH_KIND or event.get("token") != token:
        return None
    ended = event.get("ended")
    if event.get("problem") or not isinstance(ended, list):
        return None
    return {one for one in ended if isinstance(one, str)}
