"""What operators may read and write, once the deployment says so: no name, link or spelling leads around it."""

from __future__ import annotations

import os
import time

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.roots import check_destination, check_input, check_opened


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Make a root and what lies beside it, and allow the root for reading and writing."""
    for folder in ("in/deep", "in-secret", "out"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link-to-in").symlink_to(tmp_path / "in")
    (tmp_path / "in/link-out").symlink_to(tmp_path / "out")
    (tmp_path / "out/secret.png").write_bytes(b"secret")
    (tmp_path / "in/a.png").write_bytes(b"fine")
    (tmp_path / "in/leak.png").symlink_to(tmp_path / "out/secret.png")
    setting = f"{tmp_path}/in, s3://studio/films, s3://my_aws@shared/in, gs://plain"
    monkeypatch.setenv("AIRFLOW__VIDU__INPUT_ROOTS", setting)
    monkeypatch.setenv("AIRFLOW__VIDU__DESTINATION_ROOTS", setting)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ALLOWED = [
    "{tree}/in/a.png",
    "{tree}/in/deep/new.png",
    "{tree}/in/deep/../a.png",
    "{tree}/in//deep/./a.png",
    "{tree}/link-to-in/a.png",
    "in/a.png",
    "./in/a.png",
    "file://{tree}/in/a.png",
    "FILE://{tree}/in/a%20b.png",
    "s3://studio/films/a.png",
    "S3A://studio/films/deep/a.png",
    "s3://my_aws@shared/in/a.png",
    "s3://shared/in/a.png",
    "gcs://plain/a.png",
]
REFUSED = [
    "{tree}/in",
    "{tree}/in-secret/a.png",
    "{tree}/out/a.png",
    "{tree}/in/../out/a.png",
    "{tree}/in/link-out/a.png",
    "{tree}/in/leak.png",
    "{tree}/link-to-in/../out/a.png",
    "../{name}/out/a.png",
    "/etc/passwd",
    "//etc/passwd",
    "~/a.png",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "file://host{tree}/in/a.png",
    "file://{tree}/in/%2e%2e/out/a.png",
    "file://{tree}/in/%252e%252e/out/a.png",
    "local:///etc/passwd",
    "{tree}/in/a\0.png",
    "s3:studio/films/a.png",
    "s3://studio/films",
    "s3://studio/films-secret/a.png",
    "s3://studio/films/../secret/a.png",
    "s3://studio/films/%2e%2e/secret/a.png",
    "s3://studio/films/..%2fsecret/a.png",
    "s3://studio/films//a.png",
    "s3://STUDIO/films/a.png",
    "s3://studio2/films/a.png",
    "s3://other_aws@studio/films/a.png",
    "s3://other_aws@shared/in/a.png",
    "s3://my_aws@studio/films/a.png",
    "s3://a@my_aws@shared/in/a.png",
    "s3://[x@shared/in/a.png",
    "gs://studio/films/a.png",
    "simplecache::s3://studio/films/a.png",
    "zip://a.png::{tree}/in/a.zip",
    "memory://a/b.png",
    "abfss://studio@account.dfs.core.windows.net/films/a.png",
]


def _named(spelling: str, tree) -> str:
    return spelling.format(tree=tree, name=tree.name)


@pytest.mark.parametrize("spelling", ALLOWED)
def test_beneath_a_root(tree, spelling):
    """What lies beneath a root is read and written, however it is spelt."""
    check_input(_named(spelling, tree))
    check_destination(_named(spelling, tree))


@pytest.mark.fault(
    "attacks",
    "a path that leads out of input_roots or destination_roots",
    outcome="refused",
    says="is not beneath one of",
)
@pytest.mark.parametrize("spelling", REFUSED)
def test_beneath_no_root(tree, spelling):
    """Neighbours, links, dots, escapes, other connections and other stores stay outside; the error names both."""
    path = _named(spelling, tree)
    for check, option in ((check_input, "input_roots"), (check_destination, "destination_roots")):
        with pytest.raises(ViduConfigError, match=rf"is not beneath one of .*\[vidu\] {option}") as caught:
            check(path)
        assert path.replace("\0", " ").split("://")[-1][:20] in str(caught.value)


def test_a_folder_may_be_the_root_itself(tree):
    """A destination that ends in a slash is a folder: files are put beneath it."""
    for folder in (f"{tree}/in/", f"{tree}/in/new/", "s3://studio/films/", "gs://plain/"):
        check_destination(folder)
    for folder in (f"{tree}/", f"{tree}/in/link-out/", "s3://studio/", "/"):
        with pytest.raises(ViduConfigError, match="destination_roots"):
            check_destination(folder)


@pytest.mark.parametrize("setting", [None, "", " , "])
def test_without_roots_everything_is_allowed(tree, monkeypatch, setting):
    """The settings are off by default."""
    for option in ("INPUT_ROOTS", "DESTINATION_ROOTS"):
        if setting is None:
            monkeypatch.delenv(f"AIRFLOW__VIDU__{option}")
        else:
            monkeypatch.setenv(f"AIRFLOW__VIDU__{option}", setting)
    check_input("/etc/passwd")
    check_destination("s3://anywhere@bucket/x")


def test_one_setting_does_not_stand_for_the_other(tree, monkeypatch):
    """What may be read and what may be written are two lists."""
    monkeypatch.delenv("AIRFLOW__VIDU__INPUT_ROOTS")
    check_input("/etc/passwd")
    with pytest.raises(ViduConfigError, match="destination_roots"):
        check_destination("/etc/passwd")


@pytest.mark.parametrize("setting", ["/data, films", "/", "s3://", "/data/../etc", "http://host/x"])
def test_a_broken_setting_allows_nothing(tree, monkeypatch, setting):
    """A root that cannot be understood is an error of every task, not a gap."""
    monkeypatch.setenv("AIRFLOW__VIDU__INPUT_ROOTS", setting)
    with pytest.raises(ViduConfigError, match=r"\[vidu\] input_roots contains .* not an absolute folder or a bucket"):
        check_input("/data/a.png")


@pytest.mark.parametrize("option", ["input_roots", "destination_roots"])
def test_a_root_that_names_an_azure_account(monkeypatch, option):
    """Its container would be taken for a connection; the error says what to write."""
    root = "abfss://films@studio.dfs.core.windows.net/in"
    monkeypatch.setenv(f"AIRFLOW__VIDU__{option.upper()}", f"/data,{root}")
    check = check_input if option == "input_roots" else check_destination
    with pytest.raises(ViduConfigError, match=rf"\[vidu\] {option} contains '{root}'.* Write abfss://films/…"):
        check("abfss://films/in/a.png")
    monkeypatch.setenv(f"AIRFLOW__VIDU__{option.upper()}", "abfss://films/in")
    check("abfs://films/in/a.png")


@pytest.mark.fault(
    "attacks", "a link that is put in place after the check", outcome="refused", says="is not beneath one of"
)
def test_a_link_that_is_swapped_after_the_check(tree):
    """The open file itself is judged once more."""
    for path, is_fine in ((f"{tree}/in/a.png", True), (f"{tree}/in/leak.png", False)):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if is_fine:
                check_opened(descriptor, path)
            else:
                with pytest.raises(ViduConfigError, match="input_roots"):
                    check_opened(descriptor, path)
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("check", [check_input, check_destination])
def test_a_path_of_many_folders_is_refused_at_once(tree, check):
    """A user who may only trigger chooses it: to resolve its links took a worker a minute, at 200 kB."""
    began = time.thread_time()
    with pytest.raises(ViduConfigError, match="is not beneath"):
        check(f"{tree}/in/" + "a/" * 50_000 + "a.png")
    assert time.thread_time() - began < 1
