"""The clip page as an operator uses it: by keyboard, in Airflow's frame, in their time zone, when something failed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.sandbox.media.pictures import png
from tests.browser.test_sheet import refresh

pytestmark = pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages")
MADE = {"conn_id": "vidu_default", "role": "generate", "credits": 20}
KEPT = {"conn_id": "vidu_default", "role": "download"}
# As Airflow makes it for a plugin's tab: the frame may neither open a window nor navigate the page around it.
FRAME = '<iframe sandbox="allow-scripts allow-same-origin allow-forms allow-downloads" src="{src}"></iframe>'
AROUND = "<!doctype html><style>body{{margin:0}}iframe{{border:0;width:100vw;height:100vh}}</style>" + FRAME


@pytest.fixture
def visit(browser, pages) -> Iterator[Any]:
    """Return a function that opens a path as a logged-in user, alone or in a frame like Airflow's."""
    pages.get("/vidu/static/vidu.css", user="admin")
    token = pages.sessions["admin"].cookies["_token"]
    opened = []

    def visit(path: str, *, framed: bool = False, kept: dict[str, str] | None = None, **more: Any) -> Any:
        more = {"viewport": {"width": 1280, "height": 900}, "locale": "en-US", "timezone_id": "UTC", **more}
        context = browser.new_context(**more)
        opened.append(context)
        context.add_cookies([{"name": "_token", "value": token, "domain": "localhost", "path": "/", "sameSite": "Lax"}])
        context.set_default_timeout(20_000)
        for name, value in (kept or {}).items():
            context.add_init_script(f"try {{ localStorage.setItem('{name}', '{value}') }} catch {{}}")
        page = context.new_page()
        around = f"{pages.url}/around"
        page.route(
            around, lambda route: route.fulfill(body=AROUND.format(src=pages.url + path), content_type="text/html")
        )
        page.route(
            f"{pages.url}/dags/**", lambda route: route.fulfill(body="Airflow's own page", content_type="text/html")
        )
        page.goto(around if framed else pages.url + path)
        return page.frame_locator("iframe") if framed else page

    yield visit
    for context in opened:
        context.close()


@pytest.fixture
def album(pages) -> str:
    """Add a run of eight clips of two tasks; return the path of the first one's page."""
    run = "album"
    now = datetime.now(UTC)
    keys = [("opening", -1), *(("scene", index) for index in range(7))]
    for number, (task, index) in enumerate(keys):
        name = f"{run}-{number}"
        (pages.root / f"{name}.png").write_bytes(png(name))
        record = {"uri": f"file://{pages.root}/{name}.png", "size": (pages.root / f"{name}.png").stat().st_size}
        pages.add(
            task, name, dag="film", index=index, watch=KEPT, at=now + timedelta(seconds=number),
            result={**record, "generation_id": name, "content_type": "image/png"},
        )  # fmt: skip
    return pages.at("opening")


def test_clips_are_reviewed_by_keyboard(visit, album):
    """One key leads to the next clip, across tasks; p and the arrows lead back, u and Esc to the sheet."""
    page = visit(album)
    first = int(page.locator(".place").inner_text().partition(" ")[0])  # other tests have clips in this run, too
    keys = ["n"] * 5 + ["ArrowRight", "p", "ArrowLeft"]
    for key, place in zip(keys, (1, 2, 3, 4, 5, 6, 5, 4), strict=True):
        page.keyboard.press(key)
        page.locator(".place").get_by_text(f"{first + place} of ").wait_for()
    assert "/tasks/scene/mapped/3" in page.url
    page.keyboard.press("Escape")
    page.locator(".card").first.wait_for()
    page.go_back()
    page.locator(".place").wait_for()
    page.keyboard.press("u")
    page.locator(".card").first.wait_for()


