"""What all benchmarks share: measuring a process from outside, loop lag from inside, facts, results.

A benchmark is a module of this package with

* ``TITLE``: the heading of its section,
* ``measure(quick: bool) -> dict``: runs it and returns plain JSON,
* ``bars(result) -> list[Bar]``: what the result must reach,
* ``section(result) -> str``: its Markdown, method included,

entered in ``report.BENCHMARKS``. ``python -m benchmarks`` runs each in a process of its own and keeps
its result in ``build/bench/<name>.json``; ``benchmarks/RESULTS.md`` is rendered from these files.
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import time
import urllib.request
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "build" / "bench"
KIB: Final = 1024
LOCALHOST: Final = "127.0.0.1"
MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Bar:
    """One promise and what became of it.

    :param text: what is promised, with the limit in it.
    :param seen: the figure of this run, written out.
    :param held: whether it holds; None where this run did not measure it.
    """

    text: str
    seen: str
    held: bool | None


def at_most(text: str, value: float | None, limit: float, shown: str) -> Bar:
    """Return the bar of a value that must not be above ``limit``; ``shown`` formats it (``"{:.2f} KiB"``)."""
    return Bar(
        text, "not measured" if value is None else shown.format(value), None if value is None else value <= limit
    )


def at_least(text: str, value: float | None, limit: float, shown: str) -> Bar:
    """Return the bar of a value that must not be below ``limit``."""
    return Bar(
        text, "not measured" if value is None else shown.format(value), None if value is None else value >= limit
    )


# -- processes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a process has used up to a moment: CPU seconds (user and system) and memory in bytes."""

    at: float
    cpu: float
    rss: int
    uss: int

    def since(self, earlier: Usage) -> dict[str, float]:
        """Return seconds passed, CPU seconds used, and the share of one core."""
        passed, used = self.at - earlier.at, self.cpu - earlier.cpu
        return {"seconds": passed, "cpu_seconds": used, "core_share": used / passed if passed else 0.0}


def usage(pid: int) -> Usage:
    """Return what the process ``pid`` has used so far; its children are not counted."""
    process = psutil.Process(pid)
    with process.oneshot():
        times = process.cpu_times()
        memory = process.memory_full_info()
    return Usage(time.monotonic(), times.user + times.system, memory.rss, memory.uss)


def run_child(arguments: Sequence[str], *, environment: dict[str, str] | None = None, log: Path) -> Any:
    """Run ``python -m`` with ``arguments`` to its end and return the JSON of its last line of output.

    :param environment: variables that are set in addition.
    :param log: where its standard error goes.
    """
    return _run(["-m", *arguments], environment, log)


def run_code(code: str, *, environment: dict[str, str] | None = None, log: Path) -> Any:
    """Run ``code`` in a fresh interpreter; otherwise as :func:`run_child`."""
    return _run(["-c", code], environment, log)


def _run(arguments: Sequence[str], environment: dict[str, str] | None, log: Path) -> Any:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        child = subprocess.run(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            cwd=ROOT,
            check=False,
        )
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments[:2])} ended with {child.returncode}; its last words:\n{_tail(log)}")
    return json.loads(child.stdout.decode().strip().splitlines()[-1])


