"""What becomes of a request's files: read once, hashed, inline or uploaded, never a secret file by mistake."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
from types import SimpleNamespace
from typing import Any, BinaryIO
from unittest.mock import Mock

import fsspec
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_vidu.api.dialects import EntV2, ViduNative
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduNotFoundError, ViduStorageError
from airflow_provider_vidu.orders.media import files as media_files
from airflow_provider_vidu.orders.media.files import MAX_UPLOAD_BYTES
from airflow_provider_vidu.orders.media.prepared import MAX_BODY_BYTES, MAX_IMAGE_BYTES, Prepared
from airflow_provider_vidu.stores import schemes
from tests.rows import each_row

PNG = b"\x89PNG\r\n\x1a\n" + b"p" * 20
JPEG = b"\xff\xd8\xff\xe0" + b"j" * 20
MP4 = b"\0\0\0\x18ftypisom" + b"v" * 20


class Hook:
    """As much of the hook as a request needs: it takes uploads, or has none, or its service has none."""

    def __init__(self, *, uploads: bool = True, fails: ViduError | None = None) -> None:
        dialect = SimpleNamespace(name="ent-v2" if uploads else "vidu-native", has_uploads=uploads)
        self.config = SimpleNamespace(dialect=dialect)
        self.uploaded: list[tuple[str, int, str]] = []
        self._fails = fails

    def _upload(self, content: BinaryIO, size: int, content_type: str) -> str:
        """Take a file."""
        if self._fails:
            raise self._fails
        content.seek(0)
        self.uploaded.append((hashlib.sha256(content.read()).hexdigest(), size, content_type))
        return f"ssupload:?id={len(self.uploaded)}"


@pytest.fixture
def put(tmp_path):
    """Return a function that writes a file and returns its path."""

    def put(name: str, content: bytes, size: int = 0) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        if size:
            os.truncate(path, size)
        return str(path)

    return put


def resolve(body: dict[str, Any], hook: Hook | None = None) -> dict[str, Any]:
    """Return a request as it is sent."""
    prepared = Prepared(body)
    try:
        return prepared.resolve(hook or Hook())  # type: ignore[arg-type]
    finally:
        prepared.close()


def inline(kind: str, content: bytes) -> str:
    """Return a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def digest(content: bytes) -> str:
    """Return a SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def test_a_picture_is_sent_inline(put):
    """A path becomes a data URI of the type that its bytes prove; addresses pass."""
    body = {"images": [put("a.jpg", PNG), " https://example.com/b.png\n"], "start_image": put("c.png", JPEG)}
    hook = Hook()
    assert resolve(body, hook) == {
        "images": [inline("image/png", PNG), "https://example.com/b.png"],
        "start_image": inline("image/jpeg", JPEG),
    }
    assert hook.uploaded == []


@pytest.mark.parametrize(
    "form",
    [str, os.fsencode, lambda path: f"file://{path}", lambda path: f"FILE://localhost{path}",
     lambda path: f" {path}\n", ObjectStoragePath, lambda path: ObjectStoragePath(f"file://{path}")],
    ids=["path", "bytes", "uri", "host", "blanks", "storage path", "storage uri"],
)  # fmt: skip
def test_the_ways_to_name_a_local_file(put, form):
    """Each spelling leads to the same file; bytes are not one of them."""
    body = {"image": form(put("a.png", PNG))}
    if form is os.fsencode:
        with pytest.raises(ViduConfigError, match="not bytes"):
            resolve(body)
    else:
        assert resolve(body) == {"image": inline("image/png", PNG)}


def test_the_uri_of_a_download(put, tmp_path):
    """A download's record is percent-encoded; a file that has the very name of the URI wins."""
    put("a b.png", PNG)
    uri = f"file://{tmp_path}/a%20b.png"
    assert resolve({"image": uri}) == {"image": inline("image/png", PNG)}
    put("a%20b.png", JPEG)
    assert resolve({"image": uri}) == {"image": inline("image/jpeg", JPEG)}


