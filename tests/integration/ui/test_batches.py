"""A batch before a real API server: its sheet, the pages of its rows, and whom they are shown to."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.batches.jobs import opened, row_name
from airflow_provider_vidu.batches.manifest import open_of, repeatable
from airflow_provider_vidu.exceptions import ViduGenerationFailedError, ViduTimeoutError
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.ui.batches.rows import NOT_AMONG
from processes import wait_for
from tests.integration.ui.batch_folder import BatchFolder

pytestmark = pytest.mark.integration
MP4 = b"\0\0\0\x20ftypisom" + b"a clip" * 10
OPEN_DAG = "film"
"""The DAG that vera may see."""


def batch_of(pages, name, *, count=6, dag="films", state="running", task=None, **known):
    """Add a batch's task and its folder; return both the folder and the path of the batch's page."""
    folder = pages.root / name
    folder.mkdir()
    batch = BatchFolder(folder, count, dag, conn_id="vidu_default")
    pages.add(name, None, dag=dag, state=state, batch={**batch.place, **known}, **(task or {}))
    return batch, pages.at(name, dag=dag) + "/batch"


def told(pages, path, user="admin"):
    """Return a JSON answer."""
    answer = pages.get(path, user=user)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_rows_are_shown_as_clips(pages):
    """Stored, failed and open rows have cards with key, prompt and price; those not begun are counted."""
    batch, page = batch_of(pages, "cards")
    batch.submit(0, 1, 2)
    batch.store(0, MP4)
    batch.fail(1)
    sheet = told(pages, f"{page}/clips.json")
    assert sheet["counts"] == {"working": 1, "submitted": 0, "ready": 0, "stored": 1, "failed": 1}
    assert {name: sheet["batch"][name] for name in ("rows", "stored", "failed", "open", "left", "credits")} == {
        "rows": 6, "stored": 1, "failed": 1, "open": 1, "left": 3, "credits": 60,
    }  # fmt: skip
    stored, failed, working = sheet["clips"]
    assert (stored["key"], stored["state"], stored["can_play"], stored["size"]) == ("clip-0", "stored", True, len(MP4))
    assert stored["prompt"] == "A red kite above the sea, take 0"
    assert (failed["state"], failed["error"]["code"]) == ("failed", "CreationPolicyViolation")
    assert "refused" in failed["error"]["message"]
    assert working["stage"] == "working"
    assert sheet["credits"] == {"sum": 60, "clips": 3}


@pytest.mark.parametrize(
    ("age", "triggerer", "is_told"), [(90, None, True), (20, None, False), (90, 1, False), (90, 90, True)]
)
def test_a_batch_that_no_triggerer_has(pages, age, triggerer, is_told):
    """After a minute its sheet says that it will not go on by itself; a dead triggerer keeps its waits."""
    batch = BatchFolder(pages.root, 3, "films", name=f"unattended-{age}-{triggerer}", conn_id="none")
    since = datetime.now(UTC) - timedelta(seconds=age)
    pages.add(batch.name, None, dag="films", state="deferred", batch=batch.place, at=since, deferred=since,
              triggerer=triggerer, heard=since + timedelta(seconds=5) if triggerer == 90 else None)  # fmt: skip
    batch.submit(0)
    page = f"{pages.at(batch.name, dag='films')}/batch"
    sheet = told(pages, f"{page}/clips.json")
    assert sheet["batch"]["is_unattended"] is is_told
    (card,) = sheet["clips"]
    row = told(pages, f"{page}/rows/{card['row']}/clip.json")
    assert (card["is_unattended"], row["is_unattended"]) == (False, is_told)  # the sheet has it above
    assert (row["outlook"]["waits"] == "unassigned") is is_told


@pytest.mark.parametrize("state", ["deferred", "running", "failed"])
@pytest.mark.parametrize("waits_for", ["prices", "slot", "others", ["slot"], None])
def test_what_the_next_rows_of_a_batch_wait_for(pages, state, waits_for):
    """The page said only how many rows are to order; the log said why none was. A leg that runs decides again."""
    name = f"waits-{state}-{min(waits_for or 'none')}-{type(waits_for).__name__}"
    _, page = batch_of(pages, name, state=state, waits_for=waits_for)
    is_told = state == "deferred" and waits_for in ("prices", "slot")
    assert told(pages, f"{page}/clips.json")["batch"]["waits_for"] == (waits_for if is_told else None)


def test_the_page_of_a_row(pages):
    """It has the file, the times and the ways to the rows beside it, and sends the file in ranges."""
    batch, page = batch_of(pages, "rows")
    batch.submit(0, 1, 2)
    for n in range(3):
        batch.store(n, MP4)
    rows = [clip["row"] for clip in told(pages, f"{page}/clips.json")["clips"]]
    view = told(pages, f"{page}/rows/{rows[1]}/clip.json")
    assert (view["before"]["row"], view["after"]["row"], view["place"]) == (rows[0], rows[2], [2, 3])
    assert view["files"][0]["uri"].endswith("/clip-1.mp4")
    assert [step["name"] for step in view["timeline"] if step["reached"]] == ["queued", "done", "stored"]
    assert view["pieces"][0]["from"] == "storage"
    sent = pages.get(f"{page}/rows/{rows[1]}/file", user="admin", headers={"Range": "bytes=4-7"})
    assert (sent.status_code, sent.content) == (206, b"ftyp")
    assert pages.get(f"{page}/rows/{rows[1]}", user="admin").status_code == 200
    assert pages.get(f"{page}/rows/0123456789abcdef/clip.json", user="admin").status_code == 404


@pytest.mark.parametrize("state", ["failed", "deferred"])
@pytest.mark.parametrize("is_lost", [True, False])
def test_a_row_whose_create_has_an_unknown_outcome(pages, state, is_lost):
    """The page blamed an XCom back end, and promised that a clear stores the file and does not order the row again."""
    batch, page = batch_of(pages, f"unknown-{state}-{is_lost}", state=state)
    batch.submit(0)
    batch.send(1, is_lost=is_lost)
    sheet = told(pages, f"{page}/clips.json")
    is_over = state == "failed"
    assert (sheet["batch"]["open"], sheet["batch"]["unknown"]) == (2, 1 if is_over else 0)
    card = sheet["clips"][1]
    row = told(pages, f"{page}/rows/{card['row']}/clip.json")
    for shown in (card, row):
        assert "XCom" not in json.dumps([shown["notice"], shown["error"]])
        assert (shown["error"] is not None) is is_over
    assert (row["timeline"], row["outlook"]) == ([], None)
    if is_over:
        assert row["state"] == "unknown"
        assert "may be paid for" in row["error"]["message"]
        assert row["error"]["advice"].startswith("Clear the task: it looks for the generation in the account's list")
        assert "orders this row again, and pays for it" in row["error"]["cost"]
    else:
        assert ((row["notice"] or {}).get("advice", "").startswith("The batch looks for the generation")) is is_lost


def test_a_row_whose_create_was_refused(pages):
    """It was never submitted: nothing is to come, and no step of a generation is claimed."""
    batch, page = batch_of(pages, "refused-row")
    batch.fail(0)
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    row = told(pages, f"{page}/rows/{card['row']}/clip.json")
    assert (row["state"], row["done"], row["outlook"], row["timeline"]) == ("failed", True, None, [])


@pytest.mark.parametrize(
    ("status", "badge", "title"),
    [
        ("processing", ("running", "task failed"), "The task failed, the generation continues"),
        ("success", ("succeeded", "task failed"), "The task failed, the clip is fine"),
    ],
)
def test_an_open_row_of_a_batch_that_failed(pages, generation, status, badge, title):
    """Its page says that a clear resumes it and orders nothing for it; the sheet says once that the task failed."""
    batch, page = batch_of(pages, f"failed-{status}", state="failed")
    generation_id, _ = generation(states=[[status, 0]])
    batch.journal.append(opened("clip-0", open_of(batch.rows[0], generation_id, batch.began, None, "r0", credits=20)))
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    row = told(pages, f"{page}/rows/{card['row']}/clip.json")
    assert (card["state"], card["qualifier"], card["error"]) == (*badge, None)
    assert (row["state"], row["qualifier"], row["error"]["title"]) == (*badge, title)
    assert row["error"]["advice"] == "Clear the task: it resumes this row, and stores its file."
    assert row["error"]["cost"].startswith("That does not order this row again, unless")


@pytest.mark.parametrize("state", ["deferred", "failed", "success"])
@pytest.mark.parametrize("status", ["processing", "success", "failed"])
def test_a_row_that_is_no_longer_among_the_rows(pages, generation, state, status):
    """No clear resumes or orders it again, and rows that are yet to be ordered are counted beside it."""
    known = {"rows": 2, "removed": 1, "unwanted": [row_name("clip-0"), 7]}
    batch, page = batch_of(pages, f"removed-{status}-{state}", state=state, **known)
    made, _ = generation(states=[[status, 0]])
    batch.journal.append(opened("clip-0", open_of(batch.rows[0], made, batch.began, None, "r0", credits=20)))
    sheet = told(pages, f"{page}/clips.json")
    assert {name: sheet["batch"][name] for name in ("rows", "open", "unwanted", "left")} == {
        "rows": 3, "open": 1, "unwanted": 1, "left": 2,
    }  # fmt: skip
    row = told(pages, f"{page}/rows/{sheet['clips'][0]['row']}/clip.json")
    assert NOT_AMONG in (row["error"]["message"], row["error"]["cost"])
    fetch = f'run ViduDownloadOperator(generation_id="{made}", '
    assert (fetch in row["error"]["advice"]) == (status != "failed")
    assert "Clear the task" not in row["error"]["advice"]
    assert not (row["outlook"] or {}).get("waits")


def test_an_open_row_of_a_batch_that_was_marked_as_success(pages, generation):
    """Nothing collects it any more: its page and the batch's panel say so; what is stored stays stored."""
    batch, page = batch_of(pages, "marked-batch", state="success", task={"resumes": True})
    generation_id, _ = generation(states=[["processing", 0]])
    batch.journal.append(opened("clip-0", open_of(batch.rows[0], generation_id, batch.began, None, "r0", credits=20)))
    batch.submit(1)
    batch.store(1, MP4)
    sheet = told(pages, f"{page}/clips.json")
    assert sheet["batch"]["was_marked"] is True
    seen = [(card["stage"], card["state"]) for card in sheet["clips"]]
    assert seen == [("submitted", "running"), ("stored", "stored")]
    row = told(pages, f"{page}/rows/{sheet['clips'][0]['row']}/clip.json")
    assert row["qualifier"] == "task marked"
    assert row["error"]["cost"].startswith("That does not order this row again, unless")
    assert row["error"]["advice"] == "Clear the task: it resumes this row, and stores its file."


