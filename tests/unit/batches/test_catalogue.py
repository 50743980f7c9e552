"""The catalogue of files that equal orders share: only files beneath the destination count."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from airflow_provider_vidu.batches.catalogue import Catalogue
from airflow_provider_vidu.batches.manifest import reused_line
from airflow_provider_vidu.batches.rows import rows_of
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.stores.destination import Destination


@pytest.fixture
def folder(tmp_path):
    """Return a destination with a file, beside a file of someone else."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"0123456789")
    (tmp_path / "foreign.mp4").write_bytes(b"0123456789")
    return tmp_path / "clips"


def found_in(folder: Path, entry: str):
    """Return what the catalogue finds once its entry for a request was replaced."""
    catalogue = Catalogue(Destination(f"{folder}/"), "service", None, logging.getLogger(__name__))
    catalogue.keep({"request": "r", "status": "stored"})
    (path,) = (folder / ".vidu" / "catalogue").iterdir()
    path.write_text(entry)
    return catalogue.find("r")


def line_of(uri: str, **known) -> str:
    """Return an entry that names a file of ten bytes."""
    file = {"uri": uri, "size": 10, "sha256": "0" * 64, "content_type": "video/mp4"}
    return json.dumps({"status": "stored", **file, "request": "r", "generation_id": "g", **known})


def test_a_file_of_the_destination(folder):
    """Its line is found."""
    assert found_in(folder, line_of(f"file://{folder}/a.mp4"))["size"] == 10


@pytest.mark.parametrize(
    "name",
    ["../foreign.mp4", "link.mp4", "./a.mp4", "b/../a.mp4", ".vidu/x", "..\\foreign.mp4", "up/foreign.mp4",
     "up/clips/up/foreign.mp4"],
)  # fmt: skip
def test_a_foreign_file_is_ordered_instead(folder, name):
    """Another writer of the destination cannot put a file from elsewhere into the manifest."""
    (folder / "link.mp4").symlink_to(folder.parent / "foreign.mp4")
    (folder / "up").symlink_to(folder.parent)
    (folder / ".vidu").mkdir()
    (folder / ".vidu" / "x").write_bytes(b"0123456789")
    assert found_in(folder, line_of(f"file://{folder}/{name}")) is None


@pytest.mark.parametrize("link", ["inner", "outer"])
def test_a_link_that_stays_in_the_destination(folder, link):
    """A folder of it may be a link to another one of it, and it may itself be reached through a link."""
    (folder / "2026").mkdir()
    (folder / "2026" / "a.mp4").write_bytes(b"0123456789")
    (folder / "now").symlink_to("2026")
    (folder.parent / "outer").symlink_to(folder)
    place = folder if link == "inner" else folder.parent / "outer"
    assert found_in(place, line_of(f"file://{place}/now/a.mp4"))["size"] == 10


def test_a_file_that_is_gone_is_ordered_instead(folder):
    """Also if its entry has no size, as the file has none."""
    uri = f"file://{folder}/gone.mp4"
    assert found_in(folder, line_of(uri)) is None
    assert found_in(folder, line_of(uri, size=None)) is None


@pytest.mark.parametrize(
    "entry", ["[" * 10_000, "[1]", "{", '{"size": ' + "9" * 5_000 + "}", line_of("x") + " " * 20_000]
)
def test_an_entry_that_cannot_be_read(folder, entry):
    """It is ordered instead."""
    assert found_in(folder, entry) is None


@pytest.mark.parametrize("generation_id", [None, "", 0, ["g"], "g\n2026 ERROR", "\u202e"])
def test_an_entry_without_an_id_is_ordered_instead(folder, generation_id):
    """Its price, which may be negative, would count as the batch's own, and raise what the batch may spend."""
    line = line_of(f"file://{folder}/a.mp4", generation_id=generation_id, credits=-1e9)
    assert found_in(folder, line) is None


def test_a_name_that_forges_a_log_line_is_ordered_instead(folder):
    """The log of the task that uses the file names it, and on a disk it may hold a line end."""
    (folder / "a\nERROR forged.mp4").write_bytes(b"0123456789")
    assert found_in(folder, line_of(f"file://{folder}/a\nERROR forged.mp4")) is None


@pytest.mark.parametrize("known", [{"request": ["x"]}, {"size": 10.0}])
def test_an_entry_that_a_batch_cannot_record(folder, known):
    """It is ordered instead: the batch would end with a bare error."""
    assert found_in(folder, line_of(f"file://{folder}/a.mp4", **known)) is None


def test_the_price_of_an_earlier_file_is_not_spent(folder):
    """Whatever another writer of the destination has put there."""
    line = found_in(folder, line_of(f"file://{folder}/a.mp4", credits=-1e9))
    (row,) = rows_of([{"key": "k", "prompt": "a"}], {"model": "viduq2-turbo"})
    state = BatchState()
    state.apply({"e": "line", "line": reused_line(row, line)})
    assert state.credits == 0
