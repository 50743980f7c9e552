"""Renders ``benchmarks/RESULTS.md`` from the results in ``build/bench``."""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import Any, Final

from benchmarks import scaling
from benchmarks.harness import ROOT, Bar, read, table

BENCHMARKS: Final = (
    "waiting",
    "schedule",
    "storm",
    "downloads",
    "parsing",
    "end_to_end",
    "slots",
    "batches",
    "callbacks",
)
"""The modules of this package that measure something, in the order of the report."""

PAGE: Final = ROOT / "benchmarks" / "RESULTS.md"

INTRODUCTION: Final = """\
# Benchmarks

Made by `make bench` (everything) or `make bench ONLY=waiting` (one part); nothing here is typed by hand. Each
figure is beside its peers' from the same run on the same machine. Read the ratios; the seconds depend on the machine.
The sections say how each was measured; the raw numbers are kept in `build/bench/*.json`.
"""


def modules() -> dict[str, ModuleType]:
    """Return the benchmarks by their names."""
    return {name: importlib.import_module(f"benchmarks.{name}") for name in BENCHMARKS}


def render(earlier: str = "") -> str:
    """Return the whole page for the results that are there.

    :param earlier: the page so far: what was not measured here keeps its section and its bars, with their date.
    """
    kept = _sections(earlier)
    rows: list[str] = []
    parts: list[str] = []
    for name, module in modules().items():
        found = read(name)
        if found:
            rows += _rows(module, found)
            parts.append(f"## {module.TITLE}\n\n{_measured_on(found)}\n\n{module.section(found['result']).strip()}")
        elif module.TITLE in kept:
            rows += [line for line in earlier.splitlines() if line.startswith(f"| {module.TITLE}: ")]
            parts.append(kept[module.TITLE])
    summary = "\n".join([table(("Bar", "Seen", "Verdict"), []), *rows])
    return "\n\n".join(part.strip() for part in (INTRODUCTION, summary, *parts)) + "\n"


def _sections(page: str) -> dict[str, str]:
    """Return the sections of a page by their titles, each with its heading."""
    found = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {section.partition("\n")[0].removeprefix("## "): section.strip() for section in found}


def write_page() -> None:
    """Write ``benchmarks/RESULTS.md``, and the arithmetic that ``docs/scaling.md`` makes of it."""
    PAGE.write_text(render(PAGE.read_text("utf-8") if PAGE.exists() else ""), "utf-8")
    scaling.write()


def summary_text() -> str:
    """Return the table of bars as plain text for the terminal."""
    done = {name: (module, found) for name, module in modules().items() if (found := read(name))}
    return "\n".join(
        f"{_verdict(bar):>9}  {module.TITLE}: {bar.text}: {bar.seen}"
        for module, found in done.values()
        for bar in module.bars(found["result"])
    )


def _rows(module: ModuleType, found: dict[str, Any]) -> list[str]:
    bars = [(f"{module.TITLE}: {bar.text}", bar.seen, _verdict(bar)) for bar in module.bars(found["result"])]
    return table(("", "", ""), bars).splitlines()[2:]


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
