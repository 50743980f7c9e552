"""The results in an answer: every creation with its URLs, read from all known forms; pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from airflow_provider_vidu.api.dialects.levels import MAX_WORD_CHARS, NOTHING, Level, as_object, first, short
from airflow_provider_vidu.common.url_parts import MAX_AUTHORITY_CHARS
from airflow_provider_vidu.common.values import mapping, number, objects, trimmed, web_url
from airflow_provider_vidu.models import Artifact

_URL_FIELDS: Final = ("video_url", "result_url", "signed_url", "file_url", "demo_audio")
_LOOSE_URL_FIELDS: Final = ("url", "download_url", "output_url", "audio_url", "image_url")
_COVER_FIELDS: Final = ("cover_url", "thumbnail_url")
_CREATION_FIELDS: Final = ("url", "video_url", "uri")
"""The URL of a creation's file; ``uri`` is of the official API's first version, which some gateways pass on."""
_MEDIA_FIELDS: Final = frozenset(
    {*_URL_FIELDS, *_COVER_FIELDS, "watermarked_url", "metadata", "creations", "job_records", "data_records"}
)
_BARE_URL_FIELDS: Final = (
    "urls", "video_urls", "result_urls", "resultUrls", "output", "outputs", "result", "results", "video", "videos",
    "data",
)  # fmt: skip
"""Fields that may hold just the result's URL, or a list of URLs."""
# Never searched for a result: echoes of the request, and further images.
_NOT_RESULTS: Final = frozenset(
    {
        "input", "inputs", "request", "params", "parameters", "properties", "images", "subjects", "videos_input",
        "error", "payload", "meta_data", "prompt", "enhanced_prompt", "body", "source", "original_request", "extra",
        "user_data", "input_video", "input_image", "arguments", "options", "callback",
    }
)  # fmt: skip
_SEARCH_DEPTH: Final = 4
# The host must hold a dot. Not in the pattern: where it may be is tried for each of its dots, and a text of 40 kB took
# more than a second.
_NO_SCHEME: Final = re.compile(rf"//([^/?#@\s]{{3,{MAX_AUTHORITY_CHARS}}})/")
MAX_ARTIFACTS: Final = 100
_MAX_PIXELS: Final = 1_000_000_000
MAX_URLS_CHARS: Final = 256 * 1024
"""The total length of the URLs of all artifacts is limited to this."""


def artifacts_of(job: Level, inner: Level, *, succeeded: bool) -> tuple[Artifact, ...]:
    """Return the creations, limited in number and total length of URLs; the first one with a URL is the result.

    :param job: the level of the answer that describes the job.
    :param inner: the level inside it; empty if there is none.
    :param succeeded: whether the job has succeeded: only then any URL may be the result's.
    """
    artifacts = _results(job, inner, succeeded=succeeded)
    left = MAX_URLS_CHARS
    for place, artifact in enumerate(artifacts):
        urls = (artifact.url, artifact.cover_url, artifact.watermarked_url, artifact.speech_url, artifact.sound_url)
        left -= sum(len(url) for url in urls if url)
        if place >= MAX_ARTIFACTS or left < 0:
            return artifacts[: max(place, 1)]
    return artifacts


def _results(job: Level, inner: Level, *, succeeded: bool) -> tuple[Artifact, ...]:
    if not succeeded and not inner and not any(map(job.get, _MEDIA_FIELDS & job.keys())):
        return ()  # nearly every poll: the fields are absent, or empty until the end
    own = _creations(job)
    if own:
        if not succeeded or any(artifact.url for artifact in own):
            return own
        return _with_url(own, _direct_url(job, succeeded=True) or _searched_url(job))
    inside = _creations(inner) if inner else ()
    direct = _direct_url(job, succeeded=succeeded)
    if direct is None and not any(artifact.url for artifact in inside):
        direct = (_direct_url(inner, succeeded=succeeded) if inner else None) or (
            _searched_url(job) if succeeded and "creations" not in job else None
        )
    return _with_url(inside, direct, _flat(job, direct, inner))


def _with_url(listed: tuple[Artifact, ...], url: str | None, flat: Artifact | None = None) -> tuple[Artifact, ...]:
    """Give the first creation the URL that the gateway names for the result."""
    if not listed:
        return () if flat is None and url is None else (flat or Artifact(url=url),)
    if url is None or any(artifact.url == url for artifact in listed):
        return listed
    at = next((place for place, artifact in enumerate(listed) if artifact.url), 0)
    return (listed[at].model_copy(update={"url": url}), *listed[:at], *listed[at + 1 :])


def _flat(job: Level, url: str | None, inner: Level) -> Artifact | None:
    cover = first(job, inner, _address, *_COVER_FIELDS)
    watermarked = first(job, inner, _address, "watermarked_url")
    if url is None and cover is None and watermarked is None:
        return None
    speech, sound = (first(job, inner, _address, name) for name in ("speech_url", "sound_url"))
    return Artifact(url=url, cover_url=cover, watermarked_url=watermarked, speech_url=speech, sound_url=sound)


def _creations(level: Level) -> tuple[Artifact, ...]:
    return tuple(itertools.islice(_all_creations(level), MAX_ARTIFACTS))


