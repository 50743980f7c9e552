"""Claims on orders, as files of a local folder: who has one, and who shares."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from airflow_provider_vidu.exceptions import (
    ViduConfigError,
    ViduError,
    ViduNotFoundError,
    ViduSubmitUnknownError,
)
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders import claims
from airflow_provider_vidu.orders.claims import BusyClaimError, Claim, ClaimLostError, SharedOrderError, never_sleep
from airflow_provider_vidu.orders.order import OrderRecord
from airflow_provider_vidu.stores.destination import Destination

LOG = SimpleNamespace(info=lambda *_: None, warning=lambda *_: None, debug=lambda *_: None)


def age(folder, number=1):
    """Let a claim be an hour old."""
    path = folder / f"{number:06d}.json"
    held = json.loads(path.read_text())
    held["record"]["at"] -= 3600
    path.write_text(json.dumps(held))


def record(**known):
    """Return the intent of a create."""
    return OrderRecord(0, "marker", time.time(), request="r", **known)


@pytest.fixture
def claim(tmp_path):
    """Return a function that makes a task's claim, on a service with the given answers."""
    folder = Destination(f"{tmp_path}/", None, None)

    def claim(owner, answer=None):
        def get_generation(generation_id, endpoint=None):
            if isinstance(answer, Exception):
                raise answer
            return Generation(id=generation_id, status=answer or "running", raw={})

        hook = SimpleNamespace(config=SimpleNamespace(timeout=1.0), vidu_conn_id="vidu", get_generation=get_generation)
        return Claim(folder.file, owner, hook, lambda: None, LOG, sleep=never_sleep)

    return claim


def test_one_of_two_has_the_claim(claim):
    """While the other does not know of a generation it must wait; then it shares it."""
    first, second = claim("a"), claim("b")
    first.take(record())
    with pytest.raises(BusyClaimError):
        second.take(record())
    first.submitted("g1")
    with pytest.raises(SharedOrderError) as shared:
        second.take(record())
    assert shared.value.generation_id == "g1"
    claim("c").ended("other")
    with pytest.raises(SharedOrderError):
        second.look("r")
    claim("c").ended("g1")
    second.take(record())


@pytest.mark.parametrize("answer", ["failed", ViduNotFoundError("gone")], ids=["failed", "unknown"])
def test_a_generation_of_no_use_is_taken_over(claim, tmp_path, answer):
    """By one task, and who has lost the claim does not send."""
    first, second = claim("a"), claim("b", answer)
    first.take(record())
    first.submitted("g1")
    age(tmp_path)
    second.take(record())
    with pytest.raises(ClaimLostError):
        first.check()
    second.check()
    first.release()
    with pytest.raises(BusyClaimError):
        claim("c").take(record())
    second.release()
    claim("c").take(record())


def test_a_new_generation_that_is_not_found_is_shared(claim):
    """Right after a create the service may not know it."""
    first = claim("a")
    first.take(record())
    first.submitted("g1")
    with pytest.raises(SharedOrderError):
        claim("b", ViduNotFoundError("not yet")).take(record())


@pytest.mark.parametrize("found", ["g9", None], ids=["created", "not created"])
def test_a_dead_task_is_searched_for(claim, monkeypatch, tmp_path, found):
    """Its generation is shared if there is one; otherwise another task takes over."""
    monkeypatch.setattr(claims, "find_lost", lambda *_: found)
    claim("a").take(record())
    age(tmp_path)
    second = claim("b")
    if found:
        with pytest.raises(SharedOrderError, match="g9"):
            second.take(record())
        with pytest.raises(SharedOrderError, match="g9"):  # the claim holds it from now on
            claim("c").take(record())
    else:
        second.take(record())


def test_a_claim_is_as_old_as_its_file(claim, monkeypatch, tmp_path):
    """Its task may have waited for a dead one: a third one waits in turn, and its own retry searches from now on."""
    monkeypatch.setattr(claims, "find_lost", lambda *_: None)
    claim("a").take(record())
    age(tmp_path)
    taken = claim("b").take(replace(record(), at=time.time() - 3600))
    assert taken.at == pytest.approx(time.time(), abs=60)
    with pytest.raises(BusyClaimError):
        claim("c").take(replace(record(), at=time.time() - 3600))


def test_a_task_that_comes_back_to_life_keeps_its_claim(claim, monkeypatch, tmp_path):
    """It renewed the claim and sends, while another one was searching for its create: that one does not take over."""
    first = claim("a")
    first.take(record())
    age(tmp_path)
    monkeypatch.setattr(claims, "find_lost", lambda *_: first.check())
    with pytest.raises(BusyClaimError):
        claim("b").take(record())
    first.check()


