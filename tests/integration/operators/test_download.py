"""ViduDownloadOperator: arguments, names, fresh URLs, what is there already, and the record it returns."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath

from airflow_provider_vidu.exceptions import (
    ViduBusyError,
    ViduConfigError,
    ViduDownloadError,
    ViduDownloadRefusedError,
    ViduGenerationFailedError,
    ViduMissingVideoError,
    ViduNotFoundError,
)
from airflow_provider_vidu.network.download_url import MAX_BYTES
from airflow_provider_vidu.operators.download import ViduDownloadOperator
from tests.faults.transfer_world import KEY, Gateway, connection
from tests.integration.servers import Answer, Server, fixed, video, whole
from tests.rows import each_row

BODY = video(60_000)
SHA = hashlib.sha256(BODY).hexdigest()
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(3000)


@pytest.fixture
def connect(monkeypatch):
    """Return a function that makes ``vidu_default`` point at a server."""

    def connect(server: Server | None = None, **extra) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", connection(server, **extra))

    return connect


def download(**arguments) -> dict:
    """Run an operator."""
    return ViduDownloadOperator(task_id="download", **arguments).execute({})


# -- arguments ----------------------------------------------------------------------------------


@each_row(
    ("arguments", "words"),
    [
        ({}, "generation_id or video_url"),
        ({"generation_id": "x", "overwrite": "maybe"}, "overwrite must be one of replace, skip, error"),
        ({"generation_id": "x", "artifact": "gif"}, "artifact must be one of video, image, audio, cover, watermarked"),
        ({"generation_id": "x", "creation": -1}, "creation must be a whole number from 0"),
        ({"generation_id": "x", "creation": True}, "creation must be a whole number from 0"),
        ({"generation_id": "x", "creation": "1"}, "creation must be a whole number from 0"),
        ({"video_url": "https://x/y", "creation": 1}, "creation needs generation_id"),
        ({"generation_id": "x", "max_bytes": 0}, "max_bytes"),
        ({"generation_id": "x", "max_bytes": True}, "max_bytes"),
        ({"generation_id": "x", "max_bytes": "1"}, "max_bytes"),
        ({"generation_id": "x", "destination": ""}, "destination is empty"),
        ({"generation_id": "x", "destination": "/a/../../etc/x"}, r"'\.\.' segment"),
        ({"generation_id": "x", "destination": "/a::b.mp4"}, "must not contain '::'"),
        ({"generation_id": "x", "destination": Path("/a/../b/")}, r"'\.\.' segment"),
        ({"video_url": "ftp://x/y?sig=hush"}, "video_url must be an http.*, not 'ftp://x/y'"),
        ({"video_url": "cdn.example.com/a.mp4?sig=hush"}, "not 'cdn.example.com/a.mp4'"),
        ({"video_url": "https://x/a b.mp4"}, "it contains a space or a line break"),
    ],
)
def test_wrong_arguments_fail_at_parse_time(arguments, words):
    """What is wrong in every run is reported when the DAG is read."""
    with pytest.raises(ViduConfigError, match=words):
        ViduDownloadOperator(**{"task_id": "download", "destination": "/tmp/x", **arguments})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"generation_id": ""}, "generation_id is empty"),
        ({"generation_id": "None"}, "the word None"),
        ({"generation_id": 7.5}, "must be a string"),
        ({"generation_id": "x", "destination": "None"}, "destination is empty"),
        ({"video_url": "None"}, "Neither video_url nor generation_id"),
        ({"video_url": None, "generation_id": None}, "Neither video_url nor generation_id"),
        ({"video_url": "nonsense"}, "video_url must be an http"),
    ],
)
def test_wrong_rendered_values_fail_at_once(arguments, words, tmp_path):
    """A field that rendered to nothing is reported before anything else happens."""
    arguments = {"destination": f"{tmp_path}/", **arguments}
    operator = ViduDownloadOperator(task_id="d", **dict.fromkeys(arguments, "{{ x }}"))
    for name, value in arguments.items():
        setattr(operator, name, value)
    with pytest.raises(ViduConfigError, match=words):
        operator.execute({})


def test_templates_and_xcoms_pass_at_parse_time():
    """What is only known later is not judged earlier."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first = ViduDownloadOperator(task_id="a", generation_id="{{ x }}", destination="s3://{{ y }}/../")
        ViduDownloadOperator(task_id="b", generation_id=first.output["generation_id"], destination="/tmp/{{ ds }}/")


