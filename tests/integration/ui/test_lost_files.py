"""Stored files that were removed or replaced since: page and sheet say what is true when they look."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.batches.jobs import opened
from airflow_provider_vidu.batches.manifest import open_of
from private_airflow import wait_for
from tests.integration.servers import s3_client
from tests.integration.ui.batch_folder import BatchFolder

pytestmark = pytest.mark.integration
MP4 = b"\0\0\0\x20ftypisom" + b"a clip" * 10
KEPT = {"conn_id": "vidu_default", "role": "download"}


def keep(pages, task, uri, dag="lost", size=None):
    """Add a download that says it has stored a file."""
    record = {"uri": uri, "size": size or len(MP4), "generation_id": task, "content_type": "video/mp4"}
    pages.add(task, task, dag=dag, result=record, watch=KEPT)


def page_of(pages, task, dag="lost"):
    """Return what the page of a clip shows."""
    return pages.get(pages.at(task, dag=dag, then="/clip.json"), user="admin").json()


def cards_of(pages, dag):
    """Return the cards of a run's sheet by their generations."""
    sheet = pages.get(pages.at("any", dag=dag).partition("/tasks")[0] + "/clips.json", user="admin").json()
    return {card["generation_id"]: card for card in sheet["clips"]}


def test_a_removed_and_a_replaced_file(pages):
    """The page says so, with what to do; so do the card and the player; nothing can be downloaded."""
    for task, content in (("there", MP4), ("replaced", MP4 + b"longer"), ("removed", None)):
        keep(pages, task, f"file://{pages.root}/lost-{task}.mp4")
        if content is not None:
            (pages.root / f"lost-{task}.mp4").write_bytes(content)
    cards = cards_of(pages, "lost")
    for task, word in (("there", None), ("replaced", "file replaced"), ("removed", "file not found")):
        for view in (page_of(pages, task), cards[task]):
            assert (view["state"], view["stage"], view["qualifier"]) == ("stored", "stored", word)
            assert view["can_download"] is (word is None)
            assert (view["error"] is None) is (word is None)
            assert view["size"] == (len(MP4) if word is None else None)
    error = page_of(pages, "removed")["error"]
    assert f"finds no file at file://{pages.root}/lost-removed.mp4" in error["message"]
    assert "Clear removed: it downloads the clip again" in error["advice"]
    answer = pages.get(pages.at("removed", dag="lost", then="/file"), user="admin")
    assert answer.status_code == 410
    assert "no longer exists" in answer.json()["detail"]
    assert "stored the file at" not in answer.json()["detail"]


def test_a_file_that_was_there_before_is_not_shown_as_the_clip(pages):
    """With ``overwrite="skip"`` and a fixed name: it may be yesterday's, and today's is lost within a day."""
    (pages.root / "lost-kept.mp4").write_bytes(MP4)
    record = {"uri": f"file://{pages.root}/lost-kept.mp4", "size": len(MP4), "generation_id": "kept"}
    record["content_type"] = "video/mp4"
    pages.add("kept", "kept", dag="lost-kept", result=record, watch={**KEPT, "existed": True})
    for view in (page_of(pages, "kept", dag="lost-kept"), cards_of(pages, "lost-kept")["kept"]):
        assert (view["state"], view["qualifier"], view["can_download"]) == ("stored", "earlier file kept", False)
        assert "the file may be of another clip" in view["error"]["message"]
        assert 'ViduDownloadOperator(generation_id="kept"' in view["error"]["advice"]
        assert view["size"] is None
    answer = pages.get(pages.at("kept", dag="lost-kept", then="/file"), user="admin")
    assert MP4 not in answer.content


def test_a_file_that_was_stored_anew_under_its_name(pages):
    """The sheet looks seldom, but what it saw before a later task stored its own file says nothing of that one."""
    path = pages.root / "lost-anew.mp4"
    path.write_bytes(MP4)
    keep(pages, "first", f"file://{path}", dag="lost-first")
    assert cards_of(pages, "lost-first")["first"]["qualifier"] is None
    path.write_bytes(MP4 + b"another")
    keep(pages, "second", f"file://{path}", dag="lost-second", size=len(MP4) + 7)
    card = cards_of(pages, "lost-second")["second"]
    assert (card["qualifier"], card["error"], card["can_download"]) == (None, None, True)
    assert cards_of(pages, "lost-first")["first"]["qualifier"] == "file replaced"


def test_a_file_that_is_removed_while_a_page_is_open(pages):
    """The sheet looks seldom, but what a player has found out is on it at its next refresh."""
    path = pages.root / "lost-later.mp4"
    path.write_bytes(MP4)
    keep(pages, "later", f"file://{path}", dag="lost-later")
    assert cards_of(pages, "lost-later")["later"]["qualifier"] is None
    path.unlink()
    assert pages.get(pages.at("later", dag="lost-later", then="/file"), user="admin").status_code == 410
    assert cards_of(pages, "lost-later")["later"]["qualifier"] == "file not found"
    assert page_of(pages, "later", dag="lost-later")["qualifier"] == "file not found"


