"""What there is to see and hear of a generation: each creation, with the files that were stored of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, cast, get_args

from airflow_provider_vidu.common.artifacts import FAMILY, Family
from airflow_provider_vidu.common.text import without_query
from airflow_provider_vidu.common.url_parts import split_url
from airflow_provider_vidu.models import Artifact, Generation
from airflow_provider_vidu.ui.playing.shelf import Known, Lost

MAX_PIECES: Final = 12
"""The most creations and files of one generation that are shown."""

_MEDIA: Final = get_args(Family)
# By the names of files; every other name counts as a video, and the page tries a picture if that does not play.
_BY_EXTENSION: Final[Mapping[str, Family]] = {
    **dict.fromkeys(("png", "jpg", "jpeg", "webp", "gif", "avif", "heic", "heif", "bmp"), "image"),
    **dict.fromkeys(("mp3", "wav", "m4a", "aac", "ogg", "oga", "opus", "flac"), "audio"),
}
FATES: Final[Mapping[Lost, tuple[str, str]]] = {
    "missing": (
        "The stored file is not there",
        "The API server finds no file at {place}: it was removed, or the folder is not shared with it.",
    ),
    "replaced": (
        "Another file has replaced the stored clip",
        "The file at {place} is not of the {size:,} bytes that were stored.",
    ),
    "kept": (
        "This clip may not be stored: a file was there before",
        'A file was at {place} before, and the download kept it (overwrite="skip"): the file may be of another clip.',
    ),
}
"""What has become of a stored file: a title, and what it means."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that a download has stored, by its record.

    ``artifact`` is what the task was to keep (None: the result, whatever its medium), ``source`` the URL that it
    came from, without its query. ``lost`` says what has become of the file since, as far as a look has shown.
    """

    uri: str
    size: int
    sha256: str | None
    content_type: str | None
    stored_at: datetime | None
    artifact: str | None = None
    source: str | None = None
    lost: Lost | None = None

    @property
    def name(self) -> str:
        """The file's name, the last part of its address; empty where it has none."""
        return self.uri.partition("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def is_cover(self) -> bool:
        """Whether it is the cover of a clip."""
        return self.artifact == "cover"

    @property
    def is_track(self) -> bool:
        """Whether it is a track of sound that came beside a result."""
        return self.artifact in ("speech", "sound")

    @property
    def medium(self) -> Family | None:
        """Its medium by its proven content type or by the artifact requested; None if neither says so."""
        medium = (self.content_type or "").partition("/")[0].lower()
        if medium in _MEDIA:
            return cast("Family", medium)
        return FAMILY.get(self.artifact or "")


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing to see or hear.

    :param creation: which creation of the generation it is (:meth:`.Generation.url_of`); None where that is not known.
    :param records: the files that were stored of it, the newest first.
    :param artifact: what the service says of the creation.
    """

    creation: int | None
    records: Sequence[FileRecord] = ()
    artifact: Artifact | None = None

    @property
    def lost(self) -> FileRecord | None:
        """The newest of its files, if none of them is there any more."""
        return self.records[0] if self.records and all(record.lost for record in self.records) else None

    def medium(self, proven: Mapping[str, str | None]) -> Family:
        """Return its medium: by the record of a stored file, by its bytes, or by the name of the file.

        :param proven: content types that were read from stored files, by their URI.
        """
        for record in self.records:
            kind = (proven.get(record.uri) or "").partition("/")[0]
            if kind in _MEDIA:
                return cast("Family", kind)
            if record.medium:
                return record.medium
        names = [*(record.uri for record in self.records), (self.artifact.url if self.artifact else None) or ""]
        return next((found for name in names if (found := _by_name(name))), "video")


def pieces_of(records: Iterable[FileRecord], generation: Generation | None) -> list[Piece]:
    """Return what there is of a generation, in the order of its creations.

    A stored file belongs to the creation whose URL it came from. One of another origin is a piece of its own, unless
    there is only one creation; so is a track of sound that came beside a result.

    :param records: the stored files, covers among them.
    :param generation: None where it is not known.
    """
    count = count_of(generation)
    stored: dict[int, list[FileRecord]] = {index: [] for index in range(count)}
    others: dict[str, list[FileRecord]] = {}
    addresses = _addresses(generation, count)
    for record in records:
        if record.is_cover:
            continue
        index = addresses.get(record.source or "", 0 if count == 1 else None)
        if record.is_track or index is None:
            others.setdefault(record.source or record.uri, []).append(record)
        else:
            stored[index].append(record)
    made = [Piece(index, found, _artifact(generation, index)) for index, found in stored.items()]
    return [*made, *(Piece(None, found) for found in others.values())][:MAX_PIECES]


def count_of(generation: Generation | None) -> int:
    """Return how many creations a generation has, in the count of :meth:`.Generation.url_of`."""
    if generation is None or not generation.succeeded:
        return 0
    return sum(bool(found.url) for found in generation.artifacts) or 1


def with_known(record: FileRecord, known: Mapping[str, Known]) -> FileRecord:
    """Return a record with what looks at the file have shown.

    :param known: by the files' URIs.
    """
    found = known.get(record.uri)
    return record if found is None else replace(record, lost=found.lost(record.size) or record.lost)


def newest_first(records: Iterable[FileRecord]) -> list[FileRecord]:
    """Return stored files, the newest first."""
    return sorted(records, key=lambda record: record.stored_at.timestamp() if record.stored_at else 0.0, reverse=True)


def _addresses(generation: Generation | None, count: int) -> dict[str, int]:
    if generation is None:
        return {}
    urls = ((generation.url_of(kind, index), index) for index in range(count) for kind in (None, "watermarked"))
    return {without_query(url): index for url, index in urls if url}


def _artifact(generation: Generation | None, index: int) -> Artifact | None:
    if generation is None:
        return None
    results = [found for found in generation.artifacts if found.url] or list(generation.artifacts)
    return results[index] if index < len(results) else Artifact(url=generation.video_url)


def _by_name(name: str) -> Family | None:
    try:
        path = split_url(name).path
    except ValueError:
        return None
    return _BY_EXTENSION.get(path.rpartition("/")[2].rpartition(".")[2].lower())
