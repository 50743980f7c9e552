"""Where the entries of budgets are kept, so that the tasks of a DAG see what the others have spent.

XComs would be natural, but Airflow deletes a task instance's XComs when its next try starts, so that what it has paid
would be invisible until the try publishes it again. Variables survive retries, clears and removed task instances:

* Airflow ≥ 3.3 lists the names of Variables to a worker, and on Airflow 2 a worker reads the database. There each
  generation has a Variable of its own (:class:`ListedLedger`): nothing that was written can be overlooked.
* Airflow 3.0 to 3.2 has no such list. There one Variable holds all entries of a period (:class:`SharedLedger`).
  Variables have no compare-and-set, so each writer looks again until its entry has stayed.
"""

from __future__ import annotations

import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from airflow.providers.common.compat.sdk import Variable

from airflow_provider_vidu.common.parsing import bounded_json
from airflow_provider_vidu.common.values import epoch, mapping
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.orders.records import MOST_RECORD_VALUES, stored_variable

MOST_FORGOTTEN: Final = 100
"""The most entries that one task removes."""
MOST_VALUES: Final = 5_000_000
"""The most JSON values of a period's Variable that are parsed; an entry has about ten."""
CONFIRMATIONS: Final = 2
MOST_LOOKS: Final = 50


class Ledger(ABC):
    """The entries of budgets, by their names (see :class:`.entries.Scope`)."""

    @abstractmethod
    def names(self, prefix: str) -> Iterable[str]:
        """Return the names of a period's entries."""

    @abstractmethod
    def add(self, prefix: str, name: str, facts: Mapping[str, Any]) -> None:
        """Store an entry durably before returning.

        :param name: of the entry, which begins with the prefix.
        :param facts: plain JSON about the generation, for people who look at it.
        """

    @abstractmethod
    def facts(self, prefix: str, name: str) -> Mapping[str, Any]:
        """Return the facts of an entry; empty if there is none, or it holds something else."""

    @abstractmethod
    def remove(self, prefix: str, name: str) -> None:
        """Remove an entry, if there is one: what it stands for was refunded."""

    def forget(self, prefix: str, before: float) -> None:  # noqa: B027 - not every ledger can list its old entries
        """Remove some of the entries whose names begin with a prefix, and whose creates are older than a time.

        :param before: epoch seconds. A backfill's runs have dates of the past, and may be spending at this moment.
        """


class ListedLedger(Ledger):
    """One Variable per entry."""

    def __init__(self, listed: Callable[[str], Iterable[str]]) -> None:
        self._listed = listed

    def names(self, prefix: str) -> Iterable[str]:
        """Return the names of a period's entries."""
        return self._listed(prefix)

    def add(self, prefix: str, name: str, facts: Mapping[str, Any]) -> None:
        """Store an entry durably before returning."""
        Variable.set(name, json.dumps(facts))

    def facts(self, prefix: str, name: str) -> Mapping[str, Any]:
        """Return the facts of an entry."""
        return _read(stored_variable(name))

    def remove(self, prefix: str, name: str) -> None:
        """Remove an entry, if there is one."""
        if name in set(self._listed(name)):
            Variable.delete(name)

    def forget(self, prefix: str, before: float) -> None:
        """Remove some of the old entries whose names begin with a prefix."""
        for name in list(self._listed(prefix))[:MOST_FORGOTTEN]:
            created_at = epoch(_read(stored_variable(name)).get("at")) or 0.0  # 0 for one of an earlier version
            if created_at < before:
                Variable.delete(name)


class SharedLedger(Ledger):
    """One Variable per period (Airflow 3.0 to 3.2)."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep

    def names(self, prefix: str) -> Iterable[str]:
        """Return the names of a period's entries."""
        return list(self._load(prefix))

    def add(self, prefix: str, name: str, facts: Mapping[str, Any]) -> None:
        """Store an entry, until it has stayed for a while: another task may have written at the same time."""
        self._settle(prefix, name, dict(facts))

    def facts(self, prefix: str, name: str) -> Mapping[str, Any]:
        """Return the facts of an entry."""
        return mapping(self._load(prefix).get(name))

    def remove(self, prefix: str, name: str) -> None:
        """Remove an entry, if there is one."""
        self._settle(prefix, name, None)

    def _settle(self, prefix: str, name: str, facts: dict[str, Any] | None) -> None:
        stayed = 0
        for _ in range(MOST_LOOKS):
            entries = self._load(prefix)
            if (name in entries) == (facts is not None):
                stayed += 1
                if stayed > CONFIRMATIONS:
                    return
            else:
                stayed = 0
                kept = {key: value for key, value in entries.items() if key != name}
                Variable.set(prefix.rstrip("_"), json.dumps(kept if facts is None else {**kept, name: facts}))
            self._sleep(random.uniform(0.02, 0.2))  # noqa: S311 - to part two writers, not a secret
        raise ViduError(f"Other tasks write to the budget's Variable all the time; {MOST_LOOKS} attempts were lost.")

    @staticmethod
    def _load(prefix: str) -> dict[str, Any]:
        key = prefix.rstrip("_")
        stored = stored_variable(key)
        try:
            read = bounded_json(stored, MOST_VALUES) if stored else {}
        except (ValueError, RecursionError):  # json's error holds the whole text, so ours is raised outside of it
            read = None
        if isinstance(read, dict):
            return read
        raise ViduError(
            f"The Variable {key} holds what was spent within a budget, and it is not a JSON object, or holds more than "
            f"{MOST_VALUES:,} values. Restore it, or delete it to count from zero."
        )


def _read(stored: str | None) -> Mapping[str, Any]:
    """Return the facts in a Variable; empty for one that holds something else."""
    with suppress(ValueError, RecursionError):
        return mapping(bounded_json(stored or "{}", MOST_RECORD_VALUES))
    return {}


def ledger() -> Ledger:
    """Return the best ledger of this Airflow."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if not AIRFLOW_V_3_0_PLUS:
        return ListedLedger(_in_database)
    if hasattr(Variable, "keys"):
        return ListedLedger(lambda prefix: Variable.keys(prefix=prefix))
    return SharedLedger()


def _in_database(prefix: str) -> list[str]:
    """Return the names of Variables (Airflow 2, whose workers read the database themselves)."""
    from airflow.models.variable import Variable as Model
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(Model.key).filter(Model.key.startswith(prefix, autoescape=True)).all()
    return [row[0] for row in rows]
