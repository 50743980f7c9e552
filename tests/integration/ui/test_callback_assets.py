"""What callbacks of orders without a wait do to the tables of this Airflow, in a database of their own.

All that touches Airflow's internals is one module; these tests run it on every Airflow of the matrix that has states.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from airflow_provider_vidu.orders.records import STATE_KEY
from airflow_provider_vidu.ui.callbacks import airflow_assets
from tests.integration.ui.conftest import Pages
from tests.integration.ui.test_callback_tasks import pages
from tests.integration.ui.test_callbacks import _archive
from tests.versions import AIRFLOW

__all__ = ["pages"]  # a fixture

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="Older versions keep no states of tasks and assets."),
]

if AIRFLOW >= (3, 3):
    from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger
    from airflow_provider_vidu.ui.callbacks import routes
    from tests.integration.ui.assets import add_asset, add_order, forget_assets, nudged_at, rewrite_newest_trigger

ENDED = [("vidu_default", "911")]


@pytest.fixture(autouse=True)
def session(pages: Pages, monkeypatch) -> Iterator[None]:
    """Let the module use these tables, without assets of an earlier test."""
    from sqlalchemy.orm import sessionmaker

    monkeypatch.setattr(airflow_assets, "create_session", lambda: sessionmaker(pages.engine).begin())
    forget_assets(pages)
    yield
    forget_assets(pages)


def test_this_airflow_has_all_that_nudges_need():
    """On a supported Airflow with its own state store, nothing is missing."""
    assert airflow_assets.missing() is None


def test_another_state_store_is_left_alone(monkeypatch):
    """Orders are read in Airflow's own tables; with another backend, event triggers poll."""
    monkeypatch.setattr(airflow_assets, "get_state_backend", object)
    assert airflow_assets.missing() == "object keeps the states"

    def broken() -> None:
        raise ValueError("password=hunter2")

    monkeypatch.setattr(airflow_assets, "get_state_backend", broken)
    assert airflow_assets.missing() == "the state store cannot be used: ValueError"


def test_an_order_is_found_by_its_task_instance(pages):
    """With connection, digest and generation; an order whose create is not answered has no generation yet."""
    order, early = add_order(pages), add_order(pages, state="running", generation_id=None)
    found = airflow_assets.find_unawaited([order.instance, early.instance, uuid4()])
    assert found == {
        order.instance: [airflow_assets.UnawaitedOrder("vidu_default", order.address.digest, "911")],
        early.instance: [airflow_assets.UnawaitedOrder("vidu_default", early.address.digest, None)],
    }
    assert airflow_assets.find_unawaited([]) == {}


def test_the_token_of_an_earlier_try_finds_the_order(pages):
    """A retry has a new id; the order is that of the first try."""
    order, earlier = add_order(pages), uuid4()
    _archive(pages, order.instance, earlier)
    assert airflow_assets.find_unawaited([earlier])[earlier][0].callback == order.address.digest


def test_orders_without_a_callback_or_with_a_wait_are_not_found(pages):
    """A wait's callback before its deferral is refused as before, so that the service sends it again."""
    orders = [add_order(pages, nudges=""), add_order(pages, callback="", nudges="")]
    assert airflow_assets.find_unawaited([order.instance for order in orders]) == {}


@pytest.mark.parametrize("text", ["[", "[]", '"text"', "null", '{"order": 1, "generation_id": "a b"}', "[" * 100_000])
def test_a_record_that_cannot_be_read_is_passed_over(pages, text):
    """It costs that callback, not the others of the same query."""
    broken, good = add_order(pages), add_order(pages)
    broken.store(text)
    assert airflow_assets.find_unawaited([broken.instance, good.instance]).keys() == {good.instance}


def test_what_is_too_long_is_not_read(pages):
    """The author of a DAG may store megabytes, which anyone could then let the API server read and parse."""
    order = add_order(pages)
    record = {"order": 0, "callback": order.address.digest, "nudges": "c", "generation_id": "911"}
    assert airflow_assets.find_unawaited([order.instance])
    order.store(json.dumps({**record, "more": "x" * airflow_assets.MAX_RECORD_CHARS}))
    assert airflow_assets.find_unawaited([order.instance]) == {}
    add_asset(pages, ViduGenerationFinishedTrigger(generation_ids=["911", "x" * 1000]))
    ids = ["911", *(f"{number:01000}" for number in range(1_100))]
    add_asset(pages, ViduGenerationFinishedTrigger(generation_ids=ids))
    assert airflow_assets.nudge(ENDED) == 1


@pytest.mark.fault(
    "attacks",
    "a DAG has a thousand assets whose event triggers have arguments of a megabyte",
    outcome="survived",
    side="pages",
    seen="8 MiB of them are read at a callback, the shortest first",
)
def test_all_event_triggers_together_have_a_limit(pages, monkeypatch):
    """At each callback, the arguments of all were read and parsed: a gigabyte, for minutes."""
    long = [add_asset(pages, ViduGenerationFinishedTrigger(generation_ids=["911", "x" * 999])) for _ in range(5)]
    short = [add_asset(pages, ViduGenerationFinishedTrigger()) for _ in range(2)]
    monkeypatch.setattr(airflow_assets, "MAX_ALL_ARGUMENT_CHARS", 4_000)
    nudged = airflow_assets.nudge(ENDED)
    assert [nudged_at(pages, asset) is not None for asset in short] == [True, True]
    assert sum(nudged_at(pages, asset) is not None for asset in long) == nudged - 2 < len(long)


