"""Many worker processes that submit at the same moment within one budget; some are killed, at any step of a create.

Each child is a worker: it runs the generate operator against a real service, over and over with the next task instance,
until the budget refuses it. Variables and state stores are files, so that the children share them as Airflow's workers
share the database: what one has written, the next one reads.

As a program it takes a folder, the number of children, and how many task instances each may run; it prints one JSON
object.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.exceptions import ViduBudgetError
from airflow_provider_vidu.operators import ViduBudget
from airflow_provider_vidu.orders import lost_order, records
from airflow_provider_vidu.orders.money import ledger, spending
from airflow_provider_vidu.orders.records import StateStore
from tests.integration.operators.test_generate_spending import Spender

PRICE = 10
BUDGET = ViduBudget(credits=50)
STEPS = 15
"""How many steps a create has at most: writes and reads of Variables, states and XComs, before and after the send."""
KILLED_EVERY = 3
SPREAD = 4
"""Has no factor in common with the steps, so that a few kills are at steps far apart, and many at each step."""


class Files:
    """Named values, each in a file that is replaced at once, as a row of a database is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        path = self._folder / key
        return path.read_text() if path.exists() else default

    def set(self, key: str, value: str) -> None:
        """Store a value."""
        new = self._folder / f".{key}.{os.getpid()}"
        new.write_text(value)
        new.replace(self._folder / key)

    def delete(self, key: str) -> None:
        """Remove a value."""
        (self._folder / key).unlink(missing_ok=True)

    def keys(self, prefix: str) -> list[str]:
        """Return the names that begin with a prefix."""
        return [name for name in os.listdir(self._folder) if name.startswith(prefix)]  # noqa: PTH208 - names only


class State:
    """A task instance's state store, which its next try finds in another process."""

    def __init__(self, files: Files, index: int) -> None:
        self._files, self._name = files, f"state-{index}"

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        stored = self._files.get(self._name)
        return default if stored is None else json.loads(stored)[key]

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Store a value."""
        self._files.set(self._name, json.dumps({key: value}))

    def delete(self, key: str) -> None:
        """Remove the value."""
        self._files.delete(self._name)


class Worker:
    """One child: runs task instances, notes when it checks the budget and enters a price, and may be killed.

    :param folder: that all children share.
    :param name: of its notes.
    :param dies_at: returns the step at which the try of a task instance is killed; 0 for none.
    """

    def __init__(self, folder: Path, name: str, dies_at: Callable[[int], int]) -> None:
        self._variables = Files(folder / "variables")
        self._states = Files(folder / "states")
        self._notes = (folder / "notes" / name).open("a", buffering=1)
        self._dies_at = dies_at
        self._index = self._step = 0
        for module in (records, ledger):
            module.Variable = self._variables
        spending.ledger = lambda: ledger.ListedLedger(self._variables.keys)
        lost_order.SETTLE_SECONDS = 0.0
        for owner, method in ((StateStore, "save"), (Files, "keys"), (Files, "set"), (SyncClient, "submit")):
            self._stepwise(owner, method)
        self._noted(spending.Spending, "checked_left", before="checks")
        self._noted(ledger.ListedLedger, "add", after="entered")

    def run(self, index: int) -> bool:
        """Run a try of a task instance; return whether it has submitted, or has picked up what was submitted."""
        self._index, self._step = index, 0
        task = Spender(index, prompt=f"film {index}", budget=BUDGET)
        task.store = State(self._states, index)  # type: ignore[assignment]
        push = task.push
        task.push = lambda key, value: (self._may_die(), push(key, value))[-1]  # type: ignore[method-assign]
        try:
            task.start()
        except TaskDeferred:
            self.note("submitted")
            return True
        except ViduBudgetError:
            self.note("refused")
            return False
        raise AssertionError("it neither waits nor fails")

    def note(self, what: str) -> None:
        """Note something, with the time of a clock that all processes share."""
        self._notes.write(json.dumps({"task": self._index, "at": time.monotonic(), "what": what}) + "\n")

    def _may_die(self) -> None:
        self._step += 1
        if self._step == self._dies_at(self._index):
            self.note("killed")
            os.kill(os.getpid(), signal.SIGKILL)

    def _stepwise(self, owner: type, method: str) -> None:
        original = getattr(owner, method)

        def step(*args: Any, **kwargs: Any) -> Any:
            self._may_die()
            found = original(*args, **kwargs)
            if owner is SyncClient:
                self._may_die()
            return found

        setattr(owner, method, step)

    def _noted(self, owner: type, method: str, *, before: str = "", after: str = "") -> None:
        original = getattr(owner, method)

        def noting(*args: Any, **kwargs: Any) -> Any:
            if before:
                self.note(before)
            found = original(*args, **kwargs)
            if after:
                self.note(after)
            return found

        setattr(owner, method, noting)


def at_once(folder: Path, wave: str, orders: Iterable[list[int]], dies_at: Callable[[int], int]) -> int:
    """Let one child per list of task instances begin, all together; return how many were killed."""
    gate, opened = os.pipe()
    children = []
    for number, indexes in enumerate(orders):
        if (pid := os.fork()) == 0:
            os.close(opened)
            os.read(gate, 1)  # until the parent closes its end
            _be_a_worker(folder, f"{wave}-{number}", indexes, dies_at)
        children.append(pid)
    os.close(gate)
    os.close(opened)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert set(codes) <= {0, -signal.SIGKILL}, codes
    return codes.count(-signal.SIGKILL)


def _be_a_worker(folder: Path, name: str, indexes: list[int], dies_at: Callable[[int], int]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        worker = Worker(folder, name, dies_at)
        for index in indexes:
            if not worker.run(index):
                break
    except BaseException as error:  # noqa: BLE001 - a forked child must not return into the parent's code
        print(type(error).__name__, error, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def notes(folder: Path) -> list[dict[str, Any]]:
    """Return what all children have noted, in the order of time."""
    found = [json.loads(line) for file in (folder / "notes").iterdir() for line in file.read_text().splitlines()]
    return sorted(found, key=lambda note: note["at"])


def main(folder: Path, children: int, rounds: int) -> None:
    """Run a wave in which workers are killed, the retries of their tasks, and a wave of new tasks."""
    (folder / "notes").mkdir()
    first = [[number + turn * children for turn in range(rounds)] for number in range(children)]

    def dies_at(index: int) -> int:
        return 1 + SPREAD * (index // KILLED_EVERY) % STEPS if index % KILLED_EVERY == 0 else 0

    killed = at_once(folder, "first", first, dies_at)
    seen = notes(folder)
    at_once(folder, "retry", [[note["task"]] for note in seen if note["what"] == "killed"], lambda _: 0)
    retried = notes(folder)[len(seen) :]
    new = [[children * rounds + number] for number in range(children)]
    at_once(folder, "second", new, lambda _: 0)
    second = notes(folder)[len(seen) + len(retried) :]
    entries = Files(folder / "variables").keys("vidu_spent_")
    print(json.dumps({"killed": killed, "first": seen, "retried": retried, "second": second, "entries": entries}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
