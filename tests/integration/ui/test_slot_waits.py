"""The pages of tasks that wait for a free slot, before a real API server: place, sheet, filter, and what comes next."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from airflow_provider_vidu.links import has_pages
from tests.integration.ui.conftest import FERNET_KEY

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

pytestmark = pytest.mark.integration
SINCE = datetime.now(UTC) - timedelta(minutes=3)


def arguments(conn_id: str, since: datetime, priority: int = 1) -> str:
    """Return the arguments of a trigger, as Airflow stored them before it encrypted all."""
    known = {"vidu_conn_id": conn_id, "since": since.timestamp(), "priority": priority}
    return json.dumps({**known, "deadline": since.timestamp() + 3600, "queued_at": since.timestamp()})


def waiting(pages, task, conn_id, *, dag, index=-1, seconds=0, priority=1, kwargs=None, **more):
    """Add a task that waits for a slot of a connection, in the triggerer."""
    since = SINCE + timedelta(seconds=seconds)
    note = {"conn_id": conn_id, "role": "generate", "waiting_since": since.timestamp()}
    known = {"state": "deferred", "deferred": since, "triggerer": 1, "at": since, **more}
    stored = kwargs or arguments(conn_id, since, priority)
    pages.add(task, None, dag=dag, index=index, watch=note, waits=stored, **known)


def encrypted(text: str) -> str:
    """Return what the API server's Airflow would have stored."""
    return Fernet(FERNET_KEY).encrypt(text.encode()).decode()


def sheet(pages, dag, query="", user="admin"):
    """Return what the sheet of a DAG's run gets as JSON."""
    path = pages.at("any", dag=dag).partition("/tasks")[0]
    answer = pages.get(f"{path}/clips.json{query}", user=user)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_place_in_the_queue(pages):
    """By priority, then by age, among the waiting tasks of the same connection in all DAGs, none of which is named."""
    waiting(pages, "first", "full", dag="film", seconds=5, fields={"prompt": "A kite", "model": "viduq3-turbo"})
    waiting(pages, "younger", "full", dag="queue-secret", seconds=9)
    waiting(pages, "urgent", "full", dag="queue-secret", index=0, seconds=20, priority=7)
    waiting(pages, "elsewhere", "other", dag="queue-secret", index=1)
    hidden = encrypted(arguments("full", SINCE))
    waiting(pages, "older", "full", dag="queue-secret", index=2, kwargs=hidden)
    waiting(pages, "unreadable", "full", dag="queue-secret", index=3, kwargs="gAAAA-of-another-key")
    long = json.dumps({**json.loads(arguments("full", SINCE)), "more": "x" * 8_000})  # two thousand are read at a look
    waiting(pages, "long", "full", dag="queue-secret", index=4, kwargs=long)
    # No class in them is made, so one that names any waits like the others; thousands of lists are not parsed.
    foreign = {"more": {"__classname__": "airflow.no_such_module.Class", "__version__": 1, "__data__": 1}}
    for at, more in enumerate((foreign, {"more": [[]] * 2_000}), 5):
        kwargs = json.dumps({**json.loads(arguments("full", SINCE)), **more})
        waiting(pages, "foreign", "full", dag="queue-secret", index=at, kwargs=kwargs)
    page = pages.clip("first")
    assert (page["state"], page["generation_id"], page["prompt"]) == ("slot", None, "A kite")
    assert (page["slot"]["place"], page["slot"]["length"], page["slot"]["is_queued"]) == (4, 5, True)
    deadline = datetime.fromisoformat(page["slot"]["deadline"])
    assert deadline == datetime.fromisoformat(page["slot"]["since"]) + timedelta(hours=1)
    assert (page["refresh"], page["timeline"], page["notice"], page["error"]) == (5, [], None, None)
    assert "secret" not in json.dumps(page)
    assert pages.get(pages.at("first")).status_code == 200
    assert pages.get(pages.at("first", then="/file")).status_code == 404
    assert pages.get(pages.at("first", then="/clip.json"), user="nobody").status_code == 403
    assert pages.get(pages.at("first", then="/clip.json"), user=None).status_code == 401
    assert pages.get(pages.at("first", then="/generations/2/clip.json")).status_code == 404


