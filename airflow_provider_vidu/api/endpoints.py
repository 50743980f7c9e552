"""The create endpoints of the official API, and which one a request is for; decisions only, no I/O.

Facts come from the vendor's pages (https://platform.vidu.com/docs, read in August 2026). Models, durations and
resolutions change every few months, so they are not listed here (the API answers ``FieldInvalid``), only the
*structure* of requests: which fields exist at which endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final, Literal

from airflow_provider_vidu.exceptions import ViduConfigError

Medium = Literal["video", "image", "audio", "none"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One create endpoint of the API.

    :param name: its path after ``/ent/v2/``.
    :param media: the fields that take media, with ``[]`` for the elements of a list.
    :param marks: the fields that exist only at this endpoint, so that one of them decides.
    :param takes_payload: whether its page documents ``payload``. The API refuses surplus fields (``FieldUnwanted``), so
        an order's marker is sent only if this is true.
    :param is_synchronous: whether the answer to the create is already the result.
    :param result: the medium of the result; ``none`` is text or an object of the account.
    :param query: the path of its query, with ``{id}``, if that is not ``tasks/{id}/creations``.
    """

    name: str
    media: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    takes_payload: bool = True
    is_synchronous: bool = False
    result: Medium = "video"
    query: str | None = None

    @property
    def takes_callback(self) -> bool:
        """Whether its page documents ``callback_url``.

        The pages of all asynchronous products do. That of ``general_one_click`` is unknown, and so are endpoints
        outside the table: a service that refuses surplus fields would refuse the order.
        """
        return self.name in ENDPOINTS and not self.is_synchronous and self.name != "one-click/general_one_click"

    @property
    def is_listed(self) -> bool:
        """Whether the account's list shows the generations of this endpoint.

        [I] It lists those of ``tasks/{id}/creations``. No page says so of synchronous products, of those with their own
        query, or of endpoints outside the table.
        """
        return self.name in ENDPOINTS and not self.is_synchronous and self.query is None


_ONE_CLICK_QUERY: Final = "one-click/mv/{id}"
"""Documented for both one-click products, and for their edits and compositions."""

_ALL: Final = (
    Endpoint("text2video"),
    Endpoint("img2video", ("images",)),
    Endpoint("start-end2video", ("images",)),
    Endpoint(
        "reference2video",
        ("images", "videos", "sounds", "subjects[].images", "subjects[].videos"),
        marks=("subjects", "auto_subjects", "sounds"),
    ),
    Endpoint("multiframe", ("start_image", "image_settings[].key_image"), marks=("start_image", "image_settings")),
    Endpoint("extend", ("video_url", "images")),
    Endpoint("upscale-new", ("video_url",), marks=("upscale_resolution",)),
    # The vendor's table of lip-sync has no payload; two resellers list one.
    Endpoint("lip-sync", ("video_url", "audio_url", "ref_photo_url"), marks=("ref_photo_url",), takes_payload=False),
    Endpoint("digital-human", ("image", "audio_url"), marks=("image",)),
    Endpoint("image2dance", ("image_url", "video_url"), marks=("image_url",)),
    Endpoint("template", ("images",), marks=("template",)),
    Endpoint("template-story", ("images",), marks=("story",)),
    Endpoint("reference2image", ("images",), result="image"),
    Endpoint("text2audio", takes_payload=False, result="audio"),
    Endpoint("timing2audio", marks=("timing_prompts",), takes_payload=False, result="audio"),
    Endpoint(
        "audio-tts",
        marks=tuple(f"voice_setting_{name}" for name in ("voice_id", "speed", "volume", "pitch", "emotion")),
        is_synchronous=True,
        result="audio",
    ),
    Endpoint("audio-clone", ("audio_url",), is_synchronous=True, result="audio"),
    Endpoint(
        "subjects", ("images", "videos"), marks=("name",), takes_payload=False, is_synchronous=True, result="none"
    ),
    Endpoint(
        "img2video-prompt-recommendation",
        ("images",),
        marks=("type", "count"),
        takes_payload=False,
        is_synchronous=True,
        result="none",
    ),
    Endpoint("ad-one-click", ("images",), marks=("creative",), takes_payload=False),
    # The ad's page lists payload for its edit and its composition, and not for the ad itself.
    Endpoint("ad-one-click/edit"),
    Endpoint("ad-one-click/compose"),
    Endpoint("trending-replicate", ("video_url", "images"), marks=("remove_audio",), takes_payload=False),
    # mv is documented without payload; general_one_click is undocumented, so none is sent either.
    Endpoint("one-click/mv", ("images", "audio_url", "lip_ref_url"), takes_payload=False, query=_ONE_CLICK_QUERY),
    Endpoint("one-click/general_one_click", ("images", "audio_url"), takes_payload=False, query=_ONE_CLICK_QUERY),
)

