"""What there is to see and hear: videos, pictures and sound, one or several, stored or not."""

from __future__ import annotations

from typing import Any

from airflow_provider_vidu.models import Artifact, Generation, GenerationStatus
from airflow_provider_vidu.ui.clips.pieces import FileRecord, pieces_of
from tests.rows import each_row

CDN = "https://cdn.example.com"


def made(*urls: str | None, **more: Any) -> Generation:
    """Return a succeeded generation with a creation for each URL."""
    artifacts = tuple(Artifact(url=url and f"{url}?Signature=s", **more) for url in urls)
    return Generation(
        id="g", status=GenerationStatus.SUCCEEDED, video_url=urls[0] if urls else None, artifacts=artifacts
    )


def record(uri: str = "file:///a", **more: Any) -> FileRecord:
    """Return the record of a stored file."""
    known = {"size": 1, "sha256": None, "content_type": None, "stored_at": None, "artifact": None, **more}
    return FileRecord(uri, **known)


@each_row(
    ("stored", "proven", "url", "medium"),
    [
        (record(content_type="image/png"), None, None, "image"),
        (record(content_type="audio/mpeg"), None, None, "audio"),
        (record(content_type="video/mp4"), "image/png", None, "image"),
        (record(content_type="application/octet-stream"), "audio/wav", None, "audio"),
        (record(artifact="audio"), None, None, "audio"),
        (record("file:///clip.webp"), None, None, "image"),
        (record(), None, f"{CDN}/result.PNG", "image"),
        (None, None, f"{CDN}/speech.mp3", "audio"),
        (None, None, f"{CDN}/v.mp4", "video"),
        (None, None, f"{CDN}/no-name", "video"),
        (None, None, f"{CDN}/v.mp4/?x=a.png", "video"),
    ],
)
def test_the_medium(stored, proven, url, medium):
    """Bytes decide before the record, the record before what was asked for, and that before the name of the file."""
    (piece,) = pieces_of([stored] if stored else [], made(url))
    assert piece.medium({stored.uri: proven} if stored else {}) == medium


def test_each_creation_has_its_file():
    """A stored file belongs to the creation that it came from, whichever was stored first."""
    files = [record(f"file:///{n}", source=f"{CDN}/{n}.png") for n in (2, 0)]
    found = pieces_of(files, made(*(f"{CDN}/{n}.png" for n in range(3))))
    assert [(piece.creation, [kept.uri for kept in piece.records]) for piece in found] == [
        (0, ["file:///0"]), (1, []), (2, ["file:///2"]),
    ]  # fmt: skip


def test_files_without_a_creation():
    """What came from elsewhere, and a track of sound beside the result, are shown on their own; a cover is not."""
    files = [
        record("file:///kept"),
        record("file:///voice", artifact="speech", content_type="audio/mpeg"),
        record("file:///cover", artifact="cover"),
    ]
    found = pieces_of(files, made(f"{CDN}/v.mp4"))
    assert [(piece.creation, piece.records[0].uri, piece.medium({})) for piece in found] == [
        (0, "file:///kept", "video"), (None, "file:///voice", "audio"),
    ]  # fmt: skip
    assert [len(piece.records) for piece in pieces_of([record("a", source="x"), record("b", source="x")], None)] == [2]


def test_an_end_is_set():
    """However many creations an answer claims, a handful is shown."""
    assert len(pieces_of([], made(*(f"{CDN}/{n}" for n in range(100))))) == 12
