"""The packed state of a batch: read and written a line at a time, within limits, in a format that others can read."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest

from airflow_provider_vidu.batches import snapshot
from airflow_provider_vidu.batches.snapshot import packed, unpacked
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.exceptions import ViduConfigError
from tests.rows import each_row

ORDER = {"e": "order", "since": 1, "deadline": 2, "dag": "d", "order": {"order": 0}}


def state_of(count: int) -> BatchState:
    """Return a state with lines as a batch writes them, an open generation and an intent."""
    state = BatchState()
    state.apply(ORDER)
    state.apply({"e": "id", "key": "open", "id": "g", "at": 1.0})
    state.apply({"e": "intent", "key": "sent", "record": {"order": 0, "marker": "m"}})
    known = {
        "status": "stored",
        "prompt": 'a "cat",\n日本 \u2028',
        "uri": "s3://b/" + "x" * 80,
        "took": 4.5,
        "error": None,
    }
    known |= {
        name: name * 10 for name in ("sha256", "request", "content_type", "ended_at", "submitted_at", "finished_at")
    }
    for n in range(count):
        line = {"key": f"row{n}", "index": n, "generation_id": f"g{n}", "credits": 20, **known}
        state.apply({"e": "line", "line": line})
    return state


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_state_is_read_again(count):
    """Also by those that read it as a whole: the pages."""
    state = state_of(count)
    assert unpacked(packed(8, state)) == (8, state)
    whole = json.loads(gzip.decompress(packed(8, state)))
    assert whole == {"leg": 8, "state": {**state.to_json(), "lines": list(state.lines.values())}}
    assert BatchState.from_json(whole["state"]) == state


def test_a_state_of_an_earlier_version_is_read():
    """It is one line."""
    state = state_of(3)
    whole = {"leg": 8, "state": {**state.to_json(), "lines": list(state.lines.values())}}
    assert unpacked(gzip.compress(json.dumps(whole, separators=(",", ":")).encode())) == (8, state)


def test_equal_states_have_equal_bytes():
    """By them, a process recognizes what it has written."""
    assert packed(1, state_of(2)) == packed(1, state_of(2))


def test_a_state_takes_little_memory():
    """As objects, or as one text, each of its lines takes 5 KiB; the bar of the soak test is for 5,000 rows."""
    content = packed(1, state_of(2_000))
    tracemalloc.start()
    try:
        _, state = unpacked(content)
        read = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        packed(2, state)
        written = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read[1] < 2_000 * 1_500
    assert written[1] - read[0] < 2_000 * 500


TEXT = gzip.decompress(packed(8, state_of(3)))
ROW = TEXT.splitlines(keepends=True)[1]


@each_row(
    "text",
    [
        TEXT[:-4],
        TEXT.removesuffix(b"]}}\n"),
        TEXT + b"x",
        TEXT + b"\n",
        TEXT.replace(ROW, b"\n"),
        TEXT.replace(ROW, b"[],\n"),
        TEXT.replace(ROW, b'{"key": "a"},\n'),
        TEXT.replace(ROW, b'{"key": "a", "status": "stored"\n,\n'),
        TEXT.replace(ROW, b'{"key": "a", "status": "stored", "more": [' + b"0," * 3_000 + b"0]},\n"),
        TEXT.replace(ROW, ROW * 200),
        TEXT.replace(ROW, b" " * 100_000 + ROW),
    ],
)
def test_a_damaged_state_is_refused(text, monkeypatch):
    """Whatever is missing, too much or in another place; no part of it counts."""
    monkeypatch.setattr(snapshot, "MOST_VALUES", 3_000)
    monkeypatch.setattr(snapshot, "MOST_BYTES", 100_000)
    with pytest.raises((ValueError, TypeError, KeyError)):
        unpacked(gzip.compress(text))


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_a_state_that_is_cut_off_is_refused(cut):
    """The packed bytes end too early."""
    with pytest.raises((EOFError, OSError)):
        unpacked(packed(8, state_of(3))[:-cut])


@each_row("count", [0, 1, 2, 7, 9_999])
def test_the_newest_state_is_found_by_its_neighbour(count: int) -> None:
    """States follow one another without a gap."""
    names = {snapshot.state_name(number + 1) for number in range(count)}
    assert snapshot.latest_generation(0, names.__contains__) == count


def test_a_store_that_has_every_name_is_told_at_once() -> None:
    """To ask for each name took a worker a quarter of an hour: two requests for each of ten thousand."""
    asked: list[str] = []

    def is_there(name: str) -> bool:
        asked.append(name)
        return True

    with pytest.raises(ViduConfigError, match="Check that the store's address is that of a store"):
        snapshot.latest_generation(0, is_there)
    assert asked == ["state-000001.json.gz", "state-010000.json.gz"]
