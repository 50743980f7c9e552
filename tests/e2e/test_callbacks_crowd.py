"""A crowd of callbacks on a scaled-out Airflow: PostgreSQL, two API server processes and two triggerers.

Each callback comes twice at the same moment, once to each process. They share nothing but the database.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest

from airflow_cluster import AirflowCluster
from airflow_provider_vidu.sandbox import Sandbox
from airflow_provider_vidu.tasks.callbacks.tokens import new_address
from private_airflow import Run
from processes import LOCALHOST, free_port, wait_for
from tests.callback_requests import body, signed_headers
from tests.versions import AIRFLOW

HERE = Path(__file__).parent
WAITS = 24
"""Orders whose end is reported once all of them wait. 200 ran once: callbacks resumed each, once."""
EARLY = 20
"""Orders whose end is reported before they may be resumed."""
FED = 20
"""Orders that no task waits for."""
LANES = 6
"""Pairs of connections on which callbacks are sent at once."""
PATIENCE = 900
OLD_ENOUGH = "12 seconds"
"""A task that was deferred so long ago is resumed at once."""

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(AIRFLOW < (3, 1, 1), reason="The API server of older versions has no such route."),
    pytest.mark.skipif(find_spec("celery") is None, reason="This needs `make setup-faults`."),
]

Pair = tuple[HTTPConnection, HTTPConnection]


@dataclass(frozen=True)
class Reported:
    """The end of a generation, in epoch seconds, and the answers to its two callbacks."""

    ended_at: float
    statuses: tuple[int, ...]


@dataclass(frozen=True)
class Crowd:
    """The Airflow, and the accounts of orders that wait, that end early, and that no task waits for."""

    airflow: AirflowCluster
    waited: Sandbox
    early: Sandbox
    fed: Sandbox

    def report(self, sandbox: Sandbox, ids: Collection[str]) -> dict[str, Reported]:
        """Let generations succeed, and report each twice at once."""
        pairs = self._pairs()
        urls = {create.id: create.body["callback_url"] for create in sandbox.creates}

        def lane(pair: Pair, own: Sequence[str]) -> dict[str, Reported]:
            reports = {}
            with ThreadPoolExecutor(2) as both:
                for name in own:
                    ended_at = time.time()
                    sandbox.add_generation(name, dialect="ent-v2", states=[["success", 0]])
                    ready = threading.Barrier(2)
                    sent = [both.submit(_post, line, ready, urls[name], sandbox.key) for line in pair]
                    reports[name] = Reported(ended_at, tuple(answer.result() for answer in sent))
            return reports

        with ThreadPoolExecutor(len(pairs)) as lanes:
            found = lanes.map(lane, pairs, [sorted(ids)[number :: len(pairs)] for number in range(len(pairs))])
            return {name: report for reports in found for name, report in reports.items()}

    def _pairs(self) -> list[Pair]:
        """Open connections until each process of the API server has some; pair those of the two.

        Each is opened with an unknown token, for which all tables are searched.
        """
        taken: dict[int, list[HTTPConnection]] = defaultdict(list)
        members = self.airflow.components["api-server"].members()
        for _ in range(50 * LANES):
            line = HTTPConnection(LOCALHOST, self.airflow.port, timeout=60)
            stranger = new_address(self.airflow.url, uuid4()).url
            assert _post(line, threading.Barrier(1), stranger, self.waited.key) == 404
            taken[_holder(members, line)].append(line)
            if len(taken) > 1 and min(map(len, taken.values())) >= LANES:
                first, second = taken.values()
                return list(zip(first[:LANES], second[:LANES], strict=True))
        raise AssertionError(f"not two processes: { {pid: len(lines) for pid, lines in taken.items()} }")

    def deferred(self, run: Run) -> int:
        """Return how many tasks of a run have waited long enough to be resumed."""
        query = f"""
            select count(*) from task_instance ti join trigger on trigger.id = ti.trigger_id
            where ti.dag_id = %s and ti.run_id = %s and ti.state = 'deferred'
                and trigger.created_date < now() - interval '{OLD_ENOUGH}'
        """
        ((count,),) = self.airflow.rows(query, run.dag_id, run.run_id)
        return int(count)

    def resumed_once(self, run: Run, count: int) -> None:
        """Check that each task of a run has waited and was resumed once, and has succeeded in its first try."""
        assert self.airflow.wait(run, timeout=PATIENCE) == "success", self.told(run)
        films = [task for task in self.airflow.tasks(run) if task.name.startswith("film")]
        assert Counter((task.state, task.try_number) for task in films) == {("success", 1): count}
        logs = [self.airflow.task_log(run, "film", map_index=number) for number in range(count)]
        assert {log.count("Pausing task as DEFERRED") for log in logs} == {1}
        assert {log.count("::group::Pre Execute") for log in logs} == {2}

    def resumed(self) -> int:
        """Return how many waits callbacks have resumed so far."""
        return self.airflow.component_log("api-server", 100_000).count("A callback has resumed the wait")

    def told(self, run: Run) -> str:
        """Return the states of a run's tasks in a few words."""
        return str(Counter(self.airflow.states(run).values()))

    def undisturbed(self) -> None:
        """Check that no statement waited in a circle, and no callback or task was too much for Airflow."""
        ((deadlocks,),) = self.airflow.rows("select deadlocks from pg_stat_database where datname = 'postgres'")
        assert deadlocks == 0
        for log in self.airflow.output.glob("*.log"):
            text = log.read_text("utf-8", "replace").lower()
            found = [word for word in ("deadlock detected", "could not be handled", "state mismatch") if word in text]
            assert found == [], log


