"""What an operator looks for first: who ended a wait, who polls, the next clip, and a way out of every page."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from airflow_provider_vidu.links import has_pages

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages"),
]
MADE = {"conn_id": "vidu_default", "role": "generate", "credits": 20}
KEPT = {"conn_id": "vidu_default", "role": "download"}
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("event", "extra", "of_task", "told"),
    [
        ("patch_task_instance", {"new_state": "failed", "map_index": "4"}, True, "a user marked the task killed [4]"),
        ("patch_task_instance", {"new_state": "failed"}, True, "a user marked the task killed [4]"),
        ("patch_dag_run", {"state": "failed"}, False, "a user marked the run as failed"),
        (
            "bulk_task_instances",
            {"actions": [{"entities": [{"task_id": "killed", "map_index": 4, "new_state": "failed"}]}]},
            False,
            "a user marked the task killed [4]",
        ),
        ("patch_task_instance", {"new_state": "failed", "map_index": "3"}, True, "neither a timeout nor an action"),
        ("patch_task_instance", {"new_state": "success"}, True, "neither a timeout nor an action"),
        ("patch_task_instance", {"note": "failed"}, True, "neither a timeout nor an action"),
    ],
)
def test_who_cancelled_a_clip(pages, generation, event, extra, of_task, told):
    """Airflow's audit log says that a user ended this very map index; the page names the action and not the user."""
    began = datetime.now(UTC) - timedelta(minutes=5)
    ended = began + timedelta(minutes=2)
    generation_id, _ = generation(states=[["failed", 0]], error="UserCancelled")
    dag = f"cancelled-{generation_id}"
    pages.add(
        "killed",
        generation_id,
        dag=dag,
        index=4,
        state="failed",
        watch=MADE,
        at=began,
        ended=ended + timedelta(seconds=1),
    )
    pages.act(event, extra, dag=dag, at=ended, task="killed" if of_task else None)
    shown = pages.get(pages.at("killed", dag=dag, index=4, then="/clip.json"), user="admin").json()
    assert (shown["state"], shown["qualifier"]) == ("failed", "cancelled")
    assert told in shown["error"]["message"]
    assert "0 credits (20 at its create): they were returned" in shown["error"]["cost"]


def test_a_task_that_was_marked_as_success(pages, generation):
    """Its generation goes on at the service, and no task waits: neither sheet nor page counts it as made."""
    now, note = datetime.now(UTC), {**MADE, "result": "return_value"}
    generation_id, result = generation(states=[["processing", 0]])
    pages.add("marked", generation_id, dag="marked-success", watch=note, at=now, ended=now)
    pages.act("patch_task_instance", {"new_state": "success"}, dag="marked-success", at=now, task="marked")
    pages.add("made", "made", dag="marked-success", watch=note, result={**result, "id": "made"}, at=now)
    shown = pages.get(pages.at("marked", dag="marked-success", then="/clip.json"), user="admin").json()
    assert (shown["state"], shown["stage"], shown["qualifier"]) == ("running", "submitted", "task marked")
    assert "A user marked the task marked as success before the task had a result." in shown["error"]["message"]
    path = pages.at("marked", dag="marked-success").partition("/tasks")[0]
    sheet = pages.get(f"{path}/clips.json", user="admin").json()
    assert sheet["counts"] == {"working": 0, "submitted": 1, "ready": 1, "stored": 0, "failed": 0}


@pytest.mark.parametrize("state", ["success", "skipped"])
def test_a_mark_cancels_a_clip(pages, generation, state):
    """Airflow's audit log is read although no task has failed; one that returned its result needs no look."""
    now, dag = datetime.now(UTC), f"marked-cancel-{state}"
    generation_id, _ = generation(states=[["failed", 0]], error="UserCancelled")
    pages.add("marked", generation_id, dag=dag, state=state, watch=MADE, at=now, ended=now, resumes=True)
    pages.act("patch_task_instance", {"new_state": state}, dag=dag, at=now, task="marked")
    shown = pages.get(pages.at("marked", dag=dag, then="/clip.json"), user="admin").json()
    assert f"a user marked the task marked as {state}" in shown["error"]["message"]


