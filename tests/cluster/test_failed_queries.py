"""A query that fails on PostgreSQL, which then refuses all others of the transaction."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from airflow_provider_vidu.links import has_pages
from services import Postgres

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.clips.facts import TaskFacts
from airflow_provider_vidu.ui.records.circumstances import next_tries

pytestmark = pytest.mark.cluster


def test_a_retry_whose_time_cannot_be_read_leaves_the_page_its_session(tmp_path):
    """The page reads on. The database has none of Airflow's tables, as one of another version may lack a column."""
    with Postgres(tmp_path) as database:
        engine = create_engine(database.url)
        with Session(engine) as session:
            assert next_tries(session, [TaskFacts("dag", "run", "film", -1, "g", state="up_for_retry")]) == {}
            assert session.scalar(text("select 1")) == 1
        engine.dispose()
