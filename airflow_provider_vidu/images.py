"""Images that are not on the web: read from files or object storage and sent inline.

The limits come from the API's pages (platform.vidu.com/docs, "Image to Video" and "Reference to
Image"): png, jpeg or webp; below 10 MB each when sent as base64; a request body of at most 20 MB.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.text import shown

MAX_IMAGE_BYTES: Final = 10_000_000
MAX_BODY_BYTES: Final = 20_000_000
_MAGIC: Final = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


def inlined(images: Sequence[Any] | str, storage_conn_id: str | None = None) -> list[str]:
    """Return ``images`` with every path replaced by a data URI; web addresses and data URIs stay.

    :param images: web addresses, data URIs, local paths or any object-storage paths.
    :param storage_conn_id: the Airflow connection for the object storage.
    :raises ViduConfigError: when one cannot be read, is too large or is no image the API takes.
    """
    if not isinstance(images, (str, list, tuple)):
        raise ViduConfigError(f"images must be an address, a path or a list of them, not {type(images).__name__}.")
    listed = [images] if isinstance(images, str) else list(images)
    found = [_inlined(image, storage_conn_id) for image in listed]
    total = sum(map(len, found))
    if total > MAX_BODY_BYTES:
        raise ViduConfigError(
            f"The images make a request of {total} bytes; the API takes {MAX_BODY_BYTES}. "
            "Put them on the web and give their addresses instead."
        )
    return found


def _inlined(image: Any, storage_conn_id: str | None) -> str:
    if not (isinstance(image, str) and image.strip() and image != "None") and not hasattr(image, "open"):
        raise ViduConfigError(f"images holds {shown(image)}: each must be an address or a path.")
    address = str(image)
    if address.startswith(("http://", "https://", "data:")):
        return address
    content = _read(image, storage_conn_id)
    kind = _kind(content)
    if kind is None:
        raise ViduConfigError(f"The image {shown(address)} is none of png, jpeg, webp.")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _read(image: Any, storage_conn_id: str | None) -> bytes:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        path = image if hasattr(image, "open") else ObjectStoragePath(image, conn_id=storage_conn_id)
        with path.open("rb") as source:
            content = bytes(source.read(MAX_IMAGE_BYTES + 1))
    except Exception as error:  # every store has errors of its own
        raise ViduConfigError(f"The image {shown(image)} cannot be read: {shown(error)}") from error
    if len(content) > MAX_IMAGE_BYTES:
        raise ViduConfigError(
            f"The image {shown(image)} is larger than {MAX_IMAGE_BYTES} bytes, the most the API takes inline. "
            "Put it on the web and give its address instead."
        )
    return content


def _kind(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), None)