@pytest.mark.parametrize(
    ("max_tries", "does"),
    [(1, "failed for a temporary reason, and those that are still to order, and pays"), (2, 'has on_clear="new"')],
)
def test_a_batch_whose_next_try_is_queued(pages, max_tries, does):
    """After the delay of a retry, or a clear: what is shown is of the try before, whose timeout is over with it."""
    begun = {"try_number": 1, "max_tries": 1}
    batch, page = batch_of(
        pages, f"queued-{max_tries}", state="queued", task={"tried": 2, "max_tries": max_tries}, **begun
    )
    batch.submit(0)
    shown = told(pages, f"{page}/clips.json")["batch"]
    assert (shown["next_try"]["number"], shown["next_try"]["was_cleared"]) == (2, max_tries == 2)
    assert does in shown["next_try"]["does"]
    assert shown["deadline"] is None


def test_an_open_row_of_which_the_service_says_nothing(pages, monkeypatch):
    """A clear resumes it all the same: it is not said to order the row, and pay for it, again."""
    batch, page = batch_of(pages, "failed-silent", state="failed")
    batch.submit(0)
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    error = told(pages, f"{page}/rows/{card['row']}/clip.json")["error"]
    assert error["advice"] == "Clear the task: it resumes this row, and stores its file."
    assert error["cost"].startswith("That does not order this row again, unless")


