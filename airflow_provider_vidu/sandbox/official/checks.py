"""Checks a create as the official API does: model, fields, references to uploads."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_vidu.sandbox.official.endpoints import CREATES
from airflow_provider_vidu.sandbox.official.fields import (
    DOWNLOAD_FAILURES,
    Json,
    Medium,
    Refused,
    Surroundings,
    check_fields,
    check_surplus,
)
from airflow_provider_vidu.sandbox.official.rows import Endpoint
from airflow_provider_vidu.sandbox.settings import ANY_MODEL, Settings
from airflow_provider_vidu.sandbox.world.uploads import Upload

#: Largest request, in bytes (``vidu_api_full.md``, section 1).
MAX_REQUEST = 20_000_000


class Uploaded(Surroundings):
    """Checks whether a field may hold an ``ssupload:`` address."""

    def __init__(self, uploads: Mapping[str, Upload], accepted: str) -> None:
        self._uploads = uploads
        self._accepted = accepted

    def uploaded(self, address: str, medium: Medium) -> None:
        """Raise :class:`Refused` unless the address names a finished upload of the medium."""
        wanted = address.partition("?id=")[2]
        upload = self._uploads.get(wanted)
        if self._accepted != "any" and (self._accepted, medium) != ("images", "image"):
            raise Refused("FieldInvalid", f"an uploaded {medium} is not accepted here")
        if upload is None or not upload.finished:
            raise Refused(
                DOWNLOAD_FAILURES.get(medium, "FieldInvalid"), f"upload {wanted!r} is unknown or not finished"
            )
        if medium == "image" and not upload.is_picture:
            raise Refused("ImageFormatInvalid", f"upload {wanted!r} is not PNG, JPEG or WebP")


def check_create(endpoint: Endpoint, body: Json, settings: Settings, around: Surroundings) -> None:
    """Raise :class:`Refused` if the official API would refuse ``body`` at ``endpoint``."""
    _check_model(endpoint, body, settings)
    if settings.surplus_fields != "ignore" and not endpoint.open:
        check_surplus(endpoint.fields, body, ("payload",) if settings.surplus_fields == "allow-payload" else ())
    check_fields(endpoint.fields, body, around)
    if endpoint.rule is not None:
        endpoint.rule(body)


def _check_model(endpoint: Endpoint, body: Json, settings: Settings) -> None:
    model = body.get("model")
    if not endpoint.models or not isinstance(model, str) or not model or settings.models == ANY_MODEL:
        return
    named = settings.named_models()
    if model in (endpoint.models if named is None else named):
        return
    # The documentation does not say which of the two reasons applies.
    is_documented = any(model in other.models for other in CREATES.values())
    reason = "FieldInvalid" if named is None and is_documented else "ModelUnavailable"
    raise Refused(reason, f"field model: {model} is not available for {endpoint.name}")
