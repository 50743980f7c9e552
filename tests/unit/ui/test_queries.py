"""The pages' statements on every database that Airflow runs on: they compile, and stay below what a database takes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import JSON, Column, Integer, MetaData, String, Table, create_engine, select
from sqlalchemy.dialects import mysql, postgresql, sqlite

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.clips.facts import TaskFacts
from airflow_provider_vidu.ui.records import counts, instances, slot_waits, store
from airflow_provider_vidu.ui.records.json_fields import as_number, text_field
from airflow_provider_vidu.ui.spending import sums

MOST_PARAMETERS = 32_766
"""SQLite's limit; PostgreSQL's is twice as high."""


class Rows(list[Any]):
    """An answer without rows."""

    def all(self) -> list[Any]:
        """Return all of them."""
        return []

    def first(self) -> None:
        """Return that there is none."""

    def one(self) -> tuple[int, int, int]:
        """Return three numbers, as a query for three sums does."""
        return 10**6, 10**6, 10**6


class Database:
    """Keeps the statements that it is asked, and knows nothing but a vast number of clips."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def execute(self, statement: Any) -> Rows:
        """Keep a statement."""
        self.asked.append(statement)
        return Rows()

    scalars = execute

    def scalar(self, statement: Any) -> int:
        """Keep a statement that asks for a number."""
        self.asked.append(statement)
        return 10**6


@pytest.mark.parametrize("dialect", [sqlite, postgresql, mysql], ids=["sqlite", "postgresql", "mysql"])
def test_every_statement_compiles_and_is_bounded(monkeypatch, dialect):
    """The largest sheet and page make statements that each database can read, with few enough parameters."""
    database: Any = Database()
    for stage in (None, "stored"):
        counts.count(database, "d", "r", stage, counts.MAX_TASKS, 100)
    counts.has_references(database, "d", "r")
    reader = store._Reader(database, "d", "r")
    ids = [f'"{"x" * 1_000}{number}"' for number in range(100)]
    reader.tasks(counts.ID_TEXT.in_(ids), limit=100 * store.MAX_RELATIVES)
    for region_id in (None, UUID(int=7)):
        reader.tasks(instances.stands_at("t", 3, region_id), limit=1)
    instances.is_in_loop(database, "d", "r", "t")
    tasks = [TaskFacts("d", "r", f"task-{number}", number, "g") for number in range(100 * store.MAX_RELATIVES)]
    reader.with_results(tasks)
    reader._notes([task.key for task in tasks])
    store._neighbours(database, tasks[1], slot_waits.has_page())
    monkeypatch.setattr(counts, "MAX_PLACED", 10**6)
    assert counts.place_of(database, tasks[1]) is None
    waiters = slot_waits.Waiters(database, "d", "r", None)
    waiters.count()
    waiters.page(counts.MAX_TASKS, 100)
    slot_waits.queue_place(database, tasks[1])
    sums.account(database, datetime(2026, 1, 1, tzinfo=UTC))
    assert len(database.asked) >= 18
    for statement in database.asked:
        made = statement.compile(dialect=dialect.dialect(), compile_kwargs={"render_postcompile": True})
        assert str(made)
        assert len(made.params) <= MOST_PARAMETERS


@pytest.mark.parametrize("dialect", [postgresql, mysql], ids=["postgresql", "mysql"])
def test_the_cost_of_a_stage_is_a_float(dialect):
    """The sheet of each run with clips of known and of unknown price in two stages ended with a bare error."""
    database: Any = Database()
    counts.count(database, "d", "r", None, 0, 24)
    (cost,) = (one for statement in database.asked for one in statement.selected_columns if one.name == "cost")
    read = cost.type.dialect_impl(dialect.dialect()).result_processor(dialect.dialect(), 1700)  # PostgreSQL's numeric
    assert isinstance(read(Decimal("1.5")), float)


def test_postgresql_makes_text_of_a_note_a_few_times():
    """It did so eighty times for each: a sheet with 50,000 notes of 7 kB took two minutes, from all of its cores."""
    database: Any = Database()
    counts.count(database, "d", "r", None, 0, 24)
    asked = [str(one.compile(dialect=postgresql.dialect())) for one in database.asked]
    made = [text.count("CAST(xcom_1.value AS VARCHAR)") for text in asked if "xcom_1" in text]
    assert len(made) == 2
    assert max(made) <= 10


def test_postgresql_searches_no_xcom_for_escapes():
    """Its type jsonb cannot hold them: to search 50,000 notes of 7 kB took the page of the spending a minute."""
    field = str(text_field(counts.XComModel.value, "model").compile(dialect=postgresql.dialect()))
    assert field.index("pg_typeof(xcom.value) = 'jsonb'::regtype OR") < field.index(" ~ ")


def test_mysql_searches_a_label_for_digits_from_its_ends_only():
    """A pattern that may begin anywhere is tried at each digit: the time grew with the square of a label's length."""
    label = Column("label", String(250))
    statement = select(label).order_by(*counts._by_label(label))
    patterns = re.findall(r"regexp_replace\([^']*'([^']*)'", str(statement.compile(dialect=mysql.dialect())))
    assert set(patterns) == {"^[0-9]+"}


def test_the_clips_of_a_run_need_no_extreme_of_a_partition(monkeypatch):
    """MariaDB goes through a partition for each of its rows: 4,000 clips of a task took ten seconds."""
    database: Any = Database()
    counts.count(database, "d", "r", None, 0, 100)
    monkeypatch.setattr(counts, "MAX_PLACED", 10**6)
    counts.place_of(database, TaskFacts("d", "r", "task", 1, "g"))
    asked = [str(statement.compile(dialect=mysql.dialect())) for statement in database.asked]
    assert sum(" OVER (" in text for text in asked) == 3
    assert not [text for text in asked if re.search(r"\b(?:min|max)\([^()]*\) OVER", text)]


def test_half_a_surrogate_pair_breaks_no_query_of_sqlite():
    """One XCom with it as a price or a model ended everyone's page of the spending; PostgreSQL has its own test."""
    engine = create_engine("sqlite://")
    table = Table("values", MetaData(), Column("id", Integer, primary_key=True), Column("value", JSON))
    table.metadata.create_all(engine)
    odd = ["\ud800", "\udc00x", "\ude00\ud83d", "\\ud83d\ude00"]
    plain = ["5", "\U0001f600", "\u00e9", "\\ud83d"]
    model = text_field(table.c.value, "model", 100)
    price = as_number(text_field(table.c.value, "credits", 40))
    with engine.begin() as database:
        for text in (*odd, *plain):
            database.execute(table.insert(), {"value": {"model": text, "credits": text}})
        found = [tuple(row) for row in database.execute(select(model, price).order_by(table.c.id))]
    engine.dispose()
    assert found == [(None, None)] * len(odd) + [("5", 5), ("\U0001f600", None), ("\u00e9", None), ("\\ud83d", None)]