def test_only_an_address_is_taken(put):
    """What takes no data URI is uploaded, the same content once."""
    hook = Hook()
    video = put("a.mp4", MP4)
    found = resolve({"video_url": video, "videos": [put("copy.mov", MP4)], "image_url": put("a.png", PNG)}, hook)
    assert found == {"video_url": "ssupload:?id=2", "videos": ["ssupload:?id=2"], "image_url": "ssupload:?id=1"}
    assert hook.uploaded == [(digest(PNG), len(PNG), "image/png"), (digest(MP4), len(MP4), "video/mp4")]


def test_a_sound(put, monkeypatch):
    """Whatever the first bytes prove to be a sound is uploaded."""
    monkeypatch.setattr(media_files, "sniffed", lambda head: "audio/wav" if head[8:12] == b"WAVE" else None)
    hook = Hook()
    sound = b"RIFF\0\0\0\0WAVE"
    assert resolve({"audio_url": put("a.wav", sound)}, hook) == {"audio_url": "ssupload:?id=1"}
    assert hook.uploaded == [(digest(sound), len(sound), "audio/wav")]


@pytest.mark.fault(
    "stores and files", "a picture above the inline limit", outcome="survived", seen="the service's upload takes it"
)
def test_a_large_picture_is_uploaded(put):
    """Above the inline limit the upload service takes a picture; the limit itself still goes inline."""
    hook = Hook()
    found = resolve({"images": [put("a.png", PNG, MAX_IMAGE_BYTES + 1), put("b.png", PNG, MAX_IMAGE_BYTES)]}, hook)
    assert found["images"][0] == "ssupload:?id=1"
    assert found["images"][1].startswith("data:image/png;base64,")
    assert [(size, kind) for _, size, kind in hook.uploaded] == [(MAX_IMAGE_BYTES + 1, "image/png")]


def test_the_request_stays_below_its_limit(put):
    """Pictures that fit alone but not together: those that no longer fit are uploaded."""
    hook = Hook()
    images = [put(f"{number}.png", PNG + bytes([number]), 7_000_000) for number in range(3)]
    found = resolve({"prompt": "x", "images": images}, hook)
    assert [image[:9] for image in found["images"]] == ["data:imag", "data:imag", "ssupload:"]
    assert len(json.dumps(found)) <= MAX_BODY_BYTES


@pytest.mark.fault(
    "stores and files",
    "a picture above the limit of a gateway without uploads",
    outcome="refused",
    says="give its address instead",
)
@pytest.mark.parametrize(
    ("field", "content", "size", "message"),
    [
        ("image", PNG, MAX_IMAGE_BYTES + 1, "larger than 9,999,999 bytes"),
        ("video_url", MP4, 0, "must be uploaded, because this field takes addresses only"),
        ("videos", MP4, MAX_BODY_BYTES, "makes the request larger than 20,000,000 bytes"),
    ],
    ids=["picture", "address only", "video"],
)
def test_without_an_upload_service(put, field, content, size, message):
    """The dialect vidu-native has none: the error says to give an address."""
    with pytest.raises(ViduConfigError, match=rf"{field}: the file .*{message}.*vidu-native.*give its address instead"):
        resolve({field: put("a", content, size)}, Hook(uploads=False))


def test_without_an_upload_service_some_fields_take_it_inline(put):
    """Where the sources disagree, the file goes inline if there is no other way."""
    assert resolve({"videos": [put("a.mp4", MP4)]}, Hook(uploads=False)) == {"videos": [inline("video/mp4", MP4)]}
    missing = Hook(fails=ViduNotFoundError("no such path"))
    assert resolve({"videos": [put("a.mp4", MP4)]}, missing) == {"videos": [inline("video/mp4", MP4)]}
    with pytest.raises(ViduConfigError, match=r"this service takes no uploads.*give its address instead"):
        resolve({"video_url": put("a.mp4", MP4)}, missing)