def test_an_object_that_was_removed_from_its_bucket(pages, put, s3):
    """In a bucket it is the same; one that no preview root covers is not claimed to be anywhere."""
    put("shown/kept.mp4", MP4)
    put("shown/gone.mp4", MP4)
    s3_client(s3).delete_object(Bucket="clips", Key="shown/gone.mp4")
    for name, uri in (("kept", "shown/kept"), ("gone", "shown/gone"), ("hidden", "hidden/gone")):
        keep(pages, f"bucket-{name}", f"s3://clips/{uri}.mp4", dag="lost-bucket")
    # A page waits three seconds for a store; the first look at one imports its client.
    assert wait_for(lambda: cards_of(pages, "lost-bucket")["bucket-gone"]["qualifier"], 60, every=0.5)
    cards = cards_of(pages, "lost-bucket")
    assert {name: card["qualifier"] for name, card in cards.items()} == {
        "bucket-kept": None, "bucket-gone": "file not found", "bucket-hidden": None,
    }  # fmt: skip
    (file,) = page_of(pages, "bucket-hidden", dag="lost-bucket")["files"]
    assert (file["lost"], file["is_shown"]) == (None, False)


@pytest.mark.parametrize(("without", "title", "way"), [
    (False, "The task failed, the clip is fine", "stores its file"),
    (True, "The task failed, and there is no file", "looks for the file of this row again"),
])  # fmt: skip
def test_a_row_that_its_batch_has_not_collected(pages, generation, without, title, way):
    """Its page promises a file only where the service has returned one."""
    task = f"uncollected-{without}"
    (pages.root / task).mkdir()
    batch = BatchFolder(pages.root / task, 1, "films", conn_id="vidu_default")
    pages.add(task, None, dag="films", batch=batch.place, state="failed")
    generation_id, _ = generation(without_url=without)
    batch.journal.append(opened("clip-0", open_of(batch.rows[0], generation_id, batch.began, None, "r0", credits=20)))
    path = pages.at(task, dag="films") + "/batch"
    (card,) = pages.get(f"{path}/clips.json", user="admin").json()["clips"]
    error = pages.get(f"{path}/rows/{card['row']}/clip.json", user="admin").json()["error"]
    assert error["title"] == title
    assert way in error["advice"]
    assert "ViduDownloadOperator" not in error["advice"]


def test_a_row_whose_generation_was_cancelled_with_its_batch(pages, generation):
    """It says why there is no clip and what a clear does, although the batch itself has not collected it."""
    folder = pages.root / "cancelled-batch"
    folder.mkdir()
    batch = BatchFolder(folder, 1, "films", conn_id="vidu_default")
    pages.add("cancelled-batch", None, dag="films", batch=batch.place, state="failed")
    generation_id, _ = generation(states=[["failed", 0]], error="UserCancelled")
    batch.journal.append(opened("clip-0", open_of(batch.rows[0], generation_id, batch.began, None, "r0", credits=20)))
    path = pages.at("cancelled-batch", dag="films") + "/batch"
    sheet = pages.get(f"{path}/clips.json?stage=submitted", user="admin").json()
    assert sheet["counts"] == {"working": 0, "submitted": 1, "ready": 0, "stored": 0, "failed": 0}
    assert sheet["batch"]["open"] == 1
    (card,) = sheet["clips"]
    row = pages.get(f"{path}/rows/{card['row']}/clip.json", user="admin").json()
    for view in (card, row):
        assert (view["state"], view["qualifier"], view["error"]["title"]) == (
            "failed", "cancelled", "The generation was cancelled",
        )  # fmt: skip
        assert "The batch's task has ended" in view["error"]["message"]
        assert (
            "orders the rows without a file again, as far as its limits (max_credits, budget) allow"
            in view["error"]["cost"]
        )


def test_a_row_of_a_batch_whose_file_is_gone(pages):
    """Its card and its page say so, and that clearing the batch does not store it again."""
    folder = pages.root / "lost-batch"
    folder.mkdir()
    batch = BatchFolder(folder, 2, "films", conn_id="vidu_default")
    pages.add("lost-batch", None, dag="films", batch=batch.place)
    batch.submit(0, 1)
    for n in range(2):
        batch.store(n, MP4)
    (folder / "clip-1.mp4").unlink()
    path = pages.at("lost-batch", dag="films") + "/batch"
    there, gone = pages.get(f"{path}/clips.json", user="admin").json()["clips"]
    assert (there["qualifier"], there["error"], gone["qualifier"]) == (None, None, "file not found")
    row = pages.get(f"{path}/rows/{gone['row']}/clip.json", user="admin").json()
    assert 'ViduDownloadOperator(generation_id="batch-1"' in row["error"]["advice"]
    assert "clearing the task does not store it again" in row["error"]["cost"]