def test_an_open_row_is_not_said_to_have_failed_with_its_batch(pages):
    """Where the API server has no connection, the badges said "Failed" of generations that may go on."""
    batch, page = batch_of(pages, "failed-unseen", state="failed")
    batch.submit(0)
    sheet = told(pages, f"{page}/clips.json")
    (card,) = sheet["clips"]
    assert (card["stage"], card["state"], sheet["counts"]["failed"]) == ("submitted", "unknown", 0)
    assert card["notice"]["message"]
    assert told(pages, f"{page}/rows/{card['row']}/clip.json")["state"] == "unknown"


@pytest.mark.parametrize("is_given_up", [False, True])
def test_a_row_of_which_the_service_says_nothing_may_have_been_cancelled(pages, is_given_up):
    """The end of its batch may have cancelled it, and a clear then orders it again: its page said that none does."""
    batch, page = batch_of(pages, f"cancelled-silent-{is_given_up}", state="failed")
    batch.submit(0)
    if is_given_up:
        batch.fail(0, ViduTimeoutError("The timeout of 40 s expired."), is_paid=True)
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    error = told(pages, f"{page}/rows/{card['row']}/clip.json")["error"]
    assert "unless the generation was cancelled" in error["cost"]
    assert "a clear orders a cancelled row again, and pays for it" in error["cost"]


