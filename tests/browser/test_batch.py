"""A batch in a browser: its sheet looks like that of a mapped run, its rows have pages, and both fit a phone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_vidu.batches.leg.beginning import begun
from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.orders.order import Order
from private_airflow import wait_for
from tests.browser.test_sheet import PHONE, refresh, until, visit  # noqa: F401 - a fixture
from tests.integration.ui.batch_folder import BatchFolder

pytestmark = pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages")


@pytest.fixture(scope="module")
def batch(pages) -> BatchFolder:
    """Fill a run that has nothing but a batch; return the batch."""
    folder = pages.root / "browser-batch"
    folder.mkdir()
    made = BatchFolder(folder, 40, "batch-ui", conn_id="none")
    made.submit(*range(14))
    for n in range(9):
        made.store(n, a_clip(n))
    made.fail(9)
    pages.add("films", None, dag="batch-ui", state="running", batch=made.place)
    return made


def a_clip(n: int) -> bytes:
    """Return a small film that a browser plays."""
    from airflow_provider_vidu.sandbox.media.mp4 import clip

    return clip(f"kite {n}", seconds=1)


@pytest.mark.parametrize("waits_for", ["slot", "prices"])
@pytest.mark.parametrize("triggerer", [1, None])
def test_a_batch_whose_next_rows_wait(visit, pages, waits_for, triggerer):  # noqa: F811
    """Its panel says for what; where no triggerer runs the wait, not that the task goes on by itself."""
    since = datetime.now(UTC) - timedelta(seconds=90)
    name = f"waits-{waits_for}-{triggerer}"
    made = BatchFolder(pages.root, 3, "batch-waits", name=name, conn_id="none")
    place = {**made.place, "waits_for": waits_for}
    pages.add(name, None, dag="batch-waits", state="deferred", batch=place, at=since, deferred=since,
              triggerer=triggerer)  # fmt: skip
    page = visit(f"{pages.at(name, dag='batch-waits')}/batch")
    page.locator(".batch-problem").first.wait_for()
    told = page.locator(".batch").inner_text()
    assert ("The next rows wait for" in told) is (triggerer == 1)
    assert ("No triggerer runs this wait" in told) is (triggerer is None)


@pytest.mark.parametrize("state", ["failed", "skipped", "deferred", "up_for_retry"])
def test_a_batch_whose_folder_was_moved(visit, pages, state):  # noqa: F811
    """Its panel promised that a clear resumes and pays for the other rows only; it orders all rows again."""
    folder = pages.root / f"moved-{state}"
    folder.mkdir()
    made = BatchFolder(folder, 3, "batch-moved", name=f"moved-{state}", conn_id="none")
    made.submit(0, 1)
    pages.add(made.name, None, dag="batch-moved", state=state, batch=made.place)
    address = f"{pages.at(made.name, dag='batch-moved')}/batch"
    page = visit(address)
    page.locator(".batch").wait_for()
    assert "1 to order" in page.locator(".batch").inner_text()
    folder.rename(folder.with_name(f"{folder.name}-away"))
    page = visit(address)
    page.get_by_text("no journal of the batch").wait_for()
    told = page.locator(".batch").inner_text()
    assert "Clearing it" not in told
    assert "to order" not in told
    assert "a clear resumes nothing: unless it finds the manifest, it orders all rows again, and pays for them" in told
    assert ("It resumes" in told, "begins" in told) == (False, state == "up_for_retry")


def test_a_batch_is_shown_like_a_mapped_run(visit, pages, batch, picture):  # noqa: F811
    """The run's tab shows its rows with states and players; a row has its page, with keys from row to row."""
    sheet = pages.at("films", dag="batch-ui").partition("/tasks")[0]
    for theme in ("light", "dark"):
        page = visit(sheet, theme=theme)
        page.locator(".card").nth(13).wait_for()
        assert "9 of 40 rows stored · 1 failed · 4 at the service · 26 to order" in page.locator(".batch").inner_text()
        assert "task running" in page.locator(".batch").inner_text()
        assert page.locator(".card", has_text="CreationPolicyViolation").count() == 1
        until(page, "[...document.querySelectorAll('.card video')].filter((v) => v.readyState > 1).length >= 8")
        picture(page, f"batch-{theme}")
    page.get_by_role("button", name="Stored 9").click()
    until(page, "document.querySelectorAll('.card').length === 9")
    page.locator(".card a").first.click()
    page.locator(".stage video").wait_for()
    until(page, "document.querySelector('.stage video').readyState > 0")
    assert "clip-0" in page.locator(".top").inner_text()
    page.keyboard.press("n")
    page.get_by_text("2 of 14").wait_for()
    picture(page, "batch-row")
    page.keyboard.press("u")
    page.get_by_role("heading", name="Clips of this batch").wait_for()
    assert page.url.endswith("/tasks/films/batch")
    assert page.locator("#top .actions a").all_inner_texts() == ["All clips", "Task", "Log"]
    phone = visit(sheet, size=PHONE)
    phone.locator(".card").first.wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    batch.store(10, a_clip(10))
    page.get_by_text("10 of 40 rows stored").wait_for()


