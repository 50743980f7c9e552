"""The table of a create, and the rows and models that several tables share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from airflow_provider_vidu.sandbox.official.fields import (
    MAX_PAYLOAD,
    Field,
    Json,
    Medium,
    Refused,
    choice,
    flag,
    items,
    media,
    number,
    objects,
    required,
    text,
)

Answer = Literal["task", "speech", "voice", "subject", "prompts", "film", "sub-task", "composition"]
"""The answer to a create: a task, an immediate result (speech, voice, subject, prompts), only an ``id`` (film), or an
id under another name (sub-task, composition)."""

#: Documented prompt limit of the video endpoints, in characters.
MAX_PROMPT = 5000

MODEL = Field(text())
NEEDED_MODEL = required(text())
PROMPT = Field(text(MAX_PROMPT))
NEEDED_PROMPT = required(text(MAX_PROMPT))
FLAG = Field(flag)
TEXT = Field(text())
SEED = Field(number(-(2**31), 2**32 - 1, whole=True))
DURATION = Field(number(1, 16, whole=True))
RATIO = Field(choice("16:9", "9:16", "4:3", "3:4", "1:1"))
PICTURE_RATIO = Field(
    choice("auto", "16:9", "9:16", "1:1", "3:4", "4:3", "21:9", "2:3", "3:2", "4:5", "5:4")
)  # fmt: skip
RESOLUTION = Field(choice("360p", "540p", "720p", "1080p", "2K", "4K"))
CALLBACK: Final = {"callback_url": TEXT}
PAYLOAD: Final = {"payload": Field(text(MAX_PAYLOAD))}
#: Common to the video endpoints.
COMMON: Final = {
    **PAYLOAD,
    **CALLBACK,
    "watermark": FLAG,
    "wm_position": Field(number(1, 4, whole=True)),
    "wm_url": TEXT,
    "meta_data": TEXT,
}
VIDEO: Final = {
    "model": NEEDED_MODEL,
    "prompt": PROMPT,
    "duration": DURATION,
    "seed": SEED,
    "resolution": RESOLUTION,
    "movement_amplitude": Field(choice("auto", "small", "medium", "large")),
    "bgm": FLAG,
    "audio": FLAG,
    "audio_type": TEXT,
    "off_peak": FLAG,
}
IMAGE = media("image")
RECOMMENDED: Final = {"voice_id": TEXT, "is_rec": FLAG}
SUBJECT: Final = objects(
    {
        "name": TEXT,
        "id": TEXT,  # the name on older pages
        "images": Field(items(IMAGE, 0, 3)),
        "videos": Field(items(media("video"), 0, 1)),
        "voice_id": TEXT,
        "server_id": TEXT,
    }
)

TEXT_MODELS: Final = ("viduq3-turbo", "viduq3-pro", "viduq2", "viduq1")
FRAME_MODELS: Final = (
    *TEXT_MODELS,
    *("viduq3-pro-fast", "viduq2-pro", "viduq2-pro-fast", "viduq2-turbo", "viduq1-classic", "vidu2.0"),
)
IMAGE_MODELS: Final = (*FRAME_MODELS, "viduq4-preview")
REFERENCE_MODELS: Final = (
    *("viduq3", "viduq3-mix", "viduq3-turbo", "viduq3-drama", "viduq3-ad"),
    *("viduq2-pro", "viduq2", "viduq1", "vidu2.0", "viduq4-preview"),
)
MULTIFRAME_MODELS: Final = ("viduq2-turbo", "viduq2-pro")


@dataclass(frozen=True)
class Endpoint:
    """One create: its table, its models (none: any or no model), and its result.

    ``rule`` checks several rows together. ``open`` marks an incomplete table: surplus fields are accepted. URLs of
    ``short_lived`` results are valid for an hour instead of a day.
    """

    name: str
    fields: Mapping[str, Field]
    models: tuple[str, ...] = ()
    medium: Medium | None = "video"
    answer: Answer = "task"
    rule: Callable[[Json], None] | None = None
    open: bool = False
    short_lived: bool = False


def one_of(*names: str) -> Callable[[Json], None]:
    """Return the rule that one of ``names`` is required."""

    def rule(body: Json) -> None:
        if not any(body.get(name) for name in names):
            raise Refused("FieldLacking", f"field {' or '.join(names)} is lacking")

    return rule