@pytest.mark.parametrize(
    ("status", "told_cost"),
    [("processing", "only stores its file"), ("success", "only stores its file"), ("failed", "the next clear")],
)
def test_a_paid_row_that_was_given_up(pages, generation, status, told_cost):
    """The batch's panel counts it. A generation that has ended since is not said to go on."""
    batch, page = batch_of(pages, f"given-up-{status}", state="failed")
    generation_id, _ = generation(states=[[status, 0]], error="CreationPolicyViolation" if status == "failed" else None)
    batch.journal.append(opened("clip-0", open_of(batch.rows[0], generation_id, batch.began, None, "r0", credits=20)))
    batch.fail(0, ViduTimeoutError("The timeout of 40 s expired."), is_paid=True)
    sheet = told(pages, f"{page}/clips.json")
    assert (sheet["batch"]["failed"], sheet["batch"]["paid"]) == (1, 1)
    row = told(pages, f"{page}/rows/{sheet['clips'][0]['row']}/clip.json")
    for error in (row["error"], sheet["clips"][0]["error"]):
        assert told_cost in error["cost"]
        assert error["title"] == (
            "The generation failed" if status == "failed" else "The file of this row is not stored"
        )
        is_resumed = error["advice"] == "Clear the task: it resumes this row, and stores its file."
        assert is_resumed is (status == "success")
        # What has no generation, such as a row that the timeout came before, is ordered by the same clear.
        assert error["cost"].endswith("The clear may also order other rows of the batch, and pays for those.")


@pytest.mark.parametrize("is_open", [True, False])
def test_a_paid_row_that_the_service_does_not_find(pages, is_open):
    """No clear stores its file: a second one pays again. It was said that a clear only stores the file."""
    batch, page = batch_of(pages, f"not-found-{is_open}", state="failed")
    job = open_of(batch.rows[0], "916263908724736000", batch.began, None, "r0", credits=20)
    batch.journal.append(opened("clip-0", job))
    if not is_open:
        batch.fail(0, ViduTimeoutError("The timeout of 40 s expired."), is_paid=True)
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    error = told(pages, f"{page}/rows/{card['row']}/clip.json")["error"]
    assert error["cost"].startswith("The service does not find this generation, so its file cannot be stored")
    assert error["advice"] == ("" if is_open else "The manifest holds the reasons of all rows.")


@pytest.mark.parametrize("state", ["failed", "up_for_retry"])
def test_a_row_that_failed_for_a_temporary_reason(pages, state):
    """That a retry submits it again is said where one is to come; its line in the manifest says so forever."""
    batch, page = batch_of(pages, f"temporary-{state}", state=state)
    batch.submit(0)
    failed = ViduGenerationFailedError("The generation ended as 'failed': SystemThrottling")
    batch.fail(0, repeatable(failed, Generation(id="g", status=GenerationStatus.FAILED, is_transient=True)))
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    row = told(pages, f"{page}/rows/{card['row']}/clip.json")
    for error in (card["error"], row["error"]):
        assert (error["message"], error["advice"]) == (
            "The generation ended as 'failed': SystemThrottling.",
            "This failure is often temporary. The manifest holds the reasons of all rows.",
        )
    assert bool(row["next_try"]) is (state == "up_for_retry")


