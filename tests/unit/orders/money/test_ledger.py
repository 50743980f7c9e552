"""The entries of budgets, kept in Variables that are listed, or in one that all tasks write."""

from __future__ import annotations

import json
import threading

import pytest

from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.orders.money import ledger
from airflow_provider_vidu.orders.money.ledger import ListedLedger, SharedLedger

PREFIX = "vidu_spent_d_202601_r_"


def test_entries_are_listed_by_their_names(variables):
    """Writing one again changes nothing; removing one that is gone does neither."""
    entries = ListedLedger(variables.keys)
    for name in ("a_1", "a_1", "b_2"):
        entries.add(PREFIX, PREFIX + name, {"credits": 1})
    entries.add("vidu_spent_other_", "vidu_spent_other_c_3", {})
    assert sorted(entries.names(PREFIX)) == [f"{PREFIX}a_1", f"{PREFIX}b_2"]
    for _ in range(2):
        entries.remove(PREFIX, f"{PREFIX}a_1")
    assert list(entries.names(PREFIX)) == [f"{PREFIX}b_2"]


@pytest.mark.parametrize("kind", ["listed", "shared"])
def test_the_facts_of_an_entry_are_read(variables, kind):
    """An entry that is gone, or that someone has edited, has none."""
    entries = ListedLedger(variables.keys) if kind == "listed" else SharedLedger(lambda _: None)
    entries.add(PREFIX, f"{PREFIX}a_open", {"generation_id": "g"})
    assert entries.facts(PREFIX, f"{PREFIX}a_open") == {"generation_id": "g"}
    assert entries.facts(PREFIX, f"{PREFIX}b_open") == {}
    if kind == "listed":
        variables.kept[f"{PREFIX}b_open"] = "[1"
        assert entries.facts(PREFIX, f"{PREFIX}b_open") == {}


def test_one_task_removes_a_bounded_number_of_old_entries(variables, monkeypatch):
    """The rest is left to the next ones."""
    monkeypatch.setattr(ledger, "MOST_FORGOTTEN", 2)
    variables.kept |= {f"{PREFIX}{number}": "{}" for number in range(3)}
    ListedLedger(variables.keys).forget(PREFIX, 0.5)
    assert len(variables.kept) == 1


def test_what_was_spent_lately_is_not_forgotten(variables):
    """The name of an entry of a backfill's run holds the month of that run, which may be long ago."""
    entries = ListedLedger(variables.keys)
    entries.add(PREFIX, f"{PREFIX}old_1", {"at": 999})
    entries.add(PREFIX, f"{PREFIX}new_1", {"at": 1001})
    entries.forget(PREFIX, 1000)
    assert list(entries.names(PREFIX)) == [f"{PREFIX}new_1"]


def test_a_shared_variable_loses_no_entry_of_simultaneous_writers(variables):
    """Each writer looks again until its entry has stayed: reads and writes of Variables are not one step."""
    both_read = threading.Barrier(2, timeout=10)
    has_met = threading.local()
    read = variables.get

    def meeting(key: str, **default: object) -> object:
        found = read(key, **default)
        if not getattr(has_met, "yes", False):  # so that each has read before the other has written
            has_met.yes = True
            both_read.wait()
        return found

    variables.get = meeting
    both_written, written, write = threading.Event(), [], variables.set

    def counted(key: str, value: str) -> None:
        write(key, value)
        written.append(key)
        if len(written) > 1:
            both_written.set()

    variables.set = counted

    def enter(name: str) -> None:
        SharedLedger(lambda _: both_written.wait(10)).add(PREFIX, PREFIX + name, {})

    writers = [threading.Thread(target=enter, args=(name,)) for name in ("a_1", "b_2")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    assert set(json.loads(variables.kept[PREFIX.rstrip("_")])) == {f"{PREFIX}a_1", f"{PREFIX}b_2"}


def test_a_shared_variable_forgets_what_was_refunded(variables):
    """Only that entry."""
    entries = SharedLedger(lambda _: None)
    for name in ("a_1", "b_2"):
        entries.add(PREFIX, PREFIX + name, {"credits": 1})
    entries.remove(PREFIX, f"{PREFIX}a_1")
    assert list(entries.names(PREFIX)) == [f"{PREFIX}b_2"]


def test_a_writer_whose_entries_are_always_lost_says_so(variables):
    """It is not believed to be written."""
    variables.set = lambda key, value: None
    with pytest.raises(ViduError, match="50 attempts were lost"):
        SharedLedger(lambda _: None).add(PREFIX, f"{PREFIX}a_1", {})


@pytest.mark.parametrize(
    ("is_3", "has_list", "kind"),
    [(False, False, ListedLedger), (True, False, SharedLedger), (True, True, ListedLedger)],
    ids=["2.11", "3.0 to 3.2", "3.3"],
)
def test_each_airflow_has_its_ledger(monkeypatch, is_3, has_list, kind):
    """A list of names is better, where there is one."""
    from airflow.providers.common.compat import version_compat

    monkeypatch.setattr(version_compat, "AIRFLOW_V_3_0_PLUS", is_3)
    monkeypatch.setattr(ledger, "Variable", type("Variable", (), {"keys": None} if has_list else {}))
    assert type(ledger.ledger()) is kind


def test_names_are_read_from_the_database_of_airflow_2(monkeypatch):
    """Literally: an underscore is not a wildcard."""
    from airflow.models.variable import Variable as Model
    from sqlalchemy import Column, MetaData, String, Table, create_engine, insert
    from sqlalchemy.orm import sessionmaker

    engine = create_engine("sqlite://")
    table = Table(Model.__tablename__, MetaData(), Column("key", String(250)))
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(insert(table), [{"key": key} for key in ("a_b_1", "a_bX2", "a_b_3", "b_a_b_")])
    monkeypatch.setattr("airflow.utils.session.create_session", sessionmaker(engine))
    assert sorted(ledger._in_database("a_b_")) == ["a_b_1", "a_b_3"]


@pytest.mark.parametrize("stored", ["{", "[]", "[" * 100_000, "nan", '{"a": [' + "[]," * 5_000_000 + "1]}"], ids=len)
def test_a_shared_variable_that_was_edited(variables, stored):
    """What was spent is unknown then: a clear error without the content, rather than a budget that counts from zero."""
    variables.kept[PREFIX.rstrip("_")] = stored
    with pytest.raises(ViduError, match="is not a JSON object") as caught:
        SharedLedger().names(PREFIX)
    assert caught.value.__context__ is None
    assert variables.kept == {PREFIX.rstrip("_"): stored}
