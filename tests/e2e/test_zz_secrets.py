"""After all that: where do the API keys stand? Runs last, over everything the other tests have left."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from private_airflow import PrivateAirflowError


def _spellings(key: str) -> list[bytes]:
    encoded = base64.b64encode(key.encode()).rstrip(b"=")
    return [key.encode(), quote(key, safe="").encode(), encoded, key.encode("utf-16-le"), key[8:].encode()]


def _files_with(folder: Path, wanted: list[bytes]) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in files if any(word in path.read_bytes() for word in wanted)]


@pytest.fixture
def finished(airflow, runs):
    """Return the Airflow after every run has ended; one that hangs is another test's affair."""
    for run in runs.values():
        with suppress(PrivateAirflowError):
            airflow.wait(run, timeout=10)
    return airflow


def test_the_search_would_find_something(finished):
    """The same search finds a generation's id in the database, in a task's log and in a component's output."""
    found = _files_with(finished.home, [b"e2e-deferred"])
    assert any(path.startswith("airflow.db") for path in found)
    assert any(path.startswith("logs") for path in found)
    assert any(path.startswith("output") for path in found)


def test_no_key_in_any_file(finished, keys):
    """Database, logs, rendered templates, XComs, trigger rows and the components' output hold no key."""
    for key in (keys.good, keys.wrong, keys.revoked):
        assert _files_with(finished.home, _spellings(key)) == []


def test_no_key_in_any_row(finished, keys):
    """No row of any table holds a key, however SQLite has laid it out on its pages."""
    with closing(sqlite3.connect(finished.home / "airflow.db")) as database:
        rows = "\n".join(database.iterdump())
        stored = database.execute("select is_encrypted, password from connection where conn_id = 'vidu_default'")
        is_encrypted, password = stored.fetchone()
    assert "e2e-deferred" in rows
    assert is_encrypted
    assert keys.good not in password
    for key in (keys.good, keys.wrong, keys.revoked):
        assert key not in rows
