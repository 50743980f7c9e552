"""Pictures and sound in a browser, and what the browser of a user gives away: nothing."""

from __future__ import annotations

import io
import threading
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.sandbox.media.pictures import png
from tests.integration.ui.conftest import Pages

pytestmark = pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages")
MADE = {"conn_id": "vidu_default", "role": "generate"}
KEPT = {"conn_id": "vidu_default", "role": "download"}
OWN = "pieces-ui"
"""A DAG of this file's own: a sheet shows 24 clips, and the server's tests share its others."""


def wav() -> bytes:
    """Return half a second of silence."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 4000)
    return made.getvalue()


class Elsewhere(ThreadingHTTPServer):
    """Where a service keeps its files; notes the cookies that come along."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Files)
        self.files = {"picture": png("a picture"), "voice.wav": wav()}
        self.cookies: dict[str, str | None] = {}

    def url(self, name: str, host: str = "127.0.0.1") -> str:
        """Return the signed address of a file."""
        return f"http://{host}:{self.server_port}/{name}?Signature=s"


class _Files(BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        """Send a file."""
        name = self.path.partition("?")[0].strip("/")
        self.server.cookies[name] = self.headers.get("Cookie")
        data = self.server.files.get(name, b"")
        self.send_response(200 if data else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Serve files on another port."""
    with Elsewhere() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def visit(browser, pages) -> Iterator[Any]:
    """Return a function that opens a path as a user who is logged in."""
    pages.get("/vidu/static/vidu.css", user="admin")
    token = pages.sessions["admin"].cookies["_token"]
    context = browser.new_context(locale="en-GB")
    context.add_cookies([{"name": "_token", "value": token, "domain": "localhost", "path": "/", "sameSite": "Lax"}])
    context.set_default_timeout(20_000)

    def visit(path: str) -> Any:
        page = context.new_page()
        page.goto(pages.url + path)
        return page

    yield visit
    context.close()


def shown(page: Any, selector: str) -> Any:
    """Wait for a picture or player that has really loaded; return how long it is, or how wide."""
    page.locator(selector).first.wait_for()
    element = page.locator(selector).first.element_handle()
    script = """(e) => new Promise((done) => {
        const ready = () => e.naturalWidth || e.duration || 0;
        if (ready()) done(ready());
        e.addEventListener("load", () => done(ready()));
        e.addEventListener("loadedmetadata", () => done(ready()));
        if (e.preload === "none") e.load();
    })"""
    return element.evaluate(script)


def keep(pages: Pages, task: str, name: str, data: bytes, **more: Any) -> None:
    """Add a task that has stored a file."""
    (pages.root / name).write_bytes(data)
    record = {"uri": f"file://{pages.root}/{name}", "size": len(data), "generation_id": more.pop("id", task), **more}
    pages.add(task, record["generation_id"], dag=OWN, result=record, watch=KEPT)


def test_stored_pictures_and_sound(visit, pages):
    """A stored picture is shown and stored sound is played, on the clip's page and on the sheet."""
    keep(pages, "picture", "a.png", png("a"), content_type="image/png")
    keep(pages, "voice", "a.bin", wav(), content_type="application/octet-stream")
    page = visit(pages.at("picture", dag=OWN))
    assert shown(page, ".stage img") > 0
    page = visit(pages.at("voice", dag=OWN))
    assert shown(page, ".stage audio") == pytest.approx(0.5)
    sheet = visit(pages.at("voice", dag=OWN).partition("/tasks")[0])
    assert shown(sheet, ".card .thumb img") > 0
    sheet.locator(".card audio").first.wait_for()


def test_several_creations_from_the_service(visit, pages, elsewhere):
    """Each creation is shown as what it is: one by its name, one by trying, one from storage; no cookie goes along."""
    urls = [elsewhere.url("picture"), elsewhere.url("voice.wav"), elsewhere.url("third.png")]
    result = {"id": "several", "status": "succeeded", "video_url": urls[0], "artifacts": [{"url": url} for url in urls]}
    pages.add("several", "several", dag=OWN, result=result, watch=MADE)
    third = {"id": "several", "content_type": "image/png", "source": urls[2].partition("?")[0]}
    keep(pages, "several-third", "third.png", png("third"), **third)
    page = visit(pages.at("several", dag=OWN))
    # Nothing in the first name says that it is a picture: the player finds out.
    assert shown(page, ".clip-main > .stage img") > 0
    assert shown(page, ".more .piece:nth-child(1) audio") == pytest.approx(0.5)
    assert shown(page, ".more .piece:nth-child(2) img") > 0
    assert set(elsewhere.cookies) == {"picture", "voice.wav"}
    assert set(elsewhere.cookies.values()) == {None}


def test_another_port_of_the_same_host_gets_no_session(visit, pages, elsewhere):
    """Cookies ignore ports: the server redirects no one there, and the page would not give the cookie, either."""
    url = elsewhere.url("picture", host="localhost")
    pages.add("thief", "thief", dag=OWN, result={"id": "thief", "status": "succeeded", "video_url": url}, watch=MADE)
    page = visit(pages.at("thief", dag=OWN))
    page.locator(".stage").get_by_text("leads to the host of this Airflow").wait_for()
    assert elsewhere.cookies == {}
    # As if the server had sent it there all the same.
    load = "(url) => new Promise((done) => { const i = new Image(); i.onload = () => done(i.width); i.src = url })"
    assert page.evaluate(load, url) > 0
    assert elsewhere.cookies == {"picture": None}


def test_a_list_of_addresses_ends_no_session(visit, pages, elsewhere):
    """Chromium plays HLS: a file that lists Airflow's own addresses has it request them with the viewer's cookie."""
    log_out = f"{pages.url}/api/v2/auth/logout"
    listed = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{log_out}\n#EXT-X-ENDLIST\n"
    elsewhere.files["list.m3u8"] = listed.encode()
    result = {"id": "list", "status": "succeeded", "video_url": elsewhere.url("list.m3u8")}
    pages.add("list", "list", dag=OWN, result=result, watch=MADE)
    page = visit(pages.at("list", dag=OWN))
    page.locator(".stage video, .stage img, .stage .still").first.wait_for()
    page.wait_for_timeout(3_000)  # a browser that plays no HLS requests nothing
    assert pages.get(pages.at("list", dag=OWN, then="/clip.json"), user="admin").status_code == 200