@pytest.mark.parametrize(
    ("field", "content", "message"),
    [
        ("images", b"GIF89a", "is not png, jpeg or webp; its first bytes say image/gif"),
        pytest.param(
            "images",
            b"root:x:0:0",
            "is not png, jpeg or webp. Nothing was sent",
            marks=pytest.mark.fault(
                "attacks", "dag_run.conf names /etc/passwd as an image", outcome="refused", says="Nothing was sent"
            ),
        ),
        ("images", MP4, "say video/mp4"),
        ("video_url", PNG, "is not a video; its first bytes say image/png"),
        ("audio_url", PNG, "is not audio"),
        ("images", b"", "is not png"),
    ],
    ids=["gif", "passwd", "video", "picture as video", "picture as sound", "empty"],
)
def test_the_bytes_must_prove_the_kind(put, field, content, message):
    """A file of another kind, a private one above all, is refused whatever its name says."""
    with pytest.raises(ViduConfigError, match=message):
        Prepared({field: put("a.png", content)}).identity()


def test_a_file_that_is_too_large(put):
    """No more than the limit is read, and the error names it."""
    with pytest.raises(ViduConfigError, match=r"video_url: .*larger than 50,000,000 bytes"):
        Prepared({"video_url": put("a.mp4", MP4, MAX_UPLOAD_BYTES + 1)}).identity()


def test_a_request_that_is_too_large_without_files():
    """Data URIs of the user's own count as well."""
    with pytest.raises(ViduConfigError, match=r"The request has 20,0.* bytes; the API takes 20,000,000"):
        resolve({"image": "data:image/png;base64," + "A" * MAX_BODY_BYTES})


@pytest.mark.parametrize(
    ("rendered", "conn_id"), [("None", None), (" \n", None), ("", None), (None, None), (" my_aws\n", "my_aws")]
)
def test_a_connection_that_a_template_made(monkeypatch, rendered, conn_id):
    """An empty text and the word None do not name a connection; blanks around one are dropped."""
    seen: list[str | None] = []

    def path(uri: str, conn_id: str | None = None) -> Remote:
        seen.append(conn_id)
        return Remote(PNG)

    monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", path)
    Prepared({"image": "s3://bucket/a.png"}, rendered).identity()
    assert seen == [conn_id]


HAS_REGISTRY = hasattr(ObjectStoragePath("s3://bucket/a.png"), "conn_id")
"""Whether Airflow reads only schemes that a provider has registered; older ones ask fsspec, without a connection."""
READ_BY_SOME = pytest.mark.skipif(not HAS_REGISTRY, reason="this Airflow reads it")


@pytest.mark.fault(
    "from Airflow",
    "an input in a spelling that no store reads",
    outcome="refused",
    says="images[0]: the file ",
)
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("abfss://pictures@studio.dfs.core.windows.net/a.png", "names an Azure account.* Write abfss://pictures/…"),
        ("WASBS://pictures@studio.blob.core.windows.net/a.png", "names an Azure account.* Write abfss://pictures/…"),
        ("wasb://pictures/a.png", r"Write abfs:// instead\."),
        pytest.param("s3n://bucket/a.png", r"Write s3:// instead\.", marks=READ_BY_SOME),
        ("foo://bucket/a.png", "Use a local path, or a scheme for which an installed"),
        pytest.param(
            "webhdfs://host/a.png",
            r"the file system webhdfs needs arguments \(the host 'host'\)",
            marks=pytest.mark.filterwarnings("ignore:UPath"),
        ),
        ("simplecache::s3://bucket/a.png", "contains '::'"),
        ("s3://bucket/pictures/", "ends with a slash, as a folder does"),
        ("abfs://bucket/pictures/", "ends with a slash, as a folder does"),
        ("file://host/a.png", "begins with file:///"),
        ("file:a.png", "begins with file:///"),
        ("s3:bucket/a.png", "it does not exist. An address has :// after its scheme"),
        ("https:/example.com/a.png", "it does not exist. An address has :// after its scheme"),
        ("//cdn.example.com/a.png", "it does not exist. An address has :// after its scheme"),
        ("www.example.com/a.png", "it does not exist. An address has :// after its scheme"),
        ("/data/nowhere/a.png", r"it does not exist\.$"),
        ("github://me:secret@bucket/a.png", r"the file github://me:\*\*\*@bucket/a\.png cannot be read"),
    ],
)
def test_a_spelling_that_no_store_reads(source, message):
    """It is refused by name, with what to write instead, and for good."""
    with pytest.raises(ViduConfigError, match=message):
        Prepared({"images": [source]}).identity()


