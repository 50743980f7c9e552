"""The creates of the official API as a table, and which of them a request is for; decisions only, no I/O.

Facts come from the vendor's pages (https://platform.vidu.com/docs, read in August 2026). Lists of models,
durations and resolutions change every few months, so none is kept here: the API answers ``FieldInvalid``.
Only the *structure* of a request is: which fields exist at which endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from airflow_provider_vidu.exceptions import ViduConfigError

Medium = Literal["video", "image", "audio", "none"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One create of the API.

    :param name: what follows ``/ent/v2/`` in its path.
    :param media: the fields that take media, with ``[]`` for the elements of a list.
    :param marks: the fields that exist at this endpoint alone, so that one of them decides.
    :param takes_payload: whether its page documents ``payload``. The API refuses surplus fields
        (``FieldUnwanted``), so the marker of an order is sent only where this is true.
    :param is_synchronous: whether the answer to the create is the result; then there is nothing to poll.
    :param result: the medium of the result; ``none`` is text or an object of the account.
    :param query: where its state is asked for, with ``{id}``, if that is not ``tasks/{id}/creations``.
    """

    name: str
    media: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    takes_payload: bool = True
    is_synchronous: bool = False
    result: Medium = "video"
    query: str | None = None

    @property
    def is_listed(self) -> bool:
        """Whether the account's list shows what is created here.

        [I] It lists what ``tasks/{id}/creations`` knows. Of the products that answer at once, of those with a query
        of their own, and of endpoints that are not in the table, no page says so.
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
    # That mv has no payload is documented; of general_one_click nothing is known, so none is sent either.
    Endpoint("one-click/mv", ("images", "audio_url", "lip_ref_url"), takes_payload=False, query=_ONE_CLICK_QUERY),
    Endpoint("one-click/general_one_click", ("images", "audio_url"), takes_payload=False, query=_ONE_CLICK_QUERY),
)

ENDPOINTS: Final[Mapping[str, Endpoint]] = {endpoint.name: endpoint for endpoint in _ALL}

MEDIA_FIELDS: Final = frozenset(field.partition("[")[0] for endpoint in _ALL for field in endpoint.media)
"""The top-level fields that hold media, or objects with media inside."""

NUMBERS: Final = frozenset(
    {"duration", "seed", "count", "speed", "volume", "wm_position", "voice_setting_speed", "voice_setting_volume",
     "voice_setting_pitch"}
)  # fmt: skip
"""Documented as numbers. A template that is not rendered natively makes text of them."""

FLAGS: Final = frozenset({"audio", "auto_subjects", "bgm", "is_rec", "off_peak", "remove_audio", "watermark"})
"""Documented as true or false."""

_BY_MARK: Final = {mark: endpoint.name for endpoint in _ALL for mark in endpoint.marks}
_BY_IMAGES: Final = ("text2video", "img2video", "start-end2video")
_REFERENCE_MODELS: Final = frozenset({"viduq3", "viduq3-mix", "viduq3-drama", "viduq3-ad"})
"""The vendor's pages list these models at ``reference2video`` and nowhere else."""
_SOUND_MODEL: Final = "audio1.0"
"""The model of ``text2audio`` and ``timing2audio``, listed nowhere else."""
_NEED_EACH_OTHER: Final = ("start_image", "image_settings")
_ENT_ONLY: Final = frozenset(_BY_MARK) - {"image", "image_url", "name", "type", "count", "template", "creative"}
"""Marks that no gateway's create is known to have. The others may mean something else there."""
_PART_OF: Final = re.compile(r"(one-click/\w+)/[^/]+/(?:edit|compose)")
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")


def named(endpoint: str) -> Endpoint:
    """Return what is known of an endpoint.

    :param endpoint: its name, or a path that ends in it, as resellers have them under prefixes of their own.
    :return: its row of the table. Of an unknown one nothing is assumed: it is polled like most, without a marker.
    :raises ViduConfigError: when it is not text, as native rendering may leave it.
    """
    if not isinstance(endpoint, str):
        raise ViduConfigError(f"endpoint must be text, not {type(endpoint).__name__}.")
    path = "/" + endpoint.strip("/")
    if part := _PART_OF.search(path):
        path = "/" + part[1]
    # The longest first: ad-one-click/edit is not some "edit".
    known = (name for name in sorted(ENDPOINTS, key=len, reverse=True) if path.endswith(f"/{name}"))
    found = next(known, None)
    return ENDPOINTS[found] if found else Endpoint(endpoint, takes_payload=False)


