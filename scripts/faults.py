"""``make faults``: every fault test in its runs, then the table, the summary and ``docs/faults.md``.

Each run is a pytest of its own in a process group of its own, with a time limit; its output streams through, so
that its closing line can be read. The rows come from ``--fault-table`` (see :mod:`fault_table`). The exit code is
0 only when every run passed, every row is green and no part of the table is empty.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

from fault_table import CLEAR_ERROR, LIMIT, MARKER, PARTS, REFUSED, SURVIVED

ROOT: Final = Path(__file__).resolve().parents[1]
SUMMARY_PAGE: Final = "docs/evidence.md"
MARKS: Final = ("<!-- faults:begin -->", "<!-- faults:end -->")
GRACE_SECONDS: Final = 30.0
"""How long a run that must end may clean up before it is killed."""

ECHO_SECONDS: Final = 5.0
STOPPED: Final = 124
INTERRUPTED: Final = 130
SEED: Final = "4"

LIMITS: Final = """\
- **`vidu-native`: a worker dies between the submit and the recorded id.** This API has neither an idempotency key
  nor a list of generations. The retry fails with `ViduSubmitUnknownError` and submits nothing: one job may run, and
  may have been billed.
- **`ent-v2`: the same, and neither list nor queries decide it.** The retry searches the account's list and queries up
  to 50 entries that may be the job. If they show a `payload`, the marker decides; otherwise time, endpoint, model,
  prompt and images do. It fails with `ViduSubmitUnknownError`, names the candidates and submits nothing if several
  entries fit and show no payload (mapped tasks with one prompt), if an entry leaves open whether it is the job (a
  request with neither a prompt nor image addresses has nothing to compare), if the list may not show such products,
  if its end cannot be reached, or if the create is older than the seven days that it shows. A gateway without
  a list is like `vidu-native`.
- **`max_in_flight` on a gateway, and a create of unknown outcome.** A gateway does not report what runs. A generation
  whose create's answer was lost, or whose worker died before it recorded the id, is not counted: one more may run.
- **A task is killed after it has deferred and before a triggerer has started its trigger.** Airflow does not
  call `on_kill`, so the generation continues. Its id is in the XCom; clearing the task cancels it if the service can.
- **The service is unreachable at the moment of a cancel.** The cancel is retried a few times with growing pauses. If
  it still fails, a warning in the log names the id. `vidu-native` documents no cancel at all.
- **A connection stays deleted, or its key stays refused.** A wait whose task submitted the generation, or whose poll
  succeeded once, pauses until its own timeout, or for an hour if it has none. Then it fails and names the connection;
  the generation continues, and its id is in the XCom. A sensor whose first poll is refused fails at once; so does its
  trigger if the first poll in the worker did not succeed.
- **A URL has expired and no `generation_id` was given.** No new URL can be requested: `ViduURLExpiredError`.
- **Airflow's REST API and UI show the connection's `headers`** to users who may read connections, unless a header's
  name sounds like a secret. Set `[core] sensitive_var_conn_names = headers`, or use a secrets backend.
- **A file without an announced length is cut, and its format does not show where it ends.** The download keeps what
  arrived; the log warns that nothing proves it complete. MP4 files and chunked responses are not affected.
- **`kill -9` in the middle of an upload.** Nothing appears under the final name, but the parts that were sent remain
  for a while. On S3, give the bucket a lifecycle rule (`AbortIncompleteMultipartUpload`), which removes the unfinished
  upload. Google Cloud Storage and Azure remove it after a week.
- **`kill -9` in the middle of a local download.** A hidden `.part` file remains; a download to the same name a day
  later removes it."""

INTRODUCTION: Final = """\
# The table of faults