def test_a_clip_in_the_frame_leads_on(visit, pages, generation):
    """In the frame of the run's tab there are previous, next and all clips, and links out to task, log and run."""
    generation_id, _ = generation(states=[["failed", 0]], error="CreationPolicyViolation")
    for index in range(3):
        pages.add("framed", generation_id if index == 1 else f"framed-{index}", index=index, state="failed", watch=MADE)
    frame = visit(pages.at("framed", index=0), framed=True)
    first = int(frame.locator(".place").inner_text().partition(" ")[0])  # other tests have clips in this run, too
    frame.locator(".place").click()  # keys go to the frame that was clicked last
    frame.owner.page.keyboard.press("n")
    frame.locator(".place").get_by_text(f"{first + 1} of ").wait_for()
    assert frame.locator(".crumbs").count() == 0
    names = [link.inner_text() for link in frame.locator("#top .actions a").all()]
    assert names[2:] == ["All clips", "Task", "Log", "Run", "Open alone"]
    assert [frame.get_by_role("link", name=f"{side} clip").count() for side in ("Previous", "Next")] == [1, 1]
    for name, path in (
        ("Task", "/tasks/framed/mapped/1/details"),
        ("Log", "/tasks/framed/mapped/1?try_number=1"),
        ("Run", ""),
        ("Log of framed [1]", "/tasks/framed/mapped/1?try_number=1"),
    ):
        frame = visit(pages.at("framed", index=1), framed=True)
        page = frame.owner.page
        frame.get_by_role("link", name=name, exact=True).click()
        page.get_by_text("Airflow's own page").wait_for()
        assert page.url.endswith(path or page.url.rpartition("/")[2])
        assert page.url.startswith(f"{pages.url}/dags/film/runs/")


@pytest.mark.parametrize(
    ("zone", "shown", "named"),
    [("America/New_York", "2026-01-02 08:53:20", "EST"), ('"Asia/Tokyo"', "2026-01-02 22:53:20", "GMT+9")],
)
def test_times_as_in_airflow(visit, pages, zone, shown, named):
    """The zone that was chosen in Airflow's own pages, its format with 24 hours, and the zone's name."""
    at = datetime(2026, 1, 2, 13, 53, 20, tzinfo=UTC)
    task = f"zone-{named}"
    pages.add(task, task, watch={**MADE, "created_at": at.isoformat()}, result={"id": task, "status": "failed"})
    page = visit(pages.at(task), kept={"timezone": zone})
    page.locator(".timeline").get_by_text(shown).wait_for()
    offsets = {moment.astimezone(ZoneInfo(zone.strip('"'))).utcoffset() for moment in (at, datetime.now(UTC))}
    # In summer, the page names another zone, and the time its own.
    wanted = f"times in {named}" if len(offsets) == 1 else f"{shown} {named}"
    assert wanted in page.locator(".clip-side").inner_text()
    assert page.locator(".timeline time").first.get_attribute("title") == "2026-01-02 13:53:20 UTC"


def test_a_time_from_before_the_clocks_changed(visit, pages):
    """It names its own zone: the page names the one of today, and was an hour off."""
    zone = ZoneInfo("Europe/Berlin")
    now = datetime.now(UTC).replace(microsecond=0)
    ago = (now - timedelta(days=days) for days in range(1, 300))
    at = next(at for at in ago if at.astimezone(zone).utcoffset() != now.astimezone(zone).utcoffset())
    pages.add(
        "clocks", "clocks", watch={**MADE, "created_at": at.isoformat()}, result={"id": "clocks", "status": "failed"}
    )
    page = visit(pages.at("clocks"), kept={"timezone": "Europe/Berlin"})
    named, today = (f"GMT+{moment.astimezone(zone).utcoffset() // timedelta(hours=1)}" for moment in (at, now))
    submitted = f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S} {named}"
    page.locator(".timeline").get_by_text(submitted).wait_for()
    assert f"times in {today}" in page.locator(".clip-side").inner_text()
    assert named != today


