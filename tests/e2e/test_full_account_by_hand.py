"""``dag.test()`` and ``airflow tasks test`` on a full account: the wait for a slot runs in place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from airflow_provider_vidu.sandbox import Sandbox

FILE = Path(__file__).parent / "own_process" / "full_account.py"
COMMANDS = {
    "dag.test()": (str(FILE),),
    "airflow tasks test": ("-m", "airflow", "tasks", "test", "full_account", "film", "2026-01-02"),
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Return the environment of an Airflow of its own, with nothing but a database."""
    home = tmp_path_factory.mktemp("by-hand")
    dags = home / "dags"
    dags.mkdir()
    (dags / FILE.name).symlink_to(FILE)
    made = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    made.pop("AIRFLOW__CORE__UNIT_TEST_MODE", None)
    _run(made, "-m", "airflow", "db", "migrate")
    return made


def _run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=environment["AIRFLOW_HOME"], check=False,
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("dialect", "way"),
    [
        ("ent-v2", "dag.test()"),
        # A gateway tells nothing, so it is tried again after a minute.
        pytest.param("vidu-native", "airflow tasks test", marks=pytest.mark.nightly),
        pytest.param("ent-v2", "airflow tasks test", marks=pytest.mark.nightly),
        pytest.param("vidu-native", "dag.test()", marks=pytest.mark.nightly),
    ],
)
def test_a_full_account_is_waited_for(environment, dialect, way):
    """The refused create is repeated when the other job has ended, and paid once."""
    with Sandbox(queue=0, duration=3, models="any", concurrency=1, when_full="refuse", gateway_concurrency=1) as full:
        path = "/ent/v2/text2video" if dialect == "ent-v2" else "/vidu-native/video/generations"
        scheme = "Token" if dialect == "ent-v2" else "Bearer"
        full.set_speed(0)
        body, headers = {"prompt": "another", "model": "viduq2"}, {"Authorization": f"{scheme} {full.key}"}
        requests.post(full.url + path, json=body, headers=headers, timeout=60).raise_for_status()
        connection = full.connection_json(dialect)
        process = {**environment, "AIRFLOW_CONN_VIDU_FULL_ACCOUNT": connection}
        seen = _seen(process, full, COMMANDS[way])
        assert "waiting in the triggerer for a free slot" in seen
        assert [create.body["prompt"] for create in full.creates] == ["another", "after the others"]
        assert 1 <= len(full.requests("create")) - len(full.creates) <= 3


def _seen(environment: dict[str, str], full: Sandbox, command: tuple[str, ...]) -> str:
    """Run a command; let time pass at the service once it has refused a create."""

    def resume() -> None:
        while len(full.requests("create")) < 2:
            if done.wait(0.1):
                return
        full.set_speed(1)

    done = threading.Event()
    watcher = threading.Thread(target=resume)
    watcher.start()
    try:
        return _run(environment, *command)
    finally:
        done.set()
        watcher.join()
