"""Fields of JSON that PostgreSQL keeps and cannot look into: the page of the spending reads those of all DAGs."""

from __future__ import annotations

import pytest
from sqlalchemy import JSON, Column, Integer, MetaData, Table, create_engine, select

from airflow_provider_vidu.links import has_pages
from services import Postgres

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.records.json_fields import text_field

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return a table with a column of the type of Airflow's rendered fields, and an engine."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as database:
        engine = create_engine(database.url)
        made = Table("fields", MetaData(), Column("id", Integer, primary_key=True), Column("fields", JSON))
        made.metadata.create_all(engine)
        yield made, engine
        engine.dispose()


@pytest.mark.fault("attacks", "a prompt holds a NUL, or half a surrogate pair (PostgreSQL)", outcome="survived",
                   side="pages", seen="the page of the spending, without the model of that task")  # fmt: skip
def test_one_value_breaks_no_query(table):
    """Everyone's page of the spending ended with an error, for as long as the task was in its period."""
    fields, engine = table
    odd = ["a\0", "\ud800", "\udc00", "\ud800x", "\ud83d\ud83d\ude00", "\ude00\ud83d", "\\ud83d\ude00"]
    plain = ["kite", "\U0001f600", "\U0001f600\U0001f600", "\\u0041", "\u00e9\u2028", "\\ud83d\U0001f600", "C:\\u0000"]
    rows = [{"id": at, "fields": {"prompt": text, "model": "m"}} for at, text in enumerate([*odd, *plain])]
    with engine.begin() as connection:
        for row in rows:
            connection.execute(fields.insert(), row)
        query = select(fields.c.id, text_field(fields.c.fields, "model", 100, within=16_000).label("model"))
        found = {row.id: row.model for row in connection.execute(query)}
    assert {at: found[at] for at in range(len(odd))} == dict.fromkeys(range(len(odd)))
    assert {found[len(odd) + at] for at in range(len(plain))} == {"m"}
