"""The two tests that every tolerated or final fault of a poll goes through."""

from __future__ import annotations

from typing import Any

import pytest

from fault_table import CLEAR_ERROR, SURVIVED
from tests.faults.polling_world import CONN_ID, ID, KEY, Fault, Patience, Side, World, check


def until_it_is_lifted(
    fault: Fault, dialect: str, side: Side, world: World, patience: Patience, output: Any, fault_row: Any
) -> None:
    """Expect a clear error after the documented number of requests, and that all is well once it is lifted."""
    world.prepare(fault, dialect)
    asked_once = () if fault.only_in_a_wait else (side.once,)
    for ask in (*asked_once, lambda: side.wait(fault.budget)):
        before, sat_out = world.queries, len(patience.errors)
        with pytest.raises(fault.error) as caught:
            ask()
        check(caught.value, fault)
        requests = world.queries - before
        assert requests == fault.requests
        assert len(patience.errors) - sat_out == fault.tries - 1
    # The last error is that of the wait: what to do about the generation itself, which is paid for.
    assert not fault.tolerated or f"{fault.tries} polls in a row failed; the last one" in str(caught.value)
    assert not fault.tolerated or "wait for it again by its id" in str(caught.value)
    assert KEY not in "".join(output.readouterr())

    world.lift()
    assert side.once()["id"] == ID
    before = world.queries
    assert "succeeded" in side.wait(fault.budget).values()
    assert 1 <= world.queries - before <= fault.budget + 1
    fault_row(
        "polling", fault.name, side=f"{side.name}, {dialect}", seen=str(caught.value), requests=requests,
        outcome=CLEAR_ERROR,
    )  # fmt: skip


def sat_out(
    fault: Fault, dialect: str, side: Side, world: World, patience: Patience, output: Any, fault_row: Any
) -> None:
    """Expect nothing but lines in the log from a fault that passes within the budget; the wait succeeds."""
    world.prepare(fault, dialect)
    patience.lift_after = fault.budget
    found = side.attempt(fault.budget)
    assert (found["id"], found["status"]) == (ID, "succeeded")
    requests = world.queries
    assert len(patience.errors) == fault.budget
    assert requests == (fault.budget if fault.reaches else 0) + 1 + side.after
    log = "".join(output.readouterr())
    assert KEY not in log
    lines = [line[line.index("poll failed") :] for line in log.splitlines() if "poll failed" in line]
    assert len(lines) == fault.budget
    for line in lines:
        assert f"generation {ID}, connection {CONN_ID}" in line
    fault_row(
        "polling", fault.name, side=f"{side.name}, {dialect}", seen=lines[-1], requests=requests, outcome=SURVIVED
    )
