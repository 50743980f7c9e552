"""Telling a kill from a hand-over."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from uuid import UUID

import pytest

from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.links import ID_KEY
from airflow_provider_vidu.tasks import handover
from tests.rows import each_row
from tests.versions import AIRFLOW

TI = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)


@each_row(
    ("state", "published", "goes_on"),
    [
        ("deferred", "g", True),
        ("deferred", "other", False),
        ("deferred", None, None),
        ("failed", "g", False),
        ("success", "g", False),
        ("failed", None, False),
        ("running", "other", False),
        ("running", "g", None),
        ("running", None, None),
        ("queued", "g", None),
        ("up_for_retry", "g", None),
        (None, "g", None),
        (None, None, None),
    ],
)
def test_verdict(state, published, goes_on):
    """Deferred for this generation goes on; ended, or busy with another, does not; the rest shows later."""
    assert handover.verdict(state, published, "g") is goes_on


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 reads its database")
@pytest.mark.parametrize(
    ("region", "map_index", "reported", "state"),
    [
        (7, -1, "success", None),
        (7, -1, "failed", "failed"),
        (7, 2, "success", "success"),
        (0, -1, "success", "success"),
    ],
    ids=["an iteration", "a failed one", "mapped", "outside loops"],
)
def test_the_success_of_another_iteration_is_none(monkeypatch, region, map_index, reported, state):
    """Airflow 3.4 reports the latest iteration; an earlier one that was cleared alone may still wait."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    name = "t" if map_index < 0 else f"t_{map_index}"
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: {"r": {name: reported}}, raising=False)
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=map_index, region_id=UUID(int=region))
    assert handover._state(ti) == state


def looks(monkeypatch, *seen):
    """Let the task instance look like each of ``seen`` in turn, the last one for ever."""
    script = list(seen)

    def look(_ti, _key):
        found = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(handover, "_look", look)


async def test_a_clear_shows_when_the_new_try_has_begun(monkeypatch):
    """Queued, the cleared task still shows the old id; its new try begins without one and publishes another."""
    looks(monkeypatch, (None, "g"), ("queued", "g"), ("running", None), ("running", "another"))
    assert await handover.is_handed_over(TI, "g", pause=0) is False


async def test_a_retry_that_goes_on_with_the_generation_keeps_it(monkeypatch):
    """A late triggerer that looks between the start of a retry and its publishing the same id cancels nothing."""
    looks(monkeypatch, ("up_for_retry", "g"), ("running", None), ("running", None), ("deferred", "g"))
    assert await handover.is_handed_over(TI, "g", pause=0) is True


async def test_in_doubt_nothing_is_cancelled(monkeypatch):
    """A try that publishes nothing for a minute says neither yes nor no: the generation is left alone."""
    looks(monkeypatch, ("running", None))
    assert await handover.is_handed_over(TI, "g", pause=0) is True


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 reads its database")
async def test_a_triggerer_without_the_xcom_back_end_cancels_nothing(monkeypatch):
    """It reads the address of an object where the task has stored an id: its restart cancelled what others wait for."""
    from airflow.providers.common.compat.sdk import XCom

    monkeypatch.setattr(handover, "_state", lambda _: "deferred")
    monkeypatch.setattr(XCom, "get_one", lambda **_: "s3://bucket/xcom/d/r/t/0b1c")
    assert await handover.state_and_generation(TI) == ("deferred", None)
    assert await handover.is_handed_over(TI, "g", pause=0) is True
    monkeypatch.setattr(handover, "_state", lambda _: "failed")
    assert await handover.is_handed_over(TI, "g", pause=0) is False


async def test_an_outage_is_sat_out(monkeypatch):
    """An API server that is away for a moment does not decide over a generation."""
    looks(monkeypatch, OSError("away"), ("deferred", "g"))
    assert await handover.is_handed_over(TI, "g", pause=0) is True


async def test_a_look_without_an_answer_is_given_up(monkeypatch):
    """A request that Airflow never answers holds up neither this guard nor the next one."""
    done = threading.Event()
    seen = []

    def look(_ti, _key):
        seen.append(1)
        if len(seen) == 1:
            done.wait(30)
        return "failed", "g"

    monkeypatch.setattr(handover, "_look", look)
    monkeypatch.setattr(handover, "_QUERY_SECONDS", 0.2)
    try:
        assert await handover.is_handed_over(TI, "g", pause=0) is False
        assert len(seen) == 2
    finally:
        done.set()


async def test_nothing_is_cancelled_blindly(monkeypatch):
    """Where the task instance cannot be asked at all, the generation is left alone."""
    looks(monkeypatch, OSError("away"))
    with pytest.raises(ViduError, match="nothing is cancelled"):
        await handover.is_handed_over(TI, "g", pause=0)


async def test_a_resumed_try_keeps_its_generation(monkeypatch):
    """A task that was resumed meanwhile is still at work on the same generation."""
    looks(monkeypatch, ("running", "g"))
    assert await handover.is_handed_over(TI, "g", pause=0) is True


async def test_the_state_alone_is_one_query(monkeypatch):
    """What a task has published is read only while it is deferred; what cannot be read is None."""
    seen = []
    answers = [("up_for_retry", None), ("deferred", None), ("deferred", "g")]

    def look(ti, key):
        seen.append(key)
        return answers.pop(0)

    monkeypatch.setattr(handover, "_look", look)
    assert await handover.state_and_generation(TI) == ("up_for_retry", None)
    assert await handover.state_and_generation(TI) == ("deferred", "g")
    assert seen == [None, None, ID_KEY]
    assert await handover.state_and_generation(TI) == (None, None)
