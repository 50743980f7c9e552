"""The arithmetic of ``docs/scaling.md``: from one triggerer's figures to a hundred thousand generations."""

from __future__ import annotations

import math
from typing import Any, Final

from benchmarks.harness import KIB, ROOT, read

PAGE: Final = ROOT / "docs" / "scaling.md"
BEGIN: Final = "<!-- scaling:begin -->"
END: Final = "<!-- scaling:end -->"
GOAL: Final = 100_000
OURS: Final = "ViduGenerationTrigger"
LOOK: Final = "ViduGenerationTrigger, ent-v2"
CORE_SHARE: Final = 0.6
"""How much of its core a triggerer is planned to use: the rest is for waves, and for a colleague's waits."""


def write() -> None:
    """Bring the page up to date with the last measured waits; leave it where there are none."""
    found = read("waiting")
    run = largest(found["result"]["runs"]) if found else None
    if found is None or run is None or not PAGE.exists():
        return
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    told = render(run, found["result"]["interval"], found["date"])
    if shared := largest(found["result"]["runs"], LOOK):
        told += "\n\n" + render_shared(shared)
    PAGE.write_text(f"{before}{BEGIN}\n{told}\n{END}{rest.partition(END)[2]}", "utf-8")


def largest(runs: list[dict[str, Any]], name: str = OURS) -> dict[str, Any] | None:
    """Return the run of this provider with the most jobs: each polled by itself, or (``LOOK``) looked up together."""
    return max((run for run in runs if run["name"] == name), key=lambda run: run["jobs"], default=None)


def per_triggerer(jobs: int, core_share: float) -> int:
    """Return the waits that one triggerer carries, in whole thousands, if CPU grows in proportion."""
    return max(math.floor(jobs * CORE_SHARE / core_share / 1000) * 1000, 1000)


def render(run: dict[str, Any], interval: float, date: str) -> str:
    """Return the paragraph with the arithmetic."""
    jobs, share = run["jobs"], run["window"]["core_share"]
    kib = run["memory_per_job"]["rss"] / KIB
    # Never more than has been seen to run: beyond that, loop lag and memory are unknown.
    waits = min(per_triggerer(jobs, share), jobs)
    count = math.ceil(GOAL / waits)
    lag = run["lag"].get("worst", 0)
    cores, memory = GOAL / jobs * share, GOAL * kib / KIB / KIB
    return f"""\
Measured ({date}, section *Waiting* of `benchmarks/RESULTS.md`, {jobs:,} waits in Airflow's own
trigger runner, each polled every {interval:g} s over TLS): {100 * share:.1f} % of one core, {kib:.1f} KiB of memory
per wait, worst loop lag {lag:.0f} ms. This page plans at most as many waits per triggerer as were measured on
one, and at most {CORE_SHARE:.0%} of its core: **{waits:,} waits per triggerer**.

For {GOAL:,} generations in flight that makes {GOAL:,} / {waits:,} = **{count} triggerers**, and one in reserve.
Together they need about {cores:.1f} cores and {memory:.1f} GiB for the waits; Airflow itself needs some hundred
MiB more per triggerer. The service sees {GOAL:,} / {interval:g} = {GOAL / interval:,.0f} polls a second at this
interval, and at 30 s {GOAL / 30:,.0f}, for {interval / 30:.2f} of the polls' CPU. The gateway's rate is the first
limit."""


def render_shared(run: dict[str, Any]) -> str:
    """Return the paragraph about waits that share their requests."""
    jobs, share = run["jobs"], run["window"]["core_share"]
    waits = min(per_triggerer(jobs, share), jobs)
    count = math.ceil(GOAL / waits)
    requests = run["steady"]["requests"] / run["window"]["seconds"]
    kib, lag = run["memory_per_job"]["rss"] / KIB, run["lag"].get("worst", 0)
    return f"""\
With the dialect `ent-v2`, where waits share their requests, {jobs:,} waits took {100 * share:.1f} % of one core,
{kib:.1f} KiB of memory each and {requests:,.0f} requests a second; worst loop lag {lag:.0f} ms. That makes
**{waits:,} waits per triggerer**, {count} triggerers for {GOAL:,}, and about
{GOAL / jobs * requests:,.0f} requests a second."""
