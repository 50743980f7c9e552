"""The journal of a batch on local files: what is recorded is read again, and only one process writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_vidu.batches import journal
from airflow_provider_vidu.batches.journal import Journal
from airflow_provider_vidu.exceptions import ViduError, ViduStorageError
from airflow_provider_vidu.stores import small_files
from airflow_provider_vidu.stores.destination import Destination


def opened(folder: Path) -> Journal:
    """Return a journal with a new leg."""
    made = Journal(Destination(f"{folder}/"), "b", sleep=lambda _: None)
    made.open()
    return made


def identified(key: str) -> dict:
    """Return the event of an id."""
    return {"e": "id", "key": key, "id": f"g-{key}", "at": 1.0}


def test_events_survive(tmp_path):
    """Whether the leg was ended or not."""
    first = opened(tmp_path)
    first.append(identified("a"))
    first.end()
    second = opened(tmp_path)
    second.append(identified("b"))
    assert set(opened(tmp_path).state.open) == {"a", "b"}


def test_a_whole_state_replaces_objects(tmp_path, monkeypatch):
    """The state holds the same, and its objects are gone; the seal against a process that may live stays."""
    monkeypatch.setattr(journal, "SNAPSHOT_EVENTS", 3)
    opened(tmp_path).append(identified("a"))
    second = opened(tmp_path)
    second.append(identified("b"), {"e": "line", "line": {"key": "a", "status": "stored"}})
    second.end()
    left = [str(path.relative_to(tmp_path / ".vidu" / "b")) for path in (tmp_path / ".vidu").rglob("*.*")]
    assert sorted(left) == ["leg-000001/000003.jsonl", "state.json.gz"]
    third = opened(tmp_path)
    assert (set(third.state.open), set(third.state.lines)) == ({"b"}, {"a"})
    assert third.state.to_json() == second.state.to_json()


def test_only_the_newest_leg_writes(tmp_path):
    """The older one's record fails, and is not read by anyone."""
    first = opened(tmp_path)
    second = opened(tmp_path)
    with pytest.raises(ViduError, match="Another process has taken over"):
        first.append(identified("lost"))
    second.append(identified("kept"))
    assert set(opened(tmp_path).state.open) == {"kept"}


@pytest.mark.parametrize("is_written", [True, False], ids=["answer lost", "not written"])
def test_a_write_that_fails_is_tried_again(tmp_path, monkeypatch, is_written):
    """Whether the object was published is unknown; the second attempt recognizes its own content."""
    first = opened(tmp_path)
    original, failures = small_files._write, []

    def write(*arguments, **known):
        if failures:
            return original(*arguments, **known)
        failures.append(1)
        if is_written:
            original(*arguments, **known)
        raise ViduStorageError("the store is away")

    monkeypatch.setattr(small_files, "_write", write)
    first.append(identified("a"))
    first.append(identified("b"))
    assert set(opened(tmp_path).state.open) == {"a", "b"}


def test_a_store_that_stays_away_ends_the_leg(tmp_path, monkeypatch):
    """With its own error."""
    first = opened(tmp_path)

    def write(*_, **__):
        raise ViduStorageError("the store is away")

    monkeypatch.setattr(small_files, "_write", write)
    with pytest.raises(ViduStorageError, match="is away"):
        first.append(identified("a"))
