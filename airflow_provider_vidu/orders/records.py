"""Stores an order's record between the tries of a task.

Airflow ≥ 3.3 has a state store per task instance, which survives retries. Before that, a Variable named after the task
instance holds the record until the task has succeeded. Since 3.4 a clear by the API or the UI discards the state (one
by the command line does not), and ``[state_store] clear_on_success`` discards it with the success; facts that must
survive are stored in the Variable, too. The rest of the package does not depend on these differences.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from uuid import UUID

from airflow.providers.common.compat.sdk import Variable

from airflow_provider_vidu.common.parsing import TooManyValuesError, bounded_json
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import strict_int
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.links import is_task_instance
from airflow_provider_vidu.network.secrets_backends import is_there_after_all, kinds_of
from airflow_provider_vidu.orders.order import Order, OrderRecord

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

STATE_KEY: Final = "vidu_generation"
VARIABLE_PREFIX: Final = "vidu_generation_"
MOST_RECORD_VALUES: Final = 20_000
"""The most JSON values of a Variable with a record that are parsed; ours have about thirty."""
_NOTHING: Final = object()


def order_of(context: Context) -> Order:
    """Return which order a try belongs to, according to Airflow's counters."""
    from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

    ti: Any = context["ti"]
    task = getattr(ti, "task", None)
    run = context.get("dag_run")
    region = getattr(ti, "region_id", None)
    clears, started = getattr(run, "clear_number", None), getattr(run, "start_date", None)
    # Not every value is a counter: the context of a unit test may be a mock.
    return Order(
        number=strict_int(getattr(ti, "max_tries", None)) or 0,
        clears=strict_int(clears),
        counts_every_clear=get_base_airflow_version_tuple() >= (3, 2),
        try_number=strict_int(getattr(ti, "try_number", None)) or 1,
        retries=strict_int(getattr(task, "retries", None)),
        run_started=started.timestamp() if isinstance(started, datetime) else None,
        region=str(region) if isinstance(region, UUID) and iteration_of(context) is not None else "",
    )


def store_for(context: Context, *, keeps: bool = False) -> RecordStore:
    """Return the best store of this Airflow.

    :param keeps: whether the record must outlive the task's success, even if that takes a Variable.
    """
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_4_PLUS

    ti: Any = context["ti"]
    accessor = context.get("task_state_store")
    iteration = iteration_of(context)
    if accessor is None:
        return VariableStore(ti, iteration=iteration, keeps=keeps)
    if not AIRFLOW_V_3_4_PLUS and not keeps:
        return StateStore(accessor)
    variable = VariableStore(ti, iteration=iteration, keeps=keeps)
    return ClearedStateStore(accessor, variable, may_be_cleared=_may_be_cleared(ti, iteration))


def iteration_of(context: Context) -> int | None:
    """Return the iteration of the loop that the task is in (Airflow 3.4); None outside loops."""
    known: Mapping[str, Any] = context
    return strict_int(getattr(known.get("loop"), "index", None))


def owner_of(context: Mapping[str, Any]) -> str:
    """Return what identifies a task instance over all of its tries; empty outside of a task."""
    ti: Any = context.get("ti")
    if not is_task_instance(ti):
        return ""
    return owner_named(ti, iteration_of(cast("Context", context)))


def owner_named(ti: Any, iteration: int | None) -> str:
    """Return what identifies a task instance over all of its tries, as one name."""
    return "/".join(names_of(ti, iteration))


def names_of(ti: Any, iteration: int | None) -> list[str]:
    """Return the names that together identify a task instance over all of its tries.

    :param iteration: which iteration of a loop it is (:func:`iteration_of`); None outside loops.
    """
    names = [ti.dag_id, ti.run_id, ti.task_id, str(getattr(ti, "map_index", -1))]
    # Outside loops, the names are those of earlier versions.
    return names if iteration is None else [*names, f"iteration {iteration}"]


def _may_be_cleared(ti: Any, iteration: int | None) -> bool:
    """Whether there may have been a clear that discarded a state; if not, no Variable need be read.

    A first try has none to lose, except in a loop: a clear of an earlier iteration begins this one with a first try.
    """
    return int(ti.try_number) > 1 or bool(iteration)


