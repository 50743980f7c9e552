"""Objects with a Content-Encoding, which the clients of Google and Azure unpack without a limit."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.remote import RemoteFile
from airflow_provider_vidu.stores.small_files import content_of
from airflow_provider_vidu.ui.playing import preview
from airflow_provider_vidu.ui.playing.preview import PreviewError, Root, Spot
from tests.rows import each_row

GOOGLE = {"contentEncoding": "gzip"}
AZURE = {"content_settings": SimpleNamespace(content_encoding="GZIP ")}


class Opened(io.BytesIO):
    """A file as fsspec opens it; ``requested`` is whether its content was."""

    requested = False

    def __init__(self, protocol: Any, details: dict[str, Any]) -> None:
        super().__init__(b"content")
        self.fs, self.path, self.details = SimpleNamespace(protocol=protocol), "b/a.json", details

    def read(self, *args: Any) -> bytes:
        """Note that the content is requested."""
        self.requested = True
        return super().read(*args)


@pytest.mark.fault(
    "attacks",
    "two megabytes of gzip with a Content-Encoding, in a destination on Google or Azure",
    outcome="refused",
    seen="nothing of it is requested",
)
@each_row(("protocol", "details"), [(("gs", "gcs"), GOOGLE), ("abfs", AZURE)])
def test_what_a_client_would_unpack(protocol, details):
    """Two gigabytes in a worker, long before its limit for such a file is looked at."""
    file = Opened(protocol, details)
    stored = RemoteFile(SimpleNamespace(open=lambda *_: file), "gs", "b/a.json", "gs://b/a.json")
    with pytest.raises(ViduConfigError, match=r"b/a\.json cannot be read: .* Content-Encoding gzip, "):
        content_of(stored)
    assert not file.requested


@each_row(
    ("protocol", "details"),
    [
        (("gs", "gcs"), {}),
        (("gs", "gcs"), {"contentEncoding": "identity"}),
        ("abfs", {"content_settings": SimpleNamespace(content_encoding=None)}),
        ("sftp", GOOGLE),
    ],
)
def test_what_none_would_unpack(protocol, details):
    """Other objects are read as before."""
    file = Opened(protocol, details)
    assert content_of(RemoteFile(SimpleNamespace(open=lambda *_: file), "gs", "b/a", "gs://b/a")) == b"content"


@pytest.mark.fault(
    "attacks",
    "a preview root on Google or Azure holds two megabytes of gzip with a Content-Encoding",
    outcome="refused",
    side="pages",
    seen="nothing of it is requested",
)
@each_row("later", [False, True])
@each_row("details", [GOOGLE, AZURE])
def test_a_preview_that_would_be_unpacked(monkeypatch, later, details):
    """Also where it takes the place of a clip that is being played."""
    from airflow.providers.common.compat import sdk

    known = {"type": "file", "size": 5, "etag": "x"}
    answers = iter([known, known | details] if later else [known | details])
    files = SimpleNamespace(info=lambda path: next(answers), cat_file=None)
    monkeypatch.setattr(sdk, "ObjectStoragePath", lambda uri, conn_id: SimpleNamespace(fs=files, path="b/a.mp4"))
    spot = Spot("gs", "b", ("a.mp4",))
    with pytest.raises(PreviewError, match="has the Content-Encoding gzip: store it without"):
        preview.open_beneath(Root(spot), spot).read(0, 5)
