"""The creates of the official API, by the last part of their path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from airflow_provider_vidu.sandbox.official.other_creates import OTHER_CREATES, PART_CREATES
from airflow_provider_vidu.sandbox.official.rows import Endpoint
from airflow_provider_vidu.sandbox.official.video_creates import VIDEO_CREATES

CREATES: Final[Mapping[str, Endpoint]] = {endpoint.name: endpoint for endpoint in (*VIDEO_CREATES, *OTHER_CREATES)}
"""The documented creates; reference2video has two forms on one path."""

PARTS: Final[Mapping[str, Endpoint]] = {endpoint.name: endpoint for endpoint in PART_CREATES}
"""The creates that work on a part of an earlier one."""


def endpoint_of(name: str) -> Endpoint:
    """Return the create or part with this name; KeyError if it is unknown."""
    return CREATES[name] if name in CREATES else PARTS[name]
