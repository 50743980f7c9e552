"""A share of the test files for each process: what a process does not run, it neither imports nor collects.

With pytest-xdist's other modes each process collects all tests: some ten seconds of a core in each, and twice that in a
fresh clone, where every process compiles every test module. This is a pytest plugin for ``--dist each`` with
``--share-files``, or with ``--share-airflows`` for the tests that wait for whole Airflows.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

TESTS: Final = Path(__file__).parent
PARTS: Final = ("docs", "faults", "integration", "sandbox", "unit")
"""The folders that ``--share-files`` shares out; other tests run in one process each."""
AIRFLOWS: Final = ("browser", "e2e")
"""The folders that ``--share-airflows`` shares out."""
TOGETHER: Final = ("integration/ui", "browser", "e2e")
"""Folders whose files share something that takes seconds to start."""
ALONE: Final = (
    "browser/test_ui.py", "e2e/test_callbacks.py", "e2e/test_dag_test.py", "e2e/test_full_account_by_hand.py",
)  # fmt: skip
"""Files in these folders that start an Airflow of their own."""

SECONDS: Final[dict[str, float]] = {
    "integration/batches/test_batch.py": 35,
    "integration/api/test_shared_polls.py": 30,
    "integration/operators/test_generate.py": 20,
    "faults/test_transfer.py": 19,
    "faults/test_polling_together.py": 17,
    "integration/batches/test_several_tasks.py": 17,
    "integration/api/clients/test_tls_without_data.py": 15,
    "integration/operators/test_generate_reuse.py": 15,
    "faults/test_feed.py": 12,
    "integration/stores/test_storage_s3.py": 11,
    "integration/test_event_triggers.py": 11,
    "faults/test_polling_transport.py": 10,
    "integration/api/clients/test_async_connection.py": 9,
    "integration/api/clients/test_sync_connection.py": 9,
    "integration/batches/test_s3_roles.py": 9,
    "unit/test_architecture.py": 9,
    "faults/test_transfer_s3.py": 8,
    "integration/batches/test_crashes.py": 8,
    "integration/batches/test_money.py": 8,
    "integration/tasks/test_slots.py": 8,
    "unit/common/test_redaction.py": 8,
    "faults/test_polling_throttled.py": 7,
    "integration/api/test_damaged_answers.py": 7,
    "integration/operators/test_generate_slots.py": 7,
    "integration/operators/test_generate_storing.py": 7,
    "integration/operators/test_log.py": 7,
    "unit/test_matrix.py": 7,
    "integration/api/test_odd_answers.py": 6,
    "integration/test_hooks.py": 6,
    "integration/test_sensors.py": 6,
    "integration/test_triggers.py": 6,
    "faults/test_hostile_answers.py": 5,
    "integration/batches/test_equal_orders.py": 5,
    "faults/test_creates_gate.py": 4,
    "faults/test_polling_answers.py": 4,
    "integration/api/clients/test_async_client.py": 4,
    "integration/batches/test_s3.py": 4,
    "integration/batches/test_vanished.py": 4,
    "integration/network/test_proxies.py": 4,
    "integration/tasks/test_slots_odd.py": 4,
    "sandbox/test_callbacks.py": 4,
    "unit/batches/test_forged_state.py": 4,
    "docs/test_examples.py": 3,
    "faults/test_callbacks.py": 3,
    "faults/test_hostile_input.py": 3,
    "faults/test_polling_statuses.py": 3,
    "integration/operators/test_generate_late_prices.py": 3,
    "integration/operators/test_generate_limits.py": 3,
    "integration/orders/test_submission.py": 3,
    "unit/polling/test_admission.py": 3,
    "unit/ui/batches/test_journals.py": 3,
    "e2e": 250,
    "browser/test_ui.py": 120,
    "browser": 100,
    "e2e/test_callbacks.py": 80,
    "e2e/test_full_account_by_hand.py": 60,
    "e2e/test_dag_test.py": 50,
}
"""How long the slowest take (``--durations``); where this is out of date, the run takes some seconds more."""
PROCESSES: Final = 6
"""How many processes a plain ``pytest`` starts, as ``make test-fast`` does; ``-n 0`` runs all tests in one."""
USUAL_SECONDS: Final = 0.6
WITH_PROCESSES: Final[dict[str, float]] = {"integration/ui": 60}
"""The same, of those that also run tests marked ``processes`` where these are not deselected."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--share-files`` and ``--share-airflows``."""
    parser.addoption("--share-files", action="store_true", help="each process runs its share (with --dist each)")
    parser.addoption("--share-airflows", action="store_true", help="the same, for the tests that start an Airflow")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the files out when `pytest` is asked for nothing in particular: one process takes many minutes."""
    option = config.option
    if hasattr(config, "workerinput"):
        option.share_files = config.workerinput["share_files"]  # its command line names no processes, so it starts none
        return
    is_plain = config.args_source is config.ArgsSource.TESTPATHS and f"-m={option.markexpr}" in config.getini("addopts")
    if is_plain and not (option.collectonly or option.usepdb) and getattr(option, "numprocesses", 0) is None:
        option.numprocesses, option.dist, option.share_files, option.maxworkerrestart = PROCESSES, "each", True, "0"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Say to a process whether it runs a share: it reads the command line, which may not say so."""
    node.workerinput["share_files"] = node.config.option.share_files


