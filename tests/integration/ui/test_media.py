"""Playing a clip: from storage byte for byte and in ranges, never from anywhere else on this server."""

from __future__ import annotations

import gzip
import json
import os
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.stores.base import MIB
from airflow_provider_vidu.stores.places import Root, Spot
from airflow_provider_vidu.ui.playing.preview import open_beneath
from tests.integration.servers import Request, Server, Wire, video

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages"),
]
MADE = {"conn_id": "vidu_default", "role": "generate"}
MP4 = b"\0\0\0\x20ftypisom" + b"a secret that is no clip of this root" * 10


@pytest.fixture(scope="session")
def film(pages):
    """Store a clip of 3 MB beneath the root; return its path and content."""
    content = b"\0\0\0\x20ftypisom" + os.urandom(3_000_000)
    (pages.root / "deep").mkdir()
    (pages.root / "deep" / "a film%20.mp4").write_bytes(content)
    record(pages, "stored", f"file://{pages.root}/deep/a film%20.mp4")
    return pages.at("stored", then="/file"), content


def record(pages, task, uri, content_type="video/mp4", size=None, artifact=None):
    """Add a task that says it has stored a file there, by default one of the size that the file has."""
    path = Path(uri.removeprefix("file://"))
    size = size or (path.stat().st_size if path.is_file() else 1)
    result = {"uri": uri, "size": size, "sha256": "c" * 64, "content_type": content_type, "generation_id": task}
    pages.add(task, task, result=result, watch={"role": "download", "artifact": artifact})


def test_the_whole_file(pages, film):
    """The player gets the stored bytes, whole, with their type and length, uncompressed."""
    path, content = film
    answer = pages.get(path, headers={"Accept-Encoding": "gzip"})
    assert answer.status_code == 200
    assert answer.content == content
    assert (answer.headers["Content-Type"], answer.headers["Content-Length"]) == ("video/mp4", str(len(content)))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("wanted", "status", "start", "stop"),
    [
        ("bytes=0-99", 206, 0, 100),
        ("bytes=1000000-2000000", 206, 1_000_000, 2_000_001),
        ("bytes=2999000-", 206, 2_999_000, None),
        ("bytes=-500", 206, -500, None),
        ("bytes=2999000-99999999", 206, 2_999_000, None),
        ("bytes=0-1,5-9", 200, 0, None),
        ("bytes=9-1", 200, 0, None),
        ("nonsense", 200, 0, None),
    ],
)
def test_ranges(pages, film, wanted, status, start, stop):
    """Seeking asks for ranges and gets exactly these; anything but a single range gets the whole file."""
    path, content = film
    answer = pages.get(path, headers={"Range": wanted, "Accept-Encoding": "gzip, br"})
    assert answer.status_code == status
    assert answer.content == content[start:stop]
    if status == 206:
        first, _, last = answer.headers["Content-Range"].removeprefix("bytes ").partition("/")[0].partition("-")
        assert content[int(first) : int(last) + 1] == answer.content


def test_beyond_the_end(pages, film):
    """A range behind the end is refused with the size."""
    path, content = film
    answer = pages.get(path, headers={"Range": f"bytes={len(content)}-"})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


def test_validators(pages, film):
    """HEAD tells size and tag; the tag makes a range or saves the transfer; another tag gets the whole file."""
    path, content = film
    head = pages.get(path, method="HEAD", headers={"Range": "bytes=0-1"})
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(content)), b"")
    tag = head.headers["ETag"]
    some = pages.get(path, headers={"Range": "bytes=0-1", "If-Range": tag})
    other = pages.get(path, headers={"Range": "bytes=0-1", "If-Range": '"another"'})
    known = pages.get(path, headers={"If-None-Match": f'"x", W/{tag}'})
    assert (some.status_code, other.status_code, known.status_code) == (206, 200, 304)
    assert len(other.content) == len(content)
    # A browser takes the headers of a 304 over: no-store there would make it forget the file.
    assert known.headers["Cache-Control"] == some.headers["Cache-Control"] == "private, no-cache"


def test_many_at_once(pages, film):
    """Viewers do not disturb each other."""
    path, content = film
    pages.get(path, method="HEAD")
    with ThreadPoolExecutor(6) as viewers:
        starts = [number * 100_000 for number in range(12)]
        parts = viewers.map(lambda at: pages.get(path, headers={"Range": f"bytes={at}-{at + 9999}"}).content, starts)
    assert list(parts) == [content[at : at + 10_000] for at in starts]


