"""``scripts/faults.py``: real runs of small pytest files, the table, the summary, the exit codes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

import faults
from fault_table import CLEAR_ERROR, LIMIT, PARTS, REFUSED, SURVIVED, Marked

ROOT = Path(__file__).parents[2]
ALL_PARTS = """
    import pytest
    from fault_table import PARTS, SURVIVED, CLEAR_ERROR

    @pytest.mark.parametrize("part", PARTS)
    def test_part(part, fault_row):
        fault_row(part, f"a fault of {part}", side="async", seen="HTTP 503 | a `line`", requests=3, outcome=SURVIVED)

    def test_error(fault_row):
        fault_row("polling", "an error", seen="x" * 300, requests=1, outcome=CLEAR_ERROR)
"""
RED = """
    from fault_table import SURVIVED

    def test_red(fault_row):
        fault_row("polling", "a red one", seen="", outcome=SURVIVED)
        assert not "as it should be"
"""
MARKED = """
    import logging
    import pytest

    ViduConfigError = pytest.importorskip("airflow_provider_vidu.exceptions").ViduConfigError
    Sandbox = pytest.importorskip("airflow_provider_vidu.sandbox").Sandbox

    @pytest.mark.fault("orders", "an error", outcome="refused", says="number 2", requests=0)
    @pytest.mark.fault("orders", "a warning", outcome="survived", says="only")
    def test_messages():
        logging.getLogger("x").warning("only %s", "told")
        for number in (1, 2, 3):
            with pytest.raises(ViduConfigError):
                raise ViduConfigError(f"number {number}").with_context(conn_id="c")

    @pytest.mark.fault("attacks", "many cases", outcome="survived", seen="nothing", side="sync")
    @pytest.mark.parametrize("count", [3, 1, 2])
    def test_cases(count):
        import requests
        with Sandbox() as sandbox:
            for _ in range(count):
                requests.get(f"{sandbox.url}/")

    @pytest.mark.fault("attacks", "still open", outcome="survived", seen="nothing")
    @pytest.mark.xfail(strict=True)
    def test_open():
        raise AssertionError

    @pytest.mark.fault("attacks", "a promise", outcome="refused", says="what nobody says")
    def test_promise():
        pass
"""
HANGS = """
    import pathlib, subprocess, sys, time

    def test_hangs():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        here = pathlib.Path(__file__).parent
        (here / "pid.new").write_text(str(child.pid))
        (here / "pid.new").rename(here / "pid")
        time.sleep(600)
"""


LATE = """
    import os, pathlib, signal, subprocess, sys, time

    def begin_one_more(*_):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        (pathlib.Path(__file__).parent / "pid").write_text(str(child.pid))
        time.sleep(1)
        os._exit(1)

    def test_late():
        signal.signal(signal.SIGINT, begin_one_more)
        time.sleep(600)
"""


@pytest.fixture
def part(tmp_path, monkeypatch):
    """Return a function that makes a run of one small test file."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # half of each start is the loading of plugins

    def part(name: str, code: str, limit: float = 60.0) -> faults.Part:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT / 'scripts'}\n")
        (folder / "conftest.py").write_text('pytest_plugins = ["fault_table"]\n')
        (folder / f"test_{name}.py").write_text(textwrap.dedent(code))
        return faults.Part(name, ("-p", "no:cacheprovider", str(folder / f"test_{name}.py")), limit)

    return part


@pytest.fixture
def root(tmp_path) -> Path:
    """Return a folder with a page that has the marks."""
    folder = tmp_path / "project"
    page = folder / faults.SUMMARY_PAGE
    page.parent.mkdir(parents=True)
    page.write_text(f"before\n{faults.MARKS[0]}\nold\n{faults.MARKS[1]}\nafter\n")
    return folder


def row(**fields):
    """Return a row as a run writes it."""
    base = {"part": "polling", "fault": "a fault", "side": "sync", "seen": "it failed", "requests": "2"}
    return {**base, "outcome": SURVIVED, "test": "tests/x.py::test", "green": True, **fields}


def ended(*rows, code=0):
    """Return a run with these rows."""
    return faults.Result(faults.Part("short", (), 1.0), code, 1.0, "3 passed in 1 s", list(rows))


