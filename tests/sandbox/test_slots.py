"""Five at once: the surplus waits in queueing, moves up after a cancel, or is refused."""

from __future__ import annotations

import pytest

from tests.sandbox.service import Service


def test_the_sixth_waits_until_a_slot_is_free(service) -> None:
    """It is accepted, stays in queueing beyond its own time, and then runs as long as any other."""
    tasks = [service.task() for _ in range(6)]
    service.core.clock.advance(5)
    assert [service.state(task) for task in tasks] == ["processing"] * 5 + ["queueing"]
    service.core.clock.advance(19)
    assert [service.state(task) for task in tasks] == ["success"] * 5 + ["processing"]
    service.core.clock.advance(19)
    assert service.ent("GET", f"tasks/{tasks[5]}/creations")[1]["progress"] == 95
    service.core.clock.advance(1)
    assert service.state(tasks[5]) == "success"


def test_a_whole_crowd_runs_five_by_five(service) -> None:
    """Never more than five at once, in the order in which they came."""
    tasks = [service.task() for _ in range(12)]
    seen = []
    for _ in range(40):
        states = [service.state(task) for task in tasks]
        assert states.count("processing") <= 5
        if "success" in states:
            seen.append(states.count("success"))
        service.core.clock.advance(2)
    assert sorted(set(seen)) == [5, 10, 12]


def test_a_cancel_lets_the_next_one_move_up(service) -> None:
    """A waiting task that is cancelled gives its turn to the one behind it."""
    first = [service.task() for _ in range(5)]
    second, third = service.task(), service.task()
    service.core.clock.advance(10)
    assert service.ent("POST", f"tasks/{second}/cancel", {"id": second}) == (200, {})
    service.core.clock.advance(14)
    assert {service.state(task) for task in first} == {"success"}
    assert (service.state(second), service.state(third)) == ("failed", "processing")


def test_a_slow_one_does_not_hold_a_slot_before_it_starts(service) -> None:
    """What is ready first starts first, whatever came first."""
    service = Service(concurrency=1)
    slow = service.task(prompt="[slow]")
    quick = service.task()
    service.core.clock.advance(5)
    assert (service.state(slow), service.state(quick)) == ("created", "processing")
    service.core.clock.advance(36)
    assert (service.state(slow), service.state(quick)) == ("processing", "success")


def test_a_failure_that_was_held_back_is_refunded_when_it_comes(service) -> None:
    """The credits come back with the failure, not when it would have come alone."""
    service = Service(concurrency=1)
    service.task()
    failing = service.task(prompt="[fail]")
    service.core.clock.advance(25)
    service.core.settle()
    assert (service.state(failing), service.core.ledger.balance) == ("processing", 100_000 - 160)
    service.core.clock.advance(20)
    service.core.settle()
    assert (service.state(failing), service.core.ledger.balance) == ("failed", 100_000 - 80)


def test_a_failure_that_moves_up_is_refunded_earlier(service) -> None:
    """A cancel before it shortens its wait, and the books follow."""
    service = Service(concurrency=1)
    service.task()
    second, failing = service.task(), service.task(prompt="[fail]")
    service.ent("POST", f"tasks/{second}/cancel", {"id": second})
    service.core.clock.advance(45)
    service.core.settle()
    assert service.state(failing) == "failed"
    assert service.core.ledger.balance == 100_000 - 80


@pytest.mark.parametrize(("limit", "running"), [(None, 8), (2, 2)])
def test_the_limit_can_be_set(limit, running) -> None:
    """To any number, or none."""
    service = Service(concurrency=limit)
    tasks = [service.task() for _ in range(8)]
    service.core.clock.advance(10)
    assert [service.state(task) for task in tasks].count("processing") == running


def test_a_full_account_may_refuse() -> None:
    """The error table has 429 QuotaExceeded all the same; nothing is charged, and a free slot ends it."""
    service = Service(when_full="refuse", concurrency=2)
    order = {"model": "viduq2", "prompt": "x"}
    service.task()
    service.task()
    status, body = service.ent("POST", "text2video", order)
    assert (status, body["reason"], body["message"]) == (429, "QuotaExceeded", "concurrency limit exceeded")
    assert len(service.core.ledger.creates) == 2
    assert service.ent("POST", "audio-tts", {"text": "x", "voice_setting_voice_id": "v"})[0] == 200
    service.core.clock.advance(30)
    assert service.ent("POST", "text2video", order)[0] == 200


def test_the_gateways_have_no_limit_unless_told() -> None:
    """With one, a create beyond it gets the refusal that was named."""
    path = "/vidu-native/video/generations"
    free = Service()
    assert {free.gateway("POST", path, {"prompt": "x"})[0] for _ in range(8)} == {200}
    full = Service(gateway_concurrency=1, gateway_refusal="video_queue_full_200")
    full.core.add_generation({"id": "preset", "states": [["processing", 0]]})
    assert "id" in full.gateway("POST", path, {"prompt": "x"})[1]
    status, body = full.gateway("POST", path, {"prompt": "x"})
    assert (status, body["code"], body["data"]) == (200, "video_queue_full", None)
    full.core.clock.advance(30)
    assert "id" in full.gateway("POST", path, {"prompt": "x"})[1]