def endpoint_for(body: Mapping[str, Any]) -> str:
    """Return the name of the endpoint that a request is for, judged by its fields.

    Fields that exist at one endpoint alone decide. Otherwise the media do: a video, sound or text, and at last
    the number of images together with the model. ``reference2image`` takes the same fields as the video
    endpoints, so it is never chosen and must be named.

    :param body: the request.
    :raises ViduConfigError: naming the choices, when the fields fit several endpoints, or none.
    """
    given = {name for name, value in body.items() if _is_given(value)}
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
    """Refuse an ambiguous request while its DAG is parsed, as far as that harms nobody.

    Which dialect the connection speaks is not known then, because parsing does no I/O, and a gateway has a single
    endpoint that the fields need not decide. So this judges only requests with a structure of the official API:
    with fields that no gateway is known to have, or with a source video and neither prompt nor picture. It judges
    none whose images are counted only after rendering. Everything else is decided when the task runs, before
    anything is sent.

    :param body: the fields as they are known, before templates are rendered; the values may be templates.
    :raises ViduConfigError: naming the choices.
    """
    given = {name for name, value in body.items() if _is_given(value)}
    is_bare_video = bool(given & {"video_url", "video_creation_id"}) and not given & {"prompt", "images"}
    is_counted = body.get("images") is None or isinstance(body["images"], (list, tuple))
    if is_counted and (given & _ENT_ONLY or is_bare_video):
        endpoint_for(body)


def typed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with numbers and flags instead of the text that a template has made of them.

    Whole numbers are written as such. Only fields that are documented as such are changed, and only text that cannot
    be anything else.
    """
    return {name: _typed(name, value) for name, value in body.items()}


def is_off_peak(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for off-peak generation, which may take 48 hours."""
    return _typed("off_peak", body.get("off_peak")) is True


def _typed(name: str, value: Any) -> Any:
    if name in NUMBERS and isinstance(value, float) and value.is_integer():
        return int(value)  # pandas makes 4.0 of the 4 in a column with gaps; fields of whole numbers may refuse it
    if not isinstance(value, str):
        return value
    word = value.strip()
    if name in FLAGS:
        return {"true": True, "false": False}.get(word.lower(), value)
    if name in NUMBERS and (match := _NUMBER.fullmatch(word)):
        return _typed(name, float(word)) if match[1] else int(word)
    return value


def _is_given(value: object) -> bool:
    return value is not None and not (isinstance(value, (str, list, tuple, dict)) and not value)


def _checked(name: str, given: set[str]) -> str:
    """Return the endpoint that a mark decided, unless a documented rule of its structure is broken."""
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
        # One image is the last frame of an extension, or the look of a replica.
        return ("extend", "trending-replicate") if images == 1 else ("trending-replicate",)
    return ("extend", "upscale-new") if "video_creation_id" in given else ("extend", "lip-sync", "upscale-new")


def _for_sound(given: set[str], images: int) -> Sequence[str]:
    if images and "audio_url" in given:
        return ("one-click/mv", "one-click/general_one_click")
    if "audio_url" in given:
        return ("audio-clone",) if "voice_id" in given else ("audio-clone", "digital-human", "lip-sync")
    # audio-tts names its voice voice_setting_voice_id; a voice_id is another product's.
    return ("audio-tts", "digital-human", "lip-sync") if images or "voice_id" in given else ("audio-tts",)


def _count(images: object) -> int:
    if images is not None and (isinstance(images, (str, bytes)) or not isinstance(images, Sequence)):
        raise ViduConfigError(f"images must be a list, not {type(images).__name__}.")
    return len(images or ())


def _problem(what: str, choices: Iterable[str]) -> ViduConfigError:
    return ViduConfigError(
        f"{what} Set endpoint to the one that is meant ({', '.join(sorted(choices))}, or a path starting with a "
        "slash); with an endpoint, the fields are sent as they are. Nothing was submitted."
    )