def test_a_path_object_of_an_azure_account():
    """It is refused as its text is: Airflow has taken the container for a connection."""

    class OfAccount(Remote):
        def __str__(self) -> str:
            return "abfss://pictures@studio.dfs.core.windows.net/a.png"

    source = OfAccount(PNG)
    with pytest.raises(ViduConfigError, match="names an Azure account"):
        Prepared({"images": [source]}).identity()
    assert source.opened == 0


@pytest.mark.fault(
    "from Airflow", "an input whose store's package is missing", outcome="clear error", says="pip install"
)
@pytest.mark.parametrize("conn_id", [None, "my_conn"])
@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("gcs", "gcs"), ("abfss", "azure"), ("az", "azure")])
def test_the_package_of_a_store_is_named(monkeypatch, scheme, extra, conn_id):
    """As for a destination: what to install."""

    def path(uri: str, conn_id: str | None = None) -> Any:
        error = ValueError(f"No filesystem registered for scheme {scheme}")
        return SimpleNamespace(open=Mock(side_effect=error), conn_id=conn_id, protocol=scheme, path="bucket/a.png")

    monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", path)
    monkeypatch.setattr("fsspec.filesystem", Mock(side_effect=ImportError("Please install it")))
    monkeypatch.setattr(schemes, "find_spec", lambda _: None)
    with pytest.raises(ViduConfigError, match=rf"pip install 'airflow-provider-vidu\[{extra}\]'"):
        Prepared({"image": f"{scheme}://bucket/a.png"}, conn_id).identity()


def test_a_store_that_only_fsspec_knows():
    """It is read without a connection, as it is written to; Airflow has none for it, and says so."""
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/inputs/a.png", PNG)
    try:
        assert Prepared({"image": "memory://inputs/a.png"}).identity() == {"image": f"sha256:{digest(PNG)}"}
        assert Prepared({"image": ObjectStoragePath("memory://inputs/a.png")}).identity()
        if HAS_REGISTRY:
            with pytest.raises(ViduConfigError, match="No filesystem registered for scheme memory"):
                Prepared({"image": "memory://inputs/a.png"}, "my_conn").identity()
    finally:
        fs.rm("/inputs", recursive=True)


@pytest.mark.fault(
    "from Airflow", "an input names an old version of its object", outcome="refused", says="would read the newest one"
)
def test_a_version_of_an_object(monkeypatch):
    """The file systems cut it off: the newest picture would be sent, and paid for."""
    opened: list[str] = []

    def path(uri: str, conn_id: str | None = None) -> Any:
        found = Remote(PNG)
        found.fs = SimpleNamespace(version_aware=conn_id == "aware")  # type: ignore[attr-defined]
        opened.append(uri)
        return found

    monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", path)
    body = {"image": "s3://bucket/a.png?versionId=abc"}
    with pytest.raises(ViduConfigError, match="names a version"):
        Prepared(body).identity()
    assert Prepared(body, "aware").identity() == {"image": f"sha256:{digest(PNG)}"}


