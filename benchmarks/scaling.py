"""The arithmetic of ``docs/scaling.md``: from one triggerer's figures to a hundred thousand generations."""

from __future__ import annotations

import math
from typing import Any, Final

from benchmarks.callbacks import DURATION, QUEUE
from benchmarks.harness import KIB, ROOT, read

PAGE: Final = ROOT / "docs" / "scaling.md"
GOAL: Final = 100_000
OURS: Final = "ViduGenerationTrigger"
LOOK: Final = "ViduGenerationTrigger, ent-v2"
CORE_SHARE: Final = 0.6
"""How much of its core a triggerer is planned to use: the rest is for waves, and for a colleague's waits."""


def write() -> None:
    """Bring the page up to date with what was measured last; leave what was not."""
    if not PAGE.exists():
        return
    page = PAGE.read_text("utf-8")
    if (waiting := read("waiting")) and (run := largest(waiting["result"]["runs"])):
        told = render(run, waiting["result"]["interval"], waiting["date"])
        if shared := largest(waiting["result"]["runs"], LOOK):
            told += "\n\n" + render_shared(shared)
        page = replaced(page, "scaling", told)
    if calls := read("callbacks"):
        page = replaced(page, "callbacks", render_callbacks(calls["result"]["crowd"], calls["date"]))
    PAGE.write_text(page, "utf-8")


def replaced(page: str, block: str, text: str) -> str:
    """Return the page with another text between the marks of a block; unchanged if it has no such block."""
    begin, end = f"<!-- {block}:begin -->\n", f"<!-- {block}:end -->"
    before, mark, rest = page.partition(begin)
    return f"{before}{begin}{text}\n{end}{rest.partition(end)[2]}" if mark else page


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


def render_callbacks(crowd: dict[str, Any], date: str) -> str:
    """Return the paragraph about waits that callbacks end."""
    seconds, requests, waits = QUEUE + DURATION, crowd["requests"], crowd["waits"]
    return f"""\
Measured ({date}, section *Callbacks* of `benchmarks/RESULTS.md`): {waits:,} waits of {seconds / 60:g} minutes cost
{requests:.2f} queries each, the query of the result included, which every generation needs. (One that ends alone
costs a second query: its trigger asks before it stops.) {GOAL:,} such generations in flight end at
{GOAL / seconds:,.0f} a second, which makes about {GOAL / seconds * requests:,.0f} requests a second in all;
{GOAL:,} that take an hour each, {GOAL / 3600 * requests:,.0f}, and the polls of the net."""