@pytest.mark.parametrize("states", [("success", "failed"), ("failed", "success")])
def test_a_clip_whose_task_was_marked_twice(pages, generation, states):
    """The first mark has ended and cancelled it; Airflow keeps the time of that end, whatever it is marked as later."""
    now = datetime.now(UTC)
    began = now - timedelta(minutes=9)
    generation_id, _ = generation(states=[["failed", 0]], error="UserCancelled")
    dag = f"marked-twice-{states[0]}"
    pages.add("marked", generation_id, dag=dag, state=states[1], watch=MADE, at=began, ended=began, resumes=True)
    for state, at in zip(states, (began, now), strict=True):
        pages.act("patch_task_instance", {"new_state": state}, dag=dag, at=at, task="marked")
    shown = pages.get(pages.at("marked", dag=dag, then="/clip.json"), user="admin").json()
    assert f"Airflow cancelled it: a user marked the task marked as {states[0]}." in shown["error"]["message"]


def test_an_action_long_before_the_end_is_not_the_cause(pages, generation):
    """Airflow logs actions that it refuses, too: one that the task outlived has not ended it."""
    began = datetime.now(UTC) - timedelta(hours=1)
    generation_id, _ = generation(states=[["failed", 0]], error="UserCancelled")
    pages.add("outlived", generation_id, dag="outlived", state="failed", watch=MADE, at=began, ended=datetime.now(UTC))
    pages.act(
        "patch_task_instance", {"new_state": "failed"}, dag="outlived", at=began + timedelta(seconds=9), task="outlived"
    )
    shown = pages.get(pages.at("outlived", dag="outlived", then="/clip.json"), user="admin").json()
    assert "neither a timeout nor an action" in shown["error"]["message"]
    assert "says nothing of a cancel, it was cancelled at the service, or through a hook." in shown["error"]["message"]


def test_an_action_right_after_the_end_is_not_the_cause(pages, generation):
    """The task had failed by itself before a user marked it so: Airflow refuses that, and logs it nevertheless."""
    now = datetime.now(UTC)
    generation_id, _ = generation(states=[["processing", 0]])
    pages.add("refused", generation_id, dag="refused", state="failed", watch=MADE, at=now, ended=now)
    at = now + timedelta(seconds=20)
    pages.act("patch_task_instance", {"new_state": "failed"}, dag="refused", at=at, task="refused")
    shown = pages.get(pages.at("refused", dag="refused", then="/clip.json"), user="admin").json()
    assert shown["error"]["message"].startswith("The task refused failed; its log says why.")


def test_the_pages_of_a_run_that_was_deleted(pages):
    """Its clips are on no tab, and what links name of it is not there: the page is told so, of a batch as well."""
    pages.add("kept", None, dag="has-a-run")
    for then in ("/clip.json", "/batch/clips.json"):
        gone = pages.get(pages.at("film", dag="has-no-run", then=then), user="admin")
        assert (gone.status_code, gone.headers["Vidu-Address"]) == (404, "no-run")
        assert "the run was deleted, or the address is wrong." in gone.json()["detail"]
        assert "tab" not in gone.json()["detail"]
        there = pages.get(pages.at("film", dag="has-a-run", then=then), user="admin")
        assert (there.status_code, there.headers.get("Vidu-Address")) == (404, None)
        assert "on its tab “Vidu clips”." in there.json()["detail"]


def test_a_wait_before_the_create_is_no_part_of_what_others_took(pages, generation):
    """With a full account a mapped task waits for hours and generates for a minute: only that is the next clip's."""
    from airflow.models.taskinstance import TaskInstance

    now = datetime.now(UTC).replace(microsecond=0)
    generation_id, _ = generation(states=[["processing", 0]])
    more = {"dag": "waited", "watch": MADE, "at": now}
    pages.add("film", "other", index=1, ended=now + timedelta(seconds=60), **more)
    pages.add("film", generation_id, index=0, state="deferred", deferred=now, **more)
    with pages.engine.begin() as database:
        waited = TaskInstance.__table__.update().where(TaskInstance.dag_id == "waited")
        database.execute(waited.values(start_date=now - timedelta(hours=5)))
    shown = pages.get(pages.at("film", dag="waited", index=0, then="/clip.json"), user="admin").json()["outlook"]
    assert shown["usual"] == {"seconds": 60.0, "count": 1}
    assert shown["ends"] == {"at": (now + timedelta(seconds=60)).isoformat(), "by": "others"}