def units(parts: tuple[str, ...] = PARTS, asked: tuple[str, ...] = ("",)) -> dict[str, list[str]]:
    """Return what a process takes on as a whole: a file, or the files of a folder of :data:`TOGETHER`.

    :param parts: the folders that are shared out.
    :param asked: the files and folders that run, by their names beneath ``tests``.
    """
    found: dict[str, list[str]] = {}
    beside = TESTS.glob("test_*.py") if parts == PARTS else ()
    files = [*beside, *(path for part in parts for path in (TESTS / part).rglob("test_*.py"))]
    names = sorted(path.relative_to(TESTS).as_posix() for path in files)
    for name in (name for name in names if any(one in ("", name) or name.startswith(f"{one}/") for one in asked)):
        folder = next((folder for folder in TOGETHER if name.startswith(f"{folder}/")), name)
        found.setdefault(name if name in ALONE else folder, []).append(name)
    return found


@functools.cache
def shares(
    count: int, *, with_processes: bool, parts: tuple[str, ...] = PARTS, asked: tuple[str, ...] = ("",)
) -> list[frozenset[str]]:
    """Return the files of each process, by their names beneath ``tests``: the slowest first, to whom has least.

    :param count: how many processes there are.
    :param with_processes: whether tests marked ``processes`` run.
    :param parts: the folders that are shared out.
    :param asked: the files and folders that run.
    """
    seconds = SECONDS | (WITH_PROCESSES if with_processes else {})
    found = units(parts, asked)
    loads, made = [0.0] * count, [set[str]() for _ in range(count)]
    for unit in sorted(found, key=lambda unit: (-seconds.get(unit, USUAL_SECONDS), unit)):
        least = loads.index(min(loads))
        loads[least] += seconds.get(unit, USUAL_SECONDS)
        made[least].update(found[unit])
    return [frozenset(names) for names in made]


def _asked(config: pytest.Config) -> tuple[str, ...]:
    """Return the files and folders that the command line names, by their names beneath ``tests``."""
    paths = [(config.invocation_params.dir / name.partition("::")[0]).resolve() for name in config.args]
    if not all(path.is_relative_to(TESTS) for path in paths):
        return ("",)
    return tuple(path.relative_to(TESTS).as_posix().removeprefix(".") for path in paths)


def _parts(config: pytest.Config) -> tuple[str, ...]:
    """Return the folders that this run shares out."""
    if config.getoption("share_airflows"):
        return AIRFLOWS
    return PARTS if config.getoption("share_files") else ()


@functools.cache
def others(config: pytest.Config) -> frozenset[Path]:
    """Return the files that this process leaves to the others."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    parts = _parts(config)
    if worker is None or not parts:
        return frozenset()
    with_processes = "processes" not in config.getoption("markexpr")
    own = int(worker["workerid"].removeprefix("gw"))
    made = shares(worker["workercount"], with_processes=with_processes, parts=parts, asked=_asked(config))
    return frozenset(TESTS / name for number, names in enumerate(made) if number != own for name in names)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import the files of other processes, and with ``--share-airflows`` nothing but those folders.

    So the command line need not name these: the process that starts the others would import the folders' conftest.py,
    and what Airflow prints there would be the last line of the run.
    """
    is_beside = config.getoption("share_airflows") and collection_path.parent == TESTS
    is_left_out = is_beside and collection_path.name not in AIRFLOWS
    return True if is_left_out or collection_path in others(config) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other processes: pytest ignores no file that the command line names."""
    left_out = others(config)
    items[:] = [item for item in items if item.path not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Count the tests of all processes: pytest-xdist takes the number of the last one for the whole."""
    counter = _Counter(session)
    if _parts(session.config):
        session.config.pluginmanager.register(counter)
    result = yield
    counter.pytest_runtest_logstart()
    return result


class _Counter:
    """Corrects what the percentages and the exit status are taken from."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._tests = 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Add the tests of a process."""
        self._tests += len(ids)

    def pytest_runtest_logstart(self) -> None:
        """Correct the number."""
        self._session.testscollected = max(self._session.testscollected, self._tests)
