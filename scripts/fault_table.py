"""A pytest plugin that collects the table of faults: the outcome of each test of a fault.

``tests/conftest.py`` loads it. A test adds a row by a marker, and the plugin records the outcome::

    @pytest.mark.fault("attacks", "a redirect loop", outcome=REFUSED, says="more than 5 redirects")
    def test_redirects(…):

or, for several rows or its own texts, by the fixture ``fault_row``::

    def test_refused(fault_row):
        ...
        fault_row("polling", "connection refused", side="async", seen=str(error), requests=6, outcome=CLEAR_ERROR)

A row is green if the test passes. Cases of a parametrized test with the same marker share a row. ``pytest --fault-table
FILE`` writes all rows to FILE as JSON lines, including those of pytest-xdist's workers. Even without it, a test whose
marker expects a message (``says``) fails if none appears.
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

#: The work continues and succeeds; only the log shows the fault.
SURVIVED: Final = "survived"
#: The task fails with an error that says what to do; nothing is lost or half written, and a rerun succeeds.
CLEAR_ERROR: Final = "clear error"
#: Refused before anything was sent or written.
REFUSED: Final = "refused"
#: A fault without remedy, named in the documentation.
LIMIT: Final = "documented limit"
OUTCOMES: Final = frozenset({SURVIVED, CLEAR_ERROR, REFUSED, LIMIT})
#: The parts of the table, in order: ``orders`` are creates and their money, ``from Airflow`` arguments, XComs, contexts
#: and connections, ``attacks`` those by the parties in SECURITY.md.
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
        :param side: sync, async, or another place.
        :param seen: the text that the user sees, such as an error.
        :param requests: the number of requests that the service received.
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
    """The content of a marker: ``@pytest.mark.fault(part, fault, outcome=…, says=… or seen=…)``.

    :param part: one of ``PARTS``.
    :param fault: what went wrong, in a few words.
    :param outcome: one of ``OUTCOMES``.
    :param says: part of a message. The row shows the test's last error or log record with it; without one, the test
        fails.
    :param seen: the text that the user sees, if it is neither an error of the provider nor a log record.
    :param side: sync, async, or another place.
    :param requests: the number of requests that the service received; None sums those of sandboxes and test servers.
    """

    part: str
    fault: str
    outcome: str
    says: str = ""
    seen: str = ""
    side: str = ""
    requests: int | None = None

    def __post_init__(self) -> None:
        if self.part not in PARTS or self.outcome not in OUTCOMES or bool(self.says) == bool(self.seen):
            raise ValueError(f"a known part, a known outcome, and either says or seen are required: {self}")


_COUNTED: Final[tuple[tuple[str, str, Callable[[Any], int]], ...]] = (
    ("airflow_provider_vidu.sandbox", "Sandbox", lambda sandbox: len(sandbox.requests())),
    ("tests.integration.servers", "Server", lambda server: len(server.requests)),
    ("tests.integration.documented", "DocumentedService", lambda service: service.creates + len(service.queries)),
    ("tests.integration.orders.test_inputs", "Service", lambda service: len(service.requests)),
)
"""The test servers by module and name, with the function that returns their number of requests."""


class Watch(logging.Handler):
    """Records a test's errors of the provider, log records, and servers that count requests."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []
        self.lines: list[str] = []
        self._servers: list[tuple[list[Any], Callable[[Any], int]]] = []
        self._patches = ExitStack()

    def begin(self) -> None:
        """Start recording."""
        # Imported late: Airflow reads its settings at import, after tests/conftest.py has set them.
        from airflow_provider_vidu.exceptions import ViduError

        self._note(ViduError, self.errors)
        for module, name, count in _COUNTED:
            if module in sys.modules:  # otherwise the test cannot have one
                instances: list[Any] = []
                self._note(getattr(sys.modules[module], name), instances)
                self._servers.append((instances, count))
        logging.getLogger().addHandler(self)

    def end(self) -> None:
        """Stop recording."""
        logging.getLogger().removeHandler(self)
        self._patches.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a log record's message."""
        self.lines.append(record.getMessage())

    def _note(self, kind: type, instances: list[Any]) -> None:
        original = kind.__init__  # type: ignore[misc]

        def noting(instance: Any, *args: Any, **kwargs: Any) -> None:
            instances.append(instance)
            original(instance, *args, **kwargs)

        self._patches.enter_context(mock.patch.object(kind, "__init__", noting))

    def message(self, part: str) -> str | None:
        """Return the last error, else the last log record, that contains ``part``; None if there is none."""
        return next((text for text in [*map(str, self.errors[::-1]), *self.lines[::-1]] if part in text), None)

    @property
    def requests(self) -> int | str:
        """The total number of requests of all servers; empty if there was no server."""
        counts = [count(server) for instances, count in self._servers for server in instances]
        return sum(counts) if counts else ""


_WATCH: Final = pytest.StashKey[tuple[Watch, list[Marked]]]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Start recording a marked test, including its fixtures."""
    rows = [Marked(*mark.args, **mark.kwargs) for mark in item.iter_markers(MARKER)]
    if rows:
        watch = Watch()
        item.stash[_WATCH] = (watch, rows)
        watch.begin()
    yield


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Stop recording."""
    try:
        yield
    finally:
        if _WATCH in item.stash:
            item.stash[_WATCH][0].end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the rows of a marked test, and fail it if a message in its markers never appeared."""
    report = yield
    if report.when == "call" and _WATCH in item.stash and not hasattr(report, "wasxfail"):
        watch, rows = item.stash[_WATCH]
        for row in rows:
            seen = row.seen or watch.message(row.says)
            if seen is None and report.passed:
                report.outcome = "failed"
                report.longrepr = f"The marker of this test expects a message with {row.says!r}, but none appeared."
            shown = {"part": row.part, "fault": row.fault, "side": row.side, "outcome": row.outcome, "merge": True}
            requests = watch.requests if row.requests is None else row.requests
            report.user_properties.append(_property({**shown, "seen": seen or "", "requests": requests}))
    return report


# -- collecting ------------------------------------------------------------------------------------


class Collector:
    """Collects the rows of all tests and writes them at the end."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the rows of a test and whether it passed."""
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
    """Return the rows, with those of one marker merged: green if all cases are green."""
    single: list[dict[str, Any]] = []
    cases: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row.pop("merge", False):
            cases.setdefault((row["test"].partition("[")[0], row["fault"], row["outcome"]), []).append(row)
        else:
            single.append(row)
    return single + [_one(sorted(group, key=lambda row: str(row["test"]))) for group in cases.values()]


def _one(cases: list[dict[str, Any]]) -> dict[str, Any]:
    if len(cases) == 1:
        return cases[0]
    counts = sorted({int(row["requests"]) for row in cases if row["requests"]})
    test = cases[0]["test"].partition("[")[0]
    side = f"{cases[0]['side']} ×{len(cases)}".lstrip()
    requests = "–".join(str(count) for count in dict.fromkeys((*counts[:1], *counts[-1:])))
    return {**cases[0], "test": test, "side": side, "requests": requests, "green": all(row["green"] for row in cases)}


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and collect rows only in the process that receives all workers' reports."""
    config.addinivalue_line("markers", f"{MARKER}(part, fault, *, outcome, says, seen): a row of the table of faults")
    target = config.getoption("--fault-table")
    if target and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(Path(target)), "fault-table-collector")
