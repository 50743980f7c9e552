"""What is said of an artifact that a generation lacks."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError, ViduMissingVideoError
from airflow_provider_vidu.models import Artifact, Generation
from airflow_provider_vidu.orders.results import missing

URL = "https://cdn.example.com/a"
TWO = Generation(
    id="g",
    status="succeeded",
    artifacts=(Artifact(url=URL, cover_url=URL), Artifact(url=URL, sound_url=URL), Artifact(watermarked_url=URL)),
)
FLAT = Generation(id="g", status="succeeded", video_url=URL)


def test_creations_are_counted_as_they_are_numbered():
    """Creations without a result do not count where others have one."""
    assert (len(TWO.creations), len(FLAT.creations)) == (2, 1)
    assert [bool(TWO.url_of(None, creation)) for creation in (0, 1, 2)] == [True, True, False]


@pytest.mark.parametrize(
    ("generation", "artifact", "creation", "error", "words"),
    [
        (TWO, "speech", 0, ViduMissingVideoError, r"the generation has no speech URL\. It has: result, cover\."),
        (TWO, "cover", 1, ViduMissingVideoError, r"creation 1 of the generation has no cover URL.*: result, sound\."),
        (TWO, None, 2, ViduConfigError, r"no creation 2: the generation has 2 creations, numbers 0 to 1"),
        (FLAT, None, 5, ViduConfigError, r"no creation 5: the generation has one creation, number 0"),
        (Generation(id="g", status="succeeded"), None, 0, ViduMissingVideoError, "no URL of a result. It has no URLs"),
    ],
)
def test_what_is_missing_is_said_with_what_there_is(generation, artifact, creation, error, words):
    """The message names the artifacts that the creation has, or how many creations there are."""
    assert generation.url_of(artifact, creation) is None
    found = missing(generation, artifact, creation)
    assert type(found) is error
    with pytest.raises(error, match=words):
        raise found