@pytest.mark.fault(
    "attacks",
    "a DAG's event triggers store a million empty lists for ids",
    outcome="survived",
    side="pages",
    seen="200,000 values and 2,000 triggers are read at a callback, the smallest first",
)
def test_the_values_of_all_event_triggers_have_a_limit(pages, monkeypatch):
    """A callback of eight triggers of a megabyte took the API server four seconds to parse them."""
    long = [add_asset(pages, ViduGenerationFinishedTrigger(generation_ids=["911", *"abcdefgh"])) for _ in range(5)]
    short = [add_asset(pages, ViduGenerationFinishedTrigger()) for _ in range(2)]
    monkeypatch.setattr(airflow_assets, "MAX_ALL_ARGUMENT_VALUES", 50)
    nudged = airflow_assets.nudge(ENDED)
    assert [nudged_at(pages, asset) is not None for asset in short] == [True, True]
    assert 0 < sum(nudged_at(pages, asset) is not None for asset in long) == nudged - 2 < len(long)
    monkeypatch.setattr(airflow_assets, "MAX_TRIGGERS", 1)
    assert airflow_assets.nudge(ENDED) == 1


def test_ids_that_are_no_text_are_passed_over(pages):
    """The author of a DAG may store anything in their place."""
    asset = add_asset(pages, ViduGenerationFinishedTrigger(generation_ids="911"))
    rewrite_newest_trigger(pages, {"vidu_conn_id": "vidu_default", "generation_ids": [[], {"911": 911}, 911, None]})
    assert airflow_assets.nudge(ENDED) == 0
    rewrite_newest_trigger(pages, {"vidu_conn_id": ["vidu_default"], "generation_ids": ["911"]})
    assert airflow_assets.nudge(ENDED) == 0
    assert nudged_at(pages, asset) is None


def test_a_state_of_another_name_is_not_read(pages):
    """Only this package's key holds records."""
    order = add_order(pages)
    order.clear()
    order.store(json.dumps({"order": 0, "callback": order.address.digest, "nudges": "c"}), key=f"{STATE_KEY}_x")
    assert airflow_assets.find_unawaited([order.instance]) == {}


def test_waits_and_orders_are_found_together(pages, monkeypatch):
    """As the route looks for them."""
    from airflow_provider_vidu.ui.callbacks import airflow_tasks

    monkeypatch.setattr(airflow_tasks, "create_session", airflow_assets.create_session)
    order = add_order(pages)
    assert routes._finder("/")([order.instance, uuid4()]).keys() == {order.instance}


def test_each_active_asset_that_watches_the_generation_is_nudged(pages):
    """The account's watchers, and those that name the generation; a second nudge has another time."""
    account = add_asset(pages, ViduGenerationFinishedTrigger(poll_interval=600))
    named = add_asset(pages, ViduGenerationFinishedTrigger(generation_ids=["7", "911"]))
    assert airflow_assets.nudge(ENDED) == 2
    first = nudged_at(pages, account)
    assert first is not None
    assert nudged_at(pages, named) is not None
    assert airflow_assets.nudge(ENDED) == 2
    assert nudged_at(pages, account) not in (None, first)


def test_a_generation_whose_id_is_unknown_nudges_all_of_the_connection(pages):
    """The create is not answered yet, so any named generation may be meant."""
    named = add_asset(pages, ViduGenerationFinishedTrigger(generation_ids="7"))
    assert airflow_assets.nudge([("vidu_default", None)]) == 1
    assert nudged_at(pages, named) is not None


def test_what_does_not_watch_the_generation_is_left_alone(pages):
    """Other connections, other generations, assets of no DAG, other triggers; then nothing is written at all."""

    class Other(ViduGenerationFinishedTrigger):
        def serialize(self):
            return "other.event_triggers.ViduGenerationFinishedTrigger", super().serialize()[1]

    assets = [
        add_asset(pages, ViduGenerationFinishedTrigger(vidu_conn_id="another")),
        add_asset(pages, ViduGenerationFinishedTrigger(generation_ids=["7", "9"])),
        add_asset(pages, ViduGenerationFinishedTrigger(), is_active=False),
        add_asset(pages, Other()),
    ]
    assert airflow_assets.nudge(ENDED) == 0
    assert [nudged_at(pages, asset) for asset in assets] == [None] * 4


def test_a_paused_dag_has_no_watcher(pages):
    """Airflow removes the watchers of a paused DAG; the asset stays, and nothing is written."""
    from airflow.models.asset import AssetWatcherModel

    asset = add_asset(pages, ViduGenerationFinishedTrigger())
    with pages.engine.begin() as database:
        database.execute(AssetWatcherModel.__table__.delete())
    assert airflow_assets.nudge(ENDED) == 0
    assert nudged_at(pages, asset) is None


def test_a_trigger_that_cannot_be_read_is_passed_over(pages):
    """A row of another Fernet key costs that asset's nudges, not the others'."""
    broken = add_asset(pages, ViduGenerationFinishedTrigger())
    rewrite_newest_trigger(pages, "gAAAAA-nonsense")
    good = add_asset(pages, ViduGenerationFinishedTrigger())
    assert airflow_assets.nudge(ENDED) == 1
    assert nudged_at(pages, broken) is None
    assert nudged_at(pages, good) is not None


def test_a_retried_task_keeps_its_order(pages):
    """The record belongs to the place of the task instance, not to a try."""
    order = add_order(pages, state="up_for_retry")
    assert order.instance in airflow_assets.find_unawaited([order.instance])
    order.clear()
    assert airflow_assets.find_unawaited([order.instance]) == {}
