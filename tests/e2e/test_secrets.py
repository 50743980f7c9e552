"""Where do keys and signatures stand? When the session ends, ``airflow`` searches what all tests have left."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_vidu.sandbox import Sandbox
from fault_table import CLEAR_ERROR, LIMIT, REFUSED, SURVIVED
from private_airflow import PrivateAirflow, Run, wait_for
from tests.e2e.leaks import files, files_with, signatures, signed_files, spellings

FOREIGN = "v1~" + "Zm9yZWlnbi1zaWduYXR1cmUtb2YtYW5vdGhlci1ob3N" + "_"


def _rows(database: sqlite3.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield table and columns of every row of the metadata database."""
    database.row_factory = sqlite3.Row
    tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
    for table in tables:
        for row in database.execute(f'select * from "{table}"'):
            yield table, dict(row)


@pytest.fixture
def searched(airflow, runs):
    """Return the Airflow as soon as a wait stands in its database, in a log and in a component's output."""
    places = ("airflow.db", "logs", "output")

    def stands_everywhere() -> bool:
        found = files_with(airflow.home, [b"e2e-deferred"])
        return all(any(path.startswith(place) for path in found) for place in places)

    assert wait_for(stands_everywhere, 90, every=1), "the search finds nothing"
    return airflow


def test_no_key_in_any_file(searched, keys, fault_row):
    """Database, logs, rendered templates, XComs, trigger rows and the components' output hold no key."""
    for key in (keys.good, keys.wrong, keys.revoked):
        assert files_with(searched.home, spellings(key)) == []
    seen = f"three keys in {len(spellings(keys.good))} spellings: in none of {len(files(searched.home))} files"
    fault_row("secrets", "API key in a file of Airflow", side="database, logs, output", seen=seen, outcome=SURVIVED)


def test_no_key_in_any_row(searched, keys, fault_row):
    """No row of any table holds a key, however SQLite has laid it out on its pages."""
    with closing(sqlite3.connect(searched.home / "airflow.db")) as database:
        dump = list(database.iterdump())
        stored = database.execute("select is_encrypted, password from connection where conn_id = 'vidu_default'")
        is_encrypted, password = stored.fetchone()
    rows = "\n".join(dump)
    assert "e2e-deferred" in rows
    assert is_encrypted
    assert keys.good not in password
    for key in (keys.good, keys.wrong, keys.revoked):
        assert key not in rows
    seen = f"three keys: in none of {len(dump)} rows"
    fault_row("secrets", "API key in the metadata database", side="all tables", seen=seen, outcome=SURVIVED)


@dataclass
class Pipelines:
    """The two runs of ``dags/signed.py`` after their end, and what was seen of them on the way."""

    airflow: PrivateAirflow
    sandbox: Sandbox
    runs: dict[str, Run]
    states: dict[str, dict[str, str]]
    waiting: set[str] = field(default_factory=set)

    def log(self, name: str, task: str) -> str:
        """Return what a task has logged."""
        return self.airflow.task_log(self.runs[name], task)

    def error(self, name: str, task: str) -> str:
        """Return the error that a task ended with, as it stands in its log."""
        for line in self.log(name, task).splitlines():
            for error in json.loads(line).get("error_detail") or [] if line.startswith("{") else []:
                return f"{error['exc_type']}: {error['exc_value']}"
        return ""

    def instances(self, name: str) -> list[dict[str, Any]]:
        """Return what the REST API tells of the tasks of a run, the rendered fields included."""
        return [task.record for task in self.airflow.tasks(self.runs[name])]


CATCH = """
    create table caught (line text);
    create trigger catch_row after insert on "trigger"
        begin insert into caught values (new.classpath || ' ' || new.kwargs); end;
    create trigger catch_event after update of next_kwargs on task_instance when new.next_kwargs is not null
        begin insert into caught values (coalesce(new.next_method, '') || ' ' || new.next_kwargs); end;
"""
"""An event stands in its row for less than a second: the database itself takes note of every one."""