def test_rows_of_one_generation_keep_their_cards(visit, pages):  # noqa: F811
    """A row that reuses the file of another one has its generation, too: a refresh shows both."""
    (pages.root / "reuse-ui").mkdir()
    made = BatchFolder(pages.root / "reuse-ui", 4, "reuse-ui")
    made.submit(0)
    line = made.store(0, a_clip(0))
    made.reuse(1, line)
    made.reuse(2, line)
    pages.add("films", None, dag="reuse-ui", state="running", batch=made.place)
    page = visit(pages.at("films", dag="reuse-ui").partition("/tasks")[0])
    page.locator(".card").nth(2).wait_for()
    made.submit(3)
    refresh(page)
    until(page, "document.querySelectorAll('.card').length === 4")


def test_a_batch_hides_no_other_task_of_its_run(visit, pages):  # noqa: F811
    """The tab shows a run's only batch as the run's clips until there is more: a failed task, a clip."""
    (pages.root / "more-ui").mkdir()
    made = BatchFolder(pages.root / "more-ui", 2, "more-ui")
    made.submit(0)
    pages.add("films", None, dag="more-ui", state="running", batch=made.place)
    page = visit(pages.at("films", dag="more-ui").partition("/tasks")[0])
    page.get_by_role("heading", name="Clips of this batch").wait_for()
    pages.add("refused", None, dag="more-ui", state="failed", operator="ViduGenerateOperator")
    refresh(page)
    page.get_by_role("heading", name="One task has failed without a clip").wait_for()
    assert page.locator(".batch").get_by_role("link", name="films").count() == 1
    pages.add("film", "more-1", dag="more-ui", watch={"role": "generate"})
    # Again and again: an answer that took long is kept for a while.
    assert wait_for(lambda: refresh(page) or page.locator(".card", has_text="more-1").count(), 20, every=0.5)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("skipped", "The task was skipped: it orders and stores nothing more. Clearing it resumes what goes on at the"),
        ("removed", "The task is not in the DAG any more, so clearing it orders and stores nothing."),
    ],
)
def test_a_batch_whose_task_was_skipped_or_removed(visit, pages, state, told):  # noqa: F811
    """Its panel said nothing of it, and rows may be paid for that it does not collect."""
    (pages.root / f"{state}-ui").mkdir()
    made = BatchFolder(pages.root / f"{state}-ui", 3, f"{state}-ui", conn_id="none")
    made.submit(0)
    pages.add("films", None, dag=f"{state}-ui", state=state, batch=made.place)
    page = visit(pages.at("films", dag=f"{state}-ui").partition("/tasks")[0])
    page.locator(".batch").get_by_text(told).wait_for()


def test_rows_that_were_cancelled_with_their_batch(visit, pages):  # noqa: F811
    """The panel said that a clear only resumes: it ordered them again. Their cards show 0 credits beneath the sum."""
    (pages.root / "kill-ui").mkdir()
    made = BatchFolder(pages.root / "kill-ui", 2, "kill-ui", conn_id="none")
    made.submit(0, 1)
    made.store(0, a_clip(0))
    pages.add("films", None, dag="kill-ui", state="failed", batch=made.place)
    page = visit(f"{pages.at('films', dag='kill-ui')}/batch")
    panel = page.locator(".batch")
    panel.get_by_text("the service (rows that were cancelled are ordered again, and paid for), unless").wait_for()
    assert " credits before refunds · task failed" in panel.inner_text()
    assert " credits before refunds · times" in page.locator(".sum").inner_text()
    page.get_by_role("button", name="Stored 1").click()
    until(page, "document.querySelectorAll('.card').length === 1")
    assert "refunds" not in page.locator(".sum").inner_text()