def _all_creations(level: Level) -> Iterator[Artifact]:
    listed = level.get("creations")
    if listed:
        entries = listed if isinstance(listed, list) else [listed]
        yield from map(_artifact, objects([{"url": one} if isinstance(one, str) else one for one in entries]))
    if "job_records" in level:
        yield from _one_click(level)
    if "data_records" in level:
        yield from _ad_one_click(level)


def _artifact(creation: Level) -> Artifact:
    video = mapping(creation.get("video"))
    size = mapping(video.get("resolution"))
    width, height = (_pixels(size.get(name)) for name in ("width", "height"))
    speech, sound = _address(creation.get("speech_url")), _address(creation.get("sound_url"))
    return Artifact(
        id=short(creation.get("id"), MAX_WORD_CHARS),
        # [L] moderation_url is of the checked file, not of the result; it stays in raw.
        url=first(creation, NOTHING, _address, *_CREATION_FIELDS) or sound or speech,
        cover_url=first(creation, NOTHING, _address, "cover_url", "cover_uri"),
        watermarked_url=_address(creation.get("watermarked_url")),
        speech_url=speech,
        sound_url=sound,
        duration=number(video.get("duration")),
        fps=number(video.get("fps")),
        width=width,
        height=height,
    )


def _pixels(value: Any) -> int | None:
    pixels = number(value)
    return int(pixels) if pixels is not None and abs(pixels) <= _MAX_PIXELS else None


def _one_click(level: Level) -> Iterator[Artifact]:
    """Yield the results of a one-click answer: the whole film, then the newest composition, then the parts."""
    film = _address(level.get("signed_url"))
    if film:
        cover = first(level, NOTHING, _address, *_COVER_FIELDS)
        yield Artifact(id=short(level.get("id"), MAX_WORD_CHARS), url=film, cover_url=cover)
    records = list(objects(level.get("job_records")))
    records.sort(key=lambda record: record.get("type") != "compose")  # stable: the parts keep their order
    for record in records:
        for job in reversed(list(objects(record.get("jobs")))):
            url = _address(job.get("signed_url"))
            if url and url != film:
                yield Artifact(id=short(job.get("id"), MAX_WORD_CHARS), url=url)


def _ad_one_click(level: Level) -> Iterator[Artifact]:
    """Yield the results of an ad's sub-tasks: the newest film, then the scenes, the narration and the music."""
    records = mapping(level.get("data_records"))
    scenes = [record for scene in objects(records.get("storyboards")) for record in objects(scene.get("records"))]
    films = reversed(list(objects(records.get("completed_creation_records"))))
    others = (*objects(records.get("narration_records")), *objects(records.get("bgm_records")))
    for record in (*films, *scenes, *others):
        if url := _address(record.get("creation_url")):
            yield Artifact(id=short(record.get("id"), MAX_WORD_CHARS), url=url)


def _direct_url(level: Level, *, succeeded: bool) -> str | None:
    """Return the result's URL on this level.

    Official answers to creates echo the request (``video_url`` of an extend, ``audio_url`` of a lip-sync), so a level
    with ``state`` counts only when it reports success.
    """
    if "state" in level and not succeeded:
        return None
    for name in _URL_FIELDS:
        if name in level and (url := _address(level[name])):
            return url
    if not succeeded:
        return metadata_url(level)
    # Older new-api has the URL of a success in the field for the reason of a failure.
    url = _address(level.get("fail_reason")) or metadata_url(level)
    # An official answer echoes the request (task_id beside state), or lists its results (creations, even if empty).
    if url is None and "creations" not in level and not ("state" in level and "task_id" in level):
        url = _first_address(level, _LOOSE_URL_FIELDS)
    return url


def _address(value: Any) -> str | None:
    """Return a URL verbatim, without the blanks and line ends, visible or not, that gateways leave around it.

    ``//cdn.example.com/v.mp4`` means https; other incomplete URLs are ambiguous.
    """
    if not isinstance(value, str):
        return None
    text = trimmed(value)
    host = _NO_SCHEME.match(text)
    return web_url(f"https:{text}" if host is not None and "." in host[1][1:-1] else text)


def _first_address(level: Level, names: Iterable[str]) -> str | None:
    return next(filter(None, (_address(level.get(name)) for name in names)), None)


def metadata_url(level: Level) -> str | None:
    """Return the URL in ``metadata``, which holds the result in the OpenAI form."""
    return _first_address(mapping(level.get("metadata")), ("url", *_URL_FIELDS))


def _searched_url(level: Level, depth: int = 0) -> str | None:
    """Search a success for its result in all other places that were recorded; only rare answers need this."""
    if depth and (url := _first_address(level, ("url", *_URL_FIELDS))):
        return url
    for name in _BARE_URL_FIELDS:
        value = level.get(name)
        if url := next(filter(None, map(_address, value if isinstance(value, list) else [value])), None):
            return url
    if depth >= _SEARCH_DEPTH:
        return None
    for name, value in level.items():
        if name in _NOT_RESULTS or name.endswith("_url"):
            continue
        for inner in objects(value) if isinstance(value, list) else filter(None, [as_object(value)]):
            if url := _searched_url(inner, depth + 1):
                return url
    return None