def test_a_renewal_notices_who_has_taken_over_meanwhile(claim, monkeypatch, tmp_path):
    """The other one read the claim before it was renewed, so this one does not send."""
    monkeypatch.setattr(claims, "find_lost", lambda *_: None)
    first, second, write = claim("a"), claim("b"), claims.write_file
    first.take(record())
    age(tmp_path)

    def late(*arguments):
        monkeypatch.setattr(claims, "write_file", write)
        second.take(record())
        write(*arguments)

    monkeypatch.setattr(claims, "write_file", late)
    with pytest.raises(ClaimLostError):
        first.check()


def test_an_inconclusive_search_submits_nothing(claim, monkeypatch, tmp_path):
    """The error names the file that a person may remove."""

    def search(*_):
        raise ViduSubmitUnknownError("inconclusive")

    monkeypatch.setattr(claims, "find_lost", search)
    claim("dag/run/task/-1").take(record())
    age(tmp_path)
    with pytest.raises(ViduSubmitUnknownError, match=r"dag/run/task/-1.*remove file://.*000001\.json"):
        claim("b").take(record())


def test_the_retry_of_the_owner_goes_on(claim):
    """It writes its own claim again, and makes a recovered generation known."""
    claim("a").take(record())
    claim("a").take(record())
    claim("a").submitted("g1")
    with pytest.raises(SharedOrderError, match="g1"):
        claim("b").take(record())


@pytest.mark.parametrize("content", [b"", b"[]", b'{"owner": 5}', b"\xff"])
def test_a_damaged_claim_is_never_sent_over(claim, tmp_path, content):
    """It may stand for a generation, so nothing is submitted."""
    (tmp_path / "000001.json").write_bytes(content)
    with pytest.raises(ViduSubmitUnknownError, match="unknown"):
        claim("b").take(record())


FORGED = {
    "a time to come": {"at": 1e18},
    "a time before all": {"at": -1e30},
    "a first send that no clock shows": {"began": 1e300},
    "a marker that is none": {"marker": {"a": 1}},
    "an id that is none": {"generation_id": ["g1"]},
    "an id that forges a line": {"generation_id": "g1\n2026-01-01 ERROR"},
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_claim_ends_the_task(claim, tmp_path, kind):
    """It is neither waited for nor sent over: a claim of the year 30 billion held a worker for ever."""
    known = {**record().to_json(), **FORGED[kind]}
    (tmp_path / "000001.json").write_text(json.dumps({"owner": "x\n\x1b[31mforged", "record": known}))
    with pytest.raises(ViduSubmitUnknownError, match=r"remove file://.*000001\.json") as told:
        claim("b").take(record())
    assert "\n" not in str(told.value)


def test_the_owner_in_a_message_is_one_short_line(claim, tmp_path, monkeypatch):
    """Other writers of the folder could forge lines of a task's log."""
    stored = {"owner": "x\n\x1b[31mforged" * 1000, "record": replace(record(), at=1000.0).to_json()}
    (tmp_path / "000001.json").write_text(json.dumps(stored))

    def search(*_):
        raise ViduSubmitUnknownError("inconclusive")

    monkeypatch.setattr(claims, "find_lost", search)
    with pytest.raises(ViduSubmitUnknownError) as told:
        claim("b").take(record())
    assert len(str(told.value)) < 1500
    assert "\n" not in str(told.value)
    assert "\x1b" not in str(told.value)


def test_a_claim_that_is_renewed_for_ever_ends_the_wait(claim, monkeypatch):
    """Its task may be another writer of the folder: a retry waits again, and nothing is submitted."""
    first, second = claim("a"), claim("b")
    now = time.time()
    monkeypatch.setattr(claims.time, "time", lambda: now)
    first.take(replace(record(), at=now))

    def sleep(seconds):
        nonlocal now
        now += 20
        first.check()

    second._sleep = sleep
    with pytest.raises(ViduError, match="about to submit an equal order for"):
        second.take(record())


def test_takeovers_without_end_are_not_read(claim, tmp_path, monkeypatch):
    """The folder is full of claims."""
    monkeypatch.setattr(claims, "MOST_TAKEOVERS", 5)
    for number in range(1, 7):
        (tmp_path / f"{number:06d}.json").write_text("{}")
    with pytest.raises(ViduConfigError, match="taken over 5 times"):
        claim("b").take(record())
