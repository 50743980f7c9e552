"""What the operators publish for the Watch link, and when: as soon as there is an id."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.links import watch_page
from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor
from tests.versions import AIRFLOW

pytestmark = pytest.mark.integration


class Recorder(SimpleNamespace):
    """A task instance that notes what is pushed."""

    def __init__(self) -> None:
        super().__init__(dag_id="d", run_id="r", task_id="t", map_index=2, try_number=1, max_tries=0)
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.pushed[key] = value


@pytest.fixture
def ti() -> Recorder:
    """Return a task instance."""
    return Recorder()


def check(ti: Recorder, generation_id: str, role: str, artifact: str | None = None) -> None:
    """Compare what was published with what the page needs."""
    assert ti.pushed["generation_id"] == generation_id
    own = ("created_at", "asked", "credits", "seed", "model", "deadline", "adaptive", "poll_interval")
    told = {name: value for name, value in ti.pushed["vidu_watch"].items() if name not in own}
    assert told == {
        "conn_id": "vidu_default", "role": role, "artifact": artifact,
        "result": "return_value", "try_number": 1, "max_tries": 0,
    }  # fmt: skip
    if AIRFLOW >= (3, 0):  # Airflow 2 asks the link itself when somebody looks
        assert ti.pushed["_link_ViduWatchLink"] == watch_page(ti)
    assert "http" not in str(ti.pushed).replace(watch_page(ti), "")


@pytest.mark.parametrize(("waits", "role"), [(True, "generate"), (False, "submit")])
def test_generate(sandbox, connect, ti, waits, role):
    """The link is there before the wait begins, deferred or not."""
    connect()
    operator = ViduGenerateOperator(
        task_id="t", prompt="p", model="m", deferrable=True, durable=False, wait_for_completion=waits
    )
    try:
        operator.execute({"ti": ti})
    except TaskDeferred:
        assert waits
    check(ti, sandbox.creates[0].id, role)
    assert ti.pushed["vidu_watch"]["model"] == "m"  # for the sums of the page "Vidu"


def test_sensor(sandbox, connect, ti):
    """The sensor publishes the id that it was given before its first poll."""
    connect()
    generation_id = sandbox.add_generation("g-sensor", states=[["processing", 0]])
    with pytest.raises(TaskDeferred):
        ViduGenerationSensor(task_id="t", generation_id=generation_id, deferrable=True).execute({"ti": ti})
    check(ti, generation_id, "wait")


def test_a_download_that_fails_has_its_link(connect, ti, tmp_path):
    """A failed download leads to the clip's page, too."""
    connect(max_retries=0)
    operator = ViduDownloadOperator(task_id="t", generation_id="nothing", destination=f"{tmp_path}/", artifact="cover")
    with pytest.raises(ViduError):
        operator.execute({"ti": ti})
    check(ti, "nothing", "download", "cover")


@pytest.mark.parametrize(
    ("interval", "noted"), [(None, {"adaptive": True}), (30, {"poll_interval": 30.0})], ids=["adaptive", "fixed"]
)
def test_the_note_says_how_the_task_waits(sandbox, connect, ti, interval, noted):
    """Deadline and interval of the wait are noted for the clip's page; an interval that was set, as it was set."""
    connect()
    began = time.time()
    operator = ViduGenerateOperator(
        task_id="t", prompt="p", model="m", deferrable=True, durable=False, timeout=600, poll_interval=interval
    )
    with pytest.raises(TaskDeferred):
        operator.execute({"ti": ti})
    note = ti.pushed["vidu_watch"]
    assert {name: note[name] for name in ("adaptive", "poll_interval") if name in note} == noted
    assert began + 599 <= note["deadline"] <= time.time() + 601