@pytest.fixture(scope="module")
def pipelines(airflow, sandbox, keys, tmp_path_factory) -> Pipelines:
    """Run both pipelines; every trigger row and event that was ever stored is caught."""
    with closing(sqlite3.connect(airflow.home / "airflow.db", timeout=30)) as database:
        database.executescript(CATCH)
    airflow.wait_for_dags(["e2e_signed", "e2e_unsigned"])
    for name in ("signed", "unsigned"):
        sandbox.add_generation(f"{name}-good", states=[["processing", 0], ["completed", 3600]])
        signed = f"{sandbox.url}/files/input.png?Expires=1&Signature={FOREIGN}"
        reason = f"cannot read {signed} with key {keys.good}\r\n2026-01-01 ERROR forged"
        sandbox.add_generation(f"{name}-failed", answer={"id": "x", "status": "failed", "fail_reason": reason})
    target = f"http://10.0.0.1/v.mp4?Signature={FOREIGN}"
    for ending, action in (("expired", {"expire": True}), ("redirected", {"redirect": target})):
        found = sandbox.add_generation(f"signed-{ending}_one", states=[["completed", 0]])
        sandbox.add_fault({"match": {"kind": "file", "id": found}, "times": None, "action": action})
    runs = {}
    for name in ("signed", "unsigned"):
        params = {"prefix": name, "folder": str(tmp_path_factory.mktemp(name))}
        runs[name] = airflow.trigger(f"e2e_{name}", params)
    made = Pipelines(airflow, sandbox, runs, {})
    finished: list[str] = []

    def ended() -> bool:
        with closing(sqlite3.connect(airflow.home / "airflow.db", timeout=30)) as database:
            made.waiting |= {line for (line,) in database.execute("select line from caught")}
        if all(f"{name}-good" in str(made.waiting) for name in runs) and not finished:
            finished.extend(sandbox.add_generation(f"{name}-good", states=[["completed", 0]]) for name in runs)
        try:
            return all(airflow.run_state(run) in ("success", "failed") for run in runs.values())
        except TimeoutError:  # a busy machine
            return False

    assert wait_for(ended, 300, every=1), {name: airflow.states(run) for name, run in runs.items()}
    with closing(sqlite3.connect(airflow.home / "airflow.db", timeout=30)) as database:
        database.executescript("drop trigger catch_row; drop trigger catch_event; drop table caught;")
    made.states.update({name: airflow.states(run) for name, run in runs.items()})
    return made


def test_the_pipelines_ended_as_they_should(pipelines, fault_row):
    """With signatures both downloads succeed; without them the id still leads to the file, the URL does not."""
    common = {"good": "success", "by_id": "success", "failed": "failed", "made": "success"}
    ends = {"expired_one": "success", "expired": "failed", "redirected_one": "success", "redirected": "failed"}
    assert pipelines.states["signed"] == {**common, "by_url": "success", **ends}
    assert pipelines.states["unsigned"] == {**common, "by_url": "failed"}
    for name, task, kind, outcome in (
        ("signed", "expired", "ViduURLExpiredError", CLEAR_ERROR),
        ("signed", "redirected", "ViduDownloadRefusedError", REFUSED),
        ("unsigned", "by_url", "ViduURLExpiredError", LIMIT),
    ):
        error = pipelines.error(name, task)
        assert error.startswith(kind)
        assert not signatures(error)
        fault = f"signed URL {task}" if name == "signed" else "signed_urls_in_xcom=False and only a video_url"
        fault_row("secrets", fault, side="task log", seen=error, requests="", outcome=outcome)


def test_a_failure_quotes_no_secret(pipelines, keys, fault_row):
    """A service that puts key, signed URL and line breaks into its reason reaches the log as one clean line."""
    error = pipelines.error("signed", "failed")
    assert error.startswith("ViduGenerationFailedError: ")
    assert "cannot read" in error
    assert "ERROR forged" in error
    assert "\n" not in error
    for line in pipelines.log("signed", "failed").splitlines():
        assert not line.startswith("2026-01-01 ERROR")
    assert keys.good not in error
    assert not signatures(error)
    fault_row("secrets", "reason of a failure quotes key and signed URL", side="task log", seen=error, outcome=SURVIVED)