def test_dynamic_task_mapping():
    """partial() and expand() accept the arguments, and a wrong name is reported."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        partial = ViduDownloadOperator.partial(task_id="m", destination="/tmp/clips/", overwrite="skip")
        mapped = partial.expand(generation_id=["a", "b"])
        with pytest.raises(TypeError):
            ViduDownloadOperator.partial(task_id="n", destination="/tmp/", nonsense=1).expand(generation_id=["a"])
    assert mapped.operator_class is ViduDownloadOperator


def test_every_argument_that_differs_between_runs_is_a_template():
    """Destination, URL, id, generation, endpoint and both connections are rendered."""
    expected = {
        "generation",
        "destination",
        "video_url",
        "generation_id",
        "storage_conn_id",
        "vidu_conn_id",
        "endpoint",
    }
    assert set(ViduDownloadOperator.template_fields) == expected


# -- with a URL only ----------------------------------------------------------------------------


@pytest.mark.parametrize("conn_id", ["vidu_default", None])
def test_a_url_needs_no_connection(tmp_path, monkeypatch, conn_id):
    """Without a Vidu connection a public URL is fetched, and a private one is refused with advice."""
    monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT", raising=False)
    with Server(whole(BODY)) as server, pytest.raises(ViduDownloadRefusedError, match="allowed_hosts"):
        download(video_url=server.url(), destination=f"{tmp_path}/", vidu_conn_id=conn_id)
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []


def test_the_record(tmp_path, connect):
    """All six fields, as plain JSON; the source has lost its signature."""
    connect(allowed_hosts="127.0.0.1")
    with Server(whole(BODY)) as server:
        record = download(video_url=server.url("/a/clip.mp4?sig=hush"), destination=f"{tmp_path}/x/clip.mp4")
    assert record == {
        "uri": f"file://{tmp_path}/x/clip.mp4",
        "size": len(BODY),
        "sha256": SHA,
        "content_type": "video/mp4",
        "generation_id": None,
        "source": server.url("/a/clip.mp4"),
    }
    assert json.loads(json.dumps(record)) == record
    assert (tmp_path / "x/clip.mp4").read_bytes() == BODY
    assert KEY.encode() not in server.requests[0].raw


def test_a_broken_connection_does_not_stop_a_public_url(tmp_path, connect, caplog, capsys):
    """What is wrong with the connection is said; it is not needed."""
    connect(timeout="nonsense")
    with Server(whole(BODY)) as server, pytest.raises(ViduDownloadRefusedError, match="loopback"):
        download(video_url=server.url(), destination=f"{tmp_path}/")
    assert "'timeout'" in caplog.text + capsys.readouterr().out  # Airflow 3 logs past the logging module


# -- with an id ---------------------------------------------------------------------------------


def test_an_id_is_enough(tmp_path, connect):
    """The URL is asked for; the file is named by the id; the key goes to the own origin."""
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        record = download(generation_id="task_1", destination=f"{tmp_path}/")
    assert record["uri"] == f"file://{tmp_path}/task_1.mp4"
    assert (record["generation_id"], record["sha256"]) == ("task_1", SHA)
    assert record["source"] == gateway.url("/f/video.mp4")
    assert (tmp_path / "task_1.mp4").read_bytes() == BODY
    assert gateway.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_given_url_is_tried_first(tmp_path, connect):
    """With URL and id the service is not asked unless the URL fails."""
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        download(generation_id="t", video_url=gateway.url("/given.mp4?a"), destination=f"{tmp_path}/")
    assert (gateway.polls, gateway.fetched) == (0, ["/given.mp4?a"])
    assert (tmp_path / "t.mp4").exists()


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("failed", ViduGenerationFailedError, "failed"),
        ("processing", ViduBusyError, "ViduGenerationSensor before this task"),
    ],
)
def test_a_generation_without_a_video(tmp_path, connect, state, error, words):
    """A failed generation fails the task for good; an unfinished one may be retried."""
    with Gateway(whole(BODY), state=state) as gateway:
        connect(gateway)
        with pytest.raises(error, match=words) as caught:
            download(generation_id="t", destination=f"{tmp_path}/")
    assert caught.value.generation_id == "t"
    assert caught.value.conn_id == "vidu_default"
    assert caught.value.retryable == (state == "processing")
    assert list(tmp_path.iterdir()) == []


def test_a_generation_that_is_not_known(tmp_path, connect):
    """The service's own answer is what the user reads."""
    with Server(fixed(404, b'{"error": {"message": "no such task"}}', Content_Type="application/json")) as server:
        connect(server)
        with pytest.raises(ViduNotFoundError):
            download(generation_id="t", destination=f"{tmp_path}/")