def submitted_id(context: Context, log: Any, *, is_durable: bool) -> str | None:
    """Return the id that an earlier try of this order submitted; None if there is none, or it is not known.

    :raises ViduError: when that could not be looked up: there may be one, so the task must not end for good.
    """
    record = own_record(context, log, is_durable=is_durable)
    return None if record is None else record.generation_id


def own_record(context: Context, log: Any, *, is_durable: bool) -> OrderRecord | None:
    """Return the record of what an earlier try of this order has submitted, or may have; None if there is none.

    :raises ViduError: when that could not be looked up: there may be one, so the task must not end for good.
    """
    if not is_durable or not is_task_instance(context.get("ti")):
        return None
    try:
        record = store_for(context).load()
    except ViduConfigError as error:  # a record that was damaged; the caller is about to raise the error that matters
        log.warning("Could not look up the order: %s", error)
        return None
    except Exception as error:  # each store of Airflow has its own exceptions
        raise ViduError(f"The order of this task could not be looked up: {redacted(error)}") from error
    order = order_of(context)
    is_own = record is not None and record.order == order.number and not record.is_of_another_region(order)
    return record if is_own else None


class RecordStore(ABC):
    """Keeps one record per task instance across tries."""

    is_durable: ClassVar[bool] = True
    """Whether a saved record is available to a later try."""

    @abstractmethod
    def load(self) -> OrderRecord | None:
        """Return the record, or None."""

    @abstractmethod
    def save(self, record: OrderRecord) -> None:
        """Store the record durably before returning."""

    @abstractmethod
    def clear(self) -> None:
        """Forget the record."""

    def returned(self) -> None:
        """Record that a try returns its result to Airflow: a try after a success follows a clear."""
        if (record := self.load()) is not None:
            self.save(replace(record, returned=True))

    def finished(self) -> None:  # noqa: B027 - most stores keep the record
        """Handle the task's success, once Airflow has recorded it: by default the record is kept."""


class NullStore(RecordStore):
    """Keeps nothing (``durable=False``)."""

    is_durable: ClassVar[bool] = False

    def load(self) -> OrderRecord | None:
        """Return None."""
        return None

    def save(self, record: OrderRecord) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""


class StateStore(RecordStore):
    """The task instance's own state store (Airflow ≥ 3.3)."""

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def load(self) -> OrderRecord | None:
        """Return the record, or None.

        :raises ViduError: when there is one that cannot be read: another worker may be able to. ``[workers]
            state_store_backend`` leaves a reference in Airflow's database, and Airflow returns None for a reference to
            an object that is missing.
        """
        try:
            stored = self._accessor.get(STATE_KEY, _NOTHING)
            return None if stored is _NOTHING else _read(stored)
        except ViduConfigError as error:
            reason = error.reason
        except ValueError as error:  # of a back end: the object is not JSON, or the reference not its own
            reason = type(error).__name__
        raise ViduError(
            f"The record of this task's order, the state {STATE_KEY} of the task instance, cannot be read: {reason}. "
            "Nothing was submitted. All workers need the same [workers] state_store_backend and access to its storage. "
            "Restore the record, or delete that state (Airflow's REST API can) to submit a new generation."
        )

    def save(self, record: OrderRecord) -> None:
        """Store the record; the supervisor has confirmed it when this returns."""
        # A wait and its retries may outlast [state_store] default_retention_days.
        self._accessor.set(STATE_KEY, record.to_json(), retention=_never())

    def clear(self) -> None:
        """Forget the record."""
        self._accessor.delete(STATE_KEY)

    def returned(self) -> None:
        """Record that a try returns its result; from now on, the record may expire."""
        if (record := self.load()) is not None:
            self._accessor.set(STATE_KEY, replace(record, returned=True).to_json())


def _read(stored: object) -> OrderRecord:
    """Return a stored record.

    :raises ViduConfigError: when it is none: an order whose record is overlooked would be paid again.
    """
    if (record := OrderRecord.from_json(stored)) is None:
        raise ViduConfigError("its content is missing" if stored is None else "it is not the record of an order")
    return record


def _never() -> timedelta:
    """Return the retention of a state that does not expire."""
    try:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE
    except ImportError:  # no state store, except in tests
        return timedelta.max
    return NEVER_EXPIRE