def test_a_picture(pages):
    """A stored cover is sent as the picture that its bytes are, whatever the record says."""
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 50
    (pages.root / "cover.png").write_bytes(png)
    record(pages, "pictured", f"file://{pages.root}/cover.png", content_type="image/svg+xml", artifact="cover")
    answer = pages.get(pages.at("pictured", then="/cover"))
    assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (200, "image/png", png)


def test_from_a_bucket(pages, put):
    """A clip in a bucket is read with the root's own connection, and only as much of it as is asked for."""
    content = b"\0\0\0\x20ftypisom" + os.urandom(5_000_000)
    put("shown/a.mp4", content)
    put("hidden/a.mp4", content)
    for folder in ("shown", "hidden"):
        record(pages, f"bucket-{folder}", f"s3://clips/{folder}/a.mp4", size=len(content))
    path = pages.at("bucket-shown", then="/file")
    assert pages.get(path).content == content
    some = pages.get(path, headers={"Range": "bytes=4000000-4099999"})
    assert (some.status_code, some.content) == (206, content[4_000_000:4_100_000])
    assert pages.get(pages.at("bucket-hidden", then="/file")).status_code == 410


@pytest.fixture(scope="session")
def outside(pages):
    """Lay out what must never be read: neighbours, targets of links, things that are not a clip."""
    beside = pages.root.parent
    (beside / "clips-secret").mkdir()
    (beside / "clips-secret" / "a.mp4").write_bytes(MP4)
    (beside / "secret.mp4").write_bytes(MP4)
    (pages.root / "link.mp4").symlink_to(beside / "secret.mp4")
    (pages.root / "folder-link").symlink_to(beside / "clips-secret")
    (pages.root / "inner.mp4").symlink_to(pages.root / "deep" / "a film%20.mp4")
    (pages.root / "folder.mp4").mkdir(exist_ok=True)
    (pages.root / "page.mp4").write_bytes(b"<!doctype html><script>alert(1)</script> secret")
    (pages.root / "vector.mp4").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/> secret")
    (pages.root / "zip.mp4").write_bytes(gzip.compress(MP4))
    (pages.root / "empty.mp4").touch()
    os.mkfifo(pages.root / "pipe.mp4")
    return pages.root


@pytest.mark.fault(
    "attacks",
    "an XCom names a file outside preview_roots",
    outcome="refused",
    side="pages",
    seen="no byte, and the reason",
)
@pytest.mark.parametrize(
    "name",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "{root}/../secret.mp4",
        "{root}/deep/../../secret.mp4",
        "{root}-secret/a.mp4",
        "{root}/link.mp4",
        "{root}/folder-link/a.mp4",
        "{root}/folder.mp4",
        "{root}/page.mp4",
        "{root}/vector.mp4",
        "{root}/zip.mp4",
        "{root}/empty.mp4",
        "{root}/pipe.mp4",
        "{root}/nothing.mp4",
        "{root}",
        "{root}/",
        "{root}/%2e%2e/secret.mp4",
        "{root}/..\\secret.mp4",
        "/proc/self/environ",
        "/proc/self/root{root}/../secret.mp4",
        "http://127.0.0.1/secret.mp4",
        "s3://bucket/secret.mp4",
        "memory://secret.mp4",
    ],
)
def test_nothing_else_is_ever_read(pages, film, outside, name):
    """Names, links and contents that lead out of the root, or are not a clip, give no byte but the reason."""
    for scheme in ("file://", "") if name.startswith("{root}") else ("",):
        uri = scheme + name.format(root=outside)
        task = f"out-{abs(hash(uri))}"
        record(pages, task, uri)
        answer = pages.get(pages.at(task, then="/file"))
        assert answer.status_code == 410, uri
        assert answer.headers["Content-Type"] == "application/json"
        assert b"secret that" not in answer.content
        assert b"root:" not in answer.content


@pytest.mark.fault(
    "attacks",
    "a pipe lies where a clip was, and somebody writes into it",
    outcome="refused",
    side="pages",
    seen="410; the writer is not disturbed",
)
def test_looking_at_a_pipe_opens_nothing(pages, outside):
    """A pipe is refused before it is opened: to open and close it would end a process that waits to write into it."""
    opened = []

    def write() -> None:
        opened.append(os.open(outside / "pipe.mp4", os.O_WRONLY))

    record(pages, "piped", f"file://{outside}/pipe.mp4")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert pages.get(pages.at("piped", then="/file")).status_code == 410
        assert not opened
    finally:
        reader = os.open(outside / "pipe.mp4", os.O_RDONLY | os.O_NONBLOCK)
        writer.join(10)
        for descriptor in (reader, *opened):
            os.close(descriptor)