@contextmanager
def serving(arguments: Sequence[str], *, environment: dict[str, str] | None = None, log: Path) -> Iterator[Any]:
    """Run ``python -m`` with ``arguments`` beside the block; yield the process and the JSON of its first line."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            cwd=ROOT,
        )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"{arguments[0]} did not start; its last words:\n{_tail(log)}")
        yield child, json.loads(line)
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _tail(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-3000:]


class Stats:
    """Asks the server what it has seen."""

    def __init__(self, url: str) -> None:
        self._url = url

    def take(self, *, reset: bool = False) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._url}/bench/stats{'?reset' if reset else ''}") as answer:
            found: dict[str, Any] = json.load(answer)
            return found


# -- the event loop -------------------------------------------------------------------------------


class LagMeter:
    """A task that wants to run every ``step`` seconds and notes how late it was.

    Put on the loop that is measured; its notes go to ``path`` (pairs of doubles: when, how late), a few
    times a minute, so that another process can read them.
    """

    def __init__(self, path: Path, step: float = 0.01) -> None:
        self.path = path
        self.step = step

    async def run(self) -> None:
        """Measure until cancelled."""
        notes, pauses = array("d"), array("d")
        clock = time.monotonic
        _note_collections(pauses)
        with self.path.open("ab", buffering=0) as file, collections_of(self.path).open("ab", buffering=0) as beside:
            flushed = clock()
            while True:
                before = clock()
                await asyncio.sleep(self.step)
                now = clock()
                notes.extend((now, now - before - self.step))
                if now - flushed > 1.0:
                    for kept, place in ((notes, file), (pauses, beside)):
                        kept.tofile(place)
                        del kept[:]
                    flushed = now


def collections_of(path: Path) -> Path:
    """Return where a meter that writes to ``path`` notes the pauses of Python's garbage collection."""
    return path.with_suffix(".gc")


def _note_collections(pauses: array[float]) -> None:
    """Note the end and the length of each collection of the oldest generation, the one that looks at every object."""
    began = 0.0

    def note(phase: str, told: dict[str, int]) -> None:
        nonlocal began
        if told["generation"] == 2:
            now = time.monotonic()
            if phase == "start":
                began = now
            else:
                pauses.extend((now, now - began))

    gc.callbacks.append(note)


AFTERMATH: Final = 0.5
"""Seconds after a collection in which the loop works off what has waited meanwhile."""


def lags(path: Path, start: float, end: float) -> dict[str, float]:
    """Return worst, 99.9th and 99th percentile of the lag between two moments, in milliseconds.

    ``collections`` counts Python's full garbage collections, ``longest_collection`` is the longest in
    milliseconds, and ``worst_without`` is the worst lag apart from these pauses and the half second after each.
    """
    late = [(at, lag) for at, lag in _pairs(path) if start <= at <= end]
    pauses = [(at - took, at, took) for at, took in _pairs(collections_of(path)) if start <= at <= end]
    if not late:
        return {}
    ranked = sorted(lag * 1000 for _, lag in late)
    without = [
        lag * 1000
        for at, lag in late
        if not any(began <= at and at - lag <= ended + AFTERMATH for began, ended, _ in pauses)
    ]
    return {
        "worst": ranked[-1],
        "p999": percentile(ranked, 99.9),
        "p99": percentile(ranked, 99),
        "samples": len(ranked),
        "collections": len(pauses),
        "longest_collection": 1000 * max((took for *_, took in pauses), default=0.0),
        "worst_without": max(without, default=0.0),
    }


def _pairs(path: Path) -> list[tuple[float, float]]:
    notes = array("d")
    if path.exists():
        raw = path.read_bytes()
        notes.frombytes(raw[: len(raw) // 16 * 16])
    return list(zip(notes[::2], notes[1::2], strict=True))


def percentile(values: Iterable[float], percent: float) -> float:
    """Return a percentile of ``values`` (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, round(percent / 100 * (len(ranked) - 1)))]


median = statistics.median


# -- results --------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Return what a figure depends on: cores, memory, kernel family, Python, OpenSSL. No name, no path."""
    return {
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in _lines(info) if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").splitlines() if path.exists() else []


def versions(*distributions: str) -> dict[str, str]:
    """Return the installed versions of ``distributions``."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def load() -> float:
    """Return how many processes wanted to run in the last minute: above the cores, figures are not to be trusted."""
    return round(os.getloadavg()[0], 2)


def write(name: str, result: dict[str, Any]) -> Path:
    """Keep a benchmark's result in ``build/bench`` with date and machine."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    path.write_text(json.dumps({"date": date, "machine": machine(), "result": result}, indent=1) + "\n", "utf-8")
    return path


def read(name: str) -> dict[str, Any] | None:
    """Return what :func:`write` kept, or None."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


# -- Markdown -------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def ratio(ours: float | None, theirs: float | None) -> str:
    """Return ``ours / theirs`` as ``0.27 ×``."""
    return f"{ours / theirs:.2f} ×" if ours is not None and theirs else "–"
