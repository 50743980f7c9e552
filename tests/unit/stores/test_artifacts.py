"""The artifacts of a generation and their media."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.artifacts import ARTIFACTS, check_product, family_of
from tests.rows import each_row


def test_each_artifact_belongs_to_one_medium():
    """Naming an artifact insists on its medium; the default takes any."""
    assert {family_of(artifact) for artifact in ARTIFACTS} == {"video", "image", "audio"}
    assert family_of("cover") == "image"
    assert family_of("speech") == family_of("sound") == "audio"
    assert family_of(None) is None


@each_row(
    ("medium", "artifact", "problem"),
    [
        ("none", None, "has no file"),
        ("none", "cover", "has no file"),
        ("audio", "video", "of another medium"),
        ("audio", "image", "of another medium"),
        ("video", "audio", "of another medium"),
        ("video", "image", "of another medium"),
        ("image", "audio", "of another medium"),
        ("image", "video", None),  # animated
        ("video", "video", None),
        ("audio", None, None),
        ("audio", "cover", None),
        ("video", "speech", None),
        (None, "video", None),
    ],
)
def test_what_could_not_be_kept_is_refused(medium, artifact, problem):
    """As far as the product shows it; the bytes decide the rest."""
    if problem is None:
        check_product(medium, artifact)
        return
    with pytest.raises(ViduConfigError, match=problem):
        check_product(medium, artifact)
