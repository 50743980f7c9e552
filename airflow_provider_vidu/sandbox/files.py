"""The files behind the result URLs: which bytes they hold and which part of them a request gets; no I/O."""

from __future__ import annotations

import hashlib
from email.utils import formatdate
from functools import lru_cache

from airflow_provider_vidu import ranges
from airflow_provider_vidu.sandbox import mp4, pictures
from airflow_provider_vidu.sandbox.answers import Answer, Bytes, Content, Padded
from airflow_provider_vidu.sandbox.faults import Action
from airflow_provider_vidu.sandbox.generations import Generation

_TYPES = {"video": "video/mp4", "watermarked": "video/mp4", "cover": "image/png"}


def token(generation: Generation, creation: int) -> str:
    """Return the name of the files of creation number ``creation`` (from 1 on); always the same for one generation."""
    return hashlib.sha256(_seed(generation, creation).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def path(generation: Generation, creation: int, artifact: str) -> str:
    """Return the path under which an artifact is served."""
    name = token(generation, creation)
    ending = {"video": ".mp4", "watermarked": "-watermarked.mp4", "cover": ".png"}[artifact]
    return f"/files/{name}{ending}"


def content(generation: Generation, creation: int, artifact: str, clip_seconds: float) -> Content:
    """Return the bytes of an artifact (``video``, ``cover`` or ``watermarked``) of a clip of ``clip_seconds``.

    Raises ValueError when the generation asks for a ``size`` that its clip does not fit into.
    """
    seed = _seed(generation, creation)
    if artifact == "cover":
        return Bytes(_cover(seed))
    clip = _clip(seed, clip_seconds, artifact == "watermarked")
    if artifact == "video" and generation.size is not None:
        return Padded(clip, generation.size)
    return Bytes(clip)


# A clip takes about 10 ms to draw and 100 KB to keep; these are for one that is read in many parts.
@lru_cache(maxsize=64)
def _clip(seed: str, seconds: float, watermark: bool) -> bytes:
    return mp4.clip(seed, seconds=seconds, watermark=watermark)


@lru_cache(maxsize=64)
def _cover(seed: str) -> bytes:
    return pictures.png(seed)


def _seed(generation: Generation, creation: int) -> str:
    return f"{generation.dialect} {generation.id} {creation}"


def serve(
    name: str,
    artifact: str,
    data: Content,
    *,
    method: str,
    range_header: str | None,
    if_range: str | None,
    modified_at: float,
    action: Action,
    serial: int,
) -> Answer:
    """Return the answer to a GET or HEAD of ``data``; ``name`` is the file's own, ``modified_at`` epoch seconds.

    ``action`` may spoil the handling of ranges and of the validators; ``serial`` makes a changing ETag
    unique.
    """
    etag = _etag(f"{name}-{artifact[:1]}-{data.size:x}", action, serial)
    modified = "" if action.etag == "none" else formatdate(modified_at, usegmt=True)
    headers = {
        "Content-Type": _TYPES[artifact],
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": modified,
    }
    if artifact != "cover":
        headers["Content-Disposition"] = "attachment;filename=video.mp4"
    # RFC 9110, 14.2: Range is defined for GET alone.
    wanted = range_header if method == "GET" else None
    part = ranges.decide(wanted, if_range, size=data.size, etag=etag, modified=modified)
    if action.range == "ignore":
        part = ranges.Part(200, 0, data.size)
        del headers["Accept-Ranges"]
    elif action.range == "416":
        part = ranges.Part(416, 0, 0)
    elif action.range == "wrong" and part.status == 206:
        # The label is true to the bytes sent, but they are not the bytes asked for.
        part = ranges.Part(206, part.start - 1 if part.start else 1, part.stop)
    content_range = part.content_range(data.size)
    if content_range is not None:
        headers["Content-Range"] = content_range
    headers = {key: value for key, value in headers.items() if value}
    return Answer(part.status, headers, data, part.start, part.stop)


def _etag(own: str, action: Action, serial: int) -> str:
    if action.etag == "none":
        return ""
    if action.etag == "change":
        return f'"{own}-{serial}"'
    return f'W/"{own}"' if action.etag == "weak" else f'"{own}"'