def test_a_link_within_the_root(pages, film, outside):
    """A link that stays beneath the root is followed."""
    record(pages, "inner", f"file://{outside}/inner.mp4")
    assert pages.get(pages.at("inner", then="/file")).content == film[1]


def test_a_fresh_url_is_passed_on_verbatim(pages, generation):
    """Without a stored file the player is led to the service's own URL, which must not be kept or passed on."""
    generation_id, made = generation()
    pages.add("fresh", generation_id, result=made, watch=MADE)
    # The sandbox is reached over plain http at a private address: the connection, which is its own, vouches for that.
    before = len(pages.sandbox.requests(id=generation_id))
    answer = pages.get(pages.at("fresh", then="/file"))
    assert (answer.status_code, answer.headers["Location"]) == (307, made["video_url"])
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    # The API server itself has fetched nothing.
    assert len(pages.sandbox.requests(id=generation_id)) == before
    assert pages.get(pages.at("fresh", then="/cover")).headers["Location"] == made["cover_url"]


def test_an_old_url_is_replaced_by_a_fresh_one(pages, generation):
    """When the result's URL is old, or came without its signature, the service is asked for a new one."""
    for task, spoilt, age in (("aged", {}, 3), ("bare", {"video_url": "https://cdn.example.com/v.mp4"}, 0)):
        generation_id, made = generation()
        at = datetime.now(UTC) - timedelta(days=age)
        pages.add(task, generation_id, result={**made, **spoilt}, watch=MADE, at=at)
        answer = pages.get(pages.at(task, then="/file"))
        assert answer.status_code == 307
        told, known = urlsplit(answer.headers["Location"]), urlsplit(made["video_url"])
        assert (told.netloc, told.path) == (known.netloc, known.path)
        assert told.query


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "file:///etc/passwd", "//evil", "ftp://host/v", "https://", "x"]
)
def test_only_web_addresses_are_passed_on(pages, url):
    """What an XCom calls a URL is passed on only when it is one of the web."""
    task = f"url-{abs(hash(url))}"
    result = {"id": task, "status": "succeeded", "video_url": url, "cover_url": url}
    pages.add(task, task, result=result)
    for then in ("/file", "/cover"):
        answer = pages.get(pages.at(task, then=then))
        assert answer.status_code == 410
        assert "Location" not in answer.headers


@pytest.mark.fault("attacks", "a line break in a clip's address", outcome="refused", seen="410, and no header")
def test_a_url_with_a_line_break_adds_no_header(pages):
    """A URL in an XCom cannot smuggle a header into the answer."""
    result = {"id": "split", "status": "succeeded", "video_url": "https://cdn.example.com/\r\nSet-Cookie: a=b"}
    pages.add("split", "split", result=result)
    answer = pages.get(pages.at("split", then="/file"))
    assert answer.status_code == 410
    assert "Set-Cookie" not in answer.headers


@pytest.mark.fault(
    "attacks",
    "a link to a media route as an open redirect",
    outcome="refused",
    side="pages",
    seen="400: open the clip's page instead",
)
def test_the_address_bar_is_not_led_away(pages, generation):
    """A link to the media route cannot send a logged-in user to a page of a DAG's choice."""
    generation_id, made = generation()
    pages.add("bar", generation_id, result=made, watch=MADE)
    for place, status in (("document", 400), ("iframe", 400), ("empty", 409), ("video", 307)):
        answer = pages.get(pages.at("bar", then="/file"), headers={"Sec-Fetch-Dest": place})
        assert answer.status_code == status
    # Browsers send no such header to servers on plain http.
    answer = pages.get(pages.at("bar", then="/file"), headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, "Location" in answer.headers) == (400, False)


def test_a_link_that_no_browser_can_follow_is_not_called_lost(pages, generation):
    """Some gateways demand the key for the file itself: a download gets it, so nothing is to be ordered again."""
    generation_id, made = generation()
    pages.add("keyed", generation_id, result=made, watch=MADE)
    answer = pages.get(pages.at("keyed", then="/file"), headers={"Sec-Fetch-Dest": "empty"})
    assert answer.status_code == 409
    assert "demand the connection's key" in answer.json()["detail"]
    assert "a ViduDownloadOperator finds out whether the service still has the file" in answer.json()["detail"]
    assert "no longer has" not in answer.json()["detail"]