def test_a_paid_row_that_was_cancelled(pages, generation):
    """Its own error says why; the next clear orders it again."""
    batch, page = batch_of(pages, "cancelled-paid", state="failed")
    generation_id, _ = generation(states=[["failed", 0]], error="UserCancelled")
    batch.journal.append(opened("clip-0", open_of(batch.rows[0], generation_id, batch.began, None, "r0", credits=20)))
    batch.fail(0, is_paid=True)
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    error = told(pages, f"{page}/rows/{card['row']}/clip.json")["error"]
    assert "The prompt was refused" in error["message"]  # as the line has it
    assert error["cost"].startswith("Clearing the task orders the rows without a file again, as far as its limits")


@pytest.mark.parametrize("code", ["InternalServiceFailure", "CreationPolicyViolation"])
def test_an_open_row_whose_generation_failed_after_the_task(pages, generation, code):
    """One clear notes the failure and submits nothing; the next one orders the row again."""
    batch, page = batch_of(pages, f"failed-late-{code}", state="failed")
    generation_id, _ = generation(states=[["failed", 0]], error=code)
    batch.journal.append(opened("clip-0", open_of(batch.rows[0], generation_id, batch.began, None, "r0", credits=20)))
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    error = told(pages, f"{page}/rows/{card['row']}/clip.json")["error"]
    assert error["cost"].startswith("The batch does not know of that failure: the next clear of the task notes it")
    assert "submits a new generation" not in error["advice"]


@pytest.mark.parametrize(
    ("state", "told_cost"), [("running", "Do not clear"), ("up_for_retry", ""), ("failed", "Clearing")]
)
def test_no_clear_of_a_batch_that_goes_on(pages, state, told_cost):
    """It would cancel the open generations of a running batch; one that begins another try by itself needs none."""
    batch, page = batch_of(pages, f"no-clear-{state}", state=state)
    batch.submit(0, 1)
    batch.fail(0)
    batch.fail(1, is_paid=True)
    for card in told(pages, f"{page}/clips.json")["clips"]:
        row = told(pages, f"{page}/rows/{card['row']}/clip.json")
        for cost in (card["error"]["cost"], row["error"]["cost"]):
            assert cost.startswith((told_cost, "The generation itself is paid for: clearing"))
            assert bool(cost) is bool(told_cost)
            assert ("Do not clear" in cost) is (state == "running")


@pytest.mark.parametrize("code", ["InternalServiceFailure", "CreationPolicyViolation", "UserCancelled"])
def test_an_open_row_whose_generation_failed_while_the_batch_runs(pages, generation, code):
    """Card and page say why; the batch notes it by itself, so no clear is advised."""
    batch, page = batch_of(pages, f"failed-early-{code}")
    generation_id, _ = generation(states=[["failed", 0]], error=code)
    batch.journal.append(opened("clip-0", open_of(batch.rows[0], generation_id, batch.began, None, "r0", credits=20)))
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    row = told(pages, f"{page}/rows/{card['row']}/clip.json")
    assert (card["stage"], card["state"]) == ("working", "failed")
    for error in (card["error"], row["error"]):
        assert (error["code"], error["cost"]) == (code, "")
        assert error["advice"].startswith("The batch has not noted this yet")


def test_when_a_row_failed_is_not_claimed_to_be_known(pages):
    """The batch notes when it has collected a failure, which may be hours after its moment."""
    batch, page = batch_of(pages, "failed-when", state="failed")
    batch.submit(0)
    batch.fail(0)
    (card,) = told(pages, f"{page}/clips.json")["clips"]
    steps = told(pages, f"{page}/rows/{card['row']}/clip.json")["timeline"]
    (ended,) = [step for step in steps if step["name"] == "failed"]
    assert ended["is_exact"] is False


