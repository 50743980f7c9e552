"""Renders ``benchmarks/RESULTS.md`` from the results in ``build/bench``."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Final

from benchmarks import scaling
from benchmarks.harness import ROOT, Bar, read, table

BENCHMARKS: Final = ("waiting", "schedule", "storm", "downloads", "parsing", "end_to_end")
"""The modules of this package that measure something, in the order of the report."""

PAGE: Final = ROOT / "benchmarks" / "RESULTS.md"

INTRODUCTION: Final = """\
# Benchmarks

Made by `make bench` (everything) or `make bench ONLY=waiting` (one part); nothing here is typed by hand. Each
figure stands beside its peers' from the same run on the same machine: read the ratios, the seconds belong to the
machine. The sections say how each was measured; the raw numbers are kept in `build/bench/*.json`.
"""


def modules() -> dict[str, ModuleType]:
    """Return the benchmarks by their names."""
    return {name: importlib.import_module(f"benchmarks.{name}") for name in BENCHMARKS}


def render() -> str:
    """Return the whole page for the results that are there."""
    kept = {name: (module, read(name)) for name, module in modules().items()}
    done = {name: (module, found) for name, (module, found) in kept.items() if found}
    parts = [INTRODUCTION, _summary(done)]
    for module, found in done.values():
        parts.append(f"## {module.TITLE}\n\n{_measured_on(found)}\n\n{module.section(found['result']).strip()}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def write_page() -> None:
    """Write ``benchmarks/RESULTS.md``, and the arithmetic that ``docs/scaling.md`` makes of it."""
    PAGE.write_text(render(), "utf-8")
    scaling.write()


def summary_text() -> str:
    """Return the table of bars as plain text for the terminal."""
    done = {name: (module, found) for name, module in modules().items() if (found := read(name))}
    return "\n".join(
        f"{_verdict(bar):>9}  {module.TITLE}: {bar.text}: {bar.seen}"
        for module, found in done.values()
        for bar in module.bars(found["result"])
    )


def _summary(done: dict[str, tuple[ModuleType, dict[str, Any]]]) -> str:
    rows = [
        (f"{module.TITLE}: {bar.text}", bar.seen, _verdict(bar))
        for module, found in done.values()
        for bar in module.bars(found["result"])
    ]
    return table(("Bar", "Seen", "Verdict"), rows)


def _verdict(bar: Bar) -> str:
    return {True: "holds", False: "**misses**", None: "–"}[bar.held]


def _measured_on(found: dict[str, Any]) -> str:
    facts = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["result"].get("versions", {}).items())
    return (
        f"*{found['date']}; {facts['cores']} cores ({facts['processor']}), {facts['memory_gib']} GiB, "
        f"{facts['system']}, Python {facts['python']}, {facts['openssl']}"
        + (f"; {versions}" if versions else "")
        + (f"; load at the start {found['result']['load']}" if "load" in found["result"] else "")
        + ".*"
    )
