"""What callbacks do to the tables of this Airflow, whichever it is: without an API server, in a database of their own.

All that touches Airflow's internals is one module; these tests run it on every Airflow of the matrix.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from airflow_provider_vidu.tasks.callbacks.tokens import new_address, read_token
from airflow_provider_vidu.ui.callbacks import airflow_tasks
from tests.integration.ui.conftest import Pages
from tests.integration.ui.test_callbacks import _archive, _rewrite, deferred, event_of, row
from tests.versions import AIRFLOW

__all__ = ["deferred"]  # a fixture

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(AIRFLOW < (3, 1, 1), reason="Older versions have no callbacks."),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Iterator[Pages]:
    """Make this Airflow's tables in a file."""
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from sqlalchemy import create_engine

    import_all_models()
    folder = tmp_path_factory.mktemp("tables")
    engine = create_engine(f"sqlite:///{folder / 'airflow.db'}")
    Base.metadata.create_all(engine)
    yield Pages("https://h.example", folder, folder, None, engine)  # type: ignore[arg-type]
    engine.dispose()


@pytest.fixture(autouse=True)
def session(pages, monkeypatch) -> None:
    """Let the module use these tables."""
    from sqlalchemy.orm import sessionmaker

    monkeypatch.setattr(airflow_tasks, "create_session", lambda: sessionmaker(pages.engine).begin())


def test_this_airflow_has_all_that_callbacks_need():
    """On a supported Airflow nothing is missing."""
    assert airflow_tasks.missing() is None


def test_a_wait_is_found_by_its_task_instance(pages, deferred):
    """With its trigger's arguments and the time of the deferral; unknown ids find nothing."""
    wait, other = deferred(age=60), uuid4()
    found = airflow_tasks.find_waiting([wait.instance, other])
    assert found.keys() == {wait.instance}
    (task,) = found[wait.instance]
    assert task.arguments["callback"] == wait.address.digest
    assert task.deferred_at == pytest.approx(time.time() - 60, abs=30)
    assert airflow_tasks.find_waiting([]) == {}


@pytest.mark.parametrize("state", ["running", "scheduled", "queued", "success", "failed", "up_for_retry"])
def test_a_task_that_is_not_deferred_is_not_found(deferred, state):
    """Whatever its trigger_id still says."""
    assert airflow_tasks.find_waiting([deferred(state=state).instance]) == {}


def test_tasks_of_other_triggers_are_not_found(deferred):
    """A wait for a slot has nothing that a callback could report."""
    wait = deferred(cls="airflow_provider_vidu.triggers.ViduSlotTrigger")
    assert airflow_tasks.find_waiting([wait.instance]) == {}


def test_arguments_that_cannot_be_read_are_passed_over(pages, deferred):
    """A row of another Fernet key costs that callback, not the others of the same query."""
    from airflow.models.trigger import Trigger

    broken, good = deferred(), deferred()
    with pages.engine.begin() as database:
        table = Trigger.__table__
        own = row(pages, broken.instance).trigger_id
        database.execute(table.update().where(table.c.id == own).values(kwargs="gAAAAA-nonsense"))
    assert airflow_tasks.find_waiting([broken.instance, good.instance]).keys() == {good.instance}


def test_arguments_that_are_too_long_are_not_read(deferred):
    """The author of a DAG may have stored megabytes, which each callback with any token would let the server parse."""
    long, usual = deferred(more="x" * airflow_tasks.MAX_ARGUMENT_CHARS), deferred(more="x" * 1_000)
    assert airflow_tasks.find_waiting([long.instance, usual.instance]).keys() == {usual.instance}


def test_what_a_task_resumes_with_has_the_same_limit(pages, deferred):
    """The author of a DAG decides how long that is, too, and the server reads it to resume the task."""
    from airflow.models.taskinstance import TaskInstance

    long, usual = deferred(), deferred()
    table = TaskInstance.__table__
    for wait, length in ((long, airflow_tasks.MAX_ARGUMENT_CHARS), (usual, 1_000)):
        change = table.update().where(table.c.id == airflow_tasks._spelt(wait.instance))
        with pages.engine.begin() as database:
            database.execute(change.values(next_kwargs={"more": "x" * length}))
    assert airflow_tasks.find_waiting([long.instance, usual.instance]).keys() == {usual.instance}


