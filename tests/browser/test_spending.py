"""Who waits, and what was spent, in a browser: a queue on page and sheet, and the page "Vidu" of the navigation."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_vidu.links import has_pages
from tests.browser.test_sheet import PHONE, until, visit  # noqa: F401 - a fixture

pytestmark = pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages")
MODELS = ("viduq3-turbo", "viduq2-pro", "viduq1")


@pytest.fixture(scope="module")
def queue(pages) -> str:
    """Fill a run whose clips have to wait for slots; return the path of its sheet."""
    began = datetime.now(UTC) - timedelta(minutes=4)
    for index in range(5):
        since = began + timedelta(seconds=index)
        fields = {"prompt": f"Scene {index}: a red kite above a calm sea at dawn", "model": "viduq3-turbo"}
        known = {"index": index, "at": since, "fields": fields, "label": f"lighthouse {index}"}
        note = {"conn_id": "vidu_full", "role": "generate"}
        if index < 2:
            result = {"id": f"queue-{index}", "status": "succeeded"}
            pages.add("scene", f"queue-{index}", dag="queue-ui", watch={**note, "credits": 40}, result=result, **known)
            continue
        waits = {"vidu_conn_id": "vidu_full", "since": since.timestamp(), "deadline": since.timestamp() + 3600}
        note |= {"waiting_since": since.timestamp()}
        pages.add(
            "scene", None, dag="queue-ui", state="deferred", watch=note, deferred=since, triggerer=1,
            waits=json.dumps({**waits, "queued_at": since.timestamp(), "priority": 1}), **known,
        )  # fmt: skip
    return pages.at("scene", dag="queue-ui").partition("/tasks")[0]


@pytest.fixture(scope="module")
def spent(pages) -> None:
    """Fill the database with the generations of three weeks."""
    now = datetime.now(UTC)
    for index in range(60):
        at = now - timedelta(days=index * 7 % 23, minutes=index)
        dag, state = ("trailer", "storyboard", "social")[index % 3], "failed" if index % 9 == 4 else "success"
        note = {"conn_id": "c", "role": "submit" if index % 11 == 3 else "generate", "created_at": at.isoformat()}
        note |= {"model": MODELS[index % 4 % 3], **({} if index % 13 == 7 else {"credits": 20 + index * 5 % 80})}
        pages.add("make", f"spent-{index}", dag=dag, index=index, watch=note, state=state, at=at)
    pages.add("films", None, dag="trailer", state="running", tried=2, operator="ViduBatchOperator")
    # A gateway names no price.
    unpriced = {"conn_id": "c", "role": "generate", "model": "vidu2.0"}
    pages.add("make", "spent-there", dag="gateway", watch=unpriced, at=now)


def test_a_task_in_the_queue(visit, pages, queue, picture):  # noqa: F811
    """Its page says which place it has; the sheet has its card; once it has submitted, the page is the clip's."""
    page = visit(queue)
    page.locator(".card").nth(4).wait_for()
    assert page.locator(".card", has_text="Waiting for a slot").count() == 3
    page.get_by_role("button", name="In progress 3").click()
    until(page, "document.querySelectorAll('.card').length === 3")
    picture(page, "queue-sheet")
    page.locator(".card").nth(1).locator("a").first.click()
    page.get_by_text("Waiting for a free slot, 2nd of 3").wait_for()
    assert page.locator(".state .badge").inner_text() == "Waiting for a slot"
    for told in ("2nd of 3", "vidu_full", "Timeout", "Nothing is submitted or paid yet"):
        assert told in page.locator(".clip-side").inner_text(), told
    picture(page, "queue-clip")
    index = page.url.rpartition("/")[2]
    _submit(pages, int(index), "queue-late")
    page.get_by_text("queue-late", exact=True).wait_for()
    assert page.get_by_text("free slot").count() == 0
    phone = visit(f"{queue}/tasks/scene/mapped/4", size=PHONE)
    phone.get_by_text("Waiting for a free slot").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def _submit(pages, index: int, generation_id: str) -> None:
    """Do what a task does when its turn has come: replace the note, and publish the id."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import insert, select, update

    own = (XComModel.dag_id == "queue-ui", XComModel.map_index == index)
    with pages.engine.begin() as database:
        row = database.execute(select(XComModel.__table__).where(*own)).mappings().one()
        note = {"conn_id": "not_there", "role": "generate"}
        database.execute(update(XComModel).where(*own).values(value=note))
        new = {**row, "key": "generation_id", "value": generation_id}
        database.execute(insert(XComModel.__table__).values(**new))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_of_the_navigation(visit, spent, picture, theme):  # noqa: F811
    """Airflow's navigation leads to the sums, in its frame and colours; the period is chosen, and the CSV kept."""
    page = visit("/plugin/vidu-credits", theme=theme)
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="Vidu credits").wait_for()
    assert page.get_by_role("link", name="Vidu").count() + page.get_by_role("button", name="Vidu").count() >= 1
    assert "credits · " in frame.locator(".sum").inner_text()
    assert frame.locator(".spent-days li").count() == 30
    assert frame.get_by_role("link", name="storyboard").count() == 1
    for name in ("gateway", "vidu2.0"):  # what they cost is not known: that is not nothing
        assert frame.locator(".spent-groups tr", has_text=name).locator("td").first.inner_text() == "not known"
    assert "1 task has begun another try and published nothing in it" in frame.locator(".spent-notes").inner_text()
    # The record of an order outlives its task's success, and a clear, in no other Airflow.
    assert "before a clear of its success counts in Airflow 3.3 alone" in frame.get_by_text("Prices are").inner_text()
    picture(page, f"spending-{theme}")
    frame.get_by_role("button", name="7 days").click()
    inner = next(found for found in page.frames if found != page.main_frame)
    until(inner, "document.querySelectorAll('.spent-days li').length === 7")
    with page.expect_download() as kept:
        frame.get_by_role("link", name="CSV").click()
    assert kept.value.suggested_filename == "vidu-credits-7-days.csv"


def test_on_a_phone_the_sums_fit(visit, spent, picture):  # noqa: F811
    """At 360 pixels nothing but the tables scrolls sideways, and the address keeps the period."""
    page = visit("/vidu/spending?days=90", size=PHONE)
    page.locator(".spent-days li").nth(89).wait_for(state="attached")
    assert page.get_by_role("button", name="90 days").get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(page, "spending-phone")
