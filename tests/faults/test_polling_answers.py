"""Polling when the answer is a good one by its status and odd by its content."""

from __future__ import annotations

import threading
import time
import tracemalloc
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import (
    ViduGenerationFailedError,
    ViduMissingVideoError,
    ViduResponseError,
    ViduTimeoutError,
)
from airflow_provider_vidu.polling.watch import PollPolicy
from fault_table import CLEAR_ERROR, SURVIVED
from tests.faults.polling_cases import sat_out, until_it_is_lifted
from tests.faults.polling_world import BOTH, CONN_ID, ENT, ID, INTERVAL, KEY, NATIVE, Fault, acted, answered, rows

pytestmark = pytest.mark.integration

FIFTY_MB = 50 * 1024 * 1024


def odd(name: str, arrange: Any, says: str, **more: Any) -> Fault:
    """Return the row of an answer that is not one of Vidu."""
    return Fault(name, arrange, ViduResponseError, says + r".*If this persists, check the connection's host", **more)


GARBAGE = [
    odd("200 with HTML", acted(garbage="html"), r"not JSON but text/html\. It begins: <!DOCTYPE"),
    odd("200 with truncated JSON", acted(garbage="truncated-json"), r"not JSON\. It begins: {"),
    odd("200 with nothing", acted(garbage="empty"), r"not JSON\. It begins: \(empty\)"),
    odd("200 with a list", acted(garbage="list"), r"not an object: \[1,"),
    odd("200 with null", answered(200, "null", content_type="application/json"), r"not an object: null"),
    odd("200 with another service's JSON", answered(200, {"ok": 1}), r"has no stat(us|e)\. It begins: {\"ok\""),
    odd("200 with 50 MB", acted(garbage="huge", huge_bytes=FIFTY_MB), r"larger than \d+ bytes", budget=1),
]


def failed(name: str, says: str, dialect: str = NATIVE, **fields: Any) -> Fault:
    """Return the row of a failed generation whose reason stands in a certain place."""
    body = {"id": ID, "status" if dialect == NATIVE else "state": "failed", **fields}
    told = rf"The generation ended as 'failed': .*{says}"
    return Fault(f"failed, reason in {name}", answered(200, body), ViduGenerationFailedError, told, False, (dialect,))


REASON = "too many cats"
FAILURES = [
    failed("fail_reason", REASON, fail_reason=REASON),
    failed("error.message and error.code", rf"{REASON}.*code cats", error={"code": "cats", "message": REASON}),
    failed("error, a text", REASON, error=REASON),
    failed("error_message and error_code", rf"{REASON}.*code cats", error_message=REASON, error_code="cats"),
    failed("detail.error_message", REASON, detail={"error_message": REASON}),
    failed("detail.error", REASON, detail={"error": REASON}),
    failed("detail, a text", REASON, detail=REASON),
    failed("message", REASON, message=REASON),
    failed("error, a list", REASON, error=["the first", {"message": REASON}]),
    failed("error, nested", REASON, error={"error": {"details": {"why": REASON}}}),
    failed(
        "fail_reason, JSON in a text",
        rf"{REASON}.*code CreditInsufficient",
        fail_reason='said: {"reason": "CreditInsufficient", "message": "' + REASON + '"}',
    ),
    failed("nowhere", "no reason was given; the whole answer: "),
    failed("err_code", r"cats.*code cats", ENT, err_code="cats"),
    failed("message", REASON, ENT, message=REASON),
    failed("err_msg", REASON, ENT, err_msg=REASON, err_code="cats"),
    failed("nowhere", "no reason was given; the whole answer: ", ENT, err_code=""),
]


@rows([fault for fault in GARBAGE if "50 MB" not in fault.name] + FAILURES)
def test_it_lasts(fault, dialect, side, world, patience, capfd, fault_row):
    """The error quotes the beginning of a foreign answer, and the reason of a failure from any of its fields."""
    until_it_is_lifted(fault, dialect, side, world, patience, capfd, fault_row)


@rows(GARBAGE)
def test_it_passes(fault, dialect, side, world, patience, capfd, fault_row):
    """Garbage that passes within the budget costs nothing but a line of the log for each failed poll."""
    sat_out(fault, dialect, side, world, patience, capfd, fault_row)


@rows([fault for fault in GARBAGE if "50 MB" in fault.name])
def test_a_huge_answer_is_not_held(fault, dialect, side, world, patience, capfd, fault_row):
    """Of 50 MB (sandbox and client are one process here) never even a whole copy is held; the error names the limit."""
    tracemalloc.start()
    try:
        until_it_is_lifted(fault, dialect, side, world, patience, capfd, fault_row)
        assert tracemalloc.get_traced_memory()[1] < FIFTY_MB
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class Oddity:
    """Answers that are odd and yet fine: only the log mentions them.

    :param bodies: what the first polls bring, by dialect; then comes the true answer.
    :param log: what the log says, in this order.
    :param last: the last word of the true answer, by dialect.
    """

    name: str
    bodies: dict[str, list[dict[str, Any]]]
    log: tuple[str, ...]
    last: dict[str, str]


def words(*spoken: str, **fields: Any) -> dict[str, list[dict[str, Any]]]:
    """Return answers that say these status words, in both dialects."""
    return {
        NATIVE: [{"id": ID, "status": word, **fields} for word in spoken],
        ENT: [{"id": ID, "state": word, "creations": [], **fields} for word in spoken],
    }


