"""Another user of a worker's folders swaps them while a file is fetched."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.destination import Destination
from fault_table import REFUSED


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Allow one folder for writing, with another one beside it."""
    (tmp_path / "out/mine").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("AIRFLOW__VIDU__DESTINATION_ROOTS", str(tmp_path / "out"))
    return tmp_path


@pytest.mark.fault("attacks", "a folder of the destination is swapped for a link while the file is fetched",
                   outcome=REFUSED, says="not beneath one of the folders")  # fmt: skip
def test_no_folder_is_made_outside_of_the_roots(tree):
    """Neither the file nor the folders above it are made where the link leads."""
    place = Destination(str(tree / "out/mine/new/deep/a.mp4")).file()
    (tree / "out/mine").rename(tree / "out/moved")
    (tree / "out/mine").symlink_to(tree / "other")
    with pytest.raises(ViduConfigError, match="not beneath"):
        place.writer(1, replace=True)
    assert not list((tree / "other").iterdir())


def test_missing_folders_are_made(tree, monkeypatch):
    """Also the root itself, through a link that stays inside, and below the working directory."""
    monkeypatch.chdir(tree)
    monkeypatch.setenv("AIRFLOW__VIDU__DESTINATION_ROOTS", f"{tree}/out, {tree}/not/yet/there")
    (tree / "out/link").symlink_to(tree / "out/mine")
    for path in ("out/a/b/c.mp4", "out/link/a/c.mp4", "not/yet/there/a.mp4"):
        for given in (path, str(tree / path)):
            Destination(given).file().writer(1, replace=True).discard()
        assert (tree / path).parent.is_dir()
