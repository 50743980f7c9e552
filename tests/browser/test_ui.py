"""From the login to the playing clip, as a user goes."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest

from private_airflow import Run, wait_for

PHONE = {"width": 360, "height": 740}
PLAYED = "document.querySelector('.stage video').currentTime > 0.3"
RAN_OUT = 60_000


def page_of(run: Run, task: str | None = None, index: int = -1, *, prefix: str = "/vidu") -> str:
    """Return the path of a clip's page or of a run's sheet; with no prefix, of Airflow's own page."""
    path = f"{prefix}/dags/{run.dag_id}/runs/{quote(run.run_id, safe='')}"
    mapped = f"/mapped/{index}" if index >= 0 else ""
    return path + (f"/tasks/{task}{mapped}" if task else "")


def until(page: Any, condition: str, seconds: float = 45) -> None:
    """Wait until a JavaScript expression holds; the pages forbid what Playwright's own wait would do in them."""
    assert wait_for(lambda: page.evaluate(condition), seconds, every=0.2), condition


def play(page) -> None:
    """Press play and wait until the picture really moves; then seek, and wait until it has arrived."""
    video = page.locator(".stage video")
    video.wait_for()
    page.evaluate("document.querySelector('.stage video').muted = true")
    video.focus()
    page.keyboard.press("Space")
    until(page, PLAYED)
    assert page.evaluate("document.querySelector('.stage video').videoWidth") > 0
    page.evaluate("document.querySelector('.stage video').pause()")
    page.evaluate("document.querySelector('.stage video').currentTime = 1.5")
    until(page, "(v => !v.seeking && v.currentTime > 1.4)(document.querySelector('.stage video'))")
    assert page.evaluate("document.querySelector('.stage video').error") is None


def test_the_connection_form(connection):
    """The form shows host and key with their labels, every extra with its help, and nothing that is not used."""
    assert connection["status"] == 201
    for label in ("Host (base URL)", "API key", "Port", "Dialect: ent-v2 (api.vidu.com, api.vidu.cn) or vidu-native"):
        assert label in connection["standard"]
    for hidden in ("Login", "Schema"):
        assert not re.search(rf"^{hidden}\b", connection["standard"], re.MULTILINE)
    for label in (
        "Timeout (seconds)",
        "Proxy",
        "Proxy password",
        "Allowed download hosts",
        "Seconds to connect, and seconds",
    ):
        assert label in connection["extra"]
    assert connection["verify"][:2] == ["true", "false"]


def test_the_test_button(open_page, connection):
    """The button says in a sentence that the connection works, because the form asks for the port as well."""
    # Airflow 3.3.2 sends port 0 for a connection without one, and refuses that as another port than the stored one.
    page = open_page("/connections")
    row = page.get_by_role("row").filter(has_text="vidu_default")
    with page.expect_response("**/connections/test") as tested:
        row.get_by_role("button", name="Test Connection").click()
    assert tested.value.status == 200, tested.value.text()
    assert tested.value.json()["status"] is True
    assert tested.value.json()["message"].startswith("Fine: ")


def test_from_the_task_to_the_playing_clip(open_page, airflow, film, picture):
    """The deferred task has the link; its page shows the progress, then the clip, which plays and seeks."""
    page = open_page(page_of(film, "generate", prefix="") + "/details")
    link = page.get_by_role("link", name="Watch", exact=True)
    link.wait_for()
    picture(page, "watch-link", clip={"x": 0, "y": 0, "width": 1280, "height": 350})
    link.click()
    page.wait_for_url(f"**{page_of(film, 'generate')}")
    page.locator(".badge.is-running").first.wait_for()
    page.locator("[role=progressbar]").wait_for()
    picture(page, "clip-running")
    # From here on nothing is clicked or loaded anew: the page follows by itself.
    page.locator(".badge.is-stored").wait_for(timeout=2 * RAN_OUT)
    assert airflow.wait(film) == "success"
    play(page)
    record = airflow.xcom(film, "download")
    side = page.locator(".clip-side").inner_text()
    assert record["sha256"] in side
    assert record["uri"] in side
    assert f"{record['size']:,} bytes" in side
    assert "A red kite" in page.locator(".texts").inner_text()
    page.get_by_role("heading", name="Prompt").click()  # takes the focus from the player
    picture(page, "clip", full_page=True)


