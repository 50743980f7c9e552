"""Scheduler, API server and the Vidu service go away and come back while waits and downloads are under way."""

from __future__ import annotations

import hashlib
import time

from fault_table import SURVIVED
from processes import wait_for
from tests.cluster.cluster_state import PATIENCE

SIZE = 2_000_000


def test_a_killed_scheduler_loses_nothing(cluster, sandbox, waits, roomy, fault_row):
    """What ends while there is no scheduler is noticed once by the next one."""
    cluster.airflow.kill_component("scheduler")
    done = waits.some(1)
    waits.finish(done)
    # The triggerers notice; nobody puts the tasks back to work yet.
    assert wait_for(lambda: _states(waits, done) == {"scheduled"}, PATIENCE), waits.told()
    cluster.airflow.start_component("scheduler")
    waits.noticed(done)
    waits.undisturbed()
    fault_row(
        "airflow", f"kill -9 of the scheduler under {len(waits.open)} waits", side="scheduler",
        seen=f"{len(done)} generations that ended meanwhile are noticed once", requests=_polls(sandbox, done),
        outcome=SURVIVED,
    )  # fmt: skip


def test_a_restarted_api_server_disturbs_neither_waits_nor_downloads(cluster, sandbox, waits, roomy, videos, fault_row):
    """Workers miss some heartbeats, no more: the file is whole and what ends is noticed once."""
    film, run = _slow_download(cluster, videos / "api", "api-server", 15)
    cluster.airflow.kill_component("api-server")
    done = waits.some(1)
    waits.finish(done)
    time.sleep(5)
    cluster.airflow.start_component("api-server")
    cluster.airflow.wait_healthy()
    waits.noticed(done)
    waits.undisturbed()
    tries = _whole_file(cluster, run, film, videos / "api")
    fault_row(
        "airflow", "API server restarted under waits and a download", side="api-server",
        seen=f"the file is whole in try {tries}, {len(done)} generations noticed once",
        requests=len(sandbox.requests("file", film)), outcome=SURVIVED,
    )  # fmt: skip


def test_a_service_that_is_down_for_twenty_seconds(cluster, sandbox, waits, roomy, videos, fault_row):
    """Waits sit the outage out in their first try; a download that it cut ends with the whole file."""
    film, run = _slow_download(cluster, videos / "outage", "outage", 30)
    before = len(sandbox.requests("query"))
    sandbox.stop()
    time.sleep(20)
    sandbox.start()
    waits.all_asked_for(time.time())
    done = waits.some(1)
    waits.finish(done)
    waits.noticed(done)
    waits.undisturbed()
    tries = _whole_file(cluster, run, film, videos / "outage")
    fault_row(
        "airflow", "the service is down for 20 s under waits and a download", side="service",
        seen=f"the file is whole in try {tries}, no wait has failed", requests=len(sandbox.requests("query")) - before,
        outcome=SURVIVED,
    )  # fmt: skip


def _states(waits, names) -> set[str]:
    now = waits.now()
    return {now[name].state for name in names}


def _polls(sandbox, names) -> int:
    return sum(len(sandbox.requests("query", name)) for name in names)


def _slow_download(cluster, folder, name, seconds):
    """Start a download that takes some seconds, and return when it is under way."""
    film = cluster.sandbox.add_generation(f"film-{name}", states=[["completed", 0]], size=SIZE)
    action = {"trickle": SIZE / seconds}
    cluster.sandbox.add_fault({"match": {"kind": "file", "id": film}, "times": 1, "action": action})
    run = cluster.airflow.trigger("cluster_downloads", {"ids": [film], "folder": f"{folder.as_uri()}/"})
    assert wait_for(lambda: cluster.sandbox.requests("file", film) != [], PATIENCE)
    return film, run


def _whole_file(cluster, run, film, folder) -> int:
    """Check the published file against the service's own bytes; return the try that it took."""
    assert cluster.airflow.wait(run, timeout=PATIENCE) == "success"
    found = cluster.airflow.xcom(run, "download", map_index=0)
    content = (folder / f"{film}.mp4").read_bytes()
    assert content == cluster.sandbox.file_bytes(film)
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert [path.name for path in folder.iterdir()] == [f"{film}.mp4"]
    (task,) = (task for task in cluster.airflow.tasks(run) if task.name == "download[0]")
    return task.try_number