def test_a_dead_link_does_not_hide_the_stored_file(pages, generation):
    """What the page says when the service's link does not work names the file that a task has stored."""
    generation_id, made = generation()
    file = {"uri": "file:///elsewhere/kept.mp4", "size": 9, "generation_id": generation_id}
    pages.add("dead", generation_id, result={**made, "file": file}, watch={**MADE, "stores": "file"})
    answer = pages.get(pages.at("dead", then="/file"), headers={"Sec-Fetch-Dest": "empty"})
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith(
        "A task stored the file at file:///elsewhere/kept.mp4, which is not beneath"
    )
    assert "a ViduDownloadOperator finds out whether" in answer.json()["detail"]


@pytest.mark.fault(
    "attacks",
    "an XCom leads the player to Airflow's own host or its log-out",
    outcome="refused",
    side="pages",
    seen="410: the link is not followed",
)
def test_no_player_is_sent_to_airflow_itself(pages):
    """Cookies know no ports: a URL at Airflow's own host would receive the session, or end it at the log-out."""
    port = urlsplit(pages.url).port
    for number, url in enumerate(
        (f"{pages.url}/auth/logout", "http://localhost:1/steal", "https://LOCALHOST.:9/x", f"http://[::1]:{port}/x")
    ):
        task = f"own-{number}"
        result = {"id": task, "status": "succeeded", "video_url": f"{url}?a=b", "cover_url": f"{url}?a=b"}
        pages.add(task, task, result=result, watch=MADE)
        for then in ("/file", "/cover"):
            answer = pages.get(pages.at(task, then=then), headers={"Sec-Fetch-Dest": "video"})
            assert (answer.status_code, "Location" in answer.headers) == (410, False)


@pytest.mark.fault(
    "attacks",
    "a clip is loaded from another port of Airflow's host",
    outcome="survived",
    side="pages",
    seen="the browser sends no cookies",
)
def test_what_is_loaded_from_elsewhere_gets_no_cookies(pages):
    """The page asks browsers to leave cookies out of what it loads from other origins."""
    assert pages.get(pages.at("any")).headers["Cross-Origin-Embedder-Policy"] == "credentialless"


@pytest.mark.fault(
    "attacks",
    "the file of a clip is an HLS list of Airflow's own addresses",
    outcome="refused",
    side="pages",
    seen="403: the viewer stays logged in",
)
@pytest.mark.parametrize(
    "sent",
    [{"Sec-Fetch-Dest": "video"}, {"Sec-Fetch-Dest": "audio"}, {"Range": "bytes=0-"}],
    ids=str,
)
def test_a_player_requests_nothing_of_airflow_itself(pages, sent):
    """Its requests carry the cookie, and no referrer: they would end the session."""
    log_out = "/api/v2/auth/logout"
    assert pages.get(log_out, headers=sent).status_code == 403
    assert pages.get(pages.at("any", then="/clip.json")).status_code == 404  # not 401
    # A player of another page, which tells where it is, and a program with a token are none of our business.
    for headers in ({**sent, "Referer": pages.url + "/another/page"}, {}):
        assert pages.get("/api/v2/version", headers=headers).status_code == 200
    assert pages.get("/api/v2/version", None, headers={"Range": "bytes=0-"}).status_code == 200


