"""Which file of a generation a download keeps, and its required medium. No I/O."""

from __future__ import annotations

from typing import Final, Literal, get_args

from airflow_provider_vidu.common.urls import unusable_note
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduMissingVideoError
from airflow_provider_vidu.models import Generation

Artifact = Literal["video", "image", "audio", "cover", "watermarked", "speech", "sound"]
ARTIFACTS: Final[tuple[Artifact, ...]] = get_args(Artifact)

Family = Literal["video", "image", "audio"]
"""The first half of a content type."""

FAMILY: Final[dict[Artifact, Family]] = {
    "video": "video",
    "watermarked": "video",
    "image": "image",
    "cover": "image",
    "audio": "audio",
    "speech": "audio",
    "sound": "audio",
}
BESIDE_THE_RESULT: Final[tuple[Artifact, ...]] = ("cover", "watermarked", "speech", "sound")
"""Files of a creation that are not its result; every other artifact is the result itself."""

MAX_CREATION: Final = 998
"""The highest index of a creation with its own file name (``-999``)."""


def family_of(artifact: Artifact | None) -> Family | None:
    """Return the medium that an artifact must have; None for the result, which may have any."""
    return FAMILY[artifact] if artifact else None


def missing(generation: Generation, artifact: Artifact | None, creation: int) -> ViduError:
    """Return the error for a succeeded generation without a URL of an artifact; it lists the available ones.

    :param generation: a generation whose ``url_of(artifact, creation)`` is None.
    :param artifact: the wanted file; None for the result.
    :param creation: the index of the creation, from 0.
    """
    count = len(generation.creations)
    if creation >= count:
        available = "one creation, number 0" if count == 1 else f"{count} creations, numbers 0 to {count - 1}"
        return ViduConfigError(f"There is no creation {creation}: the generation has {available}.")
    wanted = f"{artifact} URL" if artifact in BESIDE_THE_RESULT else "URL of a result"
    others = [name for name in ("result", *BESIDE_THE_RESULT) if generation.url_of(name, creation)]
    unusable = unusable_note(generation.raw)
    nothing = "It has no usable URL." if unusable else "It has no URLs at all."
    has = (f"It has: {', '.join(others)}." if others else nothing) + unusable
    subject = f"creation {creation} of the generation" if creation else "the generation"
    return ViduMissingVideoError(f"The generation succeeded, but {subject} has no {wanted}. {has}")
