"""An hour of the service's time under bad weather: everything noticed once, nothing piled up."""

from __future__ import annotations

from fault_table import SURVIVED
from tests.soak.judge import download_problems, problems


def test_waits(run, fault_row):
    """Thousands of waits in Airflow's own trigger runner: noticed once, rightly, and nothing is left of them."""
    report = run("waits")
    assert problems(report) == []
    assert "soak-key-" not in report["log"]
    assert "sandbox-key" not in report["log"]
    start, end = report["samples"]["baseline"], report["samples"]["end"]
    after = ", ".join(f"{name} {start[name]}→{end[name]}" for name in ("fds", "sockets", "tasks", "threads"))
    crowd, requests = f"{report['waits']:,} waits", f"{report['polls']:,}"
    rss = [report["samples"][label]["rss"] // 2**20 for label in ("quarter 2", "end")]
    for fault, seen in (
        (
            f"an hour of random faults ({report['faults']:,} polls hit)",
            f"{crowd} (up to {report['most_at_once']:,} at once), each noticed once",
        ),
        (f"{report['restarts']} restarts of the service", f"{crowd}, each noticed once"),
        (f"{report['rotations']} rotated keys", f"{report['refused_polls']:,} polls refused and repeated, none lost"),
        (f"{report['census']['killed']} kills by the user", "each cancelled at the service where it can be, no other"),
        (f"{report['handed_over']} waits handed over to another triggerer", "each noticed once, none cancelled"),
        (
            "what piles up in the triggerer",
            f"{after}; RSS {rss[0]}→{rss[1]} MiB; {end['traced'] // report['waits']} bytes kept per wait",
        ),
    ):
        fault_row("soak", fault, side="async", seen=seen, requests=requests, outcome=SURVIVED)


def test_downloads(run, tmp_path, fault_row):
    """Hundreds of downloads in one process: each file is whole in the end, and nothing is left behind."""
    folder = tmp_path / "files"
    folder.mkdir()
    report = run("downloads", "--folder", str(folder))
    assert download_problems(report) == []
    start, end = report["baseline"], report["end"]
    after = ", ".join(f"{name} {start[name]}→{end[name]}" for name in ("fds", "sockets", "threads"))
    retried = sum(report["errors"].values())
    for fault, seen in (
        (
            f"random faults in downloads ({report['faults']:,} requests hit)",
            f"{report['downloads']} files whole, {report['resumed']} resumed, {retried} tries repeated",
        ),
        ("what piles up in a worker", f"{after}; no temporary file"),
    ):
        fault_row("soak", fault, side="sync", seen=seen, requests=f"{report['requests']:,}", outcome=SURVIVED)
