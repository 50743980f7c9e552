"""Files in a request, over sockets: what the upload service and the create get, and what never leaves."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduGenerateOperator
from airflow_provider_vidu.orders.media.files import MAX_UPLOAD_BYTES, MediaFile
from airflow_provider_vidu.orders.media.prepared import MAX_IMAGE_BYTES, Prepared
from airflow_provider_vidu.orders.order import Order
from airflow_provider_vidu.orders.records import RecordStore
from airflow_provider_vidu.orders.submission import OrderRecord, Submission
from tests.integration.servers import Request, Server, Wire

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_backoff")]

KEY = "sk-inputs-93ac51"
PNG = b"\x89PNG\r\n\x1a\n" + b"p" * 20
MP4 = b"\0\0\0\x18ftypisom" + b"v" * 200_000
SIGNED = "/put/{id}?sig=a%2Fb~;c&X-Amz-Expires=60"


@dataclass
class Seen:
    """A request that has arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


@dataclass
class Service:
    """The official API as far as uploads and creates go, beneath a path prefix.

    ``put_url`` may be replaced; each of ``answers`` (status and headers) stands for one PUT of bytes.
    """

    url: str = ""
    put_url: str = ""
    prefix: str = "/vidu"
    has_uploads: bool = True
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    requests: list[Seen] = field(default_factory=list)

    def of(self, method: str, part: str) -> list[Seen]:
        """Return the requests of a method whose target holds a text."""
        return [seen for seen in self.requests if seen.method == method and part in seen.target]

    @property
    def creates(self) -> list[Seen]:
        """The creates that have arrived."""
        return self.of("POST", "2video") + self.of("POST", "lip-sync")

    def answer(self, seen: Seen) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and body for a request."""
        uploads = f"{self.prefix}/tools/v2/files/uploads"
        if seen.target.startswith("/put/"):
            status, headers = self.answers.pop(0) if self.answers else (200, {"ETag": f'"{_md5(seen.body)}"'})
            return status, headers, None
        if seen.target.startswith(uploads):
            if not self.has_uploads:
                return 404, {}, {"code": 404, "reason": "NotFound", "message": "no such path"}
            number = len(self.of("POST", uploads))
            if seen.method == "POST":
                return 200, {}, {"id": number, "put_url": self.put_url or self.url + SIGNED.format(id=number)}
            return 200, {}, {"uri": f"ssupload:?id={number}"}
        if seen.method == "POST":
            return 200, {}, {"task_id": "911", "state": "created", "credits": 4}
        return 200, {}, {"id": "911", "state": "processing", "creations": []}


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def service() -> Iterator[Service]:
    """Run the service on loopback."""
    found = Service()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen = Seen(self.command, self.path, {n.lower(): v for n, v in self.headers.items()}, body)
            found.requests.append(seen)
            status, headers, content = found.answer(seen)
            data = b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    for method in ("GET", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler._serve)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def connect(service, monkeypatch) -> Callable[..., None]:
    """Point the default connection at the service."""

    def connect(dialect: str = "ent-v2", **extra: Any) -> None:
        fields = {
            "conn_type": "vidu",
            "host": service.url + service.prefix,
            "password": KEY,
            "extra": {"dialect": dialect, "max_retries": 2, "timeout": 5, **extra},
        }
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))

    connect()
    return connect


def generate(context: dict[str, Any], **arguments: Any) -> Any:
    """Run the operator's submit."""
    vars(context["ti"]).update(max_tries=0)
    operator = ViduGenerateOperator(
        task_id="t", wait_for_completion=False, durable=False, **{"endpoint": "img2video", **arguments}
    )
    return operator.execute(context)


@pytest.fixture
def video(tmp_path) -> Path:
    """Write a video."""
    path = tmp_path / "a.mp4"
    path.write_bytes(MP4)
    return path