def test_an_id_needs_a_connection(tmp_path, monkeypatch):
    """Without a connection, no fresh URL can be requested."""
    monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT", raising=False)
    with pytest.raises(ViduConfigError, match="vidu_default") as caught:
        download(generation_id="t", destination=f"{tmp_path}/")
    assert caught.value.__cause__ is None  # the log ends with one traceback
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_cover_must_be_an_image(tmp_path, connect):
    """A cover has a name of its own, and a video in its place is refused."""
    with Gateway(fixed(200, JPEG, Content_Type="image/jpeg"), whole(BODY)) as gateway:
        connect(gateway)
        gateway.urls = {"thumbnail_url": gateway.url("/f/cover.jpg")}
        cover = download(generation_id="t", artifact="cover", destination=f"{tmp_path}/")
        with pytest.raises(ViduDownloadRefusedError, match="instead of a picture"):
            download(generation_id="t", artifact="cover", destination=f"{tmp_path}/")
    assert cover["content_type"] == "image/jpeg"
    assert cover["uri"] == f"file://{tmp_path}/t-cover.jpg"
    assert gateway.fetched == ["/f/cover.jpg"] * 2


def test_an_artifact_that_is_not_there(tmp_path, connect):
    """A generation without a cover says so."""
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        with pytest.raises(ViduMissingVideoError, match=r"no cover URL\. It has: result\.") as caught:
            download(generation_id="t", artifact="cover", destination=f"{tmp_path}/")
    assert caught.value.generation_id == "t"


def test_the_extension_follows_the_content(tmp_path, connect):
    """A WebM is no .mp4, whatever the URL is called."""
    webm = b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x84webm" + bytes(3000)
    with Gateway(fixed(200, webm, Content_Type="application/octet-stream")) as gateway:
        connect(gateway)
        record = download(generation_id="t", destination=f"{tmp_path}/")
    assert record["uri"].endswith("/t.webm")
    assert record["content_type"] == "video/webm"


def test_an_id_cannot_leave_the_folder(tmp_path, connect):
    """Separators and dots in an id become part of a harmless name."""
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        download(generation_id="../../etc/pass wd", destination=f"{tmp_path}/clips/")
    (file,) = (tmp_path / "clips").iterdir()
    assert file.name.startswith("etc_pass_wd-")


def test_memory_as_a_destination(connect):
    """A store that no Airflow provider registers works through fsspec."""
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        record = download(generation_id="t", destination="memory://operator/clips/")
    assert record["uri"] == "memory://operator/clips/t.mp4"


# -- what is there already ----------------------------------------------------------------------


@pytest.mark.parametrize("folder", [True, False])
def test_skip_fetches_nothing(tmp_path, connect, folder):
    """An existing file is described by the same record, and nothing is requested."""
    (tmp_path / "t.mp4").write_bytes(BODY)
    with Gateway(whole(b"other")) as gateway:
        connect(gateway)
        record = download(
            generation_id="t",
            video_url=gateway.url("/v.mp4?sig=hush"),
            destination=f"{tmp_path}/" if folder else f"{tmp_path}/t.mp4",
            overwrite="skip",
        )
    assert gateway.requests == []
    assert record == {
        "uri": f"file://{tmp_path}/t.mp4",
        "size": len(BODY),
        "sha256": SHA,
        "content_type": "video/mp4",
        "generation_id": "t",
        "source": gateway.url("/v.mp4"),
    }


@pytest.mark.parametrize("name", ["", "today.mp4"], ids=["in a folder", "of a fixed name"])
def test_a_file_of_a_fixed_name_that_is_kept_is_noted(tmp_path, connect, name):
    """Its page must not show it as this clip: it may be another's. In a folder, the name is the generation's."""
    (tmp_path / (name or "t.mp4")).write_bytes(BODY)
    ti = MagicMock(try_number=1, task_id="store", dag_id="d", run_id="r", map_index=-1)
    with Gateway(whole(b"other")) as gateway:
        connect(gateway)
        operator = ViduDownloadOperator(
            task_id="store", generation_id="t", destination=f"{tmp_path}/{name}", overwrite="skip"
        )
        operator.execute({"ti": ti})
    notes = [call.kwargs["value"] for call in ti.xcom_push.call_args_list if call.kwargs["key"] == "vidu_watch"]
    assert [bool(note.get("existed")) for note in notes] == ([False, True] if name else [False])