class ClearedStateStore(StateStore):
    """The state store, if some clears (Airflow ≥ 3.4) or the task's success may discard it.

    The facts that the order after a clear needs are in the Variable, too, until the task returns its result: an intent
    of unknown outcome, and a generation that was paid for.

    :param may_be_cleared: whether there may have been a clear.
    """

    def __init__(self, accessor: Any, variable: VariableStore, *, may_be_cleared: bool) -> None:
        super().__init__(accessor)
        self._variable = variable
        self._may_be_cleared = may_be_cleared
        self._is_doubled = False

    def load(self) -> OrderRecord | None:
        """Return the record, or the part that a clear has left, or None."""
        record = super().load()
        if self._may_be_cleared and record is None:
            record = self._variable.load()
            self._is_doubled = record is not None
        return record

    def save(self, record: OrderRecord) -> None:
        """Store the record, in both places if a clear needs it: the safer one first."""
        if record.is_lost:
            self._variable.save(record)
        super().save(record)
        if record.generation_id is not None:
            self._variable.save(record)
        elif not record.is_lost and (self._may_be_cleared or self._is_doubled):
            self._variable.forget()
        self._is_doubled = record.is_lost or record.generation_id is not None

    def clear(self) -> None:
        """Forget the record."""
        super().clear()
        if self._may_be_cleared or self._is_doubled:
            self._variable.forget()

    def returned(self) -> None:
        """Record the result; the Variable is removed unless it must be kept, because a retry reads the state."""
        StateStore(self._accessor).returned()  # not this class's save: the Variable is not written again
        self._variable.returned()
        self._variable.finished()


class VariableStore(RecordStore):
    """A Variable named after the task instance (Airflow before 3.3, and beside a state that a clear discards).

    :param iteration: which iteration of a loop the task instance belongs to (Airflow 3.4). Not its region: a clear
        begins later iterations in a new one, and what an earlier try of the same iteration submitted must be found.
    :param keeps: whether it outlives the task's success.
    """

    def __init__(self, ti: Any, *, iteration: int | None = None, keeps: bool = False) -> None:
        identity = "\n".join(names_of(ti, iteration))
        self._key = VARIABLE_PREFIX + hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._keeps = keeps

    def load(self) -> OrderRecord | None:
        """Return the record, or None.

        :raises ViduConfigError: when the Variable was edited so that it cannot be read.
        """
        stored = stored_variable(self._key)
        try:
            return _read(bounded_json(stored, MOST_RECORD_VALUES)) if stored else None
        except TooManyValuesError:
            reason = f"it holds more than {MOST_RECORD_VALUES:,} JSON values"
        except (ValueError, RecursionError, ViduConfigError) as error:
            reason = error.reason if isinstance(error, ViduConfigError) else "it is not JSON"
        # Raised outside of the handler: an error of json holds the whole text.
        raise ViduConfigError(
            f"The Variable {self._key}, which holds the record of this task's order, cannot be read: {reason}. Nothing "
            "was submitted. Restore it, or delete it to submit a new generation."
        )

    def save(self, record: OrderRecord) -> None:
        """Store the record."""
        Variable.set(self._key, json.dumps(record.to_json()))

    def clear(self) -> None:
        """Forget the record."""
        Variable.delete(self._key)

    def forget(self) -> None:
        """Remove the Variable, if there is one, also if it cannot be read."""
        if stored_variable(self._key):
            self.clear()

    def returned(self) -> None:
        """Record that a try returns its result, if the record outlives the success, which removes it otherwise."""
        if self._keeps:
            super().returned()

    def finished(self) -> None:
        """Remove the Variable unless it must be kept: there could be thousands."""
        if not self._keeps:
            self.forget()


def stored_variable(key: str) -> str | None:
    """Return the text of a Variable; None if there is none.

    :raises ViduError: when Airflow could not look it up, which it reports as a missing one: an order whose record is
        overlooked would be paid again.
    """
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    default: dict[str, Any] = {"default" if AIRFLOW_V_3_0_PLUS else "default_var": None}
    stored: str | None = Variable.get(key, **default)
    if stored is not None:
        return stored
    try:
        is_hidden, why = is_there_after_all("variable", key), "a moment ago"
    except Exception as error:  # noqa: BLE001 - raised below, as our own
        is_hidden, why = True, kinds_of(error)
    if is_hidden and (stored := Variable.get(key, **default)) is None:
        raise ViduError(f"Airflow could not look the Variable {key} up ({why}), so nothing was submitted.")
    return stored