def test_the_conf_of_the_run_is_not_read(pages, deferred):
    """Whoever triggers a run chooses it: thirty megabytes took the server a gigabyte, and half a minute."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import String, literal

    wait = deferred()
    table = DagRun.__table__
    for conf in ("no JSON", "{}"):
        with pages.engine.begin() as database:
            database.execute(table.update().where(table.c.dag_id == "called").values(conf=literal(conf, String())))
        if conf == "no JSON":
            (task,) = airflow_tasks.find_waiting([wait.instance])[wait.instance]
            assert airflow_tasks.resume(task, {"kind": "callback"})


def test_one_statement_decides(pages, deferred):
    """Of the same wait, resumed twice from what was read before, the second changes nothing."""
    wait = deferred()
    (task,) = airflow_tasks.find_waiting([wait.instance])[wait.instance]
    assert airflow_tasks.resume(task, {"kind": "callback", "n": 1})
    assert not airflow_tasks.resume(task, {"kind": "callback", "n": 2})
    assert event_of(pages, wait.instance) == {"kind": "callback", "n": 1}
    assert (row(pages, wait.instance).state, row(pages, wait.instance).trigger_id) == ("scheduled", None)


def test_a_wait_that_began_anew_is_not_resumed_by_what_was_read_before(pages, deferred):
    """Another trigger, even one with the id of a deleted one: the task has been away, and its age starts again."""
    wait = deferred()
    (task,) = airflow_tasks.find_waiting([wait.instance])[wait.instance]
    for earlier in ({"trigger_id": task.trigger_id + 1000}, {"deferred_at": task.deferred_at - 2}):
        assert not airflow_tasks.resume(replace(task, **earlier), {"kind": "callback"})
        assert row(pages, wait.instance).state == "deferred"


def test_the_token_of_an_earlier_try_finds_the_retry(pages, deferred):
    """A retry that waits for the generation of an earlier try is found by that try's id."""
    wait, earlier = deferred(), uuid4()
    _, digest = read_token(new_address(pages.url, earlier).token) or (None, "")
    _archive(pages, wait.instance, earlier)
    _rewrite(pages, wait.instance, {"generation_id": "911", "callback": digest})
    (task,) = airflow_tasks.find_waiting([earlier])[earlier]
    assert (task.instance, task.arguments["callback"]) == (wait.instance, digest)


@pytest.mark.skipif(AIRFLOW < (3, 4), reason="Before 3.4, one task instance stands at a place.")
def test_many_retries_in_many_iterations_read_no_more_than_a_few(pages, monkeypatch):
    """The author of a DAG decides how many there are, and made-up tokens have them read: a hundred took 750 MB."""
    from datetime import UTC, datetime

    monkeypatch.setattr(airflow_tasks, "MAX_ALL_SUCCESSORS", 6)
    loop = pages.add_region("many", "takes")
    regions = [pages.add_region("many", "takes.film", parent=(loop, number)) for number in range(4)]
    kind, where = "airflow_provider_vidu.triggers.ViduGenerationTrigger", {"dag": "many", "index": 0}
    waits, tries = [], []
    for number, region in enumerate(regions):
        arguments = json.dumps({"generation_id": f"g{number}", "vidu_conn_id": "c", "callback": "0"})
        more = {"state": "deferred", "deferred": datetime.now(UTC), "trigger": (kind, arguments)}
        waits.append(pages.add("takes.film", f"g{number}", region=region, **where, **more))
        tries.append(
            pages.add("takes.film", f"h{number}", region=region, state="failed", archived="retry", tried=2, **where)
        )
    (found,) = airflow_tasks.find_waiting(tries[:1]).values()
    assert {task.instance for task in found} == set(waits)
    found = airflow_tasks.find_waiting(tries)
    assert [[task.instance for task in found[each]] for each in tries] == [[wait] for wait in waits]
