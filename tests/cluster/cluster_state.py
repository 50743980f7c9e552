"""What the tests of the cluster ask and do: which triggerer has which wait, what was noticed, how often."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from airflow_cluster import AirflowCluster
from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import Run
from processes import LOCALHOST, wait_for

FOREVER = [["pending", 0], ["processing", 0.1]]
#: What one triggerer takes on in the beginning, so that half of the waits find no room; and what it takes later.
SMALL, LARGE = 50, 1000
WAITS = 200
#: Orders in each dialect.
ORDERS = 10
#: Everything here is slow on a busy machine; nothing is waited for longer than this.
PATIENCE = 400


@dataclass
class Cluster:
    """The Airflow, the service, and the triggerers that run just now with their job ids."""

    airflow: AirflowCluster
    sandbox: Sandbox
    capacity: dict[str, int]
    jobs: dict[str, int] = field(default_factory=dict)

    def know_triggerers(self) -> None:
        """Note the jobs of the triggerers that were started with the rest; which is whose shows after a restart."""
        assert wait_for(lambda: len(self._triggerer_jobs()) == len(self.capacity), PATIENCE)
        self.jobs = dict(zip(self.capacity, sorted(self._triggerer_jobs()), strict=True))

    def start_triggerer(self, name: str, capacity: int) -> int:
        """Start a triggerer and return the id of its job, by which the database knows it."""
        before = self._triggerer_jobs()
        self.airflow.start_component(name, "--capacity", str(capacity))
        assert wait_for(lambda: self._triggerer_jobs() - before != set(), PATIENCE), f"{name} did not start"
        (self.jobs[name],) = self._triggerer_jobs() - before
        self.capacity[name] = capacity
        return self.jobs[name]

    def resize(self, capacity: int, number: int) -> None:
        """Restart the triggerers whose capacity is another one, after ending them with a signal."""
        for name in [name for name, size in self.capacity.items() if size != capacity]:
            component = self.airflow.components.pop(name)
            component.signal(number)
            wait_for(lambda c=component: c.process.poll() is not None, 20)
            component.kill()
            self.start_triggerer(name, capacity)

    def triggerers(self) -> set[int]:
        """Return the job ids of the running triggerers."""
        return set(self.jobs.values())

    def billed(self, prompts: Iterable[str]) -> list[Any]:
        """Return the creates with one of these prompts."""
        wanted = set(prompts)
        return [create for create in self.sandbox.creates if create.body.get("prompt") in wanted]

    def beats(self, job: int) -> float:
        """Return the time of a triggerer's last heartbeat."""
        ((seen,),) = self.airflow.rows("select extract(epoch from latest_heartbeat) from job where id = %s", job)
        return float(seen)

    def finish(self, generation_ids: Iterable[str], dialect: str = "vidu-native") -> None:
        """Let generations succeed now."""
        word = "success" if dialect == "ent-v2" else "completed"
        for generation_id in generation_ids:
            self.sandbox.add_generation(generation_id, dialect=dialect, states=[[word, 0]])

    @staticmethod
    def messages(log: str) -> list[str]:
        """Return what a task has logged, without time and place."""
        return [str(json.loads(line).get("event")) for line in log.splitlines() if line.startswith("{")]

    def _triggerer_jobs(self) -> set[int]:
        return {job for (job,) in self.airflow.rows("select id from job where job_type = 'TriggererJob'")}


@dataclass(frozen=True)
class Wait:
    """One wait as the database shows it."""

    generation_id: str
    state: str
    try_number: int
    triggerer: int | None
    arguments: dict[str, Any] | None


@dataclass
class Group:
    """The mapped task instances of a run, one for each generation."""

    run: Run
    task_id: str
    ids: list[str]
    dialect: str


_QUERY = """
    select ti.map_index, ti.state, ti.try_number, trigger.triggerer_id, trigger.kwargs
    from task_instance ti left join trigger on trigger.id = ti.trigger_id
    where ti.dag_id = %s and ti.run_id = %s and ti.task_id = %s and ti.map_index >= 0
"""