@pytest.mark.parametrize("overwrite", ["skip", "error"])
@pytest.mark.parametrize("there", [None, b""])
def test_skip_and_error_download_what_is_missing(tmp_path, connect, overwrite, there):
    """No file, or an empty one, does not justify a skip."""
    if there is not None:
        (tmp_path / "t.mp4").write_bytes(there)
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        download(generation_id="t", destination=f"{tmp_path}/", overwrite=overwrite)
    assert (tmp_path / "t.mp4").read_bytes() == BODY


def test_error_fetches_nothing(tmp_path, connect):
    """An existing file fails the task for good, before anything is fetched."""
    (tmp_path / "t.mp4").write_bytes(b"old")
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        with pytest.raises(ViduDownloadRefusedError, match=r"exists already.*generation t"):
            download(generation_id="t", destination=f"{tmp_path}/", overwrite="error")
    assert gateway.requests == []
    assert (tmp_path / "t.mp4").read_bytes() == b"old"


def test_replace_replaces(tmp_path, connect):
    """The old file is there until the new one is whole."""
    (tmp_path / "t.mp4").write_bytes(b"old")
    with Gateway(fixed(200, b"<html>", Content_Type="text/html"), whole(BODY)) as gateway:
        connect(gateway)
        with pytest.raises(ViduDownloadRefusedError):
            download(generation_id="t", destination=f"{tmp_path}/")
        assert (tmp_path / "t.mp4").read_bytes() == b"old"
        download(generation_id="t", destination=f"{tmp_path}/")
    assert (tmp_path / "t.mp4").read_bytes() == BODY