ENDPOINTS: Final[Mapping[str, Endpoint]] = {endpoint.name: endpoint for endpoint in _ALL}

MEDIA_FIELDS: Final = frozenset(field.partition("[")[0] for endpoint in _ALL for field in endpoint.media)
"""The top-level fields with media, or with objects that contain media."""

CONTENT: Final = MEDIA_FIELDS | {
    "template", "story", "creative", "text", "timing_prompts", "video_creation_id", "upscale_resolution"
}  # fmt: skip
"""The fields that a product is made of: without one of them, a request may be another product's."""

NUMBERS: Final = frozenset(
    {"duration", "seed", "count", "speed", "volume", "wm_position", "voice_setting_speed", "voice_setting_volume",
     "voice_setting_pitch"}
)  # fmt: skip
"""Documented as numbers. Without native rendering, a template turns them into text."""

FLAGS: Final = frozenset({"audio", "auto_subjects", "bgm", "is_rec", "off_peak", "remove_audio", "watermark"})
"""Documented as true or false."""

_BY_MARK: Final = {mark: endpoint.name for endpoint in _ALL for mark in endpoint.marks}
_BY_IMAGES: Final = ("text2video", "img2video", "start-end2video")
_REFERENCE_MODELS: Final = frozenset({"viduq3", "viduq3-mix", "viduq3-drama", "viduq3-ad"})
"""Models that the vendor's pages list only at ``reference2video``."""
_SOUND_MODEL: Final = "audio1.0"
"""Listed only at ``text2audio`` and ``timing2audio``."""
_NEED_EACH_OTHER: Final = ("start_image", "image_settings")
_ENT_ONLY: Final = frozenset(_BY_MARK) - {"image", "image_url", "name", "type", "count", "template", "creative"}
"""Marks that no gateway's create is known to have; at gateways the others may mean something else."""
_PART_OF: Final = re.compile(r"(one-click/\w+)/[^/]+/(?:edit|compose)")
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")


def named(endpoint: str) -> Endpoint:
    """Return an endpoint's row of the table.

    :param endpoint: its name, or a path that ends in it: resellers have prefixes of their own.
    :return: for an unknown endpoint, a row without assumptions: it is polled like most, without a marker.
    :raises ViduConfigError: when it is not text, which native rendering may cause.
    """
    if not isinstance(endpoint, str):
        raise ViduConfigError(f"endpoint must be text, not {type(endpoint).__name__}.")
    path = "/" + endpoint.strip().strip("/")  # a Variable, or a file, ends with a line end
    if part := _PART_OF.search(path):
        path = "/" + part[1]
    # Longest first: ad-one-click/edit is not just "edit".
    names = sorted(ENDPOINTS, key=len, reverse=True)
    known = (ENDPOINTS[name] for name in names if path.endswith(f"/{name}"))
    return next(known, None) or Endpoint(endpoint, takes_payload=False)


def endpoint_for(body: Mapping[str, Any]) -> str:
    """Return the name of the endpoint that a request is for, judged by its fields.

    Fields that exist only at one endpoint decide; otherwise the media do: a video, sound or text, and then the number
    of images together with the model. ``reference2image`` takes the same fields as the video endpoints, so it is never
    inferred and must be named.

    :raises ViduConfigError: naming the choices, when the fields fit several endpoints, or none.
    """
    given = _given(body)
    names = {_BY_MARK[field] for field in given & _BY_MARK.keys()}
    if len(names) > 1:
        marks = ", ".join(f"{field} ({_BY_MARK[field]})" for field in sorted(given & _BY_MARK.keys()))
        raise _problem(f"The request mixes fields of different endpoints: {marks}.", names)
    if names:
        return _checked(names.pop(), given)
    choices = _by_media(given, body)
    if len(choices) == 1:
        return choices[0]
    media = ", ".join(sorted(given & {*MEDIA_FIELDS, "video_creation_id", "text"}))
    raise _problem(f"The fields ({media}) fit several endpoints: {', '.join(choices)}.", choices)


