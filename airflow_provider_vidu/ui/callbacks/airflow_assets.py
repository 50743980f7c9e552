"""All that touches Airflow's internals to nudge event triggers from the API server. Runs in threads.

Since 3.3 Airflow keeps states of tasks and of assets, which the API server can read and write (seen in 3.3.2 and
3.4.0b2). A task's state holds the record of its order, and with it the digest of the order's token. An asset's state is
shared with the trigger that watches for it. If a name is missing, or another backend keeps the states,
:func:`missing` says so, no order is found, and event triggers poll at their interval.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import and_, func, select
from sqlalchemy.orm import lazyload

from airflow_provider_vidu.common.parsing import bounded_json
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.order import OrderRecord
from airflow_provider_vidu.orders.records import STATE_KEY
from airflow_provider_vidu.tasks.callbacks.nudges import NUDGE_KEY
from airflow_provider_vidu.ui.callbacks.airflow_tasks import as_uuid, ids_in, is_short
from airflow_provider_vidu.ui.records.stored_arguments import arguments_of, value_count_of

_TRIGGER: Final = "airflow_provider_vidu.event_triggers.ViduGenerationFinishedTrigger"
MAX_RECORD_CHARS: Final = 64 * 1024
"""The longest record of an order that is read. The author of a DAG may have written any; ours take a few thousand."""
MAX_RECORD_VALUES: Final = 2_000
"""The same for its JSON values: hundreds of records of empty lists took five seconds of each look-up."""
MAX_ARGUMENT_CHARS: Final = 1024 * 1024
"""The same for the arguments of an event trigger, which may name thousands of generations."""
MAX_ALL_ARGUMENT_CHARS: Final = 8 * 1024 * 1024
"""The same for all event triggers together: a DAG may have any number of assets."""
MAX_ALL_ARGUMENT_VALUES: Final = 200_000
"""The same for their JSON values, nearly all of them ids: 8 MiB of empty lists took each nudge four seconds."""
MAX_TRIGGERS: Final = 2_000
"""The most event triggers that are read: 8 MiB are 30,000 short ones."""
_missing: str | None = None

try:
    from airflow.models.asset import AssetModel, AssetWatcherModel
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.state import AssetScope, get_state_backend
    from airflow.state.metastore import MetastoreBackend
    from airflow.utils.session import create_session

    from airflow_provider_vidu.ui.callbacks.airflow_tasks import HAS_REGIONS

    if not HAS_REGIONS:
        from airflow.models.taskinstancehistory import TaskInstanceHistory
except ImportError as error:
    _missing = str(error)


@dataclass(frozen=True, slots=True)
class UnawaitedOrder:
    """An order whose task does not wait for it.

    :param conn_id: the connection that it was submitted with.
    :param callback: the digest of its token.
    :param generation_id: None while the create is not answered.
    """

    conn_id: str
    callback: str
    generation_id: str | None


def missing() -> str | None:
    """Return what this Airflow lacks to nudge event triggers from the API server; None if nothing."""
    if _missing is not None:
        return _missing
    try:
        backend = get_state_backend()
    except Exception as error:  # noqa: BLE001 - a backend of the user's that cannot be made
        return f"the state store cannot be used: {type(error).__name__}"
    return None if isinstance(backend, MetastoreBackend) else f"{type(backend).__name__} keeps the states"


def find_unawaited(instances: Collection[UUID]) -> dict[UUID, list[UnawaitedOrder]]:
    """Return the orders of task instances that have a callback and no wait, by the ids that were asked for.

    :param instances: ids of task instances, current or of earlier tries.
    """
    found: dict[UUID, list[UnawaitedOrder]] = {}
    if not instances:
        return found
    with create_session() as session:
        rows = list(session.execute(_records(TaskInstance, TaskInstance.id, instances)))
        # Since 3.4, the table of the current tries holds the earlier ones, too.
        if not HAS_REGIONS and (others := set(instances) - {as_uuid(row.asked) for row in rows}):
            rows += session.execute(_records(TaskInstanceHistory, TaskInstanceHistory.task_instance_id, others))
    for row in rows:
        if (order := _order(row.value)) is not None:
            found.setdefault(as_uuid(row.asked), []).append(order)
    return found


def nudge(ended: Collection[tuple[str, str | None]]) -> int:
    """Write the time beside each active asset whose event trigger watches one of these generations.

    Nothing is written if no trigger does.

    :param ended: connections and generations; None for a generation whose id is unknown.
    :return: how many assets there are.
    """
    with create_session() as session:
        watched = _watching(session.execute(_watchers()), ended)
        for asset_id in sorted(watched):  # in one order everywhere: two servers that write block each other no longer
            at = json.dumps(datetime.now(UTC).isoformat())
            get_state_backend().set(AssetScope(asset_id=asset_id), NUDGE_KEY, at, session=session)
    return len(watched)


def _records(tries: Any, own: Any, instances: Collection[UUID]) -> Any:
    """Select the records of the orders at the places of task instances, or of earlier tries."""
    place = ("region_id", "region_index") if HAS_REGIONS else ("map_index",)
    names = ("dag_id", "run_id", "task_id", *place)
    is_same = and_(*(getattr(tries, name) == getattr(TaskStateStoreModel, name) for name in names))
    return (
        select(own.label("asked"), TaskStateStoreModel.value)
        .select_from(tries)
        .join(TaskStateStoreModel, is_same)
        .where(
            ids_in(own, instances),
            TaskStateStoreModel.key == STATE_KEY,
            func.length(TaskStateStoreModel.value) <= MAX_RECORD_CHARS,
        )
        .execution_options(include_all_attempts=True)  # 3.4 hides earlier tries otherwise; 3.3 ignores it
    )


def _order(stored: str) -> UnawaitedOrder | None:
    try:
        record = OrderRecord.from_json(bounded_json(stored, MAX_RECORD_VALUES))
    except (ValueError, RecursionError, ViduConfigError):  # not written by this package
        return None
    if record is None or not record.callback or not record.nudges:
        return None
    return UnawaitedOrder(record.nudges, record.callback, record.generation_id)


def _watchers() -> Any:
    """Select the event triggers of active assets, the shortest first, as far as they are not too long together."""
    size = func.length(Trigger.encrypted_kwargs)
    sized = (
        select(AssetWatcherModel.asset_id, Trigger.id, func.sum(size).over(order_by=(size, Trigger.id)).label("total"))
        .join(Trigger, Trigger.id == AssetWatcherModel.trigger_id)
        .join(AssetModel, AssetModel.id == AssetWatcherModel.asset_id)
        .where(Trigger.classpath == _TRIGGER, AssetModel.active.has(), is_short(MAX_ARGUMENT_CHARS))
    ).subquery()
    return (
        select(sized.c.asset_id, Trigger)
        .options(lazyload("*"))
        .join(sized, sized.c.id == Trigger.id)
        .where(sized.c.total <= MAX_ALL_ARGUMENT_CHARS)
        .order_by(sized.c.total)
        .limit(MAX_TRIGGERS)
    )


def _watching(rows: Iterable[Any], ended: Collection[tuple[str, str | None]]) -> set[int]:
    """Return the assets whose event triggers watch one of these generations, as far as not too many values are read."""
    watching, left = set[int](), MAX_ALL_ARGUMENT_VALUES
    for row in rows:
        if (left := left - value_count_of(row.Trigger)) < 0:
            break
        if _watches(row.Trigger, ended):
            watching.add(row.asset_id)
    return watching


def _watches(trigger: Any, ended: Collection[tuple[str, str | None]]) -> bool:
    arguments: Mapping[str, Any] = arguments_of(trigger, MAX_ALL_ARGUMENT_VALUES) or {}
    named = arguments.get("generation_ids")
    own = {generation_id for conn_id, generation_id in ended if conn_id == arguments.get("vidu_conn_id")}
    if not own or None in own or not isinstance(named, list):
        return bool(own)
    return any(isinstance(each, str) and each in own for each in named)