Written by `make faults`; not edited by hand. Each row is a test: what went wrong, what the user sees, how many
requests the test's servers counted, and how it ended. *survived*: only the log shows it. *clear error*: the task ends
with an error that says what to do, nothing is lost, a rerun succeeds. *refused*: before anything was sent or written.
*documented limit*: see below. *orders* are creates and their cost; *from Airflow* are its arguments, XComs, contexts
and connections. The parties of the *attacks* are those of `SECURITY.md`. ×8 is a row of eight cases, of which one is
shown."""


@dataclass(frozen=True)
class Part:
    """One pytest run.

    :param name: also the name of its file of rows.
    :param arguments: what pytest is given.
    :param limit: seconds after which it is stopped.
    :param has_rows: whether the table shows its tests; those of another run are not shown twice.
    """

    name: str
    arguments: tuple[str, ...]
    limit: float
    has_rows: bool = True


def marked_files(root: Path = ROOT) -> list[str]:
    """Return the test files outside of ``tests/faults`` that have rows by marker; only they need to be collected."""
    files = (file for pattern in SUITES for file in (root / "tests").glob(pattern))
    return sorted(str(file.relative_to(root)) for file in files if f".mark.{MARKER}(" in file.read_text("utf-8"))


SUITES: Final = ("test_*.py", "unit/**/test_*.py", "integration/**/test_*.py", "sandbox/**/test_*.py")
"""Whose tests may have rows by marker: those that need no Airflow processes."""

RUNS: Final = (
    Part("short", ("-n", "2", "-m", "nightly or not nightly", "tests/faults"), 480.0),
    Part("suites", ("-n", "2", "-m", MARKER, *marked_files()), 300.0),
    Part("batches", ("-m", "nightly", "tests/integration"), 600.0),
    Part("pipelines", ("-m", "e2e", "tests/e2e"), 1500.0),
    Part("airflow", ("-m", "cluster", "tests/cluster"), 900.0),
    Part("pages", ("-m", "not nightly", "--on-postgres", "tests/integration/ui"), 600.0, has_rows=False),
    Part("soak", ("-m", "soak", "tests/soak/test_soak.py"), 600.0),
    Part("batch", ("-m", "soak", "-o", "faulthandler_timeout=3000", "tests/soak/test_batches.py"), 3000.0),
)
"""Each ends far earlier on an idle machine; together they never take longer than ``TOTAL_SECONDS``."""

TOTAL_SECONDS: Final = 5400.0
"""An idle machine needs about an hour, most of it for the batch of five thousand rows and the scaled-out Airflow."""


@dataclass(frozen=True)
class Result:
    """How a run ended.

    :param code: the exit code; ``STOPPED`` for one that was stopped at its limit.
    :param closing: pytest's last line.
    """

    part: Part
    code: int
    seconds: float
    closing: str
    rows: list[dict[str, Any]] = field(default_factory=list)


class Interrupted(BaseException):
    """The request to end; Ctrl-C brings KeyboardInterrupt."""


# -- running ---------------------------------------------------------------------------------------


def run_part(part: Part, folder: Path, limit: float) -> Result:
    """Run one part, in a process group of its own; nothing of it is left afterwards."""
    table = folder / f"{part.name}.jsonl"
    table.unlink(missing_ok=True)
    shown = ("--fault-table", str(table)) if part.has_rows else ()
    command = [sys.executable, "-m", "pytest", *part.arguments, *shown]
    print(f"\n── {part.name}: pytest {' '.join(part.arguments)} (at most {limit:.0f} s)", flush=True)
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "ALL_EXAMPLES": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    echo = _Echo(process)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        print("\nThis took too long; it is stopped.", flush=True)
        code = STOPPED
    finally:
        stop_group(process)
        echo.join(ECHO_SECONDS)
    return Result(part, code, time.monotonic() - began, echo.closing, read_rows(table))


_CLOSING: Final = re.compile(r"\b(passed|failed|errors?|deselected|no tests ran)\b.* in \d+\.\d+s")


class _Echo(threading.Thread):
    """Prints what a process says as it says it, also while the process is being stopped."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(name="echo", daemon=True)
        self._stream = process.stdout
        self.closing = ""
        self.start()

    def run(self) -> None:
        for line in self._stream or ():
            print(line, end="", flush=True)
            said = plain(line).strip("= ")
            if _CLOSING.search(said) or not _CLOSING.search(self.closing):
                self.closing = said or self.closing


def stop_group(process: subprocess.Popen[str]) -> None:
    """End a process and all that it has started: first politely, so that it can clean up by itself."""
    with _undisturbed():
        _stop_group(process, _descendants(process.pid))


