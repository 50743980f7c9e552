"""Hundreds of clips for five slots, foreign jobs beside them, priorities, and a triggerer that is killed."""

from __future__ import annotations

import os
import random
import threading
import time
from statistics import mean

import pytest
import requests

from airflow_provider_vidu.sandbox import Sandbox
from fault_table import SURVIVED
from tests.crowd.conftest import SECOND

COUNT = int(os.environ.get("VIDU_CROWD", "300")) // 3 * 3
SLOTS = 5
SECONDS = 6.0
PATIENCE = 60.0 + 5.0 * COUNT
ACCOUNTS = {
    "official": ("ent-v2", {"concurrency": SLOTS, "when_full": "refuse"}, "/ent/v2/text2video", "Token"),
    "gateway": ("vidu-native", {"gateway_concurrency": SLOTS}, "/vidu-native/video/generations", "Bearer"),
}
GROUPS = ("low", "middle", "high")


class Foreign(threading.Thread):
    """Another user of the same account: now nothing, now up to three jobs at once."""

    def __init__(self, sandbox: Sandbox, path: str, scheme: str) -> None:
        super().__init__(daemon=True)
        self._url = sandbox.url + path
        self._headers = {"Authorization": f"{scheme} {sandbox.key}"}
        self._random = random.Random(5)
        self._ending = threading.Event()
        self.created = self.refused = 0

    def run(self) -> None:
        """Submit until asked to stop."""
        while not self._ending.wait(self._random.uniform(2, 20)):
            for _ in range(self._random.randint(1, 3)):
                body = {"prompt": "foreign", "model": "viduq2"}
                answer = requests.post(self._url, json=body, headers=self._headers, timeout=60)
                self.created += answer.ok
                self.refused += not answer.ok

    def stop(self) -> None:
        """Stop, and wait for the last answer."""
        self._ending.set()
        self.join(120)


@pytest.mark.parametrize("kind", ACCOUNTS)
def test_a_crowd_is_served(airflow, kind, fault_row):
    """Each clip is made and paid once, without a retry, with few refusals, and the urgent ones come first."""
    dialect, account, path, scheme = ACCOUNTS[kind]
    with Sandbox(queue=0, duration=SECONDS, balance=1_000_000, models="any", **account) as sandbox:
        fields = {"conn_type": "vidu", "host": sandbox.url, "password": sandbox.key, "extra": {"dialect": dialect}}
        airflow.add_connection(f"vidu_{kind}", fields)
        foreign = Foreign(sandbox, path, scheme)
        foreign.start()
        try:
            run = airflow.trigger("crowd", {"count": COUNT // 3, "conn_id": f"vidu_{kind}"})
            _killed_in_the_middle(airflow, lambda: len(_ours(sandbox)) >= COUNT // 2)
            state = airflow.wait(run, timeout=PATIENCE)
        finally:
            foreign.stop()
        tasks = [task for task in airflow.tasks(run) if task.record["task_id"].startswith("film")]
        ours, sent = _ours(sandbox), len(sandbox.requests("create"))
    assert state == "success", airflow.states(run)
    assert {task.try_number for task in tasks} == {1}
    prompts = [create.body["prompt"] for create in ours]
    assert len(prompts) == len(set(prompts)) == COUNT
    refused = sent - COUNT - foreign.created - foreign.refused
    print(f"{kind}: {refused / COUNT:.2f} refused creates per clip, {foreign.created} foreign jobs")
    assert refused <= 3 * COUNT
    turns = {group: mean(at for at, prompt in enumerate(prompts) if prompt.startswith(group)) for group in GROUPS}
    assert turns["high"] < turns["middle"] < turns["low"]
    fault_row(
        "airflow", f"a triggerer is killed under {COUNT} tasks of an account with {SLOTS} slots", side=kind,
        seen=f"all made, paid once, {refused / COUNT:.1f} refused creates per clip", requests=sent, outcome=SURVIVED,
    )  # fmt: skip


def _ours(sandbox: Sandbox) -> list:
    return [create for create in sandbox.creates if create.body["prompt"] != "foreign"]


def _killed_in_the_middle(airflow, is_middle) -> None:
    """Kill one of the triggerers when it is time, and replace it half a minute later."""
    deadline = time.monotonic() + PATIENCE
    while not is_middle():
        assert time.monotonic() < deadline, "the middle was never reached"
        time.sleep(1)
    airflow.kill_component(SECOND)
    time.sleep(30)
    airflow.start_component(SECOND)