@pytest.mark.fault(
    "attacks", "dag_run.conf names a pipe or a device as an image", outcome="refused", says="cannot be read"
)
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "missing", "link to a pipe"])
def test_what_is_not_a_regular_file(tmp_path, kind):
    """A pipe or a device is refused without a wait, and named."""
    path = tmp_path / "a.png"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        path = {"fifo": pipe, "device": "/dev/zero"}.get(kind, path)
        if kind.startswith("link"):
            path.symlink_to(pipe)
    message = "it does not exist" if kind == "missing" else "it is not a regular file"
    with pytest.raises(ViduConfigError, match=rf"images\[0\]: the file .* cannot be read: {message}"):
        Prepared({"images": [str(path)]}).identity()


class Remote:
    """A path of a store, which fails as it likes, or counts how often it is opened."""

    def __init__(self, outcome: Exception | bytes) -> None:
        self._outcome = outcome
        self.opened = 0

    def open(self, _mode: str) -> BinaryIO:
        """Open the object."""
        self.opened += 1
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return io.BytesIO(self._outcome)

    def __str__(self) -> str:
        return "s3://bucket/a.png"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (RuntimeError("store is gone"), ViduStorageError, "cannot be read: store is gone"),
        (PermissionError("403"), ViduConfigError, "permission denied"),
        (FileNotFoundError("x"), ViduConfigError, "it does not exist"),
        (ImportError("Install s3fs"), ViduConfigError, "Install s3fs"),
    ],
)
def test_a_store_in_trouble(error, kind, message):
    """Whatever the store raises, the error names the field; what may pass is worth a retry."""
    with pytest.raises(kind, match=rf"images\[0\]: the file s3://bucket/a\.png .*{message}") as caught:
        Prepared({"images": [Remote(error)]}).identity()
    assert caught.value.retryable is (kind is ViduStorageError)


def test_a_file_is_read_once():
    """Two fields, the digest and the request need one read; after close nothing is held."""
    source = Remote(PNG)
    prepared = Prepared({"images": [source, source], "image": source})
    assert prepared.identity() == prepared.identity()
    prepared.resolve(Hook())  # type: ignore[arg-type]
    prepared.close()
    assert source.opened == 1


def test_a_request_of_very_many_files(tmp_path):
    """One picture in two hundred spellings took 800 MB, and each a descriptor."""
    (tmp_path / "a.png").write_bytes(PNG)
    spellings = [f"{tmp_path}/{'./' * number}a.png" for number in range(101)]
    with pytest.raises(ViduConfigError, match="names more than 100 files"):
        Prepared({"images": spellings})
    prepared = Prepared({"images": spellings[:100], "start_image": spellings[0]})
    assert len(set(prepared.identity()["images"])) == 1
    prepared.close()


def test_the_identity_is_that_of_the_content(put):
    """It does not depend on the file's place, nor on how it is sent; it changes with the content."""
    first = Prepared({"prompt": "x", "images": [put("a.png", PNG)]}).identity()
    assert first == {"prompt": "x", "images": [f"sha256:{digest(PNG)}"]}
    assert Prepared({"prompt": "x", "images": [put("b.png", PNG)]}).identity() == first
    assert Prepared({"prompt": "x", "images": [put("a.png", JPEG)]}).identity() != first
    body = {"images": ["https://example.com/a.png"], "duration": 4}
    assert Prepared(body).identity() == body


def test_nothing_of_a_file_is_logged(put, caplog):
    """An upload is one line with field, size and type."""
    prepared = Prepared({"video_url": put("private-name.mp4", MP4)})
    with caplog.at_level(logging.INFO):
        prepared.resolve(Hook(), logging.getLogger("task"))  # type: ignore[arg-type]
    assert caplog.messages == [f"Uploaded the file of video_url ({len(MP4)} B of video/mp4)"]