def test_it_played_from_storage(open_page, film, airflow, sandbox):
    """Beneath a preview root the clip comes from there: the service is not asked for it."""
    assert airflow.wait(film) == "success"
    generation_id = airflow.xcom(film, "generate", key="generation_id")

    def fetched() -> int:
        # The cover, which is not stored, may come from the service.
        return sum(asked.artifact == "video" for asked in sandbox.requests(kind="file", id=generation_id))

    before = fetched()
    page = open_page(page_of(film, "download"))
    play(page)
    assert fetched() == before


def test_it_plays_from_the_service(open_page, unshown, airflow, sandbox, watcher):
    """Elsewhere it plays from the service's own link, which the page itself never holds."""
    assert airflow.wait(unshown) == "success"
    generation_id = airflow.xcom(unshown, "generate", key="generation_id")
    page = open_page(page_of(unshown, "generate"))
    play(page)
    url = airflow.xcom(unshown, "generate")["video_url"]
    assert sandbox.requests(kind="file", id=generation_id)
    assert url.partition("?")[2] not in page.content()


def test_the_contact_sheet(open_page, story, airflow, picture):
    """All clips of the run on one page: pictures, states, a failure in words; filtered by state, opened by a click."""
    for index in (0, 1, 3, 4):
        airflow.wait_for_task(story, f"scene.video[{index}]", "success", timeout=240)
    airflow.wait_for_task(story, "scene.generate[2]", "failed")
    page = open_page(page_of(story), size={"width": 1280, "height": 860})
    page.locator(".card .badge.is-stored").nth(3).wait_for()
    assert page.locator(".card").count() == 6
    # A cover where the service has made one, else the first picture of the clip.
    drawn = "[...document.querySelectorAll('.thumb img, .thumb video')].filter((v) => v.naturalWidth || v.videoWidth)"
    until(page, f"{drawn}.length >= 4")
    picture(page, "contact-sheet")
    page.get_by_role("button", name="Failed 1").click()
    until(page, "document.querySelectorAll('.card').length === 1")
    assert "broken" in page.locator(".card").inner_text()
    page.locator(".card a").click()
    page.wait_for_url("**/mapped/2")
    alert = page.locator(".alert.is-error")
    alert.wait_for()
    assert "failed" in alert.inner_text()
    page.get_by_role("link", name="Next clip").click()
    page.wait_for_url("**/mapped/3")


def test_the_tab_of_the_run(open_page, story, film, airflow):
    """The sheet is a tab of the run in Airflow itself; its clips open in the same frame."""
    airflow.wait_for_task(story, "scene.video[0]", "success", timeout=240)
    page = open_page(page_of(story, prefix=""))
    page.get_by_role("link", name="Vidu clips").click()
    frame = page.frame_locator("iframe")
    frame.locator(".card a").first.click()
    frame.locator(".stage video").wait_for()
    assert frame.locator(".crumbs").count() == 0
    # No dead end: the next clip by one key, back to all clips, and out to the task in Airflow itself.
    frame.locator("body").press("ArrowRight")
    frame.get_by_role("link", name="Previous clip").wait_for()
    frame.get_by_role("link", name="All clips").click()
    frame.locator(".card a").first.click()
    frame.locator(".tasks a").first.click()
    page.wait_for_url(f"**{page_of(story, prefix='')}/tasks/scene.**")


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("Task", "/tasks/scene.generate/mapped/2/details"),
        ("Log", "/tasks/scene.generate/mapped/2?try_number=1"),
        ("Run", ""),
    ],
)
def test_links_in_the_frame_open_airflows_own_pages(open_page, story, airflow, name, then):
    """Task, log and run of a failed clip open around the frame, in the Airflow that they belong to."""
    airflow.wait_for_task(story, "scene.generate[2]", "failed")
    page = open_page(page_of(story, prefix=""))
    page.get_by_role("link", name="Vidu clips").click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("button", name="Failed 1").click()
    frame.locator(".card.is-failed a, .card:has(.badge.is-failed) a").first.click()
    frame.locator(".alert.is-error").wait_for()
    frame.locator("#top").get_by_role("link", name=name, exact=True).click()
    page.wait_for_url(airflow.url + page_of(story, prefix="") + then)
    page.get_by_text("scene.generate" if then else "vidu_storyboard").first.wait_for()
    assert page.locator("iframe").count() == 0


