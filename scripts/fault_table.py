"""The table of faults: what each test of a fault saw, collected over a pytest run.

A pytest plugin (``tests/conftest.py`` loads it). A test gets into the table in one of two ways.

Its marker says what went wrong, wherever the test stands, and the plugin watches what comes of it::

    @pytest.mark.fault("attacks", "a redirect loop", outcome=REFUSED, says="more than 5 redirects")
    def test_redirects(…):

Or, for several rows or texts of its own, it takes the fixture ``fault_row``::

    def test_refused(fault_row):
        ...
        fault_row("polling", "connection refused", side="async", seen=str(error), requests=6, outcome=CLEAR_ERROR)

The row is green when the test passes. The cases of a parametrized test that share a marker share a row.
``pytest --fault-table FILE`` writes all rows to FILE as JSON lines, also those of pytest-xdist's workers. Without it a
marker costs nothing but its check: a test whose marker promises a message that the test never sees fails.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest

#: Only the log shows it: the work goes on and ends well.
SURVIVED: Final = "survived"
#: The task ends with an error that says what to do; nothing is lost, nothing half written, a rerun succeeds.
CLEAR_ERROR: Final = "clear error"
#: Refused before anything was sent or written.
REFUSED: Final = "refused"
#: What cannot be survived; the documentation names it.
LIMIT: Final = "documented limit"
OUTCOMES: Final = frozenset({SURVIVED, CLEAR_ERROR, REFUSED, LIMIT})
#: The parts of the table, in its order: ``orders`` are creates and their money, ``from Airflow`` is what Airflow hands
#: over (arguments, XComs, contexts, connections), ``attacks`` are what one of SECURITY.md's parties may try.
PARTS: Final = (
    "polling",
    "transfer",
    "hostile input",
    "secrets",
    "orders",
    "from Airflow",
    "stores and files",
    "attacks",
    "airflow",
    "soak",
)

MARKER: Final = "fault"
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
        row = {"part": part, "fault": fault, "side": side, "seen": seen, "requests": requests, "outcome": outcome}
        request.node.user_properties.append(_property(row))

    return add


def _property(row: dict[str, Any]) -> tuple[str, str]:
    lines = str(row["seen"]).strip().splitlines() or [""]
    return _PROPERTY, json.dumps({**row, "seen": lines[0], "requests": str(row["requests"])})


# -- rows by marker --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marked:
    """What a marker says: ``@pytest.mark.fault(part, fault, outcome=…, says=… or seen=…)``.

    :param part: one of ``PARTS``.
    :param fault: what went wrong, in a few words.
    :param outcome: one of ``OUTCOMES``.
    :param says: a part of the message that the user reads. The last error or log record of the test that holds it is
        shown in the row; the test fails where none does.
    :param seen: what the user sees instead, where that is not an error of the provider and not a log record.
    :param side: sync, async, or the place it was seen at.
    :param requests: how many requests the service saw; None counts what sandboxes and test servers have counted.
    """

    part: str
    fault: str
    outcome: str
    says: str = ""
    seen: str = ""
    side: str = ""
    requests: int | None = None

    def __post_init__(self) -> None:
        """Refuse what the table has no place for."""
        if self.part not in PARTS or self.outcome not in OUTCOMES or bool(self.says) == bool(self.seen):
            raise ValueError(f"one of the parts, one of the outcomes, and either says or seen are needed: {self}")


_COUNTED: Final[tuple[tuple[str, str, Callable[[Any], int]], ...]] = (
    ("airflow_provider_vidu.sandbox", "Sandbox", lambda sandbox: len(sandbox.requests())),
    ("tests.integration.servers", "Server", lambda server: len(server.requests)),
    ("tests.integration.documented", "DocumentedService", lambda service: service.creates + len(service.queries)),
    ("tests.integration.orders.test_inputs", "Service", lambda service: len(service.requests)),
)
"""The servers of tests, by module and name, and how many requests each has counted."""


class Watch(logging.Handler):
    """What a test sees: the provider's errors, log records, and the servers that count requests."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []
        self.lines: list[str] = []
        self._servers: list[tuple[list[Any], Callable[[Any], int]]] = []
        self._patches = ExitStack()

    def begin(self) -> None:
        """Watch from now on."""
        # Airflow reads its settings when it is imported, which tests/conftest.py does first.
        from airflow_provider_vidu.exceptions import ViduError

        self._note(ViduError, self.errors)
        for module, name, count in _COUNTED:
            if module in sys.modules:  # otherwise the test cannot have one
                made: list[Any] = []
                self._note(getattr(sys.modules[module], name), made)
                self._servers.append((made, count))
        logging.getLogger().addHandler(self)

    def end(self) -> None:
        """Watch no longer."""
        logging.getLogger().removeHandler(self)
        self._patches.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a log record's message."""
        self.lines.append(record.getMessage())

    def _note(self, kind: type, found: list[Any]) -> None:
        make = kind.__init__  # type: ignore[misc]

        def noted(made: Any, *args: Any, **kwargs: Any) -> None:
            found.append(made)
            make(made, *args, **kwargs)

        self._patches.enter_context(mock.patch.object(kind, "__init__", noted))

    def message(self, part: str) -> str | None:
        """Return the last error, or else the last log record, that holds ``part``; None where none does."""
        return next((text for text in [*map(str, self.errors[::-1]), *self.lines[::-1]] if part in text), None)

    @property
    def requests(self) -> int | str:
        """How many requests the servers have counted; empty where there was no server."""
        counts = [count(server) for made, count in self._servers for server in made]
        return sum(counts) if counts else ""