def test_the_turn_has_come(pages):
    """Between the trigger's event and the submit there is no place; one that has ended or was cleared has no page."""
    note = {"conn_id": "c", "role": "generate", "waiting_since": SINCE.timestamp()}
    pages.add("goes", None, dag="film", state="running", watch=note)
    page = pages.clip("goes")
    assert (page["state"], page["slot"]["is_queued"], page["slot"]["place"]) == ("slot", False, None)
    assert page["slot"]["in_worker"] is True
    pages.add("killed", None, dag="film", state="failed", watch=note)
    pages.add("cleared", None, dag="film", state="queued", watch=note)
    shown = {
        "killed": "has ended (failed)",
        "cleared": "has published no generation yet",
        "unknown": "no such task instance",
    }
    for task, says in shown.items():
        answer = pages.get(pages.at(task, then="/clip.json"))
        assert answer.status_code == 404
        assert says in answer.json()["detail"]


def test_the_sheet_counts_them_as_in_progress(pages):
    """They come after the clips, in each order and over the pages; only the filter "In progress" has them."""
    made = {"conn_id": "full", "role": "generate", "credits": 40}
    for index in range(3):
        known = {"index": index, "watch": made, "result": {"id": f"w-{index}"}}
        pages.add("scene", f"w-{index}", dag="slot-sheet", at=SINCE, **known)
    for index in range(3, 8):
        known = {"index": index, "label": f"scene {index}", "fields": {"prompt": f"Scene {index}"}}
        waiting(pages, "scene", "waits", dag="slot-sheet", seconds=index, **known)
    told = sheet(pages, "slot-sheet", "?order=newest")
    assert (told["total"], told["counts"]["working"], told["counts"]["ready"]) == (8, 5, 3)
    assert [card["map_index"] for card in told["clips"]][3:] == [3, 4, 5, 6, 7]
    assert [card["state"] for card in told["clips"]][3:] == ["slot"] * 5
    assert (told["clips"][3]["label"], told["clips"][3]["prompt"]) == ("scene 3", "Scene 3")
    assert told["clips"][3]["began_at"] is None
    assert told["credits"] == {"sum": 120, "clips": 3}
    beside = pages.get(pages.at("scene", dag="slot-sheet", index=5, then="/clip.json"), user="admin").json()
    assert [beside[side]["map_index"] for side in ("before", "after")] == [4, 6]
    second = sheet(pages, "slot-sheet", "?limit=4&offset=4")
    assert [card["map_index"] for card in second["clips"]] == [4, 5, 6, 7]
    alone = sheet(pages, "slot-sheet", "?stage=working&limit=2&offset=1")
    assert (alone["total"], [card["map_index"] for card in alone["clips"]]) == (5, [4, 5])
    assert sheet(pages, "slot-sheet", "?stage=ready")["total"] == 3


def test_a_note_that_a_back_end_keeps(pages):
    """A task whose note is in the XCom back end waits on page and sheet, too."""
    folder = pages.home / "xcom" / "film-kept" / pages.run / "kept"
    folder.mkdir(parents=True)
    note = {"conn_id": "kept", "role": "generate", "waiting_since": SINCE.timestamp()}
    (folder / "note.json").write_text(json.dumps(note))
    pages.add("kept", None, dag="film-kept", state="deferred", watch=f"file://{folder / 'note.json'}", deferred=SINCE)
    told = sheet(pages, "film-kept")
    assert (told["counts"]["working"], [card["state"] for card in told["clips"]]) == (1, ["slot"])
    page = pages.get(pages.at("kept", dag="film-kept", then="/clip.json"), user="admin").json()
    assert page["slot"]["since"] == SINCE.isoformat()
