"""Which file of a generation a download keeps, and its required medium. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

Artifact = Literal["video", "image", "audio", "cover", "watermarked", "speech", "sound"]
ARTIFACTS: Final[tuple[Artifact, ...]] = get_args(Artifact)

Family = Literal["video", "image", "audio"]
"""The first half of a content type."""

FAMILY: Final[Mapping[str, Family]] = {
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
