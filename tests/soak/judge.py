"""What a good soak looks like: every criterion, with its number."""

from __future__ import annotations

from typing import Any

#: How much more memory the runner may hold at the end than at most in the first half.
RSS_GROWTH = 0.05
#: Bytes that may stay allocated for each wait that is over. A leaked trigger, watch or answer is some thousand.
BYTES_PER_WAIT = 400
BYTES_PER_DOWNLOAD = 4000
LEAST_WAITS = 3000
LEAST_FAULTS = 1000


def problems(report: dict[str, Any]) -> list[str]:
    """Return everything that is wrong with a soak of waits; nothing when it is good."""
    return [*_noticed(report), *_effort(report), *_flat(report)]


def _noticed(report: dict[str, Any]) -> list[str]:
    """Check that everything is noticed once, rightly, and cancelled exactly where a user has killed it."""
    found = list(report["wrong"])
    found += [f"a trigger broke: {trace[-300:]}" for trace in report["broken"]]
    found += [f"{task} was killed, its generation was not cancelled" for task in report["uncancelled"]]
    found += [f"generation {name} was cancelled, and nobody had killed its task" for name in report["overzealous"]]
    return found


def _effort(report: dict[str, Any]) -> list[str]:
    """Check that the run was what it claims to be, and the service not asked more often than documented."""
    least = {"waits": LEAST_WAITS, "faults": LEAST_FAULTS, "restarts": 3, "rotations": 4, "sandbox_seconds": 3600}
    found = [
        f"only {report[name]} {name}, {number} are wanted" for name, number in least.items() if report[name] < number
    ]
    found += [f"there was no wait that {kind}" for kind, number in report["census"].items() if not number]
    if report["polls"] > report["polls_allowed"]:
        found.append(f"{report['polls']} polls, the documented schedule allows {report['polls_allowed']}")
    return found


def _flat(report: dict[str, Any]) -> list[str]:
    """Check that nothing has piled up in the process that runs the triggers."""
    samples = report["samples"]
    before, after = samples["baseline"], samples["end"]
    half = max(samples[label]["rss"] for label in ("quarter 1", "quarter 2"))
    found = [
        f"{name}: {after[name]} at the end, {before[name]} before"
        for name in ("fds", "sockets", "tasks", "threads")
        if after[name] > before[name]
    ]
    if after["pid"] != before["pid"]:
        found.append("the runner's process is not the one that it was")
    if after["objects"]:
        found.append(f"objects left behind: {after['objects']}")
    # Single samples under load hold whatever huge answer is just being refused.
    if after["rss"] > half * (1 + RSS_GROWTH):
        found.append(f"resident memory grew from {half} to {after['rss']} bytes in the second half")
    if after["traced"] > BYTES_PER_WAIT * report["waits"]:
        found.append(f"{after['traced']} bytes are still allocated after {report['waits']} waits")
    return found


def download_problems(report: dict[str, Any]) -> list[str]:
    """Return everything that is wrong with a soak of downloads; nothing when it is good."""
    before, after = report["baseline"], report["end"]
    least = {"downloads": 300, "faults": 100, "resumed": 20, "restarts": 1}
    found = list(report["wrong"])
    found += [f"left behind: {name}" for name in report["leftovers"]]
    found += [
        f"only {report[name]} {name}, {number} are wanted" for name, number in least.items() if report[name] < number
    ]
    found += [
        f"{name}: {after[name]} at the end, {before[name]} before"
        for name in ("fds", "sockets", "threads")
        if after[name] > before[name]
    ]
    if after["traced"] > BYTES_PER_DOWNLOAD * report["downloads"]:
        found.append(f"{after['traced']} bytes are still allocated after {report['downloads']} downloads")
    return found
