"""What the benchmarks decide: verdicts, figures, and the arithmetic of the page on scaling."""

from __future__ import annotations

import pytest

from benchmarks import downloads, end_to_end, parsing, report, scaling
from benchmarks.harness import MIB, at_least, at_most, percentile

TIMES = {"mib_per_second": 800.0, "fastest": 900.0, "cpu_per_gib": 1.0, "rounds": 5}


@pytest.mark.parametrize(("value", "held"), [(0.79, False), (0.8, True), (None, None)])
def test_a_bar_holds_at_its_limit(value, held):
    """A figure on the limit holds, one beyond it misses, none at all gives no verdict."""
    assert at_least("", value, 0.8, "{:.2f}").held is held
    assert at_most("", None if value is None else 1.6 - value, 0.8, "{:.2f}").held is held


def test_percentiles_are_values_that_were_seen():
    """The 95th percentile of 1 to 100 is one of them, whatever their order."""
    assert percentile(reversed(range(1, 101)), 95) == 95
    assert percentile([7.0], 95) == 7.0


def test_the_heaviest_imports_come_first():
    """Lines of -X importtime are read by their own cost, in milliseconds; other lines are not imports."""
    report = "import time: self [us] | cumulative | imported package\nimport time:       200 |       1200 |   a.b\n"
    assert parsing.heaviest(report + "import time:      1500 |       1500 | c\nnoise\n") == [("c", 1.5), ("a.b", 0.2)]


def test_a_client_that_is_imported_misses():
    """All bars of parsing look at this provider alone; its tasks and a DAG file with batches have bars of their own."""
    run = {"import_ms": 12.0, "wall_ms": 29.0, "clients": ["aiohttp"]}
    runs = {parsing.OURS: run, parsing.BATCHES: {**run, "wall_ms": 31.0}}
    assert [bar.held for bar in parsing.bars({"runs": runs})] == [True, True, False, False]


def test_memory_and_speed_of_downloads_are_judged():
    """Slower than 0.8 x curl misses, and so does one size above the memory's limit."""
    slower = {**TIMES, "mib_per_second": 600.0}
    speed = {
        downloads.MEMORY_ONLY: {downloads.OURS: slower, downloads.CURL: TIMES, downloads.REQUESTS: TIMES},
        downloads.DISK: {
            downloads.OURS: TIMES,
            downloads.CURL_FSYNC: TIMES,
            downloads.REQUESTS_FSYNC: slower,
        },
        "s3": {downloads.OURS: TIMES, downloads.HTTP_TO_S3: TIMES},
    }
    grown = {
        str(10 * MIB): {"rss_before": 0, "rss_most": 9 * MIB},
        str(512 * MIB): {"rss_before": 0, "rss_most": 33 * MIB},
    }
    held = [
        bar.held
        for bar in downloads.bars({"speed": speed, "memory": {"local": grown, "s3": {"1": grown[str(10 * MIB)]}}})
    ]
    assert held == [False, True, False, True, None, False, True]


def test_slots_count_only_while_all_wait():
    """A run that never had all its waits deferred at once gives no figure; a held slot misses."""
    late = {"median": 1.0, "p95": 2.0, "worst": 3.0}
    run = {"name": end_to_end.OURS, "size": 50, "seconds": 9.0, "most_deferred": 50, "total": late, "after": late}
    assert end_to_end.bars({"runs": [{**run, "all_waiting": []}]})[0].held is None
    busy = [{"deferred": 50, "running": 1, "queued": 0}]
    assert end_to_end.bars({"runs": [{**run, "all_waiting": busy}]})[0].held is False
    assert end_to_end.bars({"runs": [{**run, "all_waiting": [*busy, {**busy[0], "running": 0}]}]})[0].held is True


def test_waits_that_share_their_requests_have_figures_of_their_own():
    """A fifth of the requests of a fifth of the waits."""
    run = {
        "name": scaling.LOOK,
        "jobs": 20_000,
        "window": {"core_share": 0.3, "seconds": 40.0},
        "memory_per_job": {"rss": 16_384},
        "steady": {"requests": 1000},
        "lag": {"worst": 12.0},
    }
    told = scaling.render_shared(run)
    assert "20,000 waits took 30.0 % of one core" in told
    assert "16.0 KiB of memory each and 25 requests a second" in told.replace("\n", " ")
    assert "5 triggerers for 100,000, and about 125 requests" in told.replace("\n", " ")
    assert scaling.largest([run, {**run, "name": scaling.OURS}]) is not run


def test_callbacks_leave_the_query_of_the_result():
    """What 100,000 in flight cost follows from how many of them end in a second."""
    told = scaling.render_callbacks({"waits": 10_000, "requests": 1.08}, "today").replace("\n", " ")
    assert "10,000 waits of 3 minutes cost 1.08 queries each" in told
    assert "end at 556 a second, which makes about 600 requests a second" in told
    assert "an hour each, 30, and the polls of the net" in told


def test_a_block_of_the_page_is_replaced_alone():
    """What was not measured again stays, and so does a page without the block."""
    page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n"
    assert scaling.replaced(page, "x", "new") == page.replace("old", "new")
    assert scaling.replaced(page, "y", "new") == page


def test_no_triggerer_is_planned_beyond_what_was_measured():
    """The arithmetic takes CPU or the measured number, whichever is less, and rounds triggerers up."""
    run = {
        "name": scaling.OURS,
        "jobs": 5000,
        "window": {"core_share": 0.2},
        "memory_per_job": {"rss": 20480},
        "lag": {},
    }
    assert "**5,000 waits per triggerer**" in scaling.render(run, 10.0, "today")
    busy = {**run, "window": {"core_share": 0.9}}
    told = scaling.render(busy, 10.0, "today")
    assert "**3,000 waits per triggerer**" in told
    assert "**34 triggerers**" in told
    assert scaling.largest([run, {**run, "jobs": 1000}, {**run, "name": "other", "jobs": 10_000}]) is run


def test_a_page_keeps_what_was_not_measured_again(tmp_path, monkeypatch) -> None:
    """One benchmark of a fresh clone replaces its own section and bars, and leaves those of the others."""
    monkeypatch.setattr(report, "read", lambda _name: None)
    page = report.PAGE.read_text("utf-8")
    assert report.render(page) == page
    assert "## " not in report.render("")