def check_when_parsed(body: Mapping[str, Any]) -> None:
    """Refuse an ambiguous request while its DAG is parsed, if it is certainly one of the official API.

    Parsing does no I/O, so the connection's dialect is unknown, and a gateway has a single endpoint for all fields. So
    this checks only requests with fields that no gateway is known to have, or with a source video and neither prompt
    nor image, and skips those whose images are counted only after rendering. All others are checked when the task
    runs, before anything is sent.

    :param body: the fields before templates are rendered; the values may be templates.
    :raises ViduConfigError: naming the choices.
    """
    given = _given(body)
    is_bare_video = bool(given & {"video_url", "video_creation_id"}) and not given & {"prompt", "images"}
    is_counted = body.get("images") is None or isinstance(body["images"], (list, tuple))
    if is_counted and (given & _ENT_ONLY or is_bare_video):
        endpoint_for(body)


def typed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with numbers and flags in place of the text that a template has turned them into.

    Whole numbers become integers. Only fields documented as numbers or flags are changed, and only unambiguous text.
    """
    return {name: _typed(name, value) for name, value in body.items()}


def is_off_peak(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for off-peak generation, which may take 48 hours."""
    return _typed("off_peak", body.get("off_peak")) is True


def _typed(name: str, value: Any) -> Any:
    if name in NUMBERS and isinstance(value, float) and value.is_integer():
        return int(value)  # pandas turns a 4 in a column with gaps into 4.0, which the API may refuse
    if not isinstance(value, str):
        return value
    word = value.strip()
    if name in FLAGS:
        return {"true": True, "false": False}.get(word.lower(), value)
    if name in NUMBERS and (match := _NUMBER.fullmatch(word)):
        return _typed(name, float(word)) if match[1] else int(word)
    return value


def _given(body: Mapping[str, Any]) -> set[str]:
    """Return the names of the fields that are not empty."""
    return {
        name
        for name, value in body.items()
        if not (isinstance(value, (str, list, tuple, dict, NoneType)) and not value)
    }


def _checked(name: str, given: set[str]) -> str:
    """Return the endpoint of a mark after checking the documented rules of its structure."""
    if {"subjects", "images"} <= given:
        raise _problem(
            "reference2video takes either subjects or images. Put the images into subjects[].images.", (name,)
        )
    missing = [field for field in _NEED_EACH_OTHER if field not in given]
    if name == "multiframe" and missing:
        raise _problem(f"multiframe needs start_image and image_settings, and {missing[0]} is missing.", (name,))
    return name


def _by_media(given: set[str], body: Mapping[str, Any]) -> Sequence[str]:
    images = _count(body.get("images"))
    if given & {"video_url", "video_creation_id"}:
        return _for_video(given, images)
    if given & {"audio_url", "text"}:
        return _for_sound(given, images)
    model = str(body.get("model") or "").strip().lower()
    if "videos" in given or (images and model in _REFERENCE_MODELS) or images >= len(_BY_IMAGES):
        return ("reference2video",)
    if not images and model == _SOUND_MODEL:
        return ("text2audio",)
    return (_BY_IMAGES[images],)


def _for_video(given: set[str], images: int) -> Sequence[str]:
    if given & {"audio_url", "text"}:
        return ("lip-sync",)
    if "duration" in given or (images and "video_creation_id" in given) or (not images and "prompt" in given):
        return ("extend",)
    if images:
        # One image is the last frame of an extension, or the style of a replica.
        return ("extend", "trending-replicate") if images == 1 else ("trending-replicate",)
    return ("extend", "upscale-new") if "video_creation_id" in given else ("extend", "lip-sync", "upscale-new")


def _for_sound(given: set[str], images: int) -> Sequence[str]:
    if images and "audio_url" in given:
        return ("one-click/mv", "one-click/general_one_click")
    if "audio_url" in given:
        return ("audio-clone",) if "voice_id" in given else ("audio-clone", "digital-human", "lip-sync")
    # audio-tts calls its voice voice_setting_voice_id; a voice_id is another product's.
    return ("audio-tts", "digital-human", "lip-sync") if images or "voice_id" in given else ("audio-tts",)


def _count(images: object) -> int:
    if images is not None and (isinstance(images, (str, bytes)) or not isinstance(images, Sequence)):
        raise ViduConfigError(f"images must be a list, not {type(images).__name__}.")
    return len(images or ())


def _problem(problem: str, choices: Iterable[str]) -> ViduConfigError:
    return ViduConfigError(
        f"{problem} Set endpoint to the intended one ({', '.join(sorted(choices))}, or a path that starts with a "
        "slash); with an endpoint, the fields are sent as they are. Nothing was submitted."
    )