def test_the_connection_of_an_object(monkeypatch):
    """A connection inside the URL wins over storage_conn_id; the scheme may be spelt in capitals."""
    seen: list[tuple[str, str | None]] = []

    def path(uri: str, conn_id: str | None = None) -> Remote:
        seen.append((uri, conn_id))
        return Remote(PNG)

    monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", path)
    body = {"images": ["s3://bucket/a.png", "S3://my_aws@bucket/b@2x.png"]}
    Prepared(body, "other").identity()
    assert seen == [("s3://bucket/a.png", "other"), ("s3://bucket/b@2x.png", "my_aws")]


@each_row(
    ("named", "opened"),
    [("s3://bucket/a.png", "other"), ("s3://my_aws@bucket/a.png", "my_aws"), ("s3://bucket/a@2.png", "other")],
)
def test_the_connection_of_a_path_object(monkeypatch, named, opened):
    """A path object that names no connection is read with storage_conn_id, like a text and like a destination."""
    seen: list[str | None] = []

    def open_it(path: Any, _mode: str) -> BinaryIO:
        seen.append(getattr(path, "conn_id", None) or path.storage_options.get("conn_id"))
        return io.BytesIO(PNG)

    monkeypatch.setattr(ObjectStoragePath, "open", open_it)
    assert Prepared({"image": ObjectStoragePath(named)}, "other").identity() == {"image": f"sha256:{digest(PNG)}"}
    assert seen == [opened]


@pytest.mark.fault(
    "attacks", "dag_run.conf names a file of the worker as an image", outcome="refused", says="is not beneath one of"
)
def test_input_roots(put, monkeypatch, tmp_path):
    """With [vidu] input_roots set, a file outside is not even opened."""
    (tmp_path / "in").mkdir()
    inside, outside = put("in/a.png", PNG), put("b.png", PNG)
    monkeypatch.setenv("AIRFLOW__VIDU__INPUT_ROOTS", f"{tmp_path}/in, s3://studio/in")
    assert Prepared({"image": inside}).identity() == {"image": f"sha256:{digest(PNG)}"}
    remote = Remote(PNG)
    for source in (outside, f"{tmp_path}/in/../b.png", f"file://{tmp_path}/in/%2e%2e/b.png", remote):
        with pytest.raises(ViduConfigError, match=r"is not beneath one of .*\[vidu\] input_roots"):
            Prepared({"image": source}).identity()
    assert remote.opened == 0


def test_requests_are_compared_as_they_are_sent():
    """The dialect decides: ``vidu-native`` sends the text of a number as it is written."""
    written = [Prepared({"prompt": "3.10", "duration": value}) for value in ("5", 5, 5.0)]
    assert len({request.digest(None, EntV2()) for request in written}) == 1
    assert len({request.digest(None, ViduNative()) for request in written}) == 3
    assert written[0].digest(None, EntV2()) != Prepared({"prompt": "3.1", "duration": 5}).digest(None, EntV2())


def test_a_fresh_signature_makes_no_other_request():
    """A clear that resumes, and an equal order, sign the address of the same picture again. It is sent whole."""
    signed = [f"https://bucket.example.com/a.png?X-Amz-Date={n}&X-Amz-Signature={n}" for n in "12"]
    requests = [Prepared({"images": [url], "subjects": [{"images": [url]}], "prompt": "p"}) for url in signed]
    assert requests[0].digest(None, EntV2()) == requests[1].digest(None, EntV2())
    other = Prepared({"images": ["https://bucket.example.com/b.png?X-Amz-Date=1&X-Amz-Signature=1"], "prompt": "p"})
    assert other.digest(None, EntV2()) != Prepared({"images": signed[:1], "prompt": "p"}).digest(None, EntV2())
    sent = requests[1].resolve(Mock())
    assert (sent["images"], sent["subjects"]) == (signed[1:], [{"images": signed[1:]}])
    assert type(sent["images"][0]) is str