def test_a_video_is_uploaded(service, connect, context, video, tmp_path):
    """The bytes go to the signed URL, verbatim and without the key; the create gets the address of the upload."""
    picture = tmp_path / "a.png"
    picture.write_bytes(PNG)
    os.truncate(picture, MAX_IMAGE_BYTES + 1)
    parameters = {"video_url": str(video), "ref_photo_url": f" {picture.as_uri()}\n"}
    generate(context, prompt="x", model="m", parameters=parameters, endpoint="lip-sync")

    opened = service.of("POST", "/vidu/tools/v2/files/uploads")
    assert [seen.json() for seen in opened] == [{"scene": "vidu"}] * 2
    puts = service.of("PUT", "/put/")
    assert [seen.target for seen in puts] == [SIGNED.format(id=1), SIGNED.format(id=2)]
    contents = {seen.headers["content-type"]: seen.body for seen in puts}
    assert contents == {"video/mp4": MP4, "image/png": picture.read_bytes()}
    assert all("authorization" not in seen.headers and KEY not in str(seen.headers) for seen in puts)
    finished = service.of("PUT", "/finish")
    assert [(seen.target, seen.json()) for seen in finished] == [
        (f"/vidu/tools/v2/files/uploads/{number}/finish", {"etag": _md5(seen.body)})
        for number, seen in enumerate(puts, 1)
    ]
    assert all(seen.headers["authorization"] == f"Token {KEY}" for seen in (*opened, *finished))
    (create,) = service.creates
    assert sorted((create.json()["ref_photo_url"], create.json()["video_url"])) == ["ssupload:?id=1", "ssupload:?id=2"]


def test_media_inside_a_body(service, connect, context, tmp_path):
    """Fields deep in a whole body are read as well; the rest of it stays as it is."""
    picture = tmp_path / "a.png"
    picture.write_bytes(PNG)
    body = {"subjects": [{"name": "s", "images": [str(picture)]}], "prompt": "@s waves", "model": "m"}
    generate(context, body=body, endpoint="reference2video")
    (create,) = service.creates
    sent = create.json()
    assert sent["subjects"][0].pop("images")[0].startswith("data:image/png;base64,")
    assert sent == {"subjects": [{"name": "s"}], "prompt": "@s waves", "model": "m"}


def test_an_upload_that_fails_is_tried_again(service, connect, context, video):
    """A failure that may pass gets a new upload; the create is sent once."""
    service.answers = [(503, {}), (403, {})]
    generate(context, prompt="x", model="m", parameters={"video_url": str(video)})
    assert [seen.body == MP4 for seen in service.of("PUT", "/put/")] == [True] * 3
    (create,) = service.creates
    assert create.json()["video_url"] == "ssupload:?id=3"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"put_url": "http://169.254.169.254/latest"}, exceptions.ViduConfigError, "has the link-local address"),
        ({"put_url": "file:///etc/passwd"}, exceptions.ViduResponseError, "without an id or a URL"),
        ({"put_url": "http://user:pw@127.0.0.1/x"}, exceptions.ViduConfigError, "a user name or password"),
        ({"answers": [(307, {"Location": "http://127.0.0.1:9/"})] * 3}, exceptions.ViduResponseError, "redirected"),
        ({"answers": [(200, {})] * 3}, exceptions.ViduResponseError, "without an ETag"),
        ({"answers": [(400, {})]}, exceptions.ViduRequestError, "refused the upload"),
        ({"has_uploads": False}, exceptions.ViduConfigError, "takes no uploads. Put it on the web"),
    ],
    ids=["private", "scheme", "user", "redirect", "no ETag", "refused", "no service"],
)
def test_an_upload_that_cannot_be_made(service, connect, context, video, settings, error, message):
    """Neither an intent nor a create is left behind, and the file goes nowhere else."""
    vars(service).update(settings)
    with pytest.raises(error, match=message):
        generate(context, prompt="x", model="m", parameters={"video_url": str(video)})
    assert service.creates == []
    assert not service.of("PUT", "/finish")


def test_without_an_upload_service(service, connect, context, video):
    """With vidu-native nothing is sent at all, and the error says what to do."""
    connect("vidu-native")
    with pytest.raises(exceptions.ViduConfigError, match=r"vidu-native has no upload service. Put it on the web"):
        generate(context, prompt="x", model="m", parameters={"video_url": str(video)}, endpoint=None)
    assert service.requests == []