@pytest.mark.fault(
    "attacks",
    "the server of a clip's cover redirects the browser to Airflow's log-out",
    outcome="refused",
    side="pages",
    seen="403: the viewer stays logged in",
)
@pytest.mark.parametrize(
    "sent",
    [
        {"Sec-Fetch-Dest": "image", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Dest": "image", "Sec-Fetch-Site": "same-site"},
        {"Accept": "image/avif,image/webp,*/*;q=0.8"},
        {"Icy-Metadata": "1"},
        {"X-Playback-Session-Id": "5E3B"},
    ],
    ids=str,
)
def test_a_picture_requests_nothing_of_airflow_itself(pages, sent):
    """Safari, and any browser on plain http, sends the cookie to Airflow after a redirect there from elsewhere."""
    log_out = "/api/v2/auth/logout"
    assert pages.get(log_out, headers=sent).status_code == 403
    assert pages.get(pages.at("any", then="/clip.json")).status_code == 404  # not 401
    # Airflow's own pictures, also on these pages, and a program with a token.
    assert pages.get("/static/pin_32.png", headers={**sent, "Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert pages.get("/api/v2/version", headers={**sent, "Referer": pages.url + "/"}).status_code == 200
    if "Sec-Fetch-Dest" in sent:
        own = {"Sec-Fetch-Dest": "image", "Sec-Fetch-Site": "same-origin"}
        assert pages.get("/api/v2/version", headers=own).status_code == 200
    else:
        assert pages.get("/api/v2/version", None, headers=sent).status_code == 200


@pytest.mark.fault(
    "attacks",
    "the server of a clip's cover names Airflow's log-out in a Link header",
    outcome="refused",
    side="pages",
    seen="403: the viewer stays logged in",
)
@pytest.mark.parametrize(
    "sent",
    [
        {"Sec-Fetch-Dest": "script", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"},
        {"User-Agent": "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15", "Accept": "*/*"},
    ],
    ids=str,
)
def test_a_log_out_is_only_visited(pages, sent):
    """Safari loads what such a header names with the cookie and, where the header wants that, with a referrer."""
    log_out, browser = "/api/v2/auth/logout", {"User-Agent": "Mozilla/5.0"}
    for headers in (sent, {**sent, "Referer": pages.url + "/"}):
        for path in (log_out, "/auth/logout", "/auth/logout/"):
            assert pages.get(path, headers=headers).status_code == 403
    assert pages.get(pages.at("any", then="/clip.json")).status_code == 404  # not 401
    assert pages.get("/api/v2/version", headers={**sent, "Referer": pages.url + "/"}).status_code == 200
    for visit in ({**browser, "Sec-Fetch-Dest": "document"}, {**browser, "Accept": "text/html,*/*;q=0.8"}, {}):
        assert pages.get(log_out, None, headers=visit).status_code != 403


@pytest.mark.fault(
    "attacks",
    "an XCom leads the player to plain http or a private address",
    outcome="refused",
    side="pages",
    seen="410: the link is not followed",
)
def test_plain_http_needs_a_connection_that_is_plain_http(pages):
    """An XCom alone cannot send the browser to an address without TLS, or to a private one."""
    for number, url in enumerate(("http://cdn.example.net/v.mp4?a=b", "https://10.1.2.3/v.mp4?a=b")):
        task = f"clear-{number}"
        result = {"id": task, "status": "succeeded", "video_url": url}
        pages.add(task, task, result=result)
        answer = pages.get(pages.at(task, then="/file"))
        assert answer.status_code == 410
        assert "not followed" in answer.json()["detail"]


@pytest.mark.fault(
    "stores and files",
    "mapped downloads have overwritten one file name",
    outcome="clear error",
    side="pages",
    seen="410: another file has replaced the stored one",
)
def test_a_file_that_was_replaced_is_not_this_clip(pages):
    """Where mapped downloads have overwritten one another, no clip plays for another one."""
    (pages.root / "shared.mp4").write_bytes(MP4)
    record(pages, "overwritten", f"file://{pages.root}/shared.mp4", size=len(MP4) + 1)
    answer = pages.get(pages.at("overwritten", then="/file"))
    assert answer.status_code == 410
    assert "replaced" in answer.json()["detail"]


def test_sound_and_several_pictures(pages, generation):
    """A result may be sound, or several pictures: each is shown as what it is, and sent with its own type."""
    wav = b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 40
    (pages.root / "voice.bin").write_bytes(wav)
    record(pages, "voice", f"file://{pages.root}/voice.bin", content_type=None)
    assert [(piece["medium"], piece["from"]) for piece in pages.clip("voice")["pieces"]] == [("audio", "storage")]
    answer = pages.get(pages.at("voice", then="/file"))
    assert (answer.headers["Content-Type"], answer.content) == ("audio/wav", wav)

    urls = [f"https://cdn.example.net/{number}.png" for number in range(3)]
    result = {"id": "three", "status": "succeeded", "video_url": urls[0]}
    result["artifacts"] = [{"url": f"{url}?Signature=s"} for url in urls]
    pages.add("three", "three", result=result)
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 50
    (pages.root / "second.png").write_bytes(png)
    kept = {"uri": f"file://{pages.root}/second.png", "size": len(png), "content_type": "image/png"}
    kept |= {"generation_id": "three", "source": urls[1]}
    pages.add("three-keep", "three", result=kept, watch={"role": "download"})
    shown = pages.clip("three")
    assert [(piece["medium"], piece["from"]) for piece in shown["pieces"]] == [
        ("image", "service"), ("image", "storage"), ("image", "service"),
    ]  # fmt: skip
    assert pages.get(pages.at("three", then="/file?piece=1")).content == png
    assert pages.get(pages.at("three", then="/file?piece=2")).headers["Location"] == f"{urls[2]}?Signature=s"
    assert pages.get(pages.at("three", then="/file?piece=3")).status_code == 404


def descriptors(pages):
    """Return how many files the API server has open."""
    return len(os.listdir(f"/proc/{pages.pid}/fd"))  # noqa: PTH208 - the entries vanish while they are looked at


@pytest.mark.fault(
    "attacks",
    "a reader sends ranges of 5,000 digits and more",
    outcome="survived",
    side="pages",
    seen="the file; no descriptor stays open",
)
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")  # noqa: PTH112
@pytest.mark.parametrize("header", ["bytes=" + "9" * 5000 + "-", "bytes=-" + "9" * 5000, "bytes=0-" + "1" * 30_000])
def test_no_request_keeps_a_file_open(pages, film, header):
    """Digits by the thousand in a range lose no descriptor: at the limit the server would not answer any more."""
    path, _ = film
    pages.get(path, method="HEAD")
    before = descriptors(pages)
    for _ in range(12):
        assert pages.get(path, headers={"Range": header}).status_code == 200
    assert descriptors(pages) <= before + 4


@pytest.mark.fault(
    "attacks", "a reader sends 60 kB of blanks after bytes=", outcome="survived", side="pages", seen="the file, at once"
)
def test_one_header_does_not_stop_the_server(pages, film):
    """60 kB of blanks behind ``bytes=`` are answered at once."""
    path, _ = film
    began = time.monotonic()
    for _ in range(5):  # 3 s each on the event loop, when matching was quadratic
        assert pages.get(path, headers={"Range": "bytes=" + " " * 60_000 + "x"}).status_code == 200
    assert time.monotonic() - began < 10


@pytest.mark.fault(
    "attacks", "readers break off while a file is sent", outcome="survived", seen="no descriptor is lost"
)
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")  # noqa: PTH112
def test_readers_who_leave_keep_no_file_open(pages, film):
    """Connections that end with a reset, before, at and after the first bytes, leave nothing behind."""
    path, _ = film
    pages.get(path, method="HEAD")
    before, place = descriptors(pages), urlsplit(pages.url)
    cookie = pages.sessions["vera"].cookies["_token"]
    head = f"GET {place.path}{path} HTTP/1.1\r\nHost: {place.netloc}\r\nCookie: _token={cookie}\r\n\r\n"
    for number in range(24):
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.sendall(head.encode())
            if number % 3:
                connection.recv(1 if number % 3 == 1 else 100_000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until = time.monotonic() + 20
    while descriptors(pages) > before + 4 and time.monotonic() < until:
        pages.get(path, method="HEAD")
    assert descriptors(pages) <= before + 4


@pytest.mark.fault(
    "attacks",
    "a store that ignores the range of a request, or lies about it",
    outcome="survived",
    side="pages",
    seen="each piece as it is, and no more of an answer in memory",
)
def test_a_piece_of_a_store_that_ignores_ranges(monkeypatch):
    """Eight looks at the first bytes of a clip took the whole object into the API server's memory eight times."""
    content = video(64 * MIB)
    sent: list[int] = []

    def answer(request: Request, wire: Wire) -> None:
        wire.head(200, Content_Length=len(content), ETag='"v1"', Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")
        if request.method == "HEAD":
            return
        count = 0
        with suppress(OSError):
            while count < len(content):
                count += wire.sock.send(content[count : count + MIB])
        sent.append(count)

    with Server(answer) as store:
        extra = {"endpoint_url": store.url("").rstrip("/"), "region_name": "us-east-1"}
        stored = {"conn_type": "aws", "login": "someone", "password": "something", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_RANGELESS", json.dumps(stored))
        spot = Spot("s3", "clips", ("a.mp4",))
        opened = open_beneath(Root(replace(spot, parts=()), "rangeless"), spot)
        assert opened.read(0, 100) == content[:100]
        assert opened.read(3_000_000, 2 * MIB) == content[3_000_000 : 3_000_000 + 2 * MIB]
    assert max(sent) < 32 * MIB
