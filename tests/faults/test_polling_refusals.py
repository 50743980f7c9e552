"""Polling when a wait that is under way is refused: the generation is paid for, so no single answer ends the wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_vidu.api.clients import async_client
from airflow_provider_vidu.exceptions import ViduError
from fault_table import CLEAR_ERROR, SURVIVED
from tests.faults.polling_world import BOTH, CONN_ID, ENT, ID, KEY, NATIVE, answered

pytestmark = pytest.mark.integration

BUSY = {NATIVE: {"id": ID, "status": "processing"}, ENT: {"id": ID, "state": "processing", "creations": []}}
OTHER = "911088422699962999"
URL = "https://files.example.com/of-somebody-else.mp4"
DONE = {
    NATIVE: {"id": OTHER, "status": "completed", "video_url": URL},
    ENT: {"id": OTHER, "state": "success", "creations": [{"id": "1", "url": URL}]},
}


def told(status: int, code: str) -> Callable[[str], Any]:
    """Return the answer of an error in the gateway's shape."""
    return lambda _dialect: answered(status, {"error": {"message": "said the service", "type": "t", "code": code}})


@dataclass(frozen=True)
class Refusal:
    """What a wait that has begun well is answered.

    :param name: as it stands in the table of faults.
    :param answer: the fault, by dialect.
    :param pauses: whether the wait pauses, instead of counting a failed poll.
    """

    name: str
    answer: Callable[[str], Any]
    pauses: bool = False

    @property
    def line(self) -> str:
        """What the log says."""
        return "paused until the key is accepted" if self.pauses else "poll failed"


REFUSALS = [
    Refusal("401 in the middle of a wait", told(401, "invalid_api_key"), pauses=True),
    Refusal("403 in the middle of a wait", told(403, "access_denied"), pauses=True),
    Refusal("402 in the middle of a wait", told(402, "payment_required")),
    Refusal("404 in the middle of a wait", told(404, "NotFound")),
    Refusal("400 in the middle of a wait", told(400, "BadRequest")),
    Refusal("400 task_not_exist in the middle of a wait", told(400, "task_not_exist")),
    Refusal("409 in the middle of a wait", told(409, "Conflict")),
    Refusal("a list with another generation", lambda dialect: answered(200, [DONE[dialect]])),
    Refusal("a wrapped list of others", lambda dialect: answered(200, {"code": 0, "data": [DONE[dialect]] * 2})),
    Refusal("204", lambda _dialect: answered(204)),
]
EACH = pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)


def begun(world: Any, refusal: Refusal, dialect: str) -> None:
    """Let the first poll be a good one, and every other be refused."""
    world.settle(dialect)
    world.fault(times=1, status=200, body=BUSY[dialect])
    refusal.answer(dialect)(world)


@EACH
@pytest.mark.parametrize("dialect", BOTH)
def test_it_passes(refusal, dialect, side, world, patience, capfd, fault_row, monkeypatch):
    """The wait goes on and returns its own generation; a pause uses up no budget."""
    monkeypatch.setattr(async_client, "REFRESH_PAUSE_SECONDS", 0.0)  # five seconds for each refused key
    begun(world, refusal, dialect)
    patience.lift_after = world.budget + 3 if refusal.pauses else world.budget
    found = side.attempt(world.budget)
    assert (found["id"], found["status"]) == (ID, "succeeded")
    assert found["video_url"] != URL
    log = "".join(capfd.readouterr())
    assert KEY not in log
    lines = [line[line.index(refusal.line) :] for line in log.splitlines() if refusal.line in line]
    assert len(lines) == (1 if refusal.pauses else world.budget)
    assert f"generation {ID}, connection {CONN_ID}" in lines[0]
    assert log.count("the key is accepted again.") == refusal.pauses
    fault_row(
        "polling", refusal.name, side=f"{side.name}, {dialect}", seen=lines[-1].partition("[")[0],
        requests=world.queries, outcome=SURVIVED,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("refusal", "dialect"),
    [(REFUSALS[2], NATIVE), (REFUSALS[3], ENT), (REFUSALS[4], NATIVE), (REFUSALS[7], ENT)],
    ids=lambda found: getattr(found, "name", found),
)
def test_it_lasts(refusal, dialect, side, world, patience, fault_row):
    """Beyond the budget the wait ends with an error that a retry may follow; the generation is not lost."""
    begun(world, refusal, dialect)
    with pytest.raises(ViduError, match=rf"{world.budget + 1} polls in a row failed") as caught:
        side.attempt(world.budget)
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.retryable
    assert "wait for it again by its id" in str(caught.value)
    assert world.queries == 1 + world.budget + 1
    requests = world.queries
    world.lift()
    assert side.attempt(world.budget)["status"] == "succeeded"
    fault_row(
        "polling", f"{refusal.name}, for good", side=f"{side.name}, {dialect}", seen=str(caught.value),
        requests=requests, outcome=CLEAR_ERROR,
    )  # fmt: skip


SLIP = {"status": "error", "code": 429, "message": "too many requests"}


@pytest.mark.parametrize("dialect", BOTH)
def test_an_error_that_looks_like_a_failure(dialect, side, world, patience, capfd, fault_row):
    """A gateway's own error with a state word, and without any id, is asked for again before it is believed."""
    world.settle(dialect)
    world.fault(times=1, status=200, body=BUSY[dialect])
    world.fault(times=2, status=200, body=SLIP)
    assert side.attempt(world.budget)["status"] == "succeeded"
    line = "the service reports a failure without an id, so the next poll decides: too many requests"
    assert "".join(capfd.readouterr()).count(line) == 2
    fault_row(
        "polling", "an error of the request that looks like a failure", side=f"{side.name}, {dialect}", seen=line,
        requests=world.queries, outcome=SURVIVED,
    )  # fmt: skip