def _stop_group(process: subprocess.Popen[str], family: list[psutil.Process]) -> None:
    for sent, wait in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if process.poll() is None:
            _signal(process.pid, sent)
        until = time.monotonic() + wait
        while process.poll() is None and time.monotonic() < until:
            family += _descendants(process.pid)  # it may have started one more before it got the signal
            time.sleep(0.05)
    _signal(process.pid, signal.SIGKILL)  # children that outlived their parent
    for left in family:
        # A child in a group of its own whose parent had no time to stop it; psutil knows it from a reused id.
        with suppress(psutil.NoSuchProcess):
            left.kill()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let an impatient second Ctrl-C pass: what was started has to be stopped first."""
    known = {sent: signal.signal(sent, signal.SIG_IGN) for sent in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sent, handler in known.items():
            signal.signal(sent, handler)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def _signal(group: int, sent: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, sent)


def read_rows(table: Path) -> list[dict[str, Any]]:
    """Return the rows that a run has written."""
    if not table.exists():
        return []
    return [json.loads(line) for line in table.read_text().splitlines() if line.strip()]


# -- judging ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """The figures of the table."""

    faults: int
    survived: int
    clear_errors: int
    refused: int
    limits: int
    red: int

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Summary:
        """Count."""
        every = list(rows)
        number = {outcome: sum(row["outcome"] == outcome for row in every) for outcome in OUTCOMES_IN_ORDER}
        return cls(
            len(every),
            number[SURVIVED],
            number[CLEAR_ERROR],
            number[REFUSED],
            number[LIMIT],
            sum(not row["green"] for row in every),
        )

    def sentence(self) -> str:
        """Return them in one sentence."""
        lost = "nothing lost" if not self.red else f"{self.red} red"
        return (
            f"{self.faults} faults: {self.survived} survived, {self.clear_errors} ended in a clear error, "
            f"{self.refused} refused before anything was sent or written, {self.limits} documented limits; {lost}."
        )


OUTCOMES_IN_ORDER: Final = (SURVIVED, CLEAR_ERROR, REFUSED, LIMIT)


def problems(results: Sequence[Result]) -> list[str]:
    """Return why the whole is not green; nothing when it is."""
    rows = [row for result in results for row in result.rows]
    found = [
        f"The run {result.part.name} ended with code {result.code}: {result.closing}"
        for result in results
        if result.code != 0
    ]
    found += [f"Red: {row['part']}, {row['fault']} ({row['test']})" for row in rows if not row["green"]]
    found += [f"The part {part!r} of the table is empty." for part in PARTS if not any(r["part"] == part for r in rows)]
    return found


# -- showing ---------------------------------------------------------------------------------------

#: 159 columns with the spaces between.
_WIDTHS: Final = {"part": 16, "fault": 44, "side": 10, "seen by the user": 53, "requests": 9, "outcome": 16, "": 5}


_TESTS_FOLDER: Final = re.compile(r"(?:/[^/\s'\"]+)*/pytest-of-[^/\s]+/pytest-[0-9]+(?:/popen-gw[0-9]+)?")


def plain(text: str) -> str:
    """Return text without colours, control characters and this machine's folders, on one line."""
    without = _TESTS_FOLDER.sub("/…", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text))
    for folder in (str(ROOT), tempfile.gettempdir()):
        without = without.replace(folder, "/…")
    return " ".join("".join(char if char.isprintable() else " " for char in without).split())


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of one row."""
    texts = [plain(str(row[name])) for name in ("part", "fault", "side", "seen", "requests", "outcome")]
    return [*texts, "green" if row["green"] else "RED"]


def in_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows part by part, in a part as the tests stand."""
    return sorted(
        rows, key=lambda row: (PARTS.index(row["part"]), row["test"].split("[")[0], row["fault"], row["side"])
    )


def terminal_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table for a terminal of 160 columns."""
    lines = [_line(list(_WIDTHS)), "─" * (sum(_WIDTHS.values()) + len(_WIDTHS) - 1)]
    return "\n".join(lines + [_line(cells(row)) for row in rows])


def _line(texts: Sequence[str]) -> str:
    pairs = zip(texts, _WIDTHS.values(), strict=True)
    return " ".join(_fitted(text, width) for text, width in pairs).rstrip()


def _fitted(text: str, width: int) -> str:
    return (text if len(text) <= width else text[: width - 1] + "…").ljust(width)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the same in Markdown, nothing shortened."""
    head = ["| part | fault | side | seen by the user | requests | outcome | |", "|---|---|---|---|---|---|---|"]
    return "\n".join(head + [f"| {' | '.join(_escaped(text) for text in cells(row))} |" for row in rows])


def _escaped(text: str) -> str:
    for char in ("\\", "|", "<", "*", "_", "`", "[", "]"):
        text = text.replace(char, f"\\{char}" if char != "<" else "&lt;")
    return text


def versions() -> str:
    """Return what this was run with."""
    names = ("apache-airflow", "airflow-provider-vidu", "aiohttp", "requests")
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in names)])


def document(results: Sequence[Result], seconds: float, when: datetime) -> str:
    """Return ``docs/faults.md``."""
    rows = in_order(row for result in results for row in result.rows)
    runs = [f"| {one.part.name} | {_escaped(one.closing)} | {one.seconds:.0f} s |" for one in results]
    return "\n".join(
        [
            INTRODUCTION,
            "",
            f"{when:%Y-%m-%d}, {versions()}, seed {SEED}, {seconds / 60:.1f} minutes.",
            "",
            f"**{Summary.of(rows).sentence()}**",
            "",
            "| run | its closing line | time |",
            "|---|---|---|",
            *runs,
            "",
            "## What cannot be survived",
            "",
            LIMITS,
            "",
            "## The table",
            "",
            markdown_table(rows),
            "",
        ]
    )