@pytest.mark.parametrize("overwrite", ["skip", "error"])
def test_a_file_that_comes_in_the_meantime(tmp_path, connect, overwrite):
    """A faster task wins: its file is described, or it is an error; ours leaves no trace."""

    def slow(request, wire):
        (tmp_path / "t.mp4").write_bytes(BODY[:5000])
        whole(BODY)(request, wire)

    with Gateway(slow) as gateway:
        connect(gateway)
        arguments = {"generation_id": "t", "destination": f"{tmp_path}/", "overwrite": overwrite}
        if overwrite == "skip":
            assert download(**arguments)["size"] == 5000
        else:
            with pytest.raises(ViduDownloadRefusedError, match="exists already"):
                download(**arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["t.mp4"]
    assert (tmp_path / "t.mp4").read_bytes() == BODY[:5000]


@pytest.mark.parametrize("folder", [True, False], ids=["folder", "file"])
def test_a_retry_takes_its_own_file(tmp_path, connect, folder):
    """Its first try was killed behind the publish: it failed on that file for ever. Other bytes are an error."""
    destination = f"{tmp_path}/" if folder else f"{tmp_path}/t.mp4"
    task = ViduDownloadOperator(task_id="d", generation_id="t", destination=destination, overwrite="error")
    again = {"ti": SimpleNamespace(try_number=2, map_index=-1, xcom_push=lambda **_: None)}
    with Gateway(*[whole(BODY)] * 3) as gateway:
        connect(gateway)
        first = task.execute({})
        record = task.execute(again)
        assert (record["uri"], record["sha256"]) == (first["uri"], SHA)
        with pytest.raises(ViduDownloadRefusedError, match="exists already"):
            task.execute({})
        (tmp_path / "t.mp4").write_bytes(BODY[:5000])
        with pytest.raises(ViduDownloadRefusedError, match="exists already"):
            task.execute(again)
    assert [path.name for path in tmp_path.iterdir()] == ["t.mp4"]
    assert (tmp_path / "t.mp4").read_bytes() == BODY[:5000]


MEDIA = {
    "t.gif": (b"GIF89a" + BODY, "image/gif"),
    "t.png": (b"\x89PNG\r\n\x1a\n" + BODY, "image/png"),
    "t.mpg": (b"\0\0\1\xba" + BODY, "video/mpeg"),
    "t.flac": (b"fLaC" + BODY, "audio/flac"),
    "t.wav": (b"RIFF\0\0\0\0WAVE" + BODY, "audio/wav"),
}


@pytest.mark.fault(
    "stores and files",
    "a picture or a sound declared as video/mp4",
    outcome="survived",
    seen="a file named by its bytes",
)
@pytest.mark.parametrize("name", MEDIA)
def test_a_result_is_kept_whatever_its_medium(tmp_path, connect, name):
    """The default takes pictures and sound as well, and names and types them by their bytes, whatever the header."""
    body, kind = MEDIA[name]
    with Gateway(whole(body, Content_Type="video/mp4")) as gateway:
        connect(gateway)
        record = download(generation_id="t", destination=f"{tmp_path}/")
    assert record["uri"] == f"file://{tmp_path}/{name}"
    assert record["content_type"] == kind
    assert (tmp_path / name).read_bytes() == body


@pytest.mark.parametrize(
    ("artifact", "name", "other"),
    [("video", "t.mpg", "t.wav"), ("image", "t.png", "t.mpg"), ("audio", "t.wav", "t.png")],
)
def test_naming_a_medium_insists_on_it(tmp_path, connect, artifact, name, other):
    """The result of the medium that is named is kept, and one of another medium is refused."""
    with Gateway(whole(MEDIA[name][0]), whole(MEDIA[other][0])) as gateway:
        connect(gateway)
        record = download(generation_id="t", artifact=artifact, destination=f"{tmp_path}/")
        with pytest.raises(ViduDownloadRefusedError, match="Without artifact the result is kept"):
            download(generation_id="t", artifact=artifact, destination=f"{tmp_path}/")
    assert record["uri"] == f"file://{tmp_path}/{name}"


@contextlib.contextmanager
def creations(*answers: Answer):
    """Run an official service with one finished generation of two creations; ``answers`` are its files."""
    files = list(answers)

    def answer(request, wire) -> None:
        if "/creations" not in request.target:
            files.pop(0)(request, wire)
            return
        found = [
            {"id": "1", "url": server.url("/1.mp4?sig=a"), "cover_url": server.url("/1.jpg?sig=a")},
            {"id": "2", "url": server.url("/2.mp4?sig=a"), "watermarked_url": server.url("/2w.mp4?sig=a")},
        ]
        body = json.dumps({"id": "g", "state": "success", "creations": found}).encode()
        fixed(200, body, Content_Type="application/json")(request, wire)

    with Server(answer) as server:
        yield server


def test_each_creation_can_be_kept(tmp_path, connect):
    """The second creation has a name of its own, and its files are its own."""
    with creations(whole(BODY), whole(BODY[:50_000]), whole(BODY[:40_000])) as server:
        connect(server, dialect="ent-v2")
        arguments = {"generation_id": "9112", "destination": f"{tmp_path}/"}
        records = [
            download(**arguments),
            download(creation=1, **arguments),
            download(creation=1, artifact="watermarked", **arguments),
        ]
        skipped = download(creation=1, overwrite="skip", **arguments)
        with pytest.raises(ViduMissingVideoError, match=r"creation 1 .* no cover URL\. It has: result, watermarked\."):
            download(creation=1, artifact="cover", **arguments)
        with pytest.raises(ViduConfigError, match="no creation 2: the generation has 2 creations, numbers 0 to 1"):
            download(creation=2, **arguments)
    names = [Path(record["uri"]).name for record in records]
    assert names == ["9112.mp4", "9112-2.mp4", "9112-watermarked-2.mp4"]
    assert [Path(record["source"]).name for record in records] == ["1.mp4", "2.mp4", "2w.mp4"]
    assert skipped["uri"] == records[1]["uri"]


@pytest.mark.parametrize("name", MEDIA)
def test_skip_knows_files_of_every_kind(tmp_path, connect, name):
    """A second run keeps what the first has stored."""
    with Gateway(whole(MEDIA[name][0], Content_Type=MEDIA[name][1])) as gateway:
        connect(gateway)
        arguments = {"generation_id": "t", "destination": f"{tmp_path}/", "overwrite": "skip"}
        first = download(**arguments)
        again = download(**arguments)
    assert first["uri"].endswith(name)
    assert {**again, "source": None} == {**first, "source": None}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(gateway.fetched) == 1


def test_a_folder_without_its_slash_is_told_before_fetching(tmp_path, connect):
    """The most common slip is reported at once."""
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        with pytest.raises(ViduConfigError, match="end it with a slash"):
            download(generation_id="t", destination=str(tmp_path))
    assert gateway.requests == []


# -- ends ---------------------------------------------------------------------------------------


def test_max_bytes(tmp_path, connect):
    """A file that is too large is refused, with nothing published."""
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        with pytest.raises(ViduDownloadRefusedError, match="max_bytes"):
            download(generation_id="t", destination=f"{tmp_path}/", max_bytes=1000)
    assert list(tmp_path.iterdir()) == []


def test_the_setting_for_all_tasks_bounds_what_a_task_does_not(tmp_path, connect, monkeypatch):
    """``[vidu] max_bytes`` holds where a task says nothing; nonsense is named."""
    arguments = {"generation_id": "t", "destination": f"{tmp_path}/"}
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        monkeypatch.setenv("AIRFLOW__VIDU__MAX_BYTES", "1000")
        with pytest.raises(ViduDownloadRefusedError, match="max_bytes is 1,000"):
            download(**arguments)
        assert download(max_bytes=10**6, **arguments)["size"] == len(BODY)
        for nonsense in ("0", "-1", "20 GiB", "1.5"):
            monkeypatch.setenv("AIRFLOW__VIDU__MAX_BYTES", nonsense)
            with pytest.raises(ViduConfigError, match=rf"\[vidu\] max_bytes must be a whole number.*'{nonsense}'"):
                download(**arguments)


@pytest.mark.fault(
    "attacks", "a server announces more than max_bytes", outcome="refused", says="max_bytes is 21,474,836,480"
)
def test_a_server_that_announces_too_much_is_refused(tmp_path, connect):
    """Without any setting, no announced length fills the disk."""
    with Gateway(whole(BODY, Content_Length=MAX_BYTES + 1)) as gateway:
        connect(gateway)
        with pytest.raises(ViduDownloadRefusedError, match="max_bytes is 21,474,836,480"):
            download(generation_id="t", destination=f"{tmp_path}/")


def test_a_file_that_is_kept_is_read_up_to_max_bytes(tmp_path, connect):
    """What lies there may be larger than any download, or never end: it is not read for its digest."""
    (tmp_path / "t.mp4").write_bytes(BODY)
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        arguments = {"generation_id": "t", "destination": f"{tmp_path}/", "overwrite": "skip"}
        with pytest.raises(ViduDownloadRefusedError, match=r"t\.mp4 exists already and has more than 59,999 bytes"):
            download(max_bytes=len(BODY) - 1, **arguments)
        assert download(max_bytes=len(BODY), **arguments)["size"] == len(BODY)
    assert gateway.requests == []


@pytest.mark.fault("stores and files", "blanks and line ends around video_url", outcome="survived", seen="the file")
def test_blanks_around_a_url_are_dropped(tmp_path, connect):
    """What a template or a file leaves around the URL is not sent."""
    connect(allowed_hosts="127.0.0.1")
    with Server(whole(BODY)) as server:
        download(video_url=f" {server.url('/a.mp4?sig=hush')}\r\n", destination=f"{tmp_path}/a.mp4")
    assert server.requests[0].target == "/a.mp4?sig=hush"


@pytest.mark.fault(
    "from Airflow",
    "an ObjectStoragePath as destination has lost its slash",
    outcome="survived",
    seen="one file for each clip",
)
@pytest.mark.parametrize("destination", ["{}/clips/", "file://{}/clips/"])
def test_an_object_as_destination_is_a_folder(tmp_path, connect, destination):
    """An ObjectStoragePath has lost its slash by the time it is used, and is a folder all the same."""
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        for generation_id in ("a", "b"):
            download(generation_id=generation_id, destination=ObjectStoragePath(destination.format(tmp_path)))
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == ["a.mp4", "b.mp4"]


def mapped(folder: Path, **arguments):
    """Return the first instance of a mapped download, as Airflow makes it, and the context it runs in."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        partial = {name: value for name, value in arguments.items() if not isinstance(value, list)}
        expanded = {name: value for name, value in arguments.items() if isinstance(value, list)}
        task = ViduDownloadOperator.partial(task_id="m", **partial).expand(**expanded)
    first = {name: value[0] for name, value in expanded.items()}
    operator = task.unmap(first)
    operator.destination = str(folder / "rendered.mp4")
    return operator, {"ti": SimpleNamespace(map_index=0, xcom_push=lambda **_: None), "dag": dag}


@pytest.mark.fault(
    "stores and files", "a mapped download with one file name", outcome="refused", says="would write the same file"
)
@pytest.mark.parametrize(
    "arguments",
    [
        {"generation_id": ["a", "b"], "destination": "/x/a.mp4"},
        {"generation_id": ["a", "b"], "destination": "/x/{{ ti.run_id }}.mp4"},
        {"generation_id": ["a", "b"], "destination": ["/x/a.mp4"]},
        {"generation_id": ["a", "b"], "destination": ["/x/a.mp4", "/x/b.mp4"]},
        {"generation_id": "a", "destination": ["/x/a.mp4", "/x/a.mp4"]},
    ],
    ids=["constant", "of the run", "mapped constant", "each for each", "twice"],
)
def test_a_mapped_task_does_not_write_one_file(tmp_path, connect, monkeypatch, arguments):
    """A file that all instances would write is refused before anything is fetched, with what to do instead."""
    monkeypatch.setattr("airflow_provider_vidu.operators.download.publish", lambda *_args, **_kwargs: None)
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        operator, context = mapped(tmp_path, **arguments)
        with pytest.raises(ViduConfigError, match=r"would write the same file.*End destination with a slash"):
            operator.execute(context)
    assert gateway.requests == []


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        ({"generation_id": ["a", "b"], "destination": "/x/{{ ti.map_index }}.mp4"}, False),
        ({"generation_id": ["a", "b"], "destination": "/x/{{ ti.try_number }}.mp4"}, True),
        ({"generation_id": "a", "destination": ["/x/1.mp4", "/x/2.mp4"]}, False),
        ({"generation_id": ["a"], "destination": "/x/1.mp4"}, False),
    ],
)
def test_a_mapped_task_may_name_each_file(tmp_path, connect, monkeypatch, capsys, caplog, arguments, warned):
    """Names that differ between the instances pass; a template that may not differ costs a warning."""
    monkeypatch.setattr("airflow_provider_vidu.operators.download.publish", lambda *_args, **_kwargs: None)
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        operator, context = mapped(tmp_path, **arguments)
        operator.execute(context)
    assert (tmp_path / "rendered.mp4").exists()
    assert ("may have the same destination" in caplog.text + capsys.readouterr().out) == warned


def test_a_mapped_task_whose_template_renders_to_a_folder_says_nothing(tmp_path, connect, monkeypatch, capsys, caplog):
    """In a folder each file has the name of its id."""
    monkeypatch.setattr("airflow_provider_vidu.operators.download.publish", lambda *_args, **_kwargs: None)
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        operator, context = mapped(tmp_path, generation_id=["a", "b"], destination="{{ params.destination }}")
        operator.destination = f"{tmp_path}/"
        operator.execute(context)
    assert (tmp_path / "a.mp4").exists()
    assert "may have the same destination" not in caplog.text + capsys.readouterr().out


def test_no_secret_is_told(tmp_path, connect, caplog, capsys, quick_backoff):
    """Neither the key nor a signature stands in log, record or error."""
    quoting = f"<html>{KEY} is not welcome".encode()
    with Gateway(whole(BODY), fixed(500, quoting), fixed(500, quoting), fixed(200, quoting)) as gateway:
        connect(gateway)
        record = download(generation_id="t", destination=f"{tmp_path}/")
        with pytest.raises(ViduDownloadError, match=r"\*\*\* is not welcome"):
            download(generation_id="t", destination=f"{tmp_path}/")
        with pytest.raises(ViduDownloadRefusedError, match=r"\*\*\* is not welcome.*generation t") as caught:
            download(generation_id="t", destination=f"{tmp_path}/")
    logged = caplog.text + capsys.readouterr().out
    assert "Fetching" in logged
    told = logged + json.dumps(record) + str(caught.value) + repr(caught.value)
    assert "hush" not in told
    assert KEY not in told


def test_on_kill_ends_the_download(tmp_path, connect):
    """A task that is killed leaves neither a file nor a part of one."""
    arrived = threading.Event()

    def stalling(request, wire):
        wire.head(200, Content_Type="video/mp4", Content_Length=len(BODY))
        wire.send(BODY[:30_000])
        arrived.set()
        wire.hold()

    with Gateway(stalling) as gateway:
        connect(gateway, timeout=30)
        operator = ViduDownloadOperator(task_id="d", generation_id="t", destination=f"{tmp_path}/")
        threading.Thread(target=lambda: (arrived.wait(5), operator.on_kill())).start()
        with pytest.raises(ViduDownloadError, match="cancelled"):
            operator.execute({})
    assert list(tmp_path.iterdir()) == []


def test_a_kill_before_the_transfer(tmp_path, connect, monkeypatch):
    """Airflow 3 lets a task continue after the signal: one that looks its connection up then fetches nothing."""
    with Gateway(whole(BODY)) as gateway:
        connect(gateway)
        operator = ViduDownloadOperator(task_id="d", generation_id="t", destination=f"{tmp_path}/")
        access = operator._access

        def look_up(*, needed):
            operator.on_kill()
            return access(needed=needed)

        monkeypatch.setattr(operator, "_access", look_up)
        with pytest.raises(ViduDownloadError, match="cancelled"):
            operator.execute({})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dialect", "artifact", "name"),
    [
        ("vidu-native", "video", "8553162.mp4"),
        ("vidu-native", "cover", "8553162-cover.jpg"),
        ("ent-v2", "video", "8553162.mp4"),
        ("ent-v2", "cover", "8553162-cover.jpg"),
        ("ent-v2", "watermarked", "8553162-watermarked.mp4"),
    ],
)
def test_from_the_sandbox(tmp_path, vidu_sandbox, monkeypatch, dialect, artifact, name):
    """Every artifact of a generation arrives through its signed URL, byte for byte."""
    done = "completed" if dialect == "vidu-native" else "success"
    vidu_sandbox.add_generation(id="8553162", dialect=dialect, states=[[done, 0]], watermark=True)
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", vidu_sandbox.connection_json(dialect))
    record = download(generation_id="8553162", artifact=artifact, destination=f"{tmp_path}/")
    assert Path(record["uri"].removeprefix("file://")).name in (name, name.replace(".jpg", ".png"))
    expected = vidu_sandbox.file_bytes("8553162", artifact)
    assert (record["size"], record["sha256"]) == (len(expected), hashlib.sha256(expected).hexdigest())


# -- what a task handed over ----------------------------------------------------------------------


@pytest.mark.fault(
    "from Airflow",
    "execute({}) or a MagicMock as context",
    outcome="survived",
    side="download",
    seen="the file, of a whole generation that was handed over",
)
@pytest.mark.parametrize("stand_in", [{}, MagicMock()], ids=["nothing", "a mock"])
def test_what_a_task_returned(connect, tmp_path, stand_in):
    """Id and URL are taken from it; no service is asked while the URL is good, and no context is needed."""
    with Server(whole(BODY)) as server:
        connect(server)
        handed = {"id": "7", "status": "succeeded", "video_url": server.url(), "parameters": {"seed": 1}}
        task = ViduDownloadOperator(task_id="d", generation=handed, destination=f"{tmp_path}/")
        record = task.execute(stand_in)
    assert (record["generation_id"], record["sha256"]) == ("7", SHA)
    assert [request.target for request in server.requests] == ["/v/video.mp4"]


@pytest.mark.parametrize(("handed", "words"), [
    ({"status": "succeeded"}, "generation has no id"),
    (7.5, "must be a string"),
])  # fmt: skip
def test_what_is_no_generation(handed, words, tmp_path):
    """It is reported before anything else happens."""
    with pytest.raises(ViduConfigError, match=words):
        download(generation=handed, destination=str(tmp_path / "x"))


def test_a_generation_replaces_id_and_url():
    """Both together would leave open which one counts."""
    with pytest.raises(ViduConfigError, match="generation replaces generation_id or video_url"):
        ViduDownloadOperator(task_id="d", generation={"id": "7"}, generation_id="7", destination="/tmp/x")


@pytest.mark.fault(
    "from Airflow",
    "native rendering makes a number of an id",
    outcome="survived",
    side="download",
    seen="the file of that id",
)
def test_an_id_of_digits(connect, tmp_path):
    """Native rendering makes a number of it; the file has its name all the same."""
    with Server(whole(BODY)) as server:
        connect(server)
        record = download(video_url=server.url(), generation_id=911088422699962368, destination=f"{tmp_path}/")
        again = download(video_url=server.url(), generation_id=" 911088422699962368\n", destination=f" {tmp_path}/ ")
    assert again == record
    assert record["generation_id"] == "911088422699962368"
    assert record["uri"].endswith("911088422699962368.mp4")


@pytest.mark.parametrize(("rendered", "conn_id"), [(" my_aws\n", "my_aws"), ("None", None), (" ", None)])
def test_blanks_around_the_connection_of_the_store(rendered, conn_id):
    """What a template leaves around it is not part of its name, and an empty text is not a connection."""
    operator = ViduDownloadOperator(
        task_id="t", generation_id="g", destination="s3://bucket/clips/", storage_conn_id=rendered
    )
    assert operator._target(None, "g")._destination._conn_id == conn_id
