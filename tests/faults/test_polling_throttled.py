"""Polling when the service says how long to stay away: the delays themselves, in real time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduTimeoutError
from airflow_provider_vidu.polling.retries import RETRY_AFTER_CAP
from fault_table import CLEAR_ERROR, SURVIVED
from tests.faults.polling_world import CONN_ID, ENT, ID, NATIVE, World

pytestmark = pytest.mark.integration

OWN_BACKOFF = 1.0
"""Seconds after the first failure where the server does not say (the policy's base in a worker, and the least
of a trigger's)."""
A_YEAR = 365 * 86_400
LIMIT = 2.5
"""Seconds until the deadline of a wait that is told to stay away for longer."""


def in_seconds(seconds: float) -> str:
    """Return the HTTP date in so many seconds; it has no fractions."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@dataclass(frozen=True)
class Throttle:
    """A Retry-After and the least seconds that the next poll stays away; ``value`` may be made at run time."""

    name: str
    value: Any
    least: float
    dialects: tuple[str, ...] = (NATIVE,)


THROTTLES = [
    Throttle("429, Retry-After in seconds", lambda: "2", 2.0, (NATIVE, ENT)),
    Throttle("429, Retry-After as a date", lambda: in_seconds(3), 1.9),
    Throttle("429, Retry-After a date in the past", lambda: in_seconds(-A_YEAR), OWN_BACKOFF),
    Throttle("429, Retry-After negative", lambda: "-5", OWN_BACKOFF),
    Throttle("429, Retry-After garbage", lambda: "when the cows come home", OWN_BACKOFF),
]
ABSURD = [
    Throttle("429, Retry-After a year", lambda: str(A_YEAR), RETRY_AFTER_CAP),
    Throttle("429, Retry-After a date in a year", lambda: in_seconds(A_YEAR), RETRY_AFTER_CAP),
    Throttle("429, Retry-After beyond any number", lambda: "9" * 400, OWN_BACKOFF),
]


def each(throttles: list[Throttle]) -> Any:
    """Parametrize a test with each throttle in its dialects."""
    nightly = {"marks": pytest.mark.nightly}  # what a Retry-After means is tested in test_retries.py, without a clock
    cases = [
        pytest.param(each, name, id=f"{each.name}-{name}", **({} if each is throttles[0] else nightly))
        for each in throttles
        for name in each.dialects
    ]
    return pytest.mark.parametrize(("throttle", "dialect"), cases)


def gaps(world: World) -> list[float]:
    """Return the seconds between the queries that the service has seen."""
    times = [query.wall_time for query in world.sandbox.requests("query")]
    return [later - earlier for earlier, later in pairwise(times)]


@each(THROTTLES)
def test_it_is_followed(throttle, dialect, side, world, capfd, fault_row):
    """The next poll stays away as long as the server asked, or as the schedule says where that makes no sense."""
    world.settle(dialect)
    world.fault(times=1, status=429, headers={"Retry-After": throttle.value()})
    found = side.wait(world.budget)
    assert "succeeded" in found.values()
    assert world.queries == 2
    assert gaps(world)[0] >= throttle.least
    log = "".join(capfd.readouterr())
    line = next(line[line.index("poll failed") :] for line in log.splitlines() if "poll failed" in line)
    assert f"generation {ID}, connection {CONN_ID}, HTTP status 429" in line
    fault_row("polling", throttle.name, side=f"{side.name}, {dialect}", seen=line, requests=2, outcome=SURVIVED)


@each(ABSURD)
@pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "lasting"])
def test_it_is_not_followed_beyond_the_deadline(throttle, dialect, side, lifted, world, fault_row):
    """Whatever the server asks for, the last poll is made at the deadline: it succeeds, or the time-out says why."""
    # What makes no sense is polled once more by the schedule before the deadline.
    polls = 2 if lifted or throttle.least > LIMIT else 3
    world.settle(dialect, budget=polls)
    world.fault(times=1 if lifted else None, status=429, headers={"Retry-After": throttle.value()})
    # Long enough for the first poll on a busy machine, which has to be refused before the deadline.
    limit = {"timeout": LIMIT} if side.name == "sync" else {"deadline": time.time() + LIMIT}
    if lifted:
        assert "succeeded" in side.wait(world.budget, **limit).values()
        seen, outcome = "asked again at the deadline: succeeded", SURVIVED
    else:
        with pytest.raises(ViduTimeoutError, match=r"last poll failed: Too many requests.*raise the timeout") as caught:
            side.wait(world.budget, **limit)
        assert f"generation {ID}, connection {CONN_ID}" in str(caught.value)
        seen, outcome = str(caught.value), CLEAR_ERROR
        world.lift()
        assert side.once()["id"] == ID
    requests = world.queries - (not lifted)
    assert requests == polls
    fault_row("polling", throttle.name, side=f"{side.name}, {dialect}", seen=seen, requests=requests, outcome=outcome)