def test_what_is_copied_for_support(visit, pages, generation):
    """One button copies ids, state, code and times; they are the same that the page shows on demand."""
    generation_id, _ = generation(states=[["failed", 0]], error="CreationPolicyViolation")
    pages.add("supported", generation_id, state="failed", watch=MADE)
    page = visit(pages.at("supported"), permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the text for support").click()
    page.get_by_role("button", name="Copy the text for support").get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert f"Generation: {generation_id}" in copied.splitlines()
    assert "CreationPolicyViolation" in copied
    page.get_by_text("Show what is copied").click()
    assert page.locator(".support").inner_text().strip() == copied


def test_a_running_clip_answers_first_things_first(visit, pages, generation):
    """State, elapsed time, polls and the expected end are there at once; the elapsed time runs by itself."""
    generation_id, _ = generation(states=[["processing", 0]])
    now = datetime.now(UTC)
    watch = {**MADE, "created_at": (now - timedelta(seconds=70)).isoformat(), "adaptive": True}
    began = {"at": now - timedelta(seconds=70)}
    pages.add("usual", "usual-1", index=1, watch=MADE, **began, ended=now + timedelta(seconds=30))
    deferred = now - timedelta(seconds=69)
    pages.add("usual", generation_id, index=0, state="deferred", watch=watch, **began, deferred=deferred, triggerer=1)
    page = visit(pages.at("usual", index=0))
    page.locator(".badge.is-running").wait_for()
    panel = page.locator(".clip-side").inner_text()
    for told in ("Elapsed", "Last poll", "by this page within", "by Airflow about every 11 s", "1 other clip"):
        assert told in panel
    elapsed = page.locator("[data-elapsed]")
    before = elapsed.inner_text()
    page.wait_for_function("before => document.querySelector('[data-elapsed]').innerText !== before", arg=before)


@pytest.mark.parametrize(("age", "triggerer", "is_told"), [(90, None, True), (20, None, False), (90, 1, False)])
def test_a_wait_without_a_triggerer_is_said_aloud(visit, pages, generation, age, triggerer, is_told):
    """After a minute the page says that the task will not go on by itself, and that nothing is lost."""
    generation_id, _ = generation(states=[["processing", 0]])
    deferred = datetime.now(UTC) - timedelta(seconds=age)
    task = f"unattended-{age}-{triggerer}"
    pages.add(task, generation_id, state="deferred", watch=MADE, at=deferred, deferred=deferred, triggerer=triggerer)
    page = visit(pages.at(task))
    page.locator(".badge.is-running").wait_for()
    assert page.get_by_text("No triggerer runs this wait").count() == is_told
    assert (
        page.get_by_text("The generation itself goes on at the service; it is not paid for again.").count() == is_told
    )


def test_a_wait_without_a_triggerer_whose_service_is_silent(visit, pages):
    """That the generation goes on is not known then."""
    since = datetime.now(UTC) - timedelta(seconds=90)
    watch = {**MADE, "conn_id": "missing"}
    pages.add("unattended-silent", "78", state="deferred", watch=watch, at=since, deferred=since)
    page = visit(pages.at("unattended-silent"))
    page.get_by_text("What has become of the generation itself is not known here; it is not paid for again.").wait_for()
    page.get_by_text("The state is not known", exact=True).wait_for()
    assert page.get_by_role("link", name="Log of").count() == 1  # with both alerts, it stood there twice


def test_a_try_that_has_published_nothing_yet(visit, pages, generation):
    """Until its worker has read the DAG, the page shows the try before, and says so."""
    generation_id, _ = generation(states=[["failed", 0]], error="CreationPolicyViolation")
    watch = {**MADE, "try_number": 1, "max_tries": 0}
    pages.add("begun", generation_id, dag="begun-ui", state="running", watch=watch, tried=2, max_tries=1)
    page = visit(pages.at("begun", dag="begun-ui"))
    page.get_by_text("Try 2 of begun has begun; until it has published anything, this page shows what").wait_for()
    assert "The generation of the earlier try failed" in page.locator(".alert.is-error").inner_text()


def test_a_retry_is_announced(visit, pages, generation):
    """An operator who reads that it failed, and what a clear costs, reads that Airflow goes on by itself."""
    generation_id, _ = generation(states=[["failed", 0]], error="InternalServiceFailure")
    pages.add("again", generation_id, dag="retry-ui", state="up_for_retry", watch=MADE)
    words = "Try 2 of again begins after its retry delay. It submits a new generation and pays for it."
    page = visit(pages.at("again", dag="retry-ui"))
    alert = page.locator(".alert", has_text="Airflow retries the task by itself")
    assert words in alert.inner_text()
    assert page.locator(".state .badge").inner_text() == "Failed (task retries)"
    # Its delay is over, or a user has cleared it: until it runs, the page has what the try before has left.
    note = {**MADE, "try_number": 1, "max_tries": 0}
    pages.add("anew", generation_id, dag="clear-ui", state="queued", watch=note, tried=2, max_tries=1)
    page = visit(pages.at("anew", dag="clear-ui"))
    told = page.locator(".alert", has_text="The task was cleared").inner_text()
    assert "Try 2 of anew begins once the tasks before it have ended and there is room for it; until then" in told
    assert page.locator(".alert.is-error h2").inner_text() == "The generation of the earlier try failed"
    # Its worker did not find the DAG, which the log of that try says.
    pages.add("off", generation_id, dag="off-ui", state="up_for_reschedule", watch=note, tried=2, max_tries=0)
    page = visit(pages.at("off", dag="off-ui"))
    page.get_by_text("A worker has put off try 2 of off: its log says why.").wait_for()
    assert "try_number=2" in page.locator("#top .actions a", has_text="Log").get_attribute("href")


@pytest.mark.parametrize("why", ["paused", "missing", "silent"])
def test_a_retry_of_a_halted_run_is_not_promised(visit, pages, generation, why):
    """Below the alert that nothing begins, no sentence says that Airflow retries the task by itself."""
    generation_id, _ = generation(states=[["failed", 0]], error="InternalServiceFailure")
    pages.add("again", generation_id, dag=f"held-{why}", state="up_for_retry", watch=MADE)

    page = visit(pages.at("again", dag=f"held-{why}"))
    page.get_by_text("Airflow retries the task by itself").wait_for()
    page.route("**/clip.json", lambda route: route.fulfill(json={**route.fetch().json(), "halted": why}))
    refresh(page)
    told = page.locator(".alert", has_text="The task's next try is held up").inner_text()
    until = {"paused": "the DAG is unpaused", "missing": "the DAG is back", "silent": "a scheduler runs"}[why]
    assert f"Try 2 of again begins once {until}" in told
    assert "by itself" not in page.locator(".alerts").inner_text()


def test_polls_that_fail_are_said_to_come_less_often(visit, pages):
    """While the key is refused, trigger and page wait longer than their interval: seconds are not promised.

    Nor are they for another clip of the connection, which is not asked for meanwhile.
    """
    watch = {**MADE, "conn_id": "wrong_key", "poll_interval": 3}
    deferred = datetime.now(UTC) - timedelta(seconds=40)
    for task, generation in (("paused", "77"), ("unasked", "78")):
        more = {"dag": "refused-key", "at": deferred, "deferred": deferred, "triggerer": 1}
        pages.add(task, generation, state="deferred", watch=watch, **more)
        page = visit(pages.at(task, dag="refused-key"))
        page.get_by_text("by Airflow every 3 s, less often while its polls fail").wait_for()
        assert page.get_by_text("by this page, later each time while its polls fail").count() == 1


def test_a_stored_file_that_is_gone_is_said_on_page_and_sheet(visit, pages):
    """The badge, an alert with what to do, and the file's panel; nothing offers a download of it."""
    record = {
        "uri": f"file://{pages.root}/never-there.mp4",
        "size": 9,
        "generation_id": "gone",
        "content_type": "video/mp4",
    }
    pages.add("gone", "gone", dag="gone-ui", watch=KEPT, result=record)
    page = visit(pages.at("gone", dag="gone-ui"))
    assert page.locator(".state .badge").inner_text() == "Stored (file not found)"
    assert "Clear gone: it downloads the clip again" in page.locator(".alert.is-error").inner_text()
    assert "there is no file here" in page.locator(".clip-side").inner_text()
    assert page.get_by_role("link", name="Download").count() == 0
    page.keyboard.press("u")
    card = page.locator(".card").filter(has_text="gone")
    assert card.locator(".badge.is-failed").inner_text() == "Stored (file not found)"
    assert "finds no file at" in card.inner_text()


def test_a_cleared_clip_is_shown_no_longer(visit, pages):
    """It is hidden while its task has made nothing; then no player of it stays beside the facts of the next one."""
    (pages.root / "cleared.png").write_bytes(png("cleared"))
    record = {"uri": f"file://{pages.root}/cleared.png", "size": len(png("cleared")), "generation_id": "cleared"}
    pages.add("cleared", "cleared", dag="cleared-ui", watch=KEPT, result={**record, "content_type": "image/png"})
    path = pages.at("cleared", dag="cleared-ui")
    page = visit(path)
    page.locator(".stage img").wait_for()
    page.evaluate("document.querySelector('.stage img').alt = 'the old clip'")
    shown = page.request.get(f"{pages.url}{path}/clip.json").json()
    answer: dict[str, Any] = {"status": 404, "json": {"detail": "This task has published no generation yet."}}
    page.route("**/clip.json", lambda route: route.fulfill(**answer))
    refresh(page)
    page.get_by_text("This task has published no generation yet").wait_for()
    assert not page.locator(".state").is_visible()
    answer.update(status=200, json={**shown, "generation_id": "another"})
    refresh(page)
    page.locator(".state").wait_for()
    assert page.locator(".stage img").get_attribute("alt") == "The clip"


def test_an_answer_that_is_cut_off(visit, pages):
    """It is no answer: the page keeps what it shows, says so, and breaks nowhere."""
    pages.add("cut-off", "cut-off", watch={"conn_id": "none", "role": "generate"})
    page = visit(pages.at("cut-off"))
    page.locator(".state").wait_for()
    assert page.locator(".live").is_visible()
    broken: list[Any] = []
    page.on("console", lambda message: broken.append(message.text) if message.type == "error" else None)
    page.route("**/clip.json", lambda route: route.fulfill(body='{"state": "run', content_type="application/json"))
    refresh(page)
    page.get_by_text("Airflow does not answer").wait_for()
    assert page.locator(".state").is_visible()
    assert not page.locator(".live").is_visible()
    assert broken == []


def test_a_stored_clip_that_only_its_record_shows(visit, pages):
    """Neither service nor file can be looked at: the page says where the file is, and that nothing is under way."""
    uri = "file:///somewhere/else/kept.mp4"
    record = {"uri": uri, "size": 9, "generation_id": "elsewhere", "content_type": "video/mp4"}
    pages.add("elsewhere", "elsewhere", watch={**KEPT, "conn_id": "vidu_absent"}, result=record)
    page = visit(pages.at("elsewhere"))
    assert page.locator(".state .badge").inner_text() == "Stored"
    assert f"A task stored the file at {uri}" in page.locator(".stage").inner_text()
    assert page.get_by_role("heading", name="Not everything about this clip is known").count() == 1
    assert page.locator(".stage .pulse").count() == 0
    assert "Elapsed" not in page.locator(".clip-side").inner_text()
    assert page.locator(".timeline li:not(.reached)").count() == 0


def test_a_reused_clip_says_so(visit, pages):
    """The page says that an equal order pays for it, and the card that it is reused."""
    result = {"id": "equal", "status": "succeeded", "reused_from": "equal"}
    pages.add("equal", "equal", dag="equal-ui", watch={**MADE, "credits": None, "role": "wait"}, result=result)
    page = visit(pages.at("equal", dag="equal-ui"))
    assert "nothing is paid here" in page.locator(".clip-side").inner_text()
    page.keyboard.press("u")
    assert "reused" in page.locator(".card").filter(has_text="equal").locator(".measured").inner_text()


@pytest.mark.parametrize(
    ("state", "says"), [("deferred", "The wait for a slot is over"), ("running", "checks its limits, then")]
)
def test_a_task_after_its_wait_for_a_slot(visit, pages, state, says):
    """Whether it then submits is not known: a balance below min_balance ends the wait as well as a free slot."""
    note = {"conn_id": "vidu_default", "role": "generate", "waiting_since": datetime.now(UTC).timestamp()}
    pages.add(f"turn-{state}", None, state=state, watch=note)
    page = visit(pages.at(f"turn-{state}"))
    assert says in page.locator(".stage").inner_text()
    note = page.locator(".slot-note").inner_text()
    assert "min_balance" in note
    assert "the service takes no more for now" in note  # as when it is busy: the account may be empty


@pytest.mark.parametrize("state", ["deferred", "running"])
def test_a_wait_for_prices_blames_no_account(visit, pages, state):
    """More slots would only add generations to a budget that may be spent."""
    note = {"conn_id": "vidu_default", "role": "generate", "waiting_since": datetime.now(UTC).timestamp()}
    pages.add(f"prices-{state}", None, state=state, watch={**note, "for_prices": True})
    page = visit(pages.at(f"prices-{state}"))
    page.locator(".badge", has_text="Waiting for prices").wait_for()
    assert "the prices of open generations, within its budget" in page.locator(".stage").inner_text()
    panel = page.locator(".clip-side").inner_text()
    assert "budget may be spent" in panel
    assert "slot" not in panel
    assert "max_in_flight" not in panel


def test_durations_name_no_zeros(browser):
    """Minutes and hours come without a rest of 0, and no rest is as long as the next unit."""
    script = (files("airflow_provider_vidu.ui") / "static" / "common.js").read_text()
    (seconds,) = re.findall(r"^export (function seconds\(.*?^})", script, re.DOTALL | re.MULTILINE)
    values = [0.04, 9.96, 59.4, 59.6, 60, 61, 300, 3599.7, 3600, 3660, 86400]
    page = browser.new_page()
    shown = page.evaluate(f"(values) => {{ {seconds}; return values.map(seconds) }}", values)
    page.close()
    assert shown == [
        "0 s", "10 s", "59 s", "1 min", "1 min", "1 min 1 s", "5 min", "1 h", "1 h", "1 h 1 min", "24 h",
    ]  # fmt: skip


def test_an_unknown_address_leads_on(visit, pages):
    """A task without a clip, and an address that is none, offer the links that their address names."""
    page = visit(pages.at("no-such-task"))
    page.get_by_text("This run has no such task instance").wait_for()
    ways = [link.inner_text() for link in page.locator(".ways a").all()]
    of_names = ["The task and its log in Airflow", "All clips of this run", "The run in Airflow", "The DAG in Airflow"]
    assert ways == [*of_names, "Airflow's home page"]
    page.get_by_role("link", name="All clips of this run").click()
    page.wait_for_url(f"{pages.url}{pages.at('x').partition('/tasks')[0]}")
    page = visit("/vidu/dags/film")
    page.get_by_text("There is no page at this address").wait_for()
    page.get_by_role("link", name="The DAG in Airflow").click()
    page.get_by_text("Airflow's own page").wait_for()
    page = visit(pages.at("film", dag="has-no-run"))  # as after the run was deleted: no link leads there
    page.get_by_text("the run was deleted, or the address is wrong").wait_for()
    assert [link.inner_text() for link in page.locator(".ways a").all()] == [*of_names[3:], "Airflow's home page"]


def test_an_address_of_several_iterations_leads_to_none(visit, pages):
    """Airflow's page of a task in a loop needs the iteration, too: without it, it shows an error (Airflow 3.4)."""
    address = pages.at("in-a-loop")
    headers = {"Vidu-Address": "ambiguous"}
    refused = {"status": 404, "json": {"detail": "This task is in a loop."}, "headers": headers}
    page = visit(pages.at("no-such-task"))
    page.route(f"**{address}/clip.json", lambda route: route.fulfill(**refused))
    page.goto(f"{pages.url}{address}")
    page.get_by_text("This task is in a loop.").wait_for()
    ways = [link.inner_text() for link in page.locator(".ways a").all()]
    assert ways == ["All clips of this run", "The run in Airflow", "The DAG in Airflow", "Airflow's home page"]


@pytest.mark.parametrize(("task_state", "status", "badge"), [
    ("failed", "success", "Succeeded (task failed)"), ("failed", "failed", "Failed (cancelled)"),
])  # fmt: skip
def test_one_vocabulary(visit, pages, generation, task_state, status, badge):
    """The badge is the same on page and sheet, with what the state's word does not say."""
    generation_id, _ = generation(states=[[status, 0]], error="UserCancelled")
    task = f"word-{status}"
    pages.add(task, generation_id, dag="words-ui", state=task_state, watch=MADE)
    page = visit(pages.at(task, dag="words-ui"))
    assert page.locator(".state .badge").inner_text() == badge
    assert page.title().startswith(badge)
    page.keyboard.press("u")
    card = page.locator(".card").filter(has_text=task)
    assert card.locator(".badge").inner_text() == badge
