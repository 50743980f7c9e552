"""Asset URIs, an asset event's extra, and OpenLineage names."""

from __future__ import annotations

import json

import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.tasks import lineage
from tests.rows import each_row
from tests.versions import AIRFLOW

RECORD = {
    "uri": "s3://bucket/clips/a.mp4",
    "size": 3,
    "sha256": "ab",
    "content_type": "video/mp4",
    "generation_id": "g",
    "source": "https://cdn.example.com/v.mp4",
}


@each_row(
    ("stored", "asset"),
    [
        ("file:///data/a.mp4", "file:///data/a.mp4"),
        ("file:///data/größe 1.mp4", "file:///data/größe 1.mp4"),
        ("file:///data/a#1.mp4", "file:///data/a%231.mp4"),
        ("file:///data/a%231.mp4", "file:///data/a%25231.mp4"),
        ("s3://bucket/clips/what?.mp4", "s3://bucket/clips/what%3F.mp4"),
        ("s3a://bucket/a.mp4", "s3://bucket/a.mp4"),
        ("gcs://bucket/a.mp4", "gs://bucket/a.mp4"),
        ("abfs://container/a.mp4", "abfs://container/a.mp4"),
        ("az://container/a.mp4", "abfs://container/a.mp4"),
    ],
)
def test_the_uri_of_an_asset(stored, asset):
    """Airflow keeps the URI as it is, and two objects never become one asset."""
    assert lineage.asset_uri(stored) == asset
    if asset.isascii() or AIRFLOW >= (3, 1):  # before that Airflow refuses an asset with such a name
        assert Asset(uri=lineage.asset_uri(stored)).uri == asset


def test_the_extra_names_prompt_and_model_where_known():
    """The consumer of an asset learns how the file came about."""
    generation = Generation(id="g", status="succeeded", model="m", prompt="a cat", enhanced_prompt="a fine cat")
    extra = lineage.event_extra(RECORD, generation, "video")
    known = {"artifact": "video", "prompt": "a cat", "enhanced_prompt": "a fine cat", "model": "m"}
    assert extra == RECORD | known
    assert json.loads(json.dumps(extra)) == extra


def test_the_extra_holds_no_signed_url():
    """Neither the generation's URLs nor one that stands in a prompt brings a signature into the database."""
    generation = Generation(
        id="g",
        status="succeeded",
        video_url="https://cdn.example.com/v.mp4?sig=hush",
        raw={"prompt": "like https://cdn.example.com/i.png?sig=hush", "video_url": "https://x/?sig=hush"},
    )
    assert "hush" not in json.dumps(lineage.event_extra(RECORD, generation, "video"))


@pytest.mark.parametrize("generation", [None, Generation(id="g", status="succeeded")])
def test_the_extra_leaves_out_what_nobody_knows(generation):
    """An unknown prompt is absent, not null."""
    assert lineage.event_extra(RECORD, generation, "cover") == RECORD | {"artifact": "cover"}


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///data/a.mp4", ("file", "/data/a.mp4")),
        ("s3://bucket/clips/a.mp4", ("s3://bucket", "clips/a.mp4")),
        ("s3a://bucket/a.mp4", ("s3://bucket", "a.mp4")),
        ("gs://bucket/clips/a.mp4", ("gs://bucket", "clips/a.mp4")),
        ("abfs://container/a.mp4", ("abfs://container", "a.mp4")),
    ],
)
def test_names_of_objects(uri, name):
    """An object is named as OpenLineage's naming rules say for its store."""
    assert lineage.object_name(uri) == name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://CDN.example.com/v/a.mp4", ("https://cdn.example.com", "/v/a.mp4")),
        ("http://127.0.0.1:8787/f/a.mp4?sig=hush", ("http://127.0.0.1:8787", "/f/a.mp4")),
        ("https://me:hush@cdn.example.com", ("https://cdn.example.com", "/")),
    ],
)
def test_names_of_sources(source, name):
    """A source is its origin and its path; user info and query stay out."""
    assert lineage.source_name(source) == name
