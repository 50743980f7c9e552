"""One private Airflow and one sandbox for all end-to-end tests of a session.

Most of the time goes into waiting for Airflow, so every DAG run that a test looks at is started as
soon as Airflow is ready (fixture ``runs``), and each test then takes up its own.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import PrivateAirflow, Run
from processes import wait_for
from tests.e2e.leaks import files_with, signed_files, spellings

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "example_dags"
FOREVER = [["pending", 0], ["processing", 0.1]]

# Made anew for each session, so that a leak of it cannot be mistaken for anything else.
KEY = f"vda-e2e-{secrets.token_hex(16)}"
WRONG_KEY = f"vda-wrong-{secrets.token_hex(16)}"
REVOKED_KEY = f"vda-revoked-{secrets.token_hex(16)}"

ONE_ID = ("deferred", "reschedule", "poke", "failed", "wrong_key", "key_revoked", "timed_out", "soft_fail")
OTHERS = ("mapped", "policy", "outlets", "on_films", "on_finished", "notified", "full", "budget", "revised")


@dataclass(frozen=True)
class Keys:
    """The API keys of the session, the good one and those that are refused."""

    good: str = KEY
    wrong: str = WRONG_KEY
    revoked: str = REVOKED_KEY


@pytest.fixture(scope="session")
def keys() -> Keys:
    """Return the keys of this session."""
    return Keys()


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Run the service: ordinary generations take nine seconds, presets whatever the test says."""
    with Sandbox(keys=[KEY, REVOKED_KEY], queue=1, duration=8, models="any", list_payload=True) as service:
        yield service


@pytest.fixture(scope="session")
def watched() -> Iterator[Sandbox]:
    """Run a second account, which one test alone uses: a DAG is started by everything that finishes there."""
    with Sandbox(keys=[KEY], list_payload=True) as service:
        yield service


@pytest.fixture(scope="session")
def full() -> Iterator[Sandbox]:
    """Run an account that makes one clip at a time, and refuses every further create; the first waits for others."""
    with Sandbox(keys=[KEY], queue=0, duration=8, models="any", gateway_concurrency=1) as service:
        service.set_speed(0)
        threading.Thread(target=_go_on_after, args=(service, 3), daemon=True).start()
        yield service


def _go_on_after(service: Sandbox, creates: int) -> None:
    """Start the clock of a service that has received some creates, however slowly Airflow starts their tasks."""
    wait_for(lambda: len(service.requests("create")) >= creates, timeout=600)
    service.set_speed(1)


@pytest.fixture(scope="session")
def billed() -> Iterator[Sandbox]:
    """Run an account that only the DAGs with a budget use; it loses the answer to its first create."""
    with Sandbox(keys=[KEY], queue=3600, models="any", list_payload=True, concurrency=None, price=10) as service:
        service.add_fault({"match": {"kind": "create"}, "times": 1, "action": {"lose_answer": True}})
        yield service


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """Return the folder that downloads go to."""
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def airflow(tmp_path_factory, sandbox, watched, full, billed, videos) -> Iterator[PrivateAirflow]:
    """Run Airflow with the examples and the DAGs of these tests, connected to the sandbox."""
    home = tmp_path_factory.mktemp("e2e") / "airflow"
    settings = {
        "CORE__PARALLELISM": "6",
        # How long a dead triggerer keeps its triggers; half a minute otherwise.
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    }
    environment = {"VIDU_EXAMPLES_DESTINATION": f"{videos.as_uri()}/"}
    dags = [HERE / "dags", EXAMPLES]
    with PrivateAirflow(home, dags, settings=settings, environment=environment, preload=True) as running:
        connections = {"vidu_default": KEY, "vidu_wrong_key": WRONG_KEY, "vidu_revoked": REVOKED_KEY}
        for conn_id, key in connections.items():
            running.add_connection(conn_id, {"conn_type": "vidu", "host": sandbox.url, "password": key, "extra": {}})
        ent = {"conn_type": "vidu", "host": sandbox.url, "password": KEY, "extra": {"dialect": "ent-v2"}}
        running.add_connection("vidu_ent", ent)
        running.add_connection("vidu_watched", {**ent, "host": watched.url})
        running.add_connection("vidu_billed", {**ent, "host": billed.url})
        running.add_connection("vidu_full", {"conn_type": "vidu", "host": full.url, "password": KEY})
        ours = [f"e2e_{way}" for way in (*ONE_ID, *OTHERS)]
        running.wait_for_dags(ours + [path.stem for path in EXAMPLES.glob("*.py")])
        yield running
    # Whatever ran, and in whatever order.
    assert files_with(home, [word for key in (KEY, WRONG_KEY, REVOKED_KEY) for word in spellings(key)]) == []
    assert signed_files(home) == {}


