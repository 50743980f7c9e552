"""Where an order's record lives between the tries of a task.

Airflow ≥ 3.3 has a state store per task instance that retries keep. Before that, a Variable named after
the task instance holds the record until the task has succeeded. Since 3.4 a clear discards the state; what
a clear must not forget is kept in the Variable there as well, while a create's outcome is unknown. The rest
of the package does not know the difference.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import Variable

from airflow_provider_vidu.submission import Record, RecordStore

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

STATE_KEY: Final = "vidu_generation"
VARIABLE_PREFIX: Final = "vidu_generation_"


def order_of(context: Context) -> int:
    """Return the number of the order that a try belongs to: a clear raises ``max_tries``, a retry does not."""
    ti: Any = context["ti"]
    return int(ti.max_tries)


def store_for(context: Context) -> RecordStore:
    """Return the best store that this Airflow has."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_4_PLUS

    ti: Any = context["ti"]
    accessor = context.get("task_state_store")
    if accessor is None:
        return VariableStore(ti)
    if not AIRFLOW_V_3_4_PLUS:
        return StateStore(accessor)
    # The very first try has nothing that a clear could have discarded: it need not ask for a Variable.
    return ClearedStateStore(accessor, VariableStore(ti), may_be_cleared=int(ti.try_number) > 1)


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


class ClearedStateStore(StateStore):
    """The state store where a clear discards it (Airflow ≥ 3.4).

    An intent that can be searched for is what the order after a clear must know of: it stands in the Variable as
    well, until its outcome is known.

    :param accessor: the task instance's state.
    :param variable: the task instance's Variable.
    :param may_be_cleared: whether there may have been a clear.
    """

    def __init__(self, accessor: Any, variable: VariableStore, *, may_be_cleared: bool) -> None:
        super().__init__(accessor)
        self._variable = variable
        self._may_be_cleared = may_be_cleared
        self._is_doubled = False

    def load(self) -> Record | None:
        """Return the record, or the intent that a clear has left, or None."""
        record = super().load()
        if self._may_be_cleared and (record is None or _can_be_lost(record)):
            kept = self._variable.load()
            self._is_doubled = kept is not None
            record = record or kept
        return record

    def save(self, record: Record) -> None:
        """Store the record; an intent in both places, the Variable first."""
        if _can_be_lost(record):
            self._variable.save(record)
            self._is_doubled = True
        super().save(record)
        if not _can_be_lost(record):
            self._forget_variable()

    def clear(self) -> None:
        """Forget the record."""
        super().clear()
        self._forget_variable()

    def _forget_variable(self) -> None:
        if self._is_doubled:
            self._variable.clear()
            self._is_doubled = False


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


def _can_be_lost(record: Record) -> bool:
    return record.marked and record.generation_id is None


def _identity(ti: Any) -> str:
    return "\n".join((ti.dag_id, ti.run_id, ti.task_id, str(getattr(ti, "map_index", -1))))
