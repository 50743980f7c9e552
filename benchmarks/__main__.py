"""``python -m benchmarks``: run all or some, each in a process of its own, and write RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time

from benchmarks import harness, report


def main() -> int:
    """Run what was asked for; the exit status tells whether everything ran (not whether each bar holds)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="names, separated by commas: " + ", ".join(report.BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="short windows: to see that it works, not to publish")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--report", action="store_true", help="only render RESULTS.md from the last results")
    options = parser.parse_args()
    if options.here:
        return _run_here(options.here, options.quick)
    wanted = [name for name in options.only.replace(",", " ").split() if name] or list(report.BENCHMARKS)
    if unknown := set(wanted) - set(report.BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(report.BENCHMARKS)}")
    failed = [] if options.report else [name for name in wanted if not _run(name, options.quick)]
    report.write_page()
    print(report.summary_text())
    print(f"\nWritten: {report.PAGE.relative_to(harness.ROOT)}")
    if failed:
        print(f"Did not finish: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, quick: bool) -> bool:
    started = time.monotonic()
    print(f"{name} ...", flush=True)
    command = [sys.executable, "-m", "benchmarks", "--here", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=harness.ROOT, check=False).returncode == 0
    print(f"{name}: {'done' if done else 'FAILED'} after {time.monotonic() - started:.0f} s", flush=True)
    return done


def _run_here(name: str, quick: bool) -> int:
    load = harness.load()
    result = importlib.import_module(f"benchmarks.{name}").measure(quick)
    harness.write(name, {"load": load, "quick": quick, **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