@pytest.fixture(scope="session")
def mapped_ids(sandbox) -> list[str]:
    """Return the generations of the mapped wait."""
    return [sandbox.add_generation(f"e2e-mapped-{number}", states=FOREVER) for number in range(10)]


@pytest.fixture(scope="session")
def finish(sandbox) -> Callable[[str], str]:
    """Return a function that lets a generation succeed now."""
    return lambda generation_id: sandbox.add_generation(generation_id, states=[["completed", 0]])


@pytest.fixture(scope="session")
def runs(airflow, sandbox, videos, mapped_ids) -> dict[str, Run]:
    """Start every DAG run but the one of the restart; the generations stay alive until a test ends them."""
    started = {}
    for way in ONE_ID:
        generation_id = sandbox.add_generation(f"e2e-{way}", states=FOREVER)
        started[way] = airflow.trigger(f"e2e_{way}", {"generation_id": generation_id})
    sandbox.add_generation("e2e-policy", states=[["completed", 0]])
    answer = {
        "status": 503,
        "body": {"code": "busy", "message": "later", "data": None},
        "headers": {"Retry-After": "3"},
    }
    sandbox.add_fault({"match": {"kind": "query", "id": "e2e-policy"}, "times": 1, "action": answer})
    started["policy"] = airflow.trigger("e2e_policy", {"generation_id": "e2e-policy"})
    started["full"] = airflow.trigger("e2e_full")
    started["revised"] = airflow.trigger("e2e_revised")
    started["budget"] = airflow.trigger("e2e_budget", {"deaths": {"2": "after_answer"}})
    started["mapped"] = airflow.trigger("e2e_mapped", {"generation_ids": mapped_ids})
    started["example"] = airflow.trigger("vidu_prompt_to_file", {"prompt": "a lighthouse", "folder": "example"})
    started["example_mapped"] = airflow.trigger(
        "vidu_mapped_prompts",
        {"prompts": ["a boat", "[fail:CreationPolicyViolation] a kite"], "folder": "mapped"},
    )
    started["example_two_operators"] = airflow.trigger(
        "vidu_generate_and_download", {"prompt": "a mill", "folder": "two"}
    )
    started["example_batch"] = airflow.trigger("vidu_batch", {"folder": "batch"})
    started["example_storyboard"] = airflow.trigger("vidu_storyboard", {"scenes": ["dawn", "dusk"], "folder": "story"})
    known = sandbox.add_generation("e2e-known", states=[["processing", 0], ["completed", 2]], size=3_000_000)
    sandbox.add_generation("e2e-outlets", states=[["completed", 0]])
    started["outlets"] = airflow.trigger(
        "e2e_outlets", {"generation_id": "e2e-outlets", "destination": f"{videos.as_uri()}/outlets/"}
    )
    told = {"code": "ModelGone", "message": "no such model; see https://cdn.example.com/why?sig=e2e-signature"}
    sandbox.add_generation("e2e-notified", states=[["processing", 0], ["failed", 8]], error=told)
    started["notified"] = airflow.trigger("e2e_notified", {"generation_id": "e2e-notified"})
    started["example_known"] = airflow.trigger(
        "vidu_wait_and_download", {"generation_id": known, "folder": "known", "name": "film"}
    )
    return started
