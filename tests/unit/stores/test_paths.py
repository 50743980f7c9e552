"""Which destinations a DAG may name, and what of them is a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from upath import UPath

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.paths import checked_destination, is_folder
from tests.rows import each_row


@each_row(
    "good",
    [
        "/data/a.mp4",
        "s3://bucket/clips/",
        "clips/a b.mp4",
        "memory://x/y..mp4",
        "./",
        "abfss://my_azure@clips/",
        "s3://my_aws@arn:aws:s3:eu-west-1:123456789012:accesspoint/studio/clips/",
    ],
)
def test_good_destinations(good):
    """Paths, URLs and folders pass unchanged."""
    assert checked_destination(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "  ",
        "/",
        "None",
        "/a/../b",
        "s3://b/../c",
        "a\0b",
        "a\nb",
        "..",
        "s3://",
        "s3://bucket",
        "s3://my_aws@bucket",
        "gs://bucket",
        "a/\ud800",
        None,
        7,
        "a\\..\\b",
        "file://host/a.mp4",
        "FILE://tmp/clips/",
        pytest.param(
            "a::b.mp4",
            marks=pytest.mark.fault(
                "attacks", "a::b.mp4, which is stored as a by fsspec", outcome="refused", says="destination 'a::b.mp4'"
            ),
        ),
        "s3://bucket/a::b.mp4",
        "simplecache::s3://bucket/a.mp4",
        pytest.param(
            "abfss://clips@account.dfs.core.windows.net/a.mp4",
            marks=pytest.mark.fault(
                "stores and files", "an Azure address in Microsoft's spelling", outcome="refused", says="abfss://"
            ),
        ),
        "ABFS://clips@account.dfs.core.chinacloudapi.cn/",
        "s3://bucket/a?versionId=b.mp4",
        "abfs://clips/a?VersionID=b/",
        "file:clips/a.mp4",
        "s3:/bucket/a.mp4",
        "gs:/bucket/{{ ds }}/",
        "s3:///clips/a.mp4",
        "s3://minio:9000/clips/a.mp4",
        "gs://my_gcp@minio:9000/clips/",
        "gs:///clips/",
        "abfs://my_azure@/clips/a.mp4",
        "/data/\u202e4pm.exe.mp4",
        "/data/a\u2028b.mp4",
    ],
)
def test_bad_destinations(bad):
    """Empty ones, control characters and ways out of the folder are refused."""
    with pytest.raises(ViduConfigError, match="destination"):
        checked_destination(bad)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("s3://bucket/clips/ ", "s3://bucket/clips/"),
        (" /data/a.mp4\n", "/data/a.mp4"),
        ("\n  /data/clips/\n", "/data/clips/"),
        ("file:/data/a.mp4", "file:///data/a.mp4"),
    ],
)
def test_blanks_around_a_destination_are_dropped(given, meant):
    """What a template leaves around it makes no file of a folder, and no other path of this one."""
    assert checked_destination(given) == meant


def test_folders_end_in_a_slash():
    """Only the slash makes a folder."""
    assert is_folder("/a/")
    assert not is_folder("/a")


@each_row(
    ("path", "text"),
    [
        (ObjectStoragePath("s3://bucket/clips/"), "s3://bucket/clips/"),
        (ObjectStoragePath("s3://bucket/v1.2/"), "s3://bucket/v1.2/"),
        (ObjectStoragePath("s3://bucket/clips/a.mp4"), "s3://bucket/clips/a.mp4"),
        (ObjectStoragePath("file:///data/clips/"), "file:///data/clips/"),
        (Path("/data/clips/"), "/data/clips/"),
        (Path("/data/a.PNG"), "/data/a.PNG"),
    ],
)
def test_a_path_object_is_a_folder_unless_it_names_a_medium(path, text):
    """Objects lose the slash at their end; taken for a file, all clips would overwrite one."""
    assert checked_destination(path) == text


def test_a_path_object_with_a_template_that_nothing_rendered():
    """Airflow renders text and its own paths; a folder with the template's name would take the files of all runs."""
    with pytest.raises(ViduConfigError, match="template that was not rendered"):
        checked_destination(UPath("memory://clips/{{ ds }}/a.mp4"))


@pytest.mark.fault(
    "stores and files",
    "a destination whose template Airflow does not render: it comes from an XCom, or a mapped task group hands it in",
    outcome="refused",
    seen="an error before anything is paid; the file would have the template's name, for all instances and runs",
)
@pytest.mark.parametrize("text", ["/data/{{ task.prompt }}.mp4", "s3://bucket/{{ ds }}/", "{% if x %}/a/{% endif %}"])
def test_a_text_with_a_template_that_nothing_rendered(text):
    """A value is data: only what the task itself has as its argument is rendered."""
    with pytest.raises(ViduConfigError, match="template that was not rendered"):
        checked_destination(text)