def summary_section(results: Sequence[Result], seconds: float, when: datetime) -> str:
    """Return the text between the marks of :data:`SUMMARY_PAGE`."""
    rows = [row for result in results for row in result.rows]
    lines = [
        "| part | faults | survived | clear error | refused | documented limit |",
        "|---|---|---|---|---|---|",
    ]
    for part in PARTS:
        one = Summary.of(row for row in rows if row["part"] == part)
        lines.append(f"| {part} | {one.faults} | {one.survived} | {one.clear_errors} | {one.refused} | {one.limits} |")
    said = f"{Summary.of(rows).sentence()} ({when:%Y-%m-%d}, {seconds / 60:.0f} minutes)"
    return "\n".join([said, "", *lines])


def between_marks(text: str, content: str) -> str:
    """Return ``text`` with ``content`` between the marks; ValueError when they are not there."""
    begin, end = (text.find(mark) for mark in MARKS)
    if not 0 <= begin < end:
        raise ValueError(f"the marks {MARKS[0]} … {MARKS[1]} are missing")
    return f"{text[: begin + len(MARKS[0])]}\n{content}\n{text[end:]}"


# -- the command -----------------------------------------------------------------------------------


def run_all(parts: Sequence[Part], folder: Path, total: float, known: Mapping[str, Result] = {}) -> list[Result]:
    """Run the parts one after the other, each within its limit and what is left of the whole.

    :param known: results of parts that need not run again, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end, results = time.monotonic() + total, []
    for part in parts:
        left = end - time.monotonic() - GRACE_SECONDS
        if part.name in known:
            results.append(known[part.name])
        elif left > 0:
            results.append(run_part(part, folder, min(part.limit, left)))
        else:
            results.append(Result(part, STOPPED, 0.0, "no time was left"))
    return results


def fingerprint(package: Path) -> str:
    """Return a digest of the provider's code: a result is worth nothing for any other."""
    digest = hashlib.sha256()
    for file in sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def remember(results: Iterable[Result], folder: Path, code: str) -> None:
    """Note the green parts beside their rows, for ``--resume``."""
    for result in results:
        if result.code == 0 and all(row["green"] for row in result.rows):
            note = {"code": code, "seconds": result.seconds, "closing": result.closing}
            (folder / f"{result.part.name}.json").write_text(json.dumps(note))


def remembered(parts: Iterable[Part], folder: Path, code: str) -> dict[str, Result]:
    """Return the parts that were green with exactly this code of the provider."""
    found = {}
    for part in parts:
        note = folder / f"{part.name}.json"
        said = json.loads(note.read_text()) if note.exists() else {}
        if said.get("code") == code:
            rows = read_rows(folder / f"{part.name}.jsonl")
            found[part.name] = Result(part, 0, said["seconds"], said["closing"], rows)
    return found


def report(results: Sequence[Result], seconds: float) -> list[str]:
    """Print table and summary; return the problems."""
    rows = in_order(row for result in results for row in result.rows)
    print(f"\n{terminal_table(rows)}\n")
    for result in results:
        print(f"{result.part.name:>10}: {result.closing}")
    print(f"\n{Summary.of(rows).sentence()} It took {seconds / 60:.1f} minutes.")
    print("What cannot be survived is in docs/faults.md.")
    found = problems(results)
    for problem in found:
        print(f"NOT GREEN: {problem}")
    return found


def write(results: Sequence[Result], seconds: float, root: Path) -> None:
    """Write ``docs/faults.md`` and its summary in :data:`SUMMARY_PAGE`."""
    now = datetime.now(UTC)
    (root / "docs").mkdir(exist_ok=True)
    (root / "docs" / "faults.md").write_text(document(results, seconds, now))
    page = root / SUMMARY_PAGE
    page.write_text(between_marks(page.read_text(), summary_section(results, seconds, now)))


def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = RUNS, root: Path = ROOT) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Run all tests of faults and print their table.")
    parser.add_argument("--only", action="append", choices=[part.name for part in parts], help="only this run")
    parser.add_argument(
        "--resume", action="store_true", help="keep the runs that were green with the provider's code as it is"
    )
    options = parser.parse_args(arguments)
    chosen = [part for part in parts if not options.only or part.name in options.only]
    folder, code = root / "build" / "faults", fingerprint(root / "airflow_provider_vidu")
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        results = run_all(chosen, folder, TOTAL_SECONDS, remembered(chosen, folder, code) if options.resume else {})
    except (KeyboardInterrupt, Interrupted):
        print("\nStopped, with everything that was started.")
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    remember(results, folder, code)
    seconds = sum(result.seconds for result in results)
    found = report(results, seconds)
    if len(chosen) == len(parts) and not found:
        # Only a complete and green run may speak for the project.
        write(results, seconds, root)
    return 1 if found else 0


def _interrupt(signum: int, frame: object) -> None:
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main())
