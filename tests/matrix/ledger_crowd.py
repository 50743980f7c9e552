"""Fifty processes that submit at the same moment within one budget, on Airflow 2's own database; every fifth one dies.

Each child is what a worker does about a budget: it checks, "creates" (a file in the folder is what the service has been
paid), and enters the price. A child may die between any two of these steps; its retry then enters what was paid.

As a program it takes a folder, and prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from airflow import settings

from airflow_provider_vidu.exceptions import ViduBudgetError
from airflow_provider_vidu.orders.money.budget import ViduBudget, check_budget
from airflow_provider_vidu.orders.money.entries import Scope
from airflow_provider_vidu.orders.money.ledger import ledger

CHILDREN = 50
PRICE = 10
BUDGET = ViduBudget(credits=100)
SCOPE = Scope("run", "crowd", "run", None)
STEPS = ("start", "checked", "paid", "entered")


def spent() -> list[float]:
    """Return the prices that the ledger holds."""
    return SCOPE.prices(ledger().names(SCOPE.prefix))


def enter(name: str) -> None:
    """Enter what a child has paid."""
    ledger().add(SCOPE.prefix, SCOPE.entry(name, PRICE), {"generation_id": name})


def submit(folder: Path, name: str, dies_after: str | None) -> None:
    """Do what a worker does, and die at the given step."""

    def step(done: str) -> None:
        if done == dies_after:
            os._exit(9)

    step("start")
    check_budget(BUDGET, spent())
    step("checked")
    (folder / name).write_text(str(PRICE))
    step("paid")
    enter(name)
    step("entered")


def at_once(folder: Path, wave: int) -> None:
    """Let all children of a wave begin together; wait for them."""
    gate, opened = os.pipe()
    children = []
    for number in range(CHILDREN):
        dies_after = STEPS[number // 5 % len(STEPS)] if number % 5 == 0 else None
        if (pid := os.fork()) == 0:
            os.close(opened)
            os.read(gate, 1)  # until the parent closes its end
            _child(lambda name=f"{wave}-{number}", dies=dies_after: submit(folder, name, dies))
        children.append(pid)
    os.close(gate)
    os.close(opened)
    for pid in children:
        os.waitpid(pid, 0)


def _child(work: Callable[[], None]) -> None:
    settings.engine.dispose()
    try:
        work()
    except ViduBudgetError:
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - a forked child must not return into the parent's code
        print(type(error).__name__, error, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main(folder: Path) -> None:
    """Run two waves; between them the killed ones are retried."""
    spent()  # once, so that not each child imports what it takes
    settings.engine.dispose()
    at_once(folder, 1)
    paid = sorted(file.name for file in folder.iterdir())
    entered = len(spent())
    for name in paid:  # each retry enters what its record holds; for most, it stands there already
        enter(name)
    known = sum(spent())
    at_once(folder, 2)
    print(json.dumps({"paid": len(paid), "entered": entered, "known": known, "second": len(list(folder.glob("2-*")))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