def _holder(members: Sequence[psutil.Process], line: HTTPConnection) -> int:
    """Return the process that has accepted a connection."""
    own = line.sock.getsockname()
    for member in members:
        if any(each.raddr == own for each in member.net_connections("tcp4")):
            return int(member.pid)
    raise AssertionError("no process has this connection")


def _post(line: HTTPConnection, ready: threading.Barrier, url: str, key: str) -> int:
    """Send a callback once the other one is ready as well; return the status of the answer."""
    path = urlsplit(url).path
    headers = {"Content-Type": "application/json", **signed_headers(key, path)}
    ready.wait(60)
    line.request("POST", path, json.dumps(body()).encode(), headers)
    answer = line.getresponse()
    answer.read()
    return answer.status


@pytest.fixture(scope="module")
def crowd(tmp_path_factory, keys) -> Iterator[Crowd]:
    """Run the cluster, and three accounts that can call it."""
    folder, port = tmp_path_factory.mktemp("crowd"), free_port()
    (dags := folder / "dags").mkdir()
    settings = {"VIDU__CALLBACK_BASE_URL": f"http://{LOCALHOST}:{port}", "API__WORKERS": "2"}
    account: dict[str, Any] = {
        "keys": [keys.good], "models": "any", "concurrency": None, "balance": 10**9, "list_payload": True
    }  # fmt: skip
    with (
        Sandbox(queue=7200, **account) as waited,
        Sandbox(queue=1, duration=4, **account) as early,
        Sandbox(queue=7200, **account) as fed,
        AirflowCluster(folder / "airflow", [dags], port=port, settings=settings) as airflow,
    ):
        for conn_id, sandbox in {"vidu_called": waited, "vidu_early": early, "vidu_fed": fed}.items():
            fields = {"conn_type": "vidu", "host": sandbox.url, "password": keys.good, "extra": {"dialect": "ent-v2"}}
            airflow.add_connection(conn_id, fields)
        early.add_callback_fault("doubled", times=None)
        # Not before: a trigger that finds no connection looks again in ten minutes.
        shutil.copy(HERE / "called_dags" / "called.py", dags)
        airflow.wait_for_dags(["e2e_called_crowd", "e2e_fed_crowd", "e2e_on_fed"])
        yield Crowd(airflow, waited, early, fed)


