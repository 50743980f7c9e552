"""The artifacts of a generation and their media."""

from __future__ import annotations

from airflow_provider_vidu.common.artifacts import ARTIFACTS, family_of


def test_each_artifact_belongs_to_one_medium():
    """Naming an artifact insists on its medium; the default takes any."""
    assert {family_of(artifact) for artifact in ARTIFACTS} == {"video", "image", "audio"}
    assert family_of("cover") == "image"
    assert family_of("speech") == family_of("sound") == "audio"
    assert family_of(None) is None
