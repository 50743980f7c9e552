"""The files behind the result URLs: which bytes they hold and which part of them a request gets; no I/O."""

from __future__ import annotations

import hashlib
from email.utils import formatdate
from functools import lru_cache

from airflow_provider_vidu.common import ranges
from airflow_provider_vidu.sandbox.faults.actions import Action
from airflow_provider_vidu.sandbox.media import mp4, pictures, sounds
from airflow_provider_vidu.sandbox.messages.answers import Answer, Bytes, Content, Padded
from airflow_provider_vidu.sandbox.messages.calls import ENT
from airflow_provider_vidu.sandbox.world import signing
from airflow_provider_vidu.sandbox.world.generations import ARTIFACTS, Generation

_TYPES = {".mp4": "video/mp4", ".png": "image/png", ".mp3": "audio/mpeg"}
_ENDINGS = {
    "video": {"video": ".mp4", "image": "-image.png", "audio": ".mp3"},
    "cover": {"video": ".png", "image": ".png"},
    "watermarked": {"video": "-watermarked.mp4", "image": "-watermarked.png"},
    "speech": {"video": "-speech.mp3"},
    "sound": {"video": "-sound.mp3"},
}
"""The endings of an artifact's path for each medium that has it; ``video`` is the result, whatever its medium."""

_NAMES = {"image": "video", "audio": "video"}
"""Other names of the result, for generations of that medium alone."""


def token(generation: Generation, creation: int) -> str:
    """Return the name of the files of creation number ``creation`` (from 1 on); always the same for one generation."""
    return hashlib.sha256(_seed(generation, creation).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def path(generation: Generation, creation: int, artifact: str) -> str:
    """Return the path under which an artifact is served; ValueError when the generation has no such artifact."""
    return f"/files/{token(generation, creation)}{_ending(generation, artifact)}"


def artifacts_of(generation: Generation) -> list[str]:
    """Return the artifacts that a creation of this generation has.

    A watermarked copy comes when it was asked for. Whether and when ``speech_url`` and ``sound_url`` come is not
    documented: here with ``audio``, each unless ``audio_type`` names the other [likely].
    """
    if generation.medium is None:
        return []
    found = ["video"] if generation.medium == "audio" else ["video", "cover"]
    request, is_official = generation.request, generation.dialect == ENT
    if is_official and request.get("watermark") and generation.medium != "audio":
        found.append("watermarked")
    if is_official and request.get("audio") and generation.medium == "video":
        kind = str(request.get("audio_type") or "all").lower()
        found += ["speech"] * ("sound" not in kind) + ["sound"] * ("speech" not in kind)
    return found


def content(generation: Generation, creation: int, artifact: str, clip_seconds: float) -> Content:
    """Return the bytes of an artifact, of ``clip_seconds`` if it has a length.

    ``video`` is the result whatever its medium; ``image`` and ``audio`` insist on one. ValueError for an artifact
    that the generation does not have, or a ``size`` that its clip does not fit into.
    """
    ending = _ending(generation, artifact)
    seed = _seed(generation, creation)
    if ending.endswith(".mp3"):
        return Bytes(_sound(seed + ending, clip_seconds))
    if ending.endswith(".png"):
        return Bytes(_picture(seed + ending.removesuffix(".png"), artifact == "watermarked"))
    clip = _clip(seed, clip_seconds, artifact == "watermarked")
    if artifact == "video" and generation.size is not None:
        return Padded(clip, generation.size)
    return Bytes(clip)


def _ending(generation: Generation, artifact: str) -> str:
    name = _NAMES.get(artifact, artifact) if artifact == generation.medium else artifact
    ending = _ENDINGS.get(name, {}).get(generation.medium or "")
    if ending is None:
        medium = generation.medium or "result without a file"
        raise ValueError(f"artifact must be one of {', '.join(ARTIFACTS)} that a {medium} has, not {artifact!r}")
    return ending


# A clip takes about 10 ms to draw and 100 KB to keep; these are for one that is read in many parts.
@lru_cache(maxsize=64)
def _clip(seed: str, seconds: float, watermark: bool) -> bytes:
    return mp4.clip(seed, seconds=seconds, watermark=watermark)


@lru_cache(maxsize=64)
def _picture(seed: str, watermark: bool) -> bytes:
    return pictures.png(seed, watermark=watermark)


@lru_cache(maxsize=64)
def _sound(seed: str, seconds: float) -> bytes:
    return sounds.mp3(seed, seconds=seconds)


def _seed(generation: Generation, creation: int) -> str:
    return f"{generation.dialect} {generation.id} {creation}"


def serve(
    target: str,
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
    """Return the answer to a GET or HEAD of ``data``; ``target`` is its path, ``modified_at`` in epoch seconds.

    ``action`` may spoil the handling of ranges and of the validators; ``serial`` makes a changing ETag
    unique.
    """
    ending = target[target.rindex(".") :]
    name = target[target.rindex("/") + 1 :].partition(".")[0]
    etag = _etag(f"{name}-{artifact[:2]}-{data.size:x}", action, serial)
    modified = "" if action.etag == "none" else formatdate(modified_at, usegmt=True)
    headers = {
        "Content-Type": _TYPES[ending],
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": modified,
    }
    if artifact != "cover":
        headers["Content-Disposition"] = f"attachment;filename={signing.file_name(target)}"
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
