"""The creates of videos, as documented.

Read from ``vidu_api_full.md`` section 1 and from copies of the vendor's pages (https://platform.vidu.com/docs/).
A row is optional unless its page says otherwise.
"""

from __future__ import annotations

from typing import Final

from airflow_provider_vidu.sandbox.official import rows
from airflow_provider_vidu.sandbox.official.fields import (
    Field,
    Json,
    Refused,
    choice,
    items,
    media,
    number,
    objects,
    required,
    text,
)


def _durations(body: Json) -> None:
    """Check the duration against those of the model's family."""
    duration, model = body.get("duration"), body.get("model") or ""
    if duration is None:
        return
    for family, allowed in (
        ("viduq4", range(3, 17)),
        ("viduq3", range(1, 17)),
        ("viduq2", range(1, 11)),
        ("viduq1", (5,)),
        ("vidu2.0", (4, 8)),
    ):
        if model.startswith(family) and duration not in allowed:
            raise Refused("FieldInvalid", f"field duration: {model} has no {duration} s")


def _reference(body: Json) -> None:
    """Check the two forms of reference2video, and the number of references."""
    subjects, images, videos = (body.get(name) or [] for name in ("subjects", "images", "videos"))
    is_q4 = str(body.get("model")).startswith("viduq4")
    if subjects and images:
        raise Refused("FieldUnwanted", "field images is unwanted beside subjects")
    if any(not (subject.get("name") or subject.get("id") or subject.get("server_id")) for subject in subjects):
        raise Refused("FieldLacking", "field subjects.name is lacking")
    if any(not (subject.get("images") or subject.get("videos") or subject.get("server_id")) for subject in subjects):
        raise Refused("FieldItemCountOutOfRange", "field subjects.images must have 1 to 3 items, got 0")
    if not subjects and not images and not videos:
        raise Refused("FieldItemCountOutOfRange", "field images must have 1 to 7 items, got 0")
    if len(images) > 7 and not is_q4:
        raise Refused("FieldItemCountOutOfRange", f"field images must have 1 to 7 items, got {len(images)}")
    if body.get("sounds") and not is_q4:
        raise Refused("FieldUnwanted", "field sounds is unwanted for this model")
    _durations(body)


def _digital_human(body: Json) -> None:
    if not body.get("audio_url") and not (body.get("text") and body.get("voice_id")):
        raise Refused("FieldLacking", "field audio_url, or text with voice_id, is lacking")


def _voiced(**settings: Field) -> dict[str, Field]:
    return {"voice_id": rows.TEXT, "speed": Field(number(0.5, 2)), "volume": Field(number(0, 10)), **settings}


VIDEO_CREATES: Final = (
    rows.Endpoint(
        "text2video",
        {
            **rows.VIDEO,
            **rows.COMMON,
            "prompt": rows.NEEDED_PROMPT,
            "style": Field(choice("general", "anime")),
            "aspect_ratio": rows.RATIO,
        },
        rows.TEXT_MODELS,
        rule=_durations,
    ),
    rows.Endpoint(
        "img2video",
        {**rows.VIDEO, **rows.COMMON, **rows.RECOMMENDED, "images": required(items(rows.IMAGE, 1, 1))},
        rows.IMAGE_MODELS,
        rule=_durations,
    ),
    rows.Endpoint(
        "start-end2video",
        {**rows.VIDEO, **rows.COMMON, **rows.RECOMMENDED, "images": required(items(rows.IMAGE, 2, 2))},
        rows.FRAME_MODELS,
        rule=_durations,
    ),
    rows.Endpoint(
        "reference2video",
        {
            **rows.VIDEO,
            **rows.COMMON,
            "prompt": rows.NEEDED_PROMPT,
            "subjects": Field(items(rows.SUBJECT, 1, 7)),
            "auto_subjects": rows.FLAG,
            "images": Field(items(rows.IMAGE, 0, 15)),
            "videos": Field(items(media("video"), 0, 2)),
            "sounds": Field(items(media("audio"), 0, 3)),
            "aspect_ratio": rows.RATIO,
        },
        rows.REFERENCE_MODELS,
        rule=_reference,
    ),
    rows.Endpoint(
        "multiframe",
        {
            **rows.COMMON,
            "model": rows.MODEL,
            "start_image": required(rows.IMAGE),
            "image_settings": required(
                items(
                    objects({"key_image": required(rows.IMAGE), "prompt": rows.PROMPT, "duration": rows.DURATION}), 2, 9
                )
            ),
            "resolution": rows.RESOLUTION,
        },
        rows.MULTIFRAME_MODELS,
    ),
    rows.Endpoint(
        "extend",
        {
            **rows.COMMON,
            "model": rows.MODEL,
            "video_creation_id": rows.TEXT,
            "video_url": Field(media("video")),
            "images": Field(items(rows.IMAGE, 0, 1)),
            "prompt": rows.PROMPT,
            "duration": Field(number(1, 7, whole=True)),
            "resolution": rows.RESOLUTION,
        },
        rows.MULTIFRAME_MODELS,
        rule=rows.one_of("video_creation_id", "video_url"),
    ),
    rows.Endpoint(
        "upscale-new",
        {
            **rows.COMMON,
            "video_creation_id": rows.TEXT,
            "video_url": Field(media("video", inline=False)),
            "upscale_resolution": Field(choice("1080p", "2K", "4K", "8K")),
        },
        rule=rows.one_of("video_creation_id", "video_url"),
    ),
    rows.Endpoint(
        "lip-sync",
        # Two resellers list payload, the vendor's table does not; surplus_fields="allow-payload" accepts it.
        _voiced(
            **{name: row for name, row in rows.COMMON.items() if name != "payload"},
            video_url=required(media("video", inline=False)),
            audio_url=Field(media("audio", inline=False)),
            text=Field(text(2000, least=2)),
            ref_photo_url=Field(rows.IMAGE),
        ),
        rule=rows.one_of("audio_url", "text"),
    ),
    rows.Endpoint(
        "digital-human",
        _voiced(
            **rows.COMMON,
            model=rows.MODEL,
            image=required(rows.IMAGE),
            prompt=rows.PROMPT,
            audio_url=Field(media("audio")),
            text=Field(text(2000)),
            resolution=rows.RESOLUTION,
        ),
        rule=_digital_human,
    ),
    rows.Endpoint(
        "image2dance", {**rows.COMMON, "image_url": required(rows.IMAGE), "video_url": required(media("video"))}
    ),
    rows.Endpoint(
        "template",
        {
            **rows.COMMON,
            "template": required(text()),
            "images": required(items(rows.IMAGE, 1, 7)),
            "prompt": rows.PROMPT,
            "seed": rows.SEED,
            "aspect_ratio": rows.RATIO,
            "area": rows.TEXT,
            "beast": rows.TEXT,
            "bgm": rows.FLAG,
        },
    ),
    rows.Endpoint(
        "template-story", {**rows.COMMON, "story": required(text()), "images": required(items(rows.IMAGE, 1, 7))}
    ),
)
