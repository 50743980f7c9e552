"""Where an order's record lives between the tries of a task.

Airflow ≥ 3.3 has a state store per task instance that retries (and clears) keep. Before that, a
Variable named after the task instance holds the record until the task has succeeded. The rest of
the package does not know the difference.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import Variable

from airflow_provider_vidu.submission import Order, Record, RecordStore

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

STATE_KEY: Final = "vidu_generation"
VARIABLE_PREFIX: Final = "vidu_generation_"


def order_of(context: Context) -> Order:
    """Return the order that a try belongs to.

    A clear raises the task instance's ``max_tries``; a retry does not. The marker names the task
    instance and the order, and tells nobody outside what they are called.
    """
    ti: Any = context["ti"]
    retries = int(getattr(getattr(ti, "task", None), "retries", 0) or 0)
    number = int(ti.max_tries)
    digest = hashlib.sha256(f"{_identity(ti)}\n{number}".encode()).hexdigest()[:32]
    first_try = max(number - retries + 1, 1)
    return Order(number=number, marker=f"airflow:{digest}", is_retry=int(ti.try_number) > first_try)


def store_for(context: Context) -> RecordStore:
    """Return the best store that this Airflow has."""
    accessor = context.get("task_state_store")
    return StateStore(accessor) if accessor is not None else VariableStore(context["ti"])


class StateStore:
    """The task instance's own state store (Airflow ≥ 3.3)."""

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def load(self) -> Record | None:
        """Return the record, or None."""
        return Record.from_json(self._accessor.get(STATE_KEY))

    def save(self, record: Record) -> None:
        """Store the record; the supervisor has confirmed it when this returns."""
        self._accessor.set(STATE_KEY, record.to_json())

    def clear(self) -> None:
        """Forget the record."""
        self._accessor.delete(STATE_KEY)

    def finished(self) -> None:
        """Keep the record: a worker that dies before Airflow knows of the success must find it."""


class VariableStore:
    """A Variable named after the task instance (Airflow before 3.3)."""

    def __init__(self, ti: Any) -> None:
        self._key = VARIABLE_PREFIX + hashlib.sha256(_identity(ti).encode()).hexdigest()[:32]

    def load(self) -> Record | None:
        """Return the record, or None."""
        from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

        default: dict[str, Any] = {"default" if AIRFLOW_V_3_0_PLUS else "default_var": None}
        stored = Variable.get(self._key, **default)
        return Record.from_json(json.loads(stored)) if stored else None

    def save(self, record: Record) -> None:
        """Store the record."""
        Variable.set(self._key, json.dumps(record.to_json()))

    def clear(self) -> None:
        """Forget the record."""
        Variable.delete(self._key)

    def finished(self) -> None:
        """Remove the Variable, if there is one: thousands of them would be a nuisance."""
        if self.load() is not None:
            self.clear()


def _identity(ti: Any) -> str:
    return "\n".join((ti.dag_id, ti.run_id, ti.task_id, str(getattr(ti, "map_index", -1))))