class Memory(RecordStore):
    """A store of one record."""

    def __init__(self) -> None:
        self.stored: Any = None

    def load(self) -> OrderRecord | None:
        """Return the record."""
        return OrderRecord.from_json(self.stored)

    def save(self, record: OrderRecord) -> None:
        """Keep the record."""
        self.stored = record.to_json()

    def clear(self) -> None:
        """Forget the record."""
        self.stored = None

    def finished(self) -> None:
        """Do nothing."""


def run(store: Memory, path: Path, number: int = 0) -> str:
    """Make one try of an order."""
    submission = Submission(ViduHook(), store, Order(number), logging.getLogger("tries"), sleep=lambda _: None)
    return submission.generation(Prepared({"prompt": "x", "video_url": str(path)}), "lip-sync").id


def test_a_retry_uploads_nothing_again(service, connect, video, caplog):
    """It finds the earlier try's generation by its record, and knows its request by the file's content."""
    store = Memory()
    first = run(store, video)
    request = store.load().request
    uploads = len(service.of("PUT", "/put/"))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert run(store, video) == first
    assert (len(service.of("PUT", "/put/")), len(service.creates), caplog.messages) == (uploads, 1, [])

    run(store, video, number=1)  # a new order uploads again, and its digest is the same
    assert (len(service.of("PUT", "/put/")), store.load().request) == (uploads + 1, request)
    assert len({create.json()["video_url"] for create in service.creates}) == 2


def test_a_retry_whose_file_is_gone(service, connect, video, caplog):
    """What has been paid for goes on; a new order needs the file."""
    store = Memory()
    first = run(store, video)
    video.unlink()
    with caplog.at_level(logging.WARNING):
        assert run(store, video) == first
    assert "can no longer be read" in caplog.text
    with pytest.raises(exceptions.ViduConfigError, match="it does not exist"):
        run(store, video, number=1)
    assert len(service.creates) == 1


def test_a_refused_input_leaves_no_intent(service, connect, tmp_path):
    """An error before the create does not leave a create of unknown outcome."""
    store = Memory()
    with pytest.raises(exceptions.ViduConfigError, match="it does not exist"):
        run(store, tmp_path / "missing.mp4")
    service.answers = [(400, {})]
    (tmp_path / "a.mp4").write_bytes(MP4)
    with pytest.raises(exceptions.ViduRequestError):
        run(store, tmp_path / "a.mp4")
    assert store.load() is None
    assert service.creates == []


@pytest.mark.fault(
    "attacks", "dag_run.conf sends a download into the DAGs folder", outcome="refused", says="is not beneath one of"
)
def test_a_destination_outside_of_its_roots(service, connect, context, tmp_path, monkeypatch):
    """The download operator refuses before it asks for anything."""
    from airflow_provider_vidu.operators import ViduDownloadOperator

    monkeypatch.setenv("AIRFLOW__VIDU__DESTINATION_ROOTS", f"{tmp_path}/clips")
    operator = ViduDownloadOperator(task_id="t", generation_id="911", destination=f"{tmp_path}/dags/a.mp4")
    with pytest.raises(exceptions.ViduConfigError, match=r"dags/a.mp4' is not beneath .*\[vidu\] destination_roots"):
        operator.execute(context)
    assert service.requests == []


def test_an_object_that_is_too_large_is_not_read(monkeypatch):
    """A store that ignores which part is requested would send all of it into the worker's memory."""

    def answer(request: Request, wire: Wire) -> None:
        wire.head(200, Content_Length=MAX_UPLOAD_BYTES + 1, ETag='"v1"', Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")
        if request.method == "GET":
            wire.send(PNG)

    with Server(answer) as store:
        extra = {"endpoint_url": store.url("").rstrip("/"), "region_name": "us-east-1"}
        stored = {"conn_type": "aws", "login": "someone", "password": "something", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_TOO_LARGE", json.dumps(stored))
        with pytest.raises(exceptions.ViduConfigError, match="larger than 50,000,000 bytes"):
            MediaFile("s3://too_large@clips/a.png", "image", "images", None).load()
    assert {request.method for request in store.requests} == {"HEAD"}
