"""Airflow 3.4: a task that waits for its next try shows what the try before has made, whose row is archived."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.ui.batch_folder import BatchFolder
from tests.versions import AIRFLOW

pytestmark = pytest.mark.skipif(AIRFLOW < (3, 4), reason="before Airflow 3.4, tries of a task share one row")

NOTE = {"conn_id": "none", "role": "generate", "try_number": 1, "max_tries": 2, "credits": 80}
FAILED = {"id": "g", "status": "failed", "error_code": "SystemThrottling"}
FIELDS = {"prompt": "a kite"}


def add_tries(pages: Any, dag: str, state: str | None, *, reason: str = "retry", **more: Any) -> None:
    """Add a first try that has published a generation, and the row of the next try, which has published nothing."""
    at = datetime.now(UTC) - timedelta(minutes=5)
    place = {name: more.pop(name) for name in ("index", "region") if name in more}
    first = {"at": at, "state": "failed", "archived": reason, "watch": NOTE, "fields": FIELDS, "max_tries": 2}
    pages.add("film", "g", dag=dag, result={**FAILED}, **first, **place)
    pages.add(
        "film", more.pop("published", None), dag=dag, state=state, tried=2, max_tries=2, worker="", **place, **more
    )


def sheet_of(pages: Any, dag: str, query: str = "") -> Any:
    """Return the sheet of the run."""
    path = pages.at("x", dag=dag).partition("/tasks")[0]
    return pages.get(f"{path}/clips.json{query}", user="admin").json()


@pytest.mark.parametrize(
    ("state", "number"),
    [("up_for_retry", 2), ("scheduled", 2), ("queued", 2), ("up_for_reschedule", 2), (None, 2)],
)
def test_the_failure_of_the_try_before(pages, state, number):
    """It names the reason, and what comes next; its task is not one that lies in another run."""
    dag = f"before-{state}"
    add_tries(pages, dag, state)
    shown = pages.clip("film", user="admin", dag=dag)
    assert (shown["generation_id"], shown["stage"], shown["prompt"]) == ("g", "working", "a kite")
    assert (shown["error"]["title"], shown["error"]["code"]) == (
        "The generation of the earlier try failed",
        "SystemThrottling",
    )
    assert "No task of this run submitted it" not in shown["error"]["cost"]
    assert (shown["next_try"]["number"], shown["next_try"]["was_cleared"]) == (number, False)
    (card,) = sheet_of(pages, dag)["clips"]
    assert (card["generation_id"], card["qualifier"], card["prompt"]) == ("g", "task retries", "a kite")


def test_it_is_counted_and_follows_the_clips(pages):
    """On the sheet's pages each is shown once, and in the stage in which it counts."""
    add_tries(pages, "counted", "up_for_retry")
    for index in range(2):
        pages.add("reel", f"r-{index}", dag="counted", index=index, watch=NOTE)
    sheet = sheet_of(pages, "counted")
    assert sheet["counts"] == {"working": 1, "submitted": 0, "ready": 2, "stored": 0, "failed": 0}
    assert [clip["generation_id"] for clip in sheet["clips"]] == ["r-0", "r-1", "g"]
    pages_of = [sheet_of(pages, "counted", f"?offset={offset}&limit=1")["clips"] for offset in range(4)]
    assert [[clip["generation_id"] for clip in clips] for clips in pages_of] == [["r-0"], ["r-1"], ["g"], []]
    assert [clip["generation_id"] for clip in sheet_of(pages, "counted", "?stage=working")["clips"]] == ["g"]
    assert sheet_of(pages, "counted", "?stage=failed")["clips"] == []


@pytest.mark.parametrize(
    ("state", "more"),
    [
        ("running", {}),  # a worker has begun it: it submits, or resumes the earlier one and publishes it again
        ("up_for_retry", {"reason": "superseded"}),
        ("success", {"published": "another", "watch": NOTE}),
        ("queued", {"published": "another", "watch": NOTE}),
        ("up_for_reschedule", {"published": "another", "watch": NOTE}),  # a sensor between two pokes
    ],
)
def test_what_is_over_is_not_shown(pages, state, more):
    """A try that has begun, or a clear, ends what is known of the one before."""
    dag = f"over-{state}-{len(more)}"
    add_tries(pages, dag, state, **more)
    assert "g" not in [clip["generation_id"] for clip in sheet_of(pages, dag)["clips"]]
    answer = pages.get(pages.at("film", dag=dag, then="/clip.json"), user="admin")
    assert answer.status_code == (200 if "published" in more else 404)
    assert answer.json().get("generation_id") == more.get("published")


def test_the_iteration_of_a_loop(pages):
    """Each iteration has tries of its own."""
    region = pages.add_region("iterated", "takes")
    add_tries(pages, "iterated", "up_for_retry", index=1, region=region)
    pages.add("film", None, dag="iterated", state="up_for_retry", region=region, index=2, tried=2)
    shown = pages.clip("film", user="admin", dag="iterated", region=region, index=1)
    assert (shown["generation_id"], shown["task"]["iteration"]) == ("g", 1)
    other = pages.get(pages.at("film", dag="iterated", region=region, index=2, then="/clip.json"), user="admin")
    assert other.status_code == 404


@pytest.mark.parametrize("state", ["up_for_retry", "queued"])
def test_a_batch_that_waits_for_its_next_try(pages, state):
    """It is still on the run's sheet, with its rows and with when Airflow retries it."""
    dag = f"batch-{state}"
    films = BatchFolder(pages.root / dag, 2, dag)
    films.submit(0)
    note = {**films.place, "try_number": 1, "max_tries": 2}
    pages.add("films", None, dag=dag, batch=note, state="failed", archived="retry", max_tries=2)
    pages.add("films", None, dag=dag, state=state, tried=2, max_tries=2, worker="")
    (batch,) = sheet_of(pages, dag)["batches"]
    assert (batch["task_id"], batch["task_state"], batch["open"]) == ("films", state, 1)
    assert batch["next_try"]["number"] == 2
    shown = pages.get(pages.at("films", dag=dag, then="/batch/clips.json"), user="admin").json()
    assert [clip["generation_id"] for clip in shown["clips"]] == ["batch-0"]


@pytest.mark.parametrize(
    ("state", "reason"), [("up_for_retry", "retry"), ("queued", "superseded"), ("failed", "retry")]
)
def test_the_address_of_a_clip_that_is_a_batch(pages, state, reason):
    """A clear of a batch does not pay for all again, as one of a single generation does."""
    dag = f"batch-{state}-{reason}-clip"
    note = {"batch": "b", "folder": "file:///none/", "manifest": "file:///none/b", "conn_id": "c", "rows": 1}
    pages.add("films", None, dag=dag, batch=note, state="failed", archived=reason, max_tries=2)
    pages.add("films", None, dag=dag, state=state, tried=2, max_tries=2, worker="")
    detail = pages.get(pages.at("films", dag=dag, then="/clip.json"), user="admin").json()["detail"]
    assert detail.startswith("This task is a batch.")
    assert "pays again" not in detail