@pytest.mark.processes
def test_a_complete_green_run(part, root, capfd):
    """A run in which every part has green rows ends with 0 and writes the document and its summary."""
    before = signal.getsignal(signal.SIGTERM)
    assert faults.main([], [part("all", ALL_PARTS)], root) == 0
    assert signal.getsignal(signal.SIGTERM) is before, "the caller's handler is gone"
    said = capfd.readouterr().out
    assert f"{len(PARTS) + 1} passed" in said
    assert f"{len(PARTS) + 1} faults: {len(PARTS)} survived, 1 ended in a clear error, 0 refused" in said
    assert "nothing lost" in said
    assert max(map(len, said.partition("seen by the user")[2].splitlines()[1:9])) <= 160
    document = (root / "docs" / "faults.md").read_text()
    assert all(f"a fault of {name}" in document for name in PARTS)
    assert "HTTP 503 \\| a \\`line\\`" in document
    assert "x" * 300 in document
    assert "ViduSubmitUnknownError" in document
    page = (root / faults.SUMMARY_PAGE).read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    assert "| polling | 2 | 1 | 1 | 0 | 0 |" in page


@pytest.mark.processes
def test_a_red_run(part, root, capfd):
    """A failing test makes the whole red, is named, and the summary stays as it was."""
    assert faults.main([], [part("all", ALL_PARTS), part("red", RED)], root) == 1
    said = capfd.readouterr().out
    assert "NOT GREEN: The run red ended with code 1" in said
    assert "NOT GREEN: Red: polling, a red one" in said
    assert "1 red." in said
    assert "old" in (root / faults.SUMMARY_PAGE).read_text()
    assert not (root / "docs" / "faults.md").exists()


@pytest.mark.processes
def test_rows_by_marker(part, root):
    """A marked test gets a row with what it has seen; a promise that is not kept is red, an open fault has no row."""
    assert faults.main([], [part("marked", MARKED)], root) == 1
    rows = {one["fault"]: one for one in faults.read_rows(root / "build" / "faults" / "marked.jsonl")}
    assert {fault: (one["seen"], one["side"], one["requests"], one["green"]) for fault, one in rows.items()} == {
        "an error": ("number 2 (connection c)", "", "0", True),
        "a warning": ("only told", "", "", True),
        "many cases": ("nothing", "sync ×3", "1–3", True),
        "a promise": ("", "", "", False),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"part": "nowhere"}, {"outcome": "lucky"}, {"says": ""}, {"seen": "both"},
    ],
)  # fmt: skip
def test_a_marker_that_says_too_little(wrong):
    """Part and outcome are words of the table, and either a message or words say what is seen."""
    fields = {"part": "orders", "fault": "x", "outcome": REFUSED, "says": "y"}
    assert Marked(**fields)
    with pytest.raises(ValueError, match="are required"):
        Marked(**{**fields, **wrong})


def test_the_suites_run_is_of_marked_files(tmp_path):
    """Only files with a marker are collected for it, and only of suites that need no Airflow processes."""
    mark = "@pytest.mark.fault("
    for name, text in (("unit/test_a.py", mark), ("unit/test_b.py", ""), ("e2e/test_c.py", mark)):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).write_text(text)
    assert faults.marked_files(tmp_path) == ["tests/unit/test_a.py"]
    assert "tests/unit/stores/test_roots.py" in faults.marked_files()


@pytest.mark.processes
@pytest.mark.parametrize("code", [HANGS, LATE], ids=["before", "when it is stopped"])
def test_a_run_that_hangs(part, root, capfd, code):
    """A run that takes too long is stopped with all that it has started, and counts as failed."""
    hanging = part("hangs", code)
    pid = Path(hanging.arguments[-1]).parent / "pid"
    for limit in (2.0, 4.0, 60.0):  # as short as this machine allows: the test has to have begun
        assert faults.main([], [replace(hanging, limit=limit)], root) == 1
        assert f"ended with code {faults.STOPPED}" in capfd.readouterr().out
        if pid.exists():
            break
    assert_gone(int(pid.read_text()))


@pytest.mark.processes
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c(part, root, tmp_path, sent):
    """Ctrl-C (or a request to end) stops what was started and says so."""
    hanging = part("hangs", HANGS)
    program = f"import sys, pathlib, faults; sys.exit(faults.main([], [{hanging}], pathlib.Path({str(root)!r})))"
    program = program.replace("[Part(", "[faults.Part(")
    # A shell lets what it starts with `&` ignore Ctrl-C, and these tests may run there; a terminal does not.
    program = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {program}"
    pid_file = Path(hanging.arguments[-1]).parent / "pid"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until = time.monotonic() + 60
        while not pid_file.exists() and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(sent)
        said, _ = process.communicate(timeout=90)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == faults.INTERRUPTED
    assert "Stopped, with everything that was started." in said
    assert_gone(int(pid_file.read_text()))


