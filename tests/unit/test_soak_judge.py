"""The soak's judge: a good report passes, and each way in which a soak can be bad is named."""

from __future__ import annotations

import copy

import pytest

from tests.rows import each_row
from tests.soak.crowd import Wait
from tests.soak.judge import download_problems, problems

IDLE = {"pid": 7, "fds": 14, "sockets": 0, "tasks": 3, "threads": 8, "rss": 100_000_000, "traced": 0, "objects": {}}
GOOD = {
    "waits": 3240,
    "census": {"succeeds": 3000, "killed": 240},
    "sandbox_seconds": 3700,
    "polls": 12_000,
    "polls_allowed": 44_000,
    "faults": 1500,
    "restarts": 3,
    "rotations": 4,
    "wrong": [],
    "broken": [],
    "uncancelled": [],
    "overzealous": [],
    "samples": {
        "baseline": IDLE,
        "quarter 1": {**IDLE, "fds": 40, "sockets": 26, "tasks": 400, "rss": 120_000_000},
        "quarter 2": {**IDLE, "fds": 41, "sockets": 27, "tasks": 410, "rss": 119_000_000},
        "end": {**IDLE, "rss": 121_000_000, "traced": 500_000},
    },
}
FILES = {
    "downloads": 400,
    "faults": 144,
    "resumed": 34,
    "restarts": 1,
    "wrong": [],
    "leftovers": [],
    "baseline": IDLE,
    "end": {**IDLE, "traced": 500_000},
}


def changed(report, path, value):
    """Return a copy with one value replaced."""
    found = copy.deepcopy(report)
    *way, last = path
    inner = found
    for name in way:
        inner = inner[name]
    inner[last] = value
    return found


def test_good_reports():
    """A run in which nothing piles up and all is noticed has no problem."""
    assert problems(GOOD) == []
    assert download_problems(FILES) == []


@each_row(
    ("path", "value", "told"),
    [
        (("wrong",), ["wait_3 saw nothing"], "wait_3"),
        (("broken",), ["Traceback"], "broke"),
        (("uncancelled",), ["wait_9"], "not cancelled"),
        (("overzealous",), ["77"], "nobody had killed"),
        (("waits",), 2000, "2000 waits"),
        (("faults",), 10, "10 faults"),
        (("restarts",), 0, "0 restarts"),
        (("rotations",), 1, "1 rotations"),
        (("sandbox_seconds",), 600, "600 sandbox_seconds"),
        (("census", "killed"), 0, "no wait that killed"),
        (("polls",), 45_000, "45000 polls"),
        (("samples", "end", "fds"), 15, "fds: 15"),
        (("samples", "end", "sockets"), 1, "sockets: 1"),
        (("samples", "end", "tasks"), 4, "tasks: 4"),
        (("samples", "end", "threads"), 9, "threads: 9"),
        (("samples", "end", "pid"), 8, "process"),
        (("samples", "end", "objects"), {"Watch": 1}, "Watch"),
        (("samples", "end", "traced"), 2_000_000, "still allocated"),
        (("samples", "end", "rss"), 130_000_000, "resident memory"),
    ],
)
def test_bad_waits(path, value, told):
    """One bad figure is one problem, and it says which."""
    found = problems(changed(GOOD, path, value))
    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("wrong",), ["3.mp4: not the file"], "3.mp4"),
        (("leftovers",), [".4.mp4.part"], ".part"),
        (("resumed",), 0, "0 resumed"),
        (("end", "fds"), 15, "fds: 15"),
        (("end", "traced"), 9_000_000, "still allocated"),
    ],
)
def test_bad_downloads(path, value, told):
    """The same for downloads."""
    found = download_problems(changed(FILES, path, value))
    assert len(found) == 1
    assert told in found[0]


@each_row(
    ("kind", "outcomes", "good"),
    [
        ("succeeds", [("succeeded", None)], True),
        ("succeeds", [], False),
        ("succeeds", [("succeeded", None)] * 2, False),
        ("succeeds", [("timeout", "ViduTimeoutError")], False),
        ("killed", [], True),
        ("killed", [("succeeded", None)], False),
    ],
)
def test_noticed_exactly_once(kind, outcomes, good):
    """A wait is in order when it saw its one outcome once; a killed one when it saw none."""
    wait = Wait(number=1, kind=kind, dialect="ent-v2", seconds=60, acts_after=5, outcomes=outcomes)
    assert (wait.problem() is None) is good