def wrong_types(*values: Any) -> dict[str, list[dict[str, Any]]]:
    """Return answers in which every field that is read holds each of these values in turn."""
    native = (
        "id status video_url result_url thumbnail_url cover_url enhanced_prompt progress model credits error detail "
        "error_code error_message fail_reason message created_at status_update_time completed_at trace_id"
    )
    ent = "id state err_code err_msg message credits progress model created_at updated_at completed_at creations"
    return {NATIVE: [dict.fromkeys(native.split(), v) for v in values],
            ENT: [dict.fromkeys(ent.split(), v) for v in values]}  # fmt: skip


DONE = {NATIVE: "completed", ENT: "success"}
ODDITIES = [
    Oddity("another id in the answer", words("processing", id="of-somebody-else"), ("running (processing)",), DONE),
    Oddity("status in capitals", words("PROCESSING"), ("running (PROCESSING)", "succeeded ("),
           {name: word.upper() for name, word in DONE.items()}),
    Oddity("backwards: running, then waiting", words("processing", "created", "processing"),
           ("running (processing)", "waiting (created)", "running (processing)"), DONE),
    Oddity("wrong types in every field", wrong_types({}, [], 7.5, True, None, {"a": []}, [[1]]), ("unknown",), DONE),
]  # fmt: skip


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("oddity", ODDITIES, ids=lambda oddity: oddity.name)
def test_odd_and_yet_fine(oddity, dialect, side, world, patience, capfd, fault_row):
    """The wait goes on through odd answers, logs what changes, and ends well under the id that was asked for."""
    world.settle(dialect)
    world.generation(states=[[oddity.last[dialect], 0]])
    for body in oddity.bodies[dialect]:
        world.fault(times=1, status=200, body=body)
    found = side.attempt(world.budget)
    assert (found["id"], found["status"]) == (ID, "succeeded")
    assert world.queries == len(oddity.bodies[dialect]) + 1 + side.after
    assert patience.errors == []
    log = "".join(capfd.readouterr())
    at = 0
    for line in oddity.log:
        assert f"Generation {ID}: {line}" in log[at:]
        at = log.index(f"Generation {ID}: {line}", at) + 1
    seen = log[at - 1 :].splitlines()[0].partition("[")[0]
    fault_row(
        "polling", oddity.name, side=f"{side.name}, {dialect}", seen=seen, requests=world.queries, outcome=SURVIVED
    )


@pytest.mark.parametrize("dialect", BOTH)
def test_an_unknown_status_for_an_hour(dialect, side, world, patience, capfd, fault_row):
    """An unknown word means "still running", for an hour as well; the timeout would name it."""
    world.settle(dialect)
    hour, seconds = 3600, 1.0
    world.generation(states=[["marinating", 0], [DONE[dialect], hour]])
    with pytest.raises(ViduTimeoutError, match=r"last known state is unknown \(marinating\)"):
        side.wait(world.budget, **_until(side, 0.1))
    before, started = world.queries, time.monotonic()
    world.sandbox.set_speed(hour / seconds)
    found = side.attempt(world.budget)
    polls = world.queries - before - side.after
    assert found["status"] == "succeeded"
    # The schedule has an interval of at least 95 % between polls, and one poll at each end.
    assert polls <= (time.monotonic() - started) / (0.95 * INTERVAL) + 3
    log = "".join(capfd.readouterr())
    assert f"Generation {ID}: unknown (marinating)" in log
    fault_row(
        "polling", "unknown status for an hour", side=f"{side.name}, {dialect}", seen="unknown (marinating)",
        requests=world.queries, outcome=SURVIVED,
    )  # fmt: skip


def _until(side: Any, seconds: float) -> dict[str, float]:
    return {"timeout": seconds} if side.name == "sync" else {"deadline": time.time() + seconds}


@pytest.mark.parametrize("dialect", BOTH)
def test_success_without_a_url(dialect, side, world, patience, fault_row):
    """A success without a URL is asked again for a few polls, then a clear error; later the URL is found."""
    world.settle(dialect)
    world.generation(without_url=True)
    with pytest.raises(
        ViduMissingVideoError, match=f"Ask its support.*generation {ID}, connection {CONN_ID}"
    ) as caught:
        side.wait(world.budget)
    requests = world.queries
    assert requests == PollPolicy().missing_url_polls + 1
    assert side.once()["video_url"] is None
    world.generation()
    assert side.attempt(world.budget)["status"] == "succeeded"
    fault_row(
        "polling", "success without URL", side=f"{side.name}, {dialect}", seen=str(caught.value), requests=requests,
        outcome=CLEAR_ERROR,
    )  # fmt: skip


@pytest.mark.parametrize("dialect", BOTH)
def test_a_key_rotated_in_the_middle(dialect, side, world, patience, capfd, fault_row):
    """A new key in the connection is noticed when the old one is refused, without a restart and without an error."""
    world.settle(dialect)
    world.generation(states=[["processing", 0], [DONE[dialect], 10]])
    new_key = "sk-rotated-3b1f77aa"

    def rotate() -> None:
        while world.queries < 3:
            time.sleep(0.005)
        world.connect(password=new_key)
        world.sandbox.rotate_keys([new_key])
        while len([query for query in world.sandbox.requests("query") if query.status == 200]) < 5:
            time.sleep(0.005)
        world.sandbox.advance(11)

    turning = threading.Thread(target=rotate, daemon=True)
    turning.start()
    found = side.attempt(world.budget)
    turning.join(10)
    assert found["status"] == "succeeded"
    refused = [query for query in world.sandbox.requests("query") if query.status == 401]
    assert len(refused) == 1
    assert patience.errors == []
    assert side.once()["id"] == ID
    log = "".join(capfd.readouterr())
    assert KEY not in log
    assert new_key not in log
    fault_row(
        "polling", "key rotated in the middle", side=f"{side.name}, {dialect}", seen="nothing: the wait goes on",
        requests=world.queries, outcome=SURVIVED,
    )  # fmt: skip
