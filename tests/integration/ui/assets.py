"""Orders without a wait, and assets with an event trigger, in the tables of this Airflow (3.3 or newer)."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from airflow_provider_vidu.orders.order import OrderRecord
from airflow_provider_vidu.orders.records import STATE_KEY
from airflow_provider_vidu.tasks.callbacks.nudges import NUDGE_KEY
from airflow_provider_vidu.tasks.callbacks.tokens import CallbackAddress, new_address
from tests.integration.ui.conftest import RUN, Pages
from tests.integration.ui.test_callbacks import _stored

DAG = "unawaited"


class Order:
    """A task instance with the record of its order."""

    def __init__(self, pages: Pages, task: str, instance: UUID, address: CallbackAddress) -> None:
        self._pages = pages
        self.task = task
        self.instance = instance
        self.address = address

    def store(self, text: str, *, key: str = STATE_KEY) -> None:
        """Store a text as the task's state."""
        from airflow.state import TaskScope
        from airflow.state.metastore import MetastoreBackend

        with Session(self._pages.engine) as session, session.begin():
            MetastoreBackend().set(TaskScope(DAG, RUN, self.task, -1), key, text, session=session)

    def clear(self) -> None:
        """Discard the task's state, as a clear does on Airflow 3.4."""
        from airflow.state import TaskScope
        from airflow.state.metastore import MetastoreBackend

        with Session(self._pages.engine) as session, session.begin():
            MetastoreBackend().clear(TaskScope(DAG, RUN, self.task, -1), session=session)


def add_order(pages: Pages, *, state: str = "success", base: str = "https://h.example", **known: Any) -> Order:
    """Add a task that has ended, and the record of its order, as Airflow's API server stores it for a worker.

    :param state: of the task.
    :param base: the address of the callbacks.
    :param known: fields of the record.
    """
    task = f"t{secrets.token_hex(6)}"
    instance = pages.add(task, "911", dag=DAG, state=state)
    address = new_address(base, instance, nudges="vidu_default")
    record = OrderRecord(0, "m", 1.0, generation_id="911", callback=address.digest, nudges=address.nudges)
    order = Order(pages, task, instance, address)
    order.store(json.dumps(replace(record, **known).to_json()))
    return order


def add_asset(pages: Pages, trigger: Any, *, is_active: bool = True) -> int:
    """Add an asset with a watcher, as the DAG processor does; return its id.

    :param trigger: the event trigger.
    :param is_active: whether a DAG declares the asset.
    """
    from airflow.models.asset import AssetActive, AssetModel
    from airflow.models.trigger import Trigger
    from airflow.serialization.encoders import encode_trigger

    name = f"a{secrets.token_hex(6)}"
    encoded = encode_trigger(encode_trigger(trigger))  # twice, like Airflow: in the DAG, and from the stored DAG
    with Session(pages.engine) as session, session.begin():
        asset, row = AssetModel(name=name, uri=f"x://{name}"), Trigger(**encoded)
        row.encrypted_kwargs = _stored(encoded["kwargs"])  # the API server has another Fernet key than this process
        session.add_all([asset, row])
        session.flush()
        asset.add_trigger(row, "watcher")
        if is_active:
            session.add(AssetActive.for_asset(asset))
        return int(asset.id)


def rewrite_newest_trigger(pages: Pages, stored: str | dict[str, Any]) -> None:
    """Store other arguments of the trigger that was added last.

    :param stored: arguments, or what stands in their place.
    """
    from airflow.models.trigger import Trigger

    table = Trigger.__table__
    written = stored if isinstance(stored, str) else _stored(stored)
    with pages.engine.begin() as database:
        newest = database.execute(table.select().with_only_columns(table.c.id).order_by(table.c.id.desc())).scalar()
        database.execute(table.update().where(table.c.id == newest).values(kwargs=written))


def nudged_at(pages: Pages, asset_id: int) -> str | None:
    """Return the time of an asset's latest nudge, as the triggerer gets it from the API server."""
    from airflow.state import AssetScope
    from airflow.state.metastore import MetastoreBackend

    with Session(pages.engine) as session:
        stored = MetastoreBackend().get(AssetScope(asset_id=asset_id), NUDGE_KEY, session=session)
    return None if stored is None else str(json.loads(stored))


def forget_assets(pages: Pages) -> None:
    """Remove all assets and their triggers, so that the next test has none of them."""
    from airflow.models.asset import AssetActive, AssetModel, AssetWatcherModel
    from airflow.models.asset_state_store import AssetStateStoreModel

    with pages.engine.begin() as database:
        for model in (AssetStateStoreModel, AssetWatcherModel, AssetActive, AssetModel):
            database.execute(model.__table__.delete())