_WATCH: Final = pytest.StashKey[tuple[Watch, list[Marked]]]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Watch a marked test, the making of its fixtures included."""
    rows = [Marked(*mark.args, **mark.kwargs) for mark in item.iter_markers(MARKER)]
    if rows:
        watch = Watch()
        item.stash[_WATCH] = (watch, rows)
        watch.begin()
    yield


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Watch no longer."""
    try:
        yield
    finally:
        if _WATCH in item.stash:
            item.stash[_WATCH][0].end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the rows of a marked test; one that promises a message which never came fails."""
    report = yield
    if report.when == "call" and _WATCH in item.stash and not hasattr(report, "wasxfail"):
        watch, rows = item.stash[_WATCH]
        for row in rows:
            seen = row.seen or watch.message(row.says)
            if seen is None and report.passed:
                report.outcome = "failed"
                report.longrepr = f"The marker of this test promises a message with {row.says!r}, and there was none."
            shown = {"part": row.part, "fault": row.fault, "side": row.side, "outcome": row.outcome, "merge": True}
            requests = watch.requests if row.requests is None else row.requests
            report.user_properties.append(_property({**shown, "seen": seen or "", "requests": requests}))
    return report


# -- collecting ------------------------------------------------------------------------------------


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
        self.target.write_text("".join(json.dumps(row) + "\n" for row in merged(self.rows)))


def merged(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, those of one marker as one: it is green when each of its cases is."""
    found: list[dict[str, Any]] = []
    cases: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row.pop("merge", False):
            cases.setdefault((row["test"].partition("[")[0], row["fault"], row["outcome"]), []).append(row)
        else:
            found.append(row)
    return found + [_one(sorted(group, key=lambda row: str(row["test"]))) for group in cases.values()]


def _one(cases: list[dict[str, Any]]) -> dict[str, Any]:
    if len(cases) == 1:
        return cases[0]
    counts = sorted({int(row["requests"]) for row in cases if row["requests"]})
    test = cases[0]["test"].partition("[")[0]
    side = f"{cases[0]['side']} ×{len(cases)}".lstrip()
    requests = "–".join(str(count) for count in dict.fromkeys((*counts[:1], *counts[-1:])))
    return {**cases[0], "test": test, "side": side, "requests": requests, "green": all(row["green"] for row in cases)}


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and collect only where the reports of all workers arrive."""
    config.addinivalue_line("markers", f"{MARKER}(part, fault, *, outcome, says, seen): a row of the table of faults")
    target = config.getoption("--fault-table")
    if target and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(Path(target)), "fault-table-collector")
