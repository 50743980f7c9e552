"""The files behind the result URLs: their bytes, and the part that a request gets. No I/O."""

from __future__ import annotations

import hashlib
from email.utils import formatdate
from functools import lru_cache

from airflow_provider_vidu.common import ranges
from airflow_provider_vidu.sandbox.faults.actions import Action
from airflow_provider_vidu.sandbox.media import mp4, pictures, sounds
from airflow_provider_vidu.sandbox.messages.answers import Answer, Bytes, Content, Padded
from airflow_provider_vidu.sandbox.messages.calls import ENT, Call
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
"""The ending of each artifact's path, by the result's medium; ``video`` is the result of any medium."""

_NAMES = {"image": "video", "audio": "video"}
"""Aliases of the result, valid only for its medium."""


def token(generation: Generation, creation: int) -> str:
    """Return the stable file name of creation number ``creation`` (from 1)."""
    return hashlib.sha256(_seed(generation, creation).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def path(generation: Generation, creation: int, artifact: str) -> str:
    """Return the path of an artifact; ValueError if the generation does not have it."""
    return f"/files/{token(generation, creation)}{_ending(generation, artifact)}"


def artifacts_of(generation: Generation) -> list[str]:
    """Return the artifacts of each creation of this generation.

    A watermarked copy exists on request. When ``speech_url`` and ``sound_url`` are sent is not documented: here with
    ``audio``, each unless ``audio_type`` names the other [likely].
    """
    if generation.medium is None:
        return []
    names = ["video"] if generation.medium == "audio" else ["video", "cover"]
    request, is_official = generation.request, generation.dialect == ENT
    if is_official and request.get("watermark") and generation.medium != "audio":
        names.append("watermarked")
    if is_official and request.get("audio") and generation.medium == "video":
        kind = str(request.get("audio_type") or "all").lower()
        names += ["speech"] * ("sound" not in kind) + ["sound"] * ("speech" not in kind)
    return names


def content(generation: Generation, creation: int, artifact: str, clip_seconds: float) -> Content:
    """Return the bytes of an artifact; ``clip_seconds`` is the length of videos and sounds.

    ``video`` is the result of any medium; ``image`` and ``audio`` require that medium. ValueError if the generation
    does not have the artifact, or if its ``size`` is too small for the clip.
    """
    ending = _ending(generation, artifact)
    seed = _seed(generation, creation)
    if ending.endswith(".mp3"):
        return Bytes(_sound(seed + ending, seconds=clip_seconds))
    if ending.endswith(".png"):
        return Bytes(_picture(seed + ending.removesuffix(".png"), watermark=artifact == "watermarked"))
    clip = _clip(seed, seconds=clip_seconds, watermark=artifact == "watermarked")
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


# For files that are read in many parts: a clip takes about 4 ms to make and 100 KB to keep.
_clip = lru_cache(maxsize=64)(mp4.clip)
_picture = lru_cache(maxsize=64)(pictures.png)
_sound = lru_cache(maxsize=64)(sounds.mp3)


def _seed(generation: Generation, creation: int) -> str:
    return f"{generation.dialect} {generation.id} {creation}"


def serve(
    call: Call, path: str, artifact: str, data: Content, *, modified_at: float, action: Action, serial: int
) -> Answer:
    """Return the answer to a GET or HEAD of ``data`` at ``path``; ``modified_at`` in epoch seconds.

    ``action`` may break ranges and validators; ``serial`` makes a changing ETag unique.
    """
    ending = path[path.rindex(".") :]
    name = path[path.rindex("/") + 1 :].partition(".")[0]
    etag = _etag(f"{name}-{artifact[:2]}-{data.size:x}", action, serial)
    modified = "" if action.etag == "none" else formatdate(modified_at, usegmt=True)
    headers = {"Content-Type": _TYPES[ending], "Accept-Ranges": "bytes", "ETag": etag, "Last-Modified": modified}
    if artifact != "cover":
        headers["Content-Disposition"] = f"attachment;filename={signing.file_name(path)}"
    # RFC 9110, 14.2: Range is defined only for GET.
    wanted = call.header("range") if call.method == "GET" else None
    part = ranges.decide(wanted, call.header("if-range"), size=data.size, etag=etag, modified=modified)
    if action.range == "ignore":
        part = ranges.Part(200, 0, data.size)
        del headers["Accept-Ranges"]
    elif action.range == "416":
        part = ranges.Part(416, 0, 0)
    elif action.range == "wrong" and part.status == 206:
        # Content-Range matches the bytes sent, but these are not the requested ones.
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
