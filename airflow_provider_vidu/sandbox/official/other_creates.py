"""The creates of images, sounds, subjects and whole films, and those that edit parts of a film.

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


def _reference_image(body: Json) -> None:
    if body.get("model") == "viduq1" and not body.get("images"):
        raise Refused("FieldItemCountOutOfRange", "field images must have 1 to 7 items, got 0")


OTHER_CREATES: Final = (
    rows.Endpoint(
        "reference2image",
        {
            **rows.COMMON,
            "model": rows.NEEDED_MODEL,
            "images": Field(items(rows.IMAGE, 0, 7)),
            "prompt": rows.NEEDED_PROMPT,
            "seed": rows.SEED,
            "aspect_ratio": rows.PICTURE_RATIO,
            "resolution": Field(choice("540p", "720p", "1080p", "2K", "4K")),
        },
        ("viduq2", "viduq1"),
        medium="image",
        rule=_reference_image,
    ),
    rows.Endpoint(
        "text2audio",
        {
            **rows.CALLBACK,
            "model": rows.NEEDED_MODEL,
            "prompt": required(text(1500)),
            "duration": Field(number(2, 10)),
            "seed": rows.SEED,
        },
        ("audio1.0",),
        medium="audio",
    ),
    rows.Endpoint(
        "timing2audio",
        {
            **rows.CALLBACK,
            "model": rows.NEEDED_MODEL,
            "timing_prompts": required(
                items(
                    objects(
                        {"from": Field(number(0, 10)), "to": required(number(0, 10)), "prompt": required(text(1500))}
                    ),
                    1,
                    10,
                )
            ),
            "duration": Field(number(2, 10)),
            "seed": rows.SEED,
        },
        ("audio1.0",),
        medium="audio",
    ),
    rows.Endpoint(
        "audio-tts",
        {
            **rows.PAYLOAD,
            "text": required(text(10_000)),
            "voice_setting_voice_id": required(text()),
            "voice_setting_speed": Field(number(0.5, 2)),
            "voice_setting_volume": Field(number(0, 10)),
            "voice_setting_pitch": Field(number(-12, 12)),
            "voice_setting_emotion": Field(
                choice("happy", "sad", "angry", "fearful", "disgusted", "surprised", "calm")
            ),
        },
        medium="audio",
        answer="speech",
    ),
    rows.Endpoint(
        "audio-clone",
        {
            **rows.PAYLOAD,
            "audio_url": required(media("audio")),
            "voice_id": required(text()),
            "text": required(text(1000)),
            "prompt_audio_url": Field(media("audio")),
            "prompt_text": rows.TEXT,
        },
        medium="audio",
        answer="voice",
    ),
    rows.Endpoint(
        "subjects",
        {
            "name": required(text()),
            "images": Field(items(rows.IMAGE, 0, 3)),
            "videos": Field(items(media("video"), 0, 1)),
            "voice_id": rows.TEXT,
        },
        medium=None,
        answer="subject",
        rule=rows.one_of("images", "videos"),
    ),
    rows.Endpoint(
        "img2video-prompt-recommendation",
        {
            "images": required(items(rows.IMAGE, 1, 1)),
            "type": Field(items(choice("img2video", "template"), 0, 2)),
            "resolution": rows.RESOLUTION,
            "count": Field(number(1, 10, whole=True)),
        },
        medium=None,
        answer="prompts",
    ),
    rows.Endpoint(
        "ad-one-click",
        {
            **rows.CALLBACK,
            "images": required(items(rows.IMAGE, 1, 7)),
            "prompt": Field(text(2000)),
            "duration": Field(number(8, 60, whole=True)),
            "aspect_ratio": Field(choice("1:1", "16:9", "9:16")),
            "language": Field(choice("zh", "en")),
            "creative": rows.FLAG,
        },
        short_lived=True,
    ),
    rows.Endpoint(
        "trending-replicate",
        {
            **rows.CALLBACK,
            "video_url": required(media("video")),
            "images": required(items(rows.IMAGE, 1, 7)),
            "prompt": Field(text(2000)),
            "aspect_ratio": rows.RATIO,
            "resolution": rows.RESOLUTION,
            "remove_audio": rows.FLAG,
        },
    ),
    rows.Endpoint(
        "one-click/mv",
        {
            **rows.CALLBACK,
            "images": required(items(rows.IMAGE, 1, 7)),
            "audio_url": required(media("audio")),
            "lip_sync": rows.FLAG,
            "lip_ref_url": Field(rows.IMAGE),
            "prompt": Field(text(3000)),
            "aspect_ratio": rows.RATIO,
            "quality": Field(choice("standard", "high")),
            "resolution": Field(choice("540p", "720p", "1080p")),
            "add_subtitle": rows.FLAG,
            "subtitle_color": rows.TEXT,
            "language": Field(choice("zh", "en")),
            "srt_url": rows.TEXT,
        },
        answer="film",
    ),
    rows.Endpoint(
        "one-click/general_one_click",
        # Its page lists "images, audio_url, prompt, …"; the rest of the table is unknown.
        {
            **rows.PAYLOAD,
            **rows.CALLBACK,
            "images": required(items(rows.IMAGE, 1, 15)),
            "audio_url": Field(media("audio")),
            "prompt": rows.PROMPT,
        },
        answer="film",
        open=True,
    ),
)

PART_CREATES: Final = (
    rows.Endpoint(
        "ad-one-click/edit",
        {
            **rows.PAYLOAD,
            **rows.CALLBACK,
            "ad_one_click_task_id": required(text()),
            "type": required(choice("generate_video", "generate_narration", "generate_bgm")),
            "storyboard_video_index": Field(number(0, 99, whole=True)),
            "prompt": required(text(2000)),
        },
        answer="sub-task",
        short_lived=True,
    ),
    rows.Endpoint(
        "ad-one-click/compose",
        {
            **rows.PAYLOAD,
            **rows.CALLBACK,
            "ad_one_click_task_id": required(text()),
            "video_task_ids": required(items(text(), 1, 99)),
            "bgm_task_id": required(text()),
            "narration_task_id": required(text()),
        },
        answer="composition",
        short_lived=True,
    ),
    rows.Endpoint(
        "one-click/mv/edit",
        {**rows.CALLBACK, "job_id": required(text()), "prompt": required(text(3000))},
        answer="film",
    ),
    rows.Endpoint("one-click/mv/compose", {**rows.CALLBACK, "job_ids": required(items(text(), 1, 99))}, answer="film"),
)
"""The creates that work on a part of an earlier one."""