def test_what_happens_meanwhile_appears(pages):
    """The journal is followed: an event, the next leg and the whole state that replaces its objects."""
    batch, page = batch_of(pages, "meanwhile", count=80)
    batch.submit(*range(40))
    assert told(pages, f"{page}/clips.json")["batch"]["open"] == 40
    for n in range(40):
        batch.store(n, MP4)
    assert told(pages, f"{page}/clips.json")["batch"]["stored"] == 40
    batch.journal.end()  # with so many events it writes the whole state, and removes the objects
    assert not list((batch.folder / ".vidu" / batch.name).glob("leg-000001/*"))
    batch.journal.open()
    batch.submit(40)
    sheet = told(pages, f"{page}/clips.json?stage=working")
    assert (sheet["batch"]["stored"], sheet["batch"]["open"], len(sheet["clips"])) == (40, 1, 1)
    batch.send(41)
    assert told(pages, f"{page}/clips.json")["counts"]["working"] == 2


def test_the_sheet_of_the_run_names_the_batch(pages):
    """It says how far the batch is and where; it counts the batch's rows as no clips of tasks."""
    batch, page = batch_of(pages, "named", dag="one-batch")
    batch.submit(0)
    batch.reuse(1, batch.store(0, MP4))
    sheet = told(pages, page.partition("/tasks")[0] + "/clips.json")
    (found,) = sheet["batches"]
    assert (found["task_id"], found["stored"], found["left"], found["problem"]) == ("named", 2, 4, None)
    assert sheet["total"] == 0
    rows = told(pages, f"{page}/clips.json")
    reused = rows["clips"][1]
    assert (reused["key"], reused["reused_from"], reused["can_play"]) == ("clip-1", "batch-0", True)
    # The other order has paid: neither the card nor the sum counts its price once more.
    assert (reused["credits"], rows["credits"]) == (None, {"sum": 20, "clips": 1})
    row = told(pages, f"{page}/rows/{reused['row']}/clip.json")
    assert (row["credits"], row["reused_from"]) == (None, "batch-0")


def test_a_row_that_waits_for_an_equal_order(pages):
    """Its price is the other order's: the service would name it, and the card does not."""
    batch, page = batch_of(pages, "shared-row")
    job = open_of(batch.rows[0], "shared-1", batch.began, None, "r0", credits=0, is_shared=True)
    batch.journal.append(opened("clip-0", job))
    rows = told(pages, f"{page}/clips.json")
    (card,) = rows["clips"]
    assert (card["stage"], card["reused_from"], card["credits"]) == ("working", "shared-1", None)
    assert rows["credits"] == {"sum": 0, "clips": 0}


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ({"dry_run": True, "batch": "films-1a2b", "rows": 2}, "This was a dry run: nothing was submitted"),
        ({"dry_run": True, "endpoint": "/v2/text2video"}, "This task has begun no batch"),
        ({"batch": "films-1a2b"}, "This task has begun no batch"),
        ("dry_run", "This task has begun no batch"),
        (None, "This task has begun no batch"),
    ],
)
def test_the_page_of_a_dry_run(pages, result, says):
    """It says that nothing was submitted, not that a batch may yet begin; other tasks without a batch are none."""
    task = f"dry-{len(str(result))}"
    pages.add(task, None, dag="films", result=result, operator="ViduBatchOperator")
    answer = pages.get(pages.at(task, dag="films") + "/batch/clips.json", user="admin")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith(says)


def test_the_page_of_a_batch_whose_run_was_deleted(pages):
    """No page is to come: a page that was left open does not say so, nor one at a wrong map index."""
    pages.add("kept", None, dag="films", operator="ViduBatchOperator")
    for path in (
        pages.at("gone", dag="films"),
        pages.at("kept", dag="films", index=3),
        pages.at("kept", dag="no-films"),
    ):
        answer = pages.get(path + "/batch/clips.json", user="admin")
        assert answer.status_code == 404
        assert answer.json()["detail"].startswith("This run has no such task instance, or no longer"), path


