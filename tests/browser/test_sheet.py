"""The contact sheet in a browser: alone and in a frame of Airflow's own page, wide and narrow, in both modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.sandbox.media.pictures import png
from private_airflow import wait_for

pytestmark = pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages")
PHONE = {"width": 360, "height": 740}
# As Airflow 3.3 frames a tab of a plugin.
FRAME = """(address) => {
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts allow-same-origin allow-forms allow-downloads";
    frame.src = address;
    frame.style.cssText = "position: fixed; inset: 60px 0 0 80px; border: 0; z-index: 9999; " +
        "width: calc(100% - 80px); height: calc(100% - 60px)";
    document.body.append(frame);
}"""


def until(page: Any, condition: str, seconds: float = 20) -> None:
    """Wait until a JavaScript expression holds; the pages forbid what Playwright's own wait would do in them."""
    assert wait_for(lambda: page.evaluate(condition), seconds, every=0.1), condition


def refresh(page: Any) -> None:
    """Let a page refresh at once, as when its window becomes visible again."""
    page.evaluate("""() => {
        for (const value of [true, false]) {
            Object.defineProperty(document, "hidden", { value, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }
    }""")


@pytest.fixture(scope="module")
def filled(pages) -> str:
    """Fill a run with clips in all states; return the path of its sheet."""
    began = datetime.now(UTC) - timedelta(minutes=30)
    clip = pages.sandbox.file_bytes(pages.sandbox.add_generation("8001", dialect="ent-v2", states=[["success", 0]]))
    for index in range(7):
        id_, at = "8004" if index == 4 else f"sheet-{index}", began + timedelta(seconds=index)
        note = {"conn_id": "vidu_default", "role": "generate", "created_at": at.isoformat(), "credits": 40 + 20 * index}
        fields = {
            "prompt": f"Scene {index}: " + "a red kite above a calm sea at dawn, slow camera, soft light. " * 8,
            "model": "viduq3-turbo",
            "parameters": {"duration": 4 + index, "resolution": "720p", "aspect_ratio": "16:9"},
        }
        state, result = "success", {"id": id_, "status": "succeeded"}
        if index == 2:
            state, result = "failed", {"id": id_, "status": "failed", "error_code": "CreationPolicyViolation"}
        if index == 4:
            pages.sandbox.add_generation(id_, dialect="ent-v2", states=[["processing", 0]])
            state, result = "deferred", None
        label = f"lighthouse {index}" if index < 5 else None
        more = [("sheet-6b", {**note, "seed": 12})] if index == 6 else []
        pages.add(
            "scene", id_, dag="sheet-ui", index=index, state=state, watch={**note, "seed": 4711 + index},
            result=result, fields=fields, label=label, at=at, more=more,
        )  # fmt: skip
        if index in (0, 1, 5):
            (pages.root / f"{id_}.mp4").write_bytes(clip)
            record = {
                "uri": f"file://{pages.root}/{id_}.mp4",
                "size": len(clip),
                "generation_id": id_,
                "content_type": "video/mp4",
            }
            watch = {"conn_id": "vidu_default", "role": "download"}
            pages.add(
                "keep",
                id_,
                dag="sheet-ui",
                index=index,
                result=record,
                watch=watch,
                at=at + timedelta(seconds=70 + index),
            )
    (pages.root / "cover.png").write_bytes(png("a cover"))
    cover = {
        "uri": f"file://{pages.root}/cover.png",
        "size": 9,
        "generation_id": "sheet-1",
        "content_type": "image/png",
    }
    pages.add("cover", "sheet-1", dag="sheet-ui", result=cover, watch={"role": "download", "artifact": "cover"})
    return pages.at("scene", dag="sheet-ui").partition("/tasks")[0]