class Waits:
    """Waits for generations, and what becomes of them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.groups: list[Group] = []
        self.finished: set[str] = set()
        self.arguments: dict[str, dict[str, Any]] = {}

    @property
    def open(self) -> list[str]:
        """The generations that are still waited for."""
        return [name for group in self.groups for name in group.ids if name not in self.finished]

    def follow(self, run: Run, task_id: str, ids: list[str], dialect: str = "vidu-native") -> None:
        """Add the mapped instances of a task, in the order of their indexes."""
        self.groups.append(Group(run, task_id, ids, dialect))

    def now(self) -> dict[str, Wait]:
        """Return every wait by its generation."""
        found = {}
        for group in self.groups:
            for index, state, tries, triggerer, kwargs in self.cluster.airflow.rows(
                _QUERY, group.run.dag_id, group.run.run_id, group.task_id
            ):
                arguments = None if kwargs is None else json.loads(kwargs)
                found[group.ids[index]] = Wait(group.ids[index], state or "none", tries, triggerer, arguments)
        return found

    def all_deferred(self) -> None:
        """Wait until every wait is deferred, and remember what stands in the triggers' rows."""
        wanted = set(self.open)

        def deferred() -> bool:
            now = self.now()
            self.arguments.update({name: wait.arguments for name, wait in now.items() if wait.arguments})
            return all(name in now and now[name].state == "deferred" for name in wanted)

        assert wait_for(deferred, PATIENCE, every=1), self.told()

    def all_taken_up(self, triggerers: Collection[int]) -> None:
        """Wait until these triggerers have every open wait."""
        wanted = self.open

        def taken() -> bool:
            now = self.now()
            return all(now[name].triggerer in triggerers for name in wanted)

        assert wait_for(taken, PATIENCE, every=1), self.told()

    def all_asked_for(self, since: float) -> None:
        """Wait until the service was asked for every open wait since a moment."""

        def silent() -> set[str]:
            asked = [request for request in self.cluster.sandbox.requests() if request.wall_time > since]
            queried = {request.id for request in asked if request.kind == "query"}
            # One list answers many waits of an official account.
            return set(self.open) - queried.union(*(request.listed for request in asked))

        assert wait_for(lambda: not silent(), PATIENCE, every=1), f"never asked for: {sorted(silent())[:10]}"

    def taken_by(self, triggerer: int | None) -> list[str]:
        """Return the open waits that a triggerer has (None: that none has)."""
        now = self.now()
        return [name for name in self.open if now[name].triggerer == triggerer]

    def polls(self, seconds: float) -> Counter[str]:
        """Count the polls of each generation during some seconds."""
        since = time.time()
        time.sleep(seconds)
        return Counter(query.id for query in self.cluster.sandbox.requests("query") if query.wall_time > since)

    def finish(self, generation_ids: Collection[str]) -> None:
        """Let generations succeed now."""
        for group in self.groups:
            self.cluster.finish([name for name in group.ids if name in generation_ids], group.dialect)
        self.finished.update(generation_ids)

    def some(self, count: int) -> list[str]:
        """Return some open waits of each group."""
        left = [[name for name in group.ids if name not in self.finished] for group in self.groups]
        assert min(map(len, left)) >= count, "there are not enough waits for all tests"
        return [name for names in left for name in names[:count]]

    def noticed(self, generation_ids: Collection[str]) -> None:
        """Wait until these have succeeded; each was noticed once, by its own task, in the first try."""
        wanted = set(generation_ids)

        def ended() -> bool:
            now = self.now()
            return all(now[name].state in {"success", "failed"} for name in wanted)

        assert wait_for(ended, PATIENCE, every=1), self.told()
        now = self.now()
        assert {now[name].state for name in wanted} == {"success"}, self.told()
        assert {now[name].try_number for name in wanted} == {1}, self.told()
        for group, index, name in self._places(wanted):
            found = self.cluster.airflow.xcom(group.run, group.task_id, map_index=index)
            assert found["id"] == name
            log = self.cluster.airflow.task_log(group.run, group.task_id, map_index=index)
            # One leg that defers, one that resumes.
            assert log.count("Pausing task as DEFERRED") == 1, log
            assert log.count("::group::Pre Execute") == 2, log

    def undisturbed(self) -> None:
        """Nothing was cancelled, ordered again, failed or given another deadline."""
        sandbox, now = self.cluster.sandbox, self.now()
        orders = {name for group in self.groups if group.task_id == "film" for name in group.ids}
        assert [request.id for request in sandbox.requests("cancel") if request.id in orders] == []
        assert Counter(create.id for create in sandbox.creates if create.id in orders) == Counter(orders)
        assert {create.charge for create in sandbox.creates if create.id in orders} <= {"charged"}
        assert {now[name].state for name in self.open} <= {"deferred"}, self.told()
        moved = {name for name in self.open if now[name].arguments != self.arguments[name]}
        assert moved == set()

    def told(self) -> str:
        """Return the states in a few words, for the message of a failed assertion."""
        now = self.now().values()
        states = Counter((wait.state, wait.try_number, wait.triggerer) for wait in now)
        return f"{dict(states)}, triggerers {self.cluster.jobs}"

    def _places(self, wanted: Collection[str]) -> Iterator[tuple[Group, int, str]]:
        for group in self.groups:
            for index, name in enumerate(group.ids):
                if name in wanted:
                    yield group, index, name


class Gate(socketserver.ThreadingTCPServer):
    """A gateway in front of a service. Shut, it takes requests and keeps them to itself for good.

    :param url: the service.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, url: str) -> None:
        super().__init__((LOCALHOST, 0), _Passage)
        found = urlsplit(url)
        self.service = (found.hostname, found.port)
        self.url = f"http://{LOCALHOST}:{self.server_address[1]}"
        self.shut = False
        self.kept = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Passage(socketserver.BaseRequestHandler):
    server: Gate

    def handle(self) -> None:
        if self.server.shut:
            if self.request.recv(65_536):
                self.server.kept += 1
            with suppress(OSError):
                while self.request.recv(65_536):
                    pass
            return
        with suppress(OSError), socket.create_connection(self.server.service) as service:
            back = threading.Thread(target=_pump, args=(service, self.request), daemon=True)
            back.start()
            _pump(self.request, service)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
