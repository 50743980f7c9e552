"""Which stored files may be used: names that try to get out of a root do not."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_vidu.stores.places import read_roots, read_spot, root_of, split_connection
from airflow_provider_vidu.stores.schemes import account_advice
from tests.rows import each_row

AZURE_ACCOUNT = "abfss://films@studio.dfs.core.windows.net/in"
ROOTS = read_roots("/data/clips, s3://my_aws@bucket/films, gs://plain")[0]


@each_row(
    ("uri", "root"),
    [
        ("file:///data/clips/a.mp4", "file:///data/clips"),
        ("/data/clips/deep/er/a b%20.mp4", "file:///data/clips"),
        ("file:///data/clips/..hidden.mp4", "file:///data/clips"),
        ("s3://bucket/films/a.mp4", "s3://bucket/films"),
        ("s3a://bucket/films/a.mp4", "s3://bucket/films"),
        ("gcs://plain/a.mp4", "gs://plain/"),
    ],
)
def test_files_beneath_a_root(uri, root):
    """A file anywhere below a root belongs to it, in whichever spelling of its scheme."""
    found = root_of(uri, ROOTS)
    assert found is not None
    assert found[0].spot.uri == root


@pytest.mark.fault(
    "attacks", "a stored file's address leads out of a root, or means another file to the store", outcome="refused",
    seen="it lies beneath no root",
)  # fmt: skip
@each_row(
    "uri",
    [
        "file:///data/clips",
        "file:///data/clips/",
        "file:///data/clips-secret/a.mp4",
        "file:///data/clips/../secret.mp4",
        "file:///data/clips/./a.mp4",
        "file:///data/clips//a.mp4",
        "file:///data/clips/..\\..\\etc\\passwd",
        "file:///data/clips/a\0.mp4",
        "file:///data/clips/a\n.mp4",
        "file://host/data/clips/a.mp4",
        "file:/data/clips/a.mp4",
        "data/clips/a.mp4",
        "/etc/passwd",
        "",
        "s3://bucket/films-secret/a.mp4",
        "s3://bucket2/films/a.mp4",
        "s3://bucket/../bucket/films/a.mp4",
        "s3://other_aws@bucket/films/a.mp4",
        "s3://Bucket/films/a.mp4",
        "s3:///films/a.mp4",
        "gs://bucket/films/a.mp4",
        # fsspec reads the first half of it.
        "s3://bucket/films/a::b.mp4",
        "http://127.0.0.1/data/clips/a.mp4",
        "https://bucket/films/a.mp4",
        "file:///data/clips/%2e%2e/%2e%2e/etc/passwd/../..",
    ],
)
def test_files_beneath_no_root(uri):
    """Neighbours, dots, other hosts and other buckets stay outside."""
    assert root_of(uri, ROOTS) is None


def test_the_connection_is_the_roots_own():
    """The record cannot choose the credentials that a store is read with."""
    found = root_of("s3://bucket/films/a.mp4", ROOTS)
    assert found is not None
    assert found[0].conn_id == "my_aws"
    assert "my_aws" not in found[1].uri


def test_an_azure_account_is_not_a_connection():
    """Microsoft's spelling has its container where Airflow's has a connection; a real connection still counts."""
    assert split_connection(AZURE_ACCOUNT) == (None, None)
    conn_id, spot = split_connection("abfss://my_azure@films/in")
    assert spot is not None
    assert (conn_id, spot.netloc) == ("my_azure", "films")
    assert account_advice("s3://my_aws@a.bucket.with.dots/x") is None


@each_row(
    "setting", ["", " , ,", "clips", "/", "//", "file://", "s3://", "/data/../etc", "http://host/x", AZURE_ACCOUNT]
)
def test_what_is_no_root(setting):
    """An empty setting allows nothing, and a broken one is reported instead of guessed at."""
    roots, refused = read_roots(setting)
    assert roots == []
    assert refused == [part.strip() for part in setting.split(",") if part.strip()]


SEGMENT = st.one_of(st.sampled_from(["..", ".", "", "clips", "data", "etc", "%2e%2e"]), st.text(max_size=6))


@given(st.lists(SEGMENT, max_size=8), st.sampled_from(["", "file://", "s3://bucket", "FILE://", "s3a://bucket"]))
@example(["data", "clips", "..", "..", "etc"], "file://")
def test_nothing_found_ever_leaves_its_root(segments, start):
    """Whatever a name is made of: what belongs to a root has the root's segments first, and no dots behind them."""
    found = root_of(f"{start}/{'/'.join(segments)}", ROOTS)
    if found is not None:
        root, spot = found
        assert spot.parts[: len(root.spot.parts)] == root.spot.parts
        assert len(spot.parts) > len(root.spot.parts)
        assert not {"", ".", ".."} & set(spot.parts)
        assert not any(char in spot.path for char in "\0\\\n")


@given(st.text(max_size=60))
def test_reading_never_raises(text):
    """A URI is whatever a DAG wrote into an XCom."""
    read_spot(text)
    read_roots(text)