def test_only_those_see_a_batch_who_may_see_its_dag(pages):
    """A page needs the permission for its DAG, and an XCom that names another DAG's folder shows nothing of it."""
    batch, page = batch_of(pages, "secret", dag="secret-films")
    batch.submit(0)
    batch.store(0, MP4)
    row = told(pages, f"{page}/clips.json")["clips"][0]["row"]
    for then in ("", "/clips.json", f"/rows/{row}", f"/rows/{row}/clip.json", f"/rows/{row}/file"):
        assert pages.get(page + then, user="vera").status_code == 403, then
        assert pages.get(page + then, user=None).status_code in (307, 401), then
    pages.add("thief", None, dag=OPEN_DAG, batch=batch.place)
    stolen = pages.at("thief", dag=OPEN_DAG) + "/batch"
    sheet = told(pages, f"{stolen}/clips.json", user="vera")
    assert sheet["clips"] == []
    assert "does not belong to this DAG" in sheet["batch"]["problem"]
    assert pages.get(f"{stolen}/rows/{row}/file", user="vera").status_code == 404


def test_a_folder_outside_of_the_roots_is_not_read(pages, tmp_path):
    """Nothing outside of [vidu] preview_roots is opened, by no spelling; the page says why it shows no rows."""
    outside = BatchFolder(tmp_path, 1, "films")
    outside.submit(0)
    (pages.root / "link").symlink_to(tmp_path)
    for n, folder in enumerate(
        (f"file://{tmp_path}/", f"file://{pages.root}/../outside/", f"file://{pages.root}/link/")
    ):
        pages.add(f"outside-{n}", None, dag="films", batch={**outside.place, "folder": folder})
        sheet = told(pages, pages.at(f"outside-{n}", dag="films") + "/batch/clips.json")
        assert sheet["clips"] == []
        assert "preview_root" in sheet["batch"]["problem"] or "preview roots" in sheet["batch"]["problem"]
        assert "the manifest has them" not in sheet["batch"]["problem"]  # the batch may not have written it yet


@pytest.mark.parametrize("name", ["../films", "a/b", "", None, 7])
def test_a_batch_of_an_odd_name_is_none(pages, name):
    """The name is a part of a path, and an XCom may hold anything."""
    task = f"odd-{name}".replace("/", "-")
    pages.add(task, None, dag="films", batch={"batch": name, "folder": f"file://{pages.root}/x/", "manifest": "m"})
    if name == 7:  # digits are a name
        assert told(pages, pages.at(task, dag="films") + "/batch/clips.json")["clips"] == []
    else:
        assert pages.get(pages.at(task, dag="films") + "/batch/clips.json", user="admin").status_code == 404


def _spoilt(batch, kind):
    folder = batch.folder / ".vidu" / batch.name
    if kind == "events":
        (folder / "leg-000001" / "000003.jsonl").write_text('{"e": "line", "line": [1]}\n')
    elif kind == "no json":
        (folder / "leg-000001" / "000003.jsonl").write_bytes(b"\xff{")
    elif kind == "bomb":
        (folder / "state.json.gz").write_bytes(gzip.compress(b" " * 40_000_000))
    else:
        odd = {"key": 5, "status": "stored", "uri": ["x"], "size": "big", "credits": "∞", "generation_id": {"a": 1}}
        events = [{"e": "line", "line": odd}, {"e": "id", "key": "k", "id": [], "at": "never", "index": "x"}]
        text = "".join(json.dumps(event) + "\n" for event in events)
        (folder / "leg-000001" / "000003.jsonl").write_text(text)


@pytest.mark.parametrize("kind", ["events", "no json", "bomb", "odd values"])
def test_a_damaged_journal_breaks_no_page(pages, kind):
    """What is not a journal, is too large or holds odd values is a sentence on the page, or a row without facts."""
    batch, page = batch_of(pages, f"damaged-{kind.replace(' ', '-')}", dag="damaged")
    _spoilt(batch, kind)
    sheet = told(pages, f"{page}/clips.json")
    assert sheet["batch"]["problem"] or kind == "odd values"
    for clip in sheet["clips"]:
        assert not clip["can_play"]
        told(pages, f"{page}/rows/{clip['row']}/clip.json")
    run = told(pages, page.partition("/tasks")[0] + "/clips.json")
    assert run["batches"]