def test_each_wait_is_resumed_once(crowd):
    """Of two callbacks at once one resumes the task, whichever process has it; each then costs two queries at most."""
    prompts = [f"crowd {number}" for number in range(WAITS)]
    run = crowd.airflow.trigger("e2e_called_crowd", {"prompts": prompts})
    assert wait_for(lambda: crowd.deferred(run) == WAITS, PATIENCE, every=2), crowd.told(run)
    before = crowd.resumed()
    reports = crowd.report(crowd.waited, [create.id for create in crowd.waited.creates])
    crowd.resumed_once(run, WAITS)
    # The second of two finds the task still waiting, or already resumed.
    answers = Counter(report.statuses for report in reports.values())
    assert set(answers) <= {(200, 200), (200, 404), (404, 200)}
    by_callback = crowd.resumed() - before
    asked = crowd.waited.requests("query")
    # Polls before the end are the trigger's own.
    queries = Counter(query.id for query in asked if query.wall_time > reports[query.id].ended_at)
    print("answers", answers, "resumed", by_callback, "queries", Counter(queries.values()), "in all", len(asked))
    # A trigger may have looked in the moment between the end and the callback.
    assert 0.9 * WAITS <= by_callback <= WAITS
    assert max(queries.values()) <= 2
    assert Counter(create.charge for create in crowd.waited.creates) == {"charged": WAITS}
    crowd.undisturbed()


def test_callbacks_that_come_too_early_are_held_by_both(crowd):
    """Each process holds its own; when they are due, one of them resumes the task."""
    prompts = [f"early {number}" for number in range(EARLY)]
    run = crowd.airflow.trigger("e2e_called_crowd", {"prompts": prompts, "conn_id": "vidu_early"})
    crowd.resumed_once(run, EARLY)
    ended = [record for record in crowd.early.callbacks if record.word == "success"]
    queries = Counter(query.id for query in crowd.early.requests("query"))
    print("statuses", Counter(record.status for record in ended), "queries", Counter(queries.values()))
    assert len(ended) >= 2 * EARLY
    assert max(queries.values()) <= 2
    crowd.undisturbed()


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="Older versions keep no state of assets.")
def test_each_end_that_no_task_waits_for_is_reported_once(crowd):
    """Both processes nudge the same asset at once; its trigger makes few rounds, and reports each end in one event."""
    airflow, fed = crowd.airflow, crowd.fed
    assert wait_for(lambda: fed.requests("list"), 120), "nothing watches the account"
    run = airflow.trigger(
        "e2e_fed_crowd", {"prompts": [f"fed {number}" for number in range(FED)], "conn_id": "vidu_fed"}
    )
    assert airflow.wait(run, timeout=PATIENCE) == "success"
    ids = {create.id for create in fed.creates}
    before = len(fed.requests("list"))
    began = time.time()
    reports = crowd.report(fed, ids)
    took = time.time() - began
    assert {report.statuses for report in reports.values()} == {(200, 200)}

    def reported() -> list[str]:
        runs = [
            Run("e2e_on_fed", each["dag_run_id"]) for each in airflow.api("GET", "/dags/e2e_on_fed/dagRuns")["dag_runs"]
        ]
        assert [airflow.wait(each) for each in runs] == ["success"] * len(runs)
        return [payload["generation_id"] for each in runs for payload in airflow.xcom(each, "told")]

    assert wait_for(lambda: len(reported()) >= FED, 120, every=1), reported()
    time.sleep(40)  # the repetition of the last round
    assert Counter(reported()) == Counter(ids)
    # A round that meets unfinished generations asks for the list once more, at once.
    asked = [request.wall_time for request in fed.requests("list")[before:]]
    rounds = 1 + sum(later - earlier > 2 for earlier, later in pairwise(asked))
    print(f"{len(ids)} reported in {took:.1f} s, {rounds} rounds: {[round(at - began, 1) for at in asked]}")
    # One per five seconds while callbacks come, one for the last of them, and one repetition.
    assert rounds <= took / 5 + 3
    crowd.undisturbed()