def test_a_wait_says_who_polls_and_until_when(pages, generation):
    """A deferred task shows since when its trigger waits, its interval, its first poll and its deadline."""
    now = datetime.now(UTC)
    generation_id, _ = generation(states=[["processing", 0]])
    watch = {**MADE, "deadline": int(now.timestamp()) + 3600, "poll_interval": 40.0}
    for index in range(1, 4):
        pages.add(
            "fast", f"other-{index}", dag="waits", index=index, watch=MADE, at=now, ended=now + timedelta(seconds=60)
        )
    pages.add(
        "fast", generation_id, dag="waits", index=0, state="deferred", watch=watch, at=now, deferred=now, triggerer=1
    )
    shown = pages.get(pages.at("fast", dag="waits", index=0, then="/clip.json"), user="admin").json()["outlook"]
    assert (shown["waits"], shown["interval"], shown["is_adaptive"]) == ("triggerer", 40.0, False)
    assert datetime.fromisoformat(shown["waiting_since"]) == now
    first = [datetime.fromisoformat(shown["next_poll"][name]) - now for name in ("since", "at")]
    assert first == [timedelta(seconds=20), timedelta(seconds=60)]
    assert datetime.fromisoformat(shown["deadline"]).timestamp() == watch["deadline"]
    assert shown["usual"] == {"seconds": 60.0, "count": 3}
    assert shown["ends"]["by"] == "others"


@pytest.mark.parametrize("is_known", [True, False])
def test_when_a_task_is_retried(pages, generation, is_known):
    """Airflow keeps the moment nowhere: it follows from the end of the try and the DAG's retry delay."""
    from airflow.sdk import DAG

    from airflow_provider_vidu.operators import ViduGenerateOperator

    name, ended = f"retried-{is_known}", datetime.now(UTC).replace(microsecond=0)
    with DAG(name, schedule=None) as dag:
        ViduGenerateOperator(task_id="film", prompt="p", retries=1, retry_delay=timedelta(minutes=20))
    if is_known:
        pages.add_dag(dag)
    generation_id, _ = generation(states=[["failed", 0]], error="InternalServiceFailure")
    pages.add("film", generation_id, dag=name, state="up_for_retry", watch=MADE, ended=ended)
    found = pages.get(pages.at("film", dag=name, then="/clip.json"), user="admin").json()["next_try"]
    assert found["at"] == ((ended + timedelta(minutes=20)).isoformat() if is_known else None)
    assert (found["task"], found["number"]) == ("film", 2)
    assert found["does"] == "It submits a new generation and pays for it."


@pytest.mark.parametrize("tried", [1, 2])
def test_when_a_task_without_a_generation_is_retried(pages, tried):
    """Such as one whose connection does not answer: it has nothing to show, and the operator asks when it goes on."""
    from airflow.sdk import DAG

    from airflow_provider_vidu.operators import ViduGenerateOperator

    name, ended = f"retried-without-{tried}", datetime.now(UTC).replace(microsecond=0)
    with DAG(name, schedule=None) as dag:
        ViduGenerateOperator(task_id="film", prompt="p", retries=2, retry_delay=timedelta(minutes=20))
    pages.add_dag(dag)
    pages.add("film", None, dag=name, state="up_for_retry", ended=ended, tried=tried)
    detail = pages.get(pages.at("film", dag=name, then="/clip.json"), user="admin").json()["detail"]
    assert f"next try at {ended + timedelta(minutes=20):%Y-%m-%d %H:%M:%S} UTC" in detail


def test_a_try_that_is_queued_is_announced(pages, generation):
    """Until it runs, the database has what the try before has left: its failure is not the present."""
    note = {**MADE, "try_number": 1, "max_tries": 1}
    generation_id, _ = generation(states=[["failed", 0]], error="InternalServiceFailure")
    for task, max_tries in (("again", 1), ("cleared", 2)):
        pages.add(task, generation_id, dag=f"queued-{task}", state="queued", watch=note, tried=2, max_tries=max_tries)
        shown = pages.get(pages.at(task, dag=f"queued-{task}", then="/clip.json"), user="admin").json()
        assert shown["qualifier"] == {"again": "task retries", "cleared": "task cleared"}[task]
        assert shown["error"]["title"] == "The generation of the earlier try failed"
        assert "Clearing" not in shown["error"]["cost"]
        assert (shown["next_try"]["number"], shown["next_try"]["was_cleared"]) == (2, task == "cleared")
        assert shown["next_try"]["does"].startswith("It submits a new generation and pays for it")