def test_a_file_that_lies_elsewhere_is_not_played(pages):
    """A line's file must be in the batch's folder, even beneath another preview root."""
    batch, page = batch_of(pages, "elsewhere")
    batch.submit(0)
    line = batch.store(0, MP4)
    (pages.root / "other.mp4").write_bytes(MP4)
    batch.journal.append({"e": "line", "line": {**line, "uri": f"file://{pages.root}/other.mp4"}})
    (clip,) = told(pages, f"{page}/clips.json")["clips"]
    assert not clip["can_download"]


def test_the_orders_of_a_batch(pages):
    """Rows are sorted as clips are: by place, time, price, state and key; a page of them has its length."""
    batch, page = batch_of(pages, "orders", count=12)
    batch.submit(*range(11, -1, -1))
    batch.fail(7)

    def keys(order, **more):
        query = "&".join(f"{name}={value}" for name, value in {"order": order, **more}.items())
        return [clip["key"] for clip in told(pages, f"{page}/clips.json?{query}")["clips"]]

    assert keys("scene", limit=3, offset=2) == ["clip-2", "clip-3", "clip-4"]
    assert keys("newest", limit=1) == ["clip-11"]
    assert keys("label", limit=3) == ["clip-0", "clip-1", "clip-2"]
    assert keys("state", limit=1) == ["clip-7"]
    assert len(keys("cost")) == 12


@pytest.mark.fault("attacks", "a reader asks for a batch at map_index 2⁶³, or of a task with a NUL", outcome="refused",
                   side="pages", seen="404")  # fmt: skip
@pytest.mark.parametrize("place", [f"t/mapped/{2**63}", f"t/mapped/{10**30}", "t%00"])
def test_an_address_that_no_database_takes(pages, place):
    """It is not there; the database is not asked."""
    answer = pages.get(f"/vidu/dags/film/runs/r/tasks/{place}/batch/clips.json")
    assert (answer.status_code, answer.json()["detail"][:22]) == (404, "This task has begun no")


@pytest.mark.parametrize(
    ("state", "change", "why", "ending"),
    [
        ("running", {"is_paused": True}, "paused", "until it is unpaused."),
        ("running", {"is_stale": True}, "missing", "until it is back."),
        ("running", {}, "silent", "until one runs."),
        ("success", {"is_paused": True, "is_stale": True}, None, None),
    ],
)
def test_a_run_whose_dag_is_paused_or_missing(pages, state, change, why, ending):
    """No task of it begins or resumes: each page says so, beside a retry that was said to begin by itself."""
    from airflow.jobs.job import Job
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from sqlalchemy import update
    from sqlalchemy.orm import Session

    dag = f"halted-{why}"
    batch, page = batch_of(pages, dag, dag=dag, state="deferred")
    batch.submit(0)
    pages.add("again", "halted", dag=dag, state="up_for_retry", watch={"conn_id": "none", "role": "generate"})
    pages.add("early", None, dag=dag, state="up_for_retry")
    run = page.partition("/tasks")[0]
    row = told(pages, f"{page}/clips.json")["clips"][0]["row"]
    of_all = [f"{run}/clips.json", f"{run}/tasks/again/clip.json", f"{page}/clips.json", f"{page}/rows/{row}/clip.json"]
    with Session(pages.engine) as session, session.begin():
        session.add(DagModel(dag_id=dag, bundle_name="dags-folder", is_paused=False, is_stale=False))
        session.execute(update(DagRun).where(DagRun.dag_id == dag).values(state=state))
    assert [told(pages, path)["halted"] for path in of_all] == [None] * 4
    with Session(pages.engine) as session, session.begin():
        if change:
            session.execute(update(DagModel).where(DagModel.dag_id == dag).values(**change))
        # With an id, as the triggerers of other tests: PostgreSQL's counter does not know of theirs.
        session.add(job := Job(id=7_001, job_type="SchedulerJob", state="running"))
        job.latest_heartbeat = datetime.now(UTC) - timedelta(seconds=90 if change else 150)
    # An answer that took long on a busy machine is kept for a while.
    assert wait_for(lambda: [told(pages, path)["halted"] for path in of_all] == [why] * 4, 30, every=0.3)
    detail = pages.get(f"{run}/tasks/early/clip.json", user="admin").json()["detail"]
    assert detail.endswith(ending or "is not known.")
    with Session(pages.engine) as session, session.begin():
        session.delete(job)