def assert_gone(pid: int) -> None:
    """Wait until a process is no more, or only waits to be reaped."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} is still there")


@pytest.mark.processes
def test_only_some_runs(part, root):
    """A run of some parts is not complete: empty parts are reported, nothing is written."""
    assert faults.main(["--only", "red"], [part("all", ALL_PARTS), part("red", RED)], root) == 1
    assert not (root / "build" / "faults" / "all.jsonl").exists()
    assert not (root / "docs" / "faults.md").exists()
    assert "old" in (root / faults.SUMMARY_PAGE).read_text()


@pytest.mark.processes
def test_what_was_green_is_kept_for_the_same_code(part, root):
    """A resumed run repeats what was red, and everything once the provider's code has changed."""
    package = root / "airflow_provider_vidu"
    package.mkdir()
    (package / "a.py").write_text("first")
    parts, rows = [part("all", ALL_PARTS), part("red", RED)], root / "build" / "faults" / "all.jsonl"
    assert faults.main([], parts, root) == 1
    rows.write_text(rows.read_text().replace("an error", "kept"))
    assert faults.main(["--resume"], [parts[0], part("mended", RED.replace("not ", ""))], root) == 0
    assert "kept" in (root / "docs" / "faults.md").read_text()
    (package / "a.py").write_text("second")
    assert faults.main(["--resume"], parts[:1], root) == 0
    assert "kept" not in rows.read_text()


def test_no_folder_of_this_machine_is_shown():
    """A path in a message loses the part that belongs to the machine and the run."""
    assert faults.plain(f"'file://{faults.ROOT}/build/x.mp4' is full") == "'file:///…/build/x.mp4' is full"
    for folder in (f"{faults.ROOT}/build/tmp", tempfile.gettempdir()):
        for run in ("pytest-of-me/pytest-7/popen-gw1", "pytest-of-me/pytest-0"):
            assert faults.plain(f"{folder}/{run}/test_x0/a is full") == "/…/test_x0/a is full"


def test_no_time_is_left(part, root):
    """When the whole has used up its time, the rest is not begun and counts as failed."""
    results = faults.run_all([part("all", ALL_PARTS)], root / "rows", 1.0)
    assert [result.code for result in results] == [faults.STOPPED]
    assert not (root / "rows" / "all.jsonl").exists()


def test_what_is_wrong():
    """A failed run, a red row and each empty part are problems of their own."""
    every = [row(part=name) for name in PARTS]
    assert faults.problems([ended(*every)]) == []
    assert faults.problems([ended(*every, code=5)]) == ["The run short ended with code 5: 3 passed in 1 s"]
    assert faults.problems([ended(*every[1:])]) == ["The part 'polling' of the table is empty."]
    assert faults.problems([ended(*every, row(green=False))]) == ["Red: polling, a fault (tests/x.py::test)"]


def test_summary():
    """Every outcome is counted once, red rows apart."""
    rows = [row(), row(outcome=CLEAR_ERROR), row(outcome=REFUSED), row(outcome=REFUSED), row(outcome=LIMIT)]
    assert faults.Summary.of(rows) == faults.Summary(5, 1, 1, 2, 1, 0)
    assert "nothing lost" in faults.Summary.of(rows).sentence()
    assert "1 red" in faults.Summary.of([*rows, row(green=False)]).sentence()


def test_terminal_table():
    """A row is one line of at most 160 columns, whatever the error contains."""
    table = faults.terminal_table([row(seen="\x1b[31mred\x1b[0m\tand\x07 long " + "y" * 200, green=False)])
    line = table.splitlines()[-1]
    assert len(line) <= 160
    assert line.endswith("RED")
    assert "red and long yyy" in line
    assert "…" in line
    assert not re.search(r"[\x00-\x1f]", line)


def test_the_page_tells_todays_limits():
    """What cannot be survived stands on the page as the script has it, also between two whole runs."""
    assert faults.LIMITS in (ROOT / "docs" / "faults.md").read_text()
    assert faults.INTRODUCTION in (ROOT / "docs" / "faults.md").read_text()


def test_order():
    """Rows stand part by part in the order of the table, whichever run brought them."""
    rows = [row(part=name) for name in reversed(PARTS)]
    assert [one["part"] for one in faults.in_order(rows)] == list(PARTS)


def test_marks_are_needed():
    """A page without the marks is not touched."""
    with pytest.raises(ValueError, match="faults:begin"):
        faults.between_marks("no marks", "new")


def test_the_manual_has_the_marks():
    """The project's own manual has a place for the summary."""
    text = (ROOT / faults.SUMMARY_PAGE).read_text()
    assert faults.MARKS[0] in faults.between_marks(text, "new")


def test_document_names_versions_and_time():
    """The document says when, with what and how long."""
    document = faults.document([ended(row())], 600.0, datetime(2026, 1, 2, tzinfo=UTC))
    assert "2026-01-02, Python 3." in document
    assert "apache-airflow " in document
    assert f"seed {faults.SEED}, 10.0 minutes" in document
    assert "What cannot be survived" in document
