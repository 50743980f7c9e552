"""The table of faults: what each test of a fault saw, collected over a pytest run.

A pytest plugin (``tests/conftest.py`` loads it). A test takes the fixture ``fault_row`` and says what happened::

    def test_refused(fault_row):
        ...
        fault_row("polling", "connection refused", side="async", seen=str(error), requests=6, outcome=CLEAR_ERROR)

The row counts as green when the test passes. ``pytest --fault-table FILE`` writes all rows to FILE as JSON lines,
also those of pytest-xdist's workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

#: Nobody but the log notices: the work goes on and ends well.
SURVIVED: Final = "survived"
#: The task ends with an error that says what to do; nothing is lost, nothing half written, a rerun succeeds.
CLEAR_ERROR: Final = "clear error"
#: Refused before anything was sent or written.
REFUSED: Final = "refused"
#: What cannot be survived; the documentation names it.
LIMIT: Final = "documented limit"
OUTCOMES: Final = frozenset({SURVIVED, CLEAR_ERROR, REFUSED, LIMIT})
#: The parts of the table, in its order.
PARTS: Final = ("polling", "transfer", "hostile input", "secrets", "airflow", "soak")

_PROPERTY: Final = "fault_row"
FaultRow = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--fault-table``."""
    parser.addoption("--fault-table", metavar="FILE", default=None, help="write the table of faults to FILE")


@pytest.fixture
def fault_row(request: pytest.FixtureRequest) -> FaultRow:
    """Return the function that adds a row to the table of faults."""

    def add(part: str, fault: str, *, side: str = "", seen: str, requests: int | str = "", outcome: str) -> None:
        """Add a row.

        :param part: one of ``PARTS``.
        :param fault: what went wrong, in a few words.
        :param side: sync, async, or the place it was seen at.
        :param seen: what the user sees, an error's first line for example.
        :param requests: how many requests the service saw.
        :param outcome: one of ``OUTCOMES``.
        """
        assert part in PARTS, part
        assert outcome in OUTCOMES, outcome
        first = seen.strip().splitlines()[0] if seen.strip() else ""
        row = {"part": part, "fault": fault, "side": side, "seen": first, "requests": str(requests), "outcome": outcome}
        request.node.user_properties.append((_PROPERTY, json.dumps(row)))

    return add


class Collector:
    """Gathers the rows of every finished test and writes them at the end."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the rows of a test, and whether it passed."""
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == _PROPERTY:
                self.rows.append({**json.loads(str(value)), "test": report.nodeid, "green": report.passed})

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.target.write_text("".join(json.dumps(row) + "\n" for row in self.rows))


def pytest_configure(config: pytest.Config) -> None:
    """Collect only where the reports of all workers arrive."""
    target = config.getoption("--fault-table")
    if target and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(Path(target)), "fault-table-collector")