def test_signatures_stand_in_return_values_only(pipelines, fault_row):
    """Of all rows of all tables only the return values of waits and orders hold signed URLs."""
    found, searched = set(), 0
    with closing(sqlite3.connect(pipelines.airflow.home / "airflow.db")) as database:
        for table, row in _rows(database):
            searched += 1
            if signatures(str(row)):
                found.add((table, row.get("key"), row.get("dag_id")))
    assert {(table, key) for table, key, _ in found} == {("xcom", "return_value")}
    assert "e2e_signed" in {dag for *_, dag in found}
    assert "e2e_unsigned" not in {dag for *_, dag in found}
    seen = f"{searched} rows: only in {len(found)} DAGs' xcom.return_value"
    fault_row("secrets", "signature in the metadata database", side="all tables", seen=seen, outcome=SURVIVED)


def test_no_signature_in_any_file_but_the_database(pipelines, fault_row):
    """No log, no output of a component and no rendered file holds the signature of any URL."""
    assert signed_files(pipelines.airflow.home) == {}
    issued = len(pipelines.sandbox.issued_signatures())
    assert issued >= 8
    seen = f"{issued} issued signatures: in none of {len(files(pipelines.airflow.home))} files"
    fault_row("secrets", "signature in a log", side="logs, output", seen=seen, outcome=SURVIVED)


def test_switched_off_signatures_stand_nowhere(pipelines, fault_row):
    """With signed_urls_in_xcom=False no file holds one of this run's signatures, the database's pages included."""
    ours = pipelines.sandbox.issued_signatures("unsigned-good")
    theirs = pipelines.sandbox.issued_signatures("signed-good")
    raw = [path.read_bytes() for path in files(pipelines.airflow.home)]
    assert any(one.encode() in data for one in theirs for data in raw), "the search finds nothing"
    assert len(ours) >= 2
    assert not [one for one in ours if any(one.encode() in data for data in raw)]
    value = pipelines.airflow.xcom(pipelines.runs["unsigned"], "good")
    assert (value["id"], value["status"]) == ("unsigned-good", "succeeded")
    assert value["video_url"].startswith(f"{pipelines.sandbox.url}/")
    assert "?" not in json.dumps(value)
    seen = f"{len(ours)} issued signatures: in none of {len(raw)} files"
    fault_row("secrets", "signed_urls_in_xcom=False", side="database, logs, output", seen=seen, outcome=SURVIVED)


def test_triggers_and_events_hold_no_secret(pipelines, keys, fault_row):
    """Trigger rows and events, every one that was stored, hold neither key nor signature."""
    caught = "\n".join(pipelines.waiting)
    assert "ViduGenerationTrigger" in caught
    assert "signed-good" in caught
    assert "outcome" in caught
    assert not signatures(caught)
    assert keys.good not in caught
    seen = f"{len(pipelines.waiting)} snapshots of trigger rows and events: no key, no signature"
    fault_row("secrets", "secret in a trigger or event", side="while deferred", seen=seen, outcome=SURVIVED)


def test_rendered_fields_and_links_hold_no_signature(pipelines, fault_row):
    """The UI shows where a file lay, with stars for the query; an order's images and links are as clean."""
    told = {name: {one["task_id"]: one for one in pipelines.instances(name)} for name in pipelines.runs}
    shown = told["signed"]["by_url"]["rendered_fields"]["video_url"]
    images = told["signed"]["made"]["rendered_fields"]["images"]
    assert shown.startswith(f"{pipelines.sandbox.url}/")
    assert shown.endswith("?***")
    assert "?***" in str(images)
    assert not signatures(json.dumps(told))
    for name, run in pipelines.runs.items():
        links = pipelines.airflow.api("GET", f"{run.path}/taskInstances/made/links")
        assert not signatures(json.dumps(links))
        assert links["extra_links"]["Watch"].endswith("/tasks/made"), name
    seen = f"video_url: {re.sub('[0-9a-f]{32}', '…', shown)}"
    fault_row("secrets", "signature in rendered fields and links", side="REST API", seen=seen, outcome=SURVIVED)