def test_the_panel_says_what_a_clear_costs(visit, pages):  # noqa: F811
    """Rows that are paid for are not ordered again; each part of the sentence stands only where there are such rows."""
    (pages.root / "paid-ui").mkdir()
    made = BatchFolder(pages.root / "paid-ui", 3, "paid-ui")
    made.submit(0, 1, 2)
    made.store(0, a_clip(0))
    made.fail(1, is_paid=True)
    made.fail(2, is_paid=True)
    pages.add("films", None, dag="paid-ui", state="failed", batch=made.place)
    paid = "Clearing it resumes the 2 failed rows whose generations may have files (those that were cancelled are"
    page = visit(pages.at("films", dag="paid-ui").partition("/tasks")[0])
    page.get_by_text(paid).wait_for()
    assert "orders the other rows" not in page.locator(".batch").inner_text()
    made.journal.append({"e": "back", "keys": ["clip-2"]})
    made.submit(2)
    made.fail(2)
    one = "resumes the failed row whose generation may have a file (if it was cancelled, it is ordered again, and paid "
    others = (
        "for), orders the other rows without a file again, as far as its limits (max_credits, budget) allow, and pays"
    )
    assert wait_for(lambda: refresh(page) or page.get_by_text(one + others).count(), 20, every=0.5)


def test_the_panel_of_a_batch_that_is_not_seen_promises_no_second_order(visit, pages, tmp_path):  # noqa: F811
    """As with every store but a local folder: what its rows have at the service is resumed, not paid for again."""
    made = BatchFolder(tmp_path, 2, "unseen-ui")
    made.submit(0)
    pages.add("films", None, dag="unseen-ui", state="failed", batch=made.place)
    panel = visit(pages.at("films", dag="unseen-ui").partition("/tasks")[0]).locator(".batch")
    panel.get_by_text("The folder of the batch is not beneath [vidu] preview_roots").wait_for()
    resumed = "Clearing it resumes what goes on at the service, and orders the other rows without a file again"
    assert resumed in panel.inner_text()
    assert "if the folder was moved or removed, a clear orders, and pays for, all rows" in panel.inner_text()


def test_the_panel_announces_a_retry(visit, pages):  # noqa: F811
    """A task that is up for retry needs no clear: temporary failures are ordered again."""
    from airflow.models.taskinstance import TaskInstance

    (pages.root / "retry-panel-ui").mkdir()
    made = BatchFolder(pages.root / "retry-panel-ui", 2, "retry-panel-ui")
    made.submit(0)
    made.fail(0)
    pages.add("films", None, dag="retry-panel-ui", state="up_for_retry", batch=made.place)
    page = visit(pages.at("films", dag="retry-panel-ui").partition("/tasks")[0])
    panel = page.locator(".batch")
    panel.get_by_text("Airflow retries the task by itself. Try 2 of films begins after its retry delay.").wait_for()
    page.locator(".card a").first.click()
    page.locator(".alert", has_text="orders the rows again that failed for a temporary reason").wait_for()
    (pages.root / "clear-panel-ui").mkdir()
    made = BatchFolder(pages.root / "clear-panel-ui", 2, "clear-panel-ui")
    note = {**made.place, "try_number": 1, "max_tries": 0}
    pages.add("films", None, dag="clear-panel-ui", state="queued", batch=note, tried=2, max_tries=1)
    panel = visit(pages.at("films", dag="clear-panel-ui").partition("/tasks")[0]).locator(".batch")
    panel.get_by_text("The task was cleared. Try 2 of films begins once the tasks before it have ended").wait_for()
    assert "timeout" not in panel.inner_text()  # the next try has one of its own
    # The log of that try begins with it: until then the link opens the one that there is, and then the new one.
    page = visit(pages.at("films", dag="clear-panel-ui") + "/batch")
    log = page.locator("#top .actions a", has_text="Log")
    log.wait_for()
    assert log.get_attribute("href").endswith("/tasks/films?try_number=1")
    table = TaskInstance.__table__
    with pages.engine.begin() as database:
        database.execute(table.update().where(table.c.dag_id == "clear-panel-ui").values(state="running"))
    until(page, "document.querySelector('#top .actions a:last-child').href.endsWith('?try_number=2')")


def test_the_rows_of_a_batch_that_several_tasks_run(visit, pages):  # noqa: F811
    """Its counts are of all of them, so they are no part of the rows of one, and a clear of one is not theirs."""
    (pages.root / "several-ui").mkdir()
    made = BatchFolder(pages.root / "several-ui", 3, "several-ui", name="spring")
    for run_id in ("run 1", "run 2"):
        owner = f"several-ui/{run_id}/films/-1"
        state = made.journal.state
        events, _ = begun(state, Order(0), made.began, 86_400, is_new=False, dag_id="several-ui", owner=owner)
        made.journal.append(*events)
    made.submit(0, 1, 2)
    made.store(0, a_clip(0))
    made.fail(1)
    pages.add("films", None, dag="several-ui", state="failed", batch={**made.place, "rows": 1})
    page = visit(f"{pages.at('films', dag='several-ui')}/batch")
    panel = page.locator(".batch")
    panel.get_by_text("1 row of this task; of all tasks of the batch 1 stored · 1 failed · 1 submitted").wait_for()
    assert "its own rows" in panel.inner_text()
    assert panel.get_by_role("progressbar").count() == 0
