"""A worker's machine dies in the middle of a download and of four submits; another one takes over."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from fault_table import CLEAR_ERROR, SURVIVED
from private_airflow import Run, errors_in
from processes import wait_for
from tests.cluster.cluster_state import PATIENCE

SIZE = 3_000_000
MOMENTS = ("before", "after")
DIALECTS = {"native": "vidu-native", "ent": "ent-v2"}


def test_a_killed_worker_loses_and_repeats_nothing(cluster, sandbox, gate, videos, fault_row):
    """After kill -9 the retry has the whole file; an order is paid once, or its outcome is reported as unknown."""
    airflow, folder = cluster.airflow, videos / "killed"
    for worker in ("worker-1", "worker-2"):
        airflow.kill_component(worker)
    # Everything is on this one, and all of it at once.
    airflow.start_component("worker-1", "--concurrency", str(2 + len(MOMENTS) * len(DIALECTS)))
    film = sandbox.add_generation("killed-worker", states=[["completed", 0]], size=SIZE)
    slow = {"trickle": SIZE / 100}
    sandbox.add_fault({"match": {"kind": "file", "id": film}, "times": 1, "action": slow})
    for dialect in DIALECTS.values():
        # Carried out and billed at once, but the answer comes when there is nobody left to read it.
        sandbox.add_fault({"match": {"kind": "create", "dialect": dialect}, "times": 1, "action": {"delay": 200}})
    gate.shut, gate.kept = True, 0
    download = airflow.trigger("cluster_downloads", {"ids": [film], "folder": f"{folder.as_uri()}/"})
    orders = {(moment, short): _order(airflow, moment, short) for moment in MOMENTS for short in DIALECTS}

    assert wait_for(lambda: _in_flight(cluster, gate, film, folder), PATIENCE), "not everything was under way at once"
    airflow.kill_component("worker-1")
    killed = time.time()
    gate.shut = False
    for worker in ("worker-2", "worker-1"):
        airflow.start_component(worker)

    assert airflow.wait(download, timeout=PATIENCE) == "success"
    _check_file(cluster, download, film, folder)
    fault_row(
        "airflow", "kill -9 of a worker in the middle of a download", side="worker",
        seen="the retry has the whole file", requests=len(sandbox.requests("file", film)), outcome=SURVIVED,
    )  # fmt: skip
    for moment in MOMENTS:
        _check_marked(cluster, orders[moment, "ent"], moment, fault_row)
        _check_unknown(cluster, orders[moment, "native"], moment, fault_row)
    # What the dead worker had taken from the queue is handed out once more after its time: to no effect.
    time.sleep(max(killed + 75 - time.time(), 0))
    for moment in MOMENTS:
        for short in DIALECTS:
            assert len(_billed(cluster, moment, short)) == (0 if (moment, short) == ("before", "native") else 1)
    assert len(sandbox.requests("file", film)) == 2


def _prompt(moment: str, short: str) -> str:
    return f"killed {moment} {short}"


def _order(airflow, moment: str, short: str) -> Run:
    conn_id = f"vidu_gate_{short}" if moment == "before" else f"vidu_{short}"
    return airflow.trigger("cluster_orders", {"prompts": [_prompt(moment, short)], "conn_id": conn_id})


def _billed(cluster, moment: str, short: str):
    return cluster.billed([_prompt(moment, short)])


def _arrived(cluster, moment: str, short: str) -> int:
    """Count the submits of an order that reached the service."""
    prompts = [request.body.get("prompt") for request in cluster.sandbox.requests("create")]
    return prompts.count(_prompt(moment, short))


def _in_flight(cluster, gate, film: str, folder: Path) -> bool:
    submitted = all(_billed(cluster, "after", short) for short in DIALECTS)
    written = any(path.stat().st_size for path in folder.glob("*")) if folder.exists() else False
    return submitted and gate.kept == len(DIALECTS) and written


def _check_file(cluster, run: Run, film: str, folder: Path) -> None:
    found = cluster.airflow.xcom(run, "download", map_index=0)
    content = (folder / f"{film}.mp4").read_bytes()
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert content == cluster.sandbox.file_bytes(film)
    (task,) = (task for task in cluster.airflow.tasks(run) if task.name == "download[0]")
    assert task.try_number == 2


def _check_marked(cluster, run: Run, moment: str, fault_row) -> None:
    """ent-v2 can be searched by the marker: paid once, and the task goes on with that generation."""
    task = cluster.airflow.wait_for_task(run, "film[0]", "deferred", PATIENCE)
    (paid,) = _billed(cluster, moment, "ent")
    cluster.finish([paid.id], "ent-v2")
    assert cluster.airflow.wait(run, timeout=PATIENCE) == "success"
    assert (task.try_number, paid.charge) == (2, "charged")
    assert cluster.airflow.xcom(run, "film", map_index=0)["id"] == paid.id
    log = cluster.airflow.task_log(run, "film", map_index=0)
    words = "Resuming generation" if moment == "after" else "submitting now"
    (told,) = {line for line in cluster.messages(log) if words in line}
    fault_row(
        "airflow", f"kill -9 of a worker, {moment} the submit reached the service", side="worker, ent-v2", seen=told,
        requests=_arrived(cluster, moment, "ent"), outcome=SURVIVED,
    )  # fmt: skip


def _check_unknown(cluster, run: Run, moment: str, fault_row) -> None:
    """vidu-native can neither be searched nor marked: a clear error instead of a second charge."""
    assert cluster.airflow.wait(run, timeout=PATIENCE) == "failed"
    error = errors_in(cluster.airflow.task_log(run, "film", map_index=0))[-1]
    assert "ViduSubmitUnknownError" in error
    fault_row(
        "airflow", f"kill -9 of a worker, {moment} the submit reached the service", side="worker, vidu-native",
        seen=error, requests=_arrived(cluster, moment, "native"), outcome=CLEAR_ERROR,
    )  # fmt: skip