@pytest.fixture
def visit(browser, pages) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a path as admin, in a colour mode and a size, framed if asked."""
    pages.get("/vidu/static/vidu.css", user="admin")
    token = pages.sessions["admin"].cookies["_token"]
    opened = []

    def visit(
        path: str, *, theme: str = "light", size: dict[str, int] | None = None, framed: bool = False, **more: Any
    ) -> Any:
        context = browser.new_context(
            locale="en-GB", timezone_id="UTC", viewport=size or {"width": 1280, "height": 800}, **more
        )
        opened.append(context)
        context.add_cookies([{"name": "_token", "value": token, "domain": "localhost", "path": "/", "sameSite": "Lax"}])
        context.set_default_timeout(20_000)
        context.add_init_script(f"try {{ localStorage.theme ??= '{theme}' }} catch {{}}")
        page = context.new_page()
        if framed:
            page.goto(f"{pages.url}/")
            page.locator(f"html.{theme}").wait_for()
            page.evaluate(FRAME, pages.url + path)
        else:
            page.goto(pages.url + path)
        return page

    yield visit
    for context in opened:
        context.close()


def test_the_card_says_what_distinguishes_the_clip(visit, filled):
    """Label, seed, parameters, cost, time and size are on the card; the sum above; the whole prompt in the title."""
    page = visit(filled)
    card = page.locator(".card").first
    card.wait_for()
    for told in ("lighthouse 0", "seed 4711", "4 s long", "720p", "40 credits", "took 1 min 10 s", "kB"):
        assert told in card.inner_text(), told
    assert card.locator(".card-prompt").get_attribute("title").count("kite") == 8
    assert page.locator(".card").count() == 8
    assert page.locator(".sum").inner_text() == "8 clips · 860 credits at the submits · times in UTC"
    page.get_by_role("button", name="Failed").click()
    until(page, "document.querySelectorAll('.card').length === 1")
    assert "1 clip · 80 credits at the submits" in page.locator(".sum").inner_text()


def test_sorting_and_the_dense_view(visit, filled):
    """The order is part of the address, and a reload keeps it and the dense view."""
    page = visit(filled)
    page.get_by_label("Sort").select_option("cost")
    until(page, "document.querySelector('.card')?.innerText.includes('160 credits')")
    page.get_by_role("button", name="Dense").click()
    assert page.url.endswith("?order=cost")
    page.reload()
    until(page, "document.querySelector('.card')?.innerText.includes('160 credits')")
    until(page, "document.querySelector('.card').offsetHeight < 90")
    assert page.get_by_role("button", name="Dense").get_attribute("aria-pressed") == "true"


def test_the_dense_view_on_a_phone(visit, pages):
    """Neither a badge nor a price is wider than its place: "80" and "credits" stood in two lines."""
    for index, state in enumerate(["success", "failed", "skipped"]):
        known = {"at": datetime.now(UTC) - timedelta(seconds=61 + index), "index": index}
        note = {"conn_id": "none", "role": "generate", "credits": 80, "created_at": known["at"].isoformat()}
        result = {"id": f"dense-{index}", "status": "succeeded"}
        pages.add("scene", f"dense-{index}", dag="dense-ui", state=state, watch=note, result=result, **known)
        (pages.root / f"dense-{index}.mp4").write_bytes(bytes(1_000_000))
        record = {"uri": f"file://{pages.root}/dense-{index}.mp4", "size": 1_000_000, "generation_id": f"dense-{index}"}
        if state == "success":
            pages.add("keep", f"dense-{index}", dag="dense-ui", result=record, watch={"role": "download"}, **known)
    page = visit(pages.at("scene", dag="dense-ui").partition("/tasks")[0], size=PHONE)
    page.get_by_role("button", name="Dense").click()
    page.locator(".card").nth(2).wait_for()
    beyond = """() => [...document.querySelectorAll(".thumb")].filter((thumb) => {
        const [outer, badge] = [thumb, thumb.querySelector(".badge")].map((each) => each.getBoundingClientRect());
        return badge.top < outer.top || badge.bottom > outer.bottom || badge.right > outer.right;
    }).length"""
    assert page.evaluate(beyond) == 0
    lines = "() => [...document.querySelectorAll('.measured > span')].map((part) => part.getClientRects().length)"
    assert set(page.evaluate(lines)) == {1}


def test_a_clip_leads_back_to_its_page_of_the_sheet(visit, pages):
    """The clips around it are on that page; it led to the first one."""
    for index in range(26):
        pages.add("scene", f"back-{index}", dag="back-ui", index=index, watch={"conn_id": "none", "role": "generate"})
    page = visit(pages.at("scene", dag="back-ui", index=24))
    page.get_by_text("25 of 26").wait_for()
    page.keyboard.press("u")
    page.get_by_text("25–26 of 26").wait_for()
    page.go_back()
    page.get_by_text("25 of 26").wait_for()
    page.keyboard.press("p")
    page.get_by_text("24 of 26").wait_for()
    page.get_by_role("link", name="All clips").click()
    page.get_by_text("1–24 of 26").wait_for()
    assert "?" not in page.url


def test_the_dag_of_a_run_is_paused(visit, pages):
    """Sheet and clip say first that no retry begins."""
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from sqlalchemy import update
    from sqlalchemy.orm import Session

    note = {"conn_id": "none", "role": "generate", "try_number": 1}
    pages.add("scene", "paused-ui", dag="paused-ui", state="up_for_retry", watch=note)
    with Session(pages.engine) as session, session.begin():
        session.add(DagModel(dag_id="paused-ui", bundle_name="dags-folder", is_paused=True, is_stale=False))
        session.execute(update(DagRun).where(DagRun.dag_id == "paused-ui").values(state="running"))
    clip = pages.at("scene", dag="paused-ui")
    for path, place in ((clip.partition("/tasks")[0], ".sheet-alerts"), (clip, ".alerts")):
        first = visit(path).locator(f"{place} .alert").first
        first.get_by_role("heading", name="The DAG is paused").wait_for()
        assert "No other task begins, resumes or is retried until the DAG is unpaused" in first.inner_text()


def test_a_page_beyond_the_last_one(visit, filled):
    """Clips leave a state, and its last page with them: the sheet shows what is now the last one, not an empty grid."""
    page = visit(f"{filled}?offset=48")
    page.locator(".card").nth(7).wait_for()
    assert page.locator(".pages").inner_text() == ""


def test_all_times_of_a_sheet_are_of_one_zone(visit, filled):
    """When another zone is chosen in Airflow, the cards follow as the heading does."""
    page = visit(filled)
    began = page.locator(".began time").first
    before = datetime.fromisoformat(began.inner_text())
    page.evaluate("localStorage.timezone = 'Asia/Tokyo'; dispatchEvent(new StorageEvent('storage', {key: 'timezone'}))")
    page.get_by_text("times in GMT+9").wait_for()
    assert datetime.fromisoformat(began.inner_text()) - before == timedelta(hours=9)


def test_a_clip_plays_under_the_pointer(visit, filled):
    """Nothing is fetched before; without sound while the pointer rests on the card; gone when it leaves."""
    page = visit(filled)
    card = page.locator(".card:has(.download)").first  # a stored file, which plays in any case
    card.wait_for()
    assert page.locator(".preview").count() == 0
    card.locator(".thumb").hover()
    until(page, "document.querySelector('.preview')?.currentTime > 0.1")
    assert page.evaluate("document.querySelector('.preview').muted") is True
    page.get_by_role("heading", name="Clips of this run").hover()
    until(page, "!document.querySelector('.preview')")


@pytest.mark.parametrize("framed", [False, True], ids=["alone", "framed"])
def test_the_download_button(visit, filled, framed):
    """It keeps the stored file under its own name, also in Airflow's frame, and the page stays."""
    page = visit(filled, framed=framed)
    place = page.frame_locator("iframe") if framed else page
    button = place.get_by_role("link", name="Download the clip").first
    with page.expect_download() as kept:
        button.click()
    assert kept.value.suggested_filename == "sheet-0.mp4"
    assert kept.value.failure() is None
    assert place.locator(".card").count() == 8


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_seam_in_the_tab(visit, filled, theme):
    """In the frame ground and text have Airflow's own colours, and follow when the mode changes there."""
    page = visit(filled, theme=theme, framed=True)
    frame = page.frame_locator("iframe")
    frame.locator(".card").first.wait_for()
    # Airflow paints its ground on the root, and the pages theirs on the body.
    colours = """[document.body, document.documentElement].map((e) => getComputedStyle(e).backgroundColor)
        .filter((colour) => colour !== "rgba(0, 0, 0, 0)").concat(getComputedStyle(document.body).color)"""
    inner = next(found for found in page.frames if found != page.main_frame)
    assert inner.evaluate(colours) == page.evaluate(colours)
    other = "dark" if theme == "light" else "light"
    page.evaluate(f"document.documentElement.className = '{other}'; localStorage.setItem('theme', '{other}')")
    assert wait_for(lambda: inner.evaluate(colours) == page.evaluate(colours), 10, every=0.2)
    frame.get_by_role("link", name="Open alone").click()
    page.wait_for_url(f"**{filled}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_alone_it_has_airflows_colours(visit, pages, filled, theme):
    """Without a frame around it the page has the same ground, text and line as Airflow's own."""
    page = visit("/", theme=theme)
    page.locator(f"html.{theme}").wait_for()
    names = ("bg", "fg", "fg-muted", "border", "bg-emphasized")
    # A canvas makes the same bytes of the same colour, however it is written.
    paint = """(values) => values.map((value) => {
        const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
        pen.fillStyle = value; pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    })"""
    read = "(names) => names.map((name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    theirs = page.evaluate(paint, page.evaluate(read, [f"--chakra-colors-{name}" for name in names]))
    page.goto(pages.url + filled)
    page.locator(".card").first.wait_for()
    ours = page.evaluate(paint, page.evaluate(read, ["--ground", "--text", "--quiet", "--line", "--plain-soft"]))
    for name, own, outer in zip(names, ours, theirs, strict=True):
        assert all(abs(a - b) <= 2 for a, b in zip(own, outer, strict=True)), (name, own, outer)


def test_on_a_phone_the_sheet_fits(visit, filled):
    """At 360 pixels nothing scrolls sideways, in neither view, and what is pressed is large enough."""
    page = visit(filled, size=PHONE)
    page.locator(".card").first.wait_for()
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        small = "[...document.querySelectorAll('button, select, .download')].filter((b) => b.offsetHeight < 24).length"
        assert page.evaluate(small) == 0
        page.get_by_role("button", name="Dense").click()


def test_on_a_phone_the_way_out_of_the_frame_is_seen(visit, filled):
    """Airflow lets most of the run's tab lie beyond the edge of a phone: "Open alone" stands in what is seen of it."""
    page = visit(filled, size=PHONE, framed=True)
    alone = page.frame_locator("iframe").get_by_role("link", name="Open alone")
    alone.wait_for()

    def is_seen() -> bool:
        box = alone.bounding_box()
        return box["x"] >= 64 and box["x"] + box["width"] <= PHONE["width"]

    around = "document.querySelector('iframe').style.%s = '%s'; window.dispatchEvent(new Event('scroll'))"
    page.evaluate(around % ("width", "1000px"))
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<nav>')")  # Airflow's bar
    bar = "position: fixed; left: 0; top: 0; width: 64px; height: 100%; z-index: 2147483647"
    page.evaluate(f"document.querySelector('nav').style = '{bar}'")
    for left in ("320px", "57px", "-584px"):  # the page around it is scrolled, also by Airflow itself
        page.evaluate(around % ("left", left))
        assert wait_for(is_seen, 10, every=0.1), left
    # A dialog of Airflow's covers all of the frame for a while: the link is still there when it is closed.
    page.evaluate("document.querySelector('nav').style.width = '100%'")
    page.evaluate(around % ("left", "80px"))
    assert wait_for(lambda: 80 <= alone.bounding_box()["x"] <= 90, 10, every=0.1)
    page.evaluate("document.querySelector('nav').remove()")
    alone.click()
    page.wait_for_url(f"**{filled}")


def test_the_skeleton_and_the_empty_sheet(visit, pages, filled):
    """An outline stands in until the first answer; a run without clips says how a @task gets onto its sheet."""
    pages.add("other", None, dag="empty-ui")
    empty = pages.at("other", dag="empty-ui").partition("/tasks")[0]
    page = visit("/vidu/static/icon.svg")
    held: list[Any] = []
    page.route("**/clips.json**", lambda route: held.insert(0, route))
    page.goto(pages.url + empty)
    page.locator(".skeleton i").first.wait_for()
    assert wait_for(lambda: bool(held), 10, every=0.1)
    held[0].continue_()
    page.get_by_text("hook.publish(generation)").wait_for()
    told = page.locator(".nothing").inner_text()
    assert "A dry run of ViduBatchOperator submits nothing" in told
    assert "Clips whose XComs were removed since, as airflow db clean does, are not shown" in told
    assert page.locator(".skeleton").count() == 0


def test_a_sheet_says_that_no_triggerer_runs(visit, pages):
    """Once above the clips, and in a line of each card that waits for one."""
    since = datetime.now(UTC) - timedelta(minutes=5)
    note = {"conn_id": "not_there", "role": "generate"}
    for index, triggerer in enumerate([None, 1, None]):
        pages.add("scene", f"late-{index}", dag="late-ui", index=index, state="deferred", watch=note, deferred=since,
                  at=since, triggerer=triggerer)  # fmt: skip
    page = visit(pages.at("scene", dag="late-ui").partition("/tasks")[0])
    page.get_by_role("heading", name="No triggerer runs the wait of 2 of these clips").wait_for()
    assert page.locator(".card", has_text="No triggerer runs this wait").count() == 2


def test_cards_say_that_their_state_is_of_an_earlier_poll(visit, pages):
    """While the service did not answer, they went on showing "Running", as if it had been seen now."""
    for index in range(2):
        pages.add("scene", f"silent-{index}", dag="silent-ui", index=index, watch={"role": "generate"}, state="running")
    page = visit("/vidu/spending")
    old = {"message": "The service gave no answer.", "advice": "", "code": None, "trace_id": None, "is_old": True}
    states = [{"state": "running", "done": False}, {"state": "succeeded", "done": True}]

    def silent(route) -> None:
        sheet = route.fetch().json()
        clips = [{**clip, **seen, "notice": old} for clip, seen in zip(sheet["clips"], states, strict=True)]
        route.fulfill(json={**sheet, "clips": clips})

    page.route("**/clips.json**", silent)
    page.goto(pages.url + pages.at("scene", dag="silent-ui").partition("/tasks")[0])
    card = page.locator(".card", has_text="Running")
    card.get_by_text("The state is the last known one. The service gave no answer.").wait_for()
    assert page.locator(".card .is-notice").count() == 1  # what has ended stays so


def test_a_sheet_names_the_tasks_that_failed_without_a_clip(visit, pages):
    """A refused create leaves no card: the sheet says how many there are, and leads to their logs."""
    known = {"dag": "refused-ui", "state": "failed", "operator": "ViduGenerateOperator"}
    for index in range(4):
        pages.add("scene", None, index=index, **known)
    page = visit(pages.at("scene", dag="refused-ui").partition("/tasks")[0])
    page.get_by_role("heading", name="4 tasks have failed without a clip").wait_for()
    alert = page.locator(".alert.is-error")
    assert "and 1 more" in alert.inner_text()
    link = alert.get_by_role("link", name="Log of scene [2]").get_attribute("href")
    assert link.endswith("/tasks/scene/mapped/2?try_number=1")


def test_on_a_phone_the_state_comes_first(visit, filled):
    """The page of a clip says how it is before it repeats the prompt; what cannot be played takes little room."""
    page = visit(f"{filled}/tasks/scene/mapped/2", size=PHONE)
    page.locator(".state .badge").wait_for()
    top = "(name) => document.querySelector(name).getBoundingClientRect().top"
    assert page.evaluate(top, ".alerts") < page.evaluate(top, ".state") < page.evaluate(top, ".texts")
    assert page.evaluate("document.querySelector('.stage').offsetHeight") < 160