def test_dark_like_airflow(open_page, film, airflow, picture):
    """The colour mode that was chosen in Airflow holds here too, and follows when it changes."""
    assert airflow.wait(film) == "success"
    page = open_page(page_of(film, "generate"), theme="dark")
    page.locator(".stage video").wait_for()
    # Airflow's colours are not written as red, green and blue: painting one tells.
    ground = """(() => {
      const paint = document.createElement("canvas").getContext("2d");
      paint.fillStyle = getComputedStyle(document.body).backgroundColor;
      paint.fillRect(0, 0, 1, 1);
      return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
    })()"""
    dark = page.evaluate(ground)
    until(page, "document.querySelector('.stage video').readyState >= 2")
    picture(page, "clip-dark")
    page.evaluate("localStorage.setItem('theme', 'light'); dispatchEvent(new StorageEvent('storage', {key: 'theme'}))")
    assert page.evaluate(ground) != dark
    assert sum(dark) < 120


@pytest.mark.parametrize("part", ["clip", "sheet"])
def test_on_a_phone(open_page, film, story, airflow, part, picture):
    """At 360 pixels everything is readable without scrolling sideways."""
    airflow.wait_for_task(story, "scene.video[0]", "success", timeout=240)
    assert airflow.wait(film) == "success"
    page = open_page(page_of(film, "generate") if part == "clip" else page_of(story), size=PHONE)
    page.locator(".badge").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    small = "[...document.querySelectorAll('button, .actions a')].filter((b) => b.offsetHeight < 24).length"
    assert page.evaluate(small) == 0
    if part == "clip":
        picture(page, "clip-phone")


def test_by_keyboard(open_page, film, airflow):
    """Tab leads from the skip link over the breadcrumb to player and buttons; what has the focus shows it."""
    assert airflow.wait(film) == "success"
    page = open_page(page_of(film, "download"))
    page.locator(".copy").first.wait_for()
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.className + ' ' + document.activeElement.tagName"))
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) != "none" or "VIDEO" in seen[-1], seen[-1]
        if seen[-1] == "copy BUTTON":
            break
    assert seen[0] == "skip A"
    assert " VIDEO" in seen
    assert seen[-1] == "copy BUTTON"
    page.keyboard.press("Enter")
    until(page, "/Copied|Selected/.test(document.activeElement.textContent)")


def test_without_permission(log_in, film, airflow):
    """Who may not see the DAG gets a refusal and not one byte of the clip."""
    path = page_of(film, "generate")
    page = log_in("nobody", at=path)
    page.wait_for_url(f"**{path}")
    page.get_by_text("You may not see the clips of this DAG.").wait_for()
    # No other way out: the pages of the DAG would be refused as well.
    assert [link.inner_text() for link in page.locator(".ways a").all()] == ["Airflow's home page"]
    assert "kite" not in page.content()
    for then in ("/clip.json", "/file", "/cover"):
        answer = page.request.get(airflow.url + path + then)
        assert answer.status == 403
        assert answer.json() == {"detail": "Forbidden"}
    page.context.close()


def test_a_viewer_lands_on_the_page_after_the_login(log_in, film, airflow):
    """The link works for a user who is not logged in yet: login first, then the clip."""
    assert airflow.wait(film) == "success"
    path = page_of(film, "generate")
    page = log_in("vera", at=path)
    page.wait_for_url(f"**{path}")
    play(page)
    page.context.close()


def test_a_task_that_a_user_marks_as_success(open_page, story, airflow):
    """Airflow leaves its row as the wait had it: no page takes that for a clip that is made."""
    airflow.wait_for_task(story, "scene.generate[5]", "deferred")
    airflow.api("PATCH", f"{story.path}/taskInstances/scene.generate/5", {"new_state": "success"})
    page = open_page(page_of(story, "scene.generate", 5))
    told = page.locator(".alert.is-error").inner_text()
    assert "A user marked the task scene.generate [5] as success before the task had a result." in told
    assert "ViduGenerationSensor(generation_id=" in told
    assert page.locator(".state .badge").inner_text().endswith(" (task marked)")


def test_nothing_comes_from_elsewhere(open_page, film, airflow, sandbox, watcher):
    """All that the pages have asked for came from Airflow and, for the clip, from the service; nothing was refused."""
    page = open_page(page_of(film, "generate"))
    page.locator(".badge").first.wait_for()
    known = {airflow.url.partition("//")[2], sandbox.url.partition("//")[2]}
    assert {host for host in watcher.hosts if host not in known} == set()
    # But for the refusals that another test provokes, and the requests of windows that were closed meanwhile: what the
    # content security policy forbids has a complaint of its own. On a busy machine the service's answer with the
    # address of a cover may come too late: a clip plays without it.
    known_complaints = (
        "403",
        "cover?piece=0: Failed to load resource: the server responded with a status of 410 (Gone)",
        "TypeError: Failed to fetch",
    )
    assert [one for one in watcher.complaints if not any(known in one for known in known_complaints)] == []
