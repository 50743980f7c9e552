"""A headless Chromium before a private Airflow: what users see, seen by a program.

Chromium is taken from CHROMIUM or the PATH. Without one these tests are skipped with a sentence, except in CI,
where they must run (`make setup-browser` installs one). BROWSER_PICTURES names a folder for pictures.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import PrivateAirflow, Run
from tests.integration.servers import s3_server

# One API server with the pages for all files: an imported fixture belongs to the module that imports it.
from tests.integration.ui.conftest import generation, pages, s3  # noqa: F401

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "example_dags"
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
SWITCHED_OFF = (
    # The popup of the address bar is a page that each window loads: half a second of a core.
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup",
    # Playwright's own list, which this one replaces.
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding", "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect", "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled",
    "PreconnectToSearch",
)  # fmt: skip
# No sandbox of its own: it cannot make one as root, and it sees nothing but this Airflow.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    f"--disable-features={','.join(SWITCHED_OFF)}",
]
WIDE = {"width": 1280, "height": 800}
MOST_BYTES = 150_000
PATIENCE_MS = 45_000
STUDIO = "s3://aws_studio@studio/"
SHOWN = "clips"
HIDDEN = "drafts"
KEY = f"vda-browser-{secrets.token_hex(12)}"


def _absent(sentence: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found or not Path(found).exists():
        _absent("There is no Chromium: set CHROMIUM to its path, or run `make setup-browser` as root on Debian.")
    return str(found)


@dataclass
class Watcher:
    """Notes what the pages ask for and what they complain about."""

    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        """Listen to a page."""
        page.on("request", lambda request: self._asked(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._told)

    def _asked(self, url: str) -> None:
        if url.startswith("http"):
            self.hosts.add(urlsplit(url).netloc)

    def _told(self, message: Any) -> None:
        source = (message.location or {}).get("url", "")
        if message.type == "error" and "/vidu/" in source + message.text:
            self.complaints.append(f"{source}: {message.text}")


@pytest.fixture(scope="session")
def watcher() -> Watcher:
    """Return what was noted in this session."""
    return Watcher()


@pytest.fixture(scope="session")
def browser(chromium) -> Iterator[Any]:
    """Run Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        try:
            page = running.new_page()
            if not page.evaluate("""document.createElement("video").canPlayType('video/mp4; codecs="avc1.42E01E"')"""):
                _absent("This Chromium cannot play H.264; Debian's and Google's can.")
            page.close()
            yield running
        finally:
            running.close()


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Run the service: a generation takes long enough to be watched.

    On another host than Airflow: no player is sent to a port of that one, because cookies know no ports.
    """
    with Sandbox(keys=[KEY], queue=5, duration=20, host="127.0.0.2") as service:
        yield service


@pytest.fixture(scope="session")
def studio() -> Iterator[str]:
    """Run an S3 with the bucket that the clips are kept in; return its address."""
    with s3_server("studio") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def airflow(browser, tmp_path_factory, studio) -> Iterator[PrivateAirflow]:
    """Run Airflow with the examples, three users and one preview root."""
    extra = {"endpoint_url": studio, "region_name": "us-east-1"}
    store = {"conn_type": "aws", "login": "made-up", "password": "made-up", "extra": extra}
    settings = {
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,vera:viewer,nobody:",
        "VIDU__PREVIEW_ROOTS": f"{STUDIO}{SHOWN}",
    }
    home = tmp_path_factory.mktemp("browser") / "airflow"
    environment = {"AIRFLOW_CONN_AWS_STUDIO": json.dumps(store), "VIDU_EXAMPLES_DESTINATION": STUDIO}
    with PrivateAirflow(
        home, [EXAMPLES], settings=settings, environment=environment, serve_logs=True, preload=True
    ) as running:
        running.wait_for_dags([path.stem for path in EXAMPLES.glob("*.py")])
        yield running


@pytest.fixture(scope="session")
def log_in(browser, airflow, watcher) -> Callable[..., Any]:
    """Return a function that logs a user in through the form and returns the page."""

    def log_in(user: str, at: str = "/", **more: Any) -> Any:
        context = browser.new_context(viewport=WIDE, locale="en-GB", timezone_id="UTC", **more)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watcher.watch(page)
        page.goto(airflow.url + at)
        page.wait_for_url("**/auth/login**")
        page.locator("input").first.fill(user)
        page.locator("input[type=password]").fill(airflow.password_of(user))
        page.get_by_role("button", name="Sign in").click()
        return page

    return log_in


@pytest.fixture(scope="session")
def session_state(log_in, airflow) -> Any:
    """Return the cookies of the logged-in admin."""
    page = log_in("admin")
    page.wait_for_url(f"{airflow.url}/")
    state = page.context.storage_state()
    page.context.close()
    return state


@pytest.fixture
def open_page(browser, session_state, airflow, watcher) -> Iterator[Callable[..., Any]]:
    """Return a function that opens an address as admin, in a window of its own."""
    opened = []

    def open_page(path: str, *, theme: str = "light", size: dict[str, int] | None = None, **more: Any) -> Any:
        context = browser.new_context(
            viewport=size or WIDE, storage_state=session_state, locale="en-GB", timezone_id="UTC", **more
        )
        opened.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(f"try {{ localStorage.setItem('theme', '{theme}') }} catch {{}}")
        page = context.new_page()
        watcher.watch(page)
        page.goto(airflow.url + path)
        return page

    yield open_page
    for context in opened:
        context.close()


@pytest.fixture(scope="session")
def picture() -> Callable[..., None]:
    """Return a function that keeps a picture of a page where BROWSER_PICTURES asks for it."""
    folder = os.environ.get("BROWSER_PICTURES")

    def picture(page: Any, name: str, **more: Any) -> None:
        if not folder:
            return
        path = Path(folder) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path, animations="disabled", **more)
        assert path.stat().st_size <= MOST_BYTES, f"{path} is larger than {MOST_BYTES} bytes"

    return picture


@pytest.fixture(scope="session")
def connection(browser, session_state, airflow, sandbox, picture, watcher) -> dict[str, Any]:
    """Create the connection through the form, as a user would; return what the form showed."""
    context = browser.new_context(viewport={"width": 1280, "height": 1060}, storage_state=session_state, locale="en-GB")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("input").first.fill("vidu_default")
    form.get_by_role("combobox").click()
    page.keyboard.type("Vidu")
    page.keyboard.press("Enter")
    form.get_by_text("Host (base URL)").wait_for()
    standard = form.inner_text()
    form.locator("input[name=host]").fill(sandbox.url)
    form.locator("input[name=password]").fill(KEY)
    form.locator("input[name=port]").fill(sandbox.url.rpartition(":")[2])
    form.get_by_text("Extra Fields", exact=True).click()
    form.get_by_text("Allowed download hosts").wait_for()
    extra = form.inner_text()
    verify = page.locator("#list_verify option").all_inner_texts()
    form.locator("#element_verify").fill("true")
    picture(page, "connection-form")
    with page.expect_response(lambda answer: answer.request.method == "POST" and "/connections" in answer.url) as saved:
        form.get_by_role("button", name="Save").click()
    context.close()
    return {"standard": standard, "extra": extra, "verify": verify, "status": saved.value.status}


@pytest.fixture(scope="session")
def runs(airflow, connection) -> dict[str, Run]:
    """Trigger the examples: the first is watched from its beginning, the others go on meanwhile."""
    prompt = "A red kite above a calm sea at dawn, slow camera, soft light"
    film = airflow.trigger("vidu_generate_and_download", {"prompt": prompt, "folder": SHOWN})
    airflow.wait_for_task(film, "generate", "deferred")
    unshown = airflow.trigger("vidu_generate_and_download", {"prompt": "A mill at night", "folder": HIDDEN})
    scenes = [
        "A lighthouse at dusk",
        "The keeper climbs the stairs",
        "[fail:CreationPolicyViolation] The lamp is broken",
        "The lamp is lit",
        "A ship far out turns",
        "[slow] The storm comes nearer",
    ]
    story = airflow.trigger("vidu_storyboard", {"scenes": scenes, "folder": SHOWN})
    return {"film": film, "unshown": unshown, "story": story}


@pytest.fixture(scope="session")
def film(runs) -> Run:
    """Return the run whose clip is kept where it may be played from."""
    return runs["film"]


@pytest.fixture(scope="session")
def unshown(runs) -> Run:
    """Return the run whose clip is kept where the API server may not read it."""
    return runs["unshown"]


@pytest.fixture(scope="session")
def story(runs) -> Run:
    """Return the mapped run: some clips are made, one is refused, one takes for ever."""
    return runs["story"]