@pytest.mark.fault(
    "attacks",
    "a task is up for retry in a run whose conf has thirty megabytes, of a DAG that has as many",
    outcome="survived",
    seen="the conf is not read, and the moment of the next try is not known",
)
@pytest.mark.parametrize("what", ["conf", "DAG", "compressed DAG"])
def test_nothing_large_is_read_for_the_time_of_a_retry(pages, what):
    """Who triggers a run chooses its conf, and the author the size of the DAG: a look took a gigabyte."""
    if what == "conf" and not pages.keeps_any_text:
        pytest.skip("PostgreSQL keeps no conf that it cannot parse")
    from airflow.models.dagrun import DagRun
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.sdk import DAG
    from sqlalchemy import String, literal, null

    from airflow_provider_vidu.operators import ViduGenerateOperator
    from airflow_provider_vidu.ui.records.circumstances import MAX_DAG_CHARS

    name = f"retried-large-{what.replace(' ', '-')}"
    with DAG(name, schedule=None, doc_md=None if what == "conf" else "x" * MAX_DAG_CHARS) as dag:
        ViduGenerateOperator(task_id="film", prompt="p", retries=1)
    pages.add_dag(dag)
    pages.add("film", f"g-{name}", dag=name, state="up_for_retry", watch=MADE, ended=datetime.now(UTC))
    runs, dags = DagRun.__table__, SerializedDagModel.__table__
    with pages.engine.begin() as database:
        if what == "conf":
            database.execute(runs.update().where(runs.c.dag_id == name).values(conf=literal("no JSON", String())))
        if what == "compressed DAG":
            stored = database.execute(dags.select().where(dags.c.dag_id == name)).one().data
            packed = {"data": null(), "data_compressed": zlib.compress(json.dumps(stored).encode())}
            database.execute(dags.update().where(dags.c.dag_id == name).values(packed))
    found = pages.get(pages.at("film", dag=name, then="/clip.json"), user="admin").json()["next_try"]
    assert (found["at"] is not None) == (what == "conf")


def test_neighbours_cross_from_task_to_task(pages):
    """Previous and next follow the sheet: over all tasks, and never to a second task of the same clip."""
    now = datetime.now(UTC)
    for number, (task, index) in enumerate([("opening", -1), ("scene", 0), ("scene", 1), ("credits", -1)]):
        at = now + timedelta(seconds=10 * number)
        pages.add(task, f"n-{number}", dag="album", index=index, watch=MADE, at=at)
        pages.add(f"keep-{task}", f"n-{number}", dag="album", index=index, watch=KEPT, at=at + timedelta(seconds=5))
    seen, key = [], {"task_id": "opening", "map_index": -1}
    while key is not None:
        at = pages.at(key["task_id"], dag="album", index=key["map_index"], then="/clip.json")
        view = pages.get(at, user="admin").json()
        seen.append((key["task_id"], key["map_index"], *view["place"]))
        key = view["after"]
    assert seen == [("opening", -1, 1, 4), ("scene", 0, 2, 4), ("scene", 1, 3, 4), ("credits", -1, 4, 4)]
    second = {"task_id": "scene", "map_index": 1, "iteration": None, "region_id": None, "region_index": 1}
    assert view["before"] == second
    kept = pages.get(pages.at("keep-scene", dag="album", index=0, then="/clip.json"), user="admin").json()
    assert (kept["place"], kept["after"]) == ([2, 4], second)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/vidu/nothing", "./"),
        ("/vidu/dags/film", "../"),
        ("/vidu/dags/film/runs/{run}/", "../../../../"),
        ("/vidu/dags/film/runs/{run}/tasks/make/mapped/two", "../" * 7),
    ],
)
def test_an_unknown_address_explains_itself(pages, path, root):
    """A browser gets a page with this plugin's own script for the ways out; a program gets JSON."""
    path = path.format(run=quote(pages.run, safe=""))
    answer = pages.get(path, headers=HTML)
    assert answer.status_code == 404
    assert "Watch" in answer.text
    assert f'<meta name="vidu-root" content="{root}">' in answer.text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    if "mapped" not in path:
        assert pages.get(path, headers={"Accept": "application/json"}).json() == {"detail": "Not Found"}


def test_a_wait_for_a_slot_that_was_marked_as_success(pages):
    """It has submitted nothing, as its page says; it is no @task that ought to have published something."""
    note = {"conn_id": "c", "role": "generate", "waiting_since": datetime.now(UTC).timestamp()}
    pages.add("waits", None, dag="marked-slot", state="success", watch=note, resumes=True)
    answer = pages.get(pages.at("waits", dag="marked-slot", then="/clip.json"), user="admin")
    assert answer.status_code == 404
    assert "is marked as success in Airflow, before its end" in answer.json()["detail"]
    assert "has only waited for a free slot has submitted nothing" in answer.json()["detail"]


