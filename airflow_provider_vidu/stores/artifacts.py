"""Which file of a generation a download keeps, and its required medium. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

from airflow_provider_vidu.exceptions import ViduConfigError

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


def check_product(medium: str | None, artifact: Artifact | None) -> None:
    """Refuse, before it is paid for, a product whose file could not be kept.

    A picture may be kept as a ``video``: animated results come as GIF or WebP. Whether a product has other files beside
    its result, only its answer shows.

    :param medium: of the product's result; ``none`` if it has no file, None if it is unknown.
    :raises ViduConfigError: naming the argument.
    """
    family = family_of(artifact)
    if medium == "none":
        raise ViduConfigError(
            "This product has no file to store: use ViduGenerateOperator without destination. Nothing was submitted."
        )
    if medium is None or family is None or artifact in BESIDE_THE_RESULT or family == medium:
        return
    if (family, medium) != ("video", "image"):
        raise ViduConfigError(
            f"artifact {artifact!r} cannot be kept of this product, whose result is of another medium ({medium}). Omit "
            "artifact to keep it. Nothing was submitted."
        )