@pytest.mark.parametrize(("tried", "told"), [(1, "cost nothing"), (3, "no generation of its try 3")])
def test_a_task_that_has_ended_without_a_generation(pages, tried, told):
    """After a first try nothing was paid for; later ones may hide what an earlier one has submitted."""
    pages.add(f"ended-{tried}", None, state="failed", tried=tried)
    answer = pages.get(pages.at(f"ended-{tried}", then="/clip.json"))
    assert answer.status_code == 404
    assert told in answer.json()["detail"]
    assert ("cost nothing" in answer.json()["detail"]) is (tried == 1)


@pytest.mark.parametrize("state", ["success", "failed"])
def test_a_task_whose_xcoms_were_removed(pages, state):
    """``airflow db clean`` removes those of an old run: its generations were published, stored and paid for."""
    pages.add("emptied", None, dag=f"emptied-{state}", state=state, operator="ViduGenerateOperator")
    answer = pages.get(pages.at("emptied", dag=f"emptied-{state}", then="/clip.json"), user="admin")
    assert answer.status_code == 404
    assert "Airflow's records name no generation of it" in answer.json()["detail"]
    assert ("XComs were removed since" in answer.json()["detail"]) is (state == "success")
    assert "paid for" in answer.json()["detail"]


@pytest.mark.parametrize(("state", "tried"), [("upstream_failed", 0), ("failed", 1), ("success", 0), ("skipped", 1)])
def test_a_task_that_no_worker_has_begun(pages, state, tried):
    """A task before it failed, or a user marked it: it has paid nothing, and no log says anything."""
    pages.add(f"unrun-{state}", None, state=state, tried=tried, worker="")
    detail = pages.get(pages.at(f"unrun-{state}", then="/clip.json")).json()["detail"]
    assert detail.startswith(f"This task has ended ({state}) and was never begun by a worker")
    assert "It has submitted nothing" in detail
    assert "log says" not in detail


@pytest.mark.parametrize("tried", [1, 2])
def test_a_task_that_airflow_has_removed(pages, tried):
    """A clear does nothing for a task that is not in the DAG any more, and there may be no log of that try."""
    pages.add(f"gone-{tried}", None, state="removed", tried=tried)
    detail = pages.get(pages.at(f"gone-{tried}", then="/clip.json")).json()["detail"]
    assert detail.startswith("Airflow has removed this task from the run")
    assert "a clear does nothing" in detail
    assert "pays again" not in detail


def test_a_later_try_that_no_worker_has_begun(pages):
    """What earlier ones have done is not known."""
    pages.add("unrun-again", None, state="failed", tried=2, worker="")
    assert "no generation of its try 2" in pages.get(pages.at("unrun-again", then="/clip.json")).json()["detail"]


@pytest.mark.parametrize("state", ["running", "failed"])
def test_the_address_of_a_batch_as_if_it_were_a_clip(pages, state):
    """A batch has no generation of its own: the page does not wait for one, and says where its clips are."""
    pages.add(f"batch-{state}", None, state=state, batch={"batch": "b", "folder": "file:///b/", "manifest": "m"})
    answer = pages.get(pages.at(f"batch-{state}", then="/clip.json"))
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("This task is a batch.")


def test_a_refused_page_says_so_to_its_script(pages):
    """By the status the script offers links: without access, none to pages that would be refused as well."""
    refused = pages.get(pages.at("secret", dag="another"))
    assert refused.status_code == 403
    assert 'data-status="403"' in refused.text
    assert "requires the permission" in refused.text


@pytest.mark.parametrize("state", ["up_for_retry", "running", "queued"])
def test_a_later_try_without_a_generation(pages, state):
    """Such as one that the service did not answer: an earlier try may have one, and nothing says that it has none."""
    pages.add(f"later-{state}", None, dag="film", state=state, tried=2)
    detail = pages.get(pages.at(f"later-{state}", then="/clip.json")).json()["detail"]
    assert detail.startswith("The latest try of this task (try 2) has published no generation yet")
    assert "The logs of earlier tries name what these have submitted" in detail


def test_a_task_without_a_generation_says_when_it_has_one(pages):
    """The page of such a task explains what it waits for."""
    pages.add("nothing-yet", None, dag="film", state="running")
    answer = pages.get(pages.at("nothing-yet", then="/clip.json"))
    assert answer.status_code == 404
    assert "as soon as the task has the id of one" in answer.json()["detail"]
    pages.add("unbegun", None, dag="film", state="scheduled", tried=0, worker="")
    detail = pages.get(pages.at("unbegun", then="/clip.json")).json()["detail"]
    assert "Once a worker has begun the task, its log says how far it is, and whether it sent a request" in detail
